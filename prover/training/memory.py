"""Memory that runs out in training, as one line that says which setting to lower."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prover.config import DeepSpeedLaunch, LaunchChoice
from prover.errors import TrainingError

_CPU = re.compile(r"DefaultCPUAllocator|not enough memory|can't allocate memory|Cannot allocate memory")


@contextmanager
def memory_errors(launch: LaunchChoice) -> Iterator[None]:
    """Raise TrainingError where a GPU or the machine has no more memory to give."""
    try:
        yield
    except MemoryError as error:
        raise TrainingError(f"out of memory; {_advice(launch)}") from error
    except RuntimeError as error:  # torch's own, and what DeepSpeed makes of it
        if not isinstance(error, torch.OutOfMemoryError) and not _CPU.search(str(error)):
            raise
        said = re.search(r"[Tt]ried to allocate [\d.]+ \w+", str(error))
        where = "GPU" if isinstance(error, torch.OutOfMemoryError) else "host"
        detail = f" ({said.group().lower()})" if said else ""
        raise TrainingError(f"out of memory on the {where}{detail}; {_advice(launch)}") from error


def _advice(launch: LaunchChoice) -> str:
    passes = launch.micro_batch_tokens
    first = f"lower launch.micro_batch_tokens (now {'the whole batch' if passes is None else passes})"
    if not isinstance(launch, DeepSpeedLaunch):
        return f"{first}, or split the model over several processes (launch.type = 'deepspeed'); the last state is kept"
    further = [
        f"raise launch.zero (now {launch.zero})" if launch.zero < 3 else "",
        "add processes",
        f"set launch.offload (now {launch.offload!r})" if launch.offload != "parameters" else "",
    ]
    return f"{first}, {', '.join(filter(None, further[:-1]))}{' or ' + further[-1] if further[-1] else ''}; the last state is kept"
