"""OpenSearch User Behavior Insights 1.3: queries and what was done with their results, as rows of sessions.

What belongs here: which rows are queries and which are events, what an event says in our words, and joining the two.
What does not: reading the file (io.formats), what becomes of a row and whether it can be a session (io.importing),
which values can be used (core.details): they go on as they were recorded.

Source: the UBI specification (https://github.com/o19s/ubi) and the schema of OpenSearch's index ``ubi_events``. They
fix ``action_name``, ``query_id``, ``timestamp`` and ``event_attributes.object.object_id``; names of actions, and where
a price stands, are each shop's own, so the usual ones are known and the others are counted.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from segmentation_assets.core.values import usable_id
from segmentation_assets.io.formats import Row, Rows

ACTIONS: Mapping[str, str] = {
    "search": "search",
    "on_search": "search",
    "impression": "impression",
    "product_impression": "impression",
    "view": "view",
    "item_view": "view",
    "product_view": "view",
    "view_item": "view",
    "view_product": "view",
    "click": "click",
    "item_click": "click",
    "product_click": "click",
    "add_to_cart": "add_to_cart",
    "purchase": "purchase",
}
"""``action_name`` to the type of our event. What is not in here (a filter, a hover, a sort) is none of ours."""

_WITHOUT_PRODUCT = frozenset({"search", "purchase"})
"""A click somewhere on the page is no click on a product; a search has none, and an order is one without naming it."""

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "category": ("category", "product_category"),
    "price": ("price",),
    "quantity": ("quantity",),
    "transaction_id": ("transaction_id",),
}
"""Our field to what it is called; looked for in the object, in its details, then in the event's attributes."""


@dataclass
class EventCounts:
    """What became of events: ``events == events_joined + events_unmatched + sum(events_other.values())``, at the end.

    Attributes:
        events: events read.
        events_joined: of these, events of ours that belong to a query of the file that can be a session.
        events_unmatched: of these, events of ours on a query that is not in the file or can be no session, or on none.
        events_other: of these, by ``action_name``, those that are none of ours, or lack the product they are about.
        clicks_joined: of those joined, clicks.
        clicks_unmatched: of those unmatched, clicks.
    """

    events: int = 0
    events_joined: int = 0
    events_unmatched: int = 0
    events_other: Counter[str] = field(default_factory=Counter)
    clicks_joined: int = 0
    clicks_unmatched: int = 0


AsSession = Callable[[Mapping[str, Any]], tuple[datetime, str] | None]
"""When the session was that a query becomes, and its id; None where the query can be no session."""


def looks_like_ubi(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is a query or an event of UBI among the rows."""
    return any("query_id" in row and (is_event(row) or "user_query" in row) for row in rows)


def is_event(row: Mapping[str, Any]) -> bool:
    """Whether a row of a UBI file is an event; any other is a query."""
    return "action_name" in row


def join(read: Callable[[], Rows], counts: EventCounts, as_session: AsSession) -> Iterator[Row]:
    """The queries, each with ``session_id``, ``clicked_product_ids`` and, where it has any, ``events`` added.

    The file is read twice, so that only events are held in memory, some 150 bytes each, and the time of each query,
    wherever in the file they stand.

    One search can take several requests (results, facets, suggestions) under one query_id. UBI tells them apart by the
    response, so the session's id does too. Each of them led to the clicks; but the events, which are added up later, go
    to one session alone, or one purchase would count as several: to the earliest of those that can be one. Every row
    with its id has them, since of rows with one id whichever comes last is kept.

    Args:
        read: begins to read the rows anew.
        counts: where events are counted; complete after the last row.
        as_session: asked about a query with its ``session_id``.
    """
    events, chosen = _gather(read, counts, as_session)
    given: set[str] = set()
    for own_id, row in read():
        if not isinstance(row, dict):
            yield row
            continue
        if is_event(row):
            continue
        name = _name(row)
        found = _decoded(events.get(name)) if name is not None else []
        clicks = [event["product_id"] for event in found if event["event_type"] == "click"]
        # One odd product must not cost the session: among the events it is left out, and counted, by itself.
        usable = [product for product in clicks if usable_id(product) is not None]
        row = {**_identified(own_id, row), "clicked_product_ids": usable}
        row.pop("events", None)
        session = as_session(row) if found else None
        if name is not None and session is not None and session[1] == chosen[name][1]:
            row["events"] = found
            if name not in given:
                given.add(name)
                counts.events_joined += len(found)
                counts.events_unmatched -= len(found)
                counts.clicks_joined += len(clicks)
                counts.clicks_unmatched -= len(clicks)
        yield row


def _gather(
    read: Callable[[], Rows], counts: EventCounts, as_session: AsSession
) -> tuple[dict[str, bytearray], dict[str, tuple[datetime, str]]]:
    """The events of each query_id, as lines of JSON, and the session that they go to."""
    events: dict[str, bytearray] = {}
    chosen: dict[str, tuple[datetime, str]] = {}
    for own_id, row in read():
        if not isinstance(row, dict):
            continue
        name = _name(row)
        if not is_event(row):
            session = as_session(_identified(own_id, row)) if name is not None else None
            if name is not None and session is not None:
                chosen[name] = min(session, chosen.get(name, session))
            continue
        counts.events += 1
        event = as_event(row)
        if event is None:
            counts.events_other[str(row["action_name"])] += 1
            continue
        counts.events_unmatched += 1
        counts.clicks_unmatched += event["event_type"] == "click"
        if name is not None:
            events.setdefault(name, bytearray()).extend(json.dumps(event, separators=(",", ":")).encode() + b"\n")
    return events, chosen


def _name(row: Mapping[str, Any]) -> str | None:
    """The search that a row is about. A blank name is none, or all that have it would be one search."""
    query = row.get("query_id")
    return None if query is None else str(query).strip() or None


def _identified(own_id: object, row: Mapping[str, Any]) -> dict[str, Any]:
    query, response = row.get("query_id"), row.get("query_response_id")
    if _name(row) is None:
        query = own_id
    elif response:
        query = f"{query}:{response}"
    return {**row, "session_id": query}


def _decoded(lines: bytearray | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()] if lines else []


def as_event(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an event says in the words of ``core.details``, values as they were recorded; None where it is none of ours.

    Args:
        row: see ``is_event``.
    """
    action = row["action_name"]
    kind = ACTIONS.get(action) if isinstance(action, str) else None
    if kind is None:
        return None
    attributes = _object(row.get("event_attributes"))
    target = _object(attributes.get("object"))
    product = target.get("object_id") if kind != "search" else None
    if product is None and kind not in _WITHOUT_PRODUCT:
        return None
    said: dict[str, Any] = {"event_type": kind, "timestamp": row.get("timestamp"), "product_id": product}
    places = (target, _object(target.get("object_detail")), attributes)
    for name, known in _FIELDS.items():
        said[name] = next((place[key] for place in places for key in known if place.get(key) is not None), None)
    return {name: value for name, value in said.items() if value is not None}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
