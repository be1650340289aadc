"""A program of the user's own, run to its end under limits: it is trusted, but what it reads may be hard for it."""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import Literal

import msgspec

from lean_env import sandbox
from lean_env.protocol import Limits
from lean_env.worker import process_usage

End = Literal["exit", "timeout", "memory"]
_POLL_SECONDS = 0.05
_SAID_BYTES = 16_384
_STACK_BYTES = 1 << 30


class Ended(msgspec.Struct, frozen=True):
    """How a program ended: by itself with ``code`` (negative: by that signal), or killed at a limit. ``said`` is the
    tail of what it wrote."""

    end: End
    code: int
    said: str
    seconds: float


class Running:
    """Programs that run, for others to end. A process is in here only while nobody has reaped it, so that no other
    group can have its number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def add(self, process: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            self._processes.add(process)
            if self._ended:  # it was being started meanwhile
                _kill(process)

    def end(self, process: "subprocess.Popen[bytes]") -> None:
        """Kills what is left of the process's group, and forgets it."""
        with self._lock:
            self._processes.discard(process)
            _kill(process)

    def end_all(self) -> None:
        """Kills what runs, and whatever is added later."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                _kill(process)


def run(argv: list[str], limits: Limits, running: Running | None = None) -> Ended:
    """Runs a program in a process group of its own, with no environment and no input, under the limits on CPU time,
    wall time and resident memory. ``running`` knows its process meanwhile."""
    running = running or Running()
    start = time.monotonic()
    with subprocess.Popen(
        sandbox.limited(argv, {"STACK": (_STACK_BYTES, -1)}),
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        bufsize=0,
    ) as process:
        running.add(process)
        try:
            end, said = _watch(process, limits, start)
        finally:
            running.end(process)
    return Ended(end, process.returncode, said.decode("utf-8", "replace"), round(time.monotonic() - start, 3))


def _watch(process: "subprocess.Popen[bytes]", limits: Limits, start: float) -> tuple[End, bytes]:
    """Reads what the process writes until it ends, unreaped, or passes a limit."""
    assert process.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            ended = _has_ended(process)  # before reading, so that nothing it wrote is left behind
            more = bool(selector.select(0 if ended else _POLL_SECONDS)) if selector.get_map() else False
            if more:
                data = os.read(process.stdout.fileno(), 1 << 16)
                said += data
                del said[:-_SAID_BYTES]
                if not data:
                    selector.unregister(process.stdout)
            elif ended:  # and whoever else holds its output is none of ours
                return "exit", bytes(said)
            elif not selector.get_map():
                time.sleep(_POLL_SECONDS)
            used = process_usage(process.pid)
            if used.memory_mb > limits.memory_mb:
                return "memory", bytes(said)
            if used.cpu_seconds > limits.cpu_seconds or time.monotonic() - start > limits.wall_seconds:
                return "timeout", bytes(said)


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
