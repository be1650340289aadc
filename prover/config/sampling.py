"""How attempts are drawn: for training, and for evaluation."""

from typing import Literal

from pydantic import Field, model_validator

from prover.config.section import Section


class SamplingConfig(Section):
    n: int = Field(default=8, ge=1)
    """Completions per problem and round; with ``enough``, what a round may cost is this many for each problem."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass; 1 keeps every token."""
    max_tokens: int = Field(default=48, ge=1)
    """New tokens per completion."""
    enough: int | None = Field(default=None, ge=1)
    """Proofs after which a problem is left in a round; what that saves goes to the others. None samples all alike."""
    budget: Literal["attempts", "tokens"] = "attempts"
    """What ``enough`` counts as saved and spends: attempts, or their completion tokens, for long answers."""


class EvaluateConfig(Section):
    n: int = Field(default=8, ge=1)
    """Attempts per problem."""
    k: tuple[int, ...] = (1, 8)
    """The k of pass@k."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass; 1 keeps every token."""
    enough: int | None = Field(default=None, ge=1)
    """Proofs after which a problem is left, so that ``n`` is the most it gets; pass@k stays unbiased. None draws n."""
    control_n: int = Field(default=0, ge=0)
    """Attempts per problem of the cold model at the end, the control; 0 leaves it out."""
    portfolio: bool = False
    """Run the fixed tactic list as a baseline."""

    @model_validator(mode="after")
    def _k_at_most_n(self) -> "EvaluateConfig":
        if not self.k or min(self.k) < 1 or max(self.k) > self.n:
            raise ValueError(f"every k must lie between 1 and n = {self.n}, got {list(self.k)}")
        return self
