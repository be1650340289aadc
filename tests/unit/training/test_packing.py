"""Examples in one row are as if each were alone: losses, gradients, and what one can do to another."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from prover.training.attention import grid, packed_attention
from prover.training.batches import Tokenized
from prover.training.packing import Packer, token_logs, unwrapped
from prover.training.sft import Answers

VOCAB = 120
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def model(name: str) -> Any:
    import transformers as hf

    torch.manual_seed(0)
    if name == "gpt2":  # positions are learned, dropout is on
        ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ends)
        )
    if name == "mistral":  # attention reaches back 8 tokens
        return hf.MistralForCausalLM(hf.MistralConfig(**SIZES, sliding_window=8))
    if name == "gemma2":  # scores are capped
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZES, head_dim=8))
    if name == "lfm2":  # half of the layers are convolutions
        return hf.Lfm2ForCausalLM(hf.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]))
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES))


def examples(seed: int = 0, count: int = 13) -> Tokenized:
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 40, count)
    return Tokenized(
        random.integers(0, VOCAB, lengths.sum()).astype(np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([random.integers(1, n) for n in lengths], dtype=np.int32),
        random.uniform(0.5, 2, count).astype(np.float32),
        np.arange(count, dtype=np.uint64),
        np.zeros(count, dtype=np.float32),
        [str(i) for i in range(count)],
        0,
    )


def alone(model: Any, data: Tokenized, item: int) -> torch.Tensor:
    """Log-probabilities of the answer's tokens as transformers alone computes them."""
    tokens = torch.from_numpy(data.tokens[data.starts[item] : data.starts[item + 1]]).long()
    logs = model(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1)
    return logs.gather(1, tokens[1:, None])[int(data.prompts[item]) - 1 :, 0]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("name", "packs"), [("llama", True), ("gpt2", True), ("mistral", True), ("gemma2", False), ("lfm2", False)]
)
def test_examples_in_one_row_have_the_losses_and_gradients_of_examples_alone(name: str, packs: bool) -> None:
    tuned, data = model(name).eval(), examples()
    items = np.array([7, 2, 12, 0, 5, 3])
    weights = torch.from_numpy(data.weights[items])
    whole = sum(
        (alone(tuned, data, item).sum() * weight for item, weight in zip(items.tolist(), weights)), torch.zeros(())
    )
    apart = [alone(tuned, data, item).tolist() for item in items.tolist()]
    whole.backward()
    expected = gradients(tuned)
    packer = Packer()
    answered = packer.answers(tuned, data, items, "cpu")
    assert packer.packs is packs
    assert answered.tokens == data.lengths[items].sum() or not packs
    for owner, logs in enumerate(apart):
        assert answered.logs[answered.owners == owner].tolist() == pytest.approx(logs, abs=1e-5)
    (answered.logs * weights[answered.owners]).sum().backward()
    for key, gradient in gradients(tuned).items():
        assert torch.allclose(gradient, expected[key], atol=1e-5 * max(1.0, float(expected[key].abs().max()))), key


def test_what_one_example_says_does_not_reach_another() -> None:
    tuned, data = model("llama").eval(), examples()
    items = np.arange(13)
    before = Packer().answers(tuned, data, items, "cpu")
    data.tokens[data.starts[4] : data.starts[5]] = 1
    after = Packer().answers(tuned, data, items, "cpu")
    changed = set(before.owners[before.logs != after.logs].tolist())
    assert changed == {4}


def test_a_row_in_bfloat16_is_as_close_to_float32_as_examples_alone() -> None:
    tuned, data, items = model("llama").eval(), examples(), np.arange(13)
    exact = Packer().answers(tuned, data, items, "cpu").logs
    own = model("llama").eval()
    with torch.autocast("cpu", torch.bfloat16):
        packer = Packer()
        rough = packer.answers(tuned, data, items, "cpu")
        apart = torch.cat([alone(own, data, item).float() for item in items.tolist()])
    assert packer.packs
    order = torch.argsort(rough.owners, stable=True)
    assert (rough.logs - exact).abs().max() < 1.5 * (apart - exact[order]).abs().max() + 0.01


def test_the_sums_of_an_objective_weigh_examples() -> None:
    tuned, data, items = model("llama").eval(), examples(), np.array([3, 1, 8])
    sums = Answers(data).sums(tuned, items, "cpu")
    losses = [-alone(tuned, data, item).sum().item() for item in items.tolist()]
    assert sums.shown.item() == pytest.approx(sum(losses), rel=1e-5)
    assert sums.loss.item() == pytest.approx(float(np.dot(losses, data.weights[items])), rel=1e-5)
    assert sums.covered == (data.lengths - data.prompts)[items].sum()
    assert sums.tokens == data.lengths[items].sum()


def test_the_trial_leaves_the_model_in_training_and_the_random_numbers_alone() -> None:
    tuned, data = model("gpt2").train(), examples()
    torch.manual_seed(1)
    packer = Packer()
    first = packer.answers(tuned, data, np.arange(5), "cpu").logs
    torch.manual_seed(1)
    again = packer.answers(tuned, data, np.arange(5), "cpu").logs
    assert tuned.training
    assert first.tolist() == again.tolist()
    assert first.tolist() != packer.answers(tuned, data, np.arange(5), "cpu").logs.tolist()  # dropout is on


def test_recomputed_activations_give_the_same_gradient() -> None:
    tuned, data = model("llama").train(), examples()
    packer = Packer()
    packer.answers(tuned, data, np.arange(13), "cpu").logs.sum().backward()
    expected = gradients(tuned)
    tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packer.answers(tuned, data, np.arange(13), "cpu").logs.sum().backward()
    for key, gradient in gradients(tuned).items():
        assert torch.equal(gradient, expected[key]), key


class Wrapper(torch.nn.Module):
    """As an engine that shards a model: its forward takes anything, the model stands inside."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.module = inner

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)


def test_a_wrapped_model_is_packed_too() -> None:
    inner, data = model("llama").eval(), examples()
    packer = Packer()
    logs = packer.answers(Wrapper(inner), data, np.arange(4), "cpu").logs
    assert packer.packs
    assert unwrapped(Wrapper(inner)) is inner
    assert logs.tolist() == Packer().answers(inner, data, np.arange(4), "cpu").logs.tolist()


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("window", [None, 6])
def test_attention_by_groups_is_attention(dtype: torch.dtype, off: float, window: int | None) -> None:
    lengths = [3, 4, 4, 9, 10, 17, 300]
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, sum(lengths), 8, dtype=dtype) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    laid = grid(lengths, "cpu")
    assert 1 < len(laid.groups) < len(lengths)
    got, _ = packed_attention(module, q, k, v, None, sliding_window=window, grid=laid)
    start = 0
    for n in lengths:
        part = [x[:, :, start : start + n].float() for x in (q, k, v)]
        back = torch.arange(n)[:, None] - torch.arange(n)
        seen = (back >= 0) & (back < (window or n))
        expected = scaled_dot_product_attention(*part, attn_mask=seen, enable_gqa=True).transpose(1, 2)
        assert (got[:, start : start + n].float() - expected).abs().max() < off, n
        start += n


def test_log_probabilities_are_those_of_log_softmax_with_their_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(50, 200_000, dtype=torch.float32).requires_grad_()  # more than one piece
    targets, factors = torch.randint(0, 200_000, (50,)), torch.randn(50)
    expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (expected * factors).sum().backward()
    assert logits.grad is not None
    wanted, logits.grad = logits.grad, None
    got = token_logs(logits, targets)
    (got * factors).sum().backward()
    assert torch.allclose(got, expected, atol=1e-5)
    assert torch.allclose(logits.grad, wanted, atol=1e-7)
    assert math.isfinite(float(token_logs(torch.full((1, 3), -1e30), torch.tensor([1]))))
