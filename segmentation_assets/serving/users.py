"""Routes: users and segments, and products for them.

What belongs here: what is asked of one user, many users, a segment. What does not: changes (changes), what is not
stored (assign).
"""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from segmentation_assets.core.values import encodable, usable_id
from segmentation_assets.serving.answers import (
    LIVE,
    PUBLISHED,
    Feed,
    Members,
    Products,
    Profile,
    SegmentAnswer,
    SegmentAnswers,
    SegmentSizes,
    json_response,
    moment,
    profile_answer,
    published_profile,
    segment_sizes,
)
from segmentation_assets.serving.describing import answers
from segmentation_assets.serving.problems import HALF, RefusedError
from segmentation_assets.serving.recommendations import feed
from segmentation_assets.serving.service import Service

UserId = Annotated[str, Path(description="As in the events; slashes and other special characters percent-encoded.")]
Segment = Annotated[str, Path(description="Name of a segment.")]
MOST_PRODUCTS = 100
ProductLimit = Annotated[int, Query(ge=1, le=MOST_PRODUCTS, description="Products at most.")]


class Users(BaseModel):
    """Whom to look up."""

    model_config = ConfigDict(extra="forbid")
    users: Annotated[list[str], Field(description="Ids; each is answered once.")]


class _Place(msgspec.Struct, array_like=True):
    """Where a page begins, in a cursor."""

    segment: str
    after: str


def routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1")
    most = service.settings.max_users

    class Batch(Users):
        users: Annotated[list[str], Field(max_length=most, description="Ids; each is answered once.")]

    @router.get(
        "/users/{user_id:path}/segment",
        response_model=None,
        responses=answers(SegmentAnswer, 404, 422, 503),
        tags=["users"],
        operation_id="segment",
    )
    async def segment(user_id: UserId) -> Response:
        """The segment of a user."""
        found = await service.user(user_id)
        return json_response(found.answer, source=found.answer["source"])

    @router.get(
        "/users/{user_id:path}/profile",
        response_model=None,
        responses=answers(Profile, 404, 422, 503),
        tags=["users"],
        operation_id="profile",
    )
    async def profile(user_id: UserId) -> Response:
        """The segment, counters, latest queries, features and change of behaviour of a user."""
        found = await service.user(user_id)
        if found.state is None:
            answer = {**published_profile(user_id, {}), **found.answer}
            return json_response(answer, source=PUBLISHED)
        loaded = await service.models.of(found.state.model) or service.models.current
        now = int(time.time() * 1000)
        personas = service.models.personas(found.state.model)
        return json_response(profile_answer(user_id, found.state, loaded, personas, now), source=LIVE)

    @router.post(
        "/users:batchGet",
        response_model=None,
        responses=answers(SegmentAnswers, 503, body=True),
        tags=["users"],
        operation_id="batchGet",
    )
    async def batch_get(body: Batch) -> Response:
        """The segments of many users, in the order asked for."""
        asked = list(dict.fromkeys(body.users))
        if not all(map(encodable, asked)):
            raise RefusedError(422, "An id is no text.", errors=[("/body/users", HALF)])
        found = await service.users(asked)
        sources = {entry.answer["source"] for entry in found.values()}
        return json_response(
            {
                "users": [found[user].answer for user in asked if user in found],
                "unknown": [user for user in asked if user not in found],
            },
            source=", ".join(sorted(sources)) or LIVE,
        )

    @router.get(
        "/segments",
        response_model=None,
        responses=answers(SegmentSizes, 503),
        tags=["segments"],
        operation_id="segments",
    )
    async def segments() -> Response:
        """All segments and how many users each has."""
        return json_response(segment_sizes(await service.reads(service.store.sizes)))

    async def require_segment(name: str) -> None:
        current = service.models.current
        if current is not None and name in current.model.segments.values():
            return
        if usable_id(name) is None or name not in await service.reads(service.store.sizes):
            raise RefusedError(404, "There is no such segment.")

    @router.get(
        "/segments/{segment:path}/users",
        response_model=None,
        responses=answers(Members, 400, 404, 422, 503),
        tags=["segments"],
        operation_id="members",
    )
    async def members(
        segment: Segment,
        cursor: Annotated[
            str | None, Query(max_length=4096, description="`next` of the page before; nothing else is one.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=most, description="Users on a page.")] = min(100, most),
    ) -> Response:
        """The users of a segment, page by page."""
        await require_segment(segment)
        after = None if cursor is None else _after(cursor, segment)
        found, place = await service.reads(service.store.members, segment, after, limit)
        return json_response(
            {
                "segment": segment,
                "users": [{"user_id": user, "since": moment(since)} for user, since in found],
                "next": None if place is None else _cursor(segment, place),
            }
        )

    @router.get(
        "/segments/{segment:path}/products",
        response_model=None,
        responses=answers(Products, 404, 422, 503),
        tags=["products"],
        operation_id="products",
    )
    async def products(segment: Segment, limit: ProductLimit = 20) -> Response:
        """Products that are popular in a segment, or rising, in turn."""
        await require_segment(segment)
        return json_response({"segment": segment, "products": feed(await service.trends(segment), (), limit)})

    @router.get(
        "/recommendations/{user_id:path}",
        response_model=None,
        responses=answers(Feed, 404, 422, 503),
        tags=["products"],
        operation_id="recommendations",
    )
    async def recommendations(user_id: UserId, limit: ProductLimit = 20) -> Response:
        """Popular and rising products of the user's segment that the user has not seen or bought lately."""
        found = await service.user(user_id)
        name = found.answer["segment"]
        if name is None:
            raise RefusedError(404, "This user has not searched yet, and is in no segment.")
        seen = found.state.products if found.state is not None else ()
        source = found.answer["source"]
        chosen = feed(await service.trends(name), seen, limit)
        return json_response({"user_id": user_id, "segment": name, "products": chosen, "source": source}, source=source)

    return router


def _cursor(segment: str, after: str) -> str:
    return urlsafe_b64encode(msgspec.msgpack.encode(_Place(segment, after))).decode().rstrip("=")


def _after(cursor: str, segment: str) -> str:
    wrong = RefusedError(400, "This is no cursor of this segment.", "Give `next` of the page before, as it is.")
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        place = msgspec.msgpack.decode(data, type=_Place)
    except (ValueError, msgspec.MsgspecError):
        raise wrong from None
    if place.segment != segment or not place.after:
        raise wrong
    return place.after
