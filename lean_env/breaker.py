"""What ends a pool whose workers are lost again and again through no fault of the candidates.

A kernel that kills for want of memory, a limit set on the shell, another user's clean-up job: each loss costs no more
than a restart, so a run would grind on for hours and do next to nothing. Candidates' own ends (out of time, out of
memory, a crash that a second worker bears out) do not count: a model may write nothing but bombs.
"""

import threading
import time
from collections import deque

from lean_env.errors import WorkerError

LOSSES = 20
"""How many losses are looked at together, at least; of a wide pool three for each of its workers, so that one stroke
that hits them all is none of these."""
ANSWERS = 5
"""Fewer answers than that for each loss, and the pool is taken to get nowhere."""
SECONDS = 7_200.0
"""How far back losses are looked at: a server may lose a worker now and then, and have little to do."""


class Breaker:
    """Counts for the whole pool. Safe to use from several threads."""

    def __init__(self, workers: int) -> None:
        self._lock = threading.Lock()
        self._answers = 0
        self._losses: deque[tuple[float, int]] = deque(maxlen=max(LOSSES, 3 * workers))
        """When each of the last ones was, and how many answers there had been."""

    def answered(self, number: int) -> None:
        """So many answers were given out: those that were lost with their worker are none."""
        with self._lock:
            self._answers += number

    def lost(self, reason: str) -> None:
        """A worker was lost, and no candidate is to blame. Raises WorkerError when that was once too often."""
        with self._lock:
            self._losses.append((time.monotonic(), self._answers))
            (begin, before), number = self._losses[0], len(self._losses)
            seconds, answers = time.monotonic() - begin, self._answers - before
            if number < (self._losses.maxlen or 0) or answers >= ANSWERS * number or seconds > SECONDS:
                return
        raise WorkerError(
            f"Lean workers were lost {number} times in {seconds:,.0f} s through no fault of the candidates, and "
            f"{answers:,} answers came meanwhile; the last one: {reason}. Give Lean fewer workers or the machine more "
            "memory (`prover doctor` says what there is room for), look for what kills it, and run the same again: "
            "what was answered is kept"
        )
