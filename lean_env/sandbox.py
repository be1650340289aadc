"""How a Lean process is confined, and what of that holds on this machine.

Run as a script (``python -I -S sandbox.py SPEC ARGV...``) this file is the launcher that becomes the Lean process: it
lays the limits on itself and then executes ARGV, so that nothing of the confined program runs before they hold. It
imports only the standard library, and only what start-up needs.

Covered here
    * rlimits, as the toolchain asks, and always: no core files, files of size 0 only, few descriptors;
    * death with the driver: SIGKILL when the thread that started the process ends, even by kill -9 (Linux);
    * no new privileges, and none of root's (Linux);
    * Landlock where the kernel has it (5.13 and later): no writes anywhere, reading and executing only the paths that
      the toolchain names and the system's shared libraries, no TCP (6.7), no signals to processes outside (6.12);
    * seccomp (x86-64 and arm64): no sockets, no processes, no tracing, no mounts, no second execve, no change to any
      file: :mod:`lean_env.seccomp`;
    * bubblewrap, for a native Lean, where it is installed and may make name spaces: a file system of the named paths
      alone, a /proc of its own, an empty /tmp in memory, no network.
Covered elsewhere
    * processor time, wall time, resident memory, reply size, kill of the whole process group, and the seal of the
      channel: :mod:`lean_env.worker`;
    * no host files, no environment, no network, no processes as Lean sees them: the loader of the embedded Lean.
Not covered
    * shared memory of this user's other processes by means other than the above; bugs of the kernel or of Node;
    * without Landlock and bubblewrap, what this user may read: that is what ``--require-sandbox`` refuses to accept;
    * a share of the processors: a worker may use all cores until its time is up.
"""

import json
import os
import stat
import sys
from typing import Any, Literal, NamedTuple

Kind = Literal["embedded", "native"]

# Numbers from linux/landlock.h, linux/prctl.h and the generic system call table (the same on x86-64 and arm64).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many access rights each version of the interface knows; 16 from version 5
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SIGKILL = 9

REQUEST_FD, VERDICT_FD = 3, 4
"""Where a native worker finds its channel, opening ``/proc/self/fd/N``."""

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
# What Lean and Node ask about the machine. Of /proc/self only the map, which tells glibc where the stack ends: its
# memory and its environment lie beside it.
_SYSTEM_FILES = (
    *("/proc/self/maps", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/version"),
    *("/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/null", "/dev/urandom", "/dev/random"),
)


class Confinement(NamedTuple):
    """One layer of confinement: its name, whether it holds on this machine, and what it gives or why it is missing."""

    name: str
    active: bool
    detail: str


def confinement(kind: Kind = "embedded") -> list[Confinement]:
    """What confines a Lean process of this kind on this machine, for ``prover doctor`` and ``run.json``."""
    from lean_env import bubblewrap, seccomp  # not at the top: the launcher does without

    linux = sys.platform == "linux"
    version = landlock_version() if linux else 0
    parts = ["no writes", "reads only Lean and system libraries"]
    parts += ["no TCP"] * (version >= 4) + ["no signals outside"] * (version >= 6)
    filtered = seccomp.available()
    layers = [
        Confinement(
            "deadlines", linux, "processor time, wall time and memory are watched; the process group is killed"
        ),
        Confinement("rlimits", True, "no core files, no file growth, few descriptors"),
        Confinement(
            "parent death", linux, "workers die with the driver" if linux else "needs Linux; EOF on stdin remains"
        ),
        Confinement(
            "landlock",
            version > 0,
            ", ".join(parts) if version else "the kernel does not offer it (Linux 5.13 or later)",
        ),
        Confinement(
            "seccomp",
            filtered,
            "no sockets, no processes, no tracing, no change to files"
            if filtered
            else "needs a Linux kernel with seccomp on x86-64 or arm64",
        ),
    ]
    if kind == "embedded":
        detail = "Lean sees no host files, environment, network or processes: its file system is the loader's"
        return [*layers, Confinement("webassembly", True, detail)]
    return [*layers, Confinement("bubblewrap", *bubblewrap.state())]


def missing(kind: Kind) -> list[str]:
    """What ``--require-sandbox`` asks for and this machine does not give, each with the reason; empty: all holds.

    Asked for are all layers, but one of Landlock and bubblewrap is enough for a native Lean: each of them shuts out the
    host's files, processes and network.
    """
    layers = {layer.name: layer for layer in confinement(kind)}
    wanted = [name for name in layers if name not in ("landlock", "bubblewrap")]
    if "bubblewrap" not in layers or not layers["bubblewrap"].active:
        wanted.append("landlock")
    return [f"{name}: {layers[name].detail}" for name in wanted if not layers[name].active]


def require(kind: Kind) -> None:
    """What ``--require-sandbox`` does. Raises SandboxError where :func:`missing` has something to say."""
    from lean_env.errors import SandboxError  # not at the top: the launcher does without

    if absent := missing(kind):
        raise SandboxError(
            f"--require-sandbox: this machine does not confine the {kind} Lean as asked ({'; '.join(absent)}); "
            "`prover doctor` lists what it has"
        )


def command(
    argv: tuple[str, ...],
    rlimits: dict[str, tuple[int, int]],
    readable: tuple[str, ...],
    executable: tuple[str, ...],
    *,
    kind: Kind = "embedded",
    cwd: str = "/",
) -> list[str]:
    """The command line that starts ``argv`` confined, in ``cwd``. To be spawned by this very process, with the
    environment ``argv`` is to have.

    ``rlimits`` maps names without ``RLIMIT_`` to soft and hard values (-1: unlimited), lowered to what the hard limit
    allows. ``readable`` and ``executable`` are the paths, with all below, that it needs beyond the system's libraries.
    A ``native`` one gets its standard input and output as descriptors 3 and 4 instead (:data:`REQUEST_FD`).
    """
    from pathlib import Path

    from lean_env import bubblewrap, seccomp

    limits: dict[str, Any] = {"parent": os.getpid(), "rlimits": rlimits}
    domain: dict[str, Any] = {"readable": readable, "executable": executable, "cwd": cwd}
    if seccomp.available():
        domain["seccomp"] = seccomp.refusals(execute_once=not _is_script(argv[0]))
    if kind == "native":
        domain["channel"] = [REQUEST_FD, VERDICT_FD]
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    if kind == "native" and bubblewrap.state()[0]:
        seen = (*_SYSTEM_LIBRARIES, *readable, *executable, *bubblewrap.launcher_paths(__file__))
        inner = [bubblewrap.python(), *launcher[1:], json.dumps(domain), *argv]
        return [*launcher, json.dumps(limits), *bubblewrap.command(seen), *inner]
    return [*launcher, json.dumps({**limits, **domain}), *argv]


def limited(argv: list[str], rlimits: dict[str, tuple[int, int]]) -> list[str]:
    """The command line that starts a program of the user's own under rlimits (as :func:`command` takes them), without
    new privileges, to die with the thread that spawns it. Its files and system calls are not confined."""
    limits = json.dumps({"parent": os.getpid(), "rlimits": rlimits})
    return [sys.executable, "-I", "-S", os.path.realpath(__file__), limits, *argv]


def _is_script(program: str) -> bool:
    """The kernel executes a script's interpreter by itself; what the script executes in turn needs another execve."""
    try:
        with open(program, "rb") as file:  # noqa: PTH123 - pathlib is not for the launcher
            return file.read(2) == b"#!"
    except OSError:
        return False  # the launcher will say so


def landlock_version() -> int:
    """Version of the kernel's Landlock interface; 0 where there is none."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def _set_rlimits(rlimits: dict[str, tuple[int, int]]) -> None:
    import resource

    wanted = {"CORE": (0, 0), "FSIZE": (0, 0), "NOFILE": (256, 256), **rlimits}
    for name, (soft, hard) in wanted.items():
        which = int(getattr(resource, "RLIMIT_" + name))
        ceiling = resource.getrlimit(which)[1]
        hard = ceiling if hard == -1 else hard if ceiling == -1 else min(hard, ceiling)
        soft = hard if soft == -1 else soft if hard == -1 else min(soft, hard)
        resource.setrlimit(which, (soft, hard))


def _restrict_paths(readable: list[str], executable: list[str]) -> None:
    """Lays a Landlock domain on this process and all that it becomes. Does nothing where the kernel has no Landlock."""
    import ctypes
    import struct

    version = landlock_version()
    if version == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    fs = (1 << _FS_BITS.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", fs, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    execute = _EXECUTE | _READ_FILE | _READ_DIR
    for path, access in [(p, execute) for p in executable] + [(p, _READ_FILE | _READ_DIR) for p in readable]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= ~_READ_DIR
        rule = struct.pack("=Qi", access, fd)
        if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) < 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule {path}")
        os.close(fd)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0) < 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


def _drop_capabilities(libc: Any) -> None:
    """So that root's worker is no more than any other user's. With no new privileges, execve gives none back."""
    import ctypes
    import struct

    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    if libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def _filter_calls(libc: Any, spec: list[Any], address: int) -> None:
    """Lays the driver's filter on this process, with this process's id and the address of the path to be executed."""
    import ctypes
    import struct

    code, pid_places, path_places = [list(line) for line in spec[0]], spec[1], spec[2]
    for place in pid_places:
        code[place][3] = os.getpid()
    for place, half in zip(path_places, (address & 0xFFFFFFFF, address >> 32)):
        code[place][3] = half
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    packed = struct.pack("@HP", len(code), ctypes.addressof(program))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(packed), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def _hand_over_channel(request: int, verdict: int) -> None:
    """Standard input and output become the channel; what the program reads and prints itself leads nowhere."""
    for fd, channel in ((0, request), (1, verdict)):
        os.dup2(fd, channel, inheritable=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd, inheritable=True)
    os.close(nothing)


def _execute(libc: Any, argv: list[str], environment: dict[str, str], calls: list[Any] | None) -> None:
    import ctypes

    path = ctypes.create_string_buffer(os.fsencode(argv[0]))
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*map(os.fsencode, argv), None)
    pairs = [os.fsencode(f"{name}={value}") for name, value in environment.items()]
    variables = (ctypes.c_char_p * (len(pairs) + 1))(*pairs, None)
    if calls is not None:
        _filter_calls(libc, calls, ctypes.addressof(path))
    libc.execve(path, arguments, variables)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), argv[0])


def _launch(spec_text: str, argv: list[str]) -> None:
    """Lays on what ``spec`` names, and becomes ``argv``. Under bubblewrap it runs twice: outside for what belongs to
    the driver's side, inside for what would keep bubblewrap itself from working."""
    spec = json.loads(spec_text)
    # Node ends at once where it may not read the system's OpenSSL configuration.
    environment = {"OPENSSL_CONF": os.devnull, **os.environ}
    environment.pop("LC_CTYPE", None)  # Python's own doing
    if sys.platform != "linux":
        _set_rlimits(spec["rlimits"])
        os.execve(argv[0], argv, environment)
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if "parent" in spec:
        if os.getppid() != spec["parent"]:  # the driver died before the signal was asked for
            os._exit(1)
        _set_rlimits(spec["rlimits"])
    if "readable" in spec:
        os.chdir(spec["cwd"])
        if "channel" in spec:
            _hand_over_channel(*spec["channel"])
        _restrict_paths([*spec["readable"], *_SYSTEM_FILES], [*spec["executable"], *_SYSTEM_LIBRARIES])
        _drop_capabilities(libc)
    _execute(libc, argv, environment, spec.get("seccomp"))


if __name__ == "__main__":
    _launch(sys.argv[1], sys.argv[2:])
