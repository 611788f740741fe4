"""The description of the API: what every route may answer beside what it is for, and OpenAPI's common parts.

What belongs here: problems and keys in OpenAPI 3.1. What does not: the shapes of answers (answers).
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from segmentation_assets import __version__
from segmentation_assets.serving.guard import scope_of
from segmentation_assets.serving.problems import INFERENCE_SCHEMA, PROBLEM, SCHEMA

TITLE = "Segments"
SUMMARY = "User segments while they change."

_WHY = {
    400: "The cursor, the input or the body is not one.",
    401: "A key is needed, or this one is not known.",
    403: "The key lacks the scope; without keys: not from this machine.",
    404: "Not known.",
    405: "Not with this method.",
    408: "The request did not come in full.",
    413: "The request is too large.",
    422: "The request is not as it has to be.",
    429: "Too many requests.",
    500: "Something went wrong here.",
    503: "What the answer needs is away.",
}
_ALWAYS = (401, 403, 405, 429, 500)


def answers(model: Any, *further: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route below /v1: what it is for, and problems.

    Args:
        model: type of the answer.
        further: statuses beside those that every route has.
        body: whether it takes a body.
    """
    found: dict[int | str, dict[str, Any]] = {200: {"model": model}}
    for status in sorted({*_ALWAYS, *further, *((400, 408, 413, 422) if body else ())}):
        found[status] = problem_response(status)
    return found


def problem_response(status: int) -> dict[str, Any]:
    """A problem, as OpenAPI describes it."""
    return {"description": _WHY[status], "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def inference_answers(model: Any, *further: int) -> dict[int | str, dict[str, Any]]:
    """The same below /v2."""
    found: dict[int | str, dict[str, Any]] = {200: {"model": model}}
    schema = {"$ref": "#/components/schemas/InferenceError"}
    for status in sorted({400, 404, 408, 413, 503, *_ALWAYS, *further}):
        found[status] = {"description": _WHY[status], "content": {"application/json": {"schema": schema}}}
    return found


def describe(app: FastAPI, keys_required: bool) -> Callable[[], dict[str, Any]]:
    """What ``app.openapi`` is to be."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app, keys_required)
        return app.openapi_schema

    return openapi


def _openapi(app: FastAPI, keys_required: bool) -> dict[str, Any]:
    found = get_openapi(
        title=TITLE, summary=SUMMARY, version=__version__, openapi_version="3.1.0", routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )  # fmt: skip
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= {"Problem": dict(SCHEMA), "InferenceError": dict(INFERENCE_SCHEMA)}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, methods in found["paths"].items():
        inference = path.startswith("/v2")
        for operation in methods.values():
            if inference:
                operation["responses"].pop("422", None)  # the protocol says 400
            if keys_required and (scope := scope_of(path)) is not None:
                operation["security"] = [{"bearer": [scope]}, {"header": [scope]}]
    if keys_required:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return found
