"""One Lean process: start it, ask it one thing at a time, hold it to its limits, kill it.

Requests and replies are JSON lines on the process's standard input and output; each reply must carry its request's
nonce. Time is counted as CPU time of the process, so that a loaded host does not change verdicts; wall time only
tells that a process is lost. When anything at all is amiss the whole process group is killed and the worker cannot be
used again.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any, Literal

import msgspec

from lean_env.errors import WorkerError
from lean_env.protocol import Limits

POLL_SECONDS = 0.1
"""How often a running check's CPU time and memory are looked at; a reply wakes the driver at once."""
REPLY_BYTES = 4 << 20
"""Longest reply taken from a worker."""
START = Limits(cpu_seconds=180.0, wall_seconds=900.0, memory_mb=4_000)
"""What a worker may use until it says that it is ready."""
_STDERR_TAIL = 4_096
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Loss = Literal["timeout", "stalled", "memory", "died", "protocol", "killed", "starved"]
"""Why a worker was lost: CPU limit, idle until the wall limit, memory limit, ended by itself, answered out of
protocol, killed by someone else, or given too little processor time by the host within its wall limit."""


class WorkerLost(WorkerError):
    """The worker is gone without an answer. ``kind`` says whose fault that may be, the text what was seen."""

    def __init__(self, kind: Loss, reason: str) -> None:
        super().__init__(reason)
        self.kind: Loss = kind


class Launch(msgspec.Struct, frozen=True):
    """What starts one worker, confined: the command line and its whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]
    wrapped: bool = False
    """The process that is started only watches over the worker, which is its descendant (bubblewrap)."""

    def start(self) -> "Worker":
        """Raises OSError. The worker is not ready yet."""
        return Worker(self)


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds so far of a process with all its threads, and its resident memory in MiB, without the pages of files:
    a library that is mapped is shared between workers, and the kernel drops it when memory is short."""

    cpu_seconds: float
    memory_mb: float


def process_usage(pid: int) -> Usage:
    """What a process has used (/proc/PID/stat and statm). Zeros once it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - no Path objects: called at every check
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
            pages = file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return Usage(0.0, 0.0)
    return Usage((int(fields[11]) + int(fields[12])) / _TICK, (int(pages[1]) - int(pages[2])) * _PAGE / (1 << 20))


def innermost(pid: int) -> int:
    """The process at the end of a line of only children; ``pid`` itself where it has none, or is gone."""
    while True:
        try:
            with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:  # noqa: PTH123
                children = file.read().split()
        except (FileNotFoundError, ProcessLookupError):
            return pid
        if not children:
            return pid
        pid = int(children[0])


class Worker:
    """A Lean process, for one thread; only :meth:`kill` may be called from others.

    The thread that starts it must live as long as the process (see :mod:`lean_env.sandbox`, death with the driver).
    """

    def __init__(self, launch: Launch) -> None:
        self._closed = False
        self._killed = False
        self._signalling = threading.Lock()
        self._buffer = bytearray()
        self._unsent = memoryview(b"")
        self._ahead: tuple[dict[str, Any], str] | None = None
        """A request that was sent behind the one before it, and its nonce."""
        self._stderr = bytearray()
        self._process = subprocess.Popen(
            launch.argv,
            env=launch.env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._measured = 0 if launch.wrapped else self._process.pid
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None and stdout is not None and stderr is not None
        self._in, self._out, self._err = stdin, stdout, stderr
        for pipe in (stdin, stdout, stderr):
            os.set_blocking(pipe.fileno(), False)
        self.asked = 0
        """How many requests it has answered."""
        self.memory_mb = 0.0
        """Resident memory when it was last looked at, MiB."""
        self.peak_mb = 0.0
        """The most that was seen."""
        self.version = ""

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Waits for the worker's first line. Raises WorkerLost."""
        greeting = self._exchange(START, REPLY_BYTES)
        if greeting.get("ready") is not True:
            raise self._lose("protocol", f"the first line is no greeting: {str(greeting)[:200]}")
        self.version = str(greeting.get("version", ""))
        self._measured = self._measured or innermost(self.pid)
        self._seal()

    @property
    def busy(self) -> bool:
        """Whether it has been sent a request that it must be asked next."""
        return self._ahead is not None

    def ask(
        self,
        request: dict[str, Any],
        limits: Limits,
        reply_bytes: int = REPLY_BYTES,
        following: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Sends a request and returns its reply without the nonce. Raises WorkerLost, after which the worker is
        closed.

        ``following``, this very object, must be the next request: it is sent along, so that Lean goes on while the
        driver looks at the reply. Its limits count from when it is asked.
        """
        if self._ahead is None:
            nonce = self._send(request)
        else:
            sent, nonce = self._ahead
            assert sent is request, "another request was sent ahead"
        self._ahead = None if following is None else (following, self._send(following))
        reply = self._exchange(limits, reply_bytes)
        if reply.pop("nonce", None) != nonce:
            raise self._lose("protocol", "the reply does not carry the request's nonce")
        if self._buffer and following is None:
            raise self._lose("protocol", "more than one reply to a request")
        self.asked += 1
        return reply

    def _send(self, request: dict[str, Any]) -> str:
        """Appends a request to what the next exchange writes; its nonce."""
        nonce = secrets.token_hex(8)
        # ASCII only: Lean's side decodes its input in slices that may end within a character.
        line = json.dumps({**request, "nonce": nonce}, ensure_ascii=True).encode("ascii") + b"\n"
        self._unsent = memoryview(bytes(self._unsent) + line)
        return nonce

    def _seal(self) -> None:
        """Takes away the right to open the pipes again by way of /proc/self/fd, now that the worker has its handles.

        A pipe has one inode for both ends. The worker, its owner, could give the right back, but chmod is among the
        system calls that it is refused; and root's worker has no capability to do without it.
        """
        if sys.platform == "linux":
            for pipe in (self._in, self._out, self._err):
                os.fchmod(pipe.fileno(), 0)

    def usage(self) -> Usage:
        """What the process has used. Zeros once it is gone."""
        used = process_usage(self._measured or innermost(self.pid))
        self.memory_mb = used.memory_mb
        self.peak_mb = max(self.peak_mb, used.memory_mb)
        return used

    def kill(self) -> None:
        """Kills the process group, from any thread. The owner still has to close the worker."""
        with self._signalling:
            self._killed = True
            # Only while the leader is not reaped can no other group have its number.
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills the process group, reaps the process and closes the pipes. Safe to call again."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        with self._signalling:
            self._process.wait()
        for pipe in (self._in, self._out, self._err):
            pipe.close()

    def _exchange(self, limits: Limits, reply_bytes: int) -> dict[str, Any]:
        """Writes what there is to write while reading one line, under the limits."""
        if self._closed:
            raise WorkerLost("killed", "the worker is closed")
        start = looked = time.monotonic()
        first = self.usage()
        delay: float | None = None
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        poll.register(self._err, select.POLLIN)
        if self._unsent:
            poll.register(self._in, select.POLLOUT)
        scanned = 0
        while True:
            end = self._buffer.find(b"\n", scanned)
            if 0 <= end <= reply_bytes:
                return self._parse(end)
            scanned = len(self._buffer)
            if scanned > reply_bytes:
                raise self._lose("protocol", f"a reply over {reply_bytes >> 20} MiB")
            events = dict(poll.poll(POLL_SECONDS * 1000))
            if self._in.fileno() in events:
                self._write()
                if not self._unsent:
                    poll.unregister(self._in)
            if self._err.fileno() in events and not self._drain_stderr():
                poll.unregister(self._err)
            if self._out.fileno() in events and not self._read():
                raise self._dead()
            now = time.monotonic()
            if now - looked >= POLL_SECONDS:
                looked = now
                delay = _run_delay(self._measured or self.pid) if delay is None else delay
                self._hold_to(limits, first, now - start, delay)

    def _hold_to(self, limits: Limits, first: Usage, wall: float, delay: float) -> None:
        used = self.usage()
        if used.memory_mb > limits.memory_mb:
            raise self._lose("memory", f"{used.memory_mb:,.0f} MiB resident, over the limit of {limits.memory_mb:,}")
        cpu = used.cpu_seconds - first.cpu_seconds
        if cpu > limits.cpu_seconds:
            raise self._lose("timeout", f"{limits.cpu_seconds:g} s of CPU time used up")
        if wall > limits.wall_seconds:
            waited = _run_delay(self._measured or self.pid) - delay
            if waited > wall / 2:
                raise self._lose("starved", f"{cpu:.1f} s of CPU time in {wall:.0f} s: the host is too loaded")
            raise self._lose("stalled", f"no answer in {limits.wall_seconds:g} s ({cpu:.1f} s of CPU time)")

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._in.fileno(), self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = memoryview(b"")  # its death is seen on its output

    def _read(self) -> bool:
        """Reads what is there; False at the end of the stream."""
        try:
            data = os.read(self._out.fileno(), 1 << 20)
        except BlockingIOError:
            return True
        self._buffer += data
        return bool(data)

    def _drain_stderr(self) -> bool:
        try:
            data = os.read(self._err.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self._stderr += data
        del self._stderr[:-_STDERR_TAIL]
        return bool(data)

    def _parse(self, end: int) -> dict[str, Any]:
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._lose("protocol", f"a reply that is no JSON object: {line[:200]!r}") from None

    def _dead(self) -> WorkerLost:
        """The output has ended: waits a moment for the process, kills it if need be, and says how it ended."""
        with self._signalling, contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        while not self._err.closed and self._drain_stderr() and select.select([self._err], [], [], 0)[0]:
            pass
        if self._killed or code == -signal.SIGKILL:
            return self._lose("killed", "killed from outside, perhaps for want of memory")
        return self._lose("died", f"ended without an answer ({self._last_words() or f'exit code {code}'})")

    def _last_words(self) -> str:
        """The line of stderr that says most: an error's name if there is one, otherwise the last line."""
        lines = [line.strip() for line in self._stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        telling = [line for line in lines if "Error" in line or "error" in line or "ABORT" in line]
        return (telling or lines or [""])[-1][:200]

    def _lose(self, kind: Loss, reason: str) -> WorkerLost:
        self.close()
        return WorkerLost(kind, reason)


def _run_delay(pid: int) -> float:
    """Seconds that the threads of a process have waited for a processor while able to run (/proc/PID/schedstat)."""
    longest = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - no Path objects while a check runs
            with open(f"/proc/{pid}/task/{task}/schedstat", "rb") as file:  # noqa: PTH123
                longest = max(longest, int(file.read().split()[1]))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return longest / 1e9
