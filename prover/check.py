"""What ``prover check`` does: a verdict for each candidate of a JSONL file, or a compiler's messages for Lean files."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from lean_env.cache import open_cache
from lean_env.errors import WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Message, Verdict
from lean_env.slot import Startable
from lean_env.toolchain import find
from prover.artifacts import file_digest
from prover.errors import InputError
from prover.jsonl import read_jsonl
from prover.partial import Partial, PartialHeader
from prover.progress import Progress, Silent
from prover.records import Record
from prover.stages.verify import tell_cached


class Candidate(Record, frozen=True):
    """A line of the input: a trusted statement, which ends before ``:=``, and a candidate proof of it."""

    id: str
    header: str
    formal_statement: str
    proof: str
    forbidden_constants: tuple[str, ...] = ()


class CheckSummary(msgspec.Struct, frozen=True):
    """How many candidates ended how; ``statements`` counts those whose own statement does not elaborate."""

    output: Path
    statuses: dict[str, int]
    statements: int

    def __str__(self) -> str:
        parts = [f"{count:,} {status}" for status, count in self.statuses.items()]
        if self.statements:
            parts.append(f"{self.statements:,} whose statement does not elaborate")
        return f"{self.output}: " + (", ".join(parts) or "nothing")


def check_jsonl(
    source: Path,
    output: Path,
    *,
    workers: int = 2,
    limits: Limits | None = None,
    progress: Progress | None = None,
    toolchain: Startable | None = None,
    cache: Path | None = None,
) -> CheckSummary:
    """Writes a Verdict (or a StatementFailure) for each line of ``source``, in its order.

    The whole input is read and found in order before Lean starts; ``output`` appears once it is complete. Until then
    each result is kept in a file beside it as it comes, and the same call goes on from there. ``toolchain`` is Lean,
    None the installed one. ``cache`` is a file of verdicts that are taken from there and kept. Raises InputError,
    DiskError and LeanError.
    """
    limits, progress = limits or Limits(), progress or Silent()
    place = {c.id: number for number, c in enumerate(read_jsonl(source, Candidate, unique="id"))}
    if not output.parent.is_dir():
        raise InputError(f"{output}: its folder does not exist; make it or choose another --out")
    toolchain = toolchain or find()
    header = PartialHeader(file_digest(source), limits, toolchain.version)
    encoder = msgspec.json.Encoder()
    with Partial(output, header, place) as partial:
        if partial.found:
            progress.note(f"{partial.found:,} of {len(place):,} candidates were checked before; the others are checked")
        with (
            open_cache(cache, progress.note) as verdicts,
            LeanPool(toolchain, workers, cache=verdicts) as pool,
            progress.stage("check", len(place) - partial.found, "candidates") as meter,
        ):
            for result in pool.check(_requests(source, limits, partial.has)):
                status = result.status if isinstance(result, Verdict) else None
                partial.add(result.attempt_id, status, encoder.encode(result))
                meter.add(1, checks=1, proved=int(status == "proved"))
        partial.finish()
        tell_cached(pool.stats.cached, output.name, progress)
        statuses = partial.statuses.copy()
    statements = statuses.pop(None, 0)
    return CheckSummary(output, {str(status): count for status, count in statuses.most_common()}, statements)


def _requests(source: Path, limits: Limits, checked: Callable[[str], bool]) -> Iterator[CheckRequest]:
    for c in read_jsonl(source, Candidate, unique="id"):
        if not checked(c.id):
            yield CheckRequest(c.id, c.header, c.formal_statement, c.proof, c.forbidden_constants, limits)


class _FileReply(msgspec.Struct, frozen=True):
    messages: tuple[Message, ...]


def check_files(
    paths: Sequence[Path],
    *,
    workers: int = 1,
    limits: Limits | None = None,
    show: Callable[[str], None] = print,
    toolchain: Startable | None = None,
) -> bool:
    """Elaborates Lean files and shows their messages as compilers do; True where none has an error.

    This is no sound check of anything: a file may declare axioms. It runs as confined as candidates do.
    """
    limits = limits or Limits()
    texts: list[tuple[Path, str]] = []
    for path in paths:
        try:
            texts.append((path, path.read_text("utf-8")))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a Lean file") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 (byte {error.start}); Lean files must be") from error
    fine = True
    workers = min(workers, len(texts)) or 1
    # The pool inside: after Ctrl-C it closes first, which ends what the threads wait for.
    with ThreadPoolExecutor(workers) as threads, LeanPool(toolchain or find(), workers) as pool:

        def elaborate(text: str) -> _FileReply | WorkerError:
            request = {"op": "file", "text": text, "heartbeats": limits.heartbeats}
            try:
                return msgspec.convert(pool.ask(request, limits), _FileReply)
            except WorkerError as error:
                return error

        for (path, _), reply in zip(texts, threads.map(elaborate, [text for _, text in texts])):
            if isinstance(reply, WorkerError):
                show(f"{path}:1:1: error: {str(reply).removeprefix('file: ')}")
                fine = False
                continue
            for message in reply.messages:
                show(compiler_line(path, message))
                fine = fine and message.severity != "error"
    return fine


_WORDS: dict[str, Literal["error", "warning", "info"]] = {"error": "error", "warning": "warning", "information": "info"}


def compiler_line(path: Path, message: Message) -> str:
    """``FILE:LINE:COLUMN: SEVERITY: TEXT``, columns from 1 as editors count them."""
    line, column = message.start
    return f"{path}:{line}:{column + 1}: {_WORDS[message.severity]}: {message.text.rstrip()}"
