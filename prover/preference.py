"""Preference optimization around its stages: on folders that the user names, and in a round of the loop."""

from collections.abc import Sequence
from pathlib import Path

from prover import layout
from prover.artifacts import Artifact, open_artifact, read_manifest, run_lock
from prover.config import DpoConfig, IterateConfig, LaunchChoice, PairsConfig, SingleLaunch
from prover.errors import ArtifactError
from prover.models import Model, open_model
from prover.progress import Progress, Silent
from prover.single import open_judged, open_problems
from prover.stages import dpo, pairs
from prover.stages.verify import Judged


def paired(
    out: Path,
    problems: Path,
    judged: Sequence[tuple[Path, Path]],
    *,
    config: PairsConfig,
    seed: int = 0,
    clean: bool = False,
) -> Artifact:
    """Preference pairs from ``judged``, attempts and the verdicts on them."""
    with run_lock(out):
        source = open_problems(problems, out)
        return pairs.run(
            out,
            problems=source,
            judged=[open_judged(source, attempts, verdicts) for attempts, verdicts in judged],
            config=config,
            seed=seed,
            clean=clean,
        )


def preferred(
    out: Path,
    preferences: Path,
    base: Path,
    *,
    config: DpoConfig,
    launch: LaunchChoice | None = None,
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Model:
    """``base`` tuned to prefer the chosen answers of the pairs, in ``out/model``."""
    with run_lock(out):
        source = open_artifact(preferences)
        if "pairs" not in read_manifest(preferences).counts:
            raise ArtifactError(f"{preferences}: holds no preference pairs; give the folder that `prover pairs` wrote")
        return dpo.run(
            out,
            base=open_model(base),
            pairs=source,
            config=config,
            launch=launch or SingleLaunch(),
            series=out.name,
            seed=seed,
            progress=progress or Silent(),
            clean=clean,
        )


def preferring(
    tuned: Model,
    run_dir: Path,
    number: int,
    config: IterateConfig,
    problems: Artifact,
    judged: Sequence[Judged],
    progress: Progress,
) -> Model:
    """A round's fine-tuned model, tuned on preferences too where the configuration has ``dpo``.

    The pairs are from what all rounds tried, as its examples were: each round may begin anew from the starting model.
    """
    if config.dpo is None:
        return tuned
    made = pairs.run(
        run_dir / layout.pairs(number), problems=problems, judged=judged, config=config.pairs, seed=config.seed
    )
    return dpo.run(
        run_dir / layout.dpo(number),
        base=tuned,
        pairs=made,
        config=config.dpo,
        launch=config.launch,
        series=f"r{number}",
        seed=config.seed + number,
        progress=progress,
        keep_unpaired=True,
    )
