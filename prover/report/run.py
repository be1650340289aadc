"""What a run directory holds, done and owed: the figures behind the tables."""

import re
from pathlib import Path

import msgspec

from prover import layout
from prover.artifacts import Manifest, read_manifest
from prover.config import IterateConfig
from prover.config_file import open_run

_PASS = re.compile(r"(beyond_)?pass@(\d+|all)")


class Share(msgspec.Struct, frozen=True):
    """Percent of problems, with its 95 % interval."""

    value: float
    low: float
    high: float


class Score(msgspec.Struct, frozen=True):
    """One model on one evaluation set. ``passed`` and ``beyond`` are keyed by k; ``beyond`` is over those
    problems only that the fixed tactic list does not solve."""

    model: str
    path: str
    finished: bool
    n: int = 0
    """Attempts for each problem, their mean where ``stops``."""
    stops: bool = False
    """Whether a problem was left once it was proved often enough, as the tactic list does at the first proof."""
    passed: dict[str, Share] = {}
    beyond: dict[str, Share] = {}
    solved: int = 0
    distinct_proofs: int = 0
    level: str = ""
    """How far its proofs were looked into: ``certified`` if all were, else ``audited``."""


class SetTable(msgspec.Struct, frozen=True):
    """An evaluation set; ``beyond_problems`` is None where the tactic list was not run."""

    name: str
    problems: int
    beyond_problems: int | None
    scores: tuple[Score, ...]


class Round(msgspec.Struct, frozen=True):
    """What a round produced from the training problems. ``seconds`` by stage; sampling and checking overlap.

    ``attempts``, ``judged`` and ``proved`` count all waves of the round. Where there are several, the unsolved have
    more attempts than the solved, and ``proved / attempts`` says nothing of the model: ``first_proved`` of
    ``first_judged`` does, of the first wave alone, in which all problems have as many.
    """

    round: int
    attempts: int = 0
    judged: int = 0
    proved: int = 0
    waves: int = 1
    first_judged: int = 0
    first_proved: int = 0
    corrections: int = 0
    corrections_proved: int = 0
    examples: int = 0
    new: int = 0
    """Proofs among the examples that no earlier round has found."""
    solved: int = 0
    """Training problems with at least one proof, this round and earlier."""
    eval_loss: float | None = None
    """Of the tuned model on the examples of held-out problems, nats a token."""
    seconds: dict[str, float] = {}


class Averages(msgspec.Struct, frozen=True):
    """What a round's averages reached on the validation set, by ``tuned_weight``, the ``model`` of ``scores``; the
    round goes on with ``chosen``."""

    round: int
    chosen: float | None
    scores: tuple[Score, ...]


class Owed(msgspec.Struct, frozen=True):
    """A stage that is not finished, with the shards it has written so far."""

    stage: str
    shards: int


class RunReport(msgspec.Struct, frozen=True):
    run: str
    seed: int
    training_problems: int
    rounds: tuple[Round, ...]
    sets: tuple[SetTable, ...]
    done: tuple[str, ...]
    owed: tuple[Owed, ...]
    validation_problems: int = 0
    averages: tuple[Averages, ...] = ()


def read_run(run: Path) -> RunReport:
    """Everything that the tables show, from manifests alone."""
    config = open_run(run)
    expected = layout.stages(config)
    made = {stage: manifest for stage in expected if (manifest := _manifest(run / stage)) is not None}
    return RunReport(
        run=str(run),
        seed=config.seed,
        training_problems=_count(made.get(layout.problems(layout.TRAIN)), "problems"),
        rounds=tuple(_round(number, config, made) for number in range(config.rounds + 1)),
        sets=tuple(_set(name, config, made) for name in config.evaluate_on),
        done=tuple(made),
        owed=tuple(Owed(s, sum(1 for _ in (run / s).glob("*.jsonl"))) for s in expected if s not in made),
        validation_problems=_count(made.get(layout.problems(layout.VALIDATE)), "problems"),
        averages=tuple(_averages(number, config, made) for number in _swept(config)),
    )


def read_score(model: str, path: Path) -> Score:
    """The figures of one scores artifact."""
    return _score(model, str(path), read_manifest(path))


def _manifest(path: Path) -> Manifest | None:
    return read_manifest(path) if (path / "artifact.json").exists() else None


def _count(manifest: Manifest | None, *names: str) -> int:
    """The first of the named counts that the manifest has."""
    return next((int(manifest.counts[name]) for name in names if manifest and name in manifest.counts), 0)


def _round(number: int, config: IterateConfig, made: dict[str, Manifest]) -> Round:
    folder = layout.round_folder(number) + "/"
    mine = {stage.removeprefix(folder): manifest for stage, manifest in made.items() if stage.startswith(folder)}
    seconds: dict[str, float] = {}
    for stage, manifest in mine.items():
        kind = stage.split("/")[0].partition("_")[0] if not stage.startswith("cold") else stage.removeprefix("cold_")
        kind = {"attempts": "sample", "verdicts": "verify"}.get(kind, kind)
        seconds[kind] = round(seconds.get(kind, 0.0) + _part_seconds(stage, manifest), 3)
    waves = layout.training_waves(config) if number else range(1)
    tried = [layout.sampled(number, wave) if number else layout.cold() for wave in waves]
    turns = [layout.corrected(number, turn) for turn in range(1, config.correct.turns + 1)]
    return Round(
        round=number,
        attempts=sum(_count(made.get(wave.attempts), "attempts") for wave in tried),
        judged=sum(_count(made.get(wave.verdicts), "verdicts") for wave in tried),
        proved=sum(_count(made.get(wave.verdicts), "proved") for wave in tried),
        waves=len(tried),
        first_judged=_count(made.get(tried[0].verdicts), "verdicts"),
        first_proved=_count(made.get(tried[0].verdicts), "proved"),
        corrections=sum(_count(made.get(turn.attempts), "attempts") for turn in turns),
        corrections_proved=sum(_count(made.get(turn.verdicts), "proved") for turn in turns),
        examples=_count(made.get(layout.select(number)), "examples"),
        new=_count(made.get(layout.select(number)), "new"),
        solved=_count(made.get(layout.select(number)), "solved", "problems"),
        eval_loss=tuned.counts.get("eval_loss") if (tuned := made.get(layout.sft(number))) else None,
        seconds=seconds,
    )


def _part_seconds(stage: str, manifest: Manifest) -> float:
    """Sampling and checking of an evaluation run side by side: the checking ends last, so that it alone counts. A
    sweep is no more than its parts."""
    sampling = "/" in stage and stage.rpartition("/")[2].startswith(layout.ATTEMPTS)
    return 0.0 if sampling or manifest.stage == "sweep" else manifest.seconds


def _set(name: str, config: IterateConfig, made: dict[str, Manifest]) -> SetTable:
    places = {f"round {number}": layout.scores(layout.evaluated(number, name)) for number in range(config.rounds + 1)}
    if config.evaluate.control_n:
        places["control"] = layout.scores(layout.control(name))
    if config.evaluate.portfolio:
        places["tactic list"] = layout.scores(layout.portfolio(name))
    scores = [_score(model, place, made.get(place)) for model, place in places.items()]
    baseline = made.get(layout.scores(layout.portfolio(name)))
    unsolved = None
    if baseline is not None:
        unsolved = _count(baseline, "problems") - _count(baseline, "solved")
    return SetTable(
        name=name,
        problems=_count(made.get(layout.problems(name)), "problems"),
        beyond_problems=unsolved,
        scores=tuple(scores),
    )


def _swept(config: IterateConfig) -> range:
    """Rounds that choose among averages."""
    return range(1, config.rounds + 1 if config.average and config.average.sweep else 1)


def _averages(number: int, config: IterateConfig, made: dict[str, Manifest]) -> Averages:
    place = layout.average(number)
    weights = sorted(config.average.sweep) if config.average else []
    folders = {f"{weight:g}": layout.scores(layout.weighed(place, weight)) for weight in weights}
    chosen = made[place].counts["tuned_weight"] if place in made else None
    return Averages(number, chosen, tuple(_score(name, folder, made.get(folder)) for name, folder in folders.items()))


def _level(manifest: Manifest) -> str:
    """What holds for every proof: how far it was looked into, and which external checkers agreed."""
    proved, certified = manifest.counts.get("proved_attempts"), manifest.counts.get("certified_attempts")
    if certified is None or certified != proved:
        return "audited"
    agreed = [name.removeprefix(layout.AGREED) for name in manifest.counts if name.startswith(layout.AGREED)]
    every = [name for name in sorted(agreed) if manifest.counts[layout.AGREED + name] == proved]
    return ", ".join(["certified", *every])


def _score(model: str, path: str, manifest: Manifest | None) -> Score:
    if manifest is None:
        return Score(model=model, path=path, finished=False)
    passed: dict[str, Share] = {}
    beyond: dict[str, Share] = {}
    for key, value in manifest.counts.items():
        if found := _PASS.fullmatch(key):
            share = Share(value, manifest.counts[f"{key}_low"], manifest.counts[f"{key}_high"])
            (beyond if found[1] else passed)[found[2]] = share
    problems = _count(manifest, "problems")
    return Score(
        model=model,
        path=path,
        finished=True,
        n=round(_count(manifest, "attempts") / problems) if problems else 0,
        stops="all" in passed or "enough" in manifest.counts,
        passed=passed,
        beyond=beyond,
        solved=_count(manifest, "solved"),
        distinct_proofs=_count(manifest, "distinct_proofs"),
        level=_level(manifest),
    )
