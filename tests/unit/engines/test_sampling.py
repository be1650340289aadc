"""Drawing tokens from logits."""

import numpy as np
import torch

from prover.engines.sampling import draw, uniforms


def test_numbers_depend_on_seed_and_prompt_alone() -> None:
    assert np.array_equal(uniforms(1, [1, 2], 5), uniforms(1, [1, 2], 9)[:5])
    assert not np.array_equal(uniforms(1, [1, 2], 5), uniforms(2, [1, 2], 5))
    assert not np.array_equal(uniforms(1, [1, 2], 5), uniforms(1, [2, 1], 5))
    many = np.array([uniforms(seed, [3], 4) for seed in range(5_000)])
    assert abs(many.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(many.T) - np.eye(4)).max() < 0.06


def test_the_whole_interval_maps_to_tokens_by_their_mass() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.0, 0.6, 0.3]])).expand(1_000, -1)
    numbers = (torch.arange(1_000, dtype=torch.float64) + 0.5) / 1_000
    tokens, logprobs = draw(logits, 1.0, 1.0, numbers)
    assert torch.bincount(tokens, minlength=4).tolist() == [100, 0, 600, 300]
    assert torch.allclose(logprobs.exp(), torch.tensor([0.1, 0.0, 0.6, 0.3])[tokens])
    edges, _ = draw(logits[:2], 1.0, 1.0, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert edges.tolist() == [0, 3]


def test_temperature_sharpens_and_zero_takes_the_likeliest() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.8]])).expand(1_000, -1)
    numbers = (torch.arange(1_000, dtype=torch.float64) + 0.5) / 1_000
    cold, logprobs = draw(logits, 0.5, 1.0, numbers)
    assert abs(int((cold == 0).sum()) - 1_000 * 0.04 / 0.68) <= 1
    assert torch.allclose(logprobs.exp(), torch.tensor([0.2, 0.8])[cold])
    assert draw(logits, 0.0, 1.0, numbers)[0].tolist() == [1] * 1_000


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.log(torch.tensor([[0.15, 0.5, 0.3, 0.05]])).expand(1_000, -1)
    numbers = (torch.arange(1_000, dtype=torch.float64) + 0.5) / 1_000
    tokens, _ = draw(logits, 1.0, 0.7, numbers)
    assert torch.bincount(tokens, minlength=4).tolist() == [0, 625, 375, 0]
    assert set(draw(logits, 1.0, 0.01, numbers)[0].tolist()) == {1}
