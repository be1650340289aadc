"""Questions whose answers are known: what a worker must get right before, between and after the checks that count.

They run with the syntax filter off, so that it is the audit that has to notice.
"""

import msgspec

from lean_env.protocol import Limits, Status
from lean_env.schedule import Task
from lean_env.source import candidate_text
from lean_env.worker import Worker

LIMITS = Limits(heartbeats=200_000, cpu_seconds=60.0, wall_seconds=600.0, memory_mb=4_000)
"""Generous: the first check of a fresh worker compiles much of Lean's WebAssembly."""


class Canary(msgspec.Struct, frozen=True):
    """A candidate text for a trusted statement of no header, and the one right status."""

    name: str
    statement: str
    candidate: str
    status: Status
    target: str = "prover_canary"


_TRUE = "theorem prover_canary (n : Nat) : n + 0 = n"
_FALSE = "theorem prover_canary (n : Nat) : n + 1 = n"

CANARIES = (
    Canary("a true statement", _TRUE, f"{_TRUE} := by simp", "proved"),
    Canary("a false statement", _FALSE, f"{_FALSE} := by simp", "failed"),
    Canary("a sorry", _FALSE, f"{_FALSE} := by sorry", "sorry"),
    Canary("an axiom", _FALSE, f"axiom prover_bad : False\n{_FALSE} := prover_bad.elim", "forbidden_axiom"),
    Canary("a changed statement", _FALSE, f"{_TRUE} := rfl", "statement_changed"),
)


def wrong_canary(worker: Worker, last: Task | None) -> str | None:
    """What the worker gets wrong, or None. ``last`` is a task whose own header and statement are tried too, with a
    sorry.

    Raises WorkerLost.
    """
    for canary in CANARIES:
        message = {
            "op": "check",
            "header": "",
            "statement": canary.statement,
            "target": canary.target,
            "candidate": canary.candidate,
            "forbidden": (),
            "heartbeats": LIMITS.heartbeats,
            "syntax": False,
        }
        reply = worker.ask(message, LIMITS)
        if reply.get("status") != canary.status:
            return f"{canary.name}: {reply.get('status', reply)} instead of {canary.status}"
    if last is not None and last.kind == "check" and last.request is not None:
        text = candidate_text(last.request.formal_statement, "by sorry")
        reply = worker.ask({**last.message, "candidate": text, "syntax": False}, LIMITS)
        if reply.get("status") not in ("sorry", None):
            return f"a sorry as proof of the last statement: {reply['status']}"
    return None
