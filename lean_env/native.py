"""A native Lean: the toolchain of a Lake project, with whatever the project requires (Mathlib, or nothing).

The project's own ``lake`` says which Lean and which libraries. The worker is compiled by that Lean on first use, into
the cache directory of :mod:`lean_env.toolchain`, under a name that covers the toolchain, the project's manifest and our
sources; lake takes no part in running it.

Written for Lean v4.28.0. It has been tried with a stand-in for lake and lean that runs the embedded 4.28.0-pre, not yet
with a native one: ``tests/integration/test_native.py`` has the test that does.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec

from lean_env import bubblewrap, sandbox
from lean_env.errors import ToolchainError
from lean_env.install import WORKER, Progress, disk_errors, lock, making, sweep, tell_nobody, whole, write_sources
from lean_env.toolchain import LEAN_SOURCES, MANIFEST, cache_dir, checksum, verify_part
from lean_env.worker import Launch

WRITTEN_FOR = "4.28.0"
"""The Lean that the worker's sources were written for; others may do."""
SETUP = "scripts/setup_lean.sh"
_ELAN = Path(".elan/bin/lake")
_ASK_SECONDS = 600.0
_COMPILE_SECONDS = 900.0
_STACK_BYTES = 256 << 20
_DATA_BYTES = 64 << 30
"""What a worker may hold that is its own, in memory or not. The watch over resident memory is what decides; this stops
one that outruns it."""

# Run by lake, in the project's environment; its last line is the answer.
_QUESTION = """
import json, os, subprocess
def ask(option):
    return subprocess.run(["lean", option], capture_output=True, text=True, check=True).stdout.strip()
print(json.dumps({"version": ask("--version"), "sysroot": ask("--print-prefix"),
                  "path": os.environ.get("LEAN_PATH", ""), "libraries": os.environ.get("LD_LIBRARY_PATH", "")}))
"""


class _Answer(msgspec.Struct, frozen=True):
    version: str
    sysroot: str
    path: str
    libraries: str


class NativeToolchain(msgspec.Struct, frozen=True):
    """The Lean of a Lake project. ``version`` goes into each verdict and each fingerprint."""

    kind: Literal["native"]
    version: str
    directory: Path
    """The worker's part."""
    project: Path
    sysroot: Path
    """Where the toolchain lies: ``bin/lean`` and its own library."""
    path: tuple[str, ...]
    """The project's libraries (``LEAN_PATH``)."""
    libraries: str
    """``LD_LIBRARY_PATH`` as lake sets it."""

    def launch(self) -> Launch:
        """How one worker is started, confined; to be used by the process that asks."""
        lean = self.sysroot / "bin" / "lean"
        argv = sandbox.command(
            (str(lean), "-j1", "--run", "Main.lean"),
            {"STACK": (_STACK_BYTES, -1), "DATA": (_DATA_BYTES, _DATA_BYTES), "NOFILE": (1024, 1024)},
            (str(self.directory), str(self.sysroot), *self.path),
            (str(lean.parent),),
            kind="native",
            cwd=str(self.directory),
        )
        environment = {
            **self._environment(),
            "PROVER_REQUEST": f"/proc/self/fd/{sandbox.REQUEST_FD}",
            "PROVER_VERDICT": f"/proc/self/fd/{sandbox.VERDICT_FD}",
            "PROVER_SEAL": os.devnull,
            "PROVER_IMPORTS": "private",
        }
        return Launch(tuple(argv), environment, wrapped=bubblewrap.state()[0])

    def compile(self, place: Path) -> None:
        """Compiles the worker's sources, which lie in ``place``. Raises ToolchainError."""
        argv = [str(self.sysroot / "bin" / "lean"), "-j1", "-o", f"{WORKER}.olean", f"{WORKER}.lean"]
        environment = self._environment(place)
        try:
            done = subprocess.run(argv, cwd=place, env=environment, capture_output=True, timeout=_COMPILE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ToolchainError(f"{self.project}: compiling the worker took over {_COMPILE_SECONDS:.0f} s") from error
        except OSError as error:
            raise ToolchainError(f"{argv[0]}: cannot be run ({error.strerror}); run {SETUP}") from error
        if done.returncode or not (place / f"{WORKER}.olean").exists():
            said = _complaint(done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace"))
            raise ToolchainError(
                f"{self.project}: the worker, written for Lean {WRITTEN_FOR}, does not compile with its Lean "
                f"({self.version}): {said or f'exit code {done.returncode}'}"
            )

    def _environment(self, place: Path | None = None) -> dict[str, str]:
        environment = {"LEAN_PATH": os.pathsep.join([*self.path, str(place or self.directory)])}
        return {**environment, "LD_LIBRARY_PATH": self.libraries} if self.libraries else environment

    def verify(self, *, full: bool = False) -> None:
        """Compares the worker's files with their manifest, as the embedded one does. Raises ToolchainError."""
        verify_part(self.directory, full=full)


def find(project: Path, progress: Progress | None = None) -> NativeToolchain:
    """The Lean of a Lake project, its worker compiled where it is not yet: about a minute, once.

    Raises ToolchainError with one line that says what to do: no such project, no lake, another Lean than its
    ``lean-toolchain`` asks for, a project that is not built.
    """
    tell: Progress = progress or tell_nobody
    if sys.platform != "linux":
        raise ToolchainError(f"{project}: a native Lean is confined by means of Linux only; use the embedded one here")
    project = project.expanduser().absolute()
    wanted = _wanted(project)
    lake = _lake(project)
    answer = _ask(project, lake)
    version = _same_version(project, wanted, answer.version)
    _built(project, lake)
    key = key_of(project, answer.version)
    root = cache_dir()
    library = library_of(project)
    toolchain = NativeToolchain(
        kind="native",
        version=" ".join(["native", version, key, *([library] if library else [])]),
        directory=root / f"native-{key}",
        project=project,
        sysroot=Path(answer.sysroot),
        path=tuple(dict.fromkeys(part for part in answer.path.split(os.pathsep) if part)),
        libraries=answer.libraries,
    )
    _compiled(toolchain, root, tell)
    toolchain.verify()
    with contextlib.suppress(OSError):
        os.utime(toolchain.directory)
    return toolchain


def key_of(project: Path, version: str) -> str:
    """Checksum of all that decides how a worker behaves: Lean, what the project requires, our sources."""
    manifest = project / "lake-manifest.json"
    required = manifest.read_text("utf-8") if manifest.exists() else ""
    wanted = (project / "lean-toolchain").read_text("utf-8")
    return checksum("\n".join([version, wanted, required]).encode(), LEAN_SOURCES)


def _compiled(toolchain: NativeToolchain, root: Path, tell: Progress) -> None:
    """Sees to it that the worker is there and whole."""
    if (toolchain.directory / MANIFEST).exists() and whole(toolchain.directory, tell_nobody):
        return
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with lock(root / "install.lock", tell):
            sweep(root, toolchain.directory.name, "native")
            if whole(toolchain.directory, tell_nobody):
                return
            with making(toolchain.directory, toolchain.version) as place:
                write_sources(place)
                tell(f"compiling the worker for the Lean of {toolchain.project} (once)", None)
                toolchain.compile(place)


def _wanted(project: Path) -> str:
    """What ``lean-toolchain`` says."""
    if not project.is_dir():
        raise ToolchainError(f"{project}: there is no such folder; lean.project is the path of a Lake project")
    if not any((project / name).is_file() for name in ("lakefile.lean", "lakefile.toml")):
        raise ToolchainError(f"{project}: is no Lake project (neither lakefile.lean nor lakefile.toml)")
    try:
        return (project / "lean-toolchain").read_text("utf-8").strip()
    except FileNotFoundError as error:
        raise ToolchainError(
            f"{project}: has no lean-toolchain; write one, such as leanprover/lean4:v{WRITTEN_FOR}"
        ) from error


def _lake(project: Path) -> str:
    """lake as the PATH has it, or as elan installs it."""
    found = shutil.which("lake") or shutil.which(str(Path.home() / _ELAN))
    if found is None:
        raise ToolchainError(f"{project}: lake is not installed; run {SETUP}, which installs elan and the toolchain")
    return found


def _run_lake(project: Path, argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, cwd=project, capture_output=True, text=True, errors="replace", timeout=_ASK_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{project}: `lake {argv[1]}` took over {_ASK_SECONDS:.0f} s") from error
    except OSError as error:
        raise ToolchainError(f"{argv[0]}: cannot be run ({error.strerror}); run {SETUP}") from error


def _ask(project: Path, lake: str) -> _Answer:
    done = _run_lake(project, [lake, "env", sys.executable, "-I", "-S", "-c", _QUESTION])
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=_Answer)
    except (msgspec.DecodeError, IndexError):
        pass  # said below
    said = _complaint(done.stderr + done.stdout) or f"exit code {done.returncode}"
    raise ToolchainError(f"{project}: `lake env` fails ({said}); see `lake build` there, or run {SETUP} {project}")


def _same_version(project: Path, wanted: str, reported: str) -> str:
    """The version that runs. Raises ToolchainError where ``lean-toolchain`` names another release."""
    found = re.search(r"version ([^\s,)]+)", reported)
    version = found.group(1) if found else reported
    release = re.fullmatch(r"(?:.*:)?v?(\d+\.\d+\.\d+\S*)", wanted)
    if release and release.group(1) != version:
        raise ToolchainError(
            f"{project}: its lean-toolchain asks for Lean {release.group(1)}, but lake runs {version}; "
            f"run {SETUP} {project}, and let elan's lake come first in PATH"
        )
    return version


def _built(project: Path, lake: str) -> None:
    done = _run_lake(project, [lake, "build", "--no-build"])
    if done.returncode:
        said = _complaint(done.stderr + done.stdout) or f"exit code {done.returncode}"
        raise ToolchainError(f"{project}: is not built ({said}); run `lake build` there, or {SETUP} {project}")


def _complaint(text: str) -> str:
    """The first line that names an error, otherwise the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    return (telling or lines[-1:] or [""])[0][:300]


def library_of(project: Path) -> str:
    """A checksum of the project's own compiled modules, as lake notes them; empty where it has none. (The manifest
    covers what it requires.)"""
    digest = hashlib.sha256()
    notes = sorted((project / ".lake" / "build" / "lib").rglob("*.olean.hash"))
    for note in notes:
        digest.update(f"{note.relative_to(project)} {note.read_text('utf-8').strip()}\n".encode())
    return digest.hexdigest()[:8] if notes else ""
