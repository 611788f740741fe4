"""The space clusters are sought in: the terms themselves, or something richer that k-means divides better.

What belongs here: from TF-IDF rows to the rows a clusterer sees. What does not: clustering.

A shop query has two or three words. 'laptop' and 'keyboard' share none, so by their words alone they are as unlike as
'laptop' and 'lipstick'; but the people who search for the one search for the other. So every space but that of the
terms looks at users: all that a user searched for is one document. Where every user searched once, the documents are
the queries, and what they have in common is words.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.mixture import Mixture, softmax

NEGLIGIBLE = 1e-6
"""A row that keeps less than this of its length, measured by the strongest interest, shares nothing with any. Scaled up
to unit length, what is left of it would be rounding error posing as a taste."""

BELIEF_DECIMALS = 3
"""Digits in which beliefs must differ to be different."""

LONGEST_DOCUMENT = 100
"""Terms of a user that count. Whoever searched for more (a crawler, a shared account) weighs no more than this."""


@dataclass(frozen=True)
class Space:
    """How TF-IDF rows become the rows that are clustered: always of unit length, or zero.

    Attributes:
        projection: (n_terms, d) float64; d = 0 leaves the rows as they are.
        bias: (d,) float64 for a space of memberships, else empty.
    """

    projection: NDArray[np.float64]
    bias: NDArray[np.float64]

    @classmethod
    def of_terms(cls, n_terms: int) -> "Space":
        """The TF-IDF rows as they are."""
        return cls(np.empty((n_terms, 0)), np.empty(0))

    @classmethod
    def of_directions(cls, projection: NDArray[np.float64]) -> "Space":
        """Rows times a projection, scaled to unit length: near is what points the same way."""
        return cls(projection, np.empty(0))

    @classmethod
    def of_memberships(cls, mixture: Mixture) -> "Space":
        """Square roots of the probabilities of a mixture's clusters: Euclidean distance between two rows is the
        Hellinger distance (up to a factor) between what is believed of them."""
        return cls(mixture.log_terms, mixture.log_sizes)

    def embed(self, rows: csr_matrix) -> csr_matrix | NDArray[np.float64]:
        """Rows as the clusterer sees them.

        Args:
            rows: (n, n_terms) TF-IDF rows.

        Returns:
            (n, d) float64 dense, or ``rows`` themselves; of unit length, or zero for one without a known term or that
            has nothing to do with the space.
        """
        if self.projection.shape[1] == 0:
            return rows
        if len(self.bias):
            present = presence(rows)
            inside = np.sqrt(softmax(np.asarray(present @ self.projection) + self.bias))
            inside[np.diff(rows.indptr) == 0] = 0.0
            return np.asarray(inside)
        inside = np.asarray(rows @ self.projection)
        length = np.linalg.norm(inside, axis=1, keepdims=True)
        strongest = np.linalg.norm(self.projection, axis=0).max()
        return np.divide(inside, length, out=np.zeros_like(inside), where=length > NEGLIGIBLE * strongest)


@dataclass(frozen=True)
class Corpus:
    """Queries and who searched for them.

    Attributes:
        rows: (n_queries, n_terms) TF-IDF rows of unit length, or zero.
        by_user: (n_users, n_queries) how often each user searched for each query.
        texts: (n_queries,) the queries themselves.
    """

    rows: csr_matrix
    by_user: csr_matrix
    texts: pa.Array

    @classmethod
    def of_sessions(
        cls, rows: csr_matrix, texts: pa.Array, query_of_session: NDArray[np.int32], users: NDArray[np.int32]
    ) -> "Corpus":
        """Count who searched for what.

        Args:
            rows: (n_queries, n_terms) TF-IDF rows.
            texts: (n_queries,) the queries.
            query_of_session: (n_sessions,) the query of each session.
            users: (n_sessions,) a number for each user, 0..n_users-1, in an order that does not depend on that of the
                sessions.
        """
        shape = (int(users.max()) + 1, rows.shape[0])
        by_user = csr_matrix((np.ones(len(users)), (users, query_of_session)), shape=shape)
        by_user.sum_duplicates()  # sorts as well: sums in one fixed order, so the same sessions give the same bits
        return cls(rows, by_user, texts)

    @cached_property
    def searched(self) -> NDArray[np.float64]:
        """(n_queries,) sessions that hold each query."""
        return np.asarray(self.by_user.sum(axis=0)).ravel()

    def sample(self, users: int, searches: int, seed: int) -> "Corpus":
        """At most so many users, and about so many (user, query) pairs, drawn at random; all where there are fewer."""
        if self.by_user.shape[0] <= users and self.by_user.nnz <= searches:
            return self
        order = np.random.default_rng(seed).permutation(self.by_user.shape[0])
        pairs = np.cumsum(np.diff(self.by_user.indptr)[order])
        enough = min(users, int(np.searchsorted(pairs, searches)) + 1)
        chosen = csr_matrix(self.by_user[np.sort(order[:enough])])
        asked = np.unique(chosen.indices)
        return Corpus(csr_matrix(self.rows[asked]), csr_matrix(chosen[:, asked]), self.texts.take(pa.array(asked)))

    @cached_property
    def presence(self) -> csr_matrix:
        """(n_queries, n_terms) a one for each term of each query."""
        return presence(self.rows)

    @cached_property
    def unit_documents(self) -> csr_matrix:
        """(n_users, n_terms) sums of the users' TF-IDF rows, scaled to unit length so that busy users weigh no more."""
        from sklearn.preprocessing import normalize

        return normalize(csr_matrix(self.by_user @ self.rows))

    @cached_property
    def counted_documents(self) -> csr_matrix:
        """(n_users, n_terms) how many searches of each user hold each term, at most ``LONGEST_DOCUMENT`` in all."""
        documents = csr_matrix(self.by_user @ self.presence)
        documents.sort_indices()
        length = np.asarray(documents.sum(axis=1)).ravel()
        scale = np.minimum(1.0, LONGEST_DOCUMENT / np.maximum(length, 1.0))
        documents.data *= np.repeat(scale, np.diff(documents.indptr))
        return documents


def presence(rows: csr_matrix) -> csr_matrix:
    """The same rows with a one for each term they hold. A term twice in a query of three words is mostly a slip."""
    return csr_matrix((np.ones(rows.nnz), rows.indices, rows.indptr), shape=rows.shape)


def count_different(rows: csr_matrix | NDArray[np.float64], enough: int) -> int:
    """Different rows, counted no further than ``enough``: queries that differ in case or word order are one row."""
    found: set[bytes] = set()
    for start in range(0, rows.shape[0], 1_000):
        part = rows[start : start + 1_000]
        if isinstance(part, np.ndarray):
            found.update(row.tobytes() for row in part.round(9) + 0.0)  # + 0.0: minus zero is zero
        else:
            cells = zip(part.indptr[:-1], part.indptr[1:], strict=True)
            found.update(part.indices[a:b].tobytes() + part.data[a:b].round(12).tobytes() for a, b in cells)
        if len(found) >= enough:
            return enough
    return len(found)


def memberships_or_terms(mixture: Mixture, rows: csr_matrix, k: int) -> Space:
    """The space of a mixture's memberships, or that of the terms where the mixture cannot tell k queries apart.

    So it is with a handful of queries: there is too little to learn from, and the words themselves say more.
    """
    space = Space.of_memberships(mixture)
    beliefs = np.asarray(space.embed(rows))
    told_apart = count_different(beliefs[beliefs.any(axis=1)].round(BELIEF_DECIMALS), k)
    return space if told_apart == k else Space.of_terms(rows.shape[1])


def interests(documents: csr_matrix, components: int, seed: int) -> NDArray[np.float64]:
    """Term vectors from the users' own searches: latent semantic analysis (Deerwester et al., JASIS 41, 1990).

    Of the truncated singular value decomposition U S V' of the documents, the vectors V S are kept: a strong common
    interest stretches space more than a weak one.

    Args:
        documents: (n_users, n_terms), see ``Corpus.unit_documents``.
        components: dimensions wanted; fewer when there are fewer terms or users.
        seed: of the randomized solver (Halko, Martinsson and Tropp, SIAM Review 53, 2011).

    Returns:
        (n_terms, d) float64.
    """
    dimensions = min(components, *documents.shape)
    from sklearn.utils.extmath import randomized_svd

    _, strengths, vectors = randomized_svd(documents, dimensions, n_iter=7, random_state=seed)
    return np.ascontiguousarray(vectors.T * strengths)
