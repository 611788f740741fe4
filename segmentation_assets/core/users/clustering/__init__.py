"""Clusterers of users behind one small contract.

What belongs here: one file a method, and ``METHODS``, where its name is given. What does not: clustering of queries
(core.clustering), preprocessing, names.
"""

from segmentation_assets.core.users.clustering.base import NOISE, Clusters, TooFewUsersError, UserClusterer, assign
from segmentation_assets.core.users.clustering.dbscan import DensityClusterer, suggest_eps
from segmentation_assets.core.users.clustering.hdbscan import HierarchicalDensityClusterer
from segmentation_assets.core.users.clustering.kmeans import KMeansClusterer

METHODS: dict[str, UserClusterer] = {
    method.name: method for method in (KMeansClusterer(), DensityClusterer(), HierarchicalDensityClusterer())
}

__all__ = ["METHODS", "NOISE", "Clusters", "TooFewUsersError", "UserClusterer", "assign", "suggest_eps"]
