"""Stage 4: names for clusters, a segment for every session."""

import dagster as dg

from segmentation_assets.core import plots, quality
from segmentation_assets.core.labels import LabeledSegments, label, summarize
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.vectorize import TfidfMatrix
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.resources import SettingsResource


@dg.asset(
    group_name="segmentation",
    kinds={"pandas", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="Clusters named by their dominant keywords against the taxonomy, else `other`, with the evidence.",
)
def labeled_segments(
    raw_sessions: Sessions, tfidf_matrix: TfidfMatrix, kmeans_model: ClusterModel, settings: SettingsResource
) -> dg.Output[LabeledSegments]:
    """Name the clusters."""
    chosen = settings.load()
    labeled = label(raw_sessions, tfidf_matrix, kmeans_model, settings.taxonomy(), chosen.labels)
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
                        "keywords (share)": [f"{word} ({share:.0%})" for word, share in entry.evidence.items()],
                        "runner-up": f"{entry.runner_up} ({entry.runner_up_share:.0%})" if entry.runner_up else "none",
                    }
                    for entry in labeled.labels
                ],
                {
                    "cluster": "int",
                    "segment": "string",
                    "sessions": "int",
                    "share with keyword": "float",
                    "keywords (share)": "string",
                    "runner-up": "string",
                },
            ),
            "segment_sizes": picture(plots.segment_sizes(summary), "sessions and users by segment"),
            "query_map": picture(
                plots.query_map(tfidf_matrix, kmeans_model, labeled, chosen.clusters.seed), "map of the queries"
            ),
            "terms_by_cluster": picture(plots.cluster_terms(labeled), "terms of each cluster"),
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


@dg.asset_check(
    asset="labeled_segments", blocking=True, description="Enough sessions and users are in a segment with a name."
)
def label_coverage(labeled_segments: LabeledSegments, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.label_coverage``."""
    return check_result(quality.label_coverage(labeled_segments, settings.load().checks.label_coverage))
