"""Average checkpoints, tensor by tensor; the work is done by :mod:`prover.training.average`."""

from collections.abc import Sequence
from pathlib import Path

from prover.artifacts import ArtifactWriter
from prover.models import Model


def run(out: Path, *, parts: Sequence[tuple[Model, float]], series: str, clean: bool = False) -> Model:
    """The weighted mean of the parts' weights, in ``out/model``; the tokenizer is the first part's."""
    writer = ArtifactWriter(
        out,
        {"stage": "average", "parts": [[model.fingerprint, weight] for model, weight in parts]},
        0,
        clean=clean,
    )
    model = Model(out / "model", writer.artifact.fingerprint, series)
    if writer.finished:
        return model
    from prover.training.average import average  # late: imports torch

    average([(part.path, weight) for part, weight in parts], model.path)
    writer.finish({"parts": len(parts)})
    return model
