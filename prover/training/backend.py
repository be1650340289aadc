"""Who holds weights, gradients and optimizer: one process by itself, or many through DeepSpeed."""

from pathlib import Path
from typing import Any, Protocol

import torch

from prover.config import DeepSpeedLaunch, LaunchChoice
from prover.device import Device


class Backend(Protocol):
    """The processes of a training as the loop sees them; the loop runs in each of them alike."""

    model: Any
    """What is called in a forward pass."""
    device: Device
    rank: int
    world: int

    def load(self, path: Path, fast: bool) -> Any:
        """The model of a directory, to be handed to :meth:`prepare`; with ``fast`` it will multiply in bfloat16.

        Raises ModelError."""
        ...

    def prepare(self, model: Any, weight_decay: float) -> None:
        """Get ready to train what of the model requires gradients."""
        ...

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of ``loss``, summed over all processes; ``last`` of the step's passes on this one."""
        ...

    def step(self, rate: float) -> float:
        """Clip, apply the gradients at learning rate ``rate``, forget them. Returns the gradient's norm before."""
        ...

    def total(self, *values: float) -> tuple[float, ...]:
        """Each value summed over all processes."""
        ...

    def save(self, work: Path, recipe: str, step: int, keep: int | None = None) -> None:
        """Write the resumable state after ``step`` steps; once it is whole, all others go but that of step ``keep``.

        What is frozen is the base model's and need not be in it."""
        ...

    def restore(self, work: Path, recipe: str, step: int | None = None) -> int:
        """Load the state of ``step``, or the newest whole one, and say after which step it was taken; 0 where there is
        none."""
        ...

    def write(self, folder: Path | None, dtype: torch.dtype) -> None:
        """Put the weights and the model's configuration into ``folder`` as Hugging Face does. All processes call it
        together; only the first one's has a folder."""
        ...


def open_backend(launch: LaunchChoice) -> Backend:
    """The backend that a process of this launch trains with. Raises ConfigError, ModelError."""
    if isinstance(launch, DeepSpeedLaunch):
        from prover.training.zero import ZeroProcess  # late: imports deepspeed

        return ZeroProcess(launch)
    from prover.training.single import SingleProcess

    return SingleProcess(launch.device)
