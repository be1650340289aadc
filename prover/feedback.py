"""What a model is told of the errors in its proof.

It follows Goedel-Prover-V2 (arXiv 2508.03613): each error is shown inside a few lines of the attempt, at most eight of
them, long spans cut, and the number left out is said. Beyond the paper, the goals at the tactic that failed first
follow its error where the error does not show them itself.
"""

from lean_env.protocol import Message, Verdict

MAX_ERRORS = 8
LINES_BEFORE = 4
LINES_AFTER = 1
MAX_SPAN = 6
MAX_GOALS = 2
MAX_GOAL = 1_200
"""Characters of a goal that are shown."""
SHORT = 120
"""Characters of an error on one line."""


def first_error(verdict: Verdict) -> str:
    """The first error on one line, cut short: ``2:4 unsolved goals ...``."""
    errors = _errors(verdict)
    if not errors:
        return verdict.reason[:SHORT]
    first = errors[0]
    return f"{first.start[0]}:{first.start[1]} " + " ".join(first.text.split())[:SHORT]


def errors_in_place(text: str, verdict: Verdict, most: int = MAX_ERRORS) -> str:
    """Up to ``most`` errors, each with its place marked in the lines around it. ``text`` is what Lean was given after
    the header."""
    errors = _errors(verdict)
    if not errors:
        return verdict.reason
    lines = text.split("\n")
    parts = [_in_place(lines, error) for error in errors[:most]]
    parts[0] += _goals(verdict, errors[0])
    if len(errors) > most:
        parts.append(f"({len(errors) - most} more errors are left out.)")
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
