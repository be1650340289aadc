"""Verdicts by content, in a SQLite file that outlives the run and may be shared.

The key is a hash of all that decides a verdict: the Lean with its version (which covers the worker's sources), what is
asked of it (header, statement, candidate, forbidden constants, heartbeats), the limits, and the shape of a Verdict.
Kept is only what the text alone decides: no ``timeout`` and no ``memory``, nothing that a limit or certification
refused, no failure of a statement, no error. An audited proof never answers where a certified one is asked for; a
certified one answers for both. The opinions of other kernels are not kept: they are asked for anew.

A cache is trusted as much as a run directory is: whoever can write it can make anything proved.

The file has a rollback journal, not a write-ahead log: the latter shares memory between its users, which a network
file system does not give. Verdicts are written some at a time, so a commit a second is all that it costs. A process
that is killed loses those that still wait (``BATCH``, ``BATCH_SECONDS``), which are checked again. What goes wrong
later than the opening (the disk is full, another process holds the lock) ends no run: the cache is left aside, which is
said once.
"""

import contextlib
import functools
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import msgspec

from lean_env.answers import CERTIFICATION
from lean_env.errors import CacheError
from lean_env.protocol import Limits, Verdict

MAX_BYTES = 1 << 30
"""How large the file grows; then the oldest verdicts make room for new ones."""
BATCH = 256
"""Most verdicts that wait to be written."""
BATCH_SECONDS = 1.0
"""Longest that a verdict waits to be written while others come."""
BUSY_SECONDS = 10.0
"""How long another process may hold the file's lock."""
_APPLICATION = 0x4C50_5643
_SCHEMA = 1
_MAGIC = b"SQLite format 3\0"
_ADVICE = "delete it or give another path"
_CREATE = f"""
begin immediate;
create table verdicts (
    id integer primary key, key blob not null unique, rank integer not null, verdict blob not null, sum blob not null
);
pragma application_id = {_APPLICATION};
pragma user_version = {_SCHEMA};
commit;
"""

_PUT = """
insert into verdicts (key, rank, verdict, sum) values (?, ?, ?, ?) on conflict (key)
do update set rank = excluded.rank, verdict = excluded.verdict, sum = excluded.sum where excluded.rank >= rank
"""


def key_of(message: dict[str, Any], limits: Limits, toolchain: str) -> bytes:
    """The key of what is asked of a worker, but for whether it is to export."""
    asked = {name: value for name, value in message.items() if name != "export"}
    whole = [_shape(), toolchain, asked, msgspec.to_builtins(limits)]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode("ascii")).digest()


@functools.cache
def _shape() -> str:
    return hashlib.sha256(json.dumps(shape_of(Verdict), sort_keys=True).encode()).hexdigest()


def shape_of(record: type[msgspec.Struct]) -> dict[str, list[str]]:
    """The fields and their types of a record and of all that it may hold, by name: where any of these differs, what was
    written is another thing. How they are decoded is not in it, nor what their docstrings say."""
    shapes: dict[str, list[str]] = {}
    todo = [record]
    while todo:
        kind = todo.pop()
        if kind.__name__ not in shapes:
            fields = msgspec.structs.fields(kind)
            shapes[kind.__name__] = [f"{field.name}: {field.type}" for field in fields]
            todo += [held for field in fields for held in _records_in(field.type)]
    return shapes


def _records_in(annotation: Any) -> list[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [held for inner in get_args(annotation) for held in _records_in(inner)]


def lasting(verdict: Verdict) -> bool:
    """Whether the text alone decides this verdict, not time, memory, or what befell a worker."""
    return verdict.status not in ("timeout", "memory") and not verdict.reason.startswith(("limits: ", CERTIFICATION))


class VerdictCache:
    """A context manager that owns the connections to one file, which it makes where there is none.

    Raises CacheError for a file that is damaged, of another kind or of another version, and where it cannot be opened.
    Its methods may be called from several threads; none of them raises. ``say`` is told once why the cache is left
    aside.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._say = say
        self._max_bytes = max_bytes
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._pending: dict[bytes, Verdict] = {}
        self._changed = threading.Lock()
        """Guards what waits to be written."""
        self._flushed = time.monotonic()
        self._decoder = msgspec.json.Decoder(Verdict)
        self._readable = self._writable = True
        with contextlib.ExitStack() as opened:
            try:
                self._reader = opened.enter_context(contextlib.closing(_connect(path)))
                _prepare(self._reader, path)
                self._writer = opened.enter_context(contextlib.closing(_connect(path)))
            except (sqlite3.Error, OSError) as error:
                raise CacheError(f"{path}: cannot be used as a verdict cache ({error}); {_ADVICE}") from error
            self._opened = opened.pop_all()

    def __enter__(self) -> "VerdictCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Writes what waits. Safe to call again."""
        self.flush()
        with self._reading, self._writing:
            self._readable = self._writable = False
            self._opened.close()

    def find(self, key: bytes, *, certified: bool) -> Verdict | None:
        """The verdict, its ``attempt_id`` empty. With ``certified`` what is proved is certified, too."""
        with self._changed:
            verdict = self._pending.get(key)
        if verdict is None or not _enough(verdict, certified):
            verdict = self._read(key)
        return verdict if verdict is not None and _enough(verdict, certified) else None

    def add(self, key: bytes, verdict: Verdict) -> None:
        """Keeps a verdict that the text alone decides; forgets others."""
        if not self._writable or not lasting(verdict):
            return
        with self._changed:
            waiting = self._pending.get(key)
            if waiting is None or _rank(verdict) >= _rank(waiting):
                self._pending[key] = msgspec.structs.replace(verdict, attempt_id="", checkers=())
            due = len(self._pending) >= BATCH or time.monotonic() - self._flushed >= BATCH_SECONDS
        if due:
            self.flush(wait=False)

    def flush(self, *, wait: bool = True) -> None:
        """Writes what waits; without ``wait`` unless another thread is at it."""
        if not self._writing.acquire(blocking=wait):
            return
        try:
            with self._changed:
                rows = dict(self._pending)
                self._flushed = time.monotonic()
            if rows and self._writable:
                self._write(rows)
            with self._changed:
                for key, verdict in rows.items():
                    if self._pending[key] is verdict:
                        del self._pending[key]
        finally:
            self._writing.release()

    def _read(self, key: bytes) -> Verdict | None:
        with self._reading:
            if not self._readable:
                return None
            try:
                row = self._reader.execute("select verdict, sum from verdicts where key = ?", (key,)).fetchone()
                if row is None:
                    return None
                if not isinstance(row[0], bytes) or _sum(key, row[0]) != row[1]:
                    raise sqlite3.DatabaseError("a verdict is not as it was written")
                return self._decoder.decode(row[0])
            except (sqlite3.Error, msgspec.DecodeError) as error:
                self._readable = self._writable = False
                said = f"{self.path}: the verdict cache cannot be read ({error}); going on without it, {_ADVICE}"
        self._say(said)
        return None

    def _write(self, rows: dict[bytes, Verdict]) -> None:
        try:
            with _transaction(self._writer):
                for key, verdict in rows.items():
                    data = msgspec.json.encode(verdict)
                    self._writer.execute(
                        _PUT,
                        (key, _rank(verdict), data, _sum(key, data)),
                    )
                if _bytes_used(self._writer) > self._max_bytes:
                    oldest = "select id from verdicts order by id limit ?"
                    self._writer.execute(f"delete from verdicts where id in ({oldest})", (2 * len(rows),))
        except sqlite3.Error as error:
            self._writable = False
            self._say(
                f"{self.path}: the verdict cache cannot be written ({error}); new verdicts are no longer kept in it"
            )


def open_cache(path: Path | None, say: Callable[[str], None]) -> contextlib.AbstractContextManager[VerdictCache | None]:
    """The cache, or none where there is no path. Raises CacheError."""
    return contextlib.nullcontext() if path is None else VerdictCache(path, say)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the table in a new file; looks at whether an old one is ours and whole."""
    magic = b""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic and magic != _MAGIC:
        raise CacheError(f"{path}: is no verdict cache; {_ADVICE}")
    application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if (application, version) == (0, 0) and not connection.execute("select 1 from sqlite_schema").fetchone():
        with contextlib.suppress(sqlite3.OperationalError):  # another process was first
            connection.executescript(_CREATE)
        with contextlib.suppress(sqlite3.OperationalError):  # no transaction is left open where it was not
            connection.execute("rollback")
        application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if application != _APPLICATION:
        raise CacheError(f"{path}: is a database, but no verdict cache; {_ADVICE}")
    if version != _SCHEMA:
        raise CacheError(
            f"{path}: was written by another version of prover (schema {version}, not {_SCHEMA}); {_ADVICE}"
        )
    connection.execute("select key, rank, verdict, sum from verdicts limit 1").fetchone()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"pragma {name}").fetchone()[0])


def _bytes_used(connection: sqlite3.Connection) -> int:
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _enough(verdict: Verdict, certified: bool) -> bool:
    return not (certified and verdict.proved and verdict.level != "certified")


def _rank(verdict: Verdict) -> int:
    """What may replace what: a proof that is only audited is the least."""
    return int(_enough(verdict, certified=True))


def _sum(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=16).digest()
