"""Where tensors live and how many threads compute them: the one place that sets either."""

import os
from typing import Literal

from prover.errors import ModelError

Device = Literal["cpu", "cuda"]


def pick_device(name: str) -> Device:
    """``auto`` takes the GPU where there is one. Raises ModelError for a name that is unknown or not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ModelError("device 'cuda' was asked for, but torch sees no GPU here; use 'auto' or 'cpu'")
        return "cuda"
    raise ModelError(f"unknown device {name!r}; use 'auto', 'cpu' or 'cuda'")


def use_threads(device: Device) -> int:
    """Give torch half of this process's cores (at least one), and say how many that is.

    Half, because Lean workers and the driver share the cores: OpenMP threads wait for each other by spinning, and on
    two busy cores two threads were measured ten times slower than one. The number depends on the machine alone, so
    that a run and its resumption round the same way.
    """
    import torch

    threads = max(1, len(os.sched_getaffinity(0)) // 2) if device == "cpu" else 1
    torch.set_num_threads(threads)
    return threads


def has_fast_bfloat16(device: Device) -> bool:
    """Whether matrix products in bfloat16 beat float32: on a GPU, and on CPUs with AMX or AVX512-BF16 instructions."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))
