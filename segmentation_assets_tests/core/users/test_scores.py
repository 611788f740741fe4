"""RFM scores and the loyalty index: by hand, and what must hold for any users."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.settings import LoyaltyTier, ScoreSettings
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.scores import PARTS, SCORES_SCHEMA, UserScores, score

NONE_BOUGHT = {"purchases": "no purchase was recorded"}
Values = Sequence[float | None]


def made(
    columns: dict[str, Values], noise: list[list[str]] | None = None, absent: dict[str, str] | None = None
) -> UserFeatures:
    """Features of the users u00, u01, ..., as ``features.measure`` gives them."""
    users = pa.array([f"u{n:02}" for n in range(len(next(iter(columns.values()))))], pa.string())
    marks = pa.array(noise or [[] for _ in users], pa.list_(pa.string()))
    return UserFeatures(
        table=pa.table({"user_id": users} | {name: pa.array(v, pa.float64()) for name, v in columns.items()}),
        traits=pa.table({"user_id": users}),
        groups={},
        absent=absent or {},
        outliers=pa.table({"user_id": pa.array([], pa.string())}),
        noise=pa.table({"user_id": users, "noise": marks}),
        start=datetime(2025, 1, 1, tzinfo=UTC),
        end=datetime(2025, 3, 1, tzinfo=UTC),
    )


def rfm(recency: Values, orders: Values, spend: Values, **kwargs: Any) -> UserFeatures:
    return made(
        {"recency_days": recency, "sessions": [1.0] * len(recency), "purchases": orders, "spend": spend}, **kwargs
    )


def visitors(recency: Values, sessions: Values) -> UserFeatures:
    return made({"recency_days": recency, "sessions": sessions}, absent=NONE_BOUGHT)


def column(scores: UserScores, name: str) -> list[Any]:
    return scores.table[name].to_pylist()  # type: ignore[no-any-return]


TWENTY = rfm(
    recency=[0, 0, 1, 2, 3, 5, 5, 5, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 80],
    orders=[9, 4, 4, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    spend=[900, 500, 120, 80, 70, 60, 50, 40, 30, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
)
"""Ten who bought, ten who did not."""


def test_the_groups_are_those_asked_for_whoever_is_in_them() -> None:
    assert [score(TWENTY, ScoreSettings(groups=groups)).groups for groups in (3, 9)] == [3, 9]


def test_twenty_users_by_hand() -> None:
    found = score(TWENTY, ScoreSettings())
    assert found.table.schema == SCORES_SCHEMA
    assert found.frequency == "purchases"
    assert found.absent == {}
    assert found.weights == pytest.approx({"recency": 0.3, "frequency": 0.4, "monetary": 0.3})
    # Of 20 users, counted from the longest ago, in twentieths: 80 days 0.5, 70 days 1.5, ... 8 days 11.5, the three of
    # 5 days 13.5 each, 3 days 15.5, 2 days 16.5, 1 day 17.5, the two of today 19 each. A fifth is 4 of them.
    assert column(found, "recency_score") == [5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1]
    # Of ten buyers, in tenths: the six with one order 3, two orders 6.5, the two with four 8, nine orders 9.5.
    assert column(found, "frequency_score") == [5, 4, 4, 4, 2, 2, 2, 2, 2, 2] + [1] * 10
    # All spend something else: 9.5, 8.5, ... 0.5; two a fifth.
    assert column(found, "monetary_score") == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1] + [1] * 10
    assert column(found, "rfm")[:6] == ["555", "545", "544", "544", "423", "423"]
    assert column(found, "rfm")[-1] == "111"
    index = column(found, "loyalty_index")
    assert index[0] == pytest.approx(0.3 * 95 + 0.4 * 95 + 0.3 * 95)
    assert index[3] == pytest.approx(0.3 * 82.5 + 0.4 * 65 + 0.3 * 65)
    assert index[9] == pytest.approx(0.3 * 52.5 + 0.4 * 30 + 0.3 * 5)
    assert index[19] == pytest.approx(0.3 * 2.5)
    tiers = column(found, "loyalty_tier")
    assert tiers[:4] == ["platinum", "platinum", "gold", "gold"]  # 95, 86, 80.75, 70.25
    assert set(tiers[10:]) == {"bronze"}


def test_a_user_who_bought_nothing_has_the_lowest_score_however_many_did_not() -> None:
    """Else everybody who bought once would be in the upper fifth of a shop where most people only look."""
    for others in (1, 100):
        found = score(
            rfm([1.0] * (others + 5), [1.0, 2, 3, 4, 5] + [0] * others, [1.0, 2, 3, 4, 5] + [0] * others),
            ScoreSettings(),
        )
        assert column(found, "frequency_score") == [1, 2, 3, 4, 5] + [1] * others
        assert column(found, "monetary_score") == [1, 2, 3, 4, 5] + [1] * others


@pytest.mark.parametrize(
    ("days", "scores"),
    [
        ([3], [3]),
        ([3, 1], [2, 4]),
        ([1, 1], [3, 3]),
        ([9, 5, 1], [1, 3, 5]),
        ([7, 7, 7, 7, 7, 7, 7], [3] * 7),
        ([5, 4, 3, 2, 1], [1, 2, 3, 4, 5]),
        ([2, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1, *[3] * 9]),
    ],
)
def test_few_users_and_equal_values_have_the_scores_that_their_ranks_allow(days: Values, scores: list[int]) -> None:
    assert column(score(visitors(days, [1.0] * len(days)), ScoreSettings()), "recency_score") == scores


def test_a_user_at_the_very_end_of_a_group_is_in_it() -> None:
    """rank * groups is a whole number there, which 0.6 * 5 and the like would overshoot."""
    for groups in range(2, 10):
        days: Values = [float(n) for n in range(9 * groups, 0, -1)]
        found = column(score(visitors(days, [1.0] * len(days)), ScoreSettings(groups=groups)), "recency_score")
        assert found == [1 + n // 9 for n in range(9 * groups)]
    tied = column(score(visitors([9, 8, 8, 8, 8], [1.0] * 5), ScoreSettings()), "recency_score")
    assert tied == [1, 3, 3, 3, 3]  # the four are in the middle of 1/5 to 5/5: 3/5, the end of the third group


def test_sessions_stand_for_frequency_where_nobody_bought() -> None:
    found = score(visitors([9, 5, 1], [1, 2, 30]), ScoreSettings())
    assert found.frequency == "sessions"
    assert column(found, "frequency_score") == [1, 3, 5]
    assert column(found, "monetary_score") == [None, None, None]
    assert column(found, "rfm") == ["11-", "33-", "55-"]
    assert found.absent == {"monetary_score": "no purchase was recorded"}
    assert found.weights == pytest.approx({"recency": 3 / 7, "frequency": 4 / 7})
    assert column(found, "loyalty_index") == pytest.approx([100 / 6, 50, 500 / 6])


def test_the_reason_for_no_spend_is_the_one_that_the_features_give_for_it() -> None:
    features = made(
        {"recency_days": [1], "sessions": [1], "purchases": [1]}, absent={"spend": "no purchase has a price"}
    )
    found = score(features, ScoreSettings())
    assert found.frequency == "purchases"
    assert found.absent == {"monetary_score": "no purchase has a price"}


def test_a_user_whose_spend_is_not_known_has_the_mean_of_the_others() -> None:
    """They bought something whose price nobody recorded: neither nothing nor any sum."""
    found = score(rfm([9, 5, 1], [1, 2, 3], [10, 20, None]), ScoreSettings())
    assert column(found, "monetary_score") == [2, 4, None]
    assert column(found, "rfm")[2] == "55-"
    assert column(found, "loyalty_index")[2] == pytest.approx(100 * 5 / 6)
    assert found.absent == {}


def test_a_column_without_any_value_is_absent() -> None:
    found = score(rfm([9, 5], [1, 2], [None, None]), ScoreSettings())
    assert set(found.absent) == {"monetary_score"}
    assert sum(found.weights.values()) == pytest.approx(1)


def test_there_is_no_index_where_all_its_weight_is_on_what_is_absent() -> None:
    weights = ScoreSettings(recency_weight=0, frequency_weight=0, monetary_weight=1)
    found = score(visitors([9, 5], [1, 2]), weights)
    assert column(found, "loyalty_index") == [None, None]
    assert column(found, "loyalty_tier") == [None, None]
    assert set(found.absent) == {"monetary_score", "loyalty_index", "loyalty_tier"}
    assert found.weights == {}
    assert column(found, "recency_score") == [2, 4]


def test_marked_users_are_scored_and_change_nobodys_score() -> None:
    people: list[list[float]] = [[9.0, 5.0, 1.0], [1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    without = score(rfm(*people), ScoreSettings())
    robots = [[*people[0], 0.0, 50.0], [*people[1], 1000.0, 2.0], [*people[2], 9999.0, 0.0]]
    noise = [[], [], [], ["bot_rate"], ["internal_user", "bot_rate"]]
    found = score(rfm(*robots, noise=noise), ScoreSettings())
    assert found.table.slice(0, 3).equals(without.table)
    assert column(found, "rfm")[3:] == ["555", "131"]
    assert column(found, "loyalty_index")[3] == 100


def test_where_everybody_is_marked_they_are_ranked_among_themselves() -> None:
    people: list[Values] = [[9, 5, 1], [1, 2, 3], [10, 20, 30]]
    found = score(rfm(*people, noise=[["bot_rate"]] * 3), ScoreSettings())
    assert found.table.equals(score(rfm(*people), ScoreSettings()).table)


def test_a_marked_user_who_alone_bought_is_no_better_than_a_lone_buyer() -> None:
    found = score(rfm([9, 5], [0, 7], [0, 70], noise=[[], ["bot_rate"]]), ScoreSettings())
    assert column(found, "frequency_score") == [1, 3]


def test_sums_that_differ_in_their_last_bits_are_the_same() -> None:
    found = score(rfm([1, 1], [1, 1], [0.1 + 0.2, 0.3]), ScoreSettings())
    assert column(found, "monetary_score") == [3, 3]


def test_nobody_is_scored_without_complaint() -> None:
    found = score(rfm([], [], []), ScoreSettings())
    assert found.table.schema == SCORES_SCHEMA
    assert found.table.num_rows == 0
    assert found.absent == {}


def test_tiers_begin_at_their_bound() -> None:
    tiers = (LoyaltyTier(name="low", from_=0), LoyaltyTier(name="half", from_=50), LoyaltyTier(name="top", from_=100))
    found = score(visitors([9, 5, 1], [1, 2, 3]), ScoreSettings(tiers=tiers))
    assert column(found, "loyalty_tier") == ["low", "half", "half"]
    assert column(score(visitors([3], [1]), ScoreSettings(tiers=tiers)), "loyalty_tier") == ["half"]


NUMBER = st.one_of(st.integers(0, 4).map(float), st.floats(0, 1e6))
PERSON = st.tuples(NUMBER, NUMBER, NUMBER, st.sampled_from([[], [], [], ["bot_rate"]]))
PEOPLE = st.lists(PERSON, min_size=1, max_size=25)
Person = tuple[float, float, float, list[str]]
SETTINGS = st.builds(
    lambda groups, weights: ScoreSettings(
        groups=groups, recency_weight=weights[0], frequency_weight=weights[1], monetary_weight=weights[2]
    ),
    st.integers(2, 9),
    st.tuples(*[st.floats(0, 10)] * 3).filter(lambda weights: sum(weights) > 0.01),
)


def scored(people: list[Person], settings: ScoreSettings) -> list[dict[str, Any]]:
    recency, orders, spend, noise = (list(values) for values in zip(*people, strict=True))
    return score(rfm(recency, orders, spend, noise=noise), settings).table.to_pylist()  # type: ignore[no-any-return]


@given(PEOPLE, SETTINGS)
def test_a_better_value_never_has_a_lower_score_and_the_same_value_has_the_same(
    people: list[Person], settings: ScoreSettings
) -> None:
    rows = scored(people, settings)
    assert len(rows) == len(people)
    for part, (name, sign) in enumerate(zip(PARTS.values(), (-1, 1, 1), strict=True)):
        order = sorted(range(len(people)), key=lambda n: sign * people[n][part])
        for one, other in pairwise(order):
            assert 1 <= rows[one][name] <= rows[other][name] <= settings.groups
            if people[one][part] == people[other][part]:
                assert rows[one][name] == rows[other][name]


@given(PEOPLE, SETTINGS)
def test_whoever_is_at_least_as_good_in_everything_is_at_least_as_loyal(
    people: list[Person], settings: ScoreSettings
) -> None:
    rows = scored(people, settings)
    starts = {tier.name: tier.from_ for tier in settings.tiers}
    for one, row in zip(people, rows, strict=True):
        assert 0 <= row["loyalty_index"] <= 100
        assert row["loyalty_tier"] == max((s, name) for name, s in starts.items() if s <= row["loyalty_index"])[1]
        for other, better in zip(people, rows, strict=True):
            if other[0] <= one[0] and other[1] >= one[1] and other[2] >= one[2]:
                assert better["loyalty_index"] >= row["loyalty_index"]


@given(PEOPLE, SETTINGS, st.integers(0, 2), st.floats(0, 1e6), st.data())
def test_a_user_who_gets_better_in_one_value_loses_nothing(
    people: list[Person], settings: ScoreSettings, part: int, by: float, data: st.DataObject
) -> None:
    who = data.draw(st.integers(0, len(people) - 1))
    person: list[Any] = list(people[who])
    person[part] = max(person[part] - by, 0) if part == 0 else person[part] + by
    before, after = scored(people, settings), scored([*people[:who], tuple(person), *people[who + 1 :]], settings)
    assert after[who]["loyalty_index"] >= before[who]["loyalty_index"]
    name = list(PARTS.values())[part]
    assert after[who][name] >= before[who][name]


@given(PEOPLE, SETTINGS, st.randoms())
def test_the_order_of_the_rows_changes_nothing(people: list[Person], settings: ScoreSettings, chance: Any) -> None:
    recency, orders, spend, noise = (list(values) for values in zip(*people, strict=True))
    features = rfm(recency, orders, spend, noise=noise)
    rows, marks = list(range(len(people))), list(range(len(people)))
    chance.shuffle(rows)
    chance.shuffle(marks)
    shuffled = UserFeatures(
        **{**vars(features), "table": features.table.take(rows), "noise": features.noise.take(marks)}
    )
    assert score(shuffled, settings).table.equals(score(features, settings).table)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30, unique_by=lambda days: round(days, 6)), st.integers(2, 9))
def test_users_of_different_values_are_cut_into_equal_groups(days: list[float], groups: int) -> None:
    found = column(score(visitors(list(days), [1.0] * len(days)), ScoreSettings(groups=groups)), "recency_score")
    sizes = [found.count(number) for number in range(1, groups + 1)]
    assert max(sizes) - min(sizes) <= 1
