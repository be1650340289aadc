"""What is launched can be killed anywhere: nothing is lost, nothing is left running, what went wrong is one line."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from prover.config import DeepSpeedLaunch, SingleLaunch
from prover.errors import ConfigError, RunLockedError, TrainingError
from prover.training.job import SftJob, TrainingProgress
from prover.training.launch import LOCK, folder_of, follow, run, settle, tell_failure
from prover.training.loop import train
from prover.training.memory import memory_errors

from .test_sft import ROOT, job, weights

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
TWO = {"type": "deepspeed", "processes": 2, "zero": 2, "micro_batch_tokens": 64}
STEPS = 90


def drill(base: Path, examples: Path, out: Path, **launch: object) -> SftJob:
    wanted = {**TWO, **launch} if launch else {"micro_batch_tokens": 64}
    return job(base, examples, out, launch=wanted, precision="float32", steps=STEPS, checkpoint_every=5)


def processes_of(made: SftJob) -> dict[str, list[psutil.Process]]:
    """Processes of the job's launch: its launcher, and the ranks in order."""
    found: dict[str, list[psutil.Process]] = {"launcher": [], "rank": []}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(folder_of(made) / "job.json") in words:
            found["launcher" if "torch.distributed.run" in words else "rank"].append(process)
    return found


def none_left(made: SftJob) -> bool:
    living = [process for kind in processes_of(made).values() for process in kind]
    _, alive = psutil.wait_procs(living, timeout=10)
    return not alive


def at(step: int, do: Callable[[], None]) -> Callable[[TrainingProgress], None]:
    """Call ``do`` once, at the first step from ``step`` on."""
    done: list[int] = []

    def seen(progress: TrainingProgress) -> None:
        if progress.step >= step and not done:
            done.append(progress.step)
            do()

    return seen


def interrupt() -> None:
    raise KeyboardInterrupt


@needs_deepspeed
@pytest.mark.timeout(600)
def test_kills_lose_nothing_and_leave_nobody(base: Path, examples: Path, tmp_path: Path) -> None:
    """A rank, the launcher and the launching process are killed; then other settings go on."""
    made = drill(base, examples, tmp_path / "cut", zero=2)

    def left() -> int:
        assert none_left(made)
        assert not made.output.exists()
        (state,) = made.work.glob("step-*")
        return int(state.name.removeprefix("step-"))

    with pytest.raises(TrainingError, match=r"ended by SIGKILL .*the last state is kept, the output is in .*log\.txt"):
        run(made, at(7, lambda: processes_of(made)["rank"][1].kill()))
    first = left()
    assert 5 <= first < STEPS
    with pytest.raises(TrainingError, match="the launcher of the training ended"):
        run(made, at(first + 6, lambda: processes_of(made)["launcher"][0].kill()))
    second = left()
    assert second > first

    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, made.model_dump_json()], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    for line in parent.stdout:
        if int(line) >= second + 6:
            parent.kill()
            break
    parent.wait()
    third = left()
    assert third > second

    seen: list[TrainingProgress] = []
    other = drill(base, examples, tmp_path / "cut", zero=3, processes=3)
    assert run(other, seen.append).step == STEPS
    assert seen[0].step == seen[0].steps == third
    assert not made.work.exists() and not folder_of(made).exists()
    one = drill(base, examples, tmp_path / "whole")
    train(one)
    assert _distance(made.output, one.output) < 1e-3


_PARENT = """
import sys
from prover.training.job import SftJob
from prover.training.launch import run
run(SftJob.model_validate_json(sys.argv[1]), lambda progress: print(progress.step, flush=True))
"""


def _distance(one: Path, other: Path) -> float:
    from safetensors.torch import load_file

    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return max((ours[key] - theirs[key]).abs().max().item() for key in ours)


@needs_deepspeed
def test_on_as_many_processes_resuming_gives_the_same_bytes(base: Path, examples: Path, tmp_path: Path) -> None:
    whole, cut = (
        job(base, examples, tmp_path / name, launch=TWO, precision="bfloat16", checkpoint_every=8)
        for name in ("whole", "cut")
    )
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(cut, at(9, interrupt))
    assert none_left(cut)
    run(cut)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@needs_deepspeed
def test_a_loss_that_is_not_finite_stops_all_and_keeps_the_state(base: Path, examples: Path, tmp_path: Path) -> None:
    made = job(base, examples, tmp_path, launch=TWO, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"^step \d: the loss or its gradient is not finite .* examples \w+/\d"):
        run(made)
    assert none_left(made)
    assert len(list(made.work.glob("step-*"))) == 1
    assert "not finite" in (folder_of(made) / "log.txt").read_text()


def test_a_launch_waits_for_an_earlier_one_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "launch"
    folder.mkdir()
    code = (
        "import sys, fcntl, os; file = open(sys.argv[1], 'a+'); fcntl.flock(file, fcntl.LOCK_SH); "
        "file.write('node1 pid 7'); file.flush(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(RunLockedError, match=r"an earlier start are still at work .node1 pid 7."):
        settle(folder, seconds=0.2)
    holder.stdin.close()
    settle(folder)
    holder.wait()
    assert not folder.exists()


def test_a_launcher_that_does_not_see_a_failure_is_not_waited_for(tmp_path: Path) -> None:
    """As on several hosts, where the others wait for the process that failed."""
    launcher = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert launcher.stdin is not None
    tell_failure(tmp_path, 9, TrainingError("step 3: the loss is not finite"))
    with (tmp_path / "progress").open("w+b") as progress:
        assert follow(launcher, progress, tmp_path, None, seconds=0.1) != 0
    assert launcher.poll() is None
    launcher.stdin.close()
    launcher.wait()


@needs_deepspeed
def test_a_full_disk_is_told_and_the_room_given_back(base: Path, examples: Path, tmp_path: Path) -> None:
    made = job(base, examples, tmp_path / "out", launch={"type": "deepspeed"}, checkpoint_every=2)
    file = tmp_path / "launch" / "job.json"
    file.parent.mkdir()
    file.write_text(made.model_dump_json())
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from prover.training.process import main; sys.exit(main(sys.argv[1:]))"
    )
    done = alone(code, str(file))
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in (file.parent / "failure-0.json").read_text()
    assert not [path for path in made.work.rglob("*") if path.is_file()]


def alone(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it as the only process of a launch."""
    told = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, env={**os.environ, **told, "DS_ACCELERATOR": "cpu"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "NCCL error: unhandled cuda error. Last error:\nCuda failure 2 'out of memory'",
    ],
)
def test_memory_that_torch_does_not_allocate_itself_is_told_of_too(said: str) -> None:
    with (
        pytest.raises(TrainingError, match=r"^out of memory on the GPU; lower launch\.micro_batch_tokens"),
        memory_errors(SingleLaunch()),
    ):
        raise RuntimeError(said)


@pytest.mark.parametrize("kind", ["single", "deepspeed"])
def test_too_little_memory_names_the_settings(base: Path, examples: Path, tmp_path: Path, kind: str) -> None:
    """The address space is limited once a small training has loaded everything, in a process of its own."""
    if kind == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    many = tmp_path / "many.jsonl"
    many.write_bytes(examples.read_bytes() * 60)
    launch = {"type": kind, **({} if kind == "single" else {"zero": 1})}
    small = job(base, examples, tmp_path / "small", launch=launch, precision="float32", steps=2)
    made = job(base, many, tmp_path / "out", launch=launch, batch_tokens=60_000, precision="float32")
    file = tmp_path / "launch" / "job.json"
    file.parent.mkdir()
    file.write_text(made.model_dump_json())
    code = (
        "import resource, sys, psutil\n"
        "from prover.training.job import SftJob\n"
        "from prover.training.loop import train\n"
        "from prover.training.process import main\n"
        "train(SftJob.model_validate_json(sys.argv[2]))\n"
        "size = psutil.Process().memory_info().vms + 150_000_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "sys.exit(main(sys.argv[1:2]))"
    )
    done = alone(code, str(file), small.model_dump_json())
    assert done.returncode == 2, done.stderr
    said = done.stderr if kind == "single" else (file.parent / "failure-0.json").read_text()
    assert re.search(r"out of memory.*lower launch\.micro_batch_tokens \(now the whole batch\)", said), said
    assert ("raise launch.zero (now 1)" in said) == (kind == "deepspeed")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "cannot be read"),
        ("node1 slots=8\nnode2\n", "has the line 'node2'"),
        ("# nobody\n", "names no host;"),
        ("node1 slots=8\n", "names one host only"),
    ],
)
@needs_deepspeed
def test_a_hostfile_that_names_no_hosts_is_refused(
    base: Path, examples: Path, tmp_path: Path, text: str | None, line: str
) -> None:
    hosts = tmp_path / "hosts"
    if text is not None:
        hosts.write_text(text)
    with pytest.raises(ConfigError, match=rf"launch\.hosts: .*{line}"):
        run(job(base, examples, tmp_path, launch={**TWO, "hosts": str(hosts)}))


def test_offload_needs_something_split() -> None:
    with pytest.raises(ValueError, match="needs zero = 1, 2 or 3"):
        DeepSpeedLaunch(type="deepspeed", zero=0, offload="optimizer")
    with pytest.raises(ValueError, match="needs zero = 3, here it is 2"):
        DeepSpeedLaunch(type="deepspeed", zero=2, offload="parameters")
