"""From a job to the tuned model: in this process, or in many that are started, followed and ended from here.

Beside a job's work directory lies the folder of its launch: the job, the processes' output, what rank 0 tells of its
progress, what failed. It goes when the job is done and stays, with the output, when it failed.
"""

import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

import prover
from prover import errors
from prover.artifacts import disk_errors
from prover.config import DeepSpeedLaunch
from prover.errors import ConfigError, ProverError, RunLockedError, TrainingError
from prover.pretrained import read_checkpoint
from prover.records import Checkpoint
from prover.training.job import Job, TrainingProgress
from prover.training.zero_options import read_options

if TYPE_CHECKING:
    from prover.training.loop import OnStep

JOB, PROGRESS, LOG, LOCK, ALIVE = "job.json", "progress.jsonl", "log.txt", "lock", "alive"
FAILURE = "failure-{}.json"
PIPE = "PROVER_LAUNCH_PIPE"
"""Set where standard input stays open as long as the launching process lives."""
_WAIT_SECONDS = 20.0
"""For processes of an earlier launch to end: they do at once, but memory of GPUs takes a while to be given back."""
_LOOK_SECONDS = 0.1
BEAT_SECONDS = 5.0


class Failure(msgspec.Struct, frozen=True):
    """Why a process ended: an error of ours by the name of its class, or what it crashed with."""

    rank: int
    error: str | None
    message: str


def run(job: Job, on_step: "OnStep | None" = None) -> Checkpoint:
    """Run the job as ``job.launch`` says, and return the tuned model's manifest.

    Raises whatever error of ours the training raises, ConfigError for a launch that this machine cannot make, and
    RunLockedError where processes of an earlier launch are still at work.
    """
    folder = folder_of(job)
    settle(folder)
    if not isinstance(job.launch, DeepSpeedLaunch):
        from prover.training.loop import train  # late: imports torch

        return train(job, on_step)
    command, environment = _command(job.launch, folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
        with (folder / LOG).open("wb") as log, (folder / PROGRESS).open("w+b") as progress:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
            try:
                code = follow(process, progress, folder, on_step)
            finally:
                _end(process, pipe=job.launch.hosts is None)
    made = read_checkpoint(job.output) if code == 0 else None
    if made is None:
        raise _failed(folder)
    settle(folder)
    return made


def folder_of(job: Job) -> Path:
    return job.work.with_name("launch")


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Held by each process of a launch while it lives."""
    with (folder / LOCK).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.environ.get("RANK") == "0":
            file.write(f"{os.uname().nodename} pid {os.getpid()}")
            file.flush()
        yield


def settle(folder: Path, seconds: float = _WAIT_SECONDS) -> None:
    """Wait for what is left of an earlier launch to end, then clear its folder. Raises RunLockedError where it does
    not end within ``seconds``."""
    if not folder.exists():
        return
    with (folder / LOCK).open("a+") as file:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    file.seek(0)
                    holder = file.read().strip() or "processes"
                    raise RunLockedError(
                        f"{folder.parent}: training processes of an earlier start are still at work ({holder}); end "
                        "them, or wait, and run the same command again"
                    ) from error
                time.sleep(_LOOK_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _command(launch: DeepSpeedLaunch, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What to start, and its environment."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("launch.type = 'deepspeed' needs the package deepspeed; run: pip install 'prover[deepspeed]'")
    if launch.config is not None:
        read_options(launch.config)
    import torch

    gpus = torch.cuda.device_count()
    if launch.processes is not None and 0 < gpus < launch.processes and launch.hosts is None:
        raise ConfigError(f"launch.processes is {launch.processes}, but torch sees {gpus} GPUs here; lower it")
    processes = launch.processes or max(gpus, 1)
    cores = len(os.sched_getaffinity(0))
    root = str(Path(prover.__file__).resolve().parent.parent)
    environment = {
        "OMP_NUM_THREADS": str(max(1, (cores if gpus else cores // 2) // processes)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }
    if not gpus:
        environment["DS_ACCELERATOR"] = "cpu"
    ours = ["prover.training.process", str((folder / JOB).resolve())]
    if launch.hosts is not None:
        _check_hosts(launch.hosts)
        number = ["--num_gpus", str(processes)] if launch.processes else []
        runner = ["-m", "deepspeed.launcher.runner", "--hostfile", str(launch.hosts), *number, "--module"]
        return [sys.executable, *runner, *ours], environment
    environment[PIPE] = "1"
    runner = ["-m", "prover.training.watched", "torch.distributed.run", "--standalone"]
    return [sys.executable, *runner, "--nproc-per-node", str(processes), "-m", *ours], environment


def _check_hosts(path: Path) -> None:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"launch.hosts: {path} cannot be read ({error}); give a DeepSpeed hostfile") from error
    entries = [line for line in lines if line and not line.startswith("#")]
    wrong = next((line for line in entries if not re.fullmatch(r"\S+\s+slots=\d+\s*(#.*)?", line)), None)
    if wrong is not None or not entries:
        said = f"has the line {wrong!r}" if wrong is not None else "names no host"
        raise ConfigError(f"launch.hosts: {path} {said}; each line is a host and its GPUs, such as: node1 slots=8")
    if len(entries) == 1:  # DeepSpeed's launcher would not go there, and train on this host
        raise ConfigError(f"launch.hosts: {path} names one host only; run this there, without launch.hosts")


def follow(
    process: "subprocess.Popen[bytes]", progress: BinaryIO, folder: Path, on_step: "OnStep | None",
    seconds: float = _WAIT_SECONDS,
) -> int:  # fmt: skip
    """Pass on what rank 0 tells until the launcher has ended; returns its exit status. A launcher that is still there
    ``seconds`` after a process failed is not waited for: on another host the rest may wait for that process."""
    begun, beat, failed = b"", 0.0, float("inf")
    while True:
        if time.monotonic() > beat + BEAT_SECONDS:
            beat = time.monotonic()
            (folder / ALIVE).write_text(str(beat), encoding="utf-8")
        code = process.poll()
        *lines, begun = (begun + progress.read()).split(b"\n")
        for line in lines:
            if on_step is not None:
                on_step(msgspec.convert(json.loads(line), TrainingProgress))
        if code is not None:
            return code
        if failed == float("inf") and any(folder.glob(FAILURE.format("*"))):
            failed = time.monotonic()
        if time.monotonic() > failed + seconds:
            return 2
        time.sleep(_LOOK_SECONDS)


def _end(process: "subprocess.Popen[bytes]", pipe: bool) -> None:
    """End the launcher and all that it started, if they are still there."""
    assert process.stdin is not None
    process.stdin.close()  # each of them watches it
    if process.poll() is not None:
        return
    if not pipe:
        process.send_signal(signal.SIGINT)  # DeepSpeed's launcher passes it on to the other hosts
    try:
        process.wait(_WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failed(folder: Path) -> ProverError:
    """The error that the processes' own reports come to."""
    log = folder / LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    reports = [msgspec.json.decode(file.read_bytes(), type=Failure) for file in folder.glob(FAILURE.format("*"))]
    for report in sorted(reports, key=lambda r: r.rank):
        kind = getattr(errors, report.error or "", None)
        if isinstance(kind, type) and issubclass(kind, ProverError):
            return kind(report.message)
    # One that is killed cannot say so; those that lose it do, and what they say is not the cause.
    killed = next((int(n) for n in re.findall(r"exitcode\s*: -(\d+)", text) if int(n) != signal.SIGTERM), None)
    if killed is not None:
        why = " (the system does that where memory runs out)" if killed == signal.SIGKILL else ""
        return TrainingError(
            f"a training process was ended by {signal.Signals(killed).name}{why}; the last state is kept, the output "
            f"is in {log}"
        )
    for report in reports:
        return TrainingError(f"training process {report.rank} failed ({report.message}); its output is in {log}")
    last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    return TrainingError(f"the launcher of the training ended ({''.join(last)[:200]}); the output is in {log}")


def tell_failure(folder: Path, rank: int, error: Exception) -> None:
    """Leave word of why this process ends."""
    name = type(error).__name__
    ours = name if isinstance(error, ProverError) and hasattr(errors, name) else None
    lines = str(error).strip().splitlines() or [""]
    message = lines[0] if ours else f"{name}: {lines[0][:300]}"
    target = folder / FAILURE.format(rank)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps({"rank": rank, "error": ours, "message": message}), encoding="utf-8")
    temporary.replace(target)
