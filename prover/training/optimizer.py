"""The optimizer's settings, the same for one process and for many."""

import math
from typing import Any

CLIP = 1.0
"""Largest norm of a step's gradient."""
BETAS = (0.9, 0.98)
FLOOR = 0.05
"""Where the cosine schedule ends, as a share of the learning rate."""


def rate(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate at ``step``: linear warm-up, a cosine down to :data:`FLOOR` (arXiv 1608.03983)."""
    if step < warmup:
        return (step + 1) / warmup
    turn = (step - warmup) / max(1, steps - warmup)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * turn))


def grouped(model: Any, weight_decay: float) -> dict[str, Any]:
    """What torch's AdamW (arXiv 1711.05101) is made with; gains and biases do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    # under ZeRO 3 a parameter is empty while it is not in use; DeepSpeed notes the shape beside it
    matrices = [len(getattr(p, "ds_shape", p.shape)) >= 2 for p in trained]
    parts = [
        {"params": [p for p, matrix in zip(trained, matrices) if matrix], "weight_decay": weight_decay},
        {"params": [p for p, matrix in zip(trained, matrices) if not matrix], "weight_decay": 0.0},
    ]
    return {"params": parts, "betas": BETAS}
