"""Attention over examples that lie end to end in one row: each sees itself alone, and no mask of the whole row is made.

The row is cut at the examples' ends and those of like length are laid side by side, so that attention costs the sum of
the squared lengths and everything else in the model works on a row without padding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

NAME = "packed"
"""Under which transformers knows :func:`packed_attention`."""
_PLAIN_TO = 256
"""Tokens up to which bfloat16 on the CPU takes plain matrix products: torch's fused attention spends there up to five
times as long in its backward pass; its memory does not grow with the square of the length."""


class UnknownAttention(Exception):
    """A model wants something of its attention that :func:`packed_attention` does not do."""


class Group(NamedTuple):
    """Examples side by side: ``rows`` examples of ``width`` places each."""

    rows: int
    width: int


class Grid(NamedTuple):
    """How a row of examples is rearranged for attention."""

    groups: tuple[Group, ...]
    places: int
    """Places in all groups."""
    slots: torch.Tensor | None
    """(T,) the place of each token of the row; None where the row is laid out like the groups already."""


def grid(lengths: Sequence[int], device: str) -> Grid:
    """Groups for a row of examples of ``lengths`` tokens, the shortest first."""
    groups: list[Group] = []
    starts: list[int] = []
    end = len(lengths)
    while end:  # from the longest down: its group takes what wastes at most a fifth of a row
        width = lengths[end - 1]
        first = end - 1
        while first and lengths[first - 1] >= width - max(width // 5, 4):
            first -= 1
        groups.append(Group(end - first, width))
        starts.append(first)
        end = first
    groups.reverse()
    places = sum(group.rows * group.width for group in groups)
    if places == sum(lengths):
        return Grid(tuple(groups), places, None)
    rows = np.cumsum([0, *np.repeat([g.width for g in groups], [g.rows for g in groups])])[:-1]
    slots = np.concatenate([np.arange(row, row + length) for row, length in zip(rows, lengths, strict=True)])
    return Grid(tuple(groups), places, torch.from_numpy(slots).to(device))


def register() -> None:
    """Make :data:`NAME` a name that ``set_attn_implementation`` takes."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None, grid: Grid | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """(1, H, T, D) queries, (1, K, T, D) keys and values of a row; returns (1, T, H, D). Causal within each example.

    Without a grid each of B rows is an example. Raises UnknownAttention for what changes the scores (caps, sinks,
    biases, masks).
    """
    odd = [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]
    if odd or attention_mask is not None or more.get("is_causal") is False:
        raise UnknownAttention(f"attention with {', '.join(odd) or 'masks of its own'}")
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # rotated queries and keys come in float32
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        width = q.shape[2]
        window = sliding_window if sliding_window is not None and sliding_window < width else None
        if kind == "cpu" and q.dtype == torch.bfloat16 and width <= _PLAIN_TO and not dropout:
            return _plain(q, k, v, scale, window)
        return _fused(module, q, k, v, scale, dropout, window)

    if grid is None:
        return attend(query, key, value), None
    inner = [_spread(x[0].transpose(0, 1), grid) for x in (query, key, value)]
    outputs: list[torch.Tensor] = []
    start = 0
    for rows, width in grid.groups:
        end = start + rows * width
        out = attend(*(x[start:end].view(rows, width, *x.shape[1:]).transpose(1, 2) for x in inner))
        outputs.append(out.reshape(rows * width, *out.shape[2:]))
        start = end
    return _gathered(outputs, grid).unsqueeze(0), None


def _plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
    """(G, H, W, D) and (G, K, W, D) to (G, W, H, D)."""
    count, heads, width = q.shape[:3]
    shared = heads // k.shape[1]  # query heads of one key head: their rows are stacked, so that keys are not repeated
    hidden = torch.full((width, width), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    if window is not None:
        hidden += torch.full_like(hidden, float("-inf")).tril(-window)
    hidden = hidden.repeat(shared, 1)
    with torch.autocast(q.device.type, enabled=False):  # or the scores would be written once more, in float32
        q, k, v = (x.reshape(count * k.shape[1], -1, x.shape[-1]) for x in (q, k, v))
        scores = torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scale)
        out = torch.bmm(torch.softmax(scores, dim=-1), v)
    return out.view(count, heads, width, v.shape[-1]).transpose(1, 2)


def _fused(
    module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, dropout: float, window: int | None
) -> torch.Tensor:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    seen = None
    if window is not None:
        places = torch.arange(q.shape[2], device=q.device)
        back = places[:, None] - places[None, :]
        seen = ((back >= 0) & (back < window))[None, None]
    return sdpa_attention_forward(module, q, k, v, seen, dropout=dropout, scaling=scale, is_causal=True)[0]


def _spread(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(T, ...) in the row's order to (places, ...) in the groups', zeros where a group is padded."""
    return x if grid.slots is None else x.new_zeros(grid.places, *x.shape[1:]).index_copy(0, grid.slots, x)


def _gathered(parts: list[torch.Tensor], grid: Grid) -> torch.Tensor:
    """The reverse of :func:`_spread`."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole if grid.slots is None else _Taken.apply(whole, grid.slots)  # type: ignore[return-value]


class _Taken(torch.autograd.Function):
    """``index_select`` with every index once: its gradient is copied to its place, where torch's own adds it up."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slots)
        ctx.places = len(x)
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        whole = gradient.new_zeros(ctx.places, *gradient.shape[1:])
        return whole.index_copy_(0, ctx.saved_tensors[0], gradient), None
