"""Drafts of what a taxonomy lacks, and findings about what in it does not work."""

from datetime import UTC, datetime

import numpy as np
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segmentation_assets.core.labels import OTHER, LabeledSegments, label
from segmentation_assets.core.model import fit
from segmentation_assets.core.sessions import SessionBuilder
from segmentation_assets.core.settings import ClusterSettings, LabelSettings, VectorSettings
from segmentation_assets.core.taxonomy import Taxonomy, parse_taxonomy
from segmentation_assets.core.taxonomy_review import Finding, Review, Suggestion, as_yaml, review, suggest
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize

NOW = datetime(2025, 6, 1, tzinfo=UTC)
FASHION = (
    ["red dress"] * 3 + ["summer dress"] * 2 + ["dress shoes"] * 2 + ["black jumpsuit", "jumpsuit", "red jumpsuit"]
)
SPORT = ["yoga mat"] * 4 + ["thick yoga mat", "dumbbells", "dumbbells", "cheap dumbbells", "yoga dumbbells", "bike"]
TECH = ["gaming laptop"] * 3 + ["laptop"] * 2 + ["gaming mouse"] * 3 + ["cheap gaming laptop", "gaming dress"]
TAXONOMY = Taxonomy.model_validate(
    {
        "segments": {
            "fashion": {"keywords": ["dress", "shoe", "kaftan"]},
            "tech": {"keywords": ["laptop", "gaming"]},
        }
    }
)
Run = tuple[TfidfMatrix, NDArray[np.int32], LabeledSegments, Taxonomy]


def run_of(*groups: list[str], taxonomy: Taxonomy = TAXONOMY, users: int = 3) -> Run:
    """One cluster for each group of queries, as a run would have left it; each group has users of its own."""
    builder = SessionBuilder(NOW)
    for group, queries in enumerate(groups):
        for number, query in enumerate(queries):
            user = f"u{group}-{number % users}"
            document = {"user_id": user, "search_query": query, "timestamp": "2025-05-01T00:00:00Z"}
            builder.add(f"s{group}-{number:03}", document)
    sessions = builder.finish()
    tfidf = vectorize(sessions.table["search_query"], VectorSettings())
    model = fit(tfidf, sessions.user_numbers(), ClusterSettings(k=len(groups)))
    return tfidf, model.labels, label(sessions, tfidf, model, taxonomy, LabelSettings()), taxonomy


def found(answer: Review, kind: str) -> list[tuple[str, str | None, str | None, str | None]]:
    return [(f.segment, f.keyword, f.other_segment, f.other_keyword) for f in answer.findings if f.kind == kind]


# --- suggest


def test_a_cluster_without_a_name_becomes_a_new_entry() -> None:
    suggestion = suggest(*run_of(FASHION, SPORT, TECH))
    (draft,) = suggestion.segments
    assert draft.sessions == 10
    assert draft.users == 3
    assert {"yoga mat", "dumbbells"} <= {word.keyword for word in draft.keywords}
    assert draft.segment.startswith(("yoga_mat", "dumbbells"))
    assert "yoga mat" in draft.sample_queries


def test_a_drafts_numbers_are_what_its_keyword_would_match() -> None:
    (draft,) = suggest(*run_of(FASHION, SPORT, TECH)).segments
    word = next(word for word in draft.keywords if word.keyword == "yoga mat")
    assert (word.sessions, word.users, word.share, word.gain) == (5, 3, 1.0, 5)


def test_a_segment_gets_the_words_of_its_uncovered_sessions_that_are_tied_to_it() -> None:
    suggestion = suggest(*run_of(FASHION, SPORT, TECH))
    (more,) = suggestion.keywords
    assert (more.segment, more.sessions, more.uncovered) == ("fashion", 10, 3)
    assert [word.keyword for word in more.keywords] == ["jumpsuit"]
    assert (more.keywords[0].sessions, more.keywords[0].gain) == (3, 3)


def test_what_a_keyword_covers_already_is_not_drafted() -> None:
    """'summer' stands in no session that lacks a keyword, and 'jumpsuit' is known here."""
    taxonomy = Taxonomy.model_validate(
        {"segments": {"fashion": {"keywords": ["dress", "jumpsuits"]}, "tech": {"keywords": ["laptop", "gaming"]}}}
    )
    assert suggest(*run_of(FASHION, SPORT, TECH, taxonomy=taxonomy)).keywords == []


def test_the_words_of_a_single_user_are_chance() -> None:
    assert suggest(*run_of(FASHION, SPORT, TECH, users=1)) == Suggestion([], [])


def test_accepting_the_drafts_names_the_cluster() -> None:
    """The YAML is a taxonomy, and with it nothing is left to suggest."""
    run = run_of(FASHION, SPORT, TECH)
    suggestion = suggest(*run)
    drafted = parse_taxonomy(as_yaml(suggestion), "drafts")
    assert list(drafted.segments) == [draft.segment for draft in suggestion.segments]
    both = Taxonomy(segments=TAXONOMY.segments | drafted.segments)
    again = run_of(FASHION, SPORT, TECH, taxonomy=both)
    assert OTHER not in {entry.segment for entry in again[2].labels}
    assert suggest(*again).segments == []


def test_the_yaml_says_what_a_draft_rests_on() -> None:
    text = as_yaml(suggest(*run_of(FASHION, SPORT, TECH)))
    for part in (
        "# cluster",
        "10 sessions, 3 users",
        "# e.g. yoga mat",
        "5 sessions of 3 users",
        "# fashion: 3 of its 10",
    ):
        assert part in text
    assert "jumpsuit" not in yaml.safe_load(text)["segments"]  # in a comment: that is for a person to say


def test_nothing_to_suggest_is_said_and_is_yaml_too() -> None:
    text = as_yaml(Suggestion([], []))
    assert "Nothing is missing" in text
    assert yaml.safe_load(text) is None


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
@settings(deadline=None, max_examples=15)
def test_whatever_people_type_the_yaml_stays_a_taxonomy(texts: list[str]) -> None:
    """Line breaks, quotes, colons, `on`, control characters."""
    tricky = [query for text in [*texts, "on: off #1", "null", "yes\x1b[31m red", "a: b\n- c"] for query in [text] * 3]
    run = run_of([*tricky, *SPORT], TECH)
    suggestion = suggest(*run)
    text = as_yaml(suggestion)
    assert all(character.isprintable() or character == "\n" for character in text)
    if suggestion.segments:
        assert [entry.keywords for entry in parse_taxonomy(text, "drafts").segments.values()] == [
            [word.keyword for word in draft.keywords] for draft in suggestion.segments
        ]


# --- check


def test_keywords_that_no_query_holds_are_named() -> None:
    assert found(review(*run_of(FASHION, SPORT, TECH)), "never") == [("fashion", "kaftan", None, None)]


def test_an_entry_that_never_matches_is_one_finding() -> None:
    taxonomy = Taxonomy(
        segments=TAXONOMY.segments | parse_taxonomy("segments: {b: {keywords: [x1, x2]}}", "t").segments
    )
    never = found(review(*run_of(FASHION, SPORT, TECH, taxonomy=taxonomy)), "never")
    assert ("b", None, None, None) in never
    assert ("b", "x1", None, None) not in never


def test_a_word_that_is_written_twice_is_a_duplicate() -> None:
    """Also in another form, or in another segment."""
    text = "segments: {a: {keywords: [dress, Dresses, robe, dress]}, b: {keywords: [Robes, laptop]}}"
    answer = review(*run_of(FASHION, TECH, taxonomy=parse_taxonomy(text, "t")))
    assert found(answer, "duplicate") == [
        ("a", "Dresses", "a", "dress"),
        ("a", "dress", "a", "dress"),
        ("b", "Robes", "a", "robe"),
    ]


def test_keywords_of_two_segments_in_the_same_queries_overlap() -> None:
    text = "segments: {a: {keywords: [dress, laptop]}, b: {keywords: [summer]}}"
    answer = review(*run_of([*FASHION, "summer dress"], TECH, taxonomy=parse_taxonomy(text, "t")))
    assert found(answer, "overlap") == [("b", "summer", "a", "dress")]
    assert next(f for f in answer.findings if f.kind == "overlap").sessions == 3


def test_a_keyword_that_can_add_nothing_to_its_own_segment_is_redundant() -> None:
    """'dress shoes' is nothing but 'dress' in longer; two words that happen to stand together are fine."""
    text = "segments: {a: {keywords: [dress, dress shoes, summer]}, b: {keywords: [laptop]}}"
    answer = review(*run_of([*FASHION, "dress shoes", "summer dress"], TECH, taxonomy=parse_taxonomy(text, "t")))
    assert found(answer, "redundant") == [("a", "dress shoes", "a", "dress")]


def test_a_keyword_as_frequent_under_another_name_is_ambiguous() -> None:
    text = "segments: {a: {keywords: [dress, jumpsuit, cheap]}, b: {keywords: [laptop, gaming]}}"
    fashion, tech = [*FASHION, "cheap dress", "cheap jumpsuit"], [*TECH, "cheap laptop", "cheap laptop"]
    answer = review(*run_of(fashion, tech, taxonomy=parse_taxonomy(text, "t")))
    (finding,) = [f for f in answer.findings if f.kind == "ambiguous"]
    assert (finding.segment, finding.keyword, finding.other_segment, finding.sessions) == ("a", "cheap", "b", 3)
    assert "2 sessions of clusters named a and in 3 of clusters named b" in finding.message


def test_a_keyword_that_is_mostly_where_it_belongs_is_not_ambiguous() -> None:
    fashion, tech = [*FASHION, *["dress"] * 4], [*TECH, "laptop dress", "gaming dress"]
    answer = review(*run_of(fashion, SPORT, tech))
    assert sum(query.count("dress") for query in tech) == 3
    assert found(answer, "ambiguous") == []


def test_guesses_are_shown_and_are_no_findings() -> None:
    answer = review(*run_of([*FASHION, "derss", "summerdress"], SPORT, [*TECH, "lap top"]))
    assert {(r.typed, r.keyword, r.kind, r.sessions) for r in answer.readings} >= {
        ("summerdress", "dress", "compound", 1),
        ("lap top", "laptop", "apart", 1),
    }
    assert {finding.kind for finding in answer.findings} == {"never"}


def test_sessions_with_a_keyword_are_counted() -> None:
    answer = review(*run_of(FASHION, SPORT, TECH))
    assert (answer.sessions, answer.matched) == (30, 7 + 10)


def test_a_taxonomy_that_fits_has_no_findings() -> None:
    text = "segments: {a: {keywords: [dress, jumpsuit]}, b: {keywords: [laptop, mouse]}}"
    answer = review(*run_of(FASHION[:-1], TECH[:-1], taxonomy=parse_taxonomy(text, "t")))
    assert answer.findings == list[Finding]()
