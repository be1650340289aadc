"""``prover check --jsonl``: one result a line in the input's order, and what a killed command keeps.

A scripted process stands in Lean's place.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lean_env.protocol import Limits
from lean_env.worker import Launch
from prover.check import CheckSummary, check_jsonl
from prover.errors import InputError
from prover.partial import Partial, PartialHeader
from prover.progress import SilentMeter

SCRIPT = Path(__file__).parent / "lean_env" / "scripted_lean.py"
PROOFS = ["ok", "wrong", "ok 2", "wrong 2", "ok 3", "wrong 3"]


class Scripted:
    def __init__(self, version: str = "scripted 1") -> None:
        self.version = version

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(SCRIPT)), {})


class Watch(SilentMeter):
    """Counts candidates, and interrupts after ``stop`` of them as Ctrl-C does."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.checked = 0
        self.notes: list[str] = []

    def add(
        self, done: int = 0, *, attempts: int = 0, proved: int = 0, checks: int = 0, tokens: int = 0, steps: int = 0
    ) -> None:
        self.checked += done
        if self.checked == self.stop:
            raise KeyboardInterrupt

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator["Watch"]:
        yield self

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "candidates.jsonl"
    rows = [
        {"id": f"c{i}", "header": "", "formal_statement": f"theorem t{i % 2} : True", "proof": proof}
        for i, proof in enumerate(PROOFS)
    ]
    rows.insert(3, {"id": "none", "header": "", "formal_statement": "def f : Nat", "proof": "ok"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def check(source: Path, out: Path, watch: Watch, version: str = "scripted 1", heartbeats: int = 1_000) -> CheckSummary:
    limits = Limits(heartbeats=heartbeats)
    return check_jsonl(source, out, workers=1, limits=limits, progress=watch, toolchain=Scripted(version))


def lines(out: Path) -> list[tuple[str, str | None]]:
    return [(row["attempt_id"], row.get("status")) for row in map(json.loads, out.read_text().splitlines())]


EXPECTED = [
    *[("c0", "proved"), ("c1", "failed"), ("c2", "proved"), ("none", None)],
    *[("c3", "failed"), ("c4", "proved"), ("c5", "failed")],
]


def test_a_killed_check_goes_on_and_owes_its_torn_last_line(source: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "v.jsonl", tmp_path / ".v.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        check(source, out, Watch(stop=4))
    assert not out.exists()
    whole = partial.read_bytes()
    assert whole.count(b"\n") == 1 + 4
    partial.write_bytes(whole[:-5])
    watch = Watch()
    summary = check(source, out, watch)
    assert watch.checked == len(EXPECTED) - 3
    assert watch.notes and watch.notes[0].startswith("3 of 7 candidates")
    assert lines(out) == EXPECTED
    assert (summary.statuses, summary.statements) == ({"proved": 3, "failed": 3}, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["candidates.jsonl", "v.jsonl"]


def test_results_of_another_lean_limit_or_input_are_not_taken_over(source: Path, tmp_path: Path) -> None:
    for change in ("version", "heartbeats", "input"):
        with pytest.raises(KeyboardInterrupt):
            check(source, tmp_path / "v.jsonl", Watch(stop=4))
        watch = Watch()
        if change == "input":
            source.write_text(source.read_text().replace("ok 3", "ok 4"))
        check(
            source,
            tmp_path / "v.jsonl",
            watch,
            version="scripted 2" if change == "version" else "scripted 1",
            heartbeats=2_000 if change == "heartbeats" else 1_000,
        )
        assert watch.checked == len(EXPECTED), change


def test_two_commands_do_not_write_one_output(source: Path, tmp_path: Path) -> None:
    with (
        Partial(tmp_path / "v.jsonl", PartialHeader("", Limits(), ""), {}),
        pytest.raises(InputError, match="another process is writing it"),
    ):
        check(source, tmp_path / "v.jsonl", Watch())


NEW = {"id": "new", "header": "", "formal_statement": "theorem t0 : True", "proof": "ok"}


def test_verdicts_of_another_input_come_from_the_cache(source: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    for name in ("v", "w"):
        watch = Watch()
        cache = tmp_path / "cache.sqlite"
        check_jsonl(
            source, tmp_path / name, workers=1, progress=watch, toolchain=Scripted(), limits=Limits(), cache=cache
        )
        notes += watch.notes
        source.write_text(source.read_text() + json.dumps(NEW) + "\n")
    assert lines(tmp_path / "v") == EXPECTED and lines(tmp_path / "w") == [*EXPECTED, ("new", "proved")]
    assert notes == ["w: 7 verdicts came from the cache"]
