"""Who holds weights, gradients and optimizer: one process by itself, or many through DeepSpeed."""

from pathlib import Path
from typing import Any, Protocol

import torch


class Backend(Protocol):
    """The processes of a training as the loop sees them; the loop runs in each of them alike."""

    model: Any
    """What is called in a forward pass."""
    device: str
    rank: int
    world: int

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of ``loss``, summed over all processes; ``last`` of the step's passes on this one."""
        ...

    def step(self, rate: float) -> float:
        """Clip, apply the gradients at learning rate ``rate``, forget them. Returns the gradient's norm before."""
        ...

    def total(self, *values: float) -> tuple[float, ...]:
        """Each value summed over all processes."""
        ...

    def save(self, work: Path, recipe: str, step: int) -> None:
        """Write the resumable state after ``step`` steps; older ones go once it is whole."""
        ...

    def restore(self, work: Path, recipe: str) -> int:
        """Load the newest whole state, and say after which step it was taken; 0 where there is none."""
        ...

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        """Put the weights and the model's configuration into ``folder`` as Hugging Face does, once for all of them."""
        ...
