"""How many clusters? Three rulers, and how far they agree.

What belongs here: proposing a number. What does not: the clusters themselves.

No single ruler can be trusted with this. One says how firmly the data dictates a division, one how clean it is, one how
much it explains; each is led astray by something else (many tiny groups that always hang together; one group far from
a crowd; words that happen to go together). Where the three point to one number, it is in the data. Where they do not,
the number is a guess, and it is said to be one.
"""

from dataclasses import dataclass
from itertools import combinations
from statistics import median_low

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.clustering.consensus import agree, best, partitions, settle
from segmentation_assets.core.mixture import refine_mixture
from segmentation_assets.core.space import Corpus, Space, interests

SAMPLE_USERS = 3_000
SAMPLE_SEARCHES = 4_000
EACH = 3
"""Partitions of each kind; half of what the consensus itself is made of, since many numbers are tried."""

COMPARED = 2_000
"""Queries that are compared pairwise at most; more costs quadratically."""

HELD_OUT = 0.2
DIMENSIONS = 50
TOLERANCE = 0.25
"""The rulers agree where none proposes more than this off their median."""

FIRM = 0.55
"""Least agreement (adjusted Rand index) of partitions into the proposed number. Below it the data dictates none."""

QUERIES_PER_CLUSTER = 3
"""No more clusters are tried than leave so many different queries for each."""

STEP = 0.1
"""Above ten, the numbers tried lie this far apart: nobody can tell 31 clusters from 32."""


@dataclass(frozen=True)
class KChoice:
    """A proposed number of clusters.

    Attributes:
        k: the number, the median of the three proposals.
        confident: whether the three agree, none was cut off by the end of the range, and the division is firm.
        reason: why it is, or is not; a sentence for people.
        agreement: k to the mean adjusted Rand index of pairs of partitions made in different ways: how firmly the data
            dictates the division.
        silhouette: k to the mean silhouette (Rousseeuw 1987) by cosine in the space of interests: how clean it is.
        likelihood: k to the mean log likelihood of a term in the searches of users who were kept out: how much it
            explains.
    """

    k: int
    confident: bool
    reason: str
    agreement: dict[int, float]
    silhouette: dict[int, float]
    likelihood: dict[int, float]

    @property
    def proposals(self) -> dict[str, int]:
        """The number each ruler is highest at."""
        curves = {"agreement": self.agreement, "silhouette": self.silhouette, "likelihood": self.likelihood}
        return {name: _peak(curve) for name, curve in curves.items()}


def candidates(k_min: int, k_max: int) -> list[int]:
    """The numbers that are tried: each up to ten, then in steps of a tenth, the ends of the range always."""
    found, k = [], k_min
    while k <= k_max:
        found.append(k)
        k += max(1, int(k * STEP)) if k >= 10 else 1
    return found if found[-1] == k_max else [*found, k_max]


def choose_k(corpus: Corpus, k_min: int, k_max: int, components: int, seed: int) -> KChoice:
    """Propose a number of clusters between ``k_min`` and ``k_max``.

    For each number the partitions of the method ``consensus`` are made on a sample, whatever method will then be used:
    this is about the data.

    Args:
        corpus: queries and users, with more than ``k_min`` different queries.
        k_min: smallest number.
        k_max: largest number; cut to what leaves ``QUERIES_PER_CLUSTER`` queries for a cluster.
        components: dimensions of the space of interests in which partitions are made.
        seed: of every random choice.
    """
    from sklearn.metrics import adjusted_rand_score

    part = corpus.sample(SAMPLE_USERS, SAMPLE_SEARCHES, seed)
    chance = np.random.default_rng(seed)
    most = max(k_min, min(k_max, part.rows.shape[0] // QUERIES_PER_CLUSTER))
    inside = np.asarray(Space.of_directions(interests(part.unit_documents, DIMENSIONS, seed)).embed(part.rows))
    placed = np.flatnonzero(inside.any(axis=1))
    compared = np.sort(chance.permutation(placed)[:COMPARED])
    users = chance.permutation(part.by_user.shape[0])
    kept_out = max(1, int(HELD_OUT * len(users)))
    curves: tuple[dict[int, float], dict[int, float], dict[int, float]] = ({}, {}, {})
    for k in candidates(k_min, most):
        members = [best(settle(part, labels, k), part) for labels in partitions(part, k, components, seed, EACH)]
        agreed = settle(part, agree(members, part.searched, k, seed), k)
        labels = best(agreed, part)
        pairs = combinations([member[compared] for member in members], 2)
        curves[0][k] = float(np.mean([adjusted_rand_score(one, other) for one, other in pairs]))
        curves[1][k] = _silhouette(inside[compared], labels[compared])
        memberships = agreed.memberships(part.counted_documents)
        curves[2][k] = _unseen(part.counted_documents, memberships, users[kept_out:], users[:kept_out])
    return _judge(curves, k_min, most)


def _silhouette(rows: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    if not 1 < len(np.unique(labels)) < len(labels):
        return -1.0
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(rows, labels, metric="cosine"))


def _unseen(
    documents: csr_matrix,
    memberships: NDArray[np.float64],
    seen: NDArray[np.int64],
    unseen: NDArray[np.int64],
    rounds: int = 5,
) -> float:
    """Log likelihood a term of the unseen documents, by a mixture that has settled on the seen ones."""
    mixture = refine_mixture(csr_matrix(documents[seen]), memberships[seen], rounds)
    others = csr_matrix(documents[unseen])
    joint = np.asarray(others @ mixture.log_terms) + mixture.log_sizes
    return float(np.logaddexp.reduce(joint, axis=1).sum() / max(others.sum(), 1.0))


def _judge(curves: tuple[dict[int, float], dict[int, float], dict[int, float]], k_min: int, k_max: int) -> KChoice:
    peaks = sorted(_peak(curve) for curve in curves)
    k = median_low(peaks)
    said = "agreement of partitions {}, silhouette {}, unseen users {}".format(*(_peak(curve) for curve in curves))
    if any(abs(peak - k) > TOLERANCE * k for peak in peaks):
        return KChoice(k, False, f"the three rulers do not agree ({said})", *curves)
    if curves[0][k] < FIRM:
        return KChoice(k, False, f"partitions made in different ways have little in common ({said})", *curves)
    if any(peak == k_max or (peak == k_min and peak > 2) for peak in peaks):
        return KChoice(k, False, f"nothing beyond the range from {k_min} to {k_max} was tried ({said})", *curves)
    return KChoice(k, True, f"the three rulers agree ({said})", *curves)


def _peak(curve: dict[int, float]) -> int:
    return max(curve, key=lambda k: (curve[k], -k))
