"""scikit-learn's KMeans: on TF-IDF rows (the textbook recipe, nothing added), or in the space of users' interests."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no type information

from segmentation_assets.core.clustering.base import Metric, Partition, Rows
from segmentation_assets.core.space import Corpus, Space, interests

THREADS = 1
"""Each thread adds its part to the centres when it is done. Three or more give another sum each time, and the same
sessions would get another model version. Two gain less than the waiting costs: on 10,000 rows the same fit took 2.5
times the CPU seconds."""


class TextbookKMeans:
    """Lloyd's algorithm by Euclidean distance (Lloyd 1982; k-means++ starts, Arthur and Vassilvitskii 2007)."""

    name = "kmeans"
    metric: Metric = "euclidean"

    def space(self, corpus: Corpus, k: int, *, components: int, n_init: int, seed: int) -> Space:
        """The TF-IDF rows as they are."""
        return Space.of_terms(corpus.rows.shape[1])

    def fit(self, rows: Rows, weights: NDArray[np.float64], k: int, *, n_init: int, seed: int) -> Partition:
        """See ``Clusterer.fit``."""
        from sklearn.cluster import KMeans  # before the limit, which holds for libraries that are loaded

        with threadpool_limits(THREADS):
            model = KMeans(n_clusters=k, n_init=n_init, random_state=seed).fit(rows, sample_weight=weights)
        return Partition(model.cluster_centers_, model.labels_.astype(np.int32), float(model.inertia_))


class LatentKMeans(TextbookKMeans):
    """The same on unit rows of ``core.space.interests``, where Euclidean distance and cosine order alike."""

    name = "lsa"

    def space(self, corpus: Corpus, k: int, *, components: int, n_init: int, seed: int) -> Space:
        """What users have in common."""
        return Space.of_directions(interests(corpus.unit_documents, components, seed))
