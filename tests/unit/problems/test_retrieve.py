from prover.problems.library import LibraryTheorem
from prover.problems.retrieve import Retriever, words


def lemma(name: str, text: str, order: int = 0) -> LibraryTheorem:
    return LibraryTheorem(name, "M", order, type=name, flipped=name, text=text, returns=True)


LEMMAS = [
    lemma("List.map_append", " (f : α → β) (l m : List α) : List.map f (l ++ m) = List.map f l ++ List.map f m"),
    lemma("List.length_append", " (l m : List α) : (l ++ m).length = l.length + m.length"),
    lemma("Nat.gcd_comm", " (m n : Nat) : m.gcd n = n.gcd m"),
    lemma("Nat.gcd_assoc_and_much_else", " (a b m n : Nat) : (m.gcd n).lcm a ∣ b.gcd (m.lcm n) ∨ a % b = m"),
    *(lemma(f"Nat.filler_{i}", f" (n : Nat) : n + {i} = {i} + n") for i in range(30)),
]


def test_rare_shared_words_rank_first_and_short_lemmas_before_long() -> None:
    found = Retriever(LEMMAS).retrieve("theorem t (a b : ℕ) : Nat.gcd a b = Nat.gcd b a", 2)
    assert [p.name for p in found] == ["Nat.gcd_comm", "Nat.gcd_assoc_and_much_else"]
    assert found[0].statement == "(m n : Nat) : m.gcd n = n.gcd m"


def test_what_is_not_allowed_is_replaced_by_the_next_best() -> None:
    retriever = Retriever(LEMMAS)
    found = retriever.retrieve(
        "theorem t (l : List Nat) : l ++ [] = l", 2, allowed=lambda t: t.name != "List.length_append"
    )
    assert "List.length_append" not in [p.name for p in found]
    assert found[0].name == "List.map_append"


def test_nothing_shared_gives_nothing() -> None:
    assert Retriever(LEMMAS).retrieve("theorem t (s : Zork) : frob s", 4) == ()


def test_number_sets_of_mathlib_are_spelled_out() -> None:
    assert {"Nat", "Int", "gcd"} <= words("theorem t (a : ℕ) (b : ℤ) : a.gcd 1 = b.toNat")
