"""What a clusterer is.

What belongs here: the contract and the one rule by which a row is assigned to a centre. What does not: any method.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.space import Corpus, Space

Metric = Literal["cosine", "euclidean"]

Rows: TypeAlias = csr_matrix | NDArray[np.float64]
"""(n, d) rows of unit length; sparse in the space of terms, dense in a projected one."""


DECIMALS = 12
"""Digits in which two similarities or squared distances must differ to be different. A row's last bits depend on how
many others are multiplied with it, and what is a tie for one must be a tie among many."""


@dataclass(frozen=True)
class Partition:
    """A clustering of weighted rows.

    Attributes:
        centers: (k, d) float64.
        labels: (n,) int32 in 0..k-1.
        objective: what the method minimized; smaller is better, comparable only within one method and one data set.
    """

    centers: NDArray[np.float64]
    labels: NDArray[np.int32]
    objective: float


class Clusterer(Protocol):
    """One way to find k clusters. Deterministic: same rows, weights, k, n_init and seed, same partition."""

    @property
    def name(self) -> str:
        """The name users choose it by."""

    @property
    def metric(self) -> Metric:
        """The measure by which a row belongs to its nearest centre."""

    def space(self, corpus: Corpus, k: int, *, components: int, n_init: int, seed: int) -> Space:
        """Where it works: ``Space.of_terms``, or something richer made from the queries and who searched for them."""

    def fit(self, rows: Rows, weights: NDArray[np.float64], k: int, *, n_init: int, seed: int) -> Partition:
        """Cluster (n, d) unit rows, at least k different ones, none of them zero, by (n,) positive weights."""


def nearest(rows: Rows, centers: NDArray[np.float64], metric: Metric) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Assign rows to centres.

    Args:
        rows: (n, d), unit or zero rows.
        centers: (k, d), k >= 2.
        metric: how near is measured.

    Returns:
        labels (n,) int32, -1 for a row that has nothing in common with any vocabulary (zero row), or, by cosine, with
        any centre, the first of several equally near; confidence (n,) float32 in 0..1: how far the nearest centre is
        ahead of the second, 0 for a tie or no cluster, 1 when nothing speaks for the second. By cosine
        ``1 - second / first`` similarity, by Euclidean distance ``1 - first / second`` distance.
    """
    similarity = np.asarray(rows @ centers.T)
    index = np.arange(similarity.shape[0])
    zero = ~rows.any(axis=1) if isinstance(rows, np.ndarray) else np.diff(rows.indptr) == 0
    if metric == "cosine":
        score = np.maximum(similarity, 0.0).round(DECIMALS)
        labels = score.argmax(axis=1).astype(np.int32)
        first = score[index, labels]
        score[index, labels] = -1.0
        second = score.max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            confidence = 1 - second / first
        labels[first <= 0] = -1
    else:
        squared = (~zero).astype(np.float64).reshape(-1, 1)  # unit rows, zero rows
        distance = np.sqrt(np.maximum(squared - 2 * similarity + (centers**2).sum(axis=1), 0.0).round(DECIMALS))
        labels = distance.argmin(axis=1).astype(np.int32)
        first = distance[index, labels]
        distance[index, labels] = np.inf
        second = distance.min(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            confidence = np.where(second > 0, 1 - first / second, 0.0)
    labels[zero] = -1
    confidence = np.where(labels >= 0, np.nan_to_num(confidence), 0.0)
    return labels, np.clip(confidence, 0.0, 1.0).astype(np.float32)
