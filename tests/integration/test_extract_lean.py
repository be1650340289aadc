"""Problems made of a project's text, put to real Lean: the project's own proofs pass, the theorem itself does not."""

from collections.abc import Iterator

import pytest

from lean_env import toolchain
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Verdict
from prover.projects.convert import Conversion, Seed, convert, find_twins
from prover.projects.traced import TracedFile
from tests.traced_text import traced

SHAPES = """
universe u

/-- Twice. -/
def twice (n : Nat) : Nat := n + n

theorem twice_eq (n : Nat) : twice n = 2 * n ‖:= by
  unfold twice -- by definition
  omega

@[simp] private theorem twice_zero : twice 0 = 0 ‖:= rfl

theorem uses_private : twice 0 + 0 = 0 ‖:= by simp

local notation "⟪" n "⟫" => twice n

theorem uses_notation (n : Nat) : ⟪n⟫ = ⟪n⟫ + 0 ‖:= by rw [Nat.add_zero]

namespace Outer.Inner

inductive Tree (α : Type u) where
  | leaf
  | node (left : Tree α) (value : α) (right : Tree α)

variable {α : Type u} (t : Tree α)

def Tree.size : Tree α → Nat
  | .leaf => 0
  | .node l _ r => l.size + 1 + r.size

def Tree.mirror : Tree α → Tree α
  | .leaf => .leaf
  | .node l a r => .node r.mirror a l.mirror

theorem Tree.mirror_mirror : t.mirror.mirror = t ‖:= by
  induction t with
  | leaf => rfl
  | node l a r hl hr =>
    -- both sides
    simp [mirror, hl, hr]

protected theorem Tree.size_mirror (t : Tree α) : t.mirror.size = t.size ‖:=
  match t with
  | .leaf => rfl
  | .node l a r => by
    rw [mirror, size, size, Tree.size_mirror l, Tree.size_mirror r]
    omega

end Inner

variable (p q : Prop)

theorem swap (h : p ∧ q) : q ∧ p ‖:= by cases h with
                                       | intro a b =>
                                         constructor
                                         · exact b
                                         · exact a

section

variable (h : p)

include h

theorem included : p ∨ q ‖:= Or.inl h

end

theorem with_where (n : Nat) : n ≤ n + 3 ‖:= by
  exact step n
†where
  step (n : Nat) : n ≤ n + 3 := Nat.le_add_right n 3

theorem recursive (n : Nat) : 0 ≤ n ‖:= by
  cases n with
  | zero => exact Nat.le.refl
  | succ n => exact Nat.le_succ_of_le (recursive n)
†termination_by n

open Nat in
set_option maxRecDepth 2000 in
theorem opened (n m : Nat) : n ≤ n + m ‖:= le_add_right n m

nonrec theorem swap_symm (a b : Nat) (h : a = b) : b = a ‖:= by
  have chain : b = a := calc
    b = b := rfl
    _ = a := h.symm
  exact chain

theorem equations : ∀ n : Nat, twice n = n + n
  ‖| 0 => rfl
  | _ + 1 => rfl

theorem universes.{v} (β : Sort v) (x : β) : x = x ‖:= rfl

theorem function : (fun x : Nat => x + 0) = id ‖:= funext fun x =>
  Nat.add_zero x

attribute [local simp] twice_eq

theorem by_local_simp (n : Nat) : twice n + 1 = 2 * n + 1 ‖:= by simp

end Outer

theorem Other.same (m : Nat) : 0 + m = m ‖:= by simp

theorem Other.same_again (m : Nat) : 0 + m = m ‖:= Nat.zero_add m

theorem _root_.Top.last : twice 1 = 2 ‖:= rfl
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(toolchain.find(), workers=1) as started:
        yield started


def seeds_of(file: TracedFile, *, all_lemmas: bool = False) -> list[Seed]:
    how = Conversion("p", "train", ("set_option autoImplicit false",), all_lemmas, find_twins([file]))
    return [seed for seed in convert(file, how) if isinstance(seed, Seed)]


def verdicts(pool: LeanPool, proofs: list[tuple[Seed, str]]) -> dict[str, Verdict]:
    requests = [
        CheckRequest(
            id=f"{number} {seed.problem.id.partition(':')[2]}: {proof}",
            header=seed.problem.header,
            formal_statement=seed.problem.formal_statement,
            proof=proof,
            forbidden_constants=seed.problem.forbidden_constants,
        )
        for number, (seed, proof) in enumerate(proofs)
    ]
    return {verdict.attempt_id: verdict for verdict in pool.check(requests)}


def test_the_projects_own_proofs_pass(pool: LeanPool) -> None:
    seeds = seeds_of(traced(SHAPES))
    assert len(seeds) == 19
    own = [(seed, seed.proof) for seed in seeds if seed.proof is not None]
    assert len(own) == 18  # all but the equations
    whole = [seed for seed in seeds_of(traced(SHAPES), all_lemmas=True) if seed.problem.id.endswith("by_local_simp")]
    found = verdicts(pool, own + [(seed, seed.proof) for seed in whole if seed.proof is not None])
    assert len(found) == 19
    wrong = {ident: (v.status, v.reason) for ident, v in found.items() if v.status != "proved"}
    assert not wrong
    assert all(v.level == "certified" for v in found.values())


def test_no_theorem_proves_itself(pool: LeanPool) -> None:
    """By its name in any form, or what comes later in its file."""
    seeds = seeds_of(traced(SHAPES))
    tried: list[tuple[Seed, str]] = []
    for seed in seeds:
        name = seed.problem.id.partition(":")[2]
        tried += [(seed, f"by first | exact {name} | apply {name} <;> assumption | simp only [{name}]")]
    last = {seed.problem.id: seed for seed in seeds}
    tried.append((last["p/Some.File:Outer.equations"], "by intro n; exact Top.last ▸ rfl"))
    tried.append((last["p/Some.File:Other.same"], "Other.same_again m"))
    found = verdicts(pool, tried)
    assert len(found) == len(tried)
    assert not [ident for ident, verdict in found.items() if verdict.status == "proved"]


def test_a_twin_before_it_proves_no_theorem(pool: LeanPool) -> None:
    file = traced(
        "theorem a (m : Nat) : 0 + m = m ‖:= by simp\n\ntheorem b (m : Nat) : 0 + m = m ‖:= by\n  have := a\n  simp"
    )
    (_, seed) = seeds_of(file)
    assert (seed.proof, seed.reason) == (None, "twin")
    (verdict,) = verdicts(pool, [(seed, "a m")]).values()
    assert (verdict.status, verdict.reason) == ("forbidden_constant", "audit: it uses a")
    (verdict,) = verdicts(pool, [(seed, "by omega")]).values()
    assert verdict.status == "proved"


def test_a_header_that_declares_the_theorem_is_refused(pool: LeanPool) -> None:
    (seed,) = seeds_of(traced("theorem a : 1 = 1 ‖:= rfl"))
    request = CheckRequest(
        id="a", header="theorem a : 1 = 1 := rfl", formal_statement=seed.problem.formal_statement, proof=""
    )
    ((_, failure),) = pool.elaborate([request])
    assert failure is not None
    assert "already been declared" in failure.reason
