"""Stage 8: one profile for each user into Elasticsearch."""

from datetime import UTC, datetime

import dagster as dg

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.users import quality
from segmentation_assets.core.users.attributes import UserAttributes
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleanSessions
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.personas import Personas
from segmentation_assets.core.users.profiles import build_profiles
from segmentation_assets.core.users.rules import RuleSegments
from segmentation_assets.core.users.scores import UserScores
from segmentation_assets.defs.metadata import check_result
from segmentation_assets.defs.progress import log_progress
from segmentation_assets.defs.publishing import hold_back
from segmentation_assets.defs.resources import ArtifactIOManager, ElasticsearchResource, SettingsResource
from segmentation_assets.io.profile_store import PublishedProfiles, mark_served, publish_profiles
from segmentation_assets.io.session_store import count_sessions


@dg.asset(
    group_name="users",
    kinds={"elasticsearch", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="A profile of every user in `user_profiles`: query segments, behaviour cluster, persona, rules, "
    "scores, features and flags. A new index, verified, then the alias swapped.",
)
def es_user_profiles(
    context: dg.AssetExecutionContext,
    clean_sessions: CleanSessions,
    user_attributes: UserAttributes,
    user_features: UserFeatures,
    user_scores: UserScores,
    rule_segments: RuleSegments,
    behaviour_clusters: BehaviourModel,
    personas: Personas,
    labeled_segments: LabeledSegments,
    elasticsearch: ElasticsearchResource,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> dg.Output[PublishedProfiles]:
    """Put everything about each user side by side, and publish it unless a check does not hold."""
    chosen = settings.load()
    gate = quality.profile_gate(clean_sessions, behaviour_clusters, labeled_segments, chosen.checks)
    hold_back(gate, io_manager, chosen)
    profiles = build_profiles(
        user_features,
        user_scores,
        rule_segments,
        behaviour_clusters,
        personas,
        users_segments=labeled_segments.users,
        attributes=user_attributes,
        segment_model_version=labeled_segments.model_version,
        clean=clean_sessions,
    )
    with elasticsearch.client() as client:
        published = publish_profiles(
            client,
            profiles,
            chosen.profiles,
            run_id=context.run.run_id,
            now=datetime.now(UTC),
            on_progress=log_progress(context.log),
        )
    mark_served(io_manager.store, published.model_version)
    return dg.Output(
        published,
        metadata={
            "dagster/row_count": published.documents,
            "alias": published.alias,
            "index": published.index,
            "previous_index": published.previous or "none",
            "removed_indices": published.removed,
            "model_version": published.model_version,
            "segment_model_version": profiles.segment_model_version,
        },
    )


@dg.asset_check(
    asset="es_user_profiles",
    additional_ins={"clean_sessions": dg.AssetIn("clean_sessions")},
    description="What readers see is every user of the sessions.",
)
def profiles_complete(
    es_user_profiles: PublishedProfiles, clean_sessions: CleanSessions, elasticsearch: ElasticsearchResource
) -> dg.AssetCheckResult:
    """Counts through the alias, as a reader would; see ``quality.profiles_complete``."""
    with elasticsearch.client() as client:
        return check_result(
            quality.profiles_complete(clean_sessions.users.num_rows, count_sessions(client, es_user_profiles.alias))
        )
