"""What is known about users from elsewhere: the index of attributes, and whoever else can be asked.

What belongs here: reading and writing the index, and who is asked in which order. What does not: which values can be
used and who is believed (core.users.attributes), how a file is read or a service asked (enrichment).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elasticsearch import ApiError, Elasticsearch, NotFoundError

from segmentation_assets.core.settings import AttributeSettings
from segmentation_assets.core.users.attributes import (
    ATTRIBUTES_SCHEMA,
    AttributeReason,
    AttributeSource,
    UserAttributes,
    check_attributes,
    merge_attributes,
)
from segmentation_assets.io import bulk
from segmentation_assets.io.elasticsearch import errors_explained
from segmentation_assets.io.enrichment import Enricher, FileEnricher, HttpEnricher
from segmentation_assets.io.point_in_time import PAGE_SIZE, hits, open_point_in_time
from segmentation_assets.io.session_store import Progress
from segmentation_assets.io.settings import beside
from segmentation_assets.io.templates import attributes_template, ensure_index


def gather_attributes(
    client: Elasticsearch,
    settings: AttributeSettings,
    users: Sequence[str],
    *,
    now: datetime,
    cache: Path | None,
    config_file: Path | None,
    token: str | None,
    on_progress: Progress | None = None,
) -> UserAttributes:
    """Find out what is known about the users of the sessions.

    First the index is read, then the file; each value is taken from the first of them that has it. Who asks a service
    asks only for what is not known: it is asked about the users of whom neither of the two has a single value.

    Args:
        client: the client.
        settings: the index, and who else is asked.
        users: ids of the users; records about others are set aside.
        now: aware datetime; later dates are in the future.
        cache: file in which the answers of the service are remembered; None: nowhere.
        config_file: the settings file, to which the path of the file of attributes is relative.
        token: for the service.
        on_progress: called with how many are done, and of how many where that is known, anew for each source.

    Raises:
        EnrichmentFileInvalid: a file is named that cannot be used.
        EnrichmentInvalid: a service is named whose address cannot be right.
        SegmentsError: the index cannot be read; see ``read_attributes``.
    """
    asked = settings.enrichment
    wanted = frozenset(users)
    # What is wrong with the settings is said before anything is read.
    file = FileEnricher(beside(asked.file, config_file)) if asked.file else None
    service = HttpEnricher(asked, token, cache, now=now) if asked.url else None
    sources = [read_attributes(client, settings.index, now=now, users=wanted, on_progress=on_progress)]
    if file is not None:
        sources.append(_asked(file, sorted(wanted), now, on_progress))
    if service is not None:
        known = frozenset().union(*(source.known for source in sources))
        sources.append(_asked(service, sorted(wanted - known), now, on_progress))
        sources[-1].remark(f"asked about {len(wanted - known):,} of whom nothing was known")
    return merge_attributes(sources)


def _asked(enricher: Enricher, users: Sequence[str], now: datetime, on_progress: Progress | None) -> AttributeSource:
    answers = enricher.look_up(users, on_progress)
    source = AttributeSource(enricher.name, now)
    for user, record in answers.found.items():
        source.add({**record, "user_id": user})
    for reason, records in answers.set_aside.items():
        source.count_out(reason, records)
    source.failed.update(answers.failed.values())
    for number, what in (
        (len(answers.unknown), "not known there"),
        (len(answers.failed), "without an answer"),
        (len(answers.outdated), "with an answer from before, which has expired"),
    ):
        if number:
            source.remark(f"{number:,} {what}")
    for remark in answers.remarks:
        source.remark(remark)
    return source


def read_attributes(
    client: Elasticsearch,
    index: str,
    *,
    now: datetime,
    users: Collection[str] | None = None,
    page_size: int = PAGE_SIZE,
    on_progress: Progress | None = None,
) -> AttributeSource:
    """Read the index of attributes as it is at one moment.

    Of two documents about a user the one written later is taken. That there is no such index, or that the credentials
    may not read it, is no error: it is said in the account (``AttributeSource.summary``).

    Args:
        client: the client.
        index: index, alias or pattern.
        now: aware datetime; later dates are in the future.
        users: of the sessions; None: all are taken.
        page_size: documents in one answer, at most 10,000.
        on_progress: called with the number of documents read so far.

    Raises:
        ShortRead: the snapshot could not be read to its end.
        SegmentsError: see ``io.elasticsearch``.
    """
    source = AttributeSource(f"index {index}", now, users)
    with errors_explained(client, f"read {index}"):
        try:
            pit = open_point_in_time(client, index)
        except NotFoundError:
            source.remark("there is no such index")
            return source
        except ApiError as error:
            # A key that may only read the sessions gets 403 for this index, there or not: whoever keeps no attributes
            # need not grant anything for them.
            if error.meta.status == 403 and "security_exception" in str(error.body):
                source.remark("the credentials are not allowed to read it")
                return source
            raise
        wanted = {"source": ATTRIBUTES_SCHEMA.names, "seq_no_primary_term": True}
        for hit in hits(client, index, pit, page_size=page_size, **wanted):
            source.add(hit.get("_source"), (int(hit.get("_seq_no", 0)), f"{hit['_id']}@{hit['_index']}"))
            if on_progress is not None and source.read % page_size == 0:
                on_progress(source.read, None)
    return source


def write_attributes(
    client: Elasticsearch,
    index: str,
    records: Iterable[Mapping[str, object]],
    *,
    now: datetime,
    set_aside: Counter[str] | None = None,
    on_progress: Progress | None = None,
) -> int:
    """Write what is known about users, a document each under the user's id; what was there of these users is replaced.

    Values that cannot be used are left out, and so is a record that has none left: see ``check_attributes``.

    Args:
        client: the client.
        index: name of the index, created with the project's mapping when absent.
        records: of two about a user the later one is written.
        now: aware datetime; later dates are in the future.
        set_aside: records that were not written are counted in here, by reason.
        on_progress: called with the number of records read so far.

    Returns:
        The number of users written.

    Raises:
        BulkFailed: the index refuses documents that are fine, because it has another mapping.
        SegmentsError: see ``io.elasticsearch`` and ``io.templates``.
    """
    aside: Counter[str] = Counter() if set_aside is None else set_aside
    read = 0
    written: set[str] = set()

    def good() -> Iterator[tuple[str, bytes]]:
        nonlocal read
        for record in records:
            read += 1
            checked = check_attributes(record, now)
            if isinstance(checked, AttributeReason):
                aside[checked.value] += 1
            elif not checked.values:
                aside[AttributeReason.NO_VALUE.value] += 1
            else:
                if checked.user_id in written:
                    aside[AttributeReason.DUPLICATE_USER.value] += 1
                written.add(checked.user_id)
                content = {"user_id": checked.user_id, **_stored(checked.values)}
                yield checked.user_id, bulk.index_line(checked.user_id, bulk.to_json(content))

    def on_batch(*_: object) -> None:
        if on_progress is not None:
            on_progress(read, None)

    with errors_explained(client, f"write {index}"):
        ensure_index(client, index, attributes_template(index))
        bulk.write(client, index, bulk.in_batches(good()), on_batch=on_batch)
        client.indices.refresh(index=index)
    return len(written)


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: bulk.iso(value.astimezone(UTC)) if isinstance(value, datetime) else value
        for name, value in values.items()
    }
