"""Judging whole columns gives what judging document by document gives, and takes what is plainly in order."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core import details, session_columns
from segmentation_assets.core.session_columns import ColumnReader, Columns
from segmentation_assets.core.sessions import CLOCK_SKEW, SESSION_SCHEMA, SessionBuilder, merge

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

odd_text = st.text(max_size=12) | st.sampled_from(
    [
        *("", " ", " a", "a ", "a  b", "a\tb", "a b", "ünï", "日本語", "\x1c", "\x00", '"', "\\"),
        *("x" * 512, "x" * 513, "é" * 300),
    ]
)
whole = st.integers(-(10**19), 10**19)
moments = st.datetimes(datetime(1600, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.isoformat())
times = (
    moments
    | moments.map(lambda text: text + "Z")
    | moments.map(lambda text: text + "+00:00")
    | moments.map(lambda text: text + "+05:30")
    | moments.map(lambda text: text[:23])
    | st.sampled_from(
        [
            *("2026-02-30T10:00:00Z", "2025-12-31T23:59:60Z", "2025-01-01T24:00:00Z", "2025-01-01", "2025", "20250101"),
            *("2026-03-01T12:10:00.000Z", "2026-03-01T12:10:00.001Z", "2026-03-01T12:10:00.000001Z", "1772366400000"),
            *("2025-01-01T10:00:00.1Z", "2025-01-01T10:00:00.123456789Z", "2025-01-01t10:00:00z", "2025-01-01T10:00Z"),
            *(" 2025-01-01T10:00:00Z", "2025-01-01T10:00:00Z\n", "1969-12-31T23:59:59.999Z", "yesterday", ""),
        ]
    )
    | whole
    | st.integers(-(10**12), 2 * 10**12)
    | st.none()
)
documents = st.fixed_dictionaries(
    {
        "user_id": odd_text | whole | st.none(),
        "search_query": odd_text | st.none(),
        "clicked_product_ids": st.none() | st.lists(odd_text, max_size=3),
        "timestamp": times,
    }
)
with_details = st.builds(
    lambda document, more: document | more,
    documents,
    st.fixed_dictionaries(
        {},
        optional={
            "duration": st.floats(-1, 9) | st.just("long"),
            "device": st.sampled_from(["mobile", " tablet ", 3]),
            "events": st.lists(st.sampled_from([{"event_type": "view", "price": 3}, {"event_type": "hop"}, None])),
        },
    ),
)
settled = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["u1", "u2", 7]),
        "search_query": st.sampled_from(["gaming laptop", "кроссовки", "lego"]),
        "clicked_product_ids": st.none() | st.lists(st.sampled_from(["p1", "p2"]), max_size=2),
        "timestamp": st.sampled_from(
            ["2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05.123456+00:00"]
        ),
    }
)


def row(**changes):
    usual = {"user_id": "u", "search_query": "q", "clicked_product_ids": None, "timestamp": "2026-01-02T03:04:05Z"}
    return usual | changes


def columns(keys, rows) -> Columns:
    return Columns(keys, *([row[name] for row in rows] for name in SESSION_SCHEMA.names[1:]), details.find(rows))


def read_as_columns(keys, rows):
    """As the reader does it: columns first, the rest document by document."""
    builder = SessionBuilder(NOW)
    table, taken = ColumnReader(NOW + CLOCK_SKEW).take(columns(keys, rows))
    builder.add_settled(table, pa.array(np.array(keys, dtype=object)[taken], pa.string()))
    for place in np.flatnonzero(~taken):
        builder.add(keys[place], rows[place], keys[place])
    return merge([builder])


@settings(deadline=None, max_examples=300)
@given(st.lists(settled | documents | with_details, max_size=12))
def test_columns_and_documents_give_the_same_sessions_and_the_same_account(rows):
    keys = [f"s{n}" for n in range(len(rows))]
    plain = SessionBuilder(NOW)
    for key, row in zip(keys, rows, strict=True):
        plain.add(key, row, key)
    expected, found = plain.finish(), read_as_columns(keys, rows)
    assert found.table.to_pylist() == expected.table.to_pylist()
    assert found.table.schema == expected.table.schema
    assert found.intake.set_aside == expected.intake.set_aside
    assert (found.intake.read, found.intake.kept) == (expected.intake.read, expected.intake.kept)


@settings(deadline=None, max_examples=300)
@given(st.lists(settled, min_size=1, max_size=12))
def test_what_is_plainly_in_order_is_taken_as_columns(rows):
    assert ColumnReader(NOW).take(columns([f"s{n}" for n in range(len(rows))], rows))[1].all()


@pytest.mark.parametrize("field", ["session_id", "clicked_product_ids"])
@pytest.mark.parametrize("value", [3, "a b", " a", "", "é", "x" * 513, None])
def test_an_id_that_is_not_settled_leaves_only_its_own_row_to_be_looked_at(field, value):
    rows = [row(clicked_product_ids=["p"])] * 3
    keys: list = ["a", "b", "c"]
    if field == "session_id":
        keys[1] = value
    else:
        rows[1] = {**rows[1], field: ["p", value]}
    table, taken = ColumnReader(NOW).take(columns(keys, rows))
    # a number is no text: then no row of these columns is taken
    assert taken.tolist() == ([False] * 3 if value == 3 else [True, False, True])
    assert table.num_rows == taken.sum()


def test_half_a_character_anywhere_is_left_to_be_looked_at():
    for field in ("user_id", "search_query", "timestamp"):
        rows = [row(), row(**{field: "\ud800"})]
        assert ColumnReader(NOW).take(columns(["a", "b"], rows))[1].tolist() == [False, False]


def test_a_later_time_is_left_to_be_looked_at():
    late = (NOW + timedelta(milliseconds=1)).isoformat()
    rows = [row(timestamp=moment) for moment in (NOW.isoformat(), late)]
    assert ColumnReader(NOW).take(columns(["a", "b"], rows))[1].tolist() == [True, False]


def test_more_different_queries_than_are_remembered_change_nothing(monkeypatch):
    monkeypatch.setattr(session_columns, "REMEMBERED", 3)
    rows = [row(user_id=f"u{n % 5}", search_query=f"q {n % 7}") for n in range(40)]
    table, taken = ColumnReader(NOW).take(columns([f"s{n}" for n in range(40)], rows))
    assert taken.all()
    assert table["search_query"].to_pylist() == [f"q {n % 7}" for n in range(40)]
