"""The documents of ``user_segments``.

What belongs here: which columns a published segment has. What does not: how publishing is made safe (publishing).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

import pyarrow as pa
from elasticsearch import Elasticsearch

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.settings import OptionalField, PublishSettings
from segmentation_assets.io.publishing import PublishedDocuments, publish
from segmentation_assets.io.session_store import count_sessions
from segmentation_assets.io.templates import segment_template


@dataclass(frozen=True)
class PublishedSegments(PublishedDocuments):
    """Segments that were published."""


def publish_segments(
    client: Elasticsearch,
    labeled: LabeledSegments,
    settings: PublishSettings,
    *,
    run_id: str,
    now: datetime,
    before: LabeledSegments | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> PublishedSegments:
    """Publish a segment for every session; see ``publishing.publish`` for what can be raised and what then stays as
    it was.

    Args:
        client: the client.
        labeled: what to publish.
        settings: where and how.
        run_id: noted in the index.
        now: aware datetime, the documents' ``published_at``.
        before: what was published last. Where readers see just that, only the difference is written.
        on_progress: called with the number written so far and how many there are.
    """
    rows = labeled.table.num_rows
    constants = {"model_version": labeled.model_version, "published_at": now.astimezone(UTC)}
    published = publish(
        client,
        settings.alias,
        _documents(labeled, settings),
        constants={name: value for name, value in constants.items() if name in settings.fields},
        before=_documents(before, settings) if before else None,
        at_writing=["published_at"],
        id_field="session_id",
        expected=rows,
        meta={"run_id": run_id, "model_version": labeled.model_version},
        template=segment_template(settings.alias),
        keep=settings.keep,
        batch_documents=settings.batch_documents,
        in_flight=settings.in_flight,
        on_progress=on_progress,
    )
    return PublishedSegments.of(published, labeled.model_version)


def _documents(labeled: LabeledSegments, settings: PublishSettings) -> pa.Table:
    left_out = set(get_args(OptionalField)) - settings.fields
    return labeled.table.drop_columns([name for name in labeled.table.column_names if name in left_out])


def count_segments(client: Elasticsearch, alias: str) -> int:
    """How many documents a reader of the alias sees.

    Raises:
        IndexMissing: there is no such alias.
    """
    return count_sessions(client, alias)
