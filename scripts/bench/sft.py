"""Fine-tuning side by side with TRL's SFTTrainer: the same model, examples and precision, useful tokens a second.

TRL is no dependency of the project. Give it an environment of its own and name that:

    python3 -m venv VENV && VENV/bin/pip install torch==2.13.0
    VENV/bin/pip install trl==1.16.0 transformers==5.19.0 accelerate==1.15.0 datasets==5.2.0 peft==0.21.2
    python scripts/bench/sft.py --trl VENV/bin/python

A useful token is one of a prompt or an answer; padding is none. Each run is a process of its own, the ways in turn,
repeat after repeat; a ratio is one of medians. Timed are the optimizer steps after the first few, with everything that
a step does: making the batch, forward, backward, clipping, AdamW. Not timed: imports, loading, tokenizing (both sides
get the same token ids, the loss on the answers alone), writing the model. On the CPU both have one thread. A step of
ours takes ``BATCH`` tokens; one of TRL's takes as many examples as come to that on average, or with ``packing=True``
that many tokens in one row (its strategy ``bfd``, attention over the row with a mask). TRL's gradient checkpointing is
off, as ours is.

The last line is a JSON object:

    ratio_packed       ours as it comes, examples end to end, over TRL as it comes, padded
    ratio_packed_trl   ours as it comes over TRL with packing=True
    ratio_unpacked     ours as with models that cannot be packed, padded, over TRL padded
    ratio_memory       peak resident memory of our process (with --gpu, of the GPU) over TRL's, both as they come
    ratio_memory_trl   the same against TRL with packing=True
    cpu_ratio_...      the same ratios of tokens by seconds of processor time, hardly moved by other work

``--gpu`` does this with a Llama of random weights on one GPU and adds ``mfu``, the share of the GPU's bfloat16 peak
(``--peak``, TFLOP/s) that our useful tokens take at 6 floating-point operations a token and weight, and 12 a token,
layer, unit of width and token seen. Exits 2 where TRL is not there.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WARM = 4
"""Steps before the clock runs."""
WAYS = ("ours", "ours_padded", "trl", "trl_packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", default=sys.executable, help="Python of an environment that has TRL")
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats")
    parser.add_argument("--gpu", action="store_true", help="a Llama of 0.6 B parameters and longer proofs, on one GPU")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the GPU in dense bfloat16 (H100: 989)")
    parser.add_argument("--side", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        way, folder = arguments.side
        told = json.loads((Path(folder) / "told.json").read_text())
        print(json.dumps(ours(way, Path(folder), told) if way.startswith("ours") else theirs(way, Path(folder), told)))
        return
    check = [arguments.trl, "-c", "import trl, importlib.metadata as m; print(m.version('trl'))"]
    try:
        found = subprocess.run(check, capture_output=True, text=True, check=False)
        why = "" if found.returncode == 0 else (found.stderr.strip().splitlines() or ["no output"])[-1]
    except OSError as error:
        found, why = None, str(error)
    if found is None or why:
        print(f"{arguments.trl}: has no TRL that runs ({why}); the docstring of this script says how to install it")
        sys.exit(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = prepare(folder, arguments.gpu, 24 if arguments.quick else 60)
        figures = {"trl": found.stdout.split()[-1], **told}
        figures |= compare(folder, arguments.trl, 2 if arguments.quick else 5)
    if arguments.gpu:
        seen = told["length"] / 2  # a token sees half of its example on average
        work = 6 * told["parameters"] + 12 * told["layers"] * told["width"] * seen
        figures["mfu"] = round(figures["tokens_per_second_ours"] * work / arguments.peak / 1e12, 3)
    print(json.dumps(figures))


def compare(folder: Path, trl: str, repeats: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for repeat in range(repeats):
        for way in WAYS:
            runs[way].append(run(sys.executable if way.startswith("ours") else trl, way, folder))
            shown = {name: round(value, 3) for name, value in runs[way][-1].items()}
            print(f"{repeat + 1}/{repeats} {way}: {json.dumps(shown)}", flush=True)
    middle = {
        name: {way: statistics.median(row[name] for row in rows) for way, rows in runs.items()}
        for name in ("speed", "cpu_speed", "memory_mb", "loss")
    }
    pairs = {"packed": ("ours", "trl"), "packed_trl": ("ours", "trl_packed"), "unpacked": ("ours_padded", "trl")}
    ratios = {f"ratio_{name}": ("speed", pair) for name, pair in pairs.items()}
    ratios |= {f"cpu_ratio_{name}": ("cpu_speed", pair) for name, pair in pairs.items()}
    ratios |= {"ratio_memory": ("memory_mb", pairs["packed"]), "ratio_memory_trl": ("memory_mb", pairs["packed_trl"])}
    return {
        **{name: round(middle[of][one] / middle[of][other], 2) for name, (of, (one, other)) in ratios.items()},
        **{f"tokens_per_second_{way}": round(value) for way, value in middle["speed"].items()},
        **{f"memory_mb_{way}": round(value) for way, value in middle["memory_mb"].items()},
        **{f"loss_{way}": round(value, 3) for way, value in middle["loss"].items()},
    }


def run(python: str, way: str, folder: Path) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [python, __file__, "--side", way, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way}: failed\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def prepare(folder: Path, gpu: bool, steps: int) -> dict[str, Any]:
    """The base model, the examples and their tokens in ``folder``; returns what both sides are told."""
    import msgspec
    import numpy as np

    from prover.config import InitModel
    from prover.device import has_fast_bfloat16
    from prover.pretrained import load_tokenizer
    from prover.records import ChatMessage, TrainingExample
    from prover.training.batches import tokenize
    from prover.training.init_model import init_model

    pairs = proofs(4_000, seed=0, lines=20 if gpu else 1)
    base, batch = folder / "base", 65_536 if gpu else 4_096
    init_model(
        InitModel(type="init", vocab_size=1_500, hidden_size=192, layers=4, context=4_096 if gpu else 512),
        sum(pairs, ()),
        base,
        0,
    )
    if gpu:
        enlarge(base)
    examples = folder / "examples.jsonl"
    with examples.open("wb") as file:
        for number, (statement, proof) in enumerate(pairs):
            messages = (ChatMessage(role="user", content=statement), ChatMessage(role="assistant", content=proof))
            example = TrainingExample(id=f"e{number}", messages=messages, problem_id=f"p{number}", attempt_id=None)
            file.write(msgspec.json.encode(example) + b"\n")
    data = tokenize([examples], load_tokenizer(base), 1 << 30)
    rows = [
        {"input_ids": part.tolist(), "completion_mask": [0] * prompt + [1] * (len(part) - prompt)}
        for part, prompt in zip(np.split(data.tokens, data.starts[1:-1]), data.prompts.tolist(), strict=True)
    ]
    (folder / "tokens.json").write_text(json.dumps(rows))
    config = json.loads((base / "config.json").read_text())
    length = float(data.lengths.mean())
    told = {
        "gpu": gpu,
        "bfloat16": has_fast_bfloat16("cuda" if gpu else "cpu"),
        "steps": steps,
        "batch_tokens": batch,
        "batch_examples": round(batch / length),
        "length": round(length, 1),
        "longest": int(data.lengths.max()),
        "parameters": sum(f.stat().st_size for f in base.glob("*.safetensors")) // (2 if gpu else 4),
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
    }
    (folder / "told.json").write_text(json.dumps(told))
    return told


def proofs(many: int, seed: int, lines: int) -> list[tuple[str, str]]:
    """Statements and proofs in the shape of those of Lean's core library: most are short, a few are long."""
    rng = random.Random(seed)
    kinds, names = ("Nat", "Int", "List α", "Array α", "Option α", "BitVec w", "Bool"), "abcdefghklmnxyz"
    operators = ("+", "*", "++", "&&&", "∣", "≤", "=", "-", "::", "<")
    tactics = ("simp", "simp_all", "omega", "grind", "rw", "exact", "induction", "cases", "apply", "simpa using")

    def term(depth: int, over: list[str]) -> str:
        if depth == 0 or rng.random() < 0.3:
            return rng.choice([*over, "0", "1", "[]"])
        return f"({term(depth - 1, over)} {rng.choice(operators)} {term(depth - 1, over)})"

    def lemma() -> str:
        return (
            f"{rng.choice(kinds).split()[0]}.{rng.choice(('add', 'mul', 'append', 'map', 'get', 'sub'))}_"
            + rng.choice(("comm", "assoc", "zero", "succ", "nil", "cons", "left_cancel", "le_of_lt"))
        )

    def one() -> tuple[str, str]:
        over = rng.sample(names, rng.randint(1, 4))
        depth = min(5, 1 + int(rng.expovariate(0.8)))
        bound = " ".join(f"({v} : {rng.choice(kinds)})" for v in over)
        hypotheses = "".join(f" (h{i} : {term(1, over)})" for i in range(rng.randint(0, 2)))
        offered = "\n".join(lemma() for _ in range(rng.randint(0, 8)))
        statement = f"theorem {lemma()} {bound}{hypotheses} : {term(depth, over)} = {term(depth, over)}\n{offered}"
        steps = [
            f"{rng.choice(tactics)} [{', '.join(lemma() for _ in range(rng.randint(0, 3)))}]"
            for _ in range(min(400, 1 + int(rng.expovariate(1 / lines))) if lines > 1 else rng.choice((1, 1, 1, 2, 3)))
        ]
        return statement, "by " + "\n  ".join(steps)

    return [one() for _ in range(many)]


def enlarge(base: Path) -> None:
    """Put a random Llama of about 0.6 B parameters in bfloat16 beside the tokenizer in ``base``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig.from_pretrained(base)
    config.update({"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 20, "vocab_size": 32_768})
    config.update({"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 128})
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base)  # type: ignore[reportArgumentType]


def ours(way: str, folder: Path, told: dict[str, Any]) -> dict[str, float]:
    import torch

    from prover.config import SftConfig, SingleLaunch
    from prover.pretrained import load_tokenizer
    from prover.training import packing
    from prover.training.batches import schedule, tokenize
    from prover.training.job import SftJob, TrainingProgress
    from prover.training.loop import train

    if way == "ours_padded":
        packing.ways = lambda device: []  # as if no attention for packed rows suited the model
    device = "cuda" if told["gpu"] else "cpu"
    steps, losses = told["steps"], [0.0]
    times: list[tuple[float, float]] = []
    lengths = tokenize([folder / "examples.jsonl"], load_tokenizer(folder / "base"), 1 << 30).lengths
    batches = schedule(lengths, told["batch_tokens"], 0, 0, steps)
    useful = sum(int(lengths[batch].sum()) for number, batch in enumerate(batches) if number >= WARM)

    def note(progress: TrainingProgress) -> None:
        if progress.step in (WARM, steps):
            times.append((time.perf_counter(), time.process_time()))
        losses.append(progress.loss)

    job = SftJob(
        config=SftConfig(steps=steps, batch_tokens=told["batch_tokens"], checkpoint_every=1 << 30),
        launch=SingleLaunch(device=device, micro_batch_tokens=16_384 if told["gpu"] else None),
        base=folder / "base",
        examples=(folder / "examples.jsonl",),
        output=folder / way,
        work=folder / f"{way}.work",
        seed=0,
        precision="bfloat16" if told["bfloat16"] else "float32",
    )
    job.output.joinpath("checkpoint.json").unlink(missing_ok=True)  # of an earlier repeat: it would count as done
    train(job, note)
    return measured(useful, times, statistics.mean(losses[-8:]), torch, told["gpu"])


def theirs(way: str, folder: Path, told: dict[str, Any]) -> dict[str, float]:
    import torch
    from datasets import Dataset  # type: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[reportMissingImports]

    torch.set_num_threads(1)
    steps, packed = told["steps"], way == "trl_packed"
    times: list[tuple[float, float]] = []
    passes = told["batch_tokens"] // 16_384 if told["gpu"] else 1
    settings = SFTConfig(
        output_dir=str(folder / way),
        max_steps=steps,
        per_device_train_batch_size=1 if packed else max(1, told["batch_examples"] // passes),
        gradient_accumulation_steps=passes,
        max_length=told["batch_tokens"] // passes if packed else 1 << 16,
        packing=packed,
        learning_rate=1e-3,
        weight_decay=0.05,
        adam_beta2=0.98,
        warmup_steps=20,
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused",
        bf16=told["bfloat16"],
        use_cpu=not told["gpu"],
        gradient_checkpointing=False,
        save_strategy="no",
        logging_steps=8,
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    data = Dataset.from_list(json.loads((folder / "tokens.json").read_text()))
    counts: list[int] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step in (WARM, steps):
                times.append((time.perf_counter(), time.process_time()))

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    trainer = SFTTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()])
    collate = trainer.data_collator

    def counted(rows: list[dict[str, Any]]) -> Any:
        counts.append(sum(len(row["input_ids"]) for row in rows))
        return collate(rows)

    trainer.data_collator = counted
    trainer.train()
    loss = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]
    useful = sum(counts[WARM * passes : steps * passes])
    return measured(useful, times, loss, torch, told["gpu"])


def measured(useful: int, times: list[tuple[float, float]], loss: float, torch: Any, gpu: bool) -> dict[str, float]:
    if gpu:
        memory = torch.cuda.max_memory_allocated() / 1e6
    else:
        status = Path("/proc/self/status").read_text()
        memory = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    seconds, processor = (end - start for start, end in zip(*times, strict=True))
    return {"speed": useful / seconds, "cpu_speed": useful / processor, "memory_mb": memory, "loss": loss}


if __name__ == "__main__":
    main()
