"""The body of ``POST /check``: check requests as JSON, read strictly, held to the server's limits."""

import re
from typing import Annotated

import msgspec

from lean_env.protocol import CheckRequest, Depth, Limits

MAX_ITEMS = 10_000
"""Requests, codes or snippets in one body."""
_PATH = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<field>.*)`$", re.DOTALL)


class BodyError(ValueError):
    """A body that cannot be used; ``field`` says where, as ``requests[3].limits.cpu_seconds``, and ``status`` how HTTP
    calls it."""

    def __init__(self, field: str, what: str, status: int = 400) -> None:
        super().__init__(f"{field}: {what}" if field else what)
        self.field = field
        self.status = status


class _Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least that a check may be given: less would only wear out workers."""

    heartbeats: Annotated[int, msgspec.Meta(ge=1)] | None = None
    cpu_seconds: Annotated[float, msgspec.Meta(ge=0.1)] | None = None
    wall_seconds: Annotated[float, msgspec.Meta(ge=1)] | None = None
    memory_mb: Annotated[int, msgspec.Meta(ge=1_500)] | None = None
    proof_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    header: str
    formal_statement: str
    proof: str
    forbidden_constants: tuple[str, ...] = ()
    limits: _Limits = _Limits()
    feedback: Depth = "messages"


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    requests: tuple[_Request, ...]


def read_body(data: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """A JSON body as ``kind``. Raises BodyError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        raise (BodyError(match["field"], match["what"]) if match else BodyError("", str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyError("", f"not JSON: {error}") from None
    except RecursionError:
        raise BodyError("", "not JSON that can be read: nested too deeply") from None


def hold_to_most(field: str, count: int) -> None:
    if count > MAX_ITEMS:
        raise BodyError(field, f"{count:,} of them, over the limit of {MAX_ITEMS:,}", 413)


def read_requests(data: bytes, most: Limits) -> list[CheckRequest]:
    """The requests of a body. Limits that are not given are ``most``. Raises BodyError, also for limits over ``most``
    and for an id given twice."""
    body = read_body(data, _Body)
    assert isinstance(body, _Body)
    hold_to_most("requests", len(body.requests))
    seen: dict[str, int] = {}
    found: list[CheckRequest] = []
    for number, r in enumerate(body.requests):
        first = seen.setdefault(r.id, number)
        if first != number:
            raise BodyError(f"requests[{number}].id", f"{r.id!r} is already the id of requests[{first}]")
        limits = _limits(r.limits, most, f"requests[{number}].limits")
        found.append(
            CheckRequest(r.id, r.header, r.formal_statement, r.proof, r.forbidden_constants, limits, r.feedback)
        )
    return found


def _limits(asked: _Limits, most: Limits, where: str) -> Limits:
    given = {name: value for name in asked.__struct_fields__ if (value := getattr(asked, name)) is not None}
    for name, value in given.items():
        if value > getattr(most, name):
            raise BodyError(f"{where}.{name}", f"{value:g} is over this server's {getattr(most, name):g}")
    return msgspec.structs.replace(most, **given) if given else most
