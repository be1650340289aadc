"""Which average is best: one for each weight of the tuned models, each evaluated on a validation set with real Lean.

Every weight's evaluation is an artifact of its own, so a sweep that was killed goes on where it was. No more than two
averages lie on the disk at a time, the best so far and the one in work; an average that is needed again is made again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lean_env.pool import LeanPool
from prover import layout
from prover.artifacts import Artifact, ArtifactWriter, disk_errors, read_manifest, run_lock
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
    methods = {weight: _with_weight(method, weight) for weight in sorted(set(tuned_weights))}
    prompt = Prompt(config.prompt)
    toolchain = open_lean(config.lean, require_sandbox=require_sandbox, say=progress.note)
    with (
        run_lock(out),
        LeanPool(toolchain, workers=config.lean.workers) as pool,
        EngineLease(config.engine) as lease,
    ):
        tuned, start = open_parts(parts), open_model(base)

        def averaged(weight: float, *, planned: bool = False, clean: bool = False) -> Model:
            return average.run(
                _place(out, weight) / "average",
                parts=tuned,
                base=start,
                method=methods[weight],
                series=f"weight_{weight:g}",
                seed=config.seed,
                clean=clean,
                planned=planned,
            )

        ground = Ground(
            problems=open_problems(problems, out),
            pool=pool,
            lease=lease,
            limits=config.lean.limits(),
            prompt=prompt,
            seed=config.seed,
            progress=progress,
            clean=clean,
        )
        ks, sampling = sorted(set(config.evaluate.k)), config.evaluation_sampling()
        writer = ArtifactWriter(
            out,
            {
                "stage": "sweep",
                "averages": [[weight, averaged(weight, planned=True).fingerprint] for weight in methods],
                "problems": ground.problems.fingerprint,
                "evaluation": [ks, sampling.model_dump(mode="json"), prompt.recipe, config.seed, lease.recipe],
            },
            1,
            clean=clean,
        )
        if writer.finished and (out / "model").exists():
            return writer.finished
        points: list[SweepPoint] = []
        for weight in methods:
            place = _place(out, weight)
            known = (place / layout.SCORES / "artifact.json").exists() and not clean
            model = averaged(weight, planned=known, clean=clean)
            leading = {best(points).tuned_weight} if points else set[float]()
            points.append(_point(out, weight, ground.evaluate(place, model, sampling=sampling, ks=ks)))
            progress.note(f"tuned weight {weight:g}: " + _said(points[-1].passed))
            for other in {weight, *leading} - {best(points).tuned_weight}:
                with disk_errors(out):
                    discard(_place(out, other) / "average" / "model")
        chosen = best(points).tuned_weight
        lease.release()
        linked(averaged(chosen).path, out / "model")
        discard(_place(out, chosen) / "average" / "model")
        writer.write(0, [_marked(point, point.tuned_weight == chosen) for point in points])
        return writer.finish({"points": len(points), "tuned_weight": chosen})


def best(points: Sequence[SweepPoint]) -> SweepPoint:
    """The point that :data:`RULE` chooses."""

    def rank(point: SweepPoint) -> tuple[float, float, float]:
        ks = sorted(point.passed, key=int)
        return point.passed[ks[-1]], point.passed[ks[0]], -point.tuned_weight

    return max(points, key=rank)


def _with_weight(method: AverageConfig, weight: float) -> AverageConfig:
    from pydantic import ValidationError

    try:
        return type(method).model_validate({**method.model_dump(), "tuned_weight": weight})
    except ValidationError as error:
        raise ConfigError(f"--sweep {weight:g}: tuned_weight: {error.errors()[0]['msg']}") from error


def _place(out: Path, weight: float) -> Path:
    return out / f"weight_{weight:g}"


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
