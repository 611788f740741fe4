"""Stage 3: clusters of queries."""

import dagster as dg
from pydantic import Field

from segmentation_assets.core import plots, quality
from segmentation_assets.core.model import ClusterModel, top_terms
from segmentation_assets.core.retrain import retrain
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.vectorize import TfidfMatrix
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.resources import ArtifactIOManager, SettingsResource
from segmentation_assets.io.models import model_before
from segmentation_assets.io.settings import with_overrides


class KMeansConfig(dg.Config):
    """What a run may try instead of the settings file; empty means as the file says."""

    k: str | None = Field(None, description="Number of clusters, or 'auto'.")
    method: str | None = Field(None, description="'consensus', 'lsa', 'mixture', 'spherical' or 'kmeans'.")
    seed: int | None = Field(None, description="Seed of every random choice.")
    retrain: str | None = Field(
        None, description="'better': keep the previous model unless the new one is better; 'always': replace it."
    )

    refit_share: float | None = Field(
        None, ge=0, le=1, description="Share of new sessions from which a model is fitted and compared; 0: now."
    )


@dg.asset(
    group_name="segmentation",
    ins={"raw_sessions": dg.AssetIn(metadata={"columns": ["user_id"]})},
    kinds={"scikitlearn", "python"},
    owners=["team:segmentation"],
    code_version="2",
    description="K-means of the queries (k=5, seeded). Clusters keep the ids of the model before where they match, and "
    "a new model that is not better is not taken.",
)
def kmeans_model(
    context: dg.AssetExecutionContext,
    config: KMeansConfig,
    raw_sessions: Sessions,
    tfidf_matrix: TfidfMatrix,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> dg.Output[ClusterModel]:
    """Fit the model, or keep the one before."""
    chosen = with_overrides(settings.load(), **config.model_dump()).clusters
    model = retrain(
        tfidf_matrix, raw_sessions.user_numbers(), chosen, previous=model_before(io_manager.store, context.log.warning)
    )
    change, decision = model.change, model.decision
    return dg.Output(
        model,
        metadata={
            "dagster/row_count": len(model.labels),
            "k": model.k,
            "method": model.method,
            "seed": chosen.seed,
            "model_version": model.version,
            "clusters": table(
                [
                    {
                        "cluster": int(cluster),
                        "sessions": size,
                        "top terms": list(top_terms(tfidf_matrix, model, int(cluster), 8)),
                    }
                    for cluster, size in zip(model.cluster_ids, model.sizes, strict=True)
                ],
                {"cluster": "int", "sessions": "int", "top terms": "string"},
            ),
            "sessions_without_cluster": model.unclustered,
            "objective": model.objective,
            **({"decision": decision.summary, **decision.numbers} if decision else {}),
            "previous_model": change.previous_version or "none",
            "sessions_that_changed_cluster": round(change.changed_share, 4),
            "clusters_kept_new_retired": f"{change.kept} kept, {change.new} new, {change.retired} retired",
            **(
                {
                    "choice_of_k": picture(plots.choice_of_k(model.k_choice), "three rulers by k"),
                    "k_confident": model.k_choice.confident,
                    "k_reason": model.k_choice.reason,
                }
                if model.k_choice
                else {}
            ),
        },
    )


@dg.asset_check(asset="kmeans_model", blocking=True, description="No cluster swallows the rest, none is a crumb.")
def cluster_balance(kmeans_model: ClusterModel, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.cluster_balance``."""
    bounds = settings.load().checks.cluster_balance
    return check_result(quality.cluster_balance(kmeans_model.sizes, kmeans_model.unclustered, bounds))
