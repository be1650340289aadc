"""Run directories: shards, manifests, fingerprints, atomic writes, one lock.

An artifact is a folder of JSONL shards (``00000.jsonl`` ...). ``recipe.json`` says what decides its content and is
written first; each shard is written to a temporary name and renamed; ``artifact.json``, the manifest, is written last.
So: no rename, no shard; no manifest, no artifact. A process killed anywhere leaves at most a temporary file
behind, which the next run overwrites.

The fingerprint is a hash over the recipe, which names the stage, its configuration, and the fingerprints of its inputs.
It is known before any shard exists, so that one stage can follow another that is still running.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from prover import __version__
from prover.errors import ArtifactError, DiskError, InputError, RunLockedError
from prover.jsonl import decode_lines

T = TypeVar("T", bound=msgspec.Struct)
Recipe = Mapping[str, Any]
"""JSON values only; what decides an artifact's content."""

PROBLEMS_PER_SHARD = 64
"""Every artifact of a run is cut alike: shard i of each speaks of the same problems, so stages join shard by shard."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""A file where a folder should be, or the reverse."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``artifact.json``. ``counts`` are records and outcomes; ``seconds`` and ``made`` are timing, all else content."""

    stage: str
    fingerprint: str
    shards: int
    recipe: dict[str, Any]
    counts: dict[str, int | float]
    seconds: float
    made: dict[str, str]


class Artifact(msgspec.Struct, frozen=True):
    """A folder of shards, finished or still being written."""

    path: Path
    fingerprint: str
    shards: int

    def shard(self, index: int) -> Path:
        return self.path / f"{index:05d}.jsonl"

    def read_shard(self, index: int, kind: type[T]) -> list[T]:
        path = self.shard(index)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            manifest = self.path / "artifact.json"
            raise ArtifactError(f"{path}: the shard is missing; delete {manifest} and run its stage again") from error
        return list(decode_lines(data, kind, path))

    def read(self, kind: type[T]) -> Iterator[T]:
        """All records, one shard in memory at a time."""
        for index in range(self.shards):
            yield from self.read_shard(index, kind)

    @property
    def finished(self) -> bool:
        return (self.path / "artifact.json").exists()


OnShard = Callable[[Artifact, int], None]
"""Told of each shard of an artifact once it is on disk, so that the next stage can follow."""


class ArtifactWriter:
    """Writes one artifact, shard by shard, in any order and from any thread that owns the shard.

    ``finished`` is the artifact if an earlier run completed it. A folder made by another recipe is refused with the
    changed keys named, unless ``clean``, which empties it.
    """

    def __init__(self, path: Path, recipe: Recipe, shards: int, *, clean: bool = False) -> None:
        self.recipe: dict[str, Any] = json.loads(canonical(recipe))
        self.artifact = Artifact(path, fingerprint(recipe), shards)
        self._start = time.monotonic()
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            if clean:
                _empty(path)
            self._claim()

    def _claim(self) -> None:
        path = self.artifact.path / "recipe.json"
        if path.exists():
            _same_recipe(path, self.recipe)
        elif any(self.artifact.path.glob("*.jsonl")):
            raise ArtifactError(f"{self.artifact.path}: holds shards but no recipe.json; use another directory")
        else:
            atomic_write(path, _pretty(self.recipe))

    @property
    def finished(self) -> Artifact | None:
        return self.artifact if self.artifact.finished else None

    def missing(self) -> list[int]:
        """Shards that are still owed."""
        return [i for i in range(self.artifact.shards) if not self.artifact.shard(i).exists()]

    def write(self, index: int, records: Iterable[msgspec.Struct]) -> None:
        encoder = msgspec.json.Encoder()
        data = b"".join(encoder.encode(record) + b"\n" for record in records)
        with disk_errors(self.artifact.path):
            atomic_write(self.artifact.shard(index), data)

    def append(self, records: Iterable[msgspec.Struct]) -> None:
        """Write one shard more, for stages that only learn on the way how many there are."""
        index = self.artifact.shards
        self.artifact = msgspec.structs.replace(self.artifact, shards=index + 1)
        self.write(index, records)

    def finish(self, counts: Mapping[str, int | float], **made: str) -> Artifact:
        owed = self.missing()
        if owed:
            raise ArtifactError(f"{self.artifact.path}: {len(owed)} shards are still owed")
        manifest = Manifest(
            stage=str(self.recipe["stage"]),
            fingerprint=self.artifact.fingerprint,
            shards=self.artifact.shards,
            recipe=self.recipe,
            counts=dict(counts),
            seconds=round(time.monotonic() - self._start, 3),
            made={**provenance(), **made},
        )
        with disk_errors(self.artifact.path):
            atomic_write(self.artifact.path / "artifact.json", _pretty(msgspec.to_builtins(manifest)))
        return self.artifact


def find_artifact(path: Path, recipe: Recipe) -> Artifact | None:
    """The finished artifact at ``path``, if there is one; refused where another recipe made it."""
    if not (path / "artifact.json").exists():
        return None
    _same_recipe(path / "recipe.json", json.loads(canonical(recipe)))
    return open_artifact(path)


def _same_recipe(path: Path, recipe: Recipe) -> None:
    try:
        there = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: is damaged ({error}); delete {path.parent} and run the same command again"
        ) from error
    if there != recipe:
        raise ArtifactError(
            f"{path.parent}: was made by another recipe ({changed_keys(there, recipe)}); "
            "use another folder, or --clean to start over"
        )


def open_artifact(path: Path) -> Artifact:
    """A finished artifact by its folder."""
    manifest = read_manifest(path)
    return Artifact(path, manifest.fingerprint, manifest.shards)


def read_manifest(path: Path) -> Manifest:
    file = path / "artifact.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        state = "is not finished; run its stage again" if (path / "recipe.json").exists() else "is no artifact"
        raise ArtifactError(f"{path}: {state} (no artifact.json)") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArtifactError(f"{file}: is damaged ({error}); delete {path} and run the same command again") from error


def owed_problems(problems: Artifact, owed: Iterable[int]) -> int:
    """How many problems the shards in ``owed`` hold."""
    total = int(read_manifest(problems.path).counts["problems"])
    return sum(min(PROBLEMS_PER_SHARD, total - i * PROBLEMS_PER_SHARD) for i in owed)


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain).encode()


def fingerprint(recipe: object) -> str:
    return hashlib.sha256(canonical(recipe)).hexdigest()[:24]


def file_digest(path: Path) -> str:
    """SHA-256 of an input file. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of an existing file") from error


def changed_keys(old: Any, new: Any) -> str:
    """Dotted names of what differs, at most four."""
    a, b = dict(_flat(old)), dict(_flat(new))
    names = sorted(k for k in a.keys() | b.keys() if a.get(k, _ABSENT) != b.get(k, _ABSENT))
    shown = [f"{n}: {_short(a.get(n, _ABSENT))} -> {_short(b.get(n, _ABSENT))}" for n in names[:4]]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


_ABSENT = object()


def _short(value: object) -> str:
    return "absent" if value is _ABSENT else (text if len(text := json.dumps(value)) <= 40 else text[:37] + "...")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():  # type: ignore[reportUnknownVariableType]
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))  # type: ignore[reportUnknownArgumentType]
    else:
        yield prefix, value


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"a recipe holds JSON values only, not {type(value).__name__}")


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=_plain).encode() + b"\n"


def write_json(path: Path, value: object) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, _pretty(value))


def atomic_write(path: Path, data: bytes) -> None:
    """Write to a temporary name beside ``path``, flush to the disk, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _empty(path: Path) -> None:
    """Delete what an artifact consists of, manifest first, so that a kill in between leaves no false whole."""
    for name in ("artifact.json", "recipe.json"):
        (path / name).unlink(missing_ok=True)
    for shard in path.glob("*.jsonl"):
        shard.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a place that is taken, into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskError(
                f"{path}: cannot be written ({os.strerror(error.errno or 0)}); what was finished is kept: "
                "make room or mend the permissions, then run the same command again"
            ) from error
        if error.errno in _IN_THE_WAY:
            raise DiskError(
                f"{error.filename or path}: is in the way ({os.strerror(error.errno or 0)}); choose another place, or "
                "move it"
            ) from error
        raise


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the run directory. The lock goes with the process, however it ends."""
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        file = (run_dir / ".lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunLockedError(f"{run_dir}: in use by {owner}; wait for it, or choose another folder") from error
        file.truncate(0)
        file.write(f"{socket.gethostname()} pid {os.getpid()}")
        file.flush()
        yield


def provenance() -> dict[str, str]:
    """What made an artifact. Never part of a fingerprint."""
    return {
        "prover": __version__,
        "python": platform.python_version(),
        "git_commit": _git_commit(),
        "host": socket.gethostname(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _git_commit() -> str:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # a clone without git on the PATH
        return ""
    return done.stdout.strip()
