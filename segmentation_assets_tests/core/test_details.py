"""Details of sessions: what can be used is kept exactly, what cannot is left out and named, and costs nothing else."""

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core import details
from segmentation_assets.core.details import DETAILS_SCHEMA, EVENT, as_documents, columns, find, in_order

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def read(*documents):
    return columns(find(documents), len(documents))


def one(**document):
    """What is made of one document: its values, and what was dropped."""
    row = read(document).to_pylist()
    found = {name: value for name, value in (row[0] if row else {}).items() if value is not None}
    return found, found.pop("dropped", [])


def test_what_nobody_has_is_no_column():
    assert read({}, {"device": None}).column_names == []
    assert read({}, {"device": "mobile"}).column_names == ["device"]


def test_columns_come_in_one_order_with_their_types():
    table = read(
        {"events": [], "referrer": "mail", "duration": 3, "device": "tablet"}, {"country": "DE", "region": "HH"}
    )
    assert table.schema.equals(pa.schema([part for part in DETAILS_SCHEMA if part.name != "dropped"]))


@pytest.mark.parametrize(
    ("value", "seconds"), [(12, 12.0), (0, 0.0), (1.5, 1.5), ("90", 90.0), (-1, None), ("long", None), (True, None)]
)
def test_a_duration_is_a_number_of_seconds(value, seconds):
    found, dropped = one(duration=value)
    assert found.get("duration") == seconds
    assert dropped == ([] if seconds is not None else ["duration: no number of seconds"])


def test_start_and_end_give_the_duration_where_there_is_none():
    begun, over = "2026-01-02T03:00:00Z", "2026-01-02T03:01:30.500Z"
    assert one(start=begun, end=over) == ({"duration": 90.5}, [])
    assert one(start=begun, end=over, duration=7) == ({"duration": 7.0}, [])
    assert one(start=over, end=begun) == ({}, ["end: before start"])
    assert one(start="yesterday", end=over) == ({}, ["start: no time"])
    assert one(start=begun) == ({}, [])


@pytest.mark.parametrize("name", ["device", "country", "region", "referrer"])
def test_names_are_short_texts(name):
    assert one(**{name: "  a  b "}) == ({name: "a b"}, [])
    for odd in (3, True, ["a"], {"a": 1}, "", " ", "x" * 257, "\ud800"):
        assert one(**{name: odd}) == ({}, [f"{name}: no short text"])


def test_amounts_beyond_reason_are_left_out_and_decimals_are_numbers():
    found, dropped = one(
        duration=1e39,
        events=[
            {"event_type": "purchase", "price": Decimal("19.99"), "quantity": 1e300},
            {"event_type": "purchase", "price": 1e10},
        ],
    )
    assert [(event["price"], event["quantity"]) for event in found["events"]] == [(19.99, None), (None, None)]
    assert sorted(dropped) == [
        "duration: no number of seconds",
        "events.price: no amount",
        "events.quantity: no number above 0",
    ]


def test_not_a_number_is_no_value():
    assert one(duration=float("nan"), device=float("nan")) == ({}, [])


@pytest.mark.parametrize("name", ["start", "end"])
def test_half_a_character_is_no_time(name):
    assert one(**{name: "\ud800"}) == ({}, [f"{name}: no time"])
    assert one(events=[{"event_type": "view", "timestamp": "\ud800"}])[1] == ["events.timestamp: no time"]


def test_a_start_without_an_end_says_nothing_and_loses_nobody():
    assert as_documents(find([{"start": "2026-01-02T03:00:00Z"}, {}]), 2) == [{}, {}]
    assert as_documents(find([{}]), 1) == [{}]


def test_an_event_is_kept_exactly():
    event = {
        "event_type": "purchase",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "product_id": "p 1",
        "category": "Shoes, women",
        "price": 19.99,
        "quantity": 2,
        "transaction_id": 77,
    }
    found, dropped = one(events=[event])
    assert dropped == []
    assert found["events"] == [event | {"timestamp": WHEN, "transaction_id": "77", "quantity": 2.0}]


def test_what_is_wrong_with_an_event_costs_only_that():
    good = {"event_type": "view", "product_id": "p"}
    odd = {"event_type": "click", "product_id": ["p"], "category": 3, "price": -1, "quantity": 0, "timestamp": "soon"}
    found, dropped = one(device="mobile", events=[good, "view", odd, {"event_type": "dance"}, {"price": 3}])
    nothing = dict.fromkeys(part.name for part in EVENT)
    assert found == {
        "device": "mobile",
        "events": [nothing | good, nothing | {"event_type": "click"}],
    }
    assert sorted(dropped) == [
        "events.category: no short text",
        "events.event_type: unknown",
        "events.event_type: unknown",
        "events.price: no amount",
        "events.product_id: no id",
        "events.quantity: no number above 0",
        "events.timestamp: no time",
        "events: no object",
    ]


def test_no_list_of_events_is_told_from_an_empty_one():
    table = read({"events": []}, {}, {"events": "view"}, {"events": [{"event_type": "search"}]})
    assert [value if value is None else len(value) for value in table["events"].to_pylist()] == [0, None, None, 1]
    assert table["dropped"].to_pylist() == [None, None, ["events: no list"], None]


def test_a_number_is_not_taken_for_another_that_is_equal_to_it():
    """True == 1 == 1.0, and only one of them is an id."""
    events = [{"event_type": "view", "product_id": value} for value in (1, True, 1.0, "1")]
    found, dropped = one(events=events)
    assert [event["product_id"] for event in found["events"]] == ["1", None, None, "1"]
    assert dropped == ["events.product_id: no id"] * 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(details.EVENT_FIELDS), inner, max_size=4)
    ),
    max_leaves=8,
)
events = st.lists(
    st.fixed_dictionaries(
        {"event_type": st.sampled_from([*details.EVENT_TYPES, "dance"])},
        optional={
            "timestamp": st.sampled_from(["2026-01-02T03:04:05.678Z", "2026-01-02", 1_700_000_000_000, "soon"]),
            "price": st.floats(-1, 100) | json_values,
            "product_id": st.text(max_size=4) | st.integers(0, 9),
        },
    ),
    max_size=4,
)
documents = st.dictionaries(st.sampled_from([*details.FIELDS]), json_values, max_size=4) | st.builds(
    lambda found, more: more | {"events": found}, events | json_values, st.fixed_dictionaries({})
)


@settings(deadline=None)
@given(st.lists(documents, min_size=1, max_size=8))
def test_a_document_is_read_alike_alone_and_among_others(found):
    together = read(*found)
    for row, document in enumerate(found):
        alone = read(document).to_pylist()
        expected = {name: value for name, value in (alone[0] if alone else {}).items() if value is not None}
        mine = {name: together[name][row].as_py() for name in together.column_names}
        assert {name: value for name, value in mine.items() if value is not None} == expected


@settings(deadline=None)
@given(st.lists(documents, min_size=1, max_size=5))
def test_what_is_stored_is_read_again_as_it_is(found):
    stored = as_documents(find(found), len(found))
    for document in stored:
        document.pop("dropped", None)
    again = as_documents(find(stored), len(stored))
    assert again == stored


def test_a_column_that_became_empty_goes():
    table = pa.table({"session_id": ["a"], "region": pa.array([None], pa.string()), "device": ["mobile"]})
    assert in_order(table).column_names == ["session_id", "device"]
