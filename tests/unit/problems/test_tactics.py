import random

import pytest

from prover.pointers import expand_pointers
from prover.records import Premise, Problem
from prover.tactics import PORTFOLIO, random_proof, render

STATEMENT = "theorem target (l : List Nat) (n : Nat) (h : n ∈ l) : l ≠ []"


def problem(*premises: str, statement: str = STATEMENT) -> Problem:
    return Problem("p", "", statement, premises=tuple(Premise(name) for name in premises))


@pytest.mark.parametrize(
    ("template", "proof"),
    [
        ("by cases {v} <;> simp_all", "by cases l <;> simp_all"),
        ("by induction {w} <;> grind", "by induction n <;> grind"),
        ("by simpa using {h}", "by simpa using h"),
        ("by simp [{2}, {1}]", "by simp [⟦2⟧, ⟦1⟧]"),
        ("by simp [{3}]", None),
        ("by simp (config := { maxSteps := 3 })", "by simp (config := { maxSteps := 3 })"),
    ],
)
def test_templates_are_filled_or_refused(template: str, proof: str | None) -> None:
    assert render(template, problem("A.b", "C.d")) == proof


def test_a_template_needs_what_it_names() -> None:
    bare = problem(statement="theorem target (p : Prop) : p → p")
    assert [t for t in PORTFOLIO if render(t, bare) is None] == [t for t in PORTFOLIO if "{" in t]


def test_pointers_become_full_names_and_others_stay() -> None:
    assert (
        expand_pointers("by simp [⟦2⟧, ⟦1⟧, ⟦3⟧, ⟦0⟧, ⟦x⟧]", problem("A.b", "C.d"))
        == "by simp [C.d, A.b, ⟦3⟧, ⟦0⟧, ⟦x⟧]"
    )
    assert expand_pointers("by exact ⟦1⟧", Problem("p", "", STATEMENT)) == "by exact ⟦1⟧"


def test_the_list_holds_no_template_twice() -> None:
    assert len(set(PORTFOLIO)) == len(PORTFOLIO)
    assert all(template.startswith("by ") for template in PORTFOLIO)


def test_random_proofs_repeat_with_the_seed_and_vary_without() -> None:
    some = [random_proof(problem("A.b"), random.Random(seed)) for seed in range(200)]
    assert some == [random_proof(problem("A.b"), random.Random(seed)) for seed in range(200)]
    assert len(set(some)) > 60
    assert all(p.startswith("by ") and "⟦2⟧" not in p for p in some)
    assert any("cases l" in p or "induction l" in p for p in some)
    assert any("⟦1⟧" in p for p in some)
