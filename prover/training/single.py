"""Training in one process, on the CPU or one GPU: no launcher, no compiled operators."""

from pathlib import Path
from typing import Any

import torch

from prover.pretrained import quiet
from prover.training import state
from prover.training.optimizer import CLIP, grouped


class SingleProcess:
    """Weights and moments in float32. A job that is killed goes on from its last state and ends with the same bytes."""

    rank = 0
    world = 1

    def __init__(self, model: Any, device: str, weight_decay: float) -> None:
        self.model = model
        self.device = device
        self._optimizer = torch.optim.AdamW(**grouped(model, weight_decay), fused=True)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        del last
        loss.backward()

    def step(self, rate: float) -> float:
        for part in self._optimizer.param_groups:
            part["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def total(self, *values: float) -> tuple[float, ...]:
        return values

    def save(self, work: Path, recipe: str, step: int) -> None:
        state.save(work, recipe, step, self.model, self._optimizer)

    def restore(self, work: Path, recipe: str) -> int:
        return state.restore(work, recipe, self.model, self._optimizer)

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        with quiet():
            self.model.to(dtype).save_pretrained(folder)
