"""Which Lean checks proofs, and its limits."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lean_env.protocol import Limits
from prover.config.section import Section
from prover.config_faults import DEFAULT_TAG


class LeanConfig(Section):
    """What every kind of Lean knows."""

    workers: int = Field(default=2, ge=1, le=256)
    """Lean processes that check, each about 0.8 GB and a core; for every four begun another one certifies."""
    heartbeats: int = Field(default=200_000, ge=1)
    """Lean's maxHeartbeats per command."""
    cpu_seconds: float = Field(default=20.0, gt=0)
    """CPU seconds per check."""
    memory_mb: int = Field(default=2_600, ge=1_500)
    """Memory of one Lean process, MiB, without the pages of files that it maps."""

    def limits(self) -> Limits:
        return Limits(heartbeats=self.heartbeats, cpu_seconds=self.cpu_seconds, memory_mb=self.memory_mb)


class EmbeddedLean(LeanConfig):
    """The WebAssembly build that ``prover setup`` installs: Lean's core library, no Mathlib."""

    type: Literal["embedded"] = "embedded"
    """Lean that comes along."""


class NativeLean(LeanConfig):
    """The Lean of a Lake project, with all that the project requires. Untested against real Mathlib so far."""

    type: Literal["native"]
    """Lean of a project."""
    project: Path | None = None
    """Folder of the Lake project; None takes that of our own ``lakefile.lean``, which requires Mathlib."""
    memory_mb: int = Field(default=6_000, ge=1_500)
    """Memory of one Lean process, MiB, without the pages of files that it maps."""


def _kind_of_lean(value: Any) -> str:
    """``type`` may be left out: it is the embedded one then."""
    return str(value.get("type", DEFAULT_TAG) if isinstance(value, dict) else getattr(value, "type", DEFAULT_TAG))  # type: ignore[reportUnknownMemberType]


LeanChoice = Annotated[
    Annotated[EmbeddedLean, Tag("embedded")] | Annotated[NativeLean, Tag("native")],
    Discriminator(
        _kind_of_lean,
        custom_error_type="lean_type",
        custom_error_message="type: Input should be 'embedded' or 'native'",
    ),
]
