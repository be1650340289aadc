"""Two stages at once: order, errors of either side, and that the second follows while the first still runs."""

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from prover.artifacts import Artifact, OnShard
from prover.overlap import overlapped

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
