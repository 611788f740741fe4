"""Which events can be used, and sessions told as events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.live.events import (
    CLOCK_SKEW,
    EVENT_TYPES,
    LARGEST,
    BadEvent,
    Event,
    as_document,
    checked,
    digest,
    encode,
    events_of_session,
)

NOW = 1_763_000_000_000


def an_event(**fields: Any) -> Event:
    return Event(**{"event_id": "e1", "user_id": "u1", "event_type": "view", "timestamp": NOW, **fields})


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_type_of_event_can_be_used(kind: str) -> None:
    assert checked(an_event(event_type=kind), NOW).event_type == kind


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event_type": "hover"}, "event_type"),
        ({"event_id": " "}, "event_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 513}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": NOW + CLOCK_SKEW + 1}, "timestamp"),
        ({"search_query": "  "}, "search_query"),
        ({"session_id": ""}, "session_id"),
        ({"product_id": " "}, "product_id"),
        ({"transaction_id": ""}, "transaction_id"),
        ({"category": "c" * 257}, "category"),
        ({"device": ""}, "device"),
        ({"country": "\ud800"}, "country"),
        ({"region": " "}, "region"),
        ({"referrer": ""}, "referrer"),
        ({"price": -0.01}, "price"),
        ({"price": float("nan")}, "price"),
        ({"price": LARGEST * 2}, "price"),
        ({"quantity": 0.0}, "quantity"),
        ({"quantity": float("inf")}, "quantity"),
        ({"duration": -1.0}, "duration"),
    ],
)
def test_what_cannot_be_used_is_refused_by_the_name_of_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadEvent, match=f"^{field}: "):
        checked(an_event(**fields), NOW)


def test_texts_are_folded_as_those_of_stored_sessions() -> None:
    event = checked(an_event(user_id=" u 1 ", search_query=" red\n shoes ", category="garden \t tools", country=" DE "))
    assert (event.user_id, event.search_query) == ("u 1", "red shoes")
    assert (event.category, event.country) == ("garden tools", "DE")


def test_a_clock_may_be_a_little_ahead() -> None:
    assert checked(an_event(timestamp=NOW + CLOCK_SKEW), NOW).timestamp == NOW + CLOCK_SKEW


def test_nothing_is_in_the_future_of_an_unknown_moment() -> None:
    assert checked(an_event(timestamp=NOW * 2)).timestamp == NOW * 2


@given(st.text(max_size=600), st.text(max_size=600))
def test_a_checked_event_stays_as_it_is(user: str, category: str) -> None:
    try:
        event = checked(an_event(user_id=user, category=category))
    except BadEvent:
        return
    assert checked(an_event(user_id=event.user_id, category=event.category)) == event


def test_a_digest_is_the_same_in_every_process_and_fits_63_bits() -> None:
    assert digest("a") == 2_340_832_890_917_691_671 < 2**63
    assert digest("b") != digest("a")


def test_the_wire_form_names_its_version_and_leaves_out_what_is_not_known() -> None:
    assert json.loads(encode(an_event(price=0.0))) == {
        "schema": 1,
        "event_id": "e1",
        "user_id": "u1",
        "event_type": "view",
        "timestamp": NOW,
        "price": 0.0,
    }
    assert as_document(an_event())["schema"] == 1


SESSION = {
    "session_id": "s1",
    "user_id": "u1",
    "search_query": "red shoes",
    "timestamp": "2026-01-31T12:00:00Z",
    "clicked_product_ids": ["p1", "p2"],
    "device": "mobile",
    "duration": 90.0,
    "events": [
        {"event_type": "search", "timestamp": "2026-01-31T12:00:00Z"},
        {"event_type": "purchase", "timestamp": "2026-01-31T12:01:00Z", "product_id": "p1", "price": 9.5},
        {"event_type": "click", "timestamp": "2026-01-31T12:00:30Z", "product_id": "p1"},
    ],
}


def test_a_session_begins_with_its_search_and_goes_on_in_order_of_time() -> None:
    events = list(events_of_session(SESSION))
    assert [event.event_type for event in events] == ["search", "click", "click", "purchase"]
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    assert (events[0].search_query, events[0].duration) == ("red shoes", 90.0)
    assert {event.device for event in events} == {"mobile"}


def test_a_click_that_an_event_tells_of_is_told_once() -> None:
    clicked = [event.product_id for event in events_of_session(SESSION) if event.event_type == "click"]
    assert sorted(clicked) == ["p1", "p2"]


def test_a_second_replay_of_a_session_gives_the_same_ids() -> None:
    first, second = (list(events_of_session(SESSION)) for _ in range(2))
    assert first == second
    assert len({event.event_id for event in first}) == len(first)


def test_every_event_of_a_session_can_be_used() -> None:
    assert all(checked(event) for event in events_of_session(SESSION))
