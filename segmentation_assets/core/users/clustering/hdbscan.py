"""HDBSCAN (Campello, Moulavi and Sander 2013): crowds of whatever density each has, and who is in none."""

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.users.clustering.base import Clusters, clusters_of, in_fixed_order


class HierarchicalDensityClusterer:
    """scikit-learn's HDBSCAN. Where all users are one crowd it finds no cluster: there is nothing to tell apart."""

    name = "hdbscan"

    def fit(self, rows: NDArray[np.float64], settings: BehaviourSettings) -> Clusters:
        """Cluster (n, d) rows; fewer than ``min_samples`` or ``min_cluster_size`` are in no cluster.

        A point reaches as far as the largest distance at which any point of its cluster was still a core of it, and
        never as far as the nearest row that is in no cluster. So the rows that clusters were found in get what
        HDBSCAN said of them, and about as many of other users are in no cluster. Of rows that are the same HDBSCAN can
        leave out some: here all are in the cluster if one is.

        Details: ``largest_reach``.

        Raises:
            ValueError: a cell is not finite.
        """
        from scipy.spatial import cKDTree
        from sklearn.cluster import HDBSCAN

        ordered, order = in_fixed_order(rows)
        labels = np.full(len(ordered), -1, np.int32)
        if len(ordered) >= max(settings.min_samples, settings.min_cluster_size):
            model = HDBSCAN(min_cluster_size=settings.min_cluster_size, min_samples=settings.min_samples, copy=True)
            labels = model.fit(ordered).labels_.astype(np.int32)
        inside = labels >= 0
        points, point_labels, reach = ordered[inside], labels[inside], np.zeros(int(inside.sum()))
        if len(points):
            core, _ = cKDTree(ordered).query(points, k=[settings.min_samples])
            of_cluster = np.zeros(point_labels.max() + 1)
            np.maximum.at(of_cluster, point_labels, core[:, 0])
            reach = of_cluster[point_labels]
        if len(points) and not inside.all():
            left_out, _ = cKDTree(ordered[~inside]).query(points)
            reach = np.minimum(reach, left_out * SHORT_OF)
        details = {"largest_reach": float(reach.max(initial=0.0))}
        return clusters_of(ordered, order, points, point_labels, reach, details)


SHORT_OF = 1 - 1e-6
"""What keeps a reach from the very row that it must not take in."""
