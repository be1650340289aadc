"""The training loop: the same in one process and in each of many.

Which examples a step takes is a pure function of the job, whatever the number of processes: they are cut into passes
small enough for memory, and the passes are dealt out. What a step divides its loss by is known before any forward
pass, so that every cut gives the same gradient but for rounding.
"""

import hashlib
import math
import shutil
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from prover.config import TrainingConfig
from prover.device import has_fast_bfloat16, pick_device, use_threads
from prover.errors import TrainingError
from prover.models import open_model
from prover.pretrained import (
    context_length,
    copy_side_files,
    load_model,
    load_tokenizer,
    origin,
    placed,
    read_checkpoint,
    reference,
    stored_dtype,
)
from prover.records import Checkpoint
from prover.training.backend import Backend
from prover.training.batches import schedule, split, tokenize
from prover.training.job import Job, TrainingProgress
from prover.training.objective import Objective
from prover.training.optimizer import rate
from prover.training.sft import Answers
from prover.training.single import SingleProcess

OnStep = Callable[[TrainingProgress], None]
_EAGER_TO = 1_024
"""Tokens up to which the CPU computes attention by plain matrix products. Torch's fused attention for the CPU took half
of all training time in its backward pass; but its memory does not grow with the square of the length."""


def train(job: Job, on_step: OnStep | None = None) -> Checkpoint:
    """Tune and write ``job.output``. Resumes from ``job.work``; a finished job returns at once.

    Raises TrainingError for examples that cannot be trained on and for a loss that is not finite (the last saved state
    is kept), ModelError for a base model that cannot be used.
    """
    device = pick_device(job.launch.device)
    use_threads(device)
    tokenizer = load_tokenizer(job.base)
    model = load_model(job.base, torch.float32, device)
    config = job.config
    objective = Answers(tokenize(job.examples, tokenizer, min(context_length(model.config), config.batch_tokens)))
    recipe = _recipe(job, objective)
    done = read_checkpoint(job.output) if job.output.is_dir() else None
    if done is not None and done.recipe == recipe:
        shutil.rmtree(job.work, ignore_errors=True)
        return done
    if not len(objective.ids):
        raise TrainingError(
            f"no example to train on: {objective.dropped} were left out for their length "
            f"(the context has {context_length(model.config)} tokens, a batch {config.batch_tokens})"
        )
    model.train()
    if device == "cpu" and int(objective.lengths.max()) <= _EAGER_TO:
        model.set_attn_implementation("eager")
    backend = SingleProcess(model, device, config.weight_decay)
    fast = has_fast_bfloat16(device) if job.precision == "auto" else job.precision == "bfloat16"
    _run(job, backend, objective, recipe, fast, on_step)
    return _finish(job, backend, recipe)


def _run(job: Job, backend: Backend, objective: Objective, recipe: str, fast: bool, on_step: OnStep | None) -> None:
    config, many = job.config, len(objective.ids)

    def tell(steps: int, tokens: int, step: int, loss: float) -> None:
        if on_step:
            on_step(TrainingProgress(steps, tokens, step, loss, examples=many, dropped=objective.dropped))

    start = backend.restore(job.work, recipe)
    if start:
        tell(start, 0, start, math.nan)
    batches = schedule(objective.lengths, config.batch_tokens, job.seed, start, config.steps)
    for step, batch in enumerate(batches, start):
        torch.manual_seed(_hashed(job.seed, step))  # dropout, where a model has it
        loss, tokens = _step(job, backend, objective, batch, fast, step)
        tell(1, tokens, step + 1, loss)
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            backend.save(job.work, recipe, step + 1)


def _step(
    job: Job, backend: Backend, objective: Objective, batch: NDArray[np.int64], fast: bool, step: int
) -> tuple[float, int]:
    """One optimizer step. Returns the mean loss over the answers' tokens and the number of tokens, padding included."""
    config: TrainingConfig = job.config
    mine = _dealt(split(objective.lengths, batch, job.launch.micro_batch_tokens), backend.rank, backend.world)
    scale = objective.scale(batch) or 1.0  # nothing weighs anything: the loss is zero however divided
    shown, count, tokens = torch.zeros((), device=backend.device), 0, 0
    for number, part in enumerate(mine, 1):
        idle = not len(part)  # other processes have a pass more: all must take part in what they do together
        with torch.autocast(backend.device, dtype=torch.bfloat16, enabled=fast):
            sums = objective.sums(backend.model, batch[:1] if idle else part, backend.device)
        backend.backward(sums.loss * (0.0 if idle else 1 / scale), last=number == len(mine))
        if not idle:
            shown, count, tokens = shown + sums.shown, count + sums.covered, tokens + sums.tokens
    norm = backend.step(config.learning_rate * rate(step, config.warmup_steps, config.steps))
    total, over, all_tokens = backend.total(shown.item(), count, tokens)
    if not (math.isfinite(total) and math.isfinite(norm)):
        names = ", ".join(objective.ids[i] for i in batch[:4].tolist()) + (", ..." if len(batch) > 4 else "")
        raise TrainingError(
            f"step {step + 1}: the loss or its gradient is not finite (loss {total / over}, gradient {norm}) on "
            f"examples {names}; lower {job.kind}.learning_rate or lengthen {job.kind}.warmup_steps; the last saved "
            "state is kept"
        )
    return total / over, int(all_tokens)


def _dealt(parts: list[NDArray[np.int64]], rank: int, world: int) -> list[NDArray[np.int64]]:
    """The passes of one process; every process has as many, the last ones empty where they do not come out even."""
    empty = np.empty(0, dtype=np.int64)
    return [parts[i] if i < len(parts) else empty for i in range(rank, -(-len(parts) // world) * world, world)]


def _hashed(seed: int, step: int) -> int:
    """A seed for torch from the job's seed and the step."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest(), "big") >> 1


def _recipe(job: Job, objective: Objective) -> str:
    """What decides the tuned weights."""
    digest = hashlib.sha256(job.config.model_dump_json(exclude={"checkpoint_every"}).encode())
    digest.update(f"{job.seed} {job.precision} {objective.digest()} {open_model(job.base).fingerprint}".encode())
    return f"{job.kind} {digest.hexdigest()[:24]}"


def _finish(job: Job, backend: Backend, recipe: str) -> Checkpoint:
    before = read_checkpoint(job.base)
    manifest = Checkpoint(
        path=job.output.name,
        base_model=origin(job.base, job.output),
        step=job.config.steps + (before.step if before else 0),
        parents=(reference(job.base, job.output),),
        recipe=recipe,
    )
    with placed(job.output, manifest) as temporary:
        backend.write(temporary, getattr(torch, stored_dtype(job.base)))
        copy_side_files(job.base, temporary)
    shutil.rmtree(job.work, ignore_errors=True)
    return manifest
