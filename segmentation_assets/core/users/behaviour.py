"""Behaviour clusters: a fitted model of how users behave, and which of its clusters each is in.

What belongs here: fitting, ids that stay from model to model, stability. What does not: the methods (clustering),
names and traits (personas).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no type information

from segmentation_assets.core.clustering.kmeans import THREADS
from segmentation_assets.core.model import match_clusters
from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.users.clustering import METHODS, NOISE, Clusters, TooFewUsersError, assign
from segmentation_assets.core.users.features import UserFeatures, marked, of_users
from segmentation_assets.core.users.preprocessing import Preprocessing, fit_preprocessing, transform

COMPARED = 5_000
"""Users at most that the silhouette is of, that a bootstrap sample is made of and that it is compared on."""

STARTS = 3
"""Starts of k-means on a bootstrap sample."""


@dataclass(frozen=True)
class Stability:
    """How far a clustering can be relied on.

    Attributes:
        silhouette: mean silhouette of the clustered users (a sample of them), -1..1; None with fewer than 2 clusters.
        agreements: adjusted Rand index between this clustering and each of those fitted on bootstrap samples, over the
            users of both (a sample of them); noise counts as a group. Empty with fewer than 2 clusters, where there is
            nothing to agree on.
        agreement: their mean; None where none was made.
    """

    silhouette: float | None
    agreements: list[float]
    agreement: float | None


@dataclass(frozen=True)
class BehaviourModel:
    """A fitted clustering of users. See ``clustering.base.Clusters`` for points and reach.

    Attributes:
        version: digest of all that decides an assignment.
        method: 'kmeans', 'dbscan' or 'hdbscan'.
        preprocessing: from features to rows.
        points: (m, d) float64.
        point_clusters: (m,) int32, the cluster id that each point stands for.
        reach: (m,) float64.
        cluster_ids: (k,) int32, ids; they stay when a later model finds the same cluster.
        next_id: the first id never used.
        users: (n,) text, sorted: who was assigned.
        labels: (n,) int32: their cluster id, -1 is noise.
        confidence: (n,) float32, 0..1: how far the nearest cluster is ahead of the second, ``1 - first / second``
            distance; 0 for noise.
        sizes: users of each cluster, in the order of ``cluster_ids``.
        noise: users in no cluster.
        fitted_on: users that the clusters were found in (marked users, and beyond a number the others, are only
            assigned).
        stability: how far to rely on it.
        details: numbers of the method (eps, objective, suggested eps).
        previous_version: of the model before; None for the first.
        kept: ids carried over from it.
    """

    version: str
    method: str
    preprocessing: Preprocessing
    points: NDArray[np.float64]
    point_clusters: NDArray[np.int32]
    reach: NDArray[np.float64]
    cluster_ids: NDArray[np.int32]
    next_id: int
    users: pa.Array
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    sizes: list[int]
    noise: int
    fitted_on: int
    stability: Stability
    details: dict[str, float]
    previous_version: str | None = None
    kept: list[int] | None = None


def fit_behaviour(
    features: UserFeatures, settings: BehaviourSettings, previous: BehaviourModel | None = None
) -> BehaviourModel:
    """Find behaviour clusters and assign every user.

    Preprocessing and clusters are found among the users who are not marked as noise, a seeded sample of them where they
    are more than ``fit_users``; then every user is assigned, marked ones too. A first model numbers its clusters by
    size; a later one keeps the ids of those it can match with ``previous``, which is asked to assign the same users
    (``core.model.match_clusters``). An id that is no longer used is never given to another cluster.

    Args:
        features: of all users, in any order.
        settings: method and preprocessing.
        previous: the model to carry ids over from.

    Raises:
        TooFewUsersError: no user is left who is not marked, or fewer different ones than clusters.
        UnknownFeatureError, NoFeaturesError: see ``fit_preprocessing``.
    """
    import sklearn.cluster  # noqa: F401  # the limit holds for libraries that are loaded

    with threadpool_limits(THREADS):  # the same bits on any machine
        return _fit(_by_user(features), settings, previous)


def predict(model: BehaviourModel, features: UserFeatures) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Cluster id (-1 is noise) and confidence of one user or many, (n,) each, in the order of ``features.table``.

    A user gets the same alone as among others, and those whom the model was fitted on what it says of them.
    """
    traits = of_users(features.traits, features.table["user_id"])
    return _predict(model, transform(model.preprocessing, features.table, traits))


def _predict(model: BehaviourModel, rows: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    # By place, not by id: of equally near clusters the first one is taken, whatever it is called.
    place = _place(model.point_clusters, model.cluster_ids)
    index, confidence = assign(rows, model.points, place, model.reach)
    return _named(index, model.cluster_ids), confidence


def _fit(features: UserFeatures, settings: BehaviourSettings, previous: BehaviourModel | None) -> BehaviourModel:
    users = features.table["user_id"].combine_chunks()
    among = ~marked(features)
    if not among.any():
        raise TooFewUsersError(
            f"Behaviour clusters cannot be found: there are {len(users)} users, and all of them are marked as noise."
            if len(users)
            else "Behaviour clusters cannot be found: there are no users.",
            "Read more sessions" + (", or widen the bounds in cleaning." if len(users) else "."),
        )
    preprocessing = fit_preprocessing(features, settings, among)
    rows = transform(preprocessing, features.table, features.traits)
    chance = np.random.default_rng(settings.seed)
    sample = np.sort(chance.permutation(np.flatnonzero(among))[: settings.fit_users])
    found = METHODS[settings.method].fit(rows[sample], settings)

    index, _ = assign(rows, found.points, found.point_labels, found.reach)
    by_size = np.argsort(-_users_in(index, found.k), kind="stable")
    place = np.empty(found.k, np.int32)
    place[by_size] = np.arange(found.k, dtype=np.int32)
    point_places = place[found.point_labels]
    index, confidence = assign(rows, found.points, point_places, found.reach)
    sizes = _users_in(index, found.k)
    model = BehaviourModel(
        version="",
        method=settings.method,
        preprocessing=preprocessing,
        points=found.points,
        point_clusters=point_places,
        reach=found.reach,
        cluster_ids=np.arange(found.k, dtype=np.int32),
        next_id=found.k,
        users=users,
        labels=index,
        confidence=confidence,
        sizes=sizes.tolist(),
        noise=int((index < 0).sum()),
        fitted_on=len(sample),
        stability=_stability(found, rows[sample], index[sample], settings, chance),
        details=found.details,
    )
    if previous is not None:
        model = _carry_ids_over(model, previous, features)
    return replace(model, version=_digest(model))


def _by_user(features: UserFeatures) -> UserFeatures:
    """The same with the users in order."""
    table = features.table.sort_by("user_id")
    return replace(features, table=table, traits=of_users(features.traits, table["user_id"]))


def _users_in(index: NDArray[np.int32], k: int) -> NDArray[np.int64]:
    return np.bincount(index[index >= 0], minlength=k)


def _named(index: NDArray[np.int32], ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Places among the ids as ids; noise stays."""
    named = np.full(len(index), NOISE, np.int32)
    named[index >= 0] = ids[index[index >= 0]]
    return named


def _place(ids: NDArray[np.int32], among: NDArray[np.int32]) -> NDArray[np.int32]:
    """The places of ids among different ones."""
    order = np.argsort(among)
    return order[np.searchsorted(among, ids, sorter=order)].astype(np.int32)


def _carry_ids_over(model: BehaviourModel, previous: BehaviourModel, features: UserFeatures) -> BehaviourModel:
    before, _ = predict(previous, features)
    places = np.full(len(before), NOISE, np.int32)
    places[before >= 0] = _place(before[before >= 0], previous.cluster_ids)
    k, k_before = len(model.cluster_ids), len(previous.cluster_ids)
    both = (model.labels >= 0) & (places >= 0)
    shared = np.bincount(model.labels[both] * k_before + places[both], minlength=k * k_before).reshape(k, k_before)
    union = np.array(model.sizes, np.int64)[:, None] + _users_in(places, k_before) - shared
    pairs = match_clusters(np.divide(shared, union, out=np.zeros((k, k_before)), where=union > 0))
    ids = np.full(k, NOISE, np.int32)
    for new, old_place in pairs:
        ids[new] = previous.cluster_ids[old_place]
    fresh = np.flatnonzero(ids < 0)
    ids[fresh] = previous.next_id + np.arange(len(fresh))
    return replace(
        model,
        point_clusters=ids[model.point_clusters],
        cluster_ids=ids,
        next_id=previous.next_id + len(fresh),
        labels=_named(model.labels, ids),
        previous_version=previous.version,
        kept=sorted(int(previous.cluster_ids[old_place]) for _, old_place in pairs),
    )


def _stability(
    found: Clusters,
    rows: NDArray[np.float64],
    labels: NDArray[np.int32],
    settings: BehaviourSettings,
    chance: np.random.Generator,
) -> Stability:
    """How firm a clustering is, and how clean.

    Agreement with the clusterings of bootstrap samples, applied to the same users by the rule that users are assigned
    by (Hennig 2007, Cluster-wise assessment of cluster stability; von Luxburg 2010, Clustering stability), and
    silhouette (Rousseeuw 1987).

    Args:
        found: the clustering, of (n, d) ``rows`` with (n,) ``labels``.
        settings: as it was fitted with; where k is 'auto', other samples are divided into as many clusters.
        chance: random numbers.
    """
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    if found.k < 2:
        return Stability(None, [], None)
    compared = np.sort(chance.permutation(len(rows))[:COMPARED])
    inside = compared[labels[compared] >= 0]
    silhouette = None
    if 1 < len(np.unique(labels[inside])) < len(inside):
        silhouette = float(silhouette_score(rows[inside], labels[inside]))
    size = min(len(rows), COMPARED)
    update: dict[str, object] = {"k": found.k, "n_init": min(settings.n_init, STARTS)}
    if settings.eps != "auto":  # as many times fewer users are within the same distance
        update["min_samples"] = max(1, round(settings.min_samples * size / len(rows)))
    smaller = settings.model_copy(update=update)
    agreements = []
    for _ in range(settings.bootstraps):
        resample = rows[np.sort(chance.integers(len(rows), size=size))]
        try:
            other = METHODS[settings.method].fit(resample, smaller)
        except TooFewUsersError:  # too many of them drawn twice
            continue
        theirs, _ = assign(rows[compared], other.points, other.point_labels, other.reach)
        agreements.append(float(adjusted_rand_score(labels[compared], theirs)))
    return Stability(silhouette, agreements, float(np.mean(agreements)) if agreements else None)


def _digest(model: BehaviourModel) -> str:
    digest = hashlib.sha256(json.dumps([model.method, asdict(model.preprocessing)], sort_keys=True).encode())
    for array in (model.points, model.point_clusters, model.reach, model.cluster_ids):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
