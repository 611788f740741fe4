"""DBSTREAM: micro-clusters joined where they share points.

What belongs here: an adapter to river's DBSTREAM (Hahsler and Bolanos, Clustering Data Streams Based on Shared Density
between Micro-Clusters, IEEE TKDE 2016). What does not: the algorithm itself, which river has but for its last step.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.online.base import (
    OnlineClusters,
    Snapshot,
    Unpacked,
    Waiting,
    carry_ids,
    checked,
    follow_merges,
    no_clusters,
    pack,
)
from segmentation_assets.core.settings import OnlineSettings
from segmentation_assets.core.users.clustering.base import NOISE, assign
from segmentation_assets.core.users.clustering.dbscan import suggest_eps
from segmentation_assets.errors import SegmentsError

CLEAN_EVERY = 1_000
"""Points after which river looks for micro-clusters that have faded."""


class StreamExtraMissingError(SegmentsError):
    """river is not installed."""


class DbStream:
    """river's micro-clusters, its own last step.

    river learns one point at a time, at a rate that benchmarks/online.py shows (some thousand a second; fewer the more
    micro-clusters there are), and its clock is the number of points: ``at`` plays no role. Clusters are found here,
    every ``macro_every`` points: micro-clusters of ``core_weight`` or more that share ``shared_share`` of their points
    are joined, and whatever is joined by way of others; all weights faded to the present. (river's own last step
    follows shared points in one direction only, so that one cluster can fall into several, and compares weights of
    different moments.) Ids are carried over by the micro-clusters.

    The snapshot is river's state number by number, nothing pickled: restoring one runs nothing that is in it.

    Args:
        settings: core_weight, half_life_points, macro_every, min_samples, radius, shared_share, start_points.
        seed: the batch model's clusters, which are the clusters until start_points rows are gathered, of which radius
            'auto' is taken. None: there are no clusters until then.
        dimensions: of the rows.

    Raises:
        StreamExtraMissingError: river is not installed.
    """

    name = "dbstream"

    def __init__(self, settings: OnlineSettings, seed: OnlineClusters | None, dimensions: int) -> None:
        self._settings = settings
        self._dimensions = dimensions
        self._clusters = seed if seed is not None else no_clusters(dimensions)
        self._waiting = Waiting(settings.start_points, dimensions)
        self._model = _dbstream(1.0, settings)
        self._radius = 0.0  # until it is known
        # river's number of a micro-cluster -> the cluster it was in when clusters were last found
        self._known: dict[int, int] = {}
        self._since_macro = 0

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take in a batch, see ``OnlineClusterer``."""
        rows, at = checked(rows, at, self._dimensions)
        if not self._radius:
            taken = self._waiting.take(rows, at)
            if not self._waiting.complete:
                return
            first = self._waiting.rows
            self._waiting.clear()
            chosen = self._settings.radius
            self._radius = suggest_eps(first, self._settings.min_samples)[0] if chosen == "auto" else chosen
            self._model = _dbstream(self._radius, self._settings)
            self._add(first)
            self._macro()
            rows = rows[taken:]
        self._add(rows)

    def _add(self, rows: NDArray[np.float64]) -> None:
        for row in rows.tolist():
            self._model.learn_one(dict(enumerate(row)))
            if _time(self._model) % CLEAN_EVERY == 0:
                self._forget()
            self._since_macro += 1
            if self._since_macro >= self._settings.macro_every:
                self._macro()

    def _forget(self) -> None:
        """Drop what is kept of micro-clusters that are gone: it would grow for ever, and their numbers come again."""
        model = self._model
        alive = model.micro_clusters.keys()
        for table in (model.s, model.s_t):
            for number in [number for number in table if number not in alive]:
                del table[number]
            for shared in table.values():
                for number in [number for number in shared if number not in alive]:
                    del shared[number]
        self._known = {number: cluster for number, cluster in self._known.items() if number in alive}

    def _macro(self) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        self._since_macro = 0
        model, now = self._model, _time(self._model)
        faded = {
            number: micro.weight * 2 ** (-model.fading_factor * (now - micro.last_update))
            for number, micro in model.micro_clusters.items()
        }
        numbers = [number for number, weight in faded.items() if weight >= self._settings.core_weight]
        if not numbers:
            return
        place = {number: i for i, number in enumerate(numbers)}
        edges = [
            (place[i], place[j])
            for i, shared in model.s.items()
            for j, share in shared.items()
            if i in place and j in place
            if share * 2 ** (-model.fading_factor * (now - model.s_t[i][j]))
            >= self._settings.shared_share * (faded[i] + faded[j]) / 2
        ]
        m = len(numbers)
        ends = np.array(edges, np.int64).reshape(-1, 2)
        _, labels = connected_components(coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(m, m)))
        points = np.array([[model.micro_clusters[i].center[c] for c in range(self._dimensions)] for i in numbers])
        before = np.array([self._known.get(number, NOISE) for number in numbers], np.int32)
        if (before < 0).any() and len(self._clusters.points):
            held = self._clusters
            # A micro-cluster that came since is of the cluster in whose reach it came to be.
            before[before < 0], _ = assign(points[before < 0], held.points, held.point_ids, held.reach)
        weights = np.array([faded[number] for number in numbers])
        carried = carry_ids(before, labels.astype(np.int32), weights, self._clusters.following_id)
        ids = carried.ids[labels]
        self._known = dict(zip(numbers, ids.tolist(), strict=True))
        merged = follow_merges(self._clusters.merged, carried.merged, carried.ids)
        self._clusters = OnlineClusters(points, ids, np.full(m, self._radius), carried.next_id, merged)

    def clusters(self) -> OnlineClusters:
        """The centres of dense micro-clusters when clusters were last found, reach their radius."""
        return self._clusters

    def snapshot(self) -> Snapshot:
        """All it and river know."""
        now, model = self._clusters, self._model
        micro = model.micro_clusters
        # Order is kept: river looks at micro-clusters in that of its dictionaries.
        pairs = [(i, j, share, model.s_t[i][j]) for i, shared in model.s.items() for j, share in shared.items()]
        parts: dict[str, NDArray[np.generic] | float | int] = {
            "points": now.points,
            "point_ids": now.point_ids,
            "reach": now.reach,
            "next_id": now.next_id,
            "radius": self._radius,
            "since_macro": self._since_macro,
            "known": np.array(list(self._known.items()), np.int64).reshape(-1, 2),
            "river_time": _time(model),
            "river_numbers": np.array(list(micro), np.int64),
            "river_centers": np.array(
                [[one.center[c] for c in range(self._dimensions)] for one in micro.values()], np.float64
            ).reshape(-1, self._dimensions),
            "river_weights": np.array([one.weight for one in micro.values()], np.float64),
            "river_updated": np.array([one.last_update for one in micro.values()], np.int64),
            "river_sharing": np.array(list(model.s), np.int64),
            "river_shared": np.array(pairs, np.float64).reshape(-1, 4),
        }
        return pack(self.name, parts | self._waiting.parts(), now.merged)

    @classmethod
    def restore(cls, snapshot: Mapping[str, NDArray[np.generic]], settings: OnlineSettings) -> Self:
        """See ``OnlineMethod``. The radius stays that of the snapshot."""
        kept = Unpacked(cls.name, snapshot)
        points = kept.floats("points")
        now = OnlineClusters(points, kept.ids("point_ids"), kept.floats("reach"), kept.whole("next_id"), kept.merged)
        made = cls(settings, now, points.shape[1])
        made._radius, made._since_macro = kept.number("radius"), kept.whole("since_macro")
        made._known = dict(kept.integers("known").tolist())
        made._waiting = Waiting.restored(settings.start_points, kept)
        made._model = model = _dbstream(made._radius or 1.0, settings)
        model._time_stamp = kept.whole("river_time")
        micro_cluster: Any = import_module("river.cluster.dbstream").DBSTREAMMicroCluster
        columns = ("river_numbers", "river_centers", "river_weights", "river_updated")
        numbers, centers, weights, updated = (kept.floats(name).tolist() for name in columns)
        for number, center, weight, last in zip(numbers, centers, weights, updated, strict=True):
            model._micro_clusters[int(number)] = micro_cluster(dict(enumerate(center)), int(last), weight)
        model.s = {number: {} for number in kept.integers("river_sharing").tolist()}
        model.s_t = {number: {} for number in model.s}
        for i, j, share, last in kept.floats("river_shared").tolist():
            model.s[int(i)][int(j)], model.s_t[int(i)][int(j)] = share, int(last)
        return made


def _time(model: Any) -> int:
    """Points that river's clock, which has no public name, has counted."""
    return int(model._time_stamp)


def _dbstream(radius: float, settings: OnlineSettings) -> Any:
    try:
        from river.cluster import DBSTREAM
    except ImportError as error:
        raise StreamExtraMissingError(
            "The online method 'dbstream' needs the extra [stream].",
            "Install it: pip install 'segmentation-assets[stream]'",
        ) from error
    return DBSTREAM(
        clustering_threshold=radius,
        fading_factor=1 / settings.half_life_points,
        cleanup_interval=CLEAN_EVERY,
        intersection_factor=settings.shared_share,
        minimum_weight=settings.core_weight,
    )
