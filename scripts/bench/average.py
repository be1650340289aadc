"""Linear averages side by side with mergekit's, on the same random Llama checkpoints: difference, speed, memory.

mergekit is no dependency of the project. Give it an environment of its own and name that:

    python3 -m venv VENV && VENV/bin/pip install torch==2.13.0 mergekit==0.1.5
    python scripts/bench/average.py --mergekit VENV/bin/python

Each run is a fresh process with the same number of threads, the two in turn, inputs in the page cache. Timed is the
merge itself (``average()`` against ``run_merge()``), without imports; ours flushes its files to the disk, mergekit does
not. Weights sum to 1 and mergekit is told not to normalise, so that both compute the same sum. The last line is a JSON
object: ``max_difference`` over all entries of both dtypes; ``ratio_mergekit``, mergekit's seconds / ours, the lower of
the two dtypes, ``ratio_cpu`` the same for CPU seconds and ``ratio_command`` for whole processes, imports included; peak
resident memory of each in MB, torch itself among it. Of the repeats the fastest counts: other work on the machine only
adds. Exits 2 where mergekit is not there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WEIGHTS = (0.4, 0.3, 0.2, 0.1)
SIZES = {
    "quick": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 12_000},
    "full": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "vocab_size": 16_000},
}

OURS = """
import re, sys, time
from pathlib import Path
from prover.training.average import average
parts = [(Path(path), float(weight)) for path, weight in zip(sys.argv[2::2], sys.argv[3::2])]
start, used = time.perf_counter(), time.process_time()
average(parts, Path(sys.argv[1]))
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(time.perf_counter() - start, time.process_time() - used, peak)
"""
THEIRS = """
import re, sys, time
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
models = [{"model": path, "parameters": {"weight": float(w)}} for path, w in zip(sys.argv[2::2], sys.argv[3::2])]
config = {"merge_method": "linear", "models": models, "parameters": {"normalize": False}}
options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
start, used = time.perf_counter(), time.process_time()
run_merge(MergeConfiguration.model_validate(config), sys.argv[1], options)
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(time.perf_counter() - start, time.process_time() - used, peak)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", default=sys.executable, help="Python of an environment that has mergekit")
    parser.add_argument("--quick", action="store_true", help="smaller checkpoints, fewer repeats")
    arguments = parser.parse_args()
    check = [arguments.mergekit, "-c", "import mergekit.merge, importlib.metadata as m; print(m.version('mergekit'))"]
    try:
        found = subprocess.run(check, capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(_absent(arguments.mergekit, str(error)))
    if found.returncode != 0:
        sys.exit(_absent(arguments.mergekit, (found.stderr.strip().splitlines() or ["no output"])[-1]))
    figures: dict[str, Any] = {"mergekit": found.stdout.split()[-1]}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("bfloat16", "float32"):
            size = SIZES["quick" if arguments.quick else "full"]
            paths = [checkpoint(Path(folder) / f"model_{seed}", seed, dtype, size) for seed in range(len(WEIGHTS))]
            figures |= compare(dtype, paths, Path(folder), arguments.mergekit, 3 if arguments.quick else 7)
    for name, choose in (("max_difference", max), ("ratio_mergekit", min), ("ratio_cpu", min), ("ratio_command", min)):
        figures[name] = choose(figures[f"{name}_{dtype}"] for dtype in ("bfloat16", "float32"))
    print(json.dumps(figures))


def _absent(python: str, why: str) -> int:
    print(f"{python}: has no mergekit that runs ({why}); the docstring of this script says how to install it")
    return 2


def checkpoint(path: Path, seed: int, dtype: str, size: dict[str, int]) -> Path:
    """A random Llama without tokenizer, its weights in two files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.rmtree(path, ignore_errors=True)
    torch.manual_seed(seed)
    config = LlamaConfig(**size, num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=False)  # type: ignore[reportArgumentType]
    model: Any = LlamaForCausalLM(config).to(getattr(torch, dtype))
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(path, max_shard_size=f"{total * 6 // 10_000_000}MB")
    return path


def compare(dtype: str, paths: list[Path], folder: Path, python: str, repeats: int) -> dict[str, Any]:
    pairs = [str(item) for pair in zip(paths, WEIGHTS, strict=True) for item in pair]
    commands = {"ours": [sys.executable, "-c", OURS], "mergekit": [python, "-c", THEIRS]}
    runs: dict[str, list[tuple[float, ...]]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, command in commands.items():
            out = folder / name
            shutil.rmtree(out, ignore_errors=True)
            figures = run([*command, str(out), *pairs])
            if repeat:  # the first warms the page cache
                runs[name].append(figures)
    best = {name: [min(column) for column in zip(*rows, strict=True)] for name, rows in runs.items()}
    return {
        f"megabytes_{dtype}": round(sum(f.stat().st_size for f in paths[0].glob("*.safetensors")) / 1e6),
        f"max_difference_{dtype}": difference(folder / "ours", folder / "mergekit"),
        f"ratio_mergekit_{dtype}": round(best["mergekit"][0] / best["ours"][0], 2),
        f"ratio_cpu_{dtype}": round(best["mergekit"][1] / best["ours"][1], 2),
        f"ratio_command_{dtype}": round(best["mergekit"][2] / best["ours"][2], 2),
        **{f"{name}_seconds_{dtype}": round(values[0], 3) for name, values in best.items()},
        **{f"{name}_memory_mb_{dtype}": round(values[3] / 1024) for name, values in best.items()},
    }


def run(command: list[str]) -> tuple[float, ...]:
    """Wall and CPU seconds of the merge, wall seconds of the process, peak resident KiB."""
    root = str(Path(__file__).resolve().parents[2])
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{command[0]}: failed\n{done.stderr[-2000:]}")
    seconds, cpu, memory = done.stdout.split()[-3:]
    return float(seconds), float(cpu), time.perf_counter() - start, float(memory)


def difference(one: Path, other: Path) -> float:
    """Largest difference of an entry. Stops where names, shapes or dtypes differ."""
    from safetensors.torch import load_file

    def tensors(path: Path) -> dict[str, Any]:
        return {name: t for file in sorted(path.glob("*.safetensors")) for name, t in load_file(file).items()}

    a, b = tensors(one), tensors(other)
    if {n: (t.shape, t.dtype) for n, t in a.items()} != {n: (t.shape, t.dtype) for n, t in b.items()}:
        sys.exit("the two wrote different tensors")
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


if __name__ == "__main__":
    main()
