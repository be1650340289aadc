"""pass@k from attempts that may have stopped early, unbiased.

Chen et al. (2021, arXiv 2107.03374, eq. 1) estimate pass@k from a fixed number of attempts. Where sampling stops once a
problem has enough proofs, the same formula overstates: a lucky start ends the sampling while it looks good. But the
rule looks only at how many attempts and proofs there are at the ends of waves, so, given the numbers at the stop,
every order of proofs and failures that the rule lets come that far is equally likely, whatever the model's pass rate.
The share of those orders that begin with k failures is therefore an unbiased estimate of the chance to fail k times, as
in Girshick, Mosteller and Savage (1946) for such stopping rules and by the theorem of Rao and Blackwell. A problem that
stopped before its k-th attempt has a proof among those: its estimate is 1.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import comb


def pass_at_k(n: int, proved: int, k: int, bounds: Sequence[int] = (), enough: int | None = None) -> float:
    """Unbiased estimate of the chance that one of k attempts is proved, from ``proved`` of ``n`` judged attempts.

    ``bounds`` are the numbers of attempts at which the sampling stopped where there were ``enough`` proofs. Without
    ``enough`` it is 1 - C(n-c, k) / C(n, k). Where fewer than k attempts were judged, all of them count.
    """
    if k > n:
        return float(proved > 0)
    inner = () if enough is None else tuple(b for b in bounds if b < n)
    every = _orders(n, proved, 0, inner, enough or 0)
    if every == 0:  # attempts fell out after the stop (a checker's doing): the rule says nothing of what is left
        inner, every = (), comb(n, proved)
    return 1.0 - _orders(n, proved, k, inner, enough or 0) / every


@lru_cache(maxsize=65_536)
def _orders(n: int, proved: int, failures: int, bounds: tuple[int, ...], enough: int) -> int:
    """How many orders of ``proved`` proofs among n attempts begin with ``failures`` failures and have fewer than
    ``enough`` proofs at each of ``bounds``."""
    ways = [1] + [0] * proved
    start = 0
    for end in (*bounds, n):
        free = end - max(start, min(failures, end))
        grown = [0] * (proved + 1)
        for before, count in enumerate(ways):
            for added in range(min(free, proved - before) + 1 if count else 0):
                grown[before + added] += count * comb(free, added)
        ways = grown if end == n else [count if s < enough else 0 for s, count in enumerate(grown)]
        start = end
    return ways[proved]
