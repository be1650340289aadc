"""The Lean pool over HTTP: ``/check``, Kimina's ``/verify`` and ``/api/check``, ``/health``, ``/metrics``.

Covered: other machines (loopback unless a token is set, compared in constant time, never logged), web pages that the
user of this machine looks at (without a token the Host must be a loopback name, which defeats DNS rebinding; requests
with an Origin and bodies that are not ``application/json`` are refused, so a page cannot post across sites), bodies,
batches and clients without bound. Not covered: other users of this machine, for whom a token can be set as well;
eavesdropping (put TLS in front); clients with the token that mean to use up the processors.

Async code is here and in :mod:`lean_env.serving.api`; the rest are plain functions and threads.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lean_env.errors import LeanError
from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from lean_env.serving.api import MAX_BATCHES, Api
from lean_env.serving.batch import BodyError
from lean_env.serving.door import Guard, listen
from lean_env.serving.replies import Refused, error_reply, json_reply
from lean_env.serving.shared import SharedPool

GRACE_SECONDS = 5.0
"""What batches get after SIGTERM; then their open requests are answered by errors."""


async def _say_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_reply(error)


async def _say_wrong(_: Request, error: Exception) -> Response:
    assert isinstance(error, BodyError)
    return error_reply(Refused(error.status, str(error), error.field))


async def _say_left(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _say_bug(_: Request, __: Exception) -> Response:
    return json_reply({"error": "internal error; the server's log has the traceback"}, 500)


def application(api: Api, token: str | None) -> ASGIApp:
    routes = [
        Route("/check", api.check, methods=["POST"]),
        Route("/verify", api.verify, methods=["POST"]),
        Route("/api/check", api.snippets, methods=["POST"]),
        Route("/health", api.health),
        Route("/metrics", api.metrics),
        Route("/", api.health),  # Kimina's first client looks here
    ]
    said: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: _say_refused,
        BodyError: _say_wrong,
        ClientDisconnect: _say_left,
        Exception: _say_bug,
    }
    return Guard(Starlette(routes=routes, exception_handlers=said), token)


class _Server(uvicorn.Server):
    """Says where it listens and when Lean is ready; on SIGINT or SIGTERM lets batches end, within bounds."""

    def __init__(self, config: uvicorn.Config, api: Api, say: Callable[[str], None], address: str) -> None:
        super().__init__(config)
        self.failure: LeanError | None = None
        self._api = api
        self._say = say
        self._address = address
        self._first: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say(f"listening on {self._address}; Lean starts")
        self._first = asyncio.create_task(self._start_lean())

    async def _start_lean(self) -> None:
        try:
            await self._api.off(self._api.shared.probe)
            self._say(f"Lean is ready: {self._api.shared.version}")
        except LeanError as error:
            if not self.should_exit:
                self.failure, self.should_exit = error, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.stopping = True
        closing = asyncio.create_task(self._close_pool())
        await super().shutdown(sockets)
        await closing
        if self._first is not None:
            await self._first

    async def _close_pool(self) -> None:
        end = time.monotonic() + GRACE_SECONDS
        while self._api.in_flight and time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.05)
        await self._api.off(self._api.shared.close)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does it, but a signal that was obeyed is not raised again: to stop when asked is no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    make: Callable[[], LeanPool],
    *,
    host: str,
    port: int,
    limits: Limits,
    token: str | None,
    say: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM; to be called in the main thread. Port 0 takes a free one, which ``say`` hears.

    ``limits`` are the most that a request may ask for. Raises ServerError for an address that cannot be had, or that
    others can reach without a token, and LeanError when Lean does not start.
    """
    listening = listen(host, port, token)
    address = listening.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    with listening, SharedPool(make) as shared:
        api = Api(shared, limits)
        config = uvicorn.Config(
            application(api, token), http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None,
            access_log=False, proxy_headers=False, server_header=False, limit_concurrency=8 * MAX_BATCHES,
            timeout_graceful_shutdown=int(GRACE_SECONDS) + 5,
        )  # fmt: skip
        server = _Server(config, api, say, f"http://{shown}:{address[1]}")
        try:
            server.run([listening])
        finally:
            shared.close()
            api.threads.shutdown(cancel_futures=True)
        if server.failure is not None:
            raise server.failure
