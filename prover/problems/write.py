"""What ``prover problems`` does: read a source, keep what the Lean at hand accepts, write Problems as JSONL."""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, StatementFailure
from lean_env.sandbox import require
from prover.artifacts import disk_errors
from prover.config import EmbeddedLean, LeanConfig, ProblemsConfig
from prover.errors import InputError
from prover.lean import kind_of, open_lean
from prover.problems.read import read_problems
from prover.progress import Progress, Silent
from prover.records import Problem


class ProblemCounts(msgspec.Struct, frozen=True):
    """How many problems were read, how many of them Lean did not accept, and how many were written."""

    read: int
    rejected: int
    written: int


def run_problems(
    config: ProblemsConfig,
    out: Path | None = None,
    *,
    elaborates: bool = False,
    lean: LeanConfig | None = None,
    require_sandbox: bool = False,
    progress: Progress | None = None,
) -> ProblemCounts:
    """Write the problems of ``config`` as they are read, to ``out``, which appears once it is whole, or to standard
    output when None.

    With ``elaborates`` only those whose header and statement ``lean`` accepts; ``progress`` gets one note for
    each other, with Lean's message. Raises InputError where none is left.
    """
    progress, lean = progress or Silent(), lean or EmbeddedLean()
    if require_sandbox:
        require(kind_of(lean) if elaborates else "embedded")
    problems = read_problems(config, workers=lean.workers, progress=progress)
    judged = _judged(problems, config.limit or 0, lean, progress) if elaborates else ((p, None) for p in problems)
    encoder = msgspec.json.Encoder()
    read = rejected = 0
    with closing(judged), _destination(out) as write:
        for problem, failure in judged:
            read += 1
            if failure is None:
                write(encoder.encode(problem) + b"\n")
            else:
                rejected += 1
                progress.note(f"{problem.id}: {failure.where} does not elaborate: {_first_line(failure)}")
        if read == rejected:
            why = f"none of {read} statements elaborates in this Lean" if read else "there are no problems"
            raise InputError(f"{_source(config)}: {why}; nothing was written")
    counts = ProblemCounts(read, rejected, read - rejected)
    if elaborates:
        progress.note(f"{counts.written} of {counts.read} statements elaborate, {counts.rejected} do not")
    return counts


def _judged(
    problems: Iterator[Problem], total: int, lean: LeanConfig, progress: Progress
) -> Generator[tuple[Problem, StatementFailure | None]]:
    """Each problem, in order, with what Lean says against it. Only those that are under way are held."""
    under_way: deque[Problem] = deque()  # filled by the pool's own thread, before it hands the request on
    answers: dict[str, StatementFailure | None] = {}

    def requests() -> Iterator[CheckRequest]:
        for p in problems:
            under_way.append(p)
            yield CheckRequest(p.id, p.header, p.formal_statement, proof="")

    toolchain = open_lean(lean, say=progress.note)
    with LeanPool(toolchain, lean.workers) as pool, progress.stage("elaborate", total, "statements") as meter:
        for identifier, failure in pool.elaborate(requests()):
            meter.add(1, checks=1)
            answers[identifier] = failure
            while under_way and under_way[0].id in answers:
                problem = under_way.popleft()
                yield problem, answers.pop(problem.id)


@contextmanager
def _destination(out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Writes to standard output, or to a file that appears only when all went well."""
    if out is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    temporary = out.with_name(f".{out.name}.tmp")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")

    def write(data: bytes) -> None:
        with disk_errors(out):
            file.write(data)

    try:
        with file:
            yield write
            with disk_errors(out):
                file.flush()
        with disk_errors(out):
            temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _first_line(failure: StatementFailure) -> str:
    errors = [m for m in failure.messages if m.severity == "error"]
    return errors[0].text.split("\n", 1)[0] if errors else failure.reason


def _source(config: ProblemsConfig) -> str:
    return config.source if config.source == "core" else str(config.path)
