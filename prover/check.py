"""What ``prover check`` does: a verdict for each candidate of a JSONL file, or a compiler's messages for Lean files."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from lean_env.errors import WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Message, StatementFailure, Verdict
from lean_env.toolchain import find
from prover.artifacts import disk_errors
from prover.errors import InputError
from prover.jsonl import read_jsonl
from prover.progress import Progress, Silent
from prover.records import Record


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
    source: Path, output: Path, *, workers: int = 2, limits: Limits | None = None, progress: Progress | None = None
) -> CheckSummary:
    """Writes a Verdict (or a StatementFailure) for each line of ``source``, in its order.

    The whole input is read and found in order before Lean starts; ``output`` appears once it is complete. Raises
    InputError, DiskError and LeanError.
    """
    limits = limits or Limits()
    ids = [candidate.id for candidate in read_jsonl(source, Candidate, unique="id")]
    place = {ident: number for number, ident in enumerate(ids)}
    statuses: Counter[str] = Counter()
    statements = 0
    temporary = output.with_name(f".{output.name}.tmp")
    encoder = msgspec.json.Encoder()
    with disk_errors(output):
        if not output.parent.is_dir():
            raise InputError(f"{output}: its folder does not exist; make it or choose another --out")
        with (
            temporary.open("wb") as file,
            LeanPool(find(), workers) as pool,
            (progress or Silent()).stage("check", len(ids), "candidates") as meter,
        ):
            waiting: dict[int, Verdict | StatementFailure] = {}
            written = 0
            for result in pool.check(_requests(source, limits)):
                waiting[place[result.attempt_id]] = result
                proved = isinstance(result, Verdict) and result.proved
                meter.add(1, checks=1, proved=int(proved))
                if isinstance(result, Verdict):
                    statuses[result.status] += 1
                else:
                    statements += 1
                while written in waiting:
                    file.write(encoder.encode(waiting.pop(written)) + b"\n")
                    written += 1
        temporary.replace(output)
    return CheckSummary(output, dict(statuses.most_common()), statements)


def _requests(source: Path, limits: Limits) -> Iterator[CheckRequest]:
    for line in read_jsonl(source, Candidate, unique="id"):
        yield CheckRequest(line.id, line.header, line.formal_statement, line.proof, line.forbidden_constants, limits)


class _FileReply(msgspec.Struct, frozen=True):
    messages: tuple[Message, ...]


def check_files(
    paths: Sequence[Path], *, workers: int = 1, limits: Limits | None = None, show: Callable[[str], None] = print
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
    with ThreadPoolExecutor(workers) as threads, LeanPool(find(), workers) as pool:

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
