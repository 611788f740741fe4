"""The model that a stream segments by, on its way from the batch side's results to the workers.

What belongs here: a ``LiveModel`` as bytes that cannot run code when read, making one of what is stored, and handing it
to a store. What does not: what is in a model (core.live.model), the formats of its parts (artifacts).
"""

import io
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.live.model import LiveModel, Reference, live_model
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleanSessions
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.personas import Personas
from segmentation_assets.io.artifacts import (
    ArtifactMissingError,
    ArtifactStore,
    ArtifactUnreadableError,
    load_artifact,
    save_artifact,
    serving_or_last,
)
from segmentation_assets.io.live_store.base import ModelRecord, StateStore
from segmentation_assets.io.models import LABELED, MODEL, served
from segmentation_assets.io.profile_store import MODEL as BEHAVIOUR
from segmentation_assets.io.profile_store import SERVES

LARGEST = 256 * 2**20
"""Bytes of a packed model; a store takes twice as many in one value, and hardly a model has a tenth."""

_MEMBER = re.compile(r"(?:rest|queries|behaviour)/[a-z_]{1,60}\.(?:json|npy|npz|parquet)")
_SAME_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class _Rest:
    """What a ``LiveModel`` has beside the two clusterings."""

    version: str
    segments: dict[int, str]
    personas: dict[int, str]
    prices: pa.Table
    priced: bool
    reference: dict[str, Reference]
    mix: dict[str, float]
    behaves: bool


def pack(model: LiveModel) -> bytes:
    """The model as a zip archive of JSON, npy and Parquet files; the same bytes for the same model.

    Raises:
        ValueError: it is larger than ``LARGEST``.
    """
    prices = model.prices
    rest = _Rest(
        version=model.version,
        segments=model.segments,
        personas=model.personas,
        prices=pa.table({}) if prices is None else prices,
        priced=prices is not None,
        reference=model.reference,
        mix=model.mix,
        behaves=model.behaviour is not None,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_artifact(rest, folder / "rest")
        save_artifact(model.queries, folder / "queries")
        if model.behaviour is not None:
            save_artifact(model.behaviour, folder / "behaviour")
        archive = io.BytesIO()
        # Not compressed: the tables are already, numbers hardly would be, and then a small archive is a small model.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for path in sorted(folder.glob("*/*")):
                file.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix(), _SAME_TIME), path.read_bytes())
    data = archive.getvalue()
    if len(data) > LARGEST:
        raise ValueError(f"a packed model of {len(data)} bytes is larger than {LARGEST}")
    return data


def unpack(data: bytes) -> LiveModel:
    """What ``pack`` was given.

    Raises:
        ArtifactUnreadableError: it is something else, damaged, or of another version.
    """
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            _extract(data, folder)
            rest = load_artifact(_Rest, folder / "rest")
            return LiveModel(
                version=rest.version,
                queries=load_artifact(ClusterModel, folder / "queries"),
                segments=rest.segments,
                behaviour=load_artifact(BehaviourModel, folder / "behaviour") if rest.behaves else None,
                personas=rest.personas,
                prices=rest.prices if rest.priced else None,
                reference=rest.reference,
                mix=rest.mix,
            )
    except (ArtifactUnreadableError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise ArtifactUnreadableError(
            f"The packed model cannot be read ({type(error).__name__}).",
            "It was published by another version, or damaged: publish the model again.",
        ) from error


def _extract(data: bytes, folder: Path) -> None:
    """Raises ValueError where there is anything that ``pack`` does not put in."""
    if len(data) > LARGEST:
        raise ValueError("too large")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) != len(names) or not all(map(_MEMBER.fullmatch, names)):
            raise ValueError("other files than those of a model")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed")
        if sum(member.file_size for member in members) > len(data):
            raise ValueError("sizes that cannot be")
        for name in names:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(archive.read(name))  # compares the checksum


def from_artifacts(store: ArtifactStore) -> tuple[LiveModel, str]:
    """Make a live model of what is stored, and say what is missing from it; nothing where all is there.

    The query segments are those that readers are served, or the newest while none were published: a model that a check
    stopped does not get to the users. Behaviour clusters come along with their personas, features and cleaned sessions,
    where these are of the same users; else the model segments by queries alone.

    Raises:
        ArtifactMissingError: there is no model of queries, or nothing was labelled with it.
        ArtifactUnreadableError: what is stored cannot be read.
        StaleInputError: the newest names are not those of the newest model.
    """
    notes: list[str] = []
    found = served(store, notes.append)
    if found is None:
        queries = store.load(MODEL, ClusterModel)
        labeled = store.load(LABELED, LabeledSegments, when_used=True)
    else:
        labeled, queries = found
    try:
        parts = _behaviour_of(store, labeled, notes.append)
    except _NotTogether as error:
        return live_model(queries, labeled), " ".join([*notes, f"Behaviour clusters are left out: {error}"])
    return live_model(queries, labeled, *parts), " ".join(notes)


class _NotTogether(Exception):
    """Why there is no behaviour model that could be used."""


def _behaviour_of(
    store: ArtifactStore, labeled: LabeledSegments, warn: Callable[[str], None]
) -> tuple[BehaviourModel, Personas, UserFeatures, CleanSessions]:
    behaviour = serving_or_last(store, BEHAVIOUR, SERVES, BehaviourModel, warn)
    if behaviour is None:
        raise _NotTogether("behaviour_clusters has not been materialized.")
    personas = _personas_of(store, behaviour.version)
    if personas is None:
        raise _NotTogether(f"no personas are stored of the behaviour model {behaviour.version}.")
    try:
        features = store.load("user_features", UserFeatures)
        clean = store.load("clean_sessions", CleanSessions)
    except (ArtifactMissingError, ArtifactUnreadableError) as error:
        raise _NotTogether(error.problem) from None
    for name, table in (("user_features", features.table), ("clean_sessions", clean.users)):
        if not table["user_id"].combine_chunks().equals(behaviour.users):
            raise _NotTogether(f"{name} is not of the users of the behaviour model {behaviour.version}.")
    if not labeled.users["user_id"].combine_chunks().sort().equals(behaviour.users):
        raise _NotTogether(f"labeled_segments is not of the users of the behaviour model {behaviour.version}.")
    return behaviour, personas, features, clean


def _personas_of(store: ArtifactStore, version: str) -> Personas | None:
    """The newest ones of a behaviour model."""
    for folder in store.history("personas"):
        try:
            found = load_artifact(Personas, folder)
        except ArtifactUnreadableError:
            continue
        if found.model_version == version:
            return found
    return None


def publish(store: StateStore, model: LiveModel, now_ms: int) -> bool:
    """Make it the model of all workers; False where it is already.

    Args:
        store: that the workers have, too.
        model: to publish.
        now_ms: the time, milliseconds since 1970.

    Raises:
        StoreUnavailable: it does not answer.
    """
    if store.current_model() == model.version:
        return False
    store.publish_model(ModelRecord(model.version, now_ms, pack(model)))
    return True
