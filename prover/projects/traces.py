"""LeanDojo in child processes: trace a Lake project, and read what was traced.

LeanDojo loads a ``.env`` file, takes over logging, makes a cache folder and, given a token, asks GitHub, all when it is
imported. So it never is imported here: children get an environment without the token, with caches in a folder that is
removed after them, and an empty working directory.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from prover.artifacts import disk_errors
from prover.errors import InputError, ProverError
from prover.projects.traced import TracedFile

INSTALL = "pip install 'prover[lean-dojo]'"
_TRACES = (".trace.xml", ".ast.json")
_PACKAGES = (".lake/packages/", "lake-packages/")
_DONE = "traced"
_LAST_WORDS = 400
"""Characters of a child's last words that an error repeats."""


def lean_dojo_version() -> str:
    """Raises ProverError where the extra is not installed."""
    if importlib.util.find_spec("lean_dojo") is None:
        raise ProverError(f"extract needs the package lean-dojo; run: {INSTALL}")
    return importlib.metadata.version("lean-dojo")


def check_project(project: Path) -> None:
    """Raises InputError where ``project`` is no Lake project, or not at a commit, and ProverError without lake or
    git."""
    if not any((project / name).is_file() for name in ("lakefile.lean", "lakefile.toml")):
        raise InputError(
            f"{project}: is no Lake project (no lakefile.lean or lakefile.toml); give the project's folder"
        )
    if not (project / "lean-toolchain").is_file():
        raise InputError(f"{project}: has no lean-toolchain, by which LeanDojo finds Lean; add one and commit it")
    for tool in ("git", "lake", "lean"):
        if shutil.which(tool) is None:
            raise ProverError(
                f"{tool} is not on the PATH, and tracing needs it; install elan (scripts/setup_lean.sh does) and put "
                "its bin on the PATH, or give a folder that LeanDojo traced elsewhere with --traced"
            )
    if not commit_of(project):
        raise InputError(
            f"{project}: is not the top folder of a git repository with a commit; LeanDojo traces the commits of "
            "such: make it one (git init, git add, git commit)"
        )


def commit_of(project: Path) -> str:
    """The commit that the folder's own repository is at; empty where there is none. One around it says nothing."""
    top = _git(project, "rev-parse", "--show-toplevel")
    return _git(project, "rev-parse", "HEAD") if top and Path(top).resolve() == project.resolve() else ""


def has_changes(project: Path) -> bool:
    return bool(_git(project, "status", "--porcelain", "--untracked-files=no"))


def toolchain_of(project: Path) -> str:
    try:
        return (project / "lean-toolchain").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def options_of(project: Path) -> dict[str, str]:
    """The options that ``lakefile.toml`` sets for Lean, but for those of linters and printing.

    Those of a ``lakefile.lean`` only Lake knows.

    Raises InputError where the file cannot be read.
    """
    file = project / "lakefile.toml"
    if not file.is_file():
        return {}
    try:
        table: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("leanOptions", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is not TOML ({error})") from error
    return dict(_options(cast(dict[str, Any], table), "")) if isinstance(table, dict) else {}


def _options(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _options(cast(dict[str, Any], value), f"{name}.")
        elif not name.startswith(("weak.", "linter.", "pp.")):
            yield name, str(value).lower() if isinstance(value, bool) else _literal(value)


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


def trace(project: Path, out: Path) -> Path:
    """Build and trace the project's commit below ``out``, unless that is done; returns the traced folder.

    Raises ProverError with the last words of what failed; all of them are in ``out/trace.log``.
    """
    commit = commit_of(project)
    done = out / _DONE
    folder = out / project.resolve().name
    if done.exists() and done.read_text() == commit:
        return folder
    with disk_errors(out):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        log = out / "trace.log"
    with tempfile.TemporaryDirectory(prefix="prover-extract-") as scratch, log.open("wb") as said:
        # A clone has none of the build, which LeanDojo copies twice.
        clone = Path(scratch, "clone", folder.name)
        subprocess.run(["git", "clone", "--quiet", str(project.resolve()), str(clone)], stderr=said, check=False)
        code = subprocess.run(
            [sys.executable, "-m", "prover.projects.tracer", str(clone), str(out.resolve())],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=_environment(Path(scratch)), cwd=_empty(scratch),
            check=False,
        ).returncode  # fmt: skip
    if code:
        raise ProverError(f"{project}: LeanDojo could not trace it: {_last_words(log)}; all of it: {log}")
    done.write_text(commit)
    return folder


def find_traces(folder: Path) -> list[str]:
    """The trace files of the project's own files, in order; of two for one file the finished one.

    Raises InputError where there are none.
    """
    found: dict[str, str] = {}
    for ending in reversed(_TRACES):
        for path in folder.glob(f"**/*{ending}"):
            name = path.relative_to(folder).as_posix()
            if not name.startswith(_PACKAGES):
                found[name.removesuffix(ending)] = name
    if not found:
        raise InputError(
            f"{folder}: holds no file that LeanDojo traced (*.trace.xml or *.ast.json below .lake/build/ir); "
            "give the folder it wrote, or leave out --traced to have the project traced"
        )
    return [found[name] for name in sorted(found)]


@contextmanager
def reading(folder: Path, traces: Sequence[str]) -> Iterator[Iterator[TracedFile]]:
    """The files that ``traces`` are of, one after another as LeanDojo reads them.

    Raises ProverError where the child ends before it has answered for each.
    """
    with tempfile.TemporaryDirectory(prefix="prover-extract-") as scratch:
        asked, said = Path(scratch, "asked"), Path(scratch, "said")
        asked.write_text("".join(f"{name}\n" for name in traces), encoding="utf-8")
        with asked.open("rb") as questions, said.open("wb") as complaints:
            child = subprocess.Popen(
                [sys.executable, "-m", "prover.projects.reader", str(folder.resolve())],
                stdin=questions, stdout=subprocess.PIPE, stderr=complaints, env=_environment(Path(scratch)),
                cwd=_empty(scratch),
            )  # fmt: skip
        try:
            yield _answers(child, len(traces), said)
        finally:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def _answers(child: subprocess.Popen[bytes], wanted: int, said: Path) -> Iterator[TracedFile]:
    assert child.stdout is not None
    decoder = msgspec.json.Decoder(TracedFile)
    for number in range(wanted):
        line = child.stdout.readline()
        if not line.endswith(b"\n"):
            code = child.wait()
            raise ProverError(
                f"LeanDojo's reader ended with code {code} after {number} of {wanted} files: {_last_words(said)}"
            )
        yield decoder.decode(line)


def _environment(scratch: Path) -> dict[str, str]:
    """An empty token rather than none: what a ``.env`` file says does not replace what is set."""
    kept = {key: value for key, value in os.environ.items() if key not in ("VERBOSE", "DEBUG")}
    here = str(Path(__file__).resolve().parents[2])
    (scratch / "tmp").mkdir(exist_ok=True)
    paths = [here, *(str(Path(p).resolve()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)]
    return kept | {
        "GITHUB_ACCESS_TOKEN": "",
        "PYTHON_DOTENV_DISABLED": "1",
        "DISABLE_REMOTE_CACHE": "1",
        "CACHE_DIR": str(scratch / "cache"),
        "TMP_DIR": str(scratch / "tmp"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
    }


def _empty(scratch: str) -> Path:
    folder = Path(scratch, "empty")
    folder.mkdir(exist_ok=True)
    return folder


def _last_words(log: Path) -> str:
    """Lake's complaints rather than the end of the traceback that LeanDojo makes of them."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("error:", "ERROR"))]
    return " | ".join((complaints or lines)[-3:])[-_LAST_WORDS:] or "it said nothing"


def _git(project: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
