"""Problem sets that should have nothing in common: what is reported on is neither chosen on nor learned from."""

from collections.abc import Mapping

from prover.artifacts import Artifact
from prover.errors import ConfigError
from prover.found import statement_text
from prover.progress import Progress
from prover.records import Problem
from prover.seeds import derive_seed


def check_apart(train: Artifact, sets: Mapping[str, Artifact], validation: Artifact | None, progress: Progress) -> None:
    """Compare problems by their statements, under whatever name and header they stand.

    Raises ConfigError where a set that is reported has a problem of ``validation``. Training problems in either are
    noted: a tuned model knows them, so that figures are too good and large weights look better than they are.
    """
    reported = {name: _statements(problems) for name, problems in sets.items()}
    chosen_on = _statements(validation) if validation else {}
    for name, statements in reported.items():
        if shared := next((ident for key, ident in statements.items() if key in chosen_on), None):
            raise ConfigError(
                f"average.validate_on has {shared}, and so has evaluate_on.{name}, whose figures would be too good: "
                "choose on problems that nothing is reported on"
            )
    held = frozenset(chosen_on).union(*reported.values())
    learned = {key for problem in train.read(Problem) if (key := _key(problem)) in held} if held else set[int]()
    for name, statements in reported.items():
        if number := len(learned & statements.keys()):
            progress.note(
                f"{number:,} of the problems in evaluate_on.{name} are training problems: its figures are too good"
            )
    if number := len(learned & chosen_on.keys()):
        progress.note(
            f"{number:,} of the problems in average.validate_on are training problems: that favours large weights"
        )


def _statements(problems: Artifact) -> dict[int, str]:
    """Ids by statement."""
    return {_key(problem): problem.id for problem in problems.read(Problem)}


def _key(problem: Problem) -> int:
    return derive_seed(statement_text(problem)[1])
