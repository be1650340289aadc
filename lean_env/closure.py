"""A certified theorem with all that it rests on, written to a file: the pages of ``Closure.lean`` put together.

The file is as long as it needs to be, tens of thousands of declarations in Mathlib; a page at a time is in memory.
"""

from typing import IO, Any

import msgspec

from lean_env import certify
from lean_env.certify import CertifyRequest
from lean_env.protocol import Limits
from lean_env.slot import Running
from lean_env.worker import WorkerLost

CLOSURE_BYTES = 8 << 30
"""Longest file that is written for a proof."""
PAGE_BYTES = 48 << 20
"""Longest reply with a page of it. Pages end after 1 MiB, but not within a line."""


class Closure(msgspec.Struct, frozen=True):
    """What was written: declarations (inductive types with all that belongs to them count once), bytes, the axioms
    among them that are always permitted, and the names of what is an axiom there for want of a value."""

    declarations: int
    size: int
    axioms: tuple[str, ...]
    assumed: tuple[str, ...]


class _Page(msgspec.Struct, frozen=True):
    status: str = "proved"
    reason: str = ""
    unclosed: str = ""
    page: str = ""
    done: bool = False
    declarations: int = 0
    axioms: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


class NoOpinion(Exception):
    """A proof cannot be put to the checker, or the checker comes to no end with it."""


class Refused(Exception):
    """The Lean process that was to write the closure does not find the statement proved."""


def write_closure(
    worker: Running, request: CertifyRequest, limits: Limits, file: IO[bytes], size_limit: int = CLOSURE_BYTES
) -> Closure:
    """Writes the theorem of an export with all that it rests on. The worker must be one that certifies.

    Raises NoOpinion where there is no closure to be had, Refused where the worker does not find the statement proved,
    and WorkerLost.
    """
    allowed = certify.limits(limits)
    reply = worker.ask({**certify.message(request), "op": "closure"}, allowed, PAGE_BYTES)
    size = 0
    while True:
        page = _page(reply)
        if page.status != "proved":
            raise Refused(f"{page.status}: {page.reason}")
        if page.unclosed:
            raise NoOpinion(page.unclosed)
        size += file.write(page.page.encode("ascii"))
        if size > size_limit:
            raise NoOpinion(f"its closure is longer than {size_limit >> 20:,} MiB")
        if page.done:
            return Closure(page.declarations, size, page.axioms, page.assumed)
        reply = worker.ask({"op": "closure.next"}, allowed, PAGE_BYTES)


def _page(reply: dict[str, Any]) -> _Page:
    if "error" in reply:
        raise WorkerLost("protocol", f"Lean's side failed: {reply['error']}")
    if "statement_failure" in reply:
        raise Refused(f"the {reply['statement_failure']} does not elaborate: {reply.get('reason')}")
    try:
        page = msgspec.convert(reply, _Page)
    except msgspec.ValidationError as error:
        raise WorkerLost("protocol", f"a reply out of protocol: {error}") from error
    if not page.page.isascii():
        raise WorkerLost("protocol", "a page that is not ASCII")
    return page
