"""Clusterers behind one small contract.

What belongs here: one file for each method, and ``METHODS``, where its name is given. What does not: names of segments,
storage.
"""

from segmentation_assets.core.clustering.base import Clusterer, Partition, Rows, nearest
from segmentation_assets.core.clustering.consensus import ConsensusKMeans
from segmentation_assets.core.clustering.embeddings import EmbeddingsKMeans
from segmentation_assets.core.clustering.kmeans import LatentKMeans, TextbookKMeans
from segmentation_assets.core.clustering.mixture import MixtureKMeans
from segmentation_assets.core.clustering.spherical import SphericalKMeans
from segmentation_assets.core.encoder import missing

METHODS: dict[str, Clusterer] = {
    method.name: method
    for method in (
        ConsensusKMeans(),
        EmbeddingsKMeans(),
        LatentKMeans(),
        MixtureKMeans(),
        SphericalKMeans(),
        TextbookKMeans(),
    )
}


def available() -> list[str]:
    """Names of the methods that can run here: all, or all but the one whose extra is not installed."""
    return [name for name in METHODS if name != EmbeddingsKMeans.name or not missing()]


__all__ = ["METHODS", "Clusterer", "Partition", "Rows", "available", "nearest"]
