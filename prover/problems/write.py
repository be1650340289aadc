"""What ``prover problems`` does: read a source, keep what the Lean at hand accepts, write Problems as JSONL."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from lean_env import toolchain as lean
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, StatementFailure
from prover.artifacts import disk_errors
from prover.config import ProblemsConfig
from prover.errors import InputError
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
    workers: int = 2,
    progress: Progress | None = None,
) -> ProblemCounts:
    """Write the problems of ``config`` to ``out`` (to standard output when None), whole or not at all.

    With ``elaborates`` only those whose header and statement the installed Lean accepts; ``progress`` gets one note for
    each other, with Lean's message. Raises InputError where none is left.
    """
    progress = progress or Silent()
    problems = list(read_problems(config, workers=workers, progress=progress))
    refused = _refused(problems, workers, progress) if elaborates else {}
    kept = [problem for problem in problems if problem.id not in refused]
    if not kept:
        why = f"none of {len(problems)} statements elaborates in this Lean" if refused else "there are no problems"
        raise InputError(f"{_source(config)}: {why}; nothing was written")
    encoder = msgspec.json.Encoder()
    with _destination(out) as file:
        for problem in kept:
            file.write(encoder.encode(problem) + b"\n")
    counts = ProblemCounts(len(problems), len(refused), len(kept))
    if elaborates:
        progress.note(f"{counts.written} of {counts.read} statements elaborate, {counts.rejected} do not")
    return counts


def _refused(problems: list[Problem], workers: int, progress: Progress) -> dict[str, StatementFailure]:
    """What Lean says of the statements that it does not accept, by problem."""
    requests = (CheckRequest(p.id, p.header, p.formal_statement, proof="") for p in problems)
    refused: dict[str, StatementFailure] = {}
    with (
        LeanPool(lean.find(), workers) as pool,
        progress.stage("elaborate", len(problems), "statements") as meter,
    ):
        for identifier, failure in pool.elaborate(requests):
            meter.add(1, checks=1)
            if failure is not None:
                refused[identifier] = failure
    for problem in problems:
        if failure := refused.get(problem.id):
            progress.note(f"{problem.id}: {failure.where} does not elaborate: {_first_line(failure)}")
    return refused


@contextmanager
def _destination(out: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears only when all went well."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = out.with_name(f".{out.name}.tmp")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


def _first_line(failure: StatementFailure) -> str:
    errors = [m for m in failure.messages if m.severity == "error"]
    return errors[0].text.split("\n", 1)[0] if errors else failure.reason


def _source(config: ProblemsConfig) -> str:
    return config.source if config.source == "core" else str(config.path)
