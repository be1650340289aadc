"""Step mode with real Lean: branching, what a step refuses, and states that outlive their worker."""

import os
import signal
from collections.abc import Iterator
from typing import get_args

import pytest

from lean_env.errors import StepError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.step import FailureKind, StepFailure, StepSession, StepState
from lean_env.toolchain import find

STATEMENT = "theorem t {α : Type u} (p q : Prop) (h : p) (n : Nat) : p ∧ (q → n + 0 = n)"


@pytest.fixture(scope="module")
def session() -> Iterator[StepSession]:
    with StepSession(find(), Limits(cpu_seconds=4.0)) as session:
        yield session


def begin(session: StepSession, statement: str = STATEMENT, header: str = "") -> StepState:
    state = session.start(header, statement)
    assert isinstance(state, StepState), state
    return state


def step(session: StepSession, state: StepState, *tactics: str) -> StepState:
    for tactic in tactics:
        reached = session.apply(state, tactic)
        assert isinstance(reached, StepState), reached
        state = reached
    return state


def targets(state: StepState) -> list[str]:
    return [goal.target for goal in state.goals]


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(find(), 1) as pool:
        yield pool


def certified(pool: LeanPool, statement: str, proof: str, header: str = "") -> str:
    (verdict,) = pool.check([CheckRequest("one", header, statement, proof)])
    assert isinstance(verdict, Verdict)
    return verdict.level or verdict.reason


def test_states_branch_and_a_finished_one_is_a_proof_to_be_checked(session: StepSession, pool: LeanPool) -> None:
    first = begin(session)
    assert [h.name for h in first.goals[0].hypotheses] == ["α", "p", "q", "h", "n"]
    both = step(session, first, "constructor")
    assert targets(both) == ["p", "q → n + 0 = n"] and both.open_goals == 2
    left = step(session, both, "exact h")
    right = step(session, both, "case right =>\n  intro hq\n  rfl")
    assert targets(left) == ["q → n + 0 = n"] and targets(right) == ["p"]
    assert targets(step(session, both, "all_goals try assumption")) == ["q → n + 0 = n"]
    done = step(session, left, "have two : 1 + 1 = 2 := by\n  decide\nintro hq", "simp")
    other = step(session, right, "assumption")
    assert done.done and other.done and not left.done
    assert done.tactics == ("constructor", "exact h", "have two : 1 + 1 = 2 := by\n  decide\nintro hq", "simp")
    for state in (done, other):
        assert certified(pool, STATEMENT, state.proof) == "certified"
    again = session.apply(done, "simp")
    assert again == StepFailure("no_goals", "no goal is left")


@pytest.mark.parametrize(
    ("tactic", "kind", "words"),
    [
        ("exact no_such_thing", "tactic", "no_such_thing"),
        ("intro x y", "tactic", "introN"),
        ("omega", "tactic", "omega could not"),
        ("exact ⟨h, ?_⟩; skip", "tactic", ""),
        ("(", "syntax", "expected"),
        ("simp )", "syntax", "expected"),
        ("constructor\ntheorem bad : False := sorry", "syntax", "expected"),
        ("", "syntax", "empty"),
        ("sorry", "sorry", ""),
        ("refine ⟨h, ?_⟩ <;> admit", "sorry", ""),
        ("exact (sorry : _)", "sorry", ""),
        ("run_tac Lean.Elab.Tactic.evalTactic default", "forbidden", "run_tac"),
        ("native_decide", "forbidden", "native_decide"),
        ("exact unsafeCast h", "forbidden", "unsafeCast"),
        ("simp (config := { maxSteps := (dbgTrace \"x\" fun _ => 5) })", "forbidden", ""),
        ("omega (splitDisjunctions := evil)", "forbidden", "literal"),
        ("decide +native", "forbidden", "native"),
        ("set_option debug.skipKernelTC true in trivial", "forbidden", "debug.skipKernelTC"),
        ("let rec f : Nat → Nat\n  | 0 => 0\n  | n + 1 => f n\ndecreasing_by run_tac 1", "forbidden", "run_tac"),
        ("exact t (α := α) p q h n", "tactic", "t"),
        ("have : 7 ^ 20000000 % 10 = 1 := by decide +kernel", "timeout", ""),
    ],
)  # fmt: skip
def test_a_step_that_leads_nowhere_leaves_the_state_as_it_was(
    session: StepSession, tactic: str, kind: FailureKind, words: str
) -> None:
    assert kind in get_args(FailureKind)
    state = begin(session)
    failure = session.apply(state, tactic)
    assert isinstance(failure, StepFailure), failure
    assert failure.kind == kind and words in failure.message, failure
    assert targets(step(session, state, "constructor")) == ["p", "q → n + 0 = n"]


def test_heartbeats_are_a_steps_own() -> None:
    with StepSession(find(), Limits(heartbeats=200)) as session:
        state = begin(session, "theorem t (a b c : Nat) (h : a < b) (k : b < c) : a + 1 < c + c")
        failure = session.apply(state, "set_option maxHeartbeats 0 in repeat (rw [Nat.add_comm])")
        assert isinstance(failure, StepFailure) and failure.kind == "timeout"
        assert isinstance(session.apply(state, "skip"), StepState)


def test_states_outlive_their_worker(session: StepSession, pool: LeanPool) -> None:
    header = "variable (w : Nat)\nopen Nat"
    first = begin(session, "theorem t (h : w = 2) : succ w = 3 ∧ True", header)
    left = step(session, first, "constructor", "subst h")
    session.release([first])
    before = session.stats
    pid = session.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    done = step(session, left, "rfl", "trivial")
    assert done.done and session.worker_pid != pid
    assert session.stats.started == before.started + 1
    assert session.stats.replayed == before.replayed + 3  # the statement, and two tactics
    assert certified(pool, "theorem t (h : w = 2) : succ w = 3 ∧ True", done.proof, header) == "certified"
    with pytest.raises(StepError, match="was released"):
        session.apply(first, "constructor")


def test_no_more_states_are_held_than_agreed_on() -> None:
    with StepSession(find(), held_states=4) as session:
        first = begin(session, "theorem t (p : Prop) (h : p) : p")
        states = [step(session, first, f"have h{n} := h") for n in range(10)]
        assert session.stats.replayed == 0  # what is used is kept
        for n, state in enumerate(states):
            assert step(session, state, f"exact h{n}").done
        assert session.stats.replayed > 0 and session.stats.started == 1


def test_a_statement_that_does_not_elaborate(session: StepSession) -> None:
    failure = session.start("set_option autoImplicit false", "theorem t : no_such_thing = 1")
    assert isinstance(failure, StatementFailure) and failure.where == "statement" and "no_such_thing" in failure.reason
    failure = session.start("import Nowhere", "theorem t : True")
    assert isinstance(failure, StatementFailure) and failure.where == "header"
    failure = session.start("", "example : True")
    assert isinstance(failure, StatementFailure) and failure.where == "statement"


def test_a_closed_session_says_so() -> None:
    session = StepSession(find())
    session.close()
    with pytest.raises(StepError, match="closed"):
        session.start("", STATEMENT)
