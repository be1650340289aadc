"""Who gets how many attempts: properties that hold whatever the problems are, and the corners."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prover import allocation
from prover.allocation import Plan, Tally, evaluation_plan, training_plan
from prover.config import SamplingConfig

SAMPLINGS = st.integers(1, 40).flatmap(
    lambda n: st.builds(
        SamplingConfig,
        n=st.just(n),
        enough=st.none() | st.integers(1, 2 * n),
        budget=st.sampled_from(["attempts", "tokens"]),
    )
)
POOLS = st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]), min_size=1, max_size=12)


def play(plan: Plan, rates: list[float], seed: int, most: int) -> dict[str, tuple[list[bool], int]]:
    """Sample a pool by the plan: the i-th attempt of a problem has one outcome and one length, whenever it is drawn."""
    told = {
        f"p{i}": [((r := random.Random(f"{seed} {i} {j}")).random() < rate, r.randint(1, 50)) for j in range(most)]
        for i, rate in enumerate(rates)
    }
    drawn = dict.fromkeys(told, plan.first)
    for wave in range(1, plan.waves):
        past = {i: tally([told[i][j] for j in range(drawn[i])]) for i in told}
        granted = allocation.more(plan, wave, past, seed)
        for i, count in granted.items():
            assert count > 0 and allocation.is_open(past[i], plan)
            drawn[i] += count
            assert drawn[i] <= plan.bounds[wave]
    return {i: ([ok for ok, _ in told[i][: drawn[i]]], sum(t for _, t in told[i][: drawn[i]])) for i in told}


def tally(results: list[tuple[bool, int]]) -> Tally:
    return Tally(len(results), sum(t for _, t in results), len(results), sum(ok for ok, _ in results))


@settings(max_examples=150, deadline=None)
@given(SAMPLINGS, POOLS, st.integers(0, 9))
def test_a_round_keeps_its_budget_and_never_solves_less_than_uniform_sampling(
    sampling: SamplingConfig, rates: list[float], seed: int
) -> None:
    plan = training_plan(sampling)
    uniform = play(Plan((sampling.n,), sampling.n), rates, seed, sampling.n)
    found = play(plan, rates, seed, plan.bounds[-1])
    for ident, (results, _) in found.items():
        assert results[: sampling.n] == uniform[ident][0][: len(results)], "the common beginning is the same"
        if sampling.enough is None or sum(results[: sampling.n]) < sampling.enough:
            assert len(results) >= sampling.n, "an open problem gets n at least"
        if any(uniform[ident][0]):
            assert any(results), "solved there, solved here"
    if sampling.budget == "attempts":
        assert sum(len(results) for results, _ in found.values()) <= sampling.n * len(rates)
    assert found == play(plan, rates, seed, plan.bounds[-1])


@settings(max_examples=100, deadline=None)
@given(SAMPLINGS)
def test_plans_rise_to_n_and_for_training_beyond(sampling: SamplingConfig) -> None:
    training, evaluation = training_plan(sampling), evaluation_plan(sampling)
    for plan in (training, evaluation):
        assert list(plan.bounds) == sorted(set(plan.bounds)) and sampling.n in plan.bounds
        assert plan.first >= min(sampling.n, sampling.enough or sampling.n)
    assert evaluation.bounds[-1] == sampling.n
    if sampling.enough is None:
        assert training.bounds == evaluation.bounds == (sampling.n,)
    else:
        assert training.bounds[-2:] == (2 * sampling.n, 4 * sampling.n)
    assert all(training.local(w) == (b <= sampling.n) for w, b in enumerate(training.bounds))


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii"), min_size=1, max_size=3),
        st.tuples(st.integers(1, 9), st.integers(1, 30)),
        max_size=8,
    ),
    st.integers(-5, 500),
)
def test_a_budget_is_spent_evenly_and_kept(pool: dict[str, tuple[int, int]], budget: int) -> None:
    room, prices = {i: r for i, (r, _) in pool.items()}, {i: p for i, (_, p) in pool.items()}
    order = sorted(pool)
    given_out = allocation.share(order, room, prices, budget)
    cost = sum(prices[i] * count for i, count in given_out.items())
    assert all(0 < count <= room[i] for i, count in given_out.items())
    assert cost <= max(budget, 0)
    hungry = [i for i in order if given_out.get(i, 0) < room[i]]
    assert not hungry or budget - cost < sum(prices[i] for i in hungry), "another for each of them would be too dear"
    for i in hungry:
        assert all(given_out.get(j, 0) <= given_out.get(i, 0) + 1 for j in order), (
            "nobody has two more than who could take"
        )


PLAN = training_plan(SamplingConfig(n=8, enough=2))


def test_the_plan_of_eight() -> None:
    assert PLAN.bounds == (2, 4, 8, 16, 32)
    assert training_plan(SamplingConfig(n=1, enough=1)).bounds == (1, 2, 4)


@pytest.mark.parametrize("wave", [1, 2, 3, 4])
def test_nobody_is_sampled_on_where_all_are_solved_or_none_can_be(wave: int) -> None:
    done = PLAN.bounds[wave - 1]
    solved = {f"s{i}": Tally(2, 20, 2, 2) for i in range(5)}
    broken = {"statement": Tally(2, 20, 0, 0), "half": Tally(done, 9, done - 1, 0)}
    assert allocation.more(PLAN, wave, {**solved, **broken}, 0) == {}
    assert allocation.more(PLAN, wave, {}, 0) == {}


def test_where_nothing_is_solved_nothing_is_saved_and_all_get_n() -> None:
    at = {n: {f"p{i}": Tally(n, 10 * n, n, 0) for i in range(3)} for n in (2, 4, 8)}
    assert allocation.more(PLAN, 1, at[2], 0) == dict.fromkeys(at[2], 2)
    assert allocation.more(PLAN, 2, at[4], 0) == dict.fromkeys(at[4], 4)
    assert allocation.more(PLAN, 3, at[8], 0) == {}


def test_a_statement_that_lean_does_not_judge_and_a_prompt_that_does_not_fit_pay_as_they_should() -> None:
    """What a broken statement would have cost is saved; a problem that nobody could ask would have cost nothing."""
    past = {"broken": Tally(2, 20, 0, 0), "open": Tally(8, 80, 8, 1)}
    assert allocation.saved(PLAN, past) == 6
    assert allocation.more(PLAN, 3, past, 0) == {"open": 6}
    assert allocation.saved(PLAN, {**past, "unasked": Tally(0, 0, 0, 0)}) == 6


def test_what_does_not_suffice_goes_to_those_with_fewest_proofs() -> None:
    past = {"solved": Tally(6, 6, 6, 2), "one": Tally(8, 8, 8, 1), "none": Tally(8, 8, 8, 0), "nil": Tally(8, 8, 8, 0)}
    assert allocation.more(PLAN, 3, past, 0) == {"none": 1, "nil": 1}


def test_saved_tokens_buy_fewer_long_attempts_than_short_ones() -> None:
    plan = training_plan(SamplingConfig(n=8, enough=2, budget="tokens"))
    past = {"solved": Tally(2, 20, 2, 2), "short": Tally(8, 80, 8, 0), "long": Tally(8, 800, 8, 0)}
    assert allocation.saved(plan, past) == 60
    assert allocation.more(plan, 3, past, 0) == {"short": 1}
    past["solved"] = Tally(2, 200, 2, 2)
    granted = allocation.more(plan, 3, past, 0)
    assert granted["short"] - granted["long"] in (0, 1)
    assert 500 <= 10 * granted["short"] + 100 * granted["long"] <= 600


def test_more_proofs_than_attempts_are_never_enough() -> None:
    assert evaluation_plan(SamplingConfig(n=4, enough=5)) == evaluation_plan(SamplingConfig(n=4))
    past = {"a": Tally(4, 4, 4, 4), "b": Tally(4, 4, 4, 0)}
    assert allocation.more(training_plan(SamplingConfig(n=4, enough=5)), 1, past, 0) == {}
