"""What a stream needs of the batch side's results, and nothing of any single user.

What belongs here: the parts, their version, and making them of results. What does not: storing and sending them
(io.live_models), using them (segmenter).
"""

import hashlib
import json
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.live.features import prices_of
from segmentation_assets.core.model import ClusterModel, StaleInputError
from segmentation_assets.core.taxonomy import OTHER
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleanSessions
from segmentation_assets.core.users.features import UserFeatures, marked
from segmentation_assets.core.users.personas import Personas

BINS = 10
"""Parts of equal size that the users the model was made of are divided into, feature by feature."""


@dataclass(frozen=True)
class Reference:
    """How a feature was distributed among the users that a model was made of.

    Attributes:
        edges: inner bounds of the bins, rising, at most ``BINS - 1``: deciles, each once.
        shares: of the users in each bin, one more than there are edges.
        undefined: share of all users for whom it was not defined.
    """

    edges: list[float]
    shares: list[float]
    undefined: float


@dataclass(frozen=True)
class LiveModel:
    """Everything by which a user is segmented while events come in.

    Attributes:
        version: digest of all of it: another one says that somebody may be segmented otherwise.
        queries: clusters of queries; without the queries it was fitted on, which are many and those of users.
        segments: cluster of queries to its segment.
        behaviour: clusters of users; None where only queries are segmented. Without its users.
        personas: behaviour cluster to its name.
        prices: see ``features.Prices``; None where prices cannot be ranked.
        reference: feature to its distribution, for drift.
        mix: segment to its share of the users then.
    """

    version: str
    queries: ClusterModel
    segments: dict[int, str]
    behaviour: BehaviourModel | None = None
    personas: dict[int, str] = field(default_factory=dict)
    prices: pa.Table | None = None
    reference: dict[str, Reference] = field(default_factory=dict)
    mix: dict[str, float] = field(default_factory=dict)


def live_model(
    queries: ClusterModel,
    labeled: LabeledSegments,
    behaviour: BehaviourModel | None = None,
    personas: Personas | None = None,
    features: UserFeatures | None = None,
    clean: CleanSessions | None = None,
) -> LiveModel:
    """Put together what belongs together.

    Args:
        queries: the model of queries.
        labeled: names of its clusters.
        behaviour: the model of users; with it personas, features and clean sessions of the same run.
        personas: names of its clusters.
        features: what it was fitted on, for drift.
        clean: for the ranks of prices.

    Raises:
        StaleInputError: the results were not made from each other.
    """
    if labeled.model_version != queries.version:
        raise StaleInputError(
            f"labeled_segments (model {labeled.model_version}) are not those of the model {queries.version}.",
            "Materialize kmeans_model and labeled_segments again, in one run.",
        )
    if behaviour is not None and personas is not None and personas.model_version != behaviour.version:
        raise StaleInputError(
            f"The personas (model {personas.model_version}) are not those of the behaviour model {behaviour.version}.",
            "Materialize behaviour_clusters and personas again, in one run.",
        )
    segments = {entry.cluster: entry.segment for entry in labeled.labels} | {-1: OTHER}
    users = labeled.users.group_by("segment").aggregate([("user_id", "count")])
    total = max(labeled.users.num_rows, 1)
    model = LiveModel(
        version="",
        queries=_without_queries(queries),
        segments=dict(sorted(segments.items())),
        behaviour=None if behaviour is None else _without_users(behaviour),
        personas={} if personas is None else {card.cluster: card.name for card in personas.cards},
        prices=None if clean is None or behaviour is None else prices_of(clean.events),
        reference={} if features is None else reference_of(features),
        mix=dict(
            sorted(
                (segment, count / total)
                for segment, count in zip(users["segment"].to_pylist(), users["user_id_count"].to_pylist(), strict=True)
            )
        ),
    )
    return replace(model, version=_digest(model))


def reference_of(features: UserFeatures) -> dict[str, Reference]:
    """The distribution of every feature among the users who are not marked as noise."""
    normal = ~marked(features)
    found = {}
    for name in features.table.column_names:
        if name == "user_id":
            continue
        values = features.table[name].to_numpy(zero_copy_only=False)[normal].astype(np.float64)
        if len(values):
            found[name] = _reference(values)
    return found


def _reference(values: NDArray[np.float64]) -> Reference:
    known = values[~np.isnan(values)]
    if not len(known):
        return Reference([], [1.0], 1.0)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
    edges = edges[edges < known.max()]  # nobody would be beyond it
    counts = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    return Reference(edges.tolist(), (counts / len(known)).tolist(), 1 - len(known) / len(values))


def _without_queries(model: ClusterModel) -> ClusterModel:
    return replace(
        model,
        labels=np.empty(0, np.int32),
        confidence=np.empty(0, np.float32),
        queries=pa.array([], pa.string()),
        judged_queries=pa.array([], pa.string()),
        judged_counts=np.empty(0, np.int64),
        applied_to="",
    )


def _without_users(model: BehaviourModel) -> BehaviourModel:
    return replace(
        model,
        users=pa.array([], pa.string()),
        labels=np.empty(0, np.int32),
        confidence=np.empty(0, np.float32),
    )


def _digest(model: LiveModel) -> str:
    digest = hashlib.sha256()
    behaviour = None if model.behaviour is None else model.behaviour.version
    parts = [model.queries.version, sorted(model.segments.items()), behaviour, sorted(model.personas.items())]
    digest.update(json.dumps(parts, ensure_ascii=False).encode())
    if model.prices is not None and model.prices.num_rows:
        ordered = model.prices.sort_by([("category", "ascending"), ("price", "ascending")])
        digest.update("\0".join(ordered["category"].to_pylist()).encode())
        digest.update(ordered["price"].to_numpy().tobytes())
    return digest.hexdigest()[:16]
