"""Resumable training state on disk: weights, AdamW's moments and the step, whole or not at all; two at most are kept.

A state is a folder of safetensors files, one for each process that holds something, and ``state.json``. Every tensor is
float32 and flat, and lies there whole or in pieces whose places a file names: a process writes what it holds and reads
what it needs, so that any number of processes, with weights split among them or not, goes on from what any other number
wrote. Reading runs no code, a torn file is told by its header, and no more than one tensor at a time is in memory.
"""

import json
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from prover.artifacts import disk_errors
from prover.errors import TrainingError
from prover.pretrained import flush

KINDS = ("weight", "exp_avg", "exp_avg_sq")
"""What is kept of each trained parameter; the last two are AdamW's names for its moments."""
_NAME, _ABOUT, _PART = "step-{:08d}", "state.json", "part-{:05d}.safetensors"


class Piece(NamedTuple):
    """Elements ``start`` and on of the flat tensor of kind ``kind`` that belongs to parameter ``name``."""

    kind: str
    name: str
    start: int
    values: torch.Tensor
    """Flat."""


def partial(work: Path, step: int) -> Path:
    """Where the state after ``step`` steps is written until it is whole."""
    return work / f".{_NAME.format(step)}.tmp"


def forget_partial(work: Path) -> None:
    """Delete what a kill left unfinished."""
    for left in work.glob(f".{_NAME.split('{')[0]}*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def write_part(folder: Path, number: int, pieces: Sequence[Piece]) -> None:
    """One process's file in the folder, its tensors written one after the other.

    Raises DiskError.
    """
    header: dict[str, Any] = {}
    starts: dict[str, int] = {}
    end = 0
    for piece in pieces:
        size = 4 * piece.values.numel()
        key = f"{piece.kind}/{piece.name}"
        header[key] = {"dtype": "F32", "shape": [piece.values.numel()], "data_offsets": [end, end + size]}
        starts[key] = piece.start
        end += size
    header["__metadata__"] = {"starts": json.dumps(starts)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = folder / _PART.format(number)
    with disk_errors(folder):
        try:
            with target.open("wb") as out:
                out.write(len(text).to_bytes(8, "little") + text)
                for piece in pieces:
                    values = piece.values.detach().to(device="cpu", dtype=torch.float32).contiguous()
                    out.write(values.view(torch.uint8).numpy().data)
            flush(target)
        except BaseException:
            target.unlink(missing_ok=True)  # on a full disk it takes the room of the word that there is none
            raise


def finish(work: Path, recipe: str, step: int, keep: int | None = None) -> None:
    """Give the folder that :func:`partial` names its place, when all have written; then delete all other states but
    that of step ``keep``: a kill at any moment leaves one to go on from."""
    folder, target = partial(work, step), work / _NAME.format(step)
    with disk_errors(work):
        about = {"recipe": recipe, "step": step, "parts": len(list(folder.glob("*.safetensors")))}
        (folder / _ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
        flush(folder / _ABOUT)
        flush(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        flush(work)
        kept = {target, work / _NAME.format(keep or step)}
        for old in found(work):
            if old not in kept:
                shutil.rmtree(old)


def save(work: Path, recipe: str, step: int, pieces: Sequence[Piece], keep: int | None = None) -> None:
    """All of it from one process."""
    folder = partial(work, step)
    with disk_errors(work):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_part(folder, 0, pieces)
            finish(work, recipe, step, keep)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class State:
    """A whole state, open for reading.

    Raises TrainingError where it belongs to another training, or cannot be read.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder = folder
        self._files: list[Any] = []
        self._places: dict[str, list[tuple[int, int, Any]]] = {}
        """Of each tensor the pieces in order: first element, number of elements, file."""
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if about["recipe"] != recipe:
                raise TrainingError(
                    f"{folder.parent}: holds the state of another training (other examples, base model or settings); "
                    "delete it to start over"
                )
            self.step = int(about["step"])
            for number in range(about["parts"]):
                self._index(folder / _PART.format(number))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        for places in self._places.values():
            places.sort(key=lambda place: place[0])

    def _index(self, path: Path) -> None:
        file: Any = safe_open(path, framework="pt")
        self._files.append(file)
        for key, start in json.loads(file.metadata()["starts"]).items():
            count = file.get_slice(key).get_shape()[0]
            self._places.setdefault(key, []).append((start, count, file))

    def has(self, kind: str, name: str) -> bool:
        return f"{kind}/{name}" in self._places

    def read(self, kind: str, name: str, start: int, count: int, size: int) -> torch.Tensor:
        """(count,) elements from ``start`` on of a tensor of ``size`` elements; beyond its end zeros, as where a split
        does not come out even."""
        key = f"{kind}/{name}"
        whole = torch.zeros(count)
        done, end = start, min(start + count, size)
        places = self._places.get(key, [])
        at = max(bisect_right([place[0] for place in places], start) - 1, 0)
        try:
            for first, many, file in places[at:]:
                if done >= end or first > done:
                    break
                last = min(first + many, end)
                if last > done:
                    whole[done - start : last - start] = file.get_slice(key)[done - first : last - first]
                    done = last
        except (OSError, SafetensorError) as error:
            raise self._damaged(error) from error
        if done < end:
            raise self._damaged(f"{key} lacks elements from {done:,} on")
        return whole

    def _damaged(self, error: object) -> TrainingError:
        return TrainingError(f"{self.folder}: is damaged ({error}); delete it and run the same command again")


def opened(work: Path, recipe: str, step: int) -> State | None:
    """The state after ``step`` steps; None for 0."""
    return State(work / _NAME.format(step), recipe) if step else None


def newest(work: Path) -> int:
    """After how many steps the newest whole state was taken; 0 where there is none."""
    return max((int(folder.name.rpartition("-")[2]) for folder in found(work)), default=0)


def found(work: Path) -> list[Path]:
    """Whole states, oldest first."""
    return sorted(work.glob("step-" + 8 * "[0-9]"))


def read_all(held: State, parameters: dict[str, Any], kind: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors by name, in their shapes."""
    for name, parameter in parameters.items():
        if held.has(kind, name):
            yield name, held.read(kind, name, 0, parameter.numel(), parameter.numel()).view(parameter.shape)
