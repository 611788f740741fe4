"""The shapes of answers, and making them of what is stored.

What belongs here: one type for each answer, which is also what the description of the API says of it, and times and
clusters as clients get them. What does not: routes, reading.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from segmentation_assets.core.live.change import behaviour_change
from segmentation_assets.core.live.features import live_features
from segmentation_assets.core.live.state import MONEY, UserState
from segmentation_assets.core.taxonomy import OTHER
from segmentation_assets.io.live_store import StoredChange
from segmentation_assets.serving.served import Assigned, Loaded

LIVE: Literal["live"] = "live"
PUBLISHED: Literal["elasticsearch"] = "elasticsearch"
SOURCE_HEADER = "Segments-Source"
QUERY_HALF_LIFE_DAYS = 7.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 253_402_300_799_999
_DAY = 86_400_000
_NEVER = -2

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Share = Annotated[float, Field(ge=0, le=1)]
Cluster = Annotated[int | None, Field(description="Behaviour cluster; -1: in none; null: not looked for.")]
Source = Annotated[
    Literal["live", "elasticsearch"],
    Field(description="'live': the stream's state; 'elasticsearch': the profile that was published last."),
]


class SegmentAnswer(TypedDict):
    """Where a user is."""

    user_id: str
    segment: Annotated[str | None, Field(description="null: has not searched yet.")]
    since: Annotated[Moment | None, Field(description="The event that did it; null where that is not known.")]
    cluster: Cluster
    persona: Annotated[str | None, Field(description="Name of the behaviour cluster.")]
    confidence: Annotated[Share | None, Field(description="In the behaviour cluster.")]
    model: Annotated[str | None, Field(description="Version of the model that says so.")]
    source: Source


class UserQuery(TypedDict):
    """A query of a user."""

    query: str
    at: Moment
    weight: Annotated[Share, Field(description="1 now, half of it every 7 days.")]
    segment: str


class Profile(SegmentAnswer):
    """What is known of a user. Of a published profile only what ``SegmentAnswer`` has."""

    first_event: Moment | None
    latest_event: Moment | None
    counters: dict[str, float]
    queries: list[UserQuery]
    features: dict[str, float | None]
    traits: dict[str, str | None]
    change: Annotated[
        dict[str, Share], Field(description="Group of behaviour to how far it moved since the user was looked at.")
    ]


class SegmentAnswers(TypedDict):
    """Where users are."""

    users: list[SegmentAnswer]
    unknown: Annotated[list[str], Field(description="Nobody knows these.")]


class SegmentSize(TypedDict):
    """How many users a segment has."""

    segment: str
    users: int
    share: Share


class SegmentSizes(TypedDict):
    """All segments, the largest first."""

    segments: list[SegmentSize]
    users: int


class Member(TypedDict):
    """A user of a segment."""

    user_id: str
    since: Moment


class Members(TypedDict):
    """A page of users of a segment, by user id."""

    segment: str
    users: list[Member]
    next: Annotated[str | None, Field(description="cursor of the next page; null after the last.")]


class ChangeAnswer(TypedDict):
    """A user who came to be in another segment or behaviour cluster."""

    id: str
    user_id: str
    at: Moment
    segment: str | None
    previous: str | None
    cluster: Cluster
    previous_cluster: Cluster
    persona: str | None
    model: str
    session_id: str | None
    search_query: str | None


class Changes(TypedDict):
    """Changes: the latest first, or those after an id in their order."""

    changes: list[ChangeAnswer]
    latest: Annotated[str | None, Field(description="The newest id among them, for `after`.")]


class AssignedQuery(TypedDict):
    """Where a query belongs."""

    query: str
    segment: str
    cluster: Annotated[int, Field(description="Cluster of queries; -1: in none.")]
    confidence: Share


class Assignment(TypedDict):
    """Where somebody who did this would be."""

    queries: list[AssignedQuery]
    segment: str | None
    cluster: Cluster
    persona: str | None
    confidence: Share | None
    applied: Annotated[int, Field(description="Events and queries that counted.")]
    duplicates: int
    model: str


class Published(TypedDict):
    """A model in the store."""

    version: str
    published_at: Moment


class WorkerAnswer(TypedDict):
    """What a worker of the stream said last."""

    worker: str
    model: str | None
    events_per_second: float
    lag: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class ModelAnswer(TypedDict):
    """The models that are in use. While one replaces another, workers show which each runs."""

    serving: Annotated[str, Field(description="Version that this API answers by.")]
    current: Published
    previous: Published | None
    segments: list[str]
    clusters: Annotated[dict[str, str], Field(description="Cluster of queries to its segment.")]
    personas: Annotated[dict[str, str], Field(description="Behaviour cluster to its name.")]
    workers: list[WorkerAnswer]


class Product(TypedDict):
    """A product of the feed."""

    product_id: str
    why: Annotated[list[Literal["popular", "rising"]], Field(description="Which of both it is.")]
    weight: Annotated[float, Field(description="In the last 24 hours: views 1, clicks 2, carts 5, purchases 10.")]
    growth: Annotated[float | None, Field(description="Its share of attention, to the share before.")]


class Products(TypedDict):
    """Products of a segment."""

    segment: str
    products: list[Product]


class Feed(TypedDict):
    """Products of the user's segment that the user has not seen."""

    user_id: str
    segment: str
    products: list[Product]
    source: Source


class Health(TypedDict):
    """How things are."""

    status: Literal["ok", "degraded"]
    store: bool
    model: str | None
    workers: list[WorkerAnswer]
    lag: int
    problems: list[str]


class Status(TypedDict):
    """One word."""

    status: str


class LiveAnswer(TypedDict):
    """What the live page shows."""

    at: Moment
    events_per_second: float
    lag: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    totals: dict[str, int]
    segments: list[SegmentSize]
    changes: list[ChangeAnswer]
    workers: list[WorkerAnswer]
    current: Published | None
    previous: Published | None


_encoder = msgspec.json.Encoder()


def json_response(value: object, status: int = 200, source: str | None = None) -> Response:
    """An answer as JSON; without the check of its own shape, which would cost more than the answer."""
    headers = None if source is None else {SOURCE_HEADER: source}
    return Response(_encoder.encode(value), status, headers, "application/json")


def moment(milliseconds: int) -> str:
    """ISO 8601 in UTC."""
    at = _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST))
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"


def segment_answer(user: str, state: UserState, personas: Mapping[int, str]) -> SegmentAnswer:
    """Of a state."""
    looked = state.cluster != _NEVER
    return {
        "user_id": user,
        "segment": state.segment or None,
        "since": moment(state.since) if state.segment else None,
        "cluster": state.cluster if looked else None,
        "persona": personas.get(state.cluster),
        "confidence": min(max(state.confidence, 0.0), 1.0) if looked else None,
        "model": state.model or None,
        "source": LIVE,
    }


def published_answer(user: str, profile: Mapping[str, Any]) -> SegmentAnswer:
    """Of a published profile."""
    return {
        "user_id": user,
        "segment": profile.get("segment"),
        "since": None,
        "cluster": profile.get("cluster"),
        "persona": profile.get("persona"),
        "confidence": profile.get("cluster_confidence"),
        "model": profile.get("model_version"),
        "source": PUBLISHED,
    }


def profile_answer(
    user: str, state: UserState, loaded: Loaded | None, personas: Mapping[int, str], now: int
) -> Profile:
    """Of a state, at a moment."""
    segments = loaded.model.segments if loaded else {}
    behaviour = loaded.model.behaviour if loaded else None
    columns = [step.feature for step in behaviour.preprocessing.numeric] if behaviour else []
    table, traits = live_features([state], [user], segments, max(now, state.latest), columns)
    features: dict[str, float | None] = {
        name: _finite(table[name][0].as_py()) for name in table.column_names if name != "user_id"
    }
    return {
        **segment_answer(user, state, personas),
        "first_event": moment(state.first) if state.events else None,
        "latest_event": moment(state.latest) if state.events else None,
        "counters": {
            "events": state.events,
            "sessions": state.sessions,
            "searches": state.searches,
            "impressions": state.impressions,
            "views": state.views,
            "clicks": state.clicks,
            "add_to_carts": state.carts,
            "purchases": state.orders,
            "spend": state.spend / MONEY,
        },
        "queries": [
            {
                "query": query,
                "at": moment(at),
                "weight": 2.0 ** (-max(now - at, 0) / _DAY / QUERY_HALF_LIFE_DAYS),
                "segment": segments.get(cluster, OTHER),
            }
            for at, query, cluster in state.queries
        ],
        "features": features,
        "traits": {name: traits[name][0].as_py() for name in traits.column_names if name != "user_id"},
        "change": behaviour_change(state),
    }


def published_profile(user: str, profile: Mapping[str, Any]) -> Profile:
    """Of a published profile: where the user is, and nothing of what the stream counts."""
    return {
        **published_answer(user, profile),
        "first_event": None,
        "latest_event": None,
        "counters": {},
        "queries": [],
        "features": {},
        "traits": {},
        "change": {},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def change_answer(stored: StoredChange) -> ChangeAnswer:
    """Of a change."""
    change = stored.change
    return {
        "id": stored.id,
        "user_id": change.user_id,
        "at": moment(change.at),
        "segment": change.segment or None,
        "previous": change.previous or None,
        "cluster": None if change.cluster == _NEVER else change.cluster,
        "previous_cluster": None if change.previous_cluster == _NEVER else change.previous_cluster,
        "persona": change.persona or None,
        "model": change.model,
        "session_id": change.session_id,
        "search_query": change.search_query,
    }


def assignment(loaded: Loaded, found: Assigned) -> Assignment:
    """Of what a model says."""
    state = found.state
    looked = state.cluster != _NEVER
    return {
        "queries": [
            {"query": query, "segment": segment, "cluster": cluster, "confidence": min(max(sure, 0.0), 1.0)}
            for query, segment, cluster, sure in found.queries
        ],
        "segment": state.segment or None,
        "cluster": state.cluster if looked else None,
        "persona": loaded.model.personas.get(state.cluster),
        "confidence": min(max(state.confidence, 0.0), 1.0) if looked else None,
        "applied": found.applied,
        "duplicates": found.duplicates,
        "model": loaded.model.version,
    }


def segment_sizes(sizes: Mapping[str, int]) -> SegmentSizes:
    """Of users by segment."""
    total = sum(sizes.values())
    ordered = sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
    return {
        "segments": [
            {"segment": segment, "users": users, "share": users / total if total else 0.0} for segment, users in ordered
        ],
        "users": total,
    }


def published(models: Sequence[tuple[str, int]], place: int) -> Published | None:
    """One of the models of the store, newest first."""
    return {"version": models[place][0], "published_at": moment(models[place][1])} if place < len(models) else None


def worker_answers(said: Mapping[str, Mapping[str, object]]) -> list[WorkerAnswer]:
    """Of what workers say of themselves, whatever they say."""
    return [
        {
            "worker": worker,
            "model": str(of["model"]) if of.get("model") else None,
            "events_per_second": _number(of.get("events_per_second")) or 0.0,
            "lag": _lag(of.get("lag")),
            "p50_ms": _number(of.get("p50_ms")),
            "p95_ms": _number(of.get("p95_ms")),
            "p99_ms": _number(of.get("p99_ms")),
        }
        for worker, of in sorted(said.items())
    ]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _finite(float(value))


def _lag(value: object) -> int:
    """Of all partitions, or a number."""
    if isinstance(value, Mapping):
        return sum(_lag(part) for part in value.values())
    return int(_number(value) or 0)


def worst(workers: Sequence[WorkerAnswer], name: Literal["p50_ms", "p95_ms", "p99_ms"]) -> float | None:
    """The slowest worker's percentile: that of all together cannot be told from theirs."""
    return max((value for worker in workers if (value := worker[name]) is not None), default=None)
