"""Profiles are published whole and verified, or readers keep those before; one can be read by the user's id."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.core.settings import ProfileSettings
from segmentation_assets.core.users.behaviour import BehaviourModel, Stability
from segmentation_assets.core.users.preprocessing import Preprocessing
from segmentation_assets.core.users.profiles import UserProfiles
from segmentation_assets.io.artifacts import ArtifactStore
from segmentation_assets.io.bulk import BulkFailed
from segmentation_assets.io.elasticsearch import IndexMissing
from segmentation_assets.io.profile_store import (
    PublishedProfiles,
    UserUnknownError,
    mark_served,
    model_before,
    profile_of,
    publish_profiles,
)
from segmentation_assets.io.publishing import AliasTaken, VerificationFailed, list_published, published_state

ALIAS = "user_profiles"
NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


def profiles(users: Sequence[str] = ("u1", "u2", "a/b ü"), **changed: Any) -> UserProfiles:
    n = len(users)
    table = pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "segment": pa.array((["tech", None] * n)[:n], pa.string()),
            "cluster": pa.array(range(n), pa.int32()),
            "persona": ["Browsers"] * n,
            "rules": pa.array([["loyal"], *[[]] * n][:n], pa.list_(pa.string())),
            "features": pa.array([{"sessions": 1.0 + place} for place in range(n)]),
        }
    )
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    return UserProfiles(**{"table": table, "model_version": "b1", "segment_model_version": "s1", "start": start,
                           "end": end, "absent": {"carts": "no event"}, **changed})  # fmt: skip


def put(client: Elasticsearch, found: UserProfiles | None = None, **options: Any) -> PublishedProfiles:
    settings = ProfileSettings(**options)
    return publish_profiles(client, found or profiles(), settings, run_id="0a1b2c3d-4e5f", now=NOW)


def test_every_user_has_one_document_under_the_own_id(es: Elasticsearch) -> None:
    done = put(es)
    assert (done.alias, done.documents, done.previous, done.removed, done.model_version) == (ALIAS, 3, None, [], "b1")
    hits = es.search(index=ALIAS, size=10)["hits"]["hits"]
    assert {hit["_id"] for hit in hits} == {hit["_source"]["user_id"] for hit in hits} == {"u1", "u2", "a/b ü"}
    assert es.get(index=ALIAS, id="u1")["_source"] == {
        "user_id": "u1",
        "segment": "tech",
        "cluster": 0,
        "persona": "Browsers",
        "rules": ["loyal"],
        "features": {"sessions": 1.0},
        "absent": ["carts"],
        "model_version": "b1",
        "segment_model_version": "s1",
        "window_start": "2026-01-01T00:00:00.000Z",
        "window_end": "2026-02-01T00:00:00.000Z",
        "published_at": "2026-03-01T10:00:00.000Z",
    }


def test_the_index_tells_by_which_models_and_in_which_run_it_was_made(es: Elasticsearch) -> None:
    done = put(es)
    state = published_state(es, ALIAS)
    assert state is not None
    assert (state.index, state.documents) == (done.index, 3)
    told = {name: state.meta[name] for name in ("run_id", "model_version", "segment_model_version", "status", "owner")}
    assert told == {
        "run_id": "0a1b2c3d-4e5f",
        "model_version": "b1",
        "segment_model_version": "s1",
        "status": "complete",
        "owner": "segmentation-assets",
    }


def test_who_is_not_among_the_users_any_more_has_no_profile_afterwards(es: Elasticsearch) -> None:
    first = put(es)
    done = put(es, profiles(["u2"]))
    assert (done.previous, done.documents) == (first.index, 1)
    assert es.count(index=ALIAS)["count"] == 1
    with pytest.raises(UserUnknownError):
        profile_of(es, ALIAS, "u1")


def test_alias_and_how_many_are_kept_are_those_of_the_settings(es: Elasticsearch) -> None:
    made = [put(es, alias="mine", keep=2).index for _ in range(3)]
    assert [index.name for index in list_published(es, "mine")] == made[:0:-1]
    assert published_state(es, ALIAS) is None


# --- when something goes wrong


def test_a_refused_profile_leaves_the_readers_those_before(es: Elasticsearch, proxy: Any) -> None:
    before = put(es).index
    proxy.refuse_items(lambda key: 400 if key == "u2" else None, {"type": "document_parsing_exception", "reason": "no"})
    with Elasticsearch(proxy.url) as client, pytest.raises(BulkFailed):
        put(client, profiles(["u1", "u2", "u3"]))
    assert list(es.indices.get_alias(name=ALIAS)) == [before]
    assert [index.name for index in list_published(es, ALIAS)] == [before]  # and no half one lies about
    assert es.count(index=ALIAS)["count"] == 3


def test_profiles_are_counted_and_read_back_before_readers_see_them(es: Elasticsearch, proxy: Any) -> None:
    """A cluster that says yes to everything, loses one and changes another: neither gets through."""
    before = put(es).index

    def loses_one(request: Any) -> Any:
        if request.path.endswith("/_count"):
            answer = proxy.forward(request)
            return type(answer).of(200, {**answer.content, "count": answer.content["count"] - 1})
        return proxy.forward(request)

    def changes_one(request: Any) -> Any:
        if "_bulk" in request.path:
            request.body = request.body.replace(b'"Browsers"', b'"Buyers"')
        return proxy.forward(request)

    for fault, said in ((loses_one, "holds 2 documents, 3 were written"), (changes_one, "is not what was written")):
        proxy.fault = fault
        with Elasticsearch(proxy.url) as client, pytest.raises(VerificationFailed, match=said):
            put(client)
        assert list(es.indices.get_alias(name=ALIAS)) == [before]
    assert {hit["_source"]["persona"] for hit in es.search(index=ALIAS)["hits"]["hits"]} == {"Browsers"}


def test_two_profiles_of_one_user_are_not_published(es: Elasticsearch) -> None:
    with pytest.raises(VerificationFailed):
        put(es, profiles(["u1", "u1"]))
    assert not es.indices.exists_alias(name=ALIAS)


def test_an_index_of_somebody_else_is_left_alone(es: Elasticsearch) -> None:
    es.index(index=ALIAS, id="theirs", document={"a": 1}, refresh=True)
    with pytest.raises(AliasTaken):
        put(es)
    assert es.get(index=ALIAS, id="theirs")["_source"] == {"a": 1}


# --- one profile


def test_one_profile_is_read_whatever_is_in_the_id(es: Elasticsearch) -> None:
    put(es)
    assert profile_of(es, ALIAS, "a/b ü")["user_id"] == "a/b ü"
    assert profile_of(es, ALIAS, "u2")["features"] == {"sessions": 2.0}


@pytest.mark.parametrize("user", ["nobody", "U1", "", "*", "u1,u2", "x" * 600])
def test_a_user_without_a_profile_is_one_clear_error_that_does_not_repeat_the_id(user: str, es: Elasticsearch) -> None:
    put(es)
    with pytest.raises(UserUnknownError) as raised:
        profile_of(es, ALIAS, user)
    assert raised.value.problem == "There is no profile of this user in user_profiles."
    assert raised.value.cure


def test_before_anything_is_published_the_error_is_another(es: Elasticsearch) -> None:
    with pytest.raises(IndexMissing, match="no index or alias 'user_profiles'") as raised:
        profile_of(es, ALIAS, "u1")
    assert "segments run --users" in raised.value.cure


# --- the model that serves


def model(version: str) -> BehaviourModel:
    none = np.zeros(0, np.int32)
    return BehaviourModel(
        version=version,
        method="kmeans",
        preprocessing=Preprocessing([], [], {}),
        points=np.zeros((0, 1)),
        point_clusters=none,
        reach=np.zeros(0),
        cluster_ids=none,
        next_id=0,
        users=pa.array([], pa.string()),
        labels=none,
        confidence=np.zeros(0, np.float32),
        sizes=[],
        noise=0,
        fitted_on=0,
        stability=Stability(None, [], None),
        details={},
    )


def test_the_model_before_is_the_one_that_readers_are_served_by(tmp_path: Path) -> None:
    """One that was stored later and never published does not count; before the first publication the latest does."""
    store, warnings = ArtifactStore(tmp_path), list[str]()
    assert model_before(store, warnings.append) is None
    for version in ("first", "second", "third"):
        store.save("behaviour_clusters", f"run-{version}", model(version))
    assert getattr(model_before(store, warnings.append), "version", None) == "third"
    mark_served(store, "second")
    assert getattr(model_before(store, warnings.append), "version", None) == "second"
    mark_served(store, "of another machine")
    assert getattr(model_before(store, warnings.append), "version", None) == "second"
    assert warnings == []


def test_a_model_that_cannot_be_read_is_passed_over_and_told(tmp_path: Path) -> None:
    store, warnings = ArtifactStore(tmp_path), list[str]()
    store.save("behaviour_clusters", "run-1", replace(model("good"), next_id=3))
    damaged = store.save("behaviour_clusters", "run-2", model("bad"))
    mark_served(store, "bad")
    (damaged / "fields.json").write_text("{")
    mark_served(store, "nowhere")  # looks at all of them
    found = model_before(store, warnings.append)
    assert found is not None
    assert (found.version, found.next_id) == ("good", 3)
    assert "materialize the asset again" in warnings[0]
