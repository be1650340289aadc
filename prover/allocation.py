"""Which problem gets how many attempts: waves that leave the solved and spend on the unsolved.

A plan cuts the attempts of a problem into waves. After each wave, what Lean said of it decides who is in the next: a
problem is open until it has ``enough`` proofs. Everything here is a pure function of those verdicts and of the plan,
so a run that was killed allocates as it would have.

Waves up to ``n`` attempts a problem need nothing but the problem's own past, so shards go on independently of each
other; an open problem always reaches ``n``, and so what uniform sampling would have solved is solved here. Waves beyond
``n`` spend what stopping has saved, and for that look at all problems.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from prover.config import SamplingConfig
from prover.seeds import derive_seed

FIRST = 4
"""The first wave is an n-th part of the attempts, this one: smaller ones find less to stop, and wait more often."""
MOST = 4
"""No problem gets more than this many times ``n`` attempts in a round, however much was saved."""


class Plan(msgspec.Struct, frozen=True):
    """``bounds[w]`` is the number of attempts that an open problem has after wave w; ``n`` is one of them."""

    bounds: tuple[int, ...]
    n: int
    enough: int | None = None
    budget: Literal["attempts", "tokens"] = "attempts"

    @property
    def waves(self) -> int:
        return len(self.bounds)

    @property
    def first(self) -> int:
        """Attempts of every problem in the first wave."""
        return self.bounds[0]

    def local(self, wave: int) -> bool:
        """Whether a problem's share of the wave depends on its own past alone."""
        return self.bounds[wave] <= self.n

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides the waves after the first."""
        return msgspec.to_builtins(self)


class Tally(msgspec.Struct, frozen=True):
    """A problem's past: attempts drawn, their completion tokens, how many Lean judged, and how many it proved."""

    attempts: int
    tokens: int
    judged: int
    proved: int


def training_plan(sampling: SamplingConfig) -> Plan:
    """Waves up to ``n`` that stop at ``enough`` proofs, and two more that spend what was saved."""
    inner = evaluation_plan(sampling)
    if sampling.enough is None:
        return inner
    n = sampling.n
    return Plan((*inner.bounds, 2 * n, MOST * n), n, sampling.enough, sampling.budget)


def evaluation_plan(sampling: SamplingConfig) -> Plan:
    """Waves up to ``n``, which is then the most that a problem gets."""
    n, enough = sampling.n, sampling.enough
    inner = () if enough is None else sorted(b for b in {-(-n // FIRST), -(-n // 2)} if enough <= b < n)
    return Plan((*inner, n), n, enough if inner else None)


def is_open(tally: Tally, plan: Plan) -> bool:
    """Whether more attempts can be of use: not for problems with enough proofs, nor for those whose prompt does not
    fit the model or whose statement Lean does not judge."""
    return 0 < tally.attempts == tally.judged and (plan.enough is None or tally.proved < plan.enough)


def more(plan: Plan, wave: int, tallies: Mapping[str, Tally], seed: int) -> dict[str, int]:
    """How many attempts each open problem gets in a wave after the first; those that get none are left out.

    ``tallies`` are of one shard's problems in a local wave, and of all problems in others. ``seed`` decides who gets
    the last few that do not suffice for all, among problems with as few proofs.
    """
    room = {i: plan.bounds[wave] - t.attempts for i, t in tallies.items() if is_open(t, plan)}
    room = {ident: count for ident, count in room.items() if count > 0}
    if plan.local(wave):
        return room
    order = sorted(room, key=lambda i: (tallies[i].proved, derive_seed(seed, i), i))
    return share(order, room, {i: price(tallies[i], plan) for i in order}, saved(plan, tallies))


def price(tally: Tally, plan: Plan) -> int:
    """What one more attempt costs: 1, or as many tokens as the problem's attempts took on average, rounded up."""
    return 1 if plan.budget == "attempts" else max(1, -(-tally.tokens // tally.attempts))


def saved(plan: Plan, tallies: Mapping[str, Tally]) -> int:
    """What ``n`` attempts for each problem that was asked would cost beyond what was spent: attempts, or tokens as
    far as the means of each problem's own attempts tell."""
    asked = [t for t in tallies.values() if t.attempts]
    if plan.budget == "attempts":
        return sum(plan.n - t.attempts for t in asked)
    return sum(t.tokens * plan.n // t.attempts - t.tokens for t in asked)


def share(order: list[str], room: Mapping[str, int], prices: Mapping[str, int], budget: int) -> dict[str, int]:
    """Spend ``budget`` evenly: as many attempts for each as there is money and ``room`` for, what is left over one
    attempt at a time in ``order``."""
    given = dict.fromkeys(order, 0)
    while takers := [i for i in order if given[i] < room[i]]:
        each = budget // sum(prices[i] for i in takers)
        if each < 1:
            break
        for ident in takers:
            count = min(each, room[ident] - given[ident])
            given[ident] += count
            budget -= count * prices[ident]
    for ident in order:
        if given[ident] < room[ident] and prices[ident] <= budget:
            given[ident] += 1
            budget -= prices[ident]
    return {ident: count for ident, count in given.items() if count}
