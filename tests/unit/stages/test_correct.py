"""Corrections: which failures go back to the model, and what is said of those that cannot."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.config import CorrectConfig, PromptConfig, SamplingConfig
from prover.config import ScriptedEngine as ScriptedConfig
from prover.engines.lease import EngineLease
from prover.engines.scripted import ScriptedEngine
from prover.models import Model
from prover.progress import Silent
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Problem, Verdict
from prover.stages import correct

PLAIN = Prompt(PromptConfig(template="plain"))


class ShortContext(ScriptedEngine):
    """Scripted answers of a model whose context holds no conversation about ``long``."""

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        return not any("long" in message.content for message in messages)


class Lease(EngineLease):
    def engine(self, model: Model) -> ScriptedEngine:
        assert isinstance(self.config, ScriptedConfig)
        return ShortContext(self.config.path).__enter__()


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def attempt(ident: str, proof: str) -> Attempt:
    return Attempt(
        id=ident,
        problem_id=ident.partition(".")[0],
        round=1,
        turn=0,
        model="m",
        messages=(ChatMessage(role="user", content="prove"),),
        completion=proof,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        seed=0,
        proof=proof,
    )


def failed(folder: Path) -> tuple[Artifact, tuple[Artifact, Artifact]]:
    """Two shards of one problem each, with two failures of which one is too long to be corrected."""
    problems = ArtifactWriter(folder / "p", {"stage": "problems"}, 2)
    attempts = ArtifactWriter(folder / "a", {"stage": "sample"}, 2)
    verdicts = ArtifactWriter(folder / "v", {"stage": "verify"}, 2)
    for index, name in enumerate("pq"):
        problems.write(index, [Problem(id=name, header="", formal_statement=f"theorem {name} : True")])
        attempts.write(index, [attempt(f"{name}.0", "by long"), attempt(f"{name}.1", "by rfl")])
        verdicts.write(index, [Verdict(attempt_id=f"{name}.{i}", status="failed", reason="no") for i in (0, 1)])
    return problems.finish({"problems": 2}), (attempts.finish({}), verdicts.finish({}))


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_what_does_not_fit_is_counted_also_after_a_kill(tmp_path: Path, killed_after: int) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text(
        "".join(json.dumps({"request_id": f"{n}/r1.t1.1", "completions": ["by simp"]}) + "\n" for n in "pq")
    )
    problems, judged = failed(tmp_path)
    notes = Notes()

    class Killed(Exception):
        pass

    def run(out: Path, stop: int) -> Artifact:
        def on_shard(_: Artifact, index: int) -> None:
            if index + 1 == stop:
                raise Killed

        return correct.run(
            out,
            problems=problems,
            failed=[judged],
            model=Model(tmp_path, "x", "m"),
            lease=Lease(ScriptedConfig(type="scripted", path=script)),
            prompt=PLAIN,
            sampling=SamplingConfig(),
            config=CorrectConfig(turns=1),
            series="r1",
            round=1,
            turn=1,
            seed=0,
            progress=notes,
            on_shard=on_shard,
        )

    if killed_after:
        with pytest.raises(Killed):
            run(tmp_path / "c", killed_after)
    made = run(tmp_path / "c", 0)
    assert [a.parent_id for a in made.read(Attempt)] == ["p.1", "q.1"]
    assert read_manifest(made.path).counts == {"attempts": 2, "unasked": 2, "cut": 0}
    assert notes.lines == ["r1 turn 1: 2 corrections do not fit the model's context and were not asked"]
