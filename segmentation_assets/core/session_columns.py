"""Many documents at once, as columns: which of them are usable sessions exactly as they stand.

What belongs here: the tests of ``sessions.check_document``, done on whole columns. What does not: a rule of its own. A
row that is not plainly in order is left to ``check_document``, which is slow and decides; so both ways give the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.sessions import MAX_ID_LENGTH, SESSION_SCHEMA, usable_id, usable_query

REMEMBERED = 100_000
"""Different queries, and user ids, whose verdict is kept at hand."""

_ISO = r"\A(?:19[7-9]\d|2\d{3})-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?(?:Z|\+00:00)?\z"
_ZONE = r"(?:Z|\+00:00)\z"
_PRINTABLE = r"\A[!-~]+\z"


@dataclass(frozen=True)
class Columns:
    """Fields of documents as they were found, one list a field; the first is the id that the session is to have.

    Attributes:
        session_id: text, or anything else where the row cannot be taken.
        user_id: text or whole numbers; None where there is none.
        search_query: text, or None.
        clicked_product_ids: lists of text, or None.
        timestamp: text, whole numbers (milliseconds of Unix time), or None.
    """

    session_id: Sequence[object]
    user_id: Sequence[object]
    search_query: Sequence[object]
    clicked_product_ids: Sequence[object]
    timestamp: Sequence[object]


class Remembered(dict[object, str | None]):
    """The answers of a function, so that what occurs often is asked once."""

    def __init__(self, function: Callable[[object], str | None]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, value: object) -> str | None:
        if len(self) >= REMEMBERED:
            self.clear()
        answer = self[value] = self._function(value)
        return answer


class ColumnReader:
    """Takes what is plainly a session out of columns; one for each thread.

    Args:
        latest: aware datetime; a later timestamp is in the future.
    """

    def __init__(self, latest: datetime) -> None:
        self._latest = pa.scalar(latest, pa.timestamp("us", tz="UTC"))
        self._users = Remembered(usable_id)
        self._queries = Remembered(usable_query)

    def take(self, columns: Columns) -> tuple[pa.Table, NDArray[np.bool_]]:
        """The sessions among the rows, in their order, and which rows (n,) they are.

        The others may be sessions as well, after some tidying, or not: ``check_document`` says.
        """
        n = len(columns.session_id)
        try:
            session_ids = pa.array(columns.session_id, pa.string())
            clicks = pa.array(columns.clicked_product_ids, pa.list_(pa.string()))
            users = pa.array([self._users[value] for value in columns.user_id], pa.string())
            queries = pa.array([self._queries[value] for value in columns.search_query], pa.string())
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # something else than text where text belongs
            return SESSION_SCHEMA.empty_table(), np.zeros(n, dtype=np.bool_)
        moments = _moments(columns.timestamp)
        taken = (
            _settled_ids(session_ids)
            & _all_settled(clicks)
            & _mask(users.is_valid())
            & _mask(queries.is_valid())
            & _mask(pc.less_equal(moments, self._latest))
        )
        table = pa.table(
            [
                session_ids,
                users,
                queries,
                pc.fill_null(clicks, []),
                moments.cast(pa.timestamp("ms", "UTC"), safe=False),
            ],
            schema=SESSION_SCHEMA,
        )
        return table if taken.all() else table.filter(pa.array(taken)), taken


def _moments(values: Sequence[object]) -> pa.Array:
    """Microseconds in UTC; null for what is not plainly a time."""
    of_type = pa.timestamp("us", tz="UTC")
    try:
        texts = pa.array(values, pa.string())
    except (pa.ArrowException, TypeError):
        return _unix_times(values)
    iso = pc.fill_null(pc.match_substring_regex(texts, _ISO), False)
    texts = pc.if_else(iso, texts, pa.scalar(None, pa.string()))
    try:
        return pc.replace_substring_regex(texts, _ZONE, "").cast(pa.timestamp("us")).cast(of_type)
    except pa.ArrowException:  # looks like a time and is none: the 31st of April
        return pa.nulls(len(texts), of_type)


def _unix_times(values: Sequence[object]) -> pa.Array:
    try:
        millis = pa.array(values, pa.int64())
        # Before 1970 and after 2999 the plain way decides, which knows what a datetime can hold.
        inside = pc.and_(pc.greater_equal(millis, 0), pc.less(millis, 32_503_680_000_000))
        millis = pc.if_else(pc.fill_null(inside, False), millis, pa.scalar(None, pa.int64()))
        return millis.cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    except (pa.ArrowException, TypeError, OverflowError):
        return pa.nulls(len(values), pa.timestamp("us", tz="UTC"))


def _settled_ids(ids: pa.Array) -> NDArray[np.bool_]:
    """(n,) whether each is an id as it stands: printable ASCII without a space, and not too long."""
    length = pc.binary_length(ids)
    fits = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_ID_LENGTH))
    data = ids.buffers()[2]
    # One look at all the bytes is twenty times cheaper than one look at each id, and nearly always enough.
    if data is not None and (np.frombuffer(data, np.uint8) - np.uint8(33) > 93).any():
        fits = pc.and_(fits, pc.match_substring_regex(ids, _PRINTABLE))
    return _mask(fits)


def _all_settled(lists: pa.Array) -> NDArray[np.bool_]:
    """(n,) whether every id in each list is one as it stands; yes for no list at all."""
    settled = _settled_ids(lists.values)
    if settled.all():
        return np.ones(len(lists), dtype=np.bool_)
    wrong = np.concatenate([[0], np.cumsum(~settled)])
    offsets = lists.offsets.to_numpy()
    return np.asarray(wrong[offsets[1:]] == wrong[offsets[:-1]])


def _mask(truth: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(truth, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
