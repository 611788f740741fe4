"""The consensus: better than its members, the same for everybody, bounded in cost."""

import warnings

import numpy as np
import pyarrow as pa
from sklearn.metrics import adjusted_rand_score

from segmentation_assets.core.clustering import METHODS, consensus
from segmentation_assets.core.clustering.consensus import agree, best, partitions, settle
from segmentation_assets.core.model import fit
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.space import LONGEST_DOCUMENT, Corpus, Space
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize


def shop(users: int = 300, each: int = 4, tastes: int = 4, seed: int = 3) -> tuple[TfidfMatrix, np.ndarray, np.ndarray]:
    """Users with one taste each, queries of one or two words, a quarter of the words anybody's."""
    chance = np.random.default_rng(seed)
    queries, owners, truth = [], [], []
    for user in range(users):
        taste = user % tastes
        for _ in range(each):
            words = [
                f"any{chance.integers(6)}"
                if chance.random() < 0.25
                else f"{'abcdefgh'[taste]}thing{chance.integers(25)}"
                for _ in range(chance.integers(1, 3))
            ]
            queries.append(" ".join(words))
            owners.append(user)
            truth.append(taste)
    tfidf = vectorize(pa.array(queries), VectorSettings(text="plain"))
    return tfidf, np.array(owners, dtype=np.int32), np.array(truth)


def corpus_of(tfidf: TfidfMatrix, users: np.ndarray) -> Corpus:
    return Corpus.of_sessions(tfidf.matrix, tfidf.queries, tfidf.query_of_session, users)


def test_the_consensus_is_nearer_to_the_truth_than_most_of_its_members() -> None:
    tfidf, users, truth = shop(users=120)
    corpus = corpus_of(tfidf, users)
    members = partitions(corpus, 4, 20, 1)
    scores = [adjusted_rand_score(truth, labels[tfidf.query_of_session]) for labels in members]
    model = fit(tfidf, users, ClusterSettings(method="consensus", k=4, seed=1))
    assert adjusted_rand_score(truth, model.labels[tfidf.query_of_session]) > np.median(scores)


def test_members_that_agree_on_fewer_clusters_than_asked_give_one_of_themselves_without_a_warning() -> None:
    labels = np.array([0, 0, 1, 1], dtype=np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agree([labels, labels], np.ones(4), 3, seed=1).tolist() == labels.tolist()


def test_a_partition_settles_on_the_words_it_rests_on() -> None:
    """One query in ten put elsewhere at random comes back, since its words are those of the others."""
    tfidf, users, truth = shop()
    corpus = corpus_of(tfidf, users)
    of_query = np.zeros(len(tfidf.queries), dtype=np.int32)
    of_query[tfidf.query_of_session] = truth
    chance = np.random.default_rng(2)
    wrong = np.where(chance.random(len(of_query)) < 0.1, chance.integers(4, size=len(of_query)), of_query)
    before = adjusted_rand_score(truth, wrong[tfidf.query_of_session])
    after = adjusted_rand_score(truth, best(settle(corpus, wrong.astype(np.int32), 4), corpus)[tfidf.query_of_session])
    assert after > before


def test_where_there_is_much_a_sample_is_divided_and_everybody_is_placed(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """With a sample of a tenth the segments are still the tastes, and every query has one."""
    monkeypatch.setattr(consensus, "SAMPLE_USERS", 60)
    tfidf, users, truth = shop(users=600)
    model = fit(tfidf, users, ClusterSettings(method="consensus", k=4))
    assert (model.labels >= 0).all()
    assert adjusted_rand_score(truth, model.labels[tfidf.query_of_session]) > 0.6


def test_a_sample_holds_whole_users_and_only_what_they_searched_for() -> None:
    tfidf, users, _ = shop(users=100)
    corpus = corpus_of(tfidf, users)
    part = corpus.sample(20, 10_000, seed=1)
    assert part.by_user.shape == (20, part.rows.shape[0])
    assert part.rows.shape[0] == len(part.texts) < corpus.rows.shape[0]
    assert (part.searched > 0).all()
    assert corpus.sample(100, 10_000, seed=1) is corpus
    few = corpus.sample(100, 40, seed=1)
    assert 40 <= few.by_user.nnz < 50


def test_who_searches_without_end_weighs_no_more_than_a_long_document() -> None:
    tfidf = vectorize(pa.array(["laptop bag"] * 5_000 + ["dress", "coat"]), VectorSettings())
    users = np.array([0] * 5_000 + [1, 1], dtype=np.int32)
    assert corpus_of(tfidf, users).counted_documents.sum(axis=1).ravel().tolist()[0] == [LONGEST_DOCUMENT, 2]


def test_users_too_few_to_tell_clusters_apart_leave_it_to_the_queries() -> None:
    """One user, four words, four clusters."""
    queries = ["laptop", "dress", "chair", "sofa"] * 5
    tfidf = vectorize(pa.array(queries), VectorSettings())
    for name in ("consensus", "mixture"):
        model = fit(tfidf, np.zeros(20, dtype=np.int32), ClusterSettings(method=name, k=4))
        assert model.sizes == [5, 5, 5, 5]


def test_rows_of_memberships_are_of_unit_length_or_zero() -> None:
    tfidf, users, _ = shop(users=40)
    for name in ("consensus", "mixture"):
        space = METHODS[name].space(corpus_of(tfidf, users), 3, components=20, n_init=2, seed=1)
        assert len(space.bias) == 3
        rows = space.embed(tfidf.matrix)
        assert np.allclose((rows**2).sum(axis=1), 1)
        nothing = tfidf.matrix[:1] * 0
        nothing.eliminate_zeros()
        assert (Space(space.projection, space.bias).embed(nothing) == 0).all()
