"""Where the loop puts what in a run directory: folder names relative to it. The loop and the reports share them."""

from collections.abc import Iterable, Iterator

import msgspec

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


def problems(name: str) -> str:
    return f"problems/{name}"


def round_folder(number: int) -> str:
    return f"round_{number:02d}"


def cold() -> Trial:
    return Trial(f"{round_folder(0)}/cold_attempts", f"{round_folder(0)}/cold_verdicts")


def sampled(number: int) -> Trial:
    folder = round_folder(number)
    return Trial(f"{folder}/sample", f"{folder}/verify")


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


def trial(evaluation: str) -> Trial:
    return Trial(f"{evaluation}/{ATTEMPTS}", f"{evaluation}/{VERDICTS}")


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
        yield from _evaluation(portfolio(name) for name in names)
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
    yield from _evaluation(evaluated(0, name) for name in names)
    for number in range(1, config.rounds + 1):
        yield from _both(sampled(number))
        for turn in range(1, config.correct.turns + 1):
            yield from _both(corrected(number, turn))
        yield select(number)
        yield sft(number)
        if config.dpo:
            yield pairs(number)
            yield dpo(number)
        for place in (weighed(average(number), weight) for weight in sorted(sweep)):
            yield f"{place}/{AVERAGE}"
            yield from _evaluation([place])
        if config.average:
            yield average(number)
        yield from _evaluation(evaluated(number, name) for name in names)
    if config.evaluate.control_n:
        yield from _evaluation(control(name) for name in names)


def _both(trial: Trial) -> tuple[str, str]:
    return trial.attempts, trial.verdicts


def _evaluation(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        yield from (*_both(trial(folder)), scores(folder))
