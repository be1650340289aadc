"""Lean source as text: names, assembly, refusals, normal form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lean_env.errors import StatementError
from lean_env.protocol import Limits
from lean_env.source import candidate_text, normalise_proof, refusal, states_target, target_name, tokens

PIECES = st.sampled_from(
    ["by", "simp", "omega", "x'", "«a b»", "(", ")", "⟨", "·", "/-", "-/",
     "--", "/-- d -/", "\n", "\n  ", " ", "    ", '"', "'a'", "'", "\\",
     "r#\"", "\"#", "<-", "//", "1.5", "𝓝", "ℕ", ":=", "{", "theorem",
     "foo.bar", "_", ",", "`x", "have h : p := by"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=25).map("".join)


@given(TEXTS)
def test_tokens_cover_the_text(text: str) -> None:
    assert "".join(token.text for token in tokens(text)) == text


def kinds(text: str) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in tokens(text) if token.kind != "space"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a /- b /- c -/ d -/ e", [("ident", "a"), ("comment", "/- b /- c -/ d -/"), ("ident", "e")]),
        ("a -- b /-\nc", [("ident", "a"), ("comment", "-- b /-"), ("ident", "c")]),
        ('"a -- \\" /-" b', [("string", '"a -- \\" /-"'), ("ident", "b")]),
        ('r#"a " -- "# b', [("string", 'r#"a " -- "#'), ("ident", "b")]),
        ("x' y'' 'c' '\"' '\\''", [("ident", "x'"), ("ident", "y''"),
         ("char", "'c'"), ("char", "'\"'"), ("char", "'\\''")]),
        ("«a -- b».c", [("ident", "«a -- b».c")]),
        ("{x //-x = 0}", [("symbol", "{"), ("ident", "x"), ("symbol", "//"), ("symbol", "-"), ("ident", "x"),
                          ("symbol", "="), ("number", "0"), ("symbol", "}")]),
        ("/-- doc -/ f", [("doc", "/-- doc -/"), ("ident", "f")]),
        ("h₁.mp α✝", [("ident", "h₁.mp"), ("ident", "α"), ("symbol", "✝")]),
    ],
)  # fmt: skip
def test_tokens_follow_lean(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text) == expected


def test_unclosed_tokens_are_told_apart() -> None:
    assert [token.closed for token in tokens("a /- b /- -/")] == [True, True, False]
    assert [token.closed for token in tokens('"abc')] == [False]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("theorem foo (n : Nat) : n = n", "foo"),
        ("/-- theorem bar -/\n@[simp] private theorem Foo.bar.{u} : True", "Foo.bar"),
        ("open Nat in\nlemma «odd name» : True", "«odd name»"),
        ("-- theorem no\ntheorem\n  x₁' : True", "x₁'"),
    ],
)
def test_target_name(statement: str, name: str) -> None:
    assert target_name(statement) == name


@pytest.mark.parametrize("statement", ["", "def f : Nat", "-- theorem foo : True", "theorem : True", "example : True"])
def test_target_name_refuses(statement: str) -> None:
    with pytest.raises(StatementError, match="states no theorem"):
        target_name(statement)


STATEMENT = "theorem foo (n : Nat) : n = n"


@pytest.mark.parametrize(
    ("proof", "whole"),
    [
        ("by rfl", False),
        ("fun h => h -- theorem foo : True", False),
        ("by\n  have := \"theorem foo\"\n  rfl\n\ntheorem other : True := trivial", False),
        ("/- the proof -/ theorem foo (n : Nat) : n = n := rfl", True),
        ("open Nat in theorem foo (n : Nat) : n = n := rfl", True),
        ("namespace A\ntheorem other : True := trivial", True),
        ("@[simp] theorem _root_.foo (n : Nat) : n = n := rfl", True),
        ("lemma helper : True := trivial", True),
        ("set_option maxRecDepth 1000 in\nby rfl", False),
    ],
)  # fmt: skip
def test_states_target(proof: str, whole: bool) -> None:
    assert states_target(proof, "foo") is whole


def test_states_target_inside_its_namespace() -> None:
    assert states_target("set_option maxRecDepth 99\nnamespace A\ntheorem b : True := trivial\nend A", "A.b")
    assert not states_target("open A in by exact b", "A.b")


def test_candidate_text_joins_statement_and_proof() -> None:
    assert candidate_text(STATEMENT + " \n", "by\r\n  rfl") == STATEMENT + " := by\n  rfl"
    assert candidate_text(STATEMENT + " -- why", "rfl") == STATEMENT + " -- why\n:= rfl"
    assert candidate_text(STATEMENT + " /- -- why -/", "rfl") == STATEMENT + " /- -- why -/ := rfl"


def test_candidate_text_keeps_a_whole_text_with_its_lines() -> None:
    header = "import Mathlib\n\nopen Nat\nset_option autoImplicit false\n"
    whole = "-- mine\nimport Mathlib\nimport Aesop\n\n" + STATEMENT + " := rfl"
    assert (
        candidate_text(STATEMENT, whole, header)
        == "-- mine\n" + " " * 14 + "\n" + " " * 12 + "\n\n" + STATEMENT + " := rfl"
    )
    repeated = header + "\n" + STATEMENT + " := rfl"
    assert candidate_text(STATEMENT, repeated, header).split("\n") == [" " * 14, "", "", "", "", STATEMENT + " := rfl"]
    other = "open Int\n" + STATEMENT + " := rfl"
    assert candidate_text(STATEMENT, other, header) == other


def test_import_is_blanked_at_the_top_only() -> None:
    whole = STATEMENT + " := rfl\nimport Lean"
    assert candidate_text(STATEMENT, whole) == whole


@pytest.mark.parametrize(
    ("proof", "status", "reason"),
    [
        ("", "no_proof", "text: empty"),
        (" -- nothing\n/- at all -/", "no_proof", "text: empty"),
        ("by " + "x" * 100, "no_proof", "text: 103 bytes, over the limit of 100"),
        ("by\0", "forbidden_syntax", "text: NUL at character 2"),
        ("by \ud800", "forbidden_syntax", "text: lone surrogate at character 3"),
    ],
)
def test_refusal(proof: str, status: str, reason: str) -> None:
    assert refusal(proof, Limits(proof_bytes=100)) == (status, reason)


def test_no_refusal() -> None:
    assert refusal("by simp", Limits()) is None
    assert refusal("ℕ" * 33, Limits(proof_bytes=99)) is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("by   simp  -- done", "by simp"),
        ("\n  by\n\n      intro h -- x\n      -- y\n      intro   h", "by\n  intro h\n  intro  h"),
        ("\n  by\n\n      intro   h -- x\n      -- y\n      intro   h", "by\n  intro h\n  intro h"),
        ("by\n  cases h with\n  | a =>   simp", "by\n  cases h with\n  | a =>   simp"),  # `simp` stays beyond `with`
        ("fun x =>\n    x", "fun x =>\n    x"),
        ("theorem  foo : p :=\n    q", "theorem foo : p :=\n q"),
        ("/- only -/", ""),
        ('by exact f "{  }"', 'by exact f "{  }"'),
        ("by exact f \"a  b\"  x", "by exact f \"a  b\" x"),
    ],
)  # fmt: skip
def test_normal_form(text: str, normal: str) -> None:
    assert normalise_proof(text) == normal


def test_alignment_that_means_something_is_kept() -> None:
    aligned = "by\n  have h : p := by simp\n                   rfl\n  exact h"
    shifted = "by\n  have h : p := by  simp\n                   rfl\n  exact h"
    assert normalise_proof(aligned) == aligned
    assert normalise_proof(aligned) != normalise_proof(shifted)
    assert normalise_proof("by\n  · simp\n    rfl") != normalise_proof("by\n  · simp\n  rfl")
    assert normalise_proof("a - b") != normalise_proof("a -b")


@given(TEXTS)
def test_normal_form_is_stable(text: str) -> None:
    normal = normalise_proof(text)
    assert normalise_proof(normal) == normal


LINES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.lists(st.sampled_from(["simp", "(x)", "·", "h", "| a =>", "exact f"]), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
)


@given(LINES, st.integers(2, 5), st.booleans())
def test_indentation_width_and_comments_do_not_matter(
    lines: list[tuple[int, list[str]]], width: int, comments: bool
) -> None:
    # One word a line: no column inside a line can meet another line's indentation.
    def text(step: int, remark: str) -> str:
        return "by" + "".join(
            f"\n{' ' * step * depth}{words[0].split()[0].strip('(|)')}{remark}" for depth, words in lines
        )

    assert normalise_proof(text(width, " -- why\n\n" if comments else "")) == normalise_proof(text(1, ""))


@given(LINES)
def test_normal_form_keeps_words_and_the_order_of_columns(lines: list[tuple[int, list[str]]]) -> None:
    text = "by" + "".join(f"\n{'  ' * depth}{'  '.join(words)}" for depth, words in lines)

    def places(source: str) -> list[tuple[str, int]]:
        found = [
            (token.text, token.start - source.rfind("\n", 0, token.start))
            for token in tokens(source)
            if token.kind != "space"
        ]
        return found[1:]

    before, after = places(text), places(normalise_proof(text))
    assert [word for word, _ in before] == [word for word, _ in after]
    if lines:
        for (_, a), (_, x) in zip(before, after, strict=True):
            for (_, b), (_, y) in zip(before, after, strict=True):
                assert (a < b) == (x < y) and (a == b) == (x == y)
