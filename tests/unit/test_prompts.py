"""Prompts: the templates that come along, those of users, and what becomes of prompts that are too long."""

from pathlib import Path

import pytest

from prover.config import PromptConfig
from prover.errors import ConfigError
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Message, Premise, Problem, Verdict

PROBLEM = Problem(
    id="core/x",
    header="set_option autoImplicit false",
    formal_statement="theorem target {α : Type u} (xs : List α) : xs ++ [] = xs",
    premises=(Premise(name="List.append_nil"), Premise(name="List.nil_append")),
)
PLAIN, CHAT, BASE = (Prompt(PromptConfig(template=name)) for name in ("plain", "chat", "base"))
FAILED = Verdict(
    attempt_id="a",
    status="failed",
    messages=(
        Message(severity="warning", start=(1, 0), end=(1, 1), text="unused"),
        Message(severity="error", start=(1, 70), end=(1, 74), text="simp made\n  no progress"),
    ),
)


def attempt(proof: str, prompt: Prompt, completion: str | None = None) -> Attempt:
    return Attempt(
        id="a",
        problem_id="core/x",
        round=1,
        turn=0,
        model="m",
        messages=prompt.first(PROBLEM),
        completion=completion or proof,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
        seed=1,
        proof=proof,
    )


def own(folder: Path, text: str, overflow: str = "drop") -> Prompt:
    file = folder / "own.jinja"
    file.write_text(text)
    return Prompt(PromptConfig(template=file, overflow="cut" if overflow == "cut" else "drop"))


def test_the_plain_prompt_shows_statement_and_lemmas_without_name_and_type_binders() -> None:
    (message,) = PLAIN.first(PROBLEM)
    assert message.content == "(xs : List α) : xs ++ [] = xs\n⟦1⟧ List.append_nil\n⟦2⟧ List.nil_append"


def test_the_chat_prompt_holds_the_whole_file() -> None:
    (message,) = CHAT.first(PROBLEM)
    assert f"```lean4\n{PROBLEM.header}\n\n{PROBLEM.formal_statement} := by\n  sorry\n```" in message.content
    assert "`List.append_nil`, `List.nil_append`." in message.content


def test_the_base_prompt_is_a_file_that_stops_where_the_tactics_begin() -> None:
    (message,) = BASE.first(PROBLEM)
    assert message.role == "text"
    assert message.content == (
        f"{PROBLEM.header}\n\n-- useful: List.append_nil, List.nil_append\n{PROBLEM.formal_statement} := by"
    )
    assert BASE.extract("\n  simp\n\ntheorem next : True := by", PROBLEM, "stop") == "by\n  simp"


def test_pointers_in_an_answer_become_names() -> None:
    assert PLAIN.extract(" by simp [⟦2⟧]\n", PROBLEM, "stop") == "by simp [List.nil_append]"


@pytest.mark.parametrize("prompt", [PLAIN, CHAT, BASE], ids=["plain", "chat", "base"])
@pytest.mark.parametrize("proof", ["by simp [⟦1⟧]", "by\n  intro x\n  simp", "List.append_nil xs"])
def test_a_solution_gives_back_the_proof_it_was_made_of(prompt: Prompt, proof: str) -> None:
    found = prompt.extract(prompt.solution(PROBLEM, proof), PROBLEM, "stop")
    assert found is not None
    assert proof.replace("⟦1⟧", "List.append_nil") in found or f"exact ({proof})" in found


def test_a_revision_keeps_the_conversation_and_adds_the_first_error() -> None:
    (messages,) = PLAIN.revisions(PROBLEM, attempt("by simp", PLAIN), FAILED)
    assert messages[:2] == (*PLAIN.first(PROBLEM), ChatMessage(role="assistant", content="by simp"))
    assert messages[2] == ChatMessage(role="user", content="1:70 simp made no progress")


def test_a_base_model_is_shown_its_failure_in_the_text_that_it_continues() -> None:
    ((message,),) = BASE.revisions(PROBLEM, attempt("by\n  simp", BASE, "\n  simp"), FAILED)
    assert message.role == "text" and message.content.startswith(BASE.first(PROBLEM)[0].content + "\n  simp")
    assert "no progress" in message.content and message.content.endswith(f"{PROBLEM.formal_statement} := by")


def test_goals_are_asked_of_lean_where_the_revision_shows_errors() -> None:
    assert [prompt.wanted for prompt in (PLAIN, CHAT, BASE)] == ["messages", "goals", "goals"]


def test_a_failure_without_errors_says_its_reason() -> None:
    verdict = Verdict(attempt_id="a", status="forbidden_axiom", reason="audit: axiom foo")
    (messages,) = CHAT.revisions(PROBLEM, attempt("x", CHAT), verdict)
    assert "audit: axiom foo" in messages[2].content


def test_what_is_cut_gets_ever_shorter_and_keeps_the_statement() -> None:
    problem = Problem(
        id="p",
        header="h",
        formal_statement="theorem t : True",
        informal_statement="It is true.",
        premises=tuple(Premise(name=f"lemma{i}") for i in range(5)),
    )
    cut = Prompt(PromptConfig(template="chat", overflow="cut"))
    texts = [message.content for (message,) in cut.firsts(problem)]
    assert texts[0] == CHAT.first(problem)[0].content and len(list(CHAT.firsts(problem))) == 1
    assert [text.count("`lemma") for text in texts] == [5, 2, 1, 0, 0]
    assert "It is true." in texts[3] and "It is true." not in texts[4]
    assert all("theorem t : True := by" in text for text in texts)


def test_a_revision_is_cut_down_to_the_code_and_its_first_error() -> None:
    answer = "<think>long</think>Because.\n```lean4\ntheorem target : False := by\n  simp\n```"
    tried = attempt("theorem target : False := by\n  simp", CHAT, answer)
    two = Verdict(attempt_id="a", status="failed", messages=(FAILED.messages[1], FAILED.messages[1]))
    cut = Prompt(PromptConfig(template="chat", overflow="cut"))
    shown = [messages[-2].content for messages in cut.revisions(PROBLEM, tried, two)]
    code = "```lean4\ntheorem target : False := by\n  simp\n```"
    assert shown == [answer, f"Because.\n{code}", code, code]
    assert "1 more errors are left out" in list(cut.revisions(PROBLEM, tried, two))[-1][-1].content


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    text = "{% block system %}Prove.{% endblock %}{% block proof %}{{ name }}: {{ statement }}{% endblock %}"
    prompt = own(tmp_path, text)
    assert prompt.first(PROBLEM) == (
        ChatMessage(role="system", content="Prove."),
        ChatMessage(role="user", content=f"target: {PROBLEM.formal_statement}"),
    )
    assert prompt.recipe != own(tmp_path, text + " ").recipe, "the template's text is part of the recipe"
    with pytest.raises(ConfigError, match=r"own.jinja: has no block 'revision'"):
        list(prompt.revisions(PROBLEM, attempt("by simp", prompt), FAILED))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{% block proof %}\n{{ statment }}{% endblock %}",
            r"own.jinja:2: unknown variable 'statment' in block 'proof'",
        ),
        ("{% block proof %}{{ errors }}{% endblock %}", r"own.jinja:1: unknown variable 'errors' in block 'proof'"),
        ("{% block proff %}{% endblock %}", r"own.jinja: has no block 'proof'"),
        ("{% block text %}{% endblock %}\n{% block revison %}{% endblock %}", r"own.jinja:2: unknown block 'revison'"),
        ("{% block proof %}{{ name ", r"own.jinja:1: is no Jinja template"),
        ("{#- answer: poem -#}{% block proof %}{% endblock %}", r"answer: 'poem' is no form of an answer"),
        ("{% block proof %}{{ premises[7].name }}{% endblock %}", r"own.jinja: block 'proof': "),
        ("{% block proof %}{{ ''.__class__.__mro__ }}{% endblock %}", r"own.jinja: block 'proof': "),
    ],
)
def test_a_faulty_template_is_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        own(tmp_path, text).first(PROBLEM)


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"chatt: cannot be read .*give a Jinja file, or one of base, chat, plain"):
        Prompt(PromptConfig(template=tmp_path / "chatt"))
