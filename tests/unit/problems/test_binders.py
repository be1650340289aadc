import pytest

from prover.binders import data_variables, hypotheses, parse_statement


@pytest.mark.parametrize(
    ("statement", "data", "assumed"),
    [
        ("theorem t (n m : Nat) : n + m = m + n", ("n", "m"), ()),
        ("theorem t.{u, v} {α : Type u} [BEq α] (l : List (α × α)) (h : l ≠ []) : l = l", ("l",), ("h",)),
        ("theorem t (f : Nat → Nat) (h₀ : ∀ x, f x = x) : f 1 = 1", (), ("h₀",)),
        ("theorem t (x : Nat × Int) (n : Nat := 3) : x.1 = n", ("x", "n"), ()),
        ("lemma t (c : Char) (h : c = '(') (s : String) (g : s = \":)\") : c ≠ ')'", ("c", "s"), ("h", "g")),
        ("/-- theorem u (x : Nat) -/ theorem t /- (y : Nat) -/ ⦃b : Bool⦄ (_ : b = b) : b", ("b",), ()),
        ("theorem t {p : Nat → Prop} (hp : p 0) (w : Bool) : p 0 ∨ w", ("w",), ("hp",)),
        ("theorem t : ∀ n : Nat, n = n", (), ()),
        ("theorem t {n m : Nat} (xs : Vector α n) (k : Fin m) : p xs k", ("xs", "k", "n", "m"), ()),
    ],
)
def test_variables_and_hypotheses_are_told_apart(
    statement: str, data: tuple[str, ...], assumed: tuple[str, ...]
) -> None:
    parsed = parse_statement(statement)
    assert parsed is not None
    assert (data_variables(parsed), hypotheses(parsed)) == (data, assumed)


def test_conclusion_starts_after_the_binders_colon() -> None:
    parsed = parse_statement("theorem t (h : ∀ x : Nat, x = x)\n  : (1 : Nat) = 1 ∧ True")
    assert parsed is not None
    assert (parsed.name, parsed.conclusion) == ("t", "(1 : Nat) = 1 ∧ True")


@pytest.mark.parametrize(
    "text", ["", "def x : Nat", "theorem", "theorem t (x : Nat", "theorem t (x : Nat] : x = x", "theorem t"]
)
def test_what_is_no_theorem_gives_none(text: str) -> None:
    assert parse_statement(text) is None
