"""What a training minimises, as the loop sees it."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from prover.training.backend import Backend


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
    right: torch.Tensor | None = None
    """Scalar: how many of the items are ranked as they should be; None where nothing is ranked."""


class Objective(Protocol):
    """Items to learn from and their loss. An item is an example, or a pair of answers."""

    ids: list[str]
    """Names of the items, for errors."""
    dropped: int
    """Items left out for their length."""
    problems: NDArray[np.uint64]
    """(N,) a hash of each item's problem: those of one problem are held out together."""
    difficulty: NDArray[np.float32]
    """(N,) from 0, easy, to 1; NaN where it is not known."""

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

    def prepare(self, backend: Backend, work: Path, recipe: str, budget: int, fast: bool) -> None:
        """Ask the model that training starts from what the loss will need, in passes of at most ``budget`` tokens.
        Called once on every process, before any state is restored; answers may be kept in ``work`` under ``recipe``."""
        ...

    def sums(self, model: Any, items: NDArray[np.int64], device: str) -> Sums:
        """One forward pass."""
        ...
