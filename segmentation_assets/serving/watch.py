"""Routes: how things are: health, model, the live page and its numbers, metrics.

What belongs here: what is said of the whole. What does not: what is said of a user (users).
"""

import asyncio
import secrets
import time
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from segmentation_assets.serving.answers import (
    Health,
    LiveAnswer,
    ModelAnswer,
    Status,
    change_answer,
    json_response,
    moment,
    published,
    segment_sizes,
    worker_answers,
    worst,
)
from segmentation_assets.serving.describing import answers
from segmentation_assets.serving.problems import RefusedError, UnavailableError
from segmentation_assets.serving.service import Service

LIVE_SECONDS = 0.5
"""How long the numbers of the live page are kept, however many look at it."""

LATEST = 20
_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "


def routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter()
    page = files("segmentation_assets.serving").joinpath("live.html").read_text("utf-8")
    looking = asyncio.Lock()
    seen: tuple[float, LiveAnswer] | None = None

    @router.get("/health/live", response_model=None, responses=answers(Status), tags=["health"], operation_id="is_live")
    async def is_live() -> Response:
        """Whether the API runs."""
        return json_response({"status": "live"})

    @router.get(
        "/health/ready", response_model=None, responses=answers(Status, 503), tags=["health"], operation_id="is_ready"
    )
    async def is_ready() -> Response:
        """Whether the store answers and a model is loaded."""
        service.models.required()
        await service.reads(service.store.current_model)
        return json_response({"status": "ready"})

    @router.get("/v1/health", response_model=None, responses=answers(Health), tags=["health"], operation_id="health")
    async def health() -> Response:
        """How store, model and workers are; always an answer."""
        current = service.models.current
        problems: list[str] = [] if current else ["No model is published."]
        said: dict[str, dict[str, Any]] = {}
        there = True
        try:
            said = await service.reads(service.store.workers)
        except UnavailableError as error:
            problems.append(error.problem)
            there = False
        workers = worker_answers(said)
        if there and not workers:
            problems.append("No worker reports: nothing changes until `segments stream` runs.")
        version = current.model.version if current else None
        behind = [worker["worker"] for worker in workers if worker["model"] not in (None, version)]
        if behind:
            problems.append(f"{len(behind)} of {len(workers)} workers run another model.")
        answer: Health = {
            "status": "degraded" if problems else "ok",
            "store": there,
            "model": version,
            "workers": workers,
            "lag": sum(worker["lag"] for worker in workers),
            "problems": problems,
        }
        return json_response(answer)

    @router.get("/v1/model", response_model=None, responses=answers(ModelAnswer, 503), tags=["model"],
                operation_id="model")  # fmt: skip
    async def model() -> Response:
        """The current model, the one before, and what each worker runs."""
        loaded = service.models.required()
        models = await service.reads(service.store.models)
        workers = worker_answers(await service.reads(service.store.workers))
        own = [(loaded.model.version, loaded.published_at)]
        answer: ModelAnswer = {
            "serving": loaded.model.version,
            "current": published(models or own, 0) or {"version": loaded.model.version, "published_at": moment(0)},
            "previous": published(models, 1),
            "segments": sorted(set(loaded.model.segments.values())),
            "clusters": {str(cluster): segment for cluster, segment in loaded.model.segments.items()},
            "personas": {str(cluster): persona for cluster, persona in loaded.model.personas.items()},
            "workers": workers,
        }
        return json_response(answer)

    async def look() -> LiveAnswer:
        nonlocal seen
        async with looking:
            if seen is None or seen[0] < time.monotonic():
                reads, store = service.reads, service.store
                workers = worker_answers(await reads(store.workers))
                changes = await reads(store.changes, None, LATEST, newest_first=True)
                models = service.models.published
                seen = (
                    time.monotonic() + LIVE_SECONDS,
                    {
                        "at": moment(int(time.time() * 1000)),
                        "events_per_second": sum(worker["events_per_second"] for worker in workers),
                        "lag": sum(worker["lag"] for worker in workers),
                        "p50_ms": worst(workers, "p50_ms"),
                        "p95_ms": worst(workers, "p95_ms"),
                        "p99_ms": worst(workers, "p99_ms"),
                        "totals": await reads(store.totals),
                        "segments": segment_sizes(await reads(store.sizes))["segments"],
                        "changes": [change_answer(change) for change in changes],
                        "workers": workers,
                        "current": published(models, 0),
                        "previous": published(models, 1),
                    },
                )
        return seen[1]

    @router.get("/v1/live", response_model=None, responses=answers(LiveAnswer, 503), tags=["health"],
                operation_id="live")  # fmt: skip
    async def live() -> Response:
        """The numbers that the live page shows. Percentiles are those of the slowest worker."""
        return json_response(await look())

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Requests, for Prometheus."""
        if not service.metrics.available:
            raise RefusedError(404, "Nothing is counted.", "python -m pip install 'segmentation-assets[serve]'")
        content, kind = service.metrics.page()
        return Response(content, media_type=kind)

    @router.get("/live", include_in_schema=False)
    async def live_page() -> Response:
        """The page. There is no data in it: it asks for that, with a key where one is needed."""
        nonce = secrets.token_urlsafe(16)
        policy = f"{_CLOSED}img-src data:; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        return HTMLResponse(page.replace("{{nonce}}", nonce), headers={"Content-Security-Policy": policy})

    return router
