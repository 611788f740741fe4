"""The consensus with one more witness: what a language model says the queries mean.

Words and users say what goes together in this shop. A sentence vector says what goes together in the language:
'wake me at six' and 'set an alarm' share no word and perhaps no user. The vectors err in ways of their own (they join
what is said alike and wanted by different people), so they are one witness more, and not the judge.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.clustering.consensus import (
    CONSENSUS_ROUNDS,
    EACH,
    ConsensusKMeans,
    consensus,
    partitions,
)
from segmentation_assets.core.clustering.kmeans import TextbookKMeans
from segmentation_assets.core.encoder import DIMENSIONS, encode
from segmentation_assets.core.mixture import PRIOR, Mixture, one_hot, refine_mixture, softmax
from segmentation_assets.core.space import LONGEST_DOCUMENT, Corpus, count_different

BY_MEANING = 3 * EACH
"""Partitions by meaning: as many as of the other three kinds together."""

ENCODED = 8_000
"""Queries that are read at most; a millisecond or two each. The words say of the others where they belong."""

VOICE = 0.1
"""How much the meaning counts beside the words in the last rounds. The numbers of a vector are far from independent: at
1 they would shout the words down. Anything from 0.05 to 0.2 does."""

SMALLEST_VARIANCE = 1e-4
"""Of each number of a vector around its centre; 0.002 is usual. Equal vectors must not be infinitely sure."""

DECIMALS = 5
"""Digits in which vectors must differ to be different; what lies behind is rounding."""


@dataclass(frozen=True)
class Meanings:
    """Sentence vectors of some queries of a corpus.

    Attributes:
        read: (n,) the places of the queries, rising.
        vectors: (n, ``DIMENSIONS``) float64 of unit length.
    """

    read: NDArray[np.int64]
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, corpus: Corpus, seed: int, most: int = ENCODED) -> "Meanings":
        """Read the queries that hold a known term.

        Args:
            corpus: the queries.
            seed: of the chance by which equals are chosen.
            most: of more queries, those searched for most are read, chance deciding between equals.

        Raises:
            EncoderMissingError: see ``encode``.
        """
        known = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(corpus.rows.indptr)))
        read = np.sort(known[np.argsort(-corpus.searched[known], kind="stable")][:most])
        return cls(read, encode(corpus.texts.take(read).to_pylist()).astype(np.float64))


class EmbeddingsKMeans(ConsensusKMeans):
    """``ConsensusKMeans`` with further partitions by sentence vectors, which also have a say in the last rounds.

    Vectors are needed to fit only. The model is one of terms as that of the consensus, so whoever assigns queries with
    it needs neither the extra nor the time; and a query without a known term is in no cluster, whatever it means.
    """

    name = "embeddings"

    def _settled(self, part: Corpus, k: int, components: int, n_init: int, seed: int) -> Mixture:
        """As ``ConsensusKMeans``, with the vectors.

        Raises:
            EncoderMissingError: see ``encode``.
        """
        meanings = Meanings.of(part, seed)
        views = [*partitions(part, k, components, seed), *by_meaning(part, meanings, k, seed)]
        return settle_by_meaning(part, meanings, consensus(part, views, k, n_init, seed), k)


def by_meaning(corpus: Corpus, meanings: Meanings, k: int, seed: int) -> list[NDArray[np.int32]]:
    """Labels (n_queries,) of ``BY_MEANING`` partitions: k-means of sentence vectors, from different starts.

    -1 is a query that was not read. No partition at all where fewer than k of the queries mean different things.
    """
    if count_different(meanings.vectors.round(DECIMALS), k) < k:
        return []
    weights = corpus.searched[meanings.read]
    found = []
    for start in np.random.default_rng(seed).integers(2**31, size=BY_MEANING).tolist():
        labels = np.full(len(corpus.texts), -1, dtype=np.int32)
        labels[meanings.read] = TextbookKMeans().fit(meanings.vectors, weights, k, n_init=1, seed=start).labels
        found.append(labels)
    return found


def settle_by_meaning(corpus: Corpus, meanings: Meanings, labels: NDArray[np.int32], k: int) -> Mixture:
    """As ``consensus.settle``, but each user is where words and meaning of the searches together put them.

    Expectation maximization of a mixture in which a cluster has, beside its terms, a centre of meaning, around which
    vectors lie normally and equally far in all directions and clusters; that part of the likelihood counts by
    ``VOICE``. At the end the terms alone learn what came out.
    """
    documents = corpus.counted_documents
    shares = np.asarray(corpus.by_user @ one_hot(labels, k))
    memberships = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
    searches = csr_matrix(corpus.by_user[:, meanings.read])
    searched = np.asarray(searches.sum(axis=1)).ravel()
    searches.data *= np.repeat(np.minimum(1.0, LONGEST_DOCUMENT / np.maximum(searched, 1.0)), np.diff(searches.indptr))
    for _ in range(CONSENSUS_ROUNDS):
        words = refine_mixture(documents, memberships, 1)
        meant = _nearness(meanings.vectors, np.asarray(searches.T @ memberships))
        scores = np.asarray(documents @ words.log_terms) + words.log_sizes + VOICE * np.asarray(searches @ meant)
        memberships = softmax(scores)
    return refine_mixture(documents, memberships, 1)


def _nearness(vectors: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) log likelihood, but for a number for each row, of (n, d) unit vectors in clusters by (n, k) weights."""
    sizes = weights.sum(axis=0) + PRIOR
    centers = (weights.T @ vectors) / sizes[:, None]
    squares = (centers**2).sum(axis=1)
    variance = max(1 - (sizes * squares).sum() / sizes.sum(), 0.0) / DIMENSIONS
    return np.asarray((vectors @ centers.T - squares / 2) / max(variance, SMALLEST_VARIANCE))
