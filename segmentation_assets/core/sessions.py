"""What a session is, and which documents can be used as one.

What belongs here: the columns of a session, the reasons for setting a document aside, and the builder that turns
documents into columns. What does not: where documents come from (io/) and what is made of them (vectorize, cluster,
label).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core import details
from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.numbering import numbered
from segmentation_assets.core.values import encodable, usable_id
from segmentation_assets.errors import SegmentsError

MAX_QUERY_LENGTH = 512
"""Characters. A longer 'query' is a pasted page or an attack, not a search."""

CLOCK_SKEW = timedelta(minutes=10)
"""How far ahead of this machine's clock a timestamp may be before it counts as being in the future."""

SESSION_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("search_query", pa.string()),
        ("clicked_product_ids", pa.list_(pa.string())),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
    ]
)


MAX_COLUMN_BYTES = 2_000_000_000
"""Of one column of all sessions: Arrow counts the bytes of texts with 31 bits. About 50 million sessions."""


class TooMuchAtOnceError(SegmentsError):
    """There are more sessions than can be held in one table."""


class Reason(StrEnum):
    """Why a document was set aside."""

    NOT_AN_OBJECT = "not_an_object"
    NO_USER = "no_user"
    EMPTY_QUERY = "empty_query"
    QUERY_NOT_TEXT = "query_not_text"
    QUERY_TOO_LONG = "query_too_long"
    BAD_TIMESTAMP = "bad_timestamp"
    FUTURE_TIMESTAMP = "future_timestamp"
    BAD_CLICKS = "bad_clicks"
    BAD_ID = "bad_id"


@dataclass(frozen=True)
class Intake:
    """The account of what was read: ``read == kept + sum(set_aside.values())``, always.

    Attributes:
        read: documents read.
        kept: documents that became sessions.
        set_aside: documents that could not be used, counted by reason.
        examples: up to a few ids a reason, to look them up; ids only, no content.
    """

    read: int
    kept: int
    set_aside: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def set_aside_total(self) -> int:
        """Documents set aside, over all reasons."""
        return sum(self.set_aside.values())

    def __add__(self, other: "Intake") -> "Intake":
        examples = {
            reason: (self.examples.get(reason, []) + other.examples.get(reason, []))[:EXAMPLES_PER_REASON]
            for reason in self.examples | other.examples
        }
        return Intake(
            self.read + other.read,
            self.kept + other.kept,
            dict(Counter(self.set_aside) + Counter(other.set_aside)),
            examples,
        )


EXAMPLES_PER_REASON = 5

RULES = 2
"""Version of the rules of ``check_document`` and ``details``. Raise it with them: what others judged is read again."""


@dataclass(frozen=True)
class Origin:
    """Where sessions were read and how far, so that the next read may begin there.

    Attributes:
        uuid: of the index; another one holds other documents, whatever its name.
        seq_no: highest sequence number of a document that was read. Every later write to the index has a higher one.
        window: of time, as the query that was asked; empty for none.
        intake: the account of the index by itself, without the rejects of imports.
        set_aside: id of every document that was set aside, with the reason.
        rules: ``RULES`` by which they were judged.
    """

    uuid: str
    seq_no: int
    window: str
    intake: Intake
    set_aside: dict[str, str] = field(default_factory=dict)
    rules: int = RULES


@dataclass(frozen=True)
class Sessions:
    """Sessions as columns, with the account of how they came in.

    Attributes:
        table: ``SESSION_SCHEMA``, one row a session, sorted by session_id; and of ``details.DETAILS_SCHEMA`` what at
            least one session has.
        intake: what was read, kept and set aside.
        origin: where they were read; None where the next read has to begin again.
        fetched: documents fetched for it, fewer than were read where the others were known from before.
        reading: what was fetched, and why where it was everything; for people.
    """

    table: pa.Table
    intake: Intake
    origin: Origin | None = None
    fetched: int = 0
    reading: str = ""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def user_numbers(self) -> NDArray[np.int32]:
        """(n_sessions,) the user of each session as a number in the order of the sorted user ids."""
        return numbered(self.table["user_id"])[1]


def check_document(document: object, now: datetime) -> Reason | tuple[str, str, list[str], datetime]:
    """Decide whether a document is a usable session.

    Args:
        document: the document as read from JSON.
        now: aware datetime; a timestamp after ``now + CLOCK_SKEW`` is in the future.

    Returns:
        The reason it is set aside, or (user_id, search_query, clicked_product_ids, timestamp). The query has its white
        space folded; a whole number as user or product id is taken as its digits; no clicks at all is an empty list.
    """
    if not isinstance(document, Mapping):
        return Reason.NOT_AN_OBJECT
    user = usable_id(document.get("user_id"))
    if user is None:
        return Reason.NO_USER
    query = _check_query(document.get("search_query"))
    if isinstance(query, Reason):
        return query
    timestamp = parse_timestamp(document.get("timestamp"))
    if timestamp is None:
        return Reason.BAD_TIMESTAMP
    if timestamp > now + CLOCK_SKEW:
        return Reason.FUTURE_TIMESTAMP
    clicks = _as_ids(document.get("clicked_product_ids"))
    if clicks is None:
        return Reason.BAD_CLICKS
    return user, query, clicks, timestamp


def _check_query(query: object) -> Reason | str:
    if query is None:
        return Reason.EMPTY_QUERY
    if not isinstance(query, str):
        return Reason.QUERY_NOT_TEXT
    if len(query) > MAX_QUERY_LENGTH:
        return Reason.QUERY_TOO_LONG
    query = " ".join(query.split())
    if not query:
        return Reason.EMPTY_QUERY
    return query if encodable(query) else Reason.QUERY_NOT_TEXT


def usable_query(value: object) -> str | None:
    """Return the value as a query (white space folded), or None when it cannot be one."""
    query = _check_query(value)
    return None if isinstance(query, Reason) else query


def _as_ids(value: object) -> list[str] | None:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    ids = [usable_id(item) for item in values]
    return None if None in ids else [i for i in ids if i is not None]


class SessionBuilder:
    """Turns documents into columns, one at a time, keeping the account.

    Args:
        now: aware datetime, see ``check_document``.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._columns: dict[str, list[Any]] = {name: [] for name in SESSION_SCHEMA.names}
        self._set_aside: Counter[str] = Counter()
        self._document_ids: list[str | None] = []
        self._documents: list[Any] = []  # for their details
        self._settled: list[pa.Table] = []
        self._settled_ids: list[pa.Array | None] = []
        self._examples: dict[str, list[str]] = {}
        self._read = 0

    def add(self, session_id: object, document: object, document_id: str | None = None) -> Reason | None:
        """Keep the document as a session, or set it aside and return why.

        Args:
            session_id: the id the session is to have.
            document: see ``check_document``.
            document_id: unique name of the document; becomes the session's id when two documents claim one session_id.
        """
        self._read += 1
        key = usable_id(session_id)
        checked = check_document(document, self._now) if key is not None else Reason.BAD_ID
        if isinstance(checked, Reason):
            self._set_aside[checked.value] += 1
            examples = self._examples.setdefault(checked.value, [])
            if len(examples) < EXAMPLES_PER_REASON:
                # What is no text must not stop the account from being stored or shown.
                examples.append(str(session_id)[:64].encode(errors="backslashreplace").decode())
            return checked
        for column, value in zip(self._columns.values(), (key, *checked), strict=True):
            column.append(value)
        self._document_ids.append(document_id)
        self._documents.append(document)
        return None

    def add_settled(self, rows: pa.Table, document_ids: pa.Array | None = None) -> None:
        """Keep rows that are sessions as they stand (see ``session_columns``).

        Args:
            rows: ``SESSION_SCHEMA``, and their details (``details.DETAILS_SCHEMA``).
            document_ids: (n_rows,) text, see ``add``; None where they are the sessions' ids.
        """
        self._read += rows.num_rows
        self._settled.append(rows)
        self._settled_ids.append(document_ids)

    def finish(self) -> Sessions:
        """Return the sessions, sorted by id, so that the order they arrived in changes nothing downstream."""
        return merge([self])

    @property
    def _kept(self) -> int:
        return sum(len(rows) for rows in self._settled) + len(self._document_ids)

    @property
    def _table(self) -> pa.Table:
        plain = pa.table(self._columns, schema=SESSION_SCHEMA)
        plain = details.with_details(plain, details.find(self._documents))
        return pa.concat_tables([*self._settled, plain], promote_options="default")

    def _hand_over(self) -> None:
        """Let go of the rows; nothing can be added or asked any more."""
        del self._settled, self._settled_ids, self._columns, self._document_ids, self._documents

    @property
    def _own_ids(self) -> list[str | None]:
        settled = zip(self._settled, self._settled_ids, strict=True)
        own = [(rows["session_id"] if ids is None else ids).to_pylist() for rows, ids in settled]
        return [*chain.from_iterable(own), *self._document_ids]


def merge(builders: Sequence[SessionBuilder]) -> Sessions:
    """Return what several builders (one a slice of the index) collected as one, sorted by id, every id once.

    The builders are used up. Documents that claim the same session_id are all kept, each under its document_id: none is
    dropped, and the choice does not depend on the order they arrived in.
    """
    intake = sum((Intake(b._read, b._kept, dict(b._set_aside), b._examples) for b in builders), Intake(0, 0))
    whole = details.in_order(pa.concat_tables([b._table for b in builders], promote_options="default"))
    schema = whole.schema
    size = {name: _text_bytes(whole[name]) for name in whole.column_names}
    largest = max(size, key=size.__getitem__)
    if size[largest] > MAX_COLUMN_BYTES:
        raise TooMuchAtOnceError(
            f"{whole.num_rows:,} sessions hold {size[largest] / 1e9:.1f} GB in {largest} alone; "
            f"{MAX_COLUMN_BYTES / 1e9:.1f} GB is the most that can be worked on at once.",
            "Read a part of them: set sessions.start or sessions.end.",
        )
    ids = _one(whole["session_id"])
    order = pc.array_sort_indices(ids)
    in_order = ids.take(order)
    if pc.any(pc.equal(in_order.slice(1), in_order.slice(0, max(len(ids) - 1, 0)))).as_py():
        own = [document_id for b in builders for document_id in b._own_ids]
        ids = pa.array(_unique(ids.to_pylist(), own), pa.string())
        order = pc.array_sort_indices(ids)
        in_order = ids.take(order)
    del ids
    # Column by column, and what it was made of is let go: never two copies of everything.
    columns = {name: whole[name] for name in schema.names[1:]}
    del whole
    for builder in builders:
        builder._hand_over()
    ordered = [in_order]
    for name in schema.names[1:]:
        column = _one(columns.pop(name))
        ordered.append(column.take(order))
        del column
    return Sessions(pa.table(ordered, schema=schema), intake)


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Of all texts that will lie in one piece: a column's, or of a list's parts the largest's."""
    if pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type):
        parts = [[part.nbytes for part in chunk.flatten().flatten()] for chunk in column.chunks]
        return max((sum(part) for part in zip(*parts, strict=True)), default=0)
    return int(column.nbytes)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _unique(ids: list[str], document_ids: list[str | None]) -> list[str]:
    """Replace the ids that occur more than once by the document's own, until every id occurs once."""
    ids = list(ids)
    while True:
        counts = Counter(ids)
        clashes = [
            (row, own)
            for row, (key, own) in enumerate(zip(ids, document_ids, strict=True))
            if counts[key] > 1 and own is not None and own != key
        ]
        if not clashes:  # every id once, or nothing known that could tell the rest apart
            return ids
        for row, own in clashes:
            ids[row] = own
