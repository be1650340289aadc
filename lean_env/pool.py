"""Many Lean workers behind plain iterators: routing, back-pressure, retries, canaries, retirement.

Every request gets exactly one result. What the pool does to earn that:

* **A lost worker** (killed, out of memory, out of time) costs nothing but time: its task is tried again on a fresh
  one. ``memory``, and ``timeout`` for want of any answer, are given only once a second try, on a fresh worker, agrees;
  ``timeout`` for CPU time used up, which neither load nor other candidates bring about, at the first try if canaries
  came right before it. A candidate that makes two workers end by themselves gets ``memory``, for that is exhaustion
  of stack or heap. Workers killed from outside, or starved by a loaded host, never count against a candidate: in the
  end they are a :class:`WorkerError`, and the verdict stays owed. When they leave time for next to nothing, the pool
  ends with an error that says so (:mod:`lean_env.breaker`).
* **Canaries** (:mod:`lean_env.canaries`): a worker answers them before its first task and again at least every
  ``CANARY_CHECKS`` checks or ``CANARY_SECONDS`` seconds. Its results are held back until the canaries after them were
  answered rightly, so no result that was given out ever has to be taken back. When a worker fails, or is lost, what
  was held is checked again elsewhere: after a failed canary one by one, to find the candidate that did the damage; a
  candidate that alone damages two workers is ``failed``. A fresh worker that fails is a :class:`CanaryError`.
* **Certification** (:mod:`lean_env.certify`): what a worker calls proved is, unless the caller declines, put to one
  that never sees a candidate, and is proved only if that one says so too. Such workers run beside the others, one to
  four of those; one starts with the first check, the rest as proofs come; all of the above holds for them too.
* **A cache** (:mod:`lean_env.cache`), where one is given, answers what was asked before and keeps what is given out.
* **Back-pressure**: requests are pulled as room allows, in a thread of their own, so that whatever makes them
  (sampling) overlaps with checking; the driver's memory does not grow with their number.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from lean_env import canaries, certify
from lean_env.breaker import Breaker
from lean_env.cache import VerdictCache, key_of
from lean_env.certify import ByteRoom, CertifyRequest, Exported
from lean_env.errors import LeanError, StatementError, WorkerError
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.schedule import Answer, Job, Kind, Opinion, Task, TaskQueue
from lean_env.slot import CANARY_CHECKS, Role, Slot, Startable
from lean_env.source import candidate_text, refusal, target_name

_T = TypeVar("_T")


class PoolStats(msgspec.Struct, frozen=True):
    """What a pool has done so far. ``restarts`` are starts that replace a lost or retired worker; ``lean_seconds`` is
    Lean's own time for checks, ``certify_seconds`` that for certifications. ``disagreements`` are proofs that the
    second worker refused: somebody attacks, or we have a bug. ``cached`` are verdicts that the cache had; no worker saw
    those candidates."""

    checks: int = 0
    cached: int = 0
    started: int = 0
    restarts: int = 0
    lost: int = 0
    lean_seconds: float = 0.0
    certifications: int = 0
    certify_seconds: float = 0.0
    disagreements: int = 0
    peak_worker_mb: float = 0.0


def certifiers(workers: int) -> int:
    """How many workers certify what so many prove."""
    return (workers + 3) // 4


class LeanPool:
    """A context manager that owns ``workers`` Lean processes and those that certify what they prove, each started when
    there is work for it.

    Its methods may be called from several threads at once.
    """

    def __init__(
        self,
        toolchain: Startable,
        workers: int = 2,
        *,
        certifier: Startable | None = None,
        cache: VerdictCache | None = None,
    ) -> None:
        """``certifier`` is the Lean of the workers that certify; None takes the same for both. ``cache`` has verdicts
        that need no worker; whoever gives it closes it, after the pool."""
        if workers < 1:
            raise ValueError("a pool needs at least one worker")
        self._toolchain = toolchain
        self._cache = cache
        self._versions = f"{toolchain.version}, {(certifier or toolchain).version}"
        self._queue = TaskQueue()
        self._waiting = ByteRoom(certify.WAITING_BYTES)
        self._proved = TaskQueue(self._free)
        self.breaker = Breaker(workers + certifiers(workers))
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._stats = PoolStats()
        self._fatal: LeanError | None = None
        checking = Role(toolchain, self._queue, canaries.wrong_canary, self._give)
        certifying = Role(
            certifier or toolchain, self._proved, canaries.wrong_certificate, self._give_certified, certifies=True
        )
        self._workers = workers
        self._slots = [Slot(self, checking, number) for number in range(workers)]
        self._slots += [Slot(self, certifying, number) for number in range(certifiers(workers))]
        self._threads: list[threading.Thread] = []
        self._window = workers * (CANARY_CHECKS + 16)

    def __enter__(self) -> "LeanPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def toolchain(self) -> Startable:
        return self._toolchain

    @property
    def workers(self) -> int:
        """How many candidates are checked at once at most."""
        return self._workers

    @property
    def places(self) -> int:
        """How many worker processes there are at most: those that check, and those that certify."""
        return len(self._slots)

    @property
    def stats(self) -> PoolStats:
        return self._stats

    @property
    def failure(self) -> LeanError | None:
        """What has ended the pool for good, if anything has."""
        return self._fatal

    @property
    def waiting(self) -> int:
        """How many tasks no worker has taken yet."""
        return self._queue.waiting + self._proved.waiting

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now, those that check before those that certify."""
        workers = [slot.worker for slot in self._slots]  # a slot may lose its worker meanwhile
        return [worker.pid for worker in workers if worker is not None]

    def close(self) -> None:
        """Kills every worker and ends every running call with an error. Safe to call again."""
        self._queue.close()
        self._proved.close()
        self._waiting.close()
        self.fail(WorkerError("the Lean pool was closed"))
        for slot in self._slots:
            slot.kill()
        for thread in self._threads:
            thread.join()

    def check(
        self, requests: Iterable[CheckRequest], *, certify: bool = True, opinion: Opinion | None = None
    ) -> Iterator[Verdict | StatementFailure]:
        """Checks candidates and yields one result for each as they finish, in no particular order.

        The level of what is proved is ``certified``, or ``audited`` without ``certify``. What is certified is put to
        ``opinion``, another kernel's, in the thread of the worker that certified it.

        ``requests`` is read ahead in a thread of its own; an exception in it ends the iteration with that exception
        once what was read before is answered. Raises WorkerError or CanaryError when Lean itself cannot be had; what
        was not yielded is owed.
        """
        if opinion is not None and not certify:
            raise ValueError("an opinion is asked of certified proofs only: it needs certify")
        for answer in self._run(requests, self._check_task, certify, opinion):
            assert isinstance(answer, Verdict | StatementFailure)
            yield answer

    def elaborate(self, requests: Iterable[CheckRequest]) -> Iterator[tuple[str, StatementFailure | None]]:
        """Whether the header and statement of each request elaborate: its id and None, or the failure. The proof is
        not looked at."""
        for answer in self._run(requests, self._elaborate_task):
            assert isinstance(answer, tuple)
            yield answer

    def ask(self, message: dict[str, Any], limits: Limits, reply_bytes: int = 64 << 20) -> dict[str, Any]:
        """Asks a worker something else (``library.*``, ``file``) and returns its reply. Raises WorkerError when it
        finds none within the limits."""
        kind: Kind = "file" if message.get("op") == "file" else "ask"

        def task(job: Job, _: None) -> Task:
            return Task(job, kind, ("ask", message.get("op")), message, limits, reply_bytes=reply_bytes)

        for answer in self._run([None], task):
            assert isinstance(answer, dict)
            return answer
        raise AssertionError("a job of one task ended without an answer")

    # Jobs

    def _run(
        self,
        source: Iterable[_T],
        make: "Callable[[Job, _T], Task | Answer]",
        certify: bool = False,
        opinion: Opinion | None = None,
    ) -> Iterator[Answer]:
        job = Job(threading.Semaphore(self._window), certify, opinion)
        with self._lock:
            if self._fatal is not None:
                raise self._fatal
            self._jobs.add(job)
            self._start_slots()
        feeder = threading.Thread(target=self._feed, args=(job, source, make), name="lean-feed", daemon=True)
        feeder.start()
        try:
            given = 0
            while job.fed is None or given < job.fed:
                answer = job.results.get()
                if isinstance(answer, LeanError):
                    raise answer
                if answer is not None:
                    yield answer
                    given += 1
                    job.room.release()
            if job.failure is not None:
                raise job.failure
        finally:
            job.cancelled = True
            job.room.release()  # the feeder may wait for room
            with self._lock:
                self._jobs.discard(job)

    def _feed(self, job: Job, source: Iterable[_T], make: "Callable[[Job, _T], Task | Answer]") -> None:
        """Turns requests into tasks as there is room for them."""
        fed, certifies = 0, False
        try:
            for item in source:
                job.room.acquire()
                if job.cancelled:
                    break
                task = make(job, item)
                fed += 1
                if isinstance(task, Task):
                    self._queue.put(task)
                    if job.certify and not certifies:
                        certifies = True
                        self._start_certifying()
                else:
                    job.results.put(task)
        except BaseException as error:
            job.failure = error
        job.fed = fed
        job.results.put(None)
        self._queue.wake()  # what idle workers hold back for this job may go out now
        self._proved.wake()
        if job.cancelled and isinstance(source, Generator):
            source.close()

    def _check_task(self, job: Job, request: CheckRequest) -> Task | Answer:
        if refused := refusal(request.proof, request.limits):
            return Verdict(request.id, refused[0], refused[1], toolchain=self._toolchain.version)
        try:
            target = target_name(request.formal_statement)
        except StatementError as error:
            return StatementFailure(request.id, "statement", str(error))
        message = {
            "op": "check",
            "header": request.header,
            "statement": request.formal_statement,
            "target": target,
            "candidate": candidate_text(request.formal_statement, request.proof, request.header),
            "forbidden": request.forbidden_constants,
            "heartbeats": request.limits.heartbeats,
            "syntax": True,
            "export": job.certify,
            "feedback": request.feedback,
        }
        content = b""
        if self._cache is not None:
            content = key_of(message, request.limits, self._versions)
            found = self._cache.find(content, certified=job.certify)
            # What another kernel is to give its opinion on has to be exported again.
            if found is not None and not (found.proved and job.opinion):
                self.count(cached=1)
                return msgspec.structs.replace(found, attempt_id=request.id)
        key = (request.header, request.formal_statement)
        task = Task(job, "check", key, message, request.limits, request, content=content)
        if job.certify:
            task.reply_bytes = certify.EXPORT_REPLY_BYTES
        return task

    def _elaborate_task(self, job: Job, request: CheckRequest) -> Task | Answer:
        try:
            target = target_name(request.formal_statement)
        except StatementError as error:
            return request.id, StatementFailure(request.id, "statement", str(error))
        message = {"op": "elaborate", "header": request.header, "statement": request.formal_statement, "target": target}
        key = (request.header, request.formal_statement)
        return Task(job, "elaborate", key, message, request.limits, request)

    # What becomes of answers

    def _give(self, task: Task, answer: Answer | WorkerError) -> None:
        if isinstance(answer, Exported):
            verdict, export = answer.verdict, answer.export
        elif isinstance(answer, StatementFailure) and task.job.certify:
            # The other worker elaborates the statement too. Attempts without a verdict do not count in a score: no
            # candidate may bring that about.
            verdict, export = Verdict(answer.attempt_id, "failed"), ""
        else:
            self._answer(task, answer)
            return
        assert isinstance(task.request, CheckRequest)
        request = CertifyRequest(
            task.request.id,
            task.request.header,
            task.request.formal_statement,
            task.message["target"],
            task.request.forbidden_constants,
            export,
        )
        limits = certify.limits(task.limits)
        told = Task(
            task.job, "certify", task.key, certify.message(request), limits, request, verdict, content=task.content
        )
        self._waiting.take(len(export))
        self._proved.put(told)

    def _give_certified(self, task: Task, answer: Answer | WorkerError) -> None:
        opinion = task.job.opinion
        if opinion is not None and isinstance(answer, Verdict) and answer.proved and not task.job.cancelled:
            assert isinstance(task.request, CertifyRequest)
            answer = opinion(task.request, task.limits, answer)
        if isinstance(answer, Verdict) and answer.status == "failed":
            self.count(disagreements=1)
        self._answer(task, answer)
        self._free(task)

    def _answer(self, task: Task, answer: Answer | WorkerError) -> None:
        if self._cache is not None and task.content and isinstance(answer, Verdict):
            self._cache.add(task.content, answer)
        task.job.results.put(answer)

    def _free(self, task: Task) -> None:
        """A proof no longer waits for certification."""
        assert isinstance(task.request, CertifyRequest)
        self._waiting.give(len(task.request.export))

    # What the slots ask for

    def _start_slots(self) -> None:
        """Starts the slots' threads (not yet their workers). With the lock held."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=slot.serve, name=f"lean-{slot.number}", daemon=True) for slot in self._slots
            ]
            for thread in self._threads:
                thread.start()

    def _start_certifying(self) -> None:
        """Has a certifying worker start beside the first one that checks, not after the first proof."""
        if all(slot.worker is None for slot in self._slots[self._workers :]):
            self._proved.expect()

    def fail(self, error: LeanError) -> None:
        with self._lock:
            self._fatal = self._fatal or error
            jobs = list(self._jobs)
        for job in jobs:
            job.results.put(self._fatal)

    def count(self, **more: float) -> None:
        with self._lock:
            peak = max(self._stats.peak_worker_mb, more.pop("peak_worker_mb", 0.0))
            sums = {name: getattr(self._stats, name) + value for name, value in more.items()}
            self._stats = msgspec.structs.replace(self._stats, peak_worker_mb=peak, **sums)
