"""One pool for many clients, over the life of a server: exactly one answer for each request, a new pool when one ends.

A :class:`lean_env.pool.LeanPool` ends for good when Lean cannot be had (it does not start, a fresh worker fails its
canaries). What was asked then is answered by an error, and the next request gets a new pool, but not before
``REST_SECONDS`` have gone by: a Lean that cannot start is not started again and again.

Plain threads; every method may be called from any of them.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import msgspec

from lean_env.errors import CheckLostError, LeanError, WorkerError
from lean_env.pool import LeanPool, PoolStats
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict

REST_SECONDS = 5.0
"""Between the end of a pool and the start of the next."""
FRESH_SECONDS = 60.0
"""For how long an answer, which a worker's canaries have vouched for, shows that Lean is well."""
PROBE = CheckRequest("probe", "", "theorem prover_probe (n : Nat) : n + 0 = n", "by simp")


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a request came to: one of the three. An ``error`` is ours or the machine's and says nothing about the
    proof: the check is still owed."""

    id: str
    verdict: Verdict | None = None
    statement_failure: StatementFailure | None = None
    error: str | None = None


class Condition(msgspec.Struct, frozen=True):
    """How the pool is: ``ok`` when Lean answered rightly a short while ago, or has and a worker runs now."""

    ok: bool
    error: str | None
    running: int
    waiting: int
    """Tasks that no worker has taken yet."""


class SharedPool:
    """Owns the pool that ``make`` makes, and the ones after it. A context manager."""

    def __init__(self, make: Callable[[], LeanPool]) -> None:
        self._make = make
        self._lock = threading.Lock()
        pool = make()
        self._pool: LeanPool | None = pool
        self.version = pool.toolchain.version
        self.workers, self.places = pool.workers, pool.places
        self._past = PoolStats()
        """Of the pools that have ended."""
        self._ended: tuple[float, LeanError] | None = None
        self._answered: float | None = None
        """When this pool gave its last answer."""
        self._closed = False
        self.outcomes: Counter[str] = Counter()
        """Answers so far, by status, ``statement_failure`` or ``error``."""

    def __enter__(self) -> "SharedPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills every worker; what runs is answered by an error. Safe to call again."""
        with self._lock:
            self._closed = True
            pool = self._pool
        if pool is not None:
            pool.close()

    def check(self, requests: Iterable[CheckRequest]) -> Generator[Answer, None, None]:
        """One answer for each request, as they finish. Their ids must differ. Closing the iterator cancels what no
        worker has begun."""
        owed = {request.id: request for request in requests}
        while owed:
            try:
                yield from self._check_once(owed)
            except CheckLostError as error:
                answer = Answer(error.request_id, error=str(error))
                del owed[error.request_id]
                yield self._count(answer)
            except LeanError as error:
                for key in list(owed):
                    yield self._count(Answer(owed.pop(key).id, error=str(error)))

    def _check_once(self, owed: dict[str, CheckRequest]) -> Iterator[Answer]:
        """Takes out of ``owed`` what it yields."""
        pool = self._have()
        try:
            for result in pool.check(list(owed.values())):
                del owed[result.attempt_id]
                self._answered = time.monotonic()
                if isinstance(result, Verdict):
                    yield self._count(Answer(result.attempt_id, verdict=result))
                else:
                    yield self._count(Answer(result.attempt_id, statement_failure=result))
        finally:
            self._look_after(pool)

    def file(self, text: str, limits: Limits) -> dict[str, Any]:
        """Elaborates a whole text, unfiltered, and returns what Lean says. Raises WorkerLost for a text that two
        workers did not survive within the limits, and other LeanErrors."""
        pool = self._have()
        try:
            return pool.ask({"op": "file", "text": text, "heartbeats": limits.heartbeats}, limits)
        finally:
            self._look_after(pool)

    def probe(self) -> None:
        """Has Lean answer a question; starts a worker if none runs. Raises LeanError where it does not."""
        pool = self._have()
        try:
            for _ in pool.check([PROBE]):
                self._answered = time.monotonic()
        finally:
            self._look_after(pool)

    def require(self) -> None:
        """Raises WorkerError while there is no pool to ask."""
        self._have()

    @property
    def condition(self) -> Condition:
        with self._lock:
            pool, ended, answered = self._pool, self._ended, self._answered
        if pool is None:
            return Condition(False, str(ended[1]) if ended else None, 0, 0)
        running = len(pool.worker_pids())
        fresh = answered is not None and (running > 0 or time.monotonic() - answered < FRESH_SECONDS)
        return Condition(fresh and not self._closed, None, running, pool.waiting)

    @property
    def stats(self) -> PoolStats:
        """Of all pools so far."""
        with self._lock:
            return self._past if self._pool is None else _sum(self._past, self._pool.stats)

    def _have(self) -> LeanPool:
        """The pool, or a new one. Raises WorkerError while there is none."""
        with self._lock:
            if self._closed:
                raise WorkerError("the server is stopping; ask again when it is back")
            if self._pool is None:
                assert self._ended is not None
                when, error = self._ended
                if time.monotonic() - when < REST_SECONDS:
                    raise WorkerError(f"Lean cannot be had at the moment: {error}")
                self._pool, self._ended = self._make(), None
            return self._pool

    def _look_after(self, pool: LeanPool) -> None:
        """Puts away a pool that has ended."""
        error = pool.failure
        if error is None:
            return
        with self._lock:
            if self._pool is not pool or self._closed:
                return
            self._pool, self._answered = None, None
            self._ended = time.monotonic(), error
        with contextlib.suppress(LeanError):
            pool.close()
        with self._lock:
            self._past = _sum(self._past, pool.stats)

    def _count(self, answer: Answer) -> Answer:
        kind = answer.verdict.status if answer.verdict else "statement_failure" if answer.statement_failure else "error"
        with self._lock:
            self.outcomes[kind] += 1
        return answer


def _sum(one: PoolStats, other: PoolStats) -> PoolStats:
    sums = {name: getattr(one, name) + getattr(other, name) for name in PoolStats.__struct_fields__}
    sums["peak_worker_mb"] = max(one.peak_worker_mb, other.peak_worker_mb)
    return PoolStats(**sums)
