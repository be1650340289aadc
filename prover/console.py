"""What the user sees while stages work: a live display on a terminal, plain lines elsewhere. Both write to stderr."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from prover.progress import Meter, Progress

PLAIN_SECONDS = 10.0
"""Between two plain lines of one stage."""
WINDOW = 30.0
"""Seconds over which the shown rates are taken."""
WIDE = 100
"""Columns from which the live display has room for a bar and the elapsed time."""


@contextmanager
def open_progress(stream: TextIO | None = None, *, plain_seconds: float = PLAIN_SECONDS) -> Iterator[Progress]:
    """The display that fits ``stream`` (stderr by default)."""
    console = Console(file=stream or sys.stderr, highlight=False)
    if not console.is_terminal:
        yield PlainProgress(console, plain_seconds)
        return
    with LiveProgress(console) as live:
        yield live


@contextmanager
def show_steps(stream: TextIO | None = None) -> Iterator[Callable[[str, float | None], None]]:
    """A display for work in named steps: call it with the step and how far it is (0 to 1; None where unknown)."""
    console = Console(file=stream or sys.stderr, highlight=False)
    if not console.is_terminal:
        said: set[str] = set()

        def say(step: str, fraction: float | None) -> None:
            if step not in said:
                said.add(step)
                console.print(step, markup=False, soft_wrap=True)

        yield say
        return
    bar = BarColumn(bar_width=30)
    with RichProgress(
        TextColumn("{task.description}"), bar, TimeElapsedColumn(), console=console, transient=True
    ) as rich:
        task = rich.add_task("", total=None)
        steps: list[str] = []

        def show(step: str, fraction: float | None) -> None:
            if steps[-1:] != [step]:
                if steps:
                    console.print(Text.assemble(("✓ ", "green"), steps[-1]))
                steps.append(step)
                rich.reset(task, total=None, description=step)
            if fraction is not None:
                rich.update(task, total=1.0, completed=fraction)

        yield show
        if steps:
            console.print(Text.assemble(("✓ ", "green"), steps[-1]))


class Counts:
    """What one stage has counted. Lock-protected: several threads add to it."""

    def __init__(self, total: int, unit: str) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self.attempts = 0
        self.proved = 0
        self.checks = 0
        self.tokens = 0
        self.shown = ""
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._past: deque[tuple[float, int, int, int]] = deque([(self.started, 0, 0, 0)])

    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        with self._lock:
            self.done += done + steps
            self.attempts += attempts
            self.proved += proved
            self.checks += checks
            self.tokens += tokens

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds to go at the pace so far; None while too little is done to tell."""
        if self.done < max(1, self.total / 50) or self.done >= self.total:
            return None
        return self.elapsed * (self.total - self.done) / self.done

    def place(self) -> str:
        return f"{self.done:,}/{self.total:,} {self.unit}" if self.total else f"{self.done:,} {self.unit}"

    def rates(self) -> list[str]:
        """The pace of the last ``WINDOW`` seconds, and what was proved in all."""
        now = (time.monotonic(), self.attempts, self.checks, self.tokens)
        with self._lock:
            if now[0] - self._past[-1][0] >= 1:
                self._past.append(now)
            while len(self._past) > 1 and now[0] - self._past[0][0] > WINDOW:
                self._past.popleft()
            then = self._past[0]
        return self._paces([count - before for count, before in zip(now, then, strict=True)])

    def _paces(self, spans: Sequence[float]) -> list[str]:
        seconds, totals = max(spans[0], 1e-3), (self.attempts, self.checks, self.tokens)
        named = zip(("attempts", "checks", "tokens"), totals, spans[1:], strict=True)
        said = [f"{short(count / seconds)} {name}/s" for name, total, count in named if total]
        said += [f"{self.proved:,} proved"] if self.checks else []
        return [*said, self.shown] if self.shown else said

    def summary(self) -> str:
        """What a finished stage leaves on the screen, with its pace over the whole time."""
        totals = [f"{self.attempts:,} attempts"] if self.attempts else []
        totals += [f"{self.checks:,} checks"] if self.checks else []
        paces = self._paces([self.elapsed, self.attempts, self.checks, self.tokens])
        return ", ".join([f"{self.done:,} {self.unit}", *totals, *paces, duration(self.elapsed)])


class PlainProgress:
    """Lines for logs and pipes: where a stage begins, every few seconds, and where it ends."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Meter]:
        self.note(f"{name}: {total:,} {unit}" if total else f"{name}: begins")
        meter = _PlainMeter(self, name, Counts(total, unit), self._seconds)
        yield meter
        self.note(f"{name}: done, {meter.counts.summary()}")

    def note(self, text: str) -> None:
        with self._lock:
            self._console.print(text, markup=False, soft_wrap=True)


class _PlainMeter:
    def __init__(self, progress: PlainProgress, name: str, counts: Counts, seconds: float) -> None:
        self.counts = counts
        self._progress = progress
        self._name = name
        self._seconds = seconds
        self._next = counts.started + seconds

    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        self.counts.add(done, attempts=attempts, proved=proved, checks=checks, tokens=tokens, steps=steps)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            left = self.counts.left
            parts = [self.counts.place(), *self.counts.rates()] + ([f"{duration(left)} left"] if left else [])
            self._progress.note(f"{self._name}: {', '.join(parts)}")

    def expect(self, total: int) -> None:
        self.counts.total = total

    def show(self, text: str) -> None:
        self.counts.shown = text


class LiveProgress:
    """A row for each stage at work; finished ones shrink to a line above. A context manager that owns the terminal."""

    def __init__(self, console: Console) -> None:
        wide = console.width >= WIDE
        self._console = console
        self._rich = RichProgress(
            TextColumn("[cyan]{task.description}"),
            *([BarColumn(bar_width=20)] if wide else []),
            _CountsColumn(lambda counts: counts.place()),
            _CountsColumn(lambda counts: "  ".join(counts.rates()), style="green"),
            *([_CountsColumn(lambda counts: duration(counts.elapsed), style="dim")] if wide else []),
            _CountsColumn(lambda counts: f"{duration(counts.left)} left" if counts.left else "", style="dim"),
            console=console,
            refresh_per_second=3,
            transient=True,
        )

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Meter]:
        counts = Counts(total, unit)
        task = self._rich.add_task(name, total=max(total, 1), counts=counts)
        try:
            yield _LiveMeter(self._rich, task, counts)
            self._console.print(Text.assemble(("✓ ", "green"), (name, "cyan"), ("  " + counts.summary(), "default")))
        finally:
            self._rich.remove_task(task)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def refresh(self) -> None:
        """Draw now rather than at the next tick."""
        self._rich.refresh()

    def __enter__(self) -> "LiveProgress":
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()


class _LiveMeter:
    def __init__(self, rich: RichProgress, task: TaskID, counts: Counts) -> None:
        self._rich = rich
        self._task = task
        self._counts = counts

    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        self._counts.add(done, attempts=attempts, proved=proved, checks=checks, tokens=tokens, steps=steps)
        if done or steps:
            self._rich.update(self._task, completed=self._counts.done)

    def expect(self, total: int) -> None:
        self._counts.total = total
        self._rich.update(self._task, total=max(total, 1))

    def show(self, text: str) -> None:
        self._counts.shown = text


class _CountsColumn(ProgressColumn):
    """A column made from the stage's counts."""

    def __init__(self, say: Callable[[Counts], str], style: str = "default") -> None:
        super().__init__()
        self._say = say
        self._style = style

    def render(self, task: Task) -> Text:
        return Text(self._say(task.fields["counts"]), style=self._style, no_wrap=True)


def short(value: float) -> str:
    """A rate in few characters: 0.42, 7.3, 95, 4.2k."""
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    if value >= 1_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """0.4 s, 12 s, 3m05s, 1h02m."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
