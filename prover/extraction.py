"""What of a model's answer is the proof.

Nothing here decides whether it is one; that is Lean's alone. What is decided is which of the texts in an answer goes to
Lean, and which answers hold none: those never reach it, and are ``no_proof``. Ways in which published pipelines lost
proofs here: helper lemmas before the theorem dropped, a text cut at the first ``:= by``, a sketch that came last taken
for the proof.
"""

import re
from typing import Literal, NamedTuple

from lean_env.source import names_target, states_target, target_name, tokens

Form = Literal["proof", "text", "continuation"]
"""How an answer holds its proof: all of it is what follows ``:=``; it is somewhere in a text; it goes on where
``:= by`` stopped."""

_THOUGHTS = ("think", "thinking", "thought", "reasoning", "reflection")
_THOUGHT_END = re.compile(rf"(?:</(?:{'|'.join(_THOUGHTS)})>|◁/think▷|<\|end_of_thought\|>)", re.IGNORECASE)
_THOUGHT_START = re.compile(rf"\s*(?:<(?:{'|'.join(_THOUGHTS)})>|◁think▷|<\|begin_of_thought\|>)", re.IGNORECASE)
_FENCE = re.compile(r"(?P<mark>`{3,}|^[ \t]*~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n`]*\n", re.MULTILINE)
_LEAN = frozenset({"", "lean", "lean4", "lean3", "tactic", "tactics", "lean-4", "lean4-proof"})
_COMMAND = re.compile(
    r"(?:@\[|/--|--|/-|#|(?:theorem|lemma|def|abbrev|instance|inductive|structure|class|example|import|open|namespace"
    r"|section|end|variable|variables|universe|universes|private|protected|noncomputable|mutual|attribute|axiom|set_option"
    r"|local|scoped|where|termination_by|decreasing_by|deriving|opaque|macro|notation|syntax|elab|omit|include)\b)"
)
"""How a line of Lean may begin at the left margin."""
_PROSE = re.compile(r"#+\s|\*\*|[-*]\s|\d+\.\s|(?!" + _COMMAND.pattern + r")[A-Za-z]")
"""How one of prose begins there."""
_START = re.compile(rf"^(?:{_COMMAND.pattern})", re.MULTILINE)
_TACTICS = frozenset(
    """
    intro intros rintro simp simp_all simpa dsimp rw rewrite erw exact apply refine constructor cases rcases obtain
    induction omega ring ring_nf norm_num norm_cast push_cast push_neg linarith nlinarith positivity gcongr field_simp
    decide ext use exists exfalso by_contra by_cases contrapose unfold subst specialize all_goals any_goals repeat
    try first left right grind aesop bv_decide contradiction assumption split split_ifs interval_cases choose change
    symm trans congr funext injection generalize revert clear rename_i case next native_decide exact_mod_cast
    simp_rw nth_rewrite fin_cases apply_fun infer_instance
    """.split()
)
"""Words that begin a tactic and no term: a text that starts with one lacks its ``by``."""


class _Block(NamedTuple):
    text: str
    language: str
    closed: bool


def extract_proof(answer: str, formal_statement: str, form: Form, *, cut: bool) -> str | None:
    """The candidate in ``answer``, or None where there is none. ``cut`` says that the answer ran into its limit.

    A cut answer's last text ends somewhere, not where the model meant, so it is no candidate; one that was complete
    before it is. A candidate without ``sorry`` goes before one with it (a sketch), a later before an earlier one, and
    one that states the target before one that does not.
    """
    answer = answer.replace("\r\n", "\n").removeprefix("\ufeff")
    if form == "proof":
        return None if cut else answer.strip() or None
    if form == "continuation":
        return None if cut and not _goes_on(answer) else _continued(answer)
    said = without_thoughts(answer)
    if said is None:
        return None
    target = target_name(formal_statement)
    blocks = [block for block in _blocks(said) if block.closed or not cut]
    texts = [_tidy(block.text) for block in blocks if block.language.lower() in _LEAN]
    if not blocks and not cut:
        texts = [_tidy(text) for text in [_unfenced(said)] if text]
    candidates = [text for text in texts if text and _is_lean(text, target)]
    return max(
        enumerate(candidates),
        key=lambda item: (states_target(item[1], target), not _holds_sorry(item[1]), item[0]),
        default=(0, None),
    )[1]


def without_thoughts(answer: str) -> str | None:
    """What was said after the thinking; None where the answer ends within it. A prompt may have opened the span."""
    ends = list(_THOUGHT_END.finditer(answer))
    rest = answer[ends[-1].end() :] if ends else answer
    return None if _THOUGHT_START.match(rest) else rest


def _blocks(text: str) -> list[_Block]:
    """Fenced blocks, outermost first come. A fence of a longer mark may hold shorter ones."""
    found: list[_Block] = []
    at = 0
    while start := _FENCE.search(text, at):
        body = start.end()
        mark = start["mark"].strip()
        end = re.compile(rf"{re.escape(mark[0])}{{{len(mark)},}}").search(text, body)
        stop = end.start() if end else len(text)
        found.append(_Block(text[body:stop], start["language"], end is not None))
        if end is None:
            break
        at = end.end()
    return found


def _unfenced(text: str) -> str | None:
    """The Lean text in an answer without fences: from its first command to where prose begins again."""
    stripped = text.strip()
    if re.match(r"(?::=\s*)?by\b", stripped):
        return _until_prose(stripped)
    for start in _START.finditer(text):
        if re.search(r"\b(?:theorem|lemma)\s", text[start.start() :]):
            return _until_prose(text[start.start() :])
        break
    return None


def _until_prose(text: str) -> str:
    """``text`` up to a line at the left margin, after an empty one, that begins as no line of Lean does."""
    lines = text.split("\n")
    for number in range(1, len(lines)):
        if not lines[number - 1].strip() and _PROSE.match(lines[number]):
            return "\n".join(lines[:number])
    return text


def _tidy(text: str) -> str:
    """Without common indentation, the ``:=`` that some repeat, and with the ``by`` that some leave out."""
    lines = text.strip("\n").rstrip().split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    if margin and lines[0].startswith(" "):
        lines = [line[margin:] for line in lines]
    body = "\n".join(lines)
    body = re.sub(r"^\s*:=[ \t]*", "", body)
    words = re.findall(r"^[A-Za-z_]+", body, re.MULTILINE)
    if words and words[0] not in ("by", "fun") and not _COMMAND.match(body) and not _TACTICS.isdisjoint(words):
        return "by\n" + "\n".join(f"  {line}" if line.strip() else line for line in body.split("\n"))
    return body


def _is_lean(text: str, target: str) -> bool:
    """Whether a text can be a proof of the target: it states it, or could follow its ``:=``.

    Blocks that only quote a definition or check something are no candidates.
    """
    return names_target(text, target) or not (states_target(text, target) or text.startswith("#"))


def _holds_sorry(text: str) -> bool:
    return any(token.kind == "ident" and token.text in ("sorry", "admit") for token in tokens(text))


def _goes_on(answer: str) -> bool:
    """Whether there is something after the continued proof, so that its end was the model's own."""
    return _continuation_end(answer) < len(answer)


def _continuation_end(answer: str) -> int:
    """Where a line at the left margin ends the tactics. The first line follows ``:= by`` itself."""
    after = re.compile(r"\n(?=[^\s])").search(answer)
    return after.start() if after else len(answer)


def _continued(answer: str) -> str | None:
    tactics = answer[: _continuation_end(answer)].rstrip()
    return f"by{tactics if tactics[:1].isspace() else ' ' + tactics}" if tactics.strip() else None
