"""The documents of ``user_segments``.

What belongs here: which columns a published segment has. What does not: how publishing is made safe (publishing).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from elasticsearch import Elasticsearch

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.settings import PublishSettings
from segmentation_assets.io.publishing import publish
from segmentation_assets.io.session_store import count_sessions
from segmentation_assets.io.templates import segment_template


@dataclass(frozen=True)
class PublishedSegments:
    """What was published.

    Attributes:
        alias: what consumers read.
        index: the index behind it.
        documents: how many it holds.
        previous: the index the alias led to before, if any.
        removed: older or unfinished indices that were removed.
        model_version: the model that made the segments.
    """

    alias: str
    index: str
    documents: int
    previous: str | None
    removed: list[str]
    model_version: str


def publish_segments(
    client: Elasticsearch,
    labeled: LabeledSegments,
    settings: PublishSettings,
    *,
    run_id: str,
    now: datetime,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> PublishedSegments:
    """Publish a segment for every session; see ``publishing.publish`` for what can be raised and what then stays as
    it was.
    """
    rows = labeled.table.num_rows
    published = publish(
        client,
        settings.alias,
        labeled.table,
        constants={"model_version": labeled.model_version, "published_at": now.astimezone(UTC)},
        id_field="session_id",
        expected=rows,
        meta={"run_id": run_id, "model_version": labeled.model_version},
        template=segment_template(settings.alias),
        keep=settings.keep,
        batch_documents=settings.batch_documents,
        in_flight=settings.in_flight,
        on_progress=on_progress,
    )
    return PublishedSegments(
        alias=published.alias,
        index=published.index,
        documents=published.documents,
        previous=published.previous,
        removed=[*published.removed, *published.leftovers_removed],
        model_version=labeled.model_version,
    )


def count_segments(client: Elasticsearch, alias: str) -> int:
    """How many documents a reader of the alias sees.

    Raises:
        IndexMissing: there is no such alias.
    """
    return count_sessions(client, alias)
