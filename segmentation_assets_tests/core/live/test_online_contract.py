"""What holds of every online clusterer: exact snapshots, stable ids, finite results, following what moves."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.live.online import (
    METHODS,
    OnlineClusterer,
    OnlineClusters,
    OnlineSettings,
    SnapshotError,
)
from segmentation_assets.core.settings import BehaviourSettings, OnlineMethod
from segmentation_assets.core.users.clustering import METHODS as BATCH
from segmentation_assets.core.users.clustering import assign

CHOSEN = OnlineSettings(
    k=3,
    half_life=60,
    half_life_points=400,
    start_points=100,
    micro_clusters=20,
    horizon=60,
    recent_points=10,
    batch=50,
    macro_every=150,
    window=300,
    recluster_every=200,
    min_samples=5,
    min_cluster_size=10,
    core_weight=6,
    potential_share=0.5,
)
SECOND = 1_000
BEGAN = 1_700_000_000 * SECOND


@pytest.fixture(params=METHODS, ids=str)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def blobs(n: int, centers: np.ndarray, seed: int = 0, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    truth = chance.integers(len(centers), size=n)
    return centers[truth] + spread * chance.standard_normal((n, centers.shape[1])), truth


def times(n: int, start: float = 0.0, rate: float = 20.0) -> np.ndarray:
    """Times of n points, so many a second."""
    return BEGAN + ((start + np.arange(n) / rate) * SECOND).astype(np.int64)


def learn(one: OnlineClusterer, rows: np.ndarray, at: np.ndarray, batch: int = 37) -> None:
    for start in range(0, len(rows), batch):
        one.learn(rows[start : start + batch], at[start : start + batch])


def predicted(found: OnlineClusters, rows: np.ndarray) -> np.ndarray:
    return assign(rows, found.points, found.point_ids, found.reach)[0]


def check(found: OnlineClusters, d: int) -> None:
    m = len(found.points)
    assert found.points.shape == (m, d)
    assert found.point_ids.shape == found.reach.shape == (m,)
    assert found.point_ids.dtype == np.int32
    assert np.isfinite(found.points).all()
    assert (found.point_ids >= 0).all()
    assert (found.reach >= 0).all()
    assert found.following_id > found.point_ids.max(initial=-1)
    assert all(into in found.ids and gone not in found.ids for gone, into in found.merged.items())


def same(one: OnlineClusterer, other: OnlineClusterer) -> bool:
    a, b = one.snapshot(), other.snapshot()
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in a
    )


def moved(step: float) -> np.ndarray:
    """Three centres in a triangle; after a step of 1 all are where the frozen clusters know the third one only."""
    return np.array([[0.0, 0], [4, 0], [4, 4]]) + 8 * step


def batch_model(rows: np.ndarray, kind: str = "kmeans") -> OnlineClusters:
    found = BATCH[kind].fit(rows, BehaviourSettings(method=kind, k=3, min_samples=5, min_cluster_size=10))
    return OnlineClusters(found.points, (found.point_labels + 4).astype(np.int32), found.reach, next_id=11)


def test_every_method_of_the_settings_is_there() -> None:
    assert set(METHODS) | {"model"} == set(get_args(OnlineMethod))
    assert OnlineSettings().method == "model"


@pytest.mark.parametrize("stop", [60, 333, 700])
@pytest.mark.parametrize("seeded", [False, True], ids=["from_nothing", "from_the_batch"])
def test_what_is_restored_goes_on_with_the_same_bits(method: str, seeded: bool, stop: int) -> None:
    rows, _ = blobs(1_000, np.array([[0, 0, 0], [6, 0, 0], [0, 6, 0], [0, 0, 6.0]]), spread=0.8)
    at = times(1_000)
    seed = batch_model(rows[:200]) if seeded else None
    going_on = METHODS[method](CHOSEN, seed, 3)
    learn(going_on, rows[:stop], at[:stop])
    kept = going_on.snapshot()
    restored = METHODS[method].restore(kept, CHOSEN)
    assert same(going_on, restored)
    learn(going_on, rows[stop:], at[stop:])
    learn(restored, rows[stop:], at[stop:])
    assert same(going_on, restored)
    assert not same(going_on, METHODS[method].restore(kept, CHOSEN))
    a, b = going_on.clusters(), restored.clusters()
    assert a.points.tobytes() == b.points.tobytes()
    assert a.point_ids.tolist() == b.point_ids.tolist()
    assert a.merged == b.merged


def test_a_snapshot_does_not_change_with_what_it_is_of(method: str) -> None:
    rows, _ = blobs(600, moved(0))
    one = METHODS[method](CHOSEN, None, 2)
    learn(one, rows[:300], times(300))
    kept = one.snapshot()
    before = {name: part.tobytes() for name, part in kept.items()}
    learn(one, rows[300:], times(300, 15))
    assert {name: part.tobytes() for name, part in kept.items()} == before


def test_a_snapshot_holds_nothing_but_arrays_that_need_no_pickle(method: str) -> None:
    one = METHODS[method](CHOSEN, None, 2)
    learn(one, *(blobs(300, moved(0))[0], times(300)))
    assert all(isinstance(part, np.ndarray) and part.dtype != object for part in one.snapshot().values())


def test_a_snapshot_of_another_method_is_refused(method: str) -> None:
    other = next(name for name in METHODS if name != method)
    with pytest.raises(SnapshotError, match=other):
        METHODS[method].restore(METHODS[other](CHOSEN, None, 2).snapshot(), CHOSEN)
    with pytest.raises(SnapshotError, match="no 'method'"):
        METHODS[method].restore({}, CHOSEN)


def test_until_there_is_enough_the_batch_clusters_are_the_clusters(method: str) -> None:
    seed = batch_model(blobs(200, moved(0))[0])
    one = METHODS[method](CHOSEN, seed, 2)
    one.learn(np.empty((0, 2)), np.empty(0, np.int64))
    found = one.clusters()
    assert found.points.tolist() == seed.points.tolist()
    assert found.point_ids.tolist() == seed.point_ids.tolist()
    assert found.following_id == 11


def test_without_a_batch_model_there_are_no_clusters_until_there_is_enough(method: str) -> None:
    one = METHODS[method](CHOSEN, None, 2)
    one.learn(np.zeros((1, 2)), times(1))
    found = one.clusters()
    check(found, 2)
    assert not len(found.points)
    assert (predicted(found, np.zeros((4, 2))) == -1).all()


def test_clusters_are_found_from_nothing(method: str) -> None:
    rows, truth = blobs(900, moved(0))
    one = METHODS[method](CHOSEN, None, 2)
    learn(one, rows, times(900))
    found = one.clusters()
    check(found, 2)
    assert len(found.ids) == 3
    assert adjusted_rand_score(truth, predicted(found, rows)) > 0.95


def test_ids_of_the_batch_are_kept_while_nothing_changes(method: str) -> None:
    rows, truth = blobs(1_500, moved(0), seed=5)
    seed = batch_model(rows[:300])
    meant = predicted(seed, moved(0))
    one = METHODS[method](CHOSEN, seed, 2)
    for start in range(300, 1_500, 100):
        one.learn(rows[start : start + 100], times(100, start / 20))
        assert predicted(one.clusters(), moved(0)).tolist() == meant.tolist()
    inside = predicted(one.clusters(), rows) >= 0
    assert inside.mean() > 0.9
    assert (predicted(one.clusters(), rows)[inside] == meant[truth[inside]]).all()


def test_what_moves_is_followed_better_than_the_frozen_batch_does_and_keeps_its_ids(method: str) -> None:
    first, truth = blobs(400, moved(0), seed=1)
    seed = batch_model(first, "hdbscan" if method == "hdbscan" else "kmeans")
    meant = predicted(seed, moved(0))
    chosen = CHOSEN.model_copy(update={"half_life": 15.0, "half_life_points": 300.0, "radius": 0.8})
    one = METHODS[method](chosen, seed, 2)
    steps = 80
    frozen, following = [], []
    for step in range(steps):
        rows, truth = blobs(100, moved(step / steps), seed=step + 2)
        one.learn(rows, times(100, step * 5))
        if step % 10 == 9:
            frozen.append(adjusted_rand_score(truth, predicted(seed, rows)))
            following.append(adjusted_rand_score(truth, predicted(one.clusters(), rows)))
    assert np.mean(following) > np.mean(frozen) + 0.2
    assert np.mean(following) > 0.9
    assert predicted(one.clusters(), moved(1 - 1 / steps)).tolist() == meant.tolist()


def test_an_abandoned_cluster_goes_and_a_new_one_gets_a_new_id(method: str) -> None:
    places = np.array([[0.0, 0], [8, 0], [0, 8]])
    first, _ = blobs(300, places, seed=1)
    seed = batch_model(first, "hdbscan" if method == "hdbscan" else "kmeans")
    meant = predicted(seed, places)
    chosen = CHOSEN.model_copy(update={"least_share": 0.05, "half_life": 10.0, "horizon": 10.0})
    one = METHODS[method](chosen, seed, 2)
    later = np.array([[0.0, 0], [8, 0], [14, 14]])
    for step in range(60):
        one.learn(blobs(100, later, seed=step + 2)[0], times(100, step * 5))
    found = one.clusters()
    check(found, 2)
    now = predicted(found, later)
    assert len(set(now.tolist())) == 3
    assert now[:2].tolist() == meant[:2].tolist()
    far = np.linalg.norm(found.points - places[2], axis=1) > 2
    assert far.all()


@pytest.mark.parametrize("seeded", [False, True], ids=["from_nothing", "from_the_batch"])
def test_rows_that_are_all_the_same_make_no_trouble(method: str, seeded: bool) -> None:
    one = METHODS[method](CHOSEN, batch_model(blobs(200, moved(0))[0]) if seeded else None, 2)
    learn(one, np.full((700, 2), 3.25), times(700))
    check(one.clusters(), 2)
    assert len(set(predicted(one.clusters(), np.full((5, 2), 3.25)).tolist())) == 1


def test_one_dimension_is_enough(method: str) -> None:
    rows, truth = blobs(900, np.array([[-5.0], [0], [5]]))
    one = METHODS[method](CHOSEN, None, 1)
    learn(one, rows, times(900))
    check(one.clusters(), 1)
    assert adjusted_rand_score(truth, predicted(one.clusters(), rows)) > 0.85


def test_more_clusters_than_different_rows_are_as_many_as_there_are(method: str) -> None:
    chosen = CHOSEN.model_copy(update={"k": 8})
    one = METHODS[method](chosen, None, 2)
    rows = np.array([[0.0, 0], [5, 5], [9, 0]])[np.arange(600) % 3]
    learn(one, rows, times(600))
    check(one.clusters(), 2)
    assert 1 <= len(one.clusters().ids) <= 3


def test_times_may_come_in_any_order(method: str) -> None:
    rows, truth = blobs(900, moved(0))
    at = times(900)
    late = np.random.default_rng(0).permutation(at)
    one = METHODS[method](CHOSEN, None, 2)
    learn(one, rows, late)
    check(one.clusters(), 2)
    assert adjusted_rand_score(truth, predicted(one.clusters(), rows)) > 0.9


def test_after_a_long_silence_one_point_does_not_end_the_clusters(method: str) -> None:
    rows, _ = blobs(900, moved(0))
    one = METHODS[method](CHOSEN, None, 2)
    learn(one, rows, times(900))
    before = set(one.clusters().ids.tolist())
    one.learn(rows[:1], times(1, 100 * CHOSEN.half_life))
    assert set(one.clusters().ids.tolist()) == before


@pytest.mark.parametrize("cell", [np.nan, np.inf])
def test_cells_that_are_no_numbers_are_refused_and_change_nothing(method: str, cell: float) -> None:
    one, other = METHODS[method](CHOSEN, None, 2), METHODS[method](CHOSEN, None, 2)
    with pytest.raises(ValueError, match="1 of 4 cells"):
        one.learn(np.array([[0, 1], [cell, 0]]), times(2))
    assert same(one, other)


def test_rows_of_other_dimensions_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        METHODS[method](CHOSEN, None, 2).learn(np.zeros((3, 4)), times(3))


def test_asking_changes_nothing(method: str) -> None:
    rows, _ = blobs(700, moved(0))
    asked, left_alone = METHODS[method](CHOSEN, None, 2), METHODS[method](CHOSEN, None, 2)
    for start in range(0, 700, 35):
        asked.learn(rows[start : start + 35], times(35, start / 20))
        left_alone.learn(rows[start : start + 35], times(35, start / 20))
        asked.clusters()
    assert same(asked, left_alone)


@settings(max_examples=25, deadline=None)
@given(
    rows=arrays(
        np.float64,
        st.tuples(st.integers(0, 60), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 1e-9]),
    ),
    batch=st.integers(1, 60),
    name=st.sampled_from(sorted(METHODS)),
)
def test_whatever_comes_clusters_are_finite_and_snapshots_exact(rows: np.ndarray, batch: int, name: str) -> None:
    chosen = CHOSEN.model_copy(
        update={"start_points": 5, "macro_every": 7, "recluster_every": 25, "micro_clusters": 6, "batch": 4}
    )
    at = times(len(rows), rate=0.5)
    one = METHODS[name](chosen, None, rows.shape[1])
    half = len(rows) // 2
    learn(one, rows[:half], at[:half], batch)
    other = METHODS[name].restore(one.snapshot(), chosen)
    learn(one, rows[half:], at[half:], batch)
    learn(other, rows[half:], at[half:], batch)
    check(one.clusters(), rows.shape[1])
    assert same(one, other)


def test_a_core_weight_that_would_keep_every_point_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        OnlineSettings(core_weight=2, potential_share=0.5)
