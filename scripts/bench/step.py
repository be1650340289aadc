"""Speed of step mode on fixed statements and tactics. Prints a JSON object of figures as its last line.

    python scripts/bench/step.py [--quick]

Every tactic is tried on every state down to a depth, as a search without any judgement would. ``states_per_second``
are the steps that one worker answers in a second of wall time, failures included; ``overhead_ms`` is what a step costs
beyond Lean's own time; ``replay_ms`` is what it takes to make a lost state of three tactics again, a new worker not
included.
"""

import argparse
import json
import statistics
import time

from lean_env.protocol import StatementFailure
from lean_env.step import StepSession, StepState
from lean_env.toolchain import find

STATEMENTS = (
    "theorem bench (p q r : Prop) (h : p → q) (k : q → r) : p → (q ∧ r) ∨ p",
    "theorem bench (a b c : Nat) (h : a < b) : a + c < b + c ∧ c + a < c + b",
    "theorem bench {α : Type} (l m : List α) : (l ++ m).length = m.length + l.length",
    "theorem bench (x y : Int) (h : x + y = 3) (k : x - y = 1) : x = 2 ∧ y = 1",
)
TACTICS = (
    "intro h'",
    "constructor",
    "left",
    "skip",
    "simp_all",
    "omega",
    "rw [Nat.add_comm]",
    "exact ⟨_, h⟩",
    "cases h",
)
WIDTH = 4
"""States of a depth that are gone on from."""


def search(session: StepSession, depth: int, walls: list[float]) -> int:
    """Steps asked for; appends the wall seconds of each to ``walls``."""
    count = 0
    for statement in STATEMENTS:
        first = session.start("", statement)
        assert isinstance(first, StepState), first
        level, made = [first], [first]
        for _ in range(depth):
            found: list[StepState] = []
            for state in level:
                for tactic in TACTICS:
                    begin = time.monotonic()
                    reached = session.apply(state, tactic)
                    walls.append(time.monotonic() - begin)
                    count += 1
                    if isinstance(reached, StepState) and not reached.done:
                        found.append(reached)
                    if isinstance(reached, StepState):
                        made.append(reached)
            level = found[:WIDTH]
        session.release(made)
    return count


def replay(session: StepSession) -> float:
    """Milliseconds to make a state of three tactics again, beyond a step by itself."""
    state = session.start("", STATEMENTS[0])
    assert not isinstance(state, StatementFailure)
    for tactic in ("intro hp", "left", "constructor"):
        reached = session.apply(state, tactic)
        assert isinstance(reached, StepState), reached
        state = reached
    begin = time.monotonic()
    session.apply(state, "skip")
    alone = time.monotonic() - begin
    session.forget()
    begin = time.monotonic()
    session.apply(state, "skip")
    return 1000 * (time.monotonic() - begin - alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="depth 2 instead of 4, once instead of three times")
    quick = parser.parse_args().quick
    depth, turns = (2, 1) if quick else (4, 3)
    count = 0
    with StepSession(find()) as session:
        search(session, depth, [])  # warms the worker up
        rates: list[float] = []
        overheads: list[float] = []
        for _ in range(turns):
            walls: list[float] = []
            before = session.stats.lean_seconds
            begin = time.monotonic()
            count = search(session, depth, walls)
            rates.append(count / (time.monotonic() - begin))
            overheads.append(1000 * (sum(walls) - (session.stats.lean_seconds - before)) / count)
        figures = {
            "states_per_second": round(statistics.median(rates), 1),
            "overhead_ms": round(statistics.median(overheads), 2),
            "steps": count,
            "replay_ms": round(replay(session), 1),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
