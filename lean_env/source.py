"""Lean source as text: the target's name, the candidate's text, refusals, and a normal form. Nothing here runs Lean.

None of it decides soundness: whatever text this module assembles, the worker parses, filters and audits it against
the trusted statement. What is decided here is only where the model's text goes and what never needs Lean at all.

The lexer follows Lean's own rules for what is a comment, a string, a character or an identifier
(``Lean/Parser/Basic.lean``: ``whitespace``, ``tokenFn``). It leaves out custom tokens: a problem's header could
declare one that contains ``--`` or a quote; texts that cannot be lexed with certainty are left as they are.
"""

import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from lean_env.errors import StatementError
from lean_env.protocol import Limits, Status

TokenKind = Literal["space", "comment", "doc", "string", "char", "ident", "number", "symbol"]


class Token(NamedTuple):
    """A piece of the text. Tokens cover it without gaps: joining their texts gives the text back.

    ``closed`` is False for a comment, string or ``«`` that runs to the end of the text without its end mark.
    """

    kind: TokenKind
    text: str
    start: int
    closed: bool = True


_COMMENT_MARK = re.compile(r"/-|-/")
_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?")
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)
_RAW_STRING = re.compile(r'r(#*)"')
_CHAR = re.compile(r"'(?:[^\\'\n]|\\(?:x[0-9a-fA-F]{2}|u\{?[0-9a-fA-F]{1,6}\}?|[^\n]))'")
_LETTERS = "A-Za-z_α-κμ-ωΑ-ΟΡΤ-Ωϊ-ϻἀ-῾℀-⅏\U0001d49c-\U0001d59fÀ-ÖØ-öø-ÿĀ-ſ"
_REST = _LETTERS + "0-9'!?₀-₉ₐ-ₜᵢ-ᵪⱼ"
_PART = rf"(?:«[^»\n]*»|[{_LETTERS}][{_REST}]*)"
_IDENT = re.compile(rf"{_PART}(?:\.{_PART})*")
# Tokens whose last character could otherwise be read as the start of a comment.
_SYMBOLS = re.compile(r"<-|//|\|-|`+|.", re.DOTALL)


def tokens(text: str) -> Iterator[Token]:
    """Splits ``text``, left to right, into tokens that cover it."""
    at = 0
    before_word = False  # the previous character belongs to an identifier or number: `r"` there starts no raw string
    while at < len(text):
        token = _token(text, at, before_word)
        yield token
        before_word = token.kind in ("ident", "number")
        at += len(token.text)


def _token(text: str, at: int, after_word: bool) -> Token:
    if match := _SPACE.match(text, at):
        return Token("space", match[0], at)
    if text.startswith("--", at):
        end = text.find("\n", at)
        return Token("comment", text[at : len(text) if end < 0 else end], at)
    if text.startswith("/-", at):
        return _block_comment(text, at)
    if text[at] == '"':
        return _delimited("string", text, at, _STRING_END.match(text, at + 1))
    if text[at] == "r" and not after_word and (raw := _RAW_STRING.match(text, at)):
        end = text.find('"' + raw[1], raw.end())
        closed = end >= 0
        return Token("string", text[at : end + 1 + len(raw[1]) if closed else len(text)], at, closed)
    if text[at] == "'" and not after_word and (match := _CHAR.match(text, at)):
        return Token("char", match[0], at)
    if match := _IDENT.match(text, at):
        return Token("ident", match[0], at)
    if match := _NUMBER.match(text, at):
        return Token("number", match[0], at)
    if text[at] == "«":
        return Token("ident", text[at:], at, False)
    match = _SYMBOLS.match(text, at)
    assert match is not None  # `.` with DOTALL matches any character
    return Token("symbol", match[0], at)


def _delimited(kind: TokenKind, text: str, at: int, end: re.Match[str] | None) -> Token:
    return Token(kind, text[at : end.end() if end else len(text)], at, end is not None)


def _block_comment(text: str, at: int) -> Token:
    kind: TokenKind = "doc" if text.startswith(("/--", "/-!"), at) and not text.startswith("/--/", at) else "comment"
    depth, here = 1, at + 2
    while depth:
        mark = _COMMENT_MARK.search(text, here)
        if mark is None:
            return Token(kind, text[at:], at, False)
        depth += 1 if mark[0] == "/-" else -1
        here = mark.end()
    return Token(kind, text[at:here], at)


def _meaningful(text: str) -> Iterator[Token]:
    """The tokens that mean something: no white space, no comments."""
    return (token for token in tokens(text) if token.kind not in ("space", "comment", "doc"))


def _code(text: str) -> list[Token]:
    return list(_meaningful(text))


_THEOREM_WORDS = ("theorem", "lemma")
# Words that begin a command and can begin no term: a proof that starts with one is a whole text.
_COMMAND_WORDS = frozenset(
    {
        "theorem",
        "lemma",
        "def",
        "abbrev",
        "instance",
        "inductive",
        "structure",
        "class",
        "import",
        "namespace",
        "section",
    }
    | {"end", "variable", "universe", "private", "protected", "public", "noncomputable", "mutual", "attribute", "axiom"}
    | {"example", "opaque", "macro", "notation", "syntax", "elab"}
)


@functools.lru_cache(maxsize=1_024)  # many candidates for one statement come one after another
def target_name(formal_statement: str) -> str:
    """The name that the statement gives to its theorem, as written there (not yet resolved in a namespace).

    Raises StatementError where the text states no named theorem or lemma.
    """
    for word, name in pairwise(_meaningful(formal_statement)):
        if word.kind == "ident" and word.text in _THEOREM_WORDS and name.kind == "ident":
            return name.text
    raise StatementError("formal_statement states no theorem: it must read `theorem NAME ... : TYPE`, up to `:=`")


def states_target(proof: str, target: str) -> bool:
    """Whether ``proof`` is a whole Lean text (it states the target itself) rather than what follows ``:=``.

    A text that begins with a command is a whole text even if it states another theorem: the audit will miss the target.
    """
    return names_target(proof, target) or _begins_with_command(_meaningful(proof))


def names_target(text: str, target: str) -> bool:
    """Whether ``text`` states a theorem of the target's name, or of its last parts (as within a namespace)."""
    if not any(word in text for word in _THEOREM_WORDS):  # most proofs are tactics, and need no more than a look
        return False
    for word, name in pairwise(_meaningful(text)):
        if word.kind == "ident" and word.text in _THEOREM_WORDS and name.kind == "ident":
            stated = name.text.removeprefix("_root_.")
            if stated == target or target.endswith("." + stated):
                return True
    return False


def _begins_with_command(code: Iterator[Token]) -> bool:
    first = next(code, None)
    if first is None or first.text != "@":
        return first is not None and first.text in _COMMAND_WORDS
    second = next(code, None)
    return second is not None and second.text == "["


def candidate_text(formal_statement: str, proof: str, header: str = "") -> str:
    """The text that Lean elaborates after the header: the statement with ``proof``, or the whole text that ``proof``
    is.

    A whole text may bring its own imports, or repeat the problem's header word for word at its start. Both are
    blanked with their line breaks kept, so that Lean's positions are positions in this text and in the model's.
    """
    proof = proof.replace("\r\n", "\n")
    if not states_target(proof, target_name(formal_statement)):
        return f"{_up_to_proof(formal_statement)}:= {proof}"
    return _blank_header(_blank_imports(proof), header)


@functools.lru_cache(maxsize=1_024)
def _up_to_proof(formal_statement: str) -> str:
    """The statement and what keeps ``:=`` apart from it and out of its comments."""
    statement = formal_statement.rstrip()
    last = list(tokens(statement))[-1]
    in_line_comment = last.kind == "comment" and last.text.startswith("--")
    return statement + ("\n" if in_line_comment else " ")


def _blank(text: str) -> str:
    return "".join(c if c == "\n" else " " for c in text)


def _blank_imports(text: str) -> str:
    """Blanks the ``import`` commands at the top, the only place where Lean allows them."""
    modifiers = ("public", "private", "meta", "all")
    code = _code(text)
    at, end = 0, 0
    while True:
        while at < len(code) and code[at].text in modifiers:
            at += 1
        if at >= len(code) or code[at].text != "import":
            break
        at += 1
        while at < len(code) and code[at].text in modifiers:
            at += 1
        if at >= len(code) or code[at].kind != "ident":
            break
        end = code[at].start + len(code[at].text)
        at += 1
    begin = code[0].start if end else 0
    return text[:begin] + _blank(text[begin:end]) + text[end:]


def _blank_header(text: str, header: str) -> str:
    """Blanks a repetition of the header (its imports left out) at the top; blank lines count for nothing."""
    wanted = [line.rstrip() for line in _blank_imports(header).split("\n") if line.strip()]
    if not wanted:
        return text
    lines = text.split("\n")
    matched: list[int] = []
    for number, line in enumerate(lines):
        if len(matched) == len(wanted):
            break
        if not line.strip():
            continue
        if line.rstrip() != wanted[len(matched)]:
            return text
        matched.append(number)
    if len(matched) < len(wanted):
        return text
    for number in matched:
        lines[number] = ""
    return "\n".join(lines)


def refusal(proof: str, limits: Limits) -> tuple[Status, str] | None:
    """Status and reason of a candidate that needs no Lean to be refused; None for one that goes to Lean."""
    try:
        size = len(proof.encode())
    except UnicodeEncodeError as error:
        return "forbidden_syntax", f"text: lone surrogate at character {error.start}"
    if size > limits.proof_bytes:
        return "no_proof", f"text: {size:,} bytes, over the limit of {limits.proof_bytes:,}"
    if (nul := proof.find("\0")) >= 0:
        return "forbidden_syntax", f"text: NUL at character {nul}"
    if next(_meaningful(proof), None) is None:
        return "no_proof", "text: empty"
    return None


class _Item(NamedTuple):
    """A token that means something, where it stands, and whether white space or a comment comes before it."""

    line: int
    column: int
    text: str
    spaced: bool


def normalise_proof(text: str) -> str:
    """A normal form for telling proofs apart: comments, blank lines and widths of white space that mean nothing are
    gone.

    Two texts with the same normal form are the same proof to Lean's parser. Lean's layout rules compare columns of
    tokens on different lines (``checkColGe``, ``checkColGt``, ``checkColEq``) and ask whether two tokens share a line
    or touch; so the tokens, their lines, where they touch and the order of all their columns are kept, and the least
    columns with that order are chosen. Where the column of the first line is unknown (what precedes ``:=`` decides
    it) columns stay as they are, unless that line is ``by`` alone. A text that the lexer is not sure of comes back
    unchanged.
    """
    text = text.replace("\r\n", "\n")
    items = _items(text)
    if items is None:
        return text
    if not items:
        return ""
    if items[0].line == items[-1].line:
        return _render(items)
    if items[0].text == "by" and items[1].line > items[0].line:
        return "by\n" + _render(_least_columns(items[1:], 2))
    if _begins_with_command(Token("symbol", item.text, 0) for item in items[:2]):
        return _render(_least_columns(items, 0))
    if items[0].line > 0:
        return "\n" + _render(_least_columns(items, 2))
    return _render(items, keep_columns=True)


def _items(text: str) -> list[_Item] | None:
    """The meaningful tokens with their places; None where the lexer cannot be sure of them."""
    found: list[_Item] = []
    if "\r" in text:
        return None
    line, line_start, spaced = 0, 0, False
    for token in tokens(text):
        # A brace in a string may open an interpolation, with strings of its own: only Lean's parser can tell.
        if not token.closed or (token.kind == "string" and ("{" in token.text or "\n" in token.text)):
            return None
        if token.kind == "space" and token.text.strip(" \n"):
            return None
        if token.kind in ("space", "comment"):
            spaced = True
        elif "\n" in token.text:
            return None
        else:
            found.append(_Item(line, token.start - line_start, token.text, spaced))
            spaced = False
        if breaks := token.text.count("\n"):
            line += breaks
            line_start = token.start + token.text.rindex("\n") + 1
    return found


def _least_columns(items: list[_Item], base: int) -> list[_Item]:
    """The items moved to the least columns, from ``base``, that keep the order of all columns, gaps and touching
    tokens."""
    columns = sorted({item.column for item in items})
    rank = {column: index for index, column in enumerate(columns)}
    least = [base] * len(columns)
    pairs = [
        (rank[left.column], rank[right.column], len(left.text), right.spaced)
        for left, right in pairwise(items)
        if left.line == right.line
    ]
    for _ in range(200):
        before = least.copy()
        for index in range(1, len(least)):
            least[index] = max(least[index], least[index - 1] + 1)
        for left, right, width, spaced in pairs:
            least[right] = max(least[right], least[left] + width + spaced)
            if not spaced:
                least[left] = max(least[left], least[right] - width)
        if least == before:
            return [item._replace(column=least[rank[item.column]]) for item in items]
    return items


def _render(items: list[_Item], keep_columns: bool | None = None) -> str:
    """The items as text, without blank lines. On a single line the gaps are single spaces unless columns are kept."""
    several = keep_columns or items[0].line != items[-1].line
    lines: list[str] = []
    last = None
    for item in items:
        if item.line != last:
            lines.append("")
        gap = item.column - len(lines[-1]) if several else int(item.spaced and item.line == last)
        lines[-1] += " " * gap + item.text
        last = item.line
    return "\n".join(lines)
