"""Which stored model the next one takes its cluster ids from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segmentation_assets.core.labels import ASSIGNMENT_SCHEMA, LabeledSegments
from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.sessions import Intake
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io.artifacts import KEEP_VERSIONS, ArtifactStore
from segmentation_assets.io.models import (
    LABELED,
    MODEL,
    SERVES,
    ModelNotFoundError,
    find_model,
    index_made_by,
    mark_serving,
    model_before,
    served,
    stored_models,
)
from segmentation_assets.io.publishing import PublishedIndex


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def model(version: str) -> ClusterModel:
    tfidf = vectorize(pa.array(["dress", "laptop"]), VectorSettings())
    return replace(fit(tfidf, np.array([0, 1], dtype=np.int32), ClusterSettings(k=2)), version=version)


def before(store: ArtifactStore) -> str | None:
    """The version of the model before; no warning is expected."""
    warnings: list[str] = []
    found = model_before(store, warnings.append)
    assert warnings == []
    return found.version if found else None


def test_the_very_first_model_has_none_before_it(store: ArtifactStore) -> None:
    assert before(store) is None


def test_while_nothing_is_published_it_is_the_latest(store: ArtifactStore) -> None:
    store.save(MODEL, "run1", model("a"))
    store.save(MODEL, "run2", model("b"))
    assert before(store) == "b"


def test_a_model_that_was_stopped_is_passed_over_for_the_one_that_serves(store: ArtifactStore) -> None:
    store.save(MODEL, "run1", model("a"))
    assert mark_serving(store, "a")
    store.save(MODEL, "run2", model("b"))
    store.save(MODEL, "run3", model("c"))
    assert before(store) == "a"


def test_the_one_that_serves_is_kept_however_many_are_stopped_after_it(store: ArtifactStore) -> None:
    store.save(MODEL, "run0", model("serves"))
    mark_serving(store, "serves")
    for n in range(KEEP_VERSIONS + 3):
        store.save(MODEL, f"stopped{n}", model(f"stopped{n}"))
    assert before(store) == "serves"


def test_after_a_rollback_it_is_the_one_that_serves_again(store: ArtifactStore) -> None:
    for version in ("a", "b"):
        store.save(MODEL, version, model(version))
        mark_serving(store, version)
    assert mark_serving(store, "a")
    assert before(store) == "a"


def test_marking_a_model_that_is_not_stored_here_changes_nothing(store: ArtifactStore) -> None:
    store.save(MODEL, "run1", model("a"))
    mark_serving(store, "a")
    assert not mark_serving(store, "made elsewhere")
    assert before(store) == "a"


def test_a_model_that_cannot_be_read_is_passed_over_with_a_warning(store: ArtifactStore) -> None:
    store.save(MODEL, "run1", model("a"))
    broken = store.save(MODEL, "run2", model("b"))
    (broken / "centers.npy").write_bytes(b"")
    warnings: list[str] = []
    assert model_before(store, warnings.append).version == "a"
    assert len(warnings) == 1
    assert str(broken) in warnings[0]


def test_nothing_readable_is_a_first_model_again_with_a_warning(store: ArtifactStore) -> None:
    broken = store.save(MODEL, "run1", model("a"))
    (broken / "fields.json").unlink()
    warnings: list[str] = []
    assert model_before(store, warnings.append) is None
    assert len(warnings) == 1


# --- what readers are served, and the versions there are


def labeled(version: str) -> LabeledSegments:
    return LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [], version, 0, Intake(0, 0))


def save(store: ArtifactStore, run: str, version: str) -> None:
    store.save(MODEL, run, model(version))
    store.save(LABELED, run, labeled(version))


def serves(store: ArtifactStore) -> tuple[str, str] | None:
    """Folder of the labelled sessions and version of the model that are served; no warning is expected."""
    warnings: list[str] = []
    found = served(store, warnings.append)
    assert warnings == []
    folder = store.marked(LABELED, SERVES)
    return (folder.name, found[1].version) if found and folder else None


def test_nothing_is_served_before_something_is_published(store: ArtifactStore) -> None:
    save(store, "run1", "a")
    assert serves(store) is None


def test_what_is_served_is_what_was_published_last_not_what_was_labelled_last(store: ArtifactStore) -> None:
    save(store, "run1", "a")
    mark_serving(store, "a", "run1")
    save(store, "run2", "b")
    assert serves(store) == ("run1", "a")
    mark_serving(store, "b", "run2")
    assert serves(store) == ("run2", "b")


def test_of_a_model_that_was_kept_the_labelling_of_the_run_is_served(store: ArtifactStore) -> None:
    for run in ("run1", "run2", "run3"):
        save(store, run, "a")
    mark_serving(store, "a", "run2")
    assert serves(store) == ("run2", "a")
    mark_serving(store, "a", "published by a run that labelled nothing")
    assert serves(store) == ("run3", "a")


def test_labels_without_their_model_are_no_base_for_a_comparison(store: ArtifactStore) -> None:
    save(store, "run1", "a")
    mark_serving(store, "a")
    store.save(LABELED, "run2", labeled("made elsewhere"))
    mark_serving(store, "made elsewhere")
    warnings: list[str] = []
    assert served(store, warnings.append) is None
    assert "not measured" in warnings[0]


def test_a_version_is_one_entry_however_often_it_was_kept(store: ArtifactStore) -> None:
    for run, version in (("run1", "a1"), ("run2", "a2"), ("run3", "a1")):
        save(store, run, version)
    mark_serving(store, "a2")
    broken = store.save(MODEL, "run4", model("a3"))
    (broken / "fields.json").write_text("{}")
    found = {entry.version: entry for entry in stored_models(store)}
    assert list(found) == ["a1", "a2"]
    assert [entry.published for entry in found.values()] == [False, True]
    assert found["a1"].made < found["a1"].used
    assert found["a2"].made == found["a2"].used
    assert (found["a1"].k, found["a1"].sessions) == (2, 2)
    assert find_model(store, "a2").version == "a2"
    with pytest.raises(ModelNotFoundError, match="Several models begin with 'a'"):
        find_model(store, "a")
    with pytest.raises(ModelNotFoundError, match="There are: a1, a2"):
        find_model(store, "b")


def index(name: str, version: str, live: bool = False, status: str = "complete") -> PublishedIndex:
    return PublishedIndex(name, {"model_version": version, "status": status, "published_at": "2026"}, live)


INDICES = [index("i5", "c", status="building"), index("i4", "bb", live=True), index("i3", "bb"), index("i2", "ba"),
           index("i1", "a")]  # fmt: skip


def test_without_a_version_one_goes_back_to_another_model_than_the_current_one() -> None:
    assert index_made_by(INDICES, "alias", None) == "i2"


def test_a_version_finds_its_newest_index_or_the_live_one() -> None:
    assert index_made_by(INDICES, "alias", "a") == "i1"
    assert index_made_by(INDICES, "alias", "bb") == "i4"
    newer = [index("i6", "bb"), *INDICES]
    assert index_made_by(newer, "alias", "bb") == "i4"


@pytest.mark.parametrize(
    ("version", "problem"),
    [("c", "Nothing that model 'c' made"), ("x", "'x'"), ("b", "Several published models begin with 'b'")],
)
def test_what_was_not_published_is_no_place_to_go_back_to(version: str, problem: str) -> None:
    with pytest.raises(ModelNotFoundError, match=problem) as raised:
        index_made_by(INDICES, "alias", version)
    assert "bb, ba, a" in str(raised.value)


def test_the_oldest_model_has_none_before_it() -> None:
    with pytest.raises(ModelNotFoundError, match="No other model"):
        index_made_by([index("i2", "a", live=True), index("i1", "a")], "alias", None)
    with pytest.raises(ModelNotFoundError, match="No other model"):
        index_made_by([], "alias", None)
