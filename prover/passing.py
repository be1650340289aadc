"""pass@k from attempts that may have stopped early, unbiased.

Chen et al. (2021, arXiv 2107.03374, eq. 1) estimate pass@k from a fixed number of attempts. Where sampling stops once a
problem has enough proofs, the same formula overstates: a lucky start ends the sampling while it looks good. But the
rule looks only at how many attempts and proofs there are at the ends of waves, so, given the numbers at the stop,
every order of proofs and failures that the rule lets come that far is equally likely, whatever the model's pass rate.
The share of those orders that begin with k failures is therefore an unbiased estimate of the chance to fail k times, as
in Girshick, Mosteller and Savage (1946) for such stopping rules and by the theorem of Rao and Blackwell. A problem that
stopped before its k-th attempt has a proof among those: its estimate is 1.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from math import comb


def pass_at_k(
    n: int, proved: int, k: int, bounds: Sequence[int] = (), enough: int | None = None, refused: int = 0
) -> float:
    """Unbiased estimate of the chance that one of k attempts is proved, from ``proved`` of ``n`` judged attempts.

    ``bounds`` are the numbers of attempts at which the sampling stopped where there were ``enough`` proofs; ``refused``
    others counted as proofs then, and are failures now. Without ``enough`` it is 1 - C(n-c, k) / C(n, k). Where fewer
    than k attempts were judged, all of them count: too few, where it was left for proofs that were refused.
    """
    if k > n:
        return float(proved > 0)
    inner, limit, others = () if enough is None else tuple(b for b in bounds if b < n), enough or 0, refused
    every = _orders(n, proved, others, 0, inner, limit)
    if every == 0:  # attempts fell out after the stop (a checker's doing): the rule says nothing of what is left
        inner, others, every = (), 0, comb(n, proved)
    return 1.0 - _orders(n, proved, others, k, inner, limit) / every


@lru_cache(maxsize=65_536)
def _orders(n: int, proved: int, refused: int, failures: int, bounds: tuple[int, ...], enough: int) -> int:
    """How many orders of ``proved`` and ``refused`` among n attempts have none of the proved in the first ``failures``
    and fewer than ``enough`` of both at each of ``bounds``."""
    ways = {(0, 0): 1}
    start = 0
    for end in (*bounds, n):
        failing = max(0, min(failures, end) - start)
        for length, most in ((failing, 0), (end - start - failing, proved)):
            grown: defaultdict[tuple[int, int], int] = defaultdict(int)
            for (p, r), count in ways.items():
                for q in range(min(length, max(most - p, 0)) + 1):
                    for s in range(min(length - q, refused - r) + 1):
                        grown[p + q, r + s] += count * comb(length, q) * comb(length - q, s)
            ways = grown
        if end < n:
            ways = {found: count for found, count in ways.items() if sum(found) < enough}
        start = end
    return ways.get((proved, refused), 0)
