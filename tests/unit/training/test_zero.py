"""Every number of processes and every ZeRO stage trains the same weights but for rounding, and goes on from what any
other left behind."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prover.config import DeepSpeedLaunch
from prover.errors import ConfigError, TrainingError
from prover.pretrained import load_model, load_tokenizer, read_checkpoint
from prover.training.job import Job, SftJob
from prover.training.loop import train
from prover.training.zero_options import OURS, options

from .test_sft import ROOT, job

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
STAGES = (0, 1, 2, 3)
WORLD = 2


def sharded(stage: int, **more: object) -> dict[str, object]:
    return {"type": "deepspeed", "zero": stage, "micro_batch_tokens": 64, **more}


def whole(base: Path, examples: Path, out: Path, launch: dict[str, object], precision: str = "float32") -> SftJob:
    return job(base, examples, out, launch=launch, precision=precision)


def other_kinds(base: Path, examples: Path, folder: Path) -> dict[str, Job]:
    """Adapters, and an early stop that goes back to the best weights; preferences are in ``test_dpo.py``."""
    common = {"launch": {"micro_batch_tokens": 64}, "precision": "float32"}
    stop = {"holdout": 0.3, "patience": 2, "learning_rate": 2e-2, "steps": 40}
    return {
        "lora": job(base, examples, folder / "lora", lora={"rank": 4}, **common),
        "stop": job(base, examples, folder / "stop", **stop, **common),
    }


class Trained:
    """Jobs that one launch of two processes has run, each in a folder of its own."""

    def __init__(self, folder: Path, base: Path, examples: Path) -> None:
        self.folder = folder
        one = {"micro_batch_tokens": 64}
        train(whole(base, examples, folder / "single", one))
        train(whole(base, examples, folder / "single16", one, "bfloat16"))

        def stop(progress: object) -> None:
            if progress.step == 10:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(whole(base, examples, folder / "left", one), stop)
        plan: list[dict[str, object]] = []

        def planned(name: str, launch: dict[str, object], precision: str = "float32", **more: object) -> None:
            made = whole(base, examples, folder / name, launch, precision)
            plan.append({"job": made.model_dump(mode="json"), **more})

        for stage in STAGES:
            if stage == 3:  # from here on transformers splits every model
                planned("offload1", sharded(1, offload="optimizer"))
                planned("offload2", sharded(2, offload="optimizer", activation_checkpointing=True))
            shutil.copytree(folder / "left", folder / f"single-to-{stage}")
            planned(f"zero{stage}", sharded(stage), keep=str(folder / f"{stage}-to-single"))
            planned(f"half{stage}", sharded(stage), "bfloat16", keep=str(folder / f"half{stage}-to-single"))
            planned(f"single-to-{stage}", sharded(stage))
        planned("offload3", sharded(3, offload="parameters", activation_checkpointing=True))
        for name, made in other_kinds(base, examples, folder).items():
            train(
                made.model_copy(
                    update={"output": folder / f"{name}-single/model", "work": folder / f"{name}-single/work"}
                )
            )
            again = DeepSpeedLaunch.model_validate(sharded(3, activation_checkpointing=True))
            launched = made.model_copy(update={"launch": again})
            plan.append({"job": launched.model_dump(mode="json")})
        file, script = folder / "plan.json", Path(__file__).with_name("many.py")
        file.write_text(json.dumps(plan))
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}", script, file],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6_000:]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "model" / "model.safetensors")

    def distance(self, name: str, other: str) -> float:
        ours, theirs = self.weights(name), self.weights(other)
        assert ours.keys() == theirs.keys()
        return max((ours[key] - theirs[key]).abs().max().item() for key in ours)

    def losses(self, name: str) -> list[float]:
        return json.loads((self.folder / name / "model" / "losses.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path, examples: Path) -> Trained:
    return Trained(tmp_path_factory.mktemp("zero"), base, examples)


@needs_deepspeed
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_what_one_process_does(trained: Trained, stage: int) -> None:
    assert trained.distance(f"zero{stage}", "single") < 2e-5
    assert len(trained.losses(f"zero{stage}")) == 20
    assert not (trained.folder / f"zero{stage}" / "work").exists()


@needs_deepspeed
@pytest.mark.parametrize("stage", STAGES)
def test_in_bfloat16_every_stage_learns_alike(trained: Trained, stage: int) -> None:
    """The sums are rounded coarsely; what is compared is where training gets to."""
    assert 1e-4 < trained.distance(f"half{stage}", "single") < 2e-2
    exact, rounded = trained.losses("zero0"), trained.losses(f"half{stage}")
    assert all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(exact, rounded, strict=True))


@needs_deepspeed
@pytest.mark.parametrize("name", ["offload1", "offload2", "offload3"])
def test_offload_and_checkpointing_change_no_weight(trained: Trained, name: str) -> None:
    assert trained.distance(name, "single") < 2e-5


@needs_deepspeed
@pytest.mark.parametrize("stage", STAGES)
def test_what_one_process_left_is_gone_on_with_by_many(trained: Trained, stage: int) -> None:
    assert len(trained.losses(f"single-to-{stage}")) == 12  # of 20: eight were done
    assert trained.distance(f"single-to-{stage}", "single") < 2e-5


@needs_deepspeed
@pytest.mark.parametrize("stage", STAGES)
def test_what_many_left_is_gone_on_with_by_one(trained: Trained, base: Path, examples: Path, stage: int) -> None:
    for name, other, precision in (
        (f"{stage}-to-single", "single", "float32"),
        (f"half{stage}-to-single", "single16", "bfloat16"),
    ):
        steps: list[int] = []
        made = whole(base, examples, trained.folder / name, {"micro_batch_tokens": 64}, precision)
        train(made, lambda p, seen=steps: seen.append(p.steps))
        assert steps == [8] + 12 * [1]
        assert trained.distance(name, other) < (2e-5 if precision == "float32" else 2e-2)


@needs_deepspeed
@pytest.mark.parametrize("name", ["lora", "stop"])
def test_every_kind_of_training_is_the_same_split(trained: Trained, name: str) -> None:
    assert trained.distance(name, f"{name}-single") < 5e-5
    one, many = (read_checkpoint(trained.folder / folder / "model") for folder in (f"{name}-single", name))
    assert one is not None and many is not None
    assert one.step == many.step


@needs_deepspeed
def test_transformers_loads_what_was_split(trained: Trained) -> None:
    folder = trained.folder / "zero3" / "model"
    model, one = (
        load_model(folder, torch.float32, "cpu"),
        load_model(trained.folder / "single/model", torch.float32, "cpu"),
    )
    ids = load_tokenizer(folder)("omega", return_tensors="pt")["input_ids"]
    assert model.config.tie_word_embeddings
    assert "lm_head.weight" not in trained.weights("zero3")
    assert torch.allclose(model(ids).logits, one(ids).logits, atol=1e-3)


def test_the_state_of_many_must_be_whole(base: Path, examples: Path, tmp_path: Path) -> None:
    """What a kill left unfinished is no state; a whole one that lost a part is named."""
    made = job(base, examples, tmp_path)
    unfinished = made.work / ".step-00000016.tmp"
    unfinished.mkdir(parents=True)
    (unfinished / "part-00000.safetensors").write_bytes(b"torn")

    def stop(progress: object) -> None:
        if progress.step == 9:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, stop)
    assert not unfinished.exists()
    (state,) = made.work.iterdir()
    about = state / "state.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "parts": 2}))
    with pytest.raises(TrainingError, match="step-00000008: is damaged"):
        train(made)


@pytest.mark.parametrize("key", ["optimizer", "train_batch_size", "fp16"])
def test_what_is_decided_elsewhere_is_refused_by_name(tmp_path: Path, key: str) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({key: {}}))
    with pytest.raises(ConfigError, match=f"sets {key}, .* set {OURS[key].split()[0]}"):
        options(DeepSpeedLaunch(type="deepspeed", config=file), "cpu", False)


def test_further_options_are_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"wall_clock_breakdown": True, "zero_optimization": {"overlap_comm": True}}))
    told = options(DeepSpeedLaunch(type="deepspeed", config=file, zero=3), "cuda", True)
    assert told["wall_clock_breakdown"] is True
    assert told["zero_optimization"] == {"stage": 3, "overlap_comm": True}
    assert told["bf16"]["enabled"] is True
    file.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    with pytest.raises(ConfigError, match=r"sets zero_optimization\.stage.* set launch\.zero"):
        options(DeepSpeedLaunch(type="deepspeed", config=file), "cpu", False)
    for text, line in (("[]", "must be a JSON object"), ("{", "is not JSON")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=line):
            options(DeepSpeedLaunch(type="deepspeed", config=file), "cpu", False)
    with pytest.raises(ConfigError, match="cannot be read"):
        options(DeepSpeedLaunch(type="deepspeed", config=tmp_path / "none.json"), "cpu", False)
