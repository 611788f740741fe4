"""The batch side's results on generated sessions, by the code of the assets, without Dagster or a server."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.labels import LabeledSegments, label, shipped_taxonomy
from segmentation_assets.core.live.model import LiveModel, live_model
from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.sessions import SessionBuilder, Sessions
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.users.behaviour import BehaviourModel, fit_behaviour
from segmentation_assets.core.users.cleaning import CleanSessions, clean
from segmentation_assets.core.users.features import UserFeatures, measure
from segmentation_assets.core.users.personas import Personas, describe, shipped_names
from segmentation_assets.core.vectorize import vectorize

END = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Batch:
    """What a run makes of generated sessions."""

    documents: list[dict[str, Any]]
    sessions: Sessions
    queries: ClusterModel
    labeled: LabeledSegments
    clean: CleanSessions
    features: UserFeatures
    behaviour: BehaviourModel
    personas: Personas
    model: LiveModel


def batch_side(sessions: int, sessions_per_user: float = 4.5, seed: int = 11, **clusters: Any) -> Batch:
    """Everything that a stream needs, of so many generated sessions.

    Args:
        sessions: how many.
        sessions_per_user: mean.
        seed: of the generated sessions.
        clusters: settings of the clusters of queries, other than the defaults.
    """
    settings = Settings()
    documents = generate_sessions(sessions, seed, END, behaviour=True, sessions_per_user=sessions_per_user).documents
    documents = list(documents)
    builder = SessionBuilder(END)
    for document in documents:
        builder.add(document["session_id"], document)
    read = builder.finish()
    chosen = settings.clusters.model_copy(update=clusters)
    tfidf = vectorize(read.table["search_query"], settings.vectors.for_method(chosen.method))
    queries = fit(tfidf, read.user_numbers(), chosen)
    labeled = label(read, tfidf, queries, shipped_taxonomy(), settings.labels)
    cleaned = clean(read.table, settings.cleaning)
    features = measure(cleaned, labeled.table.select(["session_id", "segment"]), None, settings.features)
    behaviour = fit_behaviour(features, settings.behaviour.model_copy(update={"bootstraps": 0}))
    personas = describe(features, behaviour, shipped_names(), settings.personas)
    model = live_model(queries, labeled, behaviour, personas, features, cleaned)
    return Batch(documents, read, queries, labeled, cleaned, features, behaviour, personas, model)
