"""K-means (Lloyd 1982; starts by Arthur and Vassilvitskii 2007): k groups, everybody in one."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no type information

from segmentation_assets.core.clustering.kmeans import THREADS
from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.space import count_different
from segmentation_assets.core.users.clustering.base import Clusters, TooFewUsersError, clusters_of, in_fixed_order

SAMPLE = 3_000
"""Users among whom numbers of clusters are compared; the silhouette costs quadratically."""

RESAMPLES = 5
STARTS = 5

FIRM = 0.8
LESS_FIRM = 0.05
"""A number of clusters is considered if clusterings of other samples agree with its own by ``FIRM`` at least, and by no
more than ``LESS_FIRM`` less than those of the number that is agreed on most."""

AS_CLEAN = 0.9
"""Share of the best silhouette from which a finer division is preferred: it says more, and next to nothing is lost."""


class KMeansClusterer:
    """scikit-learn's KMeans."""

    name = "kmeans"

    def fit(self, rows: NDArray[np.float64], settings: BehaviourSettings) -> Clusters:
        """Cluster (n, d) rows.

        Details: ``objective``, the sum of the squared distances to the centres; where k is 'auto' also
        ``silhouette_<k>`` and ``agreement_<k>`` of each number that was tried, see ``choose_k``.

        Raises:
            TooFewUsersError: fewer different rows than clusters (2 for 'auto').
            ValueError: a cell is not finite.
        """
        ordered, order = in_fixed_order(rows)
        k = 2 if settings.k == "auto" else settings.k
        if (different := count_different(ordered, k)) < k:
            raise TooFewUsersError(
                f"{k} behaviour clusters {'or more ' if settings.k == 'auto' else ''}are to be found, and the "
                f"{len(ordered)} users to find them in behave in {different} different ways.",
                "Read more sessions"
                + (", or lower behaviour.k." if isinstance(settings.k, int) and settings.k > 2 else "."),
            )
        details: dict[str, float] = {}
        if settings.k == "auto":
            k, details = choose_k(ordered, settings.k_max, settings.seed)
        model = _fit(ordered, k, settings.n_init, settings.seed)
        details["objective"] = float(model.inertia_)
        centers = np.asarray(model.cluster_centers_, dtype=np.float64)
        return clusters_of(ordered, order, centers, np.arange(k, dtype=np.int32), np.full(k, np.inf), details)


def choose_k(rows: NDArray[np.float64], k_max: int, seed: int) -> tuple[int, dict[str, float]]:
    """How many clusters, from 2 to ``k_max``: the most that are both firm and clean.

    For each number: its agreement, the mean adjusted Rand index between the clustering and those of bootstrap samples,
    applied to the same users (Hennig 2007; von Luxburg 2010), and its mean silhouette (Rousseeuw 1987). Of the numbers
    that are firm it is the largest whose silhouette is nearly the best of theirs. Neither ruler would do alone: any two
    halves of a crowd agree well, and the silhouette of two groups far apart hides what is within them. Where no number
    is firm, the one agreed on most: then any number is a guess, and ``Stability`` shows it.

    Args:
        rows: (n, d) in fixed order, of which ``SAMPLE`` are looked at; at least 2 different ones.
        k_max: largest number.
        seed: of every random choice.

    Returns:
        k, and ``silhouette_<k>`` and ``agreement_<k>`` of each number tried.
    """
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    chance = np.random.default_rng(seed)
    part = rows[np.sort(chance.permutation(len(rows))[:SAMPLE])]
    most = count_different(part, k_max + 1)
    resamples = [part[np.sort(chance.integers(len(part), size=len(part)))] for _ in range(RESAMPLES)]
    silhouette: dict[int, float] = {}
    agreement: dict[int, float] = {}
    with threadpool_limits(THREADS):
        for k in range(2, max(min(k_max, most - 1), 2) + 1):
            labels = _fit(part, k, STARTS, seed).labels_
            others = [
                _fit(other, k, STARTS, seed).predict(part) for other in resamples if count_different(other, k) == k
            ]
            agreement[k] = float(np.mean([adjusted_rand_score(labels, other) for other in others])) if others else 0.0
            silhouette[k] = float(silhouette_score(part, labels)) if 1 < len(np.unique(labels)) < len(part) else -1.0
    most_agreed = max(agreement.values())
    firm = [k for k, agreed in agreement.items() if agreed >= max(FIRM, most_agreed - LESS_FIRM)]
    if firm:
        best = max(silhouette[k] for k in firm)
        chosen = max(k for k in firm if silhouette[k] >= best - (1 - AS_CLEAN) * abs(best))
    else:
        chosen = min(k for k, agreed in agreement.items() if agreed == most_agreed)
    numbers = {"silhouette": silhouette, "agreement": agreement}
    return chosen, {f"{name}_{k}": value for name, found in numbers.items() for k, value in found.items()}


def _fit(rows: NDArray[np.float64], k: int, n_init: int, seed: int) -> Any:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(THREADS), warnings.catch_warnings():
        # Rows that differ by next to nothing can leave fewer clusters than k; the empty ones are left out.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(n_clusters=k, n_init=n_init, random_state=seed).fit(rows)
