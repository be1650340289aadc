"""scripts/setup_lean.sh with stand-ins for curl, elan, lake and lean, each of which writes down how it was called."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "setup_lean.sh"
TOOLCHAIN = "leanprover/lean4:v4.28.0"
SYSTEM = (
    "bash",
    "sh",
    "git",
    "df",
    "awk",
    "tr",
    "sed",
    "grep",
    "mktemp",
    "rm",
    "cat",
    "dirname",
    "mkdir",
    "cp",
    "chmod",
)

# $LOG/fail-NAME holds how often NAME is still to fail.
_STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG/calls"
name=$(echo "$(basename "$0")-$1" | tr -d -- '-')
left=$(cat "$LOG/fail-$name" 2>/dev/null || echo 0)
if [ "$left" -gt 0 ]; then echo $((left - 1)) > "$LOG/fail-$name"; echo "no network" >&2; exit 6; fi
case "$(basename "$0") $1" in
  "elan toolchain")
    if [ "$2" = install ]; then echo "$3" >> "$LOG/toolchains"; else cat "$LOG/toolchains" 2>/dev/null; fi ;;
  "lake exe") mkdir -p .lake/packages/mathlib ;;
  "lean --version") echo "Lean (version 4.28.0)" ;;
  "elan --version") echo "elan 4" ;;
esac
exit 0
"""
_INSTALLER = """#!/bin/sh
echo "installer $*" >> "$LOG/calls"
mkdir -p "$HOME/.elan/bin"
for tool in elan lake lean; do cp "$LOG/stand-in" "$HOME/.elan/bin/$tool"; done
"""
_CURL = """#!/bin/sh
echo "curl" >> "$LOG/calls"
[ -e "$LOG/fail-curl" ] && exit 6
while [ "$1" != --output ]; do shift; done
cp "$LOG/installer" "$2"
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Machine:
    """A home and a PATH with nothing but the system's tools, git and a curl that brings the stand-in installer."""

    def __init__(self, folder: Path) -> None:
        self.log, self.home, self.bin = folder / "log", folder / "home", folder / "bin"
        for made in (self.log, self.home, self.bin):
            made.mkdir()
        for name in (*SYSTEM, "basename"):
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        write(self.log / "stand-in", _STAND_IN)
        write(self.log / "installer", _INSTALLER)
        write(self.bin / "curl", _CURL)

    def run(self, *arguments: object, **environment: object) -> tuple[int, str]:
        """Exit code and all that was said."""
        done = subprocess.run(
            [self.bin / "bash", SCRIPT, *map(str, arguments)],
            env={"PATH": str(self.bin), "HOME": str(self.home), "LOG": str(self.log)}
            | {name: str(value) for name, value in environment.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def calls(self) -> list[str]:
        """What was called since the last time this was asked, without the paths of temporary files."""
        file = self.log / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line if "Ready.lean" not in line else "lake env lean" for line in lines]


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "lakefile.lean").write_text('import Lake\nrequire "leanprover-community" / "mathlib" @ git "v4.28.0"\n')
    (folder / "lean-toolchain").write_text(TOOLCHAIN + "\n")
    return folder


FIRST = [
    "curl",
    "installer -y --no-modify-path --default-toolchain none",
    "elan toolchain list",
    f"elan toolchain install {TOOLCHAIN}",
    "lake --version",
    "lake exe cache get",
    "lake build",
    "lake env lean",
    "lean --version",
]


def test_a_fresh_machine_then_once_more(machine: Machine, project: Path) -> None:
    code, said = machine.run(project)
    assert code == 0 and "setup_lean: ready: Lean (version 4.28.0)" in said, said
    assert f"next: prover doctor --lean-project {project}" in said
    assert machine.calls() == FIRST
    code, said = machine.run(project)
    assert code == 0 and f"the toolchain is here: {TOOLCHAIN}" in said
    again = ["elan --version", "elan toolchain list", *FIRST[4:]]
    assert machine.calls() == again


def test_a_failed_run_goes_on_where_it_stopped(machine: Machine, project: Path) -> None:
    (machine.log / "fail-elantoolchain").write_text("0")
    (machine.log / "fail-lakeexe").write_text("4")
    code, said = machine.run(project)
    assert code == 1 and said.endswith("error: Mathlib's cache could not be fetched; run this again to go on\n")
    assert said.count("trying again") == 2
    machine.calls()
    code, said = machine.run(project)
    assert code == 0 and said.count("trying again") == 1
    assert machine.calls().count("lake exe cache get") == 2


def test_a_project_without_mathlib_fetches_none(machine: Machine, project: Path) -> None:
    (project / "lakefile.lean").write_text("import Lake\n")
    code, said = machine.run(project)
    assert code == 0, said
    assert machine.calls() == [call for call in FIRST if "cache" not in call]


def test_an_installer_that_was_brought_along(machine: Machine, project: Path) -> None:
    (machine.bin / "curl").unlink()
    code, said = machine.run(project)
    assert code == 1 and "error: curl is not installed" in said
    code, said = machine.run(project, ELAN_INIT=machine.log / "installer")
    assert code == 0, said
    code, said = Machine.run(machine, project, ELAN_INIT="/nonexistent", HOME=machine.log)
    assert code == 1 and "/nonexistent: is no installer" in said


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("curl", "elan's installer could not be downloaded; check the network and run this again"),
        ("elantoolchain", "elan does not answer"),
        ("lake--version", "lake does not run in"),
        ("lakebuild", "`lake build` fails"),
        ("lakeenv", "Lean does not accept a true theorem"),
    ],
)
def test_failures_say_what_to_do(machine: Machine, project: Path, fault: str, said: str) -> None:
    (machine.log / f"fail-{fault.replace('-', '')}").write_text("9")
    code, text = machine.run(project)
    assert code == 1 and text.splitlines()[-1].startswith("setup_lean: error: ") and said in text.splitlines()[-1], text


def test_what_is_no_project_is_refused_before_anything_is_installed(machine: Machine, project: Path) -> None:
    assert "there is no such folder" in machine.run(project / "none")[1]
    assert "usage:" in machine.run(project, "more")[1]
    (project / "lean-toolchain").write_text("")
    assert "has no lean-toolchain" in machine.run(project)[1]
    (project / "lakefile.lean").unlink()
    code, said = machine.run(project)
    assert code == 1 and "is no Lake project" in said
    assert machine.calls() == []


def test_the_help_says_how_it_is_used(machine: Machine) -> None:
    code, said = machine.run("--help")
    assert code == 0 and "scripts/setup_lean.sh [PROJECT]" in said and "ELAN_INIT" in said


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stdout
