"""What a session may carry beside its query, all of it optional: events, duration, device, place, referrer.

What belongs here: the columns of these details and the rules by which a document's are read. What does not: whether the
document is a session at all (sessions), repairing what is missing (users.cleaning).

A value that cannot be used costs a session nothing else: it is left out, and ``dropped`` says what and why.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.moments import as_moments, parse_timestamp
from segmentation_assets.core.values import usable_id, usable_text

EVENT_TYPES = ("search", "impression", "view", "click", "add_to_cart", "purchase")

_MILLISECONDS = pa.timestamp("ms", tz="UTC")

EVENT = pa.struct(
    [
        ("event_type", pa.string()),  # one of EVENT_TYPES
        ("timestamp", _MILLISECONDS),  # null: that of the session
        ("product_id", pa.string()),
        ("category", pa.string()),
        ("price", pa.float64()),  # of one piece; null where it was not recorded, never negative
        ("quantity", pa.float64()),  # null counts as 1
        ("transaction_id", pa.string()),
    ]
)

DETAILS_SCHEMA = pa.schema(
    [
        ("duration", pa.float64()),  # seconds
        ("device", pa.string()),
        ("country", pa.string()),
        ("region", pa.string()),
        ("referrer", pa.string()),
        ("events", pa.list_(EVENT)),
        ("dropped", pa.list_(pa.string())),  # "<field>: <why>" for each value of the document that could not be used
    ]
)
"""A table of sessions has those of these columns in which at least one session has a value. The others are absent."""

EVENT_FIELDS = tuple(part.name for part in EVENT)
_TEXTS = ("device", "country", "region", "referrer")
LARGEST = 1e9
"""Of a price, a quantity, and seconds. A larger one is a fault, and would be beyond what sums and an index can hold."""

FIELDS = ("duration", "start", "end", *_TEXTS)
"""Of a document, beside ``events``. Where there is no duration, start and end say how long it was."""


@dataclass(frozen=True)
class EventLists:
    """The events of several documents, one after the other.

    Attributes:
        listed: (n,) whether the document has a list of events at all.
        owner: (m,) the document of each event, rising.
        fields: of ``EVENT_FIELDS`` to (m,) values as they were found; None where there is none.
        dropped: document to why something in its list is no event.
    """

    listed: NDArray[np.bool_]
    owner: NDArray[np.int64]
    fields: Mapping[str, Sequence[object]]
    dropped: Mapping[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Details of n documents as they were found.

    Attributes:
        values: of ``FIELDS`` to (n,) values; a field that no document has is not in it.
        events: None where no document has any.
    """

    values: Mapping[str, Sequence[object]]
    events: EventLists | None = None

    def __bool__(self) -> bool:
        return bool(self.values) or self.events is not None


def find(documents: Sequence[Mapping[str, object]]) -> Found:
    """The details of documents as read from JSON."""
    values = {name: [document.get(name) for document in documents] for name in FIELDS}
    events = [document.get("events") for document in documents]
    return Found(
        {name: column for name, column in values.items() if any(value is not None for value in column)},
        _flattened(events) if any(value is not None for value in events) else None,
    )


def _flattened(lists: Sequence[object]) -> EventLists:
    owner: list[int] = []
    items: list[Mapping[str, object]] = []
    dropped: dict[int, list[str]] = defaultdict(list)
    listed = np.zeros(len(lists), dtype=np.bool_)
    for row, value in enumerate(lists):
        if value is None:
            continue
        if not isinstance(value, list):
            dropped[row].append("events: no list")
            continue
        listed[row] = True
        for item in value:
            if isinstance(item, Mapping):
                owner.append(row)
                items.append(item)
            else:
                dropped[row].append("events: no object")
    fields = {name: [item.get(name) for item in items] for name in EVENT_FIELDS}
    return EventLists(listed, np.array(owner, np.int64), fields, dropped)


def columns(found: Found, rows: int) -> pa.Table:
    """The details as columns: those of ``DETAILS_SCHEMA`` in which at least one of so many documents has a value."""
    dropped: dict[int, list[str]] = defaultdict(list)
    arrays: dict[str, pa.Array] = {}
    if found.values.keys() & {"duration", "start", "end"}:
        arrays["duration"] = _durations(found.values, rows, dropped)
    for name in _TEXTS:
        if name in found.values:
            arrays[name] = _texts(found.values[name], usable_text, _Drop(dropped, name, "no short text"))
    if found.events is not None:
        arrays["events"] = _events(found.events, dropped)
    if dropped:
        arrays["dropped"] = pa.array([dropped.get(row) for row in range(rows)], pa.list_(pa.string()))
    known = {name: array for name, array in arrays.items() if array.null_count < rows}
    return pa.table(
        [known[name] for name in DETAILS_SCHEMA.names if name in known],
        schema=pa.schema([part for part in DETAILS_SCHEMA if part.name in known]),
    )


def with_details(table: pa.Table, found: Found) -> pa.Table:
    """A table with the details of its rows beside its columns."""
    if not found:
        return table
    more = columns(found, table.num_rows)
    return pa.table([*table.columns, *more.columns], schema=pa.schema([*table.schema, *more.schema]))


def as_documents(found: Found, rows: int) -> list[dict[str, Any]]:
    """The details of each of so many documents as they are stored: what can be used, times as datetimes.

    ``dropped`` is not stored; it is in here, for the account.
    """
    table = columns(found, rows)
    if not table.num_columns:  # a table without columns has no rows either
        return [{} for _ in range(rows)]
    return [
        {
            name: [_without_none(event) for event in value] if name == "events" else value
            for name, value in details.items()
            if value is not None
        }
        for details in table.to_pylist()
    ]


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def in_order(table: pa.Table) -> pa.Table:
    """A table of sessions with its details in the order of ``DETAILS_SCHEMA``, without those that nobody has."""
    there = [name for name in DETAILS_SCHEMA.names if name in table.column_names]
    kept = [name for name in there if table[name].null_count < table.num_rows]
    return table.select([name for name in table.column_names if name not in there] + kept)


# --- one kind of value ------------------------------------------------------------------------------------------------


class _Drop:
    """Notes that a value of a document could not be used."""

    def __init__(
        self, dropped: dict[int, list[str]], name: str, why: str, owner: NDArray[np.int64] | None = None
    ) -> None:
        self._dropped, self._reason, self._owner = dropped, f"{name}: {why}", owner

    def __call__(self, places: Iterable[int]) -> None:
        for place in places:
            self._dropped[place if self._owner is None else int(self._owner[place])].append(self._reason)


def _texts(values: Sequence[object], rule: Callable[[object], str | None], drop: _Drop) -> pa.Array:
    """What a rule makes of each value; null for None, and for what it refuses, which is noted."""
    known: dict[str, str | None] = {}
    made: list[str | None] = []
    for value in values:
        if value is None:
            made.append(None)
        elif value.__class__ is str:  # anything else may be unhashable, or equal to something else, as True is to 1
            text = str(value)
            if text not in known:
                known[text] = rule(text)
            made.append(known[text])
        else:
            made.append(rule(value))
    array = pa.array(made, pa.string())
    if array.null_count:
        drop(place for place, value in enumerate(values) if made[place] is None and not _nothing(value))
    return array


def _numbers(values: Sequence[object], drop: _Drop, *, above_zero: bool = False) -> pa.Array:
    """Float64, not negative and at most ``LARGEST``; null for None, and for anything else, which is noted."""
    try:
        if any(value is True or value is False for value in values):
            raise TypeError  # Arrow would take them for 1 and 0
        array = pa.array(values, pa.float64())
    except (pa.ArrowException, TypeError, OverflowError, ValueError):
        array = pa.array([_number(value) for value in values], pa.float64())
    enough = pc.greater(array, 0) if above_zero else pc.greater_equal(array, 0)
    usable = pc.and_(enough, pc.less_equal(array, LARGEST))  # false for what is not a number
    array = pc.if_else(usable, array, pa.scalar(None, pa.float64()))
    if array.null_count:
        found = array.is_valid().to_numpy(zero_copy_only=False)
        drop(place for place, value in enumerate(values) if not found[place] and not _nothing(value))
    return array


def _nothing(value: object) -> bool:
    """Whether there is no value: tables say so by NaN, in columns of text as well."""
    return value is None or value != value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _times(values: Sequence[object], drop: _Drop) -> pa.Array:
    """Milliseconds in UTC; null for None, and for what is no time, which is noted."""
    array = as_moments(values).cast(_MILLISECONDS, safe=False)
    if not array.null_count:
        return array
    missing = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist()
    odd = [place for place in missing if values[place] is not None]
    if odd:
        found = {place: parse_timestamp(values[place]) for place in odd}
        drop(place for place in odd if found[place] is None)
        made = array.to_pylist()
        for place, moment in found.items():
            made[place] = moment
        array = pa.array(made, pa.timestamp("us", tz="UTC")).cast(_MILLISECONDS, safe=False)
    return array


def _durations(values: Mapping[str, Sequence[object]], rows: int, dropped: dict[int, list[str]]) -> pa.Array:
    """Seconds: the duration, or from start to end where there is none."""
    nothing: Sequence[object] = [None] * rows
    array = _numbers(values.get("duration", nothing), _Drop(dropped, "duration", "no number of seconds"))
    if not values.keys() & {"start", "end"}:
        return array
    start, end = (_times(values.get(name, nothing), _Drop(dropped, name, "no time")) for name in ("start", "end"))
    seconds = pc.divide(pc.subtract(end.cast(pa.int64()), start.cast(pa.int64())).cast(pa.float64()), 1000.0)
    backward = pc.fill_null(pc.less(seconds, 0), False).to_numpy(zero_copy_only=False)
    _Drop(dropped, "end", "before start")(np.flatnonzero(backward).tolist())
    seconds = pc.if_else(pa.array(backward), pa.scalar(None, pa.float64()), seconds)
    return pc.coalesce(array, seconds)


def _events(lists: EventLists, dropped: dict[int, list[str]]) -> pa.Array:
    for row, reasons in lists.dropped.items():
        dropped[row] += reasons

    def drop(name: str, why: str) -> _Drop:
        return _Drop(dropped, f"events.{name}", why, lists.owner)

    kinds = [value if isinstance(value, str) and value in EVENT_TYPES else None for value in lists.fields["event_type"]]
    known = np.array([kind is not None for kind in kinds], dtype=np.bool_)
    drop("event_type", "unknown")(np.flatnonzero(~known).tolist())
    fields = lists.fields
    parts = [
        pa.array(kinds, pa.string()),
        _times(fields["timestamp"], drop("timestamp", "no time")),
        _texts(fields["product_id"], usable_id, drop("product_id", "no id")),
        _texts(fields["category"], usable_text, drop("category", "no short text")),
        _numbers(fields["price"], drop("price", "no amount")),
        _numbers(fields["quantity"], drop("quantity", "no number above 0"), above_zero=True),
        _texts(fields["transaction_id"], usable_id, drop("transaction_id", "no id")),
    ]
    events = pa.StructArray.from_arrays(parts, fields=list(EVENT)).filter(pa.array(known))
    counts = np.bincount(lists.owner[known], minlength=len(lists.listed))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, events, type=pa.list_(EVENT), mask=pa.array(~lists.listed))
