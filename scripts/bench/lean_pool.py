"""Speed and memory of the Lean pool on a fixed mixed set of checks. Prints a JSON object of figures as its last line.

    python scripts/bench/lean_pool.py [--quick | --full]

The set crosses statements about Nat, Int, List, Bool and propositions with tactics, so that most checks fail, as they
do in training. ``--quick`` makes one timed pass with each number of workers; ``--full`` adds 5,000 checks on one
worker.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Verdict
from lean_env.toolchain import find
from lean_env.worker import process_usage

HEADER = "set_option autoImplicit false"
STATEMENTS = (
    "theorem bench (a b c : Nat) (h : a < b) : a + c < b + c",
    "theorem bench (a b : Nat) : a * b = b * a",
    "theorem bench (n : Nat) : n % 2 < 2",
    "theorem bench (a b : Int) (h : a + 2 * b = 7) (k : a - b = 1) : a = 3",
    "theorem bench (x y : Int) : (x + y) * (x - y) = x * x - y * y",
    "theorem bench (p q r : Prop) : (p ∧ q → r) ↔ (p → q → r)",
    "theorem bench (p q : Prop) (h : p ∨ q) : q ∨ p",
    "theorem bench (b : Bool) : (!(!b)) = b",
    "theorem bench {α : Type} (l m : List α) : (l ++ m).length = m.length + l.length",
    "theorem bench {α : Type} (l : List α) : l.reverse.reverse = l",
    "theorem bench (l : List Nat) (h : 0 < l.length) : l ≠ []",
    "theorem bench : (List.range 20).foldl (· + ·) 0 = 190",
)
PROOFS = (
    "by rfl",
    "by simp",
    "by simp_all",
    "by omega",
    "by decide",
    "by grind",
    "by intro h",
    "by constructor <;> intro h <;> simp_all",
    "by\n  rw [Nat.mul_comm]",
    "by\n  have key : ∀ n : Nat, n = n := fun n => rfl\n  cases h <;> simp [*]",
    "fun h => h",
    "by exact no_such_lemma",
)


def requests(passes: int) -> list[CheckRequest]:
    return [
        CheckRequest(f"{turn}.{s}.{p}", HEADER, statement, proof, limits=Limits())
        for turn in range(passes)
        for s, statement in enumerate(STATEMENTS)
        for p, proof in enumerate(PROOFS)
    ]


def start() -> dict[str, float]:
    """From nothing to the first verdict, canaries included."""
    begin = time.monotonic()
    with LeanPool(find(), 1) as pool:
        first = next(iter(pool.check([CheckRequest("first", "", "theorem t : 1 + 1 = 2", "rfl")])))
        assert isinstance(first, Verdict) and first.proved, first
        return {
            "start_wall_seconds": round(time.monotonic() - begin, 2),
            "start_cpu_seconds": round(process_usage(pool.worker_pids()[0]).cpu_seconds, 2),
        }


def certification(passes: int) -> dict[str, float]:
    """What certifying adds to an accepted proof, in CPU time of both workers, canaries included: the export is written
    and certified, and the first worker is spared its second kernel check. Both are warm."""
    with LeanPool(find(), 1) as pool:
        proved: set[str] = set()
        for _ in range(2):
            proved = {r.attempt_id for r in pool.check(requests(1)) if isinstance(r, Verdict) and r.proved}
        accepted = [r for r in requests(passes) if "0" + r.id[r.id.index(".") :] in proved]
        cpu: dict[bool, float] = {}
        before = pool.stats
        for certify in (False, True):
            begin = sum(process_usage(pid).cpu_seconds for pid in pool.worker_pids())
            for _ in pool.check(accepted, certify=certify):
                pass
            cpu[certify] = sum(process_usage(pid).cpu_seconds for pid in pool.worker_pids()) - begin
        after = pool.stats
        certified = after.certifications - before.certifications
        return {
            "audit_cpu_ms": round(1000 * cpu[False] / certified, 1),
            "certify_ms": round(1000 * (cpu[True] - cpu[False]) / certified, 1),
            "certify_lean_ms": round(1000 * (after.certify_seconds - before.certify_seconds) / certified, 1),
            "certifier_mb": round(process_usage(pool.worker_pids()[1]).memory_mb),
        }


def speed(workers: int, passes: int) -> dict[str, float | dict[str, int]]:
    """Of warm workers, with all that is proved certified by one worker more. ``efficiency`` is Lean's own time for the
    checks over wall time and ``workers``; ``efficiency_certifying`` counts Lean's time for certification as well."""
    with LeanPool(find(), workers) as pool:
        for _ in pool.check(requests(2)):  # warm: Node compiles Lean as it goes
            pass
        before, begin = pool.stats, time.monotonic()
        statuses = Counter(r.status for r in pool.check(requests(passes)) if isinstance(r, Verdict))
        wall = time.monotonic() - begin
        after = pool.stats
        driver_mb = process_usage(os.getpid()).memory_mb
    checks, lean = after.checks - before.checks, after.lean_seconds - before.lean_seconds
    certifying = after.certify_seconds - before.certify_seconds
    return {
        f"checks_per_second_{workers}": round(checks / wall, 1),
        f"efficiency_{workers}": round(lean / (wall * workers), 3),
        f"efficiency_certifying_{workers}": round((lean + certifying) / (wall * workers), 3),
        f"overhead_ms_{workers}": round(1000 * (wall * workers - lean) / checks, 2),
        f"peak_worker_mb_{workers}": round(after.peak_worker_mb),
        "driver_mb": round(driver_mb),
        "statuses": dict(statuses),
    }


def memory(checks: int) -> dict[str, list[int]]:
    """Resident memory of one worker as checks go by."""
    points: list[int] = []
    passes = checks // (len(STATEMENTS) * len(PROOFS)) + 1
    with LeanPool(find(), 1) as pool:
        for number, _ in enumerate(pool.check(requests(passes)[:checks]), 1):
            if number % (checks // 10) == 0:
                points.append(round(process_usage(pool.worker_pids()[0]).memory_mb))
    return {"rss_mb": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one timed pass")
    parser.add_argument("--full", action="store_true", help="also 5,000 checks on one worker")
    options = parser.parse_args()
    figures: dict[str, object] = dict(start())
    for workers in (1, 2):
        print(f"{workers} worker(s)...", file=sys.stderr)
        figures.update(speed(workers, 1 if options.quick else 25))
    print("certification...", file=sys.stderr)
    figures.update(certification(1 if options.quick else 5))
    if options.full:
        print("5,000 checks...", file=sys.stderr)
        figures.update(memory(5_000))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
