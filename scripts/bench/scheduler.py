"""The pool without Lean: how many verdicts a second its queues, threads and canaries can deal with, and how much memory
the driver takes for many candidates. Prints a JSON object of figures as its last line.

    python scripts/bench/scheduler.py [--quick] [--workers 1000]

All is the pool's own code but the workers, which live in this process and answer like Lean after a wait: ``--ms`` for
a check, nothing for a canary. One candidate in twenty is proved, with an export to certify. ``driver_mb_1000`` and
``driver_mb_100000`` are most resident memory with two workers and so many candidates; each worker may have 216 of them
under way, which is what the driver's memory grows with (``driver_mb_all_workers``).
"""

import argparse
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Verdict
from lean_env.worker import Usage, WorkerLost, process_usage

HEADER = "set_option autoImplicit false"
PER_STATEMENT = 32
MESSAGES = [{"severity": "error", "start": [1, 40], "end": [1, 45], "text": "unsolved goals\nn : Nat\n⊢ n + 1 = n"}]


class Simulated:
    """A worker without a process: it knows the canaries' answers, and which candidates are to be proved."""

    def __init__(self, seconds: float) -> None:
        self.asked = 0
        self.memory_mb = 0.0
        self.peak_mb = 0.0
        self.pid = 0
        self.busy = False
        self._seconds = seconds
        self._killed = threading.Event()

    def wait_ready(self) -> None: ...

    def usage(self) -> Usage:
        return Usage(0.0, 0.0)

    def kill(self) -> None:
        self._killed.set()

    def close(self) -> None:
        self._killed.set()

    def ask(
        self,
        request: dict[str, Any],
        limits: Limits,
        reply_bytes: int = 4 << 20,
        following: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        self.asked += 1
        self.busy = following is not None
        if self._killed.is_set():
            raise WorkerLost("killed", "killed")
        if request["target"] == "prover_canary":
            return {"status": canary(request)}
        if request["op"] == "check" and not request["syntax"]:
            return {"status": "sorry"}
        if request["op"] == "certify" and "prover_canary" in request["export"]:
            return {"status": "statement_changed"}
        if self._seconds:
            time.sleep(self._seconds)
        milliseconds = 1000 * self._seconds
        if request["op"] == "certify":
            return {"status": "proved", "ms": milliseconds}
        if request["candidate"].endswith("simp"):
            return {"status": "proved", "heartbeats": 7, "ms": milliseconds, "export": "prover-export 1"}
        return {"status": "failed", "reason": "elaboration: unsolved goals", "messages": MESSAGES, "ms": milliseconds}


def canary(request: dict[str, Any]) -> str:
    if request["op"] == "certify":
        text = request["export"]
        if "trustCompiler" in text:
            return "forbidden_axiom"
        if "(h : p)" not in request["statement"]:
            return "statement_changed"
        return "failed" if "prover_missing" in text or "theorem 1 4 5" in text else "proved"
    text, statement = request["candidate"], request["statement"]
    if not text.startswith(statement):
        return "forbidden_axiom" if "axiom" in text else "statement_changed"
    return "sorry" if "sorry" in text else "proved" if "n + 0 = n" in statement else "failed"


class Simulation:
    """A Lean whose workers are :class:`Simulated`."""

    version = "simulated"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def launch(self) -> "Simulation":
        return self

    def start(self) -> Simulated:
        return Simulated(self.seconds)


def requests(number: int) -> Iterator[CheckRequest]:
    limits = Limits()
    for n in range(number):
        statement = f"theorem t (n : Nat) (h : {n // PER_STATEMENT} < n) : n + 1 = n"
        proof = "by simp" if n % 20 == 0 else f"by\n  intro x{n}\n  omega"
        yield CheckRequest(str(n), HEADER, statement, proof, limits=limits)


class Pass(msgspec.Struct):
    """One job: wall and CPU seconds of the driver, all its threads, and its most resident memory, MiB."""

    wall: float
    cpu: float
    memory: float


def run(pool: LeanPool, number: int) -> Pass:
    """So many verdicts, each looked at and dropped."""
    gc.collect()
    wall, cpu, proved, memory = time.perf_counter(), time.process_time(), 0, 0.0
    for n, result in enumerate(pool.check(requests(number))):
        assert isinstance(result, Verdict), result
        proved += result.proved
        if n % 500 == 0:
            memory = max(memory, process_usage(os.getpid()).memory_mb)
    assert proved == (number + 19) // 20, proved
    return Pass(time.perf_counter() - wall, time.process_time() - cpu, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 candidates, not 100,000")
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--ms", type=float, default=0.0, help="milliseconds that a check takes")
    options = parser.parse_args()
    many = 20_000 if options.quick else 100_000
    with LeanPool(Simulation(0.0), 2) as pool:
        few, queued = run(pool, 1_000), run(pool, many)
    with LeanPool(Simulation(options.ms / 1000), options.workers) as pool:
        run(pool, 4 * options.workers)  # starts threads and workers
        whole = run(pool, many)
        print(pool.stats, file=sys.stderr)
    figures = {
        "workers": options.workers,
        "check_ms": options.ms,
        "verdicts_per_second": round(many / whole.wall),
        "verdicts_per_cpu_second": round(many / whole.cpu),
        "driver_mb_1000": round(few.memory, 1),
        f"driver_mb_{many}": round(queued.memory, 1),
        "driver_mb_all_workers": round(whole.memory, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
