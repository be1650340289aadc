"""Step mode: proof states that a Lean worker holds, and tactics applied to them one at a time, for whoever searches.

A session owns one worker, confined like any other. States are values: a tactic applied to one makes another, and any
may be gone on from again. Each tactic passes the filter for candidates first.

Nothing here says ``proved``. A state without goals has a text (:attr:`StepState.proof`), which is a candidate like any
other: it is a proof when :meth:`lean_env.pool.LeanPool.check` says so.

What the worker holds may be lost, with the worker, or because it holds too much: a state is made again, from the
tactics that led to it, when it is next gone on from.
"""

import textwrap
from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType
from typing import Annotated, Any, Literal

import msgspec

from lean_env.errors import StatementError, StepError, WorkerError
from lean_env.protocol import Goal, Limits, Message, StatementFailure
from lean_env.slot import OUTSIDE_LOSSES, RETIRE_SHARE, Running, Startable
from lean_env.source import refusal, target_name
from lean_env.worker import WorkerLost

HELD_STATES = 1_024
"""Most states that a worker holds at once; the least recently used is dropped for another, to be made again."""
TRIES = 2
"""A tactic that ends a worker by itself so often is at fault; on the way to a lost state, where all went well before,
nothing is, and the step is given up unanswered."""

FailureKind = Literal["tactic", "syntax", "forbidden", "sorry", "no_goals", "timeout", "memory"]
"""Why a tactic led nowhere: Lean's error; no tactic; refused by the filter; gives up; nothing left to prove; heartbeats
or CPU time used up; memory or stack used up."""


class StepState(msgspec.Struct, frozen=True):
    """A proof state. ``goals`` are shown up to a limit, ``open_goals`` counts all; ``tactics`` lead to it."""

    id: int
    goals: tuple[Goal, ...]
    open_goals: int
    tactics: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether no goal is left. The tactics still have to be checked as a proof."""
        return self.open_goals == 0

    @property
    def proof(self) -> str:
        """The tactics as the text that follows ``:=``, to be checked like any candidate."""
        return "by\n" + "".join(textwrap.indent(tactic, "  ") + "\n" for tactic in self.tactics or ("skip",))


class StepFailure(msgspec.Struct, frozen=True):
    """A tactic led to no state. ``message`` is Lean's, or says in one line what stopped it."""

    kind: FailureKind
    message: str


class StepStats(msgspec.Struct, frozen=True):
    """What a session has done so far: ``steps`` asked for and answered, ``replayed`` steps made again, workers
    ``started``, and Lean's own seconds."""

    steps: int = 0
    replayed: int = 0
    started: int = 0
    lean_seconds: float = 0.0


class _Reply(msgspec.Struct, frozen=True):
    goals: tuple[Goal, ...] = ()
    open: Annotated[int, msgspec.Meta(ge=0)] = -1
    failure: FailureKind | None = None
    reason: str = ""
    statement_failure: str = ""
    messages: tuple[Message, ...] = ()
    ms: Annotated[float, msgspec.Meta(ge=0, lt=1e12)] = 0.0


class _Path(msgspec.Struct, frozen=True):
    """How a state comes to be: its statement, and the tactics before it."""

    header: str
    statement: str
    target: str
    tactics: tuple[str, ...] = ()


class StepSession:
    """One Lean worker that holds proof states. A context manager, for one thread."""

    def __init__(self, toolchain: Startable, limits: Limits | None = None, held_states: int = HELD_STATES) -> None:
        """``limits`` hold for each step by itself. The worker is started with the first."""
        if held_states < 2:
            raise ValueError("a session must hold two states at least")
        self._toolchain = toolchain
        self._limits = limits or Limits()
        self._most = held_states
        self._worker: Running | None = None
        self._closed = False
        self._paths: dict[int, _Path] = {}
        self._places: OrderedDict[_Path, int] = OrderedDict()
        """Where the worker holds what, the least recently used first."""
        self._free: list[int] = []
        self._next = 0
        self._stats = StepStats()

    def __enter__(self) -> "StepSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker and forgets all states. Safe to call again."""
        self._closed = True
        self._discard()
        self._paths.clear()

    @property
    def stats(self) -> StepStats:
        return self._stats

    @property
    def worker_pid(self) -> int | None:
        """The process that holds the states now."""
        return None if self._worker is None else self._worker.pid

    def start(self, header: str, formal_statement: str) -> StepState | StatementFailure:
        """The state that a proof of the statement begins with, its arguments introduced. Raises WorkerError when Lean
        cannot be had."""
        try:
            path = _Path(header, formal_statement, target_name(formal_statement))
        except StatementError as error:
            return StatementFailure("", "statement", str(error))
        reply = self._make(path)
        if isinstance(reply, StepFailure):
            return StatementFailure("", "statement", reply.message)
        if reply.statement_failure:
            where = "header" if reply.statement_failure == "header" else "statement"
            return StatementFailure("", where, reply.reason, reply.messages)
        return self._state(path, reply)

    def apply(self, state: StepState, tactic: str) -> StepState | StepFailure:
        """Applies a tactic, or several on lines of their own or with ``;`` between, to a state, which stays as it is.

        As in a proof, a tactic sees all goals and works on the first. Raises StepError for a state that was released or
        was lost and cannot be made again (the tactic was not tried then), and WorkerError when Lean cannot be had.
        """
        path = self._paths.get(state.id)
        if path is None:
            raise StepError(f"state {state.id} was released, or is another session's")
        text = textwrap.dedent(tactic.replace("\r\n", "\n")).strip()
        if refused := refusal(text, self._limits):
            status, reason = refused
            return StepFailure("syntax" if status == "no_proof" else "forbidden", reason)
        path = msgspec.structs.replace(path, tactics=(*path.tactics, text))
        reply = self._make(path)
        return reply if isinstance(reply, StepFailure) else self._state(path, reply)

    def release(self, states: Iterable[StepState]) -> None:
        """Forgets states. Those that were made from them stay."""
        gone = {path for state in states if (path := self._paths.pop(state.id, None)) is not None}
        left = gone.difference(self._paths.values())
        try:
            self._drop([path for path in left if path in self._places])
        except WorkerLost:
            self._discard()

    def forget(self) -> None:
        """Has the worker drop every state, for its memory's sake; each is made again when it is next gone on from."""
        try:
            self._drop(list(self._places))
        except WorkerLost:
            self._discard()

    # How states come to be

    def _state(self, path: _Path, reply: _Reply) -> StepState:
        self._next += 1
        self._paths[self._next] = path
        return StepState(self._next, reply.goals, reply.open, path.tactics)

    def _make(self, path: _Path) -> _Reply | StepFailure:
        """The state at the end of a path, which begins where the worker holds one already. A worker that is lost
        costs the way there; one that is lost twice to the last step, the step. What is lost on the way is never the
        last step's fault: after a second time, StepError says where."""
        losses, outside, lost_before = 0, 0, 0
        while True:
            part = path
            try:
                for length in range(self._known(path), len(path.tactics)):
                    part = _before(path, length)
                    self._rebuild(part)
                part = path
                reply = self._step(path)
                self._retire()  # not sooner: the way to the end of the path lies in the worker
                return reply
            except WorkerLost as loss:
                self._discard()
                if loss.kind in ("killed", "starved"):
                    outside += 1
                    if outside >= OUTSIDE_LOSSES:
                        raise
                    continue
                if part is not path:
                    lost_before += 1
                    if lost_before >= TRIES:
                        raise _cannot_be_made_again(part, str(loss)) from loss
                    continue
                if loss.kind == "timeout":
                    return StepFailure("timeout", str(loss))
                losses += 1
                if losses >= TRIES:
                    return StepFailure("timeout" if loss.kind == "stalled" else "memory", str(loss))

    def _known(self, path: _Path) -> int:
        """How many tactics the longest part of the path before its end has that the worker holds; 0 too where it holds
        none, so that the statement's own state is made first."""
        for length in range(len(path.tactics) - 1, -1, -1):
            if _before(path, length) in self._places:
                return length + 1
        return 0

    def _rebuild(self, part: _Path) -> None:
        reply = self._step(part)
        self._stats = msgspec.structs.replace(self._stats, replayed=self._stats.replayed + 1)
        if isinstance(reply, StepFailure) or reply.statement_failure:
            raise _cannot_be_made_again(part, reply.message if isinstance(reply, StepFailure) else reply.reason)

    def _step(self, path: _Path) -> _Reply | StepFailure:
        """One step from what the worker holds."""
        worker = self._ready_worker()
        before = _before(path, len(path.tactics) - 1) if path.tactics else None
        if before is not None:
            self._places.move_to_end(before)
        if len(self._places) >= self._most:
            # The older half: what is searched now was used lately.
            self._drop(list(self._places)[: len(self._places) - self._most // 2])
        place = self._free.pop() if self._free else len(self._places)
        message: dict[str, Any] = {"to": place, "heartbeats": self._limits.heartbeats}
        if before is not None:
            message |= {"op": "step.apply", "from": self._places[before], "tactic": path.tactics[-1]}
        else:
            message |= {"op": "step.start", "header": path.header, "statement": path.statement, "target": path.target}
        reply = self._ask(worker, message)
        self._stats = msgspec.structs.replace(
            self._stats, steps=self._stats.steps + 1, lean_seconds=self._stats.lean_seconds + reply.ms / 1000
        )
        if reply.failure is not None or reply.statement_failure:
            self._free.append(place)
            return reply if reply.failure is None else StepFailure(reply.failure, reply.reason)
        if (held := self._places.pop(path, None)) is not None:
            self._free.append(held)
        self._places[path] = place
        return reply

    def _ask(self, worker: Running, message: dict[str, Any]) -> _Reply:
        answer = worker.ask(message, self._limits)
        if "error" in answer:
            raise WorkerLost("protocol", f"Lean's side failed: {answer['error']}")
        try:
            reply = msgspec.convert(answer, _Reply)
        except msgspec.ValidationError as error:
            raise WorkerLost("protocol", f"a reply out of protocol: {error}") from error
        if reply.failure is None and not reply.statement_failure and reply.open < 0:
            raise WorkerLost("protocol", "a reply without goals")
        return reply

    def _drop(self, paths: list[_Path]) -> None:
        """Has the worker forget states. Raises WorkerLost."""
        places = [self._places.pop(path) for path in paths]
        self._free += places
        if places and self._worker is not None:
            self._worker.ask({"op": "step.release", "places": places}, self._limits)

    # The worker

    def _ready_worker(self) -> Running:
        if self._closed:
            raise StepError("the session is closed")
        if self._worker is None:
            try:
                worker = self._toolchain.launch().start()
            except OSError as error:
                raise WorkerError(f"Lean cannot start: {error}") from error
            try:
                worker.wait_ready()
            except WorkerLost as loss:
                worker.close()
                raise WorkerError(f"Lean cannot start: {loss}") from loss
            self._worker = worker
            self._stats = msgspec.structs.replace(self._stats, started=self._stats.started + 1)
        return self._worker

    def _retire(self) -> None:
        if self._worker is not None and self._worker.usage().memory_mb > RETIRE_SHARE * self._limits.memory_mb:
            self._discard()

    def _discard(self) -> None:
        worker, self._worker = self._worker, None
        self._places.clear()
        self._free.clear()
        if worker is not None:
            worker.close()


def _cannot_be_made_again(part: _Path, why: str) -> StepError:
    last = repr(part.tactics[-1]) if part.tactics else "the statement"
    return StepError(f"a lost state cannot be made again: {last} now fails: {why}")


def _before(path: _Path, length: int) -> _Path:
    return msgspec.structs.replace(path, tactics=path.tactics[:length])
