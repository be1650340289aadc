"""What code that has broken out of Lean can do on the host: each escape is tried by a process that runs whatever it is
sent, started exactly as workers are (:mod:`lean_env.sandbox`). Errors tell which layer refuses: EPERM the system call
filter, EACCES Landlock, ENOENT bubblewrap's file system.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lean_env import bubblewrap, sandbox, seccomp
from lean_env.protocol import Limits
from lean_env.toolchain import find
from lean_env.worker import Launch, Worker, WorkerLost

PROBE = Path(__file__).with_name("confined_worker.py")
LIMITS = Limits(cpu_seconds=30.0, wall_seconds=120.0)
ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(Path(sys.executable).resolve())

pytestmark = pytest.mark.skipif(
    not (sandbox.confinement()[3].active and seccomp.available()), reason="this kernel has no Landlock or no seccomp"
)


def launch(wrapped: bool, *readable: Path) -> Launch:
    """As :meth:`lean_env.native.NativeToolchain.launch` does, for a Python in place of Lean."""
    paths = (sys.base_prefix, sys.prefix, str(Path(PYTHON).parent), str(PROBE), *map(str, readable))
    argv = sandbox.command(
        (PYTHON, "-I", "-S", str(PROBE)), {"DATA": (4 << 30, 4 << 30)}, paths, (PYTHON,), kind="native"
    )
    environment = {"PROVER_REQUEST": "/proc/self/fd/3", "PROVER_VERDICT": "/proc/self/fd/4"}
    return Launch(tuple(argv), environment, wrapped)


@pytest.fixture(params=["bubblewrap", "landlock"])
def wrapped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both ways that a native worker is confined: with bubblewrap around it and without."""
    bubblewrap.state.cache_clear()
    if request.param == "bubblewrap" and not bubblewrap.state()[0]:
        pytest.skip(bubblewrap.state()[1])
    if request.param == "landlock":
        monkeypatch.setenv("PATH", "/nonexistent")
        bubblewrap.state.cache_clear()
    yield request.param == "bubblewrap"
    bubblewrap.state.cache_clear()


@pytest.fixture
def worker(wrapped: bool, tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "readable").mkdir()
    (tmp_path / "readable" / "text").write_text("library")
    (tmp_path / "readable" / "closed").write_text("root's")
    (tmp_path / "readable" / "closed").chmod(0)
    (tmp_path / "secret").write_text("secret")
    with Worker(launch(wrapped, tmp_path / "readable")) as worker:
        worker.wait_ready()
        yield worker


def ask(worker: Worker, code: str, limits: Limits = LIMITS) -> str:
    return str(worker.ask({"code": code}, limits)["said"])


def test_files_of_the_host(worker: Worker, wrapped: bool, tmp_path: Path) -> None:
    outside = "ENOENT" if wrapped else "EACCES"
    assert ask(worker, f"open('{tmp_path}/readable/text').read()") == "library"
    assert ask(worker, f"open('{tmp_path}/readable/closed').read()") == "EACCES"  # for root too: no capabilities
    assert ask(worker, f"open('{tmp_path}/secret').read()") == outside
    assert ask(worker, "open('/etc/passwd').read()") == outside
    for act in ("os.listdir('/etc')", "os.listdir('/root')", "os.listdir('/home')"):
        assert ask(worker, act) in ("ENOENT", "EACCES"), act


def test_writing(worker: Worker, wrapped: bool, tmp_path: Path) -> None:
    text, new = f"{tmp_path}/readable/text", f"{tmp_path}/readable/new"
    for act in (
        *(f"open('{path}', '{mode}')" for path in (text, new, "/tmp/new") for mode in ("w", "r+", "x")),
        f"os.unlink('{text}')",
        f"os.rename('{text}', '{new}')",
        f"os.truncate('{text}', 0)",
        f"os.mkdir('{new}')",
        f"os.symlink('{text}', '{new}')",
        f"os.link('{text}', '{new}')",
        f"os.chmod('{text}', 0o777)",
        f"os.utime('{text}')",
        f"os.mkfifo('{new}')",
        "os.memfd_create('x')",
    ):
        assert ask(worker, act) == "EPERM", act
    # Opening for appending passes the filter; what it would make or change does not pass the layers behind it.
    behind = ("EROFS", "EACCES")
    assert ask(worker, f"open('{text}', 'a')") in behind
    assert ask(worker, f"open('{new}', 'a')") in behind
    assert (tmp_path / "readable" / "text").read_text() == "library"
    assert sorted(p.name for p in (tmp_path / "readable").iterdir()) == ["closed", "text"]


def test_environment(worker: Worker) -> None:
    names = eval(ask(worker, "sorted(os.environ)"))
    assert set(names) <= {"LC_CTYPE", "OPENSSL_CONF", "PROVER_REQUEST", "PROVER_VERDICT", "PWD"}


def test_network(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
            assert ask(worker, f"socket.socket(socket.{family}, socket.SOCK_DGRAM)") == "EPERM", family
        assert ask(worker, f"socket.create_connection(('127.0.0.1', {port}), 5)") == "EPERM"
        assert ask(worker, "socket.socketpair()") == "EPERM"
        assert not select.select([server], [], [], 0)[0], "something connected"


def test_processes(worker: Worker) -> None:
    assert ask(worker, "os.fork()") == "EPERM"
    assert ask(worker, "subprocess.run(['/bin/true'])") == "EPERM"
    assert ask(worker, f"os.posix_spawn('{PYTHON}', ['python'], {{}})") == "EPERM"
    for program in ("/bin/sh", PYTHON):
        assert ask(worker, f"os.execv('{program}', ['x'])") == "EPERM", program
    assert ask(worker, "in_thread(lambda: 7)") == "7", "threads are needed"
    assert ask(worker, "pthread_stack()") == "0", "glibc reads where the stack ends, and Lean asks it"


def test_other_processes(worker: Worker, wrapped: bool) -> None:
    me, unreadable = os.getpid(), ("ENOENT", "EACCES")
    for name in ("environ", "mem", "maps", "cmdline"):
        assert ask(worker, f"open('/proc/{me}/{name}', 'rb').read()") in unreadable, name
        assert ask(worker, f"open(f'/proc/{{os.getppid()}}/{name}', 'rb').read()") in unreadable, name
    for name in ("mem", "environ"):
        assert ask(worker, f"open('/proc/self/{name}', 'rb').read(1)") == "EACCES", name
    for victim in (me, "os.getppid()", "-1", "0"):
        assert ask(worker, f"os.kill({victim}, signal.SIGTERM)") == "EPERM"
    attach, parent = 16, "os.getppid()"
    assert ask(worker, f"call({101 if os.uname().machine == 'x86_64' else 117}, {attach}, {parent}, 0, 0)") == "EPERM"
    assert ask(worker, f"os.pidfd_open({me})") == "EPERM"
    assert ask(worker, f"__import__('resource').prlimit({me}, 7)") == "EPERM"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
def test_the_kernel(worker: Worker) -> None:
    newns, newuser = 0x20000, 0x10000000
    for name, number, arguments in (
        ("mount", 165, "None, b'/', None, 0, None"),
        ("unshare", 272, str(newns | newuser)),
        ("chroot", 161, "b'/'"),
        ("bpf", 321, "0, None, 0"),
        ("perf_event_open", 298, "None, 0, 0, -1, 0"),
        ("io_uring_setup", 425, "1, None"),
        ("keyctl", 250, "0, 0"),
        ("userfaultfd", 323, "0"),
        ("execveat", 322, "-1, None, None, None, 0"),
        ("process_vm_readv", 310, "1, None, 0, None, 0, 0"),
        ("ptrace, by the numbers of x32", 0x40000000 + 521, "0"),
    ):
        assert ask(worker, f"call({number}, {arguments})") in ("EPERM", "ENOSYS"), name
    for name, number in (("clone3", 435), ("openat2", 437)):
        assert ask(worker, f"call({number}, None, 0)") == "ENOSYS", name


def test_the_channel_is_sealed(worker: Worker) -> None:
    """Not by name, not by /proc/self/fd, not by taking back the right: neither what was inherited nor the handles."""
    for fd in ("3", "4", "2", "{fds[0]}", "{fds[1]}"):
        for mode in ("rb", "ab"):
            assert ask(worker, f"open(f'/proc/self/fd/{fd}', '{mode}')") in ("EACCES", "EPERM"), (fd, mode)
        assert ask(worker, f"os.chmod(f'/proc/self/fd/{fd}', 0o600)") == "EPERM"
    assert ask(worker, "os.fchmod(3, 0o600)") == "EPERM"
    # What it prints leads nowhere, and what it reads is nothing.
    assert ask(worker, 'os.write(1, b\'{"nonce": "0"}\\n\')') == "15"
    assert ask(worker, "os.read(0, 100)") == "b''"


def test_a_forged_reply_ends_the_worker(worker: Worker) -> None:
    with pytest.raises(WorkerLost) as loss:
        worker.ask({"code": 'os.write(fds[0], b\'{"nonce": "0", "status": "proved"}\\n\')'}, LIMITS)
    assert loss.value.kind == "protocol"


def test_memory(worker: Worker) -> None:
    assert ask(worker, "filled(100)") == "filled"
    assert ask(worker, "len(bytearray(8 << 30))") == "MemoryError", "beyond what it may hold at all"
    with pytest.raises(WorkerLost) as loss:
        ask(worker, "filled(3000)", Limits(cpu_seconds=60.0, wall_seconds=120.0, memory_mb=500))
    assert loss.value.kind == "memory"


def test_processor_time(worker: Worker) -> None:
    """Counted for the process that computes, whichever process was started."""
    with pytest.raises(WorkerLost, match=r"0\.5 s of CPU time used up"):
        ask(worker, "[0 for _ in iter(int, 1)]", Limits(cpu_seconds=0.5, wall_seconds=100.0))


DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lean_env.worker import Worker, innermost
from tests.attacks.test_confinement import launch
worker = Worker(launch(sys.argv[2] == "True"))
worker.wait_ready()
print(innermost(worker.pid), flush=True)
time.sleep(100)
"""


def test_workers_die_with_a_driver_that_is_killed(wrapped: bool) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(ROOT), str(wrapped)], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    watch = os.pidfd_open(int(driver.stdout.readline()))  # readable once the worker has ended
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert select.select([watch], [], [], 10)[0], "the worker outlived its driver"
    os.close(watch)


NODE_PROBE = """
const fs = require('fs'), net = require('net'), child = require('child_process');
const tried = (act) => { try { act(); return 'done'; } catch (error) { return error.code ?? String(error); } };
const said = {
  read: tried(() => fs.readFileSync('/etc/passwd')),
  secret: tried(() => fs.readFileSync(process.argv[2] + '/secret')),
  environ: tried(() => fs.readFileSync('/proc/self/environ')),
  driver: tried(() => fs.readFileSync(`/proc/${process.ppid}/environ`)),
  write: tried(() => fs.writeFileSync(process.argv[2] + '/new', 'x')),
  unlink: tried(() => fs.unlinkSync(process.argv[2] + '/secret')),
  spawn: child.spawnSync('/bin/true').error?.code ?? 'done',
  kill: tried(() => process.kill(process.ppid, 0)),
  variables: Object.keys(process.env),
};
const socket = net.connect(Number(process.argv[3]), '127.0.0.1');
socket.on('connect', () => { said.connect = 'done'; console.log(JSON.stringify(said)); process.exit(); });
socket.on('error', (error) => { said.connect = error.code; console.log(JSON.stringify(said)); process.exit(); });
"""


def test_code_that_escapes_webassembly(tmp_path: Path) -> None:
    """Node without its own permission model and without our loader, confined as the embedded Lean's is."""
    (tmp_path / "secret").write_text("secret")
    script = tmp_path / "probe.js"
    script.write_text(NODE_PROBE)
    node = str(find().node)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        line = sandbox.command((node, str(script), str(tmp_path), port), {}, (str(script),), (node,))
        done = subprocess.run(line, env={}, capture_output=True, text=True, check=True)
        assert not select.select([server], [], [], 0)[0], "something connected"
    said = json.loads(done.stdout)
    assert said.pop("variables") == ["OPENSSL_CONF"]
    refused = {"read": "EACCES", "secret": "EACCES", "environ": "EACCES", "driver": "EACCES"}
    assert said == {
        **refused,
        "write": "EPERM",
        "unlink": "EPERM",
        "spawn": "EPERM",
        "kill": "EPERM",
        "connect": "EPERM",
    }
    assert (tmp_path / "secret").exists() and not (tmp_path / "new").exists()


def test_the_embedded_lean_runs_under_all_of_it() -> None:
    with Worker(find().launch()) as worker:
        worker.wait_ready()
        status = dict(line.split(":\t") for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == 0


NO_LANDLOCK = """
import ctypes, os, struct, sys
code = struct.pack("=" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 444, 6, 0, 0, 0x50026, 6, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None)
assert not libc.prctl(38, 1, 0, 0, 0)
assert not libc.prctl(22, 2, struct.pack("@HP", 4, ctypes.addressof(buffer)), 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def prover(*arguments: object, path: str) -> subprocess.CompletedProcess[str]:
    """The command line on a machine whose kernel has no Landlock: it is answered ENOSYS."""
    argv = [sys.executable, "-c", NO_LANDLOCK, sys.executable, "-m", "prover", *map(str, arguments)]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_sandbox_that_is_asked_for_and_not_there_is_refused(tmp_path: Path) -> None:
    source, run = tmp_path / "in.jsonl", tmp_path / "run"
    source.write_text(json.dumps({"id": "a", "header": "", "formal_statement": "theorem t : True", "proof": "trivial"}))
    config = tmp_path / "c.toml"
    config.write_text('[train]\nsource = "core"\nsplit = "train"\n[model]\ntype = "init"\n')
    said = "error: --require-sandbox: this machine does not confine the {} Lean as asked (landlock: "
    for arguments in (
        ("check", "--jsonl", source, "--out", tmp_path / "out.jsonl"),
        ("check", "--jsonl", source, "--out", tmp_path / "out.jsonl", "--lean-project", tmp_path),
        ("iterate", config, "--run-dir", run),
        ("verify", tmp_path, "--problems", tmp_path, "--out", run),
        ("evaluate", tmp_path, "--portfolio", "--out", run),
        ("problems", "jsonl", source, "--elaborates"),
    ):
        done = prover(*arguments, "--require-sandbox", path="/nonexistent")
        kind = "native" if "--lean-project" in arguments else "embedded"
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(said.format(kind)) and "`prover doctor`" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_either_of_landlock_and_bubblewrap_is_enough_for_a_native_lean() -> None:
    assert sandbox.missing("native") == [] and sandbox.missing("embedded") == []
    if not bubblewrap.state()[0]:
        pytest.skip(bubblewrap.state()[1])
    code = "from lean_env import sandbox; print(len(sandbox.missing('native')), len(sandbox.missing('embedded')))"
    argv = [sys.executable, "-c", NO_LANDLOCK, sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "0 1\n"


def test_without_landlock_the_filter_still_keeps_files_as_they_are(tmp_path: Path) -> None:
    """The worst machine on which anything runs: no Landlock, no bubblewrap. Reading is what nothing stops there."""
    (tmp_path / "text").write_text("host's")
    code = f"""
from tests.attacks.test_confinement import ask, launch
from lean_env.worker import Worker
with Worker(launch(False)) as worker:
    worker.wait_ready()
    for act in ("open('{tmp_path}/text').read()", "open('{tmp_path}/text', 'w')", "os.unlink('{tmp_path}/text')",
                "open('{tmp_path}/text', 'ab', buffering=0).write(b'x')", "open('/proc/self/fd/3', 'rb')"):
        try:
            print(ask(worker, act))
        except Exception as error:
            print(type(error).__name__)
            break
"""
    argv = [sys.executable, "-c", NO_LANDLOCK, sys.executable, "-c", code]
    environment = {**os.environ, "PATH": "/nonexistent"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["host's", "EPERM", "EPERM", "EFBIG", "EACCES"], done
    assert (tmp_path / "text").read_text() == "host's"
