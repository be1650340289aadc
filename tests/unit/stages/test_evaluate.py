"""pass@k and its figures, against definitions rather than against itself."""

import itertools
from pathlib import Path

import pytest

from prover.allocation import Plan
from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.passing import pass_at_k
from prover.records import Attempt, Problem, Verdict
from prover.stages import evaluate


@pytest.mark.parametrize(("n", "proved", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (8, 3, 8), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_k_subsets_with_a_proof(n: int, proved: int, k: int) -> None:
    subsets = list(itertools.combinations(range(n), k))
    share = sum(any(i < proved for i in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, proved, k) == pytest.approx(share)


def test_fewer_attempts_than_k_count_as_they_are() -> None:
    assert pass_at_k(2, 1, 8) == 1.0
    assert pass_at_k(0, 0, 8) == 0.0


def judged(folder: Path, outcomes: dict[str, str]) -> tuple[Artifact, tuple[Artifact, Artifact]]:
    """Problems, attempts and verdicts; an outcome is letters: ``p`` proved, ``f`` failed, ``u`` unjudged."""
    problems = ArtifactWriter(folder / "p", {"stage": "problems"}, 1)
    problems.write(0, [Problem(id=i, header="", formal_statement=f"theorem {i} : True") for i in outcomes])
    attempts = ArtifactWriter(folder / "a", {"stage": "sample"}, 1)
    tried = [
        Attempt(
            id=f"{ident}.{n}",
            problem_id=ident,
            round=0,
            turn=0,
            model="m",
            messages=(),
            completion="",
            finish_reason="stop",
            prompt_tokens=0,
            completion_tokens=0,
            seed=0,
            proof=f"by  simp -- {n}" if n % 2 else "by rfl",
        )
        for ident, letters in outcomes.items()
        for n, _ in enumerate(letters)
    ]
    attempts.write(0, tried)
    verdicts = ArtifactWriter(folder / "v", {"stage": "verify"}, 1)
    letters = [letter for text in outcomes.values() for letter in text]
    verdicts.write(
        0,
        [
            Verdict(attempt_id=a.id, status="proved" if letter == "p" else "failed")
            for a, letter in zip(tried, letters, strict=True)
            if letter != "u"
        ],
    )
    return problems.finish({"problems": len(outcomes)}), (attempts.finish({}), verdicts.finish({}))


def test_scores_count_distinct_proofs_and_the_beyond_set(tmp_path: Path) -> None:
    problems, listed = judged(tmp_path / "list", {"a": "fp", "b": "ff", "c": "ff"})
    baseline = evaluate.run(tmp_path / "list" / "s", problems=problems, judged=[listed], ks=[1, 2], ordered=True)
    figures = read_manifest(baseline.path).counts
    assert figures["pass@1"] == 0.0
    assert figures["pass@2"] == figures["pass@all"] == pytest.approx(33.33)

    problems, sampled = judged(tmp_path / "model", {"a": "pppp", "b": "pfff", "c": "ffuu"})
    scores = evaluate.run(tmp_path / "model" / "s", problems=problems, judged=[sampled], ks=[1, 4], baseline=baseline)
    a, b, c = scores.read(evaluate.ProblemScore)
    assert (a.n, a.proved, a.distinct, a.first, a.beyond) == (4, 4, 2, 1, False)
    assert (b.proved, b.first, b.beyond) == (1, 1, True)
    assert (c.n, c.proved, c.first, c.beyond) == (2, 0, None, True)
    figures = read_manifest(scores.path).counts
    assert figures["pass@1"] == pytest.approx(100 * (1 + 0.25 + 0) / 3, abs=0.01)
    assert figures["beyond_problems"] == 2
    assert figures["beyond_pass@4"] == 50.0
    assert figures["pass@4_low"] <= figures["pass@4"] <= figures["pass@4_high"]


def test_a_proof_that_is_refused_after_the_stop_is_a_failure_that_counted(tmp_path: Path) -> None:
    """Of the ten orders of a proof, a refused one and two failures that come past the second attempt two begin with the
    proof: had it been followed by the refused one, the sampling would have stopped."""
    problems, before = judged(tmp_path / "before", {"a": "fppf"})
    _, after = judged(tmp_path / "after", {"a": "fpff"})
    plan = Plan((2, 4), 4, 2)
    scores = evaluate.run(tmp_path / "s", problems=problems, judged=[after], stopped_by=[before], ks=[1, 4], plan=plan)
    figures = read_manifest(scores.path).counts
    assert (figures["pass@1"], figures["pass@4"], figures["proved_attempts"]) == (20.0, 100.0, 1)
