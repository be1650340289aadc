"""Scores from verdicts: pass@k, unbiased wherever sampling stopped, with bootstrap intervals over problems."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lean_env.source import normalise_proof
from prover import layout
from prover.allocation import Plan
from prover.artifacts import Artifact, ArtifactWriter
from prover.passing import pass_at_k
from prover.records import Attempt, Problem, Record, Verdict
from prover.seeds import derive_seed
from prover.stages.verify import Judged, fingerprints

RESAMPLES = 2_000
LEVEL = 0.95


class ProblemScore(Record, frozen=True):
    """``n`` judged attempts of a problem, ``proved`` of them, ``distinct`` proofs up to comments and spacing.

    ``first`` is the place (from 1) of the first proved attempt. ``beyond`` says that the fixed tactic list does not
    solve the problem; None where that was not measured. ``refused`` counted as proofs when sampling stopped, before a
    checker said no.
    """

    problem_id: str
    n: int
    proved: int
    distinct: int
    first: int | None = None
    beyond: bool | None = None
    refused: int = 0


def run(
    out: Path,
    *,
    problems: Artifact,
    judged: Sequence[Judged],
    ks: Sequence[int],
    plan: Plan | None = None,
    stopped_by: Sequence[Judged] = (),
    ordered: bool = False,
    baseline: Artifact | None = None,
    clean: bool = False,
) -> Artifact:
    """Score every problem, and the set: ``pass@k`` in percent with its interval ``pass@k_low`` .. ``pass@k_high``.

    ``judged`` are the waves of one sampling, and ``plan`` says where it stopped, None where it drew all alike;
    ``stopped_by`` are the verdicts that it stopped by, where a checker has refused some of them since.
    ``ordered`` attempts are a fixed list, not samples: pass@k is then the share solved by its first k entries, and
    ``pass@all`` by any. ``certified_attempts`` of the ``proved_attempts`` were certified, the others only audited;
    ``agreed NAME VERSION`` counts those that an external checker agreed to.
    ``baseline`` (scores of the fixed tactic list) adds ``beyond_pass@k``: the same over the problems that the list does
    not solve.
    """
    stops = plan if plan is not None and plan.enough is not None else None
    writer = ArtifactWriter(
        out,
        {
            "stage": "evaluate",
            "verdicts": fingerprints(judged),
            "k": list(ks),
            "ordered": ordered,
            "baseline": baseline.fingerprint if baseline else None,
            **({"plan": stops.recipe} if stops else {}),
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    scores: list[ProblemScore] = []
    certified = 0
    agreed: Counter[str] = Counter()
    for index in range(problems.shards):
        beyond = {s.problem_id: s.proved == 0 for s in baseline.read_shard(index, ProblemScore)} if baseline else {}
        statuses = {v.attempt_id: v for _, verdicts in judged for v in verdicts.read_shard(index, Verdict)}
        certified += sum(v.level == "certified" for v in statuses.values())
        agreed.update(f"{layout.AGREED}{checker}" for v in statuses.values() if v.proved for checker in v.checkers)
        by_problem: dict[str, list[Attempt]] = {p.id: [] for p in problems.read_shard(index, Problem)}
        for attempts, _ in judged:
            for attempt in attempts.read_shard(index, Attempt):
                if attempt.id in statuses:
                    by_problem[attempt.problem_id].append(attempt)
        counted = {v.attempt_id for _, verdicts in stopped_by for v in verdicts.read_shard(index, Verdict) if v.proved}
        shard = [_score(ident, tried, statuses, counted, beyond.get(ident)) for ident, tried in by_problem.items()]
        writer.write(index, shard)
        scores += shard
    return writer.finish({**_figures(scores, ks, stops, ordered), "certified_attempts": certified, **agreed})


def _score(
    ident: str, tried: list[Attempt], verdicts: dict[str, Verdict], counted: set[str], beyond: bool | None
) -> ProblemScore:
    proofs = [a.proof for a in tried if verdicts[a.id].proved and a.proof is not None]
    first = next((i for i, a in enumerate(tried, 1) if verdicts[a.id].proved), None)
    return ProblemScore(
        problem_id=ident,
        n=len(tried),
        proved=len(proofs),
        distinct=len({normalise_proof(p) for p in proofs}),
        first=first,
        beyond=beyond,
        refused=sum(a.id in counted and not verdicts[a.id].proved for a in tried),
    )


def _figures(
    scores: Sequence[ProblemScore], ks: Sequence[int], stops: Plan | None, ordered: bool
) -> dict[str, int | float]:
    figures: dict[str, int | float] = {
        "problems": len(scores),
        "attempts": sum(s.n for s in scores),
        "proved_attempts": sum(s.proved for s in scores),
        "solved": sum(s.proved > 0 for s in scores),
        "distinct_proofs": sum(s.distinct for s in scores),
    }
    if stops is not None and stops.enough is not None:
        figures["enough"] = stops.enough
    beyond = [s for s in scores if s.beyond]
    for k in ks:
        for name, those in (("pass", scores), ("beyond_pass", beyond)):
            values = [_one(s, k, stops, ordered) for s in those]
            figures |= _interval(f"{name}@{k}", np.array(values))
    if ordered:
        figures |= _interval("pass@all", np.array([float(s.proved > 0) for s in scores]))
    if any(s.beyond is not None for s in scores):
        figures["beyond_problems"] = len(beyond)
    return figures


def _one(score: ProblemScore, k: int, stops: Plan | None, ordered: bool) -> float:
    if ordered:
        return float(score.first is not None and score.first <= k)
    bounds, enough = (stops.bounds, stops.enough) if stops else ((), None)
    return pass_at_k(score.n, score.proved, k, bounds, enough, score.refused)


def _interval(name: str, values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean in percent and its percentile-bootstrap interval, problems resampled (Efron 1979), seeded by the name."""
    if values.size == 0:
        return {}
    rng = np.random.default_rng(derive_seed("bootstrap", name))
    means = np.array([values[rng.integers(0, values.size, values.size)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        name: round(100 * float(values.mean()), 2),
        f"{name}_low": round(100 * float(low), 2),
        f"{name}_high": round(100 * float(high), 2),
    }
