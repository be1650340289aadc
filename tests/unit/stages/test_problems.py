"""A user's JSONL file as the problems of a single stage."""

import json
from pathlib import Path

import pytest

from prover.errors import InputError
from prover.records import Problem
from prover.stages.problems import from_jsonl


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
