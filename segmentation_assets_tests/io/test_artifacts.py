"""Stored results: what was saved comes back, nothing that is loaded can run code, and 'current' is always whole."""

import contextlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.labels import LabeledSegments, label, shipped_taxonomy
from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.sessions import SessionBuilder, Sessions
from segmentation_assets.core.settings import ClusterSettings, LabelSettings, VectorSettings
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize
from segmentation_assets.io.artifacts import (
    KEEP_VERSIONS,
    ArtifactMissingError,
    ArtifactStore,
    ArtifactUnreadableError,
    load_artifact,
    save_artifact,
)
from segmentation_assets.io.segment_store import PublishedSegments

QUERIES = ["red dress", "gaming laptop", "garden chair", "for the", "鍵盤 laptop", "dress shoes"]


def assets() -> list[Any]:
    """One value of every type that an asset returns."""
    builder = SessionBuilder(datetime(2025, 6, 1, tzinfo=UTC))
    for number in range(30):
        query, day = QUERIES[number % 6], 1 + number % 28
        clicks = [f"p{n}" for n in range(number % 3)]
        builder.add(
            f"s{number:03}",
            {
                "user_id": number % 7,
                "search_query": query,
                "timestamp": f"2025-05-{day:02}",
                "clicked_product_ids": clicks,
            },
        )
    builder.add("\ud800", {})
    builder.add("bad", {"user_id": "é"})
    sessions = builder.finish()
    tfidf = vectorize(sessions.table["search_query"], VectorSettings(ngram_max=2))
    users = sessions.user_numbers()
    first = fit(tfidf, users, ClusterSettings(k=2, method="spherical"))
    model = fit(tfidf, users, ClusterSettings(k="auto", k_min=2, k_max=3), first)
    labeled = label(sessions, tfidf, model, shipped_taxonomy(), LabelSettings())
    published = PublishedSegments("user_segments", "user_segments-1", 30, None, ["old"], model.version)
    return [sessions, tfidf, first, model, labeled, published]


VALUES = assets()
KINDS = [Sessions, TfidfMatrix, ClusterModel, ClusterModel, LabeledSegments, PublishedSegments]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    if isinstance(one, csr_matrix):
        return one.shape == two.shape and all(
            same(getattr(one, a), getattr(two, a)) for a in ("data", "indices", "indptr")
        )
    if isinstance(one, pa.Table):
        return one.schema == two.schema and one.equals(two)
    if isinstance(one, pa.Array):
        return one.type == two.type and one.equals(two)
    return bool(one == two)


@dataclass(frozen=True)
class Small:
    numbers: NDArray[np.float64]
    name: str


@dataclass(frozen=True)
class Everything:
    """All kinds of field that can be stored."""

    table: pa.Table
    texts: pa.Array
    numbers: NDArray[np.float64]
    matrix: csr_matrix
    curve: dict[int, float]
    text: str | None


def everything(text: str = "x") -> Everything:
    return Everything(
        pa.table({"a": [1, 2]}), pa.array(["x", "y"]), np.arange(3.0), csr_matrix(np.eye(2)), {3: 0.5}, text
    )


def small(n: float) -> Small:
    return Small(np.array([n]), f"n{n}")


# --- one value


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.__name__ for kind in KINDS])
def test_every_asset_comes_back_as_it_was(number: int, tmp_path: Path) -> None:
    value, kind = VALUES[number], KINDS[number]
    save_artifact(value, tmp_path / "it")
    loaded = load_artifact(kind, tmp_path / "it")
    for each in fields(value):
        assert same(getattr(value, each.name), getattr(loaded, each.name)), each.name


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.__name__ for kind in KINDS])
def test_what_is_read_when_used_is_the_same(number: int, tmp_path: Path) -> None:
    value, kind = VALUES[number], KINDS[number]
    save_artifact(value, tmp_path / "it")
    loaded = load_artifact(kind, tmp_path / "it", when_used=True)
    assert isinstance(loaded, kind)
    for each in fields(value):
        assert same(getattr(value, each.name), getattr(loaded, each.name)), each.name
    again = replace(load_artifact(kind, tmp_path / "it", when_used=True))
    assert all(same(getattr(value, each.name), getattr(again, each.name)) for each in fields(value))


def test_a_table_is_read_when_it_is_looked_at_and_then_kept(tmp_path: Path) -> None:
    save_artifact(everything(), tmp_path / "it")
    loaded = load_artifact(Everything, tmp_path / "it", when_used=True)
    (tmp_path / "it" / "table.parquet").rename(tmp_path / "away")
    assert (loaded.text, loaded.numbers.tolist()) == ("x", [0.0, 1.0, 2.0])
    with pytest.raises(ArtifactUnreadableError):
        _ = loaded.table
    (tmp_path / "away").rename(tmp_path / "it" / "table.parquet")
    assert loaded.table is loaded.table
    assert not hasattr(loaded, "no_such_field")


def test_of_a_table_only_the_columns_that_are_wanted_are_read(tmp_path: Path) -> None:
    save_artifact(VALUES[0], tmp_path / "it")
    some = load_artifact(Sessions, tmp_path / "it", when_used=True, columns=["timestamp", "user_id", "no such"])
    assert some.table.column_names == ["user_id", "timestamp"]
    assert some.user_numbers().tolist() == VALUES[0].user_numbers().tolist()
    assert len(some) == len(VALUES[0])


def test_a_field_that_was_added_since_takes_its_default_when_used_too(tmp_path: Path) -> None:
    save_artifact(VALUES[3], tmp_path / "it")
    (tmp_path / "it" / "judged_counts.npy").unlink()
    assert load_artifact(ClusterModel, tmp_path / "it", when_used=True).judged_counts.tolist() == []


def test_a_model_that_was_stored_still_predicts_the_same(tmp_path: Path) -> None:
    model = VALUES[3]
    save_artifact(model, tmp_path / "it")
    labels, confidence = load_artifact(ClusterModel, tmp_path / "it").predict([*QUERIES, "unseen"])
    expected = model.predict([*QUERIES, "unseen"])
    assert labels.tolist() == expected[0].tolist()
    assert confidence.tolist() == expected[1].tolist()


def test_files_are_of_open_formats_and_none_is_a_pickle(tmp_path: Path) -> None:
    for number, value in enumerate(VALUES):
        save_artifact(value, tmp_path / str(number))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".parquet", ".npz", ".npy", ".json"}
    for path in files:
        assert not path.read_bytes().startswith(b"\x80"), path


@dataclass(frozen=True)
class WithObjects:
    things: NDArray[np.object_]


def test_an_array_of_objects_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pickle"):
        save_artifact(WithObjects(np.array([{"a": 1}, None], dtype=object)), tmp_path / "it")


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def plain_pickle(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb))


def pickle_in_npy(path: Path, bomb: Bomb) -> None:
    np.save(path, np.array([bomb], dtype=object), allow_pickle=True)


def pickle_in_npz(path: Path, bomb: Bomb) -> None:
    np.savez(path, format=np.array([bomb], dtype=object), data=np.array([bomb], dtype=object))


FILES = ["numbers.npy", "matrix.npz", "table.parquet", "texts.parquet", "fields.json"]


@pytest.mark.parametrize(
    ("file", "plant"),
    [*((file, plain_pickle) for file in FILES), ("numbers.npy", pickle_in_npy), ("matrix.npz", pickle_in_npz)],
)
def test_a_file_that_holds_a_pickle_is_refused_and_its_code_does_not_run(
    file: str, plant: Callable[[Path, Bomb], None], tmp_path: Path
) -> None:
    save_artifact(everything(), tmp_path / "it")
    plant(tmp_path / "it" / file, Bomb(tmp_path / "ran"))
    with pytest.raises(ArtifactUnreadableError, match="materialize the asset again"):
        load_artifact(Everything, tmp_path / "it")
    assert not (tmp_path / "ran").exists()


@given(st.sampled_from(FILES), st.data())
@settings(deadline=None, max_examples=120)
def test_a_damaged_file_is_one_clear_error_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, file: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "it"
    save_artifact(everything(), folder)
    content = bytearray((folder / file).read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), label="cut"):
        content = content[:where]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    (folder / file).write_bytes(content)
    with contextlib.suppress(ArtifactUnreadableError):  # anything else is a failure
        load_artifact(Everything, folder)
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_one_clear_error(file: str, tmp_path: Path) -> None:
    save_artifact(everything(), tmp_path / "it")
    (tmp_path / "it" / file).unlink()
    with pytest.raises(ArtifactUnreadableError, match=r"cannot be read as Everything \(FileNotFoundError\)"):
        load_artifact(Everything, tmp_path / "it")


def test_what_an_older_version_wrote_is_one_clear_error(tmp_path: Path) -> None:
    save_artifact(small(1), tmp_path / "it")
    path = tmp_path / "it" / "fields.json"
    for content in ({}, {"name": ["no", "text"]}, [], "text"):
        path.write_text(json.dumps(content))
        with pytest.raises(ArtifactUnreadableError):
            load_artifact(Small, tmp_path / "it")


@pytest.mark.parametrize("value", [{"a": 1}, 3, Small])
def test_only_dataclass_instances_can_be_stored(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="dataclass"):
        save_artifact(value, tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.none(), st.floats(allow_nan=False))
@settings(deadline=None, max_examples=25)
def test_any_text_and_number_survives(
    tmp_path_factory: pytest.TempPathFactory, text: str | None, number: float
) -> None:
    folder = tmp_path_factory.mktemp("any") / "it"
    value = Everything(*[getattr(everything(), f.name) for f in fields(Everything)][:4], {3: number}, text)
    save_artifact(value, folder)
    loaded = load_artifact(Everything, folder)
    assert (loaded.curve, loaded.text) == (value.curve, value.text)


# --- versions


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "storage")


def hidden(store: ArtifactStore) -> list[str]:
    return sorted(path.name for path in (store.base / "thing").iterdir() if path.name.startswith("."))


def test_the_last_one_saved_is_the_current_one(store: ArtifactStore) -> None:
    for n in (1, 2, 3):
        folder = store.save("thing", f"run{n}", small(n))
        assert store.load("thing", Small).name == f"n{n}"
        assert folder == store.path("thing").resolve() == store.base / "thing" / f"run{n}"
    assert [path.name for path in store.history("thing")] == ["run3", "run2", "run1"]
    assert hidden(store) == []


def test_nothing_stored_is_an_error_with_the_cure(store: ArtifactStore) -> None:
    for ask in (lambda: store.load("thing", Small), lambda: store.require("thing")):
        with pytest.raises(ArtifactMissingError, match=r"thing has not been materialized yet .*`segments run`"):
            ask()
    assert store.history("thing") == []


def test_things_with_other_names_do_not_mix(store: ArtifactStore) -> None:
    store.save("thing", "run", small(1))
    store.save("another", "run", small(2))
    assert store.load("thing", Small).name == "n1"
    assert len(store.history("thing")) == 1


def test_a_storage_folder_can_be_moved(store: ArtifactStore, tmp_path: Path) -> None:
    store.save("thing", "run", small(1))
    (tmp_path / "storage").rename(tmp_path / "moved")
    assert ArtifactStore(tmp_path / "moved").load("thing", Small).name == "n1"


def test_the_same_version_saved_again_is_the_current_one_and_the_first_is_not_taken_away(store: ArtifactStore) -> None:
    first = store.save("thing", "run", small(1))
    second = store.save("thing", "run", small(2))
    third = store.save("thing", "run", small(3))
    assert [path.name for path in (first, second, third)] == ["run", "run.2", "run.3"]
    assert load_artifact(Small, first).name == "n1"
    assert store.load("thing", Small).name == "n3"


def test_old_versions_go_and_the_current_one_stays(store: ArtifactStore) -> None:
    for n in range(KEEP_VERSIONS + 5):
        store.save("thing", f"run{n}", small(n))
    kept = [path.name for path in store.history("thing")]
    assert kept == [f"run{n}" for n in reversed(range(5, KEEP_VERSIONS + 5))]


def test_the_current_version_stays_however_old_it_looks(store: ArtifactStore) -> None:
    """A restored backup or a clock set back must not cost what readers use."""
    for n in range(KEEP_VERSIONS):
        folder = store.save("thing", f"run{n}", small(n))
        os.utime(folder / "fields.json", (0, time.time() + 3600))
    store.save("thing", "mine", small(99))
    assert store.load("thing", Small).name == "n99"
    assert len(store.history("thing")) == KEEP_VERSIONS + 1


def test_a_value_that_cannot_be_saved_leaves_everything_as_it_was(store: ArtifactStore) -> None:
    store.save("thing", "run1", small(1))
    with pytest.raises(TypeError):
        store.save("thing", "run2", {"not": "a dataclass"})
    with pytest.raises(ValueError, match="pickle"):
        store.save("thing", "run3", WithObjects(np.array([None])))
    assert store.load("thing", Small).name == "n1"
    assert [path.name for path in store.history("thing")] == ["run1"]
    assert hidden(store) == []


def test_a_version_without_its_fields_is_listed_last_and_harms_nobody(store: ArtifactStore) -> None:
    store.save("thing", "run1", small(1))
    (store.base / "thing" / "damaged").mkdir()
    assert [path.name for path in store.history("thing")] == ["run1", "damaged"]
    store.save("thing", "run2", small(2))
    assert store.load("thing", Small).name == "n2"


def killed_while_saving(store: ArtifactStore, at: str) -> None:
    """Save run1 in another process that dies without a word where it would call os.<at>."""
    child = os.fork()
    if child == 0:
        setattr(os, at, lambda *args, **kwargs: os._exit(9))
        try:
            store.save("thing", "run1", small(2))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("at", ["rename", "symlink", "replace"])
def test_a_process_killed_at_any_step_leaves_the_version_before_whole(store: ArtifactStore, at: str) -> None:
    """Also where the killed one was saving the very version that is current."""
    store.save("thing", "run1", small(1))
    killed_while_saving(store, at)
    assert store.load("thing", Small).name == "n1"
    store.save("thing", "run3", small(3))
    assert store.load("thing", Small).name == "n3"


def test_what_a_killed_process_left_is_removed_after_a_day_and_not_before(store: ArtifactStore) -> None:
    store.save("thing", "run1", small(1))
    killed_while_saving(store, "rename")
    killed_while_saving(store, "replace")
    left = hidden(store)
    assert [name.split("-")[0] for name in left] == [".building", ".current"]
    store.save("thing", "run3", small(3))
    assert hidden(store) == left  # somebody may still be writing
    for name in left:
        os.utime(store.base / "thing" / name, (0, time.time() - 25 * 3600), follow_symlinks=False)
    store.save("thing", "run4", small(4))
    assert hidden(store) == []
    assert store.load("thing", Small).name == "n4"


@dataclass(frozen=True)
class Later:
    """What ``Earlier`` became in a later release."""

    name: str
    numbers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Earlier:
    name: str


def test_a_field_that_was_added_since_takes_its_default(tmp_path: Path) -> None:
    save_artifact(Earlier("a"), tmp_path / "old")
    assert load_artifact(Later, tmp_path / "old") == Later("a", [])


def test_a_marked_version_is_not_pruned(store: ArtifactStore) -> None:
    first = store.save("thing", "run0", Earlier("kept"))
    store.mark("thing", "published", first)
    for n in range(1, KEEP_VERSIONS + 3):
        store.save("thing", f"run{n}", Earlier("x"))
    marked = store.marked("thing", "published")
    assert marked is not None
    assert load_artifact(Earlier, marked) == Earlier("kept")
    assert store.marked("thing", "no such mark") is None


def test_one_field_can_be_read_alone(store: ArtifactStore) -> None:
    store.save("thing", "run1", Later("a", [1, 2]))
    assert store.load_field("thing", Later, "numbers") == [1, 2]
