"""Search queries to TF-IDF rows: one row for each distinct query, weighted by how many sessions hold it.

What belongs here: tokens, the vocabulary, TF-IDF. What does not: clustering, and anything that knows a segment's name.

Queries repeat (a million sessions hold about a quarter of a million distinct queries), so the distinct ones are
vectorized and their counts carried; document frequencies are counted in sessions, so each session's row is what
vectorizing every session would have given it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.errors import SegmentsError

# Words that join others and say nothing of what is wanted. Deliberately not scikit-learn's English list: that one holds
# words people buy ('system', 'fire', 'bill').
# Nor 'fur' for the German 'für': it is a coat.
FUNCTION_WORDS = frozenset(
    word
    for words in (
        "a an and are as at be but by for from has how i if in into is it its me my near no not of off on or our so",
        "than that the their these this to under up us was we what when where which who why will with without you your",
        "am auf aus bei das dem den der des die ein eine einem einen einer es für im ist mit nach oder ohne und unter",
        "vom von zu zum zur",
        "au aux avec ce ces chez dans de des du en et la le les ou par pas pour sans sous sur un une",
        "al con del el las los para por sin sobre una unos y",
    )
    for word in words.split()
)

_TOKEN = re.compile(r"\w\w+")


class NoVocabularyError(SegmentsError):
    """No query holds a usable term."""


@dataclass(frozen=True)
class TfidfMatrix:
    """TF-IDF of the distinct queries.

    Attributes:
        matrix: (n_distinct, n_terms) float64 CSR, rows of unit length; a query without a known term is a zero row.
        queries: (n_distinct,) the distinct queries, sorted.
        counts: (n_distinct,) int64, sessions that hold each query.
        query_of_session: (n_sessions,) int32, the row of ``matrix`` that belongs to each session, in the order of the
            sessions.
        terms: (n_terms,) the vocabulary, sorted.
        idf: (n_terms,) float64, inverse document frequencies, counted in sessions.
        settings: how the rows were made; vectorizing another query needs the same.
    """

    matrix: csr_matrix
    queries: pa.Array
    counts: NDArray[np.int64]
    query_of_session: NDArray[np.int32]
    terms: pa.Array
    idf: NDArray[np.float64]
    settings: VectorSettings

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n_distinct,) whether the query holds at least one known term."""
        return np.asarray(np.diff(self.matrix.indptr) > 0)


def analyzer(settings: VectorSettings) -> Callable[[str], list[str]]:
    """The function that turns a query into its terms."""
    stop = FUNCTION_WORDS if settings.drop_function_words else frozenset()

    def analyze(query: str) -> list[str]:
        words = [word for word in _TOKEN.findall(query.lower()) if word not in stop]
        terms = list(words)
        for n in range(2, settings.ngram_max + 1):
            terms += [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        return terms

    return analyze


def vectorize(queries: pa.Array | pa.ChunkedArray, settings: VectorSettings) -> TfidfMatrix:
    """Compute TF-IDF of search queries.

    Smoothed idf ``ln((1 + n) / (1 + df)) + 1`` and rows of unit length, scikit-learn's ``TfidfTransformer`` (Salton and
    Buckley, 1988), with n and df counted in sessions.

    Args:
        queries: (n_sessions,) strings.
        settings: tokens and vocabulary.

    Raises:
        NoVocabularyError: no session, or no query with a usable term.
    """
    if len(queries) == 0:
        raise NoVocabularyError("There are no sessions to vectorize.", "Add sessions, or widen the time window.")
    distinct, of_session = _distinct(queries)
    counts = np.bincount(of_session, minlength=len(distinct)).astype(np.int64)
    vectorizer = CountVectorizer(analyzer=analyzer(settings), dtype=np.float64)
    try:
        frequencies = vectorizer.fit_transform(distinct.to_pylist())
    except ValueError:  # scikit-learn: empty vocabulary
        frequencies = None
    terms = np.array(vectorizer.get_feature_names_out() if frequencies is not None else [], dtype=object)
    if frequencies is not None:
        document_frequency = counts @ (frequencies > 0)
        keep = np.flatnonzero(document_frequency >= settings.min_df)
        if len(keep) > settings.max_terms:  # most frequent first; the sorted vocabulary settles ties
            keep = np.sort(keep[np.argsort(-document_frequency[keep], kind="stable")[: settings.max_terms]])
        terms, frequencies, document_frequency = terms[keep], frequencies[:, keep], document_frequency[keep]
    if frequencies is None or len(terms) == 0:
        raise NoVocabularyError(
            f"None of the {len(distinct)} distinct queries in {len(queries)} sessions holds a usable term "
            f"(two letters or digits or more, not a function word, in at least {settings.min_df} sessions).",
            "Look at the queries themselves, or lower vectors.min_df.",
        )
    idf = np.log((1 + len(queries)) / (1 + document_frequency)) + 1
    return TfidfMatrix(
        matrix=_weigh(frequencies, idf),
        queries=distinct,
        counts=counts,
        query_of_session=of_session,
        terms=pa.array(terms.tolist(), pa.string()),
        idf=idf,
        settings=settings,
    )


def transform(
    queries: Sequence[str], terms: pa.Array, idf: NDArray[np.float64], settings: VectorSettings
) -> csr_matrix:
    """TF-IDF rows of other queries in a vocabulary made earlier: (len(queries), n_terms), of unit length or zero."""
    vectorizer = CountVectorizer(analyzer=analyzer(settings), vocabulary=terms.to_pylist(), dtype=np.float64)
    return _weigh(vectorizer.transform(queries), idf)


def _weigh(frequencies: csr_matrix, idf: NDArray[np.float64]) -> csr_matrix:
    weighted = csr_matrix(frequencies.multiply(idf))
    weighted.sort_indices()  # sums in one fixed order: the same queries give the same bits
    return normalize(weighted, copy=False) if weighted.shape[0] else weighted  # scikit-learn refuses no rows


def _distinct(queries: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """The different texts, sorted, and the place of each query's own among them."""
    chunks = queries if isinstance(queries, pa.ChunkedArray) else pa.chunked_array([queries])
    encoded = pc.dictionary_encode(chunks.combine_chunks())
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy()]
