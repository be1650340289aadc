"""Run two stages at once, the second a shard behind the first."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from prover.artifacts import Artifact, OnShard


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
    queue: SimpleQueue[tuple[Artifact, int] | type[_Abandoned] | None] = SimpleQueue()

    def follow() -> Artifact | None:
        first = queue.get()
        if not isinstance(first, tuple):
            return None

        def shards() -> Iterator[int]:
            item: tuple[Artifact, int] | type[_Abandoned] | None = first
            while isinstance(item, tuple):
                yield item[1]
                item = queue.get()
            if item is _Abandoned:
                raise _Abandoned

        return consume(first[0], shards())

    with ThreadPoolExecutor(1, thread_name_prefix="verify") as threads:
        follower = threads.submit(follow)

        def on_shard(artifact: Artifact, index: int) -> None:
            if follower.done():
                follower.result()
            queue.put((artifact, index))

        try:
            produced = produce(on_shard)
            queue.put(None)
            consumed = follower.result()
        except BaseException:
            queue.put(_Abandoned)
            abort()
            raise
    if consumed is None:
        raise RuntimeError("the first stage reported no shard")
    return produced, consumed
