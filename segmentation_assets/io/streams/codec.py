"""Bytes of a stream as events: our own shape, version 1, and OpenSearch User Behavior Insights as it is.

What belongs here: which bytes say what. What does not: the rules for the values (core.live.events), what UBI's actions
are called (io.ubi), brokers.

An event of UBI becomes one of ours as the import of files reads it: the user is ``user_id`` where there is one, else
``client_id``; what a query led to carries its ``query_id``, which is the ``session_id`` here. Three things differ, for
nobody can wait for a file's end. A query answered by several requests is one search, whatever ``query_response_id``
says. The event ``search`` without its ``user_query`` is none of ours, since the query itself tells of the search. An
event without an id is known by its bytes.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
import pyarrow as pa

from segmentation_assets.core.live.events import VERSION, BadEvent, Event, checked
from segmentation_assets.core.moments import as_moments, parse_timestamp
from segmentation_assets.core.values import usable_id
from segmentation_assets.io import ubi

_END_OF_TIME = 253_402_300_800_000
"""Milliseconds: the year 10000, which a datetime cannot hold."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_FEW = 32
"""Times below which reading them one by one is faster than all at once."""


class _Plain(msgspec.Struct, gc=False):
    """An event of ours as nearly all come, so that one call checks its types. The others are looked at in ``_read``."""

    event_id: str
    user_id: str
    event_type: str
    timestamp: int | str
    schema: int | None = VERSION
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


_PLAIN = msgspec.json.Decoder(_Plain)
_EVENT = msgspec.json.Decoder(Event)
_ANY = msgspec.json.Decoder()
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)

_IDS = ("session_id", "product_id", "transaction_id")
_TEXTS = ("search_query", "category", "device", "country", "region", "referrer")
_NUMBERS = ("price", "quantity", "duration")


def decode(value: bytes | None, received: int) -> Event | None:
    """The event that a record holds; None where it is none of ours, such as a hover of UBI.

    Args:
        value: of the record.
        received: when the broker took it, milliseconds since 1970; negative where that is not known.

    Raises:
        BadEvent: it cannot be used. The text names the field and never the value.
    """
    (found,) = decode_many([value], [received])
    if isinstance(found, BadEvent):
        raise found
    return found


def decode_many(values: Sequence[bytes | None], received: Sequence[int]) -> list[Event | BadEvent | None]:
    """What ``decode`` says of each of (n,) records, with its error in the place of one that cannot be used."""
    return _of_whole_times(values, received) or _of_any_times(values, received)


def _of_whole_times(values: Sequence[bytes | None], received: Sequence[int]) -> list[Event | BadEvent | None] | None:
    """The same of records that give times as milliseconds, which are events as they stand; None where some do not."""
    read = _EVENT.decode
    found: list[Event | BadEvent | None] = []
    odd = 0
    for value, taken in zip(values, received, strict=True):
        try:
            event = read(value)  # type: ignore[arg-type]  # None is unreadable, and seldom
            plain = event.schema == VERSION and event.timestamp < _END_OF_TIME
            found.append(checked(event, taken if taken >= 0 else None) if plain else _one(value, taken))
        except BadEvent as error:
            found.append(error.with_traceback(None))  # which would keep all of this in memory
        except _UNREADABLE:
            odd += 1
            if odd > _FEW:  # by the look of it their times are text
                return None
            found.append(_one(value, taken))
    return found


def _one(value: bytes | None, taken: int) -> Event | BadEvent | None:
    """Any record, by the long way."""
    try:
        known = _read(value)
        return known if known is None else checked(known, taken if taken >= 0 else None)
    except BadEvent as error:
        return error.with_traceback(None)


def _of_any_times(values: Sequence[bytes | None], received: Sequence[int]) -> list[Event | BadEvent | None]:
    """The same of records whose times are text, all of them read at once."""
    read = _PLAIN.decode
    plain: list[_Plain | None] = []
    for value in values:
        try:
            plain.append(read(value))  # type: ignore[arg-type]  # None is unreadable, and seldom
        except _UNREADABLE:
            plain.append(None)
    moments = _moments([None if event is None else event.timestamp for event in plain])
    found: list[Event | BadEvent | None] = []
    for value, event, moment, taken in zip(values, plain, moments, received, strict=True):
        try:
            if event is None or moment is None or event.schema != VERSION:
                known = _read(value)
            else:
                # in the order of the fields: by name it takes twice as long
                known = Event(
                    event.event_id,
                    event.user_id,
                    event.event_type,
                    moment,
                    event.session_id,
                    event.search_query,
                    event.product_id,
                    event.category,
                    event.price,
                    event.quantity,
                    event.transaction_id,
                    event.device,
                    event.country,
                    event.region,
                    event.referrer,
                    event.duration,
                )
            found.append(known if known is None else checked(known, taken if taken >= 0 else None))
        except BadEvent as error:
            found.append(error.with_traceback(None))  # which would keep all of this in memory
    return found


def _moments(times: Sequence[int | str | None]) -> list[int | None]:
    """Milliseconds since 1970 of each; None where it is no time, or not plainly one."""
    moments = [time if isinstance(time, int) and time < _END_OF_TIME else None for time in times]
    texts = [place for place, time in enumerate(times) if time.__class__ is str]
    if len(texts) < _FEW:
        for place in texts:
            moments[place] = _milliseconds(times[place])
    else:
        read = as_moments([times[place] for place in texts]).cast(pa.int64()).to_pylist()
        for place, microseconds in zip(texts, read, strict=True):
            moments[place] = _milliseconds(times[place]) if microseconds is None else microseconds // 1000
    return moments


def _milliseconds(time: object) -> int | None:
    moment = parse_timestamp(time)
    # not by way of a float, which has not enough digits for every moment
    return None if moment is None else (moment - _EPOCH) // _MILLISECOND


# ------------------------------------------------------------------------------------------------------- one at a time


def _read(value: bytes | None) -> Event | None:
    """Any record as an event whose values were not checked yet, or the reason why it is none."""
    if value is None:
        raise BadEvent("value: missing")
    try:
        row = _ANY.decode(value)
    except _UNREADABLE:
        raise BadEvent("value: no JSON") from None
    if not isinstance(row, dict):
        raise BadEvent("value: no object")
    if "event_type" not in row:
        if ubi.is_event(row):
            return _of_ubi_event(row, value)
        if "user_query" in row and "query_id" in row:
            return _of_ubi_query(row)
        if "search_query" in row and "session_id" in row:
            raise BadEvent("event_type: missing, as in a stored session")
    version = row.get("schema", VERSION)
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version != VERSION):
        raise BadEvent("schema: unknown version")
    return _event(row, row.get("event_id"))


def _of_ubi_event(row: Mapping[str, Any], value: bytes) -> Event | None:
    said = ubi.as_event(row)
    if said is None:
        return None
    if said["event_type"] == "search":
        return _of_ubi_query(row) if row.get("user_query") is not None else None
    own = row.get("event_id")
    if own is None:
        own = blake2b(value, digest_size=16).hexdigest()
    for name in _NUMBERS:
        said[name] = _from_digits(said.get(name))
    return _event({**said, "user_id": _user(row), "session_id": _query_id(row)}, own)


def _of_ubi_query(row: Mapping[str, Any]) -> Event:
    """A query, or the event that tells of it: whichever comes first is the search, the other one a duplicate."""
    query = _query_id(row)
    if query is None:
        raise BadEvent("query_id: missing")
    said = {
        "event_type": "search",
        "timestamp": row.get("timestamp"),
        "user_id": _user(row),
        "session_id": query,
        "search_query": row["user_query"],
    }
    return _event(said, f"{query}:search")


def _user(row: Mapping[str, Any]) -> object:
    return row["user_id"] if row.get("user_id") is not None else row.get("client_id")


def _query_id(row: Mapping[str, Any]) -> str | None:
    """A blank name is none, or all searches that have it would be one."""
    query = row.get("query_id")
    if query is None or (isinstance(query, str) and not query.strip()):
        return None
    return _id(query, "query_id")


def _from_digits(value: object) -> object:
    """UBI leaves the type of a price open, and the import of files reads a text of digits as the number it says."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _event(said: Mapping[str, Any], own: object) -> Event:
    kind = said.get("event_type")
    if not isinstance(kind, str):
        raise BadEvent("event_type: missing" if kind is None else "event_type: no text")
    event_id, user = _id(own, "event_id"), _id(said.get("user_id"), "user_id")
    time = said.get("timestamp")
    moment = _milliseconds(time)
    if moment is None:
        raise BadEvent("timestamp: missing" if time is None else "timestamp: no time")
    values: dict[str, Any] = {}
    for name in _IDS:
        if said.get(name) is not None:
            values[name] = _id(said[name], name)
    for name in _TEXTS:
        value = said.get(name)
        if value is not None and not isinstance(value, str):
            raise BadEvent(f"{name}: no text")
        values[name] = value
    for name in _NUMBERS:
        value = said.get(name)
        if value is not None:
            values[name] = _number(value, name)
    return Event(event_id, user, kind, moment, **values)


def _id(value: object, name: str) -> str:
    if value is None:
        raise BadEvent(f"{name}: missing")
    try:
        found = usable_id(value)
    except ValueError:  # a number of thousands of digits
        found = None
    if found is None:
        raise BadEvent(f"{name}: empty, too long or no text")
    return found


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEvent(f"{name}: no number")
    try:
        return float(value)
    except OverflowError:
        raise BadEvent(f"{name}: no number") from None
