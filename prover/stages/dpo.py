"""Tune a model to prefer answers that Lean proved to answers that it refused."""

from pathlib import Path
from typing import TYPE_CHECKING

from prover.artifacts import Artifact, read_manifest
from prover.config import DpoConfig, LaunchChoice
from prover.errors import InputError
from prover.models import Model
from prover.progress import Progress
from prover.stages.tune import Tuning

if TYPE_CHECKING:
    from prover.training.job import TrainingProgress


def run(
    out: Path,
    *,
    base: Model,
    pairs: Artifact,
    config: DpoConfig,
    launch: LaunchChoice,
    series: str,
    seed: int,
    progress: Progress,
    clean: bool = False,
    keep_unpaired: bool = False,
) -> Model:
    """The tuned model, in ``out/model``. Training goes on from its last checkpoint in ``out/work`` after a kill.

    Raises InputError where there is no pair; with ``keep_unpaired`` the model is ``base`` as it is, and a note says so.
    """
    data = {"pairs": pairs.fingerprint}
    tuning = Tuning(out, "dpo", base=base, data=data, config=config, series=series, seed=seed, clean=clean)
    if tuning.finished:
        return tuning.model
    if not read_manifest(pairs.path).counts["pairs"]:
        said = f"{pairs.path}: holds no pair: no prompt has both a proved answer and one that Lean refused"
        if not keep_unpaired:
            raise InputError(f"{said}; sample more a problem (sampling.n), or correct failures (correct.turns)")
        from prover.pretrained import linked

        progress.note(f"{said}; {series} goes on with the fine-tuned model")
        linked(base.path, tuning.model.path)
        return tuning.finish(0)
    from prover.training.job import DpoJob

    job = DpoJob(
        config=config,
        launch=launch,
        base=base.path,
        pairs=tuple(pairs.shard(i) for i in range(pairs.shards)),
        output=tuning.model.path,
        work=tuning.work,
        seed=seed,
    )
    steps: list[TrainingProgress] = []
    model = tuning.run(job, progress, steps.append)
    shown = [step for step in steps if step.accuracy is not None]
    if shown:
        some = shown[-max(1, len(shown) // 10) :]
        ranked = sum(step.accuracy or 0 for step in some) / len(some)
        progress.note(
            f"{series} dpo: {some[-1].examples:,} pairs"
            + (f" ({some[-1].dropped:,} more were too long)" if some[-1].dropped else "")
            + f", loss {sum(step.loss for step in some) / len(some):.3f}, {ranked:.0%} ranked right (last steps)"
        )
    return model
