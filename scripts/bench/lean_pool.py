"""Speed and memory of the Lean pool on a fixed set of 2,000 candidates. Prints a JSON object of figures as its last
line.

    python scripts/bench/lean_pool.py [--quick] [--checks N]

The candidates are made here, from statements about Lean's core library and from tactics, the same ones in the same
order each time: 1,876 easy ones, most of them wrong, as in training; 96 hard ones (0.1 to 1 s each), 24 that run out of
their 2 s of CPU time in the kernel, and 4 that end their worker. All that is proved is certified by one worker more.

Figures, with ``_1`` and ``_2`` for one and two workers that check:

* ``checks_per_second``: the easy part, on warm workers, with certification, by wall time.
* ``efficiency``: Lean's own time for those checks, as Lean's clock measured it, over (wall time x workers). The rest is
  what the pool adds: canaries, pipes, and waiting for the driver. ``efficiency`` alone is the lower of the two. Lean's
  clock is a wall clock, so where workers wait for a processor the figure says nothing of that.
* ``overhead_ms``: (wall time x workers - Lean's own time) / checks; alone, the higher of the two.
* ``cpu_ms``: CPU time for a check of everything: workers, the one that certifies, and the driver (``driver_cpu_ms``).
* ``scaling``: checks_per_second_2 / checks_per_second_1. ``scaling_apart``: the same for two pools of one worker each
  in processes of their own, which share nothing but the machine. ``scaling_machine``: the same for two plain loops.
* ``start_cpu_seconds``: CPU time of the worker that checks from nothing to the first certified verdict, canaries
  included; ``start_all_cpu_seconds`` counts the worker that certifies and the driver too.
* ``mixed_seconds``: wall time for all 2,000, and ``statuses``: what became of them; ``statuses_differ``: how many of
  them depend on the number of workers.
* ``peak_worker_mb``: the most resident memory of any worker in any part; ``certifier_mb``, ``driver_mb``: at the end of
  the easy part.
* ``certify_cpu_ms``: what certifying an accepted proof adds to its audit, in CPU time of both workers.

``--quick`` takes a tenth of the candidates. ``--checks N`` only makes N easy checks on one worker, and prints what its
memory was after each tenth.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable

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
HARD = (
    ("theorem bench (a b c d : Int) : (a + b + c + d) ^ 4 = (d + c + b + a) ^ 4", "by grind"),
    (
        "theorem bench (a b c d : Int) (h : 2*a + 3*b - 5*c + 7*d < 7) : a < b ∨ 2*a + 3*b + 7*d < 5*c + 9",
        "by omega",
    ),
    ("theorem bench (f : Nat → Nat) (h : ∀ x, f x = f (x + 1)) : f 0 = 7", "by simp [h]"),
    ("theorem bench : 1 = 2", "by\n  repeat (have : 1 = 1 := rfl)"),
)
SLOW = (
    ("theorem bench : 7 ^ 16000000 % 10 = 1", "by decide +kernel"),
    ("theorem bench : (List.replicate 100000000 1).length = 100000000", "by decide +kernel"),
)
DEADLY = (("theorem bench : 1 = 1", "by exact " + "(" * 60_000),)
USUAL, SLOW_LIMITS = Limits(), Limits(cpu_seconds=2.0)
EASY, HARD_COUNT, SLOW_COUNT, DEADLY_COUNT = 1_876, 96, 24, 4


def request(id_: str, case: tuple[str, str], limits: Limits = USUAL) -> CheckRequest:
    return CheckRequest(id_, HEADER, case[0], case[1], limits=limits)


def easy(count: int) -> list[CheckRequest]:
    """All statements with all proofs, over and over; those of one statement together, as in training."""
    crossed = [(statement, proof) for statement in STATEMENTS for proof in PROOFS]
    return [request(f"easy{i}", crossed[i % len(crossed)]) for i in range(count)]


def mixed(share: float) -> list[CheckRequest]:
    """The fixed set, or the first ``share`` of each of its parts, shuffled by a fixed seed."""
    found = easy(round(EASY * share))
    for name, cases, count, limits in (
        ("hard", HARD, HARD_COUNT, USUAL),
        ("slow", SLOW, SLOW_COUNT, SLOW_LIMITS),
        ("deadly", DEADLY, DEADLY_COUNT, USUAL),
    ):
        found += [request(f"{name}{i}", cases[i % len(cases)], limits) for i in range(max(1, round(count * share)))]
    random.Random(0).shuffle(found)
    return found


def cpu(pool: LeanPool) -> float:
    """CPU seconds so far of the workers that run."""
    return sum(process_usage(pid).cpu_seconds for pid in pool.worker_pids())


def start() -> dict[str, float]:
    begin, own = time.monotonic(), time.process_time()
    with LeanPool(find(), 1) as pool:
        first = next(iter(pool.check([CheckRequest("first", "", "theorem t : 1 + 1 = 2", "rfl")])))
        assert isinstance(first, Verdict) and first.level == "certified", first
        return {
            "start_wall_seconds": round(time.monotonic() - begin, 2),
            "start_cpu_seconds": round(process_usage(pool.worker_pids()[0]).cpu_seconds, 2),
            "start_all_cpu_seconds": round(cpu(pool) + time.process_time() - own, 2),
        }


def warm(pool: LeanPool, share: float) -> None:
    """Node compiles Lean as it goes."""
    passes = pool.workers * (4 if share == 1.0 else 1)
    for _ in pool.check(easy(passes * len(STATEMENTS) * len(PROOFS))):
        pass


def speed(workers: int, share: float) -> dict[str, float]:
    with LeanPool(find(), workers) as pool:
        warm(pool, share)
        before, used, own, begin = pool.stats, cpu(pool), time.process_time(), time.monotonic()
        for _ in pool.check(easy(round(EASY * share * workers))):
            pass
        wall, driver = time.monotonic() - begin, time.process_time() - own
        after, used = pool.stats, cpu(pool) - used
        certifier = process_usage(pool.worker_pids()[-1]).memory_mb
    checks, lean = after.checks - before.checks, after.lean_seconds - before.lean_seconds
    return {
        f"checks_per_second_{workers}": round(checks / wall, 1),
        f"efficiency_{workers}": round(lean / (wall * workers), 3),
        f"overhead_ms_{workers}": round(1000 * (wall * workers - lean) / checks, 2),
        f"cpu_ms_{workers}": round(1000 * (used + driver) / checks, 2),
        f"driver_cpu_ms_{workers}": round(1000 * driver / checks, 2),
        f"peak_worker_mb_{workers}": round(after.peak_worker_mb),
        "certifier_mb": round(certifier),
        "driver_mb": round(process_usage(os.getpid()).memory_mb),
    }


def together(arguments: Iterable[str], count: int) -> float:
    """Sum of the rates that ``count`` copies of this script print, run at once."""
    argv = [sys.executable, __file__, *arguments]
    copies = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for copy in copies:
        assert copy.stdout is not None and copy.stdout.readline() == "warm\n"
    for copy in copies:
        assert copy.stdin is not None
        copy.stdin.write("go\n")
        copy.stdin.flush()
    return sum(float(copy.communicate()[0].split()[-1]) for copy in copies)


def wait_for_others() -> None:
    print("warm", flush=True)
    sys.stdin.readline()


def rate_of_a_pool(share: float) -> None:
    with LeanPool(find(), 1) as pool:
        warm(pool, share)
        wait_for_others()
        requests, begin = easy(round(EASY * share)), time.monotonic()
        for _ in pool.check(requests):
            pass
        print(len(requests) / (time.monotonic() - begin))


def rate_of_a_loop(seconds: float) -> None:
    wait_for_others()
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10_000))
        rounds += 1
    print(rounds / seconds)


def whole(workers: int, share: float) -> tuple[dict[str, float], dict[str, str]]:
    """The mixed set, and the status of each candidate."""
    with LeanPool(find(), workers) as pool:
        begin = time.monotonic()
        found = {r.attempt_id: r.status for r in pool.check(mixed(share)) if isinstance(r, Verdict)}
        return {
            f"mixed_seconds_{workers}": round(time.monotonic() - begin, 1),
            f"mixed_peak_worker_mb_{workers}": round(pool.stats.peak_worker_mb),
        }, dict(found)


def certification(share: float) -> dict[str, float]:
    with LeanPool(find(), 1) as pool:
        warm(pool, share)
        crossed = len(STATEMENTS) * len(PROOFS)
        proved = {r.attempt_id for r in pool.check(easy(crossed)) if isinstance(r, Verdict) and r.proved}
        accepted = [r for r in easy(crossed) if r.id in proved] * max(1, round(15 * share))
        spent: dict[bool, float] = {}
        for certify in (False, True):
            begin = cpu(pool)
            for _ in pool.check(accepted, certify=certify):
                pass
            spent[certify] = cpu(pool) - begin
        return {
            "audit_cpu_ms": round(1000 * spent[False] / len(accepted), 1),
            "certify_cpu_ms": round(1000 * (spent[True] - spent[False]) / len(accepted), 1),
        }


def memory(checks: int) -> dict[str, list[int]]:
    """Resident memory of the worker that checks, after each tenth."""
    points: list[int] = []
    with LeanPool(find(), 1) as pool:
        for number, _ in enumerate(pool.check(easy(checks)), 1):
            if number % (checks // 10) == 0:
                points.append(round(process_usage(pool.worker_pids()[0]).memory_mb))
                print(f"{number:,} checks: {points[-1]:,} MB, {pool.stats.restarts} restarts", file=sys.stderr)
    return {"worker_mb": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the candidates")
    parser.add_argument("--checks", type=int, metavar="N", help="only the memory of one worker over N checks")
    parser.add_argument("--pool", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--loop", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pool or options.loop:
        rate_of_a_pool(options.pool) if options.pool else rate_of_a_loop(options.loop)
        return
    if options.checks:
        print(json.dumps(memory(max(10, options.checks))))
        return
    share = 0.1 if options.quick else 1.0
    figures: dict[str, object] = dict(start())
    for workers in (1, 2):
        print(f"easy, {workers} worker(s)...", file=sys.stderr)
        figures |= speed(workers, share)
    print("apart...", file=sys.stderr)
    alone, both = (together(["--pool", str(share)], count) for count in (1, 2))
    loop, loops = (together(["--loop", str(30 * share)], count) for count in (1, 2))
    seen: list[dict[str, str]] = []
    for workers in (1, 2):
        print(f"mixed, {workers} worker(s)...", file=sys.stderr)
        more, statuses = whole(workers, share)
        figures |= more
        seen.append(statuses)
    print("certification...", file=sys.stderr)
    figures |= certification(share)
    first, second = (float(str(figures[f"checks_per_second_{workers}"])) for workers in (1, 2))
    peaks = [float(str(value)) for name, value in figures.items() if "peak_worker_mb" in name]
    figures |= {
        "scaling": round(second / first, 2),
        "scaling_apart": round(both / alone, 2),
        "scaling_machine": round(loops / loop, 2),
        "statuses": dict(Counter(seen[0].values())),
        "statuses_differ": sum(seen[0][id_] != status for id_, status in seen[1].items()),
        "peak_worker_mb": round(max(peaks)),
        "efficiency": min(float(str(figures[f"efficiency_{workers}"])) for workers in (1, 2)),
        "overhead_ms": max(float(str(figures[f"overhead_ms_{workers}"])) for workers in (1, 2)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
