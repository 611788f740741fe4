"""What an online clusterer is, and what all of them share.

What belongs here: the contract, the settings, how ids are carried from one clustering to the next, first clusters from
first rows, reading snapshots. What does not: any method; the rule by which a user is assigned (core.users.clustering).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.model import MATCH_SHARE
from segmentation_assets.core.settings import OnlineSettings
from segmentation_assets.core.users.clustering.base import NOISE
from segmentation_assets.errors import SegmentsError

Snapshot = dict[str, NDArray[np.generic]]
"""All that a clusterer knows, as arrays by name."""

SAME = 1e-6
"""Distance up to which two rows are the same row: sums of squares do not tell them apart."""

STARTS = 3
"""Starts of k-means where first clusters are made; the best one is kept."""

FORMAT = 1
"""Of snapshots. Another number is another layout."""


class SnapshotError(SegmentsError):
    """What is to be restored is no snapshot of this method."""


@dataclass(frozen=True)
class OnlineClusters:
    """Clusters as points that stand for them: what ``core.users.clustering.assign`` takes.

    Attributes:
        points: (m, d) float64.
        point_ids: (m,) int32, 0 or more: the id of each point's cluster, the same for as long as that cluster lives.
        reach: (m,) float64, the largest distance at which a point takes a row in; infinite for any.
        next_id: the id that the next new cluster gets; ids are never given twice. Less than any id counts as one more
            than the largest.
        merged: ids of clusters that have grown into another one since the start, and the id of that one, which lives.
    """

    points: NDArray[np.float64]
    point_ids: NDArray[np.int32]
    reach: NDArray[np.float64]
    next_id: int = 0
    merged: dict[int, int] = field(default_factory=dict)

    @property
    def ids(self) -> NDArray[np.int32]:
        """(k,) ids of the clusters, rising."""
        return np.unique(self.point_ids).astype(np.int32)

    @property
    def following_id(self) -> int:
        """The id that the next new cluster gets."""
        return max(self.next_id, int(self.point_ids.max(initial=NOISE)) + 1)

    def centers(self) -> NDArray[np.float64]:
        """(k, d) mean of the points of each cluster, in the order of ``ids``."""
        ids, place = np.unique(self.point_ids, return_inverse=True)
        sums = np.zeros((len(ids), self.points.shape[1]))
        np.add.at(sums, place, self.points)
        return sums / np.maximum(np.bincount(place, minlength=len(ids)), 1)[:, None]


class OnlineClusterer(Protocol):
    """One way to follow a stream. Deterministic: the same batches and settings, the same bits."""

    name: str

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take in a batch of points.

        Args:
            rows: (n, d) finite; n may be 0.
            at: (n,) milliseconds since 1970, rising or not.

        Raises:
            ValueError: a cell is not finite, or the shapes do not fit.
        """

    def clusters(self) -> OnlineClusters:
        """The clusters now. Asking changes nothing."""

    def snapshot(self) -> Snapshot:
        """All it knows. What ``restore`` makes of it goes on with the same bits as this one."""


class OnlineMethod(Protocol):
    """What makes a clusterer of one method; each class of them is one."""

    def __call__(self, settings: OnlineSettings, seed: OnlineClusters | None, dimensions: int, /) -> OnlineClusterer:
        """A clusterer of rows of so many dimensions, started from the batch model's clusters or from nothing."""

    def restore(self, snapshot: Mapping[str, NDArray[np.generic]], settings: OnlineSettings) -> OnlineClusterer:
        """The clusterer that a snapshot is of, under settings that may be others.

        Raises:
            SnapshotError: it is no snapshot of this method.
        """


def no_clusters(dimensions: int) -> OnlineClusters:
    """Of a clusterer that has seen too little."""
    return OnlineClusters(np.empty((0, dimensions)), np.empty(0, np.int32), np.empty(0))


def checked(
    rows: NDArray[np.float64], at: NDArray[np.int64], dimensions: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same, contiguous.

    Raises:
        ValueError: a cell is not finite, or the shapes do not fit.
    """
    if rows.ndim != 2 or rows.shape[1] != dimensions or at.shape != (len(rows),):
        raise ValueError(f"rows must be (n, {dimensions}) and times (n,), not {rows.shape} and {at.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"rows must be finite, and {int((~np.isfinite(rows)).sum())} of {rows.size} cells are not")
    return np.ascontiguousarray(rows, np.float64), np.ascontiguousarray(at, np.int64)


def first_centers(rows: NDArray[np.float64], k: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """K-means of first rows (Lloyd 1982; starts by Arthur and Vassilvitskii 2007).

    Returns:
        centres (k, d), or as many as there are different rows, and (n,) int32 the centre of each row.
    """
    from sklearn.cluster import KMeans

    different, place = np.unique(rows, axis=0, return_inverse=True)
    if len(different) <= k:
        return different, place.ravel().astype(np.int32)
    model = KMeans(n_clusters=k, n_init=STARTS, random_state=seed).fit(rows)
    return np.asarray(model.cluster_centers_, np.float64), model.labels_.astype(np.int32)


@dataclass(frozen=True)
class Carried:
    """Ids of a new clustering.

    Attributes:
        ids: (k,) int32.
        next_id: the id that the next new cluster gets.
        merged: ids of old clusters whose greater part is now in a cluster of another id, and that id.
    """

    ids: NDArray[np.int32]
    next_id: int
    merged: dict[int, int]


def carry_ids(
    before: NDArray[np.int32], labels: NDArray[np.int32], weights: NDArray[np.float64], next_id: int
) -> Carried:
    """Which new cluster is which old one, by the things that were in both (Kuhn 1955, the Hungarian method).

    A new and an old cluster can be the same if what they share is ``MATCH_SHARE`` of the smaller of them at least; of
    those that can, pairs are made that share the most weight. So the larger of two that merge keeps its id, and so does
    the larger part of one that falls apart.

    Args:
        before: (m,) the old id of each thing; ``NOISE`` for none.
        labels: (m,) its new cluster, 0..k-1, each with one thing at least; ``NOISE`` for none.
        weights: (m,) what each counts for, more than 0.
        next_id: the first id that was never given.
    """
    from scipy.optimize import linear_sum_assignment

    k = int(labels.max(initial=NOISE)) + 1
    old = np.unique(before[before >= 0])
    shared, in_new, in_old = np.zeros((k, len(old))), np.zeros(k), np.zeros(len(old))
    column = np.searchsorted(old, before)
    inside = labels >= 0
    np.add.at(in_new, labels[inside], weights[inside])
    np.add.at(in_old, column[before >= 0], weights[before >= 0])
    both = inside & (before >= 0)
    np.add.at(shared, (labels[both], column[both]), weights[both])
    counted = np.where(shared >= MATCH_SHARE * np.minimum(in_new[:, None], in_old), shared, 0.0)
    ids = np.full(k, NOISE, np.int32)
    for new, place in zip(*linear_sum_assignment(counted, maximize=True), strict=True):
        if counted[new, place] > 0:
            ids[new] = old[place]
    fresh = np.flatnonzero(ids < 0)
    ids[fresh] = np.arange(next_id, next_id + len(fresh), dtype=np.int32)
    merged = {
        int(gone): int(ids[shared[:, place].argmax()])
        for place, gone in enumerate(old)
        if gone not in ids and 2 * shared[:, place].max(initial=0.0) > in_old[place]
    }
    return Carried(ids, next_id + len(fresh), merged)


def follow_merges(merged: dict[int, int], new: dict[int, int], living: NDArray[np.int32]) -> dict[int, int]:
    """Merges so far and new ones as one table from ids that are gone to ids that live; others are forgotten."""
    followed = {gone: new.get(into, into) for gone, into in merged.items()} | new
    alive = set(living.tolist())
    return {gone: into for gone, into in followed.items() if into in alive and gone not in alive}


def pack(method: str, parts: Mapping[str, NDArray[np.generic] | float | int], merged: dict[int, int]) -> Snapshot:
    """A snapshot of copies; numbers are arrays without dimensions."""
    pairs = np.array(sorted(merged.items()), np.int64).reshape(-1, 2)
    head = {"method": np.array(method), "format": np.array(FORMAT), "merged": pairs}
    return head | {name: np.array(part) for name, part in parts.items()}


class Unpacked:
    """A snapshot to read from.

    Args:
        method: that it must be of.
        snapshot: as ``pack`` made it.

    Raises:
        SnapshotError: it is of another method or format, here and where a part is asked for that it lacks.
    """

    def __init__(self, method: str, snapshot: Mapping[str, NDArray[np.generic]]) -> None:
        self._snapshot, self._method = snapshot, method
        if str(self._part("method")) != method:
            raise SnapshotError(
                f"A snapshot of the online method '{self._part('method')}' cannot go on as '{method}'.",
                "Choose the method it was saved by, or start anew from the batch model.",
            )
        if self.whole("format") != FORMAT:
            raise SnapshotError(
                f"A snapshot of format {self.whole('format')} cannot be read; this version reads {FORMAT}.",
                "Start anew from the batch model.",
            )
        self.merged = {int(gone): int(into) for gone, into in self.integers("merged")}

    def _part(self, name: str) -> NDArray[np.generic]:
        if name not in self._snapshot:
            raise SnapshotError(
                f"What is to be restored has no '{name}': it is no snapshot of the online method '{self._method}'.",
                "Start anew from the batch model.",
            )
        return self._snapshot[name]

    def whole(self, name: str) -> int:
        """A whole number."""
        return int(self._part(name).astype(np.int64))

    def number(self, name: str) -> float:
        """A number."""
        return float(self._part(name).astype(np.float64))

    def floats(self, name: str) -> NDArray[np.float64]:
        """A copy as float64."""
        return np.array(self._part(name), dtype=np.float64)

    def integers(self, name: str) -> NDArray[np.int64]:
        """A copy as int64."""
        return np.array(self._part(name), dtype=np.int64)

    def ids(self, name: str) -> NDArray[np.int32]:
        """A copy as int32."""
        return np.array(self._part(name), dtype=np.int32)


class Waiting:
    """Points that are gathered until first clusters can be found in them.

    Args:
        enough: how many.
        dimensions: of the rows.
    """

    def __init__(self, enough: int, dimensions: int) -> None:
        self.enough = enough
        self.rows: NDArray[np.float64] = np.empty((0, dimensions))
        self.at: NDArray[np.int64] = np.empty(0, np.int64)

    def take(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> int:
        """Take as many as are still needed; how many that were."""
        taken = max(min(self.enough - len(self.rows), len(rows)), 0)
        self.rows, self.at = np.concatenate((self.rows, rows[:taken])), np.concatenate((self.at, at[:taken]))
        return taken

    @property
    def complete(self) -> bool:
        """Whether there are enough."""
        return len(self.rows) >= self.enough

    def clear(self) -> None:
        """Let go of them."""
        self.rows, self.at = self.rows[:0].copy(), self.at[:0].copy()

    def parts(self) -> dict[str, NDArray[np.generic]]:
        """For a snapshot."""
        return {"waiting_rows": self.rows, "waiting_at": self.at}

    @classmethod
    def restored(cls, enough: int, kept: Unpacked) -> Self:
        """From a snapshot."""
        waiting = cls(enough, 0)
        waiting.rows, waiting.at = kept.floats("waiting_rows"), kept.integers("waiting_at")
        return waiting
