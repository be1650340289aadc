"""What a training process is told and what it tells: plain data, so that a launcher can start it anywhere."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import Field, TypeAdapter

from prover.config import DpoConfig, LaunchChoice, Section, SftConfig, SingleLaunch


class TuningJob(Section):
    """What every training is told."""

    launch: LaunchChoice = SingleLaunch()
    base: Path
    """The model directory to start from."""
    output: Path
    """Directory for the tuned model; appears when training is done."""
    work: Path
    """Directory for resumable state; removed when training is done."""
    seed: int
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; ``auto`` takes bfloat16 where the processor multiplies that fast."""

    @property
    def curve(self) -> Path:
        """JSONL of TrainingStep, which grows while training goes on and stays."""
        return curve_of(self.output)


def curve_of(model: Path) -> Path:
    """Where the training curve of a tuned model lies."""
    return model.with_name(f"{model.name}.curve.jsonl")


class SftJob(TuningJob):
    """One fine-tuning, complete: what ``JOB.json`` holds."""

    kind: Literal["sft"] = "sft"
    config: SftConfig
    examples: tuple[Path, ...]
    """JSONL files of TrainingExample."""


class DpoJob(TuningJob):
    """One preference optimization; ``base`` is also the model that the tuned one is held to."""

    kind: Literal["dpo"] = "dpo"
    config: DpoConfig
    pairs: tuple[Path, ...]
    """JSONL files of PreferencePair."""


Job = Annotated[SftJob | DpoJob, Field(discriminator="kind")]


def read_job(file: Path) -> Job:
    """The job in a file. Raises ValueError (pydantic's ValidationError) where it holds none."""
    return TypeAdapter[Job](Job).validate_json(file.read_bytes())


class TrainingProgress(msgspec.Struct, frozen=True):
    """After some steps: ``steps`` and ``tokens`` since the last report, and where training stands."""

    steps: int
    tokens: int
    """Tokens put through the model, with padding where a model needs it."""
    step: int
    loss: float
    """Mean over the answers' tokens, or over pairs, nats."""
    examples: int
    """Or pairs."""
    dropped: int
    """Those longer than the context or the batch, left out."""
    eval_loss: float | None = None
    """On the held-out problems, where they were evaluated after this step."""
    accuracy: float | None = None
    """Of pairs: the share whose chosen answer has gained more on the base model than the rejected one."""
