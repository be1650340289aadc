"""What the stages that tune a model have in common; the work is done in :mod:`prover.training`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prover.artifacts import ArtifactWriter
from prover.config import TrainingConfig
from prover.models import Model
from prover.progress import Progress
from prover.training.curve import read_curve
from prover.training.job import curve_of

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
            curve_of(self.model.path).unlink(missing_ok=True)
        self._name, self._steps = f"{series} {stage}", config.steps
        self._keeps_best = config.patience is not None

    @property
    def finished(self) -> bool:
        return self._writer.finished is not None

    def run(self, job: "Job", progress: Progress, on_step: "Callable[[TrainingProgress], None] | None" = None) -> Model:
        """Train, from the last checkpoint where there is one; the tuned model."""
        from prover.training import launch  # late

        with progress.stage(self._name, self._steps, "steps") as meter:
            held_out = ""

            def told(made: "TrainingProgress") -> None:
                nonlocal held_out
                if made.eval_loss is not None:
                    held_out = f", held out {made.eval_loss:.3f}"
                meter.add(made.steps, tokens=made.tokens)
                ranked = "" if made.accuracy is None else f", {made.accuracy:.0%} ranked right"
                meter.show(f"loss {made.loss:.3f}{ranked}{held_out}")
                if on_step:
                    on_step(made)

            result = launch.run(job, told)
        return self.finish(result.step)

    def finish(self, steps: int) -> Model:
        self._writer.finish({"steps": steps, **self._losses()})
        return self.model

    def _losses(self) -> dict[str, float]:
        """The held-out loss of the weights that were written, where it was taken."""
        found = [step.eval_loss for step in read_curve(curve_of(self.model.path)) if step.eval_loss is not None]
        return {"eval_loss": min(found) if self._keeps_best else found[-1]} if found else {}
