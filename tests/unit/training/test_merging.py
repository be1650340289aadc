"""The formulas: by hand, against plain numpy over whole tensors, and as properties."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from prover.config import BreadcrumbsAverage, DareAverage, TaskVectors, TiesAverage
from prover.training.average import average
from prover.training.merging import between, drawn, elected_mean, kept_range, magnitude_at, weighted_sum
from prover.training.stored import PIECE

Array = npt.NDArray[np.float32]
LONG = 2 * PIECE + 4_321
"""Elements of a tensor that is read in three pieces."""


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_ties_by_hand() -> None:
    """Entry by entry: agreement; a sign outvoted; the other sign stronger; a tie of signs; nothing anywhere."""
    changes = [tensor(1, 3, -5, 2, 0), tensor(3, -1, 2, -2, 0)]
    assert elected_mean(changes, [0.5, 0.5]).tolist() == [2, 3, -5, 0, 0]
    assert elected_mean(changes, [0.25, 0.75]).tolist() == [2.5, 0, 2, -2, 0]


def test_a_trimmed_change_does_not_thin_the_mean() -> None:
    assert elected_mean([tensor(4, 0), tensor(0, 0), tensor(2, -1)], [0.25, 0.5, 0.25]).tolist() == [3, -1]


def test_weighted_sums_by_hand() -> None:
    parts = [(tensor(1, 2).bfloat16(), 0.5), (tensor(3, -2).bfloat16(), 0.25)]
    total = weighted_sum(parts, torch.float32)
    assert (total.dtype, total.tolist()) == (torch.float32, [1.25, 0.5])


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_magnitudes_are_exact(data: st.DataObject, kind: type[np.float32 | np.float64]) -> None:
    width = 8 * np.dtype(kind).itemsize
    floats = st.floats(allow_nan=False, allow_infinity=False, width=32 if width == 32 else 64)
    values = np.array(data.draw(st.lists(floats | st.sampled_from([0.0, -0.0, 1.0, -1.0]), min_size=1)), dtype=kind)
    rank = data.draw(st.integers(0, len(values) - 1))
    cut = data.draw(st.integers(0, len(values)))
    whole = torch.from_numpy(values)
    found = magnitude_at(lambda: iter([whole[:cut], whole[cut:]]), rank, whole.dtype)
    assert found == np.sort(np.abs(values))[rank]


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 0.999), st.floats(0, 0.999))
def test_ranges_keep_the_share_that_was_asked_for(size: int, smallest: float, largest: float) -> None:
    first, last = kept_range(size, smallest, largest)
    assert 0 <= first <= last < size
    wanted = size - round(smallest * size) - round(largest * size)
    assert last - first + 1 == max(wanted, 1)


def test_both_ends_of_a_range_stay() -> None:
    assert between(1, 3)(tensor(0.5, -1, 2, -3, 4)).tolist() == [False, True, True, True, False]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 9))
def test_what_is_drawn_depends_on_places_not_on_pieces(halves: list[int], rest: int) -> None:
    sizes = [*(2 * half for half in halves), rest]
    pieces = drawn(0.5, "t", 1)
    whole = drawn(0.5, "t", 1)(torch.zeros(sum(sizes)))
    assert torch.equal(torch.cat([pieces(torch.zeros(size)) for size in sizes]), whole)


def test_draws_keep_their_share_and_differ_by_key() -> None:
    one, two = (drawn(0.1, "dare", 0, 0, name)(torch.zeros(100_000)) for name in ("a", "b"))
    assert abs(float(one.float().mean()) - 0.1) < 0.005
    assert abs(float((one & two).float().mean()) - 0.01) < 0.002, "independent"
    assert drawn(1.0, "x")(torch.zeros(9)).all()


def model(path: Path, values: Array, dtype: torch.dtype) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    whole = torch.from_numpy(values).to(dtype)
    tensors = {"long": whole.reshape(-1, 1), "short": whole[:7].clone(), "one": whole[0].clone()}
    save_file(tensors, path / "model.safetensors")
    return path


def dense(
    method: TaskVectors, base: Array, models: list[Array], weights: list[float], wide: npt.DTypeLike
) -> npt.NDArray[np.float64]:
    """The papers' formulas on whole tensors in float64, but for the changes and their cuts, which are ``wide``."""
    changes = [m.astype(wide) - base.astype(wide) for m in models]
    kept: list[npt.NDArray[np.float64]] = []
    for change in changes:
        order = np.sort(np.abs(change))
        if isinstance(method, TiesAverage):
            low, high = order[len(order) - max(round(method.density * len(order)), 1)], np.inf
        else:
            assert isinstance(method, BreadcrumbsAverage)
            first = min(round(method.drop_smallest * len(order)), len(order) - 1)  # one stays at the least
            low, high = order[first], order[max(len(order) - 1 - round(method.drop_largest * len(order)), first)]
        kept.append(np.where((np.abs(change) >= low) & (np.abs(change) <= high), change, 0).astype(np.float64))
    scaled = np.array([w * k for w, k in zip(weights, kept, strict=True)])
    if not isinstance(method, TiesAverage):
        return base + method.tuned_weight * scaled.sum(axis=0)
    agrees = np.array([np.sign(k) for k in kept]) == np.sign(scaled.sum(axis=0))
    agrees &= np.array(kept) != 0
    mass = (agrees * np.array(weights)[:, None]).sum(axis=0)
    return base + method.tuned_weight * (scaled * agrees).sum(axis=0) / np.where(mass, mass, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "method",
    [
        TiesAverage(method="ties", density=0.2, tuned_weight=1.3),
        BreadcrumbsAverage(method="breadcrumbs", drop_smallest=0.6, drop_largest=0.05, tuned_weight=0.7),
    ],
    ids=lambda m: m.method,
)
def test_pieces_give_what_whole_tensors_give(tmp_path: Path, method: TaskVectors, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(LONG).astype(np.float32) for _ in range(4)]
    arrays = [torch.from_numpy(a).to(dtype).float().numpy() for a in arrays]
    base, *models = (model(tmp_path / str(n), a, dtype) for n, a in enumerate(arrays))
    weights = [0.5, 0.3, 0.2]
    average(list(zip(models, weights, strict=True)), tmp_path / "out", task_vectors=method, base=base)
    made = load_file(tmp_path / "out" / "model.safetensors")
    # a unit in the last place, of float32 where the sums are, and of the dtype that they are rounded to
    wide = np.float64 if dtype == torch.float64 else np.float32
    tolerance = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    for name, size in (("long", LONG), ("short", 7), ("one", 1)):
        expected = dense(method, arrays[0][:size], [a[:size] for a in arrays[1:]], weights, wide)
        assert made[name].dtype == dtype
        assert np.allclose(made[name].double().numpy().ravel(), expected, rtol=tolerance, atol=2e-6), name
    assert made["long"].shape == (LONG, 1) and made["one"].shape == ()


def test_dare_drops_and_scales_up(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    start, end = (rng.standard_normal(LONG).astype(np.float32) for _ in range(2))
    base, tuned = model(tmp_path / "base", start, torch.float32), model(tmp_path / "tuned", end, torch.float32)
    made: list[Array] = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"out{number}"
        method = DareAverage(method="dare", drop=0.8, tuned_weight=0.5)
        average([(tuned, 1.0)], out, task_vectors=method, base=base, seed=seed)
        made.append(load_file(out / "model.safetensors")["long"].numpy().ravel())
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    stays = made[0] != start
    assert abs(stays.mean() - 0.2) < 0.005
    assert np.allclose(made[0][stays], (start + 0.5 * (end - start) / 0.2)[stays], rtol=1e-5, atol=1e-6)


def test_two_models_are_dropped_apart(tmp_path: Path) -> None:
    zero, ones = np.zeros(LONG, np.float32), np.ones(LONG, np.float32)
    base, a, b = (model(tmp_path / n, v, torch.float32) for n, v in (("0", zero), ("a", ones), ("b", ones)))
    average([(a, 0.5), (b, 0.5)], tmp_path / "out", task_vectors=DareAverage(method="dare", drop=0.5), base=base)
    values, counts = np.unique(load_file(tmp_path / "out" / "model.safetensors")["long"].numpy(), return_counts=True)
    assert values.tolist() == [0, 1, 2]
    assert np.allclose(counts / LONG, [0.25, 0.5, 0.25], atol=0.01)
