"""The cache of the library's theorems."""

from pathlib import Path

import msgspec
import pytest

from prover.problems.library import LibraryTheorem, read_cache
from prover.progress import Silent

THEOREMS = tuple(LibraryTheorem(name=n, module="Init.Core", order=0, type=n, flipped=n) for n in ("A.b", "C.d"))
WHOLE = b"".join(msgspec.json.encode(theorem) + b"\n" for theorem in THEOREMS)


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_a_whole_cache_is_taken_and_a_missing_one_is_none(tmp_path: Path) -> None:
    notes = Notes()
    assert read_cache(tmp_path / "library.jsonl", notes) is None
    (tmp_path / "library.jsonl").write_bytes(WHOLE)
    assert read_cache(tmp_path / "library.jsonl", notes) == THEOREMS
    assert notes.lines == []


@pytest.mark.parametrize("damaged", [WHOLE[:-9], WHOLE.replace(b"C.d", b"C\xff", 1), b"\0" * 40, b'{"name": 1}\n'])
def test_a_damaged_cache_counts_as_none_and_is_named(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "library.jsonl").write_bytes(damaged)
    notes = Notes()
    assert read_cache(tmp_path / "library.jsonl", notes) is None
    assert len(notes.lines) == 1 and "library.jsonl: is damaged (" in notes.lines[0]
