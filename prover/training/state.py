"""Resumable training state on disk: weights, optimizer moments and step, whole or not at all; two at most are kept.

One safetensors file a state, so that reading one runs no code and a torn one is told by its header.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prover.artifacts import disk_errors
from prover.errors import TrainingError
from prover.pretrained import disk_reports, flush

_NAME = "step-{:08d}.safetensors"
_WEIGHT, _MOMENT = "weight/", "moment/"


def save(
    work: Path, recipe: str, step: int, model: Any, optimizer: torch.optim.Optimizer, keep: int | None = None
) -> None:
    """Write the state after ``step`` steps, then delete all others but that of step ``keep``: a kill at any moment
    leaves one to go on from. Frozen weights are left out: they are the base model's."""
    tensors: dict[str, torch.Tensor] = {}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if name not in frozen and tensor.data_ptr() not in seen:  # tied weights are one tensor under two names
            seen.add(tensor.data_ptr())
            tensors[_WEIGHT + name] = tensor
    for number, moments in optimizer.state_dict()["state"].items():
        for name, tensor in moments.items():
            tensors[f"{_MOMENT}{number}/{name}"] = tensor
    target = work / _NAME.format(step)
    temporary = work / f".{target.name}.tmp"
    with disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        try:
            with disk_reports():
                save_file(tensors, temporary, metadata={"recipe": recipe, "step": str(step)})
            flush(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        flush(work)
        kept = (target, work / _NAME.format(keep or step))
        for old in found(work):
            if old not in kept:
                old.unlink()


def restore(work: Path, recipe: str, model: Any, optimizer: torch.optim.Optimizer, step: int | None = None) -> int:
    """Load the state of ``step``, or the newest, and return its step; 0 where there is none. Raises TrainingError for
    another job's."""
    states = found(work) if step is None else [work / _NAME.format(step)]
    if not states:
        return 0
    file = states[-1]
    try:
        with safe_open(file, framework="pt") as held:
            about = held.metadata()
            if about["recipe"] != recipe:
                raise TrainingError(
                    f"{work}: holds the state of another training (other examples, base model or settings); "
                    "delete it to start over"
                )
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118, not a dict
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise TrainingError(f"{file}: is damaged ({error}); delete it and run the same command again") from error
    weights = {n.removeprefix(_WEIGHT): t for n, t in tensors.items() if n.startswith(_WEIGHT)}
    model.load_state_dict(weights, strict=False)  # the other names of tied weights are not there
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_MOMENT):
            number, _, key = name.removeprefix(_MOMENT).partition("/")
            moments.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(about["step"])


def found(work: Path) -> list[Path]:
    """Whole states, oldest first."""
    return sorted(work.glob("step-*.safetensors"))
