"""Every stage as a command of its own, one on the other's output, with real Lean and a real (tiny) model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prover.artifacts import read_manifest
from prover.cli import app

PROBLEMS = [
    ("add", "theorem add (a b : Nat) : a + b = b + a", ["by omega", "by rfl"]),
    ("or", "theorem or (p q : Prop) (h : p ∨ q) : q ∨ p", ["by exact h", "h.symm"]),
    ("wrong", "theorem wrong (a : Nat) : a < a", ["by omega", "by sorry"]),
]
"""Name, statement, what the script answers."""
CORRECTIONS = {"wrong": "by simp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


def prover(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.stdout


def replayed(script: Path) -> list[str]:
    """Options for completions from a file."""
    return ["--set", "engine.type=scripted", "--set", f"engine.path={script}"]


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def statuses(path: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (path / "00000.jsonl").read_text().splitlines()]
    return {row["attempt_id"]: row["status"] for row in rows}


def test_the_stages_chain(folder: Path) -> None:
    problems = lines(
        folder / "p.jsonl", [{"id": name, "header": "", "formal_statement": text} for name, text, _ in PROBLEMS]
    )
    script = lines(
        folder / "script.jsonl",
        [{"request_id": f"{name}/s.t0", "completions": answers} for name, _, answers in PROBLEMS],
    )
    small = ["--vocab-size", 400, "--hidden-size", 32, "--layers", 1, "--context", 128]
    prover("init-model", problems, "--out", folder / "base", *small)
    model = folder / "base" / "model"
    plain = ["--set", "prompt.template=plain"]

    sampling = [problems, "--model", model, "--out", folder / "sample", "-n", 2, *replayed(script), *plain]
    said = prover("sample", *sampling)
    assert "6 attempts" in said
    assert prover("sample", *sampling) == said, "a finished stage is returned as it is"

    (shards,) = (folder / "problems").iterdir()
    verify = ["--problems", problems, "--workers", 1]
    prover("verify", folder / "sample", "--out", folder / "verify", *verify)
    assert statuses(folder / "verify") == {
        **{"add/s.t0.0": "proved", "add/s.t0.1": "failed", "or/s.t0.0": "failed", "or/s.t0.1": "proved"},
        **{"wrong/s.t0.0": "failed", "wrong/s.t0.1": "sorry"},
    }

    told = ["--no-certify", "--set", "correct.turns=1", "--set", "prompt.template=chat"]
    prover("verify", folder / "sample", "--out", folder / "audited", *verify, *told)
    assert read_manifest(folder / "audited").recipe["feedback"] == "goals", "corrections by this template show goals"
    certify = [folder / "sample", "--verdicts", folder / "audited", "--out", folder / "certified", *verify]
    assert "2 certified, 0 disagreements, 2 proved" in prover("certify", *certify)
    assert statuses(folder / "certified") == statuses(folder / "verify")

    again = lines(
        folder / "again.jsonl",
        [{"request_id": f"wrong/s.t1.{number}", "completions": [CORRECTIONS["wrong"]]} for number in range(2)],
    )
    judged = ["--problems", shards, "--verdicts", folder / "verify"]
    correct = ["--model", model, "--out", folder / "correct", *replayed(again), *plain]
    assert "2 attempts" in prover("correct", folder / "sample", *judged, *correct)
    prover("verify", folder / "correct", "--out", folder / "verify_1", *verify)
    assert set(statuses(folder / "verify_1").values()) == {"failed"}

    judgements: list[object] = []
    for attempts, verdicts in (("sample", "verify"), ("correct", "verify_1")):
        judgements += ["--attempts", folder / attempts, "--verdicts", folder / verdicts]
    said = prover("select", "--problems", shards, *judgements, "--out", folder / "select", *plain)
    assert "2 examples" in said and "2 problems" in said

    training = ["--config", folder / "training.toml", "--set", "sft.steps=3"]
    (folder / "training.toml").write_text("rounds = 9\n[sft]\nsteps = 99\nbatch_tokens = 256\nwarmup_steps = 0\n")
    prover("sft", folder / "select", "--model", model, "--out", folder / "sft", *training)
    said = prover("pairs", "--problems", shards, *judgements, "--out", folder / "pairs")
    assert "2 pairs" in said and "0 corrections" in said
    prover(
        "dpo", folder / "pairs", "--model", folder / "sft" / "model", "--out", folder / "dpo", "--set", "dpo.steps=2"
    )
    assert (folder / "dpo" / "model" / "model.safetensors").exists()
    result = CliRunner().invoke(
        app, ["dpo", str(folder / "select"), "--model", str(model), "--out", str(folder / "no")]
    )
    assert result.exit_code == 2 and "holds no preference pairs; give the folder that `prover pairs`" in result.output
    prover("average", folder / "dpo" / "model", model, "--out", folder / "mean", "--weight", 3, "--weight", 1)
    assert (folder / "mean" / "model" / "model.safetensors").exists()

    evaluation = ["-n", 2, "-k", 1, "-k", 2, "--set", "sampling.max_tokens=8", "--workers", 1, *plain]
    said = prover("evaluate", shards, "--model", folder / "mean" / "model", "--out", folder / "scores", *evaluation)
    assert "pass@1" in said and "pass@2" in said


def test_the_tactic_list_is_a_baseline(folder: Path) -> None:
    name, text, _ = PROBLEMS[0]
    problems = lines(folder / "one.jsonl", [{"id": name, "header": "", "formal_statement": text}])
    said = prover(
        "evaluate", problems, "--portfolio", "--out", folder / "list", "--workers", 1, "-s", "prompt.template=plain"
    )
    assert "pass@all 100.0" in said


def test_an_evaluation_that_leaves_the_solved(folder: Path) -> None:
    """The script holds no answer beyond those that the plan of n = 4 and enough = 1 draws: 1, 2 and 4."""
    problems = lines(
        folder / "left.jsonl", [{"id": name, "header": "", "formal_statement": text} for name, text, _ in PROBLEMS]
    )
    drawn = {"add": ["by omega"], "or": ["by exact h", "by exact h.symm"], "wrong": ["by rfl"] * 4}
    script = lines(
        folder / "left_script.jsonl", [{"request_id": f"{name}/e.t0", "completions": a} for name, a in drawn.items()]
    )
    model = folder / "left_model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    command = ["evaluate", problems, "--model", model, "--out", folder / "left", "-n", 4, "-k", 1, "-k", 4]
    command += ["--workers", 1, *replayed(script), "-s", "prompt.template=plain", "-s", "evaluate.enough=1"]
    said = prover(*command)
    assert "2 solved with 2 tried each, on average" in said
    counts = read_manifest(folder / "left" / "scores").counts
    # add: proved at once, 1. or: a rule that stops at the first proof lets none come second but after a failure, 0.
    assert (counts["pass@1"], counts["pass@4"], counts["attempts"]) == (33.33, 66.67, 7)
    assert prover(*command) == said, "finished waves are taken as they are"
