"""Which of the proofs found are learned from, and with what weight: a pure function of the index of them.

The order of the steps: equal proofs of equal statements once; problems that are too easy left out; so many proofs of a
problem; so many earlier ones beside the new; weights.
"""

import random
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from prover.config import SelectConfig
from prover.found import Found
from prover.records import Record

LENGTHS = (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192)
"""Where the next of 11 buckets of proofs begins, in characters without comments and needless spaces. As many as in Polu
et al. 2022 (arXiv 2202.01344); theirs hold equal shares of the problems, ours stay comparable between rounds."""
RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The highest pass rate of each bucket of problems. 0: proved by corrections or by a list of tactics alone."""
MOST = 10.0
"""Balance makes no example weigh more than so many times what it would without: a bucket of one lucky proof must not
decide a training step."""


class Bucket(Record, frozen=True):
    """How much of what is learned has some length or difficulty. ``weight`` is its share of all, 0 to 1."""

    by: str
    bucket: str
    proofs: int
    weight: float


class Choice(msgspec.Struct, frozen=True):
    """``chosen`` numbers the proofs in the order in which they are written; their ``problems``, ascending, and
    ``weights`` and ``difficulty`` go with them (NaN: no model has tried the problem)."""

    chosen: NDArray[np.int64]
    problems: NDArray[np.int64]
    weights: NDArray[np.float64]
    difficulty: NDArray[np.float64]
    counts: dict[str, int]
    buckets: list[Bucket]
    all_easy: bool
    """Every proved problem was over ``max_pass_rate``."""


def choose(found: Found, config: SelectConfig, fresh: int) -> Choice:
    """``fresh`` is the number of the first artifact of attempts that is this round's. Where every proved problem is
    easier than ``config.max_pass_rate``, all are kept: a run must be able to go on, and the key cannot change under it.
    """
    _, first, inverse = np.unique(found.statements, return_index=True, return_inverse=True)
    home = first[inverse]  # (P,) number of the first problem with the same statement: they count as one
    tried, proved = (np.bincount(home, counted, len(home)) for counted in (found.tried, found.proved))
    kept, current, twins = _once(found, home, fresh)
    solved = len(np.unique(found.proofs["problem"]))

    easy = ((tried > 0) & (proved > config.max_pass_rate * tried))[home[found.proofs["problem"][kept]]]
    all_easy = len(kept) > 0 and bool(easy.all())
    if all_easy:
        easy[:] = False
    kept = kept[~easy]
    capped = _capped(found, home, kept, config, current)
    chosen = _replayed(found, capped, config.replay, current)
    chosen = chosen[np.argsort(found.proofs["problem"][chosen], kind="stable")]  # out of its statement's, into its own

    problem = found.proofs["problem"][chosen]
    statement = home[problem]
    rate = np.full(len(home), np.nan)
    np.divide(proved, tried, out=rate, where=tried > 0)
    rates = rate[statement]
    weights = _rarity(found.proofs["answer"][chosen], config.rarity) / np.bincount(statement)[statement]
    examples = 1 + (found.proofs["turn"][chosen] > 0)  # a correction is learned as a first proof too
    kinds = {"length": _lengths(found.proofs["length"][chosen]), "difficulty": _difficulties(rates)}
    if config.balance != "none":
        weights = weights * _factors(kinds[config.balance][0], weights * examples)
    now = int(np.count_nonzero(current[chosen]))
    counts = {
        "examples": int(examples.sum()),
        "proofs": len(chosen),
        "corrections": int(examples.sum()) - len(chosen),
        "problems": len(np.unique(problem)),
        "solved": solved,
        "new": int(np.count_nonzero(found.proofs["source"][chosen] >= fresh)),
        "this round": now,
        "earlier": len(chosen) - now,
        "repeated": found.repeated + twins,
        "repeated elsewhere": twins,
        "too easy": int(np.count_nonzero(easy)),
        "over the cap": len(kept) - len(capped),
        "not replayed": len(capped) - len(chosen),
    }
    buckets = [bucket for by, (of, names) in kinds.items() for bucket in _buckets(by, of, names, weights * examples)]
    return Choice(chosen, problem, weights, 1 - rates, counts, buckets, all_easy)


def _once(found: Found, home: NDArray[np.int64], fresh: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Proofs without those that an equal statement under another id has too; whether this round has proved it so, of
    each of all proofs; how many are left out. The earliest stays, of equally early ones that of the first problem."""
    proofs = found.proofs
    statement = home[proofs["problem"]]
    order = np.lexsort((proofs["problem"], proofs["source"], proofs["text"], statement))
    differs = np.ones(len(order), dtype=bool)
    differs[1:] = (np.diff(statement[order]) != 0) | (np.diff(proofs["text"][order]) != 0)
    first = np.flatnonzero(differs)
    current = np.zeros(len(order), dtype=bool)
    if len(order):
        current[order[first]] = np.maximum.reduceat(proofs["last"][order], first) >= fresh
    return np.sort(order[first]), current, len(order) - len(first)


def _capped(
    found: Found, home: NDArray[np.int64], kept: NDArray[np.int64], config: SelectConfig, current: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """At most ``config.per_problem`` proofs of a statement: the shortest, and what is drawn of the others.

    With replay this round's come first, and earlier ones fill up: they are what the round is about.
    """
    statement = home[found.proofs["problem"][kept]]
    order = np.lexsort((kept, found.proofs["length"][kept], statement))  # equally long ones as they lie: by their text
    ranked, statement = kept[order], statement[order]
    bounds = np.flatnonzero(np.diff(statement, prepend=-1, append=len(home)))
    stays = np.ones(len(ranked), dtype=bool)
    for i in np.flatnonzero(np.diff(bounds) > config.per_problem).tolist():
        start, end = int(bounds[i]), int(bounds[i + 1])
        drawn = random.Random(int(found.draws[statement[start]]))
        these: list[int] = ranked[start:end].tolist()
        if config.replay is None:
            picked = _drawn(these, config.per_problem, drawn)
        else:
            picked = _drawn([p for p in these if current[p]], config.per_problem, drawn)
            picked += _drawn([p for p in these if not current[p]], config.per_problem - len(picked), drawn)
        ranked[start : start + len(picked)] = picked
        stays[start + len(picked) : end] = False
    return ranked[stays]


def _drawn(ranked: list[int], number: int, random: random.Random) -> list[int]:
    if len(ranked) <= number:
        return ranked
    return [ranked[0], *random.sample(ranked[1:], number - 1)] if number else []


def _replayed(
    found: Found, capped: NDArray[np.int64], replay: float | None, current: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Without the earlier proofs that are over the ratio; with all of them where this round proved nothing."""
    earlier = np.flatnonzero(~current[capped])
    now = len(capped) - len(earlier)
    allowed = len(capped) if replay is None or not now else int(replay * now + 1e-9)
    if len(earlier) <= allowed:
        return capped
    ranked = earlier[np.argsort(found.proofs["priority"][capped[earlier]], kind="stable")]
    return np.delete(capped, ranked[allowed:])


def _rarity(answers: NDArray[np.int64], rarity: float) -> NDArray[np.float64]:
    _, inverse, times = np.unique(answers, return_inverse=True, return_counts=True)
    # Python's power, not numpy's: that may differ in the last bit from one processor to another.
    return np.array([m**-rarity for m in times.tolist()], dtype=np.float64)[inverse]


def _lengths(lengths: NDArray[np.int32]) -> tuple[NDArray[np.int64], list[str]]:
    edges = (0, *LENGTHS)
    names = [f"{low}-{high - 1}" for low, high in zip(edges, LENGTHS)] + [f"{LENGTHS[-1]}-"]
    return np.searchsorted(LENGTHS, lengths, side="right"), names


def _difficulties(rates: NDArray[np.float64]) -> tuple[NDArray[np.int64], list[str]]:
    names = ["0", *(f"{low:g}-{high:g}" for low, high in pairwise(RATES)), "untried"]
    return np.searchsorted(RATES, rates, side="left"), names  # NaN comes last


def _factors(buckets: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each weight is multiplied with so that all buckets weigh alike, and together as much as before.

    Buckets so light that they would grow by more than :data:`MOST` grow by that, and the others share the rest.
    """
    totals = np.bincount(buckets, weights)
    factors = np.ones(len(totals))
    left, of = float(totals.sum()), int(np.count_nonzero(totals))
    for bucket in np.argsort(totals, kind="stable"):
        if totals[bucket] > 0:
            factors[bucket] = min(MOST, left / of / totals[bucket])
            left, of = left - factors[bucket] * totals[bucket], of - 1
    return factors[buckets]


def _buckets(by: str, of: NDArray[np.int64], names: list[str], weights: NDArray[np.float64]) -> list[Bucket]:
    proofs, totals = np.bincount(of, minlength=len(names)), np.bincount(of, weights, len(names))
    return [
        Bucket(by, name, number, round(total / float(weights.sum()), 4))
        for name, number, total in zip(names, proofs.tolist(), totals.tolist(), strict=True)
        if number
    ]
