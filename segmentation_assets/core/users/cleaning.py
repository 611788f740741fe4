"""Sessions and their events without what is there twice, with what is missing filled and what is noise marked.

What belongs here: duplicates, missing values of sessions, bots and internal traffic, and the account of all three. What
does not: which documents are sessions (core.sessions), outliers among users' features (features).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.details import DETAILS_SCHEMA
from segmentation_assets.core.numbering import numbered
from segmentation_assets.core.settings import CleaningSettings
from segmentation_assets.core.users.imputation import How, Imputation, impute
from segmentation_assets.errors import SegmentsError

EVENT_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("product_id", pa.string()),
        ("category", pa.string()),
        ("price", pa.float64()),
        ("quantity", pa.float64()),
        ("transaction_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class CleaningAccount:
    """``sessions_read == sessions_used + sum(sessions_set_aside.values())``, always, and so for events.

    Attributes:
        sessions_read: sessions that came in.
        sessions_used: those in ``CleanSessions.sessions``.
        sessions_set_aside: the others, by reason ('duplicate_session').
        events_read: events of all sessions that came in.
        events_used: those in ``CleanSessions.events``.
        events_set_aside: the others, by reason ('of_duplicate_session', 'duplicate_event', 'duplicate_transaction').
        imputations: what was filled in, one entry for each column that is there and has a setting.
        absent: what no session used has a value of: duration, device, country, region, referrer, events.
        noise: users marked, by reason; a user can have several.
    """

    sessions_read: int
    sessions_used: int
    sessions_set_aside: dict[str, int] = field(default_factory=dict)
    events_read: int = 0
    events_used: int = 0
    events_set_aside: dict[str, int] = field(default_factory=dict)
    imputations: list[Imputation] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    noise: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CleanSessions:
    """The sessions that everything about users is made of.

    Attributes:
        sessions: one row a session, sorted by session_id: session_id, user_id, search_query, timestamp, clicks (int64:
            number of ``clicked_product_ids``, or of click events where there are more), those of duration, device,
            country, region and referrer that are there, and for each of those with a setting of how to fill it (other
            than 'none') ``<name>_imputed``: which cells were.
        events: ``EVENT_SCHEMA``, sorted by user_id, timestamp, session_id and place in the session; timestamps never
            null. Empty where no session has events.
        users: user_id, noise (list of text: why the user is marked; empty for nearly all); one row for every user
            of the sessions that came in, sorted by user_id. Nobody is left out.
        account: what happened to what came in.
    """

    sessions: pa.Table
    events: pa.Table
    users: pa.Table
    account: CleaningAccount


BOT_RATE = "bot_rate"
ENDLESS_SESSION = "endless_session"
REPEATED_QUERY = "repeated_query"
INTERNAL_USER = "internal_user"
INTERNAL_REFERRER = "internal_referrer"

_FILLABLE = {column.name: column.type for column in DETAILS_SCHEMA if not pa.types.is_list(column.type)}
_HOST = r"^(?:(?:[a-z][a-z0-9+.\-]*:)?//)?(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*).*$"
_HOUR = 3_600_000  # milliseconds


class ImpossibleImputation(SegmentsError):
    """The settings ask for a column to be filled that is none, or in a way that makes no sense for it."""


def clean(sessions: pa.Table, settings: CleaningSettings) -> CleanSessions:
    """Set aside what is there twice, mark users who are no customers, fill what is missing.

    Sessions. One that repeats another of the same user, at the very same moment, with the same query, is a duplicate
    ('duplicate_session'): a search cannot happen twice at once, but a log can be written twice. Kept is the one with
    more events, of those the one with the smallest session_id; the events of the others are set aside with them
    ('of_duplicate_session').

    Events. In the order of timestamp, session_id and place in the session, the first of a kind is kept. One of the same
    user_id, event_type, timestamp, product_id and transaction_id as another is a 'duplicate_event'; product and
    transaction belong to it because the pieces of one order, the products of one page, or two orders at once are
    recorded at the same moment and are no repetitions. One without a timestamp of its own is none.
    Of what is left, a purchase of the same user_id, transaction_id and product_id as another is a
    'duplicate_transaction': an order that was reported again later.
    Without a product_id, price and quantity say which product it is: two missing ids of the same price and quantity
    count as the same product, and the lines of an order that differ in either as different ones.

    Noise. A user is marked, never removed, for

    - 'bot_rate': more than ``max_sessions_per_hour`` sessions in an hour of the clock (UTC),
    - 'endless_session': a session longer than ``max_duration``, whose duration stays as it was recorded,
    - 'repeated_query': one query typed ``max_repeats`` times or more, and in at least half of the sessions,
    - 'internal_user': named in ``internal_users``,
    - 'internal_referrer': a session whose referrer is one of ``internal_referrers``, or whose referrer's host is, or is
      below it ('wiki.corp.example' is below 'corp.example'); upper and lower case are the same.

    Missing values are filled as ``settings.impute`` says. Means, medians and modes are those of the sessions of users
    who are not marked.

    Args:
        sessions: ``SESSION_SCHEMA`` and any of ``DETAILS_SCHEMA``, in any order; session_id unique; durations and
            prices finite.
        settings: what is noise, and how to fill.

    Raises:
        ImpossibleImputation: ``settings.impute`` names something that is no column of a session, or asks for the mean
            of a text or the like.
    """
    _check(settings.impute)
    table = _in_order(sessions)
    users, user = numbered(table["user_id"])
    read = _Events(table)
    kept = _first_sessions(table, user, read.counts(len(table)))
    events, events_set_aside = _first_events(read, table, users, user, kept)
    used = table if kept.all() else table.filter(pa.array(kept))
    user = user[kept]
    there = [name for name in _FILLABLE if name in used.column_names and used[name].null_count < len(used)]
    marks = _noise(used, users, user, settings)
    normal = ~np.any(list(marks.values()), axis=0)
    how: dict[str, How] = {name: settings.impute[name] for name in there if name in settings.impute}
    columns = used.select(["session_id", "user_id", "search_query", "timestamp"])
    columns = columns.append_column("clicks", pa.array(_clicks(used, events)))
    for name in there:
        columns = columns.append_column(name, used[name])
    filled, imputations = impute(columns, {name: way for name, way in how.items() if way != "none"}, normal[user])
    left = [Imputation(name, "none", None, 0) for name, way in how.items() if way == "none"]
    account = CleaningAccount(
        sessions_read=len(table),
        sessions_used=len(used),
        sessions_set_aside=_counted({"duplicate_session": len(table) - len(used)}),
        events_read=len(read),
        events_used=len(events),
        events_set_aside=_counted(events_set_aside),
        imputations=sorted([*imputations, *left], key=lambda one: there.index(one.column)),
        absent=[name for name in _FILLABLE if name not in there] + (["events"] if len(read) == 0 else []),
        noise=_counted({reason: int(marked.sum()) for reason, marked in marks.items()}),
    )
    return CleanSessions(filled, events, _marked_users(users, marks), account)


def _check(how: Mapping[str, str]) -> None:
    for name, way in how.items():
        if name not in _FILLABLE:
            raise ImpossibleImputation(
                f"cleaning.impute names {name!r}, which is no column of a session that can be filled.",
                f"Name any of {', '.join(_FILLABLE)}.",
            )
        numeric = pa.types.is_floating(_FILLABLE[name])
        possible = ("mean", "median", "none") if numeric else ("mode", "unknown", "none")
        if way not in possible:
            raise ImpossibleImputation(
                f"cleaning.impute asks for the {way} of {name}, which is {'a number' if numeric else 'text'}.",
                f"Write {', '.join(possible[:-1])} or {possible[-1]} for {name}.",
            )


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    """What there is any of."""
    return {reason: count for reason, count in counts.items() if count}


def _in_order(sessions: pa.Table) -> pa.Table:
    """The table sorted by session_id."""
    ids = sessions["session_id"].combine_chunks()
    if len(ids) < 2 or pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py():
        return sessions
    return sessions.take(pc.array_sort_indices(ids))


class _Events:
    """The events of all sessions in one row each, in the order of sessions and of the events in each.

    Args:
        table: sessions; without a column of events there are none.
    """

    def __init__(self, table: pa.Table) -> None:
        lists = table["events"].combine_chunks() if "events" in table.column_names else None
        self.session: NDArray[np.int64] = np.empty(0, np.int64)
        """(n,) row of the session of each."""
        if lists is None or pa.types.is_null(lists.type):
            self.fields = pa.table(
                {name: pa.nulls(0, EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names[2:]}
            )
            return
        self.session = np.repeat(np.arange(len(lists)), pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
        flat = pc.list_flatten(lists)
        self.fields = pa.table({name: pc.struct_field(flat, name) for name in EVENT_SCHEMA.names[2:]})

    def __len__(self) -> int:
        return len(self.session)

    def counts(self, sessions: int) -> NDArray[np.int64]:
        """(n_sessions,) events of each session."""
        return np.bincount(self.session, minlength=sessions)


def _codes(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(n,) a number for each different value, null for none: far quicker to compare than a text."""
    chunks = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return pc.dictionary_encode(chunks.combine_chunks()).indices


def milliseconds(moments: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """(n,) milliseconds since 1970 of timestamps in them, none of which is null."""
    return np.asarray(moments.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _is_first(keys: Sequence[pa.Array | NDArray[np.int64] | NDArray[np.int32]]) -> NDArray[np.bool_]:
    """(n,) whether no row before has the same keys; two missing keys are the same."""
    names = [f"key_{n}" for n in range(len(keys))]
    result = np.zeros(len(keys[0]), dtype=np.bool_)
    table = pa.table([*keys, np.arange(len(result))], names=[*names, "row"])
    result[table.group_by(names).aggregate([("row", "min")])["row_min"].to_numpy()] = True
    return result


def _first_sessions(table: pa.Table, user: NDArray[np.int32], events: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_sessions,) which sessions repeat none that goes before: the one with more events, then the smaller id."""
    order = np.argsort(-events, kind="stable")
    query = _codes(table["search_query"]).take(pa.array(order))
    kept = np.empty(len(table), dtype=np.bool_)
    kept[order] = _is_first([user[order], query, milliseconds(table["timestamp"])[order]])
    return kept


def _first_events(
    read: _Events, table: pa.Table, users: pa.Array, user: NDArray[np.int32], kept: NDArray[np.bool_]
) -> tuple[pa.Table, dict[str, int]]:
    """``EVENT_SCHEMA`` without duplicates, and how many are left out by reason."""
    moments = pc.coalesce(read.fields["timestamp"], table["timestamp"].take(pa.array(read.session))).combine_chunks()
    when = milliseconds(moments)
    owner = user[read.session]
    unnamed = read.fields["product_id"].is_null()
    product = [
        _codes(read.fields["product_id"]),
        *(_codes(pc.if_else(unnamed, read.fields[name], None)) for name in ("price", "quantity")),
    ]
    transaction = _codes(read.fields["transaction_id"])
    in_order = np.flatnonzero(kept[read.session])
    in_order = in_order[np.argsort(when[in_order], kind="stable")]

    rows = pa.array(in_order)
    kind = _codes(read.fields["event_type"])
    # Without a time of its own an event repeats nothing: that of its session is the same for all of them.
    alone = np.where(_truth(read.fields["timestamp"].is_valid()), 0, 1 + np.arange(len(read)))
    keys = [
        owner[in_order],
        kind.take(rows),
        when[in_order],
        alone[in_order],
        transaction.take(rows),
        *(part.take(rows) for part in product),
    ]
    once = in_order[_is_first(keys)]
    rows = pa.array(once)
    ordered = pc.and_(pc.equal(read.fields["event_type"].take(rows), "purchase"), transaction.take(rows).is_valid())
    purchases = np.flatnonzero(_truth(ordered))
    rows = pa.array(once[purchases])
    again = purchases[
        ~_is_first([owner[once[purchases]], transaction.take(rows), *(part.take(rows) for part in product)])
    ]
    left = np.delete(once, again)
    left = left[np.argsort(owner[left], kind="stable")]

    rows = pa.array(left)
    columns = {
        "session_id": table["session_id"].take(pa.array(read.session[left])),
        "user_id": users.take(pa.array(owner[left])),
        **{name: column.take(rows) for name, column in zip(read.fields.column_names, read.fields.columns, strict=True)},
        "timestamp": moments.take(rows),
    }
    return pa.table({name: columns[name] for name in EVENT_SCHEMA.names}, schema=EVENT_SCHEMA), {
        "of_duplicate_session": len(read) - len(in_order),
        "duplicate_event": len(in_order) - len(once),
        "duplicate_transaction": len(again),
    }


def _truth(truth: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(truth, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _clicks(sessions: pa.Table, events: pa.Table) -> NDArray[np.int64]:
    """(n_sessions,) clicked products, or click events where there are more."""
    products = pc.fill_null(pc.list_value_length(sessions["clicked_product_ids"]), 0).to_numpy()
    clicked = events["session_id"].filter(pc.equal(events["event_type"], "click")).combine_chunks()
    row = pc.index_in(clicked, sessions["session_id"].combine_chunks()).to_numpy()
    return np.asarray(np.maximum(products, np.bincount(row, minlength=len(sessions))), dtype=np.int64)


def _noise(
    sessions: pa.Table, users: pa.Array, user: NDArray[np.int32], settings: CleaningSettings
) -> dict[str, NDArray[np.bool_]]:
    """Reason to (n_users,) whether it holds; see ``clean``."""
    nowhere = np.zeros(len(sessions), dtype=np.bool_)
    endless = internal = nowhere
    if "duration" in sessions.column_names:
        endless = _truth(pc.greater(sessions["duration"], settings.max_duration))
    if "referrer" in sessions.column_names and settings.internal_referrers:
        internal = _from_inside(sessions["referrer"], settings.internal_referrers)
    repeated = _most_of_one(user, _codes(sessions["search_query"]).to_numpy(), len(users))
    of_sessions = np.bincount(user, minlength=len(users))
    named = pa.array(sorted(settings.internal_users), pa.string())
    return {
        BOT_RATE: _most_of_one(user, milliseconds(sessions["timestamp"]) // _HOUR, len(users))
        > settings.max_sessions_per_hour,
        ENDLESS_SESSION: np.bincount(user[endless], minlength=len(users)) > 0,
        REPEATED_QUERY: (repeated >= settings.max_repeats) & (2 * repeated >= of_sessions),
        INTERNAL_USER: _truth(pc.is_in(users, named)),
        INTERNAL_REFERRER: np.bincount(user[internal], minlength=len(users)) > 0,
    }


def _most_of_one(user: NDArray[np.int32], values: NDArray[np.int64], users: int) -> NDArray[np.int64]:
    """(n_users,) how many of a user's sessions have the value that most of them have."""
    result = np.zeros(users, dtype=np.int64)
    values = values - values.min(initial=0)
    span = int(values.max(initial=0)) + 1
    pairs, counts = np.unique(user.astype(np.int64) * span + values, return_counts=True)
    np.maximum.at(result, pairs // span, counts)
    return result


def _from_inside(referrers: pa.ChunkedArray, internal: frozenset[str]) -> NDArray[np.bool_]:
    """(n,) whether each is one of the internal ones, or its host is one of them or below one."""
    encoded = pc.dictionary_encode(referrers.combine_chunks())
    texts = pc.utf8_lower(encoded.dictionary)
    hosts = pc.utf8_rtrim(pc.replace_substring_regex(texts, _HOST, r"\1"), ".")
    found = np.zeros(len(texts), dtype=np.bool_)
    for name in sorted(one.lower() for one in internal):
        found |= _truth(pc.equal(texts, name)) | _truth(pc.equal(hosts, name)) | _truth(pc.ends_with(hosts, "." + name))
    return _truth(pa.array(found).take(encoded.indices))


def _marked_users(users: pa.Array, marks: Mapping[str, NDArray[np.bool_]]) -> pa.Table:
    """user_id and noise, the reasons in the order of ``marks``."""
    table = np.column_stack(list(marks.values()))
    offsets = np.concatenate([[0], np.cumsum(table.sum(axis=1))]).astype(np.int32)
    reasons = pa.array(list(marks), pa.string()).take(pa.array(np.nonzero(table)[1]))
    return pa.table({"user_id": users, "noise": pa.ListArray.from_arrays(pa.array(offsets), reasons)})
