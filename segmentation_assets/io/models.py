"""Which stored model serves, and which counts as the one before.

What belongs here: the choice among stored model versions. What does not: matching clusters (core/model).
"""

from collections.abc import Callable

from segmentation_assets.core.model import ClusterModel
from segmentation_assets.io.artifacts import ArtifactStore, ArtifactUnreadableError, load_artifact, load_field

MODEL = "kmeans_model"
SERVES = "published"
"""The mark on the model whose segments readers see."""


def mark_serving(store: ArtifactStore, model_version: str) -> bool:
    """Remember which stored model readers are served by, after a publication or a rollback.

    Returns:
        False where that model is not stored on this machine any more.
    """
    for folder in store.history(MODEL):
        try:
            found = load_field(ClusterModel, "version", folder) == model_version
        except ArtifactUnreadableError:
            continue
        if found:
            store.mark(MODEL, SERVES, folder)
            return True
    return False


def model_before(store: ArtifactStore, warn: Callable[[str], None]) -> ClusterModel | None:
    """The model that readers are served by, or the latest one while none is; None for the very first.

    A model that a check stopped does not count once one serves: its clusters would pass their bad ids on.

    Args:
        store: where the assets' results lie.
        warn: told when a stored model cannot be read (it is then passed over).
    """
    serving = store.marked(MODEL, SERVES)
    for folder in ([serving] if serving else []) + store.history(MODEL):
        try:
            return load_artifact(ClusterModel, folder)
        except ArtifactUnreadableError as error:
            warn(str(error))
    return None
