"""Prompts, proof extraction, and feedback in place."""

import pytest

from lean_env.protocol import Feedback, Goal, GoalsAt
from prover import prompts
from prover.records import Attempt, ChatMessage, Message, Premise, Problem, Verdict

PROBLEM = Problem(
    id="core/x",
    header="set_option autoImplicit false",
    formal_statement="theorem target {α : Type u} (xs : List α) : xs ++ [] = xs",
    premises=(Premise(name="List.append_nil"), Premise(name="List.nil_append")),
)


def attempt(proof: str, completion: str | None = None) -> Attempt:
    return Attempt(
        id="a",
        problem_id="core/x",
        round=1,
        turn=0,
        model="m",
        messages=prompts.proof_prompt(PROBLEM, "plain"),
        completion=completion or proof,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
        seed=1,
        proof=proof,
    )


def error(start: tuple[int, int], end: tuple[int, int], text: str) -> Message:
    return Message(severity="error", start=start, end=end, text=text)


def test_the_plain_prompt_shows_statement_and_lemmas_without_name_and_type_binders() -> None:
    (message,) = prompts.proof_prompt(PROBLEM, "plain")
    assert message.content == "(xs : List α) : xs ++ [] = xs\n⟦1⟧ List.append_nil\n⟦2⟧ List.nil_append"


def test_the_chat_prompt_holds_the_whole_file() -> None:
    (message,) = prompts.proof_prompt(PROBLEM, "chat")
    assert f"{PROBLEM.header}\n\n{PROBLEM.formal_statement} := by\n  sorry" in message.content
    assert "`List.append_nil`" in message.content


def test_a_plain_answer_has_its_pointers_expanded() -> None:
    assert prompts.extract_proof(" by simp [⟦2⟧]\n", PROBLEM, "plain", "stop") == "by simp [List.nil_append]"


@pytest.mark.parametrize(("answer", "reason"), [("", "stop"), ("  \n", "stop"), ("by simp [", "length")])
def test_no_plain_proof(answer: str, reason: str) -> None:
    assert prompts.extract_proof(answer, PROBLEM, "plain", reason) is None


@pytest.mark.parametrize(
    ("answer", "proof"),
    [
        ("Plan: simp.\n```lean4\ntheorem target : X := by\n  simp\n```\nDone.", "theorem target : X := by\n  simp"),
        (
            "```lean\ntheorem target : X := a\n```\nBetter:\n```lean4\ntheorem target : X := b\n```",
            "theorem target : X := b",
        ),
        ("```lean4\ntheorem target : X := a\n```\nIt uses\n```lean4\nsimp\n```", "theorem target : X := a"),
        ("<think>```lean4\ntheorem target : X := bad\n```</think>\n```lean4\nby simp\n```", "by simp"),
        ("```lean4\ntheorem target : X := by\n  simp", "theorem target : X := by\n  simp"),
        ("```python\nprint(1)\n```", None),
        ("by simp", None),
        ("```lean4\n```", None),
    ],
)
def test_the_last_lean_block_that_states_the_target_is_the_proof(answer: str, proof: str | None) -> None:
    assert prompts.extract_proof(answer, PROBLEM, "chat", "stop") == proof


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_an_answer_gives_back_the_proof_it_was_made_of(style: prompts.Style) -> None:
    text = prompts.answer(PROBLEM, "by simp [⟦1⟧]", style)
    proof = prompts.extract_proof(text, PROBLEM, style, "stop")
    assert proof is not None and proof.endswith("by simp [List.append_nil]")


def test_feedback_marks_the_error_inside_a_few_lines() -> None:
    lines = [f"line {i}" for i in range(1, 12)]
    verdict = Verdict(attempt_id="a", status="failed", messages=(error((7, 5), (7, 6), "unknown identifier"),))
    said = prompts.feedback("\n".join(lines), verdict)
    assert "line <error>7</error>" in said
    assert "line 3\n" in said and "line 8\n" in said
    assert "line 2\n" not in said and "line 9" not in said
    assert said.endswith("unknown identifier")


def test_feedback_counts_what_it_leaves_out_and_cuts_long_spans() -> None:
    text = "\n".join(f"row {i}" for i in range(1, 41))
    many = tuple(error((i, 0), (i, 3), f"e{i}") for i in range(1, 12))
    said = prompts.feedback(text, Verdict(attempt_id="a", status="failed", messages=many))
    assert "e8" in said and "e9" not in said and "(3 more errors are left out.)" in said
    long = prompts.feedback(text, Verdict(attempt_id="a", status="failed", messages=(error((5, 0), (30, 3), "e"),)))
    assert "row 10\n" in long and "..." in long and "row 20\n" not in long and "row</error> 30" in long


def test_goals_follow_the_first_error_unless_it_shows_them() -> None:
    shown, hidden = Goal(text="⊢ a = b", target="a = b"), Goal(text="h : p\n⊢ p" + "x" * 2_000, target="q")
    verdict = Verdict(
        attempt_id="a",
        status="failed",
        messages=(error((1, 0), (1, 3), "no progress on\n⊢ a = b"), error((2, 0), (2, 1), "second")),
        feedback=Feedback(failed=GoalsAt((1, 0), (1, 3), (shown, hidden))),
    )
    first, _, second = prompts.feedback("one\ntwo", verdict).partition("\n\nLine 2, column 0:")
    assert first.count("a = b") == 1 and "The goals before this tactic:\n```\nh : p\n⊢ pxx" in first
    assert first.endswith("x ...\n```") and "goals" not in second
    plain = prompts.correction_prompt(PROBLEM, attempt("x"), verdict, "plain")
    assert plain[2].content == "1:0 no progress on ⊢ a = b"
    assert prompts.wanted("plain") == "messages" and prompts.wanted("chat") == "goals"


def test_positions_beyond_the_text_do_not_break_feedback() -> None:
    verdict = Verdict(attempt_id="a", status="failed", messages=(error((9, 4), (9, 5), "expected end"),))
    assert prompts.feedback("one line", verdict).endswith("expected end")


def test_a_correction_keeps_the_conversation_and_adds_the_first_error() -> None:
    verdict = Verdict(
        attempt_id="a",
        status="failed",
        messages=(
            Message(severity="warning", start=(1, 0), end=(1, 1), text="unused"),
            error((1, 70), (1, 74), "simp made\n  no progress"),
        ),
    )
    messages = prompts.correction_prompt(PROBLEM, attempt("by simp"), verdict, "plain")
    assert messages[:2] == (*prompts.proof_prompt(PROBLEM, "plain"), ChatMessage(role="assistant", content="by simp"))
    assert messages[2] == ChatMessage(role="user", content="1:70 simp made no progress")


def test_a_failure_without_errors_says_its_reason() -> None:
    verdict = Verdict(attempt_id="a", status="forbidden_axiom", reason="audit: axiom foo")
    assert "audit: axiom foo" in prompts.correction_prompt(PROBLEM, attempt("x"), verdict, "chat")[2].content
