"""Serves a pool of scripted processes on a free port of loopback. Run by the server's tests as a program."""

import os
import sys
from pathlib import Path

from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from lean_env.serving.server import serve
from lean_env.worker import Launch

SCRIPT = Path(__file__).with_name("scripted_lean.py")


class Scripted:
    version = "scripted 1"

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", *(sys.argv[1:] or [str(SCRIPT)])), {})


def main() -> None:
    serve(
        lambda: LeanPool(Scripted(), 2),
        host="127.0.0.1",
        port=0,
        limits=Limits(cpu_seconds=0.5, memory_mb=2_000),
        token=os.environ.get("PROVER_TOKEN"),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )


main()
