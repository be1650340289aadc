"""Closures as real Lean writes them, read by a reader that knows nothing but the format's description."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from lean_env import closure
from lean_env.certify import CertifyRequest
from lean_env.closure import Closure, NoOpinion, Refused, write_closure
from lean_env.protocol import Limits
from lean_env.source import candidate_text
from lean_env.toolchain import find
from lean_env.worker import Worker, WorkerLost
from tests.lean_export import Export, dotted

LIMITS = Limits(cpu_seconds=60.0, memory_mb=4_000)


class Lean:
    """Two workers: one that exports candidates' proofs, one that certifies and writes closures."""

    def __init__(self, exporting: Worker, certifying: Worker) -> None:
        self.exporting = exporting
        self.certifying = certifying
        self._known: dict[tuple[str, str], tuple[Closure, Export]] = {}

    def export(self, statement: str, text: str, header: str = "") -> CertifyRequest:
        question = {"op": "check", "header": header, "statement": statement, "target": "target", "candidate": text}
        question |= {"forbidden": (), "heartbeats": 400_000, "syntax": True, "export": True}
        reply = self.exporting.ask(question, LIMITS, 33 << 20)
        assert reply["status"] == "proved", (reply["reason"], reply["messages"])
        return CertifyRequest("t", header, statement, "target", (), reply["export"])

    def close(self, request: CertifyRequest) -> tuple[Closure, Export]:
        file = io.BytesIO()
        made = write_closure(self.certifying, request, LIMITS, file)
        assert made.size == file.tell()
        return made, Export(file.getvalue().decode("ascii").splitlines())

    def closed(self, statement: str, text: str, header: str = "") -> tuple[Closure, Export]:
        if (statement, text) not in self._known:
            self._known[statement, text] = self.close(self.export(statement, text, header))
        return self._known[statement, text]


@pytest.fixture(scope="module")
def lean() -> Iterator[Lean]:
    toolchain = find()
    with Worker(toolchain.launch()) as exporting, Worker(toolchain.launch()) as certifying:
        exporting.wait_ready()
        certifying.wait_ready()
        yield Lean(exporting, certifying)


INDUCTIVES = """
inductive Even : Nat → Prop
  | zero : Even 0
  | step (n : Nat) : Odd n → Even (n + 1)
inductive Odd : Nat → Prop
  | step (n : Nat) : Even n → Odd (n + 1)
"""
CASES = {
    "numbers": ("theorem target (n : Nat) : n + 0 = n", "by simp"),
    "omega": ("theorem target (a b c : Nat) (h : a < b) : a + c < b + c + 1", "by omega"),
    "strings": ('theorem target : "a𝔸\\\\ \\"b\\n\\t".length = 8', "by decide"),
    "large numbers": ("theorem target : 123456789012345678901234567890 % 10 = 0", "by decide"),
    "universes": (
        "theorem target.{u, v} (α : Type u) (β : Type v) (x : α × PUnit.{v + 1} × β) : (x.1, x.2.1, x.2.2) = x",
        "rfl",
    ),
    "quotients": (
        "theorem target (α : Type) (r : α → α → Prop) (a b : α) (h : r a b) : Quot.mk r a = Quot.mk r b",
        "Quot.sound h",
    ),
    "classical": ("theorem target (p : Prop) : p ∨ ¬p", "Classical.em p"),
    "mutual types": (
        "theorem target : 4 = 4",
        (
            f"mutual{INDUCTIVES}end\ntheorem four : Even 2 := .step 1 (.step 0 .zero)\n"
            "theorem target : 4 = 4 := by have := four; rfl"
        ),
    ),
    "nested types": (
        "theorem target : 4 = 4",
        (
            "inductive Tree (α : Type) : Type\n  | node : α → List (Tree α) → Option (Tree α × Nat) → Tree α\n"
            "def leaf : Tree Nat := .node 1 [] none\n"
            "theorem target : 4 = 4 := by have : leaf = leaf := rfl; exact rfl"
        ),
    ),
    "structures and lets": (
        "theorem target (n : Nat) : n = n",
        (
            "structure Pair (α : Type) where\n  fst : α\n  snd : Nat := 3\n"
            "def Pair.sum (p : Pair Nat) : Nat := let s := p.fst + p.snd; have t := s; t\n"
            "theorem helper (p : Pair Nat) : p.sum = p.fst + p.snd := rfl\n"
            "theorem target (n : Nat) : n = n := by have := helper { fst := n }; rfl"
        ),
    ),
    "recursion": (
        "theorem target (n : Nat) : 0 < n + 1",
        (
            "def fact : Nat → Nat\n  | 0 => 1\n  | n + 1 => (n + 1) * fact n\n"
            "def half (n : Nat) : Nat := if h : n < 2 then 0 else half (n - 2) + 1\ntermination_by n\n"
            "theorem target (n : Nat) : 0 < n + 1 := by\n  have := fact 3; have := half 4; omega"
        ),
    ),
    "grind": ("theorem target (x y : Int) (h : 2 * x + 4 * y = 5) : False", "by grind"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_closure_is_in_order(lean: Lean, name: str) -> None:
    statement, proof = CASES[name]
    made, export = lean.closed(statement, candidate_text(statement, proof, ""))
    target = export.order[-1]
    assert dotted(target).endswith("target") and export.declared[target]["kind"] == "thm", "the theorem comes last"
    assert made.declarations == sum(d["kind"] not in ("ctor", "rec") for d in export.declared.values()) - sum(
        len(d["all"]) - 1 for d in export.declared.values() if d["kind"] == "type" and d["all"][0] == d["name"]
    )
    assert sorted(made.axioms + made.assumed) == sorted(export.axioms), "whatever is assumed is told"
    assert set(made.axioms) <= {"propext", "Classical.choice", "Quot.sound"}
    assert not {"propext", "Classical.choice", "Quot.sound", "sorryAx"} & set(made.assumed)


def test_what_closures_hold(lean: Lean) -> None:
    def closed(name: str) -> tuple[Closure, Export]:
        statement, proof = CASES[name]
        return lean.closed(statement, candidate_text(statement, proof, ""))

    def kinds(export: Export) -> set[str]:
        return {d["kind"] for d in export.declared.values()}

    assert {"quot", "axiom"} <= kinds(closed("quotients")[1])
    assert closed("quotients")[0].axioms == ("Quot.sound",)
    assert "Classical.em" in closed("classical")[0].assumed, "the library's theorems are not proved in it"
    numbers = closed("numbers")[1]
    assert {("Nat",), ("Nat", "succ"), ("Nat", "rec"), ("HAdd", "hAdd"), ("Eq", "refl")} <= set(numbers.declared)

    strings = closed("strings")[1]
    assert {e[1] for e in strings.exprs if e[0] == "strVal"} >= {'a𝔸\\ "b\n\t'}
    mutual = closed("mutual types")[1]
    own = {dotted(n): d for n, d in mutual.declared.items()}
    odd = next(n for n in own if n.endswith("Odd"))
    even = next(n for n in own if n.endswith("Even"))
    assert own[odd]["all"] == own[even]["all"] and own[f"{even}.rec"]["numMotives"] == 2 == len(own[odd]["all"])
    nested = closed("nested types")[1]
    tree = next(n for n in nested.declared if n[-1] == "Tree")
    assert nested.declared[tree]["numNested"] == 3, "lists, options and pairs of trees"
    assert {(*tree, "rec"), *((*tree, f"rec_{i}") for i in (1, 2, 3))} <= set(nested.declared)


def test_the_statement_is_the_reference_whatever_the_proof(lean: Lean) -> None:
    statement = "theorem target.{u} (α : Type u) (p : α → Prop) (h : ∀ a, p a) (a : α) : p a ∧ 1 = 1"
    plain = "forallE (Sort succ (u0)) (forallE (forallE (bvar 0) (Sort zero)) (forallE (forallE (bvar 1) (app (bvar 1) "
    plain += "(bvar 0))) (forallE (bvar 2) (app (app (const And) (app (bvar 2) (bvar 0))) "
    shown: set[str] = set()
    for proof in ("⟨h a, rfl⟩", "by simp [h]", "by\n  constructor\n  · exact h a\n  · rfl"):
        _, export = lean.closed(statement, candidate_text(statement, proof, ""))
        target = export.declared[export.order[-1]]
        shown.add(export.shown(target["type"], tuple(target["levelParams"])))
    assert len(shown) == 1
    assert shown.pop().startswith(plain.replace("const And", "And")), shown


def test_headers_declare_things_of_their_own(lean: Lean) -> None:
    header = "structure Point where\n  x : Nat\n  y : Nat\ndef Point.swap (p : Point) : Point := ⟨p.y, p.x⟩\n"
    statement = "theorem target (p : Point) : p.swap.swap = p"
    _, export = lean.closed(statement, candidate_text(statement, "rfl", header), header)
    kinds = {name[-2:]: d["kind"] for name, d in export.declared.items()}
    assert kinds["Point", "swap"] == "def" and kinds["Point", "rec"] == "rec"


def test_pages_put_together_are_one_closure(lean: Lean) -> None:
    """A long proof, so that there are several pages; then a short one, so that nothing of it is left."""
    statement = "theorem target (x y : Rat) (h : x < y) : x < (x + y) / 2"
    request = lean.export(statement, candidate_text(statement, "by grind", ""))
    made, export = lean.close(request)
    assert made.size > 1 << 20, "more than a page"
    assert len(export.declared) > made.declarations > 500
    again, _ = lean.close(request)
    assert again == made
    small, _ = lean.closed(*(CASES["numbers"][0], candidate_text(*CASES["numbers"], "")))
    assert small.declarations < 50
    with pytest.raises(NoOpinion, match="longer than 0 MiB"):
        write_closure(lean.certifying, request, LIMITS, io.BytesIO(), size_limit=1000)
    assert lean.close(request)[0] == made, "one that was broken off leaves nothing behind"


def test_what_is_not_proved_has_no_closure(lean: Lean) -> None:
    statement, proof = CASES["omega"]
    request = lean.export(statement, candidate_text(statement, proof, ""))
    other = CertifyRequest("o", "", "theorem target (a b : Nat) : a < b", "target", (), request.export)
    with pytest.raises(Refused, match="statement_changed"):
        write_closure(lean.certifying, other, LIMITS, io.BytesIO())
    cut = CertifyRequest("c", "", statement, "target", (), request.export.rpartition("\n")[0])
    with pytest.raises(Refused, match="export: the export is not whole"):
        write_closure(lean.certifying, cut, LIMITS, io.BytesIO())
    wrong = CertifyRequest("w", "", "theorem target : nonsense", "target", (), request.export)
    with pytest.raises(Refused, match="the statement does not elaborate"):
        write_closure(lean.certifying, wrong, LIMITS, io.BytesIO())
    with pytest.raises(WorkerLost, match="no closure is being written"):
        reply = lean.certifying.ask({"op": "closure.next"}, LIMITS)
        closure._page(reply)  # pyright: ignore[reportPrivateUsage]
    assert "does nothing else" in lean.exporting.ask({"op": "closure.next"}, LIMITS)["error"]


def test_a_string_with_newlines_survives_certification(lean: Lean) -> None:
    """It is escaped and unescaped on the way, by code that once needed constants that the embedded Lean cannot find."""
    statement = 'theorem target : "a\\nb\\\\n".length = 5'
    request = lean.export(statement, candidate_text(statement, "rfl", ""))
    assert "\\n" in request.export and Path(request.target).name == "target"
    assert write_closure(lean.certifying, request, LIMITS, io.BytesIO()).declarations > 0
