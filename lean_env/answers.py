"""What a worker's reply, or its loss, means for the task that was put to it."""

from typing import Annotated, Any

import msgspec

from lean_env.certify import CertifyRequest, Exported
from lean_env.errors import WorkerError
from lean_env.protocol import CheckRequest, Feedback, Goal, Message, StatementFailure, Status, Verdict
from lean_env.schedule import Answer, Task
from lean_env.worker import WorkerLost

_LOSS_STATUS: dict[str, Status] = {
    "timeout": "timeout",
    "stalled": "timeout",
    "memory": "memory",
    "died": "memory",
    "protocol": "failed",
}
"""Ends that a candidate can bring about. By itself a worker ends for want of stack or heap; one that answers out of
protocol, or reports an internal error of ours, twice on the same candidate, has at least not found a proof."""
HOLDS_SYNTAX = "holds syntax, which is not allowed"
"""How Guard.lean ends its reason for the one refusal that comes after the refused command has run. The reply says it in
no other way; a test with real Lean holds the two texts together."""


CERTIFICATION = "certification: "
"""What the reason of a verdict begins with where a proof was refused, or lost, by the worker that certifies."""
SHOWN_CHARS = 1 << 20
"""Most that a reply may show in words. Lean's side stops far below; a worker in a candidate's hands need not, and
results are held in memory."""


class _CheckReply(msgspec.Struct, frozen=True):
    status: Status
    reason: str = ""
    messages: tuple[Message, ...] = ()
    axioms: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    heartbeats: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    ms: Annotated[float, msgspec.Meta(ge=0, lt=1e12)] = 0.0
    feedback: Feedback | None = None
    export: str | None = None
    unexported: str = ""


class _CertifyReply(msgspec.Struct, frozen=True):
    status: Status
    reason: str = ""
    axioms: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


class _FailureReply(msgspec.Struct, frozen=True):
    statement_failure: str
    reason: str = ""
    messages: tuple[Message, ...] = ()


def answer_of(task: Task, reply: dict[str, Any], toolchain: str) -> Answer:
    """The reply as a record. Raises WorkerLost for an internal error of the worker's and for anything out of
    protocol."""
    if "error" in reply and "messages" not in reply:
        raise WorkerLost("protocol", f"Lean's side failed: {reply['error']}")
    try:
        return _convert(task, reply, toolchain)
    except msgspec.ValidationError as error:
        raise WorkerLost("protocol", f"a reply out of protocol: {error}") from error


def _convert(task: Task, reply: dict[str, Any], toolchain: str) -> Answer:
    if task.kind in ("ask", "file"):
        return reply
    request = task.request
    assert request is not None
    if "statement_failure" in reply:
        failed = msgspec.convert(reply, _FailureReply)
        where = "header" if failed.statement_failure == "header" else "statement"
        failure = StatementFailure(request.id, where, failed.reason, failed.messages)
        return (request.id, failure) if task.kind == "elaborate" else failure
    if task.kind == "elaborate":
        if reply.get("ok") is not True:
            raise msgspec.ValidationError("neither `ok` nor `statement_failure`")
        return request.id, None
    if task.kind == "certify":
        return _certified(task, msgspec.convert(reply, _CertifyReply), toolchain)
    return _checked(task, request, msgspec.convert(reply, _CheckReply), toolchain)


def _checked(task: Task, request: CheckRequest | CertifyRequest, checked: _CheckReply, toolchain: str) -> Answer:
    words = len(checked.reason) + sum(len(m.text) for m in checked.messages) + sum(map(len, checked.goals))
    words += 0 if checked.feedback is None else _words(checked.feedback)
    if words > SHOWN_CHARS:
        raise msgspec.ValidationError(f"{words:,} characters of messages and goals")
    if checked.reason.startswith(CERTIFICATION):
        raise msgspec.ValidationError("a reason that is another worker's to give")
    verdict = Verdict(
        request.id,
        checked.status,
        checked.reason,
        checked.messages,
        checked.axioms,
        checked.used,
        checked.goals,
        checked.heartbeats,
        round(checked.ms / 1000, 6),
        toolchain,
        "audited" if checked.status == "proved" else "",
        feedback=checked.feedback,
    )
    if not verdict.proved or not task.job.certify:
        return verdict
    if checked.export is None:
        return Verdict(request.id, "failed", f"{CERTIFICATION}{checked.unexported or 'no export'}", toolchain=toolchain)
    return Exported(verdict, checked.export)


def _words(feedback: Feedback) -> int:
    """Characters of all goals."""
    places = (*((feedback.failed,) if feedback.failed is not None else ()), *feedback.sorries)
    goals = [goal for place in places for goal in place.goals]
    goals += [goal for step in feedback.states for goal in (*step.before, *step.after)]
    return sum(map(_goal_words, goals))


def _goal_words(goal: Goal) -> int:
    hypotheses = sum(len(h.name) + len(h.type) + len(h.value or "") for h in goal.hypotheses)
    return len(goal.text) + len(goal.case) + len(goal.target) + len(goal.statement or "") + hypotheses


def _certified(task: Task, reply: _CertifyReply, toolchain: str) -> Verdict:
    """What the candidate's own worker found is kept only where the other one cannot know it."""
    assert task.verdict is not None and isinstance(task.request, CertifyRequest)
    if not task.request.export:
        reason = f"{CERTIFICATION}the statement elaborates, against the word of the worker that had the candidate"
        return Verdict(task.request.id, "failed", reason, toolchain=toolchain)
    if reply.status == "proved":
        return msgspec.structs.replace(
            task.verdict, level="certified", reason=reply.reason, axioms=reply.axioms, used_constants=reply.used,
            toolchain=toolchain,
        )  # fmt: skip
    return Verdict(task.request.id, "failed", f"{CERTIFICATION}{reply.status}: {reply.reason}", toolchain=toolchain)


def answer_of_losses(
    task: Task, losses: list[WorkerLost], vouched: bool, toolchain: str
) -> Answer | WorkerError | None:
    """The result of a task that cost workers, once two of them agree (of three, two do); None while it is to be tried
    again. CPU time used up by a worker that canaries had vouched for just before is the task's own doing at once.

    It is a WorkerLost for the asker where there is no verdict to give (``ask``, ``file``).
    """
    statuses: list[Status] = [_LOSS_STATUS[loss.kind] for loss in losses]
    status = statuses[-1]
    if statuses.count(status) < 2 and not (vouched and losses[-1].kind == "timeout"):
        return None
    reason = f"{'certification' if task.kind == 'certify' else 'limits'}: {losses[-1]}"
    if task.request is None:
        return WorkerLost(losses[-1].kind, f"{name_of(task)}: {losses[-1]}")
    if task.kind == "elaborate":
        return task.request.id, StatementFailure(task.request.id, "statement", reason)
    return Verdict(task.request.id, status, reason, toolchain=toolchain)


def answer_of_damage(task: Task, wrong: str, toolchain: str) -> Answer | WorkerError:
    """The result of a task that alone made two workers fail their canaries."""
    step = "certification" if task.kind == "certify" else "limits"
    reason = f"{step}: leaves behind a worker that answers wrongly ({wrong})"
    if task.request is None:
        return WorkerError(f"{name_of(task)}: {reason}")
    if task.kind == "elaborate":
        return task.request.id, StatementFailure(task.request.id, "statement", reason)
    return Verdict(task.request.id, "failed", reason, toolchain=toolchain)


def refused_late(answer: Answer) -> bool:
    """Whether a candidate was refused for what a command of its had already done when it was looked at: its worker is
    not to be relied on any more."""
    return isinstance(answer, Verdict) and answer.status == "forbidden_syntax" and answer.reason.endswith(HOLDS_SYNTAX)


def name_of(task: Task) -> str:
    """What to call a task in an error: the request's id, or what was asked."""
    return task.request.id if task.request is not None else str(task.message.get("op"))
