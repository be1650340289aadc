"""One way to read problems, whatever their source."""

from collections.abc import Iterator
from pathlib import Path

from lean_env.errors import StatementError
from lean_env.source import target_name, tokens
from prover.config import CoreProblems, JsonlProblems, MiniF2FProblems, ProblemsConfig
from prover.errors import InputError
from prover.jsonl import read_jsonl
from prover.problems.core import core_problems
from prover.problems.library import load_library
from prover.problems.minif2f import minif2f_problems
from prover.problems.retrieve import Retriever
from prover.progress import Progress
from prover.records import Problem


def read_problems(config: ProblemsConfig, *, workers: int = 2, progress: Progress | None = None) -> Iterator[Problem]:
    """The problems of a source, in an order that does not change.

    The core library, and premises for any source, need an installed Lean; the first use takes about a minute of
    ``workers`` Lean processes. Raises InputError for a file that cannot be used,
    and LeanError.
    """
    match config:
        case CoreProblems():
            return core_problems(config, load_library(workers=workers, progress=progress))
        case MiniF2FProblems():
            return minif2f_problems(config, lambda: Retriever(load_library(workers=workers, progress=progress)))
        case JsonlProblems():
            return _jsonl_problems(config)


def _jsonl_problems(config: JsonlProblems) -> Iterator[Problem]:
    for number, problem in enumerate(read_jsonl(config.path, Problem, unique="id"), 1):
        if config.limit is not None and number > config.limit:
            return
        _check(problem, config.path)
        yield problem


def _check(problem: Problem, path: Path) -> None:
    """What every Problem must be, beyond the types of its fields."""
    where = f"{path}: problem {problem.id!r}"
    if not problem.id.strip():
        raise InputError(f"{path}: field id: is empty; name each problem")
    try:
        target_name(problem.formal_statement)
    except StatementError as error:
        raise InputError(f"{where}: field {error}") from error
    code = [t.text for t in tokens(problem.formal_statement) if t.kind not in ("space", "comment", "doc")]
    if code[-2:] == [":", "="] or code[-3:] == [":", "=", "by"]:
        raise InputError(f"{where}: field formal_statement: must end before ':='; delete the ':=' and what follows it")
