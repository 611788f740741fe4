"""Numbers that judge a method must be right themselves: accuracy, composed users, keywords."""

import re
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segmentation_assets.core.clustering import METHODS
from segmentation_assets.core.evaluation import (
    KEYWORDS,
    LEAST_USERS,
    OFF_CLASS,
    LabelledFileError,
    LabelledTexts,
    agreement,
    joined,
    judge_keywords,
    keywords,
    match_classes,
    name_words,
    parse_labelled,
    segment,
    session_case,
    session_clusters,
    user_case,
    user_clusters,
)
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import vectorize

VECTORS = VectorSettings()


def numbers(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def labellings(most: int = 6) -> st.SearchStrategy[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """A class and a cluster (or none) for each of some members."""
    member = st.tuples(st.integers(0, most - 1), st.integers(-1, most - 1))
    return st.lists(member, min_size=1, max_size=60).map(
        lambda pairs: (numbers(*(pair[0] for pair in pairs)), numbers(*(pair[1] for pair in pairs)))
    )


def corpus(sizes: tuple[int, ...]) -> LabelledTexts:
    """Texts that say what they are: 'c3t17' is text 17 of class 3."""
    pairs = [(f"class {c}", f"c{c}t{i}") for c, size in enumerate(sizes) for i in range(size)]
    return LabelledTexts.of([label for label, _ in pairs], [text for _, text in pairs])


def class_of(text: str) -> int:
    found = re.match(r"c(\d+)t", text)
    assert found is not None
    return int(found.group(1))


corpora = st.lists(st.integers(1, 60), min_size=2, max_size=6).map(tuple).map(corpus)


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_line_is_a_label_a_tab_and_a_text() -> None:
    data = parse_labelled("b\tone text\na\ttwo\twith a tab \r\nb\tthrée".encode(), "x.tsv")
    assert data.classes == ("a", "b")
    assert data.truth.tolist() == [1, 0, 1]
    assert data.texts == ("one text", "two\twith a tab", "thrée")


def test_only_a_newline_ends_a_line_and_a_byte_order_mark_is_no_label() -> None:
    data = parse_labelled("\ufeffa\tone\u2028two\nb\tthree\n".encode(), "x.tsv")
    assert data.classes == ("a", "b")
    assert data.texts == ("one\u2028two", "three")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\tone\nb two\n", "x.tsv, line 2: there is no tab."),
        (b"a\tone\n\nb\ttwo\n", "x.tsv, line 2: there is no tab."),
        (b"a\tone\n \ttwo\n", "x.tsv, line 2: the label is empty."),
        (b"a\tone\nb\t \n", "x.tsv, line 2: the text is empty."),
        (b"a\tone\nb\ttw\xff\n", "x.tsv, line 2: it is not UTF-8."),
        (b"a\tone\na\ttwo\n", "x.tsv holds 2 texts with 1 different labels."),
        (b"", "x.tsv holds 0 texts with 0 different labels."),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_its_cure(content: bytes, problem: str) -> None:
    with pytest.raises(LabelledFileError) as caught:
        parse_labelled(content, "x.tsv")
    assert caught.value.problem == problem
    assert caught.value.cure


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\n\r\t"), min_size=1)] * 2).filter(
            lambda pair: all(part == part.strip() and not part.startswith("\ufeff") for part in pair)
        ),
        min_size=2,
    ).filter(lambda pairs: len({label for label, _ in pairs}) > 1)
)
def test_what_was_written_is_read(pairs: list[tuple[str, str]]) -> None:
    data = parse_labelled("".join(f"{label}\t{text}\n" for label, text in pairs).encode(), "x.tsv")
    assert [(data.classes[c], text) for c, text in zip(data.truth, data.texts, strict=True)] == pairs


# --- agreement ------------------------------------------------------------------------------------------------------


@given(labellings(), st.permutations(range(6)))
def test_any_relabelling_of_the_truth_is_all_right(
    pair: tuple[NDArray[np.int32], NDArray[np.int32]], names: list[int]
) -> None:
    truth, _ = pair
    found = agreement(truth, np.array(names, dtype=np.int32)[truth])
    assert found.accuracy == 1
    assert found.nmi == pytest.approx(1)
    assert found.ari == pytest.approx(1)
    assert sum(found.sizes) == len(truth)


@given(labellings(), st.permutations(range(6)), st.randoms(use_true_random=False))
def test_neither_the_order_of_the_rows_nor_the_cluster_ids_matter(
    pair: tuple[NDArray[np.int32], NDArray[np.int32]], names: list[int], random: Any
) -> None:
    truth, clusters = pair
    order = random.sample(range(len(truth)), len(truth))
    renamed = np.where(clusters >= 0, np.array(names, dtype=np.int32)[clusters], -1)
    before, after = agreement(truth, clusters), agreement(truth[order], renamed[order])
    assert after.accuracy == before.accuracy
    assert after.nmi == pytest.approx(before.nmi)
    assert after.ari == pytest.approx(before.ari)
    assert (after.sizes, after.unclustered) == (before.sizes, before.unclustered)


@given(labellings())
def test_one_heap_is_as_right_as_the_largest_class_is_large(
    pair: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> None:
    truth, _ = pair
    heap = agreement(truth, np.zeros_like(truth))
    assert heap.accuracy == Counter(truth.tolist()).most_common(1)[0][1] / len(truth)


@given(labellings(most=4))
def test_accuracy_is_that_of_the_best_of_all_matchings(pair: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    """The slow way: every one-to-one assignment of clusters to classes is tried."""
    truth, clusters = pair

    def best(cluster: int, free: frozenset[int]) -> int:
        if cluster == 4:
            return 0
        here = Counter(truth[clusters == cluster].tolist())
        return max(best(cluster + 1, free), *(here[c] + best(cluster + 1, free - {c}) for c in free), 0)

    assert agreement(truth, clusters).accuracy == best(0, frozenset(range(4))) / len(truth)


@given(labellings())
def test_no_cluster_and_no_class_is_matched_twice(pair: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    matched = match_classes(*pair)
    assert -1 not in matched
    assert len(set(matched.values())) == len(matched)


def test_being_in_no_cluster_is_wrong_even_for_a_whole_class() -> None:
    found = agreement(numbers(0, 0, 1, 1), numbers(-1, -1, 5, 5))
    assert found.accuracy == 0.5
    assert found.unclustered == 2
    assert found.sizes == [2]
    assert agreement(numbers(0, 1), numbers(-1, -1)).accuracy == 0


# --- users ----------------------------------------------------------------------------------------------------------


@given(corpora, st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_no_text_is_used_twice_before_each_of_its_class_was_used_once(
    data: LabelledTexts, queries: int, seed: int
) -> None:
    used = Counter(user_case(data, queries, seed).texts.to_pylist())
    for c in range(len(data.classes)):
        times = [used[text] for text in data.texts if class_of(text) == c]
        assert max(times) - min(times) <= 1


@given(corpora, st.integers(1, 10), st.integers(0, 1000))
def test_a_class_gets_a_user_for_so_many_texts_and_some_in_any_case(
    data: LabelledTexts, queries: int, seed: int
) -> None:
    case = user_case(data, queries, seed)
    sizes = np.bincount(data.truth)
    assert np.bincount(case.truth).tolist() == [max(size // queries, LEAST_USERS) for size in sizes]
    assert np.bincount(case.users).tolist() == [queries] * len(case.truth)


@settings(max_examples=20)
@given(st.lists(st.integers(300, 600), min_size=2, max_size=5), st.sampled_from([1, 3, 5, 10]), st.integers(0, 1000))
def test_about_every_fifth_query_is_of_another_class(sizes: list[int], queries: int, seed: int) -> None:
    case = user_case(corpus(tuple(sizes)), queries, seed)
    own = case.truth[case.users]
    off = np.array([class_of(text) for text in case.texts.to_pylist()]) != own
    assert off.mean() == pytest.approx(OFF_CLASS, abs=5 * (OFF_CLASS * (1 - OFF_CLASS) / len(own)) ** 0.5)


def test_the_other_class_is_drawn_in_proportion_to_its_texts() -> None:
    case = user_case(corpus((3_000, 1_500, 500)), 1, 3)
    texts = np.array([class_of(text) for text in case.texts.to_pylist()])
    off = Counter(texts[(case.truth[case.users] == 0) & (texts != 0)].tolist())
    assert off[1] / off[2] == pytest.approx(3, rel=0.3)


def test_the_same_seed_composes_the_same_users() -> None:
    data = corpus((40, 20))
    one, two, other = (user_case(data, 3, seed) for seed in (1, 1, 2))
    assert one.texts.equals(two.texts)
    assert one.truth.tolist() == two.truth.tolist()
    assert not one.texts.equals(other.texts)


def test_users_of_a_class_do_not_stand_together() -> None:
    assert (np.diff(user_case(corpus((400, 400)), 1, 0).truth) != 0).mean() == pytest.approx(0.5, abs=0.1)


def test_joined_makes_one_document_of_a_users_texts() -> None:
    case = user_case(corpus((30, 30)), 3, 0)
    documents = joined(case)
    assert documents.truth.tolist() == case.truth.tolist()
    assert documents.texts[1].as_py() == " ".join(case.texts.to_pylist()[3:6])
    assert documents.users.tolist() == list(range(len(case.truth)))


def test_a_user_is_where_most_of_their_sessions_are() -> None:
    users = numbers(0, 0, 0, 1, 1, 2, 2, 3, 4, 4)
    clusters = numbers(7, 7, 3, 5, 2, 6, 4, -1, -1, 8)
    sure = np.array([0.1, 0.1, 1, 0.2, 0.9, 0.5, 0.5, 0, 0, 0], dtype=np.float32)
    # most; a tie by confidence; a tie in that too: the lower id; in no cluster at all; only what is in one counts
    assert user_clusters(users, clusters, sure).tolist() == [7, 2, 4, -1, 8]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 3), st.integers(0, 4)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
@example([(3, 0, 0), (3, 0, 1), (3, 0, 2), (3, 3, 0), (3, 3, 0), (3, 3, 3)], Random(0))  # 0.1 + 0.2 and 0.3
def test_a_users_cluster_is_the_same_in_any_order_of_the_sessions(
    sessions: list[tuple[int, int, int]], random: Any
) -> None:
    """And what counting by hand gives."""
    names = sorted({user for user, _, _ in sessions})
    sessions = [(names.index(user), cluster, sure) for user, cluster, sure in sessions]
    expected = []
    for user in range(len(names)):
        mine = [(cluster, sure) for u, cluster, sure in sessions if u == user and cluster >= 0]
        ranked = sorted(
            (-len(sures), -sum(sures), cluster)
            for cluster in {cluster for cluster, _ in mine}
            for sures in [[sure for other, sure in mine if other == cluster]]
        )
        expected.append(ranked[0][2] if ranked else -1)
    for order in (sessions, random.sample(sessions, len(sessions))):
        users, clusters, sure = (np.array(column) for column in zip(*order, strict=True))
        found = user_clusters(users.astype(np.int32), clusters.astype(np.int32), (sure / 10).astype(np.float32))
        assert found.tolist() == expected


# --- keywords -------------------------------------------------------------------------------------------------------

SHOP = LabelledTexts.of(
    ["Sofas", "Sofas", "Sofas", "Sofas", "AreaRugs", "AreaRugs", "WallArt", "WallArt"],
    [
        "red sofa", "green sofa", "sofa bed", "red sofa bed", "red wool rug", "round rug", "canvas print", "blue print"
    ],
)  # fmt: skip
AREA_RUGS, SOFAS, WALL_ART = 0, 1, 2


SHOP_TERMS = vectorize(pa.array(SHOP.texts), VECTORS)


def stands_for(words: list[str], vectors: VectorSettings = VECTORS, data: LabelledTexts = SHOP) -> set[int]:
    """The classes of as many texts as are right when all are in one cluster with these keywords."""
    n, tfidf = len(data.texts), vectorize(pa.array(data.texts), vectors)
    scores = judge_keywords(data, tfidf, np.zeros(n, dtype=np.int32), {0: words})
    sizes = np.bincount(data.truth)
    assert scores.classes_covered in (0, 1 / len(sizes))
    return {c for c in range(len(sizes)) if scores.class_accuracy == sizes[c] / n}


def test_keywords_stand_for_the_class_whose_texts_hold_them() -> None:
    assert stands_for(["sofa", "bed"]) == {SOFAS}
    assert stands_for(["lamp"]) == stands_for([]) == set()


def test_a_large_class_wins_no_vote_by_its_size() -> None:
    """Three of ten lamps are black and one of two rugs."""
    data = LabelledTexts.of(
        ["lamp"] * 10 + ["rug"] * 2, ["black lamp"] * 3 + ["white lamp"] * 7 + ["black rug", "wool rug"]
    )
    lamp, rug = 0, 1
    assert stands_for(["black"], data=data) == {rug}
    assert stands_for(["lamp"], data=data) == {lamp}


def test_a_keyword_has_one_vote_however_common_it_is() -> None:
    """'show' is a little more common among the news; 'rain' is rare, and never among them."""
    data = LabelledTexts.of(
        ["news"] * 10 + ["weather"] * 8, ["show news"] * 9 + ["news"] + ["show weather"] * 6 + ["rain", "weather"]
    )
    news, weather = 0, 1
    assert stands_for(["show"], data=data) == {news}
    assert stands_for(["show", "rain"], data=data) == {weather}


def test_phrases_count_where_the_product_makes_phrases() -> None:
    assert stands_for(["sofa bed"]) == set()
    assert stands_for(["sofa bed"], VectorSettings(ngram_max=2)) == {SOFAS}


def test_label_scores_of_keywords_that_say_what_the_clusters_are() -> None:
    clusters = numbers(4, 4, 4, 4, 9, 9, 6, 6)
    shown = {4: ["sofa", "bed"], 9: ["wool", "rug"], 6: ["print", "canvas"]}
    scores = judge_keywords(SHOP, SHOP_TERMS, clusters, shown)
    assert scores.class_accuracy == 1
    assert scores.classes_covered == 1
    assert scores.name_in_top1 == pytest.approx(1 / 3)  # 'rug' comes second, and nobody says 'art'
    assert scores.name_in_top5 == pytest.approx(2 / 3)
    assert scores.diversity == 1


def test_right_clusters_with_wrong_keywords_are_badly_labelled() -> None:
    clusters = numbers(0, 0, 0, 0, 1, 1, 2, -1)
    scores = judge_keywords(SHOP, SHOP_TERMS, clusters, {0: ["print"], 1: ["print"], 2: ["print"]})
    assert scores.class_accuracy == pytest.approx(1 / 8)  # the print that is in a cluster
    assert scores.classes_covered == pytest.approx(1 / 3)
    assert scores.name_in_top1 == scores.name_in_top5 == 0
    assert scores.diversity == pytest.approx(1 / 3)


@given(st.lists(st.integers(-1, 4), min_size=8, max_size=8), st.permutations(range(5)))
def test_label_scores_are_shares_and_do_not_depend_on_ids(clusters: list[int], names: list[int]) -> None:
    words = ["sofa", "rug", "print", "red", "lamp"]
    one = judge_keywords(SHOP, SHOP_TERMS, numbers(*clusters), {c: [words[c]] for c in range(5)})
    renamed = numbers(*(names[c] if c >= 0 else -1 for c in clusters))
    other = judge_keywords(SHOP, SHOP_TERMS, renamed, {names[c]: [words[c]] for c in range(5)})
    for score in vars(one).values():
        assert 0 <= score <= 1
    assert one.class_accuracy == other.class_accuracy
    assert one.classes_covered == other.classes_covered
    assert one.diversity == other.diversity


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AddToPlaylist", {"add", "playlist"}),
        ("Coffee & Cocktail Tables", {"coffee", "cocktail", "table"}),
        ("search_screening_events", {"search", "screening", "event"}),
        ("GetWeather2", {"get", "weather", "2"}),
        ("Wall Décor", {"wall", "décor"}),
        ("Couches, Dresses and Vanities", {"couch", "dress", "vanity"}),
    ],
)
def test_a_name_is_split_into_its_own_words(name: str, words: set[str]) -> None:
    assert name_words(name) == words


# --- the product's own path -----------------------------------------------------------------------------------------


def plain_corpus() -> LabelledTexts:
    """Three classes that share no word."""
    rng = np.random.default_rng(5)
    vocabulary = {
        "garden": ["garden", "spade", "hedge", "mower", "seeds", "trellis"],
        "kitchen": ["kitchen", "blender", "kettle", "toaster", "whisk", "oven"],
        "music": ["music", "guitar", "drum", "violin", "cymbal", "flute"],
    }
    pairs = [
        (name, " ".join([words[0], *rng.choice(words, size=3).tolist()]))
        for name, words in vocabulary.items()
        for _ in range(40)
    ]
    return LabelledTexts.of([name for name, _ in pairs], [text for _, text in pairs])


@pytest.mark.parametrize("method", ["kmeans", "spherical"])
def test_classes_that_stand_apart_are_found_and_named(method: str) -> None:
    assert method in METHODS
    data = plain_corpus()
    tfidf, model = segment(session_case(data), VECTORS, ClusterSettings.model_validate({"method": method, "k": 3}))
    clusters, confidence = session_clusters(tfidf, model)
    assert len(clusters) == len(confidence) == len(data.texts)
    assert agreement(data.truth, clusters).accuracy == 1
    shown = keywords(tfidf, model)
    assert set(shown) == set(clusters.tolist())
    assert all(len(words) <= KEYWORDS for words in shown.values())
    scores = judge_keywords(data, tfidf, clusters, shown)
    assert scores.class_accuracy == scores.classes_covered == scores.diversity == 1


def test_composed_users_find_back_to_their_class() -> None:
    case = user_case(plain_corpus(), 5, 0)
    assert isinstance(case.texts, pa.Array)
    tfidf, model = segment(case, VECTORS, ClusterSettings.model_validate({"method": "spherical", "k": 3}))
    found = user_clusters(case.users, *session_clusters(tfidf, model))
    assert agreement(case.truth, found).accuracy > 0.9
