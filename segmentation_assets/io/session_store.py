"""Sessions in Elasticsearch: imported with every bad record accounted for, read as one consistent snapshot.

What belongs here: the index of sessions and the dead-letter index beside it. What does not: what makes a document
usable (core.sessions) and the formats of files (importing).
"""

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from elasticsearch import ApiError, BadRequestError, Elasticsearch, NotFoundError, TransportError

from segmentation_assets.core.sessions import (
    EXAMPLES_PER_REASON,
    Intake,
    Reason,
    SessionBuilder,
    Sessions,
    check_document,
    merge,
    usable_id,
)
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import bulk
from segmentation_assets.io.elasticsearch import IndexEmpty, IndexMissing, errors_explained
from segmentation_assets.io.templates import (
    IndexTemplate,
    create_index,
    ensure_template,
    rejected_template,
    session_template,
)

REJECTED_DOCUMENT_BYTES = 8192
"""How much of a rejected record is kept to look at."""

PAGE_SIZE = 5_000
SLICES = 2
_KEEP_ALIVE = "2m"

Progress = Callable[[int, int | None], None]
"""Called with how many are done, and of how many when that is known."""


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


@dataclass(frozen=True)
class ImportSummary:
    """The account of an import: ``read == indexed + duplicates + rejected_total``, always.

    Attributes:
        read: records read from the source.
        created: sessions that are new in the index.
        updated: sessions that were there with other content.
        unchanged: sessions that were there exactly so.
        duplicates: records superseded by a later one of the same id within this import.
        rejected: records that could not be used, by reason; they lie in the dead-letter index.
    """

    read: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def indexed(self) -> int:
        """Different sessions of this import that are in the index now."""
        return self.created + self.updated + self.unchanged

    @property
    def rejected_total(self) -> int:
        """Records rejected, over all reasons."""
        return sum(self.rejected.values())


@dataclass(frozen=True)
class SessionsState:
    """What a sensor has to know to notice change.

    Attributes:
        uuids: of the indices behind the name, sorted: a rebuilt index has another one.
        count: documents.
    """

    uuids: tuple[str, ...]
    count: int


def rejected_index(index: str) -> str:
    """Name of the dead-letter index beside an index of sessions."""
    return f"{index}_rejected"


# --- import ---------------------------------------------------------------------------------------------------------


def write_sessions(
    client: Elasticsearch,
    index: str,
    records: Iterable[tuple[object, object]],
    *,
    source: str,
    now: datetime,
    batch_documents: int = bulk.BATCH_DOCUMENTS,
    in_flight: int = bulk.IN_FLIGHT,
    retry: bulk.Retry | None = None,
    on_progress: Progress | None = None,
) -> ImportSummary:
    """Write sessions, each under its own id, and set unusable records aside in ``<index>_rejected``.

    Importing the same again changes nothing: ids are deterministic, equal documents are left alone, and the rejects of
    the same ``source`` are replaced. An import that was killed half-way is healed by repeating it.

    Args:
        client: the client.
        index: name of the index, created with the project's mapping when absent.
        records: (session_id, document) pairs, the document as read from JSON.
        source: name of where they come from, usually the file's; the rejects are kept by it.
        now: aware datetime; later timestamps are in the future.
        batch_documents: documents in one request.
        in_flight: requests at a time.
        retry: back-off when the cluster is busy.
        on_progress: called with the number of records read so far.

    Raises:
        BulkFailed: the index refuses documents that are fine, because it has another mapping.
        SegmentsError: see ``io.elasticsearch`` and ``io.templates``.
    """
    dead_letters = rejected_index(index)
    with errors_explained(client, f"write {index}"):
        _ensure_index(client, index, session_template(index))
        # Into an empty index everything is new, and plain indexing is cheaper than comparing.
        line = bulk.index_line if client.count(index=index)["count"] == 0 else bulk.update_line
        tally = _Tally()
        rejects = _DeadLetters(client, dead_letters, source, now, batch_documents, retry)

        def good() -> Iterator[tuple[str, bytes]]:
            for session_id, document in records:
                ordinal, tally.read = tally.read, tally.read + 1
                key = usable_id(session_id)
                checked = check_document(document, now) if key is not None else Reason.BAD_ID
                if isinstance(checked, Reason) or key is None:
                    rejects.add(ordinal, Reason(checked), session_id, document)  # type: ignore[arg-type]
                    continue
                user, query, clicks, timestamp = checked
                content = {
                    "session_id": key,
                    "user_id": user,
                    "search_query": query,
                    "clicked_product_ids": clicks,
                    "timestamp": bulk.iso(timestamp),
                }
                yield key, line(key, bulk.to_json(content))

        def on_batch(batch: bulk.Batch, results: list[str]) -> None:
            tally.add(batch, results)
            if on_progress is not None:
                on_progress(tally.read, None)

        batches = bulk.in_batches(good(), batch_documents)
        bulk.write(client, index, batches, on_batch=on_batch, in_flight=in_flight, retry=retry)
        rejects.finish()
        client.indices.refresh(index=index)
    return ImportSummary(
        tally.read,
        tally.results["created"],
        tally.results["updated"],
        tally.results["noop"],
        tally.duplicates,
        dict(rejects.reasons),
    )


class _Tally:
    """Counts results by session, not by request: a later duplicate does not count again."""

    def __init__(self) -> None:
        self.read = 0
        self.duplicates = 0
        self.results: Counter[str] = Counter()
        self._seen: set[int] = set()

    def add(self, batch: bulk.Batch, results: list[str]) -> None:
        self.duplicates += batch.superseded
        for key, result in zip(batch.lines, results, strict=True):
            # The hash alone: half the memory, and a collision (1 in 10^5 at 10 million ids) miscounts one duplicate.
            mark = hash(key)
            if mark in self._seen:
                self.duplicates += 1
            else:
                self._seen.add(mark)
                self.results[result] += 1


class _DeadLetters:
    """Writes rejects as they come, and at the end removes those that an earlier import of the same source left."""

    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        source: str,
        now: datetime,
        batch_documents: int,
        retry: bulk.Retry | None,
    ) -> None:
        self._client = client
        self._index = index
        self._source = source
        self._now = bulk.iso(now.astimezone(UTC))
        self._batch_documents = batch_documents
        self._retry = retry
        self._batch = bulk.Batch()
        self._written: set[str] = set()
        self._ready = False
        self.reasons: Counter[str] = Counter()

    def add(self, ordinal: int, reason: Reason, session_id: object, document: object) -> None:
        self.reasons[reason.value] += 1
        # By place in the source: two equal bad records stay two, and the same file gives the same ids.
        key = hashlib.sha256(f"{self._source}\0{ordinal}".encode(errors="backslashreplace")).hexdigest()[:32]
        if isinstance(document, Mapping) and session_id is not None:
            document = {"session_id": session_id, **document}
        content = {
            "reason": reason.value,
            "source": self._source,
            "imported_at": self._now,
            "document": _shown(document),
        }
        self._batch.add(key, bulk.index_line(key, bulk.to_json(content)))
        if len(self._batch.lines) >= self._batch_documents or self._batch.size >= bulk.BATCH_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()
        try:
            self._client.indices.refresh(index=self._index)
        except NotFoundError:
            return  # nothing was ever rejected
        stale = bulk.in_batches((key, bulk.delete_line(key)) for key in self._earlier() if key not in self._written)
        bulk.write(
            self._client, self._index, stale, on_batch=lambda *_: None, in_flight=1, retry=self._retry, missing_ok=True
        )
        self._client.indices.refresh(index=self._index)

    def _flush(self) -> None:
        if not self._batch.lines:
            return
        if not self._ready:
            _ensure_index(self._client, self._index, rejected_template(self._index))
            self._ready = True
        self._written.update(self._batch.lines)
        bulk.write(self._client, self._index, [self._batch], on_batch=lambda *_: None, in_flight=1, retry=self._retry)
        self._batch = bulk.Batch()

    def _earlier(self) -> list[str]:
        """Ids of all rejects of this source."""
        return _ids(self._client, self._index, {"term": {"source": self._source}})


def _ids(client: Elasticsearch, index: str, query: Mapping[str, Any]) -> list[str]:
    ids: list[str] = []
    pit = client.open_point_in_time(index=index, keep_alive=_KEEP_ALIVE)["id"]
    try:
        after: list[Any] | None = None
        while True:
            answer = client.search(
                pit={"id": pit, "keep_alive": _KEEP_ALIVE},
                query=query,
                sort=["_shard_doc"],
                search_after=after,
                size=PAGE_SIZE,
                source=False,
                allow_partial_search_results=False,
            )
            hits = answer["hits"]["hits"]
            if not hits:
                return ids
            ids.extend(hit["_id"] for hit in hits)
            after = hits[-1]["sort"]
    finally:
        _close(client, pit)


@dataclass(frozen=True)
class RejectedSource:
    """What was set aside of one source.

    Attributes:
        source: what was imported.
        rejected: records, by reason.
    """

    source: str
    rejected: dict[str, int]


def rejected_sources(client: Elasticsearch, index: str) -> list[RejectedSource]:
    """What imports into an index of sessions have set aside, by source, the largest first."""
    name = rejected_index(index)
    with errors_explained(client, f"read {name}"):
        try:
            answer = client.search(
                index=name,
                size=0,
                allow_partial_search_results=False,
                aggregations={
                    "sources": {
                        "terms": {"field": "source", "size": 1_000},
                        "aggregations": {"reasons": {"terms": {"field": "reason", "size": 100}}},
                    }
                },
            )
        except NotFoundError:
            return []
    return [
        RejectedSource(bucket["key"], {reason["key"]: reason["doc_count"] for reason in bucket["reasons"]["buckets"]})
        for bucket in answer["aggregations"]["sources"]["buckets"]
    ]


def forget_rejected(client: Elasticsearch, index: str, source: str | None = None) -> int:
    """Delete what imports have set aside, of one source or of all; returns how many records that were."""
    name = rejected_index(index)
    query: dict[str, Any] = {"term": {"source": source}} if source is not None else {"match_all": {}}
    with errors_explained(client, f"write {name}"):
        try:
            ids = _ids(client, name, query)
        except NotFoundError:
            return 0
        gone = bulk.in_batches((key, bulk.delete_line(key)) for key in ids)
        bulk.write(client, name, gone, on_batch=lambda *_: None, in_flight=1, missing_ok=True)
        client.indices.refresh(index=name)
    return len(ids)


def _shown(document: object) -> str:
    text = json.dumps(document, ensure_ascii=False, default=str)
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate: legal in JSON only when escaped
        data = json.dumps(document, default=str).encode()
    return data[:REJECTED_DOCUMENT_BYTES].decode(errors="ignore")


def _ensure_index(client: Elasticsearch, index: str, template: IndexTemplate) -> None:
    """Create the index when there is none; whatever there is, a user's own mapping included, stays as it is."""
    try:
        client.indices.get_settings(
            index=index, name="index.uuid"
        )  # not exists(): HEAD has no body to explain a refusal
        return
    except NotFoundError:
        pass
    ensure_template(client, template)
    try:
        create_index(client, index, template, settings={}, meta={})
    except BadRequestError as error:
        if "resource_already_exists_exception" not in str(error.body):  # another import was quicker
            raise


# --- state and snapshot ---------------------------------------------------------------------------------------------


def count_sessions(client: Elasticsearch, index: str) -> int:
    """Return the number of documents in the index, usable or not.

    Raises:
        IndexMissing: there is no such index or alias.
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"count {index}"):
        return int(client.count(index=index)["count"])


def sessions_state(client: Elasticsearch, index: str) -> SessionsState:
    """Return the identity and size of what is behind the name (index, alias or pattern).

    Raises:
        IndexMissing: there is no such index or alias.
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"look at {index}"):
        uuids = _uuids(client, index)
        return SessionsState(tuple(sorted(uuids.values())), int(client.count(index=index)["count"]))


def _uuids(client: Elasticsearch, index: str) -> dict[str, str]:
    settings = client.indices.get_settings(index=index, name="index.uuid")
    if not settings:  # a pattern that matches nothing
        raise IndexMissing(f"There is no index or alias '{index}'.", "Check the name.")
    return {name: str(found["settings"]["index"]["uuid"]) for name, found in settings.items()}


def read_sessions(
    client: Elasticsearch,
    index: str,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int = PAGE_SIZE,
    slices: int = SLICES,
    on_progress: Progress | None = None,
) -> Sessions:
    """Read all sessions as they are at one moment; writers meanwhile change nothing in the result.

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
        on_progress: called with the number read so far and the total, from any thread, one at a time.

    Raises:
        IndexMissing: there is no such index.
        IndexEmpty: there is no document in it, or none in the window.
        NoUsableSessions: every document was set aside.
        ShortRead: the snapshot could not be read to its end.
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"read {index}"):
        rejected = _rejected(client, index)
        snapshot = _Snapshot(client, index, _window(start, end))
        with snapshot:
            total = snapshot.count()
            if total == 0 and (start is not None or end is not None or not rejected.read):
                raise _empty(client, index, start, end)
            parts = snapshot.read(now, total, page_size, slices if total > page_size else 1, on_progress)
    sessions = merge(parts)
    if sessions.intake.read != total:
        raise ShortRead(
            f"{sessions.intake.read} of {total} documents of {index} were read.",
            "Run again; nothing was used of this read.",
        )
    intake = sessions.intake + rejected
    if not len(sessions):
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(intake.set_aside.items()))
        raise NoUsableSessions(
            f"None of the {intake.read} documents of {index} can be used as a session: {reasons}.",
            "Documents need user_id, search_query and timestamp (ISO 8601 or epoch milliseconds).",
            intake,
        )
    return Sessions(sessions.table, intake)


class _Snapshot:
    """A point in time of an index, closed on the way out."""

    def __init__(self, client: Elasticsearch, index: str, query: dict[str, Any] | None) -> None:
        self._client = client
        self._index = index
        self._query = query
        self._ids: set[str] = set()
        self._stop = threading.Event()

    def __enter__(self) -> None:
        self._several = len(_uuids(self._client, self._index)) > 1
        # Partial results are refused at every step: a missing shard is an error, not fewer sessions.
        opened = self._client.open_point_in_time(
            index=self._index, keep_alive=_KEEP_ALIVE, allow_partial_search_results=False
        )
        self._id = str(opened["id"])
        self._ids.add(self._id)

    def __exit__(self, *_: object) -> None:
        for pit in self._ids:
            _close(self._client, pit)

    def count(self) -> int:
        answer = self._search(self._id, size=0, track_total_hits=True)
        return int(answer["hits"]["total"]["value"])

    def read(
        self, now: datetime, total: int, page_size: int, slices: int, on_progress: Progress | None
    ) -> list[SessionBuilder]:
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
        builder = SessionBuilder(now)
        part: dict[str, Any] = {"slice": {"id": number, "max": slices}} if slices > 1 else {}
        pit, after = self._id, None
        while not self._stop.is_set():
            answer = self._search(
                pit, size=page_size, sort=["_shard_doc"], search_after=after, track_total_hits=False, **part
            )
            hits = answer["hits"]["hits"]
            if not hits:
                break
            for hit in hits:
                self._add(builder, hit)
            pit, after = str(answer["pit_id"]), hits[-1]["sort"]
            self._ids.add(pit)
            report(len(hits))
            if len(hits) < page_size:
                break
        return builder

    def _add(self, builder: SessionBuilder, hit: Mapping[str, Any]) -> None:
        source, own = hit.get("_source"), hit["_id"]
        field_id = source.get("session_id") if isinstance(source, Mapping) else None
        # Behind an alias over several indices, one _id can occur more than once.
        unique = _short_id(f"{own}@{hit['_index']}") if self._several else own
        builder.add(field_id if usable_id(field_id) is not None else own, source, unique)

    def _search(self, pit: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self._client.search(
                pit={"id": pit, "keep_alive": _KEEP_ALIVE},
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
        shards = answer.get("_shards", {})
        if answer.get("timed_out") or shards.get("failed"):
            raise ShortRead(
                f"{shards.get('failed')} of {shards.get('total')} shards of {self._index} did not answer in full.",
                "Run again when the cluster is healthy; nothing was used of this read.",
            )
        return dict(answer)


def _short_id(key: str) -> str:
    return key if usable_id(key) == key else hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _close(client: Elasticsearch, pit: str) -> None:
    # It expires by itself; whatever went wrong before is what matters.
    with contextlib.suppress(ApiError, TransportError):
        client.close_point_in_time(id=pit)


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
