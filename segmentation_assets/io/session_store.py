"""Sessions in Elasticsearch: imported with every bad record accounted for.

What belongs here: the index of sessions and the dead-letter index beside it. What does not: what makes a document
usable (core.sessions), the formats of files (importing), reading all sessions (session_reader).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from elasticsearch import Elasticsearch, NotFoundError

from segmentation_assets.core import details
from segmentation_assets.core.sessions import Reason, check_document
from segmentation_assets.core.values import usable_id
from segmentation_assets.io import bulk
from segmentation_assets.io.elasticsearch import IndexMissing, errors_explained
from segmentation_assets.io.point_in_time import hits, open_point_in_time
from segmentation_assets.io.templates import ensure_index, rejected_template, session_template

REJECTED_DOCUMENT_BYTES = 8192
"""How much of a rejected record is kept to look at."""

_AT_ONCE = 1_000
"""Records whose details are looked at together."""

_T = TypeVar("_T")

Progress = Callable[[int, int | None], None]
"""Called with how many are done, and of how many when that is known."""


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
        dropped: optional values of records that could not be used, by '<field>: <why>'; the rest of the record was.
    """

    read: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

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
        ensure_index(client, index, session_template(index))
        # Into an empty index everything is new, and plain indexing is cheaper than comparing.
        new = client.count(index=index)["count"] == 0
        line = bulk.index_line if new else bulk.update_line
        mapped, refused = _details_in(client, index)
        outdated = None if new else _Outdated(client, index, mapped)
        tally = _Tally()
        rejects = _DeadLetters(client, dead_letters, source, now, batch_documents, retry)

        def good() -> Iterator[tuple[dict[str, Any], Any]]:
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
                yield content, document

        def with_details() -> Iterator[tuple[str, bytes]]:
            for some in _batched(good(), _AT_ONCE):
                found = details.find([document for _, document in some])
                more = details.as_documents(found, len(some))
                gone = outdated.among([content["session_id"] for content, _ in some]) if outdated else [()] * len(some)
                for (content, _), has, had in zip(some, more, gone, strict=True):
                    tally.dropped.update(has.pop("dropped", ()))
                    for name in refused & has.keys():
                        del has[name]
                        tally.dropped[f"{name}: not in the mapping of {index}"] += 1
                    key = content["session_id"]
                    yield key, line(key, bulk.to_json(content | dict.fromkeys(had) | has))

        def on_batch(batch: bulk.Entries, results: list[str]) -> None:
            tally.add(batch, results)
            if on_progress is not None:
                on_progress(tally.read, None)

        batches = bulk.in_batches(with_details(), batch_documents)
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
        dict(tally.dropped),
    )


def _batched(items: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while some := list(islice(items, size)):
        yield some


def _details_in(client: Elasticsearch, index: str) -> tuple[list[str], set[str]]:
    """Which details the mapping of an index has, and which a document must not have because it is strict."""
    found = [described["mappings"] for described in client.indices.get_mapping(index=index).body.values()]
    mapped = {name for mapping in found for name in mapping.get("properties", {})}
    names = [name for name in (*details.FIELDS, "events") if name in mapped]
    strict = any(mapping.get("dynamic") == "strict" for mapping in found)
    return names, ({*details.FIELDS, "events"} - mapped if strict else set())


class _Outdated:
    """Details that stored sessions have. An update merges, so what a session has no more must be taken away by name."""

    def __init__(self, client: Elasticsearch, index: str, names: Sequence[str]) -> None:
        self._client, self._index, self._names = client, index, names
        self._begun: set[int] = set()

    def among(self, keys: Sequence[str]) -> list[Collection[str]]:
        """For each session the details to take away; all of them where it came before in this import."""
        if not self._names:
            return [()] * len(keys)
        # How many events there are does not matter, so they are not fetched.
        wanted = [f"{name}.event_type" if name == "events" else name for name in self._names]
        answer = self._client.mget(index=self._index, ids=list(dict.fromkeys(keys)), source_includes=wanted)
        stored = {
            found["_id"]: [name for name, value in found["_source"].items() if value is not None]
            for found in answer["docs"]
            if found.get("found")
        }
        gone: list[Collection[str]] = []
        for key in keys:
            gone.append(self._names if hash(key) in self._begun else stored.get(key, ()))
            self._begun.add(hash(key))
        return gone


class _Tally:
    """Counts results by session, not by request: a later duplicate does not count again."""

    def __init__(self) -> None:
        self.read = 0
        self.duplicates = 0
        self.results: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._seen: set[int] = set()

    def add(self, batch: bulk.Entries, results: list[str]) -> None:
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
        self._batch = bulk.Entries()
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
            ensure_index(self._client, self._index, rejected_template(self._index))
            self._ready = True
        self._written.update(self._batch.lines)
        bulk.write(self._client, self._index, [self._batch], on_batch=lambda *_: None, in_flight=1, retry=self._retry)
        self._batch = bulk.Entries()

    def _earlier(self) -> list[str]:
        """Ids of all rejects of this source."""
        return _ids(self._client, self._index, {"term": {"source": self._source}})


def _ids(client: Elasticsearch, index: str, query: Mapping[str, Any]) -> list[str]:
    return [hit["_id"] for hit in hits(client, index, open_point_in_time(client, index), query=query, source=False)]


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


# --- state -------------------------------------------------------------------------------------------------------


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
        uuids = index_uuids(client, index)
        return SessionsState(tuple(sorted(uuids.values())), int(client.count(index=index)["count"]))


def index_uuids(client: Elasticsearch, index: str) -> dict[str, str]:
    """The identity of each index behind the name.

    Raises:
        IndexMissing: it is a pattern that matches nothing.
    """
    settings = client.indices.get_settings(index=index, name="index.uuid")
    if not settings:  # a pattern that matches nothing
        raise IndexMissing(f"There is no index or alias '{index}'.", "Check the name.")
    return {name: str(found["settings"]["index"]["uuid"]) for name, found in settings.items()}
