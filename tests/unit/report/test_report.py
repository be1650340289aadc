"""What `prover inspect` says about a run that is half done."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prover.cli import app
from prover.records import Message, TrainingExample, Verdict
from prover.report import print_rounds, print_scores
from prover.report.problem import in_place, read_problem
from prover.report.run import read_run
from tests.unit.report.sample_run import PROBLEMS, artifact, attempt, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def inspect(*arguments: object, columns: int = 80) -> str:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_tables_hold_every_figure_and_fit_80_columns(run: Path) -> None:
    said = inspect(run)
    assert "heldout: 40 problems, 20 beyond the tactic list" in said
    rows = {line[:12].strip(): line.split() for line in said.splitlines()}
    assert rows["round 0"][2:5] == ["8", "2.8", "±2.5"]
    assert {"21.4", "50.7", "31"} <= set(rows["round 1"])
    assert rows["round 2"][2] == "·" and rows["control"][1] == "·"
    assert "63.7" in rows["tactic list"]
    assert max(map(len, said.splitlines())) <= 80


def test_wide_terminals_get_the_intervals(run: Path) -> None:
    assert "50.7 (48.7-53.7)" in inspect(run, columns=120)


def test_a_half_done_run_says_what_is_owed(run: Path) -> None:
    report = read_run(run)
    owed = {stage.stage: stage.shards for stage in report.owed}
    assert owed["round_02/sample"] == 1 and owed["control/heldout/scores"] == 0
    assert "round_01/select" in report.done and not set(report.done) & set(owed)
    first = report.owed[0].stage
    assert f"next: {first}" in " ".join(inspect(run).split())


def test_training_rounds_count_attempts_proofs_and_examples(run: Path) -> None:
    cold, first, second = read_run(run).rounds
    assert (cold.attempts, cold.proved, cold.examples, cold.solved) == (1, 0, 7, 2)
    assert (first.attempts, first.proved, first.examples, first.solved) == (5, 1, 1, 1)
    assert set(first.seconds) == {"sample", "verify", "select", "sft", "evaluate"} and not second.seconds


def test_what_to_look_at_next_can_be_pasted_into_a_shell(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many of Lean's names end in a quote."""
    name = "core/Nat.add_comm'"
    example = TrainingExample(id="e", messages=(), problem_id=name, attempt_id=f"{name}/r2.t0.1")
    artifact(run / "round_02" / "select", "select", [example], examples=1, problems=1)
    print_rounds(run, hints=True)
    hints = capsys.readouterr().out.partition("Look next at\n")[2].splitlines()
    assert [shlex.split(hint) for hint in hints] == [
        ["prover", "inspect", str(run), "--problem", name],
        ["prover", "inspect", str(run), "--stage", "round_02/select"],
        ["prover", "inspect", str(run)],
    ]


def test_json_is_the_whole_report(run: Path) -> None:
    report = json.loads(inspect(run, "--json"))
    table = report["sets"][0]
    by_model = {score["model"]: score for score in table["scores"]}
    assert by_model["round 1"]["passed"]["8"] == {"value": 50.7, "low": 48.7, "high": 53.7}
    assert by_model["round 1"]["beyond"]["8"]["value"] == 4.0
    assert not by_model["control"]["finished"]


def test_a_problem_shows_distinct_attempts_proved_first(run: Path) -> None:
    report = read_problem(run, "core/Nat.add_comm")
    series = {s.stage: s for s in report.series}
    tried = series["round 1"].tried
    assert [(t.times, t.verdict.status if t.verdict else "") for t in tried] == [
        (1, "proved"),
        (2, "failed"),
        (1, "no_proof"),
    ]
    assert series["round 1"].attempts == 4 and series["round 1"].proved == 1
    assert series["round 2"].tried[0].verdict is None, "sampled and not judged yet"
    said = inspect(run, "--problem", "core/Nat.add_comm")
    for part in ("a + b = b + a", "Nat.add_assoc", "forbidden: Nat.add_comm", "unknown identifier 'foo'", "not judged"):
        assert part in said


def test_errors_point_at_their_place() -> None:
    error = Message(severity="error", start=(2, 9), end=(2, 12), text="unknown identifier 'foo'\n")
    assert in_place("theorem t : True := by\n   exact foo\n", error) == (
        "2:9: unknown identifier 'foo'\n  | theorem t : True := by\n  |    exact foo\n  |          ^^^"
    )


def test_long_lines_are_cut_around_the_place() -> None:
    text = "theorem t " + "(a : Nat) " * 30 + ": True := by grind"
    start = text.index("grind")
    shown = in_place(text, Message(severity="error", start=(1, start), end=(1, start + 5), text="failed"), 80)
    line, caret = shown.split("\n")[1:]
    assert max(len(line), len(caret)) <= 80 and line[caret.index("^") : caret.index("^") + 5] == "grind"
    assert line.startswith("  | …") and caret.count("^") == 5


def test_long_messages_are_cut() -> None:
    error = Message(severity="error", start=(1, 0), end=(1, 2), text="\n".join(map(str, range(40))))
    assert "(26 more lines)" in in_place("by", error)


def test_an_error_beyond_the_text_still_shows() -> None:
    error = Message(severity="error", start=(9, 4), end=(9, 4), text="unexpected end of input")
    assert in_place("by", error).startswith("9:4: unexpected end of input")


@pytest.mark.parametrize("stage", ["problems/train", "round_01/sample", "round_01/verify", "round_01/select"])
def test_every_kind_of_record_lists(run: Path, stage: str) -> None:
    said = inspect(run, "--stage", stage)
    assert "core/Nat.add_comm" in said or "s2" in said
    assert max(map(len, said.splitlines()[1:])) <= 80


def test_pages_of_records(run: Path) -> None:
    lines = inspect(run, "--stage", "round_01/sample", "--limit", 2, "--skip", 1, "--json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["s1", "s2"]
    assert "--skip 2" in inspect(run, "--stage", "round_01/sample", "--limit", 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--problem", "Nat.add_comm"], "did you mean core/Nat.add_comm?"),
        (["--problem", "core/Nat.add_com"], "did you mean core/Nat.add_comm"),
        (["--stage", "round_01/sampel"], "did you mean 'round_01/sample'?"),
        (["--stage", "round_02/verify"], "is not begun yet"),
    ],
)
def test_unknown_names_suggest_the_nearest(run: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["inspect", str(run), *arguments])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_no_run_directory(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert result.exit_code == 2 and "is no run directory" in result.stderr


def test_waves_are_counted_together_and_the_first_tells_the_pass_rate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["sampling"] |= {"n": 2, "enough": 1}
    config["evaluate"] |= {"enough": 4}
    (run / "config.json").write_text(json.dumps(config))
    artifact(run / "round_01/sample_wave1", "sample", [attempt("w0", PROBLEMS[1], "by rfl")], attempts=7)
    artifact(run / "round_01/verify_wave1", "verify", [Verdict(attempt_id="w0", status="proved")], verdicts=7, proved=1)
    report = json.loads(inspect(run, "--json"))
    first = report["rounds"][1]
    assert (first["attempts"], first["judged"], first["proved"]) == (12, 12, 2)
    assert (first["waves"], first["first_judged"], first["first_proved"]) == (4, 5, 1)
    assert {"round_01/sample_wave2", "round_01/evaluate/heldout/attempts_wave1"} <= {
        owed["stage"] for owed in report["owed"]
    }
    said = " ".join(inspect(run, columns=120).split())
    assert "pass@1 is the first wave's" in said and " 12 2 20.0 " in said
    narrow = inspect(run)
    assert "proved of them is no pass rate." in " ".join(narrow.split()) and "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    series = {s.stage: s for s in read_problem(run, PROBLEMS[1].id).series}
    assert series["round 1 wave 1"].proved == 1


def test_a_list_that_stops_at_its_first_proof_says_how_many_were_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = {f"pass@{k}{end}": 50.0 for k in ("1", "all") for end in ("", "_low", "_high")}
    artifact(tmp_path / "scores", "evaluate", [], problems=4, attempts=37, solved=2, **shares)
    print_scores(tmp_path / "scores")
    assert "(2 solved with 9 tried each, on average, in percent; audited)" in " ".join(capsys.readouterr().out.split())
