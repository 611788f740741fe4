"""Which stored model counts as the one before.

What belongs here: the choice among stored model versions. What does not: matching clusters (core/model).
"""

from collections.abc import Callable

from segmentation_assets.core.model import ClusterModel
from segmentation_assets.io.artifacts import ArtifactMissingError, ArtifactStore, ArtifactUnreadableError, load_artifact
from segmentation_assets.io.segment_store import PublishedSegments

MODEL = "kmeans_model"
PUBLICATION = "es_user_segments"


def model_before(store: ArtifactStore, warn: Callable[[str], None]) -> ClusterModel | None:
    """The model that readers are served by, or the latest one while nothing is published; None for the very first.

    A model that a check stopped does not count as long as a published one is still stored: its clusters would pass
    their bad ids on.

    Args:
        store: where the assets' results lie.
        warn: told when a stored model cannot be read (it is then passed over).
    """
    try:
        served = store.load(PUBLICATION, PublishedSegments).model_version
    except (ArtifactMissingError, ArtifactUnreadableError):
        served = None
    latest = None
    for folder in store.history(MODEL):
        try:
            model = load_artifact(ClusterModel, folder)
        except ArtifactUnreadableError as error:
            warn(str(error))
            continue
        if served is None or model.version == served:
            return model
        latest = latest or model
    return latest
