"""A model directory and what identifies it."""

import hashlib
from pathlib import Path

import msgspec

from prover.artifacts import fingerprint, read_manifest
from prover.errors import ModelError

_WHOLE = 64 << 20
_EDGE = 1 << 20


class Model(msgspec.Struct, frozen=True):
    """A Hugging Face model directory. ``name`` is what attempts are attributed to; it names no machine's path."""

    path: Path
    fingerprint: str
    name: str


def served_model(name: str) -> Model:
    """A model that lies at a server, known by its name there alone."""
    return Model(Path(), fingerprint(["served", name]), name.replace("/", "_"))


def open_model(path: Path, name: str | None = None) -> Model:
    """Identify a model directory: by its stage's fingerprint where a run made it, by its files otherwise."""
    if (path.parent / "artifact.json").exists():
        return Model(path, read_manifest(path.parent).fingerprint, name or path.parent.name)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: is no model directory (no config.json); give a Hugging Face model directory")
    files = sorted(p for p in path.iterdir() if p.is_file() and p.name != "checkpoint.json")
    return Model(path, fingerprint([[file.name, _digest(file)] for file in files]), name or path.name)


def _digest(file: Path) -> str:
    """Hash of a file; of a large one its size and both ends, since shards of one model differ throughout."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as handle:
        if size <= _WHOLE:
            digest.update(handle.read())
        else:
            digest.update(handle.read(_EDGE))
            handle.seek(-_EDGE, 2)
            digest.update(handle.read())
    return digest.hexdigest()
