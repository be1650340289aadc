"""What the pool's threads pass to each other: tasks, the jobs they belong to, and the queue that workers take them
from."""

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from lean_env.certify import CertifyRequest, Exported
from lean_env.errors import LeanError
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict

Kind = Literal["check", "elaborate", "ask", "file", "certify"]
STAY = 32
"""How many tasks in a row a worker takes of one statement while others wait."""
TURN_SECONDS = 1.0
"""How long a worker stays with one statement while other jobs wait."""
SWITCH_SECONDS = 15.0
"""How long a worker keeps to files, or to anything else, before it changes over for want of another: that costs the
start of a worker."""

Answer = Verdict | Exported | StatementFailure | tuple[str, StatementFailure | None] | dict[str, Any]


@dataclass(eq=False)
class Job:
    """One call of the pool. Results go through ``results``; ``room`` bounds how many tasks are under way."""

    room: threading.Semaphore
    certify: bool = False
    """Whether what a worker calls proved is put to a second one."""
    results: "queue.SimpleQueue[Answer | LeanError | None]" = field(default_factory=queue.SimpleQueue)
    """Answers as they come; an error ends the job; None wakes its reader when the feed has ended."""
    fed: int | None = None
    """How many tasks there are in all, once the requests have come to their end."""
    failure: BaseException | None = None
    """What ended the requests before their end."""
    cancelled: bool = False


@dataclass(eq=False)
class Task:
    """One thing to ask of a worker, and what has happened to it so far."""

    job: Job
    kind: Kind
    key: Hashable
    """Tasks with the same key go to the same worker if possible: it has their header and statement at hand."""
    message: dict[str, Any]
    limits: Limits
    request: CheckRequest | CertifyRequest | None = None
    verdict: Verdict | None = None
    """What there is to certify."""
    suspect: bool = False
    """A worker failed its canaries after this task and others: it is to be tried by itself."""
    damages: int = 0
    """How often a worker failed its canaries after this task alone."""
    returned: int = 0
    """How often its result was lost with the worker that held it."""
    reply_bytes: int = 4 << 20


@dataclass
class _Turn:
    """What a worker is at: tasks of one key of one job, how many so far, and since when."""

    job: Job
    key: Hashable
    taken: int
    since: float


class TaskQueue:
    """Tasks in waiting, by job and by key; those given back come before all others.

    Jobs take turns, so that one with a single task waits for no other to end. Within a job the oldest key comes first.
    A worker that ran an unfiltered file must be replaced before it may check again: workers change over only when
    nobody else does what is waiting, and then for ``SWITCH_SECONDS`` at least.

    ``dropped`` is told of tasks that nobody waits for any more.
    """

    def __init__(self, dropped: "Callable[[Task], None] | None" = None) -> None:
        self._dropped = dropped
        self._changed = threading.Condition()
        self._returned: deque[Task] = deque()
        self._jobs: OrderedDict[Job, OrderedDict[Hashable, deque[Task]]] = OrderedDict()
        self._turns: dict[int, _Turn] = {}
        self._sides: dict[int, tuple[bool, float]] = {}
        """Whether a worker last ran files, and since when it has run only such or only others."""
        self._closed = False

    def put(self, task: Task) -> None:
        with self._changed:
            self._jobs.setdefault(task.job, OrderedDict()).setdefault(task.key, deque()).append(task)
            self._changed.notify()

    def give_back(self, tasks: list[Task]) -> None:
        with self._changed:
            self._returned.extend(tasks)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._returned.clear()
            self._jobs.clear()
            self._changed.notify_all()

    def wake(self) -> None:
        """Lets every waiting ``take`` return, so that its caller can look at what has changed."""
        with self._changed:
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def waiting(self) -> int:
        """How many tasks no worker has taken yet."""
        with self._changed:
            return len(self._returned) + sum(len(g) for groups in self._jobs.values() for g in groups.values())

    def take(self, worker: int, timeout: float | None) -> Task | None:
        """The next task for a worker. None after the timeout, after :meth:`wake`, or when closed."""
        with self._changed:
            if not (self._returned or self._jobs or self._closed):
                self._changed.wait(timeout)
            task = self._next(worker)
            if task is not None:
                self._note(worker, task)
            return task

    def take_ahead(self, worker: int, spare: int) -> Task | None:
        """The next task for a worker that is still at another one, if more than ``spare`` would be left."""
        with self._changed:
            if self._returned or sum(len(g) for groups in self._jobs.values() for g in groups.values()) <= spare:
                return None
            task = self._next(worker)
            if task is not None:
                self._note(worker, task)
            return task

    def _note(self, worker: int, task: Task) -> None:
        turn, file = self._turns.get(worker), task.kind == "file"
        if turn is not None and turn.job is task.job and turn.key == task.key:
            turn.taken += 1
        else:
            self._turns[worker] = _Turn(task.job, task.key, 1, time.monotonic())
        if self._sides.get(worker, (not file, 0.0))[0] != file:
            self._sides[worker] = (file, time.monotonic())

    def _next(self, worker: int) -> Task | None:
        while self._returned:
            task = self._returned.popleft()
            if self._wanted(task):
                return task
        while self._jobs:
            job, key = self._choose(worker)
            groups = self._jobs[job]
            task = groups[key].popleft()
            if not groups[key]:
                del groups[key]
            if not groups:
                del self._jobs[job]
            if self._wanted(task):
                return task
        return None

    def _wanted(self, task: Task) -> bool:
        if task.job.cancelled and self._dropped is not None:
            self._dropped(task)
        return not task.job.cancelled

    def _choose(self, worker: int) -> tuple[Job, Hashable]:
        """What this worker is at, unless it had its turn; else of the job whose turn it is the oldest key that no other
        worker works on, or the oldest."""
        turn = self._turns.get(worker)
        if turn is not None and turn.key in self._jobs.get(turn.job, ()):
            if not self._is_over(turn):
                return turn.job, turn.key
            self._jobs[turn.job].move_to_end(turn.key)
        job = self._choose_job(worker)
        self._jobs.move_to_end(job)
        groups = self._jobs[job]
        others = {t.key for number, t in self._turns.items() if number != worker and t.job is job}
        return job, next((key for key in groups if key not in others), next(iter(groups)))

    def _is_over(self, turn: _Turn) -> bool:
        if len(self._jobs) > 1:
            return turn.taken >= STAY or time.monotonic() - turn.since >= TURN_SECONDS
        return turn.taken >= STAY and len(self._jobs[turn.job]) > 1

    def _choose_job(self, worker: int) -> Job:
        """The job whose turn it is, on the side (files or others) that this worker is on or has to change to."""
        first: dict[bool, Job] = {}
        for job, groups in self._jobs.items():
            first.setdefault(next(iter(groups.values()))[0].kind == "file", job)
            if len(first) == 2:
                break
        if len(first) == 1 or worker not in self._sides:
            return next(iter(first.values()))
        side, since = self._sides[worker]
        served = any(other != side for number, (other, _) in self._sides.items() if number != worker)
        return first[side if served or time.monotonic() - since < SWITCH_SECONDS else not side]


@dataclass
class Held:
    """Results of a worker since its last right answers to the canaries. They are not given out before the next ones."""

    items: list[tuple[Task, Answer]] = field(default_factory=list)
    since: float = 0.0
    size: int = 0
    """Bytes of exports among them."""

    def add(self, task: Task, answer: Answer) -> None:
        if not self.items:
            self.since = time.monotonic()
        self.items.append((task, answer))
        self.size += len(answer.export) if isinstance(answer, Exported) else 0

    def age(self) -> float:
        """Seconds that the oldest has waited; 0 where there is none."""
        return time.monotonic() - self.since if self.items else 0.0
