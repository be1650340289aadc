"""Audited verdicts raised to certified ones, with a scripted process in Lean's place."""

import sys
from collections import Counter
from pathlib import Path

from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from lean_env.worker import Launch
from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.progress import Silent
from prover.records import Attempt, Problem, Verdict
from prover.stages import certify, verify

SCRIPT = Path(__file__).parents[1] / "lean_env" / "scripted_lean.py"
PROOFS = ("ok", "wrong", "lie", "ok", "ok 2")
"""Of each problem; ``lie`` is what only the worker that elaborates accepts."""


class Scripted:
    version = "scripted 1"

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(SCRIPT)), {})


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def artifacts(folder: Path) -> tuple[Artifact, Artifact]:
    problems = ArtifactWriter(folder / "p", {"stage": "problems"}, 2)
    attempts = ArtifactWriter(folder / "a", {"stage": "sample"}, 2)
    for index, ident in enumerate(("p", "q")):
        problems.write(index, [Problem(id=ident, header="", formal_statement="theorem t : True")])
        tried = [
            Attempt(
                id=f"{ident}.{number}", problem_id=ident, round=0, turn=0, model="m", messages=(), completion=proof,
                finish_reason="stop", prompt_tokens=0, completion_tokens=0, seed=0, proof=proof,
            )
            for number, proof in enumerate(PROOFS)
        ]  # fmt: skip
        attempts.write(index, tried)
    return problems.finish({"problems": 2}), attempts.finish({})


def test_audited_proofs_are_certified_or_are_none(tmp_path: Path) -> None:
    problems, attempts = artifacts(tmp_path)
    notes = Notes()
    with LeanPool(Scripted(), 1) as pool:

        def verified(name: str, certify: bool, earlier: list[verify.Judged]) -> Artifact:
            return verify.run(
                tmp_path / name, problems=problems, attempts=attempts, pool=pool, limits=Limits(), series="s",
                progress=notes, earlier=earlier, certify=certify,
            )  # fmt: skip

        audited = verified("audited", False, [])
        assert Counter(v.level for v in audited.read(Verdict)) == {"audited": 8, "": 2}
        assert pool.stats.certifications == 0 and not notes.lines
        raised = certify.run(
            tmp_path / "raised", problems=problems, judged=(attempts, audited), pool=pool, limits=Limits(), series="s",
            progress=notes,
        )  # fmt: skip
        assert pool.stats.certifications == 6, "each text once: ok, lie and ok 2 of two problems"
        checks = pool.stats.checks
        again = verified("again", True, [(attempts, audited)])
        assert pool.stats.checks - checks == 6, "what is only audited is not taken over where certified is wanted"
        once_more = verified("once more", True, [(attempts, raised)])
        assert pool.stats.checks - checks == 6, "what is certified is"
    expected = {
        "ok": ("proved", "certified"),
        "wrong": ("failed", ""),
        "lie": ("failed", ""),
        "ok 2": ("proved", "certified"),
    }
    for artifact in (raised, again, once_more):
        assert [(v.status, v.level) for v in artifact.read(Verdict)] == [expected[proof] for proof in PROOFS] * 2
    assert read_manifest(raised.path).counts == {"verdicts": 10, "proved": 6, "certified": 6, "disagreements": 2}
    assert read_manifest(again.path).counts["disagreements"] == 2
    assert len(notes.lines) == 3 and notes.lines[0].startswith("s: 2 proofs were accepted where they were elaborated")
