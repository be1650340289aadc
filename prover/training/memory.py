"""Memory that runs out in training, as one line that says which setting to lower."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prover.config import DeepSpeedLaunch, LaunchChoice
from prover.errors import TrainingError

_CPU = re.compile(r"DefaultCPUAllocator|not enough memory|can't allocate memory|Cannot allocate memory")
_GPU = re.compile(r"CUDA error: out of memory|Cuda failure.*out of memory|CU[A-Z]+_STATUS_ALLOC_FAILED")
"""From what does not allocate through torch: CUDA itself, NCCL, cuBLAS and cuDNN."""


@contextmanager
def memory_errors(launch: LaunchChoice) -> Iterator[None]:
    """Raise TrainingError where a GPU or the machine has no more memory to give."""
    try:
        yield
    except MemoryError as error:
        raise TrainingError(f"out of memory; {_advice(launch)}") from error
    except RuntimeError as error:  # torch's own, and what DeepSpeed makes of it
        on_gpu = isinstance(error, torch.OutOfMemoryError) or bool(_GPU.search(str(error)))
        if not on_gpu and not _CPU.search(str(error)):
            raise
        said = re.search(r"[Tt]ried to allocate [\d.]+ \w+", str(error))
        where = "GPU" if on_gpu else "host"
        detail = f" ({said.group().lower()})" if said else ""
        raise TrainingError(f"out of memory on the {where}{detail}; {_advice(launch)}") from error


def _advice(launch: LaunchChoice) -> str:
    passes = "the whole batch" if launch.micro_batch_tokens is None else launch.micro_batch_tokens
    ways = [f"lower launch.micro_batch_tokens (now {passes})"]
    if not launch.activation_checkpointing:
        ways.append("set launch.activation_checkpointing = true")
    if not isinstance(launch, DeepSpeedLaunch):
        ways.append("split the model over several processes (launch.type = 'deepspeed')")
    else:
        ways.append("start more processes")
        if launch.zero < 3:
            ways.append(f"raise launch.zero (now {launch.zero})")
        if launch.offload != "parameters":
            ways.append(f"set launch.offload (now {launch.offload!r})")
    return f"{', '.join(ways[:-1])} or {ways[-1]}; the last saved state is kept"
