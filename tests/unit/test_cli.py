"""The command line as its user meets it: help, mistakes, Ctrl-C, closed pipes, speed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from prover import __version__
from prover.cli import app
from prover.config import EvaluateConfig, InitModel, LeanConfig, MiniF2FProblems, SamplingConfig
from tests.unit.report.sample_run import make_run

PAIR = ("--attempts", "a", "--verdicts", "v")
PROVER = [sys.executable, "-m", "prover"]
ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


def options() -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for parameter in command.params:
            yield name, parameter


def test_every_command_of_the_issue_is_there() -> None:
    group: Any = typer.main.get_command(app)
    assert set(group.commands) == {
        *("setup", "doctor", "check", "problems", "extract", "init-model", "iterate", "inspect", "serve-lean"),
        *("sample", "verify", "certify", "correct", "select", "sft", "pairs", "dpo", "average", "evaluate"),
    }
    assert all(command.help for command in group.commands.values())


def test_every_option_has_help() -> None:
    bare = [f"{command} {parameter.name}" for command, parameter in options() if not getattr(parameter, "help", None)]
    assert not bare


def test_defaults_in_the_help_are_those_of_the_configuration() -> None:
    """The options leave their defaults to the configuration, which --help must not import: so it repeats them."""
    sections = (SamplingConfig, LeanConfig, InitModel, MiniF2FProblems)
    fields = {name: field for section in sections for name, field in section.model_fields.items()}
    checked = 0
    for command, parameter in options():
        shown = getattr(parameter, "show_default", None)
        if not isinstance(shown, str) or parameter.name not in fields or shown in ("all", "stdout", "equal"):
            continue
        assert shown == str(fields[parameter.name].default), f"{command} --{parameter.name}"
        checked += 1
    assert checked > 10
    assert (EvaluateConfig().n, EvaluateConfig().k) == (8, (1, 8)), "shown by `evaluate -n -k`"


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, f"prover {__version__}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["iteratee"], "Did you mean 'iterate'?"),
        (["iterate", "c.toml", "--run-dri", "x"], "--run-dir"),
        (["iterate", "none.toml"], "none.toml: cannot be read (No such file or directory)"),
        (["check"], "give Lean files, or --jsonl IN together with --out OUT"),
        (["check", "--jsonl", "x"], "give Lean files, or --jsonl IN together with --out OUT"),
        (["problems", "core"], "--split is needed here"),
        (["problems", "core", "x.jsonl", "--split", "test"], "FILE means nothing here"),
        (["problems", "minif2f"], "FILE is needed here"),
        (["problems", "minif2f", "x", "--split", "train"], "--split: "),
        (["problems", "corr"], "core"),
        (
            ["evaluate", "p", "--out", "o", "--model", "m", "--portfolio"],
            "give --model DIR, or --portfolio, and not both",
        ),
        (
            ["evaluate", "p", "--out", "o", "--model", "m", "-n", "4", "-k", "8"],
            "--set: evaluate: Value error, every k must lie between 1 and n = 4, got [8]",
        ),
        (
            ["select", "--problems", "p", "--out", "o", "--attempts", "a", "--verdicts", "v", "--verdicts", "w"],
            "in pairs",
        ),
        (
            ["select", "--problems", "p", "--out", "o", "--attempts", "a", "--verdicts", "v", "--fresh", "2"],
            "--fresh 2 but 1 --attempts",
        ),
        (
            [*("select", "--problems", "p", "--out", "o", "-s", "select.replay=1"), *2 * PAIR],
            "say with --fresh how many of the last --attempts are new",
        ),
        (["average", "a", "b", "--out", "o", "--weight", "1"], "2 models need as many --weight options"),
        (["inspect", "r", "--problem", "x", "--stage", "y"], "give --problem or --stage, not both"),
        (
            ["sft", "e", "--model", "m", "--out", "o", "--set", "sft.learning_rate=-1"],
            "error: --set: sft.learning_rate: Input should be greater than 0, got -1",
        ),
        (["verify", "a", "--problems", "p", "--out", "o", "--set", "lean"], "write it like --set sampling.n=32"),
        (["verify", "a", "--problems", "p", "--out", "o", "-s", "lean.worker=2"], "did you mean 'workers'?"),
        (["verify", "a", "--problems", "p", "--out", "o", "-c", "none.toml"], "none.toml: cannot be read"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_to_do(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, stderr = call(*arguments)
    assert code == 2 and said in stderr, stderr
    assert "Traceback" not in stderr


def test_artifacts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    code, stderr = call(
        "select", "--problems", run / "problems" / "train", "--out", tmp_path / "o",
        "--attempts", run / "round_01" / "sample", "--verdicts", run / "round_01" / "verify",
    )  # fmt: skip
    assert code == 2 and stderr.startswith(f"error: {run}/round_01/sample: ") and stderr.count("\n") == 1


@pytest.mark.timeout(60)
def test_control_c_says_how_to_go_on(tmp_path: Path) -> None:
    """The command waits for a pipe that this test holds open, so that the signal finds it at work."""
    fifo = tmp_path / "c.toml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*PROVER, "iterate", fifo],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # where these tests run in the background, the shell has them ignore Ctrl-C, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with fifo.open("wb"):  # returns once the command has opened the other end
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "stopped; run the same command to go on\n"


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shard = run / "round_01" / "sample" / "00000.jsonl"
    shard.write_bytes(shard.read_bytes() * 400)
    process = subprocess.Popen(
        [*PROVER, "inspect", run, "--stage", "round_01/sample", "--json", "--limit", "2000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 0


def test_help_is_quick() -> None:
    """The best of five: the machine may be busy with something else."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([*PROVER, "--help"], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.5
