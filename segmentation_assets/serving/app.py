"""The API as one ASGI application.

What belongs here: putting it together. What does not: routes, opening stores, listening on a port (run).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from segmentation_assets import __version__
from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.io.live_store import StateStore
from segmentation_assets.serving import assign, changes, inference, users, watch
from segmentation_assets.serving.answers import SOURCE_HEADER
from segmentation_assets.serving.describing import SUMMARY, TITLE, describe
from segmentation_assets.serving.guard import Guard
from segmentation_assets.serving.keys import ApiKeys
from segmentation_assets.serving.problems import handle_problems
from segmentation_assets.serving.profiles import ProfileReader
from segmentation_assets.serving.service import Service


def create_app(
    store: StateStore,
    settings: ServeSettings,
    stream: StreamSettings,
    keys: ApiKeys,
    reader: ProfileReader | None = None,
) -> FastAPI:
    """Make the application; ``app.state.service`` holds its parts.

    Args:
        store: of states; is not closed here.
        settings: limits.
        stream: how the stream assigns, so that the API does the same.
        keys: who may ask; without any, only this machine.
        reader: of published profiles; None: users whom the store does not know are unknown.
    """
    service = Service(store, settings, stream, keys, reader)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        following = await service.start()
        try:
            yield
        finally:
            following.cancel()
            with suppress(BaseException):
                await following
            await service.hub.finish()
            service.close()

    app = FastAPI(
        title=TITLE,
        summary=SUMMARY,
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=running,
    )
    app.state.service = service
    for part in (users, changes, assign, watch, inference):
        app.include_router(part.routes(service))
    handle_problems(app)
    app.openapi = describe(app, keys.required)  # type: ignore[method-assign]  # FastAPI's own way to change it
    app.add_middleware(Guard, settings=settings, keys=keys, metrics=service.metrics)
    if settings.cors_origins:  # outside the guard: a browser asks without a key whether it may ask
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Last-Event-ID"],
            expose_headers=[SOURCE_HEADER, "Retry-After"],
        )
    return app
