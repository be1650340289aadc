"""Averages equal plain torch, whatever files they come in; what has no average is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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
        expected = a[name].float() * 0.7 + b[name].float() * 0.3
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
    (torn / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read"):
        average([(torn, 1.0)], tmp_path / "mean")
