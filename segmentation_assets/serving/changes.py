"""Routes: changes of segments, as a list and as a stream.

What belongs here: Server-sent events and where they go on. What does not: reading for many listeners (hub).
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from segmentation_assets.io.live_store import StoredChange
from segmentation_assets.serving.answers import Changes, change_answer, json_response
from segmentation_assets.serving.describing import answers
from segmentation_assets.serving.hub import PAGE
from segmentation_assets.serving.problems import RETRY_SECONDS, UnavailableError
from segmentation_assets.serving.service import Service

HEARTBEAT_SECONDS = 15.0
"""A comment after so long without a change: proxies close what is silent, and a client that is gone is noticed."""

SEND_SECONDS = 60.0
"""Within which a client has to take what it is sent."""

CHANGE_ID = r"^[0-9]{1,18}-[0-9]{1,18}$"
ChangeId = Annotated[str | None, Query(pattern=CHANGE_ID, description="Only changes after this one, in their order.")]
LastId = Annotated[str | None, Header(alias="Last-Event-ID", pattern=CHANGE_ID, description="Go on after this one.")]


def routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/changes", tags=["changes"])
    most = service.settings.max_users

    @router.get("", response_model=None, responses=answers(Changes, 422, 503), operation_id="changes")
    async def changes(
        after: ChangeId = None,
        limit: Annotated[int, Query(ge=1, le=most, description="Changes at most.")] = min(100, most),
    ) -> Response:
        """The latest changes, newest first; or those after an id, in their order."""
        found = await service.reads(service.store.changes, after, limit, newest_first=after is None)
        newest = max((change.id for change in found), key=_order, default=after)
        return json_response({"changes": [change_answer(change) for change in found], "latest": newest})

    described = answers(str, 422, 503)
    described[200] = {
        "description": "Server-sent events: `change` with an id, and an answer like one of /v1/changes as data.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }

    @router.get("/stream", response_model=None, responses=described, operation_id="stream")
    async def stream(last: LastId = None) -> Response:
        """Changes as they happen; after a break with those that were missed, as far as they are kept."""
        service.hub.require_room()
        await service.hub.newest()  # while a problem can still be said
        service.hub.require_room()
        return _Stream(_told(service, last))

    return router


class _Stream(StreamingResponse):
    """Ends where a client takes nothing any more: it would hold a place for as long as it likes."""

    def __init__(self, told: AsyncGenerator[bytes, None]) -> None:
        super().__init__(told, 200, {"X-Accel-Buffering": "no"}, "text/event-stream")
        self._told = told

    async def stream_response(self, send: Send) -> None:
        async def within(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        async with aclosing(self._told):  # the place is given up now, not when somebody tidies up
            with suppress(TimeoutError):
                await super().stream_response(within)


async def _told(service: Service, last: str | None) -> AsyncGenerator[bytes, None]:
    try:
        async with service.hub.listening() as listener:
            yield f"retry: {RETRY_SECONDS * 1000}\n: listening\n\n".encode()
            told = (0, 0) if last is None else _order(last)
            while last is not None:  # what was missed, until what is queued takes over
                missed = await service.reads(service.store.changes, last, PAGE)
                if missed:
                    yield b"".join(_event(change) for change in missed)
                    last = missed[-1].id
                    told = _order(last)
                if len(missed) < PAGE:
                    break
            while (found := await listener.take(HEARTBEAT_SECONDS)) is not None:
                events = [_event(change) for change in found if _order(change.id) > told]
                yield b"".join(events) or b": still here\n\n"
    except UnavailableError:
        return  # the client comes back with the id that it has


def _order(change_id: str) -> tuple[int, int]:
    first, _, second = change_id.partition("-")
    return int(first), int(second)


def _event(change: StoredChange) -> bytes:
    # JSON holds no line break, so it is one line of data.
    return b"id: %s\nevent: change\ndata: %s\n\n" % (change.id.encode(), msgspec.json.encode(change_answer(change)))
