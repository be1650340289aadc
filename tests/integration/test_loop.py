"""The whole loop on real Lean with a model made in the test: what it leaves behind, and what it refuses.

One run serves most of these tests. It is small, so it shows that every part is real, not that the model gets better
(docs/benchmarks.md has that).
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from prover import layout
from prover.artifacts import open_artifact, read_manifest
from prover.config_file import load_config, open_run
from prover.errors import ArtifactError
from prover.pipeline import iterate
from prover.records import Attempt, PreferencePair, Problem, TrainingExample, Verdict
from prover.stages.evaluate import ProblemScore

CONFIG = """
rounds = 1
[prompt]
template = "plain"

[train]
source = "core"
split = "train"
limit = 70
premises = 2

[evaluate_on.heldout]
source = "core"
split = "test"
limit = 8
premises = 2

[model]
type = "init"
vocab_size = 400
hidden_size = 32
layers = 1

[lean]
heartbeats = 5000
cpu_seconds = 10

[cold]
type = "tactics"
share = 1.0
tactics = ["by simp", "by rfl", "by simp [{1}]"]

[sampling]
n = 2
enough = 1
max_tokens = 16

[correct]
turns = 1
per_problem = 1

[sft]
learning_rate = 5e-3
steps = 60
batch_tokens = 2048
checkpoint_every = 20

[pairs]
per_problem = 2

[dpo]
learning_rate = 1e-4
steps = 4
batch_tokens = 2048
warmup_steps = 1

[average]
tuned_weight = 0.8

[evaluate]
n = 2
k = [1, 2]
control_n = 2
portfolio = true
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loop") / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    """A finished run."""
    folder = config.parent / "run"
    iterate(load_config(config), folder)
    return folder


def test_the_layout_is_what_the_loop_writes(run: Path) -> None:
    """Every stage that the reports look for is there and finished, and there is nothing that they do not know of."""
    written = {str(path.parent.relative_to(run)) for path in run.rglob("artifact.json")}
    assert written == set(layout.stages(open_run(run)))
    assert {name.rpartition("/")[2] for name in written} >= {
        *("select", "sft", "pairs", "dpo", "average", "correct_1", "cold_verdicts"),
        *("sample", "sample_wave3", "verify_wave3"),
    }
    assert not list(run.rglob("*.tmp"))
    assert json.loads((run / "config.json").read_text())["rounds"] == 1
    confinement = json.loads((run / "run.json").read_text())["confinement"]
    assert {"deadlines", "rlimits", "landlock", "seccomp", "webassembly"} <= set(confinement)


def test_verdicts_answer_attempts_one_by_one(run: Path) -> None:
    for attempts, verdicts in (
        ("round_00/cold_attempts", "round_00/cold_verdicts"),
        ("round_01/sample", "round_01/verify"),
        ("round_01/sample_wave1", "round_01/verify_wave1"),
        ("round_01/correct_1", "round_01/verify_1"),
    ):
        tried = [a.id for a in open_artifact(run / attempts).read(Attempt)]
        assert tried == [v.attempt_id for v in open_artifact(run / verdicts).read(Verdict)]
        assert len(set(tried)) == len(tried) > 0


def test_the_tactic_list_stops_at_its_first_proof(run: Path) -> None:
    folder = run / "portfolio/heldout"
    owner = {a.id: a.problem_id for a in open_artifact(folder / "attempts").read(Attempt)}
    outcomes: dict[str, list[bool]] = {}
    for verdict in open_artifact(folder / "verdicts").read(Verdict):
        outcomes.setdefault(owner[verdict.attempt_id], []).append(verdict.proved)
    tried = Counter(owner.values())
    assert all(not any(proved[:-1]) for proved in outcomes.values())
    assert all(proved[-1] or len(proved) == tried[problem] for problem, proved in outcomes.items())
    assert any(proved[-1] and len(proved) < tried[problem] for problem, proved in outcomes.items())


def test_lean_proved_something_and_refused_something(run: Path) -> None:
    verdicts = list(open_artifact(run / "round_00/cold_verdicts").read(Verdict))
    proved = [v for v in verdicts if v.proved]
    assert 0 < len(proved) < len(verdicts)
    assert all(v.axioms == () or set(v.axioms) <= {"propext", "Classical.choice", "Quot.sound"} for v in proved)
    assert all(v.reason for v in verdicts if not v.proved)


def test_no_accepted_proof_uses_its_own_theorem(run: Path) -> None:
    forbidden = {p.id: set(p.forbidden_constants) for p in open_artifact(run / "problems/train").read(Problem)}
    owner = {a.id: a.problem_id for a in open_artifact(run / "round_00/cold_attempts").read(Attempt)}
    for verdict in open_artifact(run / "round_00/cold_verdicts").read(Verdict):
        if verdict.proved:
            assert not set(verdict.used_constants) & forbidden[owner[verdict.attempt_id]]


def test_what_is_proved_is_left_and_the_budget_goes_to_the_others(run: Path) -> None:
    """The plan of n = 2 and enough = 1: 1, 2, 4 and 8 attempts for those who have no proof by then."""
    proved: set[str] = set()
    times: Counter[str] = Counter()
    for wave, bound in enumerate((1, 2, 4, 8)):
        place = layout.sampled(1, wave)
        drawn = Counter(a.problem_id for a in open_artifact(run / place.attempts).read(Attempt))
        assert not proved & set(drawn), "proved ones are drawn no more"
        times += drawn
        assert max(times.values()) <= bound
        if wave == 1:
            assert all(times[p] == 2 for p in times if p not in proved), "all others reach n"
        owner = {a.id: a.problem_id for a in open_artifact(run / place.attempts).read(Attempt)}
        proved |= {owner[v.attempt_id] for v in open_artifact(run / place.verdicts).read(Verdict) if v.proved}
    assert proved and len(times) == 70
    assert sum(times.values()) <= 2 * 70
    assert set(times.values()) >= {1, 2, 3}, "saved by some, spent on others"


def test_training_examples_are_proved_attempts_of_this_run(run: Path) -> None:
    proved: set[str] = set()
    rounds = [layout.sampled(1, wave).verdicts for wave in range(4)]
    for name in ("round_00/cold_verdicts", *rounds, "round_01/verify_1"):
        proved |= {v.attempt_id for v in open_artifact(run / name).read(Verdict) if v.proved}
    examples = list(open_artifact(run / "round_01/select").read(TrainingExample))
    assert examples
    assert all(e.attempt_id in proved for e in examples)


def test_pairs_are_answers_of_this_run_to_one_prompt_and_the_next_model_learned_from_them(run: Path) -> None:
    tried: dict[str, Attempt] = {}
    verdicts: dict[str, Verdict] = {}
    for place in (layout.cold(), *(layout.sampled(1, wave) for wave in range(4)), layout.corrected(1, 1)):
        tried |= {a.id: a for a in open_artifact(run / place.attempts).read(Attempt)}
        verdicts |= {v.attempt_id: v for v in open_artifact(run / place.verdicts).read(Verdict)}
    pairs = list(open_artifact(run / "round_01/pairs").read(PreferencePair))
    assert pairs and max(Counter(pair.problem_id for pair in pairs).values()) <= 2
    for pair in pairs:
        chosen, rejected = tried[pair.chosen_attempt_id], tried[pair.rejected_attempt_id]
        assert verdicts[chosen.id].proved and verdicts[rejected.id].status not in ("proved", "timeout", "memory")
        assert pair.messages == rejected.messages and pair.problem_id == chosen.problem_id == rejected.problem_id
        assert (pair.chosen, pair.rejected) == (chosen.completion, rejected.completion)
        assert pair.kind == "correction" or chosen.messages == rejected.messages
    manifest = json.loads((run / "round_01/dpo/model/checkpoint.json").read_text())
    assert manifest["parents"] == ["../sft/model"] and manifest["recipe"].startswith("dpo ")
    averaged = json.loads((run / "round_01/average/model/checkpoint.json").read_text())
    assert "../dpo/model" in averaged["parents"]


def test_corrections_show_the_failed_proof_and_leans_words(run: Path) -> None:
    places = [layout.sampled(1, wave).under(run) for wave in range(4)]
    parents = {a.id: a for attempts, _ in places for a in open_artifact(attempts).read(Attempt)}
    verdicts = {v.attempt_id: v for _, folder in places for v in open_artifact(folder).read(Verdict)}
    corrections = list(open_artifact(run / "round_01/correct_1").read(Attempt))
    assert corrections
    for attempt in corrections:
        assert attempt.parent_id is not None
        assert attempt.messages[1].content == parents[attempt.parent_id].completion
        error = next(m for m in verdicts[attempt.parent_id].messages if m.severity == "error")
        assert error.text.split()[0] in attempt.messages[2].content


def test_the_models_are_ordinary_directories(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("round_00/init/model", "round_01/sft/model", "round_01/dpo/model", "round_01/average/model"):
        tokenizer = AutoTokenizer.from_pretrained(run / name)
        model = AutoModelForCausalLM.from_pretrained(run / name)
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": "a = a"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert model(**ids).logits.shape[-1] == model.config.vocab_size


def test_scores_are_what_the_verdicts_say(run: Path) -> None:
    folder = run / "round_01/evaluate/heldout"
    scores = list(open_artifact(folder / "scores").read(ProblemScore))
    proved = [v.attempt_id for v in open_artifact(folder / "verdicts").read(Verdict) if v.proved]
    assert len(scores) == read_manifest(run / "problems/heldout").counts["problems"]
    assert sum(s.proved for s in scores) == len(proved)
    figures = read_manifest(folder / "scores").counts
    assert figures["pass@1"] == pytest.approx(100 * sum(s.proved / s.n for s in scores) / len(scores), abs=0.01)


def test_a_finished_run_loads_no_model_and_starts_no_lean(run: Path, config: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from prover.config_file import load_config; from prover.pipeline import iterate\n"
        "iterate(load_config(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*.json*") if p.parent != run}
    done = subprocess.run(
        [sys.executable, "-c", code, str(config), str(run)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*.json*") if p.parent != run}


def test_a_deleted_shard_comes_back_the_same(run: Path, config: Path, tmp_path: Path) -> None:
    """What a kill leaves is a run without some shards and manifests: the rest must grow back to the same bytes."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("round_01/sample/00001.jsonl", "round_01/sample/artifact.json", "round_01/verify", "round_01/select"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / layout.VERDICT_CACHE).unlink()  # Lean itself is to say the same again
    iterate(load_config(config), copy)
    assert (copy / "round_01/sample/00001.jsonl").read_bytes() == (run / "round_01/sample/00001.jsonl").read_bytes()
    timeless = [
        [(v.attempt_id, v.status, v.reason, v.messages, v.axioms, v.used_constants) for v in artifact.read(Verdict)]
        for artifact in (open_artifact(copy / "round_01/verify"), open_artifact(run / "round_01/verify"))
    ]
    assert timeless[0] == timeless[1]
    assert (copy / "round_01/select/00000.jsonl").read_bytes() == (run / "round_01/select/00000.jsonl").read_bytes()


SMALL = """
rounds = 2
tune_from = "last"
[prompt]
template = "plain"
[train]
source = "jsonl"
path = "p.jsonl"
[model]
type = "init"
vocab_size = 400
hidden_size = 32
layers = 1
[lean]
workers = 1
heartbeats = 5000
cpu_seconds = 10
[cold]
type = "tactics"
share = 0.5
tactics = ["by simp", "by rfl", "by omega"]
[sampling]
n = 2
max_tokens = 8
[select]
replay = 1.0
balance = "length"
[sft]
learning_rate = 5e-3
steps = 40
batch_tokens = 1024
[average]
tuned_weight = 0.8
"""


def test_rounds_that_go_on_from_the_last_model(tmp_path: Path) -> None:
    """Each is tuned from what the round before ended with, and averaged with the model of round 0; a round that proves
    nothing goes on with what is known."""
    file, run = tmp_path / "c.toml", tmp_path / "run"
    file.write_text(SMALL)
    sums = [f"theorem t (a b : Nat) : a + {i} + b = b + ({i} + a)" for i in range(24)]
    lines = [{"id": f"p{i}", "header": "", "formal_statement": text} for i, text in enumerate(sums)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    iterate(load_config(file), run)
    made = {stage: read_manifest(run / stage) for stage in layout.stages(open_run(run))}
    start = made["round_00/sft"].fingerprint
    assert made["round_01/sft"].recipe["base"] == start
    assert made["round_02/sft"].recipe["base"] == made["round_01/average"].fingerprint
    for number in (1, 2):
        tuned = made[f"round_0{number}/sft"].fingerprint
        assert made[f"round_0{number}/average"].recipe["parts"] == [[tuned, 0.8], [start, pytest.approx(0.2)]]
        counts = made[f"round_0{number}/select"].counts
        assert counts["proofs"] and (counts["earlier"] <= counts["this round"] or not counts["this round"])
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*.json*") if p.parent != run}
    iterate(load_config(file), run)
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*.json*") if p.parent != run}
    with pytest.raises(ArtifactError, match='tune_from: "last" -> "start"'):
        iterate(load_config(file, [("tune_from", "start")]), run)


def prover(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "prover", *arguments], capture_output=True, text=True, check=False)


def test_another_configuration_is_refused_by_the_changed_keys(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.replace("n = 2\nenough = 1", "n = 3\nenough = 1"))
    done = prover("iterate", str(other), "--run-dir", str(run))
    assert done.returncode == 2
    assert "sampling.n: 2 -> 3" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_statements_that_do_not_elaborate_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = [
        {"id": "good", "header": "", "formal_statement": "theorem good (a : Nat) : a + 0 = a"},
        {"id": "bad", "header": "", "formal_statement": "theorem bad (a : Nat) : a + = a"},
        {"id": "unknown", "header": "", "formal_statement": "theorem unknown : Nat.no_such_thing 3"},
    ]
    source = tmp_path / "problems.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out.jsonl"
    done = prover("problems", "jsonl", str(source), "--elaborates", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["good"]
    assert "bad" in done.stderr and "unknown" in done.stderr


def test_a_scripted_engine_replays_answers(tmp_path: Path) -> None:
    """Answers from a file stand in for a model, so that the loop can be followed proof by proof."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        json.dumps({"id": "p", "header": "", "formal_statement": "theorem p (a : Nat) : a + 0 = a"}) + "\n"
    )
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        json.dumps({"request_id": "p/s.t0", "completions": ["by omega", "by sorry", "by exact", "no"]}) + "\n"
    )
    from prover.config import LeanConfig, PromptConfig, SamplingConfig, ScriptedEngine
    from prover.single import sampled, verified

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    attempts = sampled(
        tmp_path / "a",
        problems,
        model,
        sampling=SamplingConfig(n=4, max_tokens=8),
        engine=ScriptedEngine(type="scripted", path=answers),
        prompt=PromptConfig(template="plain"),
        series="s",
    )
    verdicts = verified(tmp_path / "v", problems, attempts.path, lean=LeanConfig(workers=1))
    assert [v.status for v in verdicts.read(Verdict)] == ["proved", "sorry", "failed", "failed"]
