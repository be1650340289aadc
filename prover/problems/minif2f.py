"""miniF2F in the editions of DeepSeek-Prover-V1.5 (header apart from the statement) and Goedel-Prover-V2 (one text)."""

import re
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from lean_env.source import tokens
from prover.config import MiniF2FProblems
from prover.jsonl import read_jsonl
from prover.problems.retrieve import Retriever
from prover.records import Problem

CORE_HEADER = 'set_option autoImplicit false\nnotation "ℕ" => Nat\nnotation "ℤ" => Int\nnotation "ℚ" => Rat'
"""In the place of Mathlib's header: statements that need nothing else of Mathlib elaborate in the core library."""


class _Line(msgspec.Struct, frozen=True):
    """A line of either edition. Other fields (``goal``, ``lean4_code``) are not needed."""

    name: str
    split: Literal["valid", "test"]
    formal_statement: str
    informal_prefix: str = ""
    header: str | None = None


def minif2f_problems(config: MiniF2FProblems, retriever: Callable[[], Retriever]) -> Iterator[Problem]:
    """The file's problems, in its order. ``retriever`` is called only if the configuration asks for premises."""
    index = retriever() if config.premises else None
    given = 0
    for line in read_jsonl(config.path, _Line, unique="name", fault=_fault):
        if config.split not in ("all", line.split):
            continue
        if given == config.limit:
            return
        given += 1
        header, statement = _parts(line)
        yield Problem(
            id=f"minif2f/{line.name}",
            header=CORE_HEADER if config.header == "core" else header,
            formal_statement=statement,
            informal_statement=_uncommented(line.informal_prefix) or None,
            source="minif2f",
            split=line.split,
            premises=None if index is None else index.retrieve(statement, config.premises),
        )


def _span(line: _Line) -> tuple[int, int] | str:
    """Where the statement starts (at ``theorem``) and ends (before the ``:=`` at its end), or what is wrong with it."""
    code = [t for t in tokens(line.formal_statement) if t.kind not in ("space", "comment", "doc")]
    start = next((t.start for t in code if t.kind == "ident" and t.text in ("theorem", "lemma")), None)
    if start is None:
        return f"field formal_statement: states no theorem ({line.name})"
    end = [t.text for t in code[-3:]]
    ending = 3 if end == [":", "=", "by"] else 2 if end[1:] == [":", "="] else 0
    if not ending:
        return f"field formal_statement: does not end with ':=' or ':= by' ({line.name})"
    return start, code[-ending].start


def _fault(line: _Line) -> str | None:
    span = _span(line)
    return span if isinstance(span, str) else None


def _parts(line: _Line) -> tuple[str, str]:
    """Header and statement."""
    span = _span(line)
    assert not isinstance(span, str)  # such lines were refused while reading
    start, end = span
    before = line.formal_statement[:start].removesuffix(line.informal_prefix)
    return ((line.header or "") + before).strip(), line.formal_statement[start:end].rstrip()


def _uncommented(prefix: str) -> str:
    """An informal statement without its ``/-- -/``."""
    return re.sub(r"^\s*/--?|-/\s*$", "", prefix).strip()
