"""Two stages at once: order, errors of either side, that the second follows while the first still runs, and waves."""

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from prover.artifacts import Artifact, OnShard
from prover.overlap import Wait, overlapped, overlapped_waves

FIRST = Artifact(Path("first"), "f1", 3)
SECOND = Artifact(Path("second"), "f2", 3)


def test_the_second_stage_sees_each_shard_before_the_first_is_done() -> None:
    reached = threading.Event()
    seen: list[int] = []

    def produce(on_shard: OnShard) -> Artifact:
        on_shard(FIRST, 0)
        assert reached.wait(10), "the consumer never saw shard 0 while the producer was running"
        on_shard(FIRST, 1)
        on_shard(FIRST, 2)
        return FIRST

    def consume(artifact: Artifact, ready: Iterable[int]) -> Artifact:
        assert artifact is FIRST
        for index in ready:
            seen.append(index)
            reached.set()
        return SECOND

    assert overlapped(produce, consume) == (FIRST, SECOND)
    assert seen == [0, 1, 2]


def test_an_error_of_the_first_ends_the_second() -> None:
    ended: list[str] = []

    def produce(on_shard: OnShard) -> Artifact:
        on_shard(FIRST, 0)
        raise ValueError("sampling broke")

    def consume(artifact: Artifact, ready: Iterable[int]) -> Artifact:
        try:
            for _ in ready:
                pass
        finally:
            ended.append("yes")
        return SECOND

    with pytest.raises(ValueError, match="sampling broke"):
        overlapped(produce, consume)
    assert ended == ["yes"]


def test_an_error_of_the_second_ends_the_first() -> None:
    failed = threading.Event()

    def produce(on_shard: OnShard) -> Artifact:
        on_shard(FIRST, 0)
        for index in range(1, 100_000):
            failed.wait(0.01)
            on_shard(FIRST, index)
        return FIRST

    def consume(artifact: Artifact, ready: Iterable[int]) -> Artifact:
        failed.set()
        raise ValueError("checking broke")

    with pytest.raises(ValueError, match="checking broke"):
        overlapped(produce, consume)


def test_an_interruption_does_not_wait_for_what_the_second_is_doing() -> None:
    """As Ctrl-C while Lean is at work: closing the pool is what ends the second stage's wait."""
    waiting, closed = threading.Event(), threading.Event()

    def produce(on_shard: OnShard) -> Artifact:
        on_shard(FIRST, 0)
        assert waiting.wait(10)
        raise KeyboardInterrupt

    def consume(artifact: Artifact, ready: Iterable[int]) -> Artifact:
        waiting.set()
        assert closed.wait(10), "nobody closed what this waits for"
        return SECOND

    with pytest.raises(KeyboardInterrupt):
        overlapped(produce, consume, closed.set)
    assert closed.is_set()


def test_waves_follow_each_other_shard_by_shard_and_wait_only_for_what_they_ask() -> None:
    """The second wave of shard 0 is produced while shard 1 of the first is still being judged."""
    released = threading.Event()
    log: list[str] = []
    made = [Artifact(Path(f"made{i}"), f"m{i}", 2) for i in range(2)]
    judged = [Artifact(Path(f"judged{i}"), f"j{i}", 2) for i in range(2)]

    def produce(wave: int, on_shard: OnShard, wait: Wait) -> Artifact:
        for index in range(2):
            if wave:
                if index == 1:
                    released.set()
                assert wait(0, index) is judged[0]
            log.append(f"made {wave} {index}")
            on_shard(made[wave], index)
        return made[wave]

    def consume(wave: int, artifact: Artifact, ready: Iterable[int], on_shard: OnShard) -> Artifact:
        assert artifact is made[wave]
        for index in ready:
            if (wave, index) == (0, 1):
                assert released.wait(10), "wave 1 did not begin before wave 0 was judged to its end"
            log.append(f"judged {wave} {index}")
            on_shard(judged[wave], index)
        return judged[wave]

    assert overlapped_waves(2, produce, consume) == list(zip(made, judged, strict=True))
    assert log.index("judged 0 0") < log.index("made 1 0") < log.index("judged 0 1") < log.index("made 1 1")


def test_who_waits_for_a_verdict_is_told_of_an_error_instead() -> None:
    def produce(wave: int, on_shard: OnShard, wait: Wait) -> Artifact:
        on_shard(FIRST, 0)
        if wave:
            wait(0, 1)
        return FIRST

    def consume(wave: int, artifact: Artifact, ready: Iterable[int], on_shard: OnShard) -> Artifact:
        raise ValueError("checking broke")

    with pytest.raises(ValueError, match="checking broke"):
        overlapped_waves(2, produce, consume)


def test_a_finished_second_stage_leaves_the_next_wave_its_own_shards() -> None:
    """It takes none of what it is fed; the next wave begins with its own artifact."""

    def produce(wave: int, on_shard: OnShard, wait: Wait) -> Artifact:
        if wave:
            wait(0, 2)
        for index in range(3):
            on_shard(Artifact(Path(f"made{wave}"), "", 3), index)
        return FIRST

    def consume(wave: int, artifact: Artifact, ready: Iterable[int], on_shard: OnShard) -> Artifact:
        assert artifact.path.name == f"made{wave}"
        for index in range(3):
            on_shard(SECOND, index)
        return SECOND

    assert overlapped_waves(3, produce, consume) == [(FIRST, SECOND)] * 3
