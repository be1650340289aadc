"""What a verdict tells beyond its status, with real Lean: places, goals, and statements that elaborate back."""

from collections.abc import Iterator

import msgspec
import pytest

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Depth, Feedback, Goal, Hypothesis, Limits, Verdict
from lean_env.source import candidate_text
from lean_env.toolchain import find

SHORT = Limits(cpu_seconds=10.0)
HEADER = 'universe u\nset_option autoImplicit false\nvariable (w : Nat)\nnotation "⟪" x "⟫" => Nat.succ x'


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(find(), 1) as pool:
        yield pool


def ask(pool: LeanPool, statement: str, proof: str, depth: Depth = "statements", header: str = "") -> Verdict:
    (verdict,) = pool.check([CheckRequest("one", header, statement, proof, limits=SHORT, feedback=depth)])
    assert isinstance(verdict, Verdict), verdict
    return verdict


def feedback(pool: LeanPool, statement: str, proof: str, depth: Depth = "statements", header: str = "") -> Feedback:
    found = ask(pool, statement, proof, depth, header).feedback
    assert found is not None
    return found


def piece(statement: str, proof: str, start: tuple[int, int], end: tuple[int, int]) -> str:
    """The candidate's text between two positions."""
    lines = candidate_text(statement, proof).split("\n")[start[0] - 1 : end[0]]
    lines[-1] = lines[-1][: end[1]]
    lines[0] = lines[0][start[1] :]
    return "\n".join(lines)


def elaborate(pool: LeanPool, statements: list[str], header: str = "") -> list[str]:
    """The statements that do not elaborate after the header."""
    requests = [CheckRequest(str(n), header, text, "", limits=SHORT) for n, text in enumerate(statements)]
    return [statements[int(ident)] for ident, failure in pool.elaborate(requests) if failure is not None]


def test_nothing_is_told_unless_asked_for(pool: LeanPool) -> None:
    assert ask(pool, "theorem t (p : Prop) : p", "by sorry", "messages").feedback is None
    (place,) = feedback(pool, "theorem t (p : Prop) : p", "by sorry", "goals").sorries
    assert [(goal.target, goal.statement) for goal in place.goals] == [("p", None)]


def test_goals_at_each_sorry(pool: LeanPool) -> None:
    statement = "theorem t (p q : Prop) (h : p) : p ∧ q ∧ p"
    proof = "by\n  refine ⟨h, ?_, ?_⟩\n  · sorry\n  · have 𝓝 : 1 = 1 := rfl; sorry"
    found = feedback(pool, statement, proof)
    assert found.failed is None and found.states == () and not found.cut
    assert [piece(statement, proof, s.start, s.end) for s in found.sorries] == ["sorry", "sorry"]
    (first,), (second,) = (s.goals for s in found.sorries)
    context = (Hypothesis("p", "Prop"), Hypothesis("q", "Prop"), Hypothesis("h", "p"))
    assert first == Goal(
        "case refine_1\np q : Prop\nh : p\n⊢ q",
        "refine_1",
        context,
        "q",
        "theorem prover_goal_1 (p : Prop) (q : Prop) (h : p) : q",
    )
    assert second.hypotheses == (*context, Hypothesis("𝓝", "1 = 1")) and second.target == "p"


def test_one_sorry_for_several_goals(pool: LeanPool) -> None:
    found = feedback(pool, "theorem t (p q : Prop) : p ∧ q", "by\n  constructor <;> sorry")
    assert [goal.target for place in found.sorries for goal in place.goals] == ["p", "q"]


@pytest.mark.parametrize(
    ("proof", "at", "targets"),
    [
        ("by\n  have e := n + 0\n  rw [Nat.mul_comm]", "rw [Nat.mul_comm]", ["n = 𝓍"]),
        ("by\n  /- 🎉𝓝 -/ exact no_such_thing", "exact no_such_thing", ["n = 𝓍"]),
        ("by\n  constructor", "constructor", ["n = 𝓍"]),
        ("by\n  have : n = 3 := by\n    omega\n  exact this ▸ h", "omega", ["n = 3"]),
        ("by\n  cases n\n  · skip\n  · simp", "· skip", ["0 = 𝓍"]),
        ("by\n  intro 𝓎", "intro 𝓎", ["n = 𝓍"]),
        ("no_such_thing", "no_such_thing", []),
        ("by\n  apply Eq.symm\n  (", "", []),
    ],
)
def test_goals_where_it_fails(pool: LeanPool, proof: str, at: str, targets: list[str]) -> None:
    statement = "theorem t (n 𝓍 : Nat) (h : 0 < n) : n = 𝓍"
    verdict = ask(pool, statement, proof)
    assert verdict.status == "failed" and verdict.feedback is not None
    failed = verdict.feedback.failed
    assert failed is not None
    if at:
        assert piece(statement, proof, failed.start, failed.end) == at
        assert [goal.target for goal in failed.goals] == targets


def test_goals_that_are_left(pool: LeanPool) -> None:
    statement = "theorem t (p q : Prop) (h : p) : p ∧ q"
    verdict = ask(pool, statement, "by\n  constructor")
    assert verdict.feedback is not None and verdict.feedback.failed is not None
    goals = verdict.feedback.failed.goals
    assert tuple(goal.text for goal in goals) == verdict.goals
    assert [goal.case for goal in goals] == ["left", "right"]
    assert elaborate(pool, [goal.statement or "" for goal in goals]) == []


CLOSED = [
    ("theorem t {α : Type u} [DecidableEq α] (xs : List α) : xs = []", "by\n  cases xs\n  · sorry\n  · sorry"),
    ("theorem t (a b : Nat) (h : a < b) : ∃ c : Int, c + a = b", "by\n  rcases h with _ | ⟨h⟩ <;> sorry"),
    ("theorem t (a : Nat) : ∃ c : Int, c * 2 = a", "by\n  let x : Int := 5\n  have e : x = 5 := rfl\n  sorry"),
    ("theorem t : (fun x : Nat => x) = id ∧ w = w ∧ ⟪0⟫ = 1", "by\n  refine ⟨?_, ?_, ?_⟩ <;> sorry"),
    ("theorem t (f : ∀ x : Nat, x < 3 → Fin 4) (a : Nat) : ∀ _ : a = 2, ↑a = (2 : Int)", "by\n  intro\n  sorry"),
    ("theorem t (x : Rat) (n : Nat) (h : x / 2 = 3 / n) : x ^ n ≠ -1", "by\n  sorry"),
    ("theorem t (xs : Array Nat) (i : Nat) (h : i < xs.size) : xs[i]? = some 3 ∧ xs[i]! = 3", "by sorry"),
    ("theorem t {α : Sort u} {β : Type (u + 1)} (h : Nonempty (α → β)) : ∃ _ : α → β, True", "by sorry"),
    ("theorem t (s : String) (h : s = \"a\\n»\\u0001\") : s.length = '\\n'.toNat", "by sorry"),
    ("theorem t («a b» : Nat) (h : «a b» = 1) : let y := «a b»; y = 1", "by\n  intro y\n  sorry"),
    ("theorem t (p : Nat → Prop) (h : ∃ n, p n) : ∃ n, p (n + 0)", "by\n  obtain ⟨_, _⟩ := h\n  sorry"),
    ("theorem t (a b : BitVec 8) : a + b = (b + a : BitVec 8) ∧ a.toNat < 256#9", "by sorry"),
]


def test_closed_statements_elaborate_back(pool: LeanPool) -> None:
    """Alone, after the same header; and a proof of the first goal's statement proves the goal in its place."""
    requests = [
        CheckRequest(str(n), HEADER, statement, proof, limits=SHORT, feedback="statements")
        for n, (statement, proof) in enumerate(CLOSED)
    ]
    found = {v.attempt_id: v for v in pool.check(requests)}
    closed: list[str] = []
    for request in requests:
        verdict = found[request.id]
        assert isinstance(verdict, Verdict) and verdict.feedback is not None, verdict
        places = [*verdict.feedback.sorries, *([verdict.feedback.failed] if verdict.feedback.failed else [])]
        goals = [goal for place in places for goal in place.goals]
        assert goals or verdict.status != "sorry", request
        for goal in goals:
            assert goal.statement is not None, goal.text
            closed.append(goal.statement)
    assert len(closed) >= 15
    assert elaborate(pool, closed, HEADER) == []


def test_a_closed_statement_says_what_the_goal_says(pool: LeanPool) -> None:
    """`↑a = 2` over Int would, as Lean prints it, be read as one over Nat."""
    (place,) = feedback(pool, "theorem t (a : Nat) : (a : Int) = 2", "by\n  sorry").sorries
    (goal,) = place.goals
    assert goal.target == "↑a = 2"
    assert goal.statement == "theorem prover_goal_1 (a : Nat) : (↑a : Int) = (2 : Int)"
    left = "by\n  have prover_goal_1 : ∀ a : Nat, (↑a : Int) = (2 : Int) := sorry\n  exact prover_goal_1 a"
    assert ask(pool, "theorem t (a : Nat) : (a : Int) = 2", left, "messages").status == "sorry"


def test_no_closed_statement_rather_than_a_wrong_one(pool: LeanPool) -> None:
    own = "def mine := 3\n\ntheorem t (n : Nat) : n = 3 := by\n  have h : n = mine := by\n    sorry\n  exact h"
    hole = "by\n  refine ⟨?_, ?_⟩\n  rotate_left\n  · sorry\n  · exact 3"
    for statement, proof in (("theorem t (n : Nat) : n = 3", own), ("theorem t : ∃ n : Nat, n = 3", hole)):
        (place,) = feedback(pool, statement, proof).sorries
        assert [goal.statement for goal in place.goals] == [None]


def test_the_goals_around_every_tactic(pool: LeanPool) -> None:
    statement = "theorem t (p q : Prop) (h : p) (k : q) : p ∧ q"
    proof = "by\n  constructor\n  · exact h\n  · exact k"
    verdict = ask(pool, statement, proof, "states")
    assert verdict.status == "proved" and verdict.level == "certified" and verdict.feedback is not None
    steps = [
        (piece(statement, proof, s.start, s.end), [g.target for g in s.before], [g.target for g in s.after])
        for s in verdict.feedback.states
    ]
    assert steps == [
        ("constructor", ["p ∧ q"], ["p", "q"]),
        ("· exact h", ["p", "q"], ["q"]),
        ("exact h", ["p"], []),
        ("· exact k", ["q"], []),
        ("exact k", ["q"], []),
    ]


def test_messages_and_status_are_the_same_with_feedback(pool: LeanPool) -> None:
    proofs = ["by\n  intro x\n  simp", "by\n  have unused := h\n  exact h", "fun x => x", "by sorry", "by omega"]
    for proof in proofs:
        seen = [
            ask(pool, "theorem t (p q : Prop) (h : p) : p", proof, d)
            for d in ("messages", "goals", "statements", "states")
        ]
        bare = [msgspec.structs.replace(v, feedback=None, heartbeats=0, seconds=0.0) for v in seen]
        assert all(verdict == bare[0] for verdict in bare)


def lines(*tactics: str) -> str:
    return "by\n" + "".join(f"  {tactic}\n" for tactic in tactics)


HOSTILE = [
    ("theorem t (n : Nat) : n = 1", lines(*(f"have h{i} : {i} = {i} := rfl" for i in range(300)), "sorry")),
    (f"theorem t (n : Nat) : {' + '.join(['n'] * 1000)} = 0", "by\n  sorry"),
    ("theorem t : True", lines(*["have : (1 : Nat) = 2 := by sorry"] * 60, "trivial")),
    ("theorem t : True", lines(*(f"have x{i} : ({i} : Nat) = {i} := by rfl" for i in range(200)), "trivial")),
    (
        "theorem t (p : Nat → Nat → Prop) (n : Nat) : p n n",
        lines(*(f"generalize e{i} : (n + n, n + n) = x{i}" for i in range(3)), *["revert n; intro n"] * 3, "sorry"),
    ),
    ("theorem t («a\tb\x1b[2J⟩» : Nat) : «a\tb\x1b[2J⟩» = 1", "by\n  sorry"),
    ('theorem t (s : String) : s = "\\u0000\\u202e\\n⊢ False"', "by\n  sorry"),
    (
        "theorem t : ∃ f : Nat → Nat, f 0 = 1",
        lines("refine ⟨?f, ?h⟩", *["case f => exact fun x => x + x"], "sorry"),
    ),
]


@pytest.mark.parametrize(("statement", "proof"), HOSTILE)
def test_goals_of_any_size_and_look_are_shown_in_bounds(pool: LeanPool, statement: str, proof: str) -> None:
    verdict = ask(pool, statement, proof, "states")
    assert verdict.status in ("sorry", "proved", "failed"), verdict
    assert verdict.feedback is not None
    encoded = msgspec.json.encode(verdict)
    assert len(encoded) < 1 << 20
    assert msgspec.json.decode(encoded, type=Verdict) == verdict
    places = [*verdict.feedback.sorries, *([verdict.feedback.failed] if verdict.feedback.failed else [])]
    texts = [goal.statement for place in places for goal in place.goals if goal.statement]
    assert elaborate(pool, texts) == []
