"""What a training process is told and what it tells: plain data, so that a launcher can start it anywhere."""

from pathlib import Path
from typing import Literal

import msgspec

from prover.config import LaunchChoice, Section, SftConfig, SingleLaunch


class SftJob(Section):
    """One training, complete: what ``JOB.json`` holds."""

    kind: Literal["sft"] = "sft"
    config: SftConfig
    launch: LaunchChoice = SingleLaunch()
    base: Path
    """The model directory to start from."""
    examples: tuple[Path, ...]
    """JSONL files of TrainingExample."""
    output: Path
    """Directory for the tuned model; appears when training is done."""
    work: Path
    """Directory for resumable state; removed when training is done."""
    seed: int
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; ``auto`` takes bfloat16 where the processor multiplies that fast."""


Job = SftJob


class TrainingProgress(msgspec.Struct, frozen=True):
    """After some steps: ``steps`` and ``tokens`` since the last report, and where training stands."""

    steps: int
    tokens: int
    """Tokens put through the model, padding included."""
    step: int
    loss: float
    """Mean over the answers' tokens, nats."""
    examples: int
    dropped: int
    """Examples longer than the context or the batch, left out."""
