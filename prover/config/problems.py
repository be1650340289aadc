"""Where problems come from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from prover.config.section import Section


class CoreProblems(Section):
    """Theorems of Lean's own Init and Std, listed from the installed toolchain."""

    source: Literal["core"]
    """Lean's core library."""
    split: Literal["train", "valid", "test"]
    """Split by a hash of module and namespace."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many problems, drawn by a fixed hash; None takes all."""
    premises: int = Field(default=0, ge=0, le=32)
    """Retrieved lemmas attached to each problem."""


class MiniF2FProblems(Section):
    """miniF2F from a JSONL file of DeepSeek-Prover-V1.5 or Goedel-Prover-V2; the edition is read off the file."""

    source: Literal["minif2f"]
    """The miniF2F benchmark."""
    path: Path
    """The benchmark's JSONL file."""
    split: Literal["valid", "test", "all"] = "all"
    """Which of its halves; ``all`` takes both."""
    header: Literal["own", "core"] = "own"
    """``own`` keeps the file's Mathlib header; ``core`` replaces it by notation for the embedded Lean."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many problems, the file's first; None takes all."""
    premises: int = Field(default=0, ge=0, le=32)
    """Retrieved lemmas attached to each problem."""


class JsonlProblems(Section):
    """Our own Problem records."""

    source: Literal["jsonl"]
    """A file of Problem records."""
    path: Path
    """JSONL of Problem records."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many problems, the file's first; None takes all."""


ProblemsConfig = Annotated[CoreProblems | MiniF2FProblems | JsonlProblems, Field(discriminator="source")]
