"""The cluster model: what is fitted, how k is chosen, and how clusters keep their ids from model to model."""

import warnings
from dataclasses import replace
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segmentation_assets.core.clustering import METHODS, available
from segmentation_assets.core.model import (
    MATCH_SHARE,
    ClusterModel,
    StaleInputError,
    TooFewQueriesError,
    fit,
    match_clusters,
    mean_row,
    top_terms,
)
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize

BY_METHOD = [
    pytest.param(name, marks=pytest.mark.skipif(name not in available(), reason="its extra is not installed"))
    for name in METHODS
]

TASTES = {
    "tech": [
        "gaming laptop",
        "laptop keyboard",
        "gaming keyboard",
        "keyboard monitor",
        "gaming monitor",
        "laptop monitor",
    ],
    "fashion": ["red dress", "dress shoes", "red shoes", "leather handbag", "red handbag", "dress handbag"],
    "home": ["garden chair", "wooden chair", "wooden table", "garden table", "table lamp", "garden lamp"],
    "sport": ["yoga mat", "running socks", "yoga socks", "running bottle", "yoga bottle", "bottle mat"],
}

Pairs = list[tuple[str, str]]


def log(*tastes: str, users: int = 8, seed: int = 1, searches: int = 10) -> Pairs:
    """(user, query) of users who each search for what belongs to one taste."""
    chance = np.random.default_rng(seed)
    return [
        (f"{taste}-{user}", str(chance.choice(TASTES[taste])))
        for taste in tastes
        for user in range(users)
        for _ in range(searches)
    ]


def prepare(pairs: Pairs) -> tuple[TfidfMatrix, np.ndarray]:
    names = sorted({user for user, _ in pairs})
    tfidf = vectorize(pa.array([query for _, query in pairs]), VectorSettings())
    return tfidf, np.array([names.index(user) for user, _ in pairs], dtype=np.int32)


def fitted(pairs: Pairs, previous: ClusterModel | None = None, **chosen: object) -> ClusterModel:
    tfidf, users = prepare(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fit(tfidf, users, ClusterSettings(**{"k": 3, **chosen}), previous)


@pytest.fixture(params=BY_METHOD)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def cluster_of(model: ClusterModel, taste: str) -> int:
    """The one cluster of all of a taste's queries."""
    labels, _ = model.predict(TASTES[taste])
    assert len(set(labels.tolist())) == 1, f"{taste} is spread over {labels}"
    return int(labels[0])


# --- the contract, by every method


def test_the_same_sessions_in_another_order_give_the_same_model(method: str) -> None:
    pairs = log("tech", "fashion", "home")
    shuffled = [pairs[i] for i in np.random.default_rng(9).permutation(len(pairs))]
    one, two = fitted(pairs, method=method), fitted(shuffled, method=method)
    assert one.version == two.version
    assert one.labels.tolist() == two.labels.tolist()
    assert one.confidence.tolist() == two.confidence.tolist()
    assert one.sizes == two.sizes


def test_tastes_become_clusters_numbered_by_size(method: str) -> None:
    model = fitted(log("tech", users=12) + log("fashion", users=8) + log("home", users=4), method=method)
    assert model.sizes == sorted(model.sizes, reverse=True)
    assert model.cluster_ids.tolist() == [0, 1, 2]
    assert model.next_id == 3
    if method == "lsa":  # the other two see words, and the words of a taste fall into groups of their own
        assert [cluster_of(model, taste) for taste in ("tech", "fashion", "home")] == [0, 1, 2]
        assert model.sizes == [120, 80, 40]


def test_what_is_predicted_for_known_queries_is_what_was_published(method: str) -> None:
    tfidf, users = prepare(log("tech", "fashion", "home", "sport"))
    model = fit(tfidf, users, ClusterSettings(method=method, k=4))
    labels, confidence = model.predict(tfidf.queries.to_pylist())
    assert labels.tolist() == model.labels.tolist()
    assert confidence.tolist() == model.confidence.tolist()
    one_by_one = [int(model.predict([query])[0][0]) for query in tfidf.queries.to_pylist()]
    assert one_by_one == model.labels.tolist()


small_logs = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(["ab", "cd", "ef", "gh", "ab cd", "ef gh", "ab ef", "zz!"])),
    min_size=4,
    max_size=30,
)


@given(small_logs, st.integers(2, 4), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("method", BY_METHOD)
def test_any_log_gives_a_model_that_adds_up_and_repeats_itself_or_one_clear_error(
    method: str, pairs: Pairs, k: int, seed: int
) -> None:
    """Small logs are full of ties, where a label that depended on the order of the centres would show."""
    tfidf, users = prepare(pairs)
    chosen = ClusterSettings(method=method, k=k, seed=seed)
    try:
        model = fit(tfidf, users, chosen)
    except TooFewQueriesError:
        return
    inside = model.labels >= 0
    assert sum(model.sizes) + model.unclustered == len(pairs)
    assert model.sizes == [int(tfidf.counts[model.labels == cluster].sum()) for cluster in model.cluster_ids]
    assert inside.tolist() == [bool(known) for known in tfidf.known] or method != "kmeans"
    assert (model.confidence[~inside] == 0).all()
    assert model.predict(tfidf.queries.to_pylist())[0].tolist() == model.labels.tolist()
    again = fit(tfidf, users, chosen, model)
    assert again.predict(tfidf.queries.to_pylist())[0].tolist() == again.labels.tolist()
    if min(model.sizes) > 0:
        assert (again.version, again.labels.tolist()) == (model.version, model.labels.tolist())
        assert again.change.changed_share == 0


def test_equal_queries_count_once_however_often_they_are_searched(method: str) -> None:
    with pytest.raises(TooFewQueriesError, match="there are 1 "):
        fitted([(f"u{n}", "Red Dress") for n in range(20)] + [("u9", "dress red")], method=method)


def test_fewer_queries_than_clusters_are_one_error_with_the_counts(method: str) -> None:
    pairs = [("a", "laptop"), ("b", "dress"), ("b", "dress"), ("c", "for the"), ("d", "!!")]
    with pytest.raises(TooFewQueriesError) as raised:
        fitted(pairs, method=method, k=5)
    message = str(raised.value)
    for part in ("5 clusters", "there are 2 ", "5 sessions of 4 users", "4 distinct query texts", "2 sessions without",
                 "clusters.k"):  # fmt: skip
        assert part in message


def test_what_exactly_the_same_users_search_for_is_one_query_in_their_space() -> None:
    """'cd' and 'ef' differ in nothing but the sign of a zero."""
    pairs = [(4, "cd"), (1, "zz"), (4, "ab"), (0, "ab"), (4, "ef"), (2, "zz"), (4, "ef")]
    with pytest.raises(TooFewQueriesError, match=r"there are 3 .*clusters\.method: spherical"):
        fitted(pairs, k=4, method="lsa")
    assert fitted(pairs, k=3, method="lsa").sizes == [3, 2, 2]


def test_as_many_clusters_as_different_queries_is_possible(method: str) -> None:
    model = fitted([("a", "laptop"), ("b", "dress"), ("b", "dress"), ("c", "chair")], method=method)
    assert model.sizes == [2, 1, 1]


def test_a_query_without_a_known_term_is_in_no_cluster(method: str) -> None:
    pairs = [*log("tech", "fashion", "home"), ("x", "for the"), ("x", "?!"), ("y", "?!")]
    tfidf, users = prepare(pairs)
    model = fit(tfidf, users, ClusterSettings(k=3, method=method))
    assert model.unclustered == 3
    assert model.labels[~tfidf.known].tolist() == [-1, -1]
    labels, confidence = model.predict(["", "submarine", "with und pour"])
    assert labels.tolist() == [-1, -1, -1]
    assert confidence.tolist() == [0, 0, 0]


def test_nothing_to_predict_is_nothing_predicted(method: str) -> None:
    labels, confidence = fitted(log("tech", "fashion", "home"), method=method).predict([])
    assert (labels.shape, confidence.shape) == ((0,), (0,))


def test_users_of_other_sessions_are_refused(method: str) -> None:
    tfidf, users = prepare(log("tech", "fashion", "home"))
    with pytest.raises(StaleInputError, match=r"raw_sessions \(239 sessions\) and tfidf_matrix \(240\)"):
        fit(tfidf, users[1:], ClusterSettings(k=3, method=method))


# --- the number of clusters


def test_auto_finds_the_number_of_tastes_and_shows_every_ruler() -> None:
    model = fitted(log("tech", "fashion", "home", "sport", users=30), k="auto", k_min=2, k_max=7)
    assert model.k == 4
    assert model.k_choice is not None
    for curve in (model.k_choice.agreement, model.k_choice.silhouette, model.k_choice.likelihood):
        assert list(curve) == [2, 3, 4, 5, 6, 7]


def test_auto_tries_no_more_clusters_than_the_queries_allow(method: str) -> None:
    pairs = [("a", "laptop"), ("b", "dress"), ("c", "chair"), ("d", "sofa"), ("e", "lamp"), ("f", "ring")]
    model = fitted(pairs, k="auto", k_max=12, method=method)
    assert model.k_choice is not None
    assert list(model.k_choice.agreement) == [2]
    assert not model.k_choice.confident


def test_auto_with_too_few_queries_says_how_many_it_needs(method: str) -> None:
    """As many queries as k_min are not enough: with every query alone, no k is better than another."""
    with pytest.raises(TooFewQueriesError, match=r"4 different queries .* 3 clusters or more, and there are 3 .*k_min"):
        fitted([("a", "laptop"), ("b", "dress"), ("c", "chair")], k="auto", k_min=3, method=method)


def test_a_given_k_is_no_choice() -> None:
    assert fitted(log("tech", "fashion", "home")).k_choice is None


def test_a_query_that_two_clusters_claim_is_in_none_when_asked(method: str) -> None:
    """``min_confidence``: the others stay where they were, and prediction says the same."""
    pairs = [*log("tech", "fashion", "home"), ("x", "laptop dress sofa"), ("y", "keyboard heels lamp")]
    plain = fitted(pairs, method=method)
    level = float(np.unique(plain.confidence)[1])
    strict = fitted(pairs, method=method, min_confidence=level)
    assert strict.unclustered > 0
    assert (strict.labels >= 0).tolist() == (plain.confidence >= np.float32(level)).tolist()
    tfidf, _ = prepare(pairs)
    assert strict.predict(tfidf.queries.to_pylist())[0].tolist() == strict.labels.tolist()
    assert sum(strict.sizes) + strict.unclustered == len(pairs)


# --- the version


def test_whatever_decides_an_assignment_is_in_the_version() -> None:
    pairs = log("tech", "fashion", "home")
    versions = [
        fitted(pairs).version,
        fitted(pairs, seed=1).version,
        fitted(pairs, method="spherical").version,
        fitted(pairs, k=4).version,
        fitted(pairs[1:]).version,
        fitted([*pairs, ("x", "submarine")]).version,
        fitted(log("tech", "fashion", "home", seed=2)).version,
    ]
    assert len(set(versions)) == len(versions)


def test_other_ids_are_another_version() -> None:
    before = fitted(log("tech", "fashion", "home"))
    labels = np.where(before.labels >= 0, before.labels + 7, -1).astype(np.int32)
    moved = replace(before, cluster_ids=before.cluster_ids + 7, labels=labels, next_id=before.next_id + 7)
    after = fitted(log("tech", "fashion", "home"), moved)
    assert after.cluster_ids.tolist() == moved.cluster_ids.tolist()
    assert after.version != before.version


# --- ids from model to model


def test_a_first_model_has_only_new_clusters() -> None:
    change = fitted(log("tech", "fashion", "home")).change
    assert (change.previous_version, change.kept, change.new, change.retired, change.changed_share) == (
        None, [], [0, 1, 2], [], 0.0,
    )  # fmt: skip


def test_clusters_keep_their_ids_though_their_sizes_change_places() -> None:
    before = fitted(log("tech", users=12) + log("fashion", users=8) + log("home", users=4))
    after = fitted(
        log("tech", users=4, seed=2) + log("fashion", users=8, seed=3) + log("home", users=12, seed=4), before
    )
    for taste in ("tech", "fashion", "home"):
        assert cluster_of(after, taste) == cluster_of(before, taste)
    assert after.cluster_ids.tolist() == [2, 1, 0]  # the largest first, as in any model
    assert after.sizes == [120, 80, 40]
    assert after.next_id == before.next_id
    assert after.change.previous_version == before.version
    assert after.change.kept == [0, 1, 2]
    assert (after.change.new, after.change.retired, after.change.changed_share) == ([], [], 0.0)


def test_a_new_taste_gets_a_new_id_and_a_lost_one_is_never_used_again() -> None:
    first = fitted(log("tech", "fashion", "home"))
    home, tech = cluster_of(first, "home"), cluster_of(first, "tech")
    second = fitted(log("tech", "fashion", "sport"), first)
    sport = cluster_of(second, "sport")
    assert sport == 3
    assert (second.change.new, second.change.retired) == ([3], [home])
    assert cluster_of(second, "tech") == tech
    third = fitted(log("tech", "fashion", "home"), second)  # back again, but nobody remembers
    assert cluster_of(third, "home") == 4
    assert (third.change.new, third.change.retired, third.next_id) == ([4], [3], 5)


def test_fewer_and_more_clusters_than_before_keep_what_they_can(method: str) -> None:
    pairs = log("tech", "fashion", "home", "sport")
    two, four = fitted(pairs, k=2, method=method), fitted(pairs, k=4, method=method)
    for before, after in (
        (two, fitted(pairs, two, k=4, method=method)),
        (four, fitted(pairs, four, k=2, method=method)),
    ):
        change = after.change
        assert sorted(change.kept + change.new) == sorted(after.cluster_ids.tolist())
        assert sorted(change.kept + change.retired) == sorted(before.cluster_ids.tolist())
        assert after.next_id == before.next_id + len(change.new)
        assert len(set(after.cluster_ids.tolist())) == after.k
        assert set(after.labels.tolist()) <= {*after.cluster_ids.tolist(), -1}


def test_another_method_carries_ids_over_too() -> None:
    before = fitted(log("tech", "fashion", "home"))
    after = fitted(log("tech", "fashion", "home"), before, method="spherical")
    assert after.change.previous_version == before.version
    assert after.change.kept


def test_changed_share_counts_sessions_that_both_models_put_in_a_cluster() -> None:
    """The second model is asked about three queries; the first knew two of them, with 3 and 1 sessions."""
    pairs = [("a", "laptop")] * 3 + [("b", "dress"), ("c", "chair"), ("c", "chair")]
    settled = fitted(pairs)
    forgot = replace(settled, terms=pa.array(["xxx", "dress", "laptop"]))  # knows no chair
    ids = dict(zip(*[["laptop", "dress"], forgot.predict(["laptop", "dress"])[0].tolist()], strict=True))
    after = fitted(pairs, forgot)
    now = dict(zip(["laptop", "dress"], after.predict(["laptop", "dress"])[0].tolist(), strict=True))
    moved = {query for query in ids if ids[query] != now[query]}
    assert after.change.changed_share == pytest.approx(sum({"laptop": 3, "dress": 1}[query] for query in moved) / 4)


def test_half_of_the_sessions_that_move_are_a_changed_share_of_one_half() -> None:
    pairs = log("tech", users=5) + log("fashion", users=5) + log("home", users=10)
    before = fitted(pairs, k=2)  # home, and the other two in one, or some such
    after = fitted(pairs, before, k=3)
    assert len(after.change.new) == 1
    new = after.sizes[after.cluster_ids.tolist().index(after.change.new[0])]
    assert after.change.changed_share == pytest.approx(new / 200)


@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 20).map(lambda n: n / 20)
    )
)
def test_matching_is_the_best_of_all_ways_to_pair_what_is_alike_enough(overlap: np.ndarray) -> None:
    pairs = match_clusters(overlap)
    assert len({new for new, _ in pairs}) == len({old for _, old in pairs}) == len(pairs)
    assert all(overlap[pair] >= MATCH_SHARE for pair in pairs)
    wide = overlap if overlap.shape[0] <= overlap.shape[1] else overlap.T
    counted = np.where(wide >= MATCH_SHARE, wide, 0)
    best = max(
        sum(counted[row, column] for row, column in enumerate(columns))
        for columns in permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert sum(overlap[pair] for pair in pairs) == pytest.approx(best)


def test_two_pairs_too_unlike_to_count_do_not_outweigh_one_that_counts() -> None:
    assert match_clusters(np.array([[0.30, 0.24], [0.24, 0.0]])) == [(0, 0)]


def test_a_match_is_at_least_a_quarter() -> None:
    assert match_clusters(np.array([[MATCH_SHARE]])) == [(0, 0)]
    assert match_clusters(np.array([[MATCH_SHARE - 1e-9]])) == []


# --- terms


def test_a_clusters_terms_are_those_of_its_sessions_mean() -> None:
    tfidf, users = prepare([("a", "red dress")] * 3 + [("a", "dress"), ("b", "laptop")])
    model = fit(tfidf, users, ClusterSettings(k=2))
    fashion = int(model.predict(["dress"])[0][0])
    naive = np.mean([tfidf.matrix[row].toarray().ravel() for row in tfidf.query_of_session[:4]], axis=0)
    assert np.allclose(mean_row(tfidf, model, fashion), naive)
    terms = top_terms(tfidf, model, fashion, 5)
    assert list(terms) == ["dress", "red"]
    assert list(terms.values()) == sorted(terms.values(), reverse=True)
    assert list(top_terms(tfidf, model, fashion, 1)) == ["dress"]


def test_a_cluster_without_sessions_has_no_terms() -> None:
    tfidf, users = prepare([("a", "dress"), ("b", "laptop")])
    assert top_terms(tfidf, fit(tfidf, users, ClusterSettings(k=2)), 99, 5) == {}
