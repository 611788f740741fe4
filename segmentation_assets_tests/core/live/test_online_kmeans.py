"""K-means that moves with the stream: its arithmetic, and when clusters go and come."""

import numpy as np
import pytest

from segmentation_assets.core.live.online import OnlineClusters, OnlineSettings
from segmentation_assets.core.live.online.kmeans import OnlineKMeans

BEGAN = 1_700_000_000_000


def seed(points: list[list[float]], ids: list[int] | None = None) -> OnlineClusters:
    m = len(points)
    return OnlineClusters(
        np.array(points), np.array(ids if ids else list(range(m)), np.int32), np.full(m, np.inf), next_id=10
    )


def test_a_centre_is_the_mean_of_its_points_weighted_by_their_age() -> None:
    settings = OnlineSettings(half_life=10.0, seed_weight=8.0)
    one = OnlineKMeans(settings, seed([[0.0], [100.0]]), 1)
    one.learn(np.array([[2.0], [4.0]]), BEGAN + np.array([0, 10_000]))
    # the seed's 8 points are as of the first batch; the older row is one half-life old
    assert one.clusters().points[0, 0] == pytest.approx((8 * 0 + 0.5 * 2 + 4) / 9.5)
    one.learn(np.array([[8.0]]), BEGAN + np.array([20_000]))
    assert one.clusters().points[0, 0] == pytest.approx((0.5 * (0.5 * 2 + 4) + 8) / (9.5 / 2 + 1))
    assert one.clusters().points[1, 0] == 100.0


def test_the_order_within_a_batch_plays_no_role() -> None:
    chance = np.random.default_rng(0)
    rows, at = chance.standard_normal((5_000, 4)), BEGAN + chance.integers(0, 10**6, 5_000)
    order = chance.permutation(5_000)
    start = seed(chance.standard_normal((4, 4)).tolist())
    one, other = OnlineKMeans(OnlineSettings(), start, 4), OnlineKMeans(OnlineSettings(), start, 4)
    one.learn(rows, at)
    other.learn(rows[order], at[order])
    np.testing.assert_allclose(one.clusters().points, other.clusters().points, atol=1e-12)


def test_a_late_batch_counts_for_as_little_as_if_it_had_come_in_time() -> None:
    start = seed([[0.0], [100.0]])
    first, late = (
        (np.array([[1.0], [99.0]]), BEGAN + np.array([50_000, 60_000])),
        (np.array([[3.0]]), np.array([BEGAN])),
    )
    settings = OnlineSettings(half_life=20.0)
    found = []
    for batches in ([first, late], [late, first]):
        one = OnlineKMeans(settings, start, 1)
        one.learn(np.empty((0, 1)), np.empty(0, np.int64))
        one.learn(np.array([[0.0]]), np.array([BEGAN - 1_000]))
        for rows, at in batches:
            one.learn(rows, at)
        found.append(one.clusters().points)
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)


def test_of_several_points_of_a_batch_cluster_the_mean_is_the_first_centre() -> None:
    one = OnlineKMeans(OnlineSettings(), seed([[0.0, 0], [2, 0], [9, 9]], [7, 7, 3]), 2)
    found = one.clusters()
    assert found.point_ids.tolist() == [3, 7]
    assert found.points.tolist() == [[9.0, 9.0], [1.0, 0.0]]


def test_a_cluster_without_points_is_given_up_and_the_widest_divided() -> None:
    settings = OnlineSettings(half_life=5.0, least_share=0.05, seed_weight=50.0)
    one = OnlineKMeans(settings, seed([[0.0, 0.0], [20.0, 0.0], [-500.0, 0.0]]), 2)
    chance = np.random.default_rng(1)
    for step in range(30):
        # two crowds in the second cluster
        centers = np.array([[0.0, 0], [20, -4], [20, 4]])[chance.integers(3, size=300)]
        one.learn(centers + 0.3 * chance.standard_normal((300, 2)), BEGAN + np.full(300, step * 1_000))
    found = one.clusters()
    assert found.point_ids.tolist() == [0, 1, 10]
    assert found.following_id == 11
    np.testing.assert_allclose(found.points, [[0, 0], [20, -4], [20, 4]], atol=0.2)


def test_a_cluster_is_not_given_up_on_the_word_of_few_points() -> None:
    settings = OnlineSettings(half_life=1.0, least_share=0.05, seed_weight=1.0)
    one = OnlineKMeans(settings, seed([[0.0], [100.0]]), 1)
    for step in range(100):
        one.learn(np.array([[0.0]]), np.array([BEGAN + step * 1_000]))
    assert one.clusters().point_ids.tolist() == [0, 1]


def test_equal_points_are_never_divided() -> None:
    one = OnlineKMeans(OnlineSettings(k=4, start_points=50), None, 2)
    one.learn(np.full((10_000, 2), 7.5), BEGAN + np.arange(10_000))
    assert one.clusters().points.tolist() == [[7.5, 7.5]]
