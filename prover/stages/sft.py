"""Fine-tune a model on selected examples."""

from collections.abc import Sequence
from pathlib import Path

from prover.artifacts import Artifact, read_manifest
from prover.config import LaunchChoice, SftConfig
from prover.errors import InputError
from prover.models import Model
from prover.progress import Progress
from prover.stages.tune import Tuning


def run(
    out: Path,
    *,
    base: Model,
    examples: Sequence[Artifact],
    config: SftConfig,
    launch: LaunchChoice,
    series: str,
    seed: int,
    progress: Progress,
    clean: bool = False,
) -> Model:
    """The tuned model, in ``out/model``, its training curve beside it. Training goes on from its last checkpoint in
    ``out/work`` after a kill."""
    data = {"examples": [artifact.fingerprint for artifact in examples]}
    tuning = Tuning(out, "sft", base=base, data=data, config=config, series=series, seed=seed, clean=clean)
    if tuning.finished:
        return tuning.model
    if not any(read_manifest(artifact.path).counts["examples"] for artifact in examples):
        raise InputError(
            f"{examples[0].path}: holds no training example, nothing was proved; "
            "sample more (sampling.n, sampling.temperature), take easier problems, or use a [cold] start"
        )
    from prover.training.job import SftJob

    job = SftJob(
        config=config,
        launch=launch,
        base=base.path,
        examples=tuple(artifact.shard(i) for artifact in examples for i in range(artifact.shards)),
        output=tuning.model.path,
        work=tuning.work,
        seed=seed,
    )
    return tuning.run(job, progress)
