"""The pool's own promises, with a scripted process in Lean's place: one result each, whatever becomes of the
workers."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lean_env.errors import CanaryError, WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Verdict
from lean_env.schedule import Job, Kind, Task, TaskQueue
from lean_env.worker import Launch, Worker, WorkerLost

SCRIPT = Path(__file__).with_name("scripted_lean.py")
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=30.0, memory_mb=300)


class Scripted:
    """Starts the scripted process. ``arguments`` replaces it by another program."""

    version = "scripted 1"

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments or (str(SCRIPT),)
        self.launched = 0

    def launch(self) -> Launch:
        self.launched += 1
        return Launch((sys.executable, "-I", "-S", *self.arguments), {})


def request(
    number: int, proof: str, header: str = "", limits: Limits = LIMITS, statement: str = "theorem t : True"
) -> CheckRequest:
    return CheckRequest(f"r{number}", header, statement, proof, limits=limits)


def run(
    requests: list[CheckRequest], workers: int = 2, *, certify: bool = True
) -> dict[str, Verdict | StatementFailure]:
    with LeanPool(Scripted(), workers) as pool:
        results = list(pool.check(requests, certify=certify))
    assert Counter(result.attempt_id for result in results) == Counter(r.id for r in requests)
    return {result.attempt_id: result for result in results}


def only(proof: str, limits: Limits = LIMITS) -> Verdict:
    result = run([request(0, proof, limits=limits)], 1)["r0"]
    assert isinstance(result, Verdict)
    return result


def test_a_verdict_carries_what_lean_said() -> None:
    verdict = only("ok")
    assert verdict.status == "proved" and verdict.toolchain == "scripted 1"
    assert verdict.axioms == ("propext",) and verdict.heartbeats == 7 and verdict.seconds == 0.001


def test_every_request_gets_one_result_each() -> None:
    requests = [request(n, "ok" if n % 3 else "wrong", header=f"open H{n % 7}") for n in range(700)]
    results = run(requests, 3)
    assert {r.id: "proved" if r.proof == "ok" else "failed" for r in requests} == {
        key: result.status for key, result in results.items() if isinstance(result, Verdict)
    }


@pytest.mark.parametrize(
    ("proof", "status", "reason"),
    [
        ("die", "memory", "limits: ended without an answer (RangeError: Maximum call stack size exceeded)"),
        ("spin", "timeout", "limits: 0.5 s of CPU time used up"),
        ("bomb", "memory", "limits: .* MiB resident, over the limit of 300"),
        ("flood", "failed", "limits: a reply over 33 MiB"),
        ("babble", "failed", "limits: a reply that is no JSON object"),
        ("forge", "failed", "limits: the reply does not carry"),
        ("internal", "failed", "limits: Lean's side failed: uncaught exception"),
        ("odd", "failed", "limits: a reply out of protocol"),
        ("", "no_proof", "text: empty"),
        ("ok " + "x" * 70_000, "no_proof", "text: 70,003 bytes"),
    ],
)
def test_a_candidate_that_breaks_its_worker(proof: str, status: str, reason: str) -> None:
    verdict = only(proof, Limits(cpu_seconds=5.0 if proof == "bomb" else 0.5, memory_mb=300))
    assert verdict.status == status
    import re

    assert re.match(reason.replace("(", r"\(").replace(")", r"\)"), verdict.reason)


def test_no_cpu_used_until_the_wall_limit_is_a_timeout() -> None:
    verdict = only("nap", Limits(wall_seconds=0.5))
    assert verdict.status == "timeout" and "no answer in 0.5 s" in verdict.reason


def test_a_flood_on_stderr_does_no_harm() -> None:
    assert only("stderr").status == "proved"


@pytest.mark.parametrize("word", ["die", "spin", "own-kill", "babble"])
def test_one_loss_is_not_held_against_a_candidate(word: str, tmp_path: Path) -> None:
    results = run([request(0, "wrong"), request(1, f"once {tmp_path / 'marker'} {word}")], 1)
    assert [results[key].status for key in ("r0", "r1") if isinstance(results[key], Verdict)] == ["failed", "proved"]


def test_cpu_time_used_up_right_after_canaries_needs_no_second_try() -> None:
    """Of the slow ones on a statement only the first, which came after another candidate, is tried again."""
    toolchain = Scripted()
    words = ["wrong", "spin 1", "wrong 2", "spin 2", "wrong 3", "spin 3"]
    with LeanPool(toolchain, 1) as pool:
        results = {r.attempt_id: r.status for r in pool.check([request(n, w) for n, w in enumerate(words)])}  # type: ignore[union-attr]
    assert results == {f"r{n}": "timeout" if w.startswith("spin") else "failed" for n, w in enumerate(words)}
    assert pool.stats.lost == 4 and pool.stats.checks == 4, "three in their places and one held result had again"


def test_a_candidate_that_poisons_its_worker_spoils_no_other_verdict() -> None:
    """After ``poison`` the scripted worker calls everything proved: what it said must be asked again elsewhere."""
    requests = (
        [request(n, "wrong") for n in range(30)]
        + [request(99, "poison")]
        + [request(n, "wrong") for n in range(30, 60)]
    )
    results = run(requests, 1)
    poison = results.pop("r99")
    assert isinstance(poison, Verdict) and poison.status == "failed"
    assert "leaves behind a worker that answers wrongly" in poison.reason
    assert {result.status for result in results.values() if isinstance(result, Verdict)} == {"failed"}


def test_a_worker_that_ran_what_was_refused_is_retired_unheard() -> None:
    """After ``late`` the scripted worker calls everything proved but deceives its canaries: nothing that they would
    vouch for may be given out."""
    requests = (
        [request(n, "wrong") for n in range(30)] + [request(99, "late")] + [request(n, "wrong") for n in range(30, 60)]
    )
    results = run(requests, 1)
    late = results.pop("r99")
    assert isinstance(late, Verdict) and late.status == "forbidden_syntax"
    assert {result.status for result in results.values() if isinstance(result, Verdict)} == {"failed"}


def test_a_lean_that_fails_its_canaries_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(SCRIPT.read_text().replace("poisoned = False", "poisoned = True"))
    with (
        LeanPool(Scripted(str(script)), 1) as pool,
        pytest.raises(CanaryError, match="a false statement: proved instead of"),
    ):
        list(pool.check([request(0, "ok")], certify=False))


def test_a_lean_that_cannot_start_is_an_error() -> None:
    toolchain = Scripted("-c", "import sys; sys.exit('no such library')")
    with LeanPool(toolchain, 1) as pool, pytest.raises(WorkerError, match=r"Lean cannot start: .*no such library"):
        list(pool.check([request(0, "ok")], certify=False))
    assert toolchain.launched == 3


def test_statements_without_a_theorem_are_reported() -> None:
    result = run([request(0, "ok", statement="def f : Nat")])["r0"]
    assert isinstance(result, StatementFailure) and result.where == "statement"


def test_elaborate() -> None:
    requests = [request(n, "", statement=f"theorem t : {'bad' if n == 2 else 'True'}") for n in range(4)]
    with LeanPool(Scripted(), 1) as pool:
        failures = {key: failure for key, failure in pool.elaborate(requests) if failure is not None}
    assert list(failures) == ["r2"] and "unknown identifier" in failures["r2"].reason


def test_ask_answers_or_raises() -> None:
    with LeanPool(Scripted(), 1) as pool:
        assert pool.ask({"op": "echo", "text": "𝓝 ℕ"}, LIMITS)["echo"] == "𝓝 ℕ"
        with pytest.raises(WorkerError, match="file: Lean's side failed"):
            pool.ask({"op": "file", "target": "", "candidate": ":= internal", "header": ""}, LIMITS)
        assert pool.ask({"op": "echo", "text": "after"}, LIMITS)["echo"] == "after"


def test_no_check_follows_a_file_on_the_same_worker() -> None:
    with LeanPool(Scripted(), 1) as pool:
        first = pool.ask({"op": "echo", "text": ""}, LIMITS)["pid"]
        pool.ask({"op": "file", "target": "", "candidate": ":= ok", "header": ""}, LIMITS)
        assert pool.ask({"op": "echo", "text": ""}, LIMITS)["pid"] != first


def test_requests_are_pulled_as_there_is_room() -> None:
    pulled = 0

    def source() -> Iterator[CheckRequest]:
        nonlocal pulled
        for number in range(2_000):
            pulled += 1
            yield request(number, "ok")

    with LeanPool(Scripted(), 2) as pool:
        checks = pool.check(source())
        for _ in range(10):
            next(checks)
        assert pulled < 500
        assert sum(1 for _ in checks) == 1_990
    assert pulled == 2_000


def test_an_error_in_the_requests_comes_after_the_results_before_it() -> None:
    def source() -> Iterator[CheckRequest]:
        yield request(0, "ok")
        raise KeyError("the sampler broke")

    seen: list[str] = []
    with LeanPool(Scripted(), 1) as pool:
        with pytest.raises(KeyError, match="the sampler broke"):
            seen.extend(result.attempt_id for result in pool.check(source()))
        assert seen == ["r0"]
        assert len(list(pool.check([request(1, "ok")]))) == 1


def test_results_come_out_while_the_requests_wait() -> None:
    """Whoever makes the requests may need the first result to make the next."""
    answered = threading.Event()

    def source() -> Iterator[CheckRequest]:
        yield request(0, "ok")
        assert answered.wait(30)
        yield request(1, "ok")

    with LeanPool(Scripted(), 1) as pool:
        checks = pool.check(source())
        assert next(checks).attempt_id == "r0"
        answered.set()
        assert next(checks).attempt_id == "r1"


def test_an_iteration_given_up_leaves_the_pool_in_order() -> None:
    with LeanPool(Scripted(), 2) as pool:
        checks = pool.check(request(n, "ok") for n in range(5_000))
        next(checks)
        checks.close()  # type: ignore[attr-defined]
        assert len(list(pool.check([request(n, "wrong") for n in range(50)]))) == 50


def test_several_threads_share_a_pool() -> None:
    counts: dict[str, int] = {}
    with LeanPool(Scripted(), 2) as pool:

        def check(word: str) -> None:
            results = list(pool.check([request(n, word) for n in range(200)]))
            counts[word] = sum(1 for r in results if isinstance(r, Verdict) and r.proved)

        threads = [threading.Thread(target=check, args=(word,)) for word in ("ok", "wrong")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == {"ok": 200, "wrong": 0}


def test_the_same_statement_goes_to_the_same_worker() -> None:
    requests = [request(n, "ok", header=f"open H{n // 16}") for n in range(320)]
    results = run(requests, 2, certify=False)
    pids: dict[str, set[str]] = {}
    for result in results.values():
        assert isinstance(result, Verdict)
        pids.setdefault(result.used_constants[2], set()).add(result.used_constants[1])
    assert sum(len(group) for group in pids.values()) <= len(pids) * 1.3
    assert len(set.union(*pids.values())) == 2


def test_workers_killed_at_any_moment_change_nothing() -> None:
    requests = [request(n, "ok" if n % 2 else "wrong") for n in range(3_000)]
    undisturbed = {key: result.status for key, result in run(requests).items() if isinstance(result, Verdict)}
    killed: list[int] = []
    results: dict[str, str] = {}

    def source() -> Iterator[CheckRequest]:
        """Kills while there is work under way: it is asked for more only as results come out."""
        for number, one in enumerate(requests):
            if number % 250 == 100:
                alive = [pid for pid in pool.worker_pids() if pid not in killed][: 1 + number // 250 % 2]
                for pid in alive:
                    os.kill(pid, signal.SIGKILL)
                killed.extend(alive)
            yield one

    with LeanPool(Scripted(), 2) as pool:
        for result in pool.check(source()):
            assert isinstance(result, Verdict) and result.attempt_id not in results
            results[result.attempt_id] = result.status
        assert len(killed) >= 5 and pool.stats.lost >= 3, "the others were killed while they started, or idle"
    assert results == undisturbed


def test_close_kills_workers_and_ends_calls() -> None:
    answered = threading.Event()

    def source() -> Iterator[CheckRequest]:
        yield request(0, "ok")
        assert answered.wait(30)
        yield request(1, "nap")

    pool = LeanPool(Scripted(), 1)
    checks = pool.check(source())
    next(checks)
    answered.set()
    pids = pool.worker_pids()
    pool.close()
    with pytest.raises(WorkerError, match="closed"):
        next(checks)
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(WorkerError, match="closed"):
        list(pool.check([request(2, "ok")]))


def test_worker_kill_from_another_thread_is_seen_as_such() -> None:
    with Worker(Scripted().launch()) as worker:
        worker.wait_ready()
        threading.Timer(0.2, worker.kill).start()
        begin = time.monotonic()
        with pytest.raises(WorkerLost) as lost:
            worker.ask({"op": "check", "target": "", "candidate": ":= nap", "header": ""}, Limits())
        assert lost.value.kind == "killed" and time.monotonic() - begin < 20


def test_worker_refuses_more_than_one_reply() -> None:
    with Worker(Scripted().launch()) as worker:
        worker.wait_ready()
        lines = {"op": "check", "target": "", "candidate": ":= twice", "header": ""}
        # The second reply comes with the first or before the next request's: either way it carries no fresh nonce.
        with pytest.raises(WorkerLost, match=r"nonce|more than one"):
            worker.ask(lines, Limits())
            worker.ask(lines, Limits())


def queued(queue: TaskQueue, count: int, kind: Kind = "check", key: str = "k") -> Job:
    job = Job(threading.Semaphore(count))
    for n in range(count):
        queue.put(Task(job, kind, f"{key}{n}", {}, LIMITS))
    return job


def test_jobs_take_turns() -> None:
    queue = TaskQueue()
    many, one = queued(queue, 1_000), queued(queue, 1)
    taken = [task.job for _ in range(4) if (task := queue.take(0, 0.0))]
    assert taken.count(one) == 1 and taken.count(many) == 3
    many.cancelled = True
    assert queue.take(0, 0.0) is None and queue.waiting == 0


def test_files_and_checks_keep_to_their_workers() -> None:
    """A worker that ran a file cannot check any more: changing over costs a start."""
    queue = TaskQueue()
    checks, files = queued(queue, 50), queued(queue, 50, "file")
    first = {worker: task.job for worker in (0, 1) if (task := queue.take(worker, 0.0))}
    assert set(first.values()) == {checks, files}
    later = [(worker, task.job) for _ in range(49) for worker in (0, 1) if (task := queue.take(worker, 0.0))]
    assert len(later) == 98 and all(first[worker] is job for worker, job in later)


def test_a_worker_changes_over_when_nothing_else_waits() -> None:
    queue = TaskQueue()
    queued(queue, 2)
    queued(queue, 2, "file")
    kinds = [task.kind for _ in range(4) if (task := queue.take(0, 0.0))]
    assert kinds == ["check", "check", "file", "file"]


def test_a_result_that_others_take_down_is_not_lost_for_long() -> None:
    """Every other task ends its worker, and with it the results that the worker holds."""
    first = request(0, "ok", statement="theorem first : True")
    deaths = [request(n, "die", statement=f"theorem t{n} : True") for n in range(1, 30)]

    def endless() -> Iterator[CheckRequest]:
        yield first
        yield from deaths
        answered.wait(60)  # the job has no end that would release what is held

    answered = threading.Event()
    with LeanPool(Scripted(), 1) as pool:
        for result in pool.check(endless()):
            if result.attempt_id == first.id:
                answered.set()
                lost = pool.stats.lost
    assert answered.is_set() and lost < 20
