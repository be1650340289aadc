"""Supervised fine-tuning: cross entropy on the answers, example by example weighted."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prover.training.backend import Backend
from prover.training.batches import Tokenized
from prover.training.objective import Sums
from prover.training.packing import Packer


class Answers:
    """The objective of SFT: each example counts with its weight, each token of its answer alike."""

    def __init__(self, data: Tokenized) -> None:
        self.data = data
        self.ids = data.ids
        self.dropped = data.dropped
        self.problems = data.problems
        self.difficulty = data.difficulty
        self._packer = Packer()

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.data.lengths

    def digest(self) -> str:
        return self.data.digest()

    def scale(self, items: NDArray[np.int64]) -> float:
        data = self.data
        return float(np.dot(data.weights[items].astype(np.float64), data.lengths[items] - data.prompts[items]))

    def prepare(self, backend: Backend, work: Path, recipe: str, budget: int, fast: bool) -> None:
        """Nothing: the loss depends on the model alone."""

    def sums(self, model: Any, items: NDArray[np.int64], device: str) -> Sums:
        answered = self._packer.answers(model, self.data, items, device)
        weights = torch.from_numpy(self.data.weights[items]).to(device)[answered.owners]
        logs = answered.logs
        return Sums(-(logs * weights).sum(), -logs.detach().sum(), logs.numel(), answered.tokens)
