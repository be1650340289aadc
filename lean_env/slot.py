"""One place for a Lean worker in the pool, with the thread that serves it."""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import msgspec

from lean_env.answers import answer_of, answer_of_damage, answer_of_losses, name_of, refused_late
from lean_env.breaker import Breaker
from lean_env.errors import CanaryError, CheckLostError, LeanError, WorkerError
from lean_env.held import Held
from lean_env.protocol import Limits
from lean_env.schedule import Answer, Task, TaskQueue
from lean_env.worker import Usage, WorkerLost

CANARY_CHECKS = 200
"""Most results held back."""
HELD_BYTES = 16 << 20
"""Most bytes of exports held back, but for the last one."""
CANARY_SECONDS = 3.0
"""Longest that a busy worker's results are held back, plus the check that runs."""
CANARY_IDLE_SECONDS = 0.3
"""Longest that an idle worker's results are held back."""
RETURNS = 2
"""A result that was lost so often with its worker, for what others did to it, is no longer held back."""
RETIRE_CHECKS = 5_000
"""A worker is replaced after so many answers."""
RETIRE_SHARE = 0.85
"""A worker is replaced when its resident memory passes this share of the limit, rather than fail a candidate for what
others left."""
SHORT_LIFE = 10
"""A worker that is replaced after so few answers, those to canaries included, has not grown old."""
STARTS = 3
"""How often in a row a worker may fail to start."""
_UNLIKE = ("died", "protocol", "stalled")
"""Ends of a worker that are like no candidate's, where the next worker has an answer to the same."""
AHEAD = 8
"""A worker is sent a task behind the one it is at while more than so many others wait: fewer are better left to whoever
is free first."""
OUTSIDE_LOSSES = 6
"""How often a task, or a start, may lose its worker through no fault of its own."""


class Running(Protocol):
    """What a slot needs of a worker (:class:`lean_env.worker.Worker`)."""

    asked: int
    memory_mb: float
    peak_mb: float

    @property
    def pid(self) -> int: ...

    @property
    def busy(self) -> bool: ...

    def wait_ready(self) -> None: ...

    def ask(
        self, request: dict[str, Any], limits: Limits, reply_bytes: int = ..., following: dict[str, Any] | None = ...
    ) -> dict[str, Any]: ...

    def usage(self) -> Usage: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


class Launchable(Protocol):
    """What starts one worker (:class:`lean_env.worker.Launch`)."""

    def start(self) -> Running: ...


class Startable(Protocol):
    """A Lean that workers can be started from."""

    @property
    def version(self) -> str: ...

    def launch(self) -> Launchable: ...


class Owner(Protocol):
    """What a slot needs of its pool."""

    def count(self, **more: float) -> None: ...

    def fail(self, error: LeanError) -> None: ...

    @property
    def breaker(self) -> Breaker: ...


class Role(msgspec.Struct, frozen=True):
    """What the workers of a slot are for: which Lean they are, where their tasks come from, which questions tell that
    one is in order, and what is to be done with an answer that may be relied on."""

    toolchain: Startable
    queue: TaskQueue
    wrong_canary: Callable[[Running, Task | None], str | None]
    give: Callable[[Task, Answer | WorkerError], None]
    certifies: bool = False


class Slot:
    """One place for a worker, with the thread that serves it. All but :meth:`kill` runs in that thread."""

    def __init__(self, pool: Owner, role: Role, number: int) -> None:
        self.number = number
        self.worker: Running | None = None
        self._pool = pool
        self._role = role
        self._clean = 0
        """How much the worker had been asked when it was ready."""
        self._held = Held()
        self._tainted = False
        self._starts = 0
        self._slow: Hashable = None
        self._short_lived = False
        """Whether the last worker was replaced, for its memory, after a few answers."""
        self._kept = 0
        """Answers, and Lean's seconds for them, that the pool was not told of yet."""
        self._seconds = 0.0
        self._next: Task | None = None
        """A task taken before its turn; the worker may have been sent it already."""
        self._due = False
        """Whether canaries are to be asked as soon as the worker has answered what it was sent."""

    def kill(self) -> None:
        worker = self.worker
        if worker is not None:
            worker.kill()

    def serve(self) -> None:
        """Takes tasks until the pool closes. An error that is ours ends every job of the pool."""
        queue = self._role.queue
        try:
            while not queue.closed:
                task, self._next = self._next, None
                if task is None:
                    patience = None if not self._held.items else 0.0 if self._awaited() else CANARY_IDLE_SECONDS
                    task = queue.take(self.number, patience)
                if task is not None:
                    self._do(task)
                elif queue.is_expecting() and self.worker is None:
                    self._ready_worker(fresh=False)
                elif self._held.items and (self._awaited() or self._held.age() >= CANARY_IDLE_SECONDS):
                    self._release()
        except LeanError as error:
            self._pool.fail(error)
        except BaseException as error:
            self._pool.fail(WorkerError(f"internal error in the Lean pool: {error!r}"))
            raise
        finally:
            self._discard()

    def _awaited(self) -> bool:
        """Whether the end of some job waits for a result held here."""
        return any(job.fed is not None for job in self._held.jobs)

    def _do(self, task: Task) -> None:
        """Gets one answer, on as many workers as it takes."""
        losses: list[WorkerLost] = []
        outside = 0
        version = self._role.toolchain.version
        if task.suspect or task.kind == "file" or task.key == self._slow:
            self._release()  # what came before must not be mixed up with it
        while not self._role.queue.closed:
            worker = self._ready_worker(fresh=bool(losses) or (self._tainted and task.kind != "file"))
            if worker is None:
                return
            vouched = not self._held.items
            following = None if losses or outside else self._following(task)
            try:
                if worker.asked == self._clean and (too_small := self._too_small(worker, task)):
                    self._role.give(task, too_small)
                    return
                reply = worker.ask(task.message, task.limits, task.reply_bytes, following)
                answer = answer_of(task, reply, version)
            except WorkerLost as loss:
                self._lose()
                if loss.kind in ("killed", "starved"):
                    self._lost_outside(loss)
                    outside += 1
                    if outside >= OUTSIDE_LOSSES and not self._role.queue.closed:
                        lost = CheckLostError(name_of(task), f"lost its Lean worker {outside} times: {loss}")
                        self._role.give(task, lost)
                        return
                    continue
                losses.append(loss)
                # Others on the same statement may be as slow: canaries before each save them the second try.
                self._slow = task.key if loss.kind == "timeout" else self._slow
                final = answer_of_losses(task, losses, vouched, version)
                if final is not None:
                    self._give((task, final))
                    return
            else:
                for loss in losses:
                    if loss.kind in _UNLIKE:
                        self._lost_outside(loss)
                self._keep(task, answer, reply)
                return

    def _too_small(self, worker: Running, task: Task) -> CheckLostError | None:
        """What to say where a worker that has checked nothing yet is over the limit, or would be replaced at once.

        Where the last one was replaced after a few answers, the header and the statement are looked at with a sorry
        first: what they take is no candidate's doing, and every check would cost a worker. Raises WorkerLost.
        """
        if self._short_lived and task.kind in ("check", "certify"):
            self._short_lived = False
            if wrong := self._role.wrong_canary(worker, task):
                raise WorkerLost("killed", f"a fresh Lean worker gives wrong answers: {wrong}")
        memory = worker.usage().memory_mb
        if memory <= RETIRE_SHARE * task.limits.memory_mb:
            return None
        return CheckLostError(
            name_of(task),
            f"the memory limit of {task.limits.memory_mb:,} MiB is too small: a Lean worker that has checked nothing "
            f"yet takes {memory:,.0f} MiB, and is replaced at {RETIRE_SHARE:.0%} of the limit; raise memory_mb",
        )

    def _following(self, task: Task) -> dict[str, Any] | None:
        """What the worker may be sent behind a task: another one before which nothing else is to be asked of it."""
        full = len(self._held.items) + 2 >= CANARY_CHECKS or self._held.age() >= CANARY_SECONDS
        if self._due or full or task.suspect or task.returned >= RETURNS or task.kind not in ("check", "certify"):
            return None
        if self._next is None:
            self._next = self._role.queue.take_ahead(self.number, AHEAD)
        following = self._next
        if following is None or following.kind != task.kind or following.suspect or following.key == self._slow:
            return None
        return following.message

    def _keep(self, task: Task, answer: Answer, reply: dict[str, Any]) -> None:
        worker = self.worker
        assert worker is not None
        milliseconds = reply.get("ms", 0.0)
        self._kept += 1
        self._seconds += milliseconds / 1000 if isinstance(milliseconds, int | float) else 0.0
        if task.kind == "file":
            self._tainted = True  # it ran unfiltered: no check may follow on this worker
            self._give((task, answer))
            return
        if refused_late(answer):
            self._retire_at_once(task, answer)
            return
        self._held.add(task, answer)
        memory = worker.memory_mb
        old = worker.asked >= RETIRE_CHECKS or memory > RETIRE_SHARE * task.limits.memory_mb
        full = len(self._held.items) >= CANARY_CHECKS or self._held.size >= HELD_BYTES
        now = task.suspect or task.returned >= RETURNS
        self._due = self._due or old or now or full or self._held.age() >= CANARY_SECONDS
        if self._due and not worker.busy:
            self._release()
            if old:
                self._short_lived = worker.asked - self._clean <= SHORT_LIFE
                self._discard()

    def _give(self, *results: tuple[Task, Answer | WorkerError]) -> None:
        """Gives out answers, counted first: who has one can rely on the count."""
        self._count()
        self._pool.breaker.answered(len(results))
        for task, answer in results:
            self._role.give(task, answer)

    def _count(self, **more: float) -> None:
        certifies = self._role.certifies
        kept, seconds = ("certifications", "certify_seconds") if certifies else ("checks", "lean_seconds")
        self._pool.count(**{kept: self._kept, seconds: self._seconds}, **more)
        self._kept, self._seconds = 0, 0.0

    def _retire_at_once(self, task: Task, answer: Answer) -> None:
        """After a command that should not have run, canaries mean nothing: what is held is checked elsewhere. The
        refusal stands if they came right before it; otherwise it is asked for again, alone."""
        vouched = not self._held.items
        if not vouched:
            task.suspect = True
            self._held.add(task, answer)
        self._lose()
        if vouched:
            self._give((task, answer))

    def _release(self) -> None:
        """Asks the canaries and gives out what is held, or sees to it that it is checked again."""
        self._due = False
        if not self._held.items or self.worker is None:
            return
        try:
            wrong = self._role.wrong_canary(self.worker, self._held.items[-1][0])
        except WorkerLost as loss:
            if loss.kind in ("killed", "starved"):
                self._lose()
                self._lost_outside(loss)
                return
            wrong = str(loss)
        if wrong is None:
            self._count(peak_worker_mb=self.worker.peak_mb)
            held, self._held = self._held.items, Held()
            self._give(*held)
            return
        suspects = [task for task, _ in self._held.items]
        self._held = Held()
        self._lose()
        if len(suspects) == 1:
            suspects[0].damages += 1
            if suspects[0].damages >= 2:
                self._give((suspects[0], answer_of_damage(suspects[0], wrong, self._role.toolchain.version)))
                return
        for task in suspects:
            task.suspect = True
        self._role.queue.give_back(suspects)

    def _lose(self) -> None:
        """Gets rid of the worker without hearing its canaries: what it said since the last ones is not to be relied
        on."""
        again = [task for task, _ in self._held.items]
        for task in again:
            task.returned += 1
        if self._next is not None:
            again.append(self._next)  # it was only sent ahead; what was taken down goes before it
            self._next = None
        self._held = Held()
        self._due = False
        self._count(lost=1)
        self._discard()
        if again:
            self._role.queue.give_back(again)

    def _lost_outside(self, loss: WorkerLost) -> None:
        """Raises WorkerError where it happens too often. The end of a pool kills workers as well."""
        if not self._role.queue.closed:
            self._pool.breaker.lost(str(loss))

    def _discard(self) -> None:
        if self.worker is not None:
            self._count(peak_worker_mb=self.worker.peak_mb)
            self.worker.close()
            self.worker = None
            self._role.queue.forget(self.number)
        self._tainted = False

    def _ready_worker(self, fresh: bool) -> Running | None:
        """A worker whose canaries sing; a new one if ``fresh`` is asked for and this one has worked. None to try
        again."""
        if self.worker is not None and fresh and self.worker.asked > self._clean:
            self._release()
            self._discard()
        if self.worker is not None:
            return self.worker
        self._pool.count(started=1, restarts=int(self._starts > 0))
        self._starts += 1
        failures: list[LeanError] = []
        outside = 0
        while not self._role.queue.closed:
            try:
                worker = self.worker = self._role.toolchain.launch().start()
                if self._role.queue.closed:
                    worker.kill()  # the pool was closed before it could see this worker
                worker.wait_ready()
                wrong = self._role.wrong_canary(worker, None)
                if wrong is None:
                    self._clean = worker.asked
                    return worker
                failures.append(CanaryError(f"a fresh Lean worker gives wrong answers: {wrong}; run `prover doctor`"))
            except (WorkerLost, OSError) as error:
                failures.append(WorkerError(f"Lean cannot start: {error}"))
                if isinstance(error, WorkerLost) and error.kind == "killed":
                    outside += 1
                    self._lost_outside(error)
            self._discard()
            if (len(failures) - outside >= STARTS or outside >= OUTSIDE_LOSSES) and not self._role.queue.closed:
                raise failures[-1]
        return None
