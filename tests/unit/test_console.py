"""The progress display: what it says without a terminal and on one, and that it counts right from several threads."""

import io
import re
import threading

import pytest
from rich.console import Console

from prover.console import Counts, LiveProgress, PlainProgress, duration, open_progress, short, show_steps


def test_plain_lines_at_the_start_and_the_end_of_a_stage() -> None:
    stream = io.StringIO()
    with open_progress(stream) as progress:
        with progress.stage("r1 sample", 2, "problems") as meter:
            meter.add(2, attempts=16, tokens=320)
        progress.note("problem [x] left out")
    first, second, third = stream.getvalue().splitlines()
    assert first == "r1 sample: 2 problems"
    assert second.startswith("r1 sample: done, 2 problems, 16 attempts, ") and "tokens/s" in second
    assert third == "problem [x] left out", "text is no markup"


def test_plain_lines_in_between() -> None:
    stream = io.StringIO()
    with open_progress(stream, plain_seconds=0) as progress, progress.stage("verify", 4, "shards") as meter:
        meter.add(1, checks=5, proved=2)
    assert re.search(r"verify: 1/4 shards, .* checks/s, 2 proved, .* left", stream.getvalue())


def test_a_total_that_is_learned_on_the_way() -> None:
    stream = io.StringIO()
    with open_progress(stream, plain_seconds=0) as progress, progress.stage("verify", 0, "attempts") as meter:
        meter.expect(40)
        meter.add(10, checks=8)
    first, second, _ = stream.getvalue().splitlines()
    assert first == "verify: begins" and second.startswith("verify: 10/40 attempts, ")


def test_a_stage_that_fails_is_not_called_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError), open_progress(stream) as progress, progress.stage("sft", 3, "steps"):
        raise ValueError
    assert "done" not in stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_display_fits_the_terminal(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with LiveProgress(console) as live:
        with (
            live.stage("r1 turn 1 verify", 2_000, "shards") as checking,
            live.stage("r1 sample", 12_345, "problems") as sampling,
        ):
            checking.add(1_234, checks=56_789, proved=4_321)
            sampling.add(1_234, attempts=98_720, tokens=2_345_678)
            live.refresh()
        live.note("a line that stays")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= width
    assert any("1,234/12,345 problems" in line for line in lines)
    assert any(line.startswith("✓ r1 sample  1,234 problems, 98,720 attempts") for line in lines)
    assert any(line.strip() == "a line that stays" for line in lines)


def test_counting_from_several_threads() -> None:
    counts = Counts(8_000, "checks")

    def work() -> None:
        for _ in range(1_000):
            counts.add(1, checks=1, proved=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts.done, counts.checks, counts.proved) == (8_000, 8_000, 8_000)


def test_plain_progress_is_used_where_there_is_no_terminal() -> None:
    with open_progress(io.StringIO()) as progress:
        assert isinstance(progress, PlainProgress)


def test_steps_are_said_once() -> None:
    stream = io.StringIO()
    with show_steps(stream) as step:
        for share in (0.0, 0.5, 1.0):
            step("downloading", share)
        step("unpacking", None)
    assert stream.getvalue().splitlines() == ["downloading", "unpacking"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.7, "1m00s"), (185, "3m05s"), (3_600, "1h00m"), (7_385, "2h03m")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.053, "0.053"), (1.26, "1.3"), (95.4, "95"), (4_230, "4.2k"), (12_345, "12k")],
)
def test_short_numbers(value: float, said: str) -> None:
    assert short(value) == said
