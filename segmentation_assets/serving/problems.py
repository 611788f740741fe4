"""What the API says when it does not do what was asked: RFC 9457 problems, and the shape of the inference protocol.

What belongs here: both shapes, and turning exceptions into them. What does not: deciding that something is wrong.
Nothing that was sent is said back, and nothing of what went wrong inside.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from segmentation_assets.errors import SegmentsError

PROBLEM = "application/problem+json"
RETRY_SECONDS = 2
"""What a client is told to wait when something is away."""

HALF = "half of a surrogate pair"
"""What JSON may hold in a text, and UTF-8 cannot say."""

SCHEMA: Mapping[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "cure": {"type": "string", "description": "What to do about it."},
        "errors": {
            "type": "array",
            "description": "What is wrong with the request, part by part.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}

INFERENCE_SCHEMA: Mapping[str, Any] = {
    "title": "InferenceError",
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


class UnavailableError(SegmentsError):
    """Something that an answer needs is away; asking again later may help."""


class RefusedError(HTTPException):
    """A request that is refused, with what to do about it and which parts are wrong."""

    def __init__(
        self,
        status: int,
        detail: str,
        cure: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.cure = cure
        self.errors = errors


def refusal(
    path: str,
    status: int,
    detail: str,
    *,
    cure: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Sequence[tuple[str, str]] = (),
) -> Response:
    """The answer to a request that is refused.

    Args:
        path: of the request: below /v2 the inference protocol has a shape of its own.
        status: of HTTP.
        detail: why, for people.
        cure: what to do about it.
        headers: of the answer.
        errors: (JSON pointer, what is wrong there).
    """
    if path == "/v2" or path.startswith("/v2/"):
        parts = [detail, *(f"{pointer}: {what}" for pointer, what in errors), cure]
        return _json({"error": " ".join(part for part in parts if part)}, "application/json", status, headers)
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if cure:
        found["cure"] = cure
    if errors:
        found["errors"] = [{"pointer": pointer, "detail": what} for pointer, what in errors]
    return _json(found, PROBLEM, status, headers)


def _json(value: Mapping[str, Any], kind: str, status: int, headers: Mapping[str, str] | None) -> Response:
    # ASCII: a name in a request body may hold half of a surrogate pair, which UTF-8 cannot say.
    return Response(json.dumps(value), status, dict(headers or {}), kind)


def _pointer(parts: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901), in which names may hold slashes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def handle_problems(app: FastAPI) -> None:
    """Let every exception of a route become a problem; those that nobody foresaw are the guard's."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        cure, errors = (error.cure, error.errors) if isinstance(error, RefusedError) else ("", ())
        return refusal(
            request.url.path, error.status_code, str(error.detail), cure=cure, headers=error.headers, errors=errors
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [(_pointer(e["loc"]), str(e["msg"])) for e in error.errors()[:20]]
        status = 400 if request.url.path.startswith("/v2/") else 422
        return refusal(request.url.path, status, "The request is not as it has to be.", errors=errors)

    @app.exception_handler(UnavailableError)
    async def away(request: Request, error: UnavailableError) -> Response:
        return refusal(
            request.url.path, 503, error.problem, cure=error.cure, headers={"Retry-After": str(RETRY_SECONDS)}
        )
