"""What does leaving the solved save? Uniform against allocated sampling at the same budget, without a model or Lean.

Each problem has a pass rate; attempts are drawn by it, by the plans that ``prover iterate`` uses, and both ways draw
the same outcome for the same attempt. Rates are simulated (a Beta distribution: many hard problems, some easy ones), or
recorded: ``--run DIR --round R`` takes them from the verdicts of a finished round, as proofs among the attempts of its
first wave, which is what every problem has alike. (No proof among few attempts is taken for a rate of 0, which nothing
can solve: let the run have many.)

Prints a table; the last line is a JSON object: for each ``enough`` the ratio, allocated over uniform, of attempts
spent, of problems solved, of proofs that selection would keep; then the mean error of pass@1 in percent points: by the
naive formula, by the unbiased one, and of uniform sampling, which is chance.
"""

import argparse
import json
import random
from pathlib import Path
from typing import NamedTuple

from prover import allocation, layout
from prover.allocation import Plan, Tally, evaluation_plan, training_plan
from prover.artifacts import open_artifact
from prover.config import SamplingConfig
from prover.passing import pass_at_k
from prover.records import Verdict
from prover.seeds import derive_seed
from prover.waves import Drawn

BETA = (0.25, 0.75)
"""Shape of the simulated rates: a quarter of attempts is proved on average, most problems seldom or nearly always."""
KEPT = 4
"""Proofs of a problem that selection keeps, by default."""


class Past(NamedTuple):
    """Attempts of a problem and which of them are proofs."""

    proved: list[bool]

    @property
    def tally(self) -> Tally:
        return Tally(len(self.proved), len(self.proved), len(self.proved), sum(self.proved))


def simulated(count: int, seed: int) -> list[float]:
    rng = random.Random(derive_seed(seed, "rates"))
    return [rng.betavariate(*BETA) for _ in range(count)]


def recorded(run: Path, number: int) -> list[float]:
    attempts, verdicts = (open_artifact(path) for path in layout.sampled(number).under(run))
    proved = {v.attempt_id for v in verdicts.read(Verdict) if v.proved}
    tries: dict[str, list[bool]] = {}
    for drawn in attempts.read(Drawn):
        tries.setdefault(drawn.problem_id, []).append(drawn.id in proved)
    return [sum(results) / len(results) for results in tries.values()]


def play(plan: Plan, rates: list[float], seed: int) -> dict[str, Past]:
    def outcome(problem: int, attempt: int) -> bool:
        return derive_seed(seed, problem, attempt) < rates[problem] * 2**63

    names = {f"p{i}": i for i in range(len(rates))}
    past = {name: Past([outcome(i, j) for j in range(plan.first)]) for name, i in names.items()}
    for wave in range(1, plan.waves):
        for name, count in allocation.more(plan, wave, {n: p.tally for n, p in past.items()}, seed).items():
            done = len(past[name].proved)
            past[name].proved.extend(outcome(names[name], done + j) for j in range(count))
    return past


def figures(past: dict[str, Past]) -> dict[str, float]:
    return {
        "attempts": sum(len(p.proved) for p in past.values()),
        "solved": sum(any(p.proved) for p in past.values()),
        "kept": sum(min(KEPT, sum(p.proved)) for p in past.values()),
    }


def errors(plan: Plan, rates: list[float], seed: int) -> dict[str, float]:
    """Of pass@1, against the rates that the attempts were drawn by, in percent points."""
    past = list(play(plan, rates, seed).values())
    true = sum(rates) / len(rates)
    naive = sum(pass_at_k(len(p.proved), sum(p.proved), 1) for p in past) / len(past)
    fair = sum(pass_at_k(len(p.proved), sum(p.proved), 1, plan.bounds, plan.enough) for p in past) / len(past)
    uniform = play(Plan((plan.n,), plan.n), rates, seed).values()
    share = sum(sum(p.proved) for p in uniform) / (plan.n * len(past))
    return {
        "evaluation_attempts": sum(len(p.proved) for p in past) / (plan.n * len(past)),
        "naive_error": 100 * (naive - true),
        "unbiased_error": 100 * (fair - true),
        "uniform_error": 100 * (share - true),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=32, help="attempts per problem of uniform sampling")
    parser.add_argument("--problems", type=int, default=2_000, help="simulated problems")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--run", type=Path, help="take the rates from this run")
    parser.add_argument("--round", type=int, default=1, help="of --run")
    parser.add_argument("--quick", action="store_true", help="300 problems, 2 seeds")
    options = parser.parse_args()
    count, seeds = (300, 2) if options.quick else (options.problems, options.seeds)
    result: dict[str, object] = {"n": options.n, "rates": "simulated"}
    names = ("enough", "attempts", "solved", "kept", "evaluation", "naive", "unbiased", "uniform")
    print(" ".join(f"{name:>10}" for name in names))
    for enough in sorted({1, max(1, options.n // 8), max(1, options.n // 4)}):
        sampling = SamplingConfig(n=options.n, enough=enough)
        found: list[dict[str, float]] = []
        for seed in range(seeds):
            rates = recorded(options.run, options.round) if options.run else simulated(count, seed)
            result |= {"problems": len(rates)} | ({"rates": str(options.run)} if options.run else {})
            uniform = figures(play(Plan((options.n,), options.n), rates, seed))
            allocated = figures(play(training_plan(sampling), rates, seed))
            ratios = {f"ratio_{k}": allocated[k] / max(1.0, uniform[k]) for k in uniform}
            found.append({**ratios, **errors(evaluation_plan(sampling), rates, seed)})
        mean = {key: round(sum(f[key] for f in found) / len(found), 3) for key in found[0]}
        result[f"enough_{enough}"] = mean
        print(" ".join(f"{value:>10}" for value in (enough, *mean.values())))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
