"""A small run directory made of real artifacts, so that reports can be tested without Lean and without a model."""

from pathlib import Path

from prover.artifacts import ArtifactWriter, write_json
from prover.config import IterateConfig
from prover.records import Attempt, ChatMessage, Message, Premise, Problem, Record, TrainingExample, Verdict
from prover.stages.evaluate import ProblemScore

CONFIG = {
    "rounds": 2,
    "train": {"source": "core", "split": "train"},
    "evaluate_on": {"heldout": {"source": "core", "split": "test"}},
    "model": {"type": "init"},
    "cold": {"type": "tactics", "tactics": ["by simp"]},
    "evaluate": {"n": 8, "k": [1, 8], "control_n": 32, "portfolio": True},
}
PROBLEMS = [
    Problem(
        id=f"core/Nat.{name}",
        header="set_option autoImplicit false",
        formal_statement=f"theorem target (a b : Nat) : {statement}",
        source="core",
        split="train",
        forbidden_constants=(f"Nat.{name}", f"Nat.{name}.*"),
        premises=(Premise(name="Nat.add_assoc"),),
    )
    for name, statement in [("add_comm", "a + b = b + a"), ("mul_comm", "a * b = b * a"), ("zero_le", "0 ≤ a")]
]


def attempt(ident: str, problem: Problem, proof: str | None, round: int = 1) -> Attempt:
    return Attempt(
        id=ident,
        problem_id=problem.id,
        round=round,
        turn=0,
        model="m",
        messages=(ChatMessage(role="user", content=problem.formal_statement),),
        completion=proof or "no idea",
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=7,
        seed=1,
        proof=proof,
    )


def artifact(path: Path, stage: str, records: list[Record] | list[Verdict], **counts: float) -> None:
    writer = ArtifactWriter(path, {"stage": stage, "here": path.name}, 1)
    writer.write(0, records)
    writer.finish(counts)


def figures(one: float, eight: float, **more: float) -> dict[str, float]:
    found: dict[str, float] = {"problems": 40, "attempts": 320, "solved": 20, "distinct_proofs": 31, **more}
    for name, value in (("pass@1", one), ("pass@8", eight), ("beyond_pass@8", 4.0)):
        found |= {name: value, f"{name}_low": value - 2, f"{name}_high": value + 3}
    return found


def make_run(run: Path) -> Path:
    """Rounds 0 and 1 are done; round 2 has sampled one shard; the control is owed."""
    run.mkdir()
    write_json(run / "config.json", IterateConfig.model_validate(CONFIG).model_dump(mode="json"))
    first, second, third = PROBLEMS
    artifact(run / "problems" / "train", "problems", PROBLEMS, problems=3)
    artifact(run / "problems" / "heldout", "problems", [third], problems=40)
    score = [ProblemScore(problem_id=third.id, n=8, proved=3, distinct=2, first=1, beyond=False)]
    listed = figures(41.0, 63.7, **{"pass@all": 64.3, "pass@all_low": 60, "pass@all_high": 69})
    artifact(run / "portfolio/heldout/scores", "evaluate", score, **listed)
    artifact(run / "round_00/cold_attempts", "tactics", [attempt("c0", first, "by simp", 0)], attempts=1)
    refused = Verdict(attempt_id="c0", status="failed", reason="elaboration: error")
    artifact(run / "round_00/cold_verdicts", "verify", [refused], verdicts=1, proved=0)
    artifact(run / "round_00/select", "select", [], examples=7, problems=2)
    artifact(run / "round_00/init", "init", [])
    artifact(run / "round_00/sft", "sft", [], steps=3)
    artifact(run / "round_00/evaluate/heldout/scores", "evaluate", score, **figures(2.8, 18.3))
    broken = "by\n  simp\n  exact foo"
    error = Message(severity="error", start=(3, 8), end=(3, 11), text="unknown identifier 'foo'")
    tries = [
        attempt("s0", first, broken),
        attempt("s1", first, broken + "  -- again"),
        attempt("s2", first, "by omega"),
        attempt("s3", first, None),
        attempt("s4", second, "by grind"),
    ]
    verdicts = [
        Verdict(attempt_id="s0", status="failed", reason="elaboration: error", messages=(error,)),
        Verdict(attempt_id="s1", status="failed", reason="elaboration: error", messages=(error,)),
        Verdict(attempt_id="s2", status="proved"),
        Verdict(attempt_id="s3", status="no_proof", reason="text: the answer holds no proof"),
        Verdict(attempt_id="s4", status="timeout", reason="limits: processor time"),
    ]
    artifact(run / "round_01/sample", "sample", tries, attempts=5, tokens=35)
    artifact(run / "round_01/verify", "verify", verdicts, verdicts=5, proved=1, failed=2)
    example = TrainingExample(
        id="s2/proof",
        messages=(*tries[2].messages, ChatMessage(role="assistant", content="by omega")),
        problem_id=first.id,
        attempt_id=f"{first.id}/r2.t0.0",
    )
    artifact(run / "round_01/select", "select", [example], examples=1, problems=1)
    artifact(run / "round_01/sft", "sft", [], steps=3)
    artifact(run / "round_01/evaluate/heldout/scores", "evaluate", score, **figures(21.4, 50.7))
    ArtifactWriter(run / "round_02/sample", {"stage": "sample"}, 2).write(0, tries[:1])
    return run
