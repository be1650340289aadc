"""A tiny trained model: it answers short words at once and with an end, so that completions differ in length."""

from pathlib import Path

import msgspec
import pytest

from prover.config import InitModel, SftConfig
from prover.records import ChatMessage, TrainingExample
from prover.training.init_model import init_model
from prover.training.job import SftJob
from prover.training.loop import train

WORDS = ["zero", "succ", "add", "comm", "simp", "omega", "rfl", "List", "nil", "cons", "append", "grind"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = InitModel(type="init", vocab_size=320, hidden_size=64, layers=2, context=96)
    init_model(config, [f"by {word} [{word}]" for word in WORDS], folder / "base", seed=0)
    lines = [
        TrainingExample(
            id=f"{word}/{i}",
            messages=(ChatMessage(role="user", content=word), ChatMessage(role="assistant", content=f"by {word[:i]}")),
            problem_id=word,
            attempt_id=None,
        )
        for word in WORDS
        for i in range(len(word))
    ]
    (folder / "examples.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    job = SftJob(
        config=SftConfig(steps=40, batch_tokens=512, warmup_steps=5, learning_rate=3e-3),
        base=folder / "base",
        examples=(folder / "examples.jsonl",),
        output=folder / "model",
        work=folder / "work",
        seed=0,
    )
    train(job)
    return job.output
