"""Run two stages at once, the second a shard behind the first, once or in waves."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from prover.artifacts import Artifact, OnShard

Wait = Callable[[int, int], Artifact]
"""Waits until the second stage has finished a shard of a wave: its number and the shard's. Gives that stage's artifact,
which may be far from finished otherwise."""


class _Abandoned(Exception):
    """The first stage failed; the second is told to stop where it is."""


def overlapped(
    produce: Callable[[OnShard], Artifact],
    consume: Callable[[Artifact, Iterable[int]], Artifact],
    abort: Callable[[], object] = lambda: None,
) -> tuple[Artifact, Artifact]:
    """``produce`` runs here, ``consume`` in a thread, fed with each shard that ``produce`` reports.

    Either one's error ends both and is raised here; what they finished is on disk. ``abort`` is called then, and after
    Ctrl-C, to end what ``consume`` waits for at once.
    """
    (both,) = overlapped_waves(
        1,
        lambda _wave, on_shard, _wait: produce(on_shard),
        lambda _wave, artifact, ready, _on_shard: consume(artifact, ready),
        abort,
    )
    return both


def overlapped_waves(
    waves: int,
    produce: Callable[[int, OnShard, Wait], Artifact],
    consume: Callable[[int, Artifact, Iterable[int], OnShard], Artifact],
    abort: Callable[[], object] = lambda: None,
) -> list[tuple[Artifact, Artifact]]:
    """The same wave by wave: ``produce`` goes from one to the next at once, and waits, through what it is given, only
    for those shards of earlier waves that ``consume`` is to have reported first."""
    queue: SimpleQueue[tuple[Artifact, int] | type[_Abandoned] | None] = SimpleQueue()
    news = threading.Condition()
    reported: dict[tuple[int, int], Artifact] = {}
    ended = threading.Event()

    def shards(first: tuple[Artifact, int]) -> Iterator[int]:
        item: tuple[Artifact, int] | type[_Abandoned] | None = first
        while isinstance(item, tuple):
            yield item[1]
            item = queue.get()
        if item is _Abandoned:
            raise _Abandoned

    def report(wave: int) -> OnShard:
        def on_shard(artifact: Artifact, index: int) -> None:
            with news:
                reported[wave, index] = artifact
                news.notify_all()

        return on_shard

    def follow() -> list[Artifact]:
        consumed: list[Artifact] = []
        try:
            for wave in range(waves):
                first = queue.get()
                if not isinstance(first, tuple):
                    break
                ready = shards(first)
                consumed.append(consume(wave, first[0], ready, report(wave)))
                for _ in ready:  # a finished stage takes none: what is left must not run into the next wave
                    pass
        finally:
            ended.set()
            with news:
                news.notify_all()
        return consumed

    with ThreadPoolExecutor(1, thread_name_prefix="verify") as threads:
        follower = threads.submit(follow)

        def on_shard(artifact: Artifact, index: int) -> None:
            if follower.done():
                follower.result()
            queue.put((artifact, index))

        def wait(wave: int, index: int) -> Artifact:
            with news:
                news.wait_for(lambda: (wave, index) in reported or ended.is_set())
            if (wave, index) not in reported:
                follower.result()
                raise RuntimeError(f"the second stage did not report shard {index} of wave {wave}")
            return reported[wave, index]

        try:
            produced: list[Artifact] = []
            for wave in range(waves):
                produced.append(produce(wave, on_shard, wait))
                queue.put(None)
            consumed = follower.result()
        except BaseException:
            queue.put(_Abandoned)
            abort()
            raise
    if len(consumed) < waves:
        raise RuntimeError("the first stage reported no shard")
    return list(zip(produced, consumed, strict=True))
