"""A run directory belongs to one configuration: it is claimed before anything is written, and refused to another."""

import shutil
from pathlib import Path
from typing import Any

from prover.artifacts import changed_keys, disk_errors, write_json
from prover.config import IterateConfig, Section, without_placement
from prover.config_file import open_run
from prover.errors import ArtifactError

GROWING = frozenset({"rounds", "evaluate_on"})
"""Top-level keys that may change between two runs on one directory: they add artifacts and change none."""


def claim(config: IterateConfig, run_dir: Path, clean: bool) -> None:
    """Write the configuration into ``run_dir``, after emptying it with ``clean``. The run's lock is held.

    Raises ArtifactError where another configuration made the directory, or it is no run's.
    """
    file = run_dir / "config.json"
    # A kill while the file was written leaves a temporary one, and the directory is still nobody else's.
    entries = [p for p in run_dir.iterdir() if p.name not in (".lock", f".{file.name}.tmp")]
    if entries and not file.exists():
        raise ArtifactError(f"{run_dir}: is not empty and no run directory (no config.json); choose another --run-dir")
    if clean:
        with disk_errors(run_dir):
            # Manifests first: after a kill in between nothing that is half deleted may pass for whole.
            for manifest in list(run_dir.rglob("artifact.json")):
                manifest.unlink()
            # The configuration last: it is what tells a run directory from a folder that is not ours to empty.
            for entry in sorted(entries, key=lambda entry: entry == file):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    elif file.exists():
        before, now = (_content(c) for c in (open_run(run_dir), config))
        if before != now:
            raise ArtifactError(
                f"{run_dir}: was made by another configuration ({changed_keys(before, now)}); "
                "use another --run-dir, or --clean to start over"
            )
    write_json(file, config.model_dump(mode="json"))


def _content(config: Section) -> dict[str, Any]:
    """What of the configuration may not change under a run."""
    data = config.model_dump(mode="json")
    return {key: without_placement(value) for key, value in data.items() if key not in GROWING}
