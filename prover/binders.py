"""Binders and conclusion of a formal statement, read from its text.

Pure text and tolerant: prompts, tactic templates and the grammar use it to name variables; nothing that decides
soundness does. What it cannot read it leaves out.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from lean_env.source import Token, tokens

Kind = Literal["explicit", "implicit", "strict", "instance"]

_OPEN = {"(": ")", "{": "}", "[": "]", "⦃": "⦄", "⟨": "⟩"}
_CLOSE = frozenset(_OPEN.values())
_KIND: dict[str, Kind] = {"(": "explicit", "{": "implicit", "⦃": "strict", "[": "instance"}
_RELATIONS = frozenset("= < > ≤ ≥ ≠ ∈ ∉ ∧ ∨ ∣ ↔ ∀ ∃ ¬ ⊆ ⊂ ≈ ~".split())
_DATA_TYPES = frozenset(
    "Nat Int Rat Bool Char String Ordering Fin BitVec List Array Vector Option Except Prod Sum Subarray ByteArray"
    " UInt8 UInt16 UInt32 UInt64 USize Int8 Int16 Int32 Int64 ISize ℕ ℤ ℚ ℝ ℂ".split()
)
_HYPOTHESIS = re.compile(r"h[A-Z\d₀-₉_]?[\w']*")


class Binder(NamedTuple):
    """One binder group: ``(a b : Nat)`` has two names. An anonymous instance has none."""

    names: tuple[str, ...]
    type: tuple[Token, ...]
    kind: Kind


class Statement(NamedTuple):
    name: str
    binders: tuple[Binder, ...]
    conclusion: str


def parse_statement(formal_statement: str) -> Statement | None:
    """Name, binders before the colon and conclusion; None where the text is no theorem or its brackets do not match."""
    code = [t for t in tokens(formal_statement) if t.kind not in ("comment", "doc")]
    at = next((i for i, t in enumerate(code) if t.kind == "ident" and t.text in ("theorem", "lemma")), None)
    if at is None:
        return None
    rest = [t for t in code[at + 1 :] if t.kind != "space"]
    if not rest or rest[0].kind != "ident":
        return None
    name, rest = rest[0].text, rest[1:]
    if [t.text for t in rest[:2]] == [".", "{"]:
        end = _group_end(rest[1:])
        if end is None:
            return None
        rest = rest[1 + end :]
    binders: list[Binder] = []
    while rest and rest[0].text != ":":
        if rest[0].text in _KIND:
            end = _group_end(rest)
            if end is None:
                return None
            binders.append(_binder(rest[1 : end - 1], _KIND[rest[0].text]))
            rest = rest[end:]
        elif rest[0].kind == "ident":
            binders.append(Binder((rest[0].text,), (), "explicit"))
            rest = rest[1:]
        else:
            return None
    if not rest:
        return None
    start = rest[0].start + 1
    return Statement(name, tuple(binders), "".join(t.text for t in code if t.start >= start).strip())


def data_variables(statement: Statement) -> tuple[str, ...]:
    """Names of variables of a concrete data type (numbers, lists, options...), in order, but sizes last: what another
    variable's type depends on (``n`` beside ``xs : Vector α n``) is seldom what a proof splits."""
    data = [b for b in statement.binders if b.kind != "instance" and _is_data(b.type)]
    sizes = {token.text for b in data for token in b.type if token.kind == "ident"}
    names = [name for b in data for name in b.names if name != "_"]
    return tuple(sorted(names, key=lambda name: name in sizes))


def hypotheses(statement: Statement) -> tuple[str, ...]:
    """Names of binders that look like assumptions: a relation or connective, or a name such as ``h₁``, in order."""
    return tuple(n for b in statement.binders for n in b.names if n != "_" and _assumes(b, n))


def _assumes(binder: Binder, name: str) -> bool:
    if binder.kind == "instance" or not binder.type or _is_data(binder.type):
        return False
    shallow = _shallow(binder.type)
    return not _RELATIONS.isdisjoint(shallow) or _HYPOTHESIS.fullmatch(name) is not None


def _group_end(code: Sequence[Token]) -> int | None:
    """Index after the bracket that closes the one at the start of ``code``."""
    waiting: list[str] = []
    for at, token in enumerate(code):
        if token.kind != "symbol":
            continue
        if token.text in _OPEN:
            waiting.append(_OPEN[token.text])
        elif token.text in _CLOSE:
            if not waiting or waiting.pop() != token.text:
                return None
            if not waiting:
                return at + 1
    return None


def _binder(inside: list[Token], kind: Kind) -> Binder:
    depth = 0
    colon = len(inside)
    end = len(inside)
    for at, token in enumerate(inside):
        if token.kind == "symbol":
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
            if token.text == ":" and depth == 0:
                if colon == len(inside):
                    colon = at
                elif inside[at + 1 : at + 2] and inside[at + 1].text == "=":
                    end = at  # a default value follows
                    break
    if colon == len(inside) and kind == "instance":
        return Binder((), tuple(inside), kind)
    names = tuple(t.text for t in inside[:colon] if t.kind == "ident" or t.text == "_")
    return Binder(names, tuple(inside[colon + 1 : end]), kind)


def _shallow(typ: Sequence[Token]) -> list[str]:
    """Texts of the tokens that stand outside brackets."""
    out: list[str] = []
    depth = 0
    for token in typ:
        depth += token.kind == "symbol" and token.text in _OPEN
        if depth == 0:
            out.append(token.text)
        depth -= token.kind == "symbol" and token.text in _CLOSE
    return out


def _is_data(typ: Sequence[Token]) -> bool:
    shallow = _shallow(typ)
    if not shallow or not _RELATIONS.isdisjoint(shallow) or "→" in shallow:
        return bool(typ) and not shallow and len(typ) > 2 and _is_data(typ[1:-1])
    return shallow[0] in _DATA_TYPES or "×" in shallow or "⊕" in shallow
