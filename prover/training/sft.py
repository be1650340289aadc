"""Supervised fine-tuning: cross entropy on the answers, example by example weighted.

``python -m prover.training.sft JOB.json`` runs a job by itself, which is how a launcher will start it; one process on
the CPU or one GPU needs no launcher. Weights and moments are float32; the forward pass runs in bfloat16 (autocast)
where the processor multiplies that fast. A job that is killed goes on from its last saved state and ends with the same
bytes.
"""

import hashlib
import inspect
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from prover.config import Section, SftConfig
from prover.device import has_fast_bfloat16, pick_device, use_threads
from prover.errors import ProverError, TrainingError
from prover.pretrained import (
    context_length,
    copy_side_files,
    load_model,
    load_tokenizer,
    origin,
    placed,
    quiet,
    read_checkpoint,
    reference,
    stored_dtype,
)
from prover.records import Checkpoint
from prover.training import state
from prover.training.batches import Tokenized, padded, schedule, tokenize

CLIP = 1.0
"""Largest norm of a step's gradient."""
BETAS = (0.9, 0.98)
FLOOR = 0.05
"""Where the cosine schedule ends, as a share of the learning rate."""
IGNORED = -100
_EAGER_TO = 1_024
"""Tokens up to which the CPU computes attention by plain matrix products. Torch's fused attention for the CPU took half
of all training time in its backward pass; but its memory does not grow with the square of the length."""


class SftJob(Section):
    """One training, complete: what ``JOB.json`` holds."""

    config: SftConfig
    base: Path
    """The model directory to start from."""
    examples: tuple[Path, ...]
    """JSONL files of TrainingExample."""
    output: Path
    """Directory for the tuned model; appears when training is done."""
    work: Path
    """Directory for resumable state; removed when training is done."""
    seed: int
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class SftProgress(msgspec.Struct, frozen=True):
    """After some steps: ``steps`` and ``tokens`` since the last report, and where training stands."""

    steps: int
    tokens: int
    step: int
    loss: float
    """Mean over the answers' tokens, nats."""
    examples: int
    dropped: int
    """Examples longer than the context or the batch, left out."""


def train(job: SftJob, on_step: Callable[[SftProgress], None] | None = None) -> Checkpoint:
    """Fine-tune and write ``job.output``. Resumes from ``job.work``; a finished job returns at once.

    Raises TrainingError for examples that cannot be trained on and for a loss that is not finite (the last saved state
    is kept), ModelError for a base model that cannot be used.
    """
    device = pick_device(job.device)
    use_threads(device)
    tokenizer = load_tokenizer(job.base)
    model = load_model(job.base, torch.float32, device)
    config = job.config
    data = tokenize(job.examples, tokenizer, min(context_length(model.config), config.batch_tokens))
    recipe = _recipe(job, data, model)
    done = read_checkpoint(job.output) if job.output.is_dir() else None
    if done is not None and done.recipe == recipe:
        shutil.rmtree(job.work, ignore_errors=True)
        return done
    if not len(data):
        raise TrainingError(
            f"no example to train on: {data.dropped} were left out for their length "
            f"(the context has {context_length(model.config)} tokens, a batch {config.batch_tokens})"
        )
    optimizer = _optimizer(model, config)
    start = state.restore(job.work, recipe, model, optimizer)
    fast = has_fast_bfloat16(device) if job.precision == "auto" else job.precision == "bfloat16"
    model.train()
    if device == "cpu" and int(data.lengths.max()) <= _EAGER_TO:
        model.set_attn_implementation("eager")
    if on_step and start:
        on_step(SftProgress(steps=start, tokens=0, step=start, loss=math.nan, examples=len(data), dropped=data.dropped))
    for step, batch in enumerate(schedule(data.lengths, config.batch_tokens, job.seed, start, config.steps), start):
        for part in optimizer.param_groups:
            part["lr"] = config.learning_rate * rate(step, config.warmup_steps, config.steps)
        torch.manual_seed(hash_seed(job.seed, step))  # dropout, where a model has it
        loss, tokens = _step(model, optimizer, data, batch, device, fast, step)
        if on_step:
            on_step(
                SftProgress(steps=1, tokens=tokens, step=step + 1, loss=loss, examples=len(data), dropped=data.dropped)
            )
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state.save(job.work, recipe, step + 1, model, optimizer)
    return _finish(job, model, recipe)


def rate(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate at ``step``: linear warm-up, a cosine down to :data:`FLOOR` (arXiv 1608.03983)."""
    if step < warmup:
        return (step + 1) / warmup
    turn = (step - warmup) / max(1, steps - warmup)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * turn))


def hash_seed(seed: int, step: int) -> int:
    """A seed for torch from the job's seed and the step."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest(), "big") >> 1


def _optimizer(model: Any, config: SftConfig) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101); gains and biases do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(parts, lr=config.learning_rate, betas=BETAS, fused=True)


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    data: Tokenized,
    batch: NDArray[np.int64],
    device: str,
    fast: bool,
    step: int,
) -> tuple[float, int]:
    """One optimizer step. Returns the mean loss over the answers' tokens and the number of tokens, padding included."""
    inputs, targets, weights = collate(data, batch)
    first = int(data.prompts[batch].min()) - 1  # the earliest place that predicts a token of an answer
    places = torch.arange(first, inputs.shape[1], device=device)
    inputs, targets, weights = inputs.to(device), targets[:, first:].to(device), weights.to(device)
    kept = {"logits_to_keep": places} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with torch.autocast(device, dtype=torch.bfloat16, enabled=fast):
        # padding stands on the right, where a causal model cannot see it: no mask is needed
        logits = model(input_ids=inputs, use_cache=False, **kept).logits
    if not kept:
        logits = logits[:, first:]
    answered = targets != IGNORED
    losses = cross_entropy(logits[answered].float(), targets[answered], reduction="none")
    scale = weights[:, None].expand_as(targets)[answered]
    loss = (losses * scale).sum() / scale.sum()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        names = ", ".join(data.ids[i] for i in batch[:4].tolist()) + (", ..." if len(batch) > 4 else "")
        raise TrainingError(
            f"step {step + 1}: the loss or its gradient is not finite (loss {loss.item()}, gradient {norm.item()}) on "
            f"examples {names}; lower sft.learning_rate or lengthen sft.warmup_steps; the last saved state is kept"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return losses.mean().item(), inputs.numel()


def collate(data: Tokenized, batch: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (B, L), targets (B, L) with the token that each place should predict or ``IGNORED``, weights (B,)."""
    width = padded(int(data.lengths[batch].max()))
    inputs = torch.zeros((len(batch), width), dtype=torch.long)
    targets = torch.full((len(batch), width), IGNORED, dtype=torch.long)
    for row, index in enumerate(batch.tolist()):
        tokens = torch.from_numpy(data.tokens[data.starts[index] : data.starts[index + 1]]).long()
        inputs[row, : len(tokens)] = tokens
        prompt = int(data.prompts[index])
        targets[row, prompt - 1 : len(tokens) - 1] = tokens[prompt:]
    return inputs, targets, torch.from_numpy(data.weights[batch])


def _recipe(job: SftJob, data: Tokenized, model: Any) -> str:
    """What decides the tuned weights; of the base model a sum over each tensor stands for its bytes."""
    digest = hashlib.sha256(job.config.model_dump_json(exclude={"checkpoint_every"}).encode())
    digest.update(f"{job.seed} {job.precision} {data.digest()}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.double().sum().item()!r}".encode())
    return f"sft {digest.hexdigest()[:24]}"


def _finish(job: SftJob, model: Any, recipe: str) -> Checkpoint:
    before = read_checkpoint(job.base)
    manifest = Checkpoint(
        path=job.output.name,
        base_model=origin(job.base, job.output),
        step=job.config.steps + (before.step if before else 0),
        parents=(reference(job.base, job.output),),
        recipe=recipe,
    )
    with placed(job.output, manifest) as temporary, quiet():
        model.to(getattr(torch, stored_dtype(job.base))).save_pretrained(temporary)
        copy_side_files(job.base, temporary)
    shutil.rmtree(job.work, ignore_errors=True)
    return manifest


def main(argv: list[str]) -> int:
    """Run the job in the file that ``argv`` names; its progress goes to standard output, a JSON object a line."""
    if len(argv) != 1:
        print("usage: python -m prover.training.sft JOB.json", file=sys.stderr)
        return 2
    try:
        job = SftJob.model_validate_json(Path(argv[0]).read_text(encoding="utf-8"))
        encoder = msgspec.json.Encoder()
        train(job, lambda progress: print(encoder.encode(progress).decode(), flush=True))
    except (ProverError, OSError, ValueError) as error:
        print(f"prover: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
