"""A native Lean through the real path: configuration, lake's answers, compiled worker, confined process, verdicts.

What stands behind the command lines of lake and lean is the embedded Lean (native_stand_in.py); the last test is for
machines that have the real thing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lean_env import bubblewrap, native
from lean_env import toolchain as embedded
from lean_env.errors import ToolchainError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, StatementFailure, Verdict
from prover.config import NativeLean
from prover.config_file import load_config
from prover.errors import ConfigError
from prover.lean import limits_in_force, open_lean
from tests.integration.native_stand_in import VERSION, make_project, make_toolchain

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = '[train]\nsource = "core"\nsplit = "train"\n[model]\ntype = "init"\n'

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a native Lean's confinement and channel need Linux")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the toolchain in ``tools``, first in PATH, and a cache of its own that holds the embedded Lean."""
    home = tmp_path_factory.mktemp("native")
    installed = embedded.find()
    tools = make_toolchain(home / "tools")
    cache = home / "cache" / "lean"
    cache.mkdir(parents=True)
    for part in installed.parts:
        (cache / part.name).symlink_to(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PROVER_CACHE", str(home / "cache"))
        yield home


@pytest.fixture(scope="module")
def project(home: Path) -> Path:
    return make_project(home / "project")


@pytest.fixture(scope="module")
def compiled(project: Path) -> tuple[native.NativeToolchain, list[str]]:
    """The toolchain, and what was said while its worker was made."""
    said: list[str] = []
    return native.find(project, lambda what, _: said.append(what)), said


REQUESTS = (
    CheckRequest("true", "", "theorem t (a b : Nat) : a + b = b + a", "by omega"),
    CheckRequest("false", "", "theorem t (a b : Nat) : a + b = b", "by omega"),
    CheckRequest("sorry", "", "theorem t (a b : Nat) : a + b = b", "sorry"),
    CheckRequest("axiom", "", "theorem t : (1 : Nat) = 2", "axiom bad : False\ntheorem t : (1 : Nat) = 2 := bad.elim"),
    CheckRequest("header", "import Nowhere", "theorem t : True", "trivial"),
)


def answers(lean: native.NativeToolchain) -> dict[str, str]:
    with LeanPool(lean, workers=1) as pool:
        found = list(pool.check(REQUESTS))
    for verdict in found:
        assert isinstance(verdict, StatementFailure) or verdict.toolchain == lean.version
    return {a.attempt_id: a.status if isinstance(a, Verdict) else a.where for a in found}


@pytest.mark.parametrize("wrapped", [True, False], ids=["bubblewrap", "without"])
@pytest.mark.usefixtures("compiled")
def test_a_configured_project_gives_verdicts(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    if wrapped and not bubblewrap.state()[0]:
        pytest.skip(bubblewrap.state()[1])
    file = tmp_path / "c.toml"
    file.write_text(
        f'{MINIMAL}[lean]\ntype = "native"\nproject = "{os.path.relpath(project, tmp_path)}"\nworkers = 1\n'
    )
    config = load_config(file).lean
    assert isinstance(config, NativeLean) and config.project == project and config.limits().memory_mb == 6_000
    lean = open_lean(config)
    assert isinstance(lean, native.NativeToolchain) and lean.version.startswith(f"native {VERSION} ")
    if not wrapped:
        path = [p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "bwrap").exists()]
        monkeypatch.setenv("PATH", os.pathsep.join([*path, "/nonexistent"]))
        bubblewrap.state.cache_clear()
    try:
        assert lean.launch().wrapped == wrapped
        assert limits_in_force(config)["bubblewrap"].startswith("off: ") != wrapped
        assert answers(lean) == {
            "true": "proved",
            "false": "failed",
            "sorry": "sorry",
            "axiom": "forbidden_syntax",
            "header": "header",
        }
    finally:
        monkeypatch.undo()
        bubblewrap.state.cache_clear()


def test_the_worker_is_compiled_once_for_a_project_and_mended(
    compiled: tuple[native.NativeToolchain, list[str]], project: Path
) -> None:
    lean, said = compiled
    assert said == [f"compiling the worker for the Lean of {project} (once)"]
    again: list[str] = []
    assert native.find(project, lambda what, _: again.append(what)) == lean
    assert again == []


def test_what_a_project_requires_and_holds_is_part_of_its_version(home: Path) -> None:
    """Told apart without compiling: by names."""
    project = make_project(home / "other")
    (project / "lake-manifest.json").write_text('{"packages": ["more"]}\n')
    keys = {native.key_of(project, "Lean (version 4.28.0)")}
    (project / "lake-manifest.json").write_text('{"packages": ["less"]}\n')
    keys |= {native.key_of(project, "Lean (version 4.28.0)"), native.key_of(project, "Lean (version 4.28.1)")}
    (project / "lean-toolchain").write_text("leanprover/lean4:nightly\n")
    keys |= {native.key_of(project, "Lean (version 4.28.0)")}
    assert len(keys) == 4
    assert native.library_of(project) == ""
    notes = project / ".lake" / "build" / "lib" / "lean"
    notes.mkdir(parents=True)
    (notes / "Mine.olean.hash").write_text("1")
    first = native.library_of(project)
    (notes / "Mine.olean.hash").write_text("2")
    assert first and native.library_of(project) not in ("", first)


def broken(home: Path, fault: str) -> Path:
    folder = home / f"broken-{fault}"
    if fault == "absent":
        return folder
    wants = "leanprover/lean4:v4.9.0" if fault == "mismatch" else f"leanprover/lean4:v{VERSION}"
    make_project(folder, wants=wants, fault=fault)
    if fault == "no lakefile":
        (folder / "lakefile.lean").unlink()
    if fault == "no toolchain":
        (folder / "lean-toolchain").unlink()
    return folder


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("absent", "there is no such folder; lean.project is the path of a Lake project"),
        ("no lakefile", "is no Lake project (neither lakefile.lean nor lakefile.toml)"),
        ("no toolchain", "has no lean-toolchain; write one"),
        ("lakefile", r"`lake env` fails (error: ./lakefile.lean:1:0: unexpected token); see `lake build` there"),
        ("mismatch", f"asks for Lean 4.9.0, but lake runs {VERSION}; run scripts/setup_lean.sh"),
        ("unbuilt", "is not built (error: target is out-of-date and needs to be rebuilt); run `lake build` there"),
    ],
)
def test_projects_that_cannot_be_used_are_one_line(home: Path, fault: str, said: str) -> None:
    project = broken(home, fault)
    with pytest.raises(ToolchainError) as error:
        native.find(project)
    text = str(error.value)
    assert text.startswith(f"{project}: ") and said in text and "\n" not in text


def test_without_lake_the_script_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"lake is not installed; run scripts/setup_lean\.sh"):
        native.find(project)


def test_sources_that_its_lean_does_not_take_are_one_line(home: Path, tmp_path: Path) -> None:
    lean = native.NativeToolchain("native", "native 4.9.0", tmp_path, tmp_path, home / "tools", (), "")
    (tmp_path / "ProverWorker.lean").write_text("module\npublic meta import Nowhere\n")
    with pytest.raises(
        ToolchainError, match=r"written for Lean 4\.28\.0, does not compile with its Lean \(native 4\.9"
    ):
        lean.compile(tmp_path)


def test_mistakes_in_the_configuration_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    for text, said in (
        ('type = "nativ"', "lean: type: Input should be 'embedded' or 'native'"),
        ('type = "native"\nprojct = "x"', "unknown key 'lean.projct'; did you mean 'project'?"),
        ('project = "x"', "unknown key 'lean.project'"),
        ("workers = 0", "lean.workers: Input should be greater than or equal to 1"),
    ):
        file.write_text(f"{MINIMAL}[lean]\n{text}\n")
        with pytest.raises(ConfigError) as error:
            load_config(file)
        assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.usefixtures("compiled")
def test_the_command_line_checks_with_a_project(project: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"id": "a", "header": "", "formal_statement": "theorem t : True", "proof": "trivial"}))
    argv = [sys.executable, "-m", "prover", "check", "--jsonl", source, "--out", out, "--workers", "1"]
    done = subprocess.run([*argv, "--lean-project", project], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdict = json.loads(out.read_text())
    assert verdict["status"] == "proved" and verdict["toolchain"].startswith("native ")
    done = subprocess.run([*argv, "--lean-project", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "is no Lake project" in done.stderr


@pytest.mark.native
def test_real_lean_with_mathlib() -> None:
    lean = native.find(ROOT)
    header = "import Mathlib\nset_option autoImplicit false\nopen Real"
    requests = [
        CheckRequest("true", header, "theorem t (a b : ℝ) : (a + b) ^ 2 = a ^ 2 + 2 * a * b + b ^ 2", "by ring"),
        CheckRequest("false", header, "theorem t (a b : ℝ) : (a + b) ^ 2 = a ^ 2 + b ^ 2", "by ring"),
        CheckRequest("sorry", header, "theorem t : Irrational (√2)", "by sorry"),
    ]
    with LeanPool(lean, workers=1) as pool:
        found = {a.attempt_id: a for a in pool.check(requests)}
    assert {k: v.status for k, v in found.items() if isinstance(v, Verdict)} == {
        "true": "proved",
        "false": "failed",
        "sorry": "sorry",
    }
