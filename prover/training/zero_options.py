"""DeepSpeed's configuration from ours, and from the file that adds to it."""

import json
from pathlib import Path
from typing import Any

from prover.config import DeepSpeedLaunch
from prover.errors import ConfigError
from prover.training.optimizer import CLIP

_BATCH = "sft.batch_tokens and launch.micro_batch_tokens"
_RATE = "sft.learning_rate, sft.warmup_steps and sft.steps"
_PRECISION = "nothing: bfloat16 is taken where the machine multiplies it fast"
OURS = {
    "train_batch_size": _BATCH,
    "train_micro_batch_size_per_gpu": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "optimizer": "sft.learning_rate and sft.weight_decay",
    "scheduler": _RATE,
    "gradient_clipping": f"nothing: gradients are clipped to a norm of {CLIP:g}",
    "bf16": _PRECISION,
    "bfloat16": _PRECISION,
    "fp16": _PRECISION,
    "amp": _PRECISION,
    "torch_autocast": _PRECISION,
    "checkpoint": "sft.checkpoint_every",
    "zero_optimization.stage": "launch.zero",
    "zero_optimization.offload_optimizer": "launch.offload",
    "zero_optimization.offload_param": "launch.offload",
}
"""Keys of a DeepSpeed configuration that are decided elsewhere, and where."""


def options(launch: DeepSpeedLaunch, device: str, fast: bool) -> dict[str, Any]:
    """What DeepSpeed is told. Batches, rates and passes are the training loop's.

    Raises ConfigError for a file that cannot be read or sets what is decided elsewhere.
    """
    offload = {"device": "cpu", "pin_memory": device == "cuda"}
    zero: dict[str, Any] = {"stage": launch.zero}
    if launch.offload != "none":
        zero["offload_optimizer"] = offload
    if launch.offload == "parameters":
        zero["offload_param"] = offload
    told: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": CLIP if launch.zero else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    if fast and launch.zero:
        told["bf16"] = {"enabled": True}
        told["data_types"] = {"grad_accum_dtype": "fp32"}
    elif fast:
        told["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    if launch.config is not None:
        added = read_options(launch.config)
        zero.update(added.pop("zero_optimization", {}))
        told.update(added)
    return told


def read_options(path: Path) -> dict[str, Any]:
    """The further options in a file. Raises ConfigError."""
    try:
        added = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"launch.config: {path} cannot be read ({error.strerror}); give a DeepSpeed JSON") from error
    except ValueError as error:
        raise ConfigError(f"launch.config: {path} is not JSON ({error})") from error
    if not isinstance(added, dict) or not isinstance(added.get("zero_optimization", {}), dict):
        raise ConfigError(f"launch.config: {path} is no DeepSpeed configuration; it must be a JSON object")
    named = [*added, *(f"zero_optimization.{key}" for key in added.get("zero_optimization", {}))]
    for key in named:
        if key in OURS:
            raise ConfigError(
                f"launch.config: {path} sets {key}, which is not DeepSpeed's to decide here; set {OURS[key]}"
            )
    return added
