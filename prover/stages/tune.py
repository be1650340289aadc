"""What the stages that tune a model have in common; the work is done in :mod:`prover.training`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prover.artifacts import ArtifactWriter
from prover.config import TrainingConfig
from prover.models import Model
from prover.progress import Progress

if TYPE_CHECKING:
    from prover.training.job import Job, TrainingProgress


class Tuning:
    """One stage folder: the tuned model in ``model``, while it is being made the state to go on from in ``work``."""

    def __init__(
        self, out: Path, stage: str, *, base: Model, data: dict[str, Any], config: TrainingConfig, series: str,
        seed: int, clean: bool,
    ) -> None:  # fmt: skip
        """``data`` names what is learned from, by fingerprint."""
        self._writer = ArtifactWriter(
            out,
            {
                "stage": stage,
                "base": base.fingerprint,
                **data,
                "config": config.model_dump(mode="json", exclude={"checkpoint_every"}),
                "seed": seed,
            },
            0,
            clean=clean,
        )
        self.work = out / "work"
        self.model = Model(out / "model", self._writer.artifact.fingerprint, series)
        if clean:
            for left in (self.work, self.model.path):
                shutil.rmtree(left, ignore_errors=True)
        self._name, self._steps = f"{series} {stage}", config.steps

    @property
    def finished(self) -> bool:
        return self._writer.finished is not None

    def run(self, job: "Job", progress: Progress, on_step: "Callable[[TrainingProgress], None] | None" = None) -> Model:
        """Train, from the last checkpoint where there is one; the tuned model."""
        from prover.training.launch import run as launched

        with progress.stage(self._name, self._steps, "steps") as meter:

            def told(made: "TrainingProgress") -> None:
                meter.add(made.steps, tokens=made.tokens)
                if on_step:
                    on_step(made)

            result = launched(job, told)
        return self.finish(result.step)

    def finish(self, steps: int) -> Model:
        self._writer.finish({"steps": steps})
        return self.model
