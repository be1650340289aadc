"""The problems of a run, resumed after a kill; a user's JSONL file as the problems of a single stage."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lean_env.protocol import CheckRequest, StatementFailure
from prover.artifacts import read_manifest
from prover.config import JsonlProblems
from prover.errors import InputError
from prover.progress import Silent
from prover.records import Problem
from prover.stages import problems as stage
from prover.stages.problems import from_jsonl


class Elaborator:
    """Stands in Lean's place: refuses every seventh statement, and dies after ``answers`` of them."""

    workers = 1
    toolchain = SimpleNamespace(version="stand-in 1")

    def __init__(self, answers: int = 1_000_000) -> None:
        self.answers = answers
        self.asked = 0

    def elaborate(self, requests: Iterable[CheckRequest]) -> Iterator[tuple[str, StatementFailure | None]]:
        for request in requests:
            if self.asked == self.answers:
                raise KeyboardInterrupt
            self.asked += 1
            bad = int(request.id.removeprefix("p")) % 7 == 3
            yield request.id, StatementFailure(request.id, "statement", "no") if bad else None


def fix(out: Path, file: Path, pool: Any, *, clean: bool = False) -> dict[str, bytes]:
    """The stage's files with what is in them, the manifest aside."""
    section = JsonlProblems(source="jsonl", path=file)
    stage.run(out, name="train", section=section, pool=pool, progress=Silent(), clean=clean)
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "artifact.json"}


def write(file: Path, *names: str, ending: str = "") -> Path:
    rows = ({"id": n, "header": "", "formal_statement": f"theorem {n} : True{ending}"} for n in names)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_an_edited_file_stands_beside_the_one_that_attempts_were_made_for(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", "a", "b")
    first = from_jsonl(file, tmp_path / "problems")
    assert from_jsonl(file, tmp_path / "problems") == first
    second = from_jsonl(write(file, "a", "b", "c"), tmp_path / "problems")
    assert [len(list(artifact.read(Problem))) for artifact in (first, second)] == [2, 3]
    assert first.fingerprint != second.fingerprint


def test_a_statement_with_its_ending_is_refused_by_line(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", "a", ending=" := by")
    with pytest.raises(InputError, match=r"p\.jsonl:1: field formal_statement: must end before ':='"):
        from_jsonl(file, tmp_path / "problems")


def test_a_killed_stage_goes_on_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", *(f"p{i}" for i in range(700)))
    undisturbed = fix(tmp_path / "one", file, Elaborator())
    with pytest.raises(KeyboardInterrupt):
        fix(tmp_path / "two", file, Elaborator(answers=600))
    again = Elaborator()
    assert fix(tmp_path / "two", file, again) == undisturbed
    assert again.asked == 700 - 512
    counts = [read_manifest(tmp_path / name).counts for name in ("one", "two")]
    assert counts[0] == counts[1] == {"problems": 600, "rejected": 100}


def test_progress_whose_shards_are_gone_counts_for_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", *(f"p{i}" for i in range(400)))
    with pytest.raises(KeyboardInterrupt):
        fix(tmp_path / "out", file, Elaborator(answers=300))
    (tmp_path / "out" / "00001.jsonl").unlink()
    again = Elaborator()
    fix(tmp_path / "out", file, again)
    assert again.asked == 400


def test_clean_starts_over(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", *(f"p{i}" for i in range(300)))
    with pytest.raises(KeyboardInterrupt):
        fix(tmp_path / "out", file, Elaborator(answers=290))
    again = Elaborator()
    fix(tmp_path / "out", file, again, clean=True)
    assert again.asked == 300
