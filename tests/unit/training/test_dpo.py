"""Preference optimization: its loss by hand, what the base model says kept once, and the same bytes after a kill."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prover.config import DpoConfig
from prover.errors import TrainingError
from prover.pretrained import load_model, load_tokenizer
from prover.records import ChatMessage, PreferencePair
from prover.training.batches import dealt, split
from prover.training.curve import read_curve
from prover.training.dpo import Preferences, tokenize_pairs
from prover.training.job import DpoJob, SftJob, TrainingProgress, read_job
from prover.training.loop import train
from prover.training.single import SingleProcess

from .conftest import WORDS

ROOT = Path(__file__).resolve().parents[3]


def pair(word: str, rejected: str | None = None, weight: float = 1.0) -> PreferencePair:
    """Reversed is right; the word as it is, is wrong."""
    return PreferencePair(
        id=f"{word}/proof",
        problem_id=word,
        messages=(ChatMessage(role="user", content=word),),
        chosen=word[::-1],
        rejected=word if rejected is None else rejected,
        chosen_attempt_id=f"{word}/1",
        rejected_attempt_id=f"{word}/0",
        weight=weight,
    )


def write_pairs(path: Path, pairs: list[PreferencePair]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(p) + b"\n" for p in pairs))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", [pair(word) for word in WORDS])


@pytest.fixture(scope="module")
def moved(base: Path) -> Any:
    """Another model than the base, of the same shape."""
    model = load_model(base, torch.float32, "cpu")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def job(base: Path, pairs: Path, out: Path, **changes: object) -> DpoJob:
    config = {"steps": 12, "batch_tokens": 256, "warmup_steps": 2, "learning_rate": 1e-3, "checkpoint_every": 5}
    config.update({k: v for k, v in changes.items() if k in DpoConfig.model_fields})  # type: ignore[dict-item]
    more = {k: v for k, v in changes.items() if k in DpoJob.model_fields}
    return DpoJob.model_validate(
        {
            "config": config,
            "base": base,
            "pairs": (pairs,),
            "output": out / "model",
            "work": out / "work",
            "seed": 1,
            "precision": "float32",
            **more,
        }
    )


def by_hand(model: Any, tokenizer: Any, word: str, answer: str) -> tuple[float, int]:
    """Log-probability of an answer and its end token, from the model's plain logits, and how many tokens they are."""
    talk = [{"role": "user", "content": word}]
    head = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(head, add_special_tokens=False)["input_ids"]
    ids = tokenizer(head + answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    places = range(len(prompt), len(ids))
    return sum(table[i - 1, ids[i]].item() for i in places), len(places)


def prepared(base: Path, pairs: Path, work: Path, beta: float = 0.1, sft_weight: float = 0.0) -> Preferences:
    tokenizer, model = load_tokenizer(base), load_model(base, torch.float32, "cpu")
    objective = Preferences(tokenize_pairs([pairs], tokenizer, 64, 512), beta, sft_weight)
    objective.prepare(alone(model), work, "recipe", 128, fast=False)
    return objective


def alone(model: Any) -> SingleProcess:
    backend = SingleProcess("cpu")
    backend.prepare(model, 0.0)
    return backend


@pytest.mark.parametrize(("beta", "sft_weight"), [(0.3, 0.0), (0.1, 0.5)])
def test_the_loss_is_that_of_the_paper(base: Path, moved: Any, tmp_path: Path, beta: float, sft_weight: float) -> None:
    made = [pair("append", weight=0.25), pair("rfl", "no way", weight=2.0)]
    objective = prepared(base, write_pairs(tmp_path / "p.jsonl", made), tmp_path, beta, sft_weight)
    reference, tokenizer = load_model(base, torch.float32, "cpu"), load_tokenizer(base)
    losses: list[float] = []
    ranked = 0
    for p in made:
        word = p.messages[0].content
        (chosen, count), (rejected, _) = (by_hand(moved, tokenizer, word, text) for text in (p.chosen, p.rejected))
        (chosen_0, _), (rejected_0, _) = (by_hand(reference, tokenizer, word, text) for text in (p.chosen, p.rejected))
        ahead = (chosen - chosen_0) - (rejected - rejected_0)
        ranked += ahead > 0
        losses.append(math.log(1 + math.exp(-beta * ahead)) - sft_weight * chosen / count)
    sums = objective.sums(moved, np.array([0, 1]), "cpu")
    assert sums.loss.item() == pytest.approx(0.25 * losses[0] + 2.0 * losses[1], abs=1e-5)
    assert sums.shown.item() == pytest.approx(sum(losses), abs=1e-5)
    assert objective.scale(np.array([0, 1])) == 2.25
    assert (sums.covered, sums.right is not None and sums.right.item()) == (2, ranked)
    one = objective.sums(moved, np.array([1]), "cpu")
    assert one.shown.item() == pytest.approx(losses[1], abs=1e-5)


def test_the_reference_is_the_base_model(base: Path, pairs: Path, tmp_path: Path) -> None:
    objective = prepared(base, pairs, tmp_path)
    tokenizer, model = load_tokenizer(base), load_model(base, torch.float32, "cpu")
    answers = [text for word in WORDS for text in (word[::-1], word)]
    for row, answer in enumerate(answers):
        expected, _ = by_hand(model, tokenizer, WORDS[row // 2], answer)
        assert objective.reference[row].item() == pytest.approx(expected, abs=1e-4)
    items = np.arange(len(WORDS))
    at_start = objective.sums(model, items, "cpu")
    assert at_start.shown.item() / len(WORDS) == pytest.approx(math.log(2), abs=1e-5)


def test_what_the_base_model_says_is_asked_once_for_a_recipe(
    base: Path, moved: Any, pairs: Path, tmp_path: Path
) -> None:
    first = prepared(base, pairs, tmp_path)
    other = Preferences(first.data, 0.1, 0.0)
    backend = alone(moved)
    other.prepare(backend, tmp_path, "recipe", 128, fast=False)
    assert torch.equal(first.reference, other.reference), "kept, or it would be the other model's"
    other.prepare(backend, tmp_path, "another recipe", 128, fast=False)
    assert not torch.equal(first.reference, other.reference)
    (tmp_path / "reference.safetensors").write_bytes(b"torn")
    again = prepared(base, pairs, tmp_path)
    assert torch.equal(first.reference, again.reference)


def test_a_step_raises_the_chosen_and_lowers_the_rejected(base: Path, pairs: Path, tmp_path: Path) -> None:
    objective = prepared(base, pairs, tmp_path)
    model, items = load_model(base, torch.float32, "cpu"), np.arange(len(WORDS))
    rows = np.arange(2 * len(WORDS))
    before, _ = objective.logps(model, rows, "cpu")
    objective.sums(model, items, "cpu").loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    after, _ = objective.logps(model, rows, "cpu")
    gained = (after - before).detach()
    assert gained[0::2].sum() > 0 > gained[1::2].sum()


def test_training_learns_what_is_preferred(base: Path, pairs: Path, tmp_path: Path) -> None:
    """And the chosen answers end likelier where their own loss is in it than under plain DPO."""
    tokenizer = load_tokenizer(base)
    chosen: list[float] = []
    for sft_weight in (0.0, 1.0):
        seen: list[TrainingProgress] = []
        out = tmp_path / str(sft_weight)
        train(job(base, pairs, out, steps=40, learning_rate=3e-3, sft_weight=sft_weight), seen.append)
        assert seen[-1].accuracy == 1.0 and seen[-1].loss < seen[0].loss
        assert seen[0].loss == pytest.approx(math.log(2), abs=1e-4) or sft_weight
        model = load_model(out / "model", torch.float32, "cpu")
        reversed_ = [by_hand(model, tokenizer, word, word[::-1])[0] for word in WORDS]
        plain = [by_hand(model, tokenizer, word, word)[0] for word in WORDS]
        assert all(right > wrong for right, wrong in zip(reversed_, plain))
        chosen.append(sum(reversed_))
        assert not (out / "work").exists()
    assert chosen[1] > chosen[0]


def test_resuming_after_kill_gives_the_same_bytes(base: Path, pairs: Path, tmp_path: Path) -> None:
    train(job(base, pairs, tmp_path / "whole"))
    cut = job(base, pairs, tmp_path / "cut")
    file = tmp_path / "job.json"
    file.write_text(cut.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "prover.training.process", str(file)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["step"] == 8:  # after the state of step 5
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert not cut.output.exists()
    kept = (cut.work / "reference.safetensors").stat().st_mtime_ns
    resumed: list[tuple[int, int]] = []
    train(
        cut,
        lambda p: resumed.append((p.step, (cut.work / "reference.safetensors").stat().st_mtime_ns)),
    )
    assert resumed[0] in ((5, kept), (10, kept)), "it goes on from its state, and asks the base model nothing again"
    ours, theirs = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("cut", "whole"))
    assert ours == theirs


def test_adapters_and_held_out_pairs(base: Path, pairs: Path, tmp_path: Path) -> None:
    """An adapted model begins as the base model does: nothing is ahead before the first step."""
    made = job(base, pairs, tmp_path, steps=40, learning_rate=2e-2, sft_weight=0, holdout=0.25, lora={"rank": 4})
    train(made)
    curve = read_curve(made.curve)
    assert curve[0].loss == pytest.approx(math.log(2), abs=1e-4) and curve[0].accuracy is not None
    held_out = [step.eval_loss for step in curve if step.eval_loss is not None]
    assert held_out[0] == pytest.approx(math.log(2), abs=0.05), "what the base model says of them is known too"
    assert len(curve) == 40 and curve[-1].loss < curve[0].loss - 0.05


def test_beta_and_weights_decide_what_is_learned(base: Path, tmp_path: Path) -> None:
    def tuned(name: str, made: list[PreferencePair], **changes: object) -> dict[str, torch.Tensor]:
        file = write_pairs(tmp_path / f"{name}.jsonl", made)
        train(job(base, file, tmp_path / name, steps=2, sft_weight=0, **changes))
        return load_file(tmp_path / name / "model" / "model.safetensors")

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)

    alone = tuned("alone", [pair("append")])
    assert same(alone, tuned("weightless", [pair("append"), pair("rfl", weight=0.0)]))
    assert not same(alone, tuned("both", [pair("append"), pair("rfl")]))
    assert not same(alone, tuned("firm", [pair("append")], beta=20.0))


def test_passes_are_small_and_change_only_rounding(base: Path, pairs: Path, tmp_path: Path) -> None:
    for name, micro in {"whole": None, "cut": 64}.items():
        train(job(base, pairs, tmp_path / name, launch={"micro_batch_tokens": micro}))
    whole, cut = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.allclose(whole[name], cut[name], atol=2e-4) for name in whole)
    assert any(not torch.equal(whole[name], cut[name]) for name in whole), "or nothing was cut"


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_two_processes_train_the_same_weights(base: Path, pairs: Path, tmp_path: Path) -> None:
    """With the model in halves too: both take part in each pass over the base model, and put their parts together."""
    one = {"micro_batch_tokens": 64}
    train(job(base, pairs, tmp_path / "single", launch=one))
    jobs = {
        f"zero{n}": job(base, pairs, tmp_path / f"zero{n}", launch={**one, "type": "deepspeed", "zero": n})
        for n in (2, 3)
    }
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"job": made.model_dump(mode="json")} for made in jobs.values()]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(Path(__file__).with_name("many.py")), str(plan)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4_000:]
    single = load_file(tmp_path / "single" / "model" / "model.safetensors")
    start = load_file(base / "model.safetensors")
    for made in jobs.values():
        sharded = load_file(made.output / "model.safetensors")
        assert all(torch.allclose(single[name], sharded[name], rtol=0, atol=2e-5) for name in single)
    assert max((single[name] - start[name]).abs().max().item() for name in single) > 2e-3, "or nothing was learned"


def test_a_pair_goes_into_one_pass_with_both_answers(base: Path, pairs: Path) -> None:
    objective = Preferences(tokenize_pairs([pairs], load_tokenizer(base), 64, 512), 0.1, 0.0)
    parts = split(objective.lengths, np.arange(len(WORDS)), 96)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(WORDS))) and len(parts) > 1
    for part in parts:
        rows = np.stack([2 * part, 2 * part + 1], axis=1).ravel()
        assert objective.data.lengths[rows].sum() <= 96


def test_long_pairs_are_dropped_and_counted(base: Path, tmp_path: Path) -> None:
    made = [pair("add"), pair("omega", "no " * 60), pair("x y " * 60)]
    seen: list[TrainingProgress] = []
    train(job(base, write_pairs(tmp_path / "p.jsonl", made), tmp_path / "a", steps=1), seen.append)
    assert (seen[0].examples, seen[0].dropped) == (1, 2)
    with pytest.raises(TrainingError, match="nothing to train on: 2 were left out for their length"):
        train(job(base, write_pairs(tmp_path / "q.jsonl", made[1:]), tmp_path / "b"))


def test_every_process_has_as_many_passes() -> None:
    parts = [np.array([number]) for number in range(7)]
    shares = [dealt(parts, rank, 3) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(int(i) for share in shares for part in share for i in part) == list(range(7))


def test_a_job_file_says_which_training_it_is(base: Path, pairs: Path, tmp_path: Path) -> None:
    made = job(base, pairs, tmp_path)
    fine = SftJob.model_validate(
        {"config": {}, "base": base, "examples": (pairs,), "output": tmp_path, "work": tmp_path, "seed": 0}
    )
    for number, one in enumerate((made, fine)):
        file = tmp_path / f"{number}.json"
        file.write_text(one.model_dump_json())
        assert read_job(file) == one
    (tmp_path / "odd.json").write_text('{"kind": "grpo"}')
    with pytest.raises(ValueError, match="grpo"):
        read_job(tmp_path / "odd.json")
