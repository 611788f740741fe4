"""Behaviour clusters that go on learning, as a worker holds them: opened, asked, saved.

What belongs here: which clusterer, what it starts from, keeping it across restarts. What does not: clusterers
(core.live.online).

Every worker learns from the users it sees. Where a step had to be repeated, its users were learnt twice: a clusterer is
a summary, not an account. Its snapshot lies in the store, by worker name, and is of one model: with another model the
clusters begin anew from those of that model, whose ids they carry on.
"""

import io
import logging

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.live.online import METHODS, OnlineClusterer, OnlineClusters, SnapshotError
from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.io.live_store import StateStore, StoreUnavailable

KEEP_SECONDS = 30 * 86_400.0
"""After which clusters that no worker of that name went on with are forgotten."""

_log = logging.getLogger(__name__)


class _Assignable:
    """A clusterer as ``core.live.segmenter`` asks it. What it answers is worked out once until it learns again."""

    def __init__(self, clusterer: OnlineClusterer) -> None:
        self.clusterer = clusterer
        self._known: OnlineClusters | None = None

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        self.clusterer.learn(rows, at)
        self._known = None

    def assignable(self) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
        if self._known is None:
            self._known = self.clusterer.clusters()
        return self._known.points, self._known.point_ids, self._known.reach


class Learner:
    """The clusterer of one worker.

    Args:
        store: where it is kept.
        key: under which name.
        clusterer: itself.
    """

    def __init__(self, store: StateStore, key: str, clusterer: OnlineClusterer) -> None:
        self._store = store
        self._key = key
        self.clusters = _Assignable(clusterer)

    @classmethod
    def open(cls, store: StateStore, settings: StreamSettings, model: LiveModel, worker: str) -> "Learner | None":
        """As it was left, or from the clusters of the model; None where nothing is to be learnt."""
        chosen, behaviour = settings.online, model.behaviour
        if chosen.method == "model" or behaviour is None:
            return None
        key = f"online:{settings.group}:{worker}:{chosen.method}:{model.version}"
        method = METHODS[chosen.method]
        try:
            kept = store.kept(key)
            if kept is not None:
                with np.load(io.BytesIO(kept), allow_pickle=False) as arrays:
                    return cls(store, key, method.restore(dict(arrays), chosen))
        except StoreUnavailable:
            _log.warning("the clusters that this worker learnt cannot be read now; it begins from those of the model")
        except (SnapshotError, ValueError, OSError):
            _log.warning("the clusters that this worker learnt are not readable; it begins from those of the model")
        seed = OnlineClusters(behaviour.points, behaviour.point_clusters, behaviour.reach, behaviour.next_id)
        return cls(store, key, method(chosen, seed, behaviour.points.shape[1]))

    def save(self) -> None:
        """Keep it as it is now."""
        file = io.BytesIO()
        np.savez(file, **self.clusters.clusterer.snapshot())  # type: ignore[arg-type]  # arrays by name
        try:
            self._store.keep(self._key, file.getvalue(), KEEP_SECONDS)
        except StoreUnavailable:
            _log.warning("the clusters that this worker learnt could not be kept")
