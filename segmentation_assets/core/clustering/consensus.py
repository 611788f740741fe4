"""k-means of what many different partitions, taken together, say of each query.

Any method finds another partition from another start, and which of them is right cannot be told from the outside. But
where they are wrong they are wrong in different ways. So many are made, in three ways that err differently: a mixture
model (counts words), k-means by cosine (weighs rare words) and k-means in the space of interests (joins words that go
together). k-means over the table of who put what where finds the partition they support: consensus clustering (Strehl
and Ghosh, JMLR 3, 2002) in the form that Wu et al. showed to be k-means (IEEE TKDE 27, 2015). A mixture model fitted
from there learns which words it rests on, and says of any other query where it belongs.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, hstack

from segmentation_assets.core.clustering.base import nearest
from segmentation_assets.core.clustering.kmeans import TextbookKMeans
from segmentation_assets.core.clustering.spherical import SphericalKMeans
from segmentation_assets.core.mixture import Mixture, fit_mixture, one_hot, refine_mixture
from segmentation_assets.core.space import Corpus, Space, count_different, interests, memberships_or_terms

EACH = 5
"""Partitions of each kind."""

MEMBER_ROUNDS = 5
CONSENSUS_ROUNDS = 10
"""Rounds of expectation maximization in which a partition settles on the words it rests on."""

SAMPLE_USERS = 20_000
SAMPLE_SEARCHES = 60_000
"""Users, and (user, query) pairs, that partitions are made of where there are more. At the end all count."""


class ConsensusKMeans(TextbookKMeans):
    """The rows are square roots of a query's memberships in the consensus (see ``Space.of_memberships``)."""

    name = "consensus"

    def space(self, corpus: Corpus, k: int, *, components: int, n_init: int, seed: int) -> Space:
        """The consensus as a mixture of the terms; ``n_init`` starts of the k-means that finds it."""
        sample = corpus.sample(SAMPLE_USERS, SAMPLE_SEARCHES, seed)
        part = _enough_documents(sample, k)
        settled = self._settled(part, k, components, n_init, seed)
        if sample is not corpus:
            documents = corpus.counted_documents
            settled = refine_mixture(documents, settled.memberships(documents), MEMBER_ROUNDS)
        return memberships_or_terms(settled, corpus.rows, k)

    def _settled(self, part: Corpus, k: int, components: int, n_init: int, seed: int) -> Mixture:
        """The consensus on a corpus small enough for all that it is sought among."""
        return settle(
            part, consensus(part, partitions(part, k, components, seed), k, n_init, seed), k, CONSENSUS_ROUNDS
        )


def consensus(part: Corpus, views: list[NDArray[np.int32]], k: int, n_init: int, seed: int) -> NDArray[np.int32]:
    """Labels (n_queries,) of what partitions agree on once each has settled on the words."""
    members = [best(settle(part, labels, k), part) for labels in views]
    return agree(members, part.searched, k, seed, n_init)


def partitions(corpus: Corpus, k: int, components: int, seed: int, each: int = EACH) -> list[NDArray[np.int32]]:
    """Labels (n_queries,) of ``each`` partitions of each kind; -1 for a query that a method cannot place."""
    seeds = np.random.default_rng(seed).integers(2**31, size=(each, 3)).tolist()
    weights = corpus.searched
    documents = corpus.counted_documents
    directions = corpus.unit_documents
    directions = directions[np.diff(directions.indptr) > 0]
    space = Space.of_directions(interests(directions, components, seed))
    inside = np.asarray(space.embed(corpus.rows))
    placed = np.flatnonzero(inside.any(axis=1))
    divisible = count_different(inside[placed], k) == k
    found = []
    for by_words, by_angle, by_interests in seeds:
        found.append(best(fit_mixture(documents, k, by_words), corpus))
        angles = SphericalKMeans().fit(directions, np.ones(directions.shape[0]), k, n_init=1, seed=by_angle)
        found.append(nearest(corpus.rows, angles.centers, "cosine")[0])
        if divisible:
            labels = np.full(len(inside), -1, dtype=np.int32)
            labels[placed] = (
                TextbookKMeans().fit(inside[placed], weights[placed], k, n_init=1, seed=by_interests).labels
            )
            found.append(labels)
    return found


def _enough_documents(corpus: Corpus, k: int) -> Corpus:
    """The same, or each query as a document of its own where users are too few or too much alike to tell k apart."""
    if count_different(corpus.unit_documents, k + 1) > k:
        return corpus
    return Corpus(corpus.rows, csr_matrix(diags(corpus.searched)), corpus.texts)


def agree(
    members: list[NDArray[np.int32]], weights: NDArray[np.float64], k: int, seed: int, n_init: int = 10
) -> NDArray[np.int32]:
    """(n,) labels of the partition into k that the members support: k-means of who put what where."""
    table = csr_matrix(hstack([csr_matrix(one_hot(labels, k)) for labels in members]))
    if count_different(table, k) < k:  # they agree on fewer
        return members[0]
    labels: NDArray[np.int32] = TextbookKMeans().fit(table, weights, k, n_init=n_init, seed=seed).labels
    return labels


def settle(corpus: Corpus, labels: NDArray[np.int32], k: int, rounds: int = MEMBER_ROUNDS) -> Mixture:
    """The mixture that starts where each user is in a cluster with the share of their searches that is in it."""
    documents = corpus.counted_documents
    shares = np.asarray(corpus.by_user @ one_hot(labels, k))
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
    return refine_mixture(documents, shares / total, rounds)


def best(mixture: Mixture, corpus: Corpus) -> NDArray[np.int32]:
    """(n_queries,) likeliest cluster; -1 for a query without a known term."""
    labels: NDArray[np.int32] = mixture.memberships(corpus.presence).argmax(axis=1).astype(np.int32)
    labels[np.diff(corpus.rows.indptr) == 0] = -1
    return labels
