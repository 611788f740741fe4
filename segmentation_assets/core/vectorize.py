"""Search queries to TF-IDF rows: one row for each distinct query, weighted by how many sessions hold it.

What belongs here: the vocabulary of a log and its TF-IDF. What does not: how text becomes words (tokens), clustering,
and anything that knows a segment's name.

Queries repeat (a million sessions hold about a quarter of a million distinct queries), so the distinct ones are
vectorized and their counts carried; document frequencies are counted in sessions, so each session's row is what
vectorizing every session would have given it.

A term is shown as the form of a word that is typed most ('dresses' where that is more frequent than 'dress'), and
stands for every form of it. What else is taken for it (misspellings, words written apart) is learned from the
frequencies in the log and kept beside the vocabulary, for people to see and so that other queries are read alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core import tokens
from segmentation_assets.core.collector import collector_paused
from segmentation_assets.core.numbering import numbered
from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.core.tokens import FUNCTION_WORDS as FUNCTION_WORDS
from segmentation_assets.core.tokens import Words
from segmentation_assets.errors import SegmentsError


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
        spellings: what is typed and what it is counted as: a misspelling and its word, two words that are mostly
            written as one and that one, one that is mostly written as two and these. Empty for plain text.
    """

    matrix: csr_matrix
    queries: pa.Array
    counts: NDArray[np.int64]
    query_of_session: NDArray[np.int32]
    terms: pa.Array
    idf: NDArray[np.float64]
    settings: VectorSettings
    spellings: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n_distinct,) whether the query holds at least one known term."""
        return np.asarray(np.diff(self.matrix.indptr) > 0)


def analyzer(settings: VectorSettings) -> Callable[[str], list[str]]:
    """The function that turns a query into its terms as they are typed, knowing no other query."""

    def analyze(query: str) -> list[str]:
        words = _without_gaps(_read([query], settings)).with_ngrams(settings.ngram_max)
        return [words.words[i] for i in words.ids]

    return analyze


@collector_paused()
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
    distinct, of_session = numbered(queries)
    counts = np.bincount(of_session, minlength=len(distinct)).astype(np.int64)
    typed = _read(distinct.to_pylist(), settings)
    words, names, spellings = typed, {word: word for word in typed.words}, dict[str, str]()
    if settings.text != "plain":
        words = typed.replace(_as_key)
        names = _names(typed, counts)
        spellings = _learn_spellings(words, counts)
        words = tokens.rewrite(words, spellings)
    words = _without_gaps(words).with_ngrams(settings.ngram_max)
    shown = [_each(term, names.__getitem__) for term in words.words]
    order = np.array(sorted(range(len(shown)), key=shown.__getitem__), dtype=np.int64)
    frequencies = _frequencies(words, np.argsort(order), (len(distinct), len(shown)))
    document_frequency = counts @ (frequencies > 0)
    keep = np.flatnonzero(document_frequency >= settings.min_df)
    if len(keep) > settings.max_terms:  # most frequent first; the sorted vocabulary settles ties
        keep = np.sort(keep[np.argsort(-document_frequency[keep], kind="stable")[: settings.max_terms]])
    if len(keep) == 0:
        usable = "two letters or digits or more" if settings.text == "plain" else "a letter, a digit or an emoji"
        raise NoVocabularyError(
            f"None of the {len(distinct)} distinct queries in {len(queries)} sessions holds a usable term "
            f"({usable}, not a function word, in at least {settings.min_df} sessions).",
            "Look at the queries themselves, or lower vectors.min_df.",
        )
    terms = [shown[i] for i in order[keep]]
    idf = np.log((1 + len(queries)) / (1 + document_frequency[keep])) + 1
    if len(keep) < len(shown):
        frequencies = _frequencies(words, _Index(terms, idf, settings).columns(words), (len(distinct), len(terms)))
    return TfidfMatrix(
        matrix=_weigh(frequencies, idf),
        queries=distinct,
        counts=counts,
        query_of_session=of_session,
        terms=pa.array(terms, pa.string()),
        idf=idf,
        settings=settings,
        spellings={_each(a, names.__getitem__): _each(b, names.__getitem__) for a, b in sorted(spellings.items())},
    )


class Vectorizer:
    """A vocabulary made earlier, ready for other queries: what is looked up in it is put in order once.

    A word that the vocabulary does not hold counts as the far more frequent one that it is a misspelling of, if any.

    Args:
        terms: (n_terms,) the vocabulary.
        idf: (n_terms,) inverse document frequencies.
        settings: the vocabulary's.
        spellings: the vocabulary's; see ``TfidfMatrix``.
    """

    def __init__(
        self,
        terms: pa.Array,
        idf: NDArray[np.float64],
        settings: VectorSettings,
        spellings: dict[str, str] | None = None,
    ) -> None:
        vocabulary = terms.to_pylist()
        self._settings = settings
        self._idf = idf
        self._shape = len(vocabulary)
        self._plain = settings.text == "plain"
        self._spellings = (
            {}
            if self._plain or not spellings
            else {_each(a, tokens.key): _each(b, tokens.key) for a, b in spellings.items()}
        )
        self._index = _Index(vocabulary, idf, settings)

    @collector_paused()
    def rows(self, queries: Sequence[str]) -> csr_matrix:
        """TF-IDF rows of any queries: (len(queries), n_terms), of unit length or zero."""
        words = _read(queries, self._settings)
        if not self._plain:
            words = words.replace(_as_key)
            if self._spellings:
                words = tokens.rewrite(words, self._spellings)
        words = _without_gaps(words).with_ngrams(self._settings.ngram_max)
        return _weigh(_frequencies(words, self._index.columns(words), (len(queries), self._shape)), self._idf)


def transform(
    queries: Sequence[str],
    terms: pa.Array,
    idf: NDArray[np.float64],
    settings: VectorSettings,
    spellings: dict[str, str] | None = None,
) -> csr_matrix:
    """``Vectorizer.rows`` of a vocabulary that is used once."""
    return Vectorizer(terms, idf, settings, spellings).rows(queries)


def _read(queries: Sequence[str], settings: VectorSettings) -> Words:
    """The words of queries, "" for a function word."""
    words = tokens.shop_words(queries) if settings.text != "plain" else tokens.plain_words(queries)
    if not settings.drop_function_words:
        return words
    return words.replace(lambda word: [""] if word in FUNCTION_WORDS else [word])


def _as_key(word: str) -> list[str]:
    return [tokens.key(word)]


def _each(term: str, of: Callable[[str], str]) -> str:
    return " ".join([of(word) for word in term.split(" ")])


def _without_gaps(words: Words) -> Words:
    return words.replace(lambda word: [word] if word else [])


def _names(typed: Words, counts: NDArray[np.int64]) -> dict[str, str]:
    """The form of each word that is typed most, by key."""
    often = np.bincount(typed.ids, weights=counts[typed.rows], minlength=len(typed.words)).tolist()
    best: dict[str, tuple[float, int, str]] = {}
    for word, n in zip(typed.words, often, strict=True):
        rank, key = (-n, len(word), word), tokens.key(word)
        if key not in best or rank < best[key]:
            best[key] = rank
    return {key: word for key, (_, _, word) in best.items()}


def _learn_spellings(words: Words, counts: NDArray[np.int64]) -> dict[str, str]:
    """``TfidfMatrix.spellings``, in keys."""
    joined, parted = tokens.written_apart(words, counts[words.rows].astype(np.float64))
    words = tokens.rewrite(words, {**joined, **parted})
    often = np.bincount(words.ids, weights=counts[words.rows], minlength=len(words.words)).tolist()
    meant = tokens.misspellings({word: n for word, n in zip(words.words, often, strict=True) if n})
    return {**joined, **parted, **{word: other for word, other in meant.items() if word not in parted}}


class _Index:
    """Where the words of queries stand in a vocabulary.

    Args:
        terms: the vocabulary.
        idf: (n_terms,) inverse document frequencies.
        settings: the vocabulary's.
    """

    def __init__(self, terms: list[str], idf: NDArray[np.float64], settings: VectorSettings) -> None:
        self._plain = settings.text == "plain"
        self._idf = idf
        self._column = {term if self._plain else _each(term, tokens.key): i for i, term in enumerate(terms)}
        # What is not in the vocabulary is no more frequent than the rarest that is.
        self._rarest = float(np.exp(-idf.max()))

    @cached_property
    def _speller(self) -> tokens.Speller:
        return tokens.Speller(dict(zip(self._column, np.exp(-self._idf).tolist(), strict=True)), self._rarest)

    def columns(self, words: Words) -> NDArray[np.int64]:
        """(len(words.words),) the column of each word or sequence of words; -1 is none."""
        column = self._column
        if self._plain:
            return np.array([column.get(word, -1) for word in words.words], dtype=np.int64)
        columns = np.full(len(words.words), -1, dtype=np.int64)
        for place, word in enumerate(words.words):
            known = column.get(word)
            if known is None and tokens.correctable(word):
                known = column.get(self._speller.correct(word, self._rarest) or "")
            columns[place] = -1 if known is None else known
        return columns


def _frequencies(words: Words, columns: NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    """How often each query holds each term."""
    column = columns[words.ids]
    known = column >= 0
    ones = np.ones(int(known.sum()))
    counted = csr_matrix((ones, (words.rows[known], column[known])), shape=shape)  # sums what stands twice
    counted.sort_indices()
    return counted


def _weigh(frequencies: csr_matrix, idf: NDArray[np.float64]) -> csr_matrix:
    from sklearn.preprocessing import normalize

    weighted = csr_matrix(frequencies.multiply(idf))
    weighted.sort_indices()  # sums in one fixed order: the same queries give the same bits
    return normalize(weighted, copy=False) if weighted.shape[0] else weighted  # scikit-learn refuses no rows
