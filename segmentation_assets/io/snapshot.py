"""One consistent snapshot of documents that are sessions, and the way from its answers' bytes to columns.

What belongs here: the point in time, its slices and pages, decoding. What does not: which documents are asked for
(session_reader), what makes one usable (core.sessions, core.session_columns), writing (session_store).

An answer is decoded into typed records, not into dictionaries, and its columns are judged as columns; a page that does
not fit the types (a number for a query, a list of lists for clicks) is read the plain way, document by document. So
both ways must give the same, which a property test holds them to.
"""

import copy
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from elastic_transport import SerializerCollection
from elasticsearch import ApiError, BadRequestError, Elasticsearch

from segmentation_assets.core.details import EVENT_FIELDS, FIELDS, EventLists, Found
from segmentation_assets.core.session_columns import ColumnReader, Columns
from segmentation_assets.core.sessions import (
    CLOCK_SKEW,
    SESSION_SCHEMA,
    Intake,
    SessionBuilder,
    Sessions,
    merge,
)
from segmentation_assets.core.values import usable_id
from segmentation_assets.io.elasticsearch import NEWEST_WRITE, IndexMissing, newest_write
from segmentation_assets.io.point_in_time import KEEP_ALIVE, ShortRead, close_point_in_time, lost, open_point_in_time
from segmentation_assets.io.session_store import Progress

SET_ASIDE_KNOWN = 10_000
"""Ids of documents set aside that are kept, to continue a read. Where there are more, the next read begins again."""


# --- an answer's bytes ------------------------------------------------------------------------------------------------


class _Event(msgspec.Struct, gc=False):
    event_type: str | None = None
    timestamp: str | int | None = None
    product_id: str | int | None = None
    category: str | None = None
    price: float | None = None
    quantity: float | None = None
    transaction_id: str | int | None = None


class _Source(msgspec.Struct, gc=False):
    """The fields of a session in the types that they nearly always have."""

    session_id: str | int | None = None
    user_id: str | int | None = None
    search_query: str | None = None
    clicked_product_ids: list[str] | None = None
    timestamp: str | int | None = None
    duration: float | None = None
    start: str | int | None = None
    end: str | int | None = None
    device: str | None = None
    country: str | None = None
    region: str | None = None
    referrer: str | None = None
    events: list[_Event] | None = None


class _Hit(msgspec.Struct, gc=False, rename={"id": "_id", "index": "_index", "source": "_source"}):
    id: str
    index: str
    sort: list[int]
    source: _Source


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Page(msgspec.Struct, rename={"shards": "_shards"}):
    hits: _Hits
    pit_id: str
    timed_out: bool
    shards: dict[str, Any]


_PAGE = msgspec.json.Decoder(_Page)


class _Undecoded(SerializerCollection):
    """Leaves an answer with hits as the bytes it came in; anything else, errors above all, is decoded as ever."""

    def __init__(self, usual: SerializerCollection) -> None:
        self._usual = usual

    def dumps(self, data: Any, mimetype: str | None = None) -> bytes:
        return self._usual.dumps(data, mimetype)

    def loads(self, data: bytes, mimetype: str | None = None) -> Any:
        return data if b'"hits":[' in data else self._usual.loads(data, mimetype)

    def get_serializer(self, mimetype: str | None) -> Any:
        return self._usual.get_serializer(mimetype)


def undecoded(client: Elasticsearch) -> Elasticsearch:
    """The same client on the same connections, whose answers with hits are bytes."""
    transport = copy.copy(client.transport)
    transport.serializers = _Undecoded(transport.serializers)
    raw = client.options()
    raw._transport = transport
    return raw


# --- the snapshot -----------------------------------------------------------------------------------------------------


@dataclass
class Fetched:
    """What was read of a snapshot.

    Attributes:
        ids: of all documents, where they were asked for.
        set_aside: ids of those set aside, with the reason; of many only some (``SET_ASIDE_KNOWN``).
        own_ids: whether every session has the id of its document.
        sessions: the sessions among them.
    """

    ids: list[str] | None = None
    set_aside: dict[str, str] = field(default_factory=dict)
    own_ids: bool = True
    sessions: Sessions = field(default_factory=lambda: Sessions(SESSION_SCHEMA.empty_table(), Intake(0, 0)))


@dataclass(frozen=True)
class How:
    """How documents are read; see ``session_reader.read_sessions``."""

    now: datetime
    page_size: int
    slices: int
    on_progress: Progress | None


class Snapshot:
    """A point in time of an index, alias or pattern, closed on the way out.

    Attributes:
        uuid: of the index, where the numbers of its writes tell what is new in it; else None.
        untraceable: why they do not; empty where they do.
    """

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._client = client
        self._index = index
        self._ids: set[str] = set()
        self._stop = threading.Event()
        self.uuid: str | None = None
        self.untraceable = ""

    def __enter__(self) -> "Snapshot":
        found = self._client.indices.get_settings(index=self._index, name="index.uuid,index.number_of_shards")
        if not found:
            raise IndexMissing(f"There is no index or alias '{self._index}'.", "Check the name.")
        self._several = len(found) > 1
        self.untraceable = self._look(found.body)
        self._id = open_point_in_time(self._client, self._index)
        self._ids.add(self._id)
        return self

    def __exit__(self, *_: object) -> None:
        for pit in self._ids:
            close_point_in_time(self._client, pit)

    def _look(self, found: Mapping[str, Any]) -> str:
        """Take the identity of the index; gives why its sequence numbers do not tell what is new."""
        if len(found) != 1:
            return "there are several indices"
        ((name, described),) = found.items()
        settings = described["settings"]["index"]
        if int(settings["number_of_shards"]) != 1:
            return "the index has several shards"
        if name != self._index:
            try:
                alias = self._client.indices.get_alias(index=name, name=self._index)[name]["aliases"][self._index]
            except (ApiError, KeyError):
                return "the name is a pattern"
            if "filter" in alias:  # which may change, and the documents would not
                return "the alias filters"
        self.uuid = str(settings["uuid"])
        return ""

    def count(self, query: dict[str, Any] | None) -> int:
        """Documents that a query finds."""
        answer = self._checked(dict(self._ask(self._client, self._id, query, size=0, track_total_hits=True)))
        return int(answer["hits"]["total"]["value"])

    def newest_write(self, query: dict[str, Any] | None) -> int | None:
        """The highest sequence number among the documents that a query finds; None where there is none."""
        try:
            answer = self._ask(self._client, self._id, query, **NEWEST_WRITE)
        except BadRequestError:  # an index without them
            return None
        return newest_write(self._checked(dict(answer)))

    def fetch(self, query: dict[str, Any] | None, total: int, how: How, *, with_ids: bool = False) -> Fetched:
        """Read the documents that a query finds, of which there are ``total``."""
        fetched = Fetched(ids=[] if with_ids else None)
        fetched.sessions = merge(self._read(fetched, query, total, how))
        return fetched

    def _read(self, fetched: Fetched, query: dict[str, Any] | None, total: int, how: How) -> list[SessionBuilder]:
        slices = how.slices if total > how.page_size else 1
        lock = threading.Lock()
        done = 0

        def report(n: int) -> None:
            nonlocal done
            with lock:
                done += n
                if how.on_progress is not None:
                    how.on_progress(done, total)

        with ThreadPoolExecutor(slices, thread_name_prefix="read") as pool:
            try:
                futures = [pool.submit(self._slice, fetched, query, n, slices, how, report) for n in range(slices)]
                return [future.result() for future in futures]
            except BaseException:
                self._stop.set()
                raise

    def _slice(
        self,
        fetched: Fetched,
        query: dict[str, Any] | None,
        number: int,
        slices: int,
        how: How,
        report: Callable[[int], None],
    ) -> SessionBuilder:
        builder, columns = SessionBuilder(how.now), ColumnReader(how.now + CLOCK_SKEW)
        client = undecoded(self._client)
        part: dict[str, Any] = {"slice": {"id": number, "max": slices}} if slices > 1 else {}
        pit, after = self._id, None
        while not self._stop.is_set():
            answer = self._ask(
                client,
                pit,
                query,
                size=how.page_size,
                sort=["_shard_doc"],
                search_after=after,
                track_total_hits=False,
                **part,
            )
            page = self._decode(answer)
            if page is not None:
                self._complete(page.timed_out, page.shards)
                self._take(fetched, builder, columns, page.hits.hits)
                n, pit, last = len(page.hits.hits), page.pit_id, page.hits.hits[-1].sort if page.hits.hits else None
            else:
                plain = self._checked(self._plain(answer))
                hits = plain["hits"]["hits"]
                if fetched.ids is not None:
                    fetched.ids += [hit["_id"] for hit in hits]
                for hit in hits:
                    self._add(fetched, builder, hit.get("_source"), hit["_id"], hit["_index"])
                n, pit, last = len(hits), str(plain["pit_id"]), hits[-1]["sort"] if hits else None
            if n == 0:
                break
            after = last
            self._ids.add(pit)
            report(n)
            if n < how.page_size:
                break
        return builder

    @staticmethod
    def _decode(answer: Any) -> _Page | None:
        """The page, when all of it has the usual types."""
        if not isinstance(answer, bytes):
            return None
        try:
            return _PAGE.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _plain(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, bytes):
            answer = self._client.transport.serializers.loads(answer, "application/json")
        return dict(answer)

    def _take(self, fetched: Fetched, builder: SessionBuilder, columns: ColumnReader, hits: list[_Hit]) -> None:
        """Add a page: as columns what is in order as it stands, the rest document by document."""
        sources = [hit.source for hit in hits]
        own = [hit.id for hit in hits]
        if fetched.ids is not None:
            fetched.ids += own
        unique = [_short_id(f"{hit.id}@{hit.index}") for hit in hits] if self._several else own
        rows, taken = columns.take(
            Columns(
                [
                    hit.id if source.session_id is None else source.session_id
                    for hit, source in zip(hits, sources, strict=True)
                ],
                [source.user_id for source in sources],
                [source.search_query for source in sources],
                [source.clicked_product_ids for source in sources],
                [source.timestamp for source in sources],
                _details(sources),
            )
        )
        ids = None
        if self._several or any(
            source.session_id is not None and source.session_id != hit.id
            for hit, source in zip(hits, sources, strict=True)
        ):
            fetched.own_ids = False
            ids = pa.array(unique, pa.string()).filter(pa.array(taken))
        builder.add_settled(rows, ids)
        if taken.all():
            return
        for place in np.flatnonzero(~taken).tolist():
            self._add(fetched, builder, msgspec.to_builtins(sources[place]), own[place], hits[place].index)

    def _add(self, fetched: Fetched, builder: SessionBuilder, source: object, own: str, index: str) -> None:
        field_id = source.get("session_id") if isinstance(source, Mapping) else None
        # Behind an alias over several indices, one _id can occur more than once.
        unique = _short_id(f"{own}@{index}") if self._several else own
        key = field_id if usable_id(field_id) is not None else own
        reason = builder.add(key, source, unique)
        if usable_id(key) != own:
            fetched.own_ids = False
        if reason is not None and len(fetched.set_aside) <= SET_ASIDE_KNOWN:
            fetched.set_aside[own] = reason.value

    def _ask(self, client: Elasticsearch, pit: str, query: dict[str, Any] | None, **request: Any) -> Any:
        try:
            return client.search(
                pit={"id": pit, "keep_alive": KEEP_ALIVE},
                query=query,
                allow_partial_search_results=False,
                **request,
            ).body
        except ApiError as error:
            if error.meta.status == 404 or (error.meta.status == 503 and "shard" in str(error.body)):
                raise lost(self._index) from error
            raise

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        self._complete(answer.get("timed_out", False), answer.get("_shards", {}))
        return answer

    def _complete(self, timed_out: bool, shards: Mapping[str, Any]) -> None:
        if timed_out or shards.get("failed"):
            raise ShortRead(
                f"{shards.get('failed')} of {shards.get('total')} shards of {self._index} did not answer in full.",
                "Run again when the cluster is healthy; nothing was used of this read.",
            )


def _details(sources: list[_Source]) -> Found:
    """What they carry beside a session's own fields; see ``details.find``."""
    values: dict[str, list[object]] = {}
    for name in FIELDS:
        column = list(map(attrgetter(name), sources))
        if column.count(None) < len(column):
            values[name] = column
    lists = [source.events for source in sources]
    if lists.count(None) == len(lists):
        return Found(values)
    sizes = [0 if events is None else len(events) for events in lists]
    events = [event for found in lists if found for event in found]
    return Found(
        values,
        EventLists(
            np.array([found is not None for found in lists], dtype=np.bool_),
            np.repeat(np.arange(len(lists)), sizes),
            {name: list(map(attrgetter(name), events)) for name in EVENT_FIELDS},
        ),
    )


def _short_id(key: str) -> str:
    return key if usable_id(key) == key else hashlib.sha256(key.encode(errors="replace")).hexdigest()
