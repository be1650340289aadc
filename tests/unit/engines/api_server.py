"""A server of OpenAI's API on loopback, whose every answer a test decides."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""
MODEL = "lab/prover-7b"


def answered(body: object, status: int = 200, **headers: str) -> Answer:
    return status, {"content-type": "application/json", **headers}, json.dumps(body).encode()


def completed(asked: dict[str, Any], text: str, finish: str = "stop", **message: str) -> Answer:
    """A good answer to a request for a completion."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if "messages" in asked:
        scores = [{"token": t, "logprob": -0.5, "bytes": None, "top_logprobs": []} for t in ("a", "b")]
        choice |= {"message": {"role": "assistant", "content": text, **message}}
        choice |= {"logprobs": {"content": scores} if asked.get("logprobs") else None}
    else:
        choice |= {"text": text, "logprobs": {"token_logprobs": [-1.0, -1.5]} if "logprobs" in asked else None}
    return answered({"id": "x", "object": "o", "created": 0, "model": MODEL, "choices": [choice], "usage": usage})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    url = ""

    def __init__(self, port: int, answer: Callable[[dict[str, Any]], Answer]) -> None:
        self.answer = answer
        self.keys: list[str | None] = []
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["authorization"])
        models = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "us", "max_model_len": 1000}]
        self._send(answered({"object": "list", "data": models}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._send(self.server.answer(asked))

    def _send(self, answer: Answer) -> None:
        status, headers, body = answer
        if status == 0:  # the line goes dead
            self.connection.close()
            return
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Answer], port: int = 0) -> Iterator[Server]:
    server = Server(port, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
