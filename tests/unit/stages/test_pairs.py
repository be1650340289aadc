"""What is preferred to what: proved to refused, at one prompt; never what may be a proof after all."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from lean_env.answers import CERTIFICATION
from prover.artifacts import Artifact, ArtifactWriter, read_manifest
from prover.config import DpoConfig, PairsConfig, SingleLaunch
from prover.errors import InputError
from prover.models import Model
from prover.progress import Silent
from prover.records import Attempt, ChatMessage, Checkpoint, Message, PreferencePair, Problem, Verdict
from prover.stages import dpo, pairs

ASKED = (ChatMessage(role="user", content="prove p"),)
PROVED = Verdict(attempt_id="", status="proved")
FAILED = Verdict(attempt_id="", status="failed", reason="elaboration: unsolved goals")
Tried = tuple[Attempt, Verdict]


def attempt(ident: str, completion: str, verdict: Verdict = FAILED, **changes: object) -> Tried:
    made = Attempt(
        id=ident,
        problem_id="p",
        round=1,
        turn=0,
        model="m",
        messages=ASKED,
        completion=completion,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        seed=0,
        proof=completion,
    )
    return msgspec.structs.replace(made, **changes), verdict


def correction(ident: str, completion: str, parent: Attempt, verdict: Verdict = PROVED) -> Tried:
    said = (*parent.messages, ChatMessage(role="assistant", content=parent.completion))
    talk = (*said, ChatMessage(role="user", content="that failed"))
    return attempt(ident, completion, verdict, messages=talk, parent_id=parent.id, turn=parent.turn + 1)


def stage(folder: Path, name: str, tried: Sequence[Tried]) -> tuple[Artifact, Artifact]:
    attempts = ArtifactWriter(folder / f"{name}a", {"stage": "sample", "name": name}, 1)
    attempts.write(0, [a for a, _ in tried])
    verdicts = ArtifactWriter(folder / f"{name}v", {"stage": "verify", "name": name}, 1)
    verdicts.write(0, [msgspec.structs.replace(v, attempt_id=a.id) for a, v in tried])
    return attempts.finish({}), verdicts.finish({})


def problems(folder: Path, names: Sequence[str] = ("p",)) -> Artifact:
    writer = ArtifactWriter(folder / "problems", {"stage": "problems"}, 1)
    writer.write(0, [Problem(id=name, header="", formal_statement=f"theorem {name} : True") for name in names])
    return writer.finish({"problems": len(names)})


def made(folder: Path, *stages: Sequence[Tried], most: int = 8, out: str = "out") -> list[PreferencePair]:
    judged = [stage(folder, f"s{number}", tried) for number, tried in enumerate(stages)]
    artifact = pairs.run(
        folder / out, problems=problems(folder), judged=judged, config=PairsConfig(per_problem=most), seed=1
    )
    return list(artifact.read(PreferencePair))


def names(found: list[PreferencePair]) -> set[tuple[str, str, str]]:
    return {(pair.kind, pair.chosen_attempt_id, pair.rejected_attempt_id) for pair in found}


def test_a_proved_answer_is_preferred_to_a_refused_one(tmp_path: Path) -> None:
    found = made(tmp_path, [attempt("good", "by simp", PROVED), attempt("bad", "by rfl")])
    assert found == [
        PreferencePair(
            id="bad/proof",
            problem_id="p",
            messages=ASKED,
            chosen="by simp",
            rejected="by rfl",
            chosen_attempt_id="good",
            rejected_attempt_id="bad",
        )
    ]
    counts = read_manifest(tmp_path / "out").counts
    assert counts == {
        **{"pairs": 1, "proofs": 1, "corrections": 0, "problems": 1},
        **{"chosen_characters": 7.0, "rejected_characters": 6.0},
    }


def test_all_stages_count_together_and_prompts_apart(tmp_path: Path) -> None:
    other = (ChatMessage(role="user", content="prove p, with lemmas"),)
    first = [attempt("good", "by simp", PROVED), attempt("else", "by omega", messages=other)]
    assert names(made(tmp_path, first, [attempt("bad", "by rfl")])) == {("proof", "good", "bad")}


def test_answers_to_other_problems_are_never_paired(tmp_path: Path) -> None:
    judged = [stage(tmp_path, "s", [attempt("good", "by simp", PROVED), attempt("bad", "by rfl", problem_id="q")])]
    out = pairs.run(
        tmp_path / "out", problems=problems(tmp_path, ["p", "q"]), judged=judged, config=PairsConfig(), seed=1
    )
    assert list(out.read(PreferencePair)) == []


BUSY = "(deterministic) timeout at `whnf`, maximum number of heartbeats (5000) has been reached"


@pytest.mark.parametrize(
    ("verdict", "changes"),
    [
        (Verdict(attempt_id="", status="timeout", reason="limits: 20 s of CPU time used up"), {}),
        (Verdict(attempt_id="", status="memory", reason="limits: 2,600 MiB"), {}),
        (Verdict(attempt_id="", status="failed", reason="limits: a reply out of protocol"), {}),
        (Verdict(attempt_id="", status="failed", reason=f"{CERTIFICATION}memory"), {}),
        (Verdict(attempt_id="", status="failed", reason=f"elaboration: {BUSY}"), {}),
        (
            Verdict(
                attempt_id="",
                status="failed",
                reason="elaboration: `simp` made no progress",
                messages=(Message("error", (1, 0), (1, 1), f"nested error:\n{BUSY}"),),
            ),
            {},
        ),
        (Verdict(attempt_id="", status="no_proof", reason="text: 70,000 bytes, over the limit"), {}),
        (
            Verdict(attempt_id="", status="no_proof", reason="text: the answer holds no proof"),
            {"finish_reason": "length"},
        ),
        (FAILED, {"finish_reason": "length"}),
    ],
    ids=["time", "memory", "protocol", "certification", "heartbeats", "nested", "bytes", "thinking", "cut"],
)
def test_what_may_be_a_proof_after_all_is_never_rejected(
    tmp_path: Path, verdict: Verdict, changes: dict[str, object]
) -> None:
    answers = [attempt("good", "by simp", PROVED), attempt("maybe", "by omega", verdict, **changes)]
    if verdict.status == "no_proof" and changes:
        answers[1] = attempt("maybe", "by omega", verdict, proof=None, **changes)
    assert made(tmp_path, answers) == []


@pytest.mark.parametrize(
    "status", ["failed", "sorry", "forbidden_axiom", "forbidden_constant", "statement_changed", "forbidden_syntax"]
)
def test_what_lean_refused_is_rejected(tmp_path: Path, status: str) -> None:
    refused = msgspec.convert({"attempt_id": "", "status": status}, Verdict)
    assert len(made(tmp_path, [attempt("good", "by simp", PROVED), attempt("bad", "by rfl", refused)])) == 1


def test_an_answer_that_ends_without_a_proof_is_rejected(tmp_path: Path) -> None:
    silent = Verdict(attempt_id="", status="no_proof", reason="text: the answer holds no proof")
    found = made(tmp_path, [attempt("good", "by simp", PROVED), attempt("bad", "I cannot.", silent, proof=None)])
    assert names(found) == {("proof", "good", "bad")}


def test_an_attempt_without_a_verdict_is_in_no_pair(tmp_path: Path) -> None:
    attempts, _ = stage(tmp_path, "a", [attempt("good", "by simp", PROVED), attempt("bad", "by rfl")])
    _, verdicts = stage(tmp_path, "b", [attempt("good", "by simp", PROVED)])
    out = pairs.run(
        tmp_path / "out", problems=problems(tmp_path), judged=[(attempts, verdicts)], config=PairsConfig(), seed=1
    )
    assert list(out.read(PreferencePair)) == []


def test_a_proof_is_never_rejected_in_favour_of_itself(tmp_path: Path) -> None:
    """Even where two verdicts differ, as after another version of Lean."""
    again = attempt("again", "a plan, then: by simp", proof="by  simp  -- again")
    assert made(tmp_path, [attempt("good", "by simp", PROVED), again]) == []
    other = attempt("other", "by omega", PROVED)
    assert made(tmp_path, [attempt("good", "by simp", PROVED)], [other, again], out="two") == []


def test_equal_answers_are_rejected_once(tmp_path: Path) -> None:
    wrong = [attempt("a", "by rfl"), attempt("b", "by rfl"), attempt("c", "by rfl -- surely")]
    right = [attempt("good", "by simp", PROVED), attempt("better", "by omega", PROVED)]
    found = made(tmp_path, [*right, *wrong])
    assert len(found) == 1 and found[0].rejected_attempt_id in ("a", "c")


def test_the_cap_is_drawn_by_the_seed_and_pairs_share_the_weight(tmp_path: Path) -> None:
    tried = [attempt("good", "by simp", PROVED), *(attempt(f"b{i}", f"by exact h{i}") for i in range(20))]
    judged = [stage(tmp_path, "s", tried)]
    drawn = [
        list(
            pairs.run(
                tmp_path / str(number),
                problems=problems(tmp_path),
                judged=judged,
                config=PairsConfig(per_problem=3),
                seed=seed,
            ).read(PreferencePair)
        )
        for number, seed in enumerate((1, 1, 2))
    ]
    assert [len(found) for found in drawn] == [3, 3, 3]
    assert drawn[0] == drawn[1] and names(drawn[0]) != names(drawn[2])
    assert sum(pair.weight for pair in drawn[0]) == pytest.approx(1.0)


def test_chosen_answers_take_turns_and_are_near_in_length(tmp_path: Path) -> None:
    right = [attempt("short", "by rfl", PROVED), attempt("long", "by exact some_long_lemma", PROVED)]
    wrong = [attempt("brief", "by simp"), attempt("wordy", "by exact another_lemma_x")]
    assert names(made(tmp_path, [*right, *wrong])) == {("proof", "short", "brief"), ("proof", "long", "wordy")}
    assert names(made(tmp_path, [*right, wrong[1]], out="one")) == {("proof", "long", "wordy")}
    many = [attempt(f"b{i}", f"by exact h{i}") for i in range(6)]
    found = made(tmp_path, [*right, *many], out="many")
    assert sorted(pair.chosen_attempt_id for pair in found) == ["long"] * 3 + ["short"] * 3


def test_a_proved_correction_is_preferred_to_what_it_corrects(tmp_path: Path) -> None:
    """As an answer to the first prompt: what the model should have said at once."""
    parent = attempt("bad", "by rfl")
    fixed = correction("fix", "by omega", parent[0])
    (found,) = made(tmp_path, [parent], [fixed])
    assert names([found]) == {("correction", "fix", "bad")}
    assert (found.messages, found.chosen, found.rejected) == (ASKED, "by omega", "by rfl")


def test_a_second_correction_is_preferred_to_both_answers_before(tmp_path: Path) -> None:
    parent = attempt("bad", "by rfl")
    worse = correction("worse", "by exact?", parent[0], FAILED)
    fixed = correction("fix", "by omega", worse[0])
    found = made(tmp_path, [parent], [worse], [fixed])
    assert names(found) == {("correction", "fix", "bad"), ("correction", "fix", "worse")}
    assert {pair.rejected: pair.messages for pair in found} == {"by rfl": ASKED, "by exact?": worse[0].messages}


def test_a_failed_correction_is_rejected_at_its_own_prompt(tmp_path: Path) -> None:
    parent = attempt("bad", "by rfl")
    tries = [correction("fix", "by omega", parent[0]), correction("miss", "by simp", parent[0], FAILED)]
    found = made(tmp_path, [parent], tries)
    assert names(found) == {("proof", "fix", "miss"), ("correction", "fix", "bad")}
    at_revision = next(pair for pair in found if pair.kind == "proof")
    assert at_revision.messages == tries[0][0].messages


def test_a_correction_that_timed_out_first_or_failed_gives_nothing(tmp_path: Path) -> None:
    slow = attempt("slow", "by decide", Verdict(attempt_id="", status="timeout"))
    assert made(tmp_path, [slow], [correction("fix", "by omega", slow[0])]) == []
    bad = attempt("bad", "by rfl")
    assert made(tmp_path, [bad], [correction("miss", "by simp", bad[0], FAILED)], out="two") == []


def test_a_correction_and_a_first_answer_with_one_proof_are_one_pair(tmp_path: Path) -> None:
    parent = attempt("bad", "by rfl")
    found = made(tmp_path, [parent], [correction("fix", "by omega", parent[0])], [attempt("good", "by omega", PROVED)])
    assert len(found) == 1


def test_equal_ids_of_two_stages_are_not_mixed_up(tmp_path: Path) -> None:
    """Two samplings by hand under one series name: the text of one is not the text of the other."""
    one, two = [attempt("s.0", "by simp", PROVED)], [attempt("s.0", "by rfl")]
    (found,) = made(tmp_path, one, two)
    assert (found.chosen, found.rejected) == ("by simp", "by rfl")
    parent = attempt("s.0", "by rfl")
    later = attempt("s.0", "by exact later")
    (found,) = made(tmp_path, [parent], [correction("fix", "by omega", parent[0])], [later], out="two")
    assert (found.kind, found.rejected) == ("correction", "by rfl"), "a correction goes back to an earlier stage"


def test_missing_shards_come_back_the_same(tmp_path: Path) -> None:
    tried = [attempt("good", "by simp", PROVED), *(attempt(f"b{i}", f"by exact h{i}") for i in range(9))]
    made(tmp_path, tried, most=4)
    shard = tmp_path / "out" / "00000.jsonl"
    before = shard.read_bytes()
    shard.unlink()
    (tmp_path / "out" / "artifact.json").unlink()
    made(tmp_path, tried, most=4)
    assert shard.read_bytes() == before


def tuned_on_nothing(folder: Path, *, keep_unpaired: bool) -> Model:
    base = folder / "base"
    base.mkdir(exist_ok=True)
    (base / "model.safetensors").write_bytes(b"weights")
    (base / "checkpoint.json").write_bytes(msgspec.json.encode(Checkpoint(path="base", base_model="../b", step=3)))
    return dpo.run(
        folder / "dpo",
        base=Model(base, "x", "m"),
        pairs=pairs.run(folder / "none", problems=problems(folder), judged=[], config=PairsConfig(), seed=1),
        config=DpoConfig(),
        launch=SingleLaunch(),
        series="s",
        seed=0,
        progress=Silent(),
        keep_unpaired=keep_unpaired,
    )


def test_no_pairs_stop_a_stage_and_leave_a_round_its_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pair") as raised:
        tuned_on_nothing(tmp_path, keep_unpaired=False)
    assert "\n" not in str(raised.value)
    model = tuned_on_nothing(tmp_path, keep_unpaired=True)
    assert (model.path / "model.safetensors").read_bytes() == b"weights"
    assert read_manifest(tmp_path / "dpo").counts == {"steps": 0}
