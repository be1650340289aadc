"""A small Lake project and its trace, made by hand in the form that LeanDojo 4.20.0 writes and reads.

Tracing needs a native Lean; this stands in for what it leaves behind. Syntax trees are written down as nested
:class:`Node`; where each leaf stands is found in the source. Types and terms are single leaves here, which Lean would
take apart; LeanDojo looks into neither. Goals and premises are what Lean says of these proofs, shortened where long.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Id(NamedTuple):
    """An identifier; ``name`` is the constant that it was resolved to, if any."""

    text: str
    name: str | None = None


class Node(NamedTuple):
    kind: str
    args: tuple["Node | Id | str", ...]
    goals: tuple[str, str] | None = None
    """Of a tactic: what Lean prints before and after it."""


Leaf = Node | Id | str


def node(kind: str, *args: Leaf) -> Node:
    return Node(kind, args)


def null(*args: Leaf) -> Node:
    return Node("null", args)


def command(kind: str, *args: Leaf) -> Node:
    return node(f"Lean.Parser.Command.{kind}", *args)


def scope(word: str, *name: str) -> Node:
    """``namespace A``, ``section``, ``end A``."""
    if word == "namespace":
        return command(word, word, Id(name[0]))
    return command(word, word, null(*(Id(n) for n in name)))


def tactic(before: str, after: str, *args: Leaf) -> Node:
    return Node("Lean.Parser.Tactic.some", args, (before, after))


def by(*tactics: Node) -> Node:
    steps: list[Leaf] = []
    for step in tactics:
        steps += [null(), step] if steps else [step]
    indented = node("Lean.Parser.Tactic.tacticSeq1Indented", null(*steps))
    return node("Lean.Parser.Term.byTactic", "by", node("Lean.Parser.Tactic.tacticSeq", indented))


def simple(term: Leaf, *tail: Leaf) -> Node:
    suffix = node("Lean.Parser.Termination.suffix", null(*tail), null())
    return command("declValSimple", ":=", term, suffix, null())


def theorem(name: str, signature: str, value: Node, *modifiers: Node) -> Node:
    return command(
        "declaration",
        command("declModifiers", *(null(m) for m in modifiers)),
        command("theorem", "theorem", command("declId", Id(name), null()), command("declSig", signature), value),
    )


def lemma(name: str, signature: str, value: Node, *modifiers: Node) -> Node:
    """As Mathlib's macro has it."""
    parts = ("lemma", command("declId", Id(name), null()), command("declSig", signature), value)
    return node("lemma", command("declModifiers", *(null(m) for m in modifiers)), node("group", *parts))


def definition(name: str, signature: str, value: str, *modifiers: Node) -> Node:
    body = command("declValSimple", ":=", value)
    return command(
        "declaration",
        command("declModifiers", *(null(m) for m in modifiers)),
        command("definition", "def", command("declId", Id(name), null()), command("optDeclSig", signature), body),
    )


def doc(text: str) -> Node:
    return command("docComment", "/--", text)


def header(*imports: str) -> Node:
    return node("Lean.Parser.Module.header", null(), null(*(_import(name) for name in imports)))


def _import(name: str) -> Node:
    return node("Lean.Parser.Module.import", "import", null(), null(), Id(name), null())


class _Writer:
    """Turns a tree into LeanDojo's JSON, finding each leaf in the source."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.leaves: list[dict[str, Any]] = []
        self.tactics: list[dict[str, Any]] = []
        self.premises: list[dict[str, Any]] = []

    def syntax(self, leaf: Leaf) -> dict[str, Any]:
        if isinstance(leaf, Node):
            first = len(self.leaves)
            args = [self.syntax(arg) for arg in leaf.args]
            if leaf.goals is not None:
                start, end = self.leaves[first]["pos"], self.leaves[-1]["endPos"]
                before, after = leaf.goals
                self.tactics.append({"stateBefore": before, "stateAfter": after, "pos": start, "endPos": end})
            return {"node": {"info": "none", "kind": leaf.kind, "args": args}}
        text = leaf if isinstance(leaf, str) else leaf.text
        info = self._info(text)
        if isinstance(leaf, str):
            return {"atom": {"info": {"original": info}, "val": leaf}}
        if leaf.name is not None:
            self.premises.append(self._premise(leaf.name, text))
        return {"ident": {"info": {"original": info}, "rawVal": text, "val": text, "preresolved": []}}

    def _info(self, text: str) -> dict[str, Any]:
        start = self.source.find(text, self.at)
        between = self.source[self.at : start]
        assert start >= 0 and all(not line.strip() or "--" in line for line in between.split("\n")), (text, between)
        if self.leaves:
            self.leaves[-1]["trailing"] = between
        self.at = start + len(text)
        info = {"leading": "" if self.leaves else between, "trailing": ""}
        info |= {"pos": _bytes(self.source[:start]), "endPos": _bytes(self.source[: self.at])}
        self.leaves.append(info)
        return info

    def _premise(self, name: str, text: str) -> dict[str, Any]:
        start = self.at - len(text)
        line, column = self.source.count("\n", 0, start) + 1, start - self.source.rfind("\n", 0, start) - 1
        return {
            "fullName": name,
            "modName": "Small.Basic",
            "defPath": "Small/Basic.lean",
            "defPos": {"line": 1, "column": 0},
            "defEndPos": {"line": 1, "column": 1},
            "pos": {"line": line, "column": column},
            "endPos": {"line": line, "column": column + len(text)},
        }


def _bytes(text: str) -> int:
    return len(text.encode())


def write_trace(root: Path, path: str, source: str, trees: list[Node], imports: tuple[str, ...] = ()) -> None:
    """The Lean file and beside its build what ``ExtractData.lean`` writes of it."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source, encoding="utf-8")
    writer = _Writer(source)
    asts = [writer.syntax(tree) for tree in trees]
    rest = source[writer.at :]
    assert not rest.strip(), f"{path}: no tree for {rest!r}"
    traced = root / ".lake/build/ir" / path
    traced.parent.mkdir(parents=True, exist_ok=True)
    data = {"commandASTs": asts, "tactics": writer.tactics, "premises": writer.premises}
    traced.with_suffix(".ast.json").write_text(json.dumps(data), encoding="utf-8")
    traced.with_suffix(".dep_paths").write_text("".join(f"{name}\n" for name in imports))


BASIC = """\
/-! Shapes of theorems. -/

namespace Small

variable {α : Type} (xs ys : List α)

/-- Twice a number. -/
def double (n : Nat) : Nat := n + n

theorem double_eq (n : Nat) : double n = 2 * n := by
  unfold double -- the definition
  omega

@[simp] theorem double_zero : double 0 = 0 := rfl

example : double 1 = 2 := rfl

/-- Doubling keeps
the order. -/
protected theorem double_le {m n : Nat} (h : m ≤ n) : double m ≤ double n := by
  rw [double_eq, double_eq]
  omega

section
variable (unused : Nat)
end

private theorem length_twice : (xs ++ xs).length = double xs.length := by simp [double]

theorem twice (h : xs = ys) : (xs ++ ys).length = double ys.length := by subst h
                                                                         -- the columns are meant
                                                                         exact length_twice xs

#eval double 2

open Nat in
theorem pos_double (n : Nat) (h : 0 < n) : 0 < double n := Nat.lt_of_lt_of_le h (le_add_right n n)

theorem by_cases_on : ∀ n : Nat, double n = n + n
  | 0 => rfl
  | _ + 1 => rfl

theorem grows (n : Nat) : n < double n + 1 := by sorry

theorem double_eq_again (n : Nat) : double n = 2 * n :=
  double_eq n

end Small

theorem _root_.Twice.zero : Small.double 0 = 0 := by
  simp
"""

MORE = """\
import Small.Basic

open Small

noncomputable section New

lemma le_double (n : Nat) : n ≤ double n := by
  have := double_eq n
  omega

end New

mutual
theorem even (n : Nat) : n = n := rfl
theorem odd (n : Nat) : n = n := rfl
end
"""

BROKEN = """\
namespace A end A
"""


def basic_trees() -> list[Node]:
    goal = "n : Nat\n⊢ double n = 2 * n"
    le = "m n : Nat\nh : m ≤ n\n⊢ double m ≤ double n"
    le_after = "m n : Nat\nh : m ≤ n\n⊢ 2 * m ≤ 2 * n"
    lists = "α : Type\nxs ys : List α\nh : xs = ys\n⊢ (xs ++ ys).length = double ys.length"
    same = "α : Type\nxs : List α\n⊢ (xs ++ xs).length = double xs.length"
    eq = Id("double_eq", "Small.double_eq")
    rewrite = tactic(le, le_after, "rw", "[", eq, ",", eq, "]")
    attribute = node("Lean.Parser.Term.attributes", "@[", Id("simp"), "]")
    case = node("Lean.Parser.Term.matchAlt", "|", "0", "=>", "rfl")
    other = node("Lean.Parser.Term.matchAlt", "|", "_ + 1", "=>", "rfl")
    cases = command("declValEqns", node("Lean.Parser.Term.matchAlts", null(case, other)))
    example = node("Lean.Parser.Command.example", "example", command("optDeclSig", ": double 1 = 2"), simple("rfl"))
    opened = command("open", "open", command("openSimple", null(Id("Nat"))))
    positive = theorem(
        "pos_double",
        "(n : Nat) (h : 0 < n) : 0 < double n",
        simple(node("app", Id("Nat.lt_of_lt_of_le"), "h (le_add_right n n)")),
    )
    simp = tactic(same, "no goals", "simp", "[", Id("double", "Small.double"), "]")
    first = tactic(goal, "n : Nat\n⊢ n + n = 2 * n", "unfold", Id("double", "Small.double"))
    return [
        header(),
        command("moduleDoc", "/-!", "Shapes of theorems. -/"),
        scope("namespace", "Small"),
        command("variable", "variable", null("{α : Type}", "(xs ys : List α)")),
        definition("double", "(n : Nat) : Nat", "n + n", doc("Twice a number. -/")),
        theorem(
            "double_eq",
            "(n : Nat) : double n = 2 * n",
            simple(by(first, tactic("n : Nat\n⊢ n + n = 2 * n", "no goals", "omega"))),
        ),
        theorem("double_zero", ": double 0 = 0", simple("rfl"), attribute),
        command("declaration", command("declModifiers"), example),
        theorem(
            "double_le",
            "{m n : Nat} (h : m ≤ n) : double m ≤ double n",
            simple(by(rewrite, tactic(le_after, "no goals", "omega"))),
            doc("Doubling keeps\nthe order. -/"),
            command("protected", "protected"),
        ),
        scope("section"),
        command("variable", "variable", null("(unused : Nat)")),
        scope("end"),
        theorem(
            "length_twice",
            ": (xs ++ xs).length = double xs.length",
            simple(by(simp)),
            command("private", "private"),
        ),
        theorem(
            "twice",
            "(h : xs = ys) : (xs ++ ys).length = double ys.length",
            simple(
                by(
                    tactic(lists, same, "subst", Id("h")),
                    tactic(same, "no goals", "exact", Id("length_twice", "Small.length_twice"), "xs"),
                )
            ),
        ),
        command("eval", "#eval", "double 2"),
        command("in", opened, "in", positive),
        theorem("by_cases_on", ": ∀ n : Nat, double n = n + n", cases),
        theorem(
            "grows",
            "(n : Nat) : n < double n + 1",
            simple(by(tactic("n : Nat\n⊢ n < double n + 1", "no goals", "sorry"))),
        ),
        theorem("double_eq_again", "(n : Nat) : double n = 2 * n", simple(node("app", eq, "n"))),
        scope("end", "Small"),
        theorem(
            "_root_.Twice.zero", ": Small.double 0 = 0", simple(by(tactic("⊢ Small.double 0 = 0", "no goals", "simp")))
        ),
    ]


def more_trees() -> list[Node]:
    have = tactic(
        "n : Nat\n⊢ n ≤ double n", "n : Nat\nthis : double n = 2 * n\n⊢ n ≤ double n", "have :=", "double_eq n"
    )
    omega = tactic("n : Nat\nthis : double n = 2 * n\n⊢ n ≤ double n", "no goals", "omega")
    # As Lean 4.28 has it; LeanDojo knows `section` without a node before it.
    section = command("section", command("sectionHeader", null("noncomputable")), "section", null(Id("New")))
    pair = [theorem(name, "(n : Nat) : n = n", simple("rfl")) for name in ("even", "odd")]
    return [
        header("Small.Basic"),
        command("open", "open", command("openSimple", null(Id("Small")))),
        section,
        lemma("le_double", "(n : Nat) : n ≤ double n", simple(by(have, omega))),
        scope("end", "New"),
        command("mutual", "mutual", null(*pair), "end"),
    ]


def write_project(root: Path) -> Path:
    """The project, at a commit, with its trace; one of its files has a trace that LeanDojo cannot read."""
    root.mkdir(parents=True)
    (root / "lean-toolchain").write_text("leanprover/lean4:v4.20.0\n")
    (root / "lakefile.toml").write_text('name = "small"\n\n[leanOptions]\npp.unicode.fun = true\n')
    write_trace(root, "Small/Basic.lean", BASIC, basic_trees())
    write_trace(root, "Small/More.lean", MORE, more_trees(), ("Small/Basic.lean",))
    write_trace(root, "Small/Broken.lean", BROKEN, [header(), command("x", "namespace A end A")])
    (root / ".lake/build/ir/Small/Broken.ast.json").write_text('{"commandASTs": [')
    # A dependency's trace, which is not the project's.
    write_trace(root / ".lake/packages/other", "Other.lean", BROKEN, [header(), command("x", "namespace A end A")])
    (root / ".gitignore").write_text(".lake\n")
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "A project", "--date=2026-01-01"]):
        subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)
    return root


RECORDED = Path(__file__).parent / "integration" / "traced_project.jsonl"
"""What LeanDojo 4.20.0 reads in this trace, so that tests without LeanDojo start from its own words."""


if __name__ == "__main__":  # with lean-dojo installed: python tests/traced_project.py
    import tempfile

    from prover.projects.traces import find_traces, reading

    with tempfile.TemporaryDirectory() as scratch:
        project = write_project(Path(scratch, "small"))
        with reading(project, find_traces(project)) as files:
            RECORDED.write_bytes(b"".join(msgspec.json.encode(file) + b"\n" for file in files))
