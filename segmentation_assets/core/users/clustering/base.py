"""What a clusterer of users is.

What belongs here: the contract, and the one rule by which a user is assigned. What does not: any method.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.settings import BehaviourSettings

NOISE = -1
"""The label of a user in no cluster."""


@dataclass(frozen=True)
class Clusters:
    """Clusters as points that stand for them. A row belongs to the cluster of its nearest point, if within its reach.

    K-means: the centres, reach infinite. DBSCAN: the core samples, reach eps, which is its own definition of a border
    point. HDBSCAN: the points of its clusters with the distance at which each was still in its cluster.

    Attributes:
        points: (m, d) float64.
        point_labels: (m,) int32, 0..k-1.
        reach: (m,) float64, the largest distance at which a point takes a row in; infinite for any.
        labels: (n,) int32 of the rows it was fitted on, 0..k-1 or ``NOISE``.
        details: numbers worth knowing (eps, objective), by name.
    """

    points: NDArray[np.float64]
    point_labels: NDArray[np.int32]
    reach: NDArray[np.float64]
    labels: NDArray[np.int32]
    details: dict[str, float] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Number of clusters, noise not counted."""
        return int(self.point_labels.max()) + 1 if len(self.point_labels) else 0


class UserClusterer(Protocol):
    """One way to divide users. Deterministic: same rows and settings, same clusters, whatever the order of the rows."""

    @property
    def name(self) -> str:
        """The name users choose it by."""

    def fit(self, rows: NDArray[np.float64], settings: BehaviourSettings) -> Clusters:
        """Cluster (n, d) finite rows."""
