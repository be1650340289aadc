"""Theorems of traced files as problems: what their headers keep, what becomes of their proofs, what is left out."""

from collections import Counter

import pytest

from prover.projects.convert import Conversion, Seed, convert, find_twins
from prover.projects.source_text import mentioned, shifted_proof, without_comments
from prover.projects.traced import TracedFile, TracedTactic, TracedTheorem
from tests.traced_text import traced


def seeds(*files: TracedFile, options: tuple[str, ...] = (), all_lemmas: bool = False) -> dict[str, Seed]:
    how = Conversion("p", "train", options, all_lemmas, find_twins(files))
    found = [seed for file in files for seed in convert(file, how) if isinstance(seed, Seed)]
    return {seed.problem.id.partition(":")[2]: seed for seed in found}


def reasons(*files: TracedFile) -> Counter[str]:
    how = Conversion("p", "train", (), False, find_twins(files))
    return Counter(seed for file in files for seed in convert(file, how) if isinstance(seed, str))


def one(text: str, header: str = "") -> Seed:
    """The last theorem of a file."""
    return list(seeds(traced(text, header=header)).values())[-1]


def test_a_theorem_is_stated_without_what_is_around_it() -> None:
    seed = one("/-- Said\nso. -/\n@[simp] theorem t (n : Nat) -- a number\n    : n = n ‖:= by\n  rfl -- done")
    assert seed.problem.formal_statement == "theorem t (n : Nat)\n    : n = n"
    assert seed.problem.informal_statement == "Said so."
    assert seed.proof == "by\n  rfl"
    assert seed.problem.id == "p/Some.File:t"
    assert (seed.problem.source, seed.problem.split) == ("p", "train")


def test_headers_have_imports_then_options_then_the_file() -> None:
    file = traced("open Nat\n\ntheorem t : 0 = 0 ‖:= rfl", header="/- Licence -/\nimport A -- for b\nimport C.D")
    header = seeds(file, options=("set_option autoImplicit false",))["t"].problem.header
    assert header == "import A\nimport C.D\nset_option autoImplicit false\nopen Nat"


def test_what_a_theorem_follows_from_later_is_not_there() -> None:
    file = traced("theorem a : 1 = 1 ‖:= rfl\n\ntheorem b : 2 = 2 ‖:= rfl\n\ntheorem c : 3 = 3 ‖:= a ▸ rfl")
    found = seeds(file)
    assert found["a"].problem.header == found["b"].problem.header == ""
    assert found["c"].problem.header == "theorem a : 1 = 1 := rfl"
    assert seeds(file, all_lemmas=True)["c"].problem.header.count("theorem") == 2


@pytest.mark.parametrize(
    ("use", "kept"),
    [
        ("theorem t : 0 = 0 ‖:= by simp [a]", True),
        ("theorem t : 0 = 0 ‖:= h.a", True),
        ("theorem t : 0 = 0 ‖:= N.a.symm", True),
        ("theorem t : 0 = 0 ‖:= (b : 0 = 0)", True),
        ("theorem t : 0 = 0 ‖:= rfl -- by a", False),
        ('theorem t : "a" = "a" ‖:= rfl', False),
        ("attribute [local simp] a in\ntheorem t : 0 = 0 ‖:= by simp", True),
    ],
)
def test_lemmas_stay_where_a_name_may_mean_them(use: str, kept: bool) -> None:
    text = f"theorem N.a : 1 = 1 ‖:= rfl\n\ntheorem b : 2 = 2 ‖:= a ▸ rfl\n\n{use}"
    assert ("theorem N.a" in one(text).problem.header) is kept


def test_lemmas_with_attributes_and_all_that_is_no_theorem_stay() -> None:
    text = (
        "@[simp] theorem a : 1 = 1 ‖:= rfl\n\ndef d := 1\n\ntheorem n : 1 = 1 ‖:= rfl\n\nattribute [grind] n\n\n"
        "instance : Inhabited Nat := ⟨d⟩\n\nexample : 0 = 0 := rfl\n\n#eval d\n\n/-! Doc -/\n\n"
        "theorem t : 0 = 0 ‖:= rfl"
    )
    assert one(text).problem.header.split("\n") == [
        "@[simp] theorem a : 1 = 1 := rfl",
        "def d := 1",
        "theorem n : 1 = 1 := rfl",
        "attribute [grind] n",
        "instance : Inhabited Nat := ⟨d⟩",
    ]


def test_closed_sections_that_declare_nothing_go() -> None:
    text = (
        "section A\n\nvariable (n : Nat)\n\nsection\n\nopen Nat\n\nend\n\nend A\n\nsection B\n\ndef d := 1\n\nend B\n\n"
        "namespace N\n\nvariable (m : Nat)\n\nend N\n\nsection C\n\nvariable (k : Nat)\n\ntheorem t : k = k ‖:= rfl"
    )
    assert one(text).problem.header.split("\n") == [
        "section B",
        "def d := 1",
        "end B",
        "namespace N",
        "variable (m : Nat)",
        "end N",
        "section C",
        "variable (k : Nat)",
    ]


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        ("", "t"),
        ("namespace A\n\nnamespace B.C\n\n", "A.B.C.t"),
        ("namespace A.B\n\nend B\n\n", "A.t"),
        ("namespace A\n\nnamespace B\n\nend A.B\n\n", "t"),
        ("namespace A\n\nsection\n\nend\n\n", "A.t"),
        ("namespace A\n\nnoncomputable section X\n\n", "A.t"),
        ("namespace A\n\nsection X.Y\n\nend X.Y\n\n", "A.t"),
        ("namespace «a.b»\n\n", "«a.b».t"),
    ],
)
def test_full_names_follow_the_namespaces(scopes: str, name: str) -> None:
    file = traced(f"{scopes}theorem t : 0 = 0 ‖:= rfl")
    assert list(seeds(file)) == [name]


def test_names_from_the_root() -> None:
    assert list(seeds(traced("namespace A\n\ntheorem _root_.B.t : 0 = 0 ‖:= rfl"))) == ["B.t"]


def test_commands_before_in_are_commands_of_the_header() -> None:
    seed = one("open Nat in\nset_option maxHeartbeats 400000 in\n/-- Doc -/\ntheorem t : 0 = 0 ‖:= rfl")
    assert seed.problem.header == "open Nat\nset_option maxHeartbeats 400000"
    assert seed.problem.formal_statement == "theorem t : 0 = 0"


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("private theorem t : 0 = 0 ‖:= rfl", "theorem t : 0 = 0"),
        ("lemma t : 0 = 0 ‖:= rfl", "theorem t : 0 = 0"),
        ("protected theorem N.t : 0 = 0 ‖:= rfl", "theorem N.t : 0 = 0"),
        ("protected theorem N.t : 0 = 0 ‖:= t", "protected theorem N.t : 0 = 0"),
        ("nonrec theorem N.t : 0 = 0 ‖:= h.t", "nonrec theorem N.t : 0 = 0"),
        ("theorem t.{u} (α : Sort u) : α = α ‖:= rfl", "theorem t.{u} (α : Sort u) : α = α"),
        ("theorem t : (fun x => x = 1 ∧ let y := x; y = y) 1 ‖:= ⟨rfl, rfl⟩", None),
    ],
)
def test_modifiers_stay_where_they_decide_what_a_name_means(text: str, statement: str | None) -> None:
    assert one(text).problem.formal_statement == (statement or "theorem t : (fun x => x = 1 ∧ let y := x; y = y) 1")


def test_a_theorem_and_those_that_say_the_same_are_forbidden() -> None:
    first = traced("namespace A\n\ntheorem t (n : Nat) : n  = n ‖:= rfl\n\ntheorem u : 0 = 0 ‖:= t 0", "A.lean")
    second = traced("theorem s (n : Nat) : /- so -/ n = n ‖:= A.t n\n\ntheorem v : 1 = 1 ‖:= rfl", "B.lean")
    found = seeds(first, second)
    assert found["A.t"].problem.forbidden_constants == ("A.t", "A.t.*", "s", "s.*")
    assert found["A.u"].problem.forbidden_constants == ("A.u", "A.u.*")
    assert (found["s"].proof, found["s"].reason) == (None, "twin")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("‖| 0 => rfl\n  | n + 1 => rfl", "equations"),
        ("‖where\n  left := rfl", "structure"),
        ("‖:= by sorry", "sorry"),
        ("‖:= by\n  have : 0 = 0 := by admit\n  rfl", "sorry"),
        ("‖:= f 0 †where f (n : Nat) : 0 = 0 := rfl", "term with a tail"),
    ],
)
def test_proofs_that_cannot_stand_behind_the_statement(value: str, reason: str) -> None:
    seed = one(f"theorem t : 0 = 0 {value}")
    assert (seed.proof, seed.reason) == (None, reason)


def test_tactic_proofs_keep_what_comes_after_them() -> None:
    seed = one("theorem t : 0 = 0 ‖:= by\n  exact f 0\n†where\n  f (n : Nat) : 0 = 0 := rfl")
    assert seed.proof == "by\n  exact f 0\nwhere\n  f (n : Nat) : 0 = 0 := rfl"


def test_a_sorry_in_a_comment_or_a_name_is_none() -> None:
    assert one("theorem t : 0 = 0 ‖:= by\n  -- no sorry\n  exact sorry_free").proof == "by\n  exact sorry_free"


@pytest.mark.parametrize(
    ("header", "text", "reason"),
    [
        ("prelude", "theorem t : 0 = 0 ‖:= rfl", "prelude"),
        ("module\n\npublic import A", "theorem t : 0 = 0 ‖:= rfl", "module system"),
        ("", "mutual\ntheorem t : 0 = 0 ‖:= rfl\nend", "mutual"),
        ("", "run_meta\ntheorem t : 0 = 0 ‖:= rfl", "within another command"),
    ],
)
def test_what_becomes_no_problem(header: str, text: str, reason: str) -> None:
    file = traced(text, header=header)
    if not file.theorems:  # within another command
        theorem = TracedTheorem(command=0, name="t", keyword=0, signature=0, value=0, end=1)
        file = TracedFile(file.path, file.text, file.header_end, file.commands, (theorem,))
    assert reasons(file) == {reason: 1}


def test_an_unreadable_trace_counts_once() -> None:
    assert reasons(TracedFile(path="A.lean", error="AssertionError")) == {"unreadable trace": 1}


def test_a_text_that_is_not_that_of_the_trace_gives_no_proof() -> None:
    file = traced("theorem t : 0 = 0 ‖:= rfl")
    theorem = file.theorems[0]
    moved = TracedTheorem(0, "t", theorem.keyword, theorem.signature, theorem.value - 2, theorem.end)
    changed = TracedFile(file.path, file.text, 0, file.commands, (moved,))
    assert [(s.proof, s.reason) for s in seeds(changed).values()] == [(None, "unreadable trace")]


def test_tactics_come_with_their_goals() -> None:
    file = traced("theorem t : 0 = 0 ‖:= by\n  simp [a]\n  sorry")
    steps = (TracedTactic("simp [a]", "⊢ 0 = 0", "⊢ True", ("N.a",)), TracedTactic("sorry", "⊢ True", "no goals"))
    theorem = file.theorems[0]
    with_steps = TracedTheorem(0, "t", theorem.keyword, theorem.signature, theorem.value, theorem.end, tactics=steps)
    (seed,) = seeds(TracedFile(file.path, file.text, 0, file.commands, (with_steps,))).values()
    (step,) = seed.tactics
    assert (step.id, step.problem_id) == ("p/Some.File:t/0", "p/Some.File:t")
    assert (step.state_before, step.tactic, step.state_after, step.premises) == (
        "⊢ 0 = 0",
        "simp [a]",
        "⊢ True",
        ("N.a",),
    )


@pytest.mark.parametrize(
    ("text", "column", "moved"),
    [
        (" by simp", 20, "by simp"),
        (" by\n  simp", 20, "by\n  simp"),
        ("\n  f a", 20, "\n  f a"),
        (" by simp\n            rfl", 8, "by\n  simp\n  rfl"),
        (
            " by cases h with\n   | inl h => f\n   | inr h => g",
            3,
            "by\n      cases h with\n  | inl h => f\n  | inr h => g",
        ),
        (" fun x =>\n    f x", 20, "\n                   fun x =>\n  f x"),
        (' by f "a\nb"\n       g', 3, 'by\n       f "a\nb"\n       g'),
    ],
)
def test_proofs_keep_the_order_of_their_columns(text: str, column: int, moved: str) -> None:
    assert shifted_proof(text, column) == moved


def test_comments_go_and_tokens_stay_in_their_columns() -> None:
    assert without_comments("a /- b\nc -/ d -- e\n\n  -- f\n  g") == "a\n     d\n  g"
    assert without_comments('f "-- no\n\n comment" -- one') == 'f "-- no\n\n comment"'
    assert mentioned('A.b.c «d.e» "f" -- g') == {"A", "b", "c", "«d.e»"}


def test_theorems_of_a_syntax_that_lean_dojo_does_not_know_are_counted() -> None:
    file = traced("theorem t : 0 = 0 ‖:= rfl\n\nunfamiliar\n\nunfamiliar")
    assert reasons(file) == {"unfamiliar syntax": 2}
    assert list(seeds(file)) == ["t"]
