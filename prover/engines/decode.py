"""Decoding a batch of completions that share their prompts.

The ``n`` completions of a prompt are ``n`` query positions of one batch row: the prompt's keys and values are stored
once and read once for all of them, and each completion has its own keys and values besides. For short proofs after
longer prompts this reads several times less memory than repeating the prompt, and memory is what decoding waits for.

The model runs its own code throughout; only the attention function is ours, put in through transformers' attention
interface for the steps after the prompt. It covers full attention with grouped heads. Models with anything else (score
caps, attention sinks, state spaces) are found out by :func:`check_attention`.
"""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from prover.errors import ModelError

SHARED_PROMPT = "prover_shared_prompt"
_PROMPT_ATTENTION = "sdpa"
_GROW = 64


class SharedPromptCache:
    """Keys and values of S prompts and of m completions of each.

    ``prompt[l]``: two tensors (S, heads, longest prompt, width). ``own[l]``: two (S * heads * m, capacity, width), flat
    so that a product over the filled part needs no copy. ``bias`` (S, 1, 1, longest prompt) is 0 at tokens and -inf at
    padding, or None where no prompt is padded. ``length`` counts the tokens of each completion so far.
    """

    def __init__(
        self, prompt: list[tuple[torch.Tensor, torch.Tensor]], bias: torch.Tensor | None, m: int, longest: int
    ) -> None:
        self.prompt = prompt
        self.bias = bias
        self.m = m
        self.longest = longest
        self.length = 0
        capacity = min(_GROW, longest)
        self.own = [
            (
                keys.new_empty(keys.shape[0] * keys.shape[1] * m, capacity, keys.shape[3]),
                values.new_empty(values.shape[0] * values.shape[1] * m, capacity, values.shape[3]),
            )
            for keys, values in prompt
        ]

    def make_room(self) -> None:
        """Hold at least one token more."""
        capacity = self.own[0][0].shape[1]
        if self.length < capacity:
            return
        more = min(capacity, self.longest - capacity)

        def grown(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, torch.empty_like(x[:, :more])], dim=1)

        self.own = [(grown(keys), grown(values)) for keys, values in self.own]

    def keep(self, groups: torch.Tensor, members: torch.Tensor) -> None:
        """Keep prompts ``groups`` (G,), and of each the completions ``members`` (G, m'), in that order."""
        heads = self.prompt[0][0].shape[1]
        head = torch.arange(heads, device=groups.device)
        flat = ((groups[:, None, None] * heads + head[None, :, None]) * self.m + members[:, None, :]).view(-1)
        self.own = [(keys.index_select(0, flat), values.index_select(0, flat)) for keys, values in self.own]
        if len(groups) < len(self.prompt[0][0]):
            self.prompt = [
                (keys.index_select(0, groups), values.index_select(0, groups)) for keys, values in self.prompt
            ]
            if self.bias is not None:
                self.bias = self.bias.index_select(0, groups)
        self.m = members.shape[1]


def shared_prompt_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    shared_prompt: SharedPromptCache,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token per completion to its prompt, its own tokens, and itself.

    ``query`` (S, heads, m, width), ``key`` and ``value`` (S, key heads, m, width); returns (S, m, heads, width).
    """
    if softcap is not None or s_aux is not None:
        raise ValueError("its attention caps scores or has sinks")
    cache = shared_prompt
    prompt_keys, prompt_values = cache.prompt[module.layer_idx]  # type: ignore[index]
    own_keys, own_values = cache.own[module.layer_idx]  # type: ignore[index]
    prompts, heads, m, width = query.shape
    key_heads = key.shape[1]
    group = heads // key_heads
    outer, inner = prompts * key_heads, m * group
    own_keys[:, cache.length] = key.reshape(outer * m, -1)
    own_values[:, cache.length] = value.reshape(outer * m, -1)
    own_keys = own_keys[:, : cache.length + 1]
    own_values = own_values[:, : cache.length + 1]
    q = query * (width**-0.5 if scaling is None else scaling)
    q = q.view(prompts, key_heads, group, m, width).transpose(2, 3).reshape(outer, inner, width)
    to_prompt = torch.bmm(q, prompt_keys.flatten(0, 1).transpose(1, 2))
    if cache.bias is not None:
        to_prompt.view(prompts, key_heads, inner, -1).add_(cache.bias)
    to_own = torch.bmm(q.reshape(outer * m, group, width), own_keys.transpose(1, 2))
    weights = torch.cat([to_prompt, to_own.view(outer, inner, -1)], dim=-1).softmax(-1, dtype=torch.float32)
    weights = weights.to(query.dtype)
    split = prompt_keys.shape[2]
    mixed = torch.bmm(weights[..., :split], prompt_values.flatten(0, 1))
    mixed = mixed.view(outer * m, group, -1) + torch.bmm(weights[..., split:].reshape(outer * m, group, -1), own_values)
    mixed = mixed.view(prompts, key_heads, m, group, -1).permute(0, 2, 1, 3, 4)
    return mixed.reshape(prompts, m, heads, -1), None


def prepare(model: Any) -> None:
    """Make the attention known to transformers and the model ready for :func:`read_prompts`."""
    AttentionInterface.register(SHARED_PROMPT, shared_prompt_attention)
    model.set_attn_implementation(_PROMPT_ATTENTION)


@torch.inference_mode()
def read_prompts(
    model: Any, prompts: list[list[int]], pad: int, m: int, longest: int
) -> tuple[SharedPromptCache, torch.Tensor, torch.Tensor]:
    """Run the model over the prompts, once each.

    Returns the cache, the logits after each prompt (S, vocabulary), and the prompts' lengths (S,).
    """
    device = model.device
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    padding = torch.arange(width, device=device)[None] < (width - lengths)[:, None]
    padded = bool(padding.any())
    positions = (torch.arange(width, device=device)[None] - (width - lengths)[:, None]).clamp(min=0)
    cache = DynamicCache()
    model.set_attn_implementation(_PROMPT_ATTENTION)
    out = model(
        input_ids=ids,
        attention_mask=(~padding).long() if padded else None,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    layers: list[tuple[torch.Tensor, torch.Tensor]] = []
    bias = None
    for layer in cache.layers:
        held: Any = layer
        keys, values = held.keys, held.values
        if padded:  # weights there are 0, and 0 times what a fully masked row computed must be 0 too
            keys = keys.masked_fill(padding[:, None, :, None], 0)
            values = values.masked_fill(padding[:, None, :, None], 0)
        layers.append((keys, values))
    if padded:
        bias = torch.zeros(padding.shape, dtype=layers[0][0].dtype, device=device)
        bias = bias.masked_fill(padding, float("-inf"))[:, None, None]
    model.set_attn_implementation(SHARED_PROMPT)
    return SharedPromptCache(layers, bias, m, longest), out.logits[:, -1].float(), lengths


@torch.inference_mode()
def next_logits(model: Any, cache: SharedPromptCache, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Feed a token to each completion: ``tokens`` (S, m), prompts' ``lengths`` (S,); returns (S, m, vocabulary)."""
    cache.make_room()
    positions = (lengths + cache.length)[:, None].expand_as(tokens)
    out = model(input_ids=tokens, position_ids=positions, use_cache=False, shared_prompt=cache)
    cache.length += 1
    return out.logits.float()


@torch.inference_mode()
def check_attention(model: Any, name: str) -> None:
    """Compare decoding step by step with the model's own forward pass; raise ModelError where they disagree.

    This is what makes an architecture that our attention does not cover an error at load, not a wrong sample later.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    rows = [[(7 * i + 3 * j + 1) % vocabulary for j in range(9)] for i in range(2)]
    model.set_attn_implementation(_PROMPT_ATTENTION)
    whole = model(input_ids=torch.tensor(rows, device=model.device), use_cache=False).logits.float()
    try:
        cache, logits, lengths = read_prompts(model, [rows[0][:5], rows[1][:6]], pad=0, m=1, longest=4)
        worst = max((logits[0] - whole[0, 4]).abs().max().item(), (logits[1] - whole[1, 5]).abs().max().item())
        for step in range(3):
            tokens = torch.tensor([[rows[0][5 + step]], [rows[1][6 + step]]], device=model.device)
            logits = next_logits(model, cache, tokens, lengths)[:, 0]
            for row, start in ((0, 5), (1, 6)):
                worst = max(worst, (logits[row] - whole[row, start + step]).abs().max().item())
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{name}: this architecture does not decode with the transformers engine ({type(error).__name__}: {error})"
        ) from error
    scale = whole.std().item()
    tolerance = 0.25 if whole.dtype != model.dtype else 1e-3
    if not worst <= tolerance * scale:
        raise ModelError(
            f"{name}: this architecture does not decode with the transformers engine "
            f"(logits differ by {worst:.2g} from the model's own forward pass)"
        )
