"""The loop that chooses each round's average: what it leaves behind, what it goes on with, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prover import layout
from prover.apart import check_apart
from prover.artifacts import Artifact, ArtifactWriter, open_artifact, read_manifest
from prover.cli import app
from prover.config_file import load_config, open_run
from prover.errors import ConfigError
from prover.pipeline import iterate
from prover.pretrained import read_checkpoint
from prover.progress import Silent
from prover.records import Attempt, Problem
from prover.report.run import read_run
from prover.sweep import SweepPoint, best

TEXTS = {"comm": "a + b = b + a", "left": "a ≤ a + b", "right": "b ≤ a + b", "zero": "a + 0 = a", "self": "b = b"}
CONFIG = """
rounds = 1
[prompt]
template = "plain"
[train]
source = "jsonl"
path = "train.jsonl"
[evaluate_on.heldout]
source = "jsonl"
path = "heldout.jsonl"
[model]
type = "init"
vocab_size = 400
hidden_size = 32
layers = 1
[cold]
type = "tactics"
share = 1.0
tactics = ["by omega"]
[sampling]
n = 1
max_tokens = 12
[sft]
learning_rate = 1e-2
steps = 40
batch_tokens = 256
warmup_steps = 3
[average]
sweep = [1, 0.02]
[average.validate_on]
source = "jsonl"
path = "valid.jsonl"
[evaluate]
n = 2
k = [1, 2]
"""


def write_problems(file: Path, prefix: str, texts: dict[str, str]) -> None:
    rows = [
        {"id": f"{prefix}_{name}", "header": "", "formal_statement": f"theorem {prefix}_{name} (a b : Nat) : {text}"}
        for name, text in texts.items()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop_sweep")
    (folder / "config.toml").write_text(CONFIG)
    write_problems(folder / "train.jsonl", "t", TEXTS)
    write_problems(folder / "valid.jsonl", "v", {"two": "a ≤ a + 2 * b", "four": "a ≤ a + 4 * b"})
    write_problems(folder / "heldout.jsonl", "h", {"three": "a ≤ a + 3 * b"})
    return folder / "config.toml"


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    folder = config.parent / "run"
    iterate(load_config(config), folder)
    return folder


def test_each_round_goes_on_with_the_best_average(run: Path) -> None:
    written = {str(path.parent.relative_to(run)) for path in run.rglob("artifact.json")}
    assert written == set(layout.stages(open_run(run)))
    place = run / layout.average(1)
    points = list(open_artifact(place).read(SweepPoint))
    assert [p.tuned_weight for p in points] == [0.02, 1.0]
    chosen = best(points)
    assert [p.chosen for p in points] == [p is chosen for p in points]

    weights = f"{layout.weighed(layout.average(1), chosen.tuned_weight)}/{layout.AVERAGE}"
    tried = read_manifest(run / layout.trial(layout.evaluated(1, "heldout")).attempts)
    assert tried.recipe["model"] == read_manifest(run / weights).fingerprint
    made = read_checkpoint(place / "model")
    assert made is not None and (place / made.parents[0]).resolve() == (run / layout.sft(1) / "model").resolve()
    averages = [p for p in run.rglob("model.safetensors") if "average" in p.parts]
    assert averages == [place / "model" / "model.safetensors"], "the others' weights are gone"


def test_all_weights_of_a_round_are_sampled_with_the_same_seeds(run: Path) -> None:
    places = [run / layout.trial(layout.weighed(layout.average(1), w)).attempts for w in (0.02, 1)]
    one, other = ([(a.id, a.seed, a.round) for a in open_artifact(p).read(Attempt)] for p in places)
    assert one == other and len(one) == 4 and {number for _, _, number in one} == {1}


def test_the_report_shows_what_was_chosen(run: Path) -> None:
    (averages,) = read_run(run).averages
    assert averages.round == 1 and [score.model for score in averages.scores] == ["0.02", "1"]
    assert averages.chosen == read_manifest(run / layout.average(1)).counts["tuned_weight"]
    assert "average" in read_run(run).rounds[1].seconds
    said = CliRunner().invoke(app, ["inspect", str(run)], env={"COLUMNS": "140"}).stdout
    assert "averages: tuned weights on 2 validation problems" in said and "best" in said
    said = CliRunner().invoke(app, ["inspect", str(run), "--stage", layout.average(1)], env={"COLUMNS": "140"}).stdout
    assert "points 2" in said and "pass@2" in said and "best" in said
    said = CliRunner().invoke(app, ["inspect", str(run), "--problem", "v_two"], env={"COLUMNS": "140"}).stdout
    assert "round 1 tuned weight 0.02: 2 attempts" in said and "round 1 tuned weight 1: 2 attempts" in said


@pytest.mark.parametrize(
    "lost",
    [
        ("artifact.json",),  # killed before its manifest
        ("artifact.json", "00000.jsonl", "model"),  # before the best was put in place
        ("artifact.json", "00000.jsonl", "model", "weight_1/verdicts", "weight_1/scores"),  # in the last evaluation
        ("artifact.json", "00000.jsonl", "model", "weight_1", "weight_0.02/scores"),  # in the first one
    ],
)
def test_a_killed_sweep_goes_on_to_the_same(run: Path, config: Path, tmp_path: Path, lost: tuple[str, ...]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    place, before = copy / layout.average(1), run / layout.average(1)
    for name in lost:
        shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()
    (place / "weight_0.02" / layout.AVERAGE / ".model.old").mkdir()  # a kill while weights are being deleted
    iterate(load_config(config), copy)
    for name in ("00000.jsonl", "model/model.safetensors", "model/checkpoint.json"):
        assert (place / name).read_bytes() == (before / name).read_bytes()
    assert sorted(p.relative_to(copy) for p in copy.rglob("*")) == sorted(p.relative_to(run) for p in run.rglob("*"))


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def problem_set(folder: Path, **statements: str) -> Artifact:
    writer = ArtifactWriter(folder, {"stage": "problems"}, 1)
    writer.write(0, [Problem(id=ident, header="", formal_statement=text) for ident, text in statements.items()])
    return writer.finish({"problems": len(statements)})


def test_what_is_reported_is_never_chosen_on(tmp_path: Path) -> None:
    """Under whatever name, however it is spaced. Training problems there are no mistake, but worth a word."""
    valid = problem_set(tmp_path / "valid", a="theorem t.a (n : Nat) : n = n", b="theorem t (t : Nat) : t + 0 = t")
    train = problem_set(tmp_path / "train", c="theorem c (t : Nat) :\n  t + 0 = t", d="theorem d : True")
    apart = problem_set(tmp_path / "apart", e="theorem t.a (m : Nat) : m = m", f="theorem f (n : Int) : n = n")
    same = problem_set(tmp_path / "same", g="theorem g : True", h="theorem other (n : Nat) :  n = n")
    notes = Notes()
    check_apart(train, {"apart": apart}, valid, notes)
    (line,) = notes.lines
    assert line.startswith("1 of the problems in average.validate_on are training problems")
    with pytest.raises(ConfigError, match=r"average.validate_on has h, and so has evaluate_on.same"):
        check_apart(train, {"apart": apart, "same": same}, valid, notes)


def test_training_problems_among_those_that_are_reported_are_told(tmp_path: Path) -> None:
    train = problem_set(tmp_path / "train", a="theorem a (n : Nat) : n = n -- easy", b="theorem b : True")
    sets = {
        "known": problem_set(tmp_path / "known", c="theorem c (n : Nat) :\n  n = n", d="theorem d : 1 = 1"),
        "new": problem_set(tmp_path / "new", e="theorem e (m : Nat) : m = m"),
    }
    notes = Notes()
    check_apart(train, sets, None, notes)
    assert notes.lines == ["1 of the problems in evaluate_on.known are training problems: its figures are too good"]
