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

from segmentation_assets.core.details import Found, with_details
from segmentation_assets.core.moments import as_moments, text_bytes
from segmentation_assets.core.sessions import MAX_QUERY_LENGTH, SESSION_SCHEMA, usable_query
from segmentation_assets.core.values import MAX_ID_LENGTH, usable_id

REMEMBERED = 100_000
"""Different queries, and user ids, whose verdict is kept at hand."""

_NO_DETAILS = Found({})


@dataclass(frozen=True)
class Columns:
    """Fields of documents as they were found, one list a field; the first is the id that the session is to have.

    Attributes:
        session_id: text, or anything else where the row cannot be taken.
        user_id: text or whole numbers; None where there is none.
        search_query: text, or None.
        clicked_product_ids: lists of text, or None.
        timestamp: text, whole numbers (milliseconds of Unix time), or None.
        details: what the documents carry beside these.
    """

    session_id: Sequence[object]
    user_id: Sequence[object]
    search_query: Sequence[object]
    clicked_product_ids: Sequence[object]
    timestamp: Sequence[object]
    details: Found = _NO_DETAILS


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
            users = _tidied(columns.user_id, _settled_ids, self._users)
            queries = _tidied(columns.search_query, _settled_queries, self._queries)
            moments = as_moments(columns.timestamp)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # something else than text where text belongs
            return SESSION_SCHEMA.empty_table(), np.zeros(n, dtype=np.bool_)
        taken = (
            _settled_ids(session_ids)
            & _all_settled(clicks)
            & _mask(users.is_valid())
            & _mask(queries.is_valid())
            & _mask(pc.less_equal(moments, self._latest))
        )
        millis = moments.cast(pa.timestamp("ms", tz="UTC"), safe=False)
        table = pa.table([session_ids, users, queries, pc.fill_null(clicks, []), millis], schema=SESSION_SCHEMA)
        table = with_details(table, columns.details)
        return table if taken.all() else table.filter(pa.array(taken)), taken


def _tidied(values: Sequence[object], settled: Callable[[pa.Array], NDArray[np.bool_]], tidy: Remembered) -> pa.Array:
    """The values as text; null for what cannot be one. Only what is not settled is asked about one by one."""
    try:
        texts = pa.array(values, pa.string())
    except (pa.ArrowException, TypeError):  # numbers, here and there
        return pa.array([tidy[value] for value in values], pa.string())
    odd = ~settled(texts)
    if odd.any():
        found = [tidy[value] for value in texts.filter(pa.array(odd)).to_pylist()]
        texts = pc.replace_with_mask(texts, pa.array(odd), pa.array(found, pa.string()))
    return texts


def _settled_ids(ids: pa.Array) -> NDArray[np.bool_]:
    """(n,) whether each is an id as it stands: printable ASCII without a space, and not too long."""
    data, offsets = text_bytes(ids)
    return _holds_none(_outside(data, 0x21), offsets) & _has_length(offsets, MAX_ID_LENGTH) & _mask(ids.is_valid())


def _settled_queries(queries: pa.Array) -> NDArray[np.bool_]:
    """(n,) whether each is a query as it stands: printable ASCII, one space at a time and none at the ends."""
    data, offsets = text_bytes(queries)
    odd = _outside(data, 0x20)
    space = data == 0x20
    odd[1:] |= space[1:] & space[:-1]  # the end of one and the beginning of the next row: looked at once more, no harm
    fits = _has_length(offsets, MAX_QUERY_LENGTH)
    if len(data):
        first, last = np.minimum(offsets[:-1], len(data) - 1), np.maximum(offsets[1:] - 1, 0)
        fits &= ~space[first] & ~space[last]
    return _holds_none(odd, offsets) & fits & _mask(queries.is_valid())


def _all_settled(lists: pa.Array) -> NDArray[np.bool_]:
    """(n,) whether every id in each list is one as it stands; yes for no list at all."""
    settled = _settled_ids(lists.values)
    if settled.all():
        return np.ones(len(lists), dtype=np.bool_)
    return _holds_none(~settled, lists.offsets.to_numpy())


def _outside(data: NDArray[np.uint8], first: int) -> NDArray[np.bool_]:
    """(m,) which bytes are not between the given one and the tilde."""
    return data - np.uint8(first) > 0x7E - first


def _holds_none(marks: NDArray[np.bool_], offsets: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(n,) which rows have no mark between their offsets."""
    if not marks.any():
        return np.ones(len(offsets) - 1, dtype=np.bool_)
    before = np.concatenate([[0], np.cumsum(marks)])
    return np.asarray(before[offsets[1:]] == before[offsets[:-1]])


def _has_length(offsets: NDArray[np.int32], most: int) -> NDArray[np.bool_]:
    length = np.diff(offsets)
    return (length > 0) & (length <= most)


def _mask(truth: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(truth, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
