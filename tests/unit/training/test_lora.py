"""Adapters learn with the base frozen, merge to an ordinary model exactly, and are PEFT's own."""

import importlib.util
import json
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from prover.pretrained import load_model, load_tokenizer, stored_dtype
from prover.training.curve import read_curve
from prover.training.job import TrainingProgress
from prover.training.launch import run as launched
from prover.training.loop import train

from .conftest import WORDS, example, write_examples
from .test_sft import greedy, job, stop_at, weights

LORA = {"rank": 8, "alpha": 16.0}


@pytest.fixture(scope="module")
def started(base: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can look at its prompt: adapters change what layers do, not what tokens are."""
    out = tmp_path_factory.mktemp("started")
    train(job(base, examples, out, steps=130, learning_rate=6e-3))
    return out / "model"


def following(word: str) -> str:
    return WORDS[(WORDS.index(word) + 1) % len(WORDS)]


def logits(model: torch.nn.Module, base: Path) -> torch.Tensor:
    ids = load_tokenizer(base)([" ".join(WORDS)], return_tensors="pt")["input_ids"][:, :48]
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_adapters_learn_and_merge_to_what_they_compute(started: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    seen: list[TrainingProgress] = []
    base, out = started, tmp_path / "model"
    turned = [
        msgspec.structs.replace(
            example(word), messages=(example(word).messages[0], example(following(word)).messages[1])
        )
        for word in WORDS
    ]
    other = write_examples(tmp_path / "other.jsonl", turned)
    train(job(base, other, tmp_path, steps=100, learning_rate=1e-2, lora=LORA), seen.append)
    assert seen[-1].loss < 0.2 < 2 < seen[0].loss
    assert [greedy(out, word) for word in WORDS] == [following(word)[::-1] for word in WORDS]
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("proj.weight")}
    adapter = out / "adapter"
    told = json.loads((adapter / "adapter_config.json").read_text())
    assert (adapter / told["base_model_name_or_path"]).resolve() == base.resolve()
    assert (told["r"], told["lora_alpha"], told["peft_type"]) == (8, 16.0, "LORA")
    whole = logits(load_model(out, torch.float32, "cpu"), base)
    applied = logits(PeftModel.from_pretrained(load_model(base, torch.float32, "cpu"), adapter), base)
    assert torch.allclose(whole, applied, atol=1e-4), (whole - applied).abs().max()
    assert not torch.allclose(whole, logits(load_model(base, torch.float32, "cpu"), base), atol=0.1)


def test_states_hold_adapters_alone_and_resume_to_the_same_bytes(base: Path, examples: Path, tmp_path: Path) -> None:
    train(job(base, examples, tmp_path / "whole", lora=LORA))
    cut = job(base, examples, tmp_path / "cut", lora=LORA)
    with pytest.raises(KeyboardInterrupt):
        train(cut, stop_at(13))
    (state,) = cut.work.glob("step-*")
    assert state.name == "step-00000008"
    (part,) = state.glob("*.safetensors")
    assert all(".lora_" in name for name in load_file(part))
    train(cut)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    files = {
        name: {p.name: p.read_bytes() for p in sorted((tmp_path / name / "model" / "adapter").iterdir())}
        for name in ("whole", "cut")
    }
    assert files["whole"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert files["whole"] == files["cut"]


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not here")
def test_two_processes_that_share_all_weights_train_the_same_adapters(
    base: Path, examples: Path, tmp_path: Path
) -> None:
    made: list[dict[str, torch.Tensor]] = []
    for name, launch in (("one", {}), ("two", {"type": "deepspeed", "processes": 2, "zero": 3})):
        told = {"lora": LORA, "holdout": 0.2, "patience": 9, "steps": 10, "precision": "float32"}
        wanted = job(base, examples, tmp_path / name, launch={**launch, "micro_batch_tokens": 64}, **told)
        launched(wanted)
        made.append({**load_file(wanted.output / "model.safetensors")})
        made[-1] |= load_file(wanted.output / "adapter/adapter_model.safetensors")
    assert made[0].keys() == made[1].keys()
    assert all(torch.allclose(made[0][name], made[1][name], atol=2e-4) for name in made[0])
    one, two = (read_curve(tmp_path / name / "model.curve.jsonl") for name in ("one", "two"))
    assert [step.step for step in one] == [step.step for step in two] == list(range(1, 11))
    for ours, theirs in zip(one, two):
        assert (ours.loss, ours.eval_loss) == pytest.approx((theirs.loss, theirs.eval_loss), abs=1e-4)


def test_the_merged_dtype_is_the_base_models(base: Path, examples: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    load_model(base, torch.bfloat16, "cpu").save_pretrained(half)
    for file in base.iterdir():
        if not (half / file.name).exists():
            (half / file.name).write_bytes(file.read_bytes())
    train(job(half, examples, tmp_path, steps=3, lora=LORA))
    model = tmp_path / "model"
    assert {t.dtype for t in load_file(model / "model.safetensors").values()} == {torch.bfloat16}
    assert {t.dtype for t in load_file(model / "adapter/adapter_model.safetensors").values()} == {torch.float32}
    assert stored_dtype(model) == "bfloat16"
