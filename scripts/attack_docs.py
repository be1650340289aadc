"""Write docs/attacks.md, a line a case, from tests/attacks. ``--check`` exits 1 where it is not current."""

import sys
from pathlib import Path

import msgspec

from lean_env.protocol import Status

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "tests" / "attacks"
TARGET = ROOT / "docs" / "attacks.md"
NUMBERS = {"text": 1, "syntax": 2, "elaboration": 3, "audit": 4, "kernel": 4, "limits": 3, "certification": 5}
"""The steps of docs/soundness.md by the first word of a verdict's reason."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One candidate and how it must end."""

    name: str
    proof: str
    status: Status = "proved"
    statement: str = "theorem target : (1 : Nat) = 2"
    header: str = "set_option autoImplicit false"
    forbidden: tuple[str, ...] = ()
    unguarded: bool = False
    """Without the syntax filter, so that the steps after it have to stand alone."""
    step: str = ""
    """What the verdict's reason begins with: the step that stops it, and where the words are ours, why."""
    of: str = ""
    """The case or class of the public suite that this one puts in words of our own."""
    attacks: str = ""


class Outside(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case of a public suite that no candidate can express here, and what covers it."""

    of: str
    attacks: str
    covered: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of cases."""

    case: list[Case]
    suite: str = ""
    outside: list[Outside] = []


def load(name: str) -> Table:
    """The table of that file in tests/attacks."""
    return msgspec.toml.decode((TABLES / name).read_bytes(), type=Table)


OWN = ("refused.toml", "accepted.toml", "honest.toml", "strict.toml")
SUITES = ("suites/comparator.toml", "suites/safeverify.toml", "suites/lean4checker.toml", "suites/leanparanoia.toml")

INTRODUCTION = """# Attacks, a line a case

Every line is a test of `tests/attacks/test_attacks.py`: the candidate is in the file named, its verdict must have the
status given here, and the verdict's reason must begin as given under "stopped by". Steps are those of
[soundness.md](soundness.md). *Past the filter* means that the syntax filter (step 2) was switched off, so that what
comes after it has to stand alone. This page is written by `scripts/attack_docs.py` from those files.
"""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def stopped(case: Case) -> str:
    word, _, why = case.step.partition(": ")
    return f"{word}: {why}" if why else word


def refused(cases: list[Case], origin: bool) -> list[str]:
    head = "| of | attack | ends in | step | stopped by |" if origin else "| attack | ends in | step | stopped by |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for case in cases:
        name = case.name if not case.attacks else f"{case.name} ({case.attacks})"
        if case.unguarded and "past the filter" not in name and "unguarded" not in name:
            name += ", *past the filter*"
        first = f"| {cell(case.of)} " if origin else ""
        step = NUMBERS[case.step.partition(":")[0]]
        lines.append(f"{first}| {cell(name)} | `{case.status}` | {step} | {cell(stopped(case))} |")
    return lines


def split(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    """Those that must be refused, and those that must be certified."""
    return [c for c in cases if c.status != "proved"], [c for c in cases if c.status == "proved"]


def page() -> str:
    """The whole document."""
    tables = {name: load(name) for name in (*OWN, *SUITES)}
    lines = [INTRODUCTION, "| file | to refuse | past the filter | to certify |", "|---|---|---|---|"]
    totals = [0, 0, 0]
    for name, table in tables.items():
        bad, good = split(table.case)
        row = [len(bad), sum(c.unguarded for c in bad), len(good)]
        totals = [a + b for a, b in zip(totals, row)]
        lines.append(f"| `{name}` | {row[0]} | {row[1]} | {row[2]} |")
    lines += [f"| together | {totals[0]} | {totals[1]} | {totals[2]} |", ""]
    lines += ["## Of our own", "", *refused(tables["refused.toml"].case, False), ""]
    for name in SUITES:
        table = tables[name]
        bad, good = split(table.case)
        lines += [f"## {table.suite}", "", "What its cases attack, in texts of our own.", "", *refused(bad, True), ""]
        lines += ["To certify:", "", *[f"- {c.of}: {c.name}" for c in good], ""]
        lines += ["Not to be expressed as a candidate here:", ""]
        lines += [f"- {o.of}: {o.attacks}. {o.covered[0].upper()}{o.covered[1:]}." for o in table.outside] + [""]
    lines += ["## Honest texts that are refused all the same", ""]
    lines += ["Each of these is a proof lost, not a false one counted.", ""]
    lines += [*refused(tables["strict.toml"].case, False), ""]
    lines += ["## Honest proofs, all certified", ""]
    lines += [f"- {c.name}" for name in ("accepted.toml", "honest.toml") for c in tables[name].case]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == page()
        sys.exit(None if current else f"{TARGET} is not current; run: python scripts/attack_docs.py")
    TARGET.write_text(page(), encoding="utf-8")
