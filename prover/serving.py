"""What ``prover serve-lean`` does: the installed Lean behind an address."""

import importlib.util
import os
from collections.abc import Callable

from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from lean_env.toolchain import find
from prover.errors import ProverError


def serve_lean(host: str, port: int, *, workers: int, limits: Limits, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. The token is that of the environment variable ``PROVER_TOKEN``, if it is set.

    Raises ProverError without the packages that it takes, and LeanError.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ProverError(f"serve-lean needs {' and '.join(missing)}; run: pip install 'prover[serve]'")
    from lean_env.serving.server import serve

    token = os.environ.get("PROVER_TOKEN")
    serve(lambda: LeanPool(find(), workers), host=host, port=port, limits=limits, token=token, say=say)
