"""From features to a model of behaviour: everybody is assigned, ids stay, and how far it can be relied on."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.settings import BehaviourMethod, BehaviourSettings
from segmentation_assets.core.users import behaviour
from segmentation_assets.core.users.behaviour import BehaviourModel, fit_behaviour, predict
from segmentation_assets.core.users.clustering import NOISE, TooFewUsersError
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.preprocessing import NoFeaturesError

CHOSEN = BehaviourSettings(
    k=3, features=("click_through", "conversion", "price_level"), bootstraps=0, min_samples=5, min_cluster_size=5
)
CORNERS = np.array([[0.2, 0.2, 0.2], [0.8, 0.2, 0.5], [0.2, 0.8, 0.8], [0.8, 0.8, 0.1]])


def users_of(rows: np.ndarray, names: list[str] | None = None, marked: tuple[int, ...] = ()) -> UserFeatures:
    """Users with three shares each; those at the places of ``marked`` are marked as noise."""
    users = pa.array(names or [f"u{i:05}" for i in range(len(rows))], pa.string())
    features = ("click_through", "conversion", "price_level")
    noise = [["bot_rate"] if i in marked else [] for i in range(len(rows))]
    return UserFeatures(
        table=pa.table({"user_id": users} | {name: rows[:, i] for i, name in enumerate(features)}),
        traits=pa.table({"user_id": users, "device": pa.array(["phone"] * len(rows), pa.string())}),
        groups={},
        absent={},
        outliers=pa.table({}),
        noise=pa.table({"user_id": users, "noise": pa.array(noise, pa.list_(pa.string()))}),
        start=datetime(2024, 1, 1, tzinfo=UTC),
        end=datetime(2024, 3, 1, tzinfo=UTC),
    )


def crowds(*sizes: int, spread: float = 0.03, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows around some of the corners, in no order, and the corner of each."""
    chance = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    truth = truth[chance.permutation(len(truth))]
    return CORNERS[truth] + spread * chance.standard_normal((len(truth), 3)), truth


def shuffled(features: UserFeatures, order: np.ndarray) -> UserFeatures:
    return replace(
        features,
        table=features.table.take(order),
        traits=features.traits.take(order[::-1]),
        noise=features.noise.take(np.roll(order, 1)),
    )


def check(model: BehaviourModel, features: UserFeatures) -> None:
    """What holds of any model of any users."""
    n, k = features.table.num_rows, len(model.cluster_ids)
    assert model.users.to_pylist() == sorted(features.table["user_id"].to_pylist())
    assert model.labels.shape == model.confidence.shape == (n,)
    assert (model.labels.dtype, model.confidence.dtype) == (np.int32, np.float32)
    assert model.cluster_ids.dtype == model.point_clusters.dtype == np.int32
    assert model.sizes == [int((model.labels == cluster).sum()) for cluster in model.cluster_ids]
    assert model.sizes == sorted(model.sizes, reverse=True)
    assert sum(model.sizes) + model.noise == n
    assert model.noise == (model.labels == NOISE).sum()
    assert ((model.confidence >= 0) & (model.confidence <= 1)).all()
    assert (model.confidence[model.labels == NOISE] == 0).all()
    assert set(model.point_clusters.tolist()) == set(model.cluster_ids.tolist())
    assert len(set(model.cluster_ids.tolist())) == k
    assert all(0 <= cluster < model.next_id for cluster in model.cluster_ids.tolist())
    assert len(model.version) == 16


@pytest.mark.parametrize("method", get_args(BehaviourMethod))
def test_every_user_is_assigned_and_crowds_are_found_by_every_method(method: str) -> None:
    rows, truth = crowds(90, 60, 40)
    features = users_of(rows, marked=(0, 5))
    model = fit_behaviour(features, CHOSEN.model_copy(update={"method": method}))
    check(model, features)
    inside = model.labels >= 0
    assert inside.mean() > 0.8
    assert adjusted_rand_score(truth[inside], model.labels[inside]) == 1
    assert model.method == method
    assert model.fitted_on == 188


def test_a_first_model_numbers_its_clusters_by_size() -> None:
    rows, truth = crowds(30, 90, 60)
    model = fit_behaviour(users_of(rows), CHOSEN)
    assert model.cluster_ids.tolist() == [0, 1, 2]
    assert model.sizes == [90, 60, 30]
    assert model.labels.tolist() == np.array([2, 0, 1])[truth].tolist()
    assert (model.next_id, model.previous_version, model.kept) == (3, None, None)


def test_marked_users_are_assigned_and_change_nothing() -> None:
    rows, truth = crowds(90, 60, 40)
    bots = np.vstack([np.full((50, 3), 0.99), rows[:1]])
    alone = fit_behaviour(users_of(rows), CHOSEN)
    model = fit_behaviour(users_of(np.vstack([rows, bots]), marked=tuple(range(190, 241))), CHOSEN)
    assert model.points.tobytes() == alone.points.tobytes()
    assert model.preprocessing == alone.preprocessing
    assert model.fitted_on == 190
    assert (model.labels[190:] >= 0).all()
    assert truth[0] == truth[model.labels[:190] == model.labels[240]][0]


def test_more_users_than_clusters_are_found_in_are_assigned_all_the_same() -> None:
    rows, truth = crowds(200, 150, 100)
    features = users_of(rows)
    model = fit_behaviour(features, CHOSEN.model_copy(update={"fit_users": 120}))
    check(model, features)
    assert model.fitted_on == 120
    assert adjusted_rand_score(truth, model.labels) == 1


@pytest.mark.parametrize("method", get_args(BehaviourMethod))
def test_the_order_of_the_users_changes_nothing(method: str) -> None:
    rows, _ = crowds(90, 60, 40, spread=0.15)
    features = users_of(rows, marked=(3, 4, 70))
    chosen = CHOSEN.model_copy(update={"method": method, "fit_users": 150, "bootstraps": 2})
    one = fit_behaviour(features, chosen)
    two = fit_behaviour(shuffled(features, np.random.default_rng(1).permutation(190)), chosen)
    assert one.version == two.version
    assert one.labels.tolist() == two.labels.tolist()
    assert one.stability == two.stability


@pytest.mark.parametrize("method", get_args(BehaviourMethod))
def test_predict_gives_a_user_alone_what_the_model_says_of_all(method: str) -> None:
    rows, _ = crowds(40, 30, 20, spread=0.1)
    features = users_of(rows)
    model = fit_behaviour(features, CHOSEN.model_copy(update={"method": method}))
    labels, confidence = predict(model, features)
    assert labels.tolist() == model.labels.tolist()
    assert confidence.tolist() == model.confidence.tolist()
    for i in range(len(rows)):
        one = replace(features, table=features.table.slice(i, 1), traits=features.traits.slice(i, 1))
        assert predict(model, one)[0].tolist() == [model.labels[i]]
        assert predict(model, one)[1].tolist() == [model.confidence[i]]


def test_predict_answers_in_the_order_of_the_table_whatever_that_of_the_traits() -> None:
    rows, _ = crowds(40, 30, 20)
    features = users_of(rows)
    model = fit_behaviour(features, CHOSEN)
    order = np.random.default_rng(2).permutation(90)
    assert predict(model, shuffled(features, order))[0].tolist() == model.labels[order].tolist()


def test_traits_are_those_of_the_same_user_whatever_the_order_of_the_tables() -> None:
    features = users_of(crowds(40, 30)[0])
    devices = pa.array(["phone", "desktop"] * 35)
    features = replace(features, traits=features.traits.set_column(1, "device", devices))
    chosen = CHOSEN.model_copy(update={"k": 2, "features": ("device",)})
    model = fit_behaviour(features, chosen)
    assert model.labels.tolist() == [model.labels[0], model.labels[1]] * 35
    order = np.random.default_rng(2).permutation(70)
    mixed = shuffled(features, order)
    assert predict(model, mixed)[0].tolist() == model.labels[order].tolist()
    assert fit_behaviour(mixed, chosen).labels.tolist() == model.labels.tolist()


# --- ids from model to model


def test_the_same_users_again_keep_every_id_and_the_version() -> None:
    features = users_of(crowds(90, 60, 40)[0])
    first = fit_behaviour(features, CHOSEN)
    again = fit_behaviour(features, CHOSEN, previous=first)
    assert again.version == first.version == again.previous_version
    assert again.labels.tolist() == first.labels.tolist()
    assert (again.kept, again.next_id) == ([0, 1, 2], 3)


def test_a_cluster_keeps_its_id_when_it_is_no_longer_the_largest() -> None:
    before = fit_behaviour(users_of(crowds(90, 60, 40)[0]), CHOSEN)
    rows, truth = crowds(60, 40, 120, seed=4)
    features = users_of(rows)
    after = fit_behaviour(features, CHOSEN, previous=before)
    check(after, features)
    assert after.labels.tolist() == truth.tolist()  # before, the corners were numbered by their sizes: 0, 1, 2
    assert after.cluster_ids.tolist() == [2, 0, 1]
    assert after.sizes == [120, 60, 40]
    assert predict(after, features)[0].tolist() == truth.tolist()


def test_a_new_cluster_gets_a_new_id_and_one_that_is_gone_is_never_given_again() -> None:
    rows, truth = crowds(90, 60, 40)
    three = fit_behaviour(users_of(rows), CHOSEN)
    two = fit_behaviour(users_of(rows[truth < 2]), CHOSEN.model_copy(update={"k": 2}), previous=three)
    assert (two.kept, sorted(two.cluster_ids.tolist()), two.next_id) == ([0, 1], [0, 1], 3)
    with_corner, corner = crowds(90, 60, 0, 50)
    again = fit_behaviour(users_of(with_corner), CHOSEN, previous=two)
    assert (again.kept, again.next_id) == ([0, 1], 4)
    assert again.labels.tolist() == corner.tolist()  # the fourth corner is 3, not the 2 of the third


def test_ids_are_carried_over_between_methods_and_features() -> None:
    rows, _ = crowds(90, 60, 40)
    features = users_of(rows)
    before = fit_behaviour(features, CHOSEN.model_copy(update={"method": "hdbscan"}))
    after = fit_behaviour(features, CHOSEN.model_copy(update={"features": None}), previous=before)
    assert after.kept == [0, 1, 2]
    assert after.version != before.version


def test_a_model_without_a_cluster_can_come_before_and_after() -> None:
    features = users_of(crowds(30, 20, 10)[0])
    none = fit_behaviour(features, CHOSEN.model_copy(update={"method": "dbscan", "min_samples": 500}))
    check(none, features)
    assert (none.sizes, none.noise, none.next_id) == ([], 60, 0)
    assert set(predict(none, features)[0].tolist()) == {NOISE}
    after = fit_behaviour(features, CHOSEN, previous=none)
    assert (after.kept, after.cluster_ids.tolist()) == ([], [0, 1, 2])
    again = fit_behaviour(features, CHOSEN.model_copy(update={"method": "dbscan", "min_samples": 500}), previous=after)
    assert (again.kept, again.next_id) == ([], 3)


def test_a_feature_that_is_gone_does_not_stop_the_model_before_from_being_asked() -> None:
    features = users_of(crowds(90, 60, 40)[0])
    before = fit_behaviour(features, CHOSEN)
    poorer = replace(features, table=features.table.drop_columns(["price_level"]))
    after = fit_behaviour(poorer, CHOSEN, previous=before)
    check(after, poorer)
    assert after.preprocessing.left_out == {"price_level": "the data have no such column"}
    assert len(after.kept or []) >= 2


def test_the_version_tells_models_apart_that_assign_differently() -> None:
    features = users_of(crowds(90, 60, 40)[0])
    versions = {
        fit_behaviour(features, CHOSEN.model_copy(update=update)).version
        for update in ({}, {"k": 4}, {"scaling": "minmax"}, {"method": "hdbscan"}, {"features": ("click_through",)})
    }
    assert len(versions) == 5
    first = fit_behaviour(features, CHOSEN)
    moved = replace(first, next_id=7, cluster_ids=first.cluster_ids + 4, point_clusters=first.point_clusters + 4)
    assert fit_behaviour(features, CHOSEN, previous=moved).version != first.version


# --- how far it can be relied on


@pytest.mark.parametrize("method", get_args(BehaviourMethod))
def test_crowds_that_stand_apart_come_out_of_other_samples_too(method: str) -> None:
    features = users_of(crowds(90, 60, 50)[0])
    model = fit_behaviour(features, CHOSEN.model_copy(update={"method": method, "bootstraps": 4}))
    assert len(model.stability.agreements) == 4
    assert model.stability.agreement == pytest.approx(np.mean(model.stability.agreements))
    assert model.stability.agreement > 0.8
    assert (model.stability.silhouette or 0) > 0.6


def test_one_crowd_cut_in_five_does_not_come_out_of_other_samples() -> None:
    rows = np.random.default_rng(1).uniform(0.3, 0.7, (400, 3))
    model = fit_behaviour(users_of(rows), CHOSEN.model_copy(update={"k": 5, "bootstraps": 4}))
    assert (model.stability.agreement or 0) < 0.7
    assert (model.stability.silhouette or 0) < 0.4


def test_without_bootstraps_there_is_no_agreement_and_below_two_clusters_nothing_to_agree_on() -> None:
    features = users_of(crowds(90, 60, 50)[0])
    stability = fit_behaviour(features, CHOSEN).stability
    assert (stability.agreements, stability.agreement) == ([], None)
    assert stability.silhouette is not None
    one = fit_behaviour(users_of(crowds(90)[0]), CHOSEN.model_copy(update={"method": "dbscan", "bootstraps": 2}))
    assert len(one.sizes) == 1
    assert one.stability == behaviour.Stability(None, [], None)


def test_stability_is_measured_on_a_part_of_many_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "COMPARED", 150)
    features = users_of(crowds(300, 200, 100)[0])
    for update in (
        {},
        {"method": "hdbscan"},
        {"method": "dbscan"},
        {"method": "dbscan", "eps": 0.5, "min_samples": 60},
    ):
        model = fit_behaviour(features, CHOSEN.model_copy(update={"bootstraps": 3} | update))
        assert (model.stability.agreement or 0) > 0.8, update
        assert (model.stability.silhouette or 0) > 0.6, update


def test_samples_of_too_few_different_users_are_not_counted() -> None:
    model = fit_behaviour(users_of(CORNERS), CHOSEN.model_copy(update={"k": 4, "bootstraps": 20}))
    assert model.sizes == [1, 1, 1, 1]
    assert model.stability.silhouette is None  # not defined where everybody is a cluster
    assert len(model.stability.agreements) < 20


# --- too little


def test_no_users_or_none_who_are_not_marked_is_said() -> None:
    with pytest.raises(TooFewUsersError, match="there are no users"):
        fit_behaviour(users_of(np.empty((0, 3))), CHOSEN)
    with pytest.raises(TooFewUsersError, match="4 users, and all of them are marked") as error:
        fit_behaviour(users_of(CORNERS, marked=(0, 1, 2, 3)), CHOSEN)
    assert "cleaning" in error.value.cure


def test_fewer_users_than_clusters_or_users_all_alike_are_errors_with_a_cure() -> None:
    with pytest.raises(TooFewUsersError, match=r"5 behaviour clusters .* 4 users"):
        fit_behaviour(users_of(CORNERS), CHOSEN.model_copy(update={"k": 5}))
    with pytest.raises(NoFeaturesError, match="constant"):
        fit_behaviour(users_of(np.ones((20, 3))), CHOSEN)


shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.0, 0.5, 1.0]))


@given(
    st.lists(st.tuples(shares, shares, shares), min_size=3, max_size=30),
    st.sampled_from(get_args(BehaviourMethod)),
    st.sets(st.integers(0, 29), max_size=4),
)
@settings(deadline=None, max_examples=60)
def test_whoever_they_are_everybody_is_in_the_model_once(
    rows: list[tuple[float, float, float]], method: str, marked: set[int]
) -> None:
    features = users_of(np.array(rows), marked=tuple(marked))
    update = {"method": method, "k": 2, "bootstraps": 1, "min_samples": 2, "min_cluster_size": 2}
    try:
        model = fit_behaviour(features, CHOSEN.model_copy(update=update))
    except (TooFewUsersError, NoFeaturesError):
        return
    check(model, features)
    labels, confidence = predict(model, features)
    assert labels.tolist() == model.labels.tolist()
    assert confidence.tolist() == model.confidence.tolist()


def test_eight_threads_do_not_change_a_bit() -> None:
    """Where many cores add up the centres, the order of the sums would be chance."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_behaviour import CHOSEN, fit_behaviour, users_of
features = users_of(np.random.default_rng(0).uniform(size=(4000, 3)))
print(len({fit_behaviour(features, CHOSEN.model_copy(update={"n_init": 1})).version for _ in range(5)}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, os.path.dirname(__file__)],
        env={**os.environ, "OMP_NUM_THREADS": "8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1"]
