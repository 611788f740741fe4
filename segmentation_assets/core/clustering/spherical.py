"""Spherical k-means: k-means on the unit sphere, by cosine.

On short texts the plain recipe gathers most rows in one cluster near the origin: a mean of many different unit rows is
short, so it is close to everything. Here every centre has unit length, so a broad cluster gains nothing by being broad.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.clustering.base import Metric, Partition, Rows
from segmentation_assets.core.space import Corpus, Space

MAX_ITERATIONS = 100


class SphericalKMeans:
    """Dhillon and Modha, Concept decompositions for large sparse text data, Machine Learning 42, 2001."""

    name = "spherical"
    metric: Metric = "cosine"

    def space(self, corpus: Corpus, k: int, *, components: int, n_init: int, seed: int) -> Space:
        """The TF-IDF rows as they are."""
        return Space.of_terms(corpus.rows.shape[1])

    def fit(self, rows: Rows, weights: NDArray[np.float64], k: int, *, n_init: int, seed: int) -> Partition:
        """See ``Clusterer.fit``. The objective is the weighted sum of 1 - cosine to the own centre."""
        rows = csr_matrix(rows)
        weighted = csr_matrix(rows.multiply(weights.reshape(-1, 1)))
        starts = np.random.default_rng(seed).spawn(n_init)
        return min((self._run(rows, weighted, weights, k, rng) for rng in starts), key=lambda found: found.objective)

    def _run(
        self, rows: csr_matrix, weighted: csr_matrix, weights: NDArray[np.float64], k: int, rng: np.random.Generator
    ) -> Partition:
        centers = _plus_plus(rows, weights, k, rng)
        labels = np.full(rows.shape[0], -1, dtype=np.int32)
        for _ in range(MAX_ITERATIONS):
            similarity = np.asarray(rows @ centers.T)
            moved = similarity.argmax(axis=1).astype(np.int32)
            # A row that shares no word with any centre would always go to the first one, and make a heap of strangers.
            # Dealt out by chance they give every centre a broad vocabulary, and the next rounds sort them out.
            strangers = np.flatnonzero(similarity[np.arange(len(moved)), moved] <= 0)
            moved[strangers] = rng.integers(k, size=len(strangers), dtype=np.int32)
            own = similarity[np.arange(len(moved)), moved]
            _fill_empty(moved, own, weights, k)
            if np.array_equal(moved, labels):
                break
            labels = moved
            member = csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
            centers = np.asarray((member @ weighted).todense())
            centers /= np.linalg.norm(centers, axis=1, keepdims=True)
        return Partition(centers, labels, float(weights @ (1 - own)))


def _plus_plus(rows: csr_matrix, weights: NDArray[np.float64], k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """k-means++ by 1 - cosine: each next centre is drawn in proportion to how badly the chosen ones serve a row."""
    chosen = [int(rng.choice(len(weights), p=weights / weights.sum()))]
    far = np.ones(len(weights))
    for _ in range(k - 1):
        far = np.minimum(far, np.maximum(1 - np.asarray((rows @ rows[chosen[-1]].T).todense()).ravel(), 0.0))
        far[chosen] = 0.0
        mass = far * weights
        total = mass.sum()
        chosen.append(int(rng.choice(len(weights), p=mass / total)) if total > 0 else _first_unchosen(chosen))
    return np.asarray(rows[chosen].todense(), dtype=np.float64)


def _first_unchosen(chosen: list[int]) -> int:
    return next(i for i in range(len(chosen) + 1) if i not in chosen)


def _fill_empty(labels: NDArray[np.int32], own: NDArray[np.float64], weights: NDArray[np.float64], k: int) -> None:
    """Give an empty cluster the row that its own centre serves worst, taken from a cluster that has another one."""
    sizes = np.bincount(labels, minlength=k)
    for empty in np.flatnonzero(sizes == 0):
        cost = np.where(sizes[labels] > 1, weights * (1 - own), -np.inf)
        worst = int(cost.argmax())
        sizes[labels[worst]] -= 1
        sizes[empty] += 1
        labels[worst] = empty
        own[worst] = 1.0
