"""Explanations: what a profile and the cards say, in sentences, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.users.explain import explain, flat_features
from segmentation_assets.core.users.personas import NOISE_NAME, Persona, Personas, Trait


def statistics(mean: float, std: float, count: int = 50) -> dict[str, float]:
    return {"count": count, "mean": mean, "std": std, "min": 0, "q1": mean, "median": mean, "q3": mean, "max": 2 * mean}


CARDS = Personas(
    [
        Persona(
            0,
            "Loyal Enthusiasts",
            "Loyal Enthusiasts",
            [],
            1240,
            0.124,
            [Trait("purchases", 1.9, 4.1, 0.6, ""), Trait("hour_share:21", 0.5, 0.3, 0.1, "")],
            {
                "purchases": statistics(4.1, 1),
                "recency_days": statistics(3, 1),
                "spend": statistics(5, 3),
                "hour_share:08": statistics(0.3, 0.01),
            },
        ),
        Persona(
            1,
            "Window Browsers",
            None,
            [],
            5000,
            0.5,
            [],
            {"purchases": statistics(0.1, 0.5), "recency_days": statistics(4, 2)},
        ),
        Persona(
            2, "Lapsed", None, [], 3000, 0.3, [], {"purchases": statistics(1, 1), "recency_days": statistics(90, 9)}
        ),
        Persona(-1, NOISE_NAME, None, [], 760, 0.076, [], {"purchases": statistics(4, 1)}),
    ],
    "b1",
)

PROFILE: dict[str, Any] = {
    "user_id": "u1",
    "segment": "fashion_oriented",
    "segment_share": {"tech": 0.3, "fashion_oriented": 0.6, "other": 0.1, "home": 0.0},
    "cluster": 0,
    "cluster_confidence": 0.62,
    "persona": "Loyal Enthusiasts",
    "rules": ["frequent_buyers", "young"],
    "recency_score": 5,
    "frequency_score": 4,
    "monetary_score": 1,
    "rfm": "541",
    "loyalty_index": 62.4,
    "loyalty_tier": "silver",
    "features": {"purchases": 9.0, "recency_days": 2.0, "spend": 12.5, "hour_share": {"21": 0.9, "08": 0.1}},
    "traits": {"device": "mobile", "age": 34.0},
    "noise": [],
    "outliers": ["spend"],
    "imputed": ["duration"],
    "absent": ["prices"],
    "model_version": "b1",
    "window_start": "2026-01-01T00:00:00.000Z",
    "window_end": "2026-03-01T12:00:00.000Z",
}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in PROFILE.items() if name not in names}


def test_everything_that_is_known_is_said() -> None:
    assert explain(PROFILE, CARDS, rules={"frequent_buyers": "more than three orders a month."}) == [
        "Query segment fashion_oriented: where most of the searches are (60% of them); then tech 30%, other 10%.",
        "Persona Loyal Enthusiasts, group 0 (1,240 users, 12.4% of all): clearly nearer to it than to any other group "
        "(confidence 0.62 of 1).",
        "Of the other groups, Window Browsers is the most alike in numbers.",
        "Placed 9 orders; the group 4.1, all others 0.6.",
        "90% of the visits begin between 21:00 and 22:00 (UTC); the group 30%, all others 10%.",
        "Unusual in the group: spent 12.50 in all; the group 5.00.",
        "Rule frequent_buyers: more than three orders a month.",
        "Rule young takes this user.",
        "Last came 2 days ago: among the most recent fifth (recency score 5 of 5).",
        "Placed 9 orders: in the second fifth from the most frequent of those who bought (frequency score 4 of 5).",
        "Spent 12.50 in all: among the lowest-spending fifth of those who bought (monetary score 1 of 5).",
        "Loyalty index 62 of 100: tier silver.",
        "Known: age 34, device mobile.",
        "Far from what is common: spent 12.50 in all.",
        "Missing in some of the sessions and filled in: duration.",
        "Not measured of anybody, the data do not tell: prices.",
        "All this is about sessions from 2026-01-01 to 2026-03-01 (UTC).",
    ]


def test_without_cards_the_group_is_named_and_not_described() -> None:
    for cards in (None, replace(CARDS, model_version="b0")):
        told = explain(PROFILE, cards)
        assert told[1] == (
            "Persona Loyal Enthusiasts, group 0: clearly nearer to it than to any other group (confidence 0.62 of 1)."
        )
        assert not any("; the group" in sentence or "most alike" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("confidence", "word"),
    [(0.5, "clearly nearer"), (0.49, ": nearer to it"), (0.2, ": nearer to it"), (0.1, "border")],
)
def test_confidence_is_put_into_words(confidence: float, word: str) -> None:
    assert word in explain({**PROFILE, "cluster_confidence": confidence})[1]


def test_who_is_in_no_group_is_told_which_is_most_alike() -> None:
    profile = {**PROFILE, "cluster": -1, "persona": NOISE_NAME, "cluster_confidence": 0.0}
    told = explain(profile, CARDS)
    assert told[1:3] == [
        "Unlike any group (760 users, 7.6% of all): behaves like no group that there is.",
        "Of the groups, Loyal Enthusiasts is the most alike in numbers.",
    ]


def test_of_the_other_groups_the_nearest_is_named() -> None:
    far = {**PROFILE, "features": {"purchases": 1.0, "recency_days": 85.0}}
    assert "Of the other groups, Lapsed is the most alike in numbers." in explain(far, CARDS)
    alone = replace(CARDS, cards=CARDS.cards[:1])
    assert not any("most alike" in sentence for sentence in explain(far, alone))


def test_marks_are_explained() -> None:
    told = explain({**PROFILE, "noise": ["bot_rate", "something_new"]})
    assert (
        "Marked, so that nothing about others is learnt from this user: more sessions within an hour than a human has, "
        "something_new." in told
    )


def test_what_is_unknown_is_called_unknown() -> None:
    told = explain(without("segment", "monetary_score", "traits"))
    assert told[0] == "In no query segment: none is known of this user's searches."
    assert "No monetary score: what this user spent is not known." in told
    assert not any(sentence.startswith("Known:") for sentence in told)
    assert "No rule takes this user." in explain({**PROFILE, "rules": []})


def test_searches_that_no_segment_fits_are_said_to_be_so() -> None:
    told = explain({**PROFILE, "segment": "other", "segment_share": {"other": 0.8, "tech": 0.2}})
    assert told[0] == "Query segment other: no named segment fits most of the searches (80% of them); then tech 20%."


@pytest.mark.parametrize(
    ("score", "groups", "place"),
    [
        (3, 5, "in the third fifth from the most recent"),
        (1, 2, "among the least recent half"),
        (9, 9, "among the most recent ninth"),
        (2, 9, "in the eighth ninth from the most recent"),
    ],
)
def test_scores_have_the_groups_they_were_made_with(score: int, groups: int, place: str) -> None:
    told = explain({**PROFILE, "recency_score": score}, groups=groups)
    assert f"Last came 2 days ago: {place} (recency score {score} of {groups})." in told


def test_frequency_is_of_sessions_where_nothing_is_known_of_orders() -> None:
    told = explain({**PROFILE, "features": {"sessions": 7.0}})
    assert "Came 7 times: in the second fifth from the most frequent (frequency score 4 of 5)." in told
    assert "Scored: among the most recent fifth (recency score 5 of 5)." in told


def test_who_bought_nothing_is_told_so_and_not_ranked_among_buyers():
    told = explain(PROFILE | {"frequency_score": 1, "features": {"purchases": 0.0, "spend": 0.0}})
    assert "Never bought anything (frequency score 1 of 5)." in told
    assert "Spent nothing (monetary score 1 of 5)." in told


def test_a_document_gives_its_features_back_as_columns() -> None:
    assert flat_features(PROFILE) == {
        "purchases": 9.0,
        "recency_days": 2.0,
        "spend": 12.5,
        "hour_share:21": 0.9,
        "hour_share:08": 0.1,
        "segment_share:tech": 0.3,
        "segment_share:fashion_oriented": 0.6,
        "segment_share:other": 0.1,
        "segment_share:home": 0.0,
    }


@given(st.sets(st.sampled_from(sorted(PROFILE))), st.booleans())
def test_whatever_is_missing_every_sentence_is_one(missing: set[str], cards: bool) -> None:
    for sentence in explain(without(*missing), CARDS if cards else None):
        assert sentence.endswith(".")
        assert "None" not in sentence
        assert "nan" not in sentence
