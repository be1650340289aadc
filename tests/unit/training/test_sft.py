"""Fine-tuning learns, keeps its loss to the answers, and resumes to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prover.config import SftConfig
from prover.errors import ModelError, TrainingError
from prover.pretrained import load_model, load_tokenizer, read_checkpoint
from prover.records import ChatMessage, TrainingExample
from prover.training.batches import epoch, schedule, split, tokenize
from prover.training.job import SftJob, TrainingProgress
from prover.training.loop import train
from prover.training.optimizer import rate
from prover.training.packing import lay_out

from .conftest import WORDS, example, write_examples

ROOT = Path(__file__).resolve().parents[3]


def job(base: Path, examples: Path, out: Path, **changes: object) -> SftJob:
    config = {"steps": 20, "batch_tokens": 256, "warmup_steps": 4, "learning_rate": 3e-3, "checkpoint_every": 8}
    config.update({k: v for k, v in changes.items() if k in SftConfig.model_fields})  # type: ignore[dict-item]
    more = {k: v for k, v in changes.items() if k in SftJob.model_fields}
    return SftJob.model_validate(
        {
            "config": config,
            "base": base,
            "examples": (examples,),
            "output": out / "model",
            "work": out / "work",
            "seed": 1,
            **more,
        }
    )


def stop_at(step: int) -> Callable[[TrainingProgress], None]:
    """Ends a training as Ctrl-C does."""

    def stop(progress: TrainingProgress) -> None:
        if progress.step == step and progress.steps == 1:
            raise KeyboardInterrupt

    return stop


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def greedy(path: Path, word: str) -> str:
    tokenizer, model = load_tokenizer(path), load_model(path, torch.float32, "cpu")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": word}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = model.generate(ids, do_sample=False, max_new_tokens=16)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_it_learns_the_answers(base: Path, examples: Path, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    made = train(job(base, examples, tmp_path, steps=160, learning_rate=6e-3), seen.append)
    assert [p.step for p in seen] == list(range(1, 161))
    assert seen[0].loss > 4
    assert seen[-1].loss < 0.05
    assert [greedy(tmp_path / "model", word) for word in WORDS] == [word[::-1] for word in WORDS]
    assert made == read_checkpoint(tmp_path / "model")
    assert (made.step, made.parents, made.base_model) == (160, (os.path.relpath(base, tmp_path),), made.parents[0])
    assert not (tmp_path / "work").exists()


def test_resuming_after_kill_gives_the_same_bytes(base: Path, examples: Path, tmp_path: Path) -> None:
    train(job(base, examples, tmp_path / "whole"))
    cut = job(base, examples, tmp_path / "cut")
    file = tmp_path / "job.json"
    file.write_text(cut.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "prover.training.process", str(file)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["step"] == 13:  # after the state of step 8, before that of step 16
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert not cut.output.exists()
    steps = [int(p.stem.removeprefix("step-")) for p in cut.work.glob("step-*")]
    assert len(steps) == 1
    assert steps[0] in (8, 16)
    seen: list[TrainingProgress] = []
    train(cut, seen.append)
    assert seen[0].step == seen[0].steps == steps[0]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert (tmp_path / "cut/model/checkpoint.json").read_bytes() == (
        tmp_path / "whole/model/checkpoint.json"
    ).read_bytes()


def test_a_finished_job_returns_at_once(base: Path, examples: Path, tmp_path: Path) -> None:
    made = train(job(base, examples, tmp_path, steps=4))
    before = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    seen: list[TrainingProgress] = []
    assert train(job(base, examples, tmp_path, steps=4), seen.append) == made
    assert seen == []
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_state_of_another_training_is_refused(base: Path, examples: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(job(base, examples, tmp_path), stop_at(9))
    with pytest.raises(TrainingError, match="another training"):
        train(job(base, examples, tmp_path, learning_rate=1e-3))
    (tmp_path / "work" / "step-00000009").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"step-00000009: is damaged"):
        train(job(base, examples, tmp_path))


def test_the_loss_covers_answers_alone_and_weighs_examples(base: Path, tmp_path: Path) -> None:
    file = write_examples(tmp_path / "e.jsonl", [example("add"), example("append", weight=3.0)])
    tokenizer = load_tokenizer(base)
    data = tokenize([file], tokenizer, 64)
    row = lay_out(data, np.array([1, 0]))
    assert data.weights.tolist() == [1.0, 3.0]
    for owner, word in enumerate(("append", "add")):
        places = row.places[row.owners == owner]
        assert tokenizer.decode(row.tokens[places + 1].tolist()) == word[::-1] + "</s>"
        start = places[0] - row.positions[places[0]]
        assert tokenizer.decode(row.tokens[start : places[0] + 1].tolist()) == f"<s><|user|>{word}<|assistant|>"
    losses: list[float] = []
    for pair in ([1.0, 1.0], [1.0, 3.0], [0.0, 1.0]):
        both = [example("add", weight=pair[0]), example("append", weight=pair[1])]
        write_examples(file, both)
        out = tmp_path / str(len(losses))
        train(job(base, file, out, steps=1, precision="float32"), lambda p: losses.append(p.loss))
    assert losses[0] == pytest.approx(losses[1])  # the reported loss is the plain mean
    assert len({weights(tmp_path / str(i)) for i in range(3)}) == 3  # the gradient is not
    only = write_examples(tmp_path / "only.jsonl", [example("append", weight=1.0)])
    train(job(base, only, tmp_path / "only", steps=1, precision="float32"))
    ours, theirs = (
        load_file(tmp_path / "2/model/model.safetensors"),
        load_file(tmp_path / "only/model/model.safetensors"),
    )
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=1e-5), name


def test_batches_keep_to_the_budget_and_every_pass_sees_every_example() -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 3_000)
    batches = epoch(lengths, 512, seed=1, number=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(3_000))
    assert all(lengths[b].sum() <= 512 for b in batches)
    assert 512 * len(batches) < 1.25 * lengths.sum()
    assert any((a.tolist() != b.tolist()) for a, b in zip(batches, epoch(lengths, 512, seed=1, number=1)))


def test_batches_are_full_however_many_examples_they_take() -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 60_000)
    batches = epoch(lengths, 200_000, seed=1, number=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(60_000))
    assert np.median([lengths[b].sum() for b in batches]) > 0.99 * 200_000


def test_passes_are_small_and_complete_and_change_only_rounding(base: Path, examples: Path, tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 300)
    for batch in epoch(lengths, 512, seed=1, number=0):
        parts = split(lengths, batch, 128)
        assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())
        assert all(lengths[p].sum() <= 128 or len(p) == 1 for p in parts)
    passes = {"whole": None, "cut": 64}
    for name, micro in passes.items():
        train(job(base, examples, tmp_path / name, launch={"micro_batch_tokens": micro}, precision="float32"))
    whole, cut = (load_file(tmp_path / name / "model/model.safetensors") for name in passes)
    for name in whole:
        assert torch.allclose(whole[name], cut[name], atol=2e-4), name
    assert weights(tmp_path / "whole") != weights(tmp_path / "cut")  # or nothing was cut


def test_recomputed_activations_give_the_same_weights(base: Path, examples: Path, tmp_path: Path) -> None:
    for name, again in {"kept": False, "again": True}.items():
        launch = {"activation_checkpointing": again}
        train(job(base, examples, tmp_path / name, launch=launch, precision="float32", steps=6))
    assert weights(tmp_path / "kept") == weights(tmp_path / "again")


def test_the_order_is_the_same_wherever_training_resumes() -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 200)
    whole = [b.tolist() for b in schedule(lengths, 512, 3, 0, 60)]
    assert len(whole) == 60
    for start in (1, 29, 59):
        assert [b.tolist() for b in schedule(lengths, 512, 3, start, 60)] == whole[start:]


def test_the_rate_warms_up_and_falls() -> None:
    rates = [rate(step, 10, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.05 < rates[-1] < 0.06


def test_long_examples_are_dropped_and_counted(base: Path, tmp_path: Path) -> None:
    long = TrainingExample(
        id="long",
        messages=(ChatMessage(role="user", content="x y " * 60), ChatMessage(role="assistant", content="rfl")),
        problem_id="long",
        attempt_id=None,
    )
    file = write_examples(tmp_path / "e.jsonl", [example("add"), long])
    seen: list[TrainingProgress] = []
    train(job(base, file, tmp_path / "a", steps=1), seen.append)
    assert (seen[0].examples, seen[0].dropped) == (1, 1)
    write_examples(file, [long])
    with pytest.raises(TrainingError, match="1 were left out for their length"):
        train(job(base, file, tmp_path / "b"))


def test_a_loss_that_is_not_finite_stops_and_names_the_examples(base: Path, examples: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in base.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"step 1: the loss or its gradient is not finite .* examples \w+/\d"):
        train(job(broken, examples, tmp_path))
    assert not (tmp_path / "model").exists()


def test_a_conversation_without_an_answer_is_refused(base: Path, tmp_path: Path) -> None:
    odd = TrainingExample(id="odd", messages=(ChatMessage(role="user", content="a"),), problem_id="p", attempt_id=None)
    file = write_examples(tmp_path / "e.jsonl", [odd])
    with pytest.raises(TrainingError, match="example odd: messages must end with an answer"):
        train(job(base, file, tmp_path))


def test_a_template_that_rewrites_the_prompt_is_refused(base: Path, examples: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in base.iterdir():
        (odd / file.name).write_bytes(file.read_bytes())
    (odd / "chat_template.jinja").write_text("{{ messages | length }}{{ messages[-1]['content'] }}")
    with pytest.raises(TrainingError, match="no prefix of the whole conversation"):
        train(job(odd, examples, tmp_path))


def test_the_stored_dtype_is_the_base_models(base: Path, examples: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    load_model(base, torch.bfloat16, "cpu").save_pretrained(half)
    for file in base.iterdir():
        if not (half / file.name).exists():
            (half / file.name).write_bytes(file.read_bytes())
    train(job(half, examples, tmp_path, steps=2))
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.bfloat16}


def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(base: Path, examples: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from prover.training.process import main; sys.exit(main(sys.argv[1:]))"
    )
    file = tmp_path / "job.json"
    file.write_text(job(base, examples, tmp_path / "out", checkpoint_every=2).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "model").exists()
    assert not list((tmp_path / "out" / "work").iterdir())


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (None, "no such directory"),
        ("config.json", "is no model directory"),
        ("tokenizer.json", "holds no tokenizer"),
        ("chat_template.jinja", "has no chat template"),
        ("model.safetensors", "the weights cannot be read"),
    ],
)
def test_an_unusable_model_directory_is_one_line(
    base: Path, examples: Path, tmp_path: Path, spoil: str | None, line: str
) -> None:
    path = tmp_path / "m"
    if spoil:
        path.mkdir()
        for file in base.iterdir():
            if file.name != spoil:
                (path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=line) as caught:
        train(job(path, examples, tmp_path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_torn_weights_are_one_line(base: Path, examples: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.mkdir()
    for file in base.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="the weights cannot be read"):
        train(job(path, examples, tmp_path))
    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the weights lack model\.norm\.weight"):
        train(job(path, examples, tmp_path))


def test_the_job_file_survives_json(base: Path, examples: Path, tmp_path: Path) -> None:
    made = job(base, examples, tmp_path)
    assert SftJob.model_validate_json(made.model_dump_json()) == made
    assert (
        msgspec.json.decode(msgspec.json.encode(TrainingProgress(1, 2, 3, 4.0, 5, 6)), type=TrainingProgress).steps == 1
    )
