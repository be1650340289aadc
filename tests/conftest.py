"""Which tests run where: markers turn into skips with a reason."""

import shutil
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": "" if config.getoption("--slow") else "slow; run with --slow (make test-all)",
        "gpu": "" if _has_gpu(items) else "no CUDA device",
        "native": "" if _has_lake() else "no native Lean on this machine; scripts/setup_lean.sh installs it",
        "nanoda": ""
        if shutil.which("nanoda_bin")
        else "no nanoda_bin on the PATH; docs/soundness.md says how to build it",
    }
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu(items: list[pytest.Item]) -> bool:
    if not any(item.get_closest_marker("gpu") for item in items):
        return False
    import torch

    return torch.cuda.is_available()


def _has_lake() -> bool:
    return shutil.which("lake") is not None or (Path.home() / ".elan" / "bin" / "lake").exists()
