"""Route: where a query or a session belongs, without storing anything.

What belongs here: what can be asked. What does not: the rule (core.live.segmenter).
"""

import time
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictFloat, StrictInt
from starlette.responses import Response

from segmentation_assets.core.live.events import CLOCK_SKEW, LARGEST, VERSION, BadEvent, Event, EventType, checked
from segmentation_assets.core.values import MAX_ID_LENGTH, MAX_TEXT_LENGTH, encodable
from segmentation_assets.serving.answers import Assignment, assignment, json_response
from segmentation_assets.serving.describing import answers
from segmentation_assets.serving.problems import HALF, RefusedError
from segmentation_assets.serving.served import VISITOR
from segmentation_assets.serving.service import Service

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]
Amount = Annotated[StrictFloat, Field(ge=0, le=LARGEST)]


class AskedEvent(BaseModel):
    """An event of the stream, of a user whom nobody needs to know; what is not said is as if it happened just now."""

    model_config = ConfigDict(extra="forbid")
    version: Annotated[Annotated[StrictInt, Field(ge=VERSION, le=VERSION)] | None, Field(alias="schema")] = None
    event_type: EventType
    event_id: Id | None = None
    user_id: Annotated[Id | None, Field(description="Is not looked at.")] = None
    timestamp: Annotated[
        Annotated[StrictInt, Field(ge=0)] | AwareDatetime | None,
        Field(description="ISO 8601 with a zone, or milliseconds since 1970; not in the future."),
    ] = None
    session_id: Id | None = None
    search_query: str | None = None
    product_id: Id | None = None
    category: Text | None = None
    price: Amount | None = None
    quantity: Annotated[StrictFloat, Field(gt=0, le=LARGEST)] | None = None
    transaction_id: Id | None = None
    device: Text | None = None
    country: Text | None = None
    region: Text | None = None
    referrer: Text | None = None
    duration: Amount | None = None


def routes(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1", tags=["assign"])
    most = service.settings.max_users

    class Asked(BaseModel):
        """What somebody did: queries, events, or both; the events are taken to have come first."""

        model_config = ConfigDict(extra="forbid")
        queries: Annotated[list[str], Field(max_length=most)] = []
        events: Annotated[list[AskedEvent], Field(max_length=most)] = []

    @router.post("/assign", response_model=None, responses=answers(Assignment, 503, body=True), operation_id="assign")
    async def assign(body: Asked) -> Response:
        """Where each query belongs, and in which segment and behaviour cluster a new user who did this would be."""
        loaded = service.models.required()
        wrong = [(f"/body/queries/{place}", HALF) for place, query in enumerate(body.queries) if not encodable(query)]
        if wrong:
            raise RefusedError(422, "A query is no text.", errors=wrong[:20])
        now = int(time.time() * 1000)
        events = [_event(asked, place, now) for place, asked in enumerate(body.events)]
        found = await service.computing(loaded.assign, body.queries, events, now)
        return json_response(assignment(loaded, found))

    return router


_TAKEN = frozenset({"version", "event_id", "user_id", "timestamp"})


def _event(asked: AskedEvent, place: int, now: int) -> Event:
    at = asked.timestamp
    if at is None:
        at = now
    elif isinstance(at, datetime):
        at = round(at.timestamp() * 1000)
    event = Event(
        event_id=asked.event_id or f"event:{place}",
        user_id=VISITOR,
        timestamp=min(at, now + CLOCK_SKEW + 1),  # it is refused anyhow; numbers have an end elsewhere
        **asked.model_dump(exclude=set(_TAKEN)),
    )
    try:
        return checked(event, now)
    except BadEvent as error:
        raise RefusedError(422, "An event cannot be used.", errors=[(f"/body/events/{place}", str(error))]) from None
