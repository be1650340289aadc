"""Who may come in: the address that is listened on, the token, and requests that a web page could have made."""

import contextlib
import hashlib
import hmac
import ipaddress
import socket

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lean_env.errors import ServerError
from lean_env.serving.replies import Refused, error_reply

TOKEN_CHARACTERS = 16
"""Shortest token."""


class Guard:
    """Lets through who has the token; without one, who is on this machine and is no web page."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._digest = _digest(token) if token is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._refusal(scope["method"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await error_reply(refused)(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Refused | None:
        if self._digest is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(given.strip()), self._digest):
                return Refused(401, "the token is missing or wrong", www_authenticate="Bearer", connection="close")
        elif not _is_loopback(_host_name(headers.get("host", ""))):
            return Refused(403, "the Host is none of this machine's own; use http://127.0.0.1", connection="close")
        elif "origin" in headers:
            return Refused(403, "web pages may not ask", connection="close")
        if method == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return Refused(415, "the Content-Type must be application/json", connection="close")
            if headers.get("content-encoding", "identity") != "identity":
                return Refused(415, "the body must not be compressed", connection="close")
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _host_name(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    return False


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A listening socket. Raises ServerError where the address cannot be had, or lacks the token that it needs."""
    if token is not None and (len(token) < TOKEN_CHARACTERS or not token.isascii() or not token.isprintable()):
        raise ServerError(f"PROVER_TOKEN must be {TOKEN_CHARACTERS} or more printable ASCII characters")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ServerError(f"--host {host}: {error.strerror}; give an address of this machine") from error
    if token is None and not _is_loopback(str(address[0])):
        raise ServerError(
            f"--host {host}: others can reach this address; set PROVER_TOKEN to {TOKEN_CHARACTERS} or more characters"
        )
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ServerError(f"{host}:{port}: {error.strerror}; choose another --host or --port") from error
    return listening
