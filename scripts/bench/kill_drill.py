"""Kill -9 at random moments: is anything lost?

A small configuration runs undisturbed once; then again in another directory, where after random waits something is
killed: the driver, the driver's whole process group, or a Lean worker (Node). Each time the driver is gone the same
command is run again. At the end every file of the two directories must be equal byte for byte but for timing: seconds
and heartbeats of verdicts, seconds and origin (``made``) of manifests, ``run.json``.

The last line is a JSON object of figures; exit code 1 where the directories differ.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

TARGETS = ("driver", "group", "worker")


class Drill:
    """One disturbed run: the driver process at work, and what was killed so far."""

    def __init__(self, config: Path, run: Path, rng: random.Random) -> None:
        self.command = [sys.executable, "-m", "prover", "iterate", str(config), "--run-dir", str(run)]
        self.log = run.with_name(run.name + ".log")
        self.rng = rng
        self.killed = dict.fromkeys(TARGETS, 0)
        self.starts = 0

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, driver: subprocess.Popen[bytes], wanted: str) -> None:
        """Kill ``wanted``; the driver where no worker runs at this moment."""
        if wanted == "worker":
            workers = node_processes(driver.pid)
            if workers:
                os.kill(self.rng.choice(workers), signal.SIGKILL)
                self.killed["worker"] += 1
                return
            wanted = "driver"
        if wanted == "group":
            os.killpg(driver.pid, signal.SIGKILL)
        else:
            driver.kill()
        self.killed[wanted] += 1
        driver.wait()

    def run(self, kills: int, longest: float, resume_limit: float) -> None:
        """``kills`` kills after waits drawn from 0 to ``longest`` seconds, then one start that is left alone."""
        driver = self.start()
        done = 0
        while done < kills:
            try:
                driver.wait(timeout=self.rng.uniform(0, longest))
            except subprocess.TimeoutExpired:
                self.kill(driver, self.rng.choice(TARGETS))
                done += 1
                if driver.poll() is not None:
                    driver = self.start()
            else:
                self.expect_success(driver)
                return  # the run ended before all kills were spent; what happened is in the figures
        driver.wait(timeout=resume_limit)
        self.expect_success(driver)

    def expect_success(self, driver: subprocess.Popen[bytes]) -> None:
        if driver.returncode != 0:
            tail = self.log.read_text(errors="replace").splitlines()[-5:]
            raise SystemExit(f"the driver ended with {driver.returncode}: " + " | ".join(tail))


def node_processes(driver: int) -> list[int]:
    try:
        return [p.pid for p in psutil.Process(driver).children(recursive=True) if "node" in p.name()]
    except psutil.Error:
        return []


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but for timing; temporary files are no content."""
    found: dict[str, bytes] = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = path.relative_to(run).as_posix()
        if path.name.startswith(".") or name == "run.json" or "/work/" in name:
            continue
        data = path.read_bytes()
        if path.name == "artifact.json":
            data = plain(json.loads(data), ("seconds", "made"))
        elif path.suffix == ".jsonl" and b'"attempt_id"' in data and b'"status"' in data:
            data = b"\n".join(plain(json.loads(line), ("seconds", "heartbeats")) for line in data.splitlines())
        found[name] = data
    return found


def plain(record: dict[str, Any], timing: tuple[str, ...]) -> bytes:
    return json.dumps({k: v for k, v in record.items() if k not in timing}, sort_keys=True).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/smoke.toml"))
    parser.add_argument("--out", type=Path, default=Path("runs/kill_drill"), help="an empty or missing folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="3 kills")
    arguments = parser.parse_args()
    kills = 3 if arguments.quick else arguments.kills
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise SystemExit(f"{out}: is not empty; delete it or give another --out")

    calm = Drill(arguments.config, out / "calm", random.Random(arguments.seed))
    start = time.monotonic()
    calm.run(0, 0, 3_600)
    calm_seconds = time.monotonic() - start

    rough = Drill(arguments.config, out / "rough", random.Random(arguments.seed))
    start = time.monotonic()
    # Kills fall on the whole run: with lost work and start-up, about two thirds of the waits go into progress.
    rough.run(kills, 3 * calm_seconds / max(kills, 1), 3_600)
    rough_seconds = time.monotonic() - start

    left, right = contents(out / "calm"), contents(out / "rough")
    differing = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    for name in differing:
        print(f"differs: {name}")
    figures = {
        "kills": sum(rough.killed.values()),
        **{f"killed_{target}": count for target, count in rough.killed.items()},
        "starts": rough.starts,
        "files": len(left),
        "differing": len(differing),
        "calm_seconds": round(calm_seconds, 1),
        "rough_seconds": round(rough_seconds, 1),
    }
    print(json.dumps(figures))
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
