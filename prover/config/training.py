"""How models are tuned, and on what."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from prover.config.section import Section
from prover.config_faults import DEFAULT_LAUNCH


class LoraConfig(Section):
    """Low-rank adapters beside every linear layer but the output head (arXiv 2106.09685)."""

    rank: int = Field(default=16, ge=1)
    """Columns of an adapter's factors."""
    alpha: float = Field(default=32.0, gt=0)
    """An adapter's product counts with ``alpha / rank``."""


class TrainingConfig(Section):
    """What every kind of tuning has."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak of the cosine schedule."""
    steps: int = Field(default=150, ge=1)
    """Optimizer steps."""
    batch_tokens: int = Field(default=4_096, ge=64)
    """Tokens per optimizer step over all processes, prompts and answers; examples are packed, so padding is none."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's decoupled weight decay."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between resumable checkpoints."""
    order: Literal["random", "easy_first"] = "random"
    """Of the first pass over the examples: ``easy_first`` goes by difficulty, where that is not known by length. Later
    passes are random."""
    holdout: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the problems that are not trained on; the loss on their examples is taken twenty times."""
    patience: int | None = Field(default=None, ge=1)
    """Evaluations without a lower held-out loss after which training stops; the best weights are kept, whenever it
    ends. None trains all steps and keeps the last."""
    lora: LoraConfig | None = None
    """Train adapters (LoRA); None trains all weights."""

    @model_validator(mode="after")
    def _has_something_to_wait_for(self) -> Self:
        if self.patience is not None and not self.holdout:
            raise ValueError("patience waits for a lower loss on held-out problems: set holdout too, such as 0.02")
        return self


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on the answers of selected examples."""


class DpoConfig(TrainingConfig):
    """Direct preference optimization (arXiv 2305.18290) of the fine-tuned model on pairs of answers."""

    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak of the cosine schedule; well below that of fine-tuning."""
    steps: int = Field(default=50, ge=1)
    """Optimizer steps."""
    beta: float = Field(default=0.1, gt=0)
    """How dear it is to leave the fine-tuned model: the larger, the nearer the tuned model stays to it."""
    sft_weight: float = Field(default=1.0, ge=0)
    """Weight of the chosen answer's loss per token beside the preference (arXiv 2404.19733); 0 is plain DPO, under
    which the chosen answers may become less likely too."""


class LaunchConfig(Section):
    """What every way to run a training has."""

    micro_batch_tokens: int | None = Field(default=None, ge=64)
    """Tokens in one forward and backward pass of one process, the setting to lower when memory runs out; an example
    that is longer goes alone. None takes the whole batch at once."""
    activation_checkpointing: bool = False
    """Keep only what enters each layer and compute the rest again in the backward pass: much less memory for long
    proofs, one more forward pass in time, the same gradients."""


class SingleLaunch(LaunchConfig):
    """One process, no launcher: the CPU or one GPU."""

    type: Literal["single"] = "single"
    """Within this process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes the GPU where there is one."""


class DeepSpeedLaunch(LaunchConfig):
    """Many processes that share the work and, with ZeRO (arXiv 1910.02054), the weights, gradients and moments too."""

    type: Literal["deepspeed"]
    """Through DeepSpeed, with the package's own optimizer state sharding."""
    processes: int | None = Field(default=None, ge=1)
    """On each host; None starts one for each GPU, or one where there is none."""
    hosts: Path | None = None
    """A DeepSpeed hostfile (lines such as ``node1 slots=8``); the hosts must share the run directory and the Python
    environment. None stays on this host."""
    zero: Literal[0, 1, 2, 3] = 2
    """What is split among the processes: 0 nothing, 1 moments and float32 weights, 2 gradients too, 3 all weights."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is moved from the GPU to the host's memory: the optimizer with its moments, or the weights as well."""
    config: Path | None = None
    """A DeepSpeed JSON with further options, passed on by name."""

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> "DeepSpeedLaunch":
        if self.offload == "optimizer" and self.zero == 0:
            raise ValueError("offload = 'optimizer' needs zero = 1, 2 or 3")
        if self.offload == "parameters" and self.zero != 3:
            raise ValueError(f"offload = 'parameters' needs zero = 3, here it is {self.zero}")
        return self


def _kind_of_launch(value: Any) -> str:
    """``type`` may be left out: it is a single process then."""
    return str(value.get("type", DEFAULT_LAUNCH) if isinstance(value, dict) else getattr(value, "type", DEFAULT_LAUNCH))  # type: ignore[reportUnknownMemberType]


LaunchChoice = Annotated[
    Annotated[SingleLaunch, Tag("single")] | Annotated[DeepSpeedLaunch, Tag("deepspeed")],
    Discriminator(
        _kind_of_launch,
        custom_error_type="launch_type",
        custom_error_message="type: Input should be 'single' or 'deepspeed'",
    ),
]
