"""What stages say while they work. The terminal's live display and the plain lines both implement this protocol."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Meter(Protocol):
    """Progress of one stage. Safe to call from several threads."""

    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        """Count what has happened since the last call; ``done`` is in the stage's own unit."""
        ...

    def expect(self, total: int) -> None:
        """Say anew how many units there are, for stages that learn it on the way."""
        ...

    def show(self, text: str) -> None:
        """A few words beside the rates, such as a loss; the next ones take their place."""
        ...


class Progress(Protocol):
    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Meter]:
        """Open a display line for a stage of ``total`` units (problems, steps, ...), 0 where that is not known yet.
        Stages may overlap."""
        ...

    def note(self, text: str) -> None:
        """Say one line that stays on the screen."""
        ...


class SilentMeter:
    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        return None

    def expect(self, total: int) -> None:
        return None

    def show(self, text: str) -> None:
        return None


class Silent:
    """Says nothing: for notebooks and tests."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Meter]:
        return nullcontext(SilentMeter())

    def note(self, text: str) -> None:
        return None
