"""scikit-learn's KMeans: on TF-IDF rows (the textbook recipe, nothing added), or in the space of users' interests."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no type information

from segmentation_assets.core.clustering.base import Metric, Partition, Rows

THREADS = 2
"""Each thread adds its part to the centres when it is done. Two parts give the same sum in either order; three or more
do not, and the same sessions would get another model version each time."""


class TextbookKMeans:
    """Lloyd's algorithm by Euclidean distance (Lloyd 1982; k-means++ starts, Arthur and Vassilvitskii 2007)."""

    name = "kmeans"
    space: Literal["terms", "users"] = "terms"
    metric: Metric = "euclidean"

    def fit(self, rows: Rows, weights: NDArray[np.float64], k: int, *, n_init: int, seed: int) -> Partition:
        """See ``Clusterer.fit``."""
        with threadpool_limits(THREADS, user_api="openmp"):
            model = KMeans(n_clusters=k, n_init=n_init, random_state=seed).fit(rows, sample_weight=weights)
        return Partition(model.cluster_centers_, model.labels_.astype(np.int32), float(model.inertia_))


class LatentKMeans(TextbookKMeans):
    """The same on unit rows of ``core.space.user_projection``, where Euclidean distance and cosine order alike."""

    name = "lsa"
    space: Literal["terms", "users"] = "users"
