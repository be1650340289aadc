"""Held-out loss, early stopping, the training curve, and the order of the first pass."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.torch import load_file

from prover.config import SftConfig
from prover.errors import TrainingError
from prover.pretrained import load_tokenizer, read_checkpoint
from prover.training.batches import easy_first, problem_hash, schedule, tokenize
from prover.training.curve import Best, read_curve
from prover.training.holdout import due, held_out
from prover.training.job import TrainingProgress
from prover.training.loop import train

from .conftest import WORDS, example, write_examples
from .test_sft import job, stop_at, weights

HASHES = np.array([problem_hash(f"problem {i}") for i in range(2_000)], dtype=np.uint64)


def test_problems_are_held_out_whole_by_their_names() -> None:
    held = held_out(HASHES, 0.1)
    assert 150 < held.sum() < 250
    twice = np.concatenate([HASHES[::2], HASHES])  # more examples, in another order
    assert np.array_equal(held_out(twice, 0.1), np.concatenate([held[::2], held]))
    assert not held_out(HASHES, 0).any()
    assert held_out(HASHES[:2], 0.01).sum() == held_out(HASHES[:2], 0.5).sum() == 1
    assert not held_out(np.repeat(HASHES[:1], 3), 0.5).any()


@pytest.mark.parametrize("steps", [1, 7, 20, 60, 1_000])
def test_evaluations_are_spread_over_the_steps(steps: int) -> None:
    taken = [step for step in range(1, steps + 1) if due(step, steps)]
    assert len(taken) == min(steps, 20)
    assert taken[-1] == steps
    assert len(set(np.diff(taken))) <= 2


def test_what_is_held_out_is_evaluated_and_not_learned(base: Path, examples: Path, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    train(job(base, examples, tmp_path, steps=160, learning_rate=6e-3, holdout=0.2), seen.append)
    found = {p.step: p.eval_loss for p in seen if p.eval_loss is not None}
    assert list(found) == list(range(8, 161, 8))
    assert seen[-1].loss < 0.1
    assert found[8] > 2 and found[160] > 2, "their answers are never shown"
    curve = read_curve(tmp_path / "model.curve.jsonl")
    assert [(s.step, s.loss, s.tokens, s.eval_loss) for s in curve] == [
        (p.step, p.loss, p.tokens, p.eval_loss) for p in seen
    ]
    assert max(s.rate for s in curve) == 6e-3
    assert all(s.gradient_norm > 0 for s in curve)


def test_the_held_out_loss_is_the_same_whatever_the_passes(base: Path, examples: Path, tmp_path: Path) -> None:
    found: list[float | None] = []
    for micro in (None, 64):
        out = tmp_path / str(micro)
        told = job(base, examples, out, steps=1, holdout=0.4, precision="float32", launch={"micro_batch_tokens": micro})
        train(told, lambda p: found.append(p.eval_loss))
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_killed_training_has_the_same_curve(base: Path, examples: Path, tmp_path: Path) -> None:
    train(job(base, examples, tmp_path / "whole", holdout=0.2))
    cut = job(base, examples, tmp_path / "cut", holdout=0.2)
    with pytest.raises(KeyboardInterrupt):
        train(cut, stop_at(13))
    assert read_curve(cut.curve)[-1].step == 13
    with cut.curve.open("ab") as file:
        file.write(b'{"step":14,"lo')  # as a kill may leave it
    seen: list[TrainingProgress] = []
    train(cut, seen.append)
    assert [p.step for p in seen] == [8, *range(9, 21)]
    assert cut.curve.read_bytes() == (tmp_path / "whole/model.curve.jsonl").read_bytes()
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize("spoil", ["missing", "short", "torn"])
def test_a_curve_that_lacks_steps_is_one_line(base: Path, examples: Path, tmp_path: Path, spoil: str) -> None:
    cut = job(base, examples, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(cut, stop_at(9))
    lines = cut.curve.read_bytes().splitlines(keepends=True)
    cut.curve.unlink()
    if spoil != "missing":
        cut.curve.write_bytes(b"".join(lines[:7]) if spoil == "short" else b"".join(lines[:7]) + lines[7][:-1])
    with pytest.raises(TrainingError, match=r"model\.curve\.jsonl.*; delete .*work to train again") as caught:
        train(cut)
    assert "\n" not in str(caught.value)


def test_early_stopping_writes_the_best_weights(base: Path, examples: Path, tmp_path: Path) -> None:
    """The held-out words' answers never occur, so that the loss on them soon rises."""
    changes = {"steps": 100, "learning_rate": 6e-3, "holdout": 0.2, "patience": 3, "checkpoint_every": 7}
    seen: list[TrainingProgress] = []
    made = train(job(base, examples, tmp_path / "whole", **changes), seen.append)
    losses = {p.step: p.eval_loss for p in seen if p.eval_loss is not None}
    best = min(losses, key=lambda step: losses[step] or 0)
    assert seen[-1].step == best + 3 * 5 < 100
    assert made.step == best
    assert read_checkpoint(tmp_path / "whole" / "model") == made
    for name, step in (("before", best - 1), ("after", best + 1), ("late", best + 14)):
        cut = job(base, examples, tmp_path / name, **changes)
        with pytest.raises(KeyboardInterrupt):
            train(cut, stop_at(step))
        states = [int(p.stem.removeprefix("step-")) for p in cut.work.glob("step-*")]
        assert len(states) <= 2
        assert (best in states) == (step > best)
        assert train(cut).step == best
        assert weights(tmp_path / name) == weights(tmp_path / "whole")
        assert cut.curve.read_bytes() == (tmp_path / "whole/model.curve.jsonl").read_bytes()
        assert not cut.work.exists()


def test_the_best_weights_are_kept_when_training_ends_too(base: Path, examples: Path, tmp_path: Path) -> None:
    changes = {"steps": 60, "learning_rate": 6e-3, "holdout": 0.2}
    seen: list[TrainingProgress] = []
    made = train(job(base, examples, tmp_path / "best", patience=50, **changes), seen.append)
    last = train(job(base, examples, tmp_path / "last", **changes))
    assert (seen[-1].step, last.step) == (60, 60)
    assert made.step < 60
    best, end = (load_file(tmp_path / name / "model/model.safetensors") for name in ("best", "last"))
    assert any(not np.array_equal(best[name], end[name]) for name in best)


def test_patience_counts_evaluations_without_a_lower_loss() -> None:
    best = Best(2)
    assert [best.add(step, loss) for step, loss in enumerate([3.0, 2.0, 2.0, 1.0, 1.5])] == [
        *(True, True, False, True, False)
    ]
    assert (best.step, best.over) == (3, False)
    assert not best.add(5, 1.2)
    assert best.over
    with pytest.raises(ValueError, match="set holdout too"):
        SftConfig(patience=2)


def test_easy_examples_come_first_and_then_in_any_order(base: Path, tmp_path: Path) -> None:
    lengths = np.array([30, 10, 20, 40])
    nan = np.full(4, np.nan, dtype=np.float32)
    assert easy_first(lengths, nan).tolist() == [1, 2, 0, 3]
    assert easy_first(lengths, np.array([0, 0.9, 0, 0.1], dtype=np.float32)).tolist() == [2, 0, 3, 1]
    assert easy_first(lengths, np.array([0.6, np.nan, 0.4, np.nan], dtype=np.float32)).tolist() == [1, 2, 0, 3]

    graded = [msgspec.structs.replace(example(word, i), difficulty=i / 4) for i in range(4) for word in reversed(WORDS)]
    file = write_examples(tmp_path / "e.jsonl", graded)
    data = tokenize([file], load_tokenizer(base), 64)
    assert sorted(set(data.difficulty.tolist())) == [0, 0.25, 0.5, 0.75]
    order = easy_first(data.lengths, data.difficulty)
    whole = [b.tolist() for b in schedule(data.lengths, 128, 3, 0, 30, order)]
    passed = np.cumsum([len(b) for b in whole])
    cut = int(np.searchsorted(passed, len(data))) + 1
    ordered = np.concatenate(whole[:cut])
    assert sorted(ordered.tolist()) == list(range(len(data)))
    assert data.difficulty[ordered].tolist() == sorted(data.difficulty.tolist())
    later = np.concatenate(whole[cut:])[: len(data)]
    assert data.difficulty[later].tolist() != sorted(data.difficulty[later].tolist())
    for start in (1, cut, 29):
        assert [b.tolist() for b in schedule(data.lengths, 128, 3, start, 30, order)] == whole[start:]
    for name in ("random", "easy_first"):
        train(job(base, file, tmp_path / name, order=name))
    assert weights(tmp_path / "random") != weights(tmp_path / "easy_first")
