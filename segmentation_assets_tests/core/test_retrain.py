"""Keep or replace: the rule, its ruler, a model applied to other sessions, and what users see of it."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from segmentation_assets.core.clustering import METHODS, available
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.labels import LabeledSegments, StaleModelError, Taxonomy, label, shipped_taxonomy
from segmentation_assets.core.model import ClusterModel, fingerprint, fit
from segmentation_assets.core.retrain import made_with, reapply, renewed, retrain, told, with_churn
from segmentation_assets.core.sessions import Intake, SessionBuilder, Sessions
from segmentation_assets.core.settings import ClusterSettings, LabelSettings, VectorSettings
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize

BY_METHOD = [
    pytest.param(name, marks=pytest.mark.skipif(name not in available(), reason="its extra is not installed"))
    for name in METHODS
]

END = datetime(2026, 11, 1, tzinfo=UTC)
PLAIN = VectorSettings(text="plain")

SHOP = {
    "tech": ["gaming laptop", "laptop keyboard", "gaming keyboard", "keyboard monitor", "laptop monitor"],
    "fashion": ["red dress", "dress shoes", "red shoes", "leather handbag", "red handbag", "dress handbag"],
    "home": ["garden chair", "wooden chair", "wooden table", "garden table", "table lamp", "garden lamp"],
}
OTHER_SHOP = {
    "books": ["crime novel", "novel paperback", "crime paperback", "crime thriller", "thriller paperback"],
    "tools": ["cordless drill", "drill bits", "cordless screwdriver", "screwdriver bits", "drill screwdriver"],
    "pets": ["dog food", "cat food", "dog bed", "cat bed", "dog bowl", "cat bowl"],
}
TAXONOMY = Taxonomy.model_validate(
    {"segments": {"tech": {"keywords": ["laptop", "keyboard", "monitor"]}, "fashion": {"keywords": ["dress", "red"]}}}
)


def shop(tastes: dict[str, list[str]], users: int = 8, searches: int = 10, seed: int = 1) -> Sessions:
    """Sessions of users who each search for what belongs to one taste."""
    chance = np.random.default_rng(seed)
    builder = SessionBuilder(END)
    for taste, queries in tastes.items():
        for user in range(users):
            for n in range(searches):
                document = {
                    "user_id": f"{taste}-{user}",
                    "search_query": str(chance.choice(queries)),
                    "timestamp": (END - timedelta(minutes=n + 1)).isoformat(),
                }
                builder.add(f"{taste}-{user}-{n}", document)
    return builder.finish()


def generated(n: int, seed: int = 1) -> Sessions:
    builder = SessionBuilder(END)
    for document in generate_sessions(n, seed, END).documents:
        builder.add(document["session_id"], document)
    return builder.finish()


def part(sessions: Sessions, share: float, seed: int) -> Sessions:
    rows = np.random.default_rng(seed).choice(len(sessions), int(len(sessions) * share), replace=False)
    table = sessions.table.take(pa.array(np.sort(rows)))
    return Sessions(table, Intake(table.num_rows, table.num_rows))


def vectors(sessions: Sessions) -> TfidfMatrix:
    return vectorize(sessions.table["search_query"], PLAIN)


def trained(sessions: Sessions, previous: ClusterModel | None = None, **chosen: object) -> ClusterModel:
    found = ClusterSettings(**{"k": 3, "method": "lsa", "refit_share": 0, **chosen})
    return retrain(vectors(sessions), sessions.user_numbers(), found, previous)


def labeled(sessions: Sessions, model: ClusterModel) -> LabeledSegments:
    return label(sessions, vectors(sessions), model, TAXONOMY, LabelSettings())


# --- the rule


def test_a_first_model_is_taken() -> None:
    model = trained(shop(SHOP))
    assert model.decision is not None
    assert (model.decision.kept, model.decision.reason, model.decision.gain) == (False, "first model", None)


@pytest.mark.parametrize("method", BY_METHOD)
def test_the_same_sessions_again_keep_the_model_to_the_last_bit(method: str) -> None:
    first = trained(shop(SHOP), method=method)
    again = trained(shop(SHOP), first, method=method)
    assert again.decision is not None
    assert again.decision.kept
    assert again.version == first.version
    assert again.labels.tolist() == first.labels.tolist()
    assert again.confidence.tolist() == first.confidence.tolist()
    assert again.sizes == first.sizes
    assert again.change.changed_share == 0
    assert again.change.previous_version == first.version


def test_a_sample_of_the_same_sessions_keeps_the_model() -> None:
    """Two fits of one thing differ by chance, and chance is no reason to move anybody."""
    sessions = generated(1_500)
    first = trained(sessions, k=5)
    for seed in range(3):
        again = trained(part(sessions, 0.9, seed), first, k=5)
        assert again.decision is not None
        assert again.decision.kept, again.decision
        assert again.version == first.version


def test_another_catalogue_replaces_the_model() -> None:
    first = trained(shop(SHOP))
    after = trained(shop(OTHER_SHOP), first)
    assert after.decision is not None
    assert not after.decision.kept
    assert "has no cluster for 100.0% more of the sessions" in after.decision.reason
    assert after.version != first.version
    assert after.change.retired == [0, 1, 2]


def test_other_things_under_the_same_words_replace_the_model() -> None:
    """Every word is known, so nothing is lost; only the clusters no longer tell what goes together."""
    mixed = {"a": ["gaming dress", "dress laptop"], "b": ["red chair", "wooden handbag"], "c": ["lamp shoes"]}
    now = {"a": ["gaming red", "laptop dress", "red laptop"], "b": ["garden handbag", "table shoes"], "c": ["keyboard"]}
    first = trained(shop({**SHOP, **mixed}))
    after = trained(shop(now), first)
    assert after.decision is not None
    assert not after.decision.kept
    assert after.decision.gain is not None
    assert after.decision.gain >= 0.03
    assert "better by" in after.decision.reason


def test_a_new_department_that_the_model_cannot_place_replaces_it() -> None:
    first = trained(shop(SHOP))
    more = shop({**SHOP, "pets": OTHER_SHOP["pets"]})
    after = trained(more, first)
    assert after.decision is not None
    assert not after.decision.kept
    assert "no cluster for 25.0%" in after.decision.reason


@pytest.mark.parametrize(
    "chosen",
    [{"k": 4}, {"seed": 7}, {"method": "spherical"}, {"k": "auto", "k_max": 4}, {"n_init": 3}],
    ids=lambda chosen: next(iter(chosen)),
)
def test_other_settings_ask_for_another_model(chosen: dict[str, object]) -> None:
    first = trained(shop(SHOP))
    after = trained(shop(SHOP), first, **chosen)
    assert after.decision is not None
    assert not after.decision.kept
    assert f"clusters.{next(iter(chosen))}" in after.decision.reason


def test_other_vectors_ask_for_another_model_and_the_rule_itself_does_not() -> None:
    sessions = shop(SHOP)
    first = trained(sessions)
    wider = vectorize(sessions.table["search_query"], PLAIN.model_copy(update={"ngram_max": 2}))
    after = retrain(wider, sessions.user_numbers(), first.settings, first)
    assert after.decision is not None
    assert after.decision.reason == "other settings: vectors.ngram_max"
    stricter = trained(sessions, first, min_gain=0.5)
    assert stricter.decision is not None
    assert stricter.decision.kept


def test_k_auto_is_the_same_question_again() -> None:
    first = trained(shop(SHOP), k="auto", k_min=2, k_max=5)
    again = trained(part(shop(SHOP), 0.9, 3), first, k="auto", k_min=2, k_max=5)
    assert again.decision is not None
    assert again.decision.kept
    assert again.version == first.version


def test_always_replaces_whatever_it_is_worth() -> None:
    first = trained(shop(SHOP))
    after = trained(shop(SHOP, seed=2), first, retrain="always")
    assert after.decision is not None
    assert not after.decision.kept
    assert after.change.kept == [0, 1, 2]


def test_the_margin_decides() -> None:
    """The same two models on the same sessions, with the bar below and above the gain."""
    sessions = generated(1_500)
    poor = trained(sessions, k=5, method="kmeans")
    # in the guise of the method asked for now, so that only what the clusters tell differs
    previous = replace(poor, settings=ClusterSettings(k=5, method="lsa"))
    gain = trained(sessions, previous, k=5).decision
    assert gain is not None
    assert gain.gain is not None
    assert gain.gain > 0.1
    assert not trained(sessions, previous, k=5, min_gain=gain.gain * 0.99).decision.kept  # type: ignore[union-attr]
    assert trained(sessions, previous, k=5, min_gain=gain.gain * 1.01).decision.kept  # type: ignore[union-attr]


def test_few_new_sessions_are_assigned_without_fitting() -> None:
    sessions = shop(SHOP, searches=30)
    first = trained(sessions)
    more = shop({**SHOP, "tech": [*SHOP["tech"], "gaming mouse"]}, searches=31)  # the users' 31st searches come
    again = trained(more, first, refit_share=0.1)
    assert again.decision is not None
    assert again.decision.kept
    assert "came or went since it was last judged" in again.decision.reason
    assert again.decision.gain is None
    assert again.version == first.version
    assert again.queries.equals(vectors(more).queries)
    # counted from when it was fitted, however often it assigned since
    assert renewed(again, vectors(shop(SHOP, users=16, searches=30, seed=1))) > 0.4


def test_after_a_comparison_that_it_won_a_model_is_left_in_peace_until_the_sessions_are_others_again() -> None:
    first = trained(shop(SHOP, searches=20), refit_share=0.1)
    more = shop(SHOP, searches=40)
    compared = trained(more, first, refit_share=0.1)
    assert compared.decision is not None
    assert compared.decision.kept
    assert compared.decision.gain is not None
    again = trained(more, compared, refit_share=0.1)
    assert again.decision is not None
    assert again.decision.gain is None
    assert "0.0% of the sessions" in again.decision.reason
    assert first.version == again.version


def test_sessions_that_the_model_has_no_cluster_for_make_it_fit_again_before_they_are_many() -> None:
    first = trained(shop(SHOP, searches=30))
    strangers = shop({**SHOP, "books": ["crime novel", "thriller paperback"]}, searches=30)
    table = pa.concat_tables([shop(SHOP, searches=30).table, strangers.table.slice(0, 60)])
    mixed = Sessions(table, Intake(table.num_rows, table.num_rows))
    assert renewed(first, vectors(mixed)) < 0.2
    decision = trained(mixed, first, refit_share=0.2).decision
    assert decision is not None
    assert decision.gain is not None


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=12),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=12),
)
def test_what_came_or_went_is_counted_by_query(before: list[str], now: list[str]) -> None:
    words = {"a": "lamp", "b": "red dress", "c": "garden chair", "d": "!"}
    counted = {
        name: vectorize(pa.array([words[letter] for letter in letters] + ["lamp"]), PLAIN)
        for name, letters in (("before", before), ("now", now))
    }
    model = replace(
        trained(shop(SHOP)), judged_queries=counted["before"].queries, judged_counts=counted["before"].counts
    )
    left, came = Counter([*before, "a"]), Counter([*now, "a"])
    most = max(left.total(), came.total())
    assert renewed(model, counted["now"]) == pytest.approx(1 - (left & came).total() / most)


def test_a_model_stored_without_its_queries_is_fitted_again() -> None:
    sessions = shop(SHOP)
    old = replace(
        trained(sessions),
        queries=pa.array([], pa.string()),
        judged_queries=pa.array([], pa.string()),
        judged_counts=np.empty(0, np.int64),
    )
    again = trained(sessions, old, refit_share=0.1)
    assert again.decision is not None
    assert again.decision.gain is not None
    assert again.version == old.version


@given(st.lists(st.sampled_from([q for qs in SHOP.values() for q in qs] + ["dog food", "!!", "laptops"]), max_size=12))
def test_what_is_recalled_is_what_would_be_predicted(queries: list[str]) -> None:
    model = trained(shop(SHOP))
    different = pa.array(sorted(set(queries)), pa.string())
    labels, confidence = model.recall(different)
    expected = model.predict(different.to_pylist())
    assert labels.tolist() == expected[0].tolist()
    assert confidence.tolist() == pytest.approx(expected[1].tolist())


# --- the ruler

partitions = st.lists(st.integers(-1, 3), min_size=6, max_size=6)
WORDS = ["ab", "cd", "ef", "gh", "ij", "kl"]


@given(partitions, st.lists(st.integers(1, 5), min_size=6, max_size=6))
def test_of_queries_of_one_word_it_is_the_mutual_information_of_cluster_and_word(
    clusters: list[int], counts: list[int]
) -> None:
    """scikit-learn counts the same, session by session; and those in no cluster add nothing."""
    tfidf = vectorize(pa.array([word for word, n in zip(WORDS, counts, strict=True) for _ in range(n)]), PLAIN)
    labels = np.array(clusters, dtype=np.int32)
    found = told(tfidf, labels)
    sessions, total = np.repeat(np.arange(6), counts), sum(counts)
    if (labels >= 0).all():
        assert found == pytest.approx(mutual_info_score(labels[sessions], sessions), abs=1e-9)
    shares = {c: sum(n for label, n in zip(clusters, counts, strict=True) if label == c) / total for c in set(clusters)}
    by_hand = sum(n / total * np.log(1 / shares[c]) for c, n in zip(clusters, counts, strict=True) if c >= 0)
    assert found == pytest.approx(by_hand, abs=1e-9)  # a word is in one cluster: all of its surprise


@given(partitions, st.permutations(range(4)))
def test_numbers_of_clusters_do_not_matter(clusters: list[int], other: list[int]) -> None:
    tfidf = vectorize(pa.array(["ab cd", "cd ef", "ef gh", "gh ij", "ij kl", "kl ab"]), PLAIN)
    labels = np.array(clusters, dtype=np.int32)
    renamed = np.array([other[c] if c >= 0 else -1 for c in clusters], dtype=np.int32)
    assert told(tfidf, labels) == pytest.approx(told(tfidf, renamed), abs=1e-12)
    assert 0 <= told(tfidf, labels) <= np.log(4) + 1e-9


def test_one_cluster_or_none_tells_nothing_and_the_truth_most() -> None:
    sessions = shop(SHOP)
    tfidf = vectors(sessions)
    truth = np.array([list(SHOP).index(next(t for t in SHOP if q in SHOP[t])) for q in tfidf.queries.to_pylist()])
    assert told(tfidf, np.zeros(len(truth), np.int32)) == pytest.approx(0)
    assert told(tfidf, np.full(len(truth), -1, np.int32)) == 0
    swapped = truth.copy()
    swapped[0] = (swapped[0] + 1) % 3
    assert told(tfidf, truth) > told(tfidf, swapped) > 0
    assert told(vectorize(pa.array(["!!", "laptop"]), PLAIN), np.array([0, -1], np.int32)) == 0


# --- a model applied to other sessions


@given(st.lists(st.sampled_from([q for qs in SHOP.values() for q in qs] + ["dog food", "!!"]), min_size=1, max_size=30))
@settings(deadline=None, max_examples=30)
def test_a_kept_model_says_of_new_sessions_what_it_predicts_and_counts_them_all(queries: list[str]) -> None:
    model = fit(vectors(shop(SHOP)), shop(SHOP).user_numbers(), ClusterSettings(k=3, method="spherical"))
    tfidf = vectorize(pa.array([*queries, "laptop"]), PLAIN)
    applied = reapply(model, tfidf)
    assert applied.version == model.version
    assert applied.labels.tolist() == model.predict(tfidf.queries.to_pylist())[0].tolist()
    assert applied.sizes == [int(tfidf.counts[applied.labels == cluster].sum()) for cluster in model.cluster_ids]
    assert sum(applied.sizes) + applied.unclustered == len(queries) + 1
    assert applied.centers is model.centers
    assert applied.applied_to == fingerprint(tfidf)


def test_a_kept_model_labels_the_sessions_it_was_applied_to_and_no_others() -> None:
    first = shop(SHOP)
    model = trained(first)
    now = part(first, 0.9, 1)
    kept = trained(now, model)
    assert kept.decision is not None
    assert kept.decision.kept
    found = labeled(now, kept)
    assert found.model_version == model.version
    assert found.table.num_rows == len(now)
    with pytest.raises(StaleModelError, match="one run"):
        labeled(first, kept)
    with pytest.raises(StaleModelError, match="one run"):
        labeled(now, model)


def test_the_fingerprint_is_of_queries_and_counts_not_of_the_vocabulary() -> None:
    one = vectorize(pa.array(["red dress", "laptop", "laptop"]), PLAIN)
    assert fingerprint(one) == fingerprint(
        vectorize(pa.array(["laptop", "red dress", "laptop"]), PLAIN.model_copy(update={"ngram_max": 2}))
    )
    assert fingerprint(one) != fingerprint(vectorize(pa.array(["red dress", "laptop", "red dress"]), PLAIN))
    assert fingerprint(one) != fingerprint(vectorize(pa.array(["red dress", "laptop"]), PLAIN))


# --- users


def served(sessions: Sessions, model: ClusterModel, **chosen: object) -> tuple[LabeledSegments, ClusterModel]:
    found = labeled(sessions, model)
    return with_churn(found, None, made_with(model, LabelSettings(**chosen), TAXONOMY)), model


def moved(sessions: Sessions, users: dict[str, str]) -> Sessions:
    """The sessions, where some users search for one thing only."""
    queries = [
        users.get(user, query)
        for user, query in zip(
            sessions.table["user_id"].to_pylist(), sessions.table["search_query"].to_pylist(), strict=True
        )
    ]
    table = sessions.table.set_column(2, "search_query", pa.array(queries, pa.string()))
    return Sessions(table, sessions.intake)


def test_users_who_search_for_something_else_changed_by_behaviour() -> None:
    before = shop(SHOP)
    first = served(before, trained(before))
    now = moved(before, {"tech-0": "red dress", "home-1": "laptop keyboard"})
    model = trained(now, first[1])
    assert model.decision is not None
    assert model.decision.kept
    churn = with_churn(labeled(now, model), first, made_with(model, LabelSettings(), TAXONOMY)).churn
    assert churn is not None
    assert (churn.users, churn.by_behaviour, churn.by_model, churn.asked) == (24, 2, 0, [])
    assert {(f.before, f.now) for f in churn.flows if f.before != f.now} == {("tech", "fashion"), ("other", "tech")}


def test_users_who_search_as_before_were_moved_by_the_model_and_the_settings_are_named() -> None:
    before = shop(SHOP)
    first = served(before, trained(before))
    model = trained(before, first[1], k=2)
    churn = with_churn(labeled(before, model), first, made_with(model, LabelSettings(), TAXONOMY)).churn
    assert churn is not None
    assert churn.by_behaviour == 0
    assert churn.by_model >= 8
    assert churn.asked == ["clusters.k"]


def test_another_name_for_the_same_cluster_is_the_models_doing_and_asked_for() -> None:
    sessions = shop(SHOP)
    first = served(sessions, trained(sessions))
    renamed = Taxonomy.model_validate({"segments": {"nerds": {"keywords": ["laptop", "keyboard", "monitor"]}}})
    again = label(sessions, vectors(sessions), first[1], renamed, LabelSettings())
    churn = with_churn(again, first, made_with(first[1], LabelSettings(), renamed)).churn
    assert churn is not None
    assert (churn.by_behaviour, churn.by_model) == (0, 16)  # fashion lost its name as well
    assert churn.asked == ["taxonomy"]


def test_a_first_result_counts_its_users_as_come() -> None:
    sessions = shop(SHOP)
    churn = served(sessions, trained(sessions))[0].churn
    assert churn is not None
    assert churn.first
    assert (churn.came, churn.users) == (24, 0)


def test_how_a_model_is_searched_for_is_no_wish_for_other_segments() -> None:
    sessions = shop(SHOP)
    chosen = [
        made_with(trained(sessions, **kind), LabelSettings(taxonomy=path), TAXONOMY)
        for kind, path in (({}, None), ({"seed": 5, "n_init": 2, "retrain": "always", "min_gain": 0.5}, "mine.yaml"))
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != made_with(trained(sessions), LabelSettings(min_share=0.5), TAXONOMY)
    assert chosen[0] != made_with(trained(sessions), LabelSettings(), shipped_taxonomy())


# --- the same everywhere

PROGRAM = """
import hashlib, random, sys
from datetime import UTC, datetime
import numpy as np
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.model import fit
from segmentation_assets.core.sessions import SessionBuilder
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import vectorize

end = datetime(2026, 11, 1, tzinfo=UTC)
documents = list(generate_sessions(1500, 1, end).documents)
random.Random(int(sys.argv[1])).shuffle(documents)
builder = SessionBuilder(end)
for document in documents:
    builder.add(document["session_id"], document)
sessions = builder.finish()
tfidf = vectorize(sessions.table["search_query"], VectorSettings())
for method in sys.argv[2:]:
    model = fit(tfidf, sessions.user_numbers(), ClusterSettings(method=method))
    print(method, hashlib.sha256(model.labels[tfidf.query_of_session].tobytes()).hexdigest())
"""


def test_same_segments_in_another_process_order_and_number_of_threads() -> None:
    """Hash seeds, BLAS and OpenMP threads and the order of the documents all differ; the clusters do not."""

    def run(order: int, threads: int) -> list[str]:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONHASHSEED": str(order)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(order), *available()],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    one, two = run(1, 1), run(2, 2)
    assert len(one) == len(available())
    assert one == two
