"""What a training minimises, as the loop sees it."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Sums(NamedTuple):
    """Of some items, over the tokens that the loss covers."""

    loss: torch.Tensor
    """Scalar with gradient: what is minimised, still to be divided by the step's :meth:`Objective.scale`."""
    shown: torch.Tensor
    """Scalar without gradient: the sum whose mean is reported."""
    covered: int
    """Tokens or items that ``shown`` is the sum over."""
    tokens: int
    """Tokens put through the model, padding included."""


class Objective(Protocol):
    """Items to learn from and their loss. An item is an example, or a pair of answers."""

    ids: list[str]
    """Names of the items, for errors."""
    dropped: int
    """Items left out for their length."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each item: what batches are cut by."""
        ...

    def digest(self) -> str:
        """Identifies the items, in their order."""
        ...

    def scale(self, items: NDArray[np.int64]) -> float:
        """What the losses of a step over ``items`` are divided by, on whatever processes they are computed."""
        ...

    def sums(self, model: Any, items: NDArray[np.int64], device: str) -> Sums:
        """One forward pass."""
        ...
