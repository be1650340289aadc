"""Lean text without its comments, and the names that it mentions. Text only: nothing here decides what is proved."""

import re

from lean_env.source import tokens

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")


def without_comments(text: str) -> str:
    """``text`` without comments, doc comments and blank lines; every token stays in its column."""
    parts = list(tokens(text))
    kept = "".join(re.sub(r"[^\n]", " ", t.text) if t.kind in ("comment", "doc") else t.text for t in parts)
    if any(t.kind == "string" and "\n" in t.text for t in parts):
        return kept.rstrip()  # lines within a string are not for us to change
    return _BLANK_LINES.sub("\n", "\n".join(line.rstrip() for line in kept.split("\n"))).rstrip()


def mentioned(text: str) -> frozenset[str]:
    """The last part of every identifier in ``text``, and each part before it: whatever may be a theorem's name, however
    it was opened or shortened (``h.le_of_foo`` mentions ``le_of_foo``)."""
    found: set[str] = set()
    for token in tokens(text):
        if token.kind == "ident":
            found.update(parts_of(token.text))
    return frozenset(found)


def parts_of(name: str) -> list[str]:
    """``A.«b.c».d`` as its parts."""
    return re.findall(r"«[^»]*»|[^.«»]+", name)


def shifted_proof(text: str, column: int) -> str:
    """A proof of several lines so that none of its tokens changes its column wherever ``:=`` comes to stand.

    ``column`` is that of the first character of ``text``. Lean's layout compares columns of tokens on different lines;
    what begins on the line of ``:=`` is put on a line of its own, in the column where it stood.
    """
    lead = len(text) - len(text.lstrip(" "))
    column, text = column + lead, text[lead:]
    if "\n" not in text or text.startswith("\n"):
        return text
    opening = "by" if re.match(r"by\b", text) else ""
    rest = text[len(opening) :]
    if rest.startswith("\n"):
        return text
    gap = len(rest) - len(rest.lstrip(" "))
    return f"{opening}\n{_outdented(' ' * (column + len(opening) + gap) + rest[gap:])}"


def _outdented(text: str) -> str:
    """All lines moved left alike, to two columns from the left; unmoved where a string goes over several lines."""
    if any(token.kind == "string" and "\n" in token.text for token in tokens(text)):
        return text
    lines = text.split("\n")
    surplus = min(len(line) - len(line.lstrip(" ")) for line in lines if line) - 2
    return "\n".join(line[surplus:] for line in lines) if surplus > 0 else text
