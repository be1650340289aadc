"""What another kernel thinks of a proof that Lean's own has certified.

Lean's kernel is one program, and it has had bugs. An external checker is another one, by other people, that reads a
theorem with all that it rests on from a file (``Closure.lean`` writes it, in lean4export's format). Known here:
``nanoda`` (:mod:`lean_env.nanoda`).

How a proof is put to it: a Lean process of its own, which only ever certifies, judges the proof once more from the text
that certification had, compares it with a reference that it elaborated itself, and writes the closure. So what the
checker reads states what the problem states; that comparison is ours, not the checker's. The checker then types every
declaration in the file. It may assume the three standard axioms and, with the embedded Lean, whose files hold no
proofs, the library's theorems: these are written as axioms, by name, and no other axiom passes. There the second kernel
vouches for the candidate's declarations and for the library's definitions, not for the library's proofs. A native
Lean's closure is whole.

What comes of it: where the checker agrees, the verdict names it (``Verdict.checkers``). Where it refuses, the verdict
is ``failed``, a disagreement. Where it has no opinion (it takes too long or too much memory, crashes, or declines the
file), the verdict stays as it was, without its name; that is counted and told, and a later run asks again. A checker
that answers known questions wrongly, or cannot be started, is a :class:`CheckerError` before anything is checked.
"""

import contextlib
import errno
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from lean_env import nanoda
from lean_env.answers import CERTIFICATION
from lean_env.certify import CertifyRequest
from lean_env.closure import Closure, NoOpinion, Refused, write_closure
from lean_env.errors import CheckerError, WorkerError
from lean_env.program import Ended, Running, run
from lean_env.protocol import Limits, Verdict
from lean_env.slot import Running as RunningLean
from lean_env.slot import Startable
from lean_env.worker import WorkerLost

CHECKERS = ("nanoda",)
LIMITS = Limits(cpu_seconds=1_800.0, wall_seconds=3_600.0, memory_mb=16_000)
"""What a checker may use for one proof. A closure in Mathlib holds tens of thousands of declarations."""
AXIOMS = ("propext", "Classical.choice", "Quot.sound")
RETIRE_MB = 1_800
"""The Lean process that writes closures is replaced beyond so much resident memory."""


class Checker(msgspec.Struct, frozen=True):
    """An external checker: which, its version as it says itself, and its executable."""

    name: str
    version: str
    path: Path

    @property
    def label(self) -> str:
        """As :attr:`Verdict.checkers` and fingerprints have it."""
        return f"{self.name} {self.version}"


def find(wanted: str) -> Checker:
    """The checker that ``NAME`` or ``NAME=PATH`` means. Raises CheckerError where there is none."""
    name, _, place = wanted.partition("=")
    if name not in CHECKERS:
        raise CheckerError(f"--checker: {name!r} is not known; known: {', '.join(CHECKERS)} (or NAME=PATH)")
    found = shutil.which(place or nanoda.EXECUTABLE)
    if found is None:
        where = f"{place} is no executable file" if place else f"no {nanoda.EXECUTABLE} on the PATH"
        raise CheckerError(f"--checker {name}: {where}; build it (docs/soundness.md) or give --checker {name}=PATH")
    path = Path(found).absolute()
    ended = run([str(path), "--help"], LIMITS)
    version = nanoda.version(ended)
    if not version:
        said = nanoda.words(ended)
        raise CheckerError(f"--checker {name}: {path} --help does not say which version it is ({said})")
    return Checker(name, version, path)


def prove(checker: Checker) -> None:
    """Asks the checker questions with known answers. Raises CheckerError where one is answered wrongly."""
    with External(checker, None):
        pass


class External:
    """A checker at work beside a pool: a context manager that owns the Lean process which writes closures, the
    checker's processes, and the folder of their files. :meth:`opinion` is what :meth:`LeanPool.check` takes; it may be
    called from several threads, and :meth:`close` from any.

    On entry it asks the checker questions with known answers. Raises CheckerError where one is answered wrongly.
    """

    def __init__(self, checker: Checker, toolchain: Startable | None, *, limits: Limits = LIMITS) -> None:
        """Without ``toolchain`` it can do no more than answer those questions."""
        self.checker = checker
        self._toolchain = toolchain
        self._limits = limits
        self._worker: RunningLean | None = None
        self._writing = threading.Lock()
        """Held by whoever uses the worker."""
        self._running = Running()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._count = 0
        self.agreed = 0
        self.refused = 0
        self.without: list[str] = []
        """Why there was no opinion, for each proof that the checker has none of."""

    def __enter__(self) -> "External":
        self._folder = tempfile.TemporaryDirectory(prefix="prover-checker-")
        try:
            self._ask_known()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what runs; whoever waits for an opinion gets a WorkerError. Safe to call again."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.kill()
        self._running.end_all()
        with self._writing:
            if self._worker is not None:
                self._worker.close()
                self._worker = None
        if self._folder is not None:
            self._folder.cleanup()

    def opinion(self, request: CertifyRequest, limits: Limits, verdict: Verdict) -> Verdict:
        """The certified verdict with the checker's name, or ``failed``, or as it was where the checker has no opinion.

        Raises CheckerError where the checker turns out not to work, and WorkerError once closed.
        """
        name = self.checker.name
        try:
            with self._file("export.ndjson") as path:
                closure = self._write(request, limits, path)
                ended = self._check(path, (*AXIOMS, *closure.assumed))
        except NoOpinion as why:
            with self._lock:
                self.without.append(str(why))
            return verdict
        except Refused as why:
            return Verdict(verdict.attempt_id, "failed", f"{CERTIFICATION}{why}", toolchain=verdict.toolchain)
        if ended.code == 0:
            with self._lock:
                self.agreed += 1
            return msgspec.structs.replace(verdict, checkers=(*verdict.checkers, self.checker.label))
        self._ask_known()  # that it refuses must not come from a disk or an installation that has gone bad meanwhile
        with self._lock:
            self.refused += 1
        return Verdict(
            verdict.attempt_id, "failed", f"{CERTIFICATION}{name}: {nanoda.words(ended)}", toolchain=verdict.toolchain
        )

    def _write(self, request: CertifyRequest, limits: Limits, path: Path) -> Closure:
        """On a second worker if the first one is lost."""
        losses: list[WorkerLost] = []
        while len(losses) < 2:
            with self._writing:  # until a lost worker is gone too: it is nobody else's loss
                try:
                    with self._errors_of_disk(path), path.open("wb") as file:
                        closure = write_closure(self._ready(), request, limits, file)
                    self._retire(RETIRE_MB)
                    return closure
                except WorkerLost as loss:
                    self._raise_if_closed()
                    self._retire(0)
                    losses.append(loss)
        raise NoOpinion(f"Lean cannot write its closure: {losses[-1]}")

    def _ready(self) -> RunningLean:
        self._raise_if_closed()
        if self._worker is None:
            assert self._toolchain is not None
            self._worker = self._toolchain.launch().start()
            if self._closed:
                self._worker.kill()  # closed before it could see this worker
            self._worker.wait_ready()
        return self._worker

    def _retire(self, beyond_mb: int) -> None:
        if self._worker is not None and self._worker.usage().memory_mb >= beyond_mb:
            self._worker.close()
            self._worker = None

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise WorkerError("the external checker was closed")

    def _check(self, export: Path, permitted: Sequence[str]) -> Ended:
        """How the checker ends with an export, if by accepting (code 0) or by refusing it."""
        with self._file("config.json") as config:
            with self._errors_of_disk(config):
                config.write_text(json.dumps(nanoda.config(export, permitted)), encoding="ascii")
            self._raise_if_closed()
            ended = run([str(self.checker.path), str(config)], self._limits, self._running)
        self._raise_if_closed()
        name = self.checker.name
        if ended.end != "exit":
            raise NoOpinion(f"{name} passed its limit on {'memory' if ended.end == 'memory' else 'time'}")
        if ended.code not in (0, *nanoda.REFUSALS):
            raise NoOpinion(
                f"{name} {'declined' if ended.code == nanoda.DECLINED else 'crashed'} ({nanoda.words(ended)})"
            )
        return ended

    def _ask_known(self) -> None:
        for what, text, accepted in nanoda.KNOWN:
            with self._file("known.ndjson") as path:
                with self._errors_of_disk(path):
                    path.write_text(text, encoding="ascii")
                try:
                    ended = self._check(path, AXIOMS)
                except NoOpinion as why:
                    raise CheckerError(f"--checker: {self.checker.path} fails on {what}: {why}") from why
            if (ended.code == 0) != accepted:
                does = "refuses" if accepted else "accepts"
                raise CheckerError(
                    f"--checker: {self.checker.path} {does} {what} ({nanoda.words(ended)}); do not rely on it"
                )

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        self._raise_if_closed()
        assert self._folder is not None
        with self._lock:
            self._count += 1
            path = Path(self._folder.name) / f"{self._count}-{name}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors_of_disk(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._raise_if_closed()  # the folder may be gone
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise
            raise CheckerError(
                f"cannot write what the checker reads to {path.parent} ({error.strerror}); set TMPDIR to another folder"
            ) from error


@contextlib.contextmanager
def opened(checker: Checker | None, toolchain: Startable) -> Iterator[External | None]:
    """The checker at work, or None without one."""
    if checker is None:
        yield None
        return
    with External(checker, toolchain) as external:
        yield external
