"""Engines turn prompts into completions. They are plugs: the stages know only the protocol below."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

import msgspec

from prover.records import ChatMessage


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How completions are drawn. ``temperature`` 0 is greedy; ``top_p`` keeps the likeliest tokens of that mass."""

    temperature: float
    top_p: float
    max_tokens: int
    """New tokens at most, per completion."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are not part of its text."""


class GenerationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``len(seeds)`` completions of one conversation; ``seeds[i]`` decides the i-th, whatever else is in the batch.

    ``first`` completions of the conversation were drawn by earlier requests: a script goes on there.
    """

    id: str
    messages: tuple[ChatMessage, ...]
    seeds: tuple[int, ...]
    first: int = 0


class Completion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One finished completion. ``logprob`` sums log p of its tokens at temperature 1, in nats, end token included."""

    request_id: str
    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    logprob: float | None


def leaves_room(prompt_tokens: float, context: int) -> bool:
    """Whether a prompt leaves a quarter of the context, in tokens, for the answer
    (Goedel-Prover-V2, arXiv 2508.03613)."""
    return 4 * prompt_tokens <= 3 * context


@runtime_checkable
class Lasting(Protocol):
    """An engine that is dear to start, and so is kept over rounds."""

    def rest(self) -> None:
        """Free what training needs, until the next ``swap``."""
        ...

    def swap(self, path: Path) -> bool:
        """Take another checkpoint's weights in place. False where another engine has to be opened for it."""
        ...


class Engine(Protocol):
    """A loaded model. A context manager that owns its memory.

    The same requests in the same call, with the same weights on the same machine, give the same completions.
    """

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the prompt leaves a quarter of the model's context for the answer."""
        ...

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> Iterator[Completion]:
        """Yield each completion as it finishes, in any order."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
