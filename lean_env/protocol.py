"""What goes to and comes from a Lean worker. Frozen records; one JSON object a line on the wire.

Positions are Lean's own: line from 1, column from 0, counted in code points, within the text that
:func:`lean_env.source.candidate_text` returns for the request (never within the header).
"""

from typing import Literal

import msgspec

Status = Literal[
    "proved",
    "failed",
    "sorry",
    "forbidden_axiom",
    "forbidden_constant",
    "statement_changed",
    "forbidden_syntax",
    "no_proof",
    "timeout",
    "memory",
]
Level = Literal["", "audited", "certified"]
"""How far ``proved`` was looked into: by the worker that elaborated the candidate, or also by one that never saw it."""
Severity = Literal["error", "warning", "information"]
Depth = Literal["messages", "goals", "statements", "states"]
"""How much is told about a candidate beyond its status: Lean's messages; also :class:`Feedback` with the goals at each
``sorry`` and at the tactic that failed first; also these as statements of their own; also the goals before and after
every tactic."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one check may use. Part of the verdict's meaning, so part of every fingerprint."""

    heartbeats: int = 200_000
    """Lean's ``maxHeartbeats`` for each command (1 = 1,000 small allocations)."""
    cpu_seconds: float = 20.0
    """CPU seconds of the Lean process for this check; beyond it the verdict is ``timeout``."""
    wall_seconds: float = 300.0
    """Wall seconds after which the worker is taken for lost even if it used no CPU."""
    memory_mb: int = 2_600
    """Resident memory of the whole worker process in MiB; beyond it the verdict is ``memory``."""
    proof_bytes: int = 65_536
    """Candidates longer than this (UTF-8) never reach Lean: ``no_proof``."""


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One candidate proof of one trusted statement.

    ``proof`` is either what follows ``:=`` or a whole Lean text that states the target again together with its
    helper declarations. ``formal_statement`` ends before ``:=`` and comes from the problem, never from a model.
    ``feedback`` changes nothing but what the verdict tells.
    """

    id: str
    header: str
    formal_statement: str
    proof: str
    forbidden_constants: tuple[str, ...] = ()
    limits: Limits = Limits()
    feedback: Depth = "messages"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    severity: Severity
    start: tuple[int, int]
    end: tuple[int, int]
    text: str


class Hypothesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A line of a goal's context, as Lean prints it; ``value`` only where it is a definition (``x : Nat := 5``)."""

    name: str
    type: str
    value: str | None = None


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be proved at some place.

    ``text`` is the whole goal as Lean prints it, and ``case``, ``hypotheses`` and ``target`` are its parts; long ones
    are cut. ``statement`` is the goal with its hypotheses as a formal statement of its own, ``theorem prover_goal_1
    ...``: it was put through the elaborator after the request's header, and its type is the goal's, constant by
    constant. It is None where it was not asked for, where the goal rests on declarations that the header does not
    have or on something not yet known, and where no way of printing it led back to the same type.
    """

    text: str
    case: str = ""
    hypotheses: tuple[Hypothesis, ...] = ()
    target: str = ""
    statement: str | None = None


class GoalsAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Goals at a place in the candidate's text; positions as in :class:`Message`."""

    start: tuple[int, int]
    end: tuple[int, int]
    goals: tuple[Goal, ...] = ()


class TacticStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tactic in the candidate's text, with all goals open before and after it. One within another comes after it."""

    start: tuple[int, int]
    end: tuple[int, int]
    before: tuple[Goal, ...] = ()
    after: tuple[Goal, ...] = ()


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Lean's elaboration tells beyond messages, for correction, search and synthesis. Never any evidence for a
    proof.

    ``failed`` is where the first error is: the tactic that raised it with the goals it was put to, or the goals that
    were left where the error is that goals were left. Without goals if no tactic is to blame; None without errors.
    ``states`` is empty unless asked for. ``cut`` tells that more was found than is shown.
    """

    failed: GoalsAt | None = None
    sorries: tuple[GoalsAt, ...] = ()
    states: tuple[TacticStep, ...] = ()
    cut: bool = False


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lean's judgement of one attempt. ``proved`` makes the claim that docs/soundness.md spells out.

    ``reason`` says in one line what decided a status other than ``proved``, as ``step: what``, with step one of
    ``text``, ``syntax``, ``elaboration``, ``audit``, ``kernel``, ``limits``, ``certification``. ``used_constants`` are
    the library constants that the accepted proof refers to directly. ``heartbeats`` and ``seconds`` are measurements
    and may differ between runs. ``level`` is empty unless proved; ``checkers`` names the external checkers that agreed.
    ``feedback`` is there if it was asked for and the candidate reached its end in Lean.
    """

    attempt_id: str
    status: Status
    reason: str = ""
    messages: tuple[Message, ...] = ()
    axioms: tuple[str, ...] = ()
    used_constants: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    heartbeats: int = 0
    seconds: float = 0.0
    toolchain: str = ""
    level: Level = ""
    checkers: tuple[str, ...] = ()
    feedback: Feedback | None = None

    @property
    def proved(self) -> bool:
        return self.status == "proved"


class StatementFailure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The problem's own header or statement does not elaborate: no verdict on any proof of it is possible.

    Positions are within ``header`` where ``where`` is "header", within ``formal_statement`` where it is "statement".
    """

    attempt_id: str
    where: Literal["header", "statement"]
    reason: str
    messages: tuple[Message, ...] = ()
