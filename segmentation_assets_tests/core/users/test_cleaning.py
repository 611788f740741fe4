"""Cleaning: duplicates, what is filled in, who is marked, and that all of it adds up."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twenty import (
    CLEANING,
    EVENTS_READ,
    EVENTS_SET_ASIDE,
    EVENTS_USED,
    EXPECTED,
    MEDIAN_DURATION,
    NOISE,
    SESSIONS_READ,
    SESSIONS_USED,
    buy,
    event,
    moment,
    session,
    sessions_table,
)

from segmentation_assets.core.details import EVENT_TYPES
from segmentation_assets.core.sessions import SESSION_SCHEMA
from segmentation_assets.core.settings import CleaningSettings
from segmentation_assets.core.users.cleaning import (
    EVENT_SCHEMA,
    CleaningAccount,
    CleanSessions,
    ImpossibleImputation,
    clean,
)
from segmentation_assets.core.users.imputation import Imputation

PLAIN = CleaningSettings()
FIELDS = sessions_table().schema


def cleaned(rows: Sequence[dict[str, Any]], chosen: CleaningSettings = PLAIN) -> CleanSessions:
    return clean(pa.Table.from_pylist(list(rows), schema=FIELDS), chosen)


def noise_of(found: CleanSessions) -> dict[str, list[str]]:
    return dict(zip(found.users["user_id"].to_pylist(), found.users["noise"].to_pylist(), strict=True))


# --- twenty users by hand


def test_the_account_of_twenty_users_is_as_counted_by_hand() -> None:
    found = clean(sessions_table(), CLEANING)
    assert found.account == CleaningAccount(
        sessions_read=SESSIONS_READ,
        sessions_used=SESSIONS_USED,
        sessions_set_aside={"duplicate_session": 1},
        events_read=EVENTS_READ,
        events_used=EVENTS_USED,
        events_set_aside=EVENTS_SET_ASIDE,
        imputations=[
            Imputation("duration", "median", MEDIAN_DURATION, 2),  # s0402, s1501
            Imputation("device", "unknown", "Unknown", 3),  # s0501, s1101, s1102
            Imputation("country", "unknown", "Unknown", 1),  # s0501
            Imputation("region", "unknown", "Unknown", SESSIONS_USED - 2),  # all but s1001, s1004
        ],
        absent=["referrer"],
        noise={"endless_session": 1, "internal_user": 1},
    )
    assert noise_of(found) == {user: NOISE.get(user, []) for user in EXPECTED}
    marked = found.sessions.filter(found.sessions["duration_imputed"])
    assert marked["session_id"].to_pylist() == ["s0402", "s1501"]
    assert marked["duration"].to_pylist() == [MEDIAN_DURATION] * 2


def test_sessions_come_out_as_documented() -> None:
    found = clean(sessions_table(), CLEANING).sessions
    details = ("duration", "device", "country", "region")
    columns = ["session_id", "user_id", "search_query", "timestamp", "clicks", *details]
    assert found.column_names == [*columns, *(f"{name}_imputed" for name in details)]
    assert found.schema.field("clicks").type == pa.int64()
    assert found["session_id"].to_pylist() == sorted(found["session_id"].to_pylist())


# --- sessions that are there twice


def test_of_repeated_sessions_the_one_with_more_events_is_kept_and_of_equals_the_smaller_id() -> None:
    more = [event("view", "A"), event("view", "B")]
    rows = [
        session("s0101", "03-01", events=[event("view", "C")]),
        session("s0102", "03-01", events=more),
        session("s0103", "03-01", events=more),
        session("s0104", "03-01", search_query="socks"),
        session("s0105", "03-01 00:01"),
        session("s0201", "03-01"),
    ]
    found = cleaned(rows)
    assert found.sessions["session_id"].to_pylist() == ["s0102", "s0104", "s0105", "s0201"]
    assert found.account.sessions_set_aside == {"duplicate_session": 2}
    assert found.account.events_set_aside == {"of_duplicate_session": 3}
    assert set(found.events["session_id"].to_pylist()) == {"s0102"}
    assert cleaned(rows[::-1]) == found


# --- events that are there twice


def kept(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    found = cleaned(rows).events.to_pylist()
    return [(row["session_id"], row["event_type"], row["product_id"]) for row in found]


def test_different_products_at_the_same_moment_are_no_duplicates() -> None:
    when = "03-01 00:01"
    events = [buy("A", "T", when=when), buy("B", "T", when=when), buy("A", "T", when=when), buy("A", "U", when=when)]
    rows = [session("s0101", "03-01", events=events)]
    assert kept(rows) == [("s0101", "purchase", "A"), ("s0101", "purchase", "B"), ("s0101", "purchase", "A")]
    assert cleaned(rows).account.events_set_aside == {"duplicate_event": 1}


def test_events_without_a_time_of_their_own_repeat_nothing() -> None:
    """Two looks at one product: that both are dated by their session does not make them one."""
    rows = [session("s0101", "03-01", events=[event("view", "A"), event("view", "A"), event("view", "A", "03-01")])]
    assert len(kept(rows)) == 3
    assert cleaned(rows).account.events_set_aside == {}


def test_an_event_repeats_another_only_with_user_kind_moment_and_product() -> None:
    first, later = "03-01", "03-01 00:01"
    rows = [
        session(
            "s0101", first, events=[event("view", "A", first), event("click", "A", first), event("view", "A", later)]
        ),
        session("s0201", first, events=[event("view", "A", first)]),
        session("s0102", later, events=[event("view", "A", later)]),
    ]
    found = cleaned(rows)
    assert found.account.events_set_aside == {"duplicate_event": 1}
    # 00:01 in both: the smaller id goes first
    assert kept(rows) == [
        ("s0101", "view", "A"),
        ("s0101", "click", "A"),
        ("s0101", "view", "A"),
        ("s0201", "view", "A"),
    ]


def test_an_order_that_is_reported_later_again_counts_once_where_it_was_first() -> None:
    rows = [
        session("s0101", "03-02", events=[buy("A", "T", 5)]),
        session("s0102", "03-01", events=[buy("A", "T", 2), buy("B", "T"), event("view", "A")]),
        session("s0103", "03-03", events=[event("view", "A") | {"transaction_id": "T"}, buy("A"), buy("A", "T2")]),
        session("s0104", "03-04", events=[buy("A")]),
    ]
    found = cleaned(rows)
    assert found.account.events_set_aside == {"duplicate_transaction": 1}
    bought = [row for row in found.events.to_pylist() if row["event_type"] == "purchase"]
    assert [(row["session_id"], row["product_id"], row["quantity"]) for row in bought] == [
        ("s0102", "A", 2),
        ("s0102", "B", None),
        ("s0103", "A", None),
        ("s0103", "A", None),  # in T2, another order
        ("s0104", "A", None),
    ]


def test_the_same_transaction_of_two_users_is_two_orders() -> None:
    """A shop that numbers the orders of each of its branches."""
    rows = [session("s0101", "03-01", events=[buy("A", "1")]), session("s0201", "03-04", events=[buy("A", "1")])]
    found = cleaned(rows)
    assert found.account.events_set_aside == {}
    assert found.events["user_id"].to_pylist() == ["u01", "u02"]


@pytest.mark.parametrize("when", [None, "03-01 00:01"])
@pytest.mark.parametrize("transaction", [None, "T1"])
def test_without_product_ids_lines_of_an_order_differ_by_price_and_quantity(
    transaction: str | None, when: str | None
) -> None:
    line = buy("A", transaction, 1, when) | {"product_id": None}
    lines = [line | {"price": 10.0}, line | {"price": 20.0}, line | {"price": 20.0, "quantity": 2.0}]
    found = cleaned([session("s0101", "03-01", events=lines)])
    assert found.account.events_set_aside == {}
    assert found.events.select(["price", "quantity"]).to_pylist() == [
        {"price": 10, "quantity": 1},
        {"price": 20, "quantity": 1},
        {"price": 20, "quantity": 2},
    ]


def test_without_product_ids_a_line_of_the_same_price_and_quantity_is_a_repetition() -> None:
    one, other = (buy("A", "T1", when=when) | {"product_id": None} for when in ("03-01 00:01", "03-01 00:02"))
    found = cleaned([session("s0101", "03-01", events=[one, one, other])])
    assert found.account.events_set_aside == {"duplicate_event": 1, "duplicate_transaction": 1}


def test_with_a_product_id_another_price_makes_no_other_line() -> None:
    rows = [session("s0101", "03-01", events=[buy("A", "T1"), buy("A", "T1", 2) | {"price": 99.0}])]
    assert cleaned(rows).account.events_set_aside == {"duplicate_transaction": 1}


def test_the_first_of_repeated_events_keeps_its_price() -> None:
    dearer = event("view", "A", "03-01") | {"price": 99.0}
    found = cleaned([session("s0101", "03-01", events=[dearer, event("view", "A", "03-01")])])
    assert found.events["price"].to_pylist() == [99.0]


def test_events_come_out_by_user_moment_session_and_place() -> None:
    rows = [
        session("s0201", "03-01", events=[event("view", "A")]),
        session("s0102", "03-01", events=[event("view", "B", "03-02"), event("view", "C"), event("click", "A")]),
        session("s0101", "03-01 00:01", events=[event("view", "D"), event("view", "E", "03-01")]),
    ]
    found = cleaned(rows).events
    assert found.schema == EVENT_SCHEMA
    assert found["product_id"].to_pylist() == ["E", "C", "A", "D", "B", "A"]
    assert found["user_id"].to_pylist() == ["u01"] * 5 + ["u02"]
    assert found["timestamp"].to_pylist()[:4] == [moment("03-01")] * 3 + [moment("03-01 00:01")]


# --- clicks


def test_clicks_are_those_of_products_or_of_events_whichever_are_more() -> None:
    rows = [
        session("s0101", "03-01", "AB", events=[event("click", "A")]),
        session("s0102", "03-02", "A", events=[event("click", p, "03-02") for p in "ABCA"]),
        session("s0103", "03-03", events=[event("view", "A")]),
    ]
    assert cleaned(rows).sessions["clicks"].to_pylist() == [2, 3, 0]


# --- noise


def visits(user: int, times: Sequence[str], **fields: Any) -> list[dict[str, Any]]:
    return [session(f"s{user:02}{n:02}", when, **fields) for n, when in enumerate(times)]


def test_more_sessions_in_an_hour_of_the_clock_than_allowed_is_a_bot() -> None:
    rows = [
        *visits(1, ["03-01 10:00", "03-01 10:30", "03-01 10:59"]),
        *visits(2, ["03-01 10:58", "03-01 10:59", "03-01 11:00"]),  # as quick, but in two hours of the clock
        *visits(3, ["03-01 10:00", "03-02 10:30", "03-03 10:59"]),
    ]
    found = cleaned(rows, CleaningSettings(max_sessions_per_hour=2))
    assert noise_of(found) == {"u01": ["bot_rate"], "u02": [], "u03": []}
    assert noise_of(cleaned(rows, CleaningSettings(max_sessions_per_hour=3)))["u01"] == []


def test_a_session_longer_than_allowed_marks_the_user_and_stays_as_long_as_it_was() -> None:
    found = cleaned(
        [session("s0101", "03-01", "", 61), session("s0201", "03-01", "", 60)], CleaningSettings(max_duration=60)
    )
    assert noise_of(found) == {"u01": ["endless_session"], "u02": []}
    assert found.sessions["duration"].to_pylist() == [61, 60]


def test_a_query_repeated_often_and_mostly_is_a_machines() -> None:
    days = [f"03-{day:02}" for day in range(1, 10)]
    same, other = {"search_query": "shoes"}, {"search_query": "socks"}
    rows = [
        *visits(1, days[:3], **same),
        *visits(2, days[:2], **same),  # twice only
        *visits(3, days[:3], **same),
        *[row | {"session_id": f"s03{n}x"} for n, row in enumerate(visits(3, days[3:6], **other))],  # half of them
        *visits(4, days[:3], **same),
        *[row | {"session_id": f"s04{n}x", "search_query": f"{n}"} for n, row in enumerate(visits(4, days[3:7]))],
    ]
    found = cleaned(rows, CleaningSettings(max_repeats=3))
    assert noise_of(found) == {
        "u01": ["repeated_query"],
        "u02": [],
        "u03": ["repeated_query"],
        "u04": [],  # 3 of 7 are less than half
    }


@pytest.mark.parametrize(
    ("referrer", "internal"),
    [
        ("corp.example", True),
        ("https://corp.example", True),
        ("https://corp.example/wiki?x=1", True),
        ("http://WIKI.Corp.Example:8080/page", True),
        ("//wiki.corp.example/page", True),
        ("corp.example:8080/page", True),
        ("https://me:secret@corp.example/", True),
        ("https://corp.example./", True),
        ("newsletter-test", True),
        ("Newsletter-Test", True),
        ("https://notcorp.example/", False),
        ("https://corp.example.evil.test/", False),
        ("https://elsewhere.test/?from=corp.example", False),
        ("https://elsewhere.test/corp.example", False),
        ("https://elsewhere.test/@corp.example", False),
        ("", False),
        (None, False),
    ],
)
def test_who_comes_from_inside_is_marked(referrer: str | None, internal: bool) -> None:
    rows = [session("s0101", "03-01"), session("s0102", "03-02"), session("s0201", "03-01")]
    for row, value in zip(rows, (referrer, "https://shop.test", "https://shop.test"), strict=True):
        row["referrer"] = value
    table = pa.Table.from_pylist(rows, schema=FIELDS.append(pa.field("referrer", pa.string())))
    found = clean(table, CleaningSettings(internal_referrers=frozenset({"corp.example", "newsletter-test"})))
    assert noise_of(found) == {"u01": ["internal_referrer"] if internal else [], "u02": []}


def test_a_user_can_be_marked_for_several_reasons_and_is_still_there() -> None:
    chosen = CleaningSettings(internal_users=frozenset({"u01", "u77"}), max_duration=10, max_sessions_per_hour=1)
    found = cleaned(visits(1, ["03-01", "03-01 00:01"]), chosen)
    assert noise_of(found) == {"u01": ["bot_rate", "endless_session", "internal_user"]}
    assert found.account.noise == {"bot_rate": 1, "endless_session": 1, "internal_user": 1}
    assert len(found.sessions) == 2


# --- filling in


def test_what_is_filled_in_is_found_among_users_who_are_not_marked() -> None:
    rows = [
        session("s0101", "03-01", "", 10, "phone"),
        session("s0102", "03-02", "", 30, "phone"),
        session("s0201", "03-01", "", None, None),
        *[session(f"s20{n:02}", f"03-{n:02}", "", 500, "robot") for n in range(1, 6)],
    ]
    chosen = CleaningSettings(impute={"duration": "mean", "device": "mode"}, internal_users=frozenset({"u20"}))
    found = cleaned(rows, chosen)
    assert found.account.imputations == [
        Imputation("duration", "mean", 20.0, 1),
        Imputation("device", "mode", "phone", 1),
    ]
    row = found.sessions.filter(pa.array([key == "s0201" for key in found.sessions["session_id"].to_pylist()]))
    assert row.select(["duration", "duration_imputed", "device", "device_imputed"]).to_pylist() == [
        {"duration": 20.0, "duration_imputed": True, "device": "phone", "device_imputed": True}
    ]


def test_what_is_not_to_be_filled_stays_missing_and_has_no_mark() -> None:
    found = cleaned(
        [session("s0101", "03-01", "", None), session("s0102", "03-02")], CleaningSettings(impute={"duration": "none"})
    )
    assert found.sessions["duration"].to_pylist() == [None, 100]
    assert "duration_imputed" not in found.sessions.column_names
    assert found.account.imputations == [Imputation("duration", "none", None, 0)]


def test_a_column_that_no_session_has_a_value_in_is_absent_and_not_filled() -> None:
    found = cleaned([session("s0101", "03-01", "", None, None, country=None)])
    assert found.sessions.column_names == ["session_id", "user_id", "search_query", "timestamp", "clicks"]
    assert found.account.absent == ["duration", "device", "country", "region", "referrer", "events"]
    assert found.account.imputations == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"colour": "mode"}, "'colour'"),
        ({"events": "none"}, "'events'"),
        ({"device": "mean"}, "the mean of device, which is text"),
        ({"duration": "unknown"}, "the unknown of duration, which is a number"),
        ({"duration": "mode"}, "the mode of duration, which is a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_cure(how: dict[str, Any], said: str) -> None:
    """Also while no session has the column: the settings are wrong whatever the data."""
    with pytest.raises(ImpossibleImputation, match=said) as caught:
        clean(SESSION_SCHEMA.empty_table(), CleaningSettings(impute=how))
    assert "duration" in caught.value.cure or "device" in caught.value.cure


# --- the shape of what comes in


def test_sessions_without_any_details_are_cleaned_as_well() -> None:
    bare = sessions_table().select(SESSION_SCHEMA.names)
    found = clean(bare, PLAIN)
    assert found.account.sessions_used == SESSIONS_USED
    assert found.account.absent == ["duration", "device", "country", "region", "referrer", "events"]
    assert found.events.equals(EVENT_SCHEMA.empty_table())
    assert found.sessions.column_names == ["session_id", "user_id", "search_query", "timestamp", "clicks"]


def test_no_session_is_nobody() -> None:
    found = clean(FIELDS.empty_table(), PLAIN)
    assert (len(found.sessions), len(found.events), len(found.users)) == (0, 0, 0)
    assert (found.account.sessions_read, found.account.events_read) == (0, 0)
    assert found.users.schema == pa.schema({"user_id": pa.string(), "noise": pa.list_(pa.string())})


def test_pieces_of_a_table_are_cleaned_as_the_whole() -> None:
    whole = sessions_table()
    pieces = pa.concat_tables([whole.slice(0, 5), whole.slice(5, 20), whole.slice(25)])
    assert clean(pieces, CLEANING) == clean(whole, CLEANING)
    assert clean(whole.slice(6, 9), CLEANING) == clean(
        pa.Table.from_pylist(whole.slice(6, 9).to_pylist(), FIELDS), CLEANING
    )


# --- whatever the sessions

EVENTS = st.none() | st.lists(
    st.builds(
        event,
        st.sampled_from(EVENT_TYPES),
        st.sampled_from([None, "A", "B"]),
        st.sampled_from([None, "03-20 10:00", "03-21 11:30"]),
        st.none(),
        st.sampled_from([None, "T1", "T2"]),
    ),
    max_size=4,
)
LOGS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["03-20 10:00", "03-20 10:30", "03-21 11:30"]),
        st.sampled_from(["shoes", "socks"]),
        st.sampled_from([None, 10.0, 1e5]),
        st.sampled_from([None, "phone", "desktop"]),
        EVENTS,
    ),
    max_size=14,
).map(
    lambda rows: [
        session(f"s{user:02}{n:02}", when, "", duration, device, events or ())
        | {"search_query": query, "events": events}
        for n, (user, when, query, duration, device, events) in enumerate(rows)
    ]
)


@settings(max_examples=80)
@given(LOGS, st.randoms(use_true_random=False))
def test_everything_is_accounted_for_in_any_order(rows: list[dict[str, Any]], chance: Any) -> None:
    found = cleaned(rows)
    account = found.account
    assert account.sessions_read == len(rows)
    assert account.sessions_used == len(found.sessions)
    assert account.sessions_read == account.sessions_used + sum(account.sessions_set_aside.values())
    assert account.events_read == sum(len(row["events"] or ()) for row in rows)
    assert account.events_used == len(found.events)
    assert account.events_read == account.events_used + sum(account.events_set_aside.values())
    assert found.users["user_id"].to_pylist() == sorted({row["user_id"] for row in rows})
    assert set(found.sessions["user_id"].to_pylist()) == {row["user_id"] for row in rows}
    assert account.noise.get("endless_session", 0) == sum("endless_session" in why for why in noise_of(found).values())
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert cleaned(shuffled) == found


def dated(event: dict[str, Any], when: object) -> dict[str, Any]:
    return event | {"timestamp": event["timestamp"] or when}


@settings(max_examples=80)
@given(LOGS)
def test_what_is_clean_has_nothing_twice_and_stays_as_it_is(rows: list[dict[str, Any]]) -> None:
    rows = [row | {"events": [dated(e, row["timestamp"]) for e in row["events"] or ()]} for row in rows]
    found = cleaned(rows)
    sessions = [(r["user_id"], r["timestamp"], r["search_query"]) for r in found.sessions.to_pylist()]
    assert len(set(sessions)) == len(sessions) == len({(r["user_id"], r["timestamp"], r["search_query"]) for r in rows})
    events = found.events.to_pylist()
    for one in events:
        one["product"] = one["product_id"] or (one["price"], one["quantity"])
    names = ("user_id", "event_type", "timestamp", "product", "transaction_id")
    keys = [tuple(e[name] for name in names) for e in events]
    assert len(set(keys)) == len(keys)
    orders = [(e["transaction_id"], e["user_id"], e["product"]) for e in events if e["event_type"] == "purchase"]
    orders = [order for order in orders if order[0]]
    assert len(set(orders)) == len(orders)
    left = {key: [e for e in events if e["session_id"] == key] for key in found.sessions["session_id"].to_pylist()}
    again = cleaned([row | {"events": left[row["session_id"]]} for row in rows if row["session_id"] in left])
    assert again.events.equals(found.events)
    assert again.sessions.equals(found.sessions)
    assert again.account.sessions_set_aside == again.account.events_set_aside == {}
