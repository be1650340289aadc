"""The transformers engine on a GPU."""

from pathlib import Path

import msgspec
import pytest

from prover.config import InitModel, SftConfig
from prover.engines import GenerationRequest, Sampling
from prover.engines.hf import HfEngine
from prover.records import ChatMessage, TrainingExample
from prover.training.init_model import init_model
from prover.training.job import SftJob
from prover.training.loop import train

ANSWERS = {"zero": "by rfl", "succ": "by omega", "append": "by simp [nil_append]", "comm": "by grind"}


@pytest.mark.gpu
def test_greedy_text_is_that_of_the_cpu(tmp_path: Path) -> None:
    """After some training, so that no two tokens are as likely up to rounding."""
    texts = [f"{word} {answer}" for word, answer in ANSWERS.items()]
    init_model(
        InitModel(type="init", vocab_size=300, hidden_size=64, layers=2, context=96), texts, tmp_path / "base", 0
    )
    lines = [
        TrainingExample(
            id=word,
            messages=(ChatMessage(role="user", content=word), ChatMessage(role="assistant", content=answer)),
            problem_id=word,
            attempt_id=None,
        )
        for word, answer in ANSWERS.items()
    ]
    (tmp_path / "examples.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    job = SftJob(
        config=SftConfig(steps=40, batch_tokens=256, warmup_steps=5, learning_rate=3e-3),
        base=tmp_path / "base",
        examples=(tmp_path / "examples.jsonl",),
        output=tmp_path / "model",
        work=tmp_path / "work",
        seed=0,
    )
    train(job)
    requests = [
        GenerationRequest(id=word, messages=(ChatMessage(role="user", content=word),), seeds=(1,)) for word in ANSWERS
    ]
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)
    found: dict[str, dict[str, str]] = {}
    for device in ("cpu", "cuda"):
        with HfEngine(tmp_path / "model", batch_size=8, device=device, dtype="float32") as engine:
            found[device] = {c.request_id: c.text for c in engine.generate(requests, greedy)}
    assert found["cuda"] == found["cpu"]
    assert len(set(found["cpu"].values())) > 1
