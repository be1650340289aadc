"""How a Lean process is confined, and what of that holds on this machine.

Run as a script (``python -I -S sandbox.py SPEC ARGV...``) this file is the launcher that becomes the Lean process: it
lays the limits on itself and then executes ARGV, so that nothing of the confined program runs before they hold. It
imports only the standard library, and only what start-up needs.

Covered here
    * rlimits, as the toolchain asks, and always: no core files, files of size 0 only, few descriptors;
    * death with the driver: SIGKILL when the thread that started the process ends, even by kill -9 (Linux);
    * no new privileges (Linux);
    * Landlock where the kernel has it (5.13 and later): no writes anywhere, reading and executing only the paths that
      the toolchain names and the system's shared libraries, no TCP (6.7), no signals to processes outside (6.12).
Covered elsewhere
    * processor time, wall time, resident memory, reply size, kill of the whole process group: :mod:`lean_env.worker`;
    * no host files, no environment, no network, no processes as Lean sees them: the loader of the embedded Lean.
Not covered
    * other sockets than TCP, and IPC, if code escapes both Lean and the WebAssembly machine; bugs of the kernel or of
      Node;
    * a share of the processors: a worker may use all cores until its time is up.
"""

import json
import os
import stat
import sys
from typing import NamedTuple

# Numbers from linux/landlock.h, linux/prctl.h and the generic system call table (the same on x86-64 and arm64).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many access rights each version of the interface knows; 16 from version 5
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
# What Node asks about the machine. Of /proc only its own entry: the driver's environment lies beside it.
_SYSTEM_FILES = (
    *("/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/version"),
    *("/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/null", "/dev/urandom", "/dev/random"),
)


class Confinement(NamedTuple):
    """One layer of confinement: its name, whether it holds on this machine, and what it gives or why it is missing."""

    name: str
    active: bool
    detail: str


def confinement() -> list[Confinement]:
    """What confines a Lean process on this machine, for ``prover doctor``."""
    linux = sys.platform == "linux"
    version = landlock_version() if linux else 0
    parts = ["no writes", "reads only Lean and system libraries"]
    parts += ["no TCP"] * (version >= 4) + ["no signals outside"] * (version >= 6)
    return [
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
    ]


def command(
    argv: tuple[str, ...], rlimits: dict[str, tuple[int, int]], readable: tuple[str, ...], executable: tuple[str, ...]
) -> list[str]:
    """The command line that starts ``argv`` confined. To be spawned by this very process, with the environment
    ``argv`` is to have.

    ``rlimits`` maps names without ``RLIMIT_`` to soft and hard values (-1: unlimited), lowered to what the hard limit
    allows.
    """
    from pathlib import Path  # not at the top: the launcher does without

    spec = {"parent": os.getpid(), "rlimits": rlimits, "readable": readable, "executable": executable}
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), json.dumps(spec), *argv]


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


def _launch(spec_text: str, argv: list[str]) -> None:
    spec = json.loads(spec_text)
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != spec["parent"]:  # the driver died before the signal was asked for
            os._exit(1)
    _set_rlimits(spec["rlimits"])
    if sys.platform == "linux":
        _restrict_paths([*spec["readable"], *_SYSTEM_FILES], [*spec["executable"], *_SYSTEM_LIBRARIES])
    # Node ends at once where it may not read the system's OpenSSL configuration.
    os.execve(argv[0], argv, {"OPENSSL_CONF": os.devnull, **os.environ})


if __name__ == "__main__":
    _launch(sys.argv[1], sys.argv[2:])
