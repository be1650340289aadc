"""Questions whose answers are known: what a worker must get right before, between and after the checks that count.

A worker that elaborates gets candidates, with the syntax filter off, so that it is the audit that has to notice. One
that certifies gets exports.
"""

from typing import Any, Protocol

import msgspec

from lean_env.certify import CertifyRequest, message
from lean_env.protocol import CheckRequest, Limits, Status
from lean_env.schedule import Task
from lean_env.source import candidate_text

LIMITS = Limits(heartbeats=200_000, cpu_seconds=60.0, wall_seconds=600.0, memory_mb=4_000)
"""Generous: the first check of a fresh worker compiles much of Lean's WebAssembly."""


class Asked(Protocol):
    """Whoever is asked."""

    def ask(self, request: dict[str, Any], limits: Limits, reply_bytes: int = ...) -> dict[str, Any]: ...


class Canary(msgspec.Struct, frozen=True):
    """A candidate text, or an export, for a trusted statement of no header, and the one right status."""

    name: str
    statement: str
    text: str
    status: Status


_TRUE = "theorem prover_canary (n : Nat) : n + 0 = n"
_FALSE = "theorem prover_canary (n : Nat) : n + 1 = n"

CANARIES = (
    Canary("a true statement", _TRUE, f"{_TRUE} := by simp", "proved"),
    Canary("a false statement", _FALSE, f"{_FALSE} := by simp", "failed"),
    Canary("a sorry", _FALSE, f"{_FALSE} := by sorry", "sorry"),
    Canary("an axiom", _FALSE, f"axiom prover_bad : False\n{_FALSE} := prover_bad.elim", "forbidden_axiom"),
    Canary("a changed statement", _FALSE, f"{_TRUE} := rfl", "statement_changed"),
)


_SAME = "theorem prover_canary (p : Prop) (h : p) : p"
# The type `∀ p : Prop, p → p` is expression 4, its proof 6; the target's name is 1.
_START = "prover-export 1\ns 0 prover_canary"
_IDENTITY = "t 0\nb 0\nb 1\np 1 2\np 0 3\nl 1 1\nl 0 5"

CERTIFYING_CANARIES = (
    Canary("a true export", _SAME, f"{_START}\n{_IDENTITY}\ntheorem 1 4 6\nend 1 0 7 1", "proved"),
    Canary("an ill-typed value", _SAME, f"{_START}\n{_IDENTITY}\ntheorem 1 4 5\nend 1 0 7 1", "failed"),
    Canary(
        "another statement", "theorem prover_canary (p : Prop) : p",
        f"{_START}\n{_IDENTITY}\ntheorem 1 4 6\nend 1 0 7 1", "statement_changed",
    ),
    Canary(
        "an axiom", "theorem prover_canary : True",
        f"{_START}\ns 0 Lean\ns 2 trustCompiler\ns 0 True\nc 4\nc 3\ntheorem 1 0 1\nend 4 0 2 1", "forbidden_axiom",
    ),
    Canary(
        "a missing dependency", _SAME,
        f"{_START}\ns 0 prover_missing\n{_IDENTITY}\nc 2\ntheorem 1 4 7\nend 2 0 8 1", "failed",
    ),
)  # fmt: skip


def wrong_canary(worker: Asked, last: Task | None) -> str | None:
    """What a worker that elaborates gets wrong, or None. ``last`` is a task whose own header and statement are tried
    too, with a sorry.

    Raises WorkerLost.
    """
    for canary in CANARIES:
        question = {
            "op": "check",
            "header": "",
            "statement": canary.statement,
            "target": "prover_canary",
            "candidate": canary.text,
            "forbidden": (),
            "heartbeats": LIMITS.heartbeats,
            "syntax": False,
        }
        if wrong := _wrong(worker, canary, question):
            return wrong
    if last is not None and last.kind == "check" and isinstance(last.request, CheckRequest):
        text = candidate_text(last.request.formal_statement, "by sorry")
        reply = worker.ask({**last.message, "candidate": text, "syntax": False, "export": False}, LIMITS)
        if reply.get("status") not in ("sorry", None):
            return f"a sorry as proof of the last statement: {reply['status']}"
    return None


def wrong_certificate(worker: Asked, last: Task | None) -> str | None:
    """What a worker that certifies gets wrong, or None. ``last`` is a task whose own header and statement are tried
    too, with an export that has nothing to do with them.

    Raises WorkerLost.
    """
    for canary in CERTIFYING_CANARIES:
        request = CertifyRequest(canary.name, "", canary.statement, "prover_canary", (), canary.text)
        if wrong := _wrong(worker, canary, message(request)):
            return wrong
    if last is not None and last.message["target"] != "prover_canary":
        reply = worker.ask({**last.message, "export": CERTIFYING_CANARIES[0].text}, LIMITS)
        # `failed`: the header lacks what the kernel knows by name, so that nothing is certified there.
        if reply.get("status") not in ("statement_changed", "failed", None):
            return f"another theorem's export for the last statement: {reply['status']}"
    return None


def _wrong(worker: Asked, canary: Canary, question: dict[str, Any]) -> str | None:
    reply = worker.ask(question, LIMITS)
    if reply.get("status") == canary.status:
        return None
    return f"{canary.name}: {reply.get('status', reply)} instead of {canary.status}"
