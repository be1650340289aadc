"""The fuzzer in its short form, and that it finds what is there to find."""

from collections.abc import Iterator
from random import Random

import pytest

from scripts.bench.fuzz import FINDINGS, QUICK, Fuzz, Seed
from scripts.bench.mutations import mutate, mutate_export


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Fuzz]:
    fuzz = Fuzz(0)
    yield fuzz
    fuzz.close()


def test_what_is_called_proved_is_certified_and_nothing_false_is(fuzz: Fuzz) -> None:
    fuzz.run(0.0, **QUICK)
    assert fuzz.found == [] and not any(fuzz.counts[what] for what in FINDINGS)
    assert fuzz.counts["certified"] == fuzz.statuses["proved"] >= 3
    assert fuzz.counts["proofs_of_false_statements"] >= 10
    assert fuzz.counts["exports_for_false_statements"] >= 50
    assert sum(fuzz.refusals.values()) + fuzz.counts["exports_certified"] == QUICK["exports"]
    assert sum(n for why, n in fuzz.refusals.items() if why.startswith("export: the kernel rejects")) >= 20


def test_it_tells_of_a_false_statement_that_is_proved(fuzz: Fuzz) -> None:
    """With a statement called false that is true."""
    one = "theorem target : (1 : Nat) = 1"
    fuzz.near = [Seed(one, "rfl", false=one)]
    fuzz.seeds, fuzz.texts, fuzz.exports = fuzz.near, ["by rfl", "rfl"], []
    fuzz.start()
    for _ in range(400):  # most mutants prove nothing
        fuzz.export()
        fuzz.text()
        if fuzz.counts["audited_false"] and fuzz.counts["certified_false"]:
            break
    assert fuzz.counts["audited_false"] and fuzz.counts["certified_false"]
    assert {found["what"] for found in fuzz.found} == {"audited_false", "certified_false"}


def test_the_same_seed_makes_the_same_mutants() -> None:
    text, export = "by\n  have h : 1 = 1 := rfl\n  omega", "prover-export 1\ns 0 a\nc 1\ntheorem 1 0 0\nend 1 0 1 1"
    for change, subject in ((mutate, text), (mutate_export, export)):
        first, again = ([change(Random(n), subject, [text, export]) for n in range(300)] for _ in range(2))
        assert first == again and len(set(first)) > 150
