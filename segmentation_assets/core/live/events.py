"""What happened, one thing at a time: the event that streams carry, version 1, and which events can be used.

What belongs here: the fields of an event, the rules for them, and sessions told as events. What does not: other shapes
that mean the same (io.streams.codec), what an event changes (state).
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, get_args

import msgspec

from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import usable_query
from segmentation_assets.core.values import MAX_ID_LENGTH, usable_id, usable_text

VERSION = 1

EventType = Literal["search", "impression", "view", "click", "add_to_cart", "purchase"]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)

CLOCK_SKEW = 600_000
"""Milliseconds by which an event may be ahead of the moment the broker took it. More is a clock that is wrong."""

LARGEST = 1e9
"""Of a price, a quantity and seconds; see ``core.details.LARGEST``."""

_EARLIEST = 0
"""1970-01-01: an event before it comes from a clock that was never set."""


class Event(msgspec.Struct, gc=False):
    """One thing that a user, or the shop, did.

    Attributes:
        event_id: unique; the same id again is the same event again.
        user_id: whose.
        event_type: what.
        timestamp: when it happened, milliseconds since 1970 (UTC).
        session_id: of the visit; what happened in one visit belongs to its search.
        search_query: what was searched for; a search without one opens no search session.
        product_id: what it was about.
        category: of the product.
        price: of one piece, in the shop's money.
        quantity: pieces; none means one.
        transaction_id: of the order.
        device: kind of device.
        country: of the user.
        region: of the user.
        referrer: where the user came from.
        duration: of the whole session, seconds, on its search; where it is known only afterwards, as when stored
            sessions are replayed.
        schema: version of this shape; none means the first.
    """

    event_id: str
    user_id: str
    event_type: str
    timestamp: int
    session_id: str | None = None
    search_query: str | None = None
    product_id: str | None = None
    category: str | None = None
    price: float | None = None
    quantity: float | None = None
    transaction_id: str | None = None
    device: str | None = None
    country: str | None = None
    region: str | None = None
    referrer: str | None = None
    duration: float | None = None
    schema: int | None = VERSION


class BadEvent(ValueError):
    """An event that cannot be used. Its text is the reason: ``<field>: <why>``, never a value of the event."""


def digest(text: str) -> int:
    """63 bits that stand for an id: two of a user's ids are taken for one with a chance below one in 10^15."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


recent_digest = lru_cache(maxsize=50_000)(digest)
"""The same, remembered: for ids of sessions and products, which come again soon."""


def checked(event: Event, received: int | None = None) -> Event:
    """The event with its texts folded as those of stored sessions are.

    Args:
        event: decoded, so that its types are right.
        received: when the broker took it, milliseconds; None: nothing is said about events in the future.

    Raises:
        BadEvent: it cannot be used.
    """
    if event.event_type not in _TYPES:
        raise BadEvent("event_type: unknown")
    event.event_id = _id(event.event_id, "event_id")
    event.user_id = _id(event.user_id, "user_id")
    if event.timestamp < _EARLIEST:
        raise BadEvent("timestamp: before 1970")
    if received is not None and event.timestamp > received + CLOCK_SKEW:
        raise BadEvent("timestamp: in the future")
    if event.search_query is not None:
        query = usable_query(event.search_query)
        if query is None:
            raise BadEvent("search_query: empty, too long or no text")
        event.search_query = query
    if event.session_id is not None:
        event.session_id = _id(event.session_id, "session_id")
    if event.product_id is not None:
        event.product_id = _id(event.product_id, "product_id")
    if event.transaction_id is not None:
        event.transaction_id = _id(event.transaction_id, "transaction_id")
    if event.category is not None:
        event.category = _text(event.category, "category")
    if event.device is not None:
        event.device = _text(event.device, "device")
    if event.country is not None:
        event.country = _text(event.country, "country")
    if event.region is not None:
        event.region = _text(event.region, "region")
    if event.referrer is not None:
        event.referrer = _text(event.referrer, "referrer")
    if event.price is not None and not 0 <= event.price <= LARGEST:
        raise BadEvent("price: no amount")
    if event.quantity is not None and not 0 < event.quantity <= LARGEST:
        raise BadEvent("quantity: no number above 0")
    if event.duration is not None and not 0 <= event.duration <= LARGEST:
        raise BadEvent("duration: no number of seconds")
    return event


_TYPES = frozenset(EVENT_TYPES)


def _id(value: str, name: str) -> str:
    # Nearly all ids are plain: the rule itself costs several times as much.
    if value.isascii() and 0 < len(value) <= MAX_ID_LENGTH:
        value = value.strip()
        if value:
            return value
    found = usable_id(value)
    if found is None:
        raise BadEvent(f"{name}: empty, too long or no text")
    return found


_short_text = lru_cache(maxsize=10_000)(usable_text)
"""Categories, devices and places are few, and each comes again and again."""


def _text(value: str, name: str) -> str:
    found = _short_text(value)
    if found is None:
        raise BadEvent(f"{name}: no short text")
    return found


def encode(event: Event) -> bytes:
    """The event as it goes over the wire: JSON, version 1, nothing where nothing is known."""
    return msgspec.json.encode(as_document(event))


def as_document(event: Event) -> dict[str, Any]:
    """The event as a JSON object."""
    return {name: value for name in event.__struct_fields__ if (value := getattr(event, name)) is not None}


def events_of_session(session: Mapping[str, Any]) -> Iterator[Event]:
    """A stored session as the events it was made of, in the order of their times: its search first.

    Args:
        session: session_id, user_id, search_query, timestamp, clicked_product_ids, and the details of
            ``core.details`` where it has any. Ids of the events are made of the session's, so that a second replay
            changes nothing. Clicks that no event tells of follow the search, in the second after it.
    """
    own, user = str(session["session_id"]), str(session["user_id"])
    start = _milliseconds(session["timestamp"])
    around = {name: session.get(name) for name in ("device", "country", "region", "referrer")}
    yield Event(
        f"{own}:search",
        user,
        "search",
        start,
        session_id=own,
        search_query=session["search_query"],
        duration=session.get("duration"),
        **around,
    )
    told = session.get("events") or []
    clicked = {event.get("product_id") for event in told if event["event_type"] == "click"}
    events = [
        Event(
            f"{own}:{number}",
            user,
            event["event_type"],
            start if event.get("timestamp") is None else _milliseconds(event["timestamp"]),
            session_id=own,
            **{name: event.get(name) for name in _OF_PRODUCT},
            **around,
        )
        for number, event in enumerate(told)
        # the search itself was told above
        if event["event_type"] != "search"
    ]
    events += [
        Event(f"{own}:click:{number}", user, "click", start + 1000, session_id=own, product_id=product, **around)
        for number, product in enumerate(session.get("clicked_product_ids") or [])
        if product not in clicked
    ]
    yield from sorted(events, key=lambda event: event.timestamp)


_OF_PRODUCT = ("product_id", "category", "price", "quantity", "transaction_id")


def _milliseconds(value: object) -> int:
    moment = parse_timestamp(value)
    if moment is None:
        raise ValueError("a stored session has a time")
    return round(moment.timestamp() * 1000)
