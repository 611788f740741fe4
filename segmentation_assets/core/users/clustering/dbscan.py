"""DBSCAN (Ester, Kriegel, Sander and Xu 1996): crowds of one density, of any shape, and who is in none."""

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.users.clustering.base import Clusters, clusters_of, in_fixed_order
from segmentation_assets.errors import SegmentsError

NEIGHBOURS = 100_000_000
"""Pairs of neighbours, 8 bytes each, that are in memory at most."""

ASKED = 500
"""Users whose neighbours are counted beforehand."""


class TooManyNeighboursError(SegmentsError):
    """At this distance nearly everybody is a neighbour of everybody."""


class DensityClusterer:
    """scikit-learn's DBSCAN. A user near the cores of two clusters is in that of the nearest, whatever the order."""

    name = "dbscan"

    def fit(self, rows: NDArray[np.float64], settings: BehaviourSettings) -> Clusters:
        """Cluster (n, d) rows; fewer than ``min_samples`` are in no cluster.

        Details: ``eps`` that was used, ``suggested_eps`` (see ``suggest_eps``).

        Raises:
            TooManyNeighboursError: their neighbours would not fit into memory.
            ValueError: a cell is not finite.
        """
        from sklearn.cluster import DBSCAN

        ordered, order = in_fixed_order(rows)
        suggested, _ = suggest_eps(ordered, settings.min_samples)
        eps = float(suggested if settings.eps == "auto" else settings.eps)
        # Rows that are the same, as of the many users who came once and did nothing, are one row that counts for many.
        different, users = np.unique(ordered, axis=0, return_counts=True)
        cores, labels = np.empty(0, np.int64), np.empty(0, np.int32)
        if len(different):
            _refuse_too_many(different, eps)
            model = DBSCAN(eps=eps, min_samples=settings.min_samples).fit(different, sample_weight=users)
            cores, labels = model.core_sample_indices_, model.labels_.astype(np.int32)
        details = {"eps": eps, "suggested_eps": suggested}
        return clusters_of(ordered, order, different[cores], labels[cores], np.full(len(cores), eps), details)


def suggest_eps(rows: NDArray[np.float64], min_samples: int) -> tuple[float, NDArray[np.float64]]:
    """A distance for DBSCAN: the knee of the k-distance curve.

    The curve (Ester et al. 1996) is the distance of every row to its ``min_samples``-th neighbour, itself the first,
    rising. It is flat as long as rows are in crowds and steep where they are far from any. The knee is the place
    furthest below the line between the ends, both axes from 0 to 1 (Satopaa, Albrecht, Irwin and Raghavan 2011).

    Args:
        rows: (n, d) finite.
        min_samples: neighbours that make a core, at least 1; of fewer rows, all.

    Returns:
        the distance, always greater than 0, and the curve (n,).
    """
    from scipy.spatial import cKDTree

    if not len(rows):
        return 1.0, np.empty(0)
    neighbours = min(min_samples, len(rows))
    distances, _ = cKDTree(rows).query(rows, k=[neighbours])
    curve = np.sort(distances[:, 0])
    knee = 0
    if curve[-1] > curve[0]:
        across = np.linspace(0.0, 1.0, len(curve))
        knee = int((across - (curve - curve[0]) / (curve[-1] - curve[0])).argmax())
    # Where most rows are the same as others the knee is at 0, and no distance at all takes nobody in.
    positive = curve[knee:][curve[knee:] > 0]
    return float(positive[0]) if len(positive) else 1.0, curve


def _refuse_too_many(rows: NDArray[np.float64], eps: float) -> None:
    from scipy.spatial import cKDTree

    if len(rows) ** 2 <= NEIGHBOURS:
        return
    asked = rows[np.linspace(0, len(rows) - 1, ASKED).astype(np.int64)]
    neighbours = float(np.mean(cKDTree(rows).query_ball_point(asked, eps, return_length=True)))
    if neighbours * len(rows) > NEIGHBOURS:
        raise TooManyNeighboursError(
            f"At a distance of {eps:g} each of {len(rows)} users has about {neighbours:.0f} neighbours, more than "
            "DBSCAN can hold in memory.",
            f"Lower behaviour.eps, or behaviour.fit_users to {int(NEIGHBOURS**0.5)}.",
        )
