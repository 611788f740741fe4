"""One contract for every clusterer, and the rule by which a row belongs to a centre."""

import os
import subprocess
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.clustering import METHODS, Clusterer, Partition, Rows, nearest
from segmentation_assets.core.clustering.base import DECIMALS
from segmentation_assets.core.clustering.spherical import _fill_empty

SEED = 11


@pytest.fixture(params=METHODS, ids=str)
def clusterer(request: pytest.FixtureRequest) -> Clusterer:
    return METHODS[request.param]


def unit(dense: np.ndarray) -> np.ndarray:
    """Rows of unit length; a zero row stays."""
    length = np.linalg.norm(dense, axis=1, keepdims=True)
    return np.divide(dense, length, out=np.zeros(dense.shape), where=length > 0)


def as_rows(dense: np.ndarray, clusterer: Clusterer) -> Rows:
    """Unit rows, in the form in which a clusterer of this space gets them."""
    rows = unit(np.asarray(dense, dtype=np.float64))
    return csr_matrix(rows) if clusterer.name in ("spherical", "kmeans") else rows


def blobs(k: int = 4, each: int = 30, noise: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative rows around k different axes, and the axis of each."""
    truth = np.repeat(np.arange(k), each)
    return np.eye(k + 3)[truth] + noise * np.abs(np.random.default_rng(2).standard_normal((k * each, k + 3))), truth


def fit(
    clusterer: Clusterer, dense: np.ndarray, k: int, weights: np.ndarray | None = None, seed: int = SEED
) -> Partition:
    weights = np.ones(len(dense)) if weights is None else weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return clusterer.fit(as_rows(dense, clusterer), weights.astype(np.float64), k, n_init=5, seed=seed)


def test_a_partition_has_k_centers_and_a_label_for_every_row(clusterer: Clusterer) -> None:
    dense, truth = blobs()
    found = fit(clusterer, dense, 4)
    assert found.centers.shape == (4, dense.shape[1])
    assert found.centers.dtype == np.float64
    assert found.labels.shape == truth.shape
    assert found.labels.dtype == np.int32
    assert set(found.labels.tolist()) == {0, 1, 2, 3}
    assert np.isfinite(found.objective)


def test_groups_that_stand_apart_are_found(clusterer: Clusterer) -> None:
    dense, truth = blobs()
    assert adjusted_rand_score(truth, fit(clusterer, dense, 4).labels) == 1


def test_the_same_input_gives_the_same_bits(clusterer: Clusterer) -> None:
    dense, _ = blobs(noise=0.5)
    one, two = fit(clusterer, dense, 4), fit(clusterer, dense, 4)
    assert one.centers.tobytes() == two.centers.tobytes()
    assert one.labels.tolist() == two.labels.tolist()
    assert one.objective == two.objective


def test_another_order_of_the_rows_gives_the_same_groups(clusterer: Clusterer) -> None:
    dense, _ = blobs()
    order = np.random.default_rng(4).permutation(len(dense))
    assert adjusted_rand_score(fit(clusterer, dense, 4).labels[order], fit(clusterer, dense[order], 4).labels) == 1


def test_a_weight_counts_as_that_many_equal_rows(clusterer: Clusterer) -> None:
    dense, _ = blobs(noise=0.3)
    weights = np.random.default_rng(6).integers(1, 6, len(dense))
    weighed, repeated = fit(clusterer, dense, 4, weights), fit(clusterer, np.repeat(dense, weights, axis=0), 4)
    assert np.repeat(weighed.labels, weights).shape == repeated.labels.shape
    assert adjusted_rand_score(np.repeat(weighed.labels, weights), repeated.labels) == 1
    assert weighed.objective == pytest.approx(repeated.objective)
    assert np.allclose(weighed.centers[np.lexsort(weighed.centers.T)], repeated.centers[np.lexsort(repeated.centers.T)])


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30).filter(lambda rows: len(set(rows)) > 1))
@settings(deadline=None, max_examples=20)
@pytest.mark.parametrize("method", METHODS)
def test_as_many_clusters_as_different_rows_put_equal_rows_together_and_lose_nothing(
    method: str, kinds: list[int]
) -> None:
    clusterer = METHODS[method]
    dense = np.array([[4, 1, 0, 0], [0, 3, 1, 0], [1, 0, 0, 5], [0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]])[kinds]
    found = fit(clusterer, dense, len(set(kinds)))
    assert adjusted_rand_score(kinds, found.labels) == 1
    assert found.objective == pytest.approx(0, abs=1e-9)


@given(
    arrays(np.float64, st.tuples(st.integers(6, 25), st.just(5)), elements=st.sampled_from([0, 0, 0.5, 1, 2])),
    st.integers(2, 5),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("method", METHODS)
def test_no_cluster_is_empty_and_centers_are_finite(method: str, dense: np.ndarray, k: int, seed: int) -> None:
    clusterer = METHODS[method]
    dense = unit(dense[dense.any(axis=1)])
    if len(np.unique(dense.round(9), axis=0)) < k:
        return
    found = fit(clusterer, dense, k, np.arange(1, len(dense) + 1), seed)
    assert np.bincount(found.labels, minlength=k).min() > 0
    assert np.isfinite(found.centers).all()
    assert found.objective >= -1e-9
    if clusterer.metric == "cosine":
        assert np.allclose(np.linalg.norm(found.centers, axis=1), 1)


def test_rows_with_nothing_in_common_are_still_divided() -> None:
    """Spherical: a row without a word of any centre must not fall to the first centre with all others like it."""
    found = fit(METHODS["spherical"], np.eye(60), 3)
    assert max(np.bincount(found.labels)) < 40


def test_an_empty_cluster_gets_the_row_that_its_own_center_serves_worst() -> None:
    """Spherical; seen in no data set so far, and a centre of nothing would be a division by zero."""
    labels, own = np.array([0, 0, 0, 1], dtype=np.int32), np.array([0.9, 0.5, 0.8, 0.1])
    _fill_empty(labels, own, np.array([1.0, 1.0, 9.0, 1.0]), 3)
    assert labels.tolist() == [0, 0, 2, 1]  # the last one is worse off, but alone in its cluster
    assert own.tolist() == [0.9, 0.5, 1.0, 0.1]


def test_more_starts_never_end_worse(clusterer: Clusterer) -> None:
    dense, _ = blobs(6, 15, 0.9)
    rows, weights = as_rows(dense, clusterer), np.ones(len(dense))
    objectives = [clusterer.fit(rows, weights, 6, n_init=n, seed=SEED).objective for n in (1, 4, 12)]
    assert all(after <= before + 1e-9 for before, after in pairwise(objectives))


def test_eight_threads_do_not_change_a_bit() -> None:
    """Where more than two cores add up the centres, the order of the sums would be chance (lsa, kmeans)."""
    program = """
import hashlib, numpy as np
from sklearn.preprocessing import normalize
from segmentation_assets.core.clustering import METHODS
rows = normalize(np.random.default_rng(0).standard_normal((4000, 20)))
for name in ("lsa", "kmeans"):
    fits = [METHODS[name].fit(rows, np.ones(4000), 5, n_init=1, seed=1) for _ in range(6)]
    print(name, len({fit.centers.tobytes() for fit in fits}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "OMP_NUM_THREADS": "8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["lsa", "1", "kmeans", "1"]


# --- nearest

coordinates = st.sampled_from([-2.0, -1, -0.5, 0, 0, 0.25, 1, 3])


@given(
    arrays(np.float64, st.tuples(st.integers(0, 8), st.just(3)), elements=coordinates),
    arrays(np.float64, st.tuples(st.integers(2, 5), st.just(3)), elements=coordinates),
    st.sampled_from(["cosine", "euclidean"]),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_nearest_is_what_comparing_each_row_with_each_center_gives(
    dense: np.ndarray, centers: np.ndarray, metric: str, sparse: bool
) -> None:
    rows = unit(dense)
    labels, confidence = nearest(csr_matrix(rows) if sparse else rows, centers, metric)
    assert labels.dtype == np.int32
    assert confidence.dtype == np.float32
    for row, label, sure in zip(rows, labels, confidence, strict=True):
        if metric == "cosine":
            score = [max(float(row @ center), 0) for center in centers]
            best, second = sorted(score, reverse=True)[:2]
            lost, expected = best <= 1e-11, 0 if best <= 1e-11 else 1 - second / best
            wanted = [i for i, value in enumerate(score) if value > best - 1e-9]
        else:
            far = [float(np.linalg.norm(row - center)) for center in centers]
            first, second = sorted(far)[:2]
            lost, expected = False, 1 - first / second if second > 1e-5 else 0
            wanted = [i for i, value in enumerate(far) if value < first + 1e-5]
        if lost or not row.any():
            assert (label, sure) == (-1, 0)
        else:
            assert label in wanted
            assert sure == pytest.approx(expected, abs=1e-4)


@given(arrays(np.float64, st.tuples(st.integers(1, 40), st.just(7)), elements=coordinates), st.integers(0, 39))
@settings(deadline=None)
def test_a_row_alone_gets_what_it_gets_among_many(dense: np.ndarray, which: int) -> None:
    rows = unit(dense)
    which %= len(rows)
    centers = np.vstack([rows.mean(axis=0), np.roll(np.eye(7)[:4], 1, axis=1)]) + 1 / 3
    for metric in ("cosine", "euclidean"):
        among, alone = nearest(rows, centers, metric), nearest(rows[which : which + 1], centers, metric)
        assert alone[0][0] == among[0][which]
        assert alone[1][0] == among[1][which]


def test_similarities_that_differ_by_rounding_alone_are_a_tie_which_the_first_center_wins() -> None:
    noise = 10.0 ** -(DECIMALS + 3)
    row = np.array([[1.0, 0.0]])
    for metric in ("cosine", "euclidean"):
        for first, second in ((1, 1 + noise), (1 + noise, 1)):
            centers = np.array([[first, 0.0], [second, 0.0]]) * 0.5
            labels, confidence = nearest(row, centers, metric)
            assert labels.tolist() == [0]
            assert confidence[0] == pytest.approx(0, abs=1e-6)


def test_confidence_is_one_when_nothing_speaks_for_the_second_and_none_for_no_cluster() -> None:
    rows, centers = csr_matrix([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0], [0, 0, 0]]), np.eye(2, 3)
    labels, confidence = nearest(rows, centers, "cosine")
    assert labels.tolist() == [0, 1, -1, -1]
    assert confidence.tolist() == pytest.approx([1, 0.25, 0, 0])
    labels, confidence = nearest(rows, centers, "euclidean")
    assert labels.tolist() == [0, 1, 0, -1]
    assert confidence.tolist() == pytest.approx([1, 1 - np.sqrt(0.4) / np.sqrt(0.8), 0, 0])
