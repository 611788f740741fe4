"""What a session is: the reasons for setting a document aside, the account of them, and the columns."""

import random
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import (
    CLOCK_SKEW,
    EXAMPLES_PER_REASON,
    MAX_QUERY_LENGTH,
    SESSION_SCHEMA,
    Intake,
    Reason,
    SessionBuilder,
    Sessions,
    check_document,
    merge,
)
from segmentation_assets.core.values import MAX_ID_LENGTH, usable_id

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
GOOD = {
    "user_id": "u1",
    "search_query": "red dress",
    "clicked_product_ids": ["p1"],
    "timestamp": "2025-05-01T10:00:00Z",
}

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("2025-05-01"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
documents = any_json | st.fixed_dictionaries(
    {},
    optional={
        "user_id": any_json,
        "search_query": any_json,
        "clicked_product_ids": any_json,
        "timestamp": any_json | st.datetimes().map(str) | st.integers(0, 2_000_000_000_000),
    },
)


def build(*documents: Any, ids: list[Any] | None = None) -> Sessions:
    builder = SessionBuilder(NOW)
    for number, document in enumerate(documents):
        builder.add(ids[number] if ids else f"s{number}", document)
    return builder.finish()


@given(st.lists(st.tuples(any_json, documents), max_size=12))
@settings(deadline=None)
def test_every_document_is_either_kept_or_set_aside_whatever_it_is(arriving: list[tuple[Any, Any]]) -> None:
    builder = SessionBuilder(NOW)
    reasons = [builder.add(key, document) for key, document in arriving]
    sessions = builder.finish()
    intake = sessions.intake
    assert intake.read == len(arriving) == intake.kept + intake.set_aside_total
    assert intake.kept == len(sessions) == reasons.count(None)
    assert sessions.table.schema == SESSION_SCHEMA
    for names in intake.examples.values():
        assert len(names) <= EXAMPLES_PER_REASON
        "".join(names).encode()  # can be stored and shown


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": None}, Reason.NO_USER),
        ({"user_id": "  "}, Reason.NO_USER),
        ({"user_id": True}, Reason.NO_USER),
        ({"user_id": 1.5}, Reason.NO_USER),
        ({"user_id": ["u1"]}, Reason.NO_USER),
        ({"user_id": "\ud800"}, Reason.NO_USER),
        ({"user_id": "ü" * (MAX_ID_LENGTH // 2 + 1)}, Reason.NO_USER),
        ({"search_query": None}, Reason.EMPTY_QUERY),
        ({"search_query": " \t\n\u00a0"}, Reason.EMPTY_QUERY),
        ({"search_query": 4070}, Reason.QUERY_NOT_TEXT),
        ({"search_query": ["red", "dress"]}, Reason.QUERY_NOT_TEXT),
        ({"search_query": "half \ud800 a pair"}, Reason.QUERY_NOT_TEXT),
        ({"search_query": "x" * (MAX_QUERY_LENGTH + 1)}, Reason.QUERY_TOO_LONG),
        ({"timestamp": None}, Reason.BAD_TIMESTAMP),
        ({"timestamp": "yesterday"}, Reason.BAD_TIMESTAMP),
        ({"timestamp": float("nan")}, Reason.BAD_TIMESTAMP),
        ({"timestamp": "2025-02-30"}, Reason.BAD_TIMESTAMP),
        ({"timestamp": (NOW + CLOCK_SKEW + timedelta(seconds=1)).isoformat()}, Reason.FUTURE_TIMESTAMP),
        ({"clicked_product_ids": [None]}, Reason.BAD_CLICKS),
        ({"clicked_product_ids": {"id": "p1"}}, Reason.BAD_CLICKS),
        ({"clicked_product_ids": ["p1", 1.5]}, Reason.BAD_CLICKS),
    ],
)
def test_an_unusable_document_is_set_aside_with_its_reason(change: dict[str, Any], reason: Reason) -> None:
    assert check_document({**GOOD, **change}, NOW) == reason
    sessions = build(GOOD, {**GOOD, **change})
    assert len(sessions) == 1
    assert sessions.intake == Intake(2, 1, {reason.value: 1}, {reason.value: ["s1"]})


@pytest.mark.parametrize(
    ("change", "column", "value"),
    [
        ({"user_id": 17}, 0, "17"),
        ({"user_id": " u1 "}, 0, "u1"),
        ({"user_id": "ü" * (MAX_ID_LENGTH // 2)}, 0, "ü" * (MAX_ID_LENGTH // 2)),
        ({"search_query": "  red \n dress\t"}, 1, "red dress"),
        ({"search_query": "x" * MAX_QUERY_LENGTH}, 1, "x" * MAX_QUERY_LENGTH),
        ({"clicked_product_ids": None}, 2, []),
        ({"clicked_product_ids": "p9"}, 2, ["p9"]),
        ({"clicked_product_ids": [1, "p2"]}, 2, ["1", "p2"]),
        ({"timestamp": (NOW + CLOCK_SKEW).isoformat()}, 3, NOW + CLOCK_SKEW),
    ],
)
def test_a_usable_document_is_put_in_order(change: dict[str, Any], column: int, value: Any) -> None:
    checked = check_document({**GOOD, **change}, NOW)
    assert not isinstance(checked, Reason)
    assert checked[column] == value


@pytest.mark.parametrize("document", [None, 3, "text", ["list"]])
def test_what_is_no_object_is_set_aside_as_such(document: Any) -> None:
    assert check_document(document, NOW) == Reason.NOT_AN_OBJECT


@pytest.mark.parametrize("key", [None, "", " ", True, 2.5, "\ud800", "x" * (MAX_ID_LENGTH + 1)])
def test_a_good_document_under_an_id_that_is_none_is_set_aside(key: Any) -> None:
    sessions = build(GOOD, ids=[key])
    assert sessions.intake.set_aside == {Reason.BAD_ID.value: 1}


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2025-05-01", datetime(2025, 5, 1, tzinfo=UTC)),
        ("2025-05-01T10:00:00", datetime(2025, 5, 1, 10, tzinfo=UTC)),
        ("2025-05-01T10:00:00.250+02:00", datetime(2025, 5, 1, 8, 0, 0, 250_000, tzinfo=UTC)),
        (" 2025-05-01T10:00:00Z ", datetime(2025, 5, 1, 10, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_746_093_600_000, datetime(2025, 5, 1, 10, tzinfo=UTC)),
        ("1746093600000", datetime(2025, 5, 1, 10, tzinfo=UTC)),
        (-1000, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime(2025, 5, 1, 10), datetime(2025, 5, 1, 10, tzinfo=UTC)),
        (datetime(2025, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2025, 5, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_every_form_and_given_in_utc(value: object, moment: datetime) -> None:
    assert parse_timestamp(value) == moment
    assert parse_timestamp(value).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        None, True, "", "soon", "20:15", "--1746093600000", "9" * 5000, 10**400, float("inf"), float("nan"), [], {},
        date(2025, 5, 1), datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "0001-01-01T00:00:00+14:00",
    ],
)  # fmt: skip
def test_what_is_no_time_is_none_and_no_error(value: object) -> None:
    assert parse_timestamp(value) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_written_as_iso_8601_comes_back_as_it_was(moment: datetime) -> None:
    assert parse_timestamp(moment.isoformat()) == moment


@given(st.datetimes(max_value=datetime(2025, 1, 1), timezones=st.just(UTC)))
def test_the_table_holds_a_time_to_the_millisecond(moment: datetime) -> None:
    table = build({**GOOD, "timestamp": moment.isoformat()}).table
    assert abs(table["timestamp"][0].as_py() - moment) < timedelta(milliseconds=1)


@given(st.one_of(st.text(), st.integers(), st.binary(), st.floats(), st.none()))
def test_an_id_once_usable_stays_as_it_is(value: object) -> None:
    key = usable_id(value)
    assert key is None or (usable_id(key) == key and 0 < len(key.encode()) <= MAX_ID_LENGTH)


def test_the_order_of_arrival_and_the_split_into_slices_change_nothing() -> None:
    arriving = [
        (f"s{n % 40}", {**GOOD, "user_id": f"u{n % 7}", "search_query": f"query {n}"}, f"d{n}") for n in range(60)
    ]
    arriving += [("bad", {}, "d-bad")]

    def collected(order: list[Any], slices: int) -> Sessions:
        builders = [SessionBuilder(NOW) for _ in range(slices)]
        for number, item in enumerate(order):
            builders[number % slices].add(*item)
        return merge(builders)

    shuffled = random.Random(3).sample(arriving, len(arriving))
    first, second = collected(arriving, 1), collected(shuffled, 3)
    assert first.table.equals(second.table)
    assert first.intake == second.intake
    keys = first.table["session_id"].to_pylist()
    assert keys == sorted(keys)


@given(st.lists(st.sampled_from(["a", "b", "1", "2", "3"]), max_size=8))
def test_documents_that_claim_one_session_are_all_kept_each_under_an_id_of_its_own(claimed: list[str]) -> None:
    builder = SessionBuilder(NOW)
    for number, key in enumerate(claimed):
        builder.add(key, GOOD, document_id=str(number))
    keys = builder.finish().table["session_id"].to_pylist()
    assert len(keys) == len(set(keys)) == len(claimed)


def test_an_id_that_only_one_document_claims_is_left_alone() -> None:
    builder = SessionBuilder(NOW)
    for key, own in (("a", "x"), ("b", "y"), ("b", "z")):
        builder.add(key, GOOD, own)
    assert builder.finish().table["session_id"].to_pylist() == ["a", "y", "z"]


def test_no_sessions_are_a_table_with_the_same_columns() -> None:
    sessions = build()
    assert sessions.table.schema == SESSION_SCHEMA
    assert len(sessions) == 0
    assert sessions.user_numbers().tolist() == []


@given(st.lists(st.sampled_from(["zoe", "Ann", "é", "bob", "10", "9"]), min_size=1))
def test_users_are_numbered_in_the_order_of_their_ids(users: list[str]) -> None:
    sessions = build(*({**GOOD, "user_id": user} for user in users))
    wanted = sorted(set(users), key=str.encode)
    assert sessions.user_numbers().tolist() == [wanted.index(u) for u in sessions.table["user_id"].to_pylist()]
    assert sessions.user_numbers().dtype == np.int32


def test_accounts_add_up_and_keep_few_examples() -> None:
    one = Intake(5, 3, {"no_user": 2}, {"no_user": ["a", "b"]})
    two = Intake(9, 1, {"no_user": 6, "bad_id": 2}, {"no_user": list("cdefg"), "bad_id": ["h", "i"]})
    both = one + two
    assert both == Intake(14, 4, {"no_user": 8, "bad_id": 2}, {"no_user": list("abcde"), "bad_id": ["h", "i"]})
    assert both.read == both.kept + both.set_aside_total


def test_an_id_that_is_no_text_is_kept_as_an_example_that_can_be_stored_and_shown() -> None:
    assert build(GOOD, ids=["half \ud800"]).intake.examples == {Reason.BAD_ID.value: ["half \\ud800"]}


def test_clicks_and_time_are_typed_columns() -> None:
    table = build(GOOD).table
    assert table["clicked_product_ids"].to_pylist() == [["p1"]]
    assert table.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC")
