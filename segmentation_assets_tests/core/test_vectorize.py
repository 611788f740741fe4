"""TF-IDF: plain text gives a session exactly what scikit-learn does; a shop's text is read as people mean it."""

from collections.abc import Callable

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
    VectorSettings,
    text=st.sampled_from(["shop", "plain"]),
    ngram_max=st.integers(1, 3),
    min_df=st.integers(1, 3),
    max_terms=st.sampled_from([5, 50_000]),
    drop_function_words=st.booleans(),
)
# Few words with many forms, often enough that the rare forms are taken for the frequent ones.
FORMS = ["headphones", "headphone", "haedphones", "head phones", "headfones", "case", "cases", "rtx 4070", "rtx4070",
         "café", "cafe", "t-shirt", "tshirt", "16 gb", "ケース", "🎮", "the"]  # fmt: skip
logs = st.lists(
    st.tuples(st.lists(st.sampled_from(FORMS), max_size=3).map(" ".join), st.sampled_from([1, 2, 60, 200])),
    min_size=1,
    max_size=12,
).map(lambda counted: [query for query, n in counted for _ in range(n)])


def usable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(queries, vector_settings)
@settings(deadline=None, max_examples=150)
def test_plain_text_gives_a_session_the_row_that_scikit_learn_gives_it_among_all_sessions(
    sessions: list[str], chosen: VectorSettings
) -> None:
    assume(all(map(usable, sessions)))
    chosen = chosen.model_copy(update={"text": "plain", "max_terms": 50_000})
    reference = TfidfVectorizer(
        token_pattern=r"\w\w+",
        stop_words=sorted(FUNCTION_WORDS) if chosen.drop_function_words else None,
        ngram_range=(1, chosen.ngram_max),
        min_df=chosen.min_df,
    )
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
    assert tfidf.spellings == {}


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


@given(st.one_of(queries, logs), vector_settings)
@settings(deadline=None, max_examples=150)
def test_queries_seen_again_get_the_row_they_had(sessions: list[str], chosen: VectorSettings) -> None:
    assume(all(map(usable, sessions)))
    tfidf = vectorize(pa.array(["laptop"] * 3 + sessions), chosen)
    again = transform(tfidf.queries.to_pylist(), tfidf.terms, tfidf.idf, tfidf.settings, tfidf.spellings)
    assert (again != tfidf.matrix).nnz == 0


@given(logs)
@settings(deadline=None)
def test_every_term_is_a_form_that_somebody_typed(sessions: list[str]) -> None:
    tfidf = vectorize(pa.array(["laptop", *sessions]), VectorSettings())
    typed = {word for query in {"laptop", *sessions} for word in analyzer(VectorSettings())(query)}
    assert set(tfidf.terms.to_pylist()) <= typed
    meant = {word for words in tfidf.spellings.values() for word in words.split()}
    assert meant <= set(tfidf.terms.to_pylist()) | typed


def rows_of(log: dict[str, int], *queries: str) -> list[dict[str, float]]:
    """The row of each query, by term, in the vocabulary of a log of counted queries."""
    tfidf = vectorize(pa.array([query for query, n in log.items() for _ in range(n)]), VectorSettings())
    rows = transform(queries, tfidf.terms, tfidf.idf, tfidf.settings, tfidf.spellings)
    names = tfidf.terms.to_pylist()
    return [{names[i]: row[0, i] for i in row.indices} for row in rows]


@pytest.mark.parametrize(
    ("log", "one", "two"),
    [
        ({"red dress": 3, "dresses": 1}, "dress red", "Red DRESSES"),  # word order, case, plurals
        ({"café table": 2, "cafe": 1}, "café", "cafe"),
        ({"16 gb ram": 2}, "RAM 16gb", "16-GB ram"),
        ({"27 inch monitor": 2, '27" monitor': 1}, "27in monitor", "monitor 27 Zoll"),
        ({"shoes size 42": 2}, "size-42 shoe", "shoes, size 42"),
        ({"t-shirt": 2, "tshirt": 5, "mug": 9}, "t shirt", "T-Shirts"),
        ({"t-shirt": 5, "tshirt": 2, "mug": 9}, "t shirt", "tshirt"),
        ({"smart watch": 5, "smartwatch": 9, "mug": 9}, "smart watches", "smartwatch"),
        ({"geforce 4070 ti": 5, "4070ti": 2, "mug": 9}, "geforce 4070ti", "GeForce 4070-Ti"),
        ({"iphone15": 1, "iphone 15": 2}, "iphone15", "iPhone 15"),
        ({"headphones": 90, "haedphones": 1, "mug": 3}, "haedphones", "headphone"),
        ({"headphones": 120, "mug": 1}, "headhpones", "headphones"),  # never seen before
        ({"👍🏽 mug": 1}, "👍", "👍🏿"),
        ({"iphone ケース": 2}, "ｹｰｽ iphone", "iphone ケース"),
    ],
)
def test_ways_of_writing_the_same_give_the_same_row(log: dict[str, int], one: str, two: str) -> None:
    first, second = rows_of(log, one, two)
    assert first
    assert first == second


@pytest.mark.parametrize(
    ("log", "one", "two"),
    [
        ({"shirt": 500, "short": 3}, "shirt", "short"),
        ({"rtx 4070": 500, "rtx 4080": 1}, "rtx 4070", "rtx 4080"),
        ({"closet": 1, "close": 500}, "closet", "close"),
        ({"speakers": 500, "sneakers": 2, "mug": 1}, "speakers", "sneakers"),
        ({"short dress": 5, "shorts": 5}, "short", "shorts"),
        ({"16gb": 2, "16 tb": 2}, "16 gb", "16 tb"),
        ({"earbuds": 9, "ear the buds": 2, "mug": 20}, "earbuds", "ear the buds"),
        ({"carpet": 90, "car pet seat": 2, "car": 90, "pet": 90}, "carpet", "car pet"),
    ],
)
def test_what_only_looks_alike_stays_apart(log: dict[str, int], one: str, two: str) -> None:
    first, second = rows_of(log, one, two)
    assert first
    assert second
    assert first != second


@pytest.mark.parametrize("query", ["nike", "4070", "5", "🎮", "日本", "x", "h&m", "$20", "เคส", "чехол"])
def test_a_query_of_one_brand_number_emoji_or_sign_is_not_lost(query: str) -> None:
    assert vectorize(pa.array([query]), VectorSettings()).known.tolist() == [True]


def test_a_term_is_the_form_that_is_typed_most_and_what_it_stands_for_is_told() -> None:
    log = ["dresses"] * 60 + ["dress"] * 40 + ["derss", "ear buds", "earbuds", "earbuds", "rtx 3060", "rtx 3060"]
    tfidf = vectorize(pa.array(log), VectorSettings())
    assert tfidf.terms.to_pylist() == ["3060", "dresses", "earbuds", "rtx"]
    assert tfidf.spellings == {"derss": "dresses", "ear buds": "earbuds"}
    assert np.isclose(tfidf.idf[1], np.log(107 / 102) + 1)  # every form of it counts


def test_a_word_beyond_the_vocabulary_counts_as_the_one_it_misspells_also_where_it_was_seen() -> None:
    log = ["headphones"] * 200 + ["laptop"] * 2 + ["headphonse", "zebra"]
    tfidf = vectorize(pa.array(log), VectorSettings(min_df=2))
    assert tfidf.terms.to_pylist() == ["headphones", "laptop"]
    assert dict(zip(tfidf.queries.to_pylist(), tfidf.known.tolist(), strict=True)) == {
        "headphones": True, "headphonse": True, "laptop": True, "zebra": False}  # fmt: skip


def test_a_word_never_seen_is_not_taken_for_one_that_is_hardly_more_frequent() -> None:
    assert rows_of({"keyboard": 20, "mug": 1}, "keybaord") == [{}]


def test_without_the_spellings_a_vocabulary_still_reads_plurals_and_units() -> None:
    tfidf = vectorize(pa.array(["16 gb sticks", "laptop"]), VectorSettings())
    assert transform(["stick 16gb"], tfidf.terms, tfidf.idf, tfidf.settings).nnz == 2


def plain(**chosen: object) -> Callable[[str], list[str]]:
    return analyzer(VectorSettings.model_validate({"text": "plain", **chosen}))


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
    assert plain()("shoes für the fur coat") == ["shoes", "fur", "coat"]
    assert plain(drop_function_words=False)("shoes for the") == ["shoes", "for", "the"]
    assert "für" in FUNCTION_WORDS


def test_n_grams_are_of_the_words_that_stay() -> None:
    expected = ["case", "phone", "12", "case phone", "phone 12", "case phone 12"]
    assert plain(ngram_max=3)("case for phone x 12") == expected
    assert analyzer(VectorSettings(ngram_max=3))("case for phone 12") == expected


def test_n_grams_are_of_terms() -> None:
    tfidf = vectorize(pa.array(["phone cases", "case", "cases", "phones", "phone"]), VectorSettings(ngram_max=2))
    assert tfidf.terms.to_pylist() == ["cases", "phone", "phone cases"]
    assert transform(["phones case"], tfidf.terms, tfidf.idf, tfidf.settings, tfidf.spellings).nnz == 3


def test_min_df_counts_sessions_not_distinct_queries() -> None:
    tfidf = vectorize(pa.array(["laptop", "laptop", "dress"]), VectorSettings(min_df=2))
    assert tfidf.terms.to_pylist() == ["laptop"]
    assert tfidf.known.tolist() == [False, True]


def test_max_terms_keeps_the_most_frequent_and_settles_ties_by_the_alphabet() -> None:
    sessions = ["dress", "dress", "dress", "zebra", "apple", "melon"]
    tfidf = vectorize(pa.array(sessions), VectorSettings(max_terms=2))
    assert tfidf.terms.to_pylist() == ["apple", "dress"]
    assert tfidf.counts[tfidf.known].sum() == 4


@pytest.mark.parametrize("sessions", [["for the", "with", "und der"], ["a", "!!", "", "für\n"]])
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
