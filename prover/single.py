"""Single stages on given folders: what the stage commands call, and what a notebook can call.

The loop (:mod:`prover.pipeline`) knows its own artifacts; here they come from the user, so that each is checked to
belong to the others before anything runs. Every function takes the output folder first and returns what the stage
returns. ``cache``, where a function takes it, is a file of verdicts that are taken from there and kept.
"""

from collections.abc import Sequence
from pathlib import Path

from lean_env.cache import open_cache
from lean_env.external import Checker
from lean_env.pool import LeanPool
from prover import layout
from prover.artifacts import Artifact, open_artifact, read_manifest, run_lock
from prover.config import (
    AverageConfig,
    CorrectConfig,
    EngineConfig,
    InitModel,
    LaunchChoice,
    LeanConfig,
    OpenAIEngine,
    PromptConfig,
    SamplingConfig,
    SelectConfig,
    SftConfig,
    SingleLaunch,
    TransformersEngine,
)
from prover.engines.lease import EngineLease
from prover.errors import ArtifactError, ConfigError, InputError
from prover.ground import Ground
from prover.lean import open_lean
from prover.models import Model, open_model, served_model
from prover.progress import Progress, Silent
from prover.prompts import Prompt
from prover.stages import average, cold, init, sample, select, sft, verify
from prover.stages import certify as certify_stage
from prover.stages import correct as correct_stage
from prover.stages import problems as problems_stage
from prover.stages.verify import Judged
from prover.tactics import PORTFOLIO


def open_problems(path: Path, out: Path) -> Artifact:
    """Problems from an artifact's folder, or from a JSONL file, which is cut into shards beside ``out``."""
    return open_artifact(path) if path.is_dir() else problems_stage.from_jsonl(path, out.parent / "problems")


def open_judged(problems: Artifact, attempts: Path, verdicts: Path) -> Judged:
    """Attempts and verdicts that belong together and to ``problems``. Raises ArtifactError where they do not."""
    pair = open_attempts(problems, attempts), open_artifact(verdicts)
    _belongs(verdicts, "attempts", pair[0])
    return pair


def open_attempts(problems: Artifact, path: Path) -> Artifact:
    attempts = open_artifact(path)
    _belongs(path, "problems", problems)
    return attempts


def _belongs(path: Path, key: str, source: Artifact) -> None:
    recipe = read_manifest(path).recipe
    if key not in recipe:
        raise ArtifactError(f"{path}: is an artifact of {recipe.get('stage')!r}, which was not made from {key}")
    if recipe[key] != source.fingerprint:
        raise ArtifactError(f"{path}: was made from other {key} than {source.path}; give the ones it was made from")


def asked_model(model: Path | None, engine: EngineConfig) -> Model:
    """The model that is sampled: a directory, or the one that the engine's server has. Raises InputError."""
    if isinstance(engine, OpenAIEngine):
        if model is not None:
            raise InputError(f"--model {model}: the server has its model (engine.model); leave it out")
        return served_model(engine.model)
    if model is None:
        raise InputError("--model is missing: give a model directory, or an engine that has its model (openai)")
    return open_model(model)


def initialise(
    out: Path, problems: Path, *, config: InitModel, prompt: PromptConfig, seed: int = 0, clean: bool = False
) -> Model:
    """A small random model in ``out/model``, its tokenizer trained on the problems' text."""
    with run_lock(out):
        return init.run(
            out,
            problems=open_problems(problems, out),
            config=config,
            prompt=Prompt(prompt),
            seed=seed,
            clean=clean,
        )


def sampled(
    out: Path,
    problems: Path,
    model: Path | None,
    *,
    sampling: SamplingConfig,
    engine: EngineConfig | None = None,
    prompt: PromptConfig | None = None,
    series: str = "s",
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """``sampling.n`` attempts for each problem."""
    with run_lock(out), EngineLease(engine or TransformersEngine()) as lease:
        return sample.run(
            out,
            problems=open_problems(problems, out),
            model=asked_model(model, lease.config),
            lease=lease,
            prompt=Prompt(prompt or PromptConfig()),
            sampling=sampling,
            series=series,
            round=0,
            seed=seed,
            progress=progress or Silent(),
            clean=clean,
        )


def verified(
    out: Path,
    problems: Path,
    attempts: Path,
    *,
    lean: LeanConfig,
    certify: bool = True,
    prompt: PromptConfig | None = None,
    correct: CorrectConfig | None = None,
    cache: Path | None = None,
    require_sandbox: bool = False,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """A verdict on each attempt; proofs are certified, or only audited without ``certify``.

    Where ``correct`` has turns, verdicts tell what corrections by ``prompt`` show of them.
    """
    progress = progress or Silent()
    feedback = Prompt(prompt or PromptConfig()).wanted if correct and correct.turns else "messages"
    toolchain = open_lean(lean, require_sandbox=require_sandbox, say=progress.note)
    with (
        run_lock(out),
        open_cache(cache, progress.note) as known,
        LeanPool(toolchain, workers=lean.workers, cache=known) as pool,
    ):
        source = open_problems(problems, out)
        return verify.run(
            out,
            problems=source,
            attempts=open_attempts(source, attempts),
            pool=pool,
            limits=lean.limits(),
            series=out.name,
            progress=progress,
            certify=certify,
            feedback=feedback,
            clean=clean,
        )


def certified(
    out: Path,
    problems: Path,
    attempts: Path,
    verdicts: Path,
    *,
    lean: LeanConfig,
    cache: Path | None = None,
    checker: Checker | None = None,
    require_sandbox: bool = False,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """The verdicts with every proof certified, and put to ``checker``, or proved no longer."""
    progress = progress or Silent()
    toolchain = open_lean(lean, require_sandbox=require_sandbox, say=progress.note)
    with (
        run_lock(out),
        open_cache(cache, progress.note) as known,
        LeanPool(toolchain, workers=lean.workers, cache=known) as pool,
    ):
        source = open_problems(problems, out)
        return certify_stage.run(
            out,
            problems=source,
            judged=open_judged(source, attempts, verdicts),
            pool=pool,
            limits=lean.limits(),
            series=out.name,
            progress=progress,
            checker=checker,
            clean=clean,
        )


def corrected(
    out: Path,
    problems: Path,
    attempts: Path,
    verdicts: Path,
    model: Path | None,
    *,
    sampling: SamplingConfig,
    config: CorrectConfig,
    engine: EngineConfig | None = None,
    prompt: PromptConfig | None = None,
    series: str = "s",
    turn: int = 1,
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """A corrected attempt for failures of each unsolved problem, prompted with Lean's messages."""
    with run_lock(out), EngineLease(engine or TransformersEngine()) as lease:
        source = open_problems(problems, out)
        return correct_stage.run(
            out,
            problems=source,
            failed=[open_judged(source, attempts, verdicts)],
            model=asked_model(model, lease.config),
            lease=lease,
            prompt=Prompt(prompt or PromptConfig()),
            sampling=sampling,
            config=config,
            series=series,
            round=0,
            turn=turn,
            seed=seed,
            progress=progress or Silent(),
            clean=clean,
        )


def selected(
    out: Path,
    problems: Path,
    judged: Sequence[tuple[Path, Path]],
    *,
    config: SelectConfig,
    prompt: PromptConfig | None = None,
    fresh: int | None = None,
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Training examples from the proved ones among ``judged``, pairs of attempts and verdicts; the last ``fresh`` pairs
    (None: all) are this round's.

    Raises ConfigError where there are not as many, or where ``config.replay`` needs to be told.
    """
    if fresh is not None and fresh > len(judged):
        raise ConfigError(f"--fresh {fresh} but {len(judged)} --attempts; it says how many of these are new")
    if config.replay is not None and fresh is None and len(judged) > 1:
        raise ConfigError("select.replay is set; say with --fresh how many of the last --attempts are new")
    with run_lock(out):
        source = open_problems(problems, out)
        return select.run(
            out,
            problems=source,
            judged=[open_judged(source, attempts, verdicts) for attempts, verdicts in judged],
            prompt=Prompt(prompt or PromptConfig()),
            config=config,
            seed=seed,
            fresh=fresh,
            series=out.name,
            progress=progress,
            clean=clean,
        )


def tuned(
    out: Path,
    examples: Path,
    base: Path,
    *,
    config: SftConfig,
    launch: LaunchChoice | None = None,
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Model:
    """``base`` fine-tuned on the examples, in ``out/model``."""
    with run_lock(out):
        source = open_artifact(examples)
        if "examples" not in read_manifest(examples).counts:
            raise ArtifactError(f"{examples}: holds no training examples; give the folder that `prover select` wrote")
        return sft.run(
            out,
            base=open_model(base),
            examples=[source],
            config=config,
            launch=launch or SingleLaunch(),
            series=out.name,
            seed=seed,
            progress=progress or Silent(),
            clean=clean,
        )


def averaged(
    out: Path,
    parts: Sequence[tuple[Path, float]],
    *,
    base: Path | None = None,
    config: AverageConfig | None = None,
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Model:
    """One model made of several, in ``out/model``; weights are scaled to sum to 1.

    With ``base`` it is ``config.tuned_weight`` of the way from there; the task-vector methods need one.
    """
    with run_lock(out):
        return average.run(
            out,
            parts=open_parts(parts),
            base=open_model(base) if base else None,
            method=config,
            series=out.name,
            seed=seed,
            progress=progress,
            clean=clean,
        )


def open_parts(parts: Sequence[tuple[Path, float]]) -> list[tuple[Model, float]]:
    """Models with their weights, scaled to sum to 1."""
    total = sum(weight for _, weight in parts)
    return [(open_model(path), weight / total) for path, weight in parts]


def evaluated(
    out: Path,
    problems: Path,
    model: Path | None = None,
    *,
    portfolio: bool = False,
    ks: Sequence[int],
    sampling: SamplingConfig,
    lean: LeanConfig,
    cache: Path | None = None,
    checker: Checker | None = None,
    require_sandbox: bool = False,
    engine: EngineConfig | None = None,
    prompt: PromptConfig | None = None,
    seed: int = 0,
    clean: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Scores in ``out/scores``, attempts and verdicts beside. ``portfolio`` evaluates the fixed tactic list. With
    ``checker`` every proof is put to it too: verdicts with its opinion are in ``out/checked``."""
    progress = progress or Silent()
    toolchain = open_lean(lean, require_sandbox=require_sandbox, say=progress.note)
    with (
        run_lock(out),
        open_cache(cache, progress.note) as known,
        LeanPool(toolchain, workers=lean.workers, cache=known) as pool,
        EngineLease(engine or TransformersEngine()) as lease,
    ):
        source = open_problems(problems, out)

        asked = Prompt(prompt or PromptConfig())
        ground = Ground(source, pool, lease, lean.limits(), asked, seed, progress, checker, clean)
        if not portfolio:
            return ground.evaluate(out, asked_model(model, lease.config), sampling=sampling, ks=ks)
        attempts = cold.tactic_attempts(
            out / layout.ATTEMPTS,
            problems=source,
            tactics=PORTFOLIO,
            share=1.0,
            prompt=asked,
            series="portfolio",
            seed=0,
            clean=clean,
        )
        verdicts = ground.judge(out / layout.VERDICTS, out.name, attempts, until_proved=True)
        return ground.score(out, [(attempts, verdicts)], ks=ks, ordered=True)
