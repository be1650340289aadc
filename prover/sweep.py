"""Which average is best: one for each weight of the tuned models, each evaluated on a validation set with real Lean.

``prover average --sweep`` does it once, the loop in each round (:func:`of_round`).

Every weight's evaluation is an artifact of its own, so a sweep that was killed goes on where it was. No more than two
averages lie on the disk at a time, the best so far and the one in work; an average that is needed again is made again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lean_env.pool import LeanPool
from prover import layout
from prover.artifacts import Artifact, ArtifactWriter, disk_errors, open_artifact, read_manifest, run_lock
from prover.config import AverageConfig, LinearAverage, StageConfig
from prover.engines.lease import EngineLease
from prover.errors import ConfigError
from prover.ground import Ground
from prover.lean import open_lean
from prover.models import Model, open_model
from prover.pretrained import discard, linked
from prover.progress import Progress, Silent
from prover.prompts import Prompt
from prover.records import Record
from prover.single import open_parts, open_problems
from prover.stages import average

RULE = "highest pass@k of the largest k; then of the smallest k; then the smaller weight of the tuned models"
"""How the best is chosen. Figures count as they are reported, to a hundredth of a percent."""


class SweepPoint(Record, frozen=True):
    """One weight of a sweep. ``passed`` is pass@k in percent by k; ``scores`` the folder of its evaluation, relative
    to the sweep's."""

    tuned_weight: float
    passed: dict[str, float]
    scores: str
    chosen: bool = False


def swept(
    out: Path,
    parts: Sequence[tuple[Path, float]],
    base: Path,
    problems: Path,
    *,
    tuned_weights: Sequence[float],
    config: StageConfig,
    require_sandbox: bool = False,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """The sweep's points, one for each of ``tuned_weights``, in ``out``; the best average in ``out/model``.

    ``parts`` are the tuned models with their weights among each other. Raises ConfigError for a weight that the method
    does not take.
    """
    progress = progress or Silent()
    method = config.average or LinearAverage()
    methods = {weight: _with_weight(method, weight) for weight in tuned_weights}
    toolchain = open_lean(config.lean, require_sandbox=require_sandbox, say=progress.note)
    with (
        run_lock(out),
        LeanPool(toolchain, workers=config.lean.workers) as pool,
        EngineLease(config.engine) as lease,
    ):
        source, prompt = open_problems(problems, out), Prompt(config.prompt)
        ground = Ground(source, pool, lease, config.lean.limits(), prompt, config.seed, progress, clean=clean)
        tuned, start = open_parts(parts), open_model(base)
        run(out, parts=tuned, base=start, methods=methods, ground=ground, config=config, seed=config.seed, series="")
        return open_artifact(out)


def of_round(
    out: Path,
    *,
    number: int,
    tuned: Model,
    base: Model,
    config: StageConfig,
    ground: Ground | None,
    progress: Progress,
) -> Model:
    """What a round of the loop goes on with: the tuned model, or its average with its base as ``config.average`` has
    it. Where that tries several weights, ``ground`` is what the best is chosen on."""
    method, seed, series = config.average, config.seed + number, f"r{number}"
    if method is None:
        return tuned
    parts = [(tuned, 1.0)]
    if ground is not None and method.sweep:
        ground = msgspec.structs.replace(ground, round=number)
        methods = {weight: method.at(weight) for weight in method.sweep}
        return run(out, parts=parts, base=base, methods=methods, ground=ground, config=config, seed=seed, series=series)
    return average.run(out, parts=parts, base=base, method=method, seed=seed, series=series, progress=progress)


def run(
    out: Path,
    *,
    parts: average.Parts,
    base: Model,
    methods: Mapping[float, AverageConfig],
    ground: Ground,
    config: StageConfig,
    seed: int,
    series: str,
) -> Model:
    """The best of the averages that ``methods`` make, by weight, in ``out/model``; the points in ``out``.

    Each is evaluated on ``ground`` as ``config.evaluate`` says, all with the same seeds. ``seed`` is the averages' own.
    """
    ks, sampling = sorted(set(config.evaluate.k)), config.evaluation_sampling()

    def averaged(weight: float, *, planned: bool = False, clean: bool = False) -> Model:
        return average.run(
            Path(layout.weighed(str(out), weight)) / layout.AVERAGE,
            parts=parts,
            base=base,
            method=methods[weight],
            series=f"{series} weight_{weight:g}".strip(),
            seed=seed,
            progress=ground.progress,
            clean=clean,
            planned=planned,
        )

    writer = ArtifactWriter(
        out,
        {
            "stage": "sweep",
            "averages": [[weight, averaged(weight, planned=True).fingerprint] for weight in sorted(methods)],
            "problems": ground.problems.fingerprint,
            "evaluation": [
                *(ks, sampling.model_dump(mode="json"), ground.prompt.recipe, ground.seed, ground.lease.recipe),
                *(msgspec.to_builtins(ground.limits), ground.pool.toolchain.version),
            ],
        },
        1,
        clean=ground.clean,
    )

    def model(weight: float) -> Model:
        """By what it is made of: where it was found is nothing to the stages that take it."""
        return Model(out / "model", averaged(weight, planned=True).fingerprint, series or out.name)

    if writer.finished and (out / "model").exists():
        return model(next(point.tuned_weight for point in writer.finished.read(SweepPoint) if point.chosen))
    points: list[SweepPoint] = []
    for weight in sorted(methods):
        place = Path(layout.weighed(str(out), weight))
        known = (place / layout.SCORES / "artifact.json").exists() and not ground.clean
        made = averaged(weight, planned=known, clean=ground.clean)
        leading = {best(points).tuned_weight} if points else set[float]()
        points.append(_point(out, weight, ground.evaluate(place, made, sampling=sampling, ks=ks)))
        ground.progress.note(f"{series} tuned weight {weight:g}: ".lstrip() + _said(points[-1].passed))
        for other in {weight, *leading} - {best(points).tuned_weight}:
            _discard(out, other)
    chosen = best(points).tuned_weight
    linked(averaged(chosen).path, out / "model")
    _discard(out, chosen)
    writer.write(0, [_marked(point, point.tuned_weight == chosen) for point in points])
    writer.finish({"points": len(points), "tuned_weight": chosen})
    ground.progress.note(f"{series} goes on with tuned weight {chosen:g}" if series else f"best: {chosen:g}")
    return model(chosen)


def _discard(out: Path, weight: float) -> None:
    with disk_errors(out):
        discard(Path(layout.weighed(str(out), weight)) / layout.AVERAGE / "model")


def best(points: Sequence[SweepPoint]) -> SweepPoint:
    """The point that :data:`RULE` chooses."""

    def rank(point: SweepPoint) -> tuple[float, float, float]:
        ks = sorted(point.passed, key=int)
        return point.passed[ks[-1]], point.passed[ks[0]], -point.tuned_weight

    return max(points, key=rank)


def _with_weight(method: AverageConfig, weight: float) -> AverageConfig:
    from pydantic import ValidationError

    try:
        return method.at(weight)
    except ValidationError as error:
        raise ConfigError(f"--sweep {weight:g}: tuned_weight: {error.errors()[0]['msg']}") from error


def _point(out: Path, weight: float, scores: Artifact) -> SweepPoint:
    counts = read_manifest(scores.path).counts
    passed = {
        name.removeprefix("pass@"): float(value)
        for name, value in counts.items()
        if name.startswith("pass@") and name.removeprefix("pass@").isdigit()
    }
    return SweepPoint(tuned_weight=weight, passed=passed, scores=str(scores.path.relative_to(out)))


def _marked(point: SweepPoint, chosen: bool) -> SweepPoint:
    return SweepPoint(point.tuned_weight, point.passed, point.scores, chosen)


def _said(passed: Mapping[str, float]) -> str:
    return ", ".join(f"pass@{k} {value:.1f}" for k, value in passed.items())
