"""A tiny model and a toy task that it learns in seconds: answer a word with its letters reversed, from a short list."""

from pathlib import Path

import msgspec
import pytest

from prover.config import InitModel
from prover.records import ChatMessage, TrainingExample
from prover.training.init_model import init_model

WORDS = ["zero", "succ", "add", "comm", "simp", "omega", "rfl", "List", "nil", "cons", "append", "grind"]


def example(word: str, number: int = 0, weight: float = 1.0) -> TrainingExample:
    return TrainingExample(
        id=f"{word}/{number}",
        messages=(ChatMessage(role="user", content=word), ChatMessage(role="assistant", content=word[::-1])),
        problem_id=word,
        attempt_id=None,
        weight=weight,
    )


def write_examples(path: Path, examples: list[TrainingExample]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in examples))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "base"
    config = InitModel(type="init", vocab_size=320, hidden_size=64, layers=2, context=64)
    init_model(config, [text for word in WORDS for text in (word, word[::-1])], path, seed=0)
    return path


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    return write_examples(path, [example(word, number) for word in WORDS for number in range(4)])
