"""The scripted engine: completions from a file, for tests and replays. No model, no tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from prover.engines import Completion, GenerationRequest, Sampling
from prover.errors import InputError
from prover.jsonl import read_jsonl
from prover.records import ChatMessage


class ScriptLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The completions of one request, by index."""

    request_id: str
    completions: tuple[str, ...]


class ScriptedEngine:
    """Answers request ``id`` with the lines of a script. Raises InputError for a bad script or a request not in it.

    Tokens are counted as words; the temperature and the seeds play no part; stop strings do.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._lines: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Self:
        self._lines = {
            line.request_id: line.completions for line in read_jsonl(self._script, ScriptLine, unique="request_id")
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._lines = {}

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        return True

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> Iterator[Completion]:
        for request in requests:
            lines = self._lines.get(request.id)
            if lines is None:
                raise InputError(f"{self._script}: holds no line with request_id {request.id!r}; add one")
            end = request.first + len(request.seeds)
            if len(lines) < end:
                raise InputError(
                    f"{self._script}: request_id {request.id!r}: completions: {len(lines)} are there, "
                    f"{end} are asked for; add the rest"
                )
            prompt_tokens = sum(len(message.content.split()) for message in request.messages)
            for index, text in enumerate(lines[request.first : end]):
                ends = [end for stop in sampling.stop if (end := text.find(stop)) >= 0]
                words = text[: min(ends)] if ends else text
                yield Completion(
                    request_id=request.id,
                    index=index,
                    text=words,
                    finish_reason="stop",
                    prompt_tokens=prompt_tokens,
                    completion_tokens=len(words.split()),
                    logprob=None,
                )
