"""Words near a keyword in meaning: the least sure match, and only where nothing else explains the word."""

import pytest

from segmentation_assets.core.encoder import missing
from segmentation_assets.core.matching import CERTAINTY, KeywordMatcher
from segmentation_assets.core.meaning import LEAST_SESSIONS, learn_meanings
from segmentation_assets.core.taxonomy import SegmentEntry, Taxonomy

TAXONOMY = Taxonomy(
    segments={
        "tech": SegmentEntry(keywords=["smartphone", "printer"]),
        "fashion": SegmentEntry(keywords=["shoe", "clothes"]),
    }
)
needs_the_extra = pytest.mark.skipif(bool(missing()), reason="the extra [embeddings] is not installed")


def test_a_learned_word_counts_for_its_keyword_with_the_least_certainty() -> None:
    matcher = KeywordMatcher(TAXONOMY)
    assert matcher.find("new samsung") == {}
    matcher.learn({"samsung": "smartphone"})
    match = matcher.find("new samsung")["tech", "smartphone"]
    assert (match.kind, match.certainty, match.typed) == ("meaning", min(CERTAINTY.values()), "samsung")


def test_what_a_word_is_goes_before_what_it_might_mean() -> None:
    matcher = KeywordMatcher(TAXONOMY)
    matcher.learn({"printer": "shoe"})
    assert set(matcher.find("printer")) == {("tech", "printer")}


@needs_the_extra
def test_words_used_alike_are_learned_and_others_are_not() -> None:
    frequencies = {"samsung": 9, "sneakers": 9, "banana": 9, "shoe": 20}
    learned = learn_meanings(KeywordMatcher(TAXONOMY), frequencies, 0.6)
    assert learned["samsung"] == "smartphone"
    assert "banana" not in learned
    assert "shoe" not in learned


@needs_the_extra
def test_a_rare_word_is_left_alone_and_a_strict_bound_learns_nothing() -> None:
    matcher = KeywordMatcher(TAXONOMY)
    assert learn_meanings(matcher, {"samsung": LEAST_SESSIONS - 1}, 0.1) == {}
    assert learn_meanings(matcher, {"samsung": 9}, 1.0) == {}
    assert learn_meanings(KeywordMatcher(Taxonomy.model_construct(segments={})), {"samsung": 9}, 0.1) == {}
