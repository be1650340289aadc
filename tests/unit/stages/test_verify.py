"""Verdicts by attempt: what is asked of Lean, what is counted, and what a resumed stage makes of it.

A scripted process stands in Lean's place: ``ok`` is proved, ``wrong`` fails.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lean_env.errors import WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import Depth, Limits
from lean_env.worker import Launch
from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.progress import Silent, SilentMeter
from prover.records import Attempt, Problem, Verdict
from prover.stages import verify

SCRIPT = Path(__file__).parents[1] / "lean_env" / "scripted_lean.py"
SAME = "theorem same : True"


class Scripted:
    version = "scripted 1"

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(SCRIPT)), {})


def artifacts(folder: Path, shards: list[dict[str, tuple[str, list[str]]]]) -> tuple[Artifact, Artifact]:
    """Problems and attempts; each shard maps a problem to its statement and its proofs."""
    problems = ArtifactWriter(folder / "p", {"stage": "problems"}, len(shards))
    attempts = ArtifactWriter(folder / "a", {"stage": "sample"}, len(shards))
    for index, shard in enumerate(shards):
        problems.write(index, [Problem(id=i, header="", formal_statement=s) for i, (s, _) in shard.items()])
        tried = [
            Attempt(
                id=f"{ident}.{number}",
                problem_id=ident,
                round=0,
                turn=0,
                model="m",
                messages=(),
                completion=proof,
                finish_reason="stop",
                prompt_tokens=0,
                completion_tokens=0,
                seed=0,
                proof=proof or None,
            )
            for ident, (_, proofs) in shard.items()
            for number, proof in enumerate(proofs)
        ]
        attempts.write(index, tried)
    return problems.finish({"problems": sum(map(len, shards))}), attempts.finish({})


class Gone:
    """A Lean that ends as soon as it starts."""

    version = "scripted 1"

    def launch(self) -> Launch:
        return Launch((sys.executable, "-c", "raise SystemExit"), {})


class Watch(Silent, SilentMeter):
    """What the display was told."""

    def __init__(self) -> None:
        self.done = 0
        self.totals: list[int] = []

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator["Watch"]:
        assert unit == "attempts"
        yield self

    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        self.done += done

    def expect(self, total: int) -> None:
        self.totals.append(total)


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def run(
    out: Path, problems: Artifact, attempts: Artifact, *, until_proved: bool = False, progress: Silent | None = None
) -> Artifact:
    with LeanPool(Scripted(), 1) as pool:
        return verify.run(
            out,
            problems=problems,
            attempts=attempts,
            pool=pool,
            limits=Limits(),
            series="s",
            progress=progress or Silent(),
            until_proved=until_proved,
        )


def test_problems_that_state_the_same_are_tried_each_for_itself(tmp_path: Path) -> None:
    made = artifacts(tmp_path, [{"p": (SAME, ["wrong", "ok", "ok 2"]), "q": (SAME, ["wrong", "wrong 2", "ok"])}])
    verdicts = run(tmp_path / "v", *made, until_proved=True)
    assert {v.attempt_id: v.status for v in verdicts.read(Verdict)} == {
        **{"p.0": "failed", "p.1": "proved"},
        **{"q.0": "failed", "q.1": "failed", "q.2": "proved"},
    }
    assert read_manifest(verdicts.path).counts == {"verdicts": 5, "proved": 2, "failed": 3, "unjudged": 0}


def test_a_lean_that_is_gone_leaves_nobody_waiting(tmp_path: Path) -> None:
    problems, attempts = artifacts(tmp_path, [{"p": (SAME, ["wrong", "ok"])}])
    with LeanPool(Gone(), 1) as pool, pytest.raises(WorkerError, match="cannot start"):
        verify.run(
            tmp_path / "v",
            problems=problems,
            attempts=attempts,
            pool=pool,
            limits=Limits(),
            series="s",
            progress=Silent(),
            until_proved=True,
        )
    feeders = [thread for thread in threading.enumerate() if thread.name == "lean-feed"]
    for feeder in feeders:
        feeder.join(10)
    assert not any(feeder.is_alive() for feeder in feeders)


@pytest.mark.parametrize("until_proved", [False, True])
def test_shards_are_taken_up_as_others_are_done(tmp_path: Path, until_proved: bool) -> None:
    """What is held in memory must not grow with the number of problems."""
    shards = [{f"p{s}.{n}": (SAME, ["wrong", "ok", "ok 2"]) for n in range(40)} for s in range(24)]
    problems, attempts = artifacts(tmp_path, shards)
    ahead: list[int] = []

    def ready() -> Iterator[int]:
        for index in range(24):
            ahead.append(index - len(list((tmp_path / "v").glob("0*.jsonl"))))
            yield index

    with LeanPool(Scripted(), 1) as pool:
        verify.run(
            tmp_path / "v",
            problems=problems,
            attempts=attempts,
            pool=pool,
            limits=Limits(),
            series="s",
            progress=Silent(),
            ready=ready(),
            until_proved=until_proved,
        )
    assert max(ahead) < 12


@pytest.mark.parametrize("until_proved", [False, True])
def test_progress_counts_attempts(tmp_path: Path, until_proved: bool) -> None:
    """Equal ones, those without a proof and those left out as well; the total is told as shards come in."""
    proofs = ["wrong", "wrong", "", "ok", "ok", "ok 2"]
    made = artifacts(tmp_path, [{f"p{s}.{n}": (SAME, proofs) for n in range(64 if s == 0 else 6)} for s in range(2)])
    watch = Watch()
    run(tmp_path / "v", *made, until_proved=until_proved, progress=watch)
    assert watch.done == 420 and watch.totals == [420, 420]


def test_what_was_judged_before_costs_no_check(tmp_path: Path) -> None:
    """Time-outs too: each would hold a worker to its limit in every round."""
    problems, attempts = artifacts(tmp_path, [{"p": (SAME, ["spin", "wrong", "ok"])}])
    with LeanPool(Scripted(), 1) as pool:
        first = verify.run(
            tmp_path / "v",
            problems=problems,
            attempts=attempts,
            pool=pool,
            limits=Limits(cpu_seconds=0.3),
            series="s",
            progress=Silent(),
        )
    with LeanPool(Scripted(), 1) as pool:
        again = verify.run(
            tmp_path / "again",
            problems=problems,
            attempts=attempts,
            pool=pool,
            limits=Limits(cpu_seconds=0.3),
            series="s",
            progress=Silent(),
            earlier=[(attempts, first)],
        )
        assert pool.stats.started == 0
    statuses = [[v.status for v in verdicts.read(Verdict)] for verdicts in (first, again)]
    assert statuses == [["timeout", "failed", "proved"]] * 2


def test_what_was_judged_before_is_judged_again_where_it_tells_too_little(tmp_path: Path) -> None:
    """A correction that shows goals needs them of a failure that an earlier round saw without."""
    problems, attempts = artifacts(tmp_path, [{"p": (SAME, ["spin", "wrong", "ok"])}])

    def judged(name: str, feedback: Depth, *earlier: Artifact) -> tuple[Artifact, list[bool], int]:
        """The verdicts, whether each of them tells more than messages, and how many workers they took."""
        with LeanPool(Scripted(), 1) as pool:
            verdicts = verify.run(
                tmp_path / name,
                problems=problems,
                attempts=attempts,
                pool=pool,
                limits=Limits(cpu_seconds=0.3),
                series="s",
                progress=Silent(),
                earlier=[(attempts, before) for before in earlier],
                feedback=feedback,
            )
            told = [v.feedback is not None for v in verdicts.read(Verdict)]
            return verdicts, told, pool.stats.started

    first, told, _ = judged("first", "messages")
    assert told == [False, False, False]
    second, told, started = judged("second", "goals", first)
    assert told == [False, True, False] and started, "only the failure is looked at again"
    _, told, started = judged("third", "goals", first, second)
    assert told == [False, True, False] and not started
    _, told, started = judged("fourth", "messages", second)
    assert told == [False, True, False] and not started, "what tells more will do"


@pytest.mark.parametrize("until_proved", [False, True])
def test_a_resumed_stage_counts_like_an_undisturbed_one(tmp_path: Path, until_proved: bool) -> None:
    """Attempts on a statement that is none get no verdict, in the shard that is there as in the one that is owed."""
    shard = {"bad": ("def f : Nat", ["ok", "ok 2"]), "good": (SAME, ["ok", "wrong"])}
    made = artifacts(tmp_path, [shard, {f"{name}_2": rest for name, rest in shard.items()}])
    notes = Notes()
    verdicts = run(tmp_path / "v", *made, until_proved=until_proved, progress=notes)
    assert notes.lines == ["s: 4 attempts have no verdict: their problem does not elaborate in Lean"]
    counts = read_manifest(verdicts.path).counts
    assert counts["unjudged"] == 4 and counts["proved"] == 2
    (verdicts.path / "artifact.json").unlink()
    verdicts.shard(1).unlink()
    assert read_manifest(run(tmp_path / "v", *made, until_proved=until_proved).path).counts == counts
