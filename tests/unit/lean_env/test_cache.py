"""Verdicts by content: what is kept, for whom it answers, and what becomes of the file in every bad moment."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lean_env.cache import VerdictCache, key_of, shape_of
from lean_env.errors import CacheError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.worker import Launch

SCRIPT = Path(__file__).with_name("scripted_lean.py")
LIMITS = Limits(cpu_seconds=0.5, memory_mb=300)


class Scripted:
    def __init__(self, version: str = "scripted 1") -> None:
        self.version = version

    def launch(self) -> Launch:
        return Launch((sys.executable, "-I", "-S", str(SCRIPT)), {})


def request(
    proof: str,
    ident: str = "a",
    header: str = "",
    statement: str = "theorem t : True",
    forbidden: tuple[str, ...] = (),
    limits: Limits = LIMITS,
) -> CheckRequest:
    return CheckRequest(ident, header, statement, proof, forbidden, limits)


def ask(
    path: Path, requests: list[CheckRequest], *, certify: bool = True, version: str = "scripted 1"
) -> tuple[dict[str, Verdict | StatementFailure], int]:
    """The answers by id, and how many of them came from the cache."""
    with VerdictCache(path) as cache, LeanPool(Scripted(version), 1, cache=cache) as pool:
        answers = {answer.attempt_id: answer for answer in pool.check(requests, certify=certify)}
        assert (pool.stats.started == 0) == (pool.stats.cached == len(requests))
        return answers, pool.stats.cached


def test_the_shape_of_a_verdict_covers_all_that_it_holds() -> None:
    assert set(shape_of(Verdict)) == {
        *("Verdict", "Message", "Feedback", "GoalsAt", "TacticStep", "Goal", "Hypothesis")
    }

    def holder(**goal: type) -> type[msgspec.Struct]:
        inner = msgspec.defstruct("Goal", [*goal.items()])
        return msgspec.defstruct("Verdict", [("feedback", tuple[inner, ...] | None)])

    shapes = [shape_of(holder(**goal)) for goal in ({"text": str}, {"text": bytes}, {"text": str, "case": str}, {})]
    assert all(one != other for place, one in enumerate(shapes) for other in shapes[:place])
    assert shape_of(holder(text=str)) == shapes[0]


def test_what_was_asked_before_needs_no_worker(tmp_path: Path) -> None:
    first, _ = ask(tmp_path / "c", [request("ok", "a"), request("wrong", "b")])
    again, cached = ask(tmp_path / "c", [request("wrong", "c"), request("ok", "d")])
    assert cached == 2
    for before, now in (("a", "d"), ("b", "c")):
        verdict = first[before]
        assert isinstance(verdict, Verdict)
        assert again[now] == msgspec.structs.replace(verdict, attempt_id=now)


@pytest.mark.parametrize(
    "other",
    [
        request("ok", header="open Nat"),
        request("ok", statement="theorem s : True"),
        request("ok 2"),
        request("ok", forbidden=("Nat",)),
        request("ok", limits=Limits(heartbeats=7)),
        request("ok", limits=Limits(cpu_seconds=0.4, memory_mb=300)),
    ],
)
def test_whatever_decides_a_verdict_is_in_its_key(tmp_path: Path, other: CheckRequest) -> None:
    ask(tmp_path / "c", [request("ok")])
    assert ask(tmp_path / "c", [other])[1] == 0


def test_another_lean_is_asked_anew(tmp_path: Path) -> None:
    ask(tmp_path / "c", [request("ok")])
    assert ask(tmp_path / "c", [request("ok")], version="scripted 2")[1] == 0


def test_what_time_memory_or_a_worker_decided_is_not_kept(tmp_path: Path) -> None:
    """Nor failures of a statement, and refusals of the second worker."""
    words = ["spin", "bomb", "babble", "certify wrong", "void"]
    requests = [request(word, word) for word in words]
    requests.append(request("ok", "bad", statement="def f : Nat"))
    first, _ = ask(tmp_path / "c", [*requests, request("wrong", "kept")])
    again, cached = ask(tmp_path / "c", [*requests, request("wrong", "kept")])
    assert cached == 1 and isinstance(first["bad"], StatementFailure)
    statuses = {key: answer.status for key, answer in again.items() if isinstance(answer, Verdict)}
    assert statuses == {
        **{"spin": "timeout", "bomb": "memory", "babble": "failed"},
        **{"certify wrong": "failed", "void": "failed", "kept": "failed"},
    }


def test_an_audited_proof_is_no_certified_one(tmp_path: Path) -> None:
    def level(certify: bool) -> tuple[str, int]:
        answers, cached = ask(tmp_path / "c", [request("ok")], certify=certify)
        answer = answers["a"]
        assert isinstance(answer, Verdict) and answer.proved
        return answer.level, cached

    assert level(False) == ("audited", 0)
    assert level(True) == ("certified", 0)
    assert level(True) == ("certified", 1)
    assert level(False) == ("certified", 1)


def test_a_proof_that_only_the_first_worker_accepts_stays_audited(tmp_path: Path) -> None:
    assert ask(tmp_path / "c", [request("lie")], certify=False)[1] == 0
    answer = ask(tmp_path / "c", [request("lie")])[0]["a"]
    assert isinstance(answer, Verdict) and answer.status == "failed"


def test_a_certified_proof_is_not_replaced_by_an_audited_one(tmp_path: Path) -> None:
    """Two processes may have asked at the same time."""
    key = key_of({}, LIMITS, "")
    verdicts = [Verdict("", "proved", level=level) for level in ("audited", "certified", "audited")]
    with VerdictCache(tmp_path / "c") as cache:
        for verdict in verdicts:
            cache.add(key, verdict)
            cache.flush()
        assert cache.find(key, certified=True) == verdicts[1]


WRITER = """
import sys
from pathlib import Path
from lean_env.cache import VerdictCache, key_of
from lean_env.protocol import Limits, Verdict
path, start, count, every = Path(sys.argv[1]), *map(int, sys.argv[2:5])
print("open", flush=True)
with VerdictCache(path, lambda text: print(text, flush=True)) as cache:
    for number in range(start, start + count):
        cache.add(key_of({"n": number}, Limits(), ""), Verdict("x", "failed", f"elaboration: {number} " + 50 * "x"))
        if number % every == 0:
            cache.flush()
            print(number, flush=True)
    cache.flush()
    keys = [key_of({"n": n}, Limits(), "") for n in range(start, start + count)]
    print("found", sum(cache.find(key, certified=True) is not None for key in keys), flush=True)
"""


def writer(path: Path, start: int, count: int, every: int = 10) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(path), str(start), str(count), str(every)]
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})


def reason(cache: VerdictCache, number: int) -> str | None:
    verdict = cache.find(key_of({"n": number}, Limits(), ""), certified=True)
    return verdict and verdict.reason.strip("x")


def test_processes_write_beside_each_other(tmp_path: Path) -> None:
    """The file does not exist when they start, so they make it at the same time, too."""
    path = tmp_path / "c"
    writers = [writer(path, start, 300) for start in (0, 150, 300)]
    said = [process.communicate(timeout=120)[0] for process in writers]
    assert [text.splitlines()[-1] for text in said] == ["found 300"] * 3
    with VerdictCache(path) as cache:
        assert [reason(cache, n) for n in range(600)] == [f"elaboration: {n} " for n in range(600)]


@pytest.mark.parametrize("after", ["open", "50", "200"])
def test_a_killed_writer_leaves_what_it_had_written(tmp_path: Path, after: str) -> None:
    path = tmp_path / "c"
    process = writer(path, 1, 1_000_000)
    assert process.stdout is not None
    seen: list[str] = []
    while not seen or seen[-1] != after:
        seen.append(process.stdout.readline().strip())
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.read().split()
    process.wait()
    with VerdictCache(path) as cache:
        written = max(int(word) for word in ("0", *seen) if word.isdigit())
        assert [reason(cache, n) for n in range(1, written + 1)] == [
            f"elaboration: {n} " for n in range(1, written + 1)
        ]
        cache.add(key_of({"n": 0}, LIMITS, ""), Verdict("x", "failed"))
        cache.flush()
        assert cache.find(key_of({"n": 0}, LIMITS, ""), certified=True)


FULL = """
import resource, signal, sys
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
exec(sys.argv.pop(1))
"""


def test_a_full_disk_ends_the_writing_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, "200000", WRITER, str(tmp_path / "c"), "1", "3000", "100"]
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": root}, check=False
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    complaints = [line for line in said if "the verdict cache cannot be written" in line]
    assert len(complaints) == 1 and str(tmp_path / "c") in complaints[0] and said[-2] == "3000"
    assert 100 <= int(said[-1].removeprefix("found ")) < 3_000, "what was there before is still read"
    with VerdictCache(tmp_path / "c") as cache:
        assert reason(cache, 100) == "elaboration: 100 "


def test_the_file_stays_within_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with VerdictCache(path, max_bytes=300_000) as cache:
        for number in range(4_000):
            cache.add(key_of({"n": number}, Limits(), ""), Verdict("", "failed", f"elaboration: {number} "))
            if number % 100 == 99:
                cache.flush()
        assert reason(cache, 0) is None and reason(cache, 3_999) == "elaboration: 3999 "
    assert 200_000 < path.stat().st_size < 400_000


def make(path: Path, rows: int = 200) -> None:
    with VerdictCache(path) as cache:
        for number in range(rows):
            cache.add(key_of({"n": number}, Limits(), ""), Verdict("", "failed", f"elaboration: {number} "))


def refused(path: Path) -> str:
    with pytest.raises(CacheError) as raised, VerdictCache(path):
        pass
    text = str(raised.value)
    assert str(path) in text and "\n" not in text
    return text


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but a text")
    assert "is no verdict cache" in refused(tmp_path / "text")
    sqlite3.connect(tmp_path / "other").executescript("create table t (x)").connection.close()
    assert "is a database, but no verdict cache" in refused(tmp_path / "other")
    make(tmp_path / "old")
    sqlite3.connect(tmp_path / "old").executescript("pragma user_version = 0").connection.close()
    assert "another version of prover (schema 0, not 1); delete it" in refused(tmp_path / "old")
    assert "cannot be used" in refused(tmp_path / "missing" / "c")
    assert "cannot be used" in refused(tmp_path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    make(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "malformed" in refused(path)
    path.write_bytes(data[:-4096])
    assert "malformed" in refused(path)
    path.write_bytes(data[:50])
    assert "cannot be used" in refused(path)
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    assert "malformed" in refused(path)


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    """So it is when the process that made it was killed at once."""
    (tmp_path / "c").touch()
    make(tmp_path / "c")
    with VerdictCache(tmp_path / "c") as cache:
        assert reason(cache, 199) == "elaboration: 199 "


def test_a_verdict_that_was_changed_is_not_given(tmp_path: Path) -> None:
    path, said = tmp_path / "c", list[str]()
    make(path)
    database = sqlite3.connect(path)
    database.execute("update verdicts set verdict = cast(replace(verdict, 'failed', 'proved') as blob)")
    database.commit()
    database.close()
    with VerdictCache(path, said.append) as cache:
        assert [reason(cache, n) for n in (0, 1)] == [None, None]
    assert len(said) == 1 and "is not as it was written" in said[0]
