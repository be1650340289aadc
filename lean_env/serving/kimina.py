"""The requests and replies of Kimina Lean Server, so that its clients can switch: ``/verify`` and ``/api/check``.

Such a request has no trusted statement: a reply says what Lean printed about a text, and that is no claim about a
proof. A text may declare axioms, redefine what its theorem says, print what it likes, and disturb the worker that the
next text is given to. For a claim, use ``/check``.

The shapes are those of https://github.com/project-numina/kimina-lean-server (``schemas.py``, ``backward.py``).
Positions are those of the whole text; theirs leave out leading imports and blank lines. Info trees, tactics and
``sorries`` are not given.
"""

from typing import Annotated, Any

import msgspec

from lean_env.errors import LeanError
from lean_env.protocol import Message
from lean_env.serving.batch import BodyError, hold_to_most
from lean_env.worker import WorkerLost

NOTE = "compile-only: no statement was compared and no axiom looked at, so no errors is no proof; /check is for that"
_SEVERITIES = {"error": "error", "warning": "warning", "information": "info"}
_Timeout = Annotated[float, msgspec.Meta(gt=0)]


class Code(msgspec.Struct, frozen=True):
    custom_id: str | int
    proof: str | None = None
    code: str | None = None


class VerifyBody(msgspec.Struct, frozen=True):
    """What ``/verify`` takes; other fields (``infotree_type``, ``disable_cache``) have no effect."""

    codes: tuple[Code, ...]
    timeout: _Timeout = 300.0

    def texts(self) -> list[tuple[str, str]]:
        """Ids and texts. Raises BodyError."""
        hold_to_most("codes", len(self.codes))
        found: list[tuple[str, str]] = []
        for number, code in enumerate(self.codes):
            text = code.code if code.proof is None else code.proof
            if text is None:
                raise BodyError(f"codes[{number}].proof", "missing")
            found.append((str(code.custom_id), text))
        return found


class Snippet(msgspec.Struct, frozen=True):
    id: str
    code: str


class SnippetsBody(msgspec.Struct, frozen=True):
    """What ``/api/check`` takes; other fields (``debug``, ``reuse``, ``infotree``) have no effect."""

    snippets: tuple[Snippet, ...]
    timeout: _Timeout = 30.0

    def texts(self) -> list[tuple[str, str]]:
        """Ids and texts. Raises BodyError."""
        hold_to_most("snippets", len(self.snippets))
        return [(snippet.id, snippet.code) for snippet in self.snippets]


class Compiled(msgspec.Struct, frozen=True):
    """What became of one text: Lean's messages, or why there are none. ``seconds`` is Lean's own time."""

    id: str
    messages: tuple[Message, ...] | None
    seconds: float
    error: str | None = None


class _Reply(msgspec.Struct, frozen=True):
    messages: tuple[Message, ...]
    ms: float = 0.0


def compiled(key: str, reply: dict[str, Any]) -> Compiled:
    """A worker's reply; what an earlier text has done to that worker may show in it."""
    try:
        read = msgspec.convert(reply, _Reply)
    except msgspec.ValidationError as error:
        return Compiled(key, None, 0.0, f"a reply out of protocol: {error}")
    return Compiled(key, read.messages, round(read.ms / 1000, 6))


def not_compiled(key: str, error: LeanError, seconds: float) -> Compiled:
    """``seconds`` is what the text was given. Clients tell a time-out by the words `timed out`."""
    timed_out = isinstance(error, WorkerLost) and error.kind == "timeout"
    text = str(error).removeprefix("file: ")
    return Compiled(key, None, seconds if timed_out else 0.0, f"timed out: {text}" if timed_out else text)


def verify_reply(results: list[Compiled]) -> dict[str, Any]:
    return {
        "results": [{"custom_id": r.id, "error": r.error, "response": _response(r, with_time=True)} for r in results],
        "note": NOTE,
    }


def snippets_reply(results: list[Compiled]) -> dict[str, Any]:
    return {"results": [_snippet(r) for r in results], "note": NOTE}


def _snippet(r: Compiled) -> dict[str, Any]:
    return {"id": r.id, "time": r.seconds, "error": r.error, "response": _response(r, with_time=False)}


def _response(r: Compiled, with_time: bool) -> dict[str, Any] | None:
    if r.messages is None:
        return None
    response = {"env": 0, "messages": [_message(m) for m in r.messages]}
    return {**response, "time": r.seconds} if with_time else response


def _message(m: Message) -> dict[str, Any]:
    text = m.text
    if m.severity == "warning":
        # Clients look for these very words, quoted as Lean did before it changed to backticks.
        text = text.replace("declaration uses `sorry`", "declaration uses 'sorry'")
    return {"severity": _SEVERITIES[m.severity], "pos": _position(m.start), "endPos": _position(m.end), "data": text}


def _position(place: tuple[int, int]) -> dict[str, int]:
    return {"line": place[0], "column": place[1]}
