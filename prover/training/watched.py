"""Processes that end when the one that wanted them is gone, however it went.

``python -m prover.training.watched MODULE ARGUMENTS...`` runs a module like that.
"""

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

_SILENCE_SECONDS = 60.0


def end_with_pipe() -> None:
    """Kill this process once standard input ends: its other side is held by the launching process alone."""

    def wait() -> None:
        while os.read(0, 4_096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def end_with_file(file: Path) -> None:
    """Kill this process once the file has not changed for a minute: for hosts that share nothing else."""

    def wait() -> None:
        said, since = b"", time.monotonic()
        while time.monotonic() < since + _SILENCE_SECONDS:
            try:
                now = file.read_bytes()
            except OSError:
                now = said
            if now != said:
                said, since = now, time.monotonic()
            time.sleep(_SILENCE_SECONDS / 12)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_pipe()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
