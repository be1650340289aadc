"""The thread that asynchronous engines live in: it ends with its owner, whatever was under way."""

import asyncio
import threading
from concurrent.futures import Future

import pytest

from prover.engines.loop_thread import LoopThread


async def forever(begun: threading.Event, ended: list[str]) -> None:
    try:
        begun.set()
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")


async def broken() -> None:
    raise ZeroDivisionError("as asked")


def test_a_failure_within_ends_the_thread_and_what_still_runs() -> None:
    begun, ended = threading.Event(), list[str]()
    running: Future[None] | None = None
    with pytest.raises(ZeroDivisionError, match="as asked"), LoopThread("alone") as loop:
        running = loop.begin(forever(begun, ended))
        assert begun.wait(10) and "alone" in {thread.name for thread in threading.enumerate()}
        loop.call(broken())
    assert running is not None and running.cancelled() and ended == ["cancelled"]
    assert "alone" not in {thread.name for thread in threading.enumerate()}


def test_it_can_be_entered_again() -> None:
    loop = LoopThread("twice")
    for number in range(2):
        with loop:
            assert loop.call(asyncio.sleep(0, result=number)) == number
