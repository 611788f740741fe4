"""A mixture model for short texts: each document speaks of one thing, in that thing's words.

What belongs here: the Dirichlet multinomial mixture, fitted by expectation maximization, and what it says of other
texts. What does not: where its start comes from (consensus), and which clusters are published (model).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

PRIOR = 0.1
"""Pseudo-count of each cluster and of each of its terms, the value of Yin and Wang for both."""

ITERATIONS = 30
FIRST_TEMPERATURE = 0.3
"""How much the words count at the start: at 1 the first random partition would decide everything."""


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of k multinomials over terms.

    Attributes:
        log_terms: (n_terms, k) float64, log probability of each term in each cluster.
        log_sizes: (k,) float64, log probability of each cluster.
        log_likelihood: of the documents it was fitted on; comparable within one data set.
    """

    log_terms: NDArray[np.float64]
    log_sizes: NDArray[np.float64]
    log_likelihood: float

    def memberships(self, texts: csr_matrix) -> NDArray[np.float64]:
        """(n, k) probability of each cluster for (n, n_terms) term counts; rows sum to 1."""
        return softmax(np.asarray(texts @ self.log_terms) + self.log_sizes)


def fit_mixture(documents: csr_matrix, k: int, seed: int) -> Mixture:
    """Fit from a random start, by deterministic annealing.

    The model is that of Yin and Wang (A Dirichlet multinomial mixture model-based approach for short text clustering,
    KDD 2014). They sample it text by text; here it is fitted by expectation maximization (Nigam et al., Machine
    Learning 39, 2000) with the words' weight rising from ``FIRST_TEMPERATURE`` to 1 (Ueda and Nakano, Neural Networks
    11, 1998), which takes a few products of matrices and finds partitions as good.

    Args:
        documents: (n, n_terms) how often each document holds each term.
        k: number of clusters.
        seed: of the random start.
    """
    start = np.random.default_rng(seed).integers(k, size=documents.shape[0])
    heat = np.minimum(1.0, np.linspace(FIRST_TEMPERATURE, 1 + (1 - FIRST_TEMPERATURE) / 0.6 * 0.4, ITERATIONS))
    return _maximize(documents, one_hot(start, k), heat)


def refine_mixture(documents: csr_matrix, memberships: NDArray[np.float64], iterations: int) -> Mixture:
    """Fit from a given start: (n, k) memberships of the documents, each row summing to 1 or less."""
    return _maximize(documents, memberships, np.ones(iterations))


def _maximize(documents: csr_matrix, memberships: NDArray[np.float64], heat: NDArray[np.float64]) -> Mixture:
    by_term = csr_matrix(documents.T)
    for warmth in heat:
        sizes = memberships.sum(axis=0) + PRIOR
        log_sizes = np.log(sizes / sizes.sum())
        terms = np.asarray(by_term @ memberships) + PRIOR
        log_terms = np.log(terms / terms.sum(axis=0))
        joint = np.asarray(documents @ log_terms) + log_sizes
        memberships = softmax(joint * warmth)
    return Mixture(log_terms, log_sizes, float(np.logaddexp.reduce(joint, axis=1).sum()))


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of probabilities from rows of log weights."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def one_hot(labels: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """(n, k) with a one in the column of each label; -1 is a row of zeros."""
    rows = np.zeros((len(labels), k))
    known = np.flatnonzero(labels >= 0)
    rows[known, labels[known]] = 1.0
    return rows
