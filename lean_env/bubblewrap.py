"""bubblewrap around a native Lean: a file system of the named paths alone, and name spaces of its own.

Used where ``bwrap`` is installed and may make name spaces; :mod:`lean_env.sandbox` lays its other layers on inside.
"""

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_FLAGS = ("--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev")
_TMP = ("--size", "16777216", "--tmpfs", "/tmp")


@functools.cache
def state() -> tuple[bool, str]:
    """Whether it holds on this machine, and what it gives or why it does not. Tried once in each process."""
    bwrap = shutil.which("bwrap") if sys.platform == "linux" else None
    if bwrap is None:
        return False, "bwrap is not installed"
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return False, "this kernel does not list child processes, by which the worker's time is measured"
    done = subprocess.run(
        [bwrap, *_FLAGS, *_TMP, *_bound(["/lib", "/lib64", "/usr", "/bin"]), "/usr/bin/env"],
        capture_output=True,
        text=True,
        env={},
    )
    if done.returncode:
        return False, f"bwrap may not make name spaces here ({done.stderr.strip().splitlines()[-1:] or ''})"
    return True, "a file system of Lean's files alone, own processes, own /tmp, no network"


def command(seen: Iterable[str]) -> list[str]:
    """The beginning of a command line: what follows runs with only the paths ``seen``, read-only, from the host."""
    return [str(shutil.which("bwrap")), *_FLAGS, *_TMP, *_bound(seen), "--"]


def _bound(paths: Iterable[str]) -> list[str]:
    return [word for path in dict.fromkeys(paths) for word in ("--ro-bind-try", path, path)]


def python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return str(Path(sys.executable).resolve())


def launcher_paths(launcher: str) -> list[str]:
    """What the launcher needs to run inside: its own file, and Python with its standard library."""
    paths = [str(Path(launcher).resolve()), python()]
    paths += [str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "platstdlib")]
    library, folder = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    return paths + ([str(Path(folder) / library)] if library and folder else [])
