"""The tensors of a model directory on disk, read a piece at a time.

Files are read, not mapped, so that what is in memory is what was asked for, however large they are. A tensor counts as
there under every name that stands for it: an output head that is tied to the embedding is the embedding.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import torch

from prover.errors import ModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PIECE = 1 << 15
"""Elements of a tensor that are in memory at a time, few enough for a processor's cache; a multiple of 2."""

_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in)\.weight$")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Stored(msgspec.Struct, frozen=True):
    """Where a tensor lies: its file, the place of its first byte in it, its shape and its safetensors dtype."""

    file: str
    start: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class StoredModel:
    """A Hugging Face model directory with safetensors weights, in one file or many. Close it, or use it in ``with``.

    Raises ModelError where the weights are missing, damaged, or of a dtype that has no average.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = _config(path)
        self.files = _files(path)
        self.metadata: dict[str, dict[str, str]] = {}
        """What each file's header says beside its tensors."""
        self.tensors: dict[str, Stored] = {}
        with ExitStack() as stack:
            self._open: dict[str, BinaryIO] = {}
            for file in self.files:
                self._header(file)
                self._open[file] = stack.enter_context((path / file).open("rb", buffering=0))
            self._closing = stack.pop_all()
        self.shared = self._shared()
        """Names that stand for a tensor of another name."""

    def _header(self, file: str) -> None:
        path = self.path / file
        length, entries = _read_header(path)
        self.metadata[file] = entries.pop("__metadata__", {})
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            if name in self.tensors:
                raise ModelError(f"{path}: holds tensor {name}, and so does {self.tensors[name].file}; keep one")
            if entry["dtype"] not in _DTYPES:
                raise ModelError(
                    f"{path}: tensor {name} is {entry['dtype']}, which has no average; convert the model to bfloat16"
                )
            begin = 8 + length + entry["data_offsets"][0]
            self.tensors[name] = Stored(file, begin, tuple(entry["shape"]), entry["dtype"])

    def _shared(self) -> dict[str, str]:
        found = {
            name: kept
            for entries in self.metadata.values()
            for name, kept in entries.items()  # safetensors notes there what it left out as a tensor's second name
            if name not in self.tensors and kept in self.tensors
        }
        embeddings = [name for name in self.tensors if _EMBEDDING.search(name)]
        ties = self.config.get("tie_word_embeddings")
        if len(embeddings) == 1:
            for head in _HEADS:
                # Only some kinds of model have it in their configuration; what lacks a head has it tied, then.
                if (head in self.tensors and ties is True) or (head not in self.tensors and ties is not False):
                    found.setdefault(head, embeddings[0])
        return found

    def names_in(self, file: str) -> list[str]:
        return [name for name, stored in self.tensors.items() if stored.file == file]

    def find(self, name: str) -> Stored | None:
        """The tensor that ``name`` stands for; None where there is none."""
        return self.tensors.get(self.shared.get(name, name))

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor in order, flat, at most :data:`PIECE` elements at a time. A piece is overwritten by the next."""
        stored = self.find(name)
        if stored is None:
            raise KeyError(name)
        width = stored.torch_dtype.itemsize
        buffer = np.empty(min(stored.size, PIECE) * width, dtype=np.uint8)
        for first in range(0, stored.size, PIECE):
            view = buffer[: min(PIECE, stored.size - first) * width]
            self._fill(stored.file, view, stored.start + first * width)
            yield torch.from_numpy(view).view(stored.torch_dtype)

    def _fill(self, file: str, view: Any, offset: int) -> None:
        """Read bytes from ``offset`` on until ``view`` is full."""
        done = 0
        while done < len(view):
            got = os.preadv(self._open[file].fileno(), [view[done:]], offset + done)
            if got == 0:
                raise ModelError(f"{self.path / file}: became shorter while it was read; leave models alone meanwhile")
            done += got

    def __enter__(self) -> "StoredModel":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length and content of a safetensors header; what it says of the tensors covers the rest of the file, end to end.

    The library's own reader is not used because it maps the whole file.
    """
    try:
        with path.open("rb") as raw:
            total = os.fstat(raw.fileno()).st_size
            length = int.from_bytes(raw.read(8), "little")
            if length > total - 8:
                raise ValueError("it is cut off in its header")
            entries: dict[str, Any] = json.loads(raw.read(length))
        end = 0
        for name, entry in sorted(
            ((n, e) for n, e in entries.items() if n != "__metadata__"), key=lambda item: item[1]["data_offsets"]
        ):
            first, last = entry["data_offsets"]
            dtype = _DTYPES.get(entry["dtype"])
            if first != end or last < first or (dtype and last - first != math.prod(entry["shape"]) * dtype.itemsize):
                raise ValueError(f"the header is wrong about tensor {name}")
            end = last
        if 8 + length + end != total:
            raise ValueError(f"it has {total:,} bytes, its header speaks of {8 + length + end:,}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: the weights cannot be read ({error}); copy the file again") from error
    return length, entries


def _config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ModelError(f"{path}: no such directory; give a Hugging Face model directory")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}: is no model directory (no config.json); give a Hugging Face model directory"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path / 'config.json'}: is not JSON ({error}); copy it again from where it came") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path / 'config.json'}: is no model's configuration; copy it again from where it came")
    return config  # type: ignore[reportUnknownVariableType]


def _files(path: Path) -> list[str]:
    """Names of the files that hold weights. Raises ModelError where the index and the folder disagree."""
    if not (path / INDEX).is_file():
        if (path / SINGLE).is_file():
            return [SINGLE]
        raise ModelError(f"{path}: holds no safetensors weights ({SINGLE} or {INDEX}); convert them first")
    try:
        files = sorted(set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{path / INDEX}: is no index of weights ({error})") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise ModelError(f"{path / INDEX}: names {file!r}, which is no file beside it")
        if not (path / file).is_file():
            raise ModelError(f"{path / file}: is missing, though {INDEX} names it; copy it again")
    return files
