"""HDBSCAN that looks again now and then.

What belongs here: a sample of the recent past, and carrying clusters over from one look at it to the next. What does
not: HDBSCAN and the reach of its points (core.users.clustering.hdbscan), which the batch side uses as they are.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.online.base import (
    OnlineClusters,
    Snapshot,
    Unpacked,
    carry_ids,
    checked,
    follow_merges,
    no_clusters,
    pack,
)
from segmentation_assets.core.settings import BehaviourSettings, OnlineSettings
from segmentation_assets.core.users.clustering.base import NOISE, assign
from segmentation_assets.core.users.clustering.hdbscan import HierarchicalDensityClusterer


class OnlineHdbscan:
    """The batch's clusters, by whose points and reach new rows are assigned, until HDBSCAN is run again.

    That is approximate prediction: a row gets the cluster of its nearest point if it is near enough, without the
    hierarchy being made anew (the idea of ``approximate_predict`` of McInnes, Healy and Astels 2017).

    A sample of ``window`` rows is kept, older ones less likely (Aggarwal, On Biased Reservoir Sampling, VLDB 2006: each
    new row takes the place of one at random). It starts with the batch's points, of which there are many where the
    batch model is HDBSCAN too. Every ``recluster_every`` rows HDBSCAN is run on it. A cluster keeps its id by the rows
    that the clusters before would assign to it; one that has grown together with a larger one is in ``merged``.

    Learning costs next to nothing; a run of HDBSCAN takes about a second for 5,000 rows of 20 columns, and goes
    quadratically with the window.

    Args:
        settings: min_cluster_size, min_samples, recluster_every, seed, window.
        seed: the batch model's clusters. None: there are none until the first run.
        dimensions: of the rows.
    """

    name = "hdbscan"

    def __init__(self, settings: OnlineSettings, seed: OnlineClusters | None, dimensions: int) -> None:
        self._settings = settings
        self._clusters = seed if seed is not None else no_clusters(dimensions)
        points = self._clusters.points
        if len(points) > settings.window:
            chance = np.random.default_rng(settings.seed)
            points = points[np.sort(chance.permutation(len(points))[: settings.window])]
        self._rows = np.array(points, np.float64)
        self._seen = 0
        self._since = 0

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take in a batch, see ``OnlineClusterer``; times play no role. Runs HDBSCAN when it is due."""
        rows, _ = checked(rows, at, self._rows.shape[1])
        while len(rows):
            part = rows[: max(self._settings.recluster_every - self._since, 1)]
            rows = rows[len(part) :]
            self._sample(part)
            self._since += len(part)
            if self._since >= self._settings.recluster_every:
                self.recluster()

    def _sample(self, rows: NDArray[np.float64]) -> None:
        free = max(self._settings.window - len(self._rows), 0)
        self._rows = np.concatenate((self._rows, rows[:free]))
        rest = rows[free:]
        # A generator for each batch, from how many rows came before it: nothing of it has to be kept.
        places = np.random.default_rng((self._settings.seed, self._seen)).integers(len(self._rows), size=len(rest))
        # Of several rows in one place only the last may stay, whatever order numpy writes them in.
        last = len(places) - 1 - np.unique(places[::-1], return_index=True)[1]
        self._rows[places[last]] = rest[last]
        self._seen += len(rows)

    def recluster(self) -> dict[int, int]:
        """Run HDBSCAN on the sample, whether or not it is due. Where it finds nothing, what was stays.

        Returns:
            ids of clusters that have now grown into another one, and its id.
        """
        self._since = 0
        before, now = self._clusters, self._settings
        settings = BehaviourSettings(
            method="hdbscan", min_samples=now.min_samples, min_cluster_size=now.min_cluster_size, seed=now.seed
        )
        found = HierarchicalDensityClusterer().fit(self._rows, settings)
        if not found.k:
            return {}
        were = np.full(len(self._rows), NOISE, np.int32)
        if len(before.points):
            were, _ = assign(self._rows, before.points, before.point_ids, before.reach)
        carried = carry_ids(were, found.labels, np.ones(len(self._rows)), before.following_id)
        self._clusters = OnlineClusters(
            found.points,
            carried.ids[found.point_labels],
            found.reach,
            carried.next_id,
            follow_merges(before.merged, carried.merged, carried.ids),
        )
        return carried.merged

    def clusters(self) -> OnlineClusters:
        """The points of the last clusters, with their reach."""
        return self._clusters

    def snapshot(self) -> Snapshot:
        """All it knows."""
        now = self._clusters
        parts: dict[str, NDArray[np.generic] | int] = {
            "points": now.points,
            "point_ids": now.point_ids,
            "reach": now.reach,
            "next_id": now.next_id,
            "rows": self._rows,
            "seen": self._seen,
            "since": self._since,
        }
        return pack(self.name, parts, now.merged)

    @classmethod
    def restore(cls, snapshot: Mapping[str, NDArray[np.generic]], settings: OnlineSettings) -> Self:
        """See ``OnlineMethod``. A sample larger than a window that has become smaller stays as large as it is."""
        kept = Unpacked(cls.name, snapshot)
        points = kept.floats("points")
        now = OnlineClusters(points, kept.ids("point_ids"), kept.floats("reach"), kept.whole("next_id"), kept.merged)
        made = cls(settings, now, points.shape[1])
        made._rows, made._seen, made._since = kept.floats("rows"), kept.whole("seen"), kept.whole("since")
        return made
