"""The theorems of the installed Lean's own library, extracted by its workers and kept in its cache directory.

Lean lists and prints them (``lean_env/Library.lean``); a statement counts as usable where its text elaborates back to
the same type. The extraction takes about a minute with two workers and is done once for each toolchain.
"""

import fcntl
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from lean_env import toolchain as lean
from lean_env.errors import WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from prover.artifacts import atomic_write, disk_errors
from prover.errors import InputError
from prover.progress import Progress, Silent
from prover.records import Record

CHARS = 300
"""Longest statement that is printed, in characters."""
_IMPORTS = "import Init\n"
_BATCH = 150
"""Names asked for at once. The pool runs its canaries after each batch, so batches are not small."""
_LIMITS = Limits(cpu_seconds=300.0, wall_seconds=1_800.0)

_SKIPPED = frozenset(
    "Lean Std System UInt8 UInt16 UInt32 UInt64 USize Int8 Int16 Int32 Int64 ISize Float Float32 ByteArray FloatArray"
    " Dyadic OptionT ExceptT StateT ReaderT StateRefT StateCpsT ExceptCpsT EStateM Id Except IO EIO Task Thunk"
    " WellFounded Subarray ListSlice Substring Quot Quotient".split()
)
"""Namespaces that are not printed: machinery, and the fixed-width integers, whose theorems repeat each other nine
times."""


class LibraryTheorem(Record, frozen=True):
    """A theorem of the library.

    ``text`` is its statement without the name (``.{u} binders : type``), None where it was not printed, is longer
    than :data:`CHARS` or names something internal. ``type`` and ``flipped`` identify the statement up to names of
    variables, as it is and with the sides of its concluding equation exchanged. ``order`` is its module's place in
    import order.
    """

    name: str
    module: str
    order: int
    type: str
    flipped: str
    text: str | None = None
    returns: bool = False
    instance: bool = False
    simp: bool = False
    grind: bool = False

    @property
    def namespace(self) -> str:
        return self.name.rpartition(".")[0]


class _Described(msgspec.Struct, frozen=True):
    name: str
    type: str
    flipped: str
    text: str | None = None
    returns: bool = False
    instance: bool = False
    simp: bool = False
    grind: bool = False


def load_library(*, workers: int = 2, progress: Progress | None = None) -> tuple[LibraryTheorem, ...]:
    """All theorems in import order; from the cache, or extracted first with ``workers`` Lean processes.

    Raises ToolchainError where no Lean is installed and WorkerError where it does not answer.
    """
    toolchain = lean.find()
    path = cache_path(toolchain)
    progress = progress or Silent()
    if (cached := read_cache(path, progress)) is not None:
        return cached
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second start waits here for the first one's result
        if (cached := read_cache(path, Silent())) is not None:
            return cached
        with LeanPool(toolchain, workers) as pool:
            found = extract(pool, progress)
        encoder = msgspec.json.Encoder()
        with disk_errors(path):
            atomic_write(path, b"".join(encoder.encode(theorem) + b"\n" for theorem in found))
        return found


def read_cache(path: Path, progress: Progress) -> tuple[LibraryTheorem, ...] | None:
    """The theorems in the cache; None where there is none, or it is damaged, which ``progress`` is told."""
    decoder = msgspec.json.Decoder(LibraryTheorem)
    try:
        with path.open("rb") as file:
            found = tuple(decoder.decode(line) for line in file)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        progress.note(f"{path}: is damaged ({error}); Lean's library is listed again")
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); mend its permissions or delete it") from error
    return found or None


def extract(pool: LeanPool, progress: Progress) -> tuple[LibraryTheorem, ...]:
    """Ask the pool for every theorem of the library."""
    modules = _ask(pool, {"op": "library.list"}).get("modules")
    if not isinstance(modules, list):
        raise WorkerError("library.list: the worker's reply holds no modules")
    place: dict[str, tuple[int, str]] = {}
    for order, (module, names) in enumerate(modules):
        place |= {str(name): (order, str(module)) for name in names}
    printed = [name for name in place if _printed(name)]
    other = [name for name in place if not _printed(name)]
    batches = [(CHARS, batch) for batch in _cut(printed, _BATCH)] + [(0, batch) for batch in _cut(other, 4 * _BATCH)]

    def describe(job: tuple[int, Sequence[str]]) -> list[_Described]:
        reply = _ask(pool, {"op": "library.describe", "chars": job[0], "names": list(job[1])})
        try:
            return msgspec.convert(reply.get("items"), list[_Described])
        except msgspec.ValidationError as error:
            raise WorkerError(f"library.describe: {error}, in a reply about {job[1][0]} and others") from error

    found: list[LibraryTheorem] = []
    with (
        progress.stage("list Lean's library", len(place), "theorems") as meter,
        ThreadPoolExecutor(2 * pool.workers) as threads,
    ):
        try:
            for items in threads.map(describe, batches):
                meter.add(len(items))
                for item in items:
                    order, module = place[item.name]
                    found.append(LibraryTheorem(module=module, order=order, **msgspec.structs.asdict(item)))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # or Ctrl-C would wait for the whole library
            raise
    rank = {name: index for index, name in enumerate(place)}
    return tuple(sorted(found, key=lambda theorem: rank[theorem.name]))


def twins(theorems: Iterable[LibraryTheorem]) -> dict[str, tuple[LibraryTheorem, ...]]:
    """For each theorem the others that state the same, or the same with the sides of the conclusion exchanged."""
    theorems = tuple(theorems)
    same: defaultdict[str, list[LibraryTheorem]] = defaultdict(list)
    for theorem in theorems:
        same[theorem.type].append(theorem)
    found: dict[str, tuple[LibraryTheorem, ...]] = {}
    for theorem in theorems:
        group = same[theorem.type] + (
            same[theorem.flipped] if theorem.flipped != theorem.type and theorem.flipped in same else []
        )
        if len(group) > 1:
            found[theorem.name] = tuple(other for other in group if other.name != theorem.name)
    return found


def cache_path(toolchain: lean.Toolchain) -> Path:
    """Where the extracted theorems lie: named by what decides them, Lean's package and our printing, not by the
    worker's other parts."""
    source = Path(lean.__file__).with_name("Library.lean").read_bytes()
    recipe = f"{toolchain.package.name} {CHARS} {sorted(_SKIPPED)}".encode()
    return toolchain.package.parent / f"library-{hashlib.sha256(recipe + source).hexdigest()[:16]}.jsonl"


def _ask(pool: LeanPool, message: dict[str, Any]) -> dict[str, Any]:
    reply = pool.ask({**message, "header": _IMPORTS}, _LIMITS)
    if "error" in reply:
        raise WorkerError(f"{message['op']}: {reply['error']}")
    return reply


def _printed(name: str) -> bool:
    top, dot, _ = name.partition(".")
    return not (dot and top in _SKIPPED) and not name.rpartition(".")[2].startswith("inst")


def _cut(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
