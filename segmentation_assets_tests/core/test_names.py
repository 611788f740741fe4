"""Words for a cluster that nobody wrote down: contrastive terms, a readable name, typical queries."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segmentation_assets.core.names import (
    contrastive_terms,
    distinct_words,
    phrases,
    suggested_names,
    typical_queries,
)
from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize

REAL = Path(__file__).parents[3] / "shared" / "data"

clusterings = st.lists(
    st.tuples(
        st.sampled_from(
            ["red dress", "dress red", "red hat", "usb cable", "usb hub", "for the", "gaming laptop", "hat"]
        ),
        st.integers(-1, 3),
    ),
    min_size=1,
    max_size=25,
).filter(lambda rows: any(query != "for the" for query, _ in rows))


def clustered(by_cluster: dict[int, list[str]]) -> tuple[TfidfMatrix, NDArray[np.int32]]:
    """The queries of each cluster, and the cluster of each distinct query; the first cluster that names it has it."""
    tfidf = vectorize(pa.array([query for queries in by_cluster.values() for query in queries]), VectorSettings())
    of_query = {query: cluster for cluster, queries in reversed(by_cluster.items()) for query in queries}
    return tfidf, np.array([of_query[query] for query in tfidf.queries.to_pylist()], dtype=np.int32)


def from_rows(rows: list[tuple[str, int]]) -> tuple[TfidfMatrix, NDArray[np.int32]]:
    by_cluster: dict[int, list[str]] = {}
    for query, cluster in rows:
        by_cluster.setdefault(cluster, []).append(query)
    return clustered(by_cluster)


SHOP = {
    0: ["yoga mat", "yoga mat", "thick yoga mat", "dumbbells", "dumbbells", "cheap dumbbells", "bike", "cheap bike"],
    1: ["hair dryer", "hair dryer", "shampoo", "cheap shampoo", "dry shampoo", "shampoo", "mascara", "mascara"],
}


# --- contrastive terms


def test_terms_are_weighted_as_the_paper_says() -> None:
    """c-TF-IDF by hand: share of the cluster's words, times ln(1 + mean words / occurrences everywhere)."""
    tfidf, labels = clustered({0: ["red dress", "red dress", "red hat", "hat"], 5: ["red usb", "red usb"]})
    found = contrastive_terms(tfidf, labels, 10)
    words = [7, 4]  # occurrences of terms in each cluster
    assert found[0] == pytest.approx(
        {
            "dress": 2 / 7 * np.log1p(np.mean(words) / 2),
            "hat": 2 / 7 * np.log1p(np.mean(words) / 2),
            "red": 3 / 7 * np.log1p(np.mean(words) / 5),
        }
    )
    assert found[5]["usb"] == pytest.approx(2 / 4 * np.log1p(np.mean(words) / 2))
    assert list(found[5]) == ["usb", "red"]


def test_what_one_cluster_has_more_of_than_the_others_comes_first() -> None:
    tfidf, labels = clustered(SHOP)
    found = contrastive_terms(tfidf, labels, 3)
    assert set(found) == {0, 1}
    assert "cheap" not in {*found[0], *found[1]}
    assert next(iter(found[1])) == "shampoo"


def test_terms_of_a_single_session_are_left_out_where_there_are_others() -> None:
    tfidf, labels = clustered({0: ["red dress", "red hat"], 1: ["usb"]})
    assert list(contrastive_terms(tfidf, labels, 10)[0]) == ["red"]
    assert list(contrastive_terms(tfidf, labels, 10)[1]) == ["usb"]


@given(clusterings, st.integers(1, 6))
def test_each_cluster_gets_its_own_terms_heaviest_first(rows: list[tuple[str, int]], n: int) -> None:
    tfidf, labels = from_rows(rows)
    found = contrastive_terms(tfidf, labels, n)
    assert set(found) == set(labels[labels >= 0].tolist())
    for cluster, terms in found.items():
        mine = " ".join(q for q, c in zip(tfidf.queries.to_pylist(), labels, strict=True) if c == cluster).split()
        assert len(terms) <= n
        assert set(terms) <= set(mine)
        assert all(weight > 0 for weight in terms.values())
        assert list(terms.values()) == sorted(terms.values(), reverse=True)


@given(clusterings, st.permutations(range(4)))
def test_the_numbers_of_the_clusters_do_not_matter(rows: list[tuple[str, int]], other: list[int]) -> None:
    tfidf, labels = from_rows(rows)
    renamed = np.array([other[c] if c >= 0 else -1 for c in labels], dtype=np.int32)
    before, after = contrastive_terms(tfidf, labels, 5), contrastive_terms(tfidf, renamed, 5)
    assert {other[c]: list(terms) for c, terms in before.items()} == {c: list(terms) for c, terms in after.items()}


def test_no_cluster_has_no_terms() -> None:
    tfidf, labels = clustered({-1: ["red dress"]})
    assert (
        contrastive_terms(tfidf, labels, 3) == suggested_names(tfidf, labels) == typical_queries(tfidf, labels, 3) == {}
    )


# --- names


def test_a_name_is_of_contrastive_words_and_of_words_that_stand_together() -> None:
    names = suggested_names(*clustered(SHOP))
    assert set(names[0].split(", ")) == {"yoga mat", "dumbbells", "bike"}
    assert set(names[1].split(", ")) >= {"shampoo", "hair dryer"}


def test_a_heavy_word_does_not_join_one_of_its_many_neighbours() -> None:
    queries = ["headphones"] * 8 + ["cancelling headphones"] * 2 + ["red headphones", "gaming headphones"]
    tfidf, labels = clustered({0: queries, 1: ["sofa", "sofa"]})
    assert suggested_names(tfidf, labels)[0].split(", ")[0] == "headphones"


def test_words_stand_in_a_name_as_people_type_them_most() -> None:
    """Not stemmed, not in two forms."""
    queries = ["dresses"] * 5 + ["red dress", "batteries", "batteries", "battery"]
    assert suggested_names(*clustered({0: queries, 1: ["sofa"] * 3}))[0] == "dresses, batteries"


def test_clusters_with_the_same_heaviest_words_get_different_names() -> None:
    tfidf, labels = clustered({0: ["sofa lamp rug desk"] * 4, 1: ["sofa lamp rug chair"] * 4, 2: ["tent"] * 2})
    names = suggested_names(tfidf, labels)
    assert len(set(names.values())) == 3


@given(clusterings)
def test_every_cluster_with_a_term_has_a_name_of_its_own_words(rows: list[tuple[str, int]]) -> None:
    tfidf, labels = from_rows(rows)
    for cluster, name in suggested_names(tfidf, labels).items():
        mine = [q for q, c in zip(tfidf.queries.to_pylist(), labels, strict=True) if c == cluster]
        assert set(name.replace(",", "").split()) <= set(" ".join(mine).split())
        assert bool(name) == any(query != "for the" for query in mine)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["shoes", "shoe"], ["shoes"]), (["earbuds", "earb", "earbu"], ["earbuds"]),
        (["headphones", "phones"], ["headphones"]), (["keyboard", "keybord"], ["keyboard"]),
        (["laptop", "lapotp"], ["laptop"]), (["shirt", "short"], ["shirt", "short"]),
        (["sheet", "sheep"], ["sheet", "sheep"]), (["car", "carpet"], ["car", "carpet"]),
        (["4070", "4080"], ["4070", "4080"]), (["décor", "decor"], ["décor"]), ([], []),
    ],
)  # fmt: skip
def test_of_the_forms_of_a_word_the_first_is_shown(words: list[str], shown: list[str]) -> None:
    assert distinct_words(words) == shown


def test_words_that_stand_together_are_joined_in_their_order() -> None:
    tfidf, labels = clustered({0: ["air fryer"] * 3 + ["fryer"] + ["air mattress"], 1: ["sofa"] * 2})
    members = np.flatnonzero(labels == 0)
    assert phrases(tfidf, members, ["fryer", "air", "mattress"]) == ["air fryer", "mattress"]
    assert phrases(tfidf, members, ["sofa"]) == ["sofa"]


# --- typical queries


def test_typical_queries_are_frequent_and_near_the_middle() -> None:
    queries = ["red dress"] * 6 + ["dress"] * 4 + ["dress for a wedding guest"] + ["umbrella"] * 3
    tfidf, labels = clustered({0: queries, 1: ["sofa"] * 9})
    assert typical_queries(tfidf, labels, 2) == {0: ["red dress", "dress"], 1: ["sofa"]}


def test_what_is_in_the_middle_but_hardly_ever_typed_is_not_typical() -> None:
    colours = [f"{colour} dress" for colour in ("red", "blue", "pink", "green", "grey", "black")]
    tfidf, labels = clustered({0: [*colours * 5, "red dress", "dress"], 1: ["sofa"] * 60})
    assert typical_queries(tfidf, labels, 1)[0] == ["red dress"]


def test_of_queries_with_the_same_words_the_most_frequent_stands_for_all() -> None:
    tfidf, labels = clustered({0: ["dress red", "red dress", "red dress", "Red Dress", "hat"]})
    found = typical_queries(tfidf, labels, 5)[0]
    assert found == ["red dress", "hat"]


@given(clusterings, st.integers(1, 4))
def test_typical_queries_are_real_ones_of_the_cluster(rows: list[tuple[str, int]], n: int) -> None:
    tfidf, labels = from_rows(rows)
    found = typical_queries(tfidf, labels, n)
    assert set(found) == set(labels[labels >= 0].tolist())
    for cluster, queries in found.items():
        mine = {q for q, c in zip(tfidf.queries.to_pylist(), labels, strict=True) if c == cluster}
        assert 1 <= len(queries) == len(set(queries)) <= n
        assert set(queries) <= mine


# --- real texts, where the classes are known


@pytest.mark.skipif(not REAL.is_dir(), reason="the labelled data sets are not here")
@pytest.mark.parametrize(("name", "least"), [("snips7", 4), ("wands_ge5", 18)])
def test_the_name_of_a_true_class_begins_with_a_word_of_the_classs_own_name(name: str, least: int) -> None:
    """In most of them: what a person called the class is what sets its texts apart."""
    rows = [line.rstrip("\n").split("\t", 1) for line in (REAL / f"{name}.tsv").open(encoding="utf-8")]
    classes = sorted({label for label, _ in rows})
    tfidf = vectorize(pa.array([text for _, text in rows]), VectorSettings())
    of_text = {text: classes.index(label) for label, text in reversed(rows)}
    labels = np.array([of_text[text] for text in tfidf.queries.to_pylist()], dtype=np.int32)
    names = suggested_names(tfidf, labels)
    right = sum(
        any(word.rstrip("s") in classes[cluster].lower() for word in text.split(", ")[0].split())
        for cluster, text in names.items()
    )
    assert right >= least, names
