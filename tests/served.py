"""A server under test in a process of its own, and a client of plain sockets for it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
JSON = {"Content-Type": "application/json"}


class Served:
    """A running server. ``port`` is where; ``lines`` what it has said so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stderr is not None
        self.lines = [process.stderr.readline()]
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.lines[0])
        assert found, self.lines[0] + process.stderr.read()
        self.port = int(found[1])

    def wait_ready(self) -> None:
        assert self.process.stderr is not None
        self.lines.append(self.process.stderr.readline())
        assert "Lean is ready" in self.lines[-1], self.lines

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(
        self, method: str, path: str, body: "bytes | object | None" = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and decoded JSON (the text, where it is none)."""
        connection = self.connection()
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {**JSON, **(headers or {})})
            reply = connection.getresponse()
            text = reply.read()
            is_json = reply.headers["content-type"] == "application/json"
            return reply.status, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    @contextmanager
    def stream(self, requests: list[dict[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
        """The answers to a batch as they come; leaving the block leaves the server."""
        connection = self.connection()
        try:
            connection.request("POST", "/check", json.dumps({"requests": requests}), JSON)
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            yield (json.loads(line) for line in reply)
            reply.close()
        finally:
            connection.close()

    def check(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with self.stream(requests) as answers:
            return list(answers)

    def metrics(self) -> dict[str, float]:
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name.removeprefix("lean_pool_"): float(value) for name, _, value in lines}

    def worker_pids(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def served(*command: str, **env: str) -> Iterator[Served]:
    """Runs Python with these arguments as a server, and ends it and what it started."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Served(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
