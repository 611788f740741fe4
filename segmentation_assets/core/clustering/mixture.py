"""k-means of what a mixture model of the users' searches believes of each query."""

import numpy as np

from segmentation_assets.core.clustering.kmeans import TextbookKMeans
from segmentation_assets.core.mixture import fit_mixture
from segmentation_assets.core.space import Corpus, Space, memberships_or_terms

SAMPLE_USERS = 20_000
SAMPLE_SEARCHES = 60_000
"""Users, and (user, query) pairs, that the model is sought on where there are more."""


class MixtureKMeans(TextbookKMeans):
    """The rows are square roots of a query's cluster memberships, so k-means compares beliefs (Hellinger distance)."""

    name = "mixture"

    def space(self, corpus: Corpus, k: int, *, components: int, n_init: int, seed: int) -> Space:
        """The likeliest of ``n_init`` mixtures, see ``core.mixture``."""
        documents = corpus.sample(SAMPLE_USERS, SAMPLE_SEARCHES, seed).counted_documents
        starts = np.random.default_rng(seed).integers(2**31, size=n_init).tolist()
        found = max((fit_mixture(documents, k, start) for start in starts), key=lambda mixture: mixture.log_likelihood)
        return memberships_or_terms(found, corpus.rows, k)
