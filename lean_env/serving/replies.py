"""Replies as JSON, errors among them."""

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response


class Refused(HTTPException):
    """An answer that is an error: ``{"error": ..., "field": ...}``."""

    def __init__(self, status: int, error: str, field: str = "", **headers: str) -> None:
        super().__init__(status, error, {name.replace("_", "-"): value for name, value in headers.items()})
        self.field = field


def json_reply(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content) + b"\n", status, headers, "application/json")


def error_reply(error: HTTPException) -> Response:
    content = {"error": error.detail}
    if isinstance(error, Refused) and error.field:
        content["field"] = error.field
    return json_reply(content, error.status_code, dict(error.headers or {}))
