"""How models are tuned, and on what."""

from typing import Literal

from pydantic import Field

from prover.config.section import Section


class TrainingConfig(Section):
    """What every kind of tuning has."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak of the cosine schedule."""
    steps: int = Field(default=150, ge=1)
    """Optimizer steps."""
    batch_tokens: int = Field(default=4_096, ge=64)
    """Tokens per optimizer step over all processes, padding included."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's decoupled weight decay."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between resumable checkpoints."""


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on the answers of selected examples."""


class LaunchConfig(Section):
    """What every way to run a training has."""

    micro_batch_tokens: int | None = Field(default=None, ge=64)
    """Tokens in one forward and backward pass of one process, the setting to lower when memory runs out; an example
    that is longer goes alone. None takes the whole batch at once."""


class SingleLaunch(LaunchConfig):
    """One process, no launcher: the CPU or one GPU."""

    type: Literal["single"] = "single"
    """Within this process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes the GPU where there is one."""


LaunchChoice = SingleLaunch
