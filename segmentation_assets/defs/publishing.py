"""Stage 5: segments into Elasticsearch, for whoever reads them."""

from datetime import UTC, datetime

import dagster as dg

from segmentation_assets.core import quality
from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.settings import Settings
from segmentation_assets.defs.metadata import check_result, table
from segmentation_assets.defs.progress import log_progress
from segmentation_assets.defs.resources import ArtifactIOManager, ElasticsearchResource, SettingsResource
from segmentation_assets.io.models import mark_serving, served_labels
from segmentation_assets.io.segment_store import PublishedSegments, count_segments, publish_segments


class PublishConfig(dg.Config):
    """What a run may decide about publishing."""

    write_all: bool = False
    """Write every segment, also those that readers see already."""


@dg.asset(
    group_name="segmentation",
    kinds={"elasticsearch", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="A segment for every session in `user_segments`: a new index, verified, then the alias swapped. Where "
    "most stays as it is, the index begins as a clone and only the difference is written.",
)
def es_user_segments(
    context: dg.AssetExecutionContext,
    config: PublishConfig,
    labeled_segments: LabeledSegments,
    elasticsearch: ElasticsearchResource,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> dg.Output[PublishedSegments]:
    """Publish, unless a check does not hold."""
    chosen = settings.load()
    hold_back(quality.publish_gate(labeled_segments, chosen.checks), io_manager, chosen)
    with elasticsearch.client() as client:
        published = publish_segments(
            client,
            labeled_segments,
            chosen.publish,
            run_id=context.run.run_id,
            now=datetime.now(UTC),
            before=None if config.write_all else served_labels(io_manager.store, context.log.warning),
            on_progress=log_progress(context.log),
        )
    mark_serving(io_manager.store, published.model_version, context.run.run_id)
    return dg.Output(
        published,
        metadata={
            "dagster/row_count": published.documents,
            "written": published.written,
            "alias": published.alias,
            "index": published.index,
            "previous_index": published.previous or "none",
            "removed_indices": published.removed,
            "model_version": published.model_version,
            "sample": table(
                labeled_segments.table.select(["user_id", "search_query", "segment"]).slice(0, 10).to_pylist(),
                {"user_id": "string", "search_query": "string", "segment": "string"},
            ),
        },
    )


def hold_back(gate: list[quality.CheckOutcome], io_manager: ArtifactIOManager, chosen: Settings) -> None:
    """Publish nothing where one of these outcomes, or one of what is stored further up, does not hold.

    Dagster lets a run of the last asset alone through after a blocking check failed in an earlier run. And a check that
    failed further up stopped that run before it labelled anything: the labels are then still those of the data before,
    and pass by themselves.

    Raises:
        PublishRefusedError: says which does not hold.
    """
    store = io_manager.store
    intake = store.load_field("raw_sessions", Sessions, "intake")
    sizes, unclustered = (store.load_field("kmeans_model", ClusterModel, name) for name in ("sizes", "unclustered"))
    above = [
        quality.sessions_accounted(intake),
        quality.session_validity(intake, chosen.checks.session_validity),
        quality.cluster_balance(sizes, unclustered, chosen.checks.cluster_balance),
    ]
    quality.require_publishable(gate + [outcome for outcome in above if outcome not in gate])


@dg.asset_check(
    asset="es_user_segments",
    additional_ins={"labeled_segments": dg.AssetIn("labeled_segments")},
    description="What readers see is all that was labelled.",
)
def published_complete(
    es_user_segments: PublishedSegments,
    labeled_segments: LabeledSegments,
    elasticsearch: ElasticsearchResource,
) -> dg.AssetCheckResult:
    """Counts through the alias, as a reader would; see ``quality.published_complete``."""
    with elasticsearch.client() as client:
        return check_result(
            quality.published_complete(labeled_segments.table.num_rows, count_segments(client, es_user_segments.alias))
        )
