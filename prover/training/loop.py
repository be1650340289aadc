"""The training loop: the same in one process and in each of many.

Which examples a step takes is a pure function of the job, whatever the number of processes: they are cut into passes
small enough for memory, and the passes are dealt out. What a step divides its loss by is known before any forward
pass, so that every cut gives the same gradient but for rounding.
"""

import hashlib
import math
import shutil
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from prover.config import TrainingConfig
from prover.device import has_fast_bfloat16
from prover.errors import TrainingError
from prover.models import open_model
from prover.pretrained import (
    context_length,
    copy_side_files,
    load_tokenizer,
    origin,
    placed,
    read_checkpoint,
    reference,
    stored_dtype,
)
from prover.records import Checkpoint
from prover.training import lora
from prover.training.backend import Backend, open_backend
from prover.training.batches import dealt, easy_first, schedule, split, tokenize
from prover.training.curve import Best, Curve, TrainingStep
from prover.training.dpo import Preferences, tokenize_pairs
from prover.training.holdout import due, evaluate, held_out
from prover.training.job import DpoJob, Job, TrainingProgress
from prover.training.memory import memory_errors
from prover.training.objective import Objective
from prover.training.optimizer import rate
from prover.training.sft import Answers

OnStep = Callable[[TrainingProgress], None]


def train(job: Job, on_step: OnStep | None = None) -> Checkpoint:
    """Tune and write ``job.output``. Resumes from ``job.work``; a finished job returns at once.

    Raises TrainingError for examples that cannot be trained on, for a loss that is not finite and for too little memory
    (the last saved state is kept), ModelError for a base model that cannot be used.
    """
    with memory_errors(job.launch):
        return _train(job, on_step)


def _train(job: Job, on_step: OnStep | None) -> Checkpoint:
    backend = open_backend(job.launch)
    fast = has_fast_bfloat16(backend.device) if job.precision == "auto" else job.precision == "bfloat16"
    tokenizer = load_tokenizer(job.base)
    model = backend.load(job.base, fast)
    config = job.config
    if config.lora:
        lora.adapt(model, config.lora, job.base, job.output, _hashed(job.seed, -1))
    objective = _objective(job, tokenizer, context_length(model.config))
    recipe = _recipe(job, objective)
    done = read_checkpoint(job.output) if job.output.is_dir() else None
    if done is not None and done.recipe == recipe:
        shutil.rmtree(job.work, ignore_errors=True)
        return done
    if not len(objective.ids):
        raise TrainingError(
            f"nothing to train on: {objective.dropped} were left out for their length "
            f"(the context has {context_length(model.config)} tokens, a batch {config.batch_tokens})"
        )
    model.train()
    if job.launch.activation_checkpointing:
        _recompute(model)
    backend.prepare(model, config.weight_decay)
    objective.prepare(backend, job.work, recipe, job.launch.micro_batch_tokens or config.batch_tokens, fast)
    steps = _run(job, backend, objective, recipe, fast, on_step)
    return _finish(job, backend, recipe, steps)


def _recompute(model: Any) -> None:
    """Keep what enters each layer, and compute what it makes of it again in the backward pass."""
    if not model.supports_gradient_checkpointing:
        raise TrainingError(
            f"launch.activation_checkpointing: {type(model).__name__} cannot; set it to false and lower "
            "launch.micro_batch_tokens"
        )
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _objective(job: Job, tokenizer: Any, context: int) -> Objective:
    if isinstance(job, DpoJob):
        pairs = tokenize_pairs(job.pairs, tokenizer, context, job.config.batch_tokens)
        return Preferences(pairs, job.config.beta, job.config.sft_weight)
    return Answers(tokenize(job.examples, tokenizer, min(context, job.config.batch_tokens)))


def _run(job: Job, backend: Backend, objective: Objective, recipe: str, fast: bool, on_step: OnStep | None) -> int:
    """Train, or go on with it. Returns after which step the weights were taken that the backend has then."""
    config: TrainingConfig = job.config
    held = held_out(objective.problems, config.holdout)
    kept, lengths = np.flatnonzero(~held), objective.lengths
    passes = _passes(job, backend, objective, np.flatnonzero(held)[np.argsort(lengths[held], kind="stable")])
    first = easy_first(lengths[kept], objective.difficulty[kept]) if config.order == "easy_first" else None
    now = start = backend.restore(job.work, recipe)
    with Curve(job.curve, start, best := Best(config.patience), writes=backend.rank == 0) as curve:

        def tell(steps: int, done: TrainingStep, tokens: int) -> None:
            if on_step:
                many, dropped = len(objective.ids), objective.dropped
                on_step(
                    TrainingProgress(steps, tokens, done.step, done.loss, many, dropped, done.eval_loss, done.accuracy)
                )

        if curve.last is not None:
            tell(start, curve.last, 0)
        batches = schedule(lengths[kept], config.batch_tokens, job.seed, start, config.steps, first)
        for batch in batches:
            if best.over:
                break
            now += 1
            torch.manual_seed(_hashed(job.seed, now - 1))  # dropout, where a model has it
            done = _step(job, backend, objective, kept[batch], fast, now)
            if len(passes) and due(now, config.steps):
                done = msgspec.structs.replace(done, eval_loss=evaluate(backend, objective, passes, fast))
            better = curve.add(done)
            tell(1, done, done.tokens)
            waits = config.patience is not None
            if now < config.steps and ((better and waits) or now % config.checkpoint_every == 0):
                curve.flush()
                backend.save(job.work, recipe, now, keep=best.step if waits else None)
    if config.patience is not None and best.step not in (None, now):
        return backend.restore(job.work, recipe, best.step)
    return now


def _step(
    job: Job, backend: Backend, objective: Objective, batch: NDArray[np.int64], fast: bool, number: int
) -> TrainingStep:
    """One optimizer step, the ``number``-th."""
    config: TrainingConfig = job.config
    mine = _passes(job, backend, objective, batch)
    scale = objective.scale(batch) or 1.0  # nothing weighs anything: the loss is zero however divided
    shown, right = torch.zeros(2, device=backend.device).unbind()
    count, tokens = 0, 0
    for turn, part in enumerate(mine, 1):
        idle = not len(part)  # other processes have a pass more: all must take part in what they do together
        with torch.autocast(backend.device, dtype=torch.bfloat16, enabled=fast):
            sums = objective.sums(backend.model, batch[:1] if idle else part, backend.device)
        backend.backward(sums.loss * (0.0 if idle else 1 / scale), last=turn == len(mine))
        if not idle:
            shown, count, tokens = shown + sums.shown, count + sums.covered, tokens + sums.tokens
            right = right if sums.right is None else right + sums.right
    share = rate(number - 1, config.warmup_steps, config.steps)
    norm = backend.step(config.learning_rate * share)
    total, over, all_tokens, ranked = backend.total(shown.item(), count, tokens, right.item())
    if not (math.isfinite(total) and math.isfinite(norm)):
        names = ", ".join(objective.ids[i] for i in batch[:4].tolist()) + (", ..." if len(batch) > 4 else "")
        raise TrainingError(
            f"step {number}: the loss or its gradient is not finite (loss {total / over}, gradient {norm}) on "
            f"examples {names}; lower {job.kind}.learning_rate or lengthen {job.kind}.warmup_steps; the last saved "
            "state is kept"
        )
    accuracy = ranked / over if isinstance(job, DpoJob) else None
    return TrainingStep(number, total / over, config.learning_rate * share, norm, int(all_tokens), accuracy=accuracy)


def _passes(job: Job, backend: Backend, objective: Objective, items: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The passes of this process over ``items``."""
    if not len(items):
        return []
    parts = split(objective.lengths, items, job.launch.micro_batch_tokens or job.config.batch_tokens)
    return dealt(parts, backend.rank, backend.world)


def _hashed(seed: int, step: int) -> int:
    """A seed for torch from the job's seed and the step."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest(), "big") >> 1


def _recipe(job: Job, objective: Objective) -> str:
    """What decides the tuned weights."""
    digest = hashlib.sha256(job.config.model_dump_json(exclude={"checkpoint_every"}).encode())
    digest.update(f"{job.seed} {job.precision} {objective.digest()} {open_model(job.base).fingerprint}".encode())
    return f"{job.kind} {digest.hexdigest()[:24]}"


def _finish(job: Job, backend: Backend, recipe: str, steps: int) -> Checkpoint:
    before = read_checkpoint(job.base)
    manifest = Checkpoint(
        path=job.output.name,
        base_model=origin(job.base, job.output),
        step=steps + (before.step if before else 0),
        parents=(reference(job.base, job.output),),
        recipe=recipe,
    )
    dtype = getattr(torch, stored_dtype(job.base))
    if backend.rank > 0:
        backend.write(None, dtype)
        return manifest
    with placed(job.output, manifest) as temporary:
        backend.write(temporary, dtype)
        copy_side_files(job.base, temporary)
    shutil.rmtree(job.work, ignore_errors=True)
    return manifest
