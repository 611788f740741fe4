"""What a clusterer of users is.

What belongs here: the contract, and the one rule by which a user is assigned. What does not: any method.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.errors import SegmentsError

NOISE = -1
"""The label of a user in no cluster."""

DECIMALS = 12
"""Digits in which two distances must differ to be different."""

CHUNK = 10_000
"""Rows that are assigned at a time; with k clusters their k distances are in memory."""


class TooFewUsersError(SegmentsError):
    """There are fewer different users than clusters."""


@dataclass(frozen=True)
class Clusters:
    """Clusters as points that stand for them. A row belongs to the cluster of its nearest point, if within its reach.

    K-means: the centres, reach infinite. DBSCAN: the core samples, reach eps, which is its own definition of a border
    point. HDBSCAN: the points of its clusters with the distance at which each was still in its cluster, cut short of
    whatever it left out.

    Attributes:
        points: (m, d) float64.
        point_labels: (m,) int32, 0..k-1.
        reach: (m,) float64, the largest distance at which a point takes a row in; infinite for any.
        labels: (n,) int32 of the rows it was fitted on, 0..k-1 or ``NOISE``.
        details: numbers worth knowing (eps, objective), by name.
    """

    points: NDArray[np.float64]
    point_labels: NDArray[np.int32]
    reach: NDArray[np.float64]
    labels: NDArray[np.int32]
    details: dict[str, float] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Number of clusters, noise not counted."""
        return int(self.point_labels.max()) + 1 if len(self.point_labels) else 0


class UserClusterer(Protocol):
    """One way to divide users. Deterministic: same rows and settings, same clusters, whatever the order of the rows."""

    @property
    def name(self) -> str:
        """The name users choose it by."""

    def fit(self, rows: NDArray[np.float64], settings: BehaviourSettings) -> Clusters:
        """Cluster (n, d) finite rows."""


def assign(
    rows: NDArray[np.float64],
    points: NDArray[np.float64],
    point_labels: NDArray[np.int32],
    reach: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The one rule by which users are assigned, those that clusters were found in and any others; see ``Clusters``.

    Of clusters with points equally near, those whose point reaches the row go first, then the lowest label. What a row
    gets does not depend on the rows beside it.

    Args:
        rows: (n, d) finite.
        points: (m, d) float64; m = 0 puts every row in no cluster.
        point_labels: (m,) int32, any numbers that are not negative.
        reach: (m,) float64.

    Returns:
        labels (n,) int32, ``NOISE`` for none; confidence (n,) float32 in 0..1: ``1 - first / second``, the distance to
        the nearest point over that to the nearest one of another cluster; 0 for a tie and for noise, 1 where there is
        no other cluster.
    """
    from scipy.spatial import cKDTree

    labels, confidence = np.full(len(rows), NOISE, np.int32), np.zeros(len(rows), np.float32)
    names = np.unique(point_labels)
    members = [np.flatnonzero(point_labels == name) for name in names]
    trees = [cKDTree(points[those]) for those in members]
    for start in range(0, len(rows) if trees else 0, CHUNK):
        part = rows[start : start + CHUNK]
        distance, within = np.empty((len(part), len(trees))), np.empty((len(part), len(trees)), np.bool_)
        for column, (tree, those) in enumerate(zip(trees, members, strict=True)):
            exact, place = tree.query(part)
            distance[:, column] = exact.round(DECIMALS)
            within[:, column] = distance[:, column] <= reach[those[place]] + 10.0**-DECIMALS
        first = distance.min(axis=1)
        chosen = ((distance == first[:, None]) & within).argmax(axis=1)
        index = np.arange(len(part))
        inside = within[index, chosen] & (distance[index, chosen] == first)
        distance[index, chosen] = np.inf
        second = distance.min(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(second > 0, 1 - first / second, 0.0)
        labels[start : start + CHUNK] = np.where(inside, names[chosen], NOISE)
        confidence[start : start + CHUNK] = np.where(inside, ahead, 0.0)
    return labels, confidence


def in_fixed_order(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The rows sorted by their first column, then the second and so on, and (n,) the place of each in what is given.

    What a method finds in sorted rows cannot depend on the order in which they came.

    Raises:
        ValueError: the rows are no table, or a cell is not finite.
    """
    if rows.ndim != 2:
        raise ValueError(f"rows must be (n, d), not of shape {rows.shape}")
    if unusable := int((~np.isfinite(rows)).sum()):
        raise ValueError(f"rows must be finite, and {unusable} of {rows.size} cells are not")
    order = np.lexsort(rows.T[::-1]) if rows.size else np.arange(len(rows))
    return np.ascontiguousarray(rows[order], dtype=np.float64) + 0.0, order


def clusters_of(
    ordered: NDArray[np.float64],
    order: NDArray[np.int64],
    points: NDArray[np.float64],
    point_labels: NDArray[np.int32],
    reach: NDArray[np.float64],
    details: dict[str, float],
) -> Clusters:
    """What a method found, with the labels that ``assign`` gives, so that what is published is what is predicted.

    Clusters are numbered from 0 by size, of equal sizes the one with the first row first. A point to which no row
    belongs by way of its cluster is left out.

    Args:
        ordered: (n, d), ``order``: (n,), as ``in_fixed_order`` gave them.
        points: (m, d), ``point_labels``: (m,) 0 or more, ``reach``: (m,).
        details: see ``Clusters``.
    """
    found, _ = assign(ordered, points, point_labels, reach)
    names, first, sizes = np.unique(found[found >= 0], return_index=True, return_counts=True)
    first = np.flatnonzero(found >= 0)[first]
    number = np.full(int(point_labels.max(initial=NOISE)) + 1, NOISE, np.int32)
    number[names[np.lexsort((first, -sizes))]] = np.arange(len(names), dtype=np.int32)
    renumbered = number[point_labels]
    kept = np.argsort(renumbered, kind="stable")[np.count_nonzero(renumbered < 0) :]
    labels = np.empty(len(ordered), np.int32)
    labels[order], _ = assign(ordered, points[kept], renumbered[kept], reach[kept])
    return Clusters(points[kept], renumbered[kept], reach[kept], labels, details)
