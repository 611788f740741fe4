"""The difference of two tables makes the one of the other; equal tables have one digest, others another."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation_assets.core import difference as core_difference
from segmentation_assets.core.difference import content, difference

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("number", pa.float32()),
        ("whole", pa.int32()),
        ("truth", pa.bool_()),
        ("moment", pa.timestamp("ms", tz="UTC")),
    ]
)
values = st.tuples(
    st.sampled_from(["", "a", "b\0", "ü", None]),
    st.sampled_from([0.0, 0.5, 1e-9, None]),
    st.sampled_from([0, -1, 7, None]),
    st.sampled_from([True, False, None]),
    st.sampled_from([datetime(2026, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), None]),
)
contents = st.dictionaries(st.text("abcü", max_size=2), values, max_size=8)


def table(rows):
    return pa.Table.from_pylist(
        [dict(zip(SCHEMA.names, (key, *row), strict=True)) for key, row in rows.items()], SCHEMA
    )


def by_key(found):
    return {row["key"]: row for row in found.to_pylist()}


@pytest.fixture(params=[100_000, 2], ids=["at once", "piece by piece"], autouse=True)
def at_once(request, monkeypatch):
    monkeypatch.setattr(core_difference, "_AT_ONCE", request.param)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents, contents, st.booleans())
def test_what_was_without_what_went_and_with_what_differs_is_what_is(before, now, in_order):
    old, new = table(before), table(now)
    if in_order:
        old, new = old.sort_by("key"), new.sort_by("key")
    rows, gone = difference(old, new, "key")
    result = {key: row for key, row in by_key(old).items() if key not in set(gone.to_pylist())}
    result |= by_key(new.take(pa.array(rows)))
    assert result == by_key(new)
    assert set(gone.to_pylist()) == before.keys() - now.keys()
    assert {new["key"][int(row)].as_py() for row in rows} == {key for key in now if now[key] != before.get(key)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents, contents, st.integers(0, 8))
def test_the_digest_is_of_the_rows_and_of_nothing_else(one, other, cut):
    first, second = table(one), table(other)
    parted = pa.concat_tables([first.slice(0, cut), first.slice(cut)])
    assert content(parted) == content(first)
    assert (content(first) == content(second)) == (first.to_pylist() == second.to_pylist())


def test_texts_that_run_into_each_other_are_told_apart():
    names = ["key"]
    assert content(pa.table([["ab", "c"]], names)) != content(pa.table([["a", "bc"]], names))
    assert content(pa.table([["", None]], names)) != content(pa.table([[None, ""]], names))
    assert content(pa.table([["a"]], ["x"])) != content(pa.table([["a"]], ["y"]))
