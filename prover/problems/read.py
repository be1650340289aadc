"""One way to read problems, whatever their source."""

from collections.abc import Iterator
from itertools import islice

from lean_env.errors import StatementError
from lean_env.source import target_name, tokens
from prover.config import CoreProblems, JsonlProblems, MiniF2FProblems, ProblemsConfig
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
    return islice(read_jsonl(config.path, Problem, unique="id", fault=_fault), config.limit)


def _fault(problem: Problem) -> str | None:
    """What every Problem must be, beyond the types of its fields."""
    if not problem.id.strip():
        return "field id: is empty; name each problem"
    try:
        target_name(problem.formal_statement)
    except StatementError as error:
        return f"field {error} ({problem.id})"
    code = [t.text for t in tokens(problem.formal_statement) if t.kind not in ("space", "comment", "doc")]
    if code[-2:] == [":", "="] or code[-3:] == [":", "=", "by"]:
        return f"field formal_statement: must end before ':='; delete the ':=' and what follows it ({problem.id})"
    return None
