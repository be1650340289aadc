"""The core library against the real Lean: what is listed, what the statements mean, what leaks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from lean_env import toolchain
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from prover.binders import parse_statement
from prover.config import CoreProblems, EmbeddedLean, MiniF2FProblems
from prover.errors import InputError
from prover.problems import run_problems
from prover.problems.core import core_problems
from prover.problems.library import LibraryTheorem, cache_path, load_library, twins
from prover.records import Problem

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LIMITS = Limits(heartbeats=20_000, cpu_seconds=10.0)


@pytest.fixture(scope="module")
def library() -> tuple[LibraryTheorem, ...]:
    return load_library(workers=2)


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(toolchain.find(), workers=2) as pool:
        yield pool


def some(library: tuple[LibraryTheorem, ...], split: str, limit: int) -> list[Problem]:
    config = CoreProblems.model_validate({"source": "core", "split": split, "limit": limit})
    return list(core_problems(config, library))


def verdicts(pool: LeanPool, requests: Iterable[CheckRequest]) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for verdict in pool.check(requests):
        assert isinstance(verdict, Verdict), verdict
        found[verdict.attempt_id] = verdict
    return found


def test_the_library_is_listed_whole_and_in_import_order(library: tuple[LibraryTheorem, ...]) -> None:
    assert len(library) > 20_000
    assert sum(t.returns for t in library) > 10_000
    assert [t.order for t in library] == sorted(t.order for t in library)
    by_name = {t.name: t for t in library}
    assert len(by_name) == len(library)
    assert by_name["Nat.add_comm"].text == " (n m : Nat) : n + m = m + n"
    assert by_name["List.map_append"].simp
    assert not by_name["Nat.add_comm"].simp
    assert by_name["Nat.add_comm"].order < by_name["List.map_append"].order < by_name["Array.map_append"].order
    assert not [name for name in by_name if "._" in name or name.startswith("_private") or ".match_" in name]
    assert "Nat.succ.injEq" not in by_name


def test_renamings_are_found(library: tuple[LibraryTheorem, ...]) -> None:
    same = twins(library)
    assert "Nat.add_left_comm" not in {t.name for t in same.get("Nat.add_comm", ())}
    assert any(len(group) >= 2 for group in same.values())
    for theorem in library:  # whoever is a twin of mine has me for a twin, unless one of us is a mirror image only
        for other in same.get(theorem.name, ()):
            assert theorem.type in (other.type, other.flipped) or other.type == theorem.flipped


def test_statements_mean_what_the_library_says(library: tuple[LibraryTheorem, ...], pool: LeanPool) -> None:
    """Nothing forbidden, each theorem proves its own problem; forbidden, it does not."""
    problems = some(library, "train", 60) + some(library, "valid", 30) + some(library, "test", 30)

    def itself(problem: Problem, forbidden: tuple[str, ...]) -> CheckRequest:
        statement = parse_statement(problem.formal_statement)
        assert statement is not None
        arguments = [name for binder in statement.binders for name in binder.names or ("_",)]
        proof = " ".join(["@" + problem.id.removeprefix("core/"), *arguments])
        return CheckRequest(problem.id, problem.header, problem.formal_statement, proof, forbidden, LIMITS)

    free = verdicts(pool, (itself(p, ()) for p in problems))
    assert {i: v.reason for i, v in free.items() if not v.proved} == {}
    bound = verdicts(pool, (itself(p, p.forbidden_constants) for p in problems))
    assert {i: v.status for i, v in bound.items() if v.status != "forbidden_constant"} == {}


def test_simp_no_longer_has_the_theorem(library: tuple[LibraryTheorem, ...], pool: LeanPool) -> None:
    simple = {f"core/{t.name}" for t in library if t.simp}
    problems = [p for p in some(library, "train", 200) if p.id in simple][:50]
    found = verdicts(
        pool,
        (CheckRequest(p.id, p.header, p.formal_statement, "by simp", p.forbidden_constants, LIMITS) for p in problems),
    )
    assert {v.status for v in found.values()} <= {"proved", "failed"}
    assert {v.status for v in found.values()} == {"proved", "failed"}  # some follow from other lemmas, some do not


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared benchmark files are not beside this checkout")
def test_minif2f_core_has_128_problems(tmp_path: Path) -> None:
    config = MiniF2FProblems(source="minif2f", path=DATA / "minif2f_deepseek.jsonl", header="core")
    out = tmp_path / "minif2f-core.jsonl"
    counts = run_problems(config, out, elaborates=True, lean=EmbeddedLean(workers=2))
    assert (counts.read, counts.rejected, counts.written) == (488, 360, 128)
    kept = [msgspec.json.decode(line, type=Problem) for line in out.read_bytes().splitlines()]
    assert len({p.id for p in kept}) == 128
    assert {p.name for p in tmp_path.iterdir()} == {out.name}


def test_a_file_that_lean_refuses_whole_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "mathlib.jsonl"
    line = {"name": "a", "split": "test", "header": "import Mathlib\n", "formal_statement": "theorem a : 1 = 1 := by"}
    source.write_bytes(msgspec.json.encode(line) + b"\n")
    out = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="none of 1 statements elaborates"):
        run_problems(MiniF2FProblems(source="minif2f", path=source), out, elaborates=True, lean=EmbeddedLean(workers=1))
    assert not out.exists()


def test_the_second_use_reads_the_cache(library: tuple[LibraryTheorem, ...]) -> None:
    path = cache_path(toolchain.find())
    before = path.stat().st_mtime_ns
    assert load_library(workers=1) == library
    assert path.stat().st_mtime_ns == before


def test_an_elaboration_failure_says_where(pool: LeanPool) -> None:
    found = dict(
        pool.elaborate(
            [
                CheckRequest("good", "", "theorem t : 1 = 1", ""),
                CheckRequest("bad", "set_option autoImplicit false", "theorem t (x : ℝ) : x = x", ""),
            ]
        )
    )
    assert found["good"] is None
    assert isinstance(found["bad"], StatementFailure)
    assert found["bad"].where == "statement"
