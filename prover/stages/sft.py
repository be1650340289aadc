"""Fine-tune a model on selected examples; the work is done in :mod:`prover.training`."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.config import LaunchChoice, SftConfig
from prover.errors import InputError
from prover.models import Model
from prover.progress import Progress
from prover.training.curve import read_curve
from prover.training.job import SftJob, TrainingProgress, curve_of


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
        curve_of(out / "model").unlink(missing_ok=True)
    model = Model(out / "model", writer.artifact.fingerprint, series)
    if writer.finished:
        return model
    if not any(read_manifest(artifact.path).counts["examples"] for artifact in examples):
        raise InputError(
            f"{examples[0].path}: holds no training example, nothing was proved; "
            "sample more (sampling.n, sampling.temperature), take easier problems, or use a [cold] start"
        )
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
        eval_loss = ""

        def tell(done: TrainingProgress) -> None:
            nonlocal eval_loss
            if done.eval_loss is not None:
                eval_loss = f", held out {done.eval_loss:.3f}"
            meter.add(done.steps, tokens=done.tokens)
            meter.show(f"loss {done.loss:.3f}{eval_loss}")

        result = train(job, tell)
    writer.finish({"steps": result.step, **_losses(job.curve, config.patience is not None)})
    return model


def _losses(file: Path, best: bool) -> dict[str, float]:
    """What the manifest says of the held-out loss: the one of the weights that were written."""
    found = [step.eval_loss for step in read_curve(file) if step.eval_loss is not None]
    return {"eval_loss": min(found) if best else found[-1]} if found else {}
