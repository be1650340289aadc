"""Resumable training state on disk: weights, optimizer moments and step, whole or not at all, the newest one kept."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from prover.artifacts import disk_errors
from prover.errors import TrainingError
from prover.pretrained import flush

_NAME = "step-{:08d}"
_FILE = "state.pt"


def save(work: Path, recipe: str, step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Write the state after ``step`` steps, then delete older ones: a kill at any moment leaves one to go on from."""
    with disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        target = work / _NAME.format(step)
        temporary = work / f".{target.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        state = {"recipe": recipe, "step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        try:
            torch.save(state, temporary / _FILE)
        except RuntimeError as error:  # torch reports a full disk this way
            if os.statvfs(work).f_bavail == 0 or "write" in str(error):
                raise OSError(28, os.strerror(28)) from error
            raise
        flush(temporary / _FILE)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        flush(work)
        for old in work.glob("*step-*"):
            if old.name != target.name:
                shutil.rmtree(old, ignore_errors=True)


def restore(work: Path, recipe: str, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest state and return its step; 0 where there is none. Raises TrainingError for another job's."""
    found = sorted(work.glob("step-*"))
    if not found:
        return 0
    file = found[-1] / _FILE
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        made_by, step = state["recipe"], int(state["step"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        raise TrainingError(f"{file}: is damaged ({error}); delete {found[-1]} and run the command again") from error
    if made_by != recipe:
        raise TrainingError(
            f"{work}: holds the state of another training (other examples, base model or settings); "
            "delete it to start over"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return step
