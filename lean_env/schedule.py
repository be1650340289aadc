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
    reply_bytes: int = 4 << 20


class TaskQueue:
    """Tasks in waiting, grouped by key, oldest group first; those given back come before all others.

    ``dropped`` is told of tasks that nobody waits for any more.
    """

    def __init__(self, dropped: "Callable[[Task], None] | None" = None) -> None:
        self._dropped = dropped
        self._changed = threading.Condition()
        self._returned: deque[Task] = deque()
        self._groups: OrderedDict[Hashable, deque[Task]] = OrderedDict()
        self._holders: dict[int, Hashable] = {}
        self._stays: dict[int, int] = {}
        self._closed = False

    def put(self, task: Task) -> None:
        with self._changed:
            self._groups.setdefault(task.key, deque()).append(task)
            self._changed.notify()

    def give_back(self, tasks: list[Task]) -> None:
        with self._changed:
            self._returned.extend(tasks)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._returned.clear()
            self._groups.clear()
            self._changed.notify_all()

    def wake(self) -> None:
        """Lets every waiting ``take`` return, so that its caller can look at what has changed."""
        with self._changed:
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def take(self, worker: int, timeout: float | None) -> Task | None:
        """The next task for a worker. None after the timeout, after :meth:`wake`, or when closed."""
        with self._changed:
            if not (self._returned or self._groups or self._closed):
                self._changed.wait(timeout)
            task = self._next(worker)
            if task is not None:
                self._stays[worker] = self._stays.get(worker, 0) + 1 if self._holders.get(worker) == task.key else 1
                self._holders[worker] = task.key
            return task

    def _next(self, worker: int) -> Task | None:
        while self._returned:
            task = self._returned.popleft()
            if self._wanted(task):
                return task
        while self._groups:
            key = self._choose(worker)
            group = self._groups[key]
            task = group.popleft()
            if not group:
                del self._groups[key]
            if self._wanted(task):
                return task
        return None

    def _wanted(self, task: Task) -> bool:
        if task.job.cancelled and self._dropped is not None:
            self._dropped(task)
        return not task.job.cancelled

    def _choose(self, worker: int) -> Hashable:
        """The key this worker works on, unless it had its share; else the oldest that no other worker works on; else
        the oldest."""
        mine = self._holders.get(worker)
        if mine in self._groups:
            if self._stays.get(worker, 0) < STAY or len(self._groups) == 1:
                return mine
            self._groups.move_to_end(mine)
        others = {key for number, key in self._holders.items() if number != worker}
        for key in self._groups:
            if key not in others:
                return key
        return next(iter(self._groups))


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
