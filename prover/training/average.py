"""Linear averages of checkpoints, one tensor at a time (model soups, arXiv 2203.05482).

Inputs and output are safetensors directories, in one file or many. The output has the first checkpoint's files, tensor
names and dtypes; sums are float32. No more than one tensor of each checkpoint is in memory.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from prover.errors import ModelError
from prover.pretrained import copy_side_files, origin, placed, read_checkpoint, reference
from prover.records import Checkpoint

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class _Weights:
    """The tensors of one model directory, by name, read when asked for."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.files = _files(path)
        self._of: dict[str, Any] = {}
        self.names: dict[str, list[str]] = {}
        """Tensor names by file."""
        for file in self.files:
            try:
                handle = stack.enter_context(safe_open(path / file, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path / file}: the weights cannot be read ({error})") from error
            self.names[file] = list(handle.keys())
            self._of.update(dict.fromkeys(self.names[file], handle))

    def __contains__(self, name: str) -> bool:
        return name in self._of

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def read(self, name: str) -> torch.Tensor:
        return self._of[name].get_tensor(name)

    def header(self, name: str) -> tuple[list[int], str]:
        """Shape and safetensors dtype, without reading the tensor."""
        part = self._of[name].get_slice(name)
        return list(part.get_shape()), part.get_dtype()


def average(checkpoints: Sequence[tuple[Path, float]], output: Path) -> Checkpoint:
    """Write the sum of weight times checkpoint to ``output``; the weights must sum to 1.

    Raises ModelError where the checkpoints do not have the same tensors, naming the first that differs.
    """
    if not checkpoints:
        raise ModelError("nothing to average: give at least one checkpoint")
    total = math.fsum(weight for _, weight in checkpoints)
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ModelError(f"the weights of an average must sum to 1, these sum to {total:g}")
    first = checkpoints[0][0]
    before = [read_checkpoint(path) for path, _ in checkpoints]
    manifest = Checkpoint(
        path=output.name,
        base_model=origin(first, output),
        step=max((c.step for c in before if c), default=0),
        parents=tuple(reference(path, output) for path, _ in checkpoints),
        recipe="average " + " ".join(f"{weight:g}" for _, weight in checkpoints),
    )
    with ExitStack() as stack, placed(output, manifest) as temporary:
        parts = [(_Weights(path, stack), weight) for path, weight in checkpoints]
        for other, _ in parts[1:]:
            _check_same(parts[0][0], other)
        for file in parts[0][0].files:
            _write(temporary / file, parts[0][0].names[file], parts)
        copy_side_files(first, temporary)
        if (first / _INDEX).is_file():
            shutil.copyfile(first / _INDEX, temporary / _INDEX)
    return manifest


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        raise ModelError(f"{path}: no such directory; give a Hugging Face model directory")
    if (path / _INDEX).is_file():
        try:
            return sorted(set(json.loads((path / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{path / _INDEX}: is no index of weights ({error})") from error
    if (path / _SINGLE).is_file():
        return [_SINGLE]
    raise ModelError(f"{path}: holds no safetensors weights ({_SINGLE} or {_INDEX}); convert them first")


def _check_same(one: _Weights, other: _Weights) -> None:
    for name in one:
        if name not in other:
            raise ModelError(f"{other.path}: lacks tensor {name}, which {one.path} has; they are different models")
        if one.header(name) != other.header(name):
            shapes = [f"{dtype}{shape}" for shape, dtype in (one.header(name), other.header(name))]
            raise ModelError(f"{other.path}: tensor {name} is {shapes[1]}, in {one.path} it is {shapes[0]}")
    for name in other:
        if name not in one:
            raise ModelError(f"{one.path}: lacks tensor {name}, which {other.path} has; they are different models")


def _write(file: Path, names: list[str], parts: list[tuple[_Weights, float]]) -> None:
    """A safetensors file of the averages: 8 bytes of header length, the header as JSON, the tensors end to end."""
    model = parts[0][0]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        shape, dtype = model.header(name)
        size = math.prod(shape) * model.read(name).element_size()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            _write_tensor(out, name, parts)


def _write_tensor(out: BinaryIO, name: str, parts: list[tuple[_Weights, float]]) -> None:
    first = parts[0][0].read(name)
    if first.is_floating_point():
        total = torch.zeros(first.shape, dtype=torch.promote_types(first.dtype, torch.float32))
        for model, weight in parts:
            total.add_(model.read(name).to(total.dtype), alpha=weight)
        mean = total.to(first.dtype)
    else:
        for model, _ in parts[1:]:
            if not torch.equal(first, model.read(name)):
                raise ModelError(f"{model.path}: tensor {name} holds whole numbers that differ; they have no average")
        mean = first
    mean.contiguous().reshape(-1).view(torch.uint8).numpy().tofile(out)
