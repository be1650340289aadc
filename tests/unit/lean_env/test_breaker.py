"""Restart storms end with their reason; what candidates bring upon themselves is none."""

from pathlib import Path

import pytest

from lean_env.breaker import ANSWERS, LOSSES, Breaker
from lean_env.errors import CheckLostError, WorkerError
from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from tests.unit.lean_env.test_pool import SCRIPT, Scripted, request, run

EVERY_THIRD = "        checks += 1\n        if checks == 3:\n            "


def dying(tmp_path: Path, how: str) -> Scripted:
    """A process that ends at its third check, whatever is asked."""
    script = tmp_path / "dying.py"
    text = SCRIPT.read_text()
    assert text.count("        checks += 1\n") == 1
    script.write_text(text.replace("        checks += 1\n", EVERY_THIRD + how + "\n"))
    return Scripted(str(script))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "killed from outside, perhaps for want of memory"),
        ("sys.exit('mmap: too little address space, an Error')", "ended without an answer .*mmap: too little"),
    ],
)
def test_a_storm_of_restarts_ends_with_its_reason(tmp_path: Path, how: str, reason: str) -> None:
    lean = dying(tmp_path, how)
    with LeanPool(lean, 1, certifier=Scripted()) as pool, pytest.raises(WorkerError) as raised:
        list(pool.check([request(n, "wrong") for n in range(10_000)]))
    text = str(raised.value)
    assert f"lost {LOSSES} times in " in text and "Give Lean fewer workers" in text and "\n" not in text
    assert raised.match(reason)
    assert pool.failure is raised.value and lean.launched <= LOSSES + 1


def test_candidates_that_all_break_their_workers_are_no_storm() -> None:
    words = ["die", "babble"]
    results = run([request(n, words[n % 2]) for n in range(LOSSES)], 2)
    assert {getattr(r, "status", None) for r in results.values()} == {"memory", "failed"} and len(results) == LOSSES


def test_losses_among_many_answers_are_none() -> None:
    breaker = Breaker(2)
    for _ in range(5 * LOSSES):
        breaker.answered(ANSWERS + 1)
        breaker.lost("killed")


def test_one_stroke_that_hits_a_wide_pool_is_none() -> None:
    breaker = Breaker(256)
    for _ in range(256):
        breaker.lost("killed")
    with pytest.raises(WorkerError, match="lost 768 times"):
        for _ in range(512):
            breaker.lost("killed")


def test_a_memory_limit_below_what_lean_itself_takes_is_an_error_not_a_verdict() -> None:
    limits = Limits(memory_mb=2)
    with LeanPool(Scripted(), 1) as pool:
        with pytest.raises(CheckLostError, match="r0: the memory limit of 2 MiB is too small: a Lean worker that has"):
            list(pool.check([request(0, "wrong", limits=limits)]))
        assert len(list(pool.check([request(1, "wrong")]))) == 1, "others are not concerned"


HOARDS = """        checks += 1
        if request["header"] == "open Big" or "hoard" in request.get("candidate", ""):
            hoard = bytearray(b"x") * (120 << 20)
"""


def hoarding(tmp_path: Path) -> Scripted:
    script = tmp_path / "hoarding.py"
    text = SCRIPT.read_text()
    place = '        if request["target"] == "prover_canary" or "by sorry"'
    assert text.count(place) == 1
    script.write_text(text.replace(place, HOARDS + place))
    return Scripted(str(script))


def test_a_header_that_leaves_no_memory_for_checks_is_an_error(tmp_path: Path) -> None:
    """Each check would cost the start of a worker, for hours."""
    lean, limits = hoarding(tmp_path), Limits(memory_mb=130)
    with (
        LeanPool(lean, 1) as pool,
        pytest.raises(CheckLostError, match="the memory limit of 130 MiB is too small: a Lean worker that has checked"),
    ):
        list(pool.check([request(n, "wrong", "open Big", limits) for n in range(50)], certify=False))
    assert 2 <= lean.launched <= 4


def test_candidates_that_take_nearly_all_memory_cost_a_worker_each_and_no_more(tmp_path: Path) -> None:
    lean, limits = hoarding(tmp_path), Limits(memory_mb=130)
    with LeanPool(lean, 1) as pool:
        results = list(pool.check([request(n, "wrong hoard", limits=limits) for n in range(5)], certify=False))
    assert {getattr(r, "status", None) for r in results} == {"failed"} and lean.launched <= 10
