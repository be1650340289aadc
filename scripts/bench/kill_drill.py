"""Kill -9 at random moments: is anything lost?

A small configuration runs undisturbed once; then again in another directory, where after random waits something is
killed: the driver, the driver's whole process group, or a Lean worker alone (Node), each as often. Each time the
driver is gone the same command is run again; a run that ends before all kills are spent is followed by one more, in a
directory of its own. At the end every file must be equal byte for byte to the undisturbed one but for timing: seconds
and heartbeats of verdicts, seconds and origin (``made``) of manifests, ``run.json``.

The last line is a JSON object of figures; exit code 1 where the directories differ.
"""

import argparse
import contextlib
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
LOOK_SECONDS = 0.05
"""Between two looks for a Lean worker to kill."""


class Drill:
    """One disturbed run: the driver process at work, and what was killed so far."""

    def __init__(self, config: Path, run: Path, rng: random.Random) -> None:
        self.directory = run
        self.command = [sys.executable, "-m", "prover", "iterate", str(config), "--run-dir", str(run)]
        self.log = run.with_name(run.name + ".log")
        self.rng = rng
        self.killed: dict[str, int] = dict.fromkeys(TARGETS, 0)
        self.starts = 0

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, driver: subprocess.Popen[bytes], wanted: str) -> None:
        """Kill ``wanted``; a worker as soon as one runs. The driver may have come to its end before."""
        if wanted == "worker":
            while not (workers := node_processes(driver.pid)):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(LOOK_SECONDS)
                    return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(workers), signal.SIGKILL)
                self.killed["worker"] += 1
            return
        if wanted == "group":
            os.killpg(driver.pid, signal.SIGKILL)
        else:
            driver.kill()
        self.killed[wanted] += 1
        driver.wait()

    def run(self, targets: list[str], longest: float) -> None:
        """Kills after waits drawn from 0 to ``longest`` seconds, until the run is done; takes from ``targets`` what
        was killed."""
        driver = self.start()
        while targets:
            try:
                driver.wait(timeout=self.rng.uniform(0, longest))
            except subprocess.TimeoutExpired:
                before = sum(self.killed.values())
                self.kill(driver, targets[-1])
                if sum(self.killed.values()) > before:
                    targets.pop()
                if driver.poll() == -signal.SIGKILL:
                    driver = self.start()
            if driver.poll() is not None:
                break
        driver.wait()
        self.expect_success(driver)

    def expect_success(self, driver: subprocess.Popen[bytes]) -> None:
        if driver.returncode != 0:
            tail = self.log.read_text(errors="replace").splitlines()[-5:]
            raise SystemExit(f"the driver ended with {driver.returncode}: " + " | ".join(tail))


def node_processes(driver: int) -> list[int]:
    """The Lean workers of a driver. By the command, for Node gives its process another name."""
    found: list[int] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if Path((process.cmdline() or [""])[0]).name == "node":
                    found.append(process.pid)
    return found


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but for timing; temporary files are no content."""
    found: dict[str, bytes] = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = path.relative_to(run).as_posix()
        if path.name.startswith(".") or name == "run.json" or "work" in path.relative_to(run).parts:
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

    start = time.monotonic()
    Drill(arguments.config, out / "calm", random.Random(0)).run([], 0)
    calm_seconds = time.monotonic() - start
    calm = contents(out / "calm")

    drills: list[Drill] = []
    differing: list[str] = []
    rng = random.Random(arguments.seed)
    targets = [TARGETS[number % len(TARGETS)] for number in range(kills)]
    rng.shuffle(targets)
    start = time.monotonic()
    while targets:
        drill = Drill(arguments.config, out / f"rough_{len(drills)}", rng)
        drills.append(drill)
        drill.run(targets, 3 * calm_seconds / kills)
        rough = contents(drill.directory)
        differing += [f"{drill.directory.name}/{n}" for n in calm.keys() | rough.keys() if calm.get(n) != rough.get(n)]
    for name in sorted(differing):
        print(f"differs: {name}")
    figures = {
        "kills": kills,
        **{f"killed_{target}": sum(drill.killed[target] for drill in drills) for target in TARGETS},
        "starts": sum(drill.starts for drill in drills),
        "runs": len(drills),
        "files": len(calm),
        "differing": len(differing),
        "calm_seconds": round(calm_seconds, 1),
        "rough_seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(figures))
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
