"""Make the starting model from scratch; the work is done by :mod:`prover.training.init_model`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from prover.artifacts import Artifact, ArtifactWriter
from prover.config import InitModel
from prover.models import Model
from prover.prompts import Prompt
from prover.records import Problem, TrainingExample


def run(
    out: Path,
    *,
    problems: Artifact,
    examples: Sequence[Artifact] = (),
    config: InitModel,
    prompt: Prompt,
    seed: int,
    clean: bool = False,
) -> Model:
    """A random model in ``out/model``, its tokenizer trained on prompts of ``problems`` and answers of ``examples``."""
    writer = ArtifactWriter(
        out,
        {
            "stage": "init",
            "config": config.model_dump(mode="json"),
            "problems": problems.fingerprint,
            "examples": [artifact.fingerprint for artifact in examples],
            "prompt": prompt.recipe,
            "seed": seed,
        },
        0,
        clean=clean,
    )
    model = Model(out / "model", writer.artifact.fingerprint, "init")
    if writer.finished:
        return model
    from prover.training.init_model import init_model  # late: imports torch

    init_model(config, _texts(problems, examples, prompt), model.path, seed)
    writer.finish({"problems": sum(1 for _ in problems.read(Problem))})
    return model


def _texts(problems: Artifact, examples: Sequence[Artifact], prompt: Prompt) -> Iterator[str]:
    for problem in problems.read(Problem):
        yield from (message.content for message in prompt.first(problem))
    for artifact in examples:
        for example in artifact.read(TrainingExample):
            yield example.messages[-1].content
