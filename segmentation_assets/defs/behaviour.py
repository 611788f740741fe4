"""Stage 7: behaviour clusters of users, and a persona for each."""

import dagster as dg

from segmentation_assets.core import user_plots
from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.users import quality
from segmentation_assets.core.users.behaviour import BehaviourModel, fit_behaviour
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.personas import Personas, describe
from segmentation_assets.core.users.preprocessing import transform
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.resources import ArtifactIOManager, SettingsResource
from segmentation_assets.io.profile_store import model_before

_LABELED = ["user_id", "search_query", "segment", "timestamp"]


@dg.asset(
    group_name="users",
    kinds={"scikitlearn", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="Users who behave alike: k-means (k=5, seeded), DBSCAN or HDBSCAN of scaled features. Clusters keep "
    "the ids of the model before where they match.",
)
def behaviour_clusters(
    context: dg.AssetExecutionContext,
    user_features: UserFeatures,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> dg.Output[BehaviourModel]:
    """Find the clusters and assign everybody."""
    previous = model_before(io_manager.store, context.log.warning)
    model = fit_behaviour(user_features, settings.load().behaviour, previous)
    stability = model.stability
    return dg.Output(
        model,
        metadata={
            "dagster/row_count": len(model.labels),
            "method": model.method,
            "k": len(model.sizes),
            "model_version": model.version,
            "previous_model": model.previous_version or "none",
            "ids_kept": len(model.kept or []),
            "fitted_on": model.fitted_on,
            "users_in_no_cluster": model.noise,
            "silhouette": "not defined" if stability.silhouette is None else round(stability.silhouette, 4),
            "bootstrap_agreement": "not measured" if stability.agreement is None else round(stability.agreement, 4),
            "details": {name: round(value, 6) for name, value in model.details.items()},
            "columns": [step.feature for step in model.preprocessing.numeric]
            + [step.trait for step in model.preprocessing.categorical],
            "left_out": model.preprocessing.left_out,
            "clusters": table(
                [
                    {"cluster": int(cluster), "users": size}
                    for cluster, size in zip(model.cluster_ids, model.sizes, strict=True)
                ],
                {"cluster": "int", "users": "int"},
            ),
            "user_map": picture(
                user_plots.user_map(
                    transform(model.preprocessing, user_features.table, user_features.traits),
                    model,
                    user_plots.cluster_names(model),
                ),
                "users by likeness",
            ),
        },
    )


@dg.asset_check(
    asset="behaviour_clusters", blocking=True, description="The clusters come out of other samples too, and lie apart."
)
def behaviour_stability(behaviour_clusters: BehaviourModel, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.behaviour_stability``."""
    return check_result(quality.behaviour_stability(behaviour_clusters, settings.load().checks.behaviour_stability))


@dg.asset(
    group_name="users",
    ins={"labeled_segments": dg.AssetIn(metadata={"columns": _LABELED})},
    kinds={"python"},
    owners=["team:segmentation"],
    code_version="1",
    description="What sets each behaviour cluster apart, in numbers and words, and a name from an editable table.",
)
def personas(
    user_features: UserFeatures,
    behaviour_clusters: BehaviourModel,
    labeled_segments: LabeledSegments,
    settings: SettingsResource,
) -> dg.Output[Personas]:
    """Describe and name the clusters."""
    found = describe(
        user_features,
        behaviour_clusters,
        settings.persona_names(),
        settings.load().personas,
        labeled_segments.table.select(_LABELED),
    )
    return dg.Output(
        found,
        metadata={
            "dagster/row_count": len(found.cards),
            "personas": table(
                [
                    {
                        "persona": card.name,
                        "cluster": card.cluster,
                        "users": card.users,
                        "share": card.share,
                        "named by": card.rule or "its own traits",
                        "what sets it apart": [trait.sentence for trait in card.traits],
                        "sample queries": card.queries,
                    }
                    for card in found.cards
                ],
                {
                    "persona": "string",
                    "cluster": "int",
                    "users": "int",
                    "share": "float",
                    "named by": "string",
                    "what sets it apart": "string",
                    "sample queries": "string",
                },
            ),
            "persona_sizes": picture(user_plots.cluster_sizes(found), "users by persona"),
            "segment_shares": picture(user_plots.segment_shares(found), "query segments by persona"),
            "features_by_cluster": picture(
                user_plots.feature_boxes(
                    user_features,
                    behaviour_clusters,
                    user_plots.cluster_names(behaviour_clusters, found),
                    user_plots.chosen_features(user_features, found),
                ),
                "features by cluster",
            ),
        },
    )
