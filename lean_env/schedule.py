"""What the pool's threads pass to each other: tasks, the jobs they belong to, and the queue that workers take them
from."""

import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal
from weakref import WeakKeyDictionary

from lean_env.certify import CertifyRequest, Exported
from lean_env.errors import LeanError
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict

Kind = Literal["check", "elaborate", "ask", "file", "certify"]
STAY = 32
"""How many tasks in a row a worker takes of one statement while others wait."""
TURN_SECONDS = 1.0
"""How long a worker stays with one statement while other jobs wait."""
HEADERS = 12
"""How many headers a worker has at hand: as many as Session.lean keeps, the last used."""
HEADER_SECONDS = 10.0
"""How long a statement waits for a worker that has its header at hand."""
SWITCH_SECONDS = 15.0
"""How long a worker keeps to files, or to anything else, before it changes over for want of another: that costs the
start of a worker."""

Opinion = Callable[[CertifyRequest, Limits, Verdict], Verdict]
"""What another kernel makes of a certified verdict (:meth:`lean_env.external.External.opinion`)."""
Answer = Verdict | Exported | StatementFailure | tuple[str, StatementFailure | None] | dict[str, Any]


@dataclass(eq=False)
class Job:
    """One call of the pool. Results go through ``results``; ``room`` bounds how many tasks are under way."""

    room: threading.Semaphore
    certify: bool = False
    """Whether what a worker calls proved is put to a second one."""
    opinion: Opinion | None = None
    """What certified proofs are put to in turn."""
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
    content: bytes = b""
    """Its key in the verdict cache; empty where there is none."""

    @property
    def header(self) -> str:
        return self.message.get("header", "")


@dataclass
class _Turn:
    """What a worker is at: tasks of one key of one job, how many so far, and since when."""

    job: Job
    line: "_Line"
    key: Hashable
    taken: int
    since: float


class _Line:
    """The tasks of one job in waiting, by key. A key is free while no worker is at it."""

    def __init__(self, header_seconds: float) -> None:
        self._header_seconds = header_seconds
        self.groups: OrderedDict[Hashable, deque[Task]] = OrderedDict()
        self._free: OrderedDict[Hashable, tuple[str, float]] = OrderedDict()
        """In the order in which their turn comes: the header, and since when."""
        self._by_header: dict[str, OrderedDict[Hashable, None]] = {}
        self._at: Counter[Hashable] = Counter()
        """How many workers are at a key, be there tasks of it or not."""

    def put(self, task: Task) -> None:
        group = self.groups.get(task.key)
        if group is None:
            self.groups[task.key] = deque((task,))
            if task.key not in self._at:
                self._make_free(task.key, task.header)
        else:
            group.append(task)

    def pop(self, key: Hashable) -> Task:
        group = self.groups[key]
        task = group.popleft()
        if not group:
            del self.groups[key]
            self._make_busy(key)
        return task

    def come(self, key: Hashable) -> None:
        """A worker turns to a key."""
        self._at[key] += 1
        self._make_busy(key)

    def leave(self, key: Hashable) -> None:
        """It turns away again."""
        self._at[key] -= 1
        if not self._at[key]:
            del self._at[key]
            if key in self.groups:
                self._make_free(key, self.groups[key][0].header)

    def choose(self, known: Collection[str], loaded: Counter[str]) -> Hashable:
        """The key for a worker that has ``known`` headers at hand, the last used last; ``loaded`` says how many workers
        have a header. Other headers wait ``header_seconds`` at most for a worker that has them. A worker that has none
        takes one that no other has."""
        if not self._free:
            return next(iter(self.groups))
        first, (header, since) = next(iter(self._free.items()))
        if header in known or (known and time.monotonic() - since > self._header_seconds):
            return first
        for near in reversed(list(known)):
            if keys := self._by_header.get(near):
                return next(iter(keys))
        if loaded[header]:
            for other in islice(self._by_header, HEADERS):
                if not loaded[other]:
                    return next(iter(self._by_header[other]))
        return first

    def _make_free(self, key: Hashable, header: str) -> None:
        self._free[key] = header, time.monotonic()
        self._by_header.setdefault(header, OrderedDict())[key] = None

    def _make_busy(self, key: Hashable) -> None:
        if (place := self._free.pop(key, None)) is not None:
            keys = self._by_header[place[0]]
            del keys[key]
            if not keys:
                del self._by_header[place[0]]


class TaskQueue:
    """Tasks in waiting, by job and by key; those given back come before all others.

    Jobs take turns, so that one with a single task waits for no other to end. Within a job the oldest key comes first
    that no other worker is at, and whose header the worker has at hand: making it anew costs time and memory. A worker
    that ran an unfiltered file must be replaced before it may check again: workers change over only when nobody else
    does what is waiting, and then for ``SWITCH_SECONDS`` at least.

    What it costs to put and to take does not grow with the number of tasks, keys and workers. The worker that was idle
    last is woken first, so that those which are not needed stay asleep.

    ``dropped`` is told of tasks that nobody waits for any more.
    """

    def __init__(
        self, dropped: "Callable[[Task], None] | None" = None, *, header_seconds: float = HEADER_SECONDS
    ) -> None:
        self._dropped = dropped
        self._header_seconds = header_seconds
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[threading.Lock, bool]] = OrderedDict()
        """Who waits for a task, the last one last: each with a lock that it tries to take again, and whether it does so
        for ever."""
        self._returned: deque[Task] = deque()
        self._lines: OrderedDict[Job, _Line] = OrderedDict()
        """Of the jobs that have tasks in waiting, the next one first."""
        self._all_lines: WeakKeyDictionary[Job, _Line] = WeakKeyDictionary()
        self._turns: dict[int, _Turn] = {}
        self._headers: dict[int, OrderedDict[str, None]] = {}
        """Which headers a worker has at hand, the last used last."""
        self._loaded: Counter[str] = Counter()
        self._sides: dict[int, tuple[bool, float]] = {}
        """Whether a worker last ran files, and since when it has run only such or only others."""
        self._waiting = 0
        self._roused: set[int] = set()
        """Woken, and not yet back to take a task."""
        self._closed = False
        self._expecting = False

    def put(self, task: Task) -> None:
        with self._lock:
            if self._closed:
                return
            line = self._lines.get(task.job)
            if line is None:
                line = self._lines[task.job] = self._all_lines.setdefault(task.job, _Line(self._header_seconds))
            line.put(task)
            self._waiting += 1
            self._rouse()

    def give_back(self, tasks: list[Task]) -> None:
        with self._lock:
            self._returned.extend(tasks)
            self._waiting += len(tasks)
            self._rouse()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._returned.clear()
            self._lines.clear()
            self._waiting = 0
            self._rouse_all()

    def expect(self) -> None:
        """Says that there will be tasks, so that a worker may start before the first."""
        with self._lock:
            self._expecting = True
            self._rouse_all()

    def is_expecting(self) -> bool:
        """Whether tasks were said to come. True for one asker, who starts a worker."""
        with self._lock:
            expecting, self._expecting = self._expecting, False
            return expecting

    def wake(self) -> None:
        """Lets every ``take`` that has a timeout return, so that its caller can look at what has changed."""
        with self._lock:
            for worker in [worker for worker, (_, for_ever) in self._idle.items() if not for_ever]:
                self._idle.pop(worker)[0].release()

    def forget(self, worker: int) -> None:
        """A worker was replaced: it has no header at hand."""
        with self._lock:
            for header in self._headers.pop(worker, ()):
                self._unload(header)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def waiting(self) -> int:
        """How many tasks no worker has taken yet."""
        return self._waiting

    def take(self, worker: int, timeout: float | None) -> Task | None:
        """The next task for a worker. None after the timeout, after :meth:`wake`, or when closed."""
        waits = None
        with self._lock:
            if not (self._returned or self._lines or self._closed or self._expecting):
                waits = threading.Lock()
                waits.acquire()
                self._idle[worker] = waits, timeout is None
        if waits is not None:
            waits.acquire(timeout=-1 if timeout is None else timeout)
        with self._lock:
            self._idle.pop(worker, None)
            self._roused.discard(worker)
            task = self._next(worker)
            if task is not None:
                self._note(worker, task)
            if self._waiting:
                self._rouse()
            return task

    def take_ahead(self, worker: int, spare: int) -> Task | None:
        """The next task for a worker that is still at another one, if more than ``spare`` would be left."""
        with self._lock:
            if self._returned or self._waiting <= spare:
                return None
            task = self._next(worker)
            if task is not None:
                self._note(worker, task)
            return task

    def _rouse(self) -> None:
        """Wakes a worker, which wakes the next one if there is more to do: of many that wake at once, each would get in
        the way of the others."""
        if self._idle and not self._roused:
            worker, (waits, _) = self._idle.popitem()
            self._roused.add(worker)
            waits.release()

    def _rouse_all(self) -> None:
        while self._idle:
            self._idle.popitem()[1][0].release()

    def _note(self, worker: int, task: Task) -> None:
        file = task.kind == "file"
        if self._sides.get(worker, (not file, 0.0))[0] != file:
            self._sides[worker] = (file, time.monotonic())
        headers = self._headers.setdefault(worker, OrderedDict())
        if task.header not in headers:
            headers[task.header] = None
            self._loaded[task.header] += 1
            if len(headers) > HEADERS:
                self._unload(headers.popitem(last=False)[0])
        headers.move_to_end(task.header)

    def _unload(self, header: str) -> None:
        self._loaded[header] -= 1
        if not self._loaded[header]:
            del self._loaded[header]

    def _next(self, worker: int) -> Task | None:
        while self._returned:
            task = self._returned.popleft()
            self._waiting -= 1
            if self._wanted(task):
                return task
        while self._lines:
            line, key = self._choose(worker)
            task = line.pop(key)
            self._waiting -= 1
            if not line.groups:
                del self._lines[task.job]
            if self._wanted(task):
                self._turn(worker, line, task)
                return task
        return None

    def _wanted(self, task: Task) -> bool:
        if task.job.cancelled and self._dropped is not None:
            self._dropped(task)
        return not task.job.cancelled

    def _turn(self, worker: int, line: _Line, task: Task) -> None:
        turn = self._turns.get(worker)
        if turn is not None and turn.job is task.job and turn.key == task.key:
            turn.taken += 1
            return
        if turn is not None:
            turn.line.leave(turn.key)
        line.come(task.key)
        self._turns[worker] = _Turn(task.job, line, task.key, 1, time.monotonic())

    def _choose(self, worker: int) -> tuple[_Line, Hashable]:
        """What this worker is at, unless it had its turn; else a key of the job whose turn it is."""
        turn = self._turns.get(worker)
        if turn is not None and turn.key in turn.line.groups:
            if not self._is_over(turn):
                return turn.line, turn.key
            turn.line.groups.move_to_end(turn.key)
        job, line = self._choose_line(worker)
        self._lines.move_to_end(job)
        return line, line.choose(self._headers.get(worker, ()), self._loaded)

    def _is_over(self, turn: _Turn) -> bool:
        if len(self._lines) > 1:
            return turn.taken >= STAY or time.monotonic() - turn.since >= TURN_SECONDS
        return turn.taken >= STAY and len(turn.line.groups) > 1

    def _choose_line(self, worker: int) -> tuple[Job, _Line]:
        """The job whose turn it is, on the side (files or others) that this worker is on or has to change to."""
        first: dict[bool, tuple[Job, _Line]] = {}
        for job, line in self._lines.items():
            first.setdefault(next(iter(line.groups.values()))[0].kind == "file", (job, line))
            if len(first) == 2:
                break
        if len(first) == 1 or worker not in self._sides:
            return next(iter(first.values()))
        side, since = self._sides[worker]
        served = any(other != side for number, (other, _) in self._sides.items() if number != worker)
        return first[side if served or time.monotonic() - since < SWITCH_SECONDS else not side]
