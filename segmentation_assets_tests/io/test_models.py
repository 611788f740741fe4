"""Which stored model the next one takes its cluster ids from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io.artifacts import ArtifactStore
from segmentation_assets.io.models import MODEL, PUBLICATION, model_before
from segmentation_assets.io.segment_store import PublishedSegments


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def model(version: str) -> ClusterModel:
    tfidf = vectorize(pa.array(["dress", "laptop"]), VectorSettings())
    return replace(fit(tfidf, np.array([0, 1], dtype=np.int32), ClusterSettings(k=2)), version=version)


def publication(version: str) -> PublishedSegments:
    return PublishedSegments("user_segments", "user_segments-1", 2, None, [], version)


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
    store.save(PUBLICATION, "run1", publication("a"))
    store.save(MODEL, "run2", model("b"))
    store.save(MODEL, "run3", model("c"))
    assert before(store) == "a"


def test_the_latest_serves_again_when_the_published_one_is_not_stored_any_more(store: ArtifactStore) -> None:
    store.save(PUBLICATION, "run1", publication("gone"))
    store.save(MODEL, "run2", model("b"))
    store.save(MODEL, "run3", model("c"))
    assert before(store) == "c"


def test_an_unreadable_publication_counts_as_none(store: ArtifactStore) -> None:
    store.save(MODEL, "run1", model("a"))
    store.save(MODEL, "run2", model("b"))
    folder = store.save(PUBLICATION, "run1", publication("a"))
    (folder / "fields.json").write_text("{}")
    assert before(store) == "b"


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
