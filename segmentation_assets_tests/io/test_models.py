"""Which stored model the next one takes its cluster ids from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io.artifacts import KEEP_VERSIONS, ArtifactStore
from segmentation_assets.io.models import MODEL, mark_serving, model_before


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
