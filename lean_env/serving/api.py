"""The endpoints: what each takes, what it streams back, and what is counted.

A batch is an iterator of :class:`lean_env.serving.shared.SharedPool`, moved on in a thread for each line that the
client has taken. So a client that reads slowly slows down its own batch only, and one that leaves cancels what no
worker has begun as soon as the check that runs has ended.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lean_env.errors import LeanError
from lean_env.protocol import CheckRequest, Limits, Status
from lean_env.serving.batch import read_body, read_requests
from lean_env.serving.kimina import (
    Compiled,
    SnippetsBody,
    VerifyBody,
    compiled,
    not_compiled,
    snippets_reply,
    verify_reply,
)
from lean_env.serving.replies import Refused, json_reply
from lean_env.serving.shared import Answer, SharedPool

MAX_BODY_BYTES = 32 << 20
DRAINED_BYTES = 8 * MAX_BODY_BYTES
"""How much of a body that is too long is read before the connection is cut."""
MAX_BATCHES = 32
"""Bodies that are read or worked on at once."""
BODY_SECONDS = 60.0
"""Longest that a body may take to come."""
STALL_SECONDS = 60.0
"""Longest that a client may leave a line unread."""

_T = TypeVar("_T")


class Api:
    """The endpoints and what they count. Everything but the pool's iterators runs in the event loop's thread."""

    def __init__(self, shared: SharedPool, limits: Limits) -> None:
        self.shared = shared
        self.limits = limits
        self.workers = shared.workers
        self.stopping = False
        self.batches = 0
        self.in_flight = 0
        """Requests taken in and not yet answered."""
        self.texts = dict.fromkeys(("compiled", "error"), 0)
        self.threads = ThreadPoolExecutor(MAX_BATCHES + self.workers + 4, "lean-http")
        self._lanes = asyncio.Semaphore(self.workers + 1)
        self._probing: asyncio.Task[None] | None = None

    def off(self, call: Callable[..., _T], *arguments: Any) -> "asyncio.Future[_T]":
        """Runs something that blocks in a thread."""
        return asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments)

    async def check(self, request: Request) -> Response:
        """Verdicts as JSON lines, as they finish."""
        with contextlib.ExitStack() as place:
            place.enter_context(self._batch())
            await self._require()
            data = await _body(request)
            requests = await self.off(read_requests, data, self.limits)
            return _Stream(self, requests, place.pop_all())

    async def verify(self, request: Request) -> Response:
        return await self._compile(request, VerifyBody, verify_reply)

    async def snippets(self, request: Request) -> Response:
        return await self._compile(request, SnippetsBody, snippets_reply)

    async def health(self, _: Request) -> Response:
        now = self.shared.condition
        word = "stopping" if self.stopping else "ok" if now.ok else "failing" if now.error else "starting"
        if word in ("starting", "failing") and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe())
        shown = {
            "status": word,
            "toolchain": self.shared.version,
            "workers": {"running": now.running, "most": self.shared.places},
            "queue": now.waiting,
            "in_flight": self.in_flight,
            **({"error": now.error} if now.error else {}),
        }
        return json_reply(shown, 200 if word == "ok" else 503)

    async def _probe(self) -> None:
        with contextlib.suppress(LeanError):  # the next /health tells
            await self.off(self.shared.probe)

    async def metrics(self, _: Request) -> Response:
        return Response("".join(self._metrics()), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _metrics(self) -> Iterator[str]:
        stats, now, counts = self.shared.stats, self.shared.condition, self.shared.outcomes.copy()
        yield from _metric("answers_total", "Answers to /check by outcome.", {
            f'{{outcome="{kind}"}}': counts[kind] for kind in (*get_args(Status), "statement_failure", "error")
        })  # fmt: skip
        yield from _metric("texts_total", "Texts of /verify and /api/check by outcome.", {
            f'{{outcome="{kind}"}}': count for kind, count in self.texts.items()
        })  # fmt: skip
        yield from _metric("checks_total", "Tasks that a worker has answered.", stats.checks)
        yield from _metric("cached_total", "Verdicts that the cache had.", stats.cached)
        yield from _metric("lean_seconds_total", "Lean's own time.", stats.lean_seconds)
        yield from _metric("certifications_total", "Proofs that a second worker has answered.", stats.certifications)
        yield from _metric("certify_seconds_total", "Lean's own time for these.", stats.certify_seconds)
        yield from _metric("disagreements_total", "Proofs that the second worker refused.", stats.disagreements)
        yield from _metric("workers_started_total", "Worker processes started.", stats.started)
        yield from _metric("worker_restarts_total", "Starts that replaced a worker.", stats.restarts)
        yield from _metric("workers_lost_total", "Workers killed, crashed or out of their limits.", stats.lost)
        yield from _metric("workers_running", "Worker processes now.", now.running)
        yield from _metric("worker_peak_bytes", "Most resident memory of one worker.", stats.peak_worker_mb * (1 << 20))
        yield from _metric("queue_length", "Tasks that no worker has taken yet.", now.waiting)
        yield from _metric("in_flight", "Requests taken in and not yet answered.", self.in_flight)
        yield from _metric("batches", "Bodies that are read or worked on.", self.batches)

    @contextlib.contextmanager
    def _batch(self) -> Iterator[None]:
        if self.stopping:
            raise Refused(503, "the server is stopping", connection="close")
        if self.batches >= MAX_BATCHES:
            raise Refused(429, f"{MAX_BATCHES} batches are under way; ask again later", retry_after="1")
        self.batches += 1
        try:
            yield
        finally:
            self.batches -= 1

    async def _require(self) -> None:
        try:
            await self.off(self.shared.require)
        except LeanError as error:
            raise Refused(503, str(error), retry_after="5") from None

    async def _compile(
        self,
        request: Request,
        kind: type[VerifyBody] | type[SnippetsBody],
        reply: Callable[[list[Compiled]], dict[str, Any]],
    ) -> Response:
        """Compiles texts, as many at a time as there are workers and one in waiting; that place is shared by all
        clients in turn."""
        with self._batch():
            await self._require()
            body = await self.off(read_body, await _body(request), kind)
            assert isinstance(body, VerifyBody | SnippetsBody)
            texts = body.texts()
            seconds = min(body.timeout, self.limits.cpu_seconds)
            wall = min(self.limits.wall_seconds, 30 + 3 * seconds)
            limits = msgspec.structs.replace(self.limits, cpu_seconds=seconds, wall_seconds=wall)
            results: dict[int, Compiled] = {}
            todo = iter(enumerate(texts))
            gone = asyncio.ensure_future(_gone(request.receive))

            async def lane() -> None:
                for number, (key, text) in todo:
                    async with self._lanes:
                        if gone.done():
                            return
                        results[number] = await self.off(self._compile_one, key, text, limits)
                        self.in_flight -= 1
                        self.texts["error" if results[number].error else "compiled"] += 1

            self.in_flight += len(texts)
            try:
                await asyncio.gather(*(lane() for _ in range(min(len(texts), self.workers + 1))))
            finally:
                gone.cancel()
                self.in_flight -= len(texts) - len(results)
            return json_reply(reply([results[number] for number in sorted(results)]))

    def _compile_one(self, key: str, text: str, limits: Limits) -> Compiled:
        try:
            return compiled(key, self.shared.file(text, limits))
        except LeanError as error:
            return not_compiled(key, error, limits.cpu_seconds)


class _Stream(Response):
    """Answers as JSON lines, one for each request whatever happens, until the client leaves."""

    def __init__(self, api: Api, requests: list[CheckRequest], place: contextlib.ExitStack) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self._api = api
        self._owed = len(requests)
        self._answers = api.shared.check(requests)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._api.in_flight += self._owed
        gone = asyncio.ensure_future(_gone(receive))
        step: asyncio.Future[Answer | None] | None = None
        take: Callable[[], Answer | None] = partial(next, self._answers, None)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while True:
                step = self._api.off(take)
                await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                answer = step.result()
                if answer is None:
                    break
                self._owed -= 1
                self._api.in_flight -= 1
                line = msgspec.json.encode(answer) + b"\n"
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # the connection is cut: the client has stopped reading
        finally:
            gone.cancel()
            await asyncio.shield(self._end(step))

    async def _end(self, step: "asyncio.Future[Answer | None] | None") -> None:
        if step is not None and not step.done():
            await asyncio.wait({step})
        await self._api.off(self._answers.close)
        self._api.in_flight -= self._owed
        self._place.close()


async def _gone(receive: Receive) -> None:
    """Returns once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    """The whole body. One that is too long is read to its end, within bounds, for few clients hear an answer before."""
    declared = request.headers.get("content-length", "0")
    refused = Refused(413, f"a body over the limit of {MAX_BODY_BYTES:,} bytes", connection="close")
    if not declared.isdecimal() or (int(declared) > MAX_BODY_BYTES and "expect" in request.headers):
        raise refused
    data, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    data += chunk
                elif size > DRAINED_BYTES:
                    raise refused
                else:
                    data.clear()
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_SECONDS:g} s", connection="close") from None
    if size > MAX_BODY_BYTES:
        raise refused
    return bytes(data)


def _metric(name: str, meaning: str, value: float | dict[str, int]) -> Iterator[str]:
    yield f"# HELP lean_pool_{name} {meaning}\n# TYPE lean_pool_{name} "
    yield "counter\n" if name.endswith("_total") else "gauge\n"
    for label, number in value.items() if isinstance(value, dict) else (("", value),):
        yield f"lean_pool_{name}{label} {number:.15g}\n"
