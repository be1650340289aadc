"""``prover doctor`` on this machine, and on one that lacks Lean."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prover.cli import app
from prover.doctor import room


def test_a_machine_that_has_everything() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = {finding["part"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert {
        "python",
        "node",
        "lean",
        "canaries",
        "torch",
        "gpu",
        "cores",
        "memory",
        "disk",
        "landlock",
        "seccomp",
    } <= set(found)
    assert ("--require-sandbox holds here" in found["sandbox"]["detail"]) == (found["sandbox"]["state"] == "ok")
    assert found["canaries"]["state"] == "ok" and found["lean"]["detail"].startswith("embedded ")


def test_workers_that_certify_need_room_too() -> None:
    assert [room(processes) for processes in (0, 1, 2, 4, 5, 6, 10)] == [0, 0, 1, 3, 4, 4, 8]


def test_missing_lean_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVER_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "To mend what is missing:\n  prover setup\n" in result.stdout
    assert "canaries" not in result.stdout, "nothing is asked of a Lean that is not there"


def test_a_project_that_is_none_is_named_with_the_script_that_makes_it_ready(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--lean-project", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "is no Lake project" in result.stdout and f"scripts/setup_lean.sh {tmp_path}" in result.stdout
    assert "bubblewrap" in result.stdout, "the layers are those of a native Lean"
