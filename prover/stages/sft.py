"""Fine-tune a model on selected examples; the work is done in :mod:`prover.training`."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.config import LaunchChoice, SftConfig
from prover.errors import InputError
from prover.models import Model
from prover.progress import Progress


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
    """The tuned model, in ``out/model``. Training goes on from its last checkpoint in ``out/work`` after a kill."""
    writer = ArtifactWriter(
        out,
        {
            "stage": "sft",
            "base": base.fingerprint,
            "examples": [artifact.fingerprint for artifact in examples],
            "config": config.model_dump(mode="json", exclude={"checkpoint_every"}),
            "seed": seed,
        },
        0,
        clean=clean,
    )
    if clean:
        for left in (out / "work", out / "model"):
            shutil.rmtree(left, ignore_errors=True)
    model = Model(out / "model", writer.artifact.fingerprint, series)
    if writer.finished:
        return model
    if not any(read_manifest(artifact.path).counts["examples"] for artifact in examples):
        raise InputError(
            f"{examples[0].path}: holds no training example, nothing was proved; "
            "sample more (sampling.n, sampling.temperature), take easier problems, or use a [cold] start"
        )
    from prover.training.job import SftJob
    from prover.training.loop import train  # late: imports torch

    job = SftJob(
        config=config,
        launch=launch,
        base=base.path,
        examples=tuple(artifact.shard(i) for artifact in examples for i in range(artifact.shards)),
        output=model.path,
        work=out / "work",
        seed=seed,
    )
    with progress.stage(f"{series} sft", config.steps, "steps") as meter:
        result = train(job, lambda p: meter.add(p.steps, tokens=p.tokens))
    writer.finish({"steps": result.step})
    return model
