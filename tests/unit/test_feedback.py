"""What a model is told of the errors in its proof."""

from lean_env.protocol import Feedback, Goal, GoalsAt
from prover.feedback import errors_in_place, first_error
from prover.records import Message, Verdict


def error(start: tuple[int, int], end: tuple[int, int], text: str) -> Message:
    return Message(severity="error", start=start, end=end, text=text)


def test_feedback_marks_the_error_inside_a_few_lines() -> None:
    lines = [f"line {i}" for i in range(1, 12)]
    verdict = Verdict(attempt_id="a", status="failed", messages=(error((7, 5), (7, 6), "unknown identifier"),))
    said = errors_in_place("\n".join(lines), verdict)
    assert "line <error>7</error>" in said
    assert "line 3\n" in said and "line 8\n" in said
    assert "line 2\n" not in said and "line 9" not in said
    assert said.endswith("unknown identifier")


def test_feedback_counts_what_it_leaves_out_and_cuts_long_spans() -> None:
    text = "\n".join(f"row {i}" for i in range(1, 41))
    many = tuple(error((i, 0), (i, 3), f"e{i}") for i in range(1, 12))
    said = errors_in_place(text, Verdict(attempt_id="a", status="failed", messages=many))
    assert "e8" in said and "e9" not in said and "(3 more errors are left out.)" in said
    long = errors_in_place(text, Verdict(attempt_id="a", status="failed", messages=(error((5, 0), (30, 3), "e"),)))
    assert "row 10\n" in long and "..." in long and "row 20\n" not in long and "row</error> 30" in long


def test_positions_beyond_the_text_do_not_break_feedback() -> None:
    verdict = Verdict(attempt_id="a", status="failed", messages=(error((9, 4), (9, 5), "expected end"),))
    assert errors_in_place("one line", verdict).endswith("expected end")


def test_goals_follow_the_first_error_unless_it_shows_them() -> None:
    shown, hidden = Goal(text="⊢ a = b", target="a = b"), Goal(text="h : p\n⊢ p" + "x" * 2_000, target="q")
    verdict = Verdict(
        attempt_id="a",
        status="failed",
        messages=(error((1, 0), (1, 3), "no progress on\n⊢ a = b"), error((2, 0), (2, 1), "second")),
        feedback=Feedback(failed=GoalsAt((1, 0), (1, 3), (shown, hidden))),
    )
    first, _, second = errors_in_place("one\ntwo", verdict).partition("\n\nLine 2, column 0:")
    assert first.count("a = b") == 1 and "The goals before this tactic:\n```\nh : p\n⊢ pxx" in first
    assert first.endswith("x ...\n```") and "goals" not in second
    assert first_error(verdict) == "1:0 no progress on ⊢ a = b"
