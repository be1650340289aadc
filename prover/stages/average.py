"""One checkpoint made of several; the work is done by :mod:`prover.training.average`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prover.artifacts import ArtifactWriter, fingerprint
from prover.config import AverageConfig, LinearAverage
from prover.errors import ConfigError
from prover.models import Model
from prover.progress import Progress

Parts = Sequence[tuple[Model, float]]


def run(
    out: Path,
    *,
    parts: Parts,
    series: str,
    base: Model | None = None,
    method: AverageConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    clean: bool = False,
    planned: bool = False,
) -> Model:
    """The average of ``parts``, models and their weights, in ``out/model``; the tokenizer is the first part's.

    With ``base``, ``method.tuned_weight`` says how far to go from there. Without one it is the weighted mean; raises
    ConfigError where ``method`` cannot do without. ``planned`` only says which model it will be, and writes nothing.
    """
    method = method or LinearAverage()
    if base is not None and isinstance(method, LinearAverage):
        parts, base = _mixed(parts, base, method.tuned_weight), None
    task_vectors = None if isinstance(method, LinearAverage) else method
    if task_vectors and base is None:
        raise ConfigError(f"average.method: {method.method} keeps changes from a base model; name it with --base")
    recipe: dict[str, Any] = {"stage": "average", "parts": [[model.fingerprint, weight] for model, weight in parts]}
    if task_vectors and base:
        recipe |= {"base": base.fingerprint, "method": task_vectors.method_alone, "seed": seed}
    model = Model(out / "model", fingerprint(recipe), series)
    if planned:
        return model
    writer = ArtifactWriter(out, recipe, 0, clean=clean)
    if writer.finished and model.path.exists():  # a sweep keeps the manifests of models that it threw away
        return model
    from prover.training.average import average  # late: imports torch

    average(
        [(part.path, weight) for part, weight in parts],
        model.path,
        task_vectors=task_vectors,
        base=base.path if base else None,
        seed=seed,
        series=series,
        progress=progress,
    )
    writer.finish({"parts": len(parts)})
    return model


def _mixed(parts: Parts, base: Model, share: float) -> list[tuple[Model, float]]:
    """The parts of a plain mean that goes ``share`` of the way from the base to the mean of ``parts``."""
    rest = [(base, 1 - share)] if share < 1 else []
    return [*((model, weight * share) for model, weight in parts), *rest]
