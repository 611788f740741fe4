"""Features: twenty users by hand, what is absent and why, outliers, and what must hold of any sessions."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twenty import (
    CATEGORY_SHARES,
    CLEANING,
    DEVICE_SHARES,
    END,
    EXPECTED,
    HOUR_SHARES,
    NOISE,
    SEGMENT_SHARES,
    START,
    TRAITS,
    WEEKDAY_SHARES,
    attributes_table,
    event,
    segments_table,
    session,
    sessions_table,
)

from segmentation_assets.core.details import EVENT_TYPES
from segmentation_assets.core.settings import CleaningSettings, FeatureSettings, ScoreSettings
from segmentation_assets.core.users import features as feature_module
from segmentation_assets.core.users.cleaning import clean
from segmentation_assets.core.users.features import (
    FEATURES,
    SHARES,
    NoSessionsError,
    UserFeatures,
    marked,
    measure,
)
from segmentation_assets.core.users.rules import apply_rules, shipped_rules
from segmentation_assets.core.users.scores import score

PLAIN = CleaningSettings()
FIELDS = sessions_table().schema


def table(rows: Sequence[dict[str, Any]], without: Sequence[str] = ()) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=FIELDS).drop_columns(list(without))


def measured(
    rows: Sequence[dict[str, Any]],
    chosen: FeatureSettings | None = None,
    without: Sequence[str] = (),
    cleaning: CleaningSettings = PLAIN,
) -> UserFeatures:
    return measure(clean(table(rows, without), cleaning), None, None, chosen or FeatureSettings(), END)


@pytest.fixture(scope="module")
def twenty() -> UserFeatures:
    return measure(
        clean(sessions_table(), CLEANING), segments_table(), attributes_table(), FeatureSettings(outliers="none"), END
    )


def by_user(found: pa.Table) -> dict[str, dict[str, Any]]:
    return {row.pop("user_id"): row for row in found.to_pylist()}


# --- twenty users by hand


@pytest.mark.parametrize("name", list(EXPECTED["u01"]))
def test_a_feature_of_twenty_users_is_as_reckoned_by_hand(twenty: UserFeatures, name: str) -> None:
    found = dict(zip(twenty.table["user_id"].to_pylist(), twenty.table[name].to_pylist(), strict=True))
    assert found == {
        user: None if row[name] is None else pytest.approx(row[name], rel=1e-12) for user, row in EXPECTED.items()
    }


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("category_share", CATEGORY_SHARES),
        ("hour_share", HOUR_SHARES),
        ("weekday_share", WEEKDAY_SHARES),
        ("device_share", DEVICE_SHARES),
        ("segment_share", SEGMENT_SHARES),
    ],
)
def test_shares_of_twenty_users_are_as_reckoned_by_hand(
    twenty: UserFeatures, prefix: str, expected: dict[str, dict[str, float]]
) -> None:
    group = next(feature.group for feature in FEATURES if feature.name == prefix)
    values = {value for shares in expected.values() for value in shares}
    assert {f"{prefix}:{value}" for value in values} <= set(twenty.groups[group])
    for user, row in by_user(twenty.table).items():
        for name in twenty.groups[group]:
            share = expected[user].get(name.removeprefix(prefix + ":"), 0.0) if user in expected else None
            assert row[name] == (None if share is None else pytest.approx(share)), (user, name)


def test_traits_of_twenty_users_are_as_told_by_hand(twenty: UserFeatures) -> None:
    assert by_user(twenty.traits) == TRAITS


def test_traits_are_of_the_kind_that_is_said_of_them(twenty: UserFeatures) -> None:
    assert twenty.traits.column_names == ["user_id", *feature_module.TRAITS]
    for name, kind in feature_module.TRAITS.items():
        assert twenty.traits.schema.field(name).type == {"number": pa.float64(), "text": pa.string()}[kind]


def test_who_is_marked_is_told_in_the_order_of_the_table() -> None:
    found = measured([session(f"s{user}01", "03-01") for user in (20, 21, 19)], cleaning=CLEANING)
    assert marked(found).tolist() == [False, True, False]
    backwards = dataclasses.replace(found, table=found.table.take([2, 1, 0]).slice(0, 2))
    assert marked(backwards).tolist() == [False, True]


def test_everything_there_is_has_a_group_and_a_column_and_nothing_is_absent(twenty: UserFeatures) -> None:
    assert twenty.absent == {}
    assert list(twenty.groups) == list(dict.fromkeys(feature.group for feature in FEATURES))
    assert twenty.table.column_names == ["user_id", *(name for names in twenty.groups.values() for name in names)]
    assert {name.split(":")[0] for names in twenty.groups.values() for name in names} == {f.name for f in FEATURES}
    assert set(twenty.table.schema.types[1:]) == {pa.float64()}
    assert twenty.groups["categories"] == [f"category_share:{name}" for name in ("Shoes", "Books", "Garden", "Toys")]
    assert len(twenty.groups["hours"]) == 24
    assert [name[-3:] for name in twenty.groups["weekdays"]] == ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def test_the_window_reaches_from_the_first_session_to_the_end(twenty: UserFeatures) -> None:
    assert (twenty.start, twenty.end) == (START, END)


def test_every_user_is_in_every_table_in_the_same_order(twenty: UserFeatures) -> None:
    for found in (twenty.table, twenty.traits, twenty.noise):
        assert found["user_id"].to_pylist() == sorted(EXPECTED)
    assert {user: row["noise"] for user, row in by_user(twenty.noise).items()} == {
        user: NOISE.get(user, []) for user in EXPECTED
    }


# --- the window


def test_without_an_end_the_window_ends_with_the_last_session() -> None:
    cleaned = clean(table([session("s0101", "03-01"), session("s0201", "03-08")]), PLAIN)
    found = measure(cleaned, None, None, FeatureSettings())
    assert found.end == datetime(2026, 3, 8, tzinfo=UTC)
    assert found.table["recency_days"].to_pylist() == [7, 0]


def test_a_session_after_the_end_puts_the_end_off() -> None:
    cleaned = clean(table([session("s0101", "03-01"), session("s0201", "03-08")]), PLAIN)
    found = measure(cleaned, None, None, FeatureSettings(), datetime(2026, 3, 2, tzinfo=UTC))
    assert found.end == datetime(2026, 3, 8, tzinfo=UTC)
    assert min(found.table["recency_days"].to_pylist()) == 0


def test_no_session_or_an_end_without_a_zone_is_refused() -> None:
    with pytest.raises(NoSessionsError, match="there is no session") as caught:
        measured([])
    assert "import sessions" in caught.value.cure
    with pytest.raises(ValueError, match="zone"):
        measure(clean(sessions_table(), PLAIN), None, None, FeatureSettings(), datetime(2026, 3, 29))


def test_the_end_of_the_window_takes_a_zone_as_it_is() -> None:
    cleaned = clean(table([session("s0101", "03-01")]), PLAIN)
    there = datetime.fromisoformat("2026-03-08T02:00+02:00")
    assert measure(cleaned, None, None, FeatureSettings(), there).table["recency_days"].to_pylist() == [7]


# --- what is absent


def test_without_details_what_cannot_be_told_is_absent_with_the_reason() -> None:
    found = measured([session("s0101", "03-01", "A")], without=["duration", "device", "country", "region", "events"])
    no_events = dict.fromkeys(("views", "carts", "purchases", "prices", "categories"), "no session has events")
    assert found.absent == no_events | {
        "duration": "no session has a duration",
        "devices": "no session has a device",
        "segments": "there are no query segments",
        "device": "no session has a device",
        "country": "no session has a country",
        "region": "no session has a region",
        **dict.fromkeys(("age", "gender", "location", "signup_days", "subscription_days"), "there are no attributes"),
    }
    assert list(found.groups) == ["visits", "clicks", "hours", "weekdays"]
    assert found.table["clicks"].to_pylist() == [1]
    assert found.traits.column_names == ["user_id"]


def test_where_nobody_has_a_click_clicks_are_absent_and_no_rule_takes_everybody_for_having_none() -> None:
    rows = [session(f"s01{day:02}", f"03-{day:02}", events=[event("view", "A")]) for day in range(1, 8)]
    found = measured(rows)
    assert found.absent["clicks"] == "no click was recorded"
    assert not {"clicks", "click_through"} & set(found.table.column_names)
    report = apply_rules(shipped_rules(), found, score(found, ScoreSettings())).report
    (nothing,) = (rule for rule in report if rule.name == "find_nothing")
    assert (nothing.users, nothing.unusable) == (0, "click_through: no click was recorded")
    clicked = measured([*rows, session("s0201", "03-01", events=[event("click", "A")])])
    assert clicked.table["clicks"].to_pylist() == [0, 1]


def test_events_of_one_kind_tell_nothing_of_the_others() -> None:
    found = measured([session("s0101", "03-01", events=[event("view", "A")])])
    assert found.groups["views"] == ["views"]
    assert found.absent["views_without_purchase"] == "no purchase was recorded"
    assert found.absent["purchases"] == "no purchase was recorded"
    assert found.absent["carts"] == "no add_to_cart was recorded"
    found = measured([session("s0101", "03-01", events=[event("purchase", "A")])])
    assert found.absent["views"] == "no view was recorded"
    assert found.groups["purchases"] == ["purchases", "purchases_per_month", "spend", "average_spend", "conversion"]


def test_without_prices_only_what_is_made_of_prices_is_absent() -> None:
    found = measured([session("s0101", "03-01", events=[event("purchase", "Y", transaction="T")])])
    assert found.groups["purchases"] == ["purchases", "purchases_per_month", "conversion"]
    assert found.absent["spend"] == found.absent["average_spend"] == "no purchase has a price"
    assert found.absent["prices"] == "no view, click, add_to_cart or purchase has a price"
    assert found.table["category_share:Toys"].to_pylist() == [1]


def test_prices_without_categories_are_compared_with_nothing() -> None:
    found = measured([session("s0101", "03-01", events=[event("view", "X"), event("impression", "A")])])
    assert found.absent["prices"] == "nothing with a price has a category"
    assert found.absent["categories"] == "no view, click, add_to_cart or purchase has a category"


def test_products_without_ids_cannot_be_told_to_be_bought() -> None:
    views = [event("view"), event("purchase", "A")]
    assert measured([session("s0101", "03-01", events=views)]).absent["views_without_purchase"] == (
        "no view has a product id"
    )
    views = [event("view", "A"), event("purchase")]
    assert measured([session("s0101", "03-01", events=views)]).absent["views_without_purchase"] == (
        "no purchase has a product id"
    )


def test_segments_of_other_sessions_are_no_segments() -> None:
    cleaned = clean(table([session("s0101", "03-01")]), PLAIN)
    other = pa.table({"session_id": ["s0901"], "segment": ["books"]})
    assert measure(cleaned, other, None, FeatureSettings()).absent["segments"] == "no session has a query segment"
    nothing = pa.table({"session_id": ["s0101"], "segment": pa.array([None], pa.string())})
    assert measure(cleaned, nothing, None, FeatureSettings()).absent["segments"] == "no session has a query segment"


def test_attributes_of_other_users_are_absent_from_the_traits() -> None:
    cleaned = clean(table([session("s0101", "03-01")]), PLAIN)
    known = pa.table({"user_id": ["u01", "u99"], "age": [None, 50.0], "gender": ["f", "m"]})
    found = measure(cleaned, None, known, FeatureSettings())
    assert found.absent["age"] == "no user's age is known"
    assert found.absent["signup_days"] == "no user's signup date is known"
    assert by_user(found.traits)["u01"]["gender"] == "f"
    assert "age" not in found.traits.column_names


# --- definitions


def test_the_most_frequent_categories_have_a_share_of_their_own() -> None:
    cleaned = clean(sessions_table(), CLEANING)
    found = measure(cleaned, None, None, FeatureSettings(max_categories=2), END)
    assert found.groups["categories"] == [f"category_share:{name}" for name in ("Shoes", "Books", "other")]
    row = by_user(found.table)["u04"]
    assert (row["category_share:Books"], row["category_share:other"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_marked_users_do_not_decide_which_categories_are_frequent() -> None:
    flood = session("s2001", "03-01", events=[event("view", "K", f"03-01 00:0{n}") for n in range(9)])
    found = measured(
        [session("s0101", "03-01", events=[event("view", "A")]), flood],
        FeatureSettings(max_categories=1),
        cleaning=CLEANING,
    )
    assert found.groups["categories"] == ["category_share:Shoes", "category_share:other"]
    assert by_user(found.table)["u20"]["category_share:other"] == 1


def test_a_category_that_is_called_other_is_part_of_the_rest() -> None:
    named = [event("view", "A") | {"category": "other", "product_id": f"P{n}"} for n in range(3)]
    found = measured([session("s0101", "03-01", events=[*named, event("view", "A")])])
    assert found.groups["categories"] == ["category_share:Shoes", "category_share:other"]
    assert by_user(found.table)["u01"]["category_share:other"] == 0.75


def test_many_devices_share_the_column_of_the_rest() -> None:
    rows = [session(f"s01{n:02}", f"03-{n:02}", device=f"d{min(n, 4)}") for n in range(1, 8)]
    found = measured(rows, FeatureSettings(max_categories=2))
    # d4 four times, and of d1, d2 and d3, each once, the first in order
    assert by_user(found.table)["u01"]["device_share:other"] == pytest.approx(2 / 7)
    assert found.groups["devices"] == ["device_share:d4", "device_share:d1", "device_share:other"]


def test_a_product_whose_price_changed_has_both_prices() -> None:
    """Prices of Shoes: 10 (A), 20 (B), 90 (B): ranks 0, 0.5 and 1."""
    dearer = event("view", "B") | {"price": 90.0}
    found = measured(
        [
            session("s0101", "03-01", events=[event("view", "A"), event("view", "B")]),
            session("s0201", "03-01", events=[dearer]),
            session("s0301", "03-01", events=[event("view", "A", "03-01 00:01"), event("view", "A", "03-01 00:02")]),
        ]
    )
    assert found.table["price_level"].to_pylist() == [0.25, 1, 0]


def test_a_mean_duration_leaves_out_what_stays_missing() -> None:
    left = CleaningSettings(impute={"duration": "none"})
    rows = [
        session("s0101", "03-01", duration=None),
        session("s0102", "03-02"),
        session("s0201", "03-02", duration=None),
    ]
    assert measured(rows, cleaning=left).table["session_duration"].to_pylist() == [100, None]
    assert measured(rows).table["session_duration"].to_pylist() == [100, 100]


def test_the_same_transaction_id_of_two_products_is_one_order_whenever_they_were_recorded() -> None:
    rows = [
        session("s0101", "03-01", events=[event("purchase", "A", transaction="T")]),
        session("s0102", "03-02", events=[event("purchase", "B", transaction="T")]),
    ]
    row = by_user(measured(rows).table)["u01"]
    assert (row["purchases"], row["spend"], row["average_spend"], row["conversion"]) == (1, 30, 30, 1)


def test_without_transaction_ids_an_order_is_of_one_moment_of_one_session() -> None:
    rows = [
        session("s0101", "03-01", events=[event("purchase", "A"), event("purchase", "B")]),
        session("s0102", "03-01", search_query="socks", events=[event("purchase", "C")]),
        session("s0201", "03-01", events=[event("purchase", "A"), event("purchase", "D", "03-01 00:01")]),
    ]
    assert measured(rows).table["purchases"].to_pylist() == [2, 2]


# --- outliers


def with_clicks(clicks: Sequence[int]) -> list[dict[str, Any]]:
    """One user each, alike in all but the clicks."""
    return [session(f"s{user:02}01", "03-01", ["A"] * n) for user, n in enumerate(clicks)]


def test_outliers_lie_beyond_the_quartiles_by_hand() -> None:
    """0 1 2 3 4 5 6 7 100: quartiles 2 and 6, so the bounds are 2 - 1.5 * 4 = -4 and 6 + 6 = 12."""
    found = measured(with_clicks([0, 1, 2, 3, 4, 5, 6, 7, 100]))
    assert found.outliers.to_pylist() == [
        {"user_id": "u08", "feature": "clicks", "value": 100.0, "low": -4.0, "high": 12.0}
    ]
    wide = FeatureSettings(iqr_factor=30)
    assert len(measured(with_clicks([0, 1, 2, 3, 4, 5, 6, 7, 100]), wide).outliers) == 0


def test_outliers_by_deviations_by_hand() -> None:
    """0 and four of 10: mean 8, standard deviation 4; click_through 0 and four of 1: 0.8 and 0.4."""
    found = measured(with_clicks([0, 10, 10, 10, 10]), FeatureSettings(outliers="zscore", zscore=1.5))
    assert [(row["user_id"], row["feature"]) for row in found.outliers.to_pylist()] == [
        ("u00", "clicks"),
        ("u00", "click_through"),
    ]
    assert found.outliers["low"].to_pylist() == pytest.approx([2, 0.2])
    assert found.outliers["high"].to_pylist() == pytest.approx([14, 1.4])
    assert len(measured(with_clicks([0, 10, 10, 10, 10]), FeatureSettings(outliers="zscore", zscore=2.5)).outliers) == 0
    assert len(measured(with_clicks([0, 10, 10, 10, 10]), FeatureSettings(outliers="none")).outliers) == 0


def test_marked_users_do_not_move_the_bounds_and_can_lie_beyond_them() -> None:
    rows = [*with_clicks([0, 1, 2, 3, 4, 5, 6, 7]), session("s2001", "03-01", ["A"] * 100)]
    found = measured(rows, cleaning=CLEANING)
    # 0 .. 7: quartiles 1.75 and 5.25, so 5.25 + 1.5 * 3.5
    assert found.outliers.to_pylist() == [
        {"user_id": "u20", "feature": "clicks", "value": 100.0, "low": -3.5, "high": 10.5}
    ]


def test_what_most_users_share_and_what_is_constant_has_no_outliers() -> None:
    assert len(measured(with_clicks([0] * 9 + [50])).outliers) == 0
    thirds = [session(f"s{user:02}01", "03-01", duration=0.1) for user in range(3)]
    assert len(measured(thirds, FeatureSettings(outliers="zscore", zscore=0.01)).outliers) == 0


def test_outliers_pass_over_what_is_not_defined() -> None:
    """Five users with a price level, 20 without: the bounds are those of the five."""
    rows = [session(f"s{user:02}01", "03-01") for user in range(20)]
    rows += [session(f"s{user}01", "03-01", events=[event("view", p)]) for user, p in enumerate("ABCDE", start=50)]
    found = measured(rows, FeatureSettings(iqr_factor=0.1))
    assert [row["user_id"] for row in found.outliers.to_pylist() if row["feature"] == "price_level"] == ["u50", "u54"]


# --- whatever the sessions


PRODUCT = st.sampled_from([None, "A", "B", "F", "H", "K", "X", "Y"])
EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(EVENT_TYPES),
        PRODUCT,
        st.sampled_from([None, "03-20 10:00", "03-21 11:30"]),
        st.sampled_from([None, 1.0, 2.0]),
        st.sampled_from([None, "T1", "T2", "T3"]),
    ),
    max_size=5,
)


@st.composite
def logs(draw: st.DrawFn, users: Sequence[int] = range(1, 7)) -> list[dict[str, Any]]:
    """Sessions of some users, who may have transactions of the same name."""
    rows = []
    for number in range(draw(st.integers(1, 14))):
        user = draw(st.sampled_from(users))
        made = session(
            f"s{user:02}{number:02}",
            draw(st.sampled_from(["01-30 23:00", "03-01", "03-20 10:00", "03-21 11:30", "03-28 05:05"])),
            draw(st.sampled_from(["", "A", "BK"])),
            draw(st.sampled_from([None, 10.0, 60.0, 1e5])),
            draw(st.sampled_from([None, "phone", "desktop"])),
            draw(EVENTS),
            country=draw(st.sampled_from([None, "DE", "FR"])),
            search_query=draw(st.sampled_from(["shoes", "socks"])),
        )
        rows.append(made)
    return rows


@settings(max_examples=60)
@given(logs(), st.randoms(use_true_random=False))
def test_the_order_of_the_sessions_changes_nothing(rows: list[dict[str, Any]], chance: Any) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    segments = pa.table({"session_id": [r["session_id"] for r in rows], "segment": [r["search_query"] for r in rows]})
    attributes = attributes_table()
    one = measure(clean(table(rows), PLAIN), segments, attributes, FeatureSettings())
    other = measure(
        clean(table(shuffled), PLAIN),
        segments.take(list(range(len(rows)))[::-1]),
        attributes.take([3, 1, 2, 0]),
        FeatureSettings(),
    )
    assert one.table.equals(other.table)
    assert one.traits.equals(other.traits)
    assert one.outliers.equals(other.outliers)
    assert (one.groups, one.absent, one.start, one.end) == (other.groups, other.absent, other.start, other.end)


@settings(max_examples=60)
@given(logs(), st.sampled_from(["iqr", "zscore"]), st.integers(1, 3))
def test_no_user_is_lost_and_everything_is_in_its_bounds(rows: list[dict[str, Any]], how: Any, most: int) -> None:
    found = measured(rows, FeatureSettings(outliers=how, iqr_factor=0.2, zscore=0.5, max_categories=most))
    users = sorted({row["user_id"] for row in rows})
    assert found.table["user_id"].to_pylist() == found.traits["user_id"].to_pylist() == users
    assert found.noise["user_id"].to_pylist() == users
    for group in SHARES & found.groups.keys():
        shares = np.array([found.table[name].to_numpy() for name in found.groups[group]])
        defined = ~np.isnan(shares).any(axis=0)
        assert np.isnan(shares[:, ~defined]).all()
        assert shares[:, defined].sum(axis=0) == pytest.approx(1)
        assert ((shares[:, defined] >= 0) & (shares[:, defined] <= 1)).all()
        if group not in ("hours", "weekdays"):
            assert (shares[:, defined].sum(axis=1) > 0).all()  # no column for nothing
    row_of = by_user(found.table)
    for name in ("click_through", "conversion", "price_level"):
        assert all(row.get(name) is None or 0 <= row[name] <= 1 for row in row_of.values())
    for row in row_of.values():
        assert 0 <= row["recency_days"] <= row["tenure_days"]
        assert row["active_days"] <= row["sessions"] <= row["searches"]
        assert row.get("views_without_purchase", 0) <= row.get("views", 0)
    for mark in found.outliers.to_pylist():
        assert row_of[mark["user_id"]][mark["feature"]] == mark["value"]
        assert not mark["low"] <= mark["value"] <= mark["high"]


@settings(max_examples=60)
@given(logs(range(1, 4)), logs(range(4, 7)))
def test_what_others_do_changes_nothing_about_a_user(mine: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Only a rank among prices, and what is filled in, rest on other users."""
    left = CleaningSettings(impute={})
    alone, together = measured(mine, cleaning=left), measured(mine + others, cleaning=left)
    shared = [name for name in alone.table.column_names if name != "price_level"]
    rows = by_user(together.table.select(shared))
    assert by_user(alone.table.select(shared)) == {user: rows[user] for user in by_user(alone.table)}
    # What only the others did has a column now; of these users it is nothing, or not defined.
    new = set(together.table.column_names) - set(alone.table.column_names) - {"price_level", "views_without_purchase"}
    everybody = by_user(together.table)
    assert {everybody[user][name] for user in by_user(alone.table) for name in new} <= {0, None}


@settings(max_examples=40)
@given(logs(), st.integers(1, 400))
def test_a_window_that_ends_later_only_ages_the_users(rows: list[dict[str, Any]], days: int) -> None:
    cleaned = clean(table(rows), PLAIN)
    now = measure(cleaned, None, None, FeatureSettings(), END)
    later = measure(cleaned, None, None, FeatureSettings(), END + timedelta(days=days))
    aged = {"recency_days", "tenure_days"}
    slower = {"sessions_per_week", "purchases_per_month"}
    for name in now.table.column_names[1:]:
        before, after = now.table[name].to_numpy(), later.table[name].to_numpy()
        if name in aged:
            assert after == pytest.approx(before + days)
        elif name in slower:
            assert (after <= before).all()
        else:
            assert np.array_equal(before, after, equal_nan=True)
