"""CluStream: a stream as a hundred micro-clusters, divided into clusters now and then.

What belongs here: Aggarwal, Han, Wang and Yu, A Framework for Clustering Evolving Data Streams (VLDB 2003), a batch at
a time. What does not: methods whose micro-clusters fade (denstream, dbstream).

river 0.26 has a CluStream too. It was not taken: it learns some hundred points a second, takes the mean of the standard
deviations of the columns for the root mean square deviation, drops the first micro-cluster that is old instead of the
oldest, forgets how many points a micro-cluster stands for when it divides them, and takes the relevance stamp from the
wrong end of the time stamps. (Points that got the wrong cluster because centres of two moments were mixed, the open
report online-ml/river#1634, are no longer to be seen in the code of 0.26.1.)
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.online.base import (
    SAME,
    STARTS,
    OnlineClusters,
    Snapshot,
    Unpacked,
    Waiting,
    carry_ids,
    checked,
    first_centers,
    follow_merges,
    no_clusters,
    pack,
)
from segmentation_assets.core.settings import OnlineSettings
from segmentation_assets.core.users.clustering.base import NOISE, assign

BETTER = 0.9
"""A division that does not start from the one before takes its place when its sum of squares is below this part."""


class CluStream:
    """Cluster feature vectors: of each micro-cluster n, the sums of rows, squares, times and squares of times.

    A point goes to its nearest micro-cluster if it is within ``boundary_factor`` times the root mean square deviation
    of that (for one of a single point: the distance to the nearest other one). Else it is a new micro-cluster, and room
    is made for it: the one of the smallest relevance stamp goes if that is older than the horizon, else the two nearest
    to each other become one. The relevance stamp is the mean time of the last m points, taken from the times as if they
    were normally distributed: of n points, the quantile ``1 - m / 2n``; their mean if n < 2m.

    Batches of ``batch`` points are assigned at once to the micro-clusters as they were before it; those within a
    boundary are added together, the others follow one by one in their order. With ``batch`` 1 this is the definition of
    the authors.

    Clusters are those of a weighted k-means of the micro-clusters, every ``macro_every`` points. As in the paper they
    are of the recent past only, by subtraction: what a micro-cluster had at a moment between one and two horizons ago
    does not count. Divisions start from the clusters before, whose ids are carried over by the micro-clusters in them.

    Args:
        settings: batch, boundary_factor, horizon, k, macro_every, micro_clusters, recent_points, seed, start_points.
        seed: the batch model's clusters, which are the clusters until start_points rows are gathered; these are then
            divided into the first micro-clusters by k-means. None: there are no clusters until then.
        dimensions: of the rows.
    """

    name = "clustream"

    def __init__(self, settings: OnlineSettings, seed: OnlineClusters | None, dimensions: int) -> None:
        q = settings.micro_clusters
        self._settings = settings
        self._clusters = seed if seed is not None else no_clusters(dimensions)
        self._target = len(self._clusters.ids) or settings.k
        self._waiting = Waiting(settings.start_points, dimensions)
        self._used = 0  # the first so many rows of the arrays below are micro-clusters
        self._count, self._sum, self._squares = np.zeros(q), np.zeros((q, dimensions)), np.zeros(q)
        # Times are seconds since the first point: squares of milliseconds since 1970 would have no digits left.
        self._time, self._time_squares = np.zeros(q), np.zeros(q)
        self._cluster = np.full(q, NOISE, np.int32)  # id of the cluster each was in last
        # (2, q) and (2, q, d): what each had when the last horizon began, and the one before
        self._count_before, self._sum_before = np.zeros((2, q)), np.zeros((2, q, dimensions))
        self._horizon_began = 0.0
        self._origin, self._now = 0, 0.0
        self._since_macro = 0

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take in a batch, see ``OnlineClusterer``."""
        rows, at = checked(rows, at, self._sum.shape[1])
        if not self._used:
            taken = self._waiting.take(rows, at)
            if not self._waiting.complete:
                return
            rows, at = rows[taken:], at[taken:]
            self._start()
        size = self._settings.batch
        for start in range(0, len(rows), size):
            self._add(rows[start : start + size], (at[start : start + size] - self._origin) / 1_000)

    def _start(self) -> None:
        rows = self._waiting.rows
        self._origin = int(self._waiting.at.min())
        times = (self._waiting.at - self._origin) / 1_000
        self._waiting.clear()
        centers, label = first_centers(rows, self._settings.micro_clusters, self._settings.seed)
        self._used = len(centers)
        self._absorb(rows, times, label)
        self._now = float(times.max())
        if len(self._clusters.points):
            now = self._clusters
            self._cluster[: self._used], _ = assign(centers, now.points, now.point_ids, now.reach)
        self._macro()

    def _add(self, rows: NDArray[np.float64], times: NDArray[np.float64]) -> None:
        u = self._used
        centers = self._centers()
        apart = _squared_distances(centers, centers)
        np.fill_diagonal(apart, np.inf)
        boundary = self._boundaries(apart)
        distance = _squared_distances(rows, centers)
        nearest = distance.argmin(axis=1)
        within = distance[np.arange(len(rows)), nearest] <= boundary[nearest]
        now = np.maximum.accumulate(np.maximum(times, self._now))
        self._absorb(rows[within], times[within], nearest[within].astype(np.int32))
        if not within.all():
            grid = np.full((len(self._count), len(self._count)), np.inf)
            centers = self._centers()
            grid[:u, :u] = _squared_distances(centers, centers)
            np.fill_diagonal(grid, np.inf)
            full = np.full(self._sum.shape, np.inf)
            full[:u] = centers
            for i in np.flatnonzero(~within):
                self._add_one(rows[i], float(times[i]), float(now[i]), full, grid)
        self._now = float(now[-1])
        if self._now - self._horizon_began >= self._settings.horizon:
            self._count_before = np.stack((self._count, self._count_before[0]))
            self._sum_before = np.stack((self._sum, self._sum_before[0]))
            self._horizon_began = self._now
        self._since_macro += len(rows)
        if self._since_macro >= self._settings.macro_every:
            self._macro()

    def _add_one(
        self,
        row: NDArray[np.float64],
        time: float,
        now: float,
        centers: NDArray[np.float64],
        apart: NDArray[np.float64],
    ) -> None:
        """A point by itself; ``centers`` (q, d) and their squared distances ``apart`` (q, q) are kept up to date."""
        u = self._used
        distance = ((centers[:u] - row) ** 2).sum(axis=1)
        nearest = int(distance.argmin())
        boundary = (
            float(apart[nearest].min())
            if self._count[nearest] == 1
            else self._settings.boundary_factor**2 * float(self._variance(nearest))
        )
        if distance[nearest] <= boundary + SAME**2:
            place = nearest
            self._count[place] += 1
            self._sum[place] += row
            self._squares[place] += row @ row
            self._time[place] += time
            self._time_squares[place] += time * time
        else:
            place = self._make_room(now, centers, apart)
            self._count[place], self._sum[place], self._squares[place] = 1, row, row @ row
            self._time[place], self._time_squares[place], self._cluster[place] = time, time * time, NOISE
            self._count_before[:, place], self._sum_before[:, place] = 0, 0
        self._moved(place, centers, apart)

    def _make_room(self, now: float, centers: NDArray[np.float64], apart: NDArray[np.float64]) -> int:
        """The place of a micro-cluster that may be written over."""
        if self._used < len(self._count):
            self._used += 1
            return self._used - 1
        stamps = self.relevance_stamps()
        oldest = int(stamps.argmin())
        if stamps[oldest] < now - self._settings.horizon:
            return oldest
        first, second = (int(i) for i in np.unravel_index(int(apart.argmin()), apart.shape))
        if self._count[second] > self._count[first]:
            self._cluster[first] = self._cluster[second]
        for sums in (self._count, self._sum, self._squares, self._time, self._time_squares):
            sums[first] += sums[second]
        self._count_before[:, first] += self._count_before[:, second]
        self._sum_before[:, first] += self._sum_before[:, second]
        self._moved(first, centers, apart)
        return second

    def _moved(self, place: int, centers: NDArray[np.float64], apart: NDArray[np.float64]) -> None:
        centers[place] = self._sum[place] / self._count[place]
        u = self._used
        distance = ((centers[:u] - centers[place]) ** 2).sum(axis=1)
        distance[place] = np.inf
        apart[place, :u] = apart[:u, place] = distance

    def _absorb(self, rows: NDArray[np.float64], times: NDArray[np.float64], place: NDArray[np.int32]) -> None:
        u = self._used
        member = np.zeros((u, len(rows)))
        member[place, np.arange(len(rows))] = 1
        self._count[:u] += np.bincount(place, minlength=u)
        self._sum[:u] += member @ rows
        self._squares[:u] += np.bincount(place, (rows**2).sum(axis=1), u)
        self._time[:u] += np.bincount(place, times, u)
        self._time_squares[:u] += np.bincount(place, times**2, u)

    def _centers(self) -> NDArray[np.float64]:
        return self._sum[: self._used] / self._count[: self._used, None]

    def _variance(self, place: int | slice) -> NDArray[np.float64]:
        """Mean squared distance from the centre."""
        count = self._count[place]
        total = (self._sum[place] ** 2).sum(axis=-1) / count
        found: NDArray[np.float64] = np.maximum((self._squares[place] - total) / count, 0.0)
        return found

    def _boundaries(self, apart: NDArray[np.float64]) -> NDArray[np.float64]:
        """(u,) squared distances up to which micro-clusters take rows in."""
        wide = self._settings.boundary_factor**2 * self._variance(slice(self._used))
        return np.where(self._count[: self._used] == 1, apart.min(axis=1), wide) + SAME**2

    def relevance_stamps(self) -> NDArray[np.float64]:
        """(u,) seconds since the first point, about when the last ``recent_points`` points of each came on average."""
        from scipy.special import ndtri

        count, m = self._count[: self._used], self._settings.recent_points
        mean = self._time[: self._used] / count
        deviation = np.sqrt(np.maximum(self._time_squares[: self._used] / count - mean**2, 0.0))
        quantile = ndtri(1 - np.minimum(m / (2 * count), 0.5))
        return np.where(count < 2 * m, mean, mean + quantile * deviation)

    def micro_clusters(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Centres (u, d), root mean square deviations (u,) and points (u,) of the micro-clusters."""
        return self._centers(), np.sqrt(self._variance(slice(self._used))), self._count[: self._used].copy()

    def _macro(self) -> None:
        """Divide the recent part of the micro-clusters into clusters, and carry ids over."""
        self._since_macro = 0
        u = self._used
        weights = self._count[:u] - self._count_before[1, :u]
        recent = np.flatnonzero(weights > 0)
        weights = weights[recent]
        centers = (self._sum[recent] - self._sum_before[1, recent]) / weights[:, None]
        points, labels = divide(centers, weights, self._target, self._clusters.centers(), self._settings.seed)
        carried = carry_ids(self._cluster[recent], labels, weights, self._clusters.following_id)
        self._cluster[:u] = NOISE
        self._cluster[recent] = carried.ids[labels]
        self._clusters = OnlineClusters(
            points,
            carried.ids,
            np.full(len(points), np.inf),
            carried.next_id,
            follow_merges(self._clusters.merged, carried.merged, carried.ids),
        )

    def clusters(self) -> OnlineClusters:
        """The centres of the last division, reach infinite."""
        return self._clusters

    def snapshot(self) -> Snapshot:
        """All it knows."""
        now = self._clusters
        parts: dict[str, NDArray[np.generic] | float | int] = {
            "points": now.points,
            "point_ids": now.point_ids,
            "reach": now.reach,
            "next_id": now.next_id,
            "target": self._target,
            "used": self._used,
            "count": self._count,
            "sum": self._sum,
            "squares": self._squares,
            "time": self._time,
            "time_squares": self._time_squares,
            "cluster": self._cluster,
            "count_before": self._count_before,
            "sum_before": self._sum_before,
            "horizon_began": self._horizon_began,
            "origin": self._origin,
            "now": self._now,
            "since_macro": self._since_macro,
        }
        return pack(self.name, parts | self._waiting.parts(), now.merged)

    @classmethod
    def restore(cls, snapshot: Mapping[str, NDArray[np.generic]], settings: OnlineSettings) -> Self:
        """See ``OnlineMethod``. The number of micro-clusters stays that of the snapshot."""
        kept = Unpacked(cls.name, snapshot)
        points = kept.floats("points")
        now = OnlineClusters(points, kept.ids("point_ids"), kept.floats("reach"), kept.whole("next_id"), kept.merged)
        made = cls(settings, now, points.shape[1])
        made._target, made._used = kept.whole("target"), kept.whole("used")
        made._count, made._sum, made._squares = kept.floats("count"), kept.floats("sum"), kept.floats("squares")
        made._time, made._time_squares = kept.floats("time"), kept.floats("time_squares")
        made._cluster = kept.ids("cluster")
        made._count_before, made._sum_before = kept.floats("count_before"), kept.floats("sum_before")
        made._horizon_began, made._now = kept.number("horizon_began"), kept.number("now")
        made._origin, made._since_macro = kept.whole("origin"), kept.whole("since_macro")
        made._waiting = Waiting.restored(settings.start_points, kept)
        return made


def divide(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    k: int,
    before: NDArray[np.float64],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Weighted k-means that goes on from centres before unless others are better by far.

    Args:
        points: (m, d), m at least 1.
        weights: (m,) more than 0.
        k: clusters; no more than there are different points.
        before: centres to start from, (k, d); others than k are no start.
        seed: of every random choice.

    Returns:
        centres (k, d), and (m,) int32 the centre of each point.
    """
    from sklearn.cluster import KMeans

    different, place = np.unique(points, axis=0, return_inverse=True)
    if len(different) <= k:
        return different, place.ravel().astype(np.int32)
    best = KMeans(n_clusters=k, n_init=STARTS, random_state=seed).fit(points, sample_weight=weights)
    if len(before) == k:
        going_on = KMeans(n_clusters=k, init=before, n_init=1).fit(points, sample_weight=weights)
        if len(np.unique(going_on.labels_)) == k and BETTER * going_on.inertia_ <= best.inertia_:
            best = going_on
    labels = best.labels_.astype(np.int32)
    # Rows that differ by next to nothing can leave a centre without any.
    filled, labels = np.unique(labels, return_inverse=True)
    return np.asarray(best.cluster_centers_, np.float64)[filled], labels.ravel().astype(np.int32)


def _squared_distances(rows: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m), never negative."""
    found: NDArray[np.float64] = rows @ points.T
    found *= -2
    found += (rows**2).sum(axis=1)[:, None]
    found += (points**2).sum(axis=1)
    return np.maximum(found, 0.0, out=found)
