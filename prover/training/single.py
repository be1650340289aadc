"""Training in one process, on the CPU or one GPU: no launcher, no compiled operators."""

from pathlib import Path
from typing import Any

import torch

from prover.device import Device, pick_device, use_threads
from prover.pretrained import load_model, quiet
from prover.training import lora, state
from prover.training.optimizer import CLIP, grouped


class SingleProcess:
    """Weights and moments in float32. A job that is killed goes on from its last state and ends with the same bytes."""

    rank = 0
    world = 1
    model: Any
    device: Device
    _optimizer: torch.optim.Optimizer

    def __init__(self, device: str) -> None:
        self.device = pick_device(device)
        use_threads(self.device)

    def load(self, path: Path, fast: bool) -> Any:
        del fast  # the matrix products alone are made in bfloat16
        return load_model(path, torch.float32, self.device)

    def prepare(self, model: Any, weight_decay: float) -> None:
        self.model = model
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

    def save(self, work: Path, recipe: str, step: int, keep: int | None = None) -> None:
        pieces: list[state.Piece] = []
        for name, parameter in trained(self.model).items():
            moments = self._optimizer.state.get(parameter, {})
            for kind in state.KINDS:
                values = parameter if kind == "weight" else moments.get(kind)
                if values is not None:  # a weight that never had a gradient has no moments
                    pieces.append(state.Piece(kind, name, 0, values.flatten()))
        state.save(work, recipe, step, pieces, keep)

    def restore(self, work: Path, recipe: str, step: int | None = None) -> int:
        state.forget_partial(work)
        held = state.opened(work, recipe, state.newest(work) if step is None else step)
        if held is None:
            return 0
        parameters = trained(self.model)
        with torch.no_grad():
            for name, values in state.read_all(held, parameters, "weight"):
                parameters[name].copy_(values)
        first, second = state.KINDS[1:]
        second_moments = dict(state.read_all(held, parameters, second))
        for name, values in state.read_all(held, parameters, first):
            parameter = parameters[name]
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(held.step), device=parameter.device),
                first: values.to(parameter.device),
                second: second_moments[name].to(parameter.device),
            }
        return held.step

    def write(self, folder: Path | None, dtype: torch.dtype) -> None:
        assert folder is not None, "one process is the first"
        with quiet():
            if lora.is_adapted(self.model):
                lora.write(self.model, self.model.state_dict(), folder, dtype)
            else:
                self.model.to(dtype).save_pretrained(folder)


def trained(model: Any) -> dict[str, Any]:
    """Parameters that are not frozen, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
