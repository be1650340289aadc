"""The pool with real Lean: what becomes of proofs, of bombs, and of workers that are killed."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lean_env.answers import HOLDS_SYNTAX
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.toolchain import find
from prover.check import check_files, check_jsonl
from prover.errors import InputError

SHORT = Limits(cpu_seconds=4.0)


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(find(), 2) as pool:
        yield pool


def ask(pool: LeanPool, statement: str, proof: str, header: str = "", limits: Limits = SHORT) -> Verdict:
    (result,) = pool.check([CheckRequest("one", header, statement, proof, limits=limits)])
    assert isinstance(result, Verdict), result
    return result


def test_a_proof(pool: LeanPool) -> None:
    verdict = ask(pool, "theorem foo (a b : Nat) (h : a < b) : a + 1 ≤ b", "by omega")
    assert verdict.status == "proved" and verdict.reason == "" and verdict.heartbeats > 0 and verdict.seconds > 0
    assert set(verdict.axioms) <= {"propext", "Classical.choice", "Quot.sound"}
    assert verdict.toolchain == find().version


def test_a_failure_says_where(pool: LeanPool) -> None:
    verdict = ask(pool, "theorem foo (a b : Nat) : a + b = b + a", "by\n  skip\n  rfl")
    assert verdict.status == "failed"
    error = verdict.messages[0]
    assert error.severity == "error" and error.start == (3, 2)


def test_a_whole_text_with_helpers_and_its_own_header(pool: LeanPool) -> None:
    header = "import Init\n\nset_option autoImplicit false\n\ndef twice (n : Nat) : Nat := 2 * n"
    helper = "theorem helper (n : Nat) : twice n = n + n := by\n  unfold twice; omega"
    whole = f"{header}\n\n{helper}\n\ntheorem foo : twice 2 = 4 := by\n  rw [helper]"
    assert ask(pool, "theorem foo : twice 2 = 4", whole, header).status == "proved"


def test_letters_beyond_the_basic_plane(pool: LeanPool) -> None:
    assert (
        ask(pool, "theorem foo («𝓝 x» : Nat) : «𝓝 x» = «𝓝 x»", "by\n  have 𝓝 := «𝓝 x» -- 🎉 ℕ\n  rfl").status
        == "proved"
    )


def test_a_statement_that_does_not_elaborate(pool: LeanPool) -> None:
    header = "set_option autoImplicit false"  # otherwise the unknown name becomes a variable
    requests = [
        CheckRequest("bad", header, "theorem foo : no_such_thing = 1", "rfl", limits=SHORT),
        CheckRequest("good", header, "theorem foo : 1 = 1", "rfl", limits=SHORT),
    ]
    results = {result.attempt_id: result for result in pool.check(requests)}
    bad, good = results["bad"], results["good"]
    assert isinstance(bad, StatementFailure) and bad.where == "statement" and bad.messages
    assert isinstance(good, Verdict) and good.proved
    assert {key: failure is None for key, failure in pool.elaborate(requests)} == {"bad": False, "good": True}


def test_kernel_computation_without_end_is_a_timeout(pool: LeanPool) -> None:
    verdict = ask(pool, "theorem foo : 7 ^ 20000000 % 10 = 1", "by decide +kernel", limits=Limits(cpu_seconds=2.0))
    assert verdict.status == "timeout" and verdict.reason == "limits: 2 s of CPU time used up"


def test_a_memory_bomb_is_held(pool: LeanPool) -> None:
    proof = "by\n  have h : (List.replicate 100000000 0).length = 100000000 := by decide +kernel\n  rfl"
    verdict = ask(pool, "theorem foo : 1 = 1", proof, limits=Limits(cpu_seconds=30.0, memory_mb=1_500))
    assert verdict.status == "memory" and verdict.reason.startswith("limits: ")


def test_nesting_without_end_is_held(pool: LeanPool) -> None:
    depth = 30_000
    verdict = ask(pool, "theorem foo : True", "(" * depth + "trivial" + ")" * depth, limits=Limits(cpu_seconds=20.0))
    assert verdict.status in ("memory", "failed")


def test_messages_are_bounded(pool: LeanPool) -> None:
    proof = "by\n" + "  have : 0 = 1 := by rfl\n" * 150 + "  rfl"
    verdict = ask(pool, "theorem foo : 2 = 2", proof, limits=Limits())
    assert verdict.status == "failed"
    assert len(verdict.messages) <= 60 and sum(len(m.text) for m in verdict.messages) < 100_000


def mixed(count: int) -> list[CheckRequest]:
    statements = ["theorem t (n : Nat) : n + 0 = n", "theorem t (a b : Int) : a + b = b + a", "theorem t : 1 = 2"]
    proofs = ["by rfl", "by omega", "by simp", "by decide", "by exact absurd", "by sorry", "by grind"]
    return [
        CheckRequest(f"{n}", "", statements[n % 3], proofs[n % 7] + (f" -- {n}" if n % 2 else ""), limits=Limits())
        for n in range(count)
    ]


def test_workers_killed_at_random_change_no_verdict(pool: LeanPool) -> None:
    def plain(result: Verdict | StatementFailure) -> Verdict:
        assert isinstance(result, Verdict)
        return msgspec.structs.replace(result, seconds=0.0, heartbeats=0)

    requests = mixed(240)
    rng = random.Random(1)
    undisturbed = {result.attempt_id: plain(result) for result in pool.check(requests)}
    disturbed: dict[str, Verdict] = {}
    lost = pool.stats.lost
    for result in pool.check(requests):
        assert result.attempt_id not in disturbed
        disturbed[result.attempt_id] = plain(result)
        if len(disturbed) in (1, 120):
            os.kill(rng.choice(pool.worker_pids()), signal.SIGKILL)
    assert pool.stats.lost > lost
    assert disturbed == undisturbed


def test_a_worker_on_which_a_constant_held_syntax_is_retired_at_once() -> None:
    """Guard.lean says only in words that the refused command had run: this is what notices if it says them
    differently."""
    with LeanPool(find(), 1) as pool:
        text = "def bad := Lean.mkNullNode #[]\ntheorem foo : True := trivial"
        # Only audited: a worker that certifies would run beside.
        (verdict,) = pool.check([CheckRequest("one", "", "theorem foo : True", text)], certify=False)
        assert (
            isinstance(verdict, Verdict)
            and verdict.status == "forbidden_syntax"
            and verdict.reason.endswith(HOLDS_SYNTAX)
        )
        assert pool.worker_pids() == [] and pool.stats.lost == 1


def test_check_jsonl(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"id": "b", "header": "", "formal_statement": "theorem t : 1 + 1 = 2", "proof": "rfl"},
        {"id": "a", "header": "", "formal_statement": "theorem t : 1 + 1 = 3", "proof": "by sorry"},
        {"id": "c", "header": "", "formal_statement": "theorem t : oops", "proof": "rfl"},
        {"id": "d", "header": "", "formal_statement": "theorem Nat.t (n : Nat) : n ≤ n", "proof": "Nat.le_refl n",
         "forbidden_constants": ["Nat.le_refl"]},
    ]  # fmt: skip
    source.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    summary = check_jsonl(source, output, workers=1)
    results = [msgspec.json.decode(line) for line in output.read_bytes().splitlines()]
    assert [r["attempt_id"] for r in results] == ["b", "a", "c", "d"]
    assert [r.get("status") for r in results] == ["proved", "sorry", None, "forbidden_constant"]
    assert summary.statuses == {"proved": 1, "sorry": 1, "forbidden_constant": 1} and summary.statements == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "header": "", "formal_statement": "x", "prof": "y"}\n',
         "in.jsonl:1: unknown field 'prof'; did you mean 'proof'"),
        ('{"id": "a", "header": ""}\n', "in.jsonl:1: .*missing"),
        ('{"id": "a", "header": "", "formal_statement": "x", "proof": "y"}\n' * 2,
         "in.jsonl:2: id: 'a' stands in line 1 too"),
        ('{"id": "a", "hea', "in.jsonl:1: the last line is torn"),
        ("", "in.jsonl: is empty"),
    ],
)  # fmt: skip
def test_check_jsonl_names_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    with pytest.raises(InputError, match=message):
        check_jsonl(source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_check_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "Good.lean", tmp_path / "Bad.lean"
    good.write_text("import Init\n\ntheorem t : 1 + 1 = 2 := rfl\n")
    bad.write_text("theorem t : 1 + 1 = 2 := rfl\n\ntheorem u : 1 = 2 := by\n  decide\n#check t\n")
    lines: list[str] = []
    assert check_files([good, bad], show=lines.append) is False
    assert not any(line.startswith(str(good)) for line in lines)
    assert any(line.startswith(f"{bad}:4:3: error: ") for line in lines)
    assert any(line.startswith(f"{bad}:5:1: info: ") for line in lines)
