"""Which stored model serves, which counts as the one before, and going back to one.

What belongs here: the choice among stored versions of the model and of what was labelled by it. What does not: matching
clusters (core/model), choosing between two models (core/retrain), moving an alias (publishing).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch

from segmentation_assets.core.churn import Churn
from segmentation_assets.core.labels import ClusterLabel, LabeledSegments
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.artifacts import (
    ArtifactStore,
    ArtifactUnreadableError,
    load_artifact,
    load_field,
    serving_or_last,
)
from segmentation_assets.io.publishing import PublishedIndex, PublishedState, list_published, rollback

MODEL = "kmeans_model"
LABELED = "labeled_segments"
SERVES = "published"
"""The mark on the model whose segments readers see, and on the labelled sessions that they see."""


class ModelNotFoundError(SegmentsError):
    """No such model is stored, or none is published that one could go back to."""


@dataclass(frozen=True)
class StoredModel:
    """A model version that is stored on this machine.

    Attributes:
        version: of the model.
        made: when it was first stored, aware UTC.
        used: when it last assigned sessions; later than ``made`` where a retraining kept it.
        method: name of the clusterer.
        k: number of clusters.
        sessions: sessions it last assigned, those without a cluster included.
        segments: names its clusters last got, sorted; empty where nothing was labelled with it.
        published: whether readers are served by it.
        latest: whether it is what was last materialized.
        decision: why it was last taken or kept; empty where that was not recorded.
        folder: where it lies, as last stored.
    """

    version: str
    made: datetime
    used: datetime
    method: str
    k: int
    sessions: int
    segments: list[str]
    published: bool
    latest: bool
    decision: str
    folder: Path


def mark_serving(store: ArtifactStore, model_version: str, run_id: str | None = None) -> bool:
    """Remember which stored model, and which labelled sessions, readers are served, after a publication or rollback.

    Args:
        store: where the assets' results lie.
        model_version: of the model that made what is published.
        run_id: of the run that published it, where that is known: a model that was kept has labelled several times.
            Else, or where that run labelled nothing itself, the latest labelling by this model is taken.

    Returns:
        False where that model is not stored on this machine any more.
    """
    model = _of_version(store, MODEL, ClusterModel, "version", model_version)
    if model:
        store.mark(MODEL, SERVES, model[0])
    labeled = _of_version(store, LABELED, LabeledSegments, "model_version", model_version)
    by_run = [folder for folder in labeled if run_id and folder.name.partition(".")[0] == run_id]
    if labeled:
        store.mark(LABELED, SERVES, (by_run or labeled)[0])
    return bool(model)


def model_before(store: ArtifactStore, warn: Callable[[str], None]) -> ClusterModel | None:
    """The model that readers are served by, or the latest one while none is; None for the very first.

    A model that a check stopped does not count once one serves: its clusters would pass their bad ids on.

    Args:
        store: where the assets' results lie.
        warn: told when a stored model cannot be read (it is then passed over).
    """
    return serving_or_last(store, MODEL, SERVES, ClusterModel, warn)


def served(store: ArtifactStore, warn: Callable[[str], None]) -> tuple[LabeledSegments, ClusterModel] | None:
    """The labelled sessions that readers are served, and the model that made them; None while none are.

    Args:
        store: where the assets' results lie.
        warn: told when something is marked as served and cannot be read, or is not of one model.
    """
    folders = store.marked(LABELED, SERVES), store.marked(MODEL, SERVES)
    if folders[0] is None or folders[1] is None:
        return None
    try:
        # The sessions themselves are not compared, so their table stays where it is.
        found = load_artifact(LabeledSegments, folders[0], when_used=True), load_artifact(ClusterModel, folders[1])
        found[0].users.validate()
    except ArtifactUnreadableError as error:
        warn(f"{error} User churn is not measured.")
        return None
    if found[0].model_version != found[1].version:
        warn(f"The model that made {folders[0]} is not stored any more. User churn is not measured.")
        return None
    return found


def served_labels(store: ArtifactStore, warn: Callable[[str], None]) -> LabeledSegments | None:
    """The labelled sessions that readers are served; None while none are, or where they cannot be read."""
    folder = store.marked(LABELED, SERVES)
    try:
        return load_artifact(LabeledSegments, folder) if folder else None
    except ArtifactUnreadableError as error:
        warn(str(error))
        return None


def stored_models(store: ArtifactStore) -> list[StoredModel]:
    """Every model version that is stored, the last used first; what cannot be read is left out."""
    folders: dict[str, list[Path]] = {}
    for folder in store.history(MODEL):  # newest first
        version = _field(ClusterModel, "version", folder)
        if version is not None:
            folders.setdefault(version, []).append(folder)
    serving, current = store.marked(MODEL, SERVES), store.path(MODEL).resolve()
    models = []
    for version, found in folders.items():
        sizes, unclustered = _field(ClusterModel, "sizes", found[0]), _field(ClusterModel, "unclustered", found[0])
        if sizes is None or unclustered is None:
            continue
        decision = _field(ClusterModel, "decision", found[0])
        models.append(
            StoredModel(
                version=version,
                made=_time(found[-1]),
                used=_time(found[0]),
                method=str(_field(ClusterModel, "method", found[0])),
                k=len(sizes),
                sessions=sum(sizes) + unclustered,
                segments=sorted({entry.segment for entry in labels_of(store, version)}),
                published=serving in found,
                latest=current in found,
                decision=decision.summary if decision else "",
                folder=found[0],
            )
        )
    return models


def find_model(store: ArtifactStore, version: str | None) -> StoredModel:
    """The stored model of a version, or of the one version that begins like this; None: the latest.

    Raises:
        ModelNotFoundError: there is none, or there are several.
    """
    models = stored_models(store)
    if not models:
        raise ModelNotFoundError(f"No model is stored in {store.base / MODEL}.", "Run `segments run` first.")
    if version is None:
        return next((model for model in models if model.latest), models[0])
    found = [model for model in models if model.version.startswith(version)]
    if len(found) != 1:
        raise ModelNotFoundError(
            f"There is no stored model '{version}'." if not found else f"Several models begin with '{version}'.",
            f"There are: {', '.join(model.version for model in found or models)}.",
        )
    return found[0]


def labels_of(store: ArtifactStore, version: str) -> list[ClusterLabel]:
    """The names that a model's clusters last got; none where nothing was labelled with it, or it cannot be read."""
    return _latest(store, version, "labels") or []


def churn_of(store: ArtifactStore, version: str) -> Churn | None:
    """The users who changed segment when a model last labelled; None where that is not known."""
    found: Churn | None = _latest(store, version, "churn")
    return found


def _latest(store: ArtifactStore, version: str, field: str) -> Any:
    folders = _of_version(store, LABELED, LabeledSegments, "model_version", version)
    return _field(LabeledSegments, field, folders[0]) if folders else None


def rollback_model(client: Elasticsearch, store: ArtifactStore, alias: str, version: str | None) -> PublishedState:
    """Serve readers what a model made, again, and let the next model take its ids from it and be compared with it.

    Args:
        client: the client.
        store: where the assets' results lie.
        alias: what readers use.
        version: of the model, or how it begins; None: the one published before the current one.

    Raises:
        ModelNotFoundError: no index made by it is there any more, or there is none before.
        SegmentsError: see ``publishing.rollback``.
    """
    index = index_made_by(list_published(client, alias), alias, version)
    state = rollback(client, alias, index)
    mark_serving(store, str(state.meta.get("model_version")), str(state.meta.get("run_id")))
    return state


def index_made_by(indices: Sequence[PublishedIndex], alias: str, version: str | None) -> str:
    """The newest published index made by a model; without a version, by another model than the live one's, before it.

    Args:
        indices: those of the alias, the newest first (``publishing.list_published``).
        alias: what readers use, for the error.
        version: of the model, or how it begins.

    Raises:
        ModelNotFoundError: there is none, or the beginning fits several models.
    """
    complete = [index for index in indices if index.complete]
    versions = list(dict.fromkeys(_model_of(index) for index in complete))
    there = f"Published and still there are those of: {', '.join(versions) or 'none'} (publish.keep says how many)."
    if version is not None:
        wanted = [found for found in versions if found.startswith(version)]
        if len(wanted) > 1:
            raise ModelNotFoundError(f"Several published models begin with '{version}'.", there)
        candidates = [index for index in complete if [_model_of(index)] == wanted]
        problem = f"Nothing that model '{version}' made is behind '{alias}' or kept for it."
    else:
        live = next((place for place, index in enumerate(complete) if index.live), len(complete))
        candidates = [index for index in complete[live + 1 :] if _model_of(index) != _model_of(complete[live])]
        problem = f"No other model was published under '{alias}' before the current one."
    if not candidates:
        raise ModelNotFoundError(problem, there)
    return next((index for index in candidates if index.live), candidates[0]).name


def _model_of(index: PublishedIndex) -> str:
    return str(index.meta.get("model_version"))


def _of_version(store: ArtifactStore, name: str, kind: type[Any], field: str, version: str) -> list[Path]:
    """Folders of the stored results of a model, newest first."""
    return [folder for folder in store.history(name) if _field(kind, field, folder) == version]


def _field(kind: type[Any], field: str, folder: Path) -> Any:
    """A field of a stored result; None where it cannot be read, or was not stored yet when it was written."""
    try:
        return load_field(kind, field, folder)
    except ArtifactUnreadableError:
        return None


def _time(folder: Path) -> datetime:
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC)
