"""Where the loop puts what in a run directory: folder names relative to it. The loop and the reports share them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from prover.allocation import evaluation_plan, training_plan
from prover.config import ColdTactics, InitModel, IterateConfig

TRAIN = "train"
"""Name of the set that is learned from, beside those for evaluation."""
VALIDATE = "validate_on"
"""Name of the set that averages are chosen on."""
VERDICT_CACHE = ".verdicts.sqlite"
"""A run's own, where no other is given. Nothing depends on it: it can be deleted at any time."""
ATTEMPTS, VERDICTS, SCORES = "attempts", "verdicts", "scores"
"""What an evaluation's folder holds."""
AVERAGE = "average"
"""Beside them, the average that was evaluated, where several are tried."""
CHECKED = "checked"
"""There too, where another kernel was asked: the verdicts with its opinion."""
AGREED = "agreed "
"""Begins the name of the count, among the scores, of proofs that an external checker agreed to."""


class Trial(msgspec.Struct, frozen=True):
    """Attempts, and the verdicts on them."""

    attempts: str
    verdicts: str

    def under(self, folder: Path) -> tuple[Path, Path]:
        return folder / self.attempts, folder / self.verdicts


def problems(name: str) -> str:
    return f"problems/{name}"


def round_folder(number: int) -> str:
    return f"round_{number:02d}"


def cold() -> Trial:
    return Trial(f"{round_folder(0)}/cold_attempts", f"{round_folder(0)}/cold_verdicts")


def sampled(number: int, wave: int = 0) -> Trial:
    folder = round_folder(number)
    return Trial(wave_of(f"{folder}/sample", wave), wave_of(f"{folder}/verify", wave))


def wave_of(folder: str, wave: int) -> str:
    """The folder of a wave beside that of the first."""
    return f"{folder}_wave{wave}" if wave else folder


def corrected(number: int, turn: int) -> Trial:
    folder = round_folder(number)
    return Trial(f"{folder}/correct_{turn}", f"{folder}/verify_{turn}")


def select(number: int) -> str:
    return f"{round_folder(number)}/select"


def syntax() -> str:
    return f"{round_folder(0)}/syntax"


def init() -> str:
    return f"{round_folder(0)}/init"


def sft(number: int) -> str:
    return f"{round_folder(number)}/sft"


def pairs(number: int) -> str:
    return f"{round_folder(number)}/pairs"


def dpo(number: int) -> str:
    return f"{round_folder(number)}/dpo"


def average(number: int) -> str:
    return f"{round_folder(number)}/average"


def weighed(average: str, weight: float) -> str:
    """Folder of one weight's average and evaluation, where several are tried."""
    return f"{average}/weight_{weight:g}"


def portfolio(name: str) -> str:
    """Folder of the tactic list's evaluation on a set."""
    return f"portfolio/{name}"


def evaluated(number: int, name: str) -> str:
    """Folder of a round's evaluation on a set."""
    return f"{round_folder(number)}/evaluate/{name}"


def control(name: str) -> str:
    """Folder of the control's evaluation on a set."""
    return f"control/{name}"


def trial(evaluation: str, wave: int = 0) -> Trial:
    inside = within(wave)
    return Trial(f"{evaluation}/{inside.attempts}", f"{evaluation}/{inside.verdicts}")


def within(wave: int) -> Trial:
    """A wave of an evaluation, relative to the evaluation's folder."""
    return Trial(wave_of(ATTEMPTS, wave), wave_of(VERDICTS, wave))


def training_waves(config: IterateConfig) -> range:
    """The waves that each round samples in."""
    return range(training_plan(config.sampling).waves)


def evaluation_waves(config: IterateConfig, n: int | None = None) -> range:
    """The waves of an evaluation with ``n`` attempts, ``evaluate.n`` where it is None."""
    return range(evaluation_plan(config.evaluation_sampling(n)).waves)


def scores(evaluation: str) -> str:
    return f"{evaluation}/{SCORES}"


def stages(config: IterateConfig) -> list[str]:
    """Every leaf folder that the loop writes, in its order."""
    return list(_stages(config))


def _stages(config: IterateConfig) -> Iterator[str]:
    names = list(config.evaluate_on)
    yield from (problems(name) for name in (TRAIN, *names))
    sweep = config.average.sweep if config.average else ()
    if sweep:
        yield problems(VALIDATE)
    if config.evaluate.portfolio:
        for name in names:
            yield from _evaluation(portfolio(name), range(1))
    if isinstance(config.cold, ColdTactics):
        yield from _both(cold())
    if config.cold is not None:
        yield select(0)
    if isinstance(config.cold, ColdTactics) and config.cold.syntax:
        yield syntax()
    if isinstance(config.model, InitModel):
        yield init()
    if config.cold is not None:
        yield sft(0)
    for name in names:
        yield from _evaluation(evaluated(0, name), evaluation_waves(config))
    for number in range(1, config.rounds + 1):
        for wave in training_waves(config):
            yield from _both(sampled(number, wave))
        for turn in range(1, config.correct.turns + 1):
            yield from _both(corrected(number, turn))
        yield select(number)
        yield sft(number)
        if config.dpo:
            yield pairs(number)
            yield dpo(number)
        for place in (weighed(average(number), weight) for weight in sorted(sweep)):
            yield f"{place}/{AVERAGE}"
            yield from _evaluation(place, evaluation_waves(config))
        if config.average:
            yield average(number)
        for name in names:
            yield from _evaluation(evaluated(number, name), evaluation_waves(config))
    if config.evaluate.control_n:
        for name in names:
            yield from _evaluation(control(name), evaluation_waves(config, config.evaluate.control_n))


def _both(trial: Trial) -> tuple[str, str]:
    return trial.attempts, trial.verdicts


def _evaluation(folder: str, waves: range) -> Iterator[str]:
    for wave in waves:
        yield from _both(trial(folder, wave))
    yield scores(folder)
