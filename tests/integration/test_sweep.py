"""A sweep with real Lean: a tiny model that has learned one proof is averaged with what it was tuned from."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prover.artifacts import ArtifactWriter, open_artifact, read_manifest
from prover.cli import app
from prover.pretrained import read_checkpoint
from prover.records import Attempt, ChatMessage, TrainingExample
from prover.sweep import RULE, SweepPoint, best

STATEMENTS = {name: f"theorem {name} (a b : Nat) : {text}" for name, text in
              (("one", "a + b = b + a"), ("two", "a ≤ a + b"), ("three", "b ≤ a + b"))}  # fmt: skip
PLAIN = ["--set", "prompt.template=plain"]


def prover(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.stdout


def point(weight: float, **passed: float) -> SweepPoint:
    return SweepPoint(tuned_weight=weight, passed={k.removeprefix("k"): v for k, v in passed.items()}, scores="")


def test_the_rule_that_chooses() -> None:
    assert best([point(0.5, k1=9, k8=40), point(0.6, k1=1, k8=41)]).tuned_weight == 0.6
    assert best([point(0.5, k8=40, k16=50, k1=9), point(0.6, k8=45, k16=50, k1=8)]).tuned_weight == 0.5
    assert best([point(0.9, k1=9, k8=40), point(0.6, k1=9, k8=40), point(0.7, k1=9, k8=40)]).tuned_weight == 0.6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base/model``, and ``tuned/model``, which answers ``by omega``; the problems beside them."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = [{"id": name, "header": "", "formal_statement": text} for name, text in STATEMENTS.items()]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replies = [{"request_id": f"{name}/s.t0", "completions": ["by omega"]} for name in STATEMENTS]
    (folder / "script.jsonl").write_text("".join(json.dumps(row) + "\n" for row in replies))
    small = ["--vocab-size", 400, "--hidden-size", 32, "--layers", 1, "--context", 128]
    prover("init-model", folder / "p.jsonl", "--out", folder / "base", *small)
    base = ["--model", folder / "base" / "model"]
    scripted = ["-s", "engine.type=scripted", "-s", f"engine.path={folder / 'script.jsonl'}"]
    prover("sample", folder / "p.jsonl", *base, "--out", folder / "sample", "-n", 1, *scripted, *PLAIN)
    writer = ArtifactWriter(folder / "examples", {"stage": "select"}, 0)
    answered = [
        TrainingExample(
            id=attempt.id,
            messages=(*attempt.messages, ChatMessage(role="assistant", content=attempt.completion)),
            problem_id=attempt.problem_id,
            attempt_id=attempt.id,
        )
        for attempt in open_artifact(folder / "sample").read(Attempt)
    ]
    writer.append(answered)
    writer.finish({"examples": len(answered)})
    steps = ["-s", "sft.steps=60", "-s", "sft.batch_tokens=256", "-s", "sft.warmup_steps=3"]
    prover("sft", folder / "examples", *base, "--out", folder / "tuned", *steps, "-s", "sft.learning_rate=0.01")
    return folder


def test_a_sweep_keeps_the_best_and_goes_on_where_it_was(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    command = [
        *("average", models / "tuned" / "model", "--base", models / "base" / "model", "--out", out, *PLAIN),
        *("--sweep", "1,0.02", "--problems", models / "p.jsonl", "--workers", 1, "-s", "sampling.max_tokens=12"),
        *("-s", "evaluate.n=1", "-s", "evaluate.k=[1]", "-s", "evaluate.temperature=0"),
    ]
    said = prover(*command)
    points = list(open_artifact(out).read(SweepPoint))
    assert [p.tuned_weight for p in points] == [0.02, 1.0]
    assert points[0].passed["1"] < points[1].passed["1"] == 100
    chosen = best(points)
    assert [p.chosen for p in points] == [p is chosen for p in points]
    assert read_manifest(out).counts["tuned_weight"] == chosen.tuned_weight
    assert "tuned weight" in said and f"best: {RULE}" in said and f"model: {out / 'model'}" in said

    weights = (out / "model" / "model.safetensors").read_bytes()
    made = read_checkpoint(out / "model")
    assert made is not None and made.path == "model"
    assert (out / made.parents[0]).resolve() == (models / "tuned" / "model").resolve()
    assert [p.name for p in out.rglob("model.safetensors")] == ["model.safetensors"], "one model stays on the disk"

    assert prover(*command) == said, "a finished sweep is returned as it is"
    before = {p: p.stat().st_mtime_ns for p in out.glob("weight_*/verdicts/*")}
    # as a kill in the last evaluation leaves it
    for lost in ("artifact.json", "00000.jsonl", "weight_1/scores/artifact.json", "weight_1/verdicts/artifact.json"):
        (out / lost).unlink()
    shutil.rmtree(out / "model")
    assert prover(*command) == said
    assert (out / "model" / "model.safetensors").read_bytes() == weights
    kept = {p: p.stat().st_mtime_ns for p in out.glob("weight_0*/verdicts/*")}
    assert kept and all(before[p] == time for p, time in kept.items()), "what was finished is not done again"

    # the same weights from a configuration, as `prover iterate` reads it
    (models / "c.toml").write_text(
        '[average]\nsweep = [1, 0.02]\n[average.validate_on]\nsource = "jsonl"\npath = "p.jsonl"\n'
    )
    place = command.index("--sweep")
    assert prover(*command[:place], *command[place + 2 :], "--config", models / "c.toml") == said

    trial = CliRunner().invoke(app, [str(a) for a in [*command, "-s", "average.method=ties"]])
    assert trial.exit_code == 2 and "was made by another recipe" in trial.stderr


def test_sweeps_of_task_vectors_and_mistakes(models: Path, tmp_path: Path) -> None:
    base, tuned = models / "base" / "model", models / "tuned" / "model"
    for method in ("ties", "dare", "breadcrumbs"):
        chosen = ["--base", base, "--out", tmp_path / method, "-s", f"average.method={method}"]
        done = CliRunner().invoke(app, ["average", *(str(a) for a in (tuned, tuned, *chosen))])
        assert f"model: {tmp_path / method / 'model'}" in done.stdout
        assert f"{method} average: done, 11 tensors" in done.stderr
    for arguments, line in (
        (["average", tuned, "-s", "average.method=ties"], "ties keeps changes from a base model; name it with --base"),
        (["average", tuned, "--problems", "p"], "give --sweep too, or set average.sweep"),
        (["average", tuned, "--sweep", "0.5"], "--sweep needs --base DIR"),
        (["average", tuned, "--base", base, "--sweep", "0.5,x", "--problems", "p"], "write numbers with commas"),
        (["average", tuned, "--base", base, "--sweep", "1.5", "--problems", "p"], "--sweep 1.5: tuned_weight: Input"),
        (["average", tuned, "-s", "average.method=slerp"], "average: method: Input should be 'linear', 'ties'"),
        (["average", tuned, "-s", "average.densty=1"], "unknown key 'average.densty'"),
        (["average", tuned, "-s", "average.method=ties", "-s", "average.densty=1"], "did you mean 'density'?"),
    ):
        result = CliRunner().invoke(app, [str(a) for a in [*arguments, "--out", tmp_path / "x"]])
        assert result.exit_code == 2 and line in " ".join(result.stderr.replace("│", " ").split()), result.stderr
