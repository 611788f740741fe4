"""A packed model segments as the model does, is made of what is stored, and cannot hurt when it is somebody else's."""

import io
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.live.events import events_of_session
from segmentation_assets.core.live.model import LiveModel, live_model
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.model import StaleInputError
from segmentation_assets.io.artifacts import ArtifactMissingError, ArtifactStore, ArtifactUnreadableError
from segmentation_assets.io.live_models import from_artifacts, pack, publish, unpack
from segmentation_assets.io.live_store import open_store
from segmentation_assets_tests.batch_side import Batch, batch_side


@cache
def batch(seed: int = 11) -> Batch:
    return batch_side(1_200, 6, seed, method="kmeans")


@cache
def packed() -> bytes:
    return pack(batch().model)


def segmented(model: LiveModel) -> dict[str, UserState]:
    segmenter = Segmenter(model, 86_400_000, 0.2)
    states: dict[str, UserState] = {}
    events = [event for document in batch().documents for event in events_of_session(document)]
    segmenter.process(sorted(events, key=lambda event: event.timestamp), states)
    return states


def test_a_packed_model_is_the_same_model() -> None:
    model, again = batch().model, unpack(packed())
    assert again.version == model.version
    assert (again.segments, again.personas, again.mix) == (model.segments, model.personas, model.mix)
    assert again.reference == model.reference
    assert again.prices is not None
    assert again.prices.equals(model.prices)
    assert again.behaviour is not None
    assert model.behaviour is not None
    assert again.behaviour.version == model.behaviour.version
    assert np.array_equal(again.queries.centers, model.queries.centers)


def test_a_packed_model_segments_alike() -> None:
    one, other = segmented(batch().model), segmented(unpack(packed()))
    assert len(one) > 100
    assert one == other
    assert len({state.cluster for state in one.values()}) > 2


def test_packing_is_deterministic_and_survives_unpacking() -> None:
    assert pack(batch().model) == packed()
    assert pack(unpack(packed())) == packed()


def test_a_model_of_queries_alone_is_packed_too() -> None:
    model = live_model(batch().queries, batch().labeled)
    again = unpack(pack(model))
    assert again.version == model.version
    assert again.behaviour is None
    assert again.prices is None
    assert again.segments == model.segments


def test_no_user_and_no_query_is_in_a_packed_model() -> None:
    with zipfile.ZipFile(io.BytesIO(packed())) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not any(str(user).encode() in content for user in batch().behaviour.users.to_pylist()[:50])
    assert unpack(packed()).queries.queries.to_pylist() == []


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _damaged(data: bytes) -> bytes:
    place = data.index(b"\x93NUMPY") + 200
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"no archive",
        lambda data: data[: len(data) // 2],
        _damaged,
        lambda data: _zip(_members(data), zipfile.ZIP_DEFLATED),
        lambda data: _zip(_members(data) | {"../outside.json": b"{}"}),
        lambda data: _zip(_members(data) | {"/tmp/outside.json": b"{}"}),  # nothing is written there
        lambda data: _zip(_members(data) | {"queries/../../outside.json": b"{}"}),
        lambda data: _zip(_members(data) | {"queries/more/fields.json": b"{}"}),
        lambda data: _zip(_members(data) | {"queries/code.pkl": b"cos\nsystem\n"}),
        lambda data: _zip({name: found for name, found in _members(data).items() if "centers" not in name}),
        lambda data: _zip(_members(data) | {"rest/fields.json": b"[]"}),
        lambda data: _zip(_members(data) | {"queries/centers.npy": b"\x80\x04K\x01."}),  # a pickle
    ],
)
def test_anything_else_is_refused_in_words(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnreadableError, match=r"packed model cannot be read.*publish the model again"):
        unpack(spoil(packed()))


@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_were_changed_are_read_as_the_model_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(packed())
    for place, value in changes:
        data[-1 - place % min(len(data), 4096)] = value  # of the archive's directory, where nothing has a checksum
    with suppress(ArtifactUnreadableError):
        assert unpack(bytes(data)).version == batch().model.version


def test_an_array_of_objects_is_not_read() -> None:
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactUnreadableError):
        unpack(_zip(_members(packed()) | {"queries/centers.npy": file.getvalue()}))


# --- of what is stored


def stored(folder: Path, found: Batch, run: str = "run-1", without: tuple[str, ...] = ()) -> ArtifactStore:
    store = ArtifactStore(folder)
    for name, value in (
        ("kmeans_model", found.queries),
        ("labeled_segments", found.labeled),
        ("behaviour_clusters", found.behaviour),
        ("personas", found.personas),
        ("user_features", found.features),
        ("clean_sessions", found.clean),
    ):
        if name not in without:
            store.save(name, run, value)
    return store


def test_a_model_is_made_of_what_a_run_stored(tmp_path: Path) -> None:
    model, note = from_artifacts(stored(tmp_path, batch()))
    assert (model.version, note) == (batch().model.version, "")
    assert pack(model) == packed()


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("behaviour_clusters", "behaviour_clusters has not been materialized"),
        ("personas", "no personas are stored"),
        ("user_features", "user_features has not been materialized"),
        ("clean_sessions", "clean_sessions has not been materialized"),
    ],
)
def test_without_a_part_of_the_users_side_only_queries_are_segmented(tmp_path: Path, without: str, why: str) -> None:
    model, note = from_artifacts(stored(tmp_path, batch(), without=(without,)))
    assert why in note
    assert model.behaviour is None
    assert model.version == live_model(batch().queries, batch().labeled).version


@pytest.mark.parametrize(
    ("name", "part"), [("user_features", "features"), ("clean_sessions", "clean"), ("personas", "personas")]
)
def test_what_is_of_other_users_is_not_taken(tmp_path: Path, name: str, part: str) -> None:
    store = stored(tmp_path, batch(), without=(name,))
    store.save(name, "run-2", getattr(batch(12), part))
    model, note = from_artifacts(store)
    assert "of the" in note
    assert model.behaviour is None


def test_the_personas_of_the_very_model_are_found_among_newer_ones(tmp_path: Path) -> None:
    store = stored(tmp_path, batch())
    store.save("personas", "run-2", batch(12).personas)
    model, note = from_artifacts(store)
    assert (model.version, note) == (batch().model.version, "")


def test_a_model_that_a_check_stopped_does_not_get_to_the_users(tmp_path: Path) -> None:
    store = stored(tmp_path, batch())
    for name in ("kmeans_model", "labeled_segments", "behaviour_clusters"):
        store.mark(name, "published", store.path(name).resolve())
    store.save("kmeans_model", "run-2", batch(12).queries)
    store.save("labeled_segments", "run-2", batch(12).labeled)
    store.save("behaviour_clusters", "run-2", batch(12).behaviour)
    assert from_artifacts(store)[0].version == batch().model.version


def test_names_of_another_model_are_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, batch())
    store.save("kmeans_model", "run-2", replace(batch().queries, version="another"))
    with pytest.raises(StaleInputError, match="another"):
        from_artifacts(store)


def test_without_a_run_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissingError, match="segments run"):
        from_artifacts(ArtifactStore(tmp_path))


def test_a_model_is_published_once() -> None:
    store = open_store("memory://")
    assert publish(store, batch().model, 17)
    assert not publish(store, batch().model, 18)
    assert store.models() == [(batch().model.version, 17)]
    record = store.model(batch().model.version)
    assert record is not None
    assert unpack(record.data).version == batch().model.version
