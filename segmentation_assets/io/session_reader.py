"""Reading sessions out of Elasticsearch, all of them or those that came since the last time.

What belongs here: which documents are asked for, and whether what came is all there is. What does not: how a snapshot
is read (snapshot), what makes a document usable (core.sessions, core.session_columns), writing (session_store).
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from elasticsearch import ApiError, Elasticsearch

from segmentation_assets.core.collector import collector_paused
from segmentation_assets.core.sessions import EXAMPLES_PER_REASON, RULES, Intake, Origin, Reason, Sessions
from segmentation_assets.core.updates import updated
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import bulk, memory
from segmentation_assets.io.elasticsearch import IndexEmpty, errors_explained
from segmentation_assets.io.point_in_time import PAGE_SIZE, ShortRead
from segmentation_assets.io.session_store import Progress, rejected_index
from segmentation_assets.io.snapshot import SET_ASIDE_KNOWN, Fetched, How, Snapshot

SLICES = 2
"""Parallel parts of a read. One does not keep the cluster busy while an answer is decoded; more gained nothing."""

IN_PROGRESS = 10_000
"""Sequence numbers before the last one seen that are asked for once more. A snapshot may show a write before one that
began a moment earlier, and then that one is not lost."""

MOST = 0.5
"""Share of the documents from which fetching them all is no dearer than finding out what they replace."""


class NoUsableSessions(SegmentsError):
    """There are documents, but every single one was set aside.

    Attributes:
        intake: the account, with the counts by reason.
    """

    def __init__(self, problem: str, cure: str, intake: Intake) -> None:
        self.intake = intake
        super().__init__(problem, cure)


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
    sequence numbers, and ``IN_PROGRESS`` before them. The result is the same: where that is not certain (another index,
    several of them or several shards, documents deleted, ids that are not the documents' own, a filtered alias, other
    bounds), all are fetched, and ``Sessions.reading`` says why.

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
        query, how = _window(start, end), How(now, page_size, slices, on_progress)
        with Snapshot(client, index) as snapshot:
            total = snapshot.count(query)
            if total == 0 and (start is not None or end is not None or not rejected.read):
                raise _empty(client, index, start, end)
            sessions = _read(snapshot, query, total, how, previous)
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


def _read(
    snapshot: Snapshot, query: dict[str, Any] | None, total: int, how: How, previous: Sessions | None
) -> Sessions:
    newest = snapshot.newest_write(query) if snapshot.uuid else None
    bounds = json.dumps(query) if query else ""
    why = _why_not(snapshot, newest, bounds, previous)
    if previous is not None and previous.origin is not None and not why:
        found = _continued(snapshot, query, total, how, previous, previous.origin)
        if not isinstance(found, str):
            sessions, fetched = found
            origin = _origin(snapshot, newest, bounds, sessions.intake, fetched)
            return replace(sessions, origin=origin, reading="what was written since the last read")
        why = found
    fetched = snapshot.fetch(query, total, how)
    sessions = fetched.sessions
    origin = _origin(snapshot, newest, bounds, sessions.intake, fetched)
    return replace(sessions, origin=origin, fetched=sessions.intake.read, reading=f"everything: {why}")


def _why_not(snapshot: Snapshot, newest: int | None, bounds: str, previous: Sessions | None) -> str:
    """Why the earlier read cannot be gone on from; empty where it can."""
    if previous is None:
        return "there is no earlier read to go on from"
    if snapshot.untraceable:
        return snapshot.untraceable
    origin = previous.origin
    if origin is None:
        return "sessions had other ids than their documents, or too many were set aside"
    if origin.uuid != snapshot.uuid:
        return "it is another index"
    if origin.window != bounds:
        return "the bounds of time changed"
    if origin.rules != RULES:
        return "documents are judged by other rules now"
    if newest is None:
        return "the index does not number its writes"
    # Restored, or promoted from a copy that was behind: numbers are given out again.
    return "the index lost writes" if newest < origin.seq_no else ""


def _continued(
    snapshot: Snapshot, query: dict[str, Any] | None, total: int, how: How, previous: Sessions, origin: Origin
) -> tuple[Sessions, Fetched] | str:
    """All sessions, of which only those are fetched that came since; or why that would not be all."""
    since: list[dict[str, Any]] = [{"range": {"_seq_no": {"gt": origin.seq_no - IN_PROGRESS}}}]
    # What lay in the future may not any more.
    future = [key for key, reason in origin.set_aside.items() if reason == Reason.FUTURE_TIMESTAMP.value]
    if future:
        since.append({"ids": {"values": future}})
    wanted = {"bool": {"should": since, "minimum_should_match": 1, "filter": [query] if query else []}}
    changed = snapshot.count(wanted)
    if changed > MOST * total:
        return "most of it is new, or was written lately"
    fetched = snapshot.fetch(wanted, changed, how, with_ids=True)
    if not fetched.own_ids:
        return "sessions have other ids than their documents"
    try:
        whole = updated(previous, origin, fetched.sessions, fetched.ids or [], fetched.set_aside, total)
    except SegmentsError as error:  # the earlier sessions are read when they are looked at
        return str(error)
    if whole is None:
        return "documents were deleted, or too many set aside"
    sessions, fetched.set_aside = whole
    return sessions, fetched


def _origin(snapshot: Snapshot, newest: int | None, bounds: str, intake: Intake, fetched: Fetched) -> Origin | None:
    if snapshot.uuid is None or newest is None or not fetched.own_ids or len(fetched.set_aside) > SET_ASIDE_KNOWN:
        return None
    return Origin(snapshot.uuid, newest, bounds, intake, fetched.set_aside)


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
