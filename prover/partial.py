"""Results as they come, kept beside the file that they will make up, so that a killed command goes on from them.

The first line of ``.NAME.partial`` says what the results belong to; each further line is a result, in the order in
which it came. Only the places of the lines are kept in memory. A line that is torn, and what stands after it, is owed.
"""

import fcntl
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from lean_env.protocol import Limits
from prover.artifacts import disk_errors
from prover.errors import InputError

_OWED = -1


class PartialHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides the results: a digest of the input, the limits of each check, the Lean that checks."""

    input: str
    limits: Limits
    toolchain: str


class _Result(msgspec.Struct, frozen=True):
    """What is looked at of a line; a StatementFailure has no status."""

    attempt_id: str
    status: str | None = None


class Partial:
    """A context manager that holds the partial file of ``output`` and locks it.

    ``place`` gives each id's line in the output. ``found`` counts what was there already, ``statuses`` all results.
    Results under another header are forgotten. Raises InputError where another process holds the file, and DiskError.
    """

    def __init__(self, output: Path, header: PartialHeader, place: Mapping[str, int]) -> None:
        self.path = output.with_name(f".{output.name}.partial")
        self.found = 0
        self.statuses: Counter[str | None] = Counter()
        self._output = output
        self._place = place
        self._at = array("q", [_OWED]) * len(place)
        with disk_errors(output):
            self._file = self.path.open("a+b")
        try:
            self._lock()
            self._read(header)
        except BaseException:
            self._file.close()
            raise

    def has(self, ident: str) -> bool:
        return self._at[self._place[ident]] != _OWED

    def add(self, ident: str, status: str | None, line: bytes) -> None:
        """Keep one result: in the file before this returns."""
        with disk_errors(self._output):
            at = self._file.tell()
            self._file.write(line + b"\n")
            self._file.flush()
        self._note(ident, status, at)

    def finish(self) -> None:
        """Write the output in the input's order, all at once, and delete the partial file."""
        temporary = self._output.with_name(f".{self._output.name}.tmp")
        with disk_errors(self._output):
            with temporary.open("wb") as file:
                for at in self._at:
                    self._file.seek(at)
                    file.write(self._file.readline())
            temporary.replace(self._output)
            self.path.unlink()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{self._output}: another process is writing it; wait, or choose another --out") from error

    def _read(self, header: PartialHeader) -> None:
        first = msgspec.json.encode(header) + b"\n"
        decoder = msgspec.json.Decoder(_Result)
        self._file.seek(0)
        end = 0
        if self._file.readline() == first:
            end = len(first)
            while (line := self._file.readline()).endswith(b"\n"):
                try:
                    result = decoder.decode(line)
                    self._note(result.attempt_id, result.status, end)
                except (msgspec.DecodeError, KeyError):
                    break
                self.found += 1
                end += len(line)
        with disk_errors(self._output):
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                self._file.write(first)
                self._file.flush()

    def _note(self, ident: str, status: str | None, at: int) -> None:
        self._at[self._place[ident]] = at
        self.statuses[status] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
