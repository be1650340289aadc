"""What ``prover problems`` does: read a source, keep what the Lean at hand accepts, write Problems as JSONL."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from lean_env import toolchain as lean
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, StatementFailure
from prover.artifacts import disk_errors
from prover.config import ProblemsConfig
from prover.errors import InputError
from prover.problems.library import Progress
from prover.problems.read import read_problems
from prover.records import Problem


class ProblemCounts(msgspec.Struct, frozen=True):
    """How many problems were read, how many of them Lean did not accept, and how many were written."""

    read: int
    rejected: int
    written: int


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def run_problems(
    config: ProblemsConfig,
    out: Path | None = None,
    *,
    elaborates: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
    report: Callable[[str], None] = _to_stderr,
) -> ProblemCounts:
    """Write the problems of ``config`` to ``out`` (to standard output when None), whole or not at all.

    With ``elaborates`` only those whose header and statement the installed Lean accepts; ``report`` gets one line for
    each other, with Lean's message (default: standard error). Raises InputError where none is left.
    """
    read = rejected = written = 0
    with ExitStack() as stack:
        problems: Iterable[Problem] = read_problems(config, workers=workers, progress=progress)
        judged: Iterator[tuple[Problem, StatementFailure | None]]
        if elaborates:
            pool = stack.enter_context(LeanPool(lean.find(), workers))
            judged = elaborated(problems, pool)
        else:
            judged = ((problem, None) for problem in problems)
        write = stack.enter_context(_destination(out))
        encoder = msgspec.json.Encoder()
        for problem, failure in judged:
            read += 1
            if failure is not None:
                rejected += 1
                report(f"{problem.id}: {failure.where} does not elaborate: {_first_line(failure)}")
                continue
            written += 1
            write(encoder.encode(problem) + b"\n")
        if not written:
            why = f"none of {read} statements elaborates in this Lean" if rejected else "there are no problems"
            raise InputError(f"{_source(config)}: {why}; nothing was written")
    return ProblemCounts(read, rejected, written)


def elaborated(problems: Iterable[Problem], pool: LeanPool) -> Iterator[tuple[Problem, StatementFailure | None]]:
    """Each problem, in order, with None where its header and statement elaborate and with the failure where not."""
    waiting: deque[Problem] = deque()  # filled by the pool's own thread

    def requests() -> Iterator[CheckRequest]:
        for problem in problems:
            waiting.append(problem)
            yield CheckRequest(problem.id, problem.header, problem.formal_statement, "")

    answered: dict[str, StatementFailure | None] = {}
    for identifier, failure in pool.elaborate(requests()):
        answered[identifier] = failure
        while waiting and waiting[0].id in answered:
            problem = waiting.popleft()
            yield problem, answered.pop(problem.id)


@contextmanager
def _destination(out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """A function that writes bytes: to standard output, or to a file that appears only when all went well."""
    if out is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    temporary = out.with_name(f".{out.name}.tmp")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file.write
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


def _first_line(failure: StatementFailure) -> str:
    errors = [m for m in failure.messages if m.severity == "error"]
    return errors[0].text.split("\n", 1)[0] if errors else failure.reason


def _source(config: ProblemsConfig) -> str:
    return config.source if config.source == "core" else str(config.path)
