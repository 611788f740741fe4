"""Personas: effect sizes by hand, traits in words, and names that are given out once each."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.model import StaleInputError
from segmentation_assets.core.settings import PersonaSettings
from segmentation_assets.core.users.behaviour import BehaviourModel, Stability
from segmentation_assets.core.users.features import FEATURES, UserFeatures
from segmentation_assets.core.users.personas import (
    NOISE_NAME,
    NameTable,
    Persona,
    PersonaNamesError,
    Personas,
    amount,
    describe,
    may_be_shown,
    number,
    parse_names,
    phrase,
    sentence,
    shipped_names,
)
from segmentation_assets.core.users.preprocessing import Preprocessing

NO_NAMES = NameTable()
Values = Mapping[str, Sequence[float | None]]


def some_features(values: Values, marked: Sequence[int] = ()) -> UserFeatures:
    """Users u00, u01, ... with these values; some of them marked."""
    n = len(next(iter(values.values())))
    users = pa.array([f"u{i:02}" for i in range(n)], pa.string())
    columns = {name: pa.array(column, pa.float64()) for name, column in values.items()}
    noise = pa.array([["bot_rate"] if i in marked else [] for i in range(n)], pa.list_(pa.string()))
    return UserFeatures(
        table=pa.table({"user_id": users, **columns}),
        traits=pa.table({"user_id": users}),
        groups={},
        absent={},
        outliers=pa.table({"user_id": pa.array([], pa.string()), "feature": pa.array([], pa.string())}),
        noise=pa.table({"user_id": users, "noise": noise}),
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2026, 3, 1, tzinfo=UTC),
    )


def some_model(labels: Sequence[int]) -> BehaviourModel:
    """A model that put the users u00, u01, ... into these clusters."""
    ids = sorted({label for label in labels if label >= 0})
    return BehaviourModel(
        version="b1",
        method="kmeans",
        preprocessing=Preprocessing([], [], {}),
        points=np.zeros((len(ids), 1)),
        point_clusters=np.array(ids, np.int32),
        reach=np.full(len(ids), np.inf),
        cluster_ids=np.array(ids, np.int32),
        next_id=max(ids, default=-1) + 1,
        users=pa.array([f"u{i:02}" for i in range(len(labels))], pa.string()),
        labels=np.array(labels, np.int32),
        confidence=np.full(len(labels), 0.5, np.float32),
        sizes=[labels.count(each) for each in ids],
        noise=labels.count(-1),
        fitted_on=len(labels),
        stability=Stability(None, [], None),
        details={},
    )


def personas(
    values: Values,
    labels: Sequence[int],
    names: NameTable = NO_NAMES,
    marked: Sequence[int] = (),
    labeled: pa.Table | None = None,
    **chosen: float,
) -> dict[int, Persona]:
    found = describe(some_features(values, marked), some_model(list(labels)), names, PersonaSettings(**chosen), labeled)
    assert found.model_version == "b1"
    return {card.cluster: card for card in found.cards}


def table(*entries: tuple[str, dict]) -> NameTable:
    return NameTable.model_validate({"names": [{"name": name, "when": when} for name, when in entries]})


def sessions(*rows: tuple[str, str, str]) -> pa.Table:
    users, queries, segments = zip(*rows, strict=True)
    return pa.table({"user_id": users, "search_query": queries, "segment": segments})


def test_the_effect_is_cohens_d_by_hand() -> None:
    """Means 4 and 2, variances 4 and 2: pooled (2 * 4 + 1 * 2) / 3, so d = 2 / 1.826."""
    cards = personas({"views": [2, 4, 6, 1, 3]}, [0, 0, 0, 1, 1])
    (trait,) = cards[0].traits
    assert trait.effect == pytest.approx(2 / math.sqrt(10 / 3))
    assert (trait.mean, trait.rest) == (4, 2)
    assert trait.sentence == "Viewed 4 products; others 2."
    assert cards[1].traits[0].effect == pytest.approx(-2 / math.sqrt(10 / 3))


def test_the_others_are_all_other_groups_and_who_is_in_none() -> None:
    """Of cluster 0 the others are 1, 3, 5 and 7: mean 4, squares 20; pooled (2 + 20) / 4."""
    cards = personas({"views": [9, 11, 1, 3, 5, 7]}, [0, 0, 1, 1, -1, -1])
    assert cards[0].traits[0].effect == pytest.approx((10 - 4) / math.sqrt(22 / 4))
    assert cards[0].traits[0].rest == 4


def test_what_is_not_defined_for_a_user_is_left_out() -> None:
    values = {"average_spend": [10, None, 14, None, 2, 4], "views": [1, 1, 1, 1, 1, 1]}
    cards = personas(values, [0, 0, 0, 1, 1, 1])
    assert cards[0].traits[0].mean == 12
    assert cards[0].traits[0].effect == pytest.approx(9 / math.sqrt((8 + 2) / 2))
    assert cards[0].statistics["average_spend"]["count"] == 2
    nobody = personas({"average_spend": [None, None, 2, 4]}, [0, 0, 1, 1])
    assert nobody[0].traits == []
    assert nobody[0].statistics == {}


def test_groups_without_any_variance_are_as_far_apart_as_counts() -> None:
    cards = personas({"views": [3, 3, 1, 1], "clicks": [0.1, 0.1, 0.1, 0.1]}, [0, 0, 1, 1])
    assert [(trait.feature, trait.effect) for trait in cards[0].traits] == [("views", 5)]
    assert [(trait.feature, trait.effect) for trait in cards[1].traits] == [("views", -5)]


def test_an_effect_beyond_the_limit_is_cut() -> None:
    cards = personas({"views": [1000, 1001, 1, 2]}, [0, 0, 1, 1])
    assert cards[0].traits[0].effect == 5


def test_two_users_have_no_effect_size() -> None:
    assert personas({"views": [9, 1]}, [0, 1])[0].traits == []


def test_traits_are_the_strongest_differences_and_no_weak_ones() -> None:
    values = {
        "views": [1, 2, 3, 4],  # d = -2.83
        "clicks": [9, 1, 2, 8],  # 0
        "spend": [9, 11, 4, 6],  # 3.54
        "price_level": [0.5, 0.6, 0.5, 0.7],  # -0.45
    }
    cards = personas(values, [0, 0, 1, 1])
    assert [trait.feature for trait in cards[0].traits] == ["spend", "views", "price_level"]
    assert [trait.feature for trait in personas(values, [0, 0, 1, 1], traits=1)[0].traits] == ["spend"]
    assert [trait.feature for trait in personas(values, [0, 0, 1, 1], min_effect=1)[0].traits] == ["spend", "views"]
    assert "clicks" not in [t.feature for t in personas(values, [0, 0, 1, 1], min_effect=0)[0].traits]


def test_parts_of_one_whole_are_one_trait() -> None:
    hours = {f"hour_share:{hour:02}": [0.1 * hour, 0.2 * hour, 0.7 * hour, 0.8 * hour] for hour in range(1, 4)}
    cards = personas({**hours, "device_share:mobile": [1, 0.9, 0.1, 0]}, [0, 0, 1, 1])
    assert sorted(trait.feature for trait in cards[0].traits) == ["device_share:mobile", "hour_share:01"]


def test_features_that_say_the_same_do_not_flood_the_traits() -> None:
    visits = {
        "sessions": [9.0, 6, 1, 2],
        "searches": [9.0, 6, 1, 2.04],  # as many as sessions: says nothing more
        "active_days": [7.0, 5, 1, 3],
        "sessions_per_week": [1.0, 2, 0.1, 0.9],  # a third of its kind
    }
    cards = personas({**visits, "views": [5.0, 9, 4, 1]}, [0, 0, 1, 1])
    assert [trait.feature for trait in cards[0].traits] == ["sessions", "active_days", "views"]


def test_marked_users_count_as_users_and_in_nothing_else() -> None:
    values = {"views": [2.0, 4, 6, 1000, 1, 3, 0]}
    labels = [0, 0, 0, 0, 1, 1, 1]
    said = sessions(*[(f"u{i:02}", "buy now", "tech") for i in (0, 1, 3)])
    cards = personas(values, labels, marked=[3, 6], labeled=said)
    assert (cards[0].users, cards[1].users) == (4, 3)
    assert (cards[0].share, cards[1].share) == (4 / 7, 3 / 7)
    assert cards[0].traits[0].effect == pytest.approx(2 / math.sqrt(10 / 3))
    assert cards[0].statistics["views"]["max"] == 6
    assert cards[0].queries == []  # two users, and a marked one
    assert cards[0].segments == {"tech": 1.0}


def test_a_share_that_fewer_than_three_users_have_is_in_nothing_that_is_shown() -> None:
    """A device that one person has named, or a category that two looked at, tells who is meant."""
    values = {
        "device_share:Anna's iPhone 15": [1.0, 0, 0, 0, 0, 0],
        "category_share:Rare": [0.5, 0.5, 0, 0, 0, None],
        "category_share:Shoes": [0.5, 0.4, 0.6, 0, 0, None],
        "spend": [9.0, 0, 0, 0, 0, 0],  # of one user as well, but it names nobody
    }
    names = table(("Anna", {"device_share:Anna's iPhone 15": "more"}))
    cards = personas(values, [0, 0, 0, 1, 1, 1], names)
    assert {trait.feature for card in cards.values() for trait in card.traits} == {"category_share:Shoes", "spend"}
    assert set(cards[0].statistics) == set(cards[1].statistics) == {"category_share:Shoes", "spend"}
    assert not any(word in str(card) for card in cards.values() for word in ("Anna", "iPhone", "Rare"))


def test_marked_users_do_not_make_a_share_one_of_many() -> None:
    values = {"device_share:mine": [1.0, 1, 1, 0, 0, 0], "views": [1.0, 2, 3, 4, 5, 6]}
    assert may_be_shown(some_features(values)) == ["device_share:mine", "views"]
    assert may_be_shown(some_features(values, marked=[2])) == ["views"]


def test_statistics_by_hand() -> None:
    found = personas({"views": [1, 2, 3, 4, 10, 7]}, [0, 0, 0, 0, 0, 1])[0].statistics["views"]
    assert found == {
        "count": 5,
        "mean": 4,
        "std": pytest.approx(math.sqrt(50 / 4)),
        "min": 1,
        "q1": 2,
        "median": 3,
        "q3": 4,
        "max": 10,
    }
    assert personas({"views": [1, 7, 8]}, [0, 1, 1])[0].statistics["views"]["std"] == 0


def test_cards_come_largest_first_and_who_is_in_no_group_last() -> None:
    found = describe(
        some_features({"views": [1, 2, 3, 4, 5, 6, 7, 8]}),
        some_model([-1, -1, -1, 2, 0, 0, 1, 1]),
        NO_NAMES,
        PersonaSettings(),
    )
    assert [card.cluster for card in found.cards] == [0, 1, 2, -1]
    assert found.cards[-1].name == NOISE_NAME
    assert sum(card.users for card in found.cards) == 8
    assert sum(card.share for card in found.cards) == 1


def test_a_group_gets_the_name_whose_conditions_all_hold() -> None:
    names = table(
        ("Heavy viewers", {"views": "much_more", "clicks": "much_less"}),
        ("Light viewers", {"views": "much_less"}),
        ("Buyers", {"spend": "more"}),
    )
    cards = personas({"views": [8, 9, 1, 2], "clicks": [5, 4, 4, 5]}, [0, 0, 1, 1], names)
    assert (cards[0].name, cards[0].rule) == ("Many views", None)  # no fewer clicks, and nothing is known of spend
    assert (cards[1].name, cards[1].rule) == ("Light viewers", "Light viewers")
    assert cards[1].evidence == ["Viewed 1.5 products; others 8.5. (effect size -5.00)"]


def test_bounds_are_included_and_a_mean_can_be_asked_for() -> None:
    names = table(("Never buy", {"purchases": {"mean_at_most": 0}}), ("Buy", {"purchases": {"mean_at_least": 2}}))
    cards = personas({"purchases": [0, 0, 1, 3]}, [0, 0, 1, 1], names)
    assert (cards[0].name, cards[1].name) == ("Never buy", "Buy")
    assert cards[0].evidence == ["Placed 0 orders; others 2. (asked for: at most 0)"]
    half = table(("Half", {"views": {"above": 2 / math.sqrt(10 / 3), "below": 2}}))
    assert personas({"views": [2, 4, 6, 1, 3]}, [0, 0, 0, 1, 1], half)[0].name == "Half"


def test_names_go_where_they_fit_best_altogether() -> None:
    """Both groups could be 'Viewers'; the one that could also be 'Clickers' is that, so both have a name."""
    values = {
        "views": [9, 10, 8, 9, 0, 1, 0, 1],
        "clicks": [1, 2, 9, 10, 1, 2, 1, 2],
    }
    names = table(("Viewers", {"views": "more"}), ("Clickers", {"clicks": "more"}))
    cards = personas(values, [0, 0, 1, 1, 2, 2, 2, 2], names)
    assert (cards[0].name, cards[1].name) == ("Viewers", "Clickers")


def test_a_name_that_two_groups_could_have_goes_to_the_better_one() -> None:
    values = {"views": [8, 9, 20, 21, 0, 1, 0, 1], "clicks": [3, 4, 9, 8, 3, 4, 3, 4]}
    cards = personas(values, [0, 0, 1, 1, 2, 2, 2, 2], table(("Viewers", {"views": {"above": 0.2}})))
    assert cards[1].name == "Viewers"
    assert cards[0].rule is None


def test_one_outstanding_effect_does_not_outweigh_a_name_that_fits_in_two_ways() -> None:
    """Effects 5 against 1.1 and 2.4: the first counts for 2."""
    values = {"clicks": [90, 91, 90, 0, 1, 2], "views": [2, 4, 6, 1, 3, 1], "spend": [20, 26, 22, 10, 14, 18]}
    names = table(("Clickers", {"clicks": "much_more"}), ("Buyers", {"views": "more", "spend": "more"}))
    assert personas(values, [0, 0, 0, 1, 1, 1], names)[0].name == "Buyers"


def test_of_names_that_fit_equally_well_the_first_is_taken() -> None:
    names = table(("First", {"views": "more"}), ("Second", {"views": {"above": 0}}))
    assert personas({"views": [8, 9, 1, 2]}, [0, 0, 1, 1], names)[0].name == "First"


def test_a_group_without_a_name_is_called_by_its_two_strongest_traits_of_different_kinds() -> None:
    values = {
        "spend": [1.0, 20, 60, 70, 60, 90],  # d = -4.26
        "purchases": [0.0, 3, 6, 7, 6, 9],  # -3.39, of the same kind
        "views": [6.0, 12, 2, 1, 4, 3],  # 2.71
    }
    cards = personas(values, [0, 0, 1, 1, 1, 1])
    assert cards[0].name == "Low spend, many views"
    assert cards[0].rule is None
    assert len(cards[0].evidence) == 2


def test_descriptive_names_are_told_apart() -> None:
    alike = {"views": [9, 9.5, 9, 9.5, 1, 2, 1, 2]}
    cards = personas(alike, [0, 0, 1, 1, 2, 2, 2, 2])
    assert [cards[0].name, cards[1].name, cards[2].name] == ["Many views", "Many views (2)", "Few views"]
    taken = table(("Many views", {"views": {"above": 4.9}}))
    assert personas({"views": [9, 9.5, 9, 9, 1, 1]}, [0, 0, 1, 1, 2, 2], taken)[0].name == "Many views"


def test_a_third_trait_tells_two_groups_apart_that_have_the_strongest_two_in_common() -> None:
    values = {
        "views": [8.0, 9, 10, 8, 10, 0, 1, 2, 1, 0, 2],
        "spend": [80.0, 60, 95, 70, 90, 10, 20, 30, 10, 20, 30],
        "session_duration": [30.0, 50, 40, 50, 62, 20, 40, 60, 30, 50, 20],
    }
    cards = personas(values, [0] * 3 + [1] * 2 + [2] * 6)
    assert cards[0].name == "Many views, high spend"
    assert cards[1].name == "Many views, high spend, long visits"
    assert len(cards[1].evidence) == 3


def test_groups_that_nothing_sets_apart_have_names_too() -> None:
    same = personas({"views": [1, 2, 1, 2]}, [0, 0, 1, 1])
    assert [same[0].name, same[1].name] == ["Close to the average", "Close to the average (2)"]
    alone = personas({"views": [1, 2]}, [0, 0], shipped_names())
    assert (alone[0].name, alone[0].traits) == ("Close to the average", [])
    bots = personas({"views": [1, 2, 3, 4]}, [0, 0, 1, 1], marked=[2, 3])
    assert (bots[1].name, bots[1].users) == ("Marked users", 2)


def test_a_query_that_fewer_than_three_users_typed_is_never_shown() -> None:
    said = sessions(
        *[(f"u{i:02}", "Red  Dress ", "fashion") for i in range(3)],
        ("u00", "red dress", "fashion"),
        *[("u00", "my secret", "other")] * 9,
        ("u01", "my secret", "other"),
        *[(f"u{i:02}", "sofa", "home") for i in range(4)],
        *[(f"u{i:02}", "elsewhere", "home") for i in (2, 3, 4, 5)],
        ("unknown", "sofa", "home"),
    )
    cards = personas({"views": [1, 2, 3, 4, 5, 6]}, [0, 0, 0, 0, 1, 1], labeled=said)
    assert cards[0].queries == ["sofa", "red dress"]
    assert cards[1].queries == []


def test_queries_are_few_and_the_most_frequent_ones() -> None:
    said = sessions(*[(f"u{i:02}", f"query {q}", "x") for q in range(12) for i in range(3 + q)])
    cards = personas({"views": list(range(20))}, [0] * 20, labeled=said)
    assert cards[0].queries == [f"query {q}" for q in range(11, 3, -1)]


def test_segments_are_shares_of_the_groups_users_by_their_dominant_one() -> None:
    said = sessions(
        ("u00", "a", "tech"),
        ("u00", "b", "tech"),
        ("u00", "c", "home"),
        ("u01", "a", "home"),
        ("u02", "a", "home"),
        ("u03", "a", "tech"),
    )
    cards = personas({"views": [1, 2, 3, 4, 5]}, [0, 0, 0, 1, 1], labeled=said)
    assert cards[0].segments == {"home": 2 / 3, "tech": 1 / 3}
    assert list(cards[0].segments) == ["home", "tech"]
    assert cards[1].segments == {"tech": 1.0}


def test_a_model_of_other_users_is_refused() -> None:
    with pytest.raises(StaleInputError, match=r"features \(3 users\) and the behaviour model \(2 users\)"):
        describe(some_features({"views": [1, 2, 3]}), some_model([0, 1]), NO_NAMES, PersonaSettings())


def test_the_order_of_the_users_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    values = {"views": rng.gamma(2, 3, 40).tolist(), "spend": [*rng.gamma(1, 50, 39).tolist(), None]}
    labels = rng.integers(-1, 3, 40).tolist()
    features, model = some_features(values, marked=[4]), some_model(labels)
    order = pa.array(rng.permutation(40))
    shuffled = UserFeatures(
        **{**features.__dict__, "table": features.table.take(order), "noise": features.noise.take(order)}
    )
    said = sessions(*[(f"u{i % 40:02}", f"q{i % 3}", f"s{i % 5}") for i in range(300)])
    mixed = said.take(pa.array(rng.permutation(300)))
    assert describe(features, model, shipped_names(), PersonaSettings(), said) == describe(
        shuffled, model, shipped_names(), PersonaSettings(), mixed
    )


def test_nobody_at_all_gives_no_cards() -> None:
    assert describe(some_features({"views": []}), some_model([]), shipped_names(), PersonaSettings()) == Personas(
        [], "b1"
    )


numbers = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False))
users = st.lists(st.tuples(numbers, numbers, st.integers(0, 1)), min_size=1, max_size=30)


@given(users)
@settings(max_examples=60, deadline=None)
def test_of_two_groups_one_is_the_opposite_of_the_other(rows: list[tuple[float | None, float | None, int]]) -> None:
    views, spend, labels = (list(column) for column in zip(*rows, strict=True))
    cards = personas({"views": views, "spend": spend}, labels, min_effect=0, traits=50)
    effects = [{trait.feature: trait.effect for trait in card.traits} for card in cards.values()]
    if len(effects) == 2:
        assert effects[0].keys() == effects[1].keys()
        for feature, effect in effects[0].items():
            assert effect == pytest.approx(-effects[1][feature], rel=1e-6)
            assert abs(effect) <= 5


@given(st.lists(st.tuples(numbers, numbers, st.integers(-1, 5)), min_size=1, max_size=40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_everybody_is_on_one_card_and_no_two_names_are_the_same(
    rows: list[tuple[float | None, float | None, int]], marks: int
) -> None:
    views, spend, labels = (list(column) for column in zip(*rows, strict=True))
    values = {"views": views, "spend": spend, "purchases_per_month": spend, "recency_days": views}
    cards = personas(values, labels, shipped_names(), marked=range(marks))
    assert set(cards) == set(labels)
    assert sum(card.users for card in cards.values()) == len(rows)
    names = [card.name for card in cards.values()]
    assert len(set(names)) == len(names)
    assert all(math.isfinite(each) for card in cards.values() for s in card.statistics.values() for each in s.values())


def test_every_feature_has_words_of_its_own() -> None:
    assert sentence("made_up", 2.5) == "Has 2.5 for made up."
    for feature in FEATURES:
        assert "Has " not in sentence(feature.name, 2.5)
        assert phrase(feature.name, 1) != phrase(feature.name, -1)


@pytest.mark.parametrize(
    ("feature", "value", "other", "expected"),
    [
        ("purchases_per_month", 4.12, 0.61, "Places 4.1 orders a month; others 0.61."),
        ("session_duration", 250, 3725, "Stays 4 min 10 s a visit; others 1 h 2 min."),
        ("spend", 1250, 0, "Spent 1,250.00 in all; others 0.00."),
        ("click_through", 0.6, 0.045, "Clicks on a product in 60% of the visits; others in 4.5%."),
        ("price_level", 0.25, 0.5, "Looks at products dearer than 25% of their category; others than 50%."),
        ("hour_share:23", 0.5, 0, "50% of the visits begin between 23:00 and 00:00 (UTC); others 0%."),
        ("weekday_share:sat", 0.5, 0.1, "50% of the visits are on a Saturday; others 10%."),
        ("category_share:{Shoes}", 0.3, 0.1, "30% of what they look at is {Shoes}; others 10%."),
        ("segment_share:other", 0.3, 0.1, "30% of the searches are in no named segment; others 10%."),
        ("sessions", 1, 12345.6, "Came once; others 12,346."),
        ("views", 1.02, 1.04, "Viewed 1.02 products; others 1.04."),
        ("made_up", 2, 1, "Has 2 for made up; others 1."),
    ],
)
def test_sentences_have_numbers_and_units(feature: str, value: float, other: float, expected: str) -> None:
    assert sentence(feature, value, [("others", other)]) == expected


def test_numbers_are_short() -> None:
    assert [number(each) for each in (0, 0.0615, 0.5, 4.12, 41.2, 12345.6, -3.04, 100, 9.99)] == [
        *("0", "0.061", "0.5", "4.1", "41", "12,346", "-3", "100", "10")
    ]
    assert amount("session_duration", 0.25) == "0.25 s"


def test_the_shipped_table_is_used_on_plain_cases() -> None:
    values = {
        "sessions_per_week": [5, 6, 5, 1, 1, 0.5, 0.6, 0.4, 0.5],
        "purchases_per_month": [4.0, 5, 4, 0, 0, 0, 0.2, 0.3, 0.3],
        "recency_days": [1.0, 2, 1, 10, 20, 12, 15, 20, 30],
        "conversion": [0.2, 0.3, 0.2, 0, 0, 0, 0.4, 0.5, 0.4],
        "average_spend": [50.0, 60, 40, None, None, None, 400, 500, 390],
        "views": [30.0, 40, 30, 30, 20, 25, 5, 3, 6],
    }
    cards = personas(values, [0, 0, 0, 1, 1, 1, 2, 2, 2], shipped_names())
    assert [cards[each].name for each in range(3)] == [
        *("Loyal Enthusiasts", "Window Browsers", "Occasional Big Spenders")
    ]


def test_a_table_of_names_can_be_a_plain_list() -> None:
    found = parse_names("- {name: Lookers, when: {views: more, purchases: {mean_at_most: 0.1}}}", "mine.yaml")
    (entry,) = found.names
    assert entry.name == "Lookers"
    assert (entry.when["views"].above, entry.when["purchases"].mean_at_most) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("names: [", "is not valid YAML"),
        ("when: 2024-99-99", "is not valid YAML"),
        ("just text", "cannot be used"),
        ("name: A", "name: Extra inputs"),
        ("names: [{name: A, when: {viewz: more}}]", r"'A'\.when: .*'viewz' is no feature: did you mean 'views'"),
        ("names: [{name: A, when: {hour_share: more}}]", "write hour_share:<which>"),
        ("names: [{name: A, when: {'views:x': more}}]", "'views:x' is no feature"),
        ("names: [{name: A, when: {views: a lot}}]", "write one of more, much_more, less, much_less"),
        ("names: [{name: A, when: {views: {}}}]", "at least one of above"),
        ("names: [{name: A, when: {views: {above: null}}}]", "at least one of above"),
        ("names: [{name: A, when: {views: more, views: less}}]", r"'A'\.when\.views: stands twice"),
        ("[{name: A, when: {views: {above: 1, above: 2}}}]", r"'A'\.when\.views\.above: stands twice"),
        ("names: [{name: A, name: B, when: {}}]\nnames: []", "names: stands twice"),
        ("[" * 3000, "nested too deep"),
        ("names: [{name: A, when: {views: {over: 3}}}]", r"'A'\.when\.views\.over: Extra inputs"),
        ("names: [{name: A, when: {views: {above: .nan}}}]", "finite number"),
        ("names: [{name: A, when: {views: {above: 1, below: 0}}}]", "nothing can be both"),
        ("names: [{name: A, when: {views: {mean_at_least: 1, mean_at_most: 0}}}]", "nothing can be both"),
        ("names: [{name: A, when: {}}]", "at least 1 item"),
        ("names: [{when: {views: more}}]", r"entry 1\.name: Field required"),
        ("names: [{name: A, when: {views: more}}, {name: a, when: {views: less}}]", "the name 'a' is taken"),
        (f"names: [{{name: {NOISE_NAME}, when: {{views: more}}}}]", "is taken"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(PersonaNamesError, match=problem) as caught:
        parse_names(text, "mine.yaml")
    assert "mine.yaml" in caught.value.problem
    assert "personas.yaml" in caught.value.cure
