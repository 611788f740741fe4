"""One contract for every clusterer of users, the rule by which they are assigned, and what is each method's own."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.settings import BehaviourMethod, BehaviourSettings
from segmentation_assets.core.users.clustering import (
    METHODS,
    NOISE,
    Clusters,
    TooFewUsersError,
    assign,
    dbscan,
    suggest_eps,
)
from segmentation_assets.core.users.clustering.dbscan import TooManyNeighboursError
from segmentation_assets.core.users.clustering.kmeans import choose_k

CHOSEN = BehaviourSettings(k=3, min_samples=5, min_cluster_size=5)


@pytest.fixture(params=METHODS, ids=str)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def fit(method: str, rows: np.ndarray, chosen: BehaviourSettings = CHOSEN) -> Clusters:
    return METHODS[method].fit(rows, chosen)


def fit_or_refuse(method: str, rows: np.ndarray) -> Clusters | TooFewUsersError:
    try:
        return fit(method, rows)
    except TooFewUsersError as error:
        return error


def predicted(found: Clusters, rows: np.ndarray) -> np.ndarray:
    return assign(rows, found.points, found.point_labels, found.reach)[0]


def crowds(sizes: tuple[int, ...] = (60, 40, 25), d: int = 4, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Rows around different corners 6 apart, in no order, and the corner of each."""
    chance = np.random.default_rng(3)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    truth = truth[chance.permutation(len(truth))]
    return 6 * np.eye(len(sizes), d)[truth] + spread * chance.standard_normal((len(truth), d)), truth


def check(found: Clusters, rows: np.ndarray) -> None:
    """What holds of any clusters of any rows."""
    assert found.labels.shape == (len(rows),)
    assert found.labels.dtype == found.point_labels.dtype == np.int32
    assert found.points.dtype == found.reach.dtype == np.float64
    assert found.points.shape == (len(found.point_labels), rows.shape[1])
    assert found.reach.shape == found.point_labels.shape
    assert not np.isnan(found.reach).any()
    assert (found.reach >= 0).all()
    assert set(found.labels.tolist()) - {NOISE} == set(range(found.k)) == set(found.point_labels.tolist())
    assert all(np.isfinite(list(found.details.values())))
    sizes = np.bincount(found.labels[found.labels >= 0], minlength=found.k)
    assert (np.diff(sizes) <= 0).all(), "clusters are numbered by size"
    assert predicted(found, rows).tolist() == found.labels.tolist()


def test_every_method_of_the_settings_is_there_and_named_as_it_is_chosen() -> None:
    assert set(METHODS) == set(get_args(BehaviourMethod))
    assert all(clusterer.name == name for name, clusterer in METHODS.items())


def test_crowds_that_stand_apart_are_found_the_largest_first(method: str) -> None:
    rows, truth = crowds()
    found = fit(method, rows)
    check(found, rows)
    assert found.k == 3
    inside = found.labels >= 0
    assert inside.mean() > 0.8
    assert found.labels[inside].tolist() == truth[inside].tolist()


def test_the_same_rows_give_the_same_bits(method: str) -> None:
    rows, _ = crowds(spread=2)
    one, two = fit(method, rows), fit(method, rows)
    for name in ("points", "point_labels", "reach", "labels"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
    assert one.details == two.details


@given(
    arrays(np.float64, st.tuples(st.integers(8, 40), st.just(2)), elements=st.sampled_from([0.0, 1, 1.5, 2, 7, 7.5])),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_rows_changes_nothing_even_where_many_are_equally_near(
    method: str, rows: np.ndarray, chance: object
) -> None:
    if len(np.unique(rows, axis=0)) < 3:
        return
    order = list(range(len(rows)))
    chance.shuffle(order)
    one, two = fit(method, rows), fit(method, rows[order])
    check(one, rows)
    assert one.labels[order].tolist() == two.labels.tolist()
    assert one.points.tobytes() == two.points.tobytes()
    assert one.reach.tobytes() == two.reach.tobytes()


def test_a_row_alone_gets_what_it_got_among_all(method: str) -> None:
    rows, _ = crowds(spread=1.5)
    found = fit(method, rows)
    check(found, rows)
    assert [predicted(found, rows[i : i + 1])[0] for i in range(len(rows))] == found.labels.tolist()


def test_other_users_of_the_same_crowds_are_put_where_they_belong(method: str) -> None:
    rows, truth = crowds((300, 200, 100))
    found = fit(method, rows[:300])
    labels = predicted(found, rows[300:])
    inside = labels >= 0
    assert inside.mean() > 0.8
    assert adjusted_rand_score(truth[300:][inside], labels[inside]) == 1


def test_the_rows_are_left_as_they_are(method: str) -> None:
    rows, _ = crowds()
    before = rows.copy()
    fit(method, rows)
    assert rows.tobytes() == before.tobytes()


def test_users_who_are_all_the_same_are_one_cluster_none_or_too_few(method: str) -> None:
    rows = np.ones((30, 3))
    found = fit_or_refuse(method, rows)
    if isinstance(found, TooFewUsersError):
        assert "in 1 different ways" in found.problem
    else:
        check(found, rows)
        assert len(set(found.labels.tolist())) == 1


def test_groups_of_the_very_same_rows_are_clusters(method: str) -> None:
    rows = np.repeat([[0.0, 0], [5, 5], [9, 0]], [30, 20, 10], axis=0)
    found = fit(method, rows)
    check(found, rows)
    assert found.labels.tolist() == [0] * 30 + [1] * 20 + [2] * 10


def test_a_column_that_is_the_same_for_all_changes_nothing(method: str) -> None:
    rows, _ = crowds(spread=1)
    with_constant = np.column_stack([np.full(len(rows), 3.0), rows])
    assert fit(method, with_constant).labels.tolist() == fit(method, rows).labels.tolist()


def test_fewer_users_than_a_cluster_needs_are_too_few_or_in_none(method: str) -> None:
    for n in (0, 1, 2):
        rows = np.arange(2.0 * n).reshape(n, 2)
        found = fit_or_refuse(method, rows)
        if isinstance(found, TooFewUsersError):
            assert f"the {n} users" in found.problem
            assert "behaviour.k" in found.cure
        else:
            check(found, rows)
            assert found.labels.tolist() == [NOISE] * n


def test_a_cell_that_is_no_number_is_refused(method: str) -> None:
    for cell in (np.nan, np.inf):
        rows, _ = crowds()
        rows[3, 1] = cell
        with pytest.raises(ValueError, match="must be finite, and 1 of 500 cells are not"):
            fit(method, rows)


def test_rows_without_a_second_dimension_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"must be \(n, d\)"):
        fit(method, np.ones(5))


def test_users_scattered_far_from_each_other_are_noise_where_a_method_knows_noise() -> None:
    rows = 100.0 * np.arange(40.0)[:, None] ** 2
    for method in ("dbscan", "hdbscan"):
        found = fit(method, rows, CHOSEN.model_copy(update={"eps": 1.0, "min_samples": 8, "min_cluster_size": 30}))
        check(found, rows)
        assert (found.k, found.points.shape) == (0, (0, 1))
        assert set(found.labels.tolist()) == {NOISE}


# --- what is each method's own


def test_kmeans_finds_what_scikit_learn_finds() -> None:
    rows, _ = crowds(spread=2.5)
    theirs = KMeans(3, n_init=10, random_state=42).fit(rows)
    found = fit("kmeans", rows)
    assert adjusted_rand_score(theirs.labels_, found.labels) > 0.95
    assert found.details["objective"] <= theirs.inertia_ * 1.01
    assert found.details["objective"] == pytest.approx(((rows - found.points[found.labels]) ** 2).sum())


def test_kmeans_takes_everybody_in_however_far() -> None:
    rows, _ = crowds()
    found = fit("kmeans", rows)
    assert predicted(found, np.array([[1e9, 0, 0, 0]])).tolist() == [0]


def test_kmeans_of_fewer_different_users_than_clusters_is_refused_with_both_numbers() -> None:
    rows = np.repeat([[0.0, 0], [5, 5]], 20, axis=0)
    with pytest.raises(TooFewUsersError, match=r"3 behaviour clusters .* 40 users .* 2 different ways"):
        fit("kmeans", rows)
    assert fit("kmeans", rows, BehaviourSettings(k="auto")).k == 2


@pytest.mark.parametrize("sizes", [(60, 40, 25), (60, 50, 40, 30, 20)])
def test_auto_finds_as_many_clusters_as_there_are_crowds(sizes: tuple[int, ...]) -> None:
    rows, truth = crowds(sizes, d=6, spread=0.8)
    found = fit("kmeans", rows, BehaviourSettings(k="auto", k_max=8))
    assert found.k == len(sizes)
    assert found.labels.tolist() == truth.tolist()
    assert found.details["agreement_2"] <= 1
    assert found.details[f"silhouette_{len(sizes)}"] > 0.5


def test_auto_prefers_the_finer_of_two_divisions_that_are_about_as_clean() -> None:
    """Two crowds far apart, each of three: the silhouette of the two halves is nearly that of the six crowds."""
    rows, _ = crowds((40, 40, 40), d=3)
    both = np.vstack([rows, rows[::-1] + 40])
    assert choose_k(both, 8, seed=1)[0] == 6


def test_auto_is_not_lured_by_a_number_that_other_samples_do_not_confirm() -> None:
    """One crowd: more clusters have a better silhouette there, and none of them comes out twice."""
    rows = np.random.default_rng(0).standard_normal((800, 4))
    k, numbers = choose_k(rows, 6, seed=1)
    agreement = {name: value for name, value in numbers.items() if name.startswith("agreement")}
    assert numbers[f"agreement_{k}"] == max(agreement.values()) < 0.8


def test_auto_tries_no_more_clusters_than_there_are_different_users() -> None:
    rows = np.array([[0.0], [1], [10], [11]])
    _, numbers = choose_k(rows, 12, seed=1)
    assert set(numbers) == {"silhouette_2", "silhouette_3", "agreement_2", "agreement_3"}


def test_dbscan_has_the_cores_and_the_noise_of_scikit_learn() -> None:
    rows, _ = crowds(spread=1.2)
    chosen = CHOSEN.model_copy(update={"eps": 1.6})
    theirs = DBSCAN(eps=1.6, min_samples=5).fit(rows)
    found = fit("dbscan", rows, chosen)
    cores = theirs.core_sample_indices_
    assert 0 < len(cores) < len(rows)
    assert (found.labels < 0).tolist() == (theirs.labels_ < 0).tolist()
    assert 0 < (found.labels < 0).sum() < len(rows)
    assert adjusted_rand_score(theirs.labels_[cores], found.labels[cores]) == 1
    assert set(found.reach.tolist()) == {1.6}
    assert found.details["eps"] == 1.6


def test_a_user_between_two_crowds_of_dbscan_is_in_the_nearer_one() -> None:
    left, right = np.arange(-1.0, 0.1, 0.1)[:, None], np.arange(2.0, 3.1, 0.1)[:, None]
    chosen = CHOSEN.model_copy(update={"eps": 1.25, "min_samples": 9})
    for turned in (1, -1):  # the core of the left crowd at 0 reaches it as well, from 1.2
        found = fit("dbscan", turned * np.vstack([left, right, [[1.2]]]), chosen)
        assert found.k == 2
        assert found.labels[-1] == found.labels[-2] != found.labels[0]


def test_a_distance_at_which_all_are_neighbours_of_all_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, _ = crowds()
    monkeypatch.setattr(dbscan, "NEIGHBOURS", 125 * 100)
    assert fit("dbscan", rows, CHOSEN.model_copy(update={"eps": 1.5})).k == 3
    with pytest.raises(TooManyNeighboursError, match="At a distance of 50 each of 125 users has about 125 neighbours"):
        fit("dbscan", rows, CHOSEN.model_copy(update={"eps": 50.0}))
    fit("dbscan", np.repeat(rows[:20], 50, axis=0), CHOSEN.model_copy(update={"eps": 50.0}))  # 20 different ones


def test_hdbscan_says_of_the_rows_what_scikit_learn_says_noise_included() -> None:
    rows = np.vstack([crowds((300, 200, 100), spread=1.3)[0], np.random.default_rng(1).uniform(-9, 9, (100, 4))])
    theirs = HDBSCAN(min_cluster_size=5, min_samples=5, copy=True).fit(rows).labels_
    found = fit("hdbscan", rows)
    check(found, rows)
    assert 50 < (theirs < 0).sum() < 500
    assert ((found.labels < 0) == (theirs < 0)).mean() > 0.99
    assert adjusted_rand_score(theirs, found.labels) > 0.99


def test_of_rows_that_are_the_same_all_are_in_the_cluster_if_hdbscan_puts_one_there() -> None:
    rows = np.random.default_rng(3).integers(0, 6, (40, 2)).astype(np.float64)
    rows = rows[np.lexsort(rows.T[::-1])]
    theirs = HDBSCAN(min_cluster_size=4, min_samples=3, copy=True).fit(rows).labels_ >= 0
    _, same = np.unique(rows, axis=0, return_inverse=True)
    any_of_them = np.bincount(same, theirs)[same] > 0
    assert any_of_them.sum() > theirs.sum()  # it parts some that are the same
    assert (
        (fit("hdbscan", rows, BehaviourSettings(min_cluster_size=4, min_samples=3)).labels >= 0) == any_of_them
    ).all()


def test_hdbscan_leaves_out_about_as_many_others_as_of_those_it_was_fitted_on() -> None:
    chance = np.random.default_rng(1)
    rows = np.vstack([crowds((800, 500, 300), spread=1)[0], chance.uniform(-9, 9, (200, 4))])
    rows = rows[chance.permutation(len(rows))]
    found = fit("hdbscan", rows[:900])
    assert (predicted(found, rows[900:]) < 0).mean() == pytest.approx((found.labels < 0).mean(), abs=0.08)


def test_hdbscan_does_not_take_in_a_user_far_from_all() -> None:
    rows, _ = crowds()
    assert predicted(fit("hdbscan", rows), np.array([[60.0, 0, 0, 0]])).tolist() == [NOISE]


# --- the distance for DBSCAN


def test_the_suggested_distance_is_where_the_curve_turns_up() -> None:
    # With two neighbours, oneself the first: distances to the next one. Rows 0..7 have 1, then 10 and 20 lie apart.
    eps, curve = suggest_eps(np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 17, 37])[:, None], 2)
    assert curve.tolist() == [1.0] * 8 + [10.0, 20.0]
    assert eps == 1  # furthest below the line from (0, 0) to (1, 1) is (7/9, 0)


def test_the_suggested_distance_lets_dbscan_tell_crowds_from_scatter() -> None:
    rows, truth = crowds((100, 100), spread=0.3)
    everything = np.vstack([rows, np.random.default_rng(1).uniform(-30, 30, (20, 4))])
    found = fit("dbscan", everything)
    assert found.details["eps"] == found.details["suggested_eps"] == suggest_eps(everything, 5)[0]
    assert found.k == 2
    assert adjusted_rand_score(truth, found.labels[:200]) > 0.95
    assert (found.labels[200:] < 0).mean() > 0.9


@given(
    arrays(np.float64, st.tuples(st.integers(0, 12), st.just(2)), elements=st.sampled_from([0.0, 0, 0, 1, 3])),
    st.integers(1, 15),
)
@settings(deadline=None)
def test_a_distance_can_always_be_suggested(rows: np.ndarray, min_samples: int) -> None:
    eps, curve = suggest_eps(rows, min_samples)
    assert 0 < eps < np.inf
    assert curve.shape == (len(rows),)
    assert (np.diff(curve) >= 0).all()
    assert len(rows) == 0 or curve[-1] == 0 or eps <= curve[-1]


# --- the rule

cells = st.sampled_from([-2.0, -1, 0, 0, 0.5, 1, 3])


@given(
    arrays(np.float64, st.tuples(st.integers(0, 10), st.just(2)), elements=cells),
    st.lists(st.tuples(st.tuples(cells, cells), st.integers(0, 3)), max_size=9),
    st.sampled_from([0.0, 0.5, 1.0, 1.5, np.inf]),
)
@settings(deadline=None, max_examples=200)
def test_assign_is_what_comparing_each_row_with_each_point_gives(
    rows: np.ndarray, placed: list[tuple[tuple[float, float], int]], reach: float
) -> None:
    points = np.array([place for place, _ in placed], dtype=np.float64).reshape(-1, 2)
    names = np.array([name for _, name in placed], dtype=np.int32)
    labels, confidence = assign(rows, points, names, np.full(len(points), reach))
    assert (labels.dtype, confidence.dtype) == (np.int32, np.float32)
    for row, label, sure in zip(rows, labels, confidence, strict=True):
        far = {int(name): min(np.linalg.norm(row - points[names == name], axis=1)) for name in set(names.tolist())}
        first = min(far.values(), default=np.inf)
        if not far or first > reach + 1e-9:
            assert (label, sure) == (NOISE, 0)
            continue
        assert label == min(name for name, distance in far.items() if distance < first + 1e-9)
        second = min((distance for name, distance in far.items() if name != label), default=np.inf)
        assert sure == pytest.approx(1 - first / second if second > 1e-9 else 0, abs=1e-6)


def test_confidence_is_how_far_the_nearest_cluster_is_ahead() -> None:
    points, names = np.array([[0.0], [1.0], [4.0]]), np.array([7, 7, 9], dtype=np.int32)
    labels, confidence = assign(np.array([[0.0], [2.0], [2.5], [3.0]]), points, names, np.full(3, np.inf))
    assert labels.tolist() == [7, 7, 7, 9]
    assert confidence.tolist() == pytest.approx([1, 0.5, 0, 0.5])
    labels, confidence = assign(np.array([[50.0]]), points[:2], names[:2], np.full(2, np.inf))
    assert (labels.tolist(), confidence.tolist()) == ([7], [1])


def test_beyond_the_reach_of_the_nearest_point_is_noise_even_if_another_reaches_further() -> None:
    points, names, reach = np.array([[0.0], [10.0]]), np.array([0, 1], dtype=np.int32), np.array([1.0, 100.0])
    labels, confidence = assign(np.array([[1.0], [3.0], [5.0], [6.0]]), points, names, reach)
    assert labels.tolist() == [0, NOISE, 1, 1]  # at 5 both are equally near, and one of them reaches that far
    assert confidence[1] == confidence[2] == 0


def test_distances_that_differ_by_rounding_alone_are_a_tie_which_the_lowest_label_wins() -> None:
    far = 0.1 + 0.2
    assert far > 0.3
    labels, confidence = assign(np.zeros((1, 1)), np.array([[far], [-0.3]]), np.array([0, 1]), np.full(2, np.inf))
    assert (labels.tolist(), confidence.tolist()) == ([0], [0])


def test_more_rows_than_are_assigned_at_a_time_get_what_each_gets_alone() -> None:
    rows, _ = crowds((9_000, 9_000, 7_000), spread=2)
    found = fit("kmeans", rows)
    halves = np.concatenate([predicted(found, rows[:12_345]), predicted(found, rows[12_345:])])
    assert halves.tolist() == predicted(found, rows).tolist()
