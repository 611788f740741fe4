"""Names for clusters: the taxonomy, the evidence, how sure it is, and the segment of each session and user."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.labels import (
    ASSIGNMENT_SCHEMA,
    OTHER,
    SAMPLE_QUERIES,
    ClusterLabel,
    KeywordMatcher,
    LabeledSegments,
    StaleModelError,
    Taxonomy,
    TaxonomyError,
    dominant_segments,
    label,
    parse_taxonomy,
    shipped_taxonomy,
    summarize,
    to_pass_on,
    words,
)
from segmentation_assets.core.matching import CERTAINTY
from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.sessions import Intake, SessionBuilder, Sessions
from segmentation_assets.core.settings import ClusterSettings, LabelSettings, VectorSettings
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize

NOW = datetime(2025, 6, 1, tzinfo=UTC)
TAXONOMY = Taxonomy.model_validate(
    {
        "segments": {
            "fashion": {"keywords": ["dress", "shoe", "leather handbag"]},
            "tech": {"keywords": ["laptop", "keyboard", "4070"]},
            "bargain": {"keywords": ["cheap", "dress sale"]},
        }
    }
)
FASHION = ["red dress", "red dress", "red dress", "dress sale red", "red hat"]
TECH = ["gaming laptop", "gaming laptop", "laptop", "cheap gaming mouse"]


def prepared(*by_user: list[str], k: int = 2) -> tuple[Sessions, TfidfMatrix, ClusterModel]:
    builder = SessionBuilder(NOW)
    for user, queries in enumerate(by_user):
        for number, query in enumerate(queries):
            builder.add(
                f"s{user}-{number:03}",
                {"user_id": f"u{user}", "search_query": query, "timestamp": "2025-05-01T00:00:00Z"},
            )
    sessions = builder.finish()
    tfidf = vectorize(sessions.table["search_query"], VectorSettings())
    return sessions, tfidf, fit(tfidf, sessions.user_numbers(), ClusterSettings(method="lsa", k=k))


def labeled(*by_user: list[str], k: int = 2, **chosen: float) -> LabeledSegments:
    return label(*prepared(*by_user, k=k), TAXONOMY, LabelSettings(**chosen))


def entry_of(found: LabeledSegments, query: str) -> ClusterLabel:
    row = found.table["search_query"].to_pylist().index(query)
    return next(entry for entry in found.labels if entry.cluster == found.table["cluster"][row].as_py())


# --- taxonomy


def test_the_shipped_taxonomy_has_the_three_segments_of_the_product() -> None:
    taxonomy = shipped_taxonomy()
    assert set(taxonomy.segments) == {"tech_enthusiast", "budget_buyer", "fashion_oriented"}
    find = KeywordMatcher(taxonomy).find
    for query, segment in {
        "Gaming Keyboards": "tech_enthusiast",
        "best PRICE tv": "budget_buyer",
        "hoodies for men": "fashion_oriented",
        "t-shirt": "fashion_oriented",
        "graphics cards": "tech_enthusiast",
        "günstig": "budget_buyer",
    }.items():
        assert segment in {name for name, _ in find(query)}, query


def test_no_keyword_of_the_shipped_taxonomy_stands_twice() -> None:
    keywords = [words(keyword) for entry in shipped_taxonomy().segments.values() for keyword in entry.keywords]
    twice = [keyword for keyword, n in Counter(keywords).items() if n > 1]
    assert twice == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("segments: {a: [", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("segments: {a: {keywords: [2024-13-45]}}", "month must be in 1..12"),
        ("", "top level"),
        ("- a\n- b", "top level"),
        ("version: 1", "segments: Field required"),
        ("segments: {}", "segments: Dictionary should have at least 1 item"),
        ("segments: {a: {}}", r"segments\.a\.keywords: Field required"),
        ("segments: {a: {keywords: []}}", r"segments\.a\.keywords: List should have at least 1 item"),
        ("segments: {a: {keywords: dress}}", r"segments\.a\.keywords: Input should be a valid list"),
        ("segments: {a: {keywords: [dress, on]}}", r"segments\.a\.keywords\.1: Input should be a valid string"),
        ("segments: {a: {keywords: [1.5]}}", r"segments\.a\.keywords\.0"),
        ("segments: {a: {keywords: ['!!']}}", "keyword '!!' holds no word"),
        ("segments: {Tech: {keywords: [x]}}", "segment name 'Tech'"),
        ("segments: {'': {keywords: [x]}}", "segment name ''"),
        ("segments: {other: {keywords: [x]}}", "segment name 'other'"),
        ("segments: {4070: {keywords: [x]}}", r"segments\.4070"),
        ("segments: {a: {keywords: [x], keyword: [y]}}", r"segments\.a\.keyword: Extra inputs"),
        ("segmnts: {a: {keywords: [x]}}", "segmnts: Extra inputs"),
    ],
)
def test_a_taxonomy_that_cannot_be_used_is_an_error_that_names_the_file_and_the_entry(text: str, says: str) -> None:
    with pytest.raises(TaxonomyError, match=says) as raised:
        parse_taxonomy(text, "my-taxonomy.yaml")
    assert "my-taxonomy.yaml" in str(raised.value)


# --- labels


def test_a_cluster_is_named_by_the_segment_whose_keywords_most_of_its_sessions_hold() -> None:
    found = labeled(FASHION, TECH)
    fashion, tech = entry_of(found, "red dress"), entry_of(found, "laptop")
    assert (fashion.segment, fashion.sessions, fashion.users) == ("fashion", 5, 1)
    assert fashion.share == pytest.approx(4 / 5)
    assert fashion.evidence == {"dress": pytest.approx(4 / 5)}
    assert (fashion.runner_up, fashion.runner_up_share) == ("bargain", pytest.approx(1 / 5))
    assert (tech.segment, tech.sessions, tech.share) == ("tech", 4, pytest.approx(3 / 4))
    assert tech.evidence == {"laptop": pytest.approx(3 / 4)}
    assert (tech.runner_up, tech.runner_up_share) == ("bargain", pytest.approx(1 / 4))
    assert [entry.sessions for entry in found.labels] == [5, 4]


def test_evidence_and_top_terms_are_ordered_by_weight() -> None:
    found = labeled(["dress shoes", "dress", "dress", "shoe rack"], ["laptop", "laptop case"])
    entry = entry_of(found, "dress")
    assert entry.evidence == {"dress": 0.75, "shoe": 0.5}
    assert list(entry.evidence) == ["dress", "shoe"]
    assert next(iter(entry.top_terms)) == "dress"
    assert list(entry.top_terms.values()) == sorted(entry.top_terms.values(), reverse=True)


def test_a_session_with_two_keywords_of_one_segment_counts_once() -> None:
    entry = entry_of(labeled(["dress shoes", "red hat", "red dress"], ["laptop", "laptop"]), "red hat")
    assert entry.share == pytest.approx(2 / 3)


def test_equal_shares_go_to_the_segment_that_stands_first_in_the_taxonomy() -> None:
    queries = ["cheap laptop", "cheap laptop"], ["red hat", "red coat"]
    entry = entry_of(labeled(*queries), "cheap laptop")
    assert (entry.segment, entry.runner_up, entry.share, entry.runner_up_share) == ("tech", "bargain", 1.0, 1.0)
    turned = Taxonomy(segments=dict(reversed(TAXONOMY.segments.items())))
    entry = entry_of(label(*prepared(*queries), turned, LabelSettings()), "cheap laptop")
    assert (entry.segment, entry.runner_up) == ("bargain", "tech")


@pytest.mark.parametrize(("min_share", "segment"), [(0.8, "fashion"), (0.81, OTHER)])
def test_a_cluster_below_min_share_is_other_but_keeps_its_evidence(min_share: float, segment: str) -> None:
    entry = entry_of(labeled(FASHION, TECH, min_share=min_share), "red dress")
    assert (entry.segment, entry.share) == (segment, pytest.approx(0.8))
    assert entry.evidence == {"dress": pytest.approx(0.8)}


def test_a_cluster_without_a_keyword_is_other_even_at_no_share_at_all() -> None:
    found = labeled(["red hat", "red coat"], TECH, min_share=0)
    entry = entry_of(found, "red hat")
    assert (entry.segment, entry.share, entry.evidence, entry.runner_up, entry.runner_up_share) == (
        OTHER,
        0,
        {},
        None,
        0,
    )


def test_every_session_has_the_segment_of_its_cluster_and_no_session_is_lost() -> None:
    sessions, tfidf, model = prepared(FASHION, TECH, ["for the", "red dress"])
    found = label(sessions, tfidf, model, TAXONOMY, LabelSettings())
    assert found.table.schema == ASSIGNMENT_SCHEMA
    assert found.table["session_id"].equals(sessions.table["session_id"])
    segment_of = dict(zip(found.table["search_query"].to_pylist(), found.table["segment"].to_pylist(), strict=True))
    assert segment_of["red hat"] == "fashion"
    assert segment_of["cheap gaming mouse"] == "tech"
    assert segment_of["for the"] == OTHER
    assert found.unclustered == 1
    lost = found.table.filter(pa.compute.equal(found.table["search_query"], "for the")).to_pylist()[0]
    assert (lost["cluster"], lost["confidence"]) == (-1, 0)
    assert found.model_version == model.version
    assert found.intake == sessions.intake
    assert sum(entry.sessions for entry in found.labels) + found.unclustered == len(sessions)


def test_users_of_a_cluster_are_those_with_a_session_in_it() -> None:
    found = labeled(FASHION, TECH, ["red dress", "laptop"])
    assert [entry_of(found, query).users for query in ("red dress", "laptop")] == [2, 2]


def test_samples_are_the_frequent_queries_of_the_cluster() -> None:
    entry = entry_of(labeled([*FASHION, *(f"dress red{n}" for n in range(9))], TECH), "red dress")
    assert entry.sample_queries[0] == "red dress"
    assert len(entry.sample_queries) == len(set(entry.sample_queries)) == SAMPLE_QUERIES


STALE = {
    "a session more": [FASHION, [*TECH, "laptop"]],
    "as many other sessions": [FASHION, [*TECH[:-1], "cheap gaming cable"]],
    "the same distinct queries, other counts": [[*FASHION[1:], "red hat"], TECH],
    "the same queries in another order": [list(reversed(FASHION)), TECH],
}


@pytest.mark.parametrize("what", STALE)
def test_sessions_that_the_vectors_were_not_made_from_are_refused(what: str) -> None:
    _, tfidf, model = prepared(FASHION, TECH)
    sessions, _, _ = prepared(*STALE[what])
    with pytest.raises(StaleModelError, match="not made from each other"):
        label(sessions, tfidf, model, TAXONOMY, LabelSettings())


@pytest.mark.parametrize("what", list(STALE)[:3])
def test_a_model_that_was_not_made_from_the_vectors_is_refused(what: str) -> None:
    sessions, tfidf, _ = prepared(FASHION, TECH)
    _, _, model = prepared(*STALE[what])
    with pytest.raises(StaleModelError, match="one run"):
        label(sessions, tfidf, model, TAXONOMY, LabelSettings())


# --- how sure, mixed, suggested


def test_certainty_is_the_share_times_its_lead_over_the_runner_up() -> None:
    fashion = entry_of(labeled(FASHION, TECH), "red dress")
    assert (fashion.share, fashion.runner_up_share) == (pytest.approx(4 / 5), pytest.approx(1 / 5))
    assert fashion.certainty == pytest.approx(4 / 5 * (4 / 5) / (4 / 5 + 1 / 5))


def test_a_name_without_a_doubt_has_certainty_1_and_other_has_none() -> None:
    sure = labeled(["red dress", "dress", "dresses"], ["sofa", "sofa bed"])
    assert entry_of(sure, "red dress").certainty == 1
    assert (entry_of(sure, "sofa").segment, entry_of(sure, "sofa").certainty) == (OTHER, 0)


def test_a_guessed_keyword_counts_as_much_as_it_is_sure() -> None:
    found = labeled(["laptopstand", "laptopstand", "red", "red laptopstand"], ["dress"] * 3)
    entry = entry_of(found, "laptopstand")
    assert entry.share == pytest.approx(3 / 4 * CERTAINTY["compound"])
    assert entry.evidence == {"laptop": pytest.approx(3 / 4 * CERTAINTY["compound"])}
    assert entry.segment == "tech"


def test_misspellings_name_a_cluster_where_the_keyword_is_frequent() -> None:
    found = labeled(["red lapotp", "red lapotp", "red laptoop"], ["laptop"] * 40)
    assert entry_of(found, "red lapotp").segment == "tech"


HALF = ["red dress", "red dress", "red laptop", "red laptop", "red hat"]


def test_a_cluster_of_two_segments_is_mixed_and_says_which() -> None:
    entry = entry_of(labeled(HALF, ["sofa", "sofa"]), "red dress")
    assert entry.mixed
    assert (entry.best, entry.runner_up, entry.mix) == ("fashion", "tech", "fashion (40%), tech (40%)")
    assert entry.certainty == pytest.approx(0.4 * 0.5)


@pytest.mark.parametrize(("mixed_share", "mixed"), [(0.4, True), (0.41, False)])
def test_both_segments_of_a_mix_reach_the_configured_share(mixed_share: float, mixed: bool) -> None:
    entry = entry_of(labeled(HALF, ["sofa", "sofa"], mixed_share=mixed_share), "red dress")
    assert (entry.mixed, bool(entry.mix)) == (mixed, mixed)


def test_a_mix_that_has_no_name_is_reported_with_the_two_it_might_have() -> None:
    entry = entry_of(labeled(HALF, ["sofa", "sofa"], min_share=0.5), "red dress")
    assert (entry.segment, entry.mixed, entry.mix) == (OTHER, True, "fashion (40%), tech (40%)")


def test_one_segment_is_no_mix_even_at_no_share_at_all() -> None:
    entry = entry_of(labeled(["red dress", "dress"], ["sofa", "sofa"], mixed_share=0), "red dress")
    assert (entry.mixed, entry.mix) == (False, "")


def test_a_cluster_that_is_other_has_a_readable_name_beside_it() -> None:
    found = labeled(["yoga mat", "yoga mat", "dumbbells", "dumbbells"], ["laptop"] * 3)
    entry = entry_of(found, "yoga mat")
    assert entry.segment == OTHER
    assert set(entry.suggested_name.split(", ")) == {"yoga mat", "dumbbells"}
    assert set(entry.contrastive) == {"yoga", "mat", "dumbbells"}
    assert found.table.filter(pa.compute.equal(found.table["search_query"], "yoga mat"))["segment"][0].as_py() == OTHER


# --- users


def assignments(rows: list[tuple[str, str, int]]) -> pa.Table:
    """ASSIGNMENT_SCHEMA of (user, segment, minute)."""
    return pa.table(
        {
            "session_id": [f"s{n}" for n in range(len(rows))],
            "user_id": [user for user, _, _ in rows],
            "search_query": ["q"] * len(rows),
            "timestamp": [NOW + timedelta(minutes=minute) for _, _, minute in rows],
            "cluster": [0] * len(rows),
            "segment": [segment for _, segment, _ in rows],
            "confidence": [1.0] * len(rows),
        },
        schema=ASSIGNMENT_SCHEMA,
    )


def test_a_users_segment_by_hand() -> None:
    table = assignments(
        [
            ("most", "tech", 1), ("most", "tech", 2), ("most", "fashion", 9), ("most", OTHER, 8),
            ("named", OTHER, 5), ("named", "tech", 1),
            ("latest", "tech", 1), ("latest", "fashion", 2), ("latest", "tech", 3), ("latest", "fashion", 4),
            ("name", "tech", 1), ("name", "fashion", 1),
            ("other", OTHER, 1), ("other", OTHER, 2), ("other", "tech", 3),
            ("single", "fashion", 0),
        ]
    )  # fmt: skip
    assert dominant_segments(table).to_pylist() == [
        {"user_id": "latest", "segment": "fashion", "sessions": 2, "total": 4},
        {"user_id": "most", "segment": "tech", "sessions": 2, "total": 4},
        {"user_id": "name", "segment": "fashion", "sessions": 1, "total": 2},
        {"user_id": "named", "segment": "tech", "sessions": 1, "total": 2},
        {"user_id": "other", "segment": OTHER, "sessions": 2, "total": 3},
        {"user_id": "single", "segment": "fashion", "sessions": 1, "total": 1},
    ]


searches = st.lists(
    st.tuples(st.sampled_from("ab10é"), st.sampled_from(["tech", "fashion", "bargain", OTHER]), st.integers(0, 3)),
    max_size=30,
)


@given(searches, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_users_segment_is_what_a_naive_count_gives_in_any_order(
    rows: list[tuple[str, str, int]], chance: object
) -> None:
    expected = []
    for user in sorted({user for user, _, _ in rows}, key=str.encode):
        mine = [(segment, minute) for name, segment, minute in rows if name == user]
        by_segment = {segment: [minute for name, minute in mine if name == segment] for segment, _ in mine}
        best = min(by_segment, key=lambda s: (-len(by_segment[s]), s == OTHER, -max(by_segment[s]), s))
        expected.append({"user_id": user, "segment": best, "sessions": len(by_segment[best]), "total": len(mine)})
    assert dominant_segments(assignments(rows)).to_pylist() == expected
    assert dominant_segments(assignments(chance.sample(rows, len(rows)))).to_pylist() == expected


# --- summary


def test_the_summary_by_hand() -> None:
    found = labeled([*FASHION, "laptop"], TECH, ["for the"])
    summary = summarize(found).set_index("segment")
    assert list(summary.index) == ["fashion", "tech", OTHER]
    assert summary["sessions"].to_dict() == {"fashion": 5, "tech": 5, OTHER: 1}
    assert summary["users"].to_dict() == {"fashion": 1, "tech": 1, OTHER: 1}
    assert summary["share"].sum() == pytest.approx(1)
    assert summary.loc[OTHER, "clusters"] == []
    assert summary.loc[OTHER, "keywords"] == []
    assert summary.loc["fashion", "clusters"] == [entry_of(found, "red dress").cluster]
    assert summary.loc["fashion", "keywords"][0] in {"red", "dress"}
    assert summary.loc["tech", "sample_queries"][0] in {"laptop", "gaming laptop"}


@given(st.lists(st.lists(st.sampled_from([*FASHION, *TECH, "for the", "sofa", "chair"]), min_size=1, max_size=8),
                min_size=1, max_size=6))  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_the_summary_adds_up_to_all_sessions_and_all_users(by_user: list[list[str]]) -> None:
    by_user = [*by_user, ["red dress", "laptop", "sofa"], ["red dress", "sofa"], ["laptop"]]
    found = labeled(*by_user)
    summary = summarize(found)
    assert summary["sessions"].sum() == sum(map(len, by_user)) == found.table.num_rows
    assert summary["users"].sum() == len(by_user)
    assert summary["share"].sum() == pytest.approx(1)
    assert sorted(np.concatenate(summary["clusters"].tolist()).tolist()) == sorted(e.cluster for e in found.labels)
    assert summary["sessions"].is_monotonic_decreasing
    assert all(len(samples) <= SAMPLE_QUERIES for samples in summary["sample_queries"])


def test_a_segment_with_nobodys_preference_has_sessions_and_no_users() -> None:
    table = assignments([("a", "fashion", 1), ("a", "fashion", 2), ("a", "tech", 3)])
    summary = summarize(LabeledSegments(table, [], "v", 0, Intake(3, 3))).set_index("segment")
    assert summary["users"].to_dict() == {"fashion": 1, "tech": 0}
    assert summary["sessions"].to_dict() == {"fashion": 2, "tech": 1}


def test_nothing_labelled_is_an_empty_summary_with_all_columns() -> None:
    summary = summarize(LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [], "v", 0, Intake(0, 0)))
    assert summary.empty
    assert list(summary.columns) == ["segment", "users", "sessions", "share", "clusters", "keywords", "sample_queries"]


def test_what_is_passed_on_shows_only_what_several_people_typed() -> None:
    people = [FASHION, TECH, FASHION, TECH, FASHION, TECH, ["anna meier hiv test result"] * 40]
    sessions, tfidf, model = prepared(*people, k=3)
    labeled = label(sessions, tfidf, model, TAXONOMY, LabelSettings())
    private = {"anna", "meier", "hiv", "result"}
    assert private & {term for entry in labeled.labels for term in entry.top_terms}
    shown = to_pass_on(labeled, tfidf, 3)
    said = {
        text
        for entry in shown.labels
        for texts in (entry.top_terms, entry.contrastive, entry.sample_queries, entry.suggested_name.split())
        for text in texts
    }
    assert not any(word in text for text in said for word in private)
    assert {"dress", "laptop", "red dress", "gaming laptop"} <= said
    assert [entry.segment for entry in shown.labels] == [entry.segment for entry in labeled.labels]
    assert {term for entry in to_pass_on(labeled, tfidf, 4).labels for term in entry.top_terms} == set()
