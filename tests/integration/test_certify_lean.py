"""Certification holds where the worker that elaborates lies: it calls everything proved and exports what it likes."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lean_env.certify import CertifyRequest, message
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Verdict
from lean_env.toolchain import find
from lean_env.worker import Launch, Worker, WorkerLost

LIMITS = Limits(cpu_seconds=20.0)
FALSE = "theorem target : (1 : Nat) = 2"
UNIVERSES = "theorem target.{u} (α : Sort u) (a : α) : a = a"


class Export:
    """Lines of an export in the making, written by hand; each method returns the number of what it wrote."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, int] = {"": 0}
        self.levels = 0
        self.exprs: dict[str, int] = {}
        self.declarations = 0

    def line(self, text: str) -> None:
        self.lines.append(text)

    def name(self, dotted: str) -> int:
        if dotted not in self.names:
            parent, _, last = dotted.rpartition(".")
            self.line(f"s {self.name(parent)} {last}")
            self.names[dotted] = len(self.names)
        return self.names[dotted]

    def level(self, text: str) -> int:
        self.line(text)
        self.levels += 1
        return self.levels

    def expr(self, text: str) -> int:
        if text not in self.exprs:
            self.line(text)
            self.exprs[text] = len(self.exprs)
        return self.exprs[text]

    def const(self, name: str, *levels: int) -> int:
        return self.expr(" ".join(["c", str(self.name(name)), *map(str, levels)]))

    def app(self, function: int, *arguments: int) -> int:
        for argument in arguments:
            function = self.expr(f"a {function} {argument}")
        return function

    def var(self, index: int) -> int:
        return self.expr(f"b {index}")

    def sort(self, level: int = 0) -> int:
        return self.expr(f"t {level}")

    def pi(self, domain: int, body: int) -> int:
        return self.expr(f"p {domain} {body}")

    def fun(self, domain: int, body: int) -> int:
        return self.expr(f"l {domain} {body}")

    def declare(self, text: str) -> None:
        self.line(text)
        self.declarations += 1

    def theorem(self, name: str, type_: int, value: int, *parameters: int) -> None:
        self.declare(" ".join(["theorem", *map(str, (self.name(name), type_, value, *parameters))]))

    def definition(self, name: str, type_: int, value: int) -> None:
        self.declare(f"definition {self.name(name)} a {type_} {value}")

    def numeral(self, number: int) -> int:
        """Of type ``Nat``, as Lean elaborates it."""
        literal = self.expr(f"N {number}")
        return self.app(
            self.const("OfNat.ofNat", 0), self.const("Nat"), literal, self.app(self.const("instOfNatNat"), literal)
        )

    def equation(self, left: int, right: int) -> int:
        """``left = right`` in ``Nat``."""
        one = self.level("S 0")
        return self.app(self.const("Eq", one), self.const("Nat"), self.numeral(left), self.numeral(right))

    def text(self) -> str:
        counts = (len(self.names) - 1, self.levels, len(self.exprs), self.declarations)
        return "\n".join(["prover-export 1", *self.lines, "end " + " ".join(map(str, counts))])


def export(build: Callable[[Export], None]) -> str:
    made = Export()
    build(made)
    return made.text()


class Lying:
    version = "lying"

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(Path(__file__).with_name("lying_lean.py"))), {})


@pytest.fixture(scope="module")
def liar() -> Iterator[LeanPool]:
    with LeanPool(Lying(), 1, certifier=find()) as pool:
        yield pool


def false(e: Export) -> int:
    return e.equation(1, 2)


def trivial(e: Export) -> int:
    return e.const("True.intro")


def wrong_type(e: Export) -> None:
    e.theorem("target", e.const("True"), trivial(e))


def true_equation(e: Export) -> None:
    """A proof of 1 = 1 under the target's name."""
    e.theorem("target", e.equation(1, 1), e.app(e.const("Eq.refl", e.levels), e.const("Nat"), e.numeral(1)))


def ill_typed_value(e: Export) -> None:
    e.theorem("target", false(e), trivial(e))


def ill_typed_by_refl(e: Export) -> None:
    type_ = false(e)
    e.theorem("target", type_, e.app(e.const("Eq.refl", e.levels), e.const("Nat"), e.numeral(1)))


def missing_dependency(e: Export) -> None:
    e.theorem("target", false(e), e.const("helper"))


def itself(e: Export) -> None:
    e.theorem("target", false(e), e.const("target"))


def dependency_after(e: Export) -> None:
    false_ = e.const("False")
    e.theorem("target", false(e), e.app(e.const("False.elim", 0), false(e), e.const("helper")))
    e.theorem("helper", false_, e.const("target"))


def sorry(e: Export) -> None:
    type_ = false(e)
    e.theorem("target", type_, e.app(e.const("sorryAx", 0), type_, e.const("Bool.true")))


def axiom_line(e: Export) -> None:
    e.declare(f"axiom {e.name('helper')} {e.const('False')}")
    e.theorem("target", false(e), e.app(e.const("False.elim", 0), false(e), e.const("helper")))


def redeclared(name: str) -> Callable[[Export], None]:
    """The library's name with False for a type, under a name that every list of allowed axioms has."""

    def build(e: Export) -> None:
        false_ = e.const("False")
        e.declare(f"opaque {e.name(name)} {false_} {e.const(name)}")
        e.theorem("target", false(e), e.app(e.const("False.elim", 0), false(e), e.const(name)))

    return build


def as_a_theorem(e: Export) -> None:
    e.theorem("propext", e.const("False"), trivial(e))


def private_propext(e: Export) -> None:
    e.declare(f"axiom {e.name('_private.propext')} {e.const('False')}")


def other_name(e: Export) -> None:
    true_equation(e)
    e.lines = [line.replace("target", "target'") for line in e.lines]


def a_definition(e: Export) -> None:
    e.definition("target", e.const("True"), trivial(e))


def twice(e: Export) -> None:
    e.theorem("helper", e.const("True"), trivial(e))
    e.theorem("helper", e.const("True"), trivial(e))
    e.theorem("target", false(e), e.const("helper"))


def not_positive(e: Export) -> None:
    """inductive Bad | mk (f : Bad → False)"""
    bad, one = e.const("Bad"), e.level("S 0")
    make = e.pi(e.pi(bad, e.const("False")), bad)
    e.declare(f"inductive 0 0 {e.name('Bad')} {e.sort(one)} 1 {e.name('Bad.mk')} {make}")


def forged_recursor(e: Export) -> None:
    """A type, and as its recursor something that the kernel did not make."""
    one = e.level("S 0")
    e.declare(f"inductive 0 0 {e.name('T')} {e.sort(one)} 1 {e.name('T.mk')} {e.const('T')}")
    e.declare(f"opaque {e.name('T.rec')} {e.const('False')} {e.const('T.rec')}")


def recursor_before(e: Export) -> None:
    one = e.level("S 0")
    e.definition("T.rec", e.const("True"), trivial(e))
    e.declare(f"inductive 0 0 {e.name('T')} {e.sort(one)} 1 {e.name('T.mk')} {e.const('T')}")


def foreign_constructor(e: Export) -> None:
    """A constructor of the library's False."""
    one = e.level("S 0")
    e.declare(f"inductive 0 0 {e.name('T')} {e.sort(one)} 1 {e.name('False.intro')} {e.const('False')}")


def large_elimination(e: Export) -> None:
    """A proposition with two constructors, whose recursor is used to make data of it."""
    one, prop = e.level("S 0"), e.sort()
    two = e.const("Two")
    e.declare(f"inductive 0 0 {e.name('Two')} {prop} 2 {e.name('Two.a')} {two} {e.name('Two.b')} {two}")
    motive = e.fun(two, e.const("Nat"))
    value = e.app(e.const("Two.rec", one), motive, e.numeral(1), e.numeral(2), e.const("Two.a"))
    e.definition("pick", e.const("Nat"), value)


def flag(word: str) -> Callable[[Export], None]:
    def build(e: Export) -> None:
        e.declare(f"definition {e.name('helper')} a {e.const('True')} {trivial(e)} {word}")

    return build


def cyclic(e: Export) -> None:
    e.line("a 0 0")
    e.theorem("target", 0, 0)


def forward(e: Export) -> None:
    e.line("a 1 2")
    e.exprs["a 1 2"] = 0
    e.theorem("target", false(e), 0)


def open_type(e: Export) -> None:
    e.theorem("target", e.var(0), trivial(e))


def open_value(e: Export) -> None:
    e.theorem("target", false(e), e.var(0))


def unknown_level(e: Export) -> None:
    level = e.level(f"P {e.name('u')}")
    e.definition("helper", e.sort(level), e.const("PUnit", level))


def no_proposition(e: Export) -> None:
    e.theorem("helper", e.const("Nat"), e.numeral(1))


def compiled_code(e: Export) -> None:
    """A value that makes the kernel run code, of a true statement."""
    run = e.app(e.const("Lean.reduceBool"), e.const("Bool.true"))
    e.theorem("target", e.const("True"), e.app(e.fun(e.const("Bool"), trivial(e)), run))


def fields(line: str) -> Callable[[Export], None]:
    """A line that must not be readable, before something that is true."""

    def build(e: Export) -> None:
        e.line(line)
        wrong_type(e)

    return build


def deep(kind: str, number: int) -> Callable[[Export], None]:
    def build(e: Export) -> None:
        if kind == "level":
            at = 0
            for _ in range(number):
                at = e.level(f"S {at}")
            e.definition("helper", e.sort(at), e.const("True"))
        elif kind == "name":
            for place in range(number):
                e.line(f"s {place} a")
                e.names[str(place + 1)] = place + 1
            e.declare(f"theorem {number} {e.const('True')} {trivial(e)}")
        else:
            at = trivial(e)
            for _ in range(number):
                at = e.app(e.const("id", 0), e.const("True"), at) if kind == "app" else e.fun(e.const("True"), at)
            e.theorem("target", false(e), at)

    return build


LIES: dict[str, Callable[[Export], None]] = {
    **{
        build.__name__: build
        for build in (
            wrong_type, true_equation, ill_typed_value, ill_typed_by_refl, missing_dependency, itself, dependency_after,
            sorry, axiom_line, as_a_theorem, private_propext, other_name, a_definition, twice, not_positive,
            forged_recursor, recursor_before, foreign_constructor, large_elimination, cyclic, forward, open_type,
            open_value, unknown_level, no_proposition,
        )
    },
    **{
        f"redeclares {name}": redeclared(name)
        for name in (
            "propext", "Classical.choice", "Quot.sound", "sorryAx", "Nat", "True.intro",
            "ByteArray.utf8Decode?.go._unary.induct_unfolding",
        )
    },
    **{f"marked {word}": flag(word) for word in ("unsafe", "partial", "1 unsafe", "99")},
    **{
        f"line {line[:20]!r}": fields(line)
        for line in (
            "", " ", "a", "a 0", "a 0 0 0", "a -1 0", "x 1", "b 00", "b 1_0", "b +1", "b ٣", "b 0 ", " b 0", "b  0",
            "b 1048575", "b " + "9" * 30, "N " + "9" * 200_000, "N 1e9", "t 1", "c 0", "c 99", "j 1 1048577 0", "T \\x",
            "T \\", "s 9 a", "s 0 a\\", "n 0 -1", "I 0", "M 0 7", "P 0", "quot", "axiom 0 0", "mutual 0",
            "inductive 0 0", "inductive 0 9 1", "definition 1 4294967296 0 0", "definition 1 x 0 0", "theorem",
            "recursor 0 0", "end 0 0 0 0", "prover-export 1",
        )
    },
    **{f"deep {kind}": deep(kind, 100_000) for kind in ("app", "fun", "level", "name")},
}  # fmt: skip

# Digits of 32 bits that are all ones, a high bit alone or zero: where long division and borrows go wrong.
_A = sum(
    digit << (32 * place) for place, digit in enumerate((1, 0, 0xFFFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFF) * 9)
)
_B = sum(digit << (32 * place) for place, digit in enumerate((0xFFFFFFFF, 0, 0x80000000) * 7))
BIG = (
    ("add", _A, _B, _A + _B), ("sub", _A, _B, _A - _B), ("sub", _B, _A, 0), ("mul", _A, _B, _A * _B),
    ("div", _A, _B, _A // _B), ("mod", _A, _B, _A % _B), ("div", _A, 0, 0), ("mod", _A, 0, _A),
    ("gcd", _A * 6, _B * 6, math.gcd(_A * 6, _B * 6)), ("land", _A, _B, _A & _B), ("lor", _A, _B, _A | _B),
    ("xor", _A, _B, _A ^ _B), ("shiftLeft", _A, 97, _A << 97), ("shiftRight", _A, 97, _A >> 97),
    ("shiftRight", _A, 1 << 40, 0), ("pow", _B, 5, _B**5),
)  # fmt: skip

TRUE = export(true_equation)
TEXTS = {
    **{name: export(build) for name, build in LIES.items()},
    **{f"ends after line {n}": "\n".join(TRUE.splitlines()[:n]) for n in range(len(TRUE.splitlines()))},
    "goes on after its end": TRUE + "\n",
    "a second one": TRUE + "\n" + TRUE,
    "another format": TRUE.replace("export 1", "export 2"),
    "wrong count": TRUE[:-1] + "2",
    "Lean": "prover-export 1\ntheorem target : (1 : Nat) = 2 := by native_decide",
    "bytes": "".join(chr(n) for n in range(1, 300)),
    "newlines": "\n" * 1_000_000,
    "one long line": "prover-export 1\n" + "a" * 10_000_000,
    "too long": "prover-export 1\n" + "b 0\n" * (5 << 20),
    "nothing": "",
}


def test_no_lie_is_certified(liar: LeanPool, tmp_path: Path) -> None:
    requests: list[CheckRequest] = []
    for number, (name, text) in enumerate(TEXTS.items()):
        file = tmp_path / str(number)
        file.write_text(text)
        requests.append(CheckRequest(name, "", FALSE, str(file), limits=LIMITS))
    before = liar.stats.disagreements
    results = list(liar.check(requests))
    assert sorted(r.attempt_id for r in results) == sorted(TEXTS)
    for result in results:
        assert isinstance(result, Verdict)
        assert result.status in ("failed", "timeout", "memory"), result
        assert result.reason.startswith("certification: ") and result.level == "", result
    refused = sum(r.status == "failed" for r in results if isinstance(r, Verdict))
    assert refused >= len(TEXTS) - 8  # some of the deepest may take a worker with them
    assert liar.stats.disagreements - before == refused


def told(liar: LeanPool, tmp_path: Path, statement: str, text: str, forbidden: tuple[str, ...] = ()) -> Verdict:
    file = tmp_path / "export"
    file.write_text(text)
    (result,) = liar.check([CheckRequest("one", "", statement, str(file), forbidden, LIMITS)])
    assert isinstance(result, Verdict)
    return result


def test_the_truth_is_certified_whoever_tells_it(liar: LeanPool, tmp_path: Path) -> None:
    verdict = told(liar, tmp_path, "theorem target : (1 : Nat) = 1", TRUE)
    assert (verdict.status, verdict.level, verdict.reason) == ("proved", "certified", "")
    assert verdict.used_constants == ("Eq.refl",)  # as the second worker found, not as the first one said
    assert told(liar, tmp_path, "theorem target : (1 : Nat) = 3", TRUE).reason == (
        "certification: statement_changed: audit: target states something else"
    )


def test_running_code_in_the_kernel_is_not_certified(liar: LeanPool, tmp_path: Path) -> None:
    verdict = told(liar, tmp_path, "theorem target : True", export(compiled_code))
    assert verdict.status == "failed" and "forbidden_axiom: audit: it rests on compiled code" in verdict.reason


def test_a_forbidden_constant_is_not_certified(liar: LeanPool, tmp_path: Path) -> None:
    def build(e: Export) -> None:
        n = e.numeral(1)
        e.theorem(
            "target",
            e.app(e.const("LE.le", 0), e.const("Nat"), e.const("instLENat"), n, n),
            e.app(e.const("Nat.le_refl"), n),
        )

    statement = "theorem target : (1 : Nat) ≤ 1"
    assert told(liar, tmp_path, statement, export(build)).status == "proved"
    verdict = told(liar, tmp_path, statement, export(build), ("Nat.le_refl",))
    assert verdict.reason == "certification: forbidden_constant: audit: it uses Nat.le_refl"


@pytest.mark.parametrize(
    ("declared", "status"), [(("v",), "proved"), ((), "failed"), (("v", "w"), "failed"), (("v", "v"), "failed")]
)
def test_universe_parameters_are_those_of_the_statement(
    liar: LeanPool, tmp_path: Path, declared: tuple[str, ...], status: str
) -> None:
    def build(e: Export) -> None:
        v = e.level(f"P {e.name('v')}")
        alpha = e.sort(v)
        equal = e.app(e.const("Eq", v), e.var(1), e.var(0), e.var(0))
        proof = e.app(e.const("Eq.refl", v), e.var(1), e.var(0))
        parameters = [e.name(p) for p in declared]
        e.theorem("target", e.pi(alpha, e.pi(e.var(0), equal)), e.fun(alpha, e.fun(e.var(0), proof)), *parameters)

    assert told(liar, tmp_path, UNIVERSES, export(build)).status == status


def test_a_worker_that_certifies_does_nothing_else_and_no_other_does() -> None:
    certify = message(CertifyRequest("one", "", "theorem target : (1 : Nat) = 1", "target", (), TRUE))
    check = {"op": "elaborate", "header": "", "statement": "theorem target : True", "target": "target"}
    for first, second in ((certify, check), (check, certify)):
        with Worker(find().launch()) as worker:
            worker.wait_ready()
            assert "error" not in worker.ask(first, LIMITS)
            assert "nothing else" in worker.ask(second, LIMITS)["error"]


def test_a_kernel_that_gets_no_more_memory_dies_at_once() -> None:
    """As built it goes on with null pointers, which WebAssembly lets it read and write."""

    def build(e: Export) -> None:
        big = e.app(e.const("Nat.shiftLeft"), e.expr("N 1"), e.expr(f"N {1 << 20}"))
        nat, one = e.const("Nat"), e.level("S 0")
        log = e.app(e.const("Nat.log2"), big)  # unfolds a million times
        e.theorem("t", e.app(e.const("Eq", one), nat, log, e.expr("N 1")), e.app(e.const("Eq.refl", one), nat, log))

    request = message(CertifyRequest("one", "", "theorem target : True", "target", (), export(build)))
    with Worker(find().launch()) as worker:
        worker.wait_ready()
        with pytest.raises(WorkerLost, match="out of memory"):
            worker.ask(request, Limits(cpu_seconds=60.0, memory_mb=4000))


def test_big_literals_are_computed_rightly(liar: LeanPool, tmp_path: Path) -> None:
    """This build has no GMP: its own numbers, of 32 bits a digit, are checked against Python's."""

    def build(e: Export) -> None:
        for number, (name, left, right, result) in enumerate(BIG):
            nat, one = e.const("Nat"), e.level("S 0")
            value = e.app(e.const(f"Nat.{name}"), e.expr(f"N {left}"), e.expr(f"N {right}"))
            type_ = e.app(e.const("Eq", one), nat, value, e.expr(f"N {result}"))
            e.theorem(f"t{number}", type_, e.app(e.const("Eq.refl", one), nat, value))
        e.theorem("target", e.const("True"), trivial(e))

    verdict = told(liar, tmp_path, "theorem target : True", export(build))
    assert (verdict.status, verdict.reason) == ("proved", "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sort_under_a_hypothesis", "the sort of S.Owner is not written out"),
        ("sort_that_is_zero_in_disguise", "the sort of IP is not written out"),
        ("ill_typed_within_a_nested_type", "the kernel rejects a constructor of E"),
        ("private_constant_of_the_library", "not the candidate's to declare"),
    ],
)
def test_what_this_kernel_and_library_let_pass_is_not_certified(
    liar: LeanPool, tmp_path: Path, name: str, why: str
) -> None:
    """Each export proves 1 = 2 to the kernel of 4.28.0-pre itself, or by a constant that the library keeps private."""
    text = (Path(__file__).parent / "exports" / f"{name}.export").read_text().rstrip("\n")
    verdict = told(liar, tmp_path, "theorem target : (1 : Nat) = 2", text)
    assert verdict.status == "failed" and why in verdict.reason
