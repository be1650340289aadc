"""The training curve: a JSON object a step beside the tuned model, the same file whether training was killed or not."""

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from prover.artifacts import disk_errors
from prover.errors import TrainingError
from prover.records import Record


class TrainingStep(Record, frozen=True):
    """What one optimizer step did."""

    step: int
    """From 1 on."""
    loss: float
    """Of its batch, before it: mean over the tokens that the loss covers, nats."""
    rate: float
    """Learning rate."""
    gradient_norm: float
    """Before clipping."""
    tokens: int
    """Put through the model, padding included."""
    eval_loss: float | None = None
    """Of the held-out examples, after it; None where they were not evaluated."""
    accuracy: float | None = None
    """Of its pairs, before it: the share whose chosen answer has gained more on the base model than the rejected."""


class Best:
    """Which step had the lowest evaluation loss, and whether to stop looking for a lower one."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._loss = float("inf")
        self._since = 0
        self.step: int | None = None

    def add(self, step: int, loss: float) -> bool:
        """Count an evaluation. True where it is the best so far; of equal ones that is the first."""
        if loss < self._loss:
            self.step, self._loss, self._since = step, loss, 0
            return True
        self._since += 1
        return False

    @property
    def over(self) -> bool:
        """Whether ``patience`` evaluations in a row were no better than the best."""
        return self._patience is not None and self._since >= self._patience


class Curve:
    """The file of a training that goes on after ``start`` steps; what stands there of later steps is cut off.

    A context manager. All processes of a training open it and count the same; the one that ``writes`` writes. Raises
    TrainingError where the file lacks a step before ``start``.
    """

    def __init__(self, path: Path, start: int, best: Best, *, writes: bool) -> None:
        self._path = path
        self._start = start
        self._writes = writes
        self._file: BinaryIO | None = None
        self.best = best
        self.last: TrainingStep | None = None

    def __enter__(self) -> Self:
        lines = self._lines() if self._start else []
        for line in lines:
            self._count(msgspec.json.decode(line, type=TrainingStep))
        if self._writes:
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            with disk_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(b"".join(lines))
                temporary.replace(self._path)  # another process may be reading it
                self._file = self._path.open("ab", buffering=0)
        return self

    def add(self, step: TrainingStep) -> bool:
        """Append a step. True where it was evaluated with the lowest loss so far."""
        if self._file is not None:
            with disk_errors(self._path):
                self._file.write(msgspec.json.encode(step) + b"\n")
        return self._count(step)

    def flush(self) -> None:
        """Make it last through a power cut: a state on disk may never be ahead of it."""
        if self._file is not None:
            with disk_errors(self._path):
                os.fsync(self._file.fileno())

    def _count(self, step: TrainingStep) -> bool:
        self.last = step
        return step.eval_loss is not None and self.best.add(step.step, step.eval_loss)

    def _lines(self) -> list[bytes]:
        """Those of the first ``start`` steps."""
        try:
            with self._path.open("rb") as file:
                lines = [line for line, _ in zip(file, range(self._start))]
            steps = [msgspec.json.decode(line, type=TrainingStep).step for line in lines]
        except (OSError, msgspec.DecodeError) as error:
            raise TrainingError(f"{self._path}: {error}; {self._mend}") from error
        if steps != list(range(1, self._start + 1)) or not lines[-1].endswith(b"\n"):
            raise TrainingError(f"{self._path}: lacks steps before step {self._start}; {self._mend}")
        return lines

    @property
    def _mend(self) -> str:
        return f"delete {self._path.parent / 'work'} to train again from the beginning"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._file is not None:
            self._file.close()


def read_curve(path: Path) -> list[TrainingStep]:
    """The steps so far; a last line that is still being written is left out."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        return [msgspec.json.decode(line, type=TrainingStep) for line in lines if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise TrainingError(f"{path}: is no training curve ({error}); delete it") from error
