import json
from pathlib import Path

import pytest

from prover.config import JsonlProblems, MiniF2FProblems
from prover.errors import InputError
from prover.problems import read_problems, run_problems
from prover.problems.minif2f import CORE_HEADER

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
GOOD = {"id": "p", "header": "", "formal_statement": "theorem t : 1 = 1"}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[str]:
    return [p.id for p in read_problems(JsonlProblems(source="jsonl", path=path))]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (({**GOOD, "heder": "x"},), (":1:", "unknown field 'heder'", "'header'")),
        (({"id": "p", "header": ""},), (":1:", "formal_statement")),
        (({**GOOD, "forbidden_constants": "x"},), (":1:", "field forbidden_constants")),
        ((GOOD, GOOD), (":2:", "'p'", "line 1")),
        (
            (GOOD, {**GOOD, "id": "q", "formal_statement": "theorem t : 1 = 1 := by"}),
            (":2:", "field formal_statement", "':='"),
        ),
        (({**GOOD, "formal_statement": "1 = 1"},), (":1:", "formal_statement", "theorem")),
        ((GOOD, '{"id": "q", "hea'), (":2:",)),
        ((), ("empty",)),
        ((" ", ""), ("empty",)),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: tuple[object, ...], said: tuple[str, ...]) -> None:
    path = write(tmp_path / "problems.jsonl", *lines)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert all(part in str(error.value) for part in said), str(error.value)
    assert "\n" not in str(error.value)


def test_a_limit_takes_the_first_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *({**GOOD, "id": str(i)} for i in range(5)))
    assert [p.id for p in read_problems(JsonlProblems(source="jsonl", path=path, limit=2))] == ["0", "1"]


def test_writing_is_whole_or_not_at_all(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    good = write(tmp_path / "good.jsonl", GOOD, {**GOOD, "id": "q"})
    out = tmp_path / "new" / "out.jsonl"
    counts = run_problems(JsonlProblems(source="jsonl", path=good), out)
    assert (counts.read, counts.rejected, counts.written) == (2, 0, 2)
    assert read(out) == ["p", "q"]
    run_problems(JsonlProblems(source="jsonl", path=good))
    assert capsysbinary.readouterr().out == out.read_bytes()
    before = out.read_bytes()
    with pytest.raises(InputError):
        run_problems(JsonlProblems(source="jsonl", path=write(tmp_path / "bad.jsonl", GOOD, "{")), out)
    assert out.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["out.jsonl"]


DEEPSEEK = {
    "name": "two_plus",
    "split": "valid",
    "informal_prefix": "/-- Show $2 + 2 = 4$.-/\n",
    "formal_statement": "theorem two_plus (x : ℕ) (h : x = (2 : ℕ)) : -- := by\n  x + 2 = 4 := by\n",
    "goal": "⊢ 2 + 2 = 4",
    "header": "import Mathlib\n\nopen Nat\n\n",
}
GOEDEL = {
    "name": "two_plus",
    "split": "test",
    "problem_id": "two_plus",
    "informal_prefix": DEEPSEEK["informal_prefix"],
    "formal_statement": f"{DEEPSEEK['header']}{DEEPSEEK['informal_prefix']}{DEEPSEEK['formal_statement']}",
    "lean4_code": "",
}


@pytest.mark.parametrize("line", [DEEPSEEK, GOEDEL], ids=["deepseek", "goedel"])
def test_both_editions_give_the_same_problem(tmp_path: Path, line: dict[str, str]) -> None:
    path = write(tmp_path / "m.jsonl", line)
    (problem,) = read_problems(MiniF2FProblems(source="minif2f", path=path))
    assert problem.id == "minif2f/two_plus"
    assert problem.header == "import Mathlib\n\nopen Nat"
    assert problem.formal_statement == "theorem two_plus (x : ℕ) (h : x = (2 : ℕ)) : -- := by\n  x + 2 = 4"
    assert problem.informal_statement == "Show $2 + 2 = 4$."
    assert problem.split == line["split"]
    (core,) = read_problems(MiniF2FProblems(source="minif2f", path=path, header="core"))
    assert core.header == CORE_HEADER


def test_a_statement_without_its_ending_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", DEEPSEEK, {**DEEPSEEK, "name": "b", "formal_statement": "theorem b : True"})
    with pytest.raises(InputError, match=r"m\.jsonl:2: field formal_statement: does not end with ':='"):
        list(read_problems(MiniF2FProblems(source="minif2f", path=path)))


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared benchmark files are not beside this checkout")
@pytest.mark.parametrize(
    ("file", "split", "count"), [("deepseek", "all", 488), ("deepseek", "test", 244), ("goedel", "all", 244)]
)
def test_the_published_files_are_read_whole(file: str, split: str, count: int) -> None:
    path = DATA / f"minif2f_{file}.jsonl"
    problems = list(read_problems(MiniF2FProblems.model_validate({"source": "minif2f", "path": path, "split": split})))
    assert len({p.id for p in problems}) == count
    assert {p.header.splitlines()[0] for p in problems} == {"import Mathlib"}
    assert all(
        p.formal_statement.startswith("theorem ") and not p.formal_statement.endswith(("by", "=")) for p in problems
    )
    assert all(p.informal_statement and "-/" not in p.informal_statement for p in problems)
