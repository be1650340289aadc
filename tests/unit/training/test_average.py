"""Averages equal plain torch, whatever files they come in; what has no average is refused by name."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prover.config import BreadcrumbsAverage, DareAverage, TaskVectors, TiesAverage
from prover.errors import ModelError
from prover.pretrained import load_model, load_tokenizer, read_checkpoint
from prover.training.average import average

Tensors = dict[str, torch.Tensor]


def model_dir(base: Path, path: Path, tensors: Tensors, shards: int = 1) -> Path:
    """A copy of ``base`` with other tensors, in one file or several."""
    path.mkdir()
    for file in base.iterdir():
        if file.name != "model.safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    if shards == 1:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path
    index: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[shard::shards]}
        save_file(part, path / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(part, name))
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return path


def noisy(base: Path, seed: int, dtype: torch.dtype = torch.float32) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(base / "model.safetensors")
    return {k: (v + torch.randn(v.shape, generator=generator)).to(dtype) for k, v in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
def test_equals_plain_torch(base: Path, tmp_path: Path, dtype: torch.dtype, shards: int) -> None:
    a, b = noisy(base, 1, dtype), noisy(base, 2, dtype)
    parts = [(model_dir(base, tmp_path / "a", a, shards), 0.7), (model_dir(base, tmp_path / "b", b), 0.3)]
    made = average(parts, tmp_path / "mean")
    files = sorted(p.name for p in (tmp_path / "mean").glob("*.safetensors"))
    assert files == sorted(p.name for p in (tmp_path / "a").glob("*.safetensors"))
    result: Tensors = {}
    for file in files:
        result.update(load_file(tmp_path / "mean" / file))
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        expected = torch.zeros(a[name].shape).add_(a[name].float(), alpha=0.7).add_(b[name].float(), alpha=0.3)
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected.to(dtype)), name
    assert made.parents == ("a", "b")
    assert read_checkpoint(tmp_path / "mean") == made
    assert load_model(tmp_path / "mean", torch.float32, "cpu").config.tie_word_embeddings
    assert load_tokenizer(tmp_path / "mean").chat_template


def test_an_average_of_one_is_its_copy(base: Path, tmp_path: Path) -> None:
    average([(base, 1.0)], tmp_path / "copy")
    ours, theirs = load_file(tmp_path / "copy" / "model.safetensors"), load_file(base / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_different_models_are_refused_by_tensor(base: Path, tmp_path: Path) -> None:
    tensors = noisy(base, 1)
    fewer = {k: v for k, v in tensors.items() if k != "model.norm.weight"}
    wider = {**tensors, "model.norm.weight": torch.zeros(65)}
    half = {**tensors, "model.norm.weight": tensors["model.norm.weight"].half()}
    for name, other, line in (
        ("fewer", fewer, r"fewer: lacks tensor model\.norm\.weight"),
        ("wider", wider, r"tensor model\.norm\.weight is F32\[65\], in .* it is F32\[64\]"),
        ("half", half, r"tensor model\.norm\.weight is F16\[64\]"),
    ):
        path = model_dir(base, tmp_path / name, other)
        with pytest.raises(ModelError, match=line):
            average([(base, 0.5), (path, 0.5)], tmp_path / "mean")
    with pytest.raises(ModelError, match=r"fewer: lacks tensor model\.norm\.weight"):
        average([(tmp_path / "fewer", 0.5), (base, 0.5)], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    assert not list(tmp_path.glob(".*"))


def test_whole_numbers_must_agree(base: Path, tmp_path: Path) -> None:
    paths = [model_dir(base, tmp_path / str(n), {**noisy(base, 1), "steps": torch.tensor([n])}) for n in (1, 2)]
    with pytest.raises(ModelError, match="steps holds whole numbers that differ"):
        average([(p, 0.5) for p in paths], tmp_path / "mean")


def test_bad_requests_are_one_line(base: Path, tmp_path: Path) -> None:
    for parts, line in (
        ([], "nothing to average"),
        ([(base, 0.5), (base, 0.4)], "must sum to 1, these sum to 0.9"),
        ([(tmp_path / "none", 1.0)], "no such directory"),
    ):
        with pytest.raises(ModelError, match=line):
            average(parts, tmp_path / "mean")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        average([(empty, 1.0)], tmp_path / "mean")
    torn = model_dir(base, tmp_path / "torn", noisy(base, 1))
    whole = (torn / "model.safetensors").read_bytes()
    for damaged in (b"torn", whole[:5], whole[:-1], whole + b"x", whole[:8] + b"[" + whole[9:], b"\xff" * 9):
        (torn / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"torn/model.safetensors: the weights cannot be read"):
            average([(torn, 1.0)], tmp_path / "mean")
    with pytest.raises(ModelError, match="a task-vector method and a base, or neither"):
        average([(base, 1.0)], tmp_path / "mean", task_vectors=TiesAverage(method="ties"))


METHODS: list[TaskVectors | None] = [
    None,
    TiesAverage(method="ties", density=0.3),
    DareAverage(method="dare", drop=0.5),
    BreadcrumbsAverage(method="breadcrumbs", drop_smallest=0.5, drop_largest=0.1),
]


def merged(parts: list[Path], output: Path, method: TaskVectors | None, start: Path) -> Tensors:
    """The tensors of an average with equal weights."""
    weights = [(path, 1 / len(parts)) for path in parts]
    average(weights, output, task_vectors=method, base=start if method else None)
    return {k: v for file in output.glob("*.safetensors") for k, v in load_file(file).items()}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.method if m else "linear")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_do_not_matter(base: Path, tmp_path: Path, method: TaskVectors | None, dtype: torch.dtype) -> None:
    a, b, start = (noisy(base, seed, dtype) for seed in (1, 2, 3))
    results: list[Tensors] = []
    for number, shards in enumerate([(1, 1, 1), (3, 1, 2), (1, 4, 3)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths = [
            model_dir(base, folder / name, tensors, count)
            for name, tensors, count in zip("abs", (a, b, start), shards, strict=True)
        ]
        results.append(merged(paths[:2], folder / "mean", method, paths[2]))
        assert len(list((folder / "mean").glob("*.safetensors"))) == shards[0], "files as the first model has them"
    assert same(results[0], results[1]) and same(results[0], results[2])
    assert all(t.dtype == dtype for t in results[0].values())
    assert not same(results[0], a)


def config_with(path: Path, **changes: object) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    return path


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.method if m else "linear")
def test_tied_heads_are_one_tensor_however_they_are_stored(
    base: Path, tmp_path: Path, method: TaskVectors | None
) -> None:
    """The tiny model ties its output head to the embedding, so that its file has the embedding alone."""
    a, b, start = (noisy(base, seed) for seed in (1, 2, 3))
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    assert embedding in a and head not in a
    plain = [model_dir(base, tmp_path / name, t) for name, t in (("a", a), ("b", b), ("s", start))]
    twice = [model_dir(base, tmp_path / f"{n}2", {**t, head: t[embedding].clone()}) for n, t in (("a", a), ("b", b))]
    expected = merged(plain[:2], tmp_path / "mean", method, plain[2])
    assert same(merged([plain[0], twice[1]], tmp_path / "mixed", method, plain[2]), expected)
    assert same(
        merged([twice[0], plain[1]], tmp_path / "both", method, plain[2]), {**expected, head: expected[embedding]}
    ), "the first model's names, and one content for both"


def test_an_untied_head_is_refused_beside_a_tied_one_unless_it_comes_first(base: Path, tmp_path: Path) -> None:
    tensors, head = noisy(base, 1), "lm_head.weight"
    other = {**tensors, head: torch.ones_like(tensors["model.embed_tokens.weight"])}
    tied = model_dir(base, tmp_path / "tied", tensors)
    untied = config_with(model_dir(base, tmp_path / "untied", other), tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"untied: its tensor lm_head\.weight differs from model\.embed_tokens"):
        merged([tied, untied], tmp_path / "mean", None, base)
    mean = merged([untied, tied], tmp_path / "mean", None, base)
    assert torch.allclose(mean[head], (other[head] + tensors["model.embed_tokens.weight"]) / 2)
    lacking = config_with(model_dir(base, tmp_path / "lacking", tensors), tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"lacking: lacks tensor lm_head\.weight"):
        merged([untied, lacking], tmp_path / "mean", None, base)


def test_shared_tensors_that_the_file_notes_are_found(base: Path, tmp_path: Path) -> None:
    tensors = noisy(base, 1)
    kept, left = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    tensors[left] = tensors[kept].clone()
    whole = model_dir(base, tmp_path / "whole", tensors)
    noted = model_dir(base, tmp_path / "noted", {})
    fewer = {k: v for k, v in tensors.items() if k != left}
    save_file(fewer, noted / "model.safetensors", metadata={"format": "pt", left: kept})
    assert same(merged([whole, noted], tmp_path / "one", None, base), tensors)
    assert same(merged([noted, whole], tmp_path / "two", None, base), fewer)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"num_attention_heads": 1}, "num_attention_heads 1, that of "),
        ({"model_type": "qwen3"}, "model_type 'qwen3', that of .* 'llama'; only models of one architecture"),
        ({"rope_parameters": {"rope_theta": 7.0}}, "rope_theta 7.0"),
        ({"transformers_version": "4.1", "eos_token_id": 9, "use_cache": False, "rope_parameters": None}, None),
    ],
)
def test_other_architectures_are_refused_by_key(
    base: Path, tmp_path: Path, change: dict[str, object], line: str | None
) -> None:
    other = config_with(model_dir(base, tmp_path / "other", noisy(base, 1)), **change)
    if line is None:
        merged([base, other], tmp_path / "mean", None, base)
        return
    with pytest.raises(ModelError, match=f"other: its config.json has {line}"):
        merged([base, other], tmp_path / "mean", None, base)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.method if m else "linear")
def test_numbers_that_are_not_finite_are_refused_by_name(
    base: Path, tmp_path: Path, method: TaskVectors | None, value: float
) -> None:
    tensors = noisy(base, 1)
    tensors["model.norm.weight"][5] = value
    broken = model_dir(base, tmp_path / "broken", tensors)
    start = model_dir(base, tmp_path / "start", noisy(base, 2))
    with pytest.raises(ModelError, match=r"broken: tensor model\.norm\.weight holds numbers that are not finite"):
        merged([base, broken], tmp_path / "mean", method, start)
    if method is not None:
        with pytest.raises(ModelError, match=r"broken: tensor model\.norm\.weight holds numbers that are not finite"):
            merged([base, base], tmp_path / "mean", method, broken)
    assert not (tmp_path / "mean").exists()


def test_what_does_not_fit_the_dtype_is_refused(base: Path, tmp_path: Path) -> None:
    tensors = {**noisy(base, 1, torch.float16)}
    high = {**tensors, "model.norm.weight": torch.full((64,), 6e4, dtype=torch.float16)}
    paths = [model_dir(base, tmp_path / name, t) for name, t in (("low", tensors), ("high", high))]
    method = TiesAverage(method="ties", density=1.0, tuned_weight=2.0)
    with pytest.raises(ModelError, match=r"tensor model\.norm\.weight does not fit into float16; lower"):
        average([(paths[1], 1.0)], tmp_path / "mean", task_vectors=method, base=paths[0])


def test_quantised_tensors_and_lost_files_are_refused(base: Path, tmp_path: Path) -> None:
    eights = {k: v.to(torch.float8_e4m3fn) for k, v in noisy(base, 1).items()}
    with pytest.raises(ModelError, match="F8_E4M3, which has no average; convert the model"):
        average([(model_dir(base, tmp_path / "eight", eights), 1.0)], tmp_path / "mean")
    lost = model_dir(base, tmp_path / "lost", noisy(base, 1), shards=3)
    (lost / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lost/model-00002-of-00003\.safetensors: is missing"):
        average([(lost, 1.0)], tmp_path / "mean")


CHILD = """
import resource, signal, sys
from pathlib import Path
from prover.errors import DiskError
from prover.training.average import average
signal.signal(signal.SIGXFSZ, signal.SIG_DFL if sys.argv[1] == "die" else signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    average([(Path(sys.argv[2]), 0.5), (Path(sys.argv[3]), 0.5)], Path(sys.argv[4]))
except DiskError as error:
    print(error)
"""


def test_killed_or_without_room_in_the_middle_of_a_file_it_leaves_nothing_and_runs_again(
    base: Path, tmp_path: Path
) -> None:
    """The system ends the process, or its write, at the 200,000th byte of a file."""
    paths = [model_dir(base, tmp_path / name, noisy(base, seed)) for seed, name in enumerate("ab")]
    mean = tmp_path / "mean"
    expected = merged(paths, mean, None, base)
    before = (mean / "model.safetensors").read_bytes()
    assert len(before) > 200_000
    root = Path(__file__).resolve().parents[3]
    for how, code in (("die", -signal.SIGXFSZ), ("full", 0)):
        command = [sys.executable, "-c", CHILD, how, *map(str, paths), str(tmp_path / how)]
        done = subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert (tmp_path / f".{how}.tmp").exists() == (how == "die")
        assert not (tmp_path / how).exists()
        assert how == "die" or "full: cannot be written (File too large)" in done.stdout
        assert same(merged(paths, tmp_path / how, None, base), expected)
        assert (tmp_path / how / "model.safetensors").read_bytes() == before
        assert not (tmp_path / f".{how}.tmp").exists()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.method if m else "linear")
def test_memory_does_not_grow_with_the_model(tmp_path: Path, method: TaskVectors | None) -> None:
    """Peak resident memory over three models of one tensor with 64 MB each, beyond what was there before."""
    paths = [tmp_path / name for name in "abs"]
    for number, path in enumerate(paths):
        path.mkdir()
        (path / "config.json").write_text("{}")
        values = torch.full((1 << 15, 1 << 10), float(number), dtype=torch.bfloat16)
        save_file({"w": values}, path / "model.safetensors")
        del values
    parts = [(path, 0.5) for path in paths[:2]]
    grown = 0
    for turn in range(2):  # what libraries load on first use is there in the second
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
        before = memory_kb("VmRSS")
        average(parts, tmp_path / f"mean{turn}", task_vectors=method, base=paths[2] if method else None)
        grown = memory_kb("VmHWM") - before
    assert grown < 24_000


def memory_kb(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
