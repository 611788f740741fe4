"""The space of the users' interests: what the same people search for lies together."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.core.space import NEGLIGIBLE, Corpus, Space, interests
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize


def searches(by_user: list[list[str]]) -> tuple[TfidfMatrix, np.ndarray]:
    pairs = [(user, query) for user, queries in enumerate(by_user) for query in queries]
    tfidf = vectorize(pa.array([query for _, query in pairs]), VectorSettings())
    return tfidf, np.array([user for user, _ in pairs], dtype=np.int32)


def user_projection(tfidf: TfidfMatrix, users: np.ndarray, components: int, seed: int) -> np.ndarray:
    corpus = Corpus.of_sessions(tfidf.matrix, tfidf.queries, tfidf.query_of_session, users)
    return interests(corpus.unit_documents, components, seed)


def embed(rows: csr_matrix, projection: np.ndarray) -> csr_matrix | np.ndarray:
    return Space.of_directions(projection).embed(rows)


def rows_by_query(by_user: list[list[str]], components: int = 20) -> dict[str, np.ndarray]:
    tfidf, users = searches(by_user)
    rows = embed(tfidf.matrix, user_projection(tfidf, users, components, 1))
    return dict(zip(tfidf.queries.to_pylist(), rows, strict=True))


def test_words_never_used_together_are_near_when_the_same_people_use_them() -> None:
    rows = rows_by_query([["laptop", "keyboard"], ["laptop", "monitor", "keyboard"], ["lipstick", "mascara"]] * 3, 2)
    assert rows["laptop"] @ rows["keyboard"] > 0.99
    assert abs(rows["laptop"] @ rows["lipstick"]) < 0.01


@given(
    st.lists(
        st.lists(st.sampled_from(["ab", "cd", "ef", "gh", "ij", "ab+cd", "ef+gh"]), min_size=1, max_size=6), min_size=1
    )
)
@settings(deadline=None, max_examples=60)
def test_with_all_dimensions_it_is_the_exact_decomposition_of_the_users_documents(by_user: list[list[str]]) -> None:
    """With every dimension kept, ``P P'`` is ``A' A`` for the users' documents A, whatever the signs of the vectors."""
    tfidf, users = searches([[query.replace("+", " ") for query in queries] for queries in by_user])
    documents = np.zeros((users.max() + 1, len(tfidf.terms)))
    for user, row in zip(users, tfidf.query_of_session, strict=True):
        documents[user] += tfidf.matrix[row].toarray().ravel()
    documents = normalize(documents)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        projection = user_projection(tfidf, users, 20, 1)
    gram = documents.T @ documents
    if np.linalg.matrix_rank(documents) <= projection.shape[1]:
        assert np.allclose(projection @ projection.T, gram, atol=1e-8)
    assert projection.shape[0] == len(tfidf.terms)
    assert projection.shape[1] <= max(1, min(20, users.max() + 1))


def test_busy_users_weigh_no_more_than_others() -> None:
    quiet, busy = [["laptop", "dress"], ["dress", "coat"]], [["laptop", "dress"] * 50, ["dress", "coat"]]
    tfidf, users = searches(quiet)
    counted = user_projection(tfidf, users, 5, 1)
    again, many = searches(busy)
    same_idf = TfidfMatrix(
        tfidf.matrix, again.queries, again.counts, again.query_of_session, again.terms, tfidf.idf, again.settings
    )
    assert np.allclose(np.abs(user_projection(same_idf, many, 5, 1)), np.abs(counted))


def test_the_same_seed_gives_the_same_bits_and_the_order_of_sessions_changes_none() -> None:
    chance = np.random.default_rng(5)
    words = [f"word{n}" for n in range(40)]
    pairs = [(int(user), f"{chance.choice(words)} {chance.choice(words)}") for user in chance.integers(0, 30, 300)]

    def projection(pairs: list[tuple[int, str]]) -> bytes:
        tfidf = vectorize(pa.array([query for _, query in pairs]), VectorSettings())
        return user_projection(tfidf, np.array([user for user, _ in pairs], dtype=np.int32), 8, 3).tobytes()

    shuffled = [pairs[i] for i in chance.permutation(len(pairs))]
    assert projection(pairs) == projection(shuffled)


@pytest.mark.parametrize(
    "by_user", [[["laptop"]], [["laptop"], ["laptop"]], [["laptop", "dress"]], [["red dress"]] * 9]
)
def test_one_term_or_one_user_is_a_space_too_without_a_warning(by_user: list[list[str]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = rows_by_query(by_user)
    for row in rows.values():
        assert np.linalg.norm(row) == pytest.approx(1)


def test_a_row_that_keeps_nothing_but_rounding_error_is_zero_not_a_direction() -> None:
    projection = np.array([[3.0, 0.0], [0.0, 1.0], [NEGLIGIBLE, NEGLIGIBLE], [0.0, 0.0], [1e-3, 0.0]])
    rows = embed(csr_matrix(np.eye(5)), projection)
    assert np.linalg.norm(rows, axis=1).round(12).tolist() == [1, 1, 0, 0, 1]


def test_two_terms_of_strangers_are_two_directions() -> None:
    rows = rows_by_query([["laptop"], ["dress"], ["dress"]])
    assert abs(rows["laptop"] @ rows["dress"]) < 1e-9
    assert np.linalg.norm(rows["laptop"]) == pytest.approx(1)


def test_without_dimensions_rows_stay_as_they_are() -> None:
    rows = csr_matrix(np.eye(3))
    assert embed(rows, np.empty((3, 0))) is rows


def test_zero_rows_and_no_rows_stay_so() -> None:
    assert embed(csr_matrix((2, 3)), np.ones((3, 2))).tolist() == [[0, 0], [0, 0]]
    assert embed(csr_matrix((0, 3)), np.ones((3, 2))).shape == (0, 2)
