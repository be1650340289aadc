"""A Lean pool under attack: does each candidate get exactly one verdict, the same as when nothing happens?

    python scripts/bench/lean_drill.py [--quick] [--seconds N]

Two drills, each run once undisturbed and then disturbed: a worker taken at random is killed with SIGKILL every second
(but for seconds in which no result came: what never gets to its work cannot show anything) while 8 loops keep the
processors busy.

* ``lean``: the embedded Lean, with proofs and failures, and candidates that pass the syntax filter and use up what they
  get: kernel arithmetic without end (``5 ^ 99999999``), memory, nesting that overflows the stack, ``simp`` and
  ``repeat`` that loop, hundreds of errors; and some that try to start a process or to print, which it refuses.
* ``stand-in``: ``tests/unit/lean_env/scripted_lean.py`` in Lean's place, confined as a native Lean is, for what no
  candidate can do through Lean: hangs, floods on stdout and stderr, a reply of 100 MB, forged and double replies,
  forks, a gigabyte of memory, death.

Prints a JSON object of figures as its last line; exit code 1 where a verdict is missing, given twice or different.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lean_env import sandbox
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.slot import Startable
from lean_env.toolchain import find
from lean_env.worker import Launch

SCRIPT = Path(__file__).parents[2] / "tests/unit/lean_env/scripted_lean.py"
LOOPS = 8
LEAN_LIMITS = Limits(cpu_seconds=4.0, memory_mb=1_400, wall_seconds=600.0)
STAND_IN_LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20.0, memory_mb=300)
PLAIN = (
    ("theorem drill (a b : Nat) (h : a < b) : a + 1 ≤ b", "by omega"),
    ("theorem drill (l : List Nat) : l.reverse.reverse = l", "by simp"),
    ("theorem drill (p q : Prop) (h : p ∨ q) : q ∨ p", "by cases h <;> simp [*]"),
    ("theorem drill (a b : Nat) : a + b = b + a", "by rfl"),
    ("theorem drill : 1 + 1 = 3", "by decide"),
    ("theorem drill (n : Nat) : n + 1 = n", "by sorry"),
    ("theorem drill (x y : Int) : (x + y) * (x - y) = x * x - y * y", "by grind"),
    ("theorem drill (n : Nat) : n = n", "by exact no_such_lemma"),
)
BOMBS = (
    ("theorem drill : 5 ^ 99999999 % 10 = 1", "by decide +kernel"),
    ("theorem drill : (List.replicate 100000000 0).length = 100000000", "by decide +kernel"),
    ("theorem drill : True", "by exact " + "(" * 60_000),
    ("theorem drill (f : Nat → Nat) (h : ∀ x, f x = f (x + 1)) : f 0 = 7", "by simp [h]"),
    ("theorem drill : 1 = 2", "by\n  repeat (have : 1 = 1 := rfl)"),
    ("theorem drill : 2 = 3", "by\n" + "  have : 0 = 1 := by rfl\n" * 400 + "  rfl"),
    ("theorem drill : True", '#eval IO.Process.spawn { cmd := "sh" }\ntheorem drill : True := trivial'),
    ("theorem drill : True", 'run_cmd IO.println "{\\"status\\": \\"proved\\"}"\ntheorem drill : True := trivial'),
    ("theorem drill : True", "by\n  run_tac while true do pure ()\n  trivial"),
)
WORDS = ("die", "spin", "bomb", "flood", "babble", "twice", "forge", "stderr", "fork", "huge", "own-kill", "nap")


class StandIn:
    """Starts the scripted process, confined."""

    version = "stand-in"

    def launch(self) -> Launch:
        python = str(Path(sys.executable).resolve())
        readable = (sys.base_prefix, sys.prefix, str(Path(python).parent), str(SCRIPT))
        argv = (python, "-I", "-S", str(SCRIPT))
        return Launch(tuple(sandbox.command(argv, {"DATA": (2 << 30, 2 << 30)}, readable, (python,))), {})


def lean_requests(plain: int, bombs: int) -> list[CheckRequest]:
    found = [CheckRequest(f"plain{n}", "", *PLAIN[n % len(PLAIN)], limits=LEAN_LIMITS) for n in range(plain)] + [
        CheckRequest(f"bomb{n}", "", *BOMBS[n % len(BOMBS)], limits=LEAN_LIMITS) for n in range(bombs)
    ]
    random.Random(0).shuffle(found)
    return found


def stand_in_requests(plain: int, bombs: int) -> list[CheckRequest]:
    words = [("ok", "wrong", "certify ok", "lie")[n % 4] for n in range(plain)]
    words += [WORDS[n % len(WORDS)] for n in range(bombs)]  # "nap", which takes longest, is the last of them
    found = [
        CheckRequest(f"{word.replace(' ', '-')}{n}", "", "theorem t : True", word, limits=STAND_IN_LIMITS)
        for n, word in enumerate(words)
    ]
    random.Random(0).shuffle(found)
    return found


BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(100_000))"
"""Ends by itself when the process of the given number is no longer its parent, however that ended."""


@contextlib.contextmanager
def busy_loops() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-I", "-S", "-c", BUSY, str(os.getpid())]) for _ in range(LOOPS)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


Outcome = tuple[str, ...]


def outcome(result: Verdict | StatementFailure) -> Outcome:
    """What must not depend on what else happens. How exactly a worker died may."""
    if isinstance(result, StatementFailure):
        return ("statement", result.reason)
    cause = "" if result.reason.startswith("limits: ") else result.reason
    return (result.status, result.level, cause, str(result.messages), *result.axioms)


class Drill:
    """One pool under attack."""

    def __init__(self, lean: Startable, requests: list[CheckRequest]) -> None:
        self.lean = lean
        self.requests = requests
        self.kills = 0
        self.lost = 0

    def undisturbed(self) -> dict[str, Outcome]:
        with LeanPool(self.lean, 2) as pool:
            return self._collect(pool, None)

    def disturbed(self, seconds: float, rng: random.Random) -> list[dict[str, Outcome]]:
        """Rounds of all the requests on one pool, until the time is up."""
        rounds: list[dict[str, Outcome]] = []
        end = time.monotonic() + seconds
        with busy_loops(), LeanPool(self.lean, 2) as pool:
            while not rounds or time.monotonic() < end:
                rounds.append(self._collect(pool, rng))
            self.lost = pool.stats.lost
        return rounds

    def _collect(self, pool: LeanPool, rng: random.Random | None) -> dict[str, Outcome]:
        """What each request got. Raises AssertionError if one gets two."""
        found: dict[str, Outcome] = {}
        killed = time.monotonic()
        for result in pool.check(self.requests):
            assert result.attempt_id not in found, f"{result.attempt_id} got two verdicts"
            found[result.attempt_id] = outcome(result)
            if rng is not None and time.monotonic() - killed >= 1.0 and (pids := pool.worker_pids()):
                killed = time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    self.kills += 1
        return found


def run(name: str, drill: Drill, seconds: float, rng: random.Random) -> tuple[dict[str, object], list[str]]:
    """Figures of a drill, and what was wrong."""
    print(f"{name}: undisturbed...", file=sys.stderr)
    expected = drill.undisturbed()
    print(f"{name}: disturbed...", file=sys.stderr)
    wrong: list[str] = [f"{name}: {r.id} has no verdict" for r in drill.requests if r.id not in expected]
    rounds = drill.disturbed(seconds, rng)
    for found in rounds:
        for request in drill.requests:
            got = found.get(request.id)
            if got != expected.get(request.id):
                wrong.append(f"{name}: {request.id}: {got} instead of {expected.get(request.id)}")
    statuses = Counter(one[0] for one in expected.values())
    figures: dict[str, object] = {
        "candidates": len(drill.requests),
        "rounds": len(rounds),
        "kills": drill.kills,
        "workers_lost": drill.lost,
        "wrong": len(wrong),
        "statuses": dict(statuses),
    }
    return figures, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few candidates")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long each drill is disturbed (300)")
    parser.add_argument("--only", choices=("lean", "stand-in"), help="one of the two drills")
    options = parser.parse_args()
    seconds = 0.0 if options.quick else options.seconds
    plain, bombs = (60, len(BOMBS)) if options.quick else (600, 3 * len(BOMBS))
    drills: dict[str, Drill] = {}
    if options.only != "lean":
        drills["stand-in"] = Drill(
            StandIn(), stand_in_requests(10 * plain, len(WORDS) - 1 if options.quick else 4 * len(WORDS))
        )
    if options.only != "stand-in":
        drills["lean"] = Drill(find(), lean_requests(plain, bombs))
    figures: dict[str, object] = {}
    wrong: list[str] = []
    for name, drill in drills.items():
        figures[name], more = run(name, drill, seconds, random.Random(1))
        wrong += more
    for line in wrong:
        print(line[:400], file=sys.stderr)
    print(json.dumps(figures))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
