"""Reading sessions out of Elasticsearch: one consistent snapshot, as columns.

What belongs here: the point in time, its slices and pages, and the way from an answer's bytes to columns. What does
not: what makes a document usable (core.sessions, core.session_columns), writing (session_store).

An answer is decoded into typed records, not into dictionaries, and its columns are judged as columns; a page that does
not fit the types (a number for a query, a list of lists for clicks) is read the plain way, document by document. So
both ways must give the same, which a property test holds them to.
"""

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from elastic_transport import SerializerCollection
from elasticsearch import ApiError, BadRequestError, Elasticsearch

from segmentation_assets.core.collector import collector_paused
from segmentation_assets.core.session_columns import ColumnReader, Columns
from segmentation_assets.core.sessions import (
    CLOCK_SKEW,
    EXAMPLES_PER_REASON,
    Intake,
    Origin,
    SessionBuilder,
    Sessions,
    merge,
    usable_id,
)
from segmentation_assets.core.updates import can_continue, updated
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import bulk, memory
from segmentation_assets.io.elasticsearch import IndexEmpty, IndexMissing, errors_explained
from segmentation_assets.io.session_store import (
    KEEP_ALIVE,
    PAGE_SIZE,
    Progress,
    close_point_in_time,
    rejected_index,
)

SLICES = 2
"""Parallel parts of a read. One does not keep the cluster busy while an answer is decoded; more gained nothing."""

IN_PROGRESS = 10_000
"""Sequence numbers before the last one seen that are asked for once more. A snapshot may show a write before one that
began a moment earlier, and then that one is not lost."""

SET_ASIDE_KNOWN = 10_000
"""Ids of documents set aside that are kept, to continue a read. Where there are more, the next read begins again."""


class ShortRead(SegmentsError):
    """Not all of the snapshot could be read; what was read is thrown away."""


class NoUsableSessions(SegmentsError):
    """There are documents, but every single one was set aside.

    Attributes:
        intake: the account, with the counts by reason.
    """

    def __init__(self, problem: str, cure: str, intake: Intake) -> None:
        self.intake = intake
        super().__init__(problem, cure)


# --- an answer's bytes ------------------------------------------------------------------------------------------------


class _Source(msgspec.Struct, gc=False):
    """The fields of a session in the types that they nearly always have."""

    session_id: str | int | None = None
    user_id: str | int | None = None
    search_query: str | None = None
    clicked_product_ids: list[str] | None = None
    timestamp: str | int | None = None


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


def _undecoded(client: Elasticsearch) -> Elasticsearch:
    """The same client on the same connections, whose answers with hits are bytes."""
    transport = copy.copy(client.transport)
    transport.serializers = _Undecoded(transport.serializers)
    raw = client.options()
    raw._transport = transport
    return raw


# --- the snapshot -----------------------------------------------------------------------------------------------------


@collector_paused()
def read_sessions(
    client: Elasticsearch,
    index: str,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int = PAGE_SIZE,
    slices: int = SLICES,
    previous: Sessions | None = None,
    on_progress: Progress | None = None,
) -> Sessions:
    """Read all sessions as they are at one moment; writers meanwhile change nothing in the result.

    With the sessions of an earlier read only the documents are fetched that were written since, by Elasticsearch's
    sequence numbers. The result is the same: where that is not certain (another index, several of them or several
    shards, documents deleted, ids that are not the documents' own, a filtered alias, other bounds), all are fetched.

    A session's id is the document's ``session_id`` when that can be one, else ``_id``; documents that claim the same
    session_id get their ``_id``. The account includes the rejects of all imports (the dead-letter index), with a window
    or without: they have no timestamp to go by.

    Args:
        client: the client.
        index: index, alias or pattern.
        now: aware datetime; later timestamps are in the future.
        start: only sessions at or after; None: no bound.
        end: only sessions before; None: no bound. With a window, documents without a usable timestamp are not seen, so
            not counted: Elasticsearch cannot place them.
        page_size: documents in one answer, at most 10,000.
        slices: parallel parts.
        previous: an earlier result for the same index.
        on_progress: called with the number read so far and the total, from any thread, one at a time.

    Raises:
        IndexMissing: there is no such index.
        IndexEmpty: there is no document in it, or none in the window.
        NoUsableSessions: every document was set aside.
        ShortRead: the snapshot could not be read to its end.
        SegmentsError: see ``io.elasticsearch``.
    """
    memory.use_the_systems()
    with errors_explained(client, f"read {index}"):
        rejected = _rejected(client, index)
        with _Snapshot(client, index, _window(start, end)) as snapshot:
            total = snapshot.total
            if total == 0 and (start is not None or end is not None or not rejected.read):
                raise _empty(client, index, start, end)
            sessions = None
            if previous is not None:
                sessions = snapshot.continued(previous, now, page_size, slices, on_progress)
            if sessions is None:
                sessions = snapshot.read(now, page_size, slices, on_progress)
    if sessions.intake.read != total:
        raise ShortRead(
            f"{sessions.intake.read} of {total} documents of {index} were read.",
            "Run again; nothing was used of this read.",
        )
    memory.give_back()
    intake = sessions.intake + rejected
    if not len(sessions):
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(intake.set_aside.items()))
        raise NoUsableSessions(
            f"None of the {intake.read} documents of {index} can be used as a session: {reasons}.",
            "Documents need user_id, search_query and timestamp (ISO 8601 or epoch milliseconds).",
            intake,
        )
    return replace(sessions, intake=intake)


class _Snapshot:
    """A point in time of an index, closed on the way out.

    Attributes:
        total: documents in it (in the window of time, where there is one).
    """

    def __init__(self, client: Elasticsearch, index: str, query: dict[str, Any] | None) -> None:
        self._client = client
        self._index = index
        self._window = query
        self._query = query
        self._ids: set[str] = set()
        self._stop = threading.Event()
        # of the documents that are read: whether a session has another id than its document, ids of those set aside
        # with the reason, and all ids where only some documents are read
        self._other_ids = False
        self._set_aside: dict[str, str] = {}
        self._fetched: list[str] | None = None

    def __enter__(self) -> "_Snapshot":
        found = self._client.indices.get_settings(index=self._index, name="index.uuid,index.number_of_shards")
        if not found:
            raise IndexMissing(f"There is no index or alias '{self._index}'.", "Check the name.")
        self._several = len(found) > 1
        self._uuid = self._traceable(found.body)
        # Partial results are refused at every step: a missing shard is an error, not fewer sessions.
        opened = self._client.open_point_in_time(
            index=self._index, keep_alive=KEEP_ALIVE, allow_partial_search_results=False
        )
        self._id = str(opened["id"])
        self._ids.add(self._id)
        try:
            self.total = self._count()
            self._newest = self._newest_write() if self._uuid and self.total else None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pit in self._ids:
            close_point_in_time(self._client, pit)

    def _traceable(self, found: Mapping[str, Any]) -> str | None:
        """The identity of the index where its sequence numbers tell what is new: it is one, of one shard, and whole."""
        if len(found) != 1:
            return None
        ((name, described),) = found.items()
        settings = described["settings"]["index"]
        if int(settings["number_of_shards"]) != 1:
            return None
        if name != self._index:
            try:
                alias = self._client.indices.get_alias(index=name, name=self._index)[name]["aliases"][self._index]
            except (ApiError, KeyError):  # a pattern
                return None
            if "filter" in alias:  # which may change, and the documents would not
                return None
        return str(settings["uuid"])

    def _count(self) -> int:
        answer = self._search(self._id, size=0, track_total_hits=True)
        return int(answer["hits"]["total"]["value"])

    def _newest_write(self) -> int | None:
        try:
            found = self._search(
                self._id, size=0, track_total_hits=False, aggregations={"newest": {"max": {"field": "_seq_no"}}}
            )
        except BadRequestError:  # an index without them
            return None
        return int(found["aggregations"]["newest"]["value"])

    def continued(
        self, previous: Sessions, now: datetime, page_size: int, slices: int, on_progress: Progress | None
    ) -> Sessions | None:
        """All sessions, of which only those are fetched that came since; None where that would not be all."""
        origin = previous.origin
        if origin is None or self._newest is None or origin.uuid != self._uuid or origin.window != self._window_text:
            return None
        if not can_continue(previous):
            return None
        since = {"range": {"_seq_no": {"gt": origin.seq_no - IN_PROGRESS}}}
        self._query = {"bool": {"filter": [since, *([self._window] if self._window else [])]}}
        try:
            changed = self._count()
            if changed > self.total // 2:
                return None
            self._fetched = []
            fresh = merge(self._read(now, changed, page_size, slices, on_progress))
            whole = updated(previous, fresh, self._fetched, self._set_aside, self.total)
        finally:
            self._query, self._fetched = self._window, None
        if whole is None or self._other_ids or fresh.intake.read != changed:
            self._other_ids, self._set_aside = False, {}
            return None
        return replace(whole, origin=self._origin(whole.intake, whole.origin.set_aside if whole.origin else {}))

    def read(self, now: datetime, page_size: int, slices: int, on_progress: Progress | None) -> Sessions:
        """All sessions."""
        sessions = merge(self._read(now, self.total, page_size, slices, on_progress))
        origin = self._origin(sessions.intake, self._set_aside)
        return replace(sessions, origin=origin, fetched=sessions.intake.read)

    def _origin(self, intake: Intake, set_aside: dict[str, str]) -> Origin | None:
        if self._uuid is None or self._newest is None or self._other_ids or len(set_aside) > SET_ASIDE_KNOWN:
            return None
        return Origin(self._uuid, self._newest, self._window_text, intake, set_aside)

    @property
    def _window_text(self) -> str:
        return json.dumps(self._window) if self._window else ""

    def _read(
        self, now: datetime, total: int, page_size: int, slices: int, on_progress: Progress | None
    ) -> list[SessionBuilder]:
        slices = slices if total > page_size else 1
        lock = threading.Lock()
        done = 0

        def report(n: int) -> None:
            nonlocal done
            with lock:
                done += n
                if on_progress is not None:
                    on_progress(done, total)

        with ThreadPoolExecutor(slices, thread_name_prefix="read") as pool:
            try:
                futures = [pool.submit(self._slice, now, n, slices, page_size, report) for n in range(slices)]
                return [future.result() for future in futures]
            except BaseException:
                self._stop.set()
                raise

    def _slice(
        self, now: datetime, number: int, slices: int, page_size: int, report: Callable[[int], None]
    ) -> SessionBuilder:
        builder, columns = SessionBuilder(now), ColumnReader(now + CLOCK_SKEW)
        client = _undecoded(self._client)
        part: dict[str, Any] = {"slice": {"id": number, "max": slices}} if slices > 1 else {}
        pit, after = self._id, None
        while not self._stop.is_set():
            answer = self._ask(
                client, pit, size=page_size, sort=["_shard_doc"], search_after=after, track_total_hits=False, **part
            )
            page = self._decode(answer)
            if page is not None:
                self._complete(page.timed_out, page.shards)
                self._take(builder, columns, page.hits.hits)
                n, pit, last = len(page.hits.hits), page.pit_id, page.hits.hits[-1].sort if page.hits.hits else None
            else:
                plain = self._checked(self._plain(answer))
                hits = plain["hits"]["hits"]
                if self._fetched is not None:
                    self._fetched += [hit["_id"] for hit in hits]
                for hit in hits:
                    self._add(builder, hit.get("_source"), hit["_id"], hit["_index"])
                n, pit, last = len(hits), str(plain["pit_id"]), hits[-1]["sort"] if hits else None
            if n == 0:
                break
            after = last
            self._ids.add(pit)
            report(n)
            if n < page_size:
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

    def _take(self, builder: SessionBuilder, columns: ColumnReader, hits: list[_Hit]) -> None:
        """Add a page: as columns what is in order as it stands, the rest document by document."""
        sources = [hit.source for hit in hits]
        own = [hit.id for hit in hits]
        if self._fetched is not None:
            self._fetched += own
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
            )
        )
        ids = None
        if self._several or any(
            source.session_id is not None and source.session_id != hit.id
            for hit, source in zip(hits, sources, strict=True)
        ):
            self._other_ids = True
            ids = pa.array(unique, pa.string()).filter(pa.array(taken))
        builder.add_settled(rows, ids)
        if taken.all():
            return
        for place in np.flatnonzero(~taken).tolist():
            self._add(builder, msgspec.to_builtins(sources[place]), own[place], hits[place].index)

    def _add(self, builder: SessionBuilder, source: object, own: str, index: str) -> None:
        field_id = source.get("session_id") if isinstance(source, Mapping) else None
        # Behind an alias over several indices, one _id can occur more than once.
        unique = _short_id(f"{own}@{index}") if self._several else own
        key = field_id if usable_id(field_id) is not None else own
        reason = builder.add(key, source, unique)
        if usable_id(key) != own:
            self._other_ids = True
        if reason is not None and len(self._set_aside) <= SET_ASIDE_KNOWN:
            self._set_aside[own] = reason.value

    def _search(self, pit: str, **request: Any) -> dict[str, Any]:
        return self._checked(dict(self._ask(self._client, pit, **request)))

    def _ask(self, client: Elasticsearch, pit: str, **request: Any) -> Any:
        try:
            return client.search(
                pit={"id": pit, "keep_alive": KEEP_ALIVE},
                query=self._query,
                allow_partial_search_results=False,
                **request,
            ).body
        except ApiError as error:
            if error.meta.status == 404 or (error.meta.status == 503 and "shard" in str(error.body)):
                raise ShortRead(
                    f"The snapshot of {self._index} was lost during the read (index deleted, node gone, or too slow).",
                    "Run again; nothing was used of this read.",
                ) from error
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


def _short_id(key: str) -> str:
    return key if usable_id(key) == key else hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _window(start: datetime | None, end: datetime | None) -> dict[str, Any] | None:
    bounds = {
        name: bulk.iso((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC))
        for name, moment in (("gte", start), ("lt", end))
        if moment is not None
    }
    if not bounds:
        return None
    return {"range": {"timestamp": {**bounds, "format": "strict_date_optional_time"}}}


def _empty(client: Elasticsearch, index: str, start: datetime | None, end: datetime | None) -> IndexEmpty:
    everything = int(client.count(index=index)["count"])
    if not everything:
        return IndexEmpty(f"The index '{index}' holds no documents.", "Import sessions first: segments import or seed.")
    window = f"from {bulk.iso(start) if start else 'the beginning'} until {bulk.iso(end) if end else 'now'}"
    return IndexEmpty(f"The index '{index}' holds {everything} documents, but none {window}.", "Widen the time window.")


def _rejected(client: Elasticsearch, index: str) -> Intake:
    """The account of all records that imports set aside."""
    name = rejected_index(index)
    if any(sign in index for sign in ",*"):
        return Intake(0, 0)  # several indices: no one name beside them
    try:
        answer = client.search(
            index=name,
            size=0,
            track_total_hits=True,
            allow_partial_search_results=False,
            aggregations={
                "reasons": {
                    "terms": {"field": "reason", "size": 100, "missing": "unknown"},
                    "aggregations": {"examples": {"top_hits": {"size": EXAMPLES_PER_REASON, "_source": False}}},
                }
            },
        )
    except ApiError as error:
        # A key that may only read the sessions gets 403 for a dead-letter index, there or not: sessions that no import
        # of ours brought have none, so this must not stop the run.
        if error.meta.status in (403, 404):
            return Intake(0, 0)
        raise
    buckets = answer["aggregations"]["reasons"]["buckets"]
    return Intake(
        int(answer["hits"]["total"]["value"]),
        0,
        {bucket["key"]: int(bucket["doc_count"]) for bucket in buckets},
        {bucket["key"]: [hit["_id"] for hit in bucket["examples"]["hits"]["hits"]] for bucket in buckets},
    )
