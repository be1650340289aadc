"""How long the quick things take: ``prover --help``, and a finished run, run again. Medians, wall seconds.

``--run DIR`` is a finished run of ``--config``; without it only the help is measured. The last line is a JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str], repeats: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    return round(statistics.median(once() for _ in range(repeats)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/smoke.toml"))
    parser.add_argument("--run", type=Path, help="a finished run directory of --config")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    arguments = parser.parse_args()
    repeats = 3 if arguments.quick else 10
    prover = [sys.executable, "-m", "prover"]
    figures = {"help_seconds": seconds([*prover, "--help"], repeats)}
    if arguments.run is not None:
        again = [*prover, "iterate", str(arguments.config), "--run-dir", str(arguments.run)]
        figures["finished_run_again_seconds"] = seconds(again, min(repeats, 5))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
