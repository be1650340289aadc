"""What the model is asked, and what is taken from its answer.

Two styles. ``plain`` shows the statement and the names of retrieved lemmas and expects the text that follows ``:=``; it
is meant for small models trained here. ``chat`` gives instructions, the whole file, and expects a fenced Lean block.
Nothing here decides whether an answer is a proof; that is Lean's alone.

Feedback for corrections follows Goedel-Prover-V2 (arXiv 2508.03613): each error is shown inside a few lines of the
attempt, at most eight of them, long spans cut, and the number left out is said. Beyond the paper, the goals at the
tactic that failed first follow its error where the error does not show them itself.
"""

import inspect
import re
import sys
from functools import cache
from hashlib import sha256
from typing import Literal

from lean_env.protocol import Depth
from lean_env.source import candidate_text, target_name
from prover.pointers import expand_pointers
from prover.records import Attempt, ChatMessage, Message, Problem, Verdict

Style = Literal["plain", "chat"]

MAX_ERRORS = 8
LINES_BEFORE = 4
LINES_AFTER = 1
MAX_SPAN = 6
MAX_GOALS = 2
MAX_GOAL = 1_200
"""Characters of a goal that the chat style shows."""
PLAIN_FEEDBACK = 120
"""Characters of the first error that the plain style shows."""

CHAT_TASK = """Complete the following Lean 4 file by replacing `sorry` with a proof.

```lean4
{file}
```
{premises}
First write a short plan of the proof: the main steps and the lemmas they rest on. Then give the complete file in one
```lean4 block. The statement must stay exactly as it is; helper lemmas may stand before it."""

CHAT_PREMISES = """
These library lemmas may help: {names}.
"""

CHAT_FEEDBACK = """Lean did not accept this proof. The compiler said:

{errors}

Explain briefly what went wrong, then give the complete corrected file in one ```lean4 block. The statement must stay
exactly as it is."""

_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_TYPE_BINDER = re.compile(r"\{[^{}]*: (?:Type|Sort)\b[^{}]*\} ?")
_THEOREM = re.compile(r"^\s*(?:theorem|lemma)\s+\S+\s*")


def wanted(style: Style) -> Depth:
    """What a verdict must tell for :func:`correction_prompt`. Plain prompts are for models with little room."""
    return "goals" if style == "chat" else "messages"


@cache
def version() -> str:
    """Changes whenever anything that shapes a prompt or reads an answer changes: part of fingerprints."""
    return sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:12]


def proof_prompt(problem: Problem, style: Style) -> tuple[ChatMessage, ...]:
    """The conversation that asks for a first proof."""
    if style == "plain":
        return (ChatMessage(role="user", content=plain_statement(problem)),)
    names = ", ".join(f"`{p.name}`" for p in problem.premises or ())
    file = f"{problem.header}\n\n{problem.formal_statement} := by\n  sorry"
    if problem.informal_statement:
        file = f"{problem.header}\n\n/-- {problem.informal_statement} -/\n{problem.formal_statement} := by\n  sorry"
    premises = CHAT_PREMISES.format(names=names) if names else ""
    return (ChatMessage(role="user", content=CHAT_TASK.format(file=file.strip(), premises=premises)),)


def plain_statement(problem: Problem) -> str:
    """Binders and goal without the name, then a line for each premise: ``⟦1⟧ Nat.add_comm``.

    Type binders are left out: they are long and say nothing that the rest does not.
    """
    body = _TYPE_BINDER.sub("", _THEOREM.sub("", problem.formal_statement)).strip()
    lemmas = [f"⟦{i}⟧ {premise.name}" for i, premise in enumerate(problem.premises or (), 1)]
    return "\n".join([body, *lemmas])


def extract_proof(completion: str, problem: Problem, style: Style, finish_reason: str) -> str | None:
    """The candidate in an answer, or None where there is none. Pointers to premises become the lemmas' names.

    A plain answer cut off by the token limit is no candidate: its text ends somewhere, not where the model meant.
    """
    if style == "plain":
        text = completion.strip()
        return None if not text or finish_reason == "length" else expand_pointers(text, problem)
    answer = completion.rpartition("</think>")[2]
    blocks = [m.group(2).strip("\n") for m in _FENCE.finditer(answer) if m.group(1).lower() in {"lean4", "lean", ""}]
    candidates = [block for block in blocks if block.strip()]
    if not candidates:
        return None
    name = target_name(problem.formal_statement)
    whole = [block for block in candidates if re.search(rf"\b(?:theorem|lemma)\s+{re.escape(name)}(?![\w'.!?])", block)]
    return expand_pointers((whole or candidates)[-1], problem)


def answer(problem: Problem, proof: str, style: Style) -> str:
    """What a model would have to answer to give ``proof`` (the text that follows ``:=``, pointers allowed)."""
    if style == "plain":
        return proof
    whole = f"{problem.header}\n\n{problem.formal_statement} := {expand_pointers(proof, problem)}"
    return f"```lean4\n{whole.strip()}\n```"


def correction_prompt(problem: Problem, attempt: Attempt, verdict: Verdict, style: Style) -> tuple[ChatMessage, ...]:
    """The whole conversation so far, the failed answer, and Lean's messages in place."""
    text = candidate_text(problem.formal_statement, attempt.proof or "", problem.header)
    said = plain_feedback(verdict) if style == "plain" else CHAT_FEEDBACK.format(errors=feedback(text, verdict))
    return (
        *attempt.messages,
        ChatMessage(role="assistant", content=attempt.completion),
        ChatMessage(role="user", content=said),
    )


def plain_feedback(verdict: Verdict) -> str:
    """The first error on one line, cut short: ``2:4 unsolved goals ...``."""
    errors = _errors(verdict)
    if not errors:
        return verdict.reason[:PLAIN_FEEDBACK]
    first = errors[0]
    return f"{first.start[0]}:{first.start[1]} " + " ".join(first.text.split())[:PLAIN_FEEDBACK]


def feedback(text: str, verdict: Verdict) -> str:
    """Each error with its place marked in the lines around it. ``text`` is what Lean was given after the header."""
    errors = _errors(verdict)
    if not errors:
        return verdict.reason
    lines = text.split("\n")
    parts = [_in_place(lines, error) for error in errors[:MAX_ERRORS]]
    parts[0] += _goals(verdict, errors[0])
    if len(errors) > MAX_ERRORS:
        parts.append(f"({len(errors) - MAX_ERRORS} more errors are left out.)")
    return "\n\n".join(parts)


def _goals(verdict: Verdict, error: Message) -> str:
    """The goals at the tactic that raised the error, unless the error shows them."""
    failed = verdict.feedback.failed if verdict.feedback is not None else None
    goals = [goal for goal in failed.goals if goal.target not in error.text] if failed is not None else []
    if not goals:
        return ""
    shown = [g.text if len(g.text) <= MAX_GOAL else g.text[:MAX_GOAL] + " ..." for g in goals[:MAX_GOALS]]
    more = f"\n({len(goals) - MAX_GOALS} more goals are left out.)" if len(goals) > MAX_GOALS else ""
    return "\nThe goals before this tactic:\n```\n" + "\n\n".join(shown) + "\n```" + more


def _errors(verdict: Verdict) -> list[Message]:
    return [message for message in verdict.messages if message.severity == "error"]


def _in_place(lines: list[str], error: Message) -> str:
    (line, column), (end_line, end_column) = error.start, max(error.start, error.end)
    first, last = max(line - LINES_BEFORE, 1), min(end_line + LINES_AFTER, len(lines))
    shown: list[str] = []
    for number in range(first, last + 1):
        content = lines[number - 1]
        if number == line:
            content = content[:column] + "<error>" + content[column:]
            end_column += len("<error>") if end_line == line else 0
        if number == end_line:
            content = content[:end_column] + "</error>" + content[end_column:]
        if line + MAX_SPAN <= number <= end_line - 1:
            if number == line + MAX_SPAN:
                shown.append("  ...")
            continue
        shown.append(content)
    return f"Line {line}, column {column}:\n```lean4\n" + "\n".join(shown) + f"\n```\n{error.text.strip()}"
