"""What a model is told of the errors in its proof.

It follows Goedel-Prover-V2 (arXiv 2508.03613): each error is shown inside a few lines of the attempt, at most eight of
them, long spans cut, and the number left out is said.
"""

from lean_env.protocol import Message, Verdict

MAX_ERRORS = 8
LINES_BEFORE = 4
LINES_AFTER = 1
MAX_SPAN = 6
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
    if len(errors) > most:
        parts.append(f"({len(errors) - most} more errors are left out.)")
    return "\n\n".join(parts)


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
