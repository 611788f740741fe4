"""CluStream against its definition, written down a second time, and against river's."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.live.online import OnlineSettings
from segmentation_assets.core.live.online.clustream import CluStream, divide
from segmentation_assets.core.users.clustering import assign

BEGAN = 1_700_000_000_000


class Definition:
    """The online part as Aggarwal, Han, Wang and Yu (2003) define it; micro-clusters hold their very points."""

    def __init__(self, rows: np.ndarray, times: np.ndarray, factor: float, m: int, horizon: float) -> None:
        self.micro = [([row], [time]) for row, time in zip(rows, times, strict=True)]
        self.factor, self.m, self.horizon = factor, m, horizon
        self.now = max(times)
        self.deleted = self.merged = 0

    def centers(self) -> np.ndarray:
        return np.array([np.mean(points, axis=0) for points, _ in self.micro])

    def deviation(self, i: int) -> float:
        points = np.array(self.micro[i][0])
        return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))

    def stamp(self, i: int) -> float:
        times = np.array(self.micro[i][1])
        if len(times) < 2 * self.m:
            return float(times.mean())
        return float(norm.ppf(1 - self.m / (2 * len(times)), times.mean(), max(times.std(), 1e-12)))

    def add(self, row: np.ndarray, time: float) -> None:
        self.now = max(self.now, time)
        centers = self.centers()
        distance = np.linalg.norm(centers - row, axis=1)
        nearest = int(distance.argmin())
        if len(self.micro[nearest][0]) == 1:
            others = np.delete(np.linalg.norm(centers - centers[nearest], axis=1), nearest)
            boundary = others.min()
        else:
            boundary = self.factor * self.deviation(nearest)
        if distance[nearest] <= boundary:
            self.micro[nearest][0].append(row)
            self.micro[nearest][1].append(time)
            return
        stamps = [self.stamp(i) for i in range(len(self.micro))]
        if min(stamps) < self.now - self.horizon:
            del self.micro[int(np.argmin(stamps))]
            self.deleted += 1
        else:
            pairs = [(np.linalg.norm(a - b), i, j) for i, a in enumerate(centers) for j, b in enumerate(centers[:i])]
            _, i, j = min(pairs)
            self.micro[j] = (self.micro[j][0] + self.micro[i][0], self.micro[j][1] + self.micro[i][1])
            del self.micro[i]
            self.merged += 1
        self.micro.append(([row], [time]))


def blobs(n: int, k: int, d: int, seed: int, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    centers = 4 * chance.standard_normal((k, d))
    truth = chance.integers(k, size=n)
    return centers[truth] + spread * chance.standard_normal((n, d)), truth


def started(settings: OnlineSettings, rows: np.ndarray, at: np.ndarray, d: int) -> CluStream:
    one = CluStream(settings, None, d)
    one.learn(rows, at)
    return one


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_one_point_at_a_time_is_the_definition(d: int, factor: float) -> None:
    q, n = 8, 600
    rows, _ = blobs(n, 5, d, seed=d)
    at = BEGAN + np.arange(n) * 1_000
    settings = OnlineSettings(
        micro_clusters=q,
        start_points=q,
        batch=1,
        boundary_factor=factor,
        recent_points=5,
        horizon=30.0,
        macro_every=10_000,
        k=3,
    )
    one = started(settings, rows[:q], at[:q], d)
    plain = Definition(rows[:q], (at[:q] - BEGAN) / 1_000, factor, 5, 30.0)
    for i in range(q, n):
        one.learn(rows[i : i + 1], at[i : i + 1])
        plain.add(rows[i], (at[i] - BEGAN) / 1_000)
        if i % 20 == 0 or i == n - 1:
            centers, deviations, counts = one.micro_clusters()
            ours = np.column_stack((centers, deviations, counts, one.relevance_stamps()))
            parts = range(len(plain.micro))
            theirs = np.column_stack(
                (
                    plain.centers(),
                    [plain.deviation(j) for j in parts],
                    [len(points) for points, _ in plain.micro],
                    [plain.stamp(j) for j in parts],
                )
            )
            np.testing.assert_allclose(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)], atol=1e-6)
    assert plain.deleted > 3
    assert plain.merged > 3


@pytest.mark.parametrize("batch", [1, 64, 1_000])
def test_batches_keep_the_count_and_the_mean_of_all_points(batch: int) -> None:
    rows, _ = blobs(3_000, 4, 3, seed=1)
    settings = OnlineSettings(micro_clusters=30, start_points=200, batch=batch, k=4)
    one = started(settings, rows, BEGAN + np.arange(3_000), 3)
    centers, _, counts = one.micro_clusters()
    assert counts.sum() == 3_000
    np.testing.assert_allclose(counts @ centers / 3_000, rows.mean(axis=0), atol=1e-9)


def test_batches_find_the_clusters_that_single_points_find() -> None:
    rows, truth = blobs(4_000, 5, 8, seed=3)
    at = BEGAN + np.arange(4_000) * 100
    found = {}
    for batch in (1, 500):
        settings = OnlineSettings(micro_clusters=40, start_points=400, batch=batch, k=5, macro_every=1_000)
        now = started(settings, rows, at, 8).clusters()
        found[batch] = assign(rows, now.points, now.point_ids, now.reach)[0]
        assert adjusted_rand_score(truth, found[batch]) > 0.98
    assert adjusted_rand_score(found[1], found[500]) > 0.98


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_at_least_as_good_as_those_of_river(seed: int) -> None:
    river = pytest.importorskip("river.cluster")
    n, q, k, d = 1_500, 40, 5, 6
    rows, truth = blobs(n, k, d, seed, spread=1.0)
    settings = OnlineSettings(micro_clusters=q, start_points=200, k=k, macro_every=100, batch=100)
    now = started(settings, rows, BEGAN + np.arange(n) * 1_000, d).clusters()
    ours = adjusted_rand_score(truth, assign(rows, now.points, now.point_ids, now.reach)[0])
    model = river.CluStream(
        n_macro_clusters=k, max_micro_clusters=q, micro_cluster_r_factor=2, time_window=86_400, time_gap=100, seed=seed
    )
    for row in rows:
        model.learn_one(dict(enumerate(row)))
    theirs = adjusted_rand_score(truth, [model.predict_one(dict(enumerate(row))) for row in rows])
    assert ours >= theirs
    assert ours > 0.8


def test_what_was_long_ago_no_longer_counts_in_the_clusters() -> None:
    """By subtraction: the micro-clusters hold their old points still, which play no role."""
    settings = OnlineSettings(
        micro_clusters=2, start_points=100, k=2, boundary_factor=100.0, horizon=10.0, macro_every=100, batch=100
    )
    early = np.array([[-0.5, 0], [0.5, 0], [9.5, 0], [10.5, 0]])[np.arange(1_000) % 4]
    one = started(settings, early, BEGAN + np.arange(1_000) * 10, 2)
    later = early + np.array([1.0, 0.0])
    for start in range(0, 1_000, 100):
        one.learn(later[start : start + 100], BEGAN + 10_000 + (start + np.arange(100)) * 50)
    centers, _, counts = one.micro_clusters()
    assert counts.tolist() == [1_000, 1_000]
    np.testing.assert_allclose(centers[np.argsort(centers[:, 0])], [[0.5, 0], [10.5, 0]], atol=1e-9)
    found = one.clusters().points
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], [[1, 0], [11, 0]], atol=1e-9)


def test_the_oldest_micro_cluster_goes_when_it_has_not_been_relevant_for_a_horizon() -> None:
    settings = OnlineSettings(micro_clusters=3, start_points=3, horizon=60.0, recent_points=1, batch=1, k=2)
    at = BEGAN + np.array([0, 10_000, 10_000])
    one = started(settings, np.array([[0.0, 0], [10, 0], [0, 10]]), at, 2)
    one.learn(np.array([[100.0, 100.0]]), np.array([BEGAN + 65_000]))
    centers, _, counts = one.micro_clusters()
    assert [0.0, 0.0] not in centers.tolist()
    assert [100.0, 100.0] in centers.tolist()
    assert counts.tolist() == [1, 1, 1]


def test_the_two_nearest_become_one_where_all_are_relevant() -> None:
    settings = OnlineSettings(micro_clusters=3, start_points=3, horizon=60.0, recent_points=1, batch=1, k=2)
    one = started(settings, np.array([[0.0, 0], [4, 0], [0, 10]]), BEGAN + np.zeros(3, np.int64), 2)
    one.learn(np.array([[100.0, 100.0]]), np.array([BEGAN + 1_000]))
    centers, deviations, counts = one.micro_clusters()
    assert sorted(centers.tolist()) == [[0.0, 10.0], [2.0, 0.0], [100.0, 100.0]]
    assert deviations[counts == 2].tolist() == [2.0]


def test_equal_points_are_one_micro_cluster() -> None:
    settings = OnlineSettings(micro_clusters=5, start_points=5, k=2)
    one = started(settings, np.full((500, 4), 123.456), BEGAN + np.arange(500), 4)
    _, deviations, counts = one.micro_clusters()
    assert counts.tolist() == [500]
    assert deviations[0] < 1e-4


def test_a_division_goes_on_from_the_one_before_unless_another_is_far_better() -> None:
    points = np.array([[0.0], [1], [2], [3]])
    weights = np.ones(4)
    for before in ([[0.0], [2.0]], [[1.0], [3.0]]):  # each settles in a division of its own
        centers, labels = divide(points, weights, 2, np.array(before), 0)
        again, _ = divide(points, weights, 2, centers, 0)
        assert again.tolist() == centers.tolist()
        assert len(set(labels.tolist())) == 2
    far, _ = divide(np.array([[0.0], [1], [50], [51], [90]]), np.ones(5), 2, np.array([[0.5], [1_000.0]]), 0)
    assert sorted(far.round(6).ravel().tolist()) == [0.5, 63.666667]


def test_far_points_of_one_batch_make_one_micro_cluster_if_they_are_near_each_other() -> None:
    settings = OnlineSettings(micro_clusters=6, start_points=4, batch=100, boundary_factor=2.0, k=2)
    one = started(settings, np.array([[0.0, 0], [0, 3], [3, 0], [3, 3]]), BEGAN + np.zeros(4, np.int64), 2)
    # the second is nearer to the first than any other is; the third 0.9 from their middle, two deviations are 1
    one.learn(np.array([[100.0, 0], [101, 0], [101.4, 0]]), BEGAN + np.zeros(3, np.int64))
    centers, _, counts = one.micro_clusters()
    assert counts.tolist() == [1, 1, 1, 1, 3]
    np.testing.assert_allclose(centers[4], [302.4 / 3, 0])
    one.learn(np.array([[200.0, 0], [201, 0], [201.6, 0]]), BEGAN + np.zeros(3, np.int64))
    _, _, counts = one.micro_clusters()
    assert sorted(counts.tolist()) == [1, 1, 1, 2, 2, 3]  # 1.1 is further, and a place is made for it


def test_micro_clusters_that_become_one_leave_out_what_both_had_long_ago() -> None:
    settings = OnlineSettings(
        micro_clusters=3, start_points=6, k=3, boundary_factor=3.0, horizon=10.0, recent_points=1, macro_every=1
    )
    rows = np.array([[9.5], [10.5], [13.5], [14.5], [59.5], [60.5]])
    one = CluStream(settings, None, 1)
    for second in (0, 11, 21):
        one.learn(rows, np.full(6, BEGAN + second * 1_000))
    one.learn(rows + 1, np.full(6, BEGAN + 25_000))
    one.learn(np.array([[200.0]]), np.array([BEGAN + 25_000]))
    _, _, counts = one.micro_clusters()
    assert sorted(counts.tolist()) == [1, 8, 16]
    # since the horizon before last began, at 11 s: the rows of 21 s and of 25 s
    np.testing.assert_allclose(np.sort(one.clusters().points.ravel()), [12.5, 60.5, 200])
