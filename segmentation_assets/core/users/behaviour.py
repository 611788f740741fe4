"""Behaviour clusters: a fitted model of how users behave, and which of its clusters each is in.

What belongs here: fitting, ids that stay from model to model, stability. What does not: the methods (clustering),
names and traits (personas).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmentation_assets.core.users.preprocessing import Preprocessing


@dataclass(frozen=True)
class Stability:
    """How far a clustering can be relied on.

    Attributes:
        silhouette: mean silhouette of the clustered users (a sample of them), -1..1; None with fewer than 2 clusters.
        agreements: adjusted Rand index between this clustering and each of those fitted on bootstrap samples, over the
            users of both.
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
