"""Formulas that make one model of several, on pieces of one tensor.

A task vector is what tuning changed: a model minus its base (arXiv 2212.04089). Sums are float32 (float64 for models
stored so) and run over the models in the order given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from prover.seeds import derive_seed

Mask = Callable[[torch.Tensor], torch.Tensor]
"""A piece of a task vector to which of its entries stay; called on the pieces in order."""


def weighted_sum(pieces: Iterable[tuple[torch.Tensor, float]], dtype: torch.dtype) -> torch.Tensor:
    """The sum of weight times piece, in ``dtype`` (model soups, arXiv 2203.05482)."""
    total: torch.Tensor | None = None
    for piece, weight in pieces:
        wide = piece.to(dtype)
        total = wide * weight if total is None else total.add_(wide, alpha=weight)
    if total is None:
        raise ValueError("nothing to sum")
    return total


def elected_mean(changes: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """TIES' merge (arXiv 2306.01708, section 3.1, steps 2 and 3) of trimmed task vectors.

    For each entry, the sign of the weighted sum is elected; the result is the weighted mean of the changes that have
    this sign, and 0 where none has.
    """
    elected = torch.sign(weighted_sum(zip(changes, weights, strict=True), changes[0].dtype))
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for change, weight in zip(changes, weights, strict=True):
        agrees = (torch.sign(change) == elected) & (elected != 0)
        total.add_((change * weight).mul_(agrees))
        mass.add_(agrees, alpha=weight)
    return total.div_(mass.masked_fill_(mass == 0, 1))


def magnitude_at(pieces: Callable[[], Iterator[torch.Tensor]], rank: int, dtype: torch.dtype) -> float:
    """The magnitude at place ``rank`` in ascending order (0: the smallest) of a tensor given in pieces of ``dtype``.

    Exact, with a table of 65,536 counts instead of the tensor in memory: the bits of floats that are not negative sort
    as whole numbers do, so that each pass over the pieces settles 16 bits of the answer, from the highest down.
    """
    width = dtype.itemsize
    whole = {4: torch.int32, 8: torch.int64}[width]
    found = 0
    for shift in range(8 * width - 16, -1, -16):
        counts = torch.zeros(1 << 16, dtype=torch.int64)
        for piece in pieces():
            bits = piece.abs().view(whole)
            if shift < 8 * width - 16:
                bits = bits[bits >> (shift + 16) == found]
            counts += torch.bincount(bits >> shift & 0xFFFF, minlength=1 << 16)
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, rank, right=True))
        rank -= int(below[digit - 1]) if digit else 0
        found = found << 16 | digit
    return float(np.array(found, dtype=f"i{width}").view(f"f{width}"))


def at_least(magnitude: float) -> Mask:
    return lambda change: change.abs() >= magnitude


def between(smallest: float, largest: float) -> Mask:
    def stays(change: torch.Tensor) -> torch.Tensor:
        magnitudes = change.abs()
        return (magnitudes >= smallest) & (magnitudes <= largest)

    return stays


def drawn(keep: float, *key: str | int) -> Mask:
    """Each entry stays with probability ``keep``, drawn by the key and the entry's place alone (DARE, arXiv 2311.03099,
    section 3.2). Philox's raw words are used, which numpy keeps the same in all versions; pieces have even sizes but
    for the last."""
    words = np.random.Philox(key=derive_seed(*key))
    limit = round(keep * (1 << 32))

    def stays(change: torch.Tensor) -> torch.Tensor:
        raw = words.random_raw((change.numel() + 1) // 2).view(np.uint32)[: change.numel()]
        return torch.from_numpy(raw < limit)

    return stays


def kept_range(size: int, drop_smallest: float, drop_largest: float) -> tuple[int, int]:
    """Ranks of the smallest and the largest magnitude that stay when these shares are dropped; at least one stays."""
    first = min(round(drop_smallest * size), size - 1)
    last = size - 1 - min(round(drop_largest * size), size - 1 - first)
    return first, last
