"""Lines made of columns say what lines made of documents say."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.io import bulk, ndjson

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("whole", pa.int32()),
        ("number", pa.float32()),
        ("truth", pa.bool_()),
        ("moment", pa.timestamp("ms", tz="UTC")),
    ]
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", "a\nb", "\x00", "\u2028", "日本語 👟"]
)
milliseconds = st.integers(-2_000_000_000_000, 4_000_000_000_000)
rows = st.fixed_dictionaries(
    {
        "id": text,
        "text": st.none() | text,
        "whole": st.none() | st.integers(-(2**31), 2**31 - 1),
        "number": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "truth": st.none() | st.booleans(),
        "moment": st.none() | milliseconds.map(lambda ms: datetime.fromtimestamp(ms // 1000, UTC)),
    }
)


def documents(table, **options):
    """What the server would read: (id, document) pairs."""
    lines = [line for batch in ndjson.in_batches(table, "id", **options) for line in batch.body().split(b"\n")[:-1]]
    return [(json.loads(a)["index"]["_id"], json.loads(b)) for a, b in zip(lines[::2], lines[1::2], strict=True)]


@settings(deadline=None, max_examples=300)
@given(st.lists(rows, max_size=8), st.integers(1, 4), st.integers(1, 400))
def test_columns_say_what_documents_say(content, batch, size):
    table = pa.Table.from_pylist(content, schema=SCHEMA)
    found = documents(table, constants={"model": 'm"1', "n": 3}, documents=batch, size=size)
    expected = [json.loads(bulk.to_json({**row, "model": 'm"1', "n": 3})) for row in table.to_pylist()]
    assert [key for key, _ in found] == [row["id"] for row in content]
    for (_, one), other in zip(found, expected, strict=True):
        if one["number"] is not None:  # the shortest text of a 32-bit number, not that of its 64-bit neighbour
            assert np.float32(one["number"]) == np.float32(other["number"])
            one["number"] = other["number"]
        assert one == other
        assert list(one) == list(other)


def test_a_sliced_table_is_written_from_where_it_begins():
    whole = pa.table({"id": [f"s{n}" for n in range(10)], "text": ['a"b'] * 5 + ["c"] * 5})
    assert documents(whole.slice(3, 4), documents=2) == documents(whole)[3:7]


def test_one_row_that_is_larger_than_a_batch_goes_alone():
    table = pa.table({"id": ["a", "b", "c"], "text": ["x" * 50, "y" * 5_000, "z"]})
    batches = list(ndjson.in_batches(table, "id", size=1_000))
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert [batch.key(0) for batch in batches] == ["a", "b", "c"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_refused(number):
    with pytest.raises(ValueError, match="not finite"):
        documents(pa.table({"id": ["a"], "number": [number]}))


def test_ids_have_to_be_text_and_there():
    with pytest.raises(TypeError, match="has to be text"):
        documents(pa.table({"id": [1]}))
    with pytest.raises(TypeError, match="has to be text"):
        documents(pa.table({"id": pa.array(["a", None])}))


def test_other_types_are_left_to_those_who_write_document_by_document():
    assert ndjson.fits(SCHEMA)
    assert not ndjson.fits(pa.schema([("id", pa.string()), ("clicks", pa.list_(pa.string()))]))
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        documents(pa.table({"id": ["a"], "clicks": [["p"]]}))


def test_a_constant_stands_in_for_a_column_of_its_name():
    table = pa.table({"id": ["a"], "model": ["old"]})
    ((_, document),) = documents(table, constants={"model": "new"})
    (line,) = [batch.body() for batch in ndjson.in_batches(table, "id", {"model": "new"})]
    assert document == {"id": "a", "model": "new"}
    assert line.count(b"model") == 1


def test_some_of_a_batch_can_be_asked_for():
    (batch,) = ndjson.in_batches(pa.table({"id": ["a", "b", "c"]}), "id")
    assert batch.body([2, 0]) == b'{"index":{"_id":"c"}}\n{"id":"c"}\n{"index":{"_id":"a"}}\n{"id":"a"}\n'
    assert batch.body() == b"".join(batch.body([n]) for n in range(3))
