"""What of the proofs found is learned from. docs/training-data.md tells how the settings work together."""

from typing import Literal

from pydantic import Field

from prover.config.section import Section


class SelectConfig(Section):
    per_problem: int = Field(default=4, ge=1)
    """Distinct proofs kept of one problem."""
    rarity: float = Field(default=0.0, ge=0, le=1)
    """An answer given for m problems weighs m^-rarity; above 0 keeps a model from ending with one favourite tactic."""
    replay: float | None = Field(default=None, ge=0)
    """Earlier proofs, the cold start's too, that are learned again for each proof first found in this round, at most;
    None learns all of them again, 0 none. A round that found nothing new learns all of them."""
    max_pass_rate: float = Field(default=1.0, gt=0, le=1)
    """Problems are left out of which a larger share of the models' first attempts proved; 1 keeps all of them."""
    balance: Literal["none", "length", "difficulty"] = "none"
    """Which buckets weigh alike together: those of proofs by ``length``, or of problems by ``difficulty``."""

    def recipe(self) -> dict[str, object]:
        """What decides the choice: settings that came later are named only where they are set, so that artifacts made
        before them stay valid."""
        late = {"replay", "max_pass_rate", "balance"}
        return {
            **self.model_dump(mode="json", exclude=late),
            **self.model_dump(mode="json", include=late, exclude_defaults=True),
        }
