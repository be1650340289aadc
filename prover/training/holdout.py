"""Problems that are not trained on, and the loss on their examples."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from prover.errors import TrainingError
from prover.training.backend import Backend
from prover.training.objective import Objective

EVALUATIONS = 20
"""Of the held-out examples in one training."""


def held_out(problems: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which items to hold out: those of about ``share`` of the problems, the same ones in every training.

    ``problems`` are hashes. Of two problems or more at least one is held out and one is left.
    """
    if not share:
        return np.zeros(len(problems), dtype=np.bool_)
    distinct = np.unique(problems)
    many = int(np.searchsorted(distinct, np.uint64(share * 2.0**64)))
    many = min(max(many, 1), len(distinct) - 1)
    return problems < distinct[many] if len(distinct) > 1 else np.zeros(len(problems), dtype=np.bool_)


def due(step: int, steps: int) -> bool:
    """Whether to evaluate after ``step`` of ``steps``: :data:`EVALUATIONS` times, evenly, the last step among them."""
    return step * EVALUATIONS // steps > (step - 1) * EVALUATIONS // steps


def evaluate(backend: Backend, objective: Objective, passes: list[NDArray[np.int64]], fast: bool) -> float:
    """Mean loss, nats, over the tokens of all processes' passes; an empty pass only keeps others company."""
    shown, count = torch.zeros((), dtype=torch.float64, device=backend.device), 0
    backend.model.eval()
    try:
        with torch.no_grad(), torch.autocast(backend.device, dtype=torch.bfloat16, enabled=fast):
            for part in passes:
                sums = objective.sums(backend.model, part if len(part) else np.zeros(1, dtype=np.int64), backend.device)
                if len(part):
                    shown, count = shown + sums.shown, count + sums.covered
    finally:
        backend.model.train()
    total, over = backend.total(shown.item(), count)
    if not math.isfinite(total):
        raise TrainingError(
            f"the loss on the held-out examples is not finite ({total / over}); lower the learning_rate"
        )
    return total / over
