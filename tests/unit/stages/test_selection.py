"""How many of what is learned together: equal statements, replay of earlier rounds, pass rates, buckets, kills."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prover.artifacts import Artifact, ArtifactWriter, fingerprint, read_manifest
from prover.config import PromptConfig, SelectConfig
from prover.found import PROOF, Found, statement_text
from prover.progress import Silent
from prover.prompts import Prompt
from prover.records import Attempt, Problem, TrainingExample, Verdict
from prover.selection import MOST, choose
from prover.stages import select

PLAIN = Prompt(PromptConfig(template="plain"))


class Try(NamedTuple):
    """One attempt: ``ok`` is None where it has no verdict."""

    problem: str
    proof: str
    ok: bool | None = True
    turn: int = 0


class Told(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Bench:
    """Problems in shards, and rounds of attempts at them, as artifacts."""

    def __init__(self, folder: Path, *shards: dict[str, str]) -> None:
        """Each shard maps ids to statements after the theorem's name."""
        self.folder = folder
        self.shards = [
            [Problem(id=i, header="open Nat", formal_statement=f"theorem {i} {text}") for i, text in shard.items()]
            for shard in shards
        ]
        self.problems = self.write("problems", "problems", self.shards)
        self.judged: list[tuple[Artifact, Artifact]] = []

    def write(self, name: str, stage: str, shards: Sequence[Sequence[msgspec.Struct]]) -> Artifact:
        writer = ArtifactWriter(self.folder / name, {"stage": stage, "name": name}, len(shards))
        for index, records in enumerate(shards):
            writer.write(index, records)
        return writer.finish({})

    def round(self, *tries: Try, stage: str = "sample") -> None:
        number = len(self.judged)
        attempts: list[list[Attempt]] = []
        verdicts: list[list[Verdict]] = []
        for shard in self.shards:
            mine = [(i, t) for i, t in enumerate(tries) if t.problem in {p.id for p in shard}]
            asked = {p.id: PLAIN.first(p) for p in shard}
            attempts.append(
                [
                    Attempt(
                        id=f"{t.problem}/r{number}.{i}",
                        problem_id=t.problem,
                        round=number,
                        turn=t.turn,
                        model="m",
                        messages=asked[t.problem],
                        completion=t.proof,
                        finish_reason="stop",
                        prompt_tokens=0,
                        completion_tokens=0,
                        seed=0,
                        proof=t.proof,
                        parent_id="x" if t.turn else None,
                    )
                    for i, t in mine
                ]
            )
            verdicts.append(
                [
                    Verdict(attempt_id=a.id, status="proved" if t.ok else "failed")
                    for a, (_, t) in zip(attempts[-1], mine, strict=True)
                    if t.ok is not None
                ]
            )
        self.judged.append(
            (self.write(f"attempts{number}", stage, attempts), self.write(f"verdicts{number}", "verify", verdicts))
        )

    def select(self, out: str = "out", fresh: int | None = None, told: Told | None = None, **config: Any) -> Artifact:
        return select.run(
            self.folder / out,
            problems=self.problems,
            judged=self.judged,
            prompt=PLAIN,
            config=SelectConfig.model_validate(config),
            seed=1,
            fresh=fresh,
            series="r1",
            progress=told,
        )

    def examples(self, out: str = "out", fresh: int | None = None, **config: Any) -> list[TrainingExample]:
        return list(self.select(out, fresh, **config).read(TrainingExample))


def answers(examples: list[TrainingExample]) -> list[tuple[str, str]]:
    return [(e.problem_id, e.messages[-1].content) for e in examples]


def test_problems_with_equal_statements_are_one_problem(tmp_path: Path) -> None:
    """Over shards: one of each proof, the earliest; the cap and the weight 1 are for all of them together."""
    bench = Bench(tmp_path, {"p": "(a : Nat) : a = a"}, {"q": "(a  : Nat) /- same -/ : a = a", "r": ": True"})
    bench.round(Try("q", "by rfl"), Try("p", "by rfl"), Try("q", "by simp"), Try("r", "by rfl"))
    bench.round(Try("p", "by simp"), Try("p", "by omega"))
    found = bench.examples()
    assert answers(found) == [("p", "by rfl"), ("p", "by omega"), ("q", "by simp"), ("r", "by rfl")]
    assert [e.weight for e in found] == [pytest.approx(1 / 3)] * 3 + [1.0]
    counts = read_manifest(tmp_path / "out").counts
    assert (counts["repeated"], counts["repeated elsewhere"], counts["problems"], counts["solved"]) == (2, 2, 3, 3)
    assert sum(e.problem_id != "r" for e in bench.examples("capped", per_problem=2)) == 2


@pytest.mark.parametrize(
    ("header", "statement", "same"),
    [
        ("open Nat -- for +", "theorem other\n    (a : Nat) :\n  a = a", True),
        ("open Nat", "theorem p (b : Nat) : b = b", False),
        ("open Int", "theorem p (a : Nat) : a = a", False),
        ("open Nat", "private lemma p (a : Nat) : a = a", False),
        ("open Nat", "theorem «p» (a : Nat) : a = a", True),
    ],
)
def test_statements_are_equal_up_to_name_comments_and_layout(header: str, statement: str, same: bool) -> None:
    one = Problem(id="p", header="open Nat", formal_statement="theorem p (a : Nat) : a = a")
    other = Problem(id="q", header=header, formal_statement=statement)
    assert (statement_text(one) == statement_text(other)) == same


def three_rounds(folder: Path) -> Bench:
    """Six problems; round 0 proves all of them, round 1 one in a new way, which finds an old proof again too."""
    names = [f"p{i}" for i in range(6)]
    half = [{n: f": {n} = {n}" for n in part} for part in (names[:3], names[3:])]
    bench = Bench(folder, *half)
    bench.round(*(Try(n, "by simp") for n in names))
    bench.round(Try("p0", "by omega"), Try("p1", "by simp -- again"), Try("p2", "by bad", False), Try("p4", "by rfl"))
    return bench


@pytest.mark.parametrize(("replay", "earlier"), [(None, 5), (0, 0), (0.5, 1), (1, 3), (1.5, 4), (99, 5)])
def test_earlier_proofs_are_replayed_in_proportion_to_those_of_this_round(
    tmp_path: Path, replay: float | None, earlier: int
) -> None:
    """A proof that is found again is of this round too, though not new."""
    bench = three_rounds(tmp_path)
    found = answers(bench.examples(fresh=1, replay=replay))
    assert {("p0", "by omega"), ("p1", "by simp"), ("p4", "by rfl")} <= set(found)
    counts = read_manifest(tmp_path / "out").counts
    assert (counts["new"], counts["this round"], counts["earlier"]) == (2, 3, earlier)
    assert counts["not replayed"] == 5 - earlier and counts["repeated"] == 1
    assert len(found) == len(set(found)) == 3 + earlier
    assert found == answers(bench.examples("again", fresh=1, replay=replay))


def test_a_proof_found_again_under_another_id_is_of_this_round(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"p": ": True", "old": ": 1 = 1"}, {"twin": ": True"})
    bench.round(Try("p", "by simp"), Try("old", "by rfl"))
    bench.round(Try("twin", "by  simp"))
    assert answers(bench.examples(fresh=1, replay=0)) == [("p", "by simp")]


def test_each_round_replays_other_proofs(tmp_path: Path) -> None:
    """Or most of what was found would never be seen again."""
    names = [f"p{i}" for i in range(40)]
    bench = Bench(tmp_path, {n: f": {n} = {n}" for n in names})
    bench.round(*(Try(n, "by simp") for n in names))
    drawn: list[set[str]] = []
    for number in range(3):
        bench.round(*(Try(names[i], "by omega") for i in range(10)))
        found = answers(bench.examples(f"out{number}", fresh=1, replay=1))
        drawn.append({problem for problem, proof in found if proof == "by simp"})
        assert sum(proof == "by omega" for _, proof in found) == len(drawn[-1]) == 10
    assert len({frozenset(names) for names in drawn}) == 3


def test_with_replay_proofs_of_this_round_go_before_earlier_ones_under_the_cap(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"p": ": True"})
    bench.round(*(Try("p", f"by {i}") for i in range(8)))
    bench.round(Try("p", "by exact long_one"), Try("p", "by exact long_two"))
    found = answers(bench.examples(fresh=1, replay=9, per_problem=3))
    assert len(found) == 3 and {("p", "by exact long_one"), ("p", "by exact long_two")} < set(found)
    assert len(bench.examples("all", fresh=1, per_problem=3)) == 3


@pytest.mark.parametrize("config", [{"replay": 0}, {"replay": 1, "max_pass_rate": 0.5}])
def test_a_round_without_proofs_learns_the_earlier_ones_and_says_so(tmp_path: Path, config: dict[str, Any]) -> None:
    """Or without any that it may learn."""
    bench = Bench(tmp_path, {"p": ": True", "q": ": 1 = 1"}, {"r": ": 2 = 2"})
    bench.round(Try("p", "by simp"), Try("q", "by rfl"), stage="tactics")
    bench.round(Try("q", "by omega", False), Try("r", "by simp", False), *[Try("r", "by rfl")] * 9 * (len(config) - 1))
    told = Told()
    made = bench.select(fresh=1, told=told, **config)
    assert answers(list(made.read(TrainingExample))) == [("p", "by simp"), ("q", "by rfl")]
    assert told.notes == ["r1: no proof of this round to learn: all earlier ones are learned again"]


def test_difficulty_is_the_share_of_first_attempts_that_failed(tmp_path: Path) -> None:
    """Corrections and unjudged attempts do not count, nor do a list of tactics and a project's own proofs; equal
    statements count together."""
    bench = Bench(tmp_path, {"p": ": True", "only_list": ": 1 = 1"}, {"q": ":  True", "fixed": ": 2 = 2"})
    bench.round(Try("p", "by grind"), Try("p", "by no", False), Try("only_list", "by simp"), stage="tactics")
    bench.round(Try("p", "by exact trivial"), stage="seed attempts")
    bench.round(Try("p", "by simp"), Try("p", "by rfl"), Try("q", "by a", False), Try("q", "by b", None))
    bench.round(Try("q", "by c", False), Try("fixed", "by d", False), Try("fixed", "by omega", turn=1))
    found = {(e.problem_id, e.kind): e.difficulty for e in bench.examples()}
    assert found == {
        **{("p", "proof"): 0.5, ("only_list", "proof"): None},
        **{("fixed", "proof"): 1.0, ("fixed", "correction"): 1.0},
    }
    line = (tmp_path / "out" / "00000.jsonl").read_text().splitlines()[-1]
    assert "difficulty" not in json.loads(line), "what is not known takes no room"


def test_easy_problems_are_left_out_by_their_pass_rate(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"easy": ": True", "half": ": 1 = 1", "listed": ": 2 = 2"})
    bench.round(Try("listed", "by simp"), stage="tactics")
    bench.round(Try("easy", "by a"), Try("easy", "by b"), Try("easy", "by c", False))
    bench.round(Try("half", "by a"), Try("half", "by b", False))
    assert {e.problem_id for e in bench.examples(max_pass_rate=0.5)} == {"half", "listed"}
    counts = read_manifest(tmp_path / "out").counts
    assert (counts["too easy"], counts["problems"], counts["solved"]) == (2, 2, 3)
    assert len(bench.examples("all", max_pass_rate=1)) == 4


def test_a_pass_rate_that_leaves_nothing_is_told_and_left_aside(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"easy": ": True"})
    bench.round(Try("easy", "by a"))
    told = Told()
    bench.select(told=told, max_pass_rate=0.5)
    assert [e.problem_id for e in bench.examples(max_pass_rate=0.5)] == ["easy"]
    assert [text for text in told.notes if "select.max_pass_rate = 0.5: all are learned" in text]


def test_balance_gives_buckets_the_same_weight_and_keeps_the_sum(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {f"p{i}": f": {i} = {i}" for i in range(8)})
    long = "by exact " + "x" * 60
    bench.round(*(Try(f"p{i}", "by simp") for i in range(5)), Try("p5", long), Try("p6", long, turn=1))
    plain, balanced = bench.examples(), bench.examples("balanced", balance="length")
    assert sum(e.weight for e in balanced) == pytest.approx(sum(e.weight for e in plain)) == pytest.approx(8)
    assert sum(e.weight for e in balanced if len(e.messages[-1].content) > 16) == pytest.approx(4)
    shares = {(b.by, b.bucket): (b.proofs, b.weight) for b in select.read_buckets(tmp_path / "balanced")}
    assert shares == {
        **{("length", "0-15"): (5, 0.5), ("length", "64-127"): (2, 0.5)},
        **{("difficulty", "0.75-1"): (6, 0.6667), ("difficulty", "untried"): (1, 0.3333)},
    }


def test_balance_by_difficulty_is_over_pass_rates(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {f"p{i}": f": {i} = {i}" for i in range(4)})
    tries = [Try(f"p{i}", f"by {n}") for i in range(3) for n in "abcd"]
    bench.round(*tries, Try("p3", "by a"), *(Try("p3", "by no", False) for _ in range(3)))
    weights = {e.problem_id: 0.0 for e in bench.examples(balance="difficulty")}
    for example in bench.examples(balance="difficulty"):
        weights[example.problem_id] += example.weight
    assert weights == pytest.approx({"p0": 2 / 3, "p1": 2 / 3, "p2": 2 / 3, "p3": 2})


def test_a_bucket_of_one_proof_does_not_outweigh_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {f"p{i}": f": {i} = {i}" for i in range(60)})
    bench.round(*(Try(f"p{i}", "by simp") for i in range(59)), Try("p59", "by exact " + "x" * 60))
    weights = [e.weight for e in bench.examples(balance="length")]
    assert weights[-1] == MOST and weights[0] == pytest.approx((60 - MOST) / 59)


@pytest.mark.parametrize("config", [{}, {"replay": 1.0}, {"balance": "length"}, {"max_pass_rate": 0.1, "rarity": 1.0}])
def test_nothing_to_learn_is_an_empty_artifact(tmp_path: Path, config: dict[str, Any]) -> None:
    """Nothing judged, all shards empty, nothing proved, no problems at all."""
    bench = Bench(tmp_path / "a", {"p": ": True"}, {})
    assert bench.examples(**config) == []
    bench.round()
    bench.round(Try("p", "by no", False), Try("p", "by nothing", None))
    assert bench.examples("judged", fresh=1, **config) == []
    assert read_manifest(tmp_path / "a" / "judged").counts["examples"] == 0
    assert select.read_buckets(tmp_path / "a" / "judged") == []
    nothing = Bench(tmp_path / "b")
    nothing.round()
    assert nothing.examples(fresh=1, **config) == []


def test_a_problem_proved_in_an_earlier_round_only_is_learned_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"p": ": True"}, {"q": ": 1 = 1"})
    bench.round(Try("p", "by simp"))
    bench.round(Try("q", "by rfl"), Try("p", "by no", False))
    assert answers(bench.examples(fresh=1)) == [("p", "by simp"), ("q", "by rfl")]
    assert answers(bench.examples("new", fresh=1, replay=0)) == [("q", "by rfl")]


def test_after_a_kill_the_missing_shards_come_back_the_same(tmp_path: Path) -> None:
    """What a kill leaves: a shard of two, no manifest, a temporary file."""
    bench = three_rounds(tmp_path)
    config: dict[str, Any] = {"replay": 1.0, "balance": "length", "rarity": 0.5, "per_problem": 1}
    out = bench.select(fresh=1, **config).path
    whole = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "artifact.json"}
    counts = read_manifest(out).counts
    for name in ("00000.jsonl", "artifact.json", select.BUCKETS):
        (out / name).unlink()
    (out / ".00000.jsonl.tmp").write_text("{to")
    kept = (out / "00001.jsonl").stat().st_mtime_ns
    bench.select(fresh=1, **config)
    assert whole == {p.name: p.read_bytes() for p in out.iterdir() if p.name != "artifact.json"}
    assert counts == read_manifest(out).counts and kept == (out / "00001.jsonl").stat().st_mtime_ns


def test_a_configuration_that_leaves_the_new_keys_alone_has_the_recipe_that_it_had(tmp_path: Path) -> None:
    """Runs that were begun before there were these keys go on."""
    bench = Bench(tmp_path, {"p": ": True"})
    bench.round(Try("p", "by simp"))
    recipe = {
        "stage": "select",
        "seed": 1,
        "problems": bench.problems.fingerprint,
        "verdicts": [bench.judged[0][1].fingerprint],
        "prompt": PLAIN.recipe,
        "config": {"per_problem": 4, "rarity": 0.0},
    }
    assert bench.select(fresh=1).fingerprint == fingerprint(recipe)
    others = [bench.select(f"o{i}", fresh=f, replay=1).fingerprint for i, f in enumerate((None, 1))]
    assert len({fingerprint(recipe), *others}) == 3


ROWS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(1, 300),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=ROWS,
    outcomes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=10, max_size=10),
    replay=st.none() | st.floats(0, 3),
    cap=st.integers(1, 4),
    fresh=st.integers(0, 4),
    balance=st.sampled_from(["none", "length", "difficulty"]),
)
def test_what_always_holds(
    rows: list[tuple[int, int, int, int, int, int]],
    outcomes: list[tuple[int, int]],
    replay: float | None,
    cap: int,
    fresh: int,
    balance: str,
) -> None:
    """Ten problems with seven statements; a proof is a problem, a text, an artifact, a length, a turn, and how many
    artifacts later it was last found."""
    distinct = {(problem, text): rest for problem, text, *rest in rows}
    proofs = np.array(
        [
            (problem, text, text, i, length, i, source, turn, source + later)
            for i, ((problem, text), (source, length, turn, later)) in enumerate(sorted(distinct.items()))
        ],
        dtype=PROOF,
    )
    statements = np.array([5, 6, 7, 5, 8, 9, 10, 5, 9, 11])
    tried = np.array([a + b for a, b in outcomes], dtype=np.int32)
    proved = np.array([a for a, _ in outcomes], dtype=np.int32)
    found = Found(proofs, np.array([0, 10]), statements, np.arange(10), tried, proved, 0)
    config = SelectConfig.model_validate({"per_problem": cap, "replay": replay, "balance": balance})
    made = choose(found, config, fresh)
    chosen = proofs[made.chosen]
    statement = statements[chosen["problem"]]
    pairs = list(zip(statement.tolist(), chosen["text"].tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(statement) == set(statements[proofs["problem"]]) or replay is not None
    assert max(np.bincount(statement), default=0) <= cap
    last = {
        (h, t): int(proofs["last"][(statements[proofs["problem"]] == h) & (proofs["text"] == t)].max())
        for h, t in pairs
    }
    now = sum(last[pair] >= fresh for pair in pairs)
    assert now == made.counts["this round"] >= made.counts["new"]
    assert replay is None or not now or len(chosen) - now <= replay * now + 1e-6
    assert len(chosen) or not len(proofs)
    examples = 1 + (chosen["turn"] > 0)
    plain = 1 / np.bincount(statement)[statement]
    assert np.sum(made.weights * examples) == pytest.approx(np.sum(plain * examples))
    assert np.all(made.weights <= MOST * plain * (1 + 1e-9)) and np.all(made.weights > 0)
    assert balance != "none" or made.weights == pytest.approx(plain)
    assert made.counts["over the cap"] + made.counts["not replayed"] + made.counts["repeated elsewhere"] + len(
        chosen
    ) == len(proofs)
    for by in ("length", "difficulty"):
        buckets = [b for b in made.buckets if b.by == by]
        assert sum(b.proofs for b in buckets) == len(chosen)
        assert not buckets or sum(b.weight for b in buckets) == pytest.approx(1, abs=2e-3)
