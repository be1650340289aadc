"""Certification in the pool, with scripted processes in Lean's place: whatever becomes of the worker that certifies,
one result each."""

import threading

import pytest

from lean_env.answers import SHOWN_CHARS, answer_of
from lean_env.certify import ByteRoom, limits
from lean_env.errors import WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.schedule import Job, Task
from lean_env.worker import Launch, WorkerLost
from tests.unit.lean_env.test_pool import Scripted, request, run

LONG = Limits(proof_bytes=16 << 20, memory_mb=1_000)

ENDS = {
    "ok": ("proved", ""),
    "lie": ("failed", "certification: forbidden_axiom: "),
    "silent": ("failed", "certification: no export"),
    "void": ("failed", "certification: the statement elaborates, against the word of"),
    "certify wrong": ("failed", "certification: failed: "),
    "certify odd": ("failed", "certification: a reply out of protocol"),
    "certify internal": ("failed", "certification: Lean's side failed"),
    "certify die": ("memory", "certification: ended without an answer"),
    "certify poison": ("failed", "certification: leaves behind a worker that answers wrongly"),
}


def test_each_end_of_a_certification() -> None:
    words = [word for word in ENDS for _ in range(5)]
    requests = [request(n, word) for n, word in enumerate(words)]
    with LeanPool(Scripted(), 2) as pool:
        results = {r.attempt_id: r for r in pool.check(requests)}
    assert len(results) == len(words)
    for one, word in zip(requests, words, strict=True):
        verdict = results[one.id]
        assert isinstance(verdict, Verdict)
        status, reason = ENDS[word]
        assert verdict.status == status and verdict.reason.startswith(reason), (word, verdict)
        assert verdict.level == ("certified" if word == "ok" else "")
    # All that failed but `silent`, which never comes to the second worker.
    assert pool.stats.disagreements == 30


class Announced(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def launch(self) -> Launch:
        self.begun.set()
        return super().launch()


def test_a_certifier_starts_beside_the_first_check() -> None:
    """Not only after the first proof: here there is none."""
    certifier = Announced()
    with LeanPool(Scripted(), 8, certifier=certifier) as pool:
        for number in range(3):
            assert [r.attempt_id for r in pool.check([request(number, "wrong")])] == [f"r{number}"]
        assert certifier.begun.wait(30)
    assert certifier.launched == 1, "of two places"


def test_no_certifier_starts_for_what_is_only_audited() -> None:
    certifier = Announced()
    with LeanPool(Scripted(), 1, certifier=certifier) as pool:
        assert len(list(pool.check([request(0, "ok")], certify=False))) == 1
    assert certifier.launched == 0


def test_a_statement_fails_where_both_workers_say_so() -> None:
    statement = "theorem t : bad"
    result = run([request(0, "void", statement=statement)], 1)["r0"]
    assert isinstance(result, StatementFailure) and result.reason == "unknown identifier 'bad'"
    assert isinstance(run([request(0, "void")], 1, certify=False)["r0"], StatementFailure)


def long(number: int) -> CheckRequest:
    return request(number, "ok " + "x" * (8 << 20), limits=LONG)


def test_exports_that_nobody_waits_for_any_more_take_no_room() -> None:
    with LeanPool(Scripted(), 1) as pool:
        for _ in range(2):
            checks = pool.check(long(n) for n in range(8))
            next(checks)
            checks.close()  # type: ignore[attr-defined]
        assert sum(isinstance(r, Verdict) and r.proved for r in pool.check([long(n) for n in range(6)])) == 6


def test_a_pool_whose_certifier_cannot_start_ends_and_closes() -> None:
    """Also while a worker's thread waits for room that nobody will make."""
    gone = Scripted("-c", "import sys; sys.exit('gone')")
    with (
        LeanPool(Scripted(), 1, certifier=gone) as pool,
        pytest.raises(WorkerError, match=r"Lean cannot start: .*gone"),
    ):
        list(pool.check([long(n) for n in range(12)]))
    assert not any(thread.name.startswith("lean-") and thread.name != "lean-feed" for thread in threading.enumerate())


def test_room_for_bytes() -> None:
    room = ByteRoom(10)
    room.take(50)
    taken = threading.Event()
    thread = threading.Thread(target=lambda: (room.take(1), taken.set()))
    thread.start()
    assert not taken.wait(0.05)
    room.give(50)
    assert taken.wait(30)
    thread.join()


def test_a_short_limit_of_a_check_leaves_time_to_certify_it() -> None:
    short = limits(Limits(cpu_seconds=1.0, wall_seconds=1.0))
    assert short.cpu_seconds == 60.0 and short.wall_seconds == 300.0
    assert limits(Limits(cpu_seconds=90.0, wall_seconds=900.0)) == Limits(cpu_seconds=90.0, wall_seconds=900.0)


def test_a_worker_speaks_neither_for_the_one_that_certifies_nor_at_length() -> None:
    request = CheckRequest("a", "", "theorem t : True", "ok")
    task = Task(Job(threading.Semaphore(1), certify=True), "check", (), {}, request.limits, request)
    long_message = {"severity": "error", "start": [1, 0], "end": [1, 1], "text": "x" * (SHOWN_CHARS + 1)}
    for said in (
        {"reason": "certification: refused"},
        {"messages": [long_message]},
        {"goals": ["x" * (SHOWN_CHARS + 1)]},
    ):
        with pytest.raises(WorkerLost, match="out of protocol"):
            answer_of(task, {"status": "failed", **said}, "some Lean")
