"""Clusterers behind one small contract.

What belongs here: one file for each method, and ``METHODS``, where its name is given. What does not: names of segments,
storage.
"""

from segmentation_assets.core.clustering.base import Clusterer, Partition, Rows, nearest
from segmentation_assets.core.clustering.kmeans import LatentKMeans, TextbookKMeans
from segmentation_assets.core.clustering.spherical import SphericalKMeans

METHODS: dict[str, Clusterer] = {
    method.name: method for method in (LatentKMeans(), SphericalKMeans(), TextbookKMeans())
}

__all__ = ["METHODS", "Clusterer", "Partition", "Rows", "nearest"]
