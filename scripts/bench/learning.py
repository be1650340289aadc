"""Does the loop learn? The quickstart over several seeds and variants, with its controls.

Each (variant, seed) is an ordinary run directory under ``--out``, so a killed benchmark goes on where it was. Prints a
Markdown table for docs/benchmarks.md and, as its last line, a JSON object of figures.

Variants: ``premises`` (the configuration as it is), ``bare`` (no retrieved lemmas), ``corrections`` (half of the first
attempts, and as many corrections of failures at most: never more checks). After each ``premises`` run its last model
is also evaluated averaged with its start, with corrections, and on minif2f-core where ``--minif2f`` names the file.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from lean_env.pool import LeanPool
from prover.artifacts import Artifact, read_manifest, run_lock
from prover.config import (
    CoreProblems,
    CorrectConfig,
    IterateConfig,
    JsonlProblems,
    LinearAverage,
    MiniF2FProblems,
    SamplingConfig,
)
from prover.config_file import load_config
from prover.console import open_progress
from prover.engines.lease import EngineLease
from prover.lean import open_lean
from prover.models import Model, open_model
from prover.pipeline import Loop, iterate
from prover.progress import Progress
from prover.records import Attempt, Verdict
from prover.stages import average, correct, evaluate, sample
from prover.stages.verify import Judged

VARIANTS = ("premises", "bare", "corrections")
LONG = 32
"""Attempts per problem of the long evaluations."""
TEMPERATURES = (0.4, 0.7, 1.0)
VALID = 100
"""Problems of the valid split that the temperature is chosen on."""


def variant(config: IterateConfig, name: str, seed: int) -> IterateConfig:
    changes: dict[str, Any] = {"seed": seed}
    if name != "premises":  # the controls are the same for all: once is enough
        changes["evaluate"] = config.evaluate.model_copy(update={"control_n": 0})
    if name == "bare":
        changes["train"] = config.train.model_copy(update={"premises": 0})
        changes["evaluate_on"] = {k: v.model_copy(update={"premises": 0}) for k, v in config.evaluate_on.items()}
    if name == "corrections":
        n = config.sampling.n // 2
        changes["sampling"] = config.sampling.model_copy(update={"n": n})
        changes["correct"] = CorrectConfig(turns=1, per_problem=n)
    return config.model_copy(update=changes)


def scores(path: Path) -> dict[str, float]:
    """Figures of a scores artifact; empty where it was not made."""
    return read_manifest(path).counts if (path / "artifact.json").exists() else {}


def rounds(run: Path, name: str, count: int) -> dict[str, dict[str, float]]:
    found = {f"round {r}": scores(run / f"round_{r:02d}" / "evaluate" / name / "scores") for r in range(count + 1)}
    found["control"] = scores(run / "control" / name / "scores")
    found["tactic list"] = scores(run / "portfolio" / name / "scores")
    return found


def extras(config: IterateConfig, run: Path, minif2f: Path | None, progress: Progress) -> dict[str, dict[str, float]]:
    """The last model: alone and averaged at pass@32, with corrections at equal checks, and on minif2f-core."""
    found: dict[str, dict[str, float]] = {}
    with (
        run_lock(run),
        LeanPool(open_lean(config.lean), workers=config.lean.workers) as pool,
        EngineLease(config.engine) as lease,
    ):
        loop = Loop(config, run, pool, lease, progress)
        sets = {name: loop.problems(name, section) for name, section in config.evaluate_on.items()}
        start = open_model(run / "round_00" / "sft" / "model", "r0")
        last = open_model(run / f"round_{config.rounds:02d}" / "sft" / "model", f"r{config.rounds}")
        weight = LinearAverage().tuned_weight
        mean = average.run(run / "extra" / "average", parts=[(last, weight), (start, 1 - weight)], series="mean")
        for name, problems in sets.items():
            listed = loop.portfolio(name, problems)
            baseline = loop.score_portfolio(name, problems, listed)
            seen = [listed]
            for label, model in (("last", last), ("averaged", mean)):
                out = run / "extra" / f"{label}_{LONG}" / name
                made = loop.evaluate_set(out, f"x.{label}", config.rounds, model, problems, LONG, baseline, seen)
                found[f"{name}: {label} n={LONG}"] = scores(made.path)
            found[f"{name}: corrected"] = with_corrections(
                loop, run / "extra" / "corrected" / name, last, problems, baseline
            )
        if minif2f is not None:
            section = MiniF2FProblems(source="minif2f", path=minif2f, header="core", premises=8)
            problems = loop.problems("minif2f-core", section)
            listed = loop.portfolio("minif2f-core", problems)
            baseline = loop.score_portfolio("minif2f-core", problems, listed)
            found["minif2f-core: tactic list"] = scores(baseline.path)
            seen = [listed]
            for label, model in (("start", start), ("last", last)):
                out = run / "extra" / f"{label}_{LONG}" / "minif2f-core"
                made = loop.evaluate_set(out, f"x.{label}", config.rounds, model, problems, LONG, baseline, seen)
                found[f"minif2f-core: {label} n={LONG}"] = scores(made.path)
    return found


def at_chosen_temperature(config: IterateConfig, run: Path, progress: Progress) -> dict[str, dict[str, float]]:
    """The last model at the temperature that serves it best on the valid split, chosen by pass@8 there."""
    found: dict[str, dict[str, float]] = {}
    model = open_model(run / f"round_{config.rounds:02d}" / "sft" / "model", f"r{config.rounds}")
    by_temperature: dict[float, float] = {}
    with (
        run_lock(run),
        LeanPool(open_lean(config.lean), workers=config.lean.workers) as pool,
        EngineLease(config.engine) as lease,
    ):

        def judge(name: str, problems: Artifact, temperature: float, baseline: Artifact | None) -> dict[str, float]:
            evaluation = config.evaluate.model_copy(update={"temperature": temperature})
            loop = Loop(config.model_copy(update={"evaluate": evaluation}), run, pool, lease, progress)
            out = run / "extra" / f"T{temperature}" / name
            series = f"x.T{temperature}"
            return scores(
                loop.evaluate_set(out, series, config.rounds, model, problems, evaluation.n, baseline, seen[name]).path
            )

        loop = Loop(config, run, pool, lease, progress)
        premises = 0 if isinstance(config.train, JsonlProblems) else config.train.premises
        valid = loop.problems("valid", CoreProblems(source="core", split="valid", limit=VALID, premises=premises))
        seen: dict[str, list[Judged]] = {"valid": [], **{name: [] for name in config.evaluate_on}}
        for temperature in TEMPERATURES:
            by_temperature[temperature] = judge("valid", valid, temperature, None)["pass@8"]
            found[f"valid: T={temperature}"] = {"pass@8": by_temperature[temperature]}
        best = max(TEMPERATURES, key=lambda t: by_temperature[t])
        for name, section in config.evaluate_on.items():
            problems = loop.problems(name, section)
            baseline = loop.score_portfolio(name, problems, loop.portfolio(name, problems))
            found[f"{name}: last at T chosen on valid"] = {
                **judge(name, problems, best, baseline),
                "temperature": best,
            }
    return found


def with_corrections(loop: Loop, out: Path, model: Model, problems: Artifact, baseline: Artifact) -> dict[str, float]:
    """Half of ``evaluate.n`` first attempts, then as many corrections at most: solved share and checks spent."""
    config, n = loop.config, loop.config.evaluate.n // 2
    drawn = SamplingConfig(
        n=n,
        temperature=config.evaluate.temperature,
        top_p=config.evaluate.top_p,
        max_tokens=config.sampling.max_tokens,
    )
    first = sample.run(
        out / "attempts",
        problems=problems,
        model=model,
        lease=loop.lease,
        prompt=loop.prompt,
        sampling=drawn,
        series="x.first",
        round=config.rounds,
        seed=config.seed,
        progress=loop.progress,
    )
    judged: Judged = (first, loop.verify(out / "verdicts", "x.first", problems, first))
    again = correct.run(
        out / "corrected",
        problems=problems,
        failed=[judged],
        model=model,
        lease=loop.lease,
        prompt=loop.prompt,
        sampling=drawn,
        config=CorrectConfig(turns=1, per_problem=n),
        series="x.first",
        round=config.rounds,
        turn=1,
        seed=config.seed,
        progress=loop.progress,
    )
    fixed: Judged = (again, loop.verify(out / "corrected_verdicts", "x.corrected", problems, again))
    solved: set[str] = set()
    tried = 0
    for attempts, verdicts in (judged, fixed):
        proved = {v.attempt_id for v in verdicts.read(Verdict) if v.proved}
        for attempt in attempts.read(Attempt):
            tried += 1
            if attempt.id in proved:
                solved.add(attempt.problem_id)
    beyond = {s.problem_id for s in baseline.read(evaluate.ProblemScore) if not s.proved}
    total = read_manifest(problems.path).counts["problems"]
    return {
        "solved": round(100 * len(solved) / total, 2),
        "beyond_solved": round(100 * len(solved & beyond) / max(1, len(beyond)), 2),
        "attempts": tried,
    }


def over_seeds(found: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Lists of each figure over the seeds."""
    rows: dict[str, dict[str, list[float]]] = {}
    for one in found:
        for row, figures in one.items():
            for key, value in figures.items():
                if not key.endswith(("_low", "_high")):
                    rows.setdefault(row, {}).setdefault(key, []).append(value)
    return rows


def table(title: str, rows: dict[str, dict[str, list[float]]], keys: list[str]) -> str:
    lines = [f"\n### {title}\n", "| | " + " | ".join(keys) + " |", "|---|" + "---|" * len(keys)]
    for row, figures in rows.items():
        cells = [_cell(figures.get(key, [])) for key in keys]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean = statistics.fmean(values)
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean:.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.toml"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the run directories")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--minif2f", type=Path, help="miniF2F JSONL (DeepSeek-Prover-V1.5 edition)")
    parser.add_argument("--no-extras", action="store_true", help="only the loops")
    options = parser.parse_args()
    base = load_config(options.config)
    figures: dict[str, Any] = {}
    with open_progress() as progress:
        for name in options.variants:
            found: list[dict[str, dict[str, float]]] = []
            for seed in options.seeds:
                config, run = variant(base, name, seed), options.out / f"{name}_s{seed}"
                iterate(config, run, progress=progress)
                one = {f"{s}: {row}": f for s in config.evaluate_on for row, f in rounds(run, s, config.rounds).items()}
                if name == "premises":
                    one |= at_chosen_temperature(config, run, progress)
                if name == "premises" and not options.no_extras:
                    one |= extras(config, run, options.minif2f, progress)
                found.append(one)
            figures[name] = over_seeds(found)
    for name, rows in figures.items():
        keys = ["pass@1", "pass@8", "pass@32", "pass@all", "beyond_pass@8", "beyond_pass@32", "beyond_problems"]
        keys += ["distinct_proofs", "temperature", "solved", "beyond_solved", "attempts"]
        print(table(name, rows, [k for k in keys if any(k in f for f in rows.values())]))
    print(json.dumps({"seeds": options.seeds, **figures}))


if __name__ == "__main__":
    main()
