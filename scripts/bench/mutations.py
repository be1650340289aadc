"""Small random changes to proofs, statements and exports, for fuzz.py beside it. All chance comes from ``Random``."""

from random import Random

from lean_env.source import tokens

WORDS = (
    "by rfl simp omega decide grind sorry exact fun intro cases have show from at with theorem def instance axiom "
    "opaque private unsafe partial noncomputable Nat Int Bool Prop Type Sort True False Eq.refl Nat.rec id trivial "
    "propext Classical.choice Quot.sound sorryAx Lean.ofReduceBool lcProof native_decide _ ?_ ⟨ ⟩ ( ) { } [ ] := : "
    "= ≠ < ≤ > ≥ + - * / ∧ ∨ ¬ → ↔ ∀ ∃ λ ↦ => | · ; <;> ▸ ∣ @ . .. ! 0 1 2 5 37 18446744073709551616 "
    "u v .{u} Type* ∘ × ← ⊢ target helper"
).split()
COMMANDS = (
    "set_option debug.skipKernelTC true",
    "set_option maxHeartbeats 0",
    "set_option autoImplicit true",
    "set_option maxRecDepth 100",
    "open Nat",
    "open Classical",
    "namespace X",
    "end X",
    "section",
    "end",
    "universe u v",
    "variable (h : False)",
    "variable {n : Nat}",
    "include h",
    "mutual",
    "axiom bad : False",
    "opaque bad : False",
    "theorem bad : False := sorry",
    "theorem target : True := trivial",
    "theorem target.helper : True := trivial",
    "def target._proof_1 := 1",
    "private theorem helper : True := trivial",
    "instance (priority := 10000) (n : Nat) : OfNat Nat n := ⟨0⟩",
    "instance (priority := 10000) : HAdd Nat Nat Nat := ⟨fun _ _ => 0⟩",
    "instance (priority := 10000) : LT Nat := ⟨fun _ _ => True⟩",
    "instance (p : Prop) : Decidable p := .isTrue sorry",
    "@[simp] theorem all (a b : Nat) : a = b := sorry",
    "attribute [simp] Nat.add_comm",
    "attribute [irreducible] Nat.add",
    "attribute [implemented_by Nat.mul] Nat.add",
    'local notation "1" => 2',
    "macro_rules | `($_ = $_) => `(True)",
    "#eval 1",
    "#check Nat",
    "#exit",
    "inductive Nat where | a",
    "structure W (α : Type) where\n  x : α\n  h : False := by sorry",
    "inductive V : Type | mk : V → V",
    "export Nat (add_comm)",
    "deriving instance DecidableEq for Nat",
)
LIKE = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "x": "х", "T": "Т", "N": "Ν", "t": "τ", "→": "⟶", "∧": "^",
        "=": "＝", "≤": "⩽", "∣": "|", "·": ".", "¬": "-", ":": "：", "(": "（", "'": "’",
        "1": "１", "ℕ": "Nat"}  # fmt: skip
STEPS = (
    "have : True := trivial", "skip", "try simp", "try omega", "all_goals try rfl", "have aux : 1 + 1 = 2 := by decide",
    "first | done | skip", "show _", "set_option maxRecDepth 2000 in skip", "try exact absurd rfl (by assumption)",
    "have ⟨a, b⟩ : True ∧ True := ⟨trivial, trivial⟩", "try (exfalso; assumption)", "obtain h | h := Classical.em True",
)  # fmt: skip
CLOSING = ("omega", "simp", "rfl", "decide", "grind", "trivial", "assumption", "simp_all", "exact?", "contradiction")
HARMLESS = (
    "theorem extra (n : Nat) : n = n := rfl", "def extra : Nat := 3", "example : True := trivial", "universe w",
    "inductive Extra | a | b deriving DecidableEq", "structure Extra.{w} (α : Type w) where\n  x : α", "open Nat",
    "set_option maxRecDepth 4000", "variable (k : Nat)", "@[simp] theorem extra : (1 = 1) = True := by simp",
    "namespace Extra\ntheorem a : True := trivial\nend Extra", "theorem extra.{w} (α : Sort w) (a : α) : a = a := rfl",
)  # fmt: skip
SPACES = ("\t", "\u00a0", "\u200b", "\r\n", "\n", "  ", "\n\n", "\u2028", "\ufeff", "\x0c", "\x00")
MARKS = ("/-", "-/", "--", "/--", "/-!", "/- -/", "-- \n", '"', "'", "«", "»", "`", "``", 'r#"', "\\")


def _spans(rng: Random, pieces: list[str]) -> tuple[int, int]:
    start = rng.randrange(len(pieces))
    return start, min(len(pieces), start + rng.choice((1, 1, 1, 2, 3, 8)))


def _tokens(rng: Random, text: str, others: list[str]) -> str:
    """Deletes, doubles, swaps or replaces a run of tokens."""
    pieces = [token.text for token in tokens(text)]
    if not pieces:
        return rng.choice(WORDS)
    start, end = _spans(rng, pieces)
    match rng.randrange(5):
        case 0:
            pieces[start:end] = []
        case 1:
            pieces[start:start] = pieces[start:end]
        case 2:
            other = rng.randrange(len(pieces))
            pieces[start], pieces[other] = pieces[other], pieces[start]
        case 3:
            pieces[start:end] = [" ", rng.choice(WORDS), " "]
        case _:
            far = [token.text for token in tokens(rng.choice(others))] or [" "]
            left, right = _spans(rng, far)
            pieces[start:end] = far[left:right]
    return "".join(pieces)


def _lines(rng: Random, text: str, others: list[str]) -> str:
    """Deletes, doubles, moves or indents a line, or takes one from elsewhere."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
        case 3:
            lines[at] = rng.choice(("  ", "    ", "")) + lines[at].lstrip()
        case 4:
            lines.insert(at, rng.choice(rng.choice(others).split("\n")))
        case _:
            lines = lines[: at + 1]
    return "\n".join(lines)


def _number(rng: Random, text: str, others: list[str]) -> str:
    pieces = [token.text for token in tokens(text)]
    places = [i for i, piece in enumerate(pieces) if piece.isdecimal() and piece.isascii()]
    if not places:
        return _tokens(rng, text, others)
    at = rng.choice(places)
    value = int(pieces[at])
    pieces[at] = str(rng.choice((value + 1, max(0, value - 1), 0, 1, 2, value * 2, 2**64, 10**20)))
    return "".join(pieces)


def _command(rng: Random, text: str, others: list[str]) -> str:
    """Puts a command at the start of a line, mostly the first."""
    lines = text.split("\n")
    lines.insert(0 if rng.random() < 0.6 else rng.randrange(len(lines) + 1), rng.choice(COMMANDS))
    if rng.random() < 0.2:
        lines[0] += " in"
    return "\n".join(lines)


def _insert(rng: Random, text: str, others: list[str]) -> str:
    """White space, or a mark of comments and strings, anywhere."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(rng.choice((SPACES, MARKS))) + text[at:]


def _alike(rng: Random, text: str, others: list[str]) -> str:
    places = [i for i, character in enumerate(text) if character in LIKE]
    if not places:
        return _insert(rng, text, others)
    at = rng.choice(places)
    return text[:at] + LIKE[text[at]] + text[at + 1 :]


def _universe(rng: Random, text: str, others: list[str]) -> str:
    pairs = [("Type u", "Type v"), ("Type", "Prop"), ("Type", "Sort 1"), ("Sort u", "Type u"), ("Type u", "Type"),
             ("Prop", "Type"), ("target", "target.{u}"), (".{u, v}", ".{v, u}"), (".{u}", ""), ("Type", "Type 1"),
             ("Nat", "Int"), ("Nat", "(Fin 3)"), ("(n : Nat)", "{n : Nat}"), ("∀", "∃"), ("∧", "∨"), ("<", "≤"),
             ("=", "≠"), ("+", "-"), ("≤", "<"), ("→", "∧"), ("theorem", "def"), ("theorem", "private theorem"),
             ("target", "target'"), ("target", "_root_.target"), ("target", "X.target")]  # fmt: skip
    found = [pair for pair in pairs if pair[0] in text]
    if not found:
        return _tokens(rng, text, others)
    old, new = rng.choice(found)
    parts = text.split(old)
    at = rng.randrange(1, len(parts))
    return old.join(parts[:at]) + new + old.join(parts[at:])


def _splice(rng: Random, text: str, others: list[str]) -> str:
    """The start of this text with the end of another, or the other whole before it."""
    other = rng.choice(others)
    if rng.random() < 0.4:
        return other + "\n" + text
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def _mild(rng: Random, text: str, others: list[str]) -> str:
    """What often leaves a proof a proof: a step more, another closing tactic, another name, brackets, comments."""
    lines = text.split("\n")
    tactics = [i for i, line in enumerate(lines) if line.startswith("  ") and line.strip()]
    match rng.randrange(6):
        case 0 if tactics:
            at = rng.choice(tactics)
            lines.insert(at, lines[at][: len(lines[at]) - len(lines[at].lstrip())] + rng.choice(STEPS))
            return "\n".join(lines)
        case 1:
            found = [word for word in CLOSING if word in text]
            return text.replace(rng.choice(found), rng.choice(CLOSING), 1) if found else text + "\n"
        case 2:
            names = sorted({token.text for token in tokens(text) if token.kind == "ident" and "." not in token.text})
            if not names:
                return text
            old, new = rng.choice(names), rng.choice((*names, "fresh", "h", "target.fresh"))
            return "".join(new if token.text == old else token.text for token in tokens(text))
        case 3:
            return rng.choice(HARMLESS) + "\n" + text
        case 4:
            return text + "\n" + rng.choice((*HARMLESS, "-- end", "/- end -/"))
        case _:
            pieces = [token.text for token in tokens(text)]
            at = rng.randrange(len(pieces) + 1)
            return "".join(
                [*pieces[:at], rng.choice((" /- a -/ ", "  ", " -- a\n  ", " (by exact rfl) ")), *pieces[at:]]
            )


_OPERATIONS = (
    _tokens, _tokens, _lines, _lines, _number, _command, _insert, _alike, _universe, _universe, _splice,
    _mild, _mild, _mild, _mild, _mild,
)  # fmt: skip


def mutate(rng: Random, text: str, others: list[str]) -> str:
    """One to three changes; ``others`` are texts to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        text = rng.choice(_OPERATIONS)(rng, text, others)
    return text


KINDS = {
    **dict.fromkeys(("s", "n"), "name"), **dict.fromkeys(("S", "M", "I", "P"), "level"),
    **dict.fromkeys("acblpetjNT", "expr"),
    **dict.fromkeys(("theorem", "definition", "opaque", "inductive"), "declaration"),
}  # fmt: skip
NAMES = (
    "target",
    "propext",
    "Nat",
    "Eq",
    "False",
    "True",
    "Quot",
    "sound",
    "rec",
    "helper",
    "Classical",
    "sorryAx",
    "",
)


def _kind(line: str) -> str:
    return KINDS.get(line.split(" ", 1)[0], "")


def _counts(lines: list[str]) -> dict[str, int]:
    """How many things of each kind these lines make."""
    kinds = [_kind(line) for line in lines]
    return {kind: kinds.count(kind) for kind in ("name", "level", "expr", "declaration")}


def _field(rng: Random, lines: list[str], at: int) -> str:
    """One field of a line changed: mostly a number, to one that may stand there."""
    fields = lines[at].split(" ")
    counts = _counts(lines[1:at])
    if fields[0] == "s" and rng.random() < 0.5:
        return f"s {fields[1]} {rng.choice(NAMES)}"
    numbers = [i for i, field in enumerate(fields) if i and field.isdecimal()]
    if numbers and rng.random() < 0.8:
        place = rng.choice(numbers)
        size = counts["expr"] if fields[0] not in ("s", "n", "S", "M", "I", "P", "t") else counts["name"] + 1
        size = counts["level"] + 1 if fields[0] in ("S", "M", "I", "t") or (fields[0] == "c" and place > 1) else size
        size = counts["name"] + 1 if fields[0] == "c" and place == 1 else size
        size = 12 if fields[0] in ("b", "N") else size
        fields[place] = str(rng.choice((*(rng.randrange(max(1, size)) for _ in range(8)), int(fields[place]) + 1, 0)))
        return " ".join(fields)
    place = rng.randrange(len(fields))
    match rng.randrange(4):
        case 0:
            other = rng.randrange(len(fields))
            fields[place], fields[other] = fields[other], fields[place]
        case 1:
            fields.insert(place, fields[place])
        case 2:
            del fields[place]
        case _:
            alike = [kind for kind, group in KINDS.items() if group == KINDS.get(fields[0])] or list(KINDS)
            fields[0] = rng.choice(alike)
    return " ".join(fields)


def _recount(lines: list[str]) -> list[str]:
    """The last line with the counts that these lines have, so that the change itself is judged."""
    return [*lines[:-1], "end " + " ".join(map(str, _counts(lines[1:-1]).values()))]


def _made(rng: Random, lines: list[str]) -> str:
    """An expression of those that are there."""
    counts = _counts(lines)
    expr = [str(rng.randrange(max(1, counts["expr"]))) for _ in range(3)]
    name, level = rng.randrange(counts["name"] + 1), rng.randrange(counts["level"] + 1)
    return rng.choice((
        f"a {expr[0]} {expr[1]}", f"a {expr[0]} {expr[1]}", f"l {expr[0]} {expr[1]}", f"p {expr[0]} {expr[1]}",
        f"e {expr[0]} {expr[1]} {expr[2]}", f"c {name}", f"c {name} {level}", f"b {rng.randrange(4)}", f"t {level}",
        f"j {name} {rng.randrange(3)} {expr[0]}", f"N {rng.randrange(7)}", "T text",
    ))  # fmt: skip


def _retarget(rng: Random, lines: list[str], at: int) -> str:
    """A declaration with another type, value, name, kind or parameters."""
    fields = lines[at].split(" ")
    counts = _counts(lines[1:at])
    places = [i for i, field in enumerate(fields) if i and field.isdecimal()]
    if places and rng.random() < 0.75:
        place = rng.choice(places)
        recent = max(0, counts["expr"] - 1 - rng.randrange(6))
        fields[place] = str(rng.choice((recent, recent, recent, rng.randrange(counts["expr"] + 1))))
    elif rng.random() < 0.5 and len(fields) >= 4:
        kept = [fields[1], *fields[-2:]] if fields[0] != "theorem" else fields[1:4]
        fields = [rng.choice(("theorem", "opaque")), *kept]
        if rng.random() < 0.3:
            fields = ["definition", fields[1], rng.choice(("a", "o", "1")), *fields[2:]]
    else:
        return _field(rng, lines, at)
    return " ".join(fields)


def mutate_export(rng: Random, export: str, others: list[str]) -> str:
    """One to three changes to the lines of an export; mostly the counts at its end are made to fit."""
    lines = export.split("\n")
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        at = rng.randrange(1, max(2, len(lines) - 1))
        declared = [i for i, line in enumerate(lines) if _kind(line) == "declaration"]
        match rng.randrange(20):
            case 0:
                other = rng.randrange(1, len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 1 if len(lines) > 3:
                del lines[at]
            case 2:
                lines.insert(at, lines[at])
            case 3:
                lines.insert(at, rng.choice(rng.choice(others).split("\n")))
            case 4:
                other_lines = rng.choice(others).split("\n")
                lines = lines[:at] + other_lines[min(at, len(other_lines) - 1) :]
            case 5 | 6 | 7 | 8 | 9 | 10 | 11 if declared:
                at = rng.choice(declared)
                for _ in range(rng.randrange(4)):  # new expressions right before it, which it may come to name
                    lines.insert(at, _made(rng, lines[1:at]))
                    at += 1
                lines[at] = _retarget(rng, lines, at)
            case 12 if declared:  # declared twice, the second time otherwise
                at = rng.choice(declared)
                lines.insert(at + 1, _retarget(rng, lines, at))
            case _:
                lines[at] = _field(rng, lines, at)
    if rng.random() < 0.93 and len(lines) > 2:
        lines = _recount(lines)
    return "\n".join(lines)
