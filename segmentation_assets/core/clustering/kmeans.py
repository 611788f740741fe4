"""The textbook recipe: scikit-learn's KMeans on TF-IDF rows, nothing added."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans

from segmentation_assets.core.clustering.base import Metric, Partition


class TextbookKMeans:
    """Lloyd's algorithm by Euclidean distance (Lloyd 1982; k-means++ starts, Arthur and Vassilvitskii 2007)."""

    name = "kmeans"
    metric: Metric = "euclidean"

    def fit(self, rows: csr_matrix, weights: NDArray[np.float64], k: int, *, n_init: int, seed: int) -> Partition:
        """See ``Clusterer.fit``."""
        model = KMeans(n_clusters=k, n_init=n_init, random_state=seed).fit(rows, sample_weight=weights)
        return Partition(model.cluster_centers_, model.labels_.astype(np.int32), float(model.inertia_))
