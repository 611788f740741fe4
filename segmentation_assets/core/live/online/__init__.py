"""Clusterers that learn from a stream, behind one small contract.

What belongs here: one file a method, and ``METHODS``, where its name is given. What does not: the rule by which a user
is assigned (``core.users.clustering.assign``, for all of them), preprocessing of features, where snapshots are kept.
"""

from segmentation_assets.core.live.online.base import (
    OnlineClusterer,
    OnlineClusters,
    OnlineMethod,
    SnapshotError,
)
from segmentation_assets.core.live.online.clustream import CluStream
from segmentation_assets.core.live.online.dbstream import DbStream
from segmentation_assets.core.live.online.denstream import DenStream
from segmentation_assets.core.live.online.hdbscan import OnlineHdbscan
from segmentation_assets.core.live.online.kmeans import OnlineKMeans
from segmentation_assets.core.settings import OnlineSettings

METHODS: dict[str, OnlineMethod] = {
    OnlineKMeans.name: OnlineKMeans,
    CluStream.name: CluStream,
    DenStream.name: DenStream,
    DbStream.name: DbStream,
    OnlineHdbscan.name: OnlineHdbscan,
}

__all__ = [
    "METHODS",
    "OnlineClusterer",
    "OnlineClusters",
    "OnlineMethod",
    "OnlineSettings",
    "SnapshotError",
]
