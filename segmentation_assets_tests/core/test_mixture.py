"""The mixture model of short texts, against its definition and against what it was made to find."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.mixture import PRIOR, fit_mixture, one_hot, refine_mixture, softmax

counts = arrays(
    np.float64, st.tuples(st.integers(2, 12), st.integers(2, 6)), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0])
)


def topics(k: int = 3, each: int = 60, seed: int = 1) -> tuple[csr_matrix, np.ndarray]:
    """Documents of three words, nine out of ten from their topic's own ten."""
    chance = np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), each)
    words = np.where(
        chance.random((k * each, 3)) < 0.9, truth[:, None] * 10 + chance.integers(10, size=(k * each, 3)), k * 10
    )
    documents = np.zeros((k * each, k * 10 + 1))
    np.add.at(documents, (np.arange(k * each)[:, None], words), 1)
    return csr_matrix(documents), truth


@given(counts, st.integers(2, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_every_part_of_a_mixture_is_a_probability(documents: np.ndarray, k: int, seed: int) -> None:
    found = fit_mixture(csr_matrix(documents), k, seed)
    assert np.allclose(np.exp(found.log_terms).sum(axis=0), 1)
    assert np.exp(found.log_sizes).sum() == pytest.approx(1)
    assert np.allclose(found.memberships(csr_matrix(documents)).sum(axis=1), 1)
    assert np.isfinite(found.log_likelihood)
    assert found.log_likelihood <= 1e-9


@given(counts, st.integers(2, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_round_is_the_textbook_round_of_expectation_maximization(documents: np.ndarray, k: int, seed: int) -> None:
    """Computed once more, document by document and term by term."""
    start = np.random.default_rng(seed).dirichlet(np.ones(k), size=len(documents))
    found = refine_mixture(csr_matrix(documents), start, 1)
    total = start.sum(axis=0) + PRIOR
    for cluster in range(k):
        assert found.log_sizes[cluster] == pytest.approx(np.log(total[cluster] / total.sum()))
        weight = [sum(start[d, cluster] * row[t] for d, row in enumerate(documents)) + PRIOR
                  for t in range(documents.shape[1])]  # fmt: skip
        assert np.allclose(found.log_terms[:, cluster], np.log(np.array(weight) / sum(weight)))


@given(counts, st.integers(2, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_more_rounds_never_fit_worse_by_what_they_maximize(documents: np.ndarray, k: int, seed: int) -> None:
    """Likelihood and prior together rise; the likelihood alone need not."""
    start = np.random.default_rng(seed).dirichlet(np.ones(k), size=len(documents))

    def posterior(rounds: int) -> float:
        found = refine_mixture(csr_matrix(documents), start, rounds)
        return float(found.log_likelihood + PRIOR * (found.log_terms.sum() + found.log_sizes.sum()))

    values = [posterior(rounds) for rounds in (1, 2, 4, 8)]
    assert all(after >= before - 1e-7 for before, after in pairwise(values))


def test_topics_are_found_from_any_start() -> None:
    documents, truth = topics()
    for seed in range(5):
        found = fit_mixture(documents, 3, seed).memberships(documents).argmax(axis=1)
        assert adjusted_rand_score(truth, found) > 0.9


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_search() -> None:
    documents, _ = topics()
    one, two, other = (fit_mixture(documents, 4, seed) for seed in (3, 3, 4))
    assert one.log_terms.tobytes() == two.log_terms.tobytes()
    assert one.log_terms.tobytes() != other.log_terms.tobytes()


def test_a_text_without_a_known_term_is_as_likely_to_be_in_a_cluster_as_any_other_text() -> None:
    documents, _ = topics()
    found = fit_mixture(documents, 3, 0)
    nothing = csr_matrix((1, documents.shape[1]))
    assert np.allclose(found.memberships(nothing), np.exp(found.log_sizes))


def test_softmax_survives_scores_of_any_size() -> None:
    assert np.allclose(softmax(np.array([[1e6, 0.0], [-1e6, -1e6]])), [[1, 0], [0.5, 0.5]])


def test_one_hot_of_no_label_is_a_row_of_zeros() -> None:
    assert one_hot(np.array([1, -1, 0]), 2).tolist() == [[0, 1], [0, 0], [1, 0]]
