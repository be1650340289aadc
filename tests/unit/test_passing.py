"""pass@k under stopping: unbiased by enumeration of every outcome, in exact arithmetic."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations, product
from math import comb

import pytest

from prover.passing import pass_at_k

PLANS = [
    ((8,), None),
    ((2, 4, 8), 1),
    ((2, 4, 8), 2),
    ((3, 5, 9), 2),
    ((1, 2, 3, 4, 5, 6), 1),
    ((4, 6, 10), 3),
    ((1, 7), 1),
]
RATES = [Fraction(0), Fraction(1, 50), Fraction(1, 3), Fraction(1, 2), Fraction(9, 10), Fraction(1)]
Estimator = Callable[[int, int, int, tuple[int, ...], int | None], float]


def outcomes(bounds: tuple[int, ...], enough: int | None, rate: Fraction) -> Iterator[tuple[int, int, Fraction]]:
    """Attempts, proofs and probability of every way that the sampling of a problem can go: what a sampler does, with
    nothing that the estimator knows."""

    def wave(number: int, proved: int, chance: Fraction) -> Iterator[tuple[int, int, Fraction]]:
        done = bounds[number - 1] if number else 0
        if number == len(bounds) or (enough is not None and number and proved >= enough):
            yield done, proved, chance
            return
        for results in product((0, 1), repeat=bounds[number] - done):
            good = sum(results)
            yield from wave(number + 1, proved + good, chance * rate**good * (1 - rate) ** (len(results) - good))

    yield from wave(0, 0, Fraction(1))


def expected(estimate: Estimator, bounds: tuple[int, ...], enough: int | None, rate: Fraction, k: int) -> Fraction:
    return sum(
        (
            chance * Fraction(estimate(n, proved, k, bounds, enough))
            for n, proved, chance in outcomes(bounds, enough, rate)
        ),
        Fraction(0),
    )


def naive(n: int, proved: int, k: int, bounds: tuple[int, ...], enough: int | None) -> float:
    """The estimator for a fixed number of attempts."""
    return pass_at_k(n, proved, k)


@pytest.mark.parametrize(("bounds", "enough"), PLANS)
def test_the_expectation_is_the_chance_to_prove_in_k_attempts(bounds: tuple[int, ...], enough: int | None) -> None:
    for rate in RATES:
        for k in range(1, bounds[-1] + 1):
            true = 1 - (1 - rate) ** k
            found = expected(pass_at_k, bounds, enough, rate, k)
            assert abs(found - true) < Fraction(1, 10**12), (rate, k)


def test_the_formula_for_a_fixed_number_overstates_where_sampling_stops_and_this_test_sees_it() -> None:
    bounds, rate = (2, 4, 8), Fraction(1, 3)
    assert expected(naive, bounds, 1, rate, 1) - rate > Fraction(1, 12)
    assert abs(expected(naive, bounds, None, rate, 1) - rate) < Fraction(1, 10**12)


@pytest.mark.parametrize(("n", "proved", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (8, 3, 8), (4, 1, 4)])
def test_with_one_wave_it_is_the_share_of_k_subsets_with_a_proof(n: int, proved: int, k: int) -> None:
    subsets = list(combinations(range(n), k))
    share = sum(any(i < proved for i in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, proved, k) == pytest.approx(share, abs=1e-15)
    assert pass_at_k(n, proved, k, (n,), 3) == pass_at_k(n, proved, k)
    if n - proved >= k:
        assert pass_at_k(n, proved, k) == 1.0 - comb(n - proved, k) / comb(n, k), "to the last bit, as it was"


def test_stopped_before_k_is_a_proof_and_fewer_attempts_count_as_they_are() -> None:
    assert pass_at_k(2, 1, 8, (2, 8), 1) == 1.0
    assert pass_at_k(2, 1, 8) == 1.0
    assert pass_at_k(0, 0, 8) == pass_at_k(2, 0, 8, (4, 8), 1) == 0.0


def test_attempts_that_fell_out_after_the_stop_leave_an_estimate() -> None:
    """A rule of stopping at 1 proof cannot let 2 of 3 come past its second attempt."""
    assert pass_at_k(3, 2, 1, (2, 4), 1) == pass_at_k(3, 2, 1)


def test_many_attempts_are_counted_exactly_and_quickly() -> None:
    estimate = pass_at_k(512, 9, 128, (128, 256, 512), 8)
    assert 0 < estimate < pass_at_k(512, 9, 128) < 1


@pytest.mark.parametrize(("bounds", "enough"), [((2, 4), 1), ((2, 4), 2), ((2, 3, 6), 1), ((2, 3, 6), 2)])
def test_proofs_that_are_refused_after_the_stop_leave_it_unbiased_or_lower(
    bounds: tuple[int, ...], enough: int
) -> None:
    """Every outcome of attempts that fail, are proved and then refused, or proved. The shortest way has 2 attempts."""
    for rate, agreed in product(RATES, (Fraction(1, 2), Fraction(9, 10), Fraction(1))):

        def wave(
            number: int, proved: int, refused: int, k: int, rate: Fraction = rate, agreed: Fraction = agreed
        ) -> Fraction:
            done = bounds[number - 1] if number else 0
            if number == len(bounds) or (number and proved + refused >= enough):
                return Fraction(pass_at_k(done, proved, k, bounds, enough, refused))
            total = Fraction(0)
            for good, bad in product(range(bounds[number] - done + 1), repeat=2):
                other = bounds[number] - done - good - bad
                if other >= 0:
                    ways = comb(bounds[number] - done, good) * comb(bounds[number] - done - good, bad)
                    chance = (rate * agreed) ** good * (rate * (1 - agreed)) ** bad * (1 - rate) ** other
                    total += ways * chance * wave(number + 1, proved + good, refused + bad, k, rate, agreed)
            return total

        for k in range(1, bounds[-1] + 1):
            true, found = 1 - (1 - rate * agreed) ** k, wave(0, 0, 0, k)
            exact = k <= bounds[0] or agreed == 1
            assert abs(found - true) < Fraction(1, 10**12) if exact else found < true + Fraction(1, 10**12), (rate, k)
