"""One checkpoint made of several: weighted means, and the task-vector methods TIES, DARE and Model Breadcrumbs.

The output has the first checkpoint's files, tensor names, dtypes and side files, whatever files the others come in. In
memory are pieces of one tensor (:data:`prover.training.stored.PIECE` elements of each checkpoint), however large the
models are; the methods that cut by magnitude read each tensor three or five times for it.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import torch

from prover.config import BreadcrumbsAverage, DareAverage, TaskVectors, TiesAverage
from prover.errors import ModelError
from prover.pretrained import copy_side_files, origin, placed, read_checkpoint, reference
from prover.progress import Meter, Progress, Silent
from prover.records import Checkpoint
from prover.training.alike import check_alike, same_bytes
from prover.training.merging import (
    Mask,
    at_least,
    between,
    drawn,
    elected_mean,
    kept_range,
    magnitude_at,
    weighted_sum,
)
from prover.training.stored import INDEX, StoredModel


def average(
    checkpoints: Sequence[tuple[Path, float]],
    output: Path,
    *,
    task_vectors: TaskVectors | None = None,
    base: Path | None = None,
    seed: int = 0,
    series: str = "",
    progress: Progress | None = None,
) -> Checkpoint:
    """Write the average of the checkpoints, whose weights must sum to 1, to ``output``.

    A weighted mean, or with ``task_vectors`` the ``base`` plus what that method keeps of the checkpoints' changes.
    ``seed`` decides what DARE drops, together with a checkpoint's place among ``checkpoints``, a tensor's name and an
    entry's place in it. ``progress`` is told of each tensor, under the name of ``series``.

    Raises ModelError where the checkpoints are not of one architecture, do not have the same tensors, or hold numbers
    that are not finite, naming the first.
    """
    if not checkpoints:
        raise ModelError("nothing to average: give at least one checkpoint")
    total = math.fsum(weight for _, weight in checkpoints)
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ModelError(f"the weights of an average must sum to 1, these sum to {total:g}")
    if (task_vectors is None) != (base is None):
        raise ModelError("changes are taken from a base: give a task-vector method and a base, or neither")
    paths = [*(path for path, _ in checkpoints), *([base] if base else [])]
    before = [read_checkpoint(path) for path in paths]
    manifest = Checkpoint(
        path=output.name,
        base_model=origin(paths[0], output),
        step=max((c.step for c in before if c), default=0),
        parents=tuple(reference(path, output) for path in paths),
        recipe=" ".join(["average", *_described(task_vectors), *(f"{weight:g}" for _, weight in checkpoints)]),
    )
    with ExitStack() as stack:
        models = [stack.enter_context(StoredModel(path)) for path in paths]
        for other in models[1:]:
            check_alike(models[0], other)
        merge = _Merge(models, [weight for _, weight in checkpoints], task_vectors, seed)
        temporary = stack.enter_context(placed(output, manifest))
        name, total = f"{series} average".strip(), len(models[0].tensors)
        meter = stack.enter_context((progress or Silent()).stage(name, total, "tensors"))
        for file in models[0].files:
            _write(temporary / file, file, merge, meter)
        copy_side_files(paths[0], temporary)
        if (paths[0] / INDEX).is_file():
            shutil.copyfile(paths[0] / INDEX, temporary / INDEX)
    return manifest


def _described(method: TaskVectors | None) -> list[str]:
    return [f"{key}={value}" for key, value in method.method_alone.items()] if method else []


class _Merge(msgspec.Struct, frozen=True):
    """What to make of which models. The base, where there is one, is the last of ``models`` and has no weight."""

    models: list[StoredModel]
    weights: list[float]
    method: TaskVectors | None
    seed: int

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The merged tensor in order, flat, in its dtype."""
        stored = self.models[0].find(name)
        assert stored is not None  # a name of the first model
        name = self.models[0].shared.get(name, name)  # tied tensors get one content, whatever is drawn by name
        if not stored.torch_dtype.is_floating_point:
            for other in self.models[1:]:
                if not same_bytes(self.models[0], name, other, name):
                    raise ModelError(
                        f"{other.path}: tensor {name} holds whole numbers that differ; no average has both"
                    )
            yield from self.models[0].pieces(name)
            return
        limit = torch.finfo(stored.torch_dtype).max
        dtype = torch.promote_types(stored.torch_dtype, torch.float32)
        for piece in self._changed(name, dtype, self.method) if self.method else self._mean(name, dtype):
            low, high = torch.aminmax(piece)  # both are NaN where any number is
            if not (-limit <= float(low) and float(high) <= limit):
                raise self._not_finite(name, str(stored.torch_dtype).removeprefix("torch."))
            yield piece.to(stored.torch_dtype)

    def _mean(self, name: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        for pieces in zip(*(model.pieces(name) for model in self.models), strict=True):
            yield weighted_sum(zip(pieces, self.weights, strict=True), dtype)

    def _changed(self, name: str, dtype: torch.dtype, method: TaskVectors) -> Iterator[torch.Tensor]:
        """The base plus the kept changes."""
        *models, base = self.models
        masks = [self._mask(name, number, dtype, method) for number in range(len(models))]
        rescale = 1 / (1 - method.drop) if isinstance(method, DareAverage) else 1.0
        streams = [self._changes(name, number, dtype) for number in range(len(models))]
        for start, *changes in zip(base.pieces(name), *streams, strict=True):
            kept = [change.mul_(mask(change)) for change, mask in zip(changes, masks, strict=True)]
            if isinstance(method, TiesAverage):
                total = elected_mean(kept, self.weights)
            else:
                total = weighted_sum(((c, w * rescale) for c, w in zip(kept, self.weights, strict=True)), dtype)
            yield total.mul_(method.tuned_weight).add_(start.to(dtype))

    def _changes(self, name: str, number: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """A model's task vector."""
        for tuned, start in zip(self.models[number].pieces(name), self.models[-1].pieces(name), strict=True):
            change = tuned.to(dtype, copy=True).sub_(start.to(dtype))
            if not all(math.isfinite(float(bound)) for bound in torch.aminmax(change)):
                raise self._not_finite(name, str(dtype).removeprefix("torch."))
            yield change

    def _mask(self, name: str, number: int, dtype: torch.dtype, method: TaskVectors) -> Mask:
        def magnitude(rank: int) -> float:
            return magnitude_at(lambda: self._changes(name, number, dtype), rank, dtype)

        stored = self.models[0].find(name)
        size = max(stored.size if stored else 0, 1)
        match method:
            case TiesAverage():
                return at_least(magnitude(size - max(round(method.density * size), 1)))
            case BreadcrumbsAverage():
                first, last = kept_range(size, method.drop_smallest, method.drop_largest)
                return between(magnitude(first), magnitude(last))
            case DareAverage():
                return drawn(1 - method.drop, "dare", self.seed, number, name)

    def _not_finite(self, name: str, dtype: str) -> ModelError:
        for model in self.models:
            for piece in model.pieces(name):
                if not torch.isfinite(piece).all():
                    return ModelError(
                        f"{model.path}: tensor {name} holds numbers that are not finite (NaN or infinity); "
                        "its training broke: take an earlier checkpoint"
                    )
        return ModelError(f"the average of tensor {name} does not fit into {dtype}; lower average.tuned_weight")


def _write(target: Path, file: str, merge: _Merge, meter: Meter) -> None:
    """A safetensors file of the averages: 8 bytes of header length, the header as JSON, the tensors end to end."""
    model = merge.models[0]
    header: dict[str, Any] = {"__metadata__": model.metadata[file] or {"format": "pt"}}
    end = 0
    for name in model.names_in(file):
        stored = model.tensors[name]
        size = stored.size * stored.torch_dtype.itemsize
        header[name] = {"dtype": stored.dtype, "shape": stored.shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in model.names_in(file):
            for piece in merge.pieces(name):
                _append(out, piece)
            meter.add(1)


def _append(out: BinaryIO, piece: torch.Tensor) -> None:
    out.write(piece.view(torch.uint8).numpy().data)
