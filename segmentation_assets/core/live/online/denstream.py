"""DenStream: micro-clusters that fade, joined into crowds of any shape and number.

What belongs here: Cao, Ester, Qian and Zhou, Density-Based Clustering over an Evolving Data Stream with Noise (SDM
2006). What does not: micro-clusters that share points (dbstream).

river 0.26 has a DenStream too. It was not taken: away from the origin all its radii are 0, so that everything is one
micro-cluster (online-ml/river#2004), a micro-cluster can write over another (#2008), clusters grow by one step only
(#2006), all repaired after that release; and its clock counts points.
"""

from collections.abc import Mapping
from math import log2
from typing import Self

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

POTENTIAL, OUTLIER = 0, 1
"""The two kinds of micro-clusters."""


class _Micro:
    """Up to ``size`` micro-clusters: faded weights, sums and squares as they were at the time in ``last``."""

    def __init__(self, size: int, dimensions: int) -> None:
        self.used = 0
        self.weight, self.squares, self.sum = np.zeros(size), np.zeros(size), np.zeros((size, dimensions))
        self.center = np.zeros((size, dimensions))
        self.last, self.created = np.zeros(size), np.zeros(size)
        self.cluster = np.full(size, NOISE, np.int32)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        names = ("weight", "squares", "sum", "center", "last", "created", "cluster")
        return {name: getattr(self, name) for name in names}

    def keep(self, places: NDArray[np.int64]) -> None:
        for column in self.columns().values():
            column[: len(places)] = column[places]
        self.used = len(places)

    def move(self, place: int, to: "_Micro", there: int) -> None:
        for column, other in zip(self.columns().values(), to.columns().values(), strict=True):
            other[there] = column[place]


class DenStream:
    """Micro-clusters of no more than a radius, of two kinds: potential ones, and outliers that may become such.

    A point goes to the nearest potential micro-cluster if its root mean square radius would stay within ``radius``,
    else to the nearest outlier one on the same condition, else it is one of its own. What weighs
    ``core_weight x potential_share`` becomes potential; at the paper's period potential ones that fell below it go, and
    so do outliers lighter than one that gets a point each period would be. Weights halve each ``half_life``. Beyond
    ``micro_clusters`` of a kind the lightest goes, so memory is bounded.

    Every ``macro_every`` points clusters are found: potential micro-clusters are one cluster if steps lead from one to
    the other, each between two that touch, of which one weighs ``core_weight`` at least. Ids are carried over by the
    micro-clusters. The authors let two touch whose centres are within two times ``radius`` and within both their root
    mean square radii. Neighbours within one crowd seldom are, and crowds fell to pieces. So here one of both is enough,
    and their own radii count ``((d + 4) / d) ** 0.5`` times: where a crowd ends whose density falls off as a parabola
    (Epanechnikov 1969) in d dimensions.

    Points are learned one at a time, in tens of thousands a second (benchmarks/online.py), and their order matters.

    Args:
        settings: core_weight, half_life, macro_every, micro_clusters, min_samples, potential_share, radius,
            start_points.
        seed: the batch model's clusters, which are the clusters until start_points rows are gathered, of which radius
            'auto' is taken. None: there are no clusters until then.
        dimensions: of the rows.
    """

    name = "denstream"

    def __init__(self, settings: OnlineSettings, seed: OnlineClusters | None, dimensions: int) -> None:
        self._settings = settings
        self._clusters = seed if seed is not None else no_clusters(dimensions)
        self._waiting = Waiting(settings.start_points, dimensions)
        self._kinds = (_Micro(settings.micro_clusters, dimensions), _Micro(settings.micro_clusters, dimensions))
        self._radius = 0.0  # until it is known
        self._origin, self._now, self._pruned = 0, 0.0, 0.0
        self._since_macro = 0

    @property
    def _least(self) -> float:
        return self._settings.core_weight * self._settings.potential_share

    @property
    def _period(self) -> float:
        """Seconds in which a micro-cluster just heavy enough to be potential fades to one point less."""
        return self._settings.half_life * log2(self._least / (self._least - 1))

    @property
    def radius(self) -> float:
        """The largest radius of a micro-cluster; 0 until it is known."""
        return self._radius

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take in a batch, see ``OnlineClusterer``."""
        rows, at = checked(rows, at, self._kinds[POTENTIAL].sum.shape[1])
        if not self._radius:
            taken = self._waiting.take(rows, at)
            if not self._waiting.complete:
                return
            first, first_at = self._waiting.rows, self._waiting.at
            self._waiting.clear()
            chosen = self._settings.radius
            # Two points at random are the root of two times as far from each other as from their mean.
            self._radius = suggest_eps(first, self._settings.min_samples)[0] / 2**0.5 if chosen == "auto" else chosen
            self._origin = int(first_at.min())
            self._add(first, first_at)
            self._macro()
            rows, at = rows[taken:], at[taken:]
        self._add(rows, at)

    def _add(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        squares = (rows**2).sum(axis=1)
        for row, square, time in zip(rows, squares.tolist(), ((at - self._origin) / 1_000).tolist(), strict=True):
            self._now = max(self._now, time)
            self._add_one(row, square, time)
            if self._now - self._pruned >= self._period:
                self._prune()
            self._since_macro += 1
            if self._since_macro >= self._settings.macro_every:
                self._macro()

    def _add_one(self, row: NDArray[np.float64], square: float, time: float) -> None:
        potential, outlier = self._kinds
        if self._joined(potential, row, square, time) is not None:
            return
        place = self._joined(outlier, row, square, time)
        if place is None:
            place = self._room(outlier)
            weight = self._fade(self._now - time)
            outlier.weight[place], outlier.squares[place] = weight, weight * square
            outlier.sum[place], outlier.center[place] = weight * row, row
            outlier.last[place], outlier.created[place], outlier.cluster[place] = self._now, self._now, NOISE
        elif outlier.weight[place] >= self._least:
            outlier.move(place, potential, self._room(potential))
            outlier.used -= 1
            outlier.move(outlier.used, outlier, place)

    def _joined(self, kind: _Micro, row: NDArray[np.float64], square: float, time: float) -> int | None:
        """Where a point was taken in; None if nowhere."""
        if not kind.used:
            return None
        apart = kind.center[: kind.used] - row
        place = int(np.einsum("ij,ij->i", apart, apart).argmin())
        faded, one = self._fade(self._now - float(kind.last[place])), self._fade(self._now - time)
        weight = float(kind.weight[place]) * faded + one
        total = kind.sum[place] * faded + one * row
        squares = float(kind.squares[place]) * faded + one * square
        if weight <= 0:
            return None
        center = total / weight
        if squares / weight - float(center @ center) > self._radius**2:
            return None
        kind.weight[place], kind.sum[place], kind.squares[place] = weight, total, squares
        kind.center[place], kind.last[place] = center, self._now
        return place

    def _room(self, kind: _Micro) -> int:
        if kind.used < len(kind.weight):
            kind.used += 1
            return kind.used - 1
        return int(self._weights(kind).argmin())

    def _fade(self, seconds: float) -> float:
        return float(2.0 ** max(-seconds / self._settings.half_life, -1_000.0))

    def _weights(self, kind: _Micro) -> NDArray[np.float64]:
        """(used,) weights now."""
        faded = np.exp2(-(self._now - kind.last[: kind.used]) / self._settings.half_life)
        return kind.weight[: kind.used] * faded

    def _prune(self) -> None:
        self._pruned = self._now
        potential, outlier = self._kinds
        potential.keep(np.flatnonzero(self._weights(potential) >= self._least))
        age = self._now - outlier.created[: outlier.used]
        half_life, period = self._settings.half_life, self._period
        expected = (np.exp2(-(age + period) / half_life) - 1) / (np.exp2(-period / half_life) - 1)
        outlier.keep(np.flatnonzero(self._weights(outlier) >= expected))

    def _macro(self) -> None:
        from scipy.sparse.csgraph import connected_components
        from scipy.spatial.distance import cdist

        self._since_macro = 0
        potential = self._kinds[POTENTIAL]
        u = potential.used
        if not u:
            return
        points, weights = potential.center[:u].copy(), self._weights(potential)
        core = weights >= self._settings.core_weight
        spread = potential.squares[:u] / potential.weight[:u] - (points**2).sum(axis=1)
        d = points.shape[1]
        radii = np.sqrt((d + 4) / d * np.maximum(spread, 0.0))
        near = cdist(points, points) <= np.maximum(radii[:, None] + radii, 2 * self._radius)
        _, labels = connected_components(near & (core[:, None] | core), directed=False)
        labels = labels.astype(np.int32)
        before, unknown = potential.cluster[:u].copy(), potential.cluster[:u] < 0
        if unknown.any() and len(self._clusters.points):
            now = self._clusters
            # A micro-cluster that came since is of the cluster in whose reach it came to be.
            before[unknown], _ = assign(points[unknown], now.points, now.point_ids, now.reach)
        carried = carry_ids(before, labels, weights, self._clusters.following_id)
        potential.cluster[:u] = carried.ids[labels]
        # A row by itself would be a micro-cluster of its own, and touch within two radii.
        reach = np.full(u, 2 * self._radius)
        merged = follow_merges(self._clusters.merged, carried.merged, carried.ids)
        self._clusters = OnlineClusters(points, carried.ids[labels], reach, carried.next_id, merged)

    def clusters(self) -> OnlineClusters:
        """The centres of potential micro-clusters when clusters were last found, reach two radii."""
        return self._clusters

    def snapshot(self) -> Snapshot:
        """All it knows."""
        now = self._clusters
        parts: dict[str, NDArray[np.generic] | float | int] = {
            "points": now.points,
            "point_ids": now.point_ids,
            "reach": now.reach,
            "next_id": now.next_id,
            "radius": self._radius,
            "origin": self._origin,
            "now": self._now,
            "pruned": self._pruned,
            "since_macro": self._since_macro,
        }
        for number, kind in enumerate(self._kinds):
            parts |= {f"{name}_{number}": column for name, column in kind.columns().items()}
            parts[f"used_{number}"] = kind.used
        return pack(self.name, parts | self._waiting.parts(), now.merged)

    @classmethod
    def restore(cls, snapshot: Mapping[str, NDArray[np.generic]], settings: OnlineSettings) -> Self:
        """See ``OnlineMethod``. The radius and the number of micro-clusters stay those of the snapshot."""
        kept = Unpacked(cls.name, snapshot)
        points = kept.floats("points")
        now = OnlineClusters(points, kept.ids("point_ids"), kept.floats("reach"), kept.whole("next_id"), kept.merged)
        made = cls(settings, now, points.shape[1])
        made._radius, made._origin = kept.number("radius"), kept.whole("origin")
        made._now, made._pruned = kept.number("now"), kept.number("pruned")
        made._since_macro = kept.whole("since_macro")
        for number, kind in enumerate(made._kinds):
            for name, column in kind.columns().items():
                key = f"{name}_{number}"
                setattr(kind, name, kept.ids(key) if column.dtype == np.int32 else kept.floats(key))
            kind.used = kept.whole(f"used_{number}")
        made._waiting = Waiting.restored(settings.start_points, kept)
        return made
