"""K-means that moves with the stream.

What belongs here: sequential k-means (MacQueen 1967) a batch at a time (Sculley 2010), its weights fading with time as
in the streaming k-means of Spark MLlib. What does not: micro-clusters (clustream).
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.online.base import (
    SAME,
    OnlineClusters,
    Snapshot,
    Unpacked,
    Waiting,
    checked,
    first_centers,
    no_clusters,
    pack,
)
from segmentation_assets.core.settings import OnlineSettings

CHUNK = 4_000
"""Rows whose distances to the centres are in memory at a time."""

EVIDENCE = 3
"""Points that the lightest cluster worth keeping must be expected to have before a lighter one is given up: it would
have none by chance in one case of twenty (the rule of three). So a silence of many half-lives ends no cluster."""

HALVES = (2 / np.pi) ** 0.5
"""How many standard deviations the mean of half a normal distribution is from the mean of all of it."""


class OnlineKMeans:
    """K centres, each the mean of what was nearest to it, a point counting half as much after each half-life.

    A batch is what one call of ``learn`` brings: all its rows are assigned to the centres as they were before it, and
    each then moves to the weighted mean of what it had and got. Up to rounding the order within a batch plays no role,
    late points count for as little as if they had come in time, and so do whole batches of other rows before them.

    A cluster that weighs less than ``least_share`` of the mean cluster is given up with its id, once that part is
    ``EVIDENCE`` points at least. In its place the
    cluster of the largest sum of squares is divided across its widest dimension at its mean (MLlib does the same, at
    a fixed distance); the half below keeps the id, the other gets a new one. So there are k clusters as long as rows
    differ.

    Args:
        settings: half_life, k, least_share, seed, seed_weight, start_points.
        seed: the batch model's clusters; of several points of one cluster their mean. None: the first start_points
            rows are gathered and divided by k-means.
        dimensions: of the rows.
    """

    name = "kmeans"

    def __init__(self, settings: OnlineSettings, seed: OnlineClusters | None, dimensions: int) -> None:
        start = seed if seed is not None else no_clusters(dimensions)
        self._settings = settings
        self._centers = start.centers()
        self._ids = start.ids
        self._weight = np.full(len(self._ids), settings.seed_weight)
        self._variance = np.zeros_like(self._centers)
        self._target = len(self._ids) or settings.k
        self._next_id = start.following_id
        self._merged = dict(start.merged)
        self._latest: int | None = None
        self._waiting = Waiting(settings.start_points, dimensions)

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take in a batch, see ``OnlineClusterer``."""
        rows, at = checked(rows, at, self._centers.shape[1])
        if not len(self._ids):
            taken = self._waiting.take(rows, at)
            if not self._waiting.complete:
                return
            rows, at = rows[taken:], at[taken:]
            self._start()
        if len(rows):
            self._update(rows, at)

    def _start(self) -> None:
        rows, at = self._waiting.rows, self._waiting.at
        self._waiting.clear()
        self._centers, _ = first_centers(rows, self._target, self._settings.seed)
        k = len(self._centers)
        self._ids = np.arange(self._next_id, self._next_id + k, dtype=np.int32)
        self._next_id += k
        self._weight, self._variance = np.zeros(k), np.zeros_like(self._centers)
        self._update(rows, at)

    def _update(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        half_life = 1_000 * self._settings.half_life
        latest = int(at.max()) if self._latest is None else max(self._latest, int(at.max()))
        weights = np.exp2((at - latest) / half_life)
        faded = self._weight * (1.0 if self._latest is None else np.exp2((self._latest - latest) / half_life))
        self._latest = latest
        # Sums are taken around the old centres: squares of small numbers keep their digits.
        added, moved, squares = np.zeros(len(faded)), np.zeros_like(self._centers), np.zeros_like(self._centers)
        for start in range(0, len(rows), CHUNK):
            part, counts = rows[start : start + CHUNK], weights[start : start + CHUNK]
            nearest = (0.5 * (self._centers**2).sum(axis=1) - part @ self._centers.T).argmin(axis=1)
            apart = part - self._centers[nearest]
            member = np.zeros((len(faded), len(part)))
            member[nearest, np.arange(len(part))] = counts
            added += np.bincount(nearest, counts, len(faded))
            moved += member @ apart
            squares += member @ apart**2
        self._weight = faded + added
        heavy = np.maximum(self._weight, np.finfo(np.float64).tiny)[:, None]
        shift = moved / heavy
        self._variance = np.maximum((faded[:, None] * self._variance + squares) / heavy - shift**2, 0.0)
        self._centers = self._centers + shift
        self._give_up()
        self._divide()

    def _give_up(self) -> None:
        least = self._settings.least_share * self._weight.mean()
        if least < EVIDENCE:
            return
        kept = self._weight >= least
        self._ids, self._weight = self._ids[kept], self._weight[kept]
        self._centers, self._variance = self._centers[kept], self._variance[kept]

    def _divide(self) -> None:
        while len(self._ids) < self._target:
            widest = int((self._weight * self._variance.sum(axis=1)).argmax())
            across = int(self._variance[widest].argmax())
            spread = float(self._variance[widest, across]) ** 0.5
            # A cluster too light to be divided would be given up at once, and so on for ever.
            if spread <= SAME or self._weight[widest] < 2:
                return
            other = self._centers[widest].copy()
            self._centers[widest, across] -= HALVES * spread
            other[across] += HALVES * spread
            self._variance[widest, across] *= 1 - HALVES**2
            self._weight[widest] /= 2
            self._centers = np.vstack((self._centers, other))
            self._variance = np.vstack((self._variance, self._variance[widest]))
            self._weight = np.append(self._weight, self._weight[widest])
            self._ids = np.append(self._ids, np.int32(self._next_id)).astype(np.int32)
            self._next_id += 1

    def clusters(self) -> OnlineClusters:
        """The centres, reach infinite."""
        return OnlineClusters(
            self._centers.copy(),
            self._ids.copy(),
            np.full(len(self._ids), np.inf),
            self._next_id,
            {gone: into for gone, into in self._merged.items() if into in self._ids},
        )

    def snapshot(self) -> Snapshot:
        """All it knows."""
        parts: dict[str, NDArray[np.generic] | float | int] = {
            "centers": self._centers,
            "ids": self._ids,
            "weight": self._weight,
            "variance": self._variance,
            "target": self._target,
            "next_id": self._next_id,
            "latest": np.array([] if self._latest is None else [self._latest], np.int64),
        }
        return pack(self.name, parts | self._waiting.parts(), self._merged)

    @classmethod
    def restore(cls, snapshot: Mapping[str, NDArray[np.generic]], settings: OnlineSettings) -> Self:
        """See ``OnlineMethod``."""
        kept = Unpacked(cls.name, snapshot)
        centers = kept.floats("centers")
        made = cls(settings, None, centers.shape[1])
        made._centers, made._ids = centers, kept.ids("ids")
        made._weight, made._variance = kept.floats("weight"), kept.floats("variance")
        made._target, made._next_id, made._merged = kept.whole("target"), kept.whole("next_id"), kept.merged
        latest = kept.integers("latest")
        made._latest = int(latest[0]) if len(latest) else None
        made._waiting = Waiting.restored(settings.start_points, kept)
        return made
