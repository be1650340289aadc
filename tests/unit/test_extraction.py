"""Which of the texts in a model's answer goes to Lean: shapes that released provers and general models write."""

import pytest

from prover.extraction import extract_proof

STATEMENT = "theorem target (a b : Nat) (h : a = b) : b = a"
WHOLE = f"{STATEMENT} := by\n  omega"
SKETCH = f"{STATEMENT} := by\n  have : a = b := h\n  sorry"
HELPED = f"lemma helper (a b : Nat) : a + b = b + a := by\n  omega\n\n{WHOLE}"


def block(text: str, language: str = "lean4") -> str:
    return f"```{language}\n{text}\n```"


SHAPES: list[tuple[str, str, str | None]] = [
    ("one block", block(WHOLE), WHOLE),
    ("a plan before it", f"### Plan\n1. Use omega.\n\n### Proof\n{block(WHOLE)}", WHOLE),
    ("words after it", f"{block(WHOLE)}\nThis completes the proof.", WHOLE),
    ("tag lean", block(WHOLE, "lean"), WHOLE),
    ("tag Lean4", block(WHOLE, "Lean4"), WHOLE),
    ("no tag", block(WHOLE, ""), WHOLE),
    ("tag and title", f"```lean4 title=Proof.lean\n{WHOLE}\n```", WHOLE),
    ("tildes", f"~~~lean\n{WHOLE}\n~~~", WHOLE),
    ("four backticks", f"````lean4\n{WHOLE}\n````", WHOLE),
    ("fence after words on its line", f"The proof: ```lean4\n{WHOLE}\n```", WHOLE),
    ("fence closed on the last line", f"```lean4\n{WHOLE}```", WHOLE),
    ("Windows line ends", block(WHOLE).replace("\n", "\r\n"), WHOLE),
    ("a byte order mark", "\ufeff" + block(WHOLE), WHOLE),
    ("indented in a list", "1. Proof:\n   " + block(WHOLE).replace("\n", "\n   "), WHOLE),
    ("imports and header", block(f"import Mathlib\nopen Nat\n\n{WHOLE}"), f"import Mathlib\nopen Nat\n\n{WHOLE}"),
    ("helpers before the target", block(HELPED), HELPED),
    ("the last of several", f"{block(WHOLE.replace('omega', 'simp'))}\nBetter:\n{block(WHOLE)}", WHOLE),
    ("a sketch, then the proof", f"{block(SKETCH)}\nNow in full:\n{block(WHOLE)}", WHOLE),
    ("the proof, then a sketch", f"{block(WHOLE)}\nThe structure was:\n{block(SKETCH)}", WHOLE),
    ("a sketch alone is all there is", block(SKETCH), SKETCH),
    ("sorry in a comment is no sketch", f"{block(WHOLE)}\n{block(f'{WHOLE} -- no sorry')}", f"{WHOLE} -- no sorry"),
    ("the proof, then a lemma it used", f"{block(WHOLE)}\nwith\n{block('theorem Nat.foo : 1 = 1 := rfl')}", WHOLE),
    ("the proof, then a fragment", f"{block(WHOLE)}\nThe key step:\n{block('omega')}", WHOLE),
    ("a block of another language", f"{block('print(1)', 'python')}\n{block(WHOLE)}", WHOLE),
    ("another language alone", block("print(1)", "python"), None),
    ("a query alone", block("#check Nat.add_comm"), None),
    ("another theorem alone", block("theorem other : 1 = 1 := rfl"), None),
    ("the target within its namespace", block(f"namespace N\n{WHOLE}\nend N"), f"namespace N\n{WHOLE}\nend N"),
    ("an empty block", block(""), None),
    ("proof term alone", block("h.symm"), "h.symm"),
    ("by and tactics alone", block("by\n  intro\n  simp"), "by\n  intro\n  simp"),
    ("assignment and by", block(":= by\n  omega"), "by\n  omega"),
    ("tactics without by", block("rw [h]"), "by\n  rw [h]"),
    (
        "several tactics without by",
        block("have : b = a := h.symm\nexact this"),
        "by\n  have : b = a := h.symm\n  exact this",
    ),
    ("a term that holds tactics", block("fun x => by\n  simp"), "fun x => by\n  simp"),
    ("indented tactics", block("  subst h\n  rfl"), "by\n  subst h\n  rfl"),
    ("thinking before", f"<think>maybe {block('bad')}</think>\n{block(WHOLE)}", WHOLE),
    ("thinking opened by the prompt", f"maybe {block('bad')}\n</think>\n\n{block(WHOLE)}", WHOLE),
    ("thinking in other marks", f"◁think▷hm {block('bad')}◁/think▷{block(WHOLE)}", WHOLE),
    ("thinking that never ends", f"<think>Let us try {block(WHOLE)}", None),
    ("thinking, then nothing", f"<think>{block(WHOLE)}</think>\n", None),
    ("unclosed last block", f"```lean4\n{WHOLE}", WHOLE),
    ("no fence", WHOLE, WHOLE),
    ("no fence, words before", f"Here is the proof:\n\n{WHOLE}", WHOLE),
    ("no fence, words after", f"{WHOLE}\n\nThis uses that equality is symmetric.", WHOLE),
    ("no fence, a heading after", f"{WHOLE}\n\n### Explanation\nomega does it.", WHOLE),
    ("no fence, helpers", f"import Mathlib\n\n{HELPED}", f"import Mathlib\n\n{HELPED}"),
    ("no fence, by alone", "by omega", "by omega"),
    ("no fence, by and words", "by omega\n\nIt is linear.", "by omega"),
    ("words alone", "We could use omega here, since everything is linear.", None),
    ("words about a theorem", "By the theorem of Lagrange we are done.", None),
    ("nothing", "", None),
    ("white space", " \n\n", None),
]


@pytest.mark.parametrize(("answer", "proof"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_texts(answer: str, proof: str | None) -> None:
    found = extract_proof(answer, STATEMENT, "text", cut=False)
    assert (None if found is None else found.strip()) == proof


@pytest.mark.parametrize(
    ("answer", "proof"),
    [
        (f"```lean4\n{STATEMENT} := by\n  have : a", None),
        (f"{block(WHOLE)}\nOr else:\n```lean4\n{STATEMENT} := by\n  have", WHOLE),
        (f"{block(SKETCH)}\nIn full:\n```lean4\n{STATEMENT} := by\n  have", SKETCH),
        (f"{block(WHOLE)}\nThis is", WHOLE),
        (f"{STATEMENT} := by\n  have", None),
        ("<think>Let us", None),
    ],
    ids=["in its block", "in a second block", "after a sketch", "after the proof", "no fence", "in thought"],
)
def test_what_a_limit_cut_off_is_no_candidate_but_what_was_whole_before_is(answer: str, proof: str | None) -> None:
    assert (extract_proof(answer, STATEMENT, "text", cut=True) or "").strip() == (proof or "")


@pytest.mark.parametrize(
    ("answer", "cut", "proof"),
    [
        (" omega", False, "by omega"),
        ("\n  omega", False, "by\n  omega"),
        ("\n  cases h\n\n  rfl\n\ntheorem next : True := trivial", True, "by\n  cases h\n\n  rfl"),
        ("\n  omega\n```\nDone.", False, "by\n  omega"),
        ("\n  omega\n  sim", True, None),
        ("\ntheorem next", False, None),
        ("", False, None),
    ],
)
def test_continuations(answer: str, cut: bool, proof: str | None) -> None:
    assert extract_proof(answer, STATEMENT, "continuation", cut=cut) == proof


@pytest.mark.parametrize(
    ("answer", "cut", "proof"),
    [(" h.symm\n", False, "h.symm"), ("by simp [", True, None), ("", False, None), (" \n", False, None)],
)
def test_proofs_alone(answer: str, cut: bool, proof: str | None) -> None:
    assert extract_proof(answer, STATEMENT, "proof", cut=cut) == proof
