"""The model made from scratch is an ordinary directory, and the same for the same seed."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from prover.config import InitModel
from prover.errors import ConfigError
from prover.pointers import pointer
from prover.pretrained import load_model, load_tokenizer
from prover.training.init_model import POINTERS, init_model

TEXTS = ["(xs : List α) : xs ++ [] = xs\n⟦1⟧ List.append_nil", "by simp [⟦1⟧]", "∀ n, n + 0 = n"]
CONFIG = InitModel(type="init", vocab_size=330, hidden_size=32, layers=1, context=64)


def test_transformers_loads_it_by_itself(base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.tie_word_embeddings
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_any_text_survives_the_tokenizer(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    for text in (*TEXTS, "simp [⟦1⟧, ⟦32⟧] <;> exact ⟨x, ∀ y⟩", "  two  spaces\n\ttab", "日本 𝔽 ℕ ∣", "12.5 a_b.c"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_each_pointer_is_one_token_that_decoding_keeps(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    for i in range(1, POINTERS + 1):
        assert len(tokenizer(pointer(i), add_special_tokens=False)["input_ids"]) == 1
    ids = tokenizer("⟦1⟧⟦12⟧", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "⟦1⟧⟦12⟧"


def test_the_chat_template_marks_turns_with_single_tokens(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    talk = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>a<|user|>b<|assistant|>c</s><|user|>d<|assistant|>"
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1 + 4 + 4 + 1 + 1


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    init_model(CONFIG, TEXTS, tmp_path / "a" / "model", 3)
    code = (
        "import sys, msgspec; from pathlib import Path; from prover.config import InitModel\n"
        "from prover.training.init_model import init_model\n"
        "texts, config, path = msgspec.json.decode(sys.argv[1])\n"
        "init_model(InitModel.model_validate_json(config), texts, Path(path), 3)"
    )
    job = msgspec.json.encode([TEXTS, CONFIG.model_dump_json(), str(tmp_path / "b" / "model")]).decode()
    subprocess.run([sys.executable, "-c", code, job], check=True, cwd=Path(__file__).resolve().parents[3])
    names = sorted(p.name for p in (tmp_path / "a" / "model").iterdir())
    assert {"model.safetensors", "tokenizer.json", "config.json", "checkpoint.json"} <= set(names)
    for name in names:
        assert (tmp_path / "a" / "model" / name).read_bytes() == (tmp_path / "b" / "model" / name).read_bytes(), name


def test_another_seed_gives_other_weights_and_leaves_torch_alone(tmp_path: Path, base: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for seed in (1, 2):
        init_model(CONFIG, TEXTS, tmp_path / str(seed), seed)
    assert torch.equal(torch.rand(1), expected)
    one, two = (load_model(tmp_path / str(seed), torch.float32, "cpu").state_dict() for seed in (1, 2))
    assert not torch.equal(one["model.embed_tokens.weight"], two["model.embed_tokens.weight"])


def test_a_width_without_whole_heads_is_refused(tmp_path: Path) -> None:
    config = InitModel(type="init", hidden_size=40)
    with pytest.raises(ConfigError, match=r"model\.hidden_size: must be a multiple of 32, got 40"):
        init_model(config, TEXTS, tmp_path / "m", 0)
    assert not list(tmp_path.iterdir())
