"""What is known about users from elsewhere: which values can be used, who is believed, and that it all adds up."""

import math
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.users.attributes import (
    ATTRIBUTES_SCHEMA,
    AttributeReason,
    AttributeSource,
    CheckedAttributes,
    UserAttributes,
    check_attributes,
    merge_attributes,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def values(**record: Any) -> dict[str, Any]:
    checked = check_attributes({"user_id": "u", **record}, NOW)
    assert isinstance(checked, CheckedAttributes)
    return checked.values


def dropped(**record: Any) -> tuple[str, ...]:
    checked = check_attributes({"user_id": "u", **record}, NOW)
    assert isinstance(checked, CheckedAttributes)
    return checked.dropped


def source(*records: Any, name: str = "index", users: Any = None) -> AttributeSource:
    made = AttributeSource(name, NOW, users)
    for record in records:
        made.add(record)
    return made


def rows(found: UserAttributes) -> dict[str, dict[str, Any]]:
    return {row.pop("user_id"): row for row in found.table.to_pylist()}


# --- one record -------------------------------------------------------------------------------------------------------


def test_a_record_is_read_in_canonical_form() -> None:
    checked = check_attributes(
        {
            "user_id": 42,
            "age": " 34.5 ",
            "gender": " f ",
            "location": "New\n York",
            "signup_date": "2024-02-03T05:00:00+02:00",
            "subscription_date": 1_700_000_000_123,
            "shoe_size": 44,
        },
        NOW,
    )
    assert checked == CheckedAttributes(
        "42",
        {
            "age": 34.5,
            "gender": "f",
            "location": "New York",
            "signup_date": datetime(2024, 2, 3, 3, tzinfo=UTC),
            "subscription_date": datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
        },
        (),
    )


@pytest.mark.parametrize("record", [None, "text", 1, ["u", 3], [{"user_id": "u"}]])
def test_what_is_no_object_is_set_aside(record: object) -> None:
    assert check_attributes(record, NOW) is AttributeReason.NOT_AN_OBJECT


@pytest.mark.parametrize("user", [None, "", "  ", 1.5, True, ["u"], "x" * 513, "\ud800"])
def test_a_record_about_nobody_is_set_aside(user: object) -> None:
    assert check_attributes({"user_id": user, "age": 3}, NOW) is AttributeReason.NO_USER


@pytest.mark.parametrize(
    ("given_age", "age"),
    [(0, 0.0), (-0.0, 0.0), (130, 130.0), (34, 34.0), ("34", 34.0), ("3e1", 30.0), (Decimal("33.5"), 33.5)],
)
def test_an_age_is_a_number_of_years(given_age: object, age: float) -> None:
    found = values(age=given_age)["age"]
    assert found == age
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize(
    ("age", "why"),
    [
        (-1, "out of range"),
        (130.5, "out of range"),
        (float("inf"), "out of range"),
        (10**400, "out of range"),
        ("thirty", "not a number"),
        ("3_4", "not a number"),
        ("nan", "not a number"),
        (True, "not a number"),
        ([30], "not a number"),
        ({"years": 3}, "not a number"),
    ],
)
def test_an_impossible_age_is_dropped_and_the_rest_is_used(age: object, why: str) -> None:
    assert values(age=age, gender="m") == {"gender": "m"}
    assert dropped(age=age) == (f"age: {why}",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x" * 101, "too long"),
        (10**200, "too long"),
        (["Berlin"], "not text"),
        ({"city": "Berlin"}, "not text"),
        (True, "not text"),
        (1.5, "not text"),
        ("\ud800", "not text"),
    ],
)
def test_a_place_that_is_no_short_text_is_dropped(text: object, why: str) -> None:
    assert (values(location=text), dropped(location=text)) == ({}, (f"location: {why}",))


def test_a_postcode_may_be_a_number() -> None:
    assert values(location=10115, gender="x" * 100) == {"location": "10115", "gender": "x" * 100}


@pytest.mark.parametrize("name", ["signup_date", "subscription_date"])
@pytest.mark.parametrize(
    ("moment", "why"),
    [
        ("soon", "not a date"),
        (True, "not a date"),
        ({}, "not a date"),
        (NOW + timedelta(minutes=11), "in the future"),
        ("2031-01-01", "in the future"),
        ("0001-01-01", "too long ago"),
        (date(1899, 12, 31), "too long ago"),
    ],
)
def test_a_date_that_cannot_be_is_dropped(name: str, moment: object, why: str) -> None:
    assert (values(**{name: moment}), dropped(**{name: moment})) == ({}, (f"{name}: {why}",))


@pytest.mark.parametrize(
    ("given_date", "moment"),
    [
        ("2024-02-03", datetime(2024, 2, 3, tzinfo=UTC)),
        (date(2024, 2, 3), datetime(2024, 2, 3, tzinfo=UTC)),
        (datetime(2024, 2, 3, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2024, 2, 3, tzinfo=UTC)),
        ("1700000000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (NOW + timedelta(minutes=9), NOW + timedelta(minutes=9)),  # a clock that is a little ahead
        ("1900-01-01", datetime(1900, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_date_is_taken_as_sessions_take_it(given_date: object, moment: datetime) -> None:
    assert values(signup_date=given_date) == {"signup_date": moment}


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan")])
def test_what_says_nothing_is_absent_and_not_dropped(nothing: object) -> None:
    record = dict.fromkeys(ATTRIBUTES_SCHEMA.names[1:], nothing)
    assert (values(**record), dropped(**record)) == ({}, ())


# --- one source -------------------------------------------------------------------------------------------------------


def test_the_later_record_about_a_user_is_taken() -> None:
    found = merge_attributes([source({"user_id": "u", "age": 1, "gender": "f"}, {"user_id": "u ", "age": 2})])
    assert rows(found) == {"u": {"age": 2.0}}
    assert (found.account.read, found.account.used, found.account.set_aside) == (2, 1, {"duplicate_user": 1})


def test_a_later_record_without_a_value_takes_back_what_was_known() -> None:
    found = merge_attributes([source({"user_id": "u", "age": 1}, {"user_id": "u"})])
    assert found.table.num_rows == 0
    assert found.account.set_aside == {"duplicate_user": 1, "no_value": 1}


def test_where_the_source_tells_what_is_later_the_order_of_adding_does_not_count() -> None:
    records = [({"user_id": "u", "age": age}, (age, "")) for age in range(5)]
    for shuffle in range(5):
        random.Random(shuffle).shuffle(records)
        made = AttributeSource("index", NOW)
        for record, order in records:
            made.add(record, order)
        found = merge_attributes([made])
        assert rows(found) == {"u": {"age": 4.0}}
        assert found.account.set_aside == {"duplicate_user": 4}


def test_who_has_no_session_is_set_aside() -> None:
    found = merge_attributes([source({"user_id": "u", "age": 1}, {"user_id": "v", "age": "?"}, users=["u", "w"])])
    assert rows(found) == {"u": {"age": 1.0}}
    assert found.account.set_aside == {"not_in_sessions": 1}
    assert found.account.dropped == {}


def test_the_account_names_each_source_with_what_it_knows() -> None:
    index = source({"user_id": "u", "age": 1}, {"user_id": "v", "age": "old"}, name="index a")
    index.failed["no connection"] += 2
    index.remark("there is more")
    file = source({"user_id": "u"}, "junk", {"user_id": None}, name="file b")
    file.count_out("not_in_sessions", 5)
    account = merge_attributes([index, file]).account
    assert account.sources == ["index a: 1 user known; there is more", "file b: 0 users known"]
    assert account.read == 10
    assert account.used == 1
    assert account.set_aside == {"no_user": 1, "no_value": 2, "not_an_object": 1, "not_in_sessions": 5}
    assert account.dropped == {"age: not a number": 1}
    assert account.failed == {"no connection": 2}


# --- several ----------------------------------------------------------------------------------------------------------


def test_the_first_source_that_has_a_value_is_believed() -> None:
    index = source({"user_id": "a", "age": 1}, {"user_id": "b", "gender": "f"})
    file = source(
        {"user_id": "a", "age": 9, "gender": "m"}, {"user_id": "b", "gender": "x"}, {"user_id": "c", "age": 3}
    )
    found = merge_attributes([index, file])
    assert rows(found) == {
        "a": {"age": 1.0, "gender": "m"},
        "b": {"age": None, "gender": "f"},
        "c": {"age": 3.0, "gender": None},
    }
    # Of the file's records one completed a user, one made one, and one said what was known.
    assert (found.account.read, found.account.used, found.account.set_aside) == (5, 4, {"nothing_new": 1})


def test_only_attributes_that_somebody_has_are_columns() -> None:
    found = merge_attributes([source({"user_id": "b", "location": "Bonn"}, {"user_id": "a", "signup_date": NOW})])
    assert found.table.schema == pa.schema([ATTRIBUTES_SCHEMA.field(n) for n in ("user_id", "location", "signup_date")])
    assert found.table["user_id"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize("sources", [[], [source()], [source({"user_id": "u"}), source()]])
def test_nothing_known_is_an_empty_table(sources: list[AttributeSource]) -> None:
    found = merge_attributes(sources)
    assert found.table.schema.names == ["user_id"]
    assert found.table.num_rows == 0
    assert found.account.read == sum(found.account.set_aside.values())


any_value = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2025-01-01")
any_record = st.none() | st.fixed_dictionaries(
    {"user_id": st.sampled_from(["a", "b", "c", "é", None])},
    optional={name: any_value | st.lists(any_value, max_size=1) for name in ATTRIBUTES_SCHEMA.names[1:]},
)


@given(st.lists(st.lists(any_record, max_size=6), max_size=3), st.none() | st.just(frozenset("ab")))
def test_every_record_is_accounted_for_and_every_cell_is_the_first_sources(
    batches: list[list[Any]], users: frozenset[str] | None
) -> None:
    sources = [source(*batch, users=users) for batch in batches]
    found = merge_attributes(sources)
    account = found.account
    assert account.read == sum(map(len, batches)) == account.used + sum(account.set_aside.values())
    expected: dict[str, dict[str, Any]] = {}
    for batch in batches:
        latest: dict[str, dict[str, Any]] = {}
        for record in batch:
            checked = check_attributes(record, NOW)
            if isinstance(checked, CheckedAttributes) and (users is None or checked.user_id in users):
                latest[checked.user_id] = checked.values
        for user, told in latest.items():
            if told:
                expected[user] = {**told, **expected.get(user, {})}
    assert {
        user: {name: value for name, value in row.items() if value is not None} for user, row in rows(found).items()
    } == {user: _milliseconds(told) for user, told in expected.items()}
    assert found.table["user_id"].to_pylist() == sorted(expected)
    assert all(found.table[name].null_count < len(found.table) for name in found.table.column_names[1:])


def _milliseconds(told: dict[str, Any]) -> dict[str, Any]:
    """What a column of milliseconds keeps of them."""
    return {
        name: value.replace(microsecond=value.microsecond // 1000 * 1000) if isinstance(value, datetime) else value
        for name, value in told.items()
    }
