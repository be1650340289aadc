"""What ``prover serve-lean`` does: the installed Lean behind an address."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from lean_env.cache import open_cache
from lean_env.pool import LeanPool
from prover.config import LeanConfig
from prover.errors import ProverError
from prover.lean import open_lean


def serve_lean(
    host: str,
    port: int,
    *,
    lean: LeanConfig,
    cache: Path | None = None,
    require_sandbox: bool = False,
    say: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM. The token is that of the environment variable ``PROVER_TOKEN``, if it is set.
    ``cache`` is a file of verdicts that are taken from there and kept.

    Raises ProverError without the packages that it takes, and LeanError.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ProverError(f"serve-lean needs {' and '.join(missing)}; run: pip install 'prover[serve]'")
    from lean_env.serving.server import serve

    token = os.environ.get("PROVER_TOKEN")

    with open_cache(cache, say) as verdicts:

        def pool() -> LeanPool:
            toolchain = open_lean(lean, require_sandbox=require_sandbox, say=say)
            return LeanPool(toolchain, lean.workers, cache=verdicts)

        serve(pool, host=host, port=port, limits=lean.limits(), token=token, say=say)
