"""Which worker gets which task: headers at hand first, nobody kept waiting, nothing lost between threads."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from lean_env.protocol import Limits
from lean_env.schedule import HEADERS, Job, Task, TaskQueue


def job() -> Job:
    return Job(threading.Semaphore(1))


def put(queue: TaskQueue, owner: Job, headers: str, start: int = 0) -> None:
    """A task for each letter, which is its header, each with a statement of its own."""
    for number, header in enumerate(headers, start):
        queue.put(Task(owner, "check", (header, number), {"header": header}, Limits()))


def take(queue: TaskQueue, worker: int) -> str:
    task = queue.take(worker, 0.0)
    return "" if task is None else task.header


def test_a_worker_keeps_to_the_headers_that_it_has() -> None:
    queue = TaskQueue()
    put(queue, job(), "ABABABAB")
    taken = {0: "", 1: ""}
    for _ in range(4):
        for worker in taken:
            taken[worker] += take(queue, worker)
    assert taken == {0: "AAAA", 1: "BBBB"}


def test_a_worker_without_headers_takes_one_that_no_other_has() -> None:
    queue = TaskQueue()
    put(queue, job(), "AAAB")
    assert [take(queue, worker) for worker in (0, 1, 0, 1)] == ["A", "B", "A", "A"]


def test_the_last_used_header_comes_first() -> None:
    queue, owner = TaskQueue(), job()
    put(queue, owner, "AB")
    assert take(queue, 0) + take(queue, 0) == "AB"
    put(queue, owner, "CAB", 2)
    assert [take(queue, 0) for _ in range(3)] == ["B", "A", "C"]


def test_headers_that_lean_has_dropped_are_not_at_hand() -> None:
    queue, owner = TaskQueue(), job()
    many = "".join(chr(ord("A") + n) for n in range(HEADERS + 1))
    put(queue, owner, many)
    assert "".join(take(queue, 0) for _ in many) == many
    put(queue, owner, "zAB", 100)
    assert [take(queue, 0) for _ in range(3)] == ["B", "z", "A"]


def test_a_new_worker_has_no_header_at_hand() -> None:
    queue, owner = TaskQueue(), job()
    put(queue, owner, "A")
    assert take(queue, 0) == "A"
    put(queue, owner, "BA", 1)
    queue.forget(0)
    assert take(queue, 0) + take(queue, 0) == "BA"


def test_no_header_waits_for_ever() -> None:
    queue, owner = TaskQueue(header_seconds=0.0), job()
    put(queue, owner, "A")
    assert take(queue, 0) == "A"
    put(queue, owner, "BAAA", 1)
    assert take(queue, 0) == "B"


def test_the_statement_that_a_worker_is_at_stays_its_own() -> None:
    """Also when the queue runs dry in between."""
    queue, owner = TaskQueue(), job()
    for number in (0, 1):
        put(queue, owner, "A", number)
        assert take(queue, number) == "A"
    for _ in range(20):
        for number in (1, 0):
            put(queue, owner, "A", number)
        keys = [task.key for worker in (0, 1) if (task := queue.take(worker, 0.0))]
        assert keys == [("A", 0), ("A", 1)]


def test_what_is_expected_is_told_to_one() -> None:
    queue = TaskQueue()
    queue.expect()
    assert queue.take(0, None) is None and queue.take(1, None) is None, "nobody sleeps over it"
    assert [queue.is_expecting(), queue.is_expecting()] == [True, False]


@pytest.mark.parametrize("workers", [1, 40])
def test_threads_get_every_task_once(workers: int) -> None:
    """Workers sleep without a time limit: one that is not woken would hang this test."""
    queue, owners, number = TaskQueue(), [job() for _ in range(3)], 3_000
    taken: Counter[int] = Counter()
    done, lock = threading.Event(), threading.Lock()

    def serve(worker: int) -> None:
        draw = random.Random(worker)
        while not queue.closed:
            task = queue.take(worker, None)
            if task is None:
                continue
            if draw.random() < 0.1:
                queue.give_back([task])
                continue
            with lock:
                taken[task.message["number"]] += 1
                if len(taken) == number:
                    done.set()

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for n in range(number):
        message = {"header": f"h{n % 20}", "number": n}
        queue.put(Task(owners[n % 3], "check", (message["header"], n % 97), message, Limits()))
    assert done.wait(60) and queue.waiting == 0
    queue.close()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads) and set(taken.values()) == {1}


def test_as_many_headers_are_at_hand_as_lean_keeps() -> None:
    source = (Path(__file__).parents[3] / "lean_env" / "Session.lean").read_text(encoding="utf-8")
    assert f"def maxHeaders : Nat := {HEADERS}\n" in source
