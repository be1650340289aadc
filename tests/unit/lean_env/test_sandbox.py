"""What a process started by the launcher can and cannot do on this machine."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lean_env import sandbox
from lean_env.worker import Launch, Worker, WorkerLost

ACTIVE = {layer.name: layer.active for layer in sandbox.confinement()}
landlock = pytest.mark.skipif(not ACTIVE["landlock"], reason="this kernel has no Landlock")

PROBE = """
import json, os, resource, socket, sys

def tried(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"

print(json.dumps({
    "host file": tried(lambda: open("/etc/hostname").read()),
    "driver's environment": tried(lambda: open(f"/proc/{os.getppid()}/environ").read()),
    "write": tried(lambda: open(sys.argv[1], "w")),
    "tcp": tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
    "signal": tried(lambda: os.kill(os.getppid(), 0)),
    "rlimits": [resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0],
                resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_STACK)[0]],
    "environment": sorted(os.environ),
}))
"""


def python_paths() -> tuple[str, ...]:
    return (sys.base_prefix, sys.prefix, str(Path(sys.executable).resolve().parent))


def probe(tmp_path: Path) -> dict[str, object]:
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    python = str(Path(sys.executable).resolve())
    argv = (python, "-I", "-S", str(script), str(tmp_path / "written"))
    line = sandbox.command(argv, {"STACK": (4 << 20, -1)}, (str(script),), python_paths())
    done = subprocess.run(line, env={"ONE": "1"}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@landlock
def test_landlock_shuts_out_the_host(tmp_path: Path) -> None:
    seen = probe(tmp_path)
    assert seen["host file"] == seen["driver's environment"] == seen["write"] == "PermissionError"
    assert not (tmp_path / "written").exists()
    if sandbox.landlock_version() >= 4:
        assert seen["tcp"] == "PermissionError"
    if sandbox.landlock_version() >= 6:
        assert seen["signal"] == "PermissionError"


def test_rlimits_and_environment(tmp_path: Path) -> None:
    seen = probe(tmp_path)
    assert seen["rlimits"] == [0, 0, 256, 4 << 20]
    environment = seen["environment"]
    assert isinstance(environment, list) and set(environment) - {"LC_CTYPE"} == {"ONE", "OPENSSL_CONF"}


def test_a_program_that_is_not_there_is_a_lost_worker() -> None:
    line = sandbox.command(("/nonexistent/node",), {}, (), ())
    with Worker(Launch(tuple(line), {})) as worker, pytest.raises(WorkerLost, match="No such file"):
        worker.wait_ready()


DRIVER = """
import sys, time
from lean_env import sandbox
from lean_env.worker import Launch, Worker
python = sys.argv[1]
argv = sandbox.command((python, "-I", "-S", "-c", "while True: pass"), {}, (), sys.argv[2:])
worker = Worker(Launch(tuple(argv), {}))
print(worker.pid, flush=True)
time.sleep(100)
"""


def test_workers_die_with_a_driver_that_is_killed() -> None:
    python = str(Path(sys.executable).resolve())
    argv = [sys.executable, "-c", DRIVER, python, *python_paths()]
    driver = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    watch = os.pidfd_open(pid)  # readable once the worker has ended
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert select.select([watch], [], [], 10)[0], "the worker outlived its driver"
    os.close(watch)
