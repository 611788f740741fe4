"""TF-IDF: the same for a session as scikit-learn's on all sessions, though only distinct queries are vectorized."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.core.vectorize import FUNCTION_WORDS, NoVocabularyError, analyzer, transform, vectorize

WORDS = ["red", "dress", "laptop", "für", "with", "a", "4070", "Straße", "ÉTÉ", "鍵盤", "été", "x", "🎮", "İstanbul"]
queries = st.lists(
    st.one_of(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), st.text(max_size=12)), min_size=1, max_size=25
)
vector_settings = st.builds(
    VectorSettings, ngram_max=st.integers(1, 3), min_df=st.integers(1, 3), drop_function_words=st.booleans()
)


def usable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(queries, vector_settings)
@settings(deadline=None, max_examples=150)
def test_a_sessions_row_is_the_one_that_vectorizing_every_session_gives(
    sessions: list[str], chosen: VectorSettings
) -> None:
    assume(all(map(usable, sessions)))
    reference = TfidfVectorizer(analyzer=analyzer(chosen), min_df=chosen.min_df)
    try:
        expected = reference.fit_transform(sessions).toarray()
    except ValueError:  # nothing left of the vocabulary
        with pytest.raises(NoVocabularyError):
            vectorize(pa.array(sessions), chosen)
        return
    tfidf = vectorize(pa.array(sessions), chosen)
    assert tfidf.terms.to_pylist() == reference.get_feature_names_out().tolist()
    assert np.allclose(tfidf.idf, reference.idf_)
    assert np.allclose(tfidf.matrix[tfidf.query_of_session].toarray(), expected)


@given(queries)
@settings(deadline=None)
def test_the_distinct_queries_carry_every_session(sessions: list[str]) -> None:
    assume(all(map(usable, sessions)))
    tfidf = vectorize(pa.array(["laptop", *sessions]), VectorSettings())
    distinct = tfidf.queries.to_pylist()
    assert distinct == sorted(set(distinct), key=str.encode)
    assert [distinct[row] for row in tfidf.query_of_session] == ["laptop", *sessions]
    assert tfidf.counts.tolist() == [["laptop", *sessions].count(query) for query in distinct]


@given(queries, st.randoms())
@settings(deadline=None)
def test_the_order_of_the_sessions_changes_not_one_bit(sessions: list[str], chance: object) -> None:
    assume(all(map(usable, sessions)))
    sessions = ["laptop", *sessions]
    shuffled = chance.sample(sessions, len(sessions))
    one, two = vectorize(pa.array(sessions), VectorSettings()), vectorize(pa.array(shuffled), VectorSettings())
    assert one.queries.equals(two.queries)
    assert one.matrix.data.tobytes() == two.matrix.data.tobytes()
    assert one.matrix.indices.tobytes() == two.matrix.indices.tobytes()
    assert one.idf.tobytes() == two.idf.tobytes()


@given(queries)
@settings(deadline=None)
def test_rows_have_unit_length_unless_no_term_is_known(sessions: list[str]) -> None:
    assume(all(map(usable, sessions)))
    tfidf = vectorize(pa.array(["laptop", *sessions]), VectorSettings(min_df=1))
    length = np.sqrt(np.asarray(tfidf.matrix.multiply(tfidf.matrix).sum(axis=1)).ravel())
    assert np.allclose(length, tfidf.known)
    terms = analyzer(tfidf.settings)
    assert tfidf.known.tolist() == [bool(terms(query)) for query in tfidf.queries.to_pylist()]


@given(queries)
@settings(deadline=None)
def test_queries_seen_again_get_the_row_they_had(sessions: list[str]) -> None:
    assume(all(map(usable, sessions)))
    tfidf = vectorize(pa.array(["laptop", *sessions]), VectorSettings(ngram_max=2))
    again = transform(tfidf.queries.to_pylist(), tfidf.terms, tfidf.idf, tfidf.settings)
    assert (again != tfidf.matrix).nnz == 0


def test_chunked_columns_are_one_column() -> None:
    chunked = pa.chunked_array([["red dress", "laptop"], ["laptop"], []], pa.string())
    assert vectorize(chunked, VectorSettings()).counts.tolist() == [2, 1]


def test_no_queries_and_unseen_words_transform_to_zero_rows() -> None:
    tfidf = vectorize(pa.array(["red dress"]), VectorSettings())
    assert transform([], tfidf.terms, tfidf.idf, tfidf.settings).shape == (0, 2)
    assert transform(["", "submarine"], tfidf.terms, tfidf.idf, tfidf.settings).nnz == 0


def test_function_words_go_unless_they_are_wanted() -> None:
    assert analyzer(VectorSettings())("shoes for the fur coat") == ["shoes", "fur", "coat"]
    assert analyzer(VectorSettings(drop_function_words=False))("shoes for the") == ["shoes", "for", "the"]
    assert "für" in FUNCTION_WORDS


def test_n_grams_do_not_reach_over_what_was_left_out() -> None:
    assert analyzer(VectorSettings(ngram_max=3))("case for phone x 12") == ["case", "phone", "12", "case phone",
        "phone 12", "case phone 12"]  # fmt: skip


def test_min_df_counts_sessions_not_distinct_queries() -> None:
    tfidf = vectorize(pa.array(["laptop", "laptop", "dress"]), VectorSettings(min_df=2))
    assert tfidf.terms.to_pylist() == ["laptop"]
    assert tfidf.known.tolist() == [False, True]


def test_max_terms_keeps_the_most_frequent_and_settles_ties_by_the_alphabet() -> None:
    sessions = ["dress", "dress", "dress", "zebra", "apple", "melon"]
    tfidf = vectorize(pa.array(sessions), VectorSettings(max_terms=2))
    assert tfidf.terms.to_pylist() == ["apple", "dress"]
    assert tfidf.counts[tfidf.known].sum() == 4


@pytest.mark.parametrize("sessions", [["for the", "with", "und der"], ["a", "!!", "", "🎮"]])
def test_nothing_but_function_words_is_one_clear_error_with_the_counts(sessions: list[str]) -> None:
    with pytest.raises(
        NoVocabularyError, match=f"the {len(sessions)} distinct queries in {len(sessions) + 1} sessions"
    ):
        vectorize(pa.array([*sessions, sessions[0]]), VectorSettings())


def test_a_term_in_too_few_sessions_is_named_with_the_bound() -> None:
    with pytest.raises(NoVocabularyError, match="at least 5 sessions"):
        vectorize(pa.array(["laptop", "laptop"]), VectorSettings(min_df=5))


def test_no_sessions_are_an_error_of_their_own() -> None:
    with pytest.raises(NoVocabularyError, match="no sessions"):
        vectorize(pa.array([], pa.string()), VectorSettings())
