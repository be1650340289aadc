"""What is learned from: proved only, deduplicated, capped, weighted."""

from pathlib import Path

import msgspec
import pytest

from prover.artifacts import Artifact, ArtifactWriter
from prover.config import PromptConfig, SelectConfig
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Problem, TrainingExample, Verdict
from prover.stages import select

PROBLEM = Problem(id="p", header="", formal_statement="theorem p : True")

PLAIN = Prompt(PromptConfig(template="plain"))


def attempt(ident: str, proof: str, turn: int = 0) -> Attempt:
    asked = PLAIN.first(PROBLEM)
    talk = (*asked, ChatMessage(role="assistant", content="by bad"), ChatMessage(role="user", content="1:1 no"))
    return Attempt(
        id=ident,
        problem_id="p",
        round=1,
        turn=turn,
        model="m",
        messages=talk if turn else asked,
        completion=proof,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        seed=0,
        proof=proof,
        parent_id="x" if turn else None,
    )


def stage(folder: Path, name: str, attempts: list[tuple[Attempt, bool]]) -> tuple[Artifact, Artifact]:
    tried = ArtifactWriter(folder / f"{name}a", {"stage": "sample", "name": name}, 1)
    tried.write(0, [a for a, _ in attempts])
    verdicts = ArtifactWriter(folder / f"{name}v", {"stage": "verify", "name": name}, 1)
    verdicts.write(0, [Verdict(attempt_id=a.id, status="proved" if ok else "failed") for a, ok in attempts])
    return tried.finish({}), verdicts.finish({})


def problems(folder: Path) -> Artifact:
    writer = ArtifactWriter(folder / "problems", {"stage": "problems"}, 1)
    writer.write(0, [PROBLEM])
    return writer.finish({"problems": 1})


def examples(
    folder: Path, judged: list[tuple[Artifact, Artifact]], cap: int, out: str = "out"
) -> list[TrainingExample]:
    artifact = select.run(
        folder / out,
        problems=problems(folder),
        judged=judged,
        prompt=PLAIN,
        config=SelectConfig(per_problem=cap),
        seed=1,
    )
    return list(artifact.read(TrainingExample))


def test_only_proved_attempts_and_each_proof_once_over_all_rounds(tmp_path: Path) -> None:
    one = stage(tmp_path, "one", [(attempt("a", "by simp"), True), (attempt("b", "by rfl"), False)])
    two = stage(tmp_path, "two", [(attempt("c", "by simp  -- again"), True), (attempt("d", "by omega"), True)])
    found = examples(tmp_path, [one, two], 8)
    assert [e.attempt_id for e in found] == ["a", "d"]
    assert [e.weight for e in found] == [0.5, 0.5]
    assert found[0].messages[-1] == ChatMessage(role="assistant", content="by simp")


def test_the_cap_keeps_the_shortest_and_is_decided_by_the_seed(tmp_path: Path) -> None:
    many = stage(tmp_path, "m", [(attempt(f"a{i}", f"by exact lemma_number_{i}"), True) for i in range(9)])
    short = stage(tmp_path, "s", [(attempt("short", "by rfl"), True)])
    first = examples(tmp_path, [many, short], 3)
    assert first[0].attempt_id == "short"
    assert len(first) == 3
    assert first == examples(tmp_path, [many, short], 3, out="again")
    assert sum(e.weight for e in first) == pytest.approx(1.0)


def test_a_proved_correction_teaches_the_correction_and_the_proof(tmp_path: Path) -> None:
    found = examples(tmp_path, [stage(tmp_path, "c", [(attempt("fix", "by omega", turn=1), True)])], 4)
    assert [(e.kind, len(e.messages)) for e in found] == [("proof", 2), ("correction", 4)]
    assert all(e.messages[-1].content == "by omega" for e in found)


def test_an_answer_is_learned_with_the_prompt_that_was_asked(tmp_path: Path) -> None:
    """Which may be a shorter one than the first, so that it fits the model's context."""
    cut = (ChatMessage(role="user", content="cut"),)
    asked = msgspec.structs.replace(attempt("a", "by simp"), messages=cut)
    (found,) = examples(tmp_path, [stage(tmp_path, "c", [(asked, True)])], 4)
    assert found.messages[:-1] == cut


def test_an_answer_that_many_problems_share_weighs_less(tmp_path: Path) -> None:
    """With rarity 0.5, an answer chosen for m problems weighs m^-0.5 of its share of the problem."""
    names = ["p", "q", "r", "s"]
    writer = ArtifactWriter(tmp_path / "problems", {"stage": "problems"}, 1)
    writer.write(0, [Problem(id=n, header="", formal_statement=f"theorem {n} ({n} : Nat) : True") for n in names])
    problems = writer.finish({"problems": 4})
    tried = [msgspec.structs.replace(attempt(f"{n}0", "by grind"), problem_id=n) for n in names]
    tried.append(msgspec.structs.replace(attempt("p1", "by omega"), problem_id="p"))
    made = select.run(
        tmp_path / "out",
        problems=problems,
        judged=[stage(tmp_path, "x", [(a, True) for a in tried])],
        prompt=PLAIN,
        config=SelectConfig(per_problem=4, rarity=0.5),
        seed=1,
    )
    weights = {e.attempt_id: e.weight for e in made.read(TrainingExample)}
    assert weights == {"p0": 0.25, "p1": 0.5, "q0": 0.5, "r0": 0.5, "s0": 0.5}
