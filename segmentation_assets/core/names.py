"""What a cluster is about, read from its own queries: contrastive terms, a readable name, the most typical queries.

What belongs here: words for a cluster that nobody had to write down. What does not: the names that a taxonomy gives
(labels).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.matching import TYPO_1, allowed_slips
from segmentation_assets.core.taxonomy import fold
from segmentation_assets.core.tokens import edit_distance
from segmentation_assets.core.vectorize import TfidfMatrix

NAME_PARTS = 3
"""Words, or words that belong together, in a suggested name."""

CANDIDATES = 15
"""Contrastive terms that a name is made of."""

HEARD = 500
"""Most frequent queries of a cluster that are read for words that stand together."""

TOGETHER, ALSO = 0.5, 0.25
"""Two terms are one phrase when they stand side by side in the first share of the sessions that hold the rarer of them
and in the second of those that hold the other: 'air fryer', but not 'cancelling headphones' for all headphones."""

FRAGMENT = 4
"""Letters from which the beginning of another word counts as that word half typed ('earb', 'earbuds')."""


def contrastive_terms(tfidf: TfidfMatrix, labels: NDArray[np.int32], n: int) -> dict[int, dict[str, float]]:
    """The terms that set each cluster apart from the others, by class-based TF-IDF (Grootendorst 2022, BERTopic).

    A cluster is read as one document: the share a term has of the cluster's words, times ln(1 + A / f), where f is the
    term's number of occurrences everywhere and A the mean number of words of a cluster. An occurrence is a session that
    holds the term. Terms of a single session are left out while the cluster has others: of those, one is as good as the
    next.

    Weighted log-odds with a Dirichlet prior (Monroe et al. 2008) was tried on the true classes of three labelled sets:
    it prefers words that are merely common ('give, out, current' for rating books; here 'rate, out, give'), and puts a
    word of the class's own name first in 7 of 25 classes of short requests against 12, and as often on shop queries.

    Args:
        tfidf: the queries.
        labels: (n_distinct,) cluster id of each distinct query; -1 is no cluster.
        n: terms for each cluster.

    Returns:
        cluster id to term to weight (0..), heaviest first; an entry for every id in ``labels``, empty for a cluster
        without a known term.
    """
    ids, sums = _by_cluster(tfidf, labels)
    if len(ids) == 0:
        return {}
    used = sums.sum(axis=0)
    words = sums.sum(axis=1, keepdims=True)
    rarity = np.log1p(np.divide(words.mean(), used, out=np.zeros_like(used), where=used > 0))
    weights = np.divide(sums, words, out=np.zeros_like(sums), where=words > 0) * rarity
    several = sums > 1
    weights = np.where(several | ~several.any(axis=1, keepdims=True), weights, 0.0)
    result = {}
    for row, cluster in enumerate(ids.tolist()):
        heaviest = np.argsort(-weights[row], kind="stable")[:n]  # the sorted vocabulary settles ties
        result[cluster] = {tfidf.terms[int(i)].as_py(): float(weights[row, i]) for i in heaviest if weights[row, i] > 0}
    return result


def suggested_names(
    tfidf: TfidfMatrix, labels: NDArray[np.int32], contrast: Mapping[int, Mapping[str, float]] | None = None
) -> dict[int, str]:
    """A readable name for each cluster: 'yoga mat, dumbbells, bike'.

    Made of the cluster's contrastive terms, heaviest first. A term is a word as people most often type it (tokens), so
    nothing is stemmed. Terms that stand together in the queries are one phrase in that order. Of a word's forms
    (plural, half typed, misspelt, contained in another) only the heaviest is shown. No two clusters have the same name
    as long as they have terms to tell them apart.

    Args:
        tfidf: the queries.
        labels: (n_distinct,) cluster id of each distinct query; -1 is no cluster.
        contrast: the clusters' contrastive terms, at least ``CANDIDATES`` of each, where they are known already.

    Returns:
        cluster id to name; empty for a cluster without a known term.
    """
    if contrast is None:
        contrast = contrastive_terms(tfidf, labels, CANDIDATES)
    parts = {
        cluster: phrases(tfidf, np.flatnonzero(labels == cluster), distinct_words(list(terms)[:CANDIDATES]))
        for cluster, terms in contrast.items()
    }
    names: dict[int, str] = {}
    for cluster, found in parts.items():
        length = NAME_PARTS
        while length < len(found) and ", ".join(found[:length]) in names.values():
            length += 1
        names[cluster] = ", ".join(found[:length])
    return names


def typical_queries(tfidf: TfidfMatrix, labels: NDArray[np.int32], n: int) -> dict[int, list[str]]:
    """Real queries that stand for each cluster: near its middle, and frequent.

    By cosine with the mean TF-IDF row of the cluster's sessions, times ln(1 + sessions). Of queries that hold the same
    terms ('red dress', 'dress red') only the most frequent is given.

    Args:
        tfidf: the queries.
        labels: (n_distinct,) cluster id of each distinct query; -1 is no cluster.
        n: queries for each cluster.

    Returns:
        cluster id to queries, most typical first.
    """
    result = {}
    for cluster in np.unique(labels[labels >= 0]).tolist():
        members = np.flatnonzero(labels == cluster)
        rows, counts = tfidf.matrix[members], tfidf.counts[members]
        mean = np.asarray(counts @ rows).ravel()
        length = float(np.linalg.norm(mean))
        central = np.asarray(rows @ mean).ravel() / length if length else np.zeros(len(members))
        score = central * np.log1p(counts)
        # rounded: the last bits of a sum are no reason to put one query before another
        order = np.lexsort((members, -counts, -score.round(9)))
        chosen: dict[bytes, int] = {}
        for i in order.tolist():
            key = rows.indices[rows.indptr[i] : rows.indptr[i + 1]].tobytes()
            known = chosen.get(key)
            if known is None:
                if len(chosen) == n:
                    break
                chosen[key] = i
            elif counts[i] > counts[known]:
                chosen[key] = i
        result[cluster] = [tfidf.queries[int(members[i])].as_py() for i in chosen.values()]
    return result


def distinct_words(candidates: Iterable[str]) -> list[str]:
    """Words without those that are another form of one before: plural, half typed, misspelt or contained in it."""
    kept: list[str] = []
    for word in candidates:
        if not any(_same(fold(word), fold(other)) for other in kept):
            kept.append(word)
    return kept


def _same(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    if short == long or (len(short) >= FRAGMENT and (long.startswith(short) or long.endswith(short))):
        return True
    if short in long.split():
        return True
    # the same letters but for one left out, doubled or swapped; one in place of another may be another word
    if len(short) < TYPO_1 or short[0] != long[0] or not (short.isalpha() and long.isalpha()):
        return False
    slip = len(short) != len(long) or sorted(short) == sorted(long)
    return slip and edit_distance(short, long, allowed_slips(len(short))) <= allowed_slips(len(short))


def _by_cluster(tfidf: TfidfMatrix, labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The ids of the clusters, and (clusters, terms) sessions that hold each term."""
    ids, row = np.unique(labels, return_inverse=True)
    first = int(np.searchsorted(ids, 0))
    inside = np.flatnonzero(labels >= 0)
    chooser = csr_matrix(
        (tfidf.counts[inside].astype(np.float64), (row[inside] - first, inside)), shape=(len(ids) - first, len(labels))
    )
    present = csr_matrix(
        (np.ones(tfidf.matrix.nnz), tfidf.matrix.indices, tfidf.matrix.indptr), shape=tfidf.matrix.shape
    )
    return ids[first:], np.asarray((chooser @ present).todense())


def phrases(tfidf: TfidfMatrix, members: NDArray[np.int64], words: list[str]) -> list[str]:
    """Words, with those that stand together in the queries joined, in the place of the first one.

    Args:
        tfidf: the queries.
        members: rows of the queries to read; of many, the ``HEARD`` most frequent are read.
        words: words as people type them, each form once.
    """
    heard = members[np.argsort(-tfidf.counts[members], kind="stable")[:HEARD]]
    of_form = {fold(word): word for word in words}
    seen: dict[str, int] = defaultdict(int)
    beside: dict[tuple[str, str], int] = defaultdict(int)
    for row in heard.tolist():
        text = [of_form.get(fold(word)) for word in tfidf.queries[row].as_py().lower().split()]
        count = int(tfidf.counts[row])
        for word in {word for word in text if word}:
            seen[word] += count
        for pair in {(a, b) for a, b in pairwise(text) if a and b and a != b}:
            beside[pair] += count
    result: list[str] = []
    used: set[str] = set()
    for word in words:
        if word in used:
            continue
        mates = [
            (beside[pair], pair)
            for other in words
            for pair in ((word, other), (other, word))
            if other not in used
            and beside.get(pair, 0) > 1
            and beside[pair] >= max(TOGETHER * min(seen[word], seen[other]), ALSO * max(seen[word], seen[other]))
        ]
        # the most frequent neighbour; of equals the heavier one
        phrase = max(mates, key=lambda mate: mate[0])[1] if mates else (word,)
        used.update(phrase)
        result.append(" ".join(phrase))
    return result
