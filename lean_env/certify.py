"""What the second worker gets, which certifies what the first one called proved.

The first worker elaborated the candidate and may be in its hands. What it says is therefore only carried, as the text
of a :class:`CertifyRequest` (``Export.lean`` has its format), to a process that has no other purpose (``Certify.lean``)
and never sees a word that a model wrote.
"""

import threading
from typing import Any

import msgspec

from lean_env.protocol import Limits, Verdict

EXPORT_REPLY_BYTES = 33 << 20
"""Longest reply of a check with its export. Lean's side writes at most 16 MiB, of which each line's end doubles."""
WAITING_BYTES = 32 << 20
"""Exports that may wait for certification, in all; one alone may be longer."""
CPU_SECONDS = 60.0
"""A certification may use this or what its check might, whichever is more: it elaborates the statement anew. The
usual wall time too."""


class CertifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a certifying worker sees. It has no place for a proof: header, statement, target and forbidden constants
    are the problem's; ``export`` is what the kernel is to judge."""

    id: str
    header: str
    formal_statement: str
    target: str
    forbidden_constants: tuple[str, ...]
    export: str
    """Empty where the first worker says that the statement does not elaborate, which is then all that is asked."""


class Exported(msgspec.Struct, frozen=True):
    """A first worker's ``proved`` with what is to bear it out."""

    verdict: Verdict
    export: str

    @property
    def attempt_id(self) -> str:
        return self.verdict.attempt_id


def message(request: CertifyRequest) -> dict[str, Any]:
    """The request on the wire."""
    return {
        "op": "certify",
        "header": request.header,
        "statement": request.formal_statement,
        "target": request.target,
        "forbidden": request.forbidden_constants,
        "export": request.export,
    }


def limits(check: Limits) -> Limits:
    """What the certification of a check may use."""
    cpu, wall = max(check.cpu_seconds, CPU_SECONDS), max(check.wall_seconds, Limits().wall_seconds)
    return msgspec.structs.replace(check, cpu_seconds=cpu, wall_seconds=wall)


class ByteRoom:
    """Room for so many bytes, shared by threads. What alone is larger than all of it gets it once it is empty."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Waits until there is room, or until it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._used or self._used + amount <= self._size)
            self._used += amount

    def give(self, amount: int) -> None:
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
