"""Stage 4: names for clusters, a segment for every session."""

from typing import Any

import dagster as dg

from segmentation_assets.core import plots, quality
from segmentation_assets.core.churn import Churn
from segmentation_assets.core.labels import LabeledSegments, label, summarize
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.retrain import made_with, with_churn
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.vectorize import TfidfMatrix
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.resources import ArtifactIOManager, SettingsResource
from segmentation_assets.io.models import served


@dg.asset(
    group_name="segmentation",
    ins={"raw_sessions": dg.AssetIn(metadata={"columns": ["session_id", "user_id", "search_query", "timestamp"]})},
    kinds={"pandas", "python"},
    owners=["team:segmentation"],
    code_version="2",
    description="Clusters named by their dominant keywords against the taxonomy, else `other`, with the evidence.",
)
def labeled_segments(
    context: dg.AssetExecutionContext,
    raw_sessions: Sessions,
    tfidf_matrix: TfidfMatrix,
    kmeans_model: ClusterModel,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> dg.Output[LabeledSegments]:
    """Name the clusters, and see who changes segment by it."""
    chosen, taxonomy = settings.load(), settings.taxonomy()
    labeled = with_churn(
        label(raw_sessions, tfidf_matrix, kmeans_model, taxonomy, chosen.labels),
        served(io_manager.store, context.log.warning),
        made_with(kmeans_model, chosen.labels, taxonomy),
    )
    summary = summarize(labeled)
    return dg.Output(
        labeled,
        metadata={
            "dagster/row_count": labeled.table.num_rows,
            "segments": table(
                summary.to_dict("records"),
                {
                    "segment": "string",
                    "users": "int",
                    "sessions": "int",
                    "share": "float",
                    "clusters": "string",
                    "keywords": "string",
                    "sample_queries": "string",
                },
            ),
            "evidence": table(
                [
                    {
                        "cluster": entry.cluster,
                        "segment": entry.segment,
                        "sessions": entry.sessions,
                        "share with keyword": entry.share,
                        "certainty": entry.certainty,
                        "keywords (share)": [f"{word} ({share:.0%})" for word, share in entry.evidence.items()],
                        "runner-up": f"{entry.runner_up} ({entry.runner_up_share:.0%})" if entry.runner_up else "none",
                        "mixed": entry.mix,
                        "suggested name": entry.suggested_name,
                        "typical queries": entry.sample_queries,
                    }
                    for entry in labeled.labels
                ],
                {
                    "cluster": "int",
                    "segment": "string",
                    "sessions": "int",
                    "share with keyword": "float",
                    "certainty": "float",
                    "keywords (share)": "string",
                    "runner-up": "string",
                    "mixed": "string",
                    "suggested name": "string",
                    "typical queries": "string",
                },
            ),
            "mixed_clusters": sum(entry.mixed for entry in labeled.labels),
            "segment_sizes": picture(plots.segment_sizes(summary), "sessions and users by segment"),
            "query_map": picture(
                plots.query_map(tfidf_matrix, kmeans_model, labeled, chosen.clusters.seed), "map of the queries"
            ),
            "terms_by_cluster": picture(plots.cluster_terms(labeled), "terms of each cluster"),
            **_churn(labeled.churn),
            "sample": table(
                labeled.table.select(["user_id", "search_query", "cluster", "segment", "confidence"])
                .slice(0, 10)
                .to_pylist(),
                {
                    "user_id": "string",
                    "search_query": "string",
                    "cluster": "int",
                    "segment": "string",
                    "confidence": "float",
                },
            ),
        },
    )


def _churn(churn: Churn | None) -> dict[str, Any]:
    if churn is None or churn.first:
        return {"user_churn": "none: this is the first result, nothing was published before it"}
    return {
        "user_churn": (
            f"{churn.changed_share:.1%} of the {churn.users} users in both this result and the published one changed "
            f"segment: {churn.by_behaviour} because their behaviour changed, {churn.by_model} because the model "
            f"changed; {churn.came} users came, {churn.left} left"
        ),
        "users_that_changed_segment": round(churn.changed_share, 4),
        "users_moved_by_behaviour": round(churn.behaviour_share, 4),
        "users_moved_by_model": round(churn.model_share, 4),
        "user_flows": table(
            [
                {
                    "from": flow.before,
                    "to": flow.now,
                    "users": flow.users,
                    "by behaviour": flow.by_behaviour,
                    "by model": flow.by_model,
                }
                for flow in churn.flows
            ],
            {"from": "string", "to": "string", "users": "int", "by behaviour": "int", "by model": "int"},
        ),
        "user_flow_plot": picture(plots.user_flows(churn), "users by segment, before and now"),
    }


@dg.asset_check(
    asset="labeled_segments", blocking=True, description="Enough sessions and users are in a segment with a name."
)
def label_coverage(labeled_segments: LabeledSegments, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.label_coverage``."""
    return check_result(quality.label_coverage(labeled_segments, settings.load().checks.label_coverage))


@dg.asset_check(
    asset="labeled_segments", blocking=True, description="Not too many users change segment because the model changed."
)
def user_churn(labeled_segments: LabeledSegments, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.user_churn``."""
    return check_result(quality.user_churn(labeled_segments.churn, settings.load().checks.user_churn))
