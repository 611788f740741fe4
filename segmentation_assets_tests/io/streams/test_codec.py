"""Bytes of a stream as events."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segmentation_assets.core.live.events import EVENT_TYPES, BadEvent, Event, checked, encode
from segmentation_assets.io.streams.codec import decode, decode_many

NOW = 1_763_000_000_000
PLAIN: dict[str, Any] = {"event_id": "e1", "user_id": "u1", "event_type": "view", "timestamp": NOW}


def bytes_of(**fields: Any) -> bytes:
    return json.dumps({**PLAIN, **fields}).encode()


def reason(value: bytes | None, received: int = NOW) -> str:
    with pytest.raises(BadEvent) as found:
        decode(value, received)
    return str(found.value)


# --- our own shape ----------------------------------------------------------------------------------------------------


def test_a_plain_event_is_read() -> None:
    assert decode(bytes_of(schema=1, price=2, category="hats"), NOW) == Event(
        "e1", "u1", "view", NOW, category="hats", price=2.0
    )


@pytest.mark.parametrize(
    "time",
    [
        "2025-11-13T02:13:20Z",
        "2025-11-13T02:13:20.000Z",
        "2025-11-13T02:13:20.000000+00:00",
        "2025-11-13T03:13:20+01:00",
        "2025-11-13 02:13:20",
        str(NOW),
        NOW,
        float(NOW),
    ],
)
def test_a_time_is_iso_text_or_milliseconds(time: object) -> None:
    event = decode(bytes_of(timestamp=time), NOW)
    assert event is not None
    assert event.timestamp == NOW


def test_what_the_schema_does_not_know_is_ignored() -> None:
    assert decode(bytes_of(colour="red", nested={"deep": [1, {}]}), NOW) == Event("e1", "u1", "view", NOW)


def test_an_id_may_be_a_whole_number_as_in_stored_sessions() -> None:
    event = decode(bytes_of(user_id=17, product_id=12_345_678_901_234_567_890), NOW)
    assert event is not None
    assert (event.user_id, event.product_id) == ("17", "12345678901234567890")


def test_null_is_as_good_as_absent() -> None:
    assert decode(bytes_of(price=None, device=None, schema=None), NOW) == Event("e1", "u1", "view", NOW)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schema": 2}, "schema: unknown version"),
        ({"schema": "1"}, "schema: unknown version"),
        ({"schema": True}, "schema: unknown version"),
        ({"event_id": None}, "event_id: missing"),
        ({"user_id": True}, "user_id: empty, too long or no text"),
        ({"user_id": 10**5000}, None),
        ({"event_type": None}, "event_type: missing"),
        ({"event_type": 3}, "event_type: no text"),
        ({"event_type": "hover"}, "event_type: unknown"),
        ({"timestamp": None}, "timestamp: missing"),
        ({"timestamp": True}, "timestamp: no time"),
        ({"timestamp": "yesterday"}, "timestamp: no time"),
        ({"timestamp": "2026-04-31T00:00:00.000Z"}, "timestamp: no time"),
        ({"timestamp": 10**30}, "timestamp: no time"),
        ({"timestamp": -1}, "timestamp: before 1970"),
        ({"timestamp": NOW + 3_600_000}, "timestamp: in the future"),
        ({"price": "9.99"}, "price: no number"),
        ({"price": True}, "price: no number"),
        ({"price": 10**400}, "price: no number"),
        ({"price": -1}, "price: no amount"),
        ({"device": 5}, "device: no text"),
        ({"product_id": ["p1"]}, "product_id: empty, too long or no text"),
    ],
)
def test_a_bad_field_is_named_and_its_value_is_not(fields: dict[str, Any], expected: str | None) -> None:
    if expected is None:
        value = b'{"event_id":"e","event_type":"view","timestamp":1,"user_id":1' + b"0" * 5000 + b"}"
        assert reason(value).startswith(("user_id: ", "value: "))
    else:
        assert reason(bytes_of(**fields)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "value: missing"),
        (b"", "value: no JSON"),
        (b"{", "value: no JSON"),
        (b"\xff\xfe", "value: no JSON"),
        (b'{"user_id": "\xff"}', "value: no JSON"),
        (b'{"user_id": "\\ud800"}', "value: no JSON"),
        (b'{"price": NaN}', "value: no JSON"),
        (b"[" * 100_000, "value: no JSON"),
        (b'{"event_id":"e","nested":' + b"[" * 100_000, "value: no JSON"),
        (b"[]", "value: no object"),
        (b'"text"', "value: no object"),
        (b"3", "value: no object"),
        (b"null", "value: no object"),
        (b"{}", "event_type: missing"),
    ],
)
def test_what_is_no_object_is_a_bad_event(value: bytes | None, expected: str) -> None:
    assert reason(value) == expected


def test_a_stored_session_is_no_event() -> None:
    session = {"session_id": "s", "user_id": "u", "search_query": "q", "clicked_product_ids": [], "events": []}
    assert reason(json.dumps(session).encode()) == "event_type: missing, as in a stored session"


def test_without_knowing_when_it_was_received_no_event_is_in_the_future() -> None:
    assert decode(bytes_of(timestamp=NOW * 2), -1) == Event("e1", "u1", "view", NOW * 2)


# --- user behavior insights -------------------------------------------------------------------------------------------

UBI_EVENT: dict[str, Any] = {
    "action_name": "item_click",
    "client_id": "c1",
    "query_id": "q1",
    "timestamp": "2025-11-13T02:13:20.000Z",
    "event_attributes": {
        "object": {"object_id": "p1", "object_detail": {"price": "9.50", "category": "hats"}},
        "quantity": 2,
    },
}
UBI_QUERY: dict[str, Any] = {
    "query_id": "q1",
    "client_id": "c1",
    "user_query": "red shoes",
    "timestamp": "2025-11-13T02:13:20.000Z",
    "query_response_id": "r1",
}


def ubi(record: dict[str, Any], **fields: Any) -> Event | None:
    return decode(json.dumps({**record, **fields}).encode(), NOW)


def test_an_event_of_ubi_is_read_as_it_is() -> None:
    event = ubi(UBI_EVENT, event_id="e9")
    expected = Event("e9", "c1", "click", NOW, "q1", product_id="p1", category="hats", price=9.5, quantity=2.0)
    assert event == expected


def test_an_event_of_ubi_without_an_id_is_known_by_its_bytes() -> None:
    first, again, other = ubi(UBI_EVENT), ubi(UBI_EVENT), ubi(UBI_EVENT, client_id="c2")
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.event_id == again.event_id != other.event_id


def test_a_user_id_comes_before_a_client_id() -> None:
    event = ubi(UBI_EVENT, user_id="u7")
    assert event is not None
    assert event.user_id == "u7"


@pytest.mark.parametrize("action", ["hover", "filter", 5, None])
def test_an_action_of_ubi_that_is_none_of_ours_is_nothing(action: object) -> None:
    assert ubi(UBI_EVENT, action_name=action) is None


def test_a_click_of_ubi_on_no_product_is_nothing() -> None:
    assert ubi(UBI_EVENT, event_attributes={}) is None


def test_a_query_of_ubi_is_a_search() -> None:
    assert ubi(UBI_QUERY) == Event("q1:search", "c1", "search", NOW, "q1", "red shoes")


def test_the_event_that_tells_of_a_query_is_the_same_search() -> None:
    told = ubi({**UBI_EVENT, "action_name": "on_search"}, user_query="red shoes")
    assert told == ubi(UBI_QUERY)
    assert ubi({**UBI_EVENT, "action_name": "on_search"}) is None


@pytest.mark.parametrize(
    ("record", "fields", "expected"),
    [
        (UBI_EVENT, {"client_id": None}, "user_id: missing"),
        (UBI_EVENT, {"timestamp": None}, "timestamp: missing"),
        (UBI_EVENT, {"event_attributes": {"object": {"object_id": "p", "price": "dear"}}}, "price: no number"),
        (UBI_QUERY, {"query_id": " "}, "query_id: missing"),
        (UBI_QUERY, {"user_query": ["red"]}, "search_query: no text"),
        (UBI_QUERY, {"user_query": ""}, "search_query: empty, too long or no text"),
    ],
)
def test_a_bad_record_of_ubi_says_which_field(record: dict[str, Any], fields: dict[str, Any], expected: str) -> None:
    assert reason(json.dumps({**record, **fields}).encode()) == expected


# --- whatever comes ---------------------------------------------------------------------------------------------------

texts = st.one_of(st.none(), st.text(min_size=1, max_size=30))
numbers = st.one_of(st.none(), st.floats(0.001, 1e9))
events = st.builds(
    Event,
    st.text(min_size=1, max_size=40),
    st.text(min_size=1, max_size=40),
    st.sampled_from(EVENT_TYPES),
    st.integers(0, NOW),
    *([texts] * 4),
    *([numbers] * 2),
    *([texts] * 5),
    numbers,
)


@given(events)
def test_what_is_encoded_decodes_to_the_same(event: Event) -> None:
    try:
        event = checked(event, NOW)
    except BadEvent:
        return
    assert decode(encode(event), NOW) == event


names = st.sampled_from(
    [
        *Event.__struct_fields__,
        *("schema", "action_name", "client_id", "query_id", "user_query", "event_attributes", "clicked_product_ids"),
    ]
)
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from([*EVENT_TYPES, "on_search", "2026-01-31T12:00:00.000Z"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(names | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
documents = st.dictionaries(names, json_values, max_size=12).map(lambda made: json.dumps(made).encode())


@given(st.one_of(st.none(), st.binary(max_size=200), documents, events.map(encode)), st.integers(-1, 2 * NOW))
@example(b'{"user_id": 1' + b"0" * 5000 + b"}", NOW)
@example(b"[" * 5000, NOW)
def test_any_bytes_are_an_event_or_none_or_a_bad_event(value: bytes | None, received: int) -> None:
    try:
        found = decode(value, received)
    except BadEvent as error:
        field, _, why = str(error).partition(": ")
        assert field.replace("_", "").isalpha()
        assert why
    else:
        assert found is None or checked(found) == found


@given(st.lists(st.one_of(st.none(), st.binary(max_size=50), documents, events.map(encode)), max_size=60))
def test_many_are_read_as_one_by_one(values: list[bytes | None]) -> None:
    def alone(value: bytes | None) -> object:
        try:
            return decode(value, NOW)
        except BadEvent as error:
            return str(error)

    found = [str(one) if isinstance(one, BadEvent) else one for one in decode_many(values, [NOW] * len(values))]
    assert found == list(map(alone, values))


def test_times_that_come_in_many_ways_at_once_are_read_as_one_by_one() -> None:
    times = [
        "2025-11-13T02:13:20.123Z",
        "2025-11-13T02:13:20",
        "x",
        str(NOW),
        "2025-11-13T03:13:20.5+01:00",
        NOW,
        "0001",
    ]
    values = [bytes_of(timestamp=time) for time in times * 20]
    many = decode_many(values, [NOW * 2] * len(values))
    for value, found in zip(values, many, strict=True):
        if isinstance(found, BadEvent):
            assert reason(value, NOW * 2) == str(found)
        else:
            assert decode(value, NOW * 2) == found
    assert sum(isinstance(found, BadEvent) for found in many) == 40
