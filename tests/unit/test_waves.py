"""Sampling in waves, a script for a model, a scripted process for Lean: who is drawn on, and what a kill leaves."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from lean_env.worker import Launch
from prover import layout, waves
from prover.allocation import Plan, evaluation_plan, training_plan
from prover.artifacts import Artifact, ArtifactWriter, OnShard, read_manifest
from prover.config import PromptConfig, SamplingConfig
from prover.config import ScriptedEngine as ScriptedConfig
from prover.engines.lease import EngineLease
from prover.engines.scripted import ScriptedEngine
from prover.models import Model
from prover.progress import Silent
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Problem, Verdict
from prover.stages import evaluate, verify
from prover.stages.verify import Judged

LEAN = Path(__file__).parent / "lean_env" / "scripted_lean.py"
SAMPLING = SamplingConfig(n=4, enough=2)
PLAN = training_plan(SAMPLING)
SHARDS = [
    {"easy": {0, 1, 2, 3}, "late": {9}, "twice": {0, 3}},
    {"easier": set(range(16)), "never": set[int](), "void": set[int](), "long": set(range(16))},
]
"""Which of a problem's 16 answers are proofs. The statement of ``void`` is none for Lean, and the
prompt of ``long`` does not fit the model."""


class Scripted:
    version = "scripted 1"

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(LEAN)), {})


class ShortContext(ScriptedEngine):
    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        return not any("Long" in message.content for message in messages)


class Lease(EngineLease):
    loads = 0

    def engine(self, model: Model) -> ScriptedEngine:
        assert isinstance(self.config, ScriptedConfig)
        self.loads += 1
        return ShortContext(self.config.path).__enter__()


class Killed(Exception):
    pass


class Bench:
    """A folder of problems and answers."""

    def __init__(self, folder: Path, shards: list[dict[str, set[int]]] = SHARDS) -> None:
        self.folder = folder
        writer = ArtifactWriter(folder / "problems", {"stage": "problems"}, len(shards))
        lines: list[str] = []
        for index, shard in enumerate(shards):
            texts = {i: "theorem void : bad" if i == "void" else f"theorem {i} : {i.title()}" for i in shard}
            writer.write(index, [Problem(id=i, header="", formal_statement=text) for i, text in texts.items()])
            for ident, proofs in shard.items():
                wrong = "void" if ident == "void" else "wrong"
                answers = [f"{'ok' if j in proofs else wrong} {j}" for j in range(16)]
                lines += [json.dumps({"request_id": f"{ident}/r1.t0", "completions": answers})]
        self.problems = writer.finish({"problems": sum(map(len, shards))})
        self.script = folder / "script.jsonl"
        self.script.write_text("\n".join(lines) + "\n")
        self.lease = Lease(ScriptedConfig(type="scripted", path=self.script))

    def place(self, wave: int) -> tuple[Path, Path]:
        return layout.within(wave).under(self.folder)

    def run(self, plan: Plan = PLAN, sampling: SamplingConfig = SAMPLING, kill_at: int = -1) -> list[Judged]:
        """Sample and judge by the plan; with ``kill_at`` until so many shards of verdicts are on disk."""
        told: list[int] = []
        with LeanPool(Scripted(), 1) as pool:

            def judge(
                out: Path, name: str, attempts: Artifact, ready: Iterable[int], known: list[Judged], on_shard: OnShard
            ) -> Artifact:
                def tell(artifact: Artifact, index: int) -> None:
                    told.append(index)
                    if len(told) == kill_at:
                        raise Killed
                    on_shard(artifact, index)

                return verify.run(
                    out,
                    problems=self.problems,
                    attempts=attempts,
                    pool=pool,
                    limits=Limits(),
                    series=name,
                    progress=Silent(),
                    earlier=known,
                    ready=ready,
                    on_shard=tell,
                )

            return waves.run(
                plan,
                self.place,
                judge,
                pool.close,
                problems=self.problems,
                model=Model(self.folder, "x", "m"),
                lease=self.lease,
                prompt=Prompt(PromptConfig(template="plain")),
                sampling=sampling,
                series="r1",
                round=1,
                seed=0,
                progress=Silent(),
            )


def drawn(judged: Sequence[Judged]) -> list[dict[str, int]]:
    """Attempts of each problem, wave by wave."""
    return [dict(Counter(a.problem_id for a in attempts.read(Attempt))) for attempts, _ in judged]


def test_the_unsolved_get_what_the_solved_leave(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    judged = bench.run()
    assert PLAN.bounds == (2, 4, 8, 16)
    first, second, third, fourth = drawn(judged)
    assert first == {**dict.fromkeys(["easy", "late", "twice", "easier", "never", "void"], 2)}
    assert second == {"late": 2, "twice": 2, "never": 2}, "proved twice, or not to be judged: left"
    # Saved are 2 attempts each of easy, easier and void: 6, even for the two that are open.
    assert third == {"late": 3, "never": 3} and fourth == {}
    assert sum(sum(wave.values()) for wave in drawn(judged)) == SAMPLING.n * 6

    uniform = Bench(tmp_path / "uniform").run(Plan((4,), 4), SamplingConfig(n=4))
    same = {a.id: a for a in uniform[0][0].read(Attempt)}
    for attempts, _ in judged:
        for attempt in attempts.read(Attempt):
            number = int(attempt.id.rpartition(".")[2])
            assert attempt.completion.endswith(f" {number}"), "the script goes on where the last wave ended"
            assert same.get(attempt.id, attempt) == attempt, "the same attempt, whichever wave draws it"
    counts = [read_manifest(attempts.path).counts for attempts, _ in judged]
    assert [c["unasked"] for c in counts] == [1, 0, 0, 0]
    assert [c["attempts"] for c in counts] == [12, 6, 6, 0]


def shards(folder: Path) -> dict[str, bytes]:
    """Attempts and verdicts, without what the scripted Lean says of itself."""
    found: dict[str, bytes] = {}
    for path in folder.rglob("0*.jsonl"):
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        timeless = [{k: v for k, v in r.items() if k not in ("seconds", "heartbeats", "used_constants")} for r in lines]
        found[str(path.relative_to(folder))] = json.dumps(timeless).encode()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    Bench(folder).run()
    return shards(folder)


@pytest.mark.parametrize("kill_at", range(1, 9))
def test_a_run_killed_after_any_shard_of_verdicts_ends_the_same(
    tmp_path: Path, kill_at: int, undisturbed: dict[str, bytes]
) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(Killed):
        bench.run(kill_at=kill_at)
    bench.run()
    assert shards(tmp_path) == undisturbed


def test_a_finished_run_loads_no_model_and_a_wave_for_nobody_neither(tmp_path: Path) -> None:
    solved: list[dict[str, set[int]]] = [{"a": set(range(16))}, {"b": set(range(16))}]
    bench = Bench(tmp_path, solved)
    assert drawn(bench.run()) == [{"a": 2, "b": 2}, {}, {}, {}]
    assert bench.lease.loads == 2, "once a shard, in the first wave"
    bench.run()
    assert bench.lease.loads == 2


def test_another_plan_is_refused_where_waves_were_drawn(tmp_path: Path) -> None:
    from prover.errors import ArtifactError

    bench = Bench(tmp_path)
    bench.run()
    other = SamplingConfig(n=4, enough=1)
    with pytest.raises(ArtifactError, match=r"sampling\.n: 2 -> 1"):
        bench.run(training_plan(other), other)


def test_an_evaluation_that_leaves_the_solved_scores_without_bias(tmp_path: Path) -> None:
    """``twice`` is drawn to the end (one proof at 2, two at 4) and so tells of its order; the others stop at 2."""
    bench = Bench(tmp_path)
    plan = evaluation_plan(SAMPLING)
    judged = bench.run(plan)
    assert plan.bounds == (2, 4) and len(judged) == 2
    scores = evaluate.run(tmp_path / "scores", problems=bench.problems, judged=judged, ks=[1, 4], plan=plan)
    found = {s.problem_id: (s.n, s.proved) for s in scores.read(evaluate.ProblemScore)}
    assert found["easy"] == found["easier"] == (2, 2)
    assert found["late"] == found["never"] == (4, 0) and found["twice"] == (4, 2)
    assert found["void"] == found["long"] == (0, 0)
    figures = read_manifest(scores.path).counts
    # Of the six orders of two proofs in four attempts, one (both first) would have stopped at 2. Two of the other five
    # begin with a failure and a proof, one with two failures: 3 of 5 begin with a failure.
    assert figures["pass@1"] == pytest.approx(100 * (1 + 1 + 2 / 5) / 7, abs=0.01)
    assert figures["pass@4"] == pytest.approx(100 * 3 / 7, abs=0.01)
    assert (figures["enough"], figures["attempts"]) == (2, 16)


def test_verdicts_of_all_waves_are_there(tmp_path: Path) -> None:
    for attempts, verdicts in Bench(tmp_path).run():
        asked = [a.id for a in attempts.read(Attempt) if a.problem_id != "void"]
        assert asked == [v.attempt_id for v in verdicts.read(Verdict)]
