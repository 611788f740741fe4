"""The space clusters are sought in: the terms themselves, or what the users who search for them have in common.

What belongs here: from TF-IDF rows to the rows a clusterer sees. What does not: clustering.

A shop query has two or three words. 'laptop' and 'keyboard' share none, so by their words alone they are as unlike as
'laptop' and 'lipstick'; but the people who search for the one search for the other. Latent semantic analysis with users
as the documents finds exactly that.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from segmentation_assets.core.vectorize import TfidfMatrix


def user_projection(tfidf: TfidfMatrix, users: NDArray[np.int32], components: int, seed: int) -> NDArray[np.float64]:
    """Term vectors from the users' own searches: latent semantic analysis (Deerwester et al., JASIS 41, 1990).

    A user's document is the sum of the TF-IDF rows of their sessions, scaled to unit length so that busy users weigh no
    more. Of its truncated singular value decomposition U S V', the vectors V S are kept: a strong common interest
    stretches space more than a weak one.

    Args:
        tfidf: the queries.
        users: (n_sessions,) a number for each user, 0..n_users-1, in an order that does not depend on that of the
            sessions.
        components: dimensions wanted; fewer when there are fewer terms or users.
        seed: of the randomized solver (Halko, Martinsson and Tropp, SIAM Review 53, 2011).

    Returns:
        (n_terms, d) float64.
    """
    n_users = int(users.max()) + 1
    ones = np.ones(len(users))
    searches = csr_matrix((ones, (users, tfidf.query_of_session)), shape=(n_users, len(tfidf.counts)))
    documents = normalize(csr_matrix(searches @ tfidf.matrix))
    dimensions = min(components, *documents.shape)
    _, strengths, vectors = randomized_svd(documents, dimensions, n_iter=7, random_state=seed)
    return np.ascontiguousarray(vectors.T * strengths)


NEGLIGIBLE = 1e-6
"""A row that keeps less than this of its length, measured by the strongest interest, shares nothing with any. Scaled up
to unit length, what is left of it would be rounding error posing as a taste."""


def embed(rows: csr_matrix, projection: NDArray[np.float64]) -> csr_matrix | NDArray[np.float64]:
    """Rows as the clusterer sees them: of unit length, or zero for one that has nothing to do with the space.

    Args:
        rows: (n, n_terms) TF-IDF rows.
        projection: (n_terms, d); d = 0 leaves the rows as they are.

    Returns:
        (n, d) float64 dense, or ``rows`` themselves.
    """
    if projection.shape[1] == 0:
        return rows
    inside = np.asarray(rows @ projection)
    length = np.linalg.norm(inside, axis=1, keepdims=True)
    strongest = np.linalg.norm(projection, axis=0).max()
    return np.divide(inside, length, out=np.zeros_like(inside), where=length > NEGLIGIBLE * strongest)
