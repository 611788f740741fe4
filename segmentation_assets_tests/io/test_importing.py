"""Files become documents: every row, under an id that stays the same."""

import contextlib
import csv
import gzip
import io
import json
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import SESSION_SCHEMA, SessionBuilder
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import formats, importing
from segmentation_assets.io.importing import (
    EmptyFile,
    ImportFileError,
    ImportRecord,
    NoColumnFor,
    UnknownColumn,
    UnknownFormat,
    detect_format,
    read_file,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ONE = {
    "session_id": "s1",
    "user_id": "u1",
    "search_query": "usb hub",
    "clicked_product_ids": ["p1", "p2"],
    "timestamp": "2025-01-02T03:04:05.678Z",
}
TWO = {**ONE, "session_id": "s2", "user_id": "u2", "search_query": 'say "hi", ütf ☕\nnext', "clicked_product_ids": []}

hypothesis_on_disk = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
scalar = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), text)
anything = st.recursive(scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
row = st.fixed_dictionaries(
    {"user_id": anything, "search_query": anything, "timestamp": anything},
    optional={"session_id": text.filter(str.strip), "clicked_product_ids": anything},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def ndjson(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def records(path: Path, **options: Any) -> list[ImportRecord]:
    return list(read_file(path, **options))


def documents(path: Path, **options: Any) -> list[object]:
    return [record.document for record in records(path, **options)]


def set_aside(path: Path, **options: Any) -> dict[str, int]:
    builder = SessionBuilder(NOW)
    for record in read_file(path, **options):
        builder.add(*record)
    intake = builder.finish().intake
    assert intake.read == intake.kept + intake.set_aside_total
    return {"kept": intake.kept, **intake.set_aside}


# ---- what goes in comes out


@given(rows=st.lists(row, min_size=1, max_size=6))
@hypothesis_on_disk
def test_any_document_written_as_ndjson_comes_back_exactly(path: Path, rows: list[dict]) -> None:
    write(path, ndjson(*rows))
    read = documents(path, format="ndjson", timestamp_format="iso")
    assert json.dumps(read, sort_keys=True) == json.dumps(rows, sort_keys=True)


@given(rows=st.lists(row, min_size=1, max_size=6), indent=st.sampled_from([None, 2]))
@hypothesis_on_disk
def test_any_document_in_a_json_array_comes_back_exactly(path: Path, rows: list[dict], indent: Any) -> None:
    write(path, json.dumps(rows, indent=indent))
    assert detect_format(path) == "json"
    read = documents(path, timestamp_format="iso")
    assert json.dumps(read, sort_keys=True) == json.dumps(rows, sort_keys=True)


@given(values=st.lists(anything, max_size=5), size=st.integers(1, 9))
@settings(deadline=None)
def test_json_values_do_not_depend_on_where_the_chunks_end(values: list, size: int) -> None:
    whole = json.dumps(values, ensure_ascii=False)
    chunks = iter([whole[i : i + size] for i in range(0, len(whole), size)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_REFILL", 1)
        assert json.dumps(list(formats.json_values(chunks))) == json.dumps(values)


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "session_id": text.filter(str.strip),
                "user_id": st.none() | text,
                "search_query": st.none() | text,
                "clicked_product_ids": st.none() | st.lists(text, max_size=3),
                "timestamp": st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
@hypothesis_on_disk
def test_any_session_written_as_parquet_comes_back_exactly(path: Path, rows: list[dict]) -> None:
    rows = [
        {**r, "timestamp": r["timestamp"].replace(microsecond=r["timestamp"].microsecond // 1000 * 1000)} for r in rows
    ]
    pq.write_table(pa.Table.from_pylist(rows, SESSION_SCHEMA), path)
    read = documents(path)
    json.dumps(read)  # nothing in it that JSON cannot hold
    assert [{**d, "timestamp": parse_timestamp(d["timestamp"])} for d in read] == rows


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(cells=st.lists(st.tuples(words.filter(str.strip), words, words), min_size=1, max_size=6))
@hypothesis_on_disk
def test_any_text_written_as_csv_by_python_comes_back_with_its_words(path: Path, cells: list[tuple]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("session_id", "user_id", "search_query", "timestamp"), *((*c, "2025-01-01") for c in cells)])
    path.write_bytes(out.getvalue().encode())
    read = documents(path, format="csv")
    assert [(d["user_id"], d["search_query"]) for d in read] == [(u, q) for _, u, q in cells]


@given(data=st.binary(max_size=400))
@hypothesis_on_disk
@pytest.mark.parametrize("format", [None, *(f for f in importing.FORMATS if f != "parquet")])
def test_no_bytes_whatever_break_it(path: Path, data: bytes, format: str | None) -> None:
    path.write_bytes(data)
    with contextlib.suppress(SegmentsError):
        for session_id, document in read_file(path, format=format):
            assert session_id is not None
            SessionBuilder(NOW).add(session_id, document)


def test_a_generated_log_is_the_same_in_every_format(tmp_path: Path) -> None:
    rows = list(generate_sessions(300, 1, datetime(2025, 6, 1, tzinfo=UTC)).documents)
    lines = ndjson(*rows)
    write(tmp_path / "a.ndjson", lines)
    write(tmp_path / "b.json", json.dumps(rows))
    write(tmp_path / "c.gz", gzip.compress(lines.encode()))
    bulk = "".join(ndjson({"index": {"_index": "x", "_id": r["session_id"]}}, r) for r in rows)
    write(tmp_path / "d.bulk", bulk)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    for name, delimiter in (("f.csv", ","), ("g.tsv", "\t"), ("h.csv", ";")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
            writer.writerow(rows[0])
            writer.writerows([*list(r.values())[:3], "|".join(r["clicked_product_ids"]), r["timestamp"]] for r in rows)
    hits = ndjson(*({"_index": "x", "_id": r["session_id"], "_source": r} for r in rows))
    write(tmp_path / "i.ndjson", hits)
    for file in sorted(tmp_path.iterdir()):
        assert records(file) == [(r["session_id"], r) for r in rows], file.name
    formats = [detect_format(file) for file in sorted(tmp_path.iterdir())]
    assert formats == ["ndjson", "json", "ndjson", "bulk", "parquet", "csv", "tsv", "csv", "ndjson"]


# ---- ids


def test_ids_are_made_from_user_query_and_time_and_identical_rows_stay_two(path: Path) -> None:
    row = {"user": "u", "q": "a  b", "ts": "2025-01-01T00:00:00Z"}
    first = records(write(path, ndjson(row, {**row, "q": "c"}, row, row)))
    assert len({r.session_id for r in first}) == 4
    assert all(isinstance(r.session_id, str) and len(r.session_id) == 32 for r in first)
    assert records(path) == first
    # In another format, with other spacing and the zone written otherwise: the same ids.
    again = records(write(path, "q,user,ts\na b,u,2025-01-01T01:00:00+01:00\n"))
    assert again[0].session_id == first[0].session_id
    assert read_counts(path).identical == 0


def test_identical_rows_are_told_apart_however_many_went_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"user": f"u{i % 50}", "q": "x", "ts": i % 50} for i in range(200)]
    write(path, ndjson(*rows))
    expected = [r.session_id for r in read_file(path)]
    assert len(set(expected)) == 200
    monkeypatch.setattr(importing._Seen, "_ENOUGH", 7)
    assert [r.session_id for r in read_file(path)] == expected
    assert read_counts(path).identical == 150


def test_an_id_in_the_file_is_kept_as_it_is(path: Path) -> None:
    write(path, ndjson({**ONE, "session_id": 7}, {**ONE, "session_id": ["x"]}, ONE, ONE))
    assert [r.session_id for r in read_file(path)] == [7, ["x"], "s1", "s1"]
    assert set_aside(path) == {"kept": 3, "bad_id": 1}


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_blank_id_is_no_id(path: Path, blank: object) -> None:
    (record,) = records(write(path, ndjson({**ONE, "session_id": blank})))
    assert isinstance(record.session_id, str)
    assert len(record.session_id) == 32
    assert "session_id" not in record.document


def test_bulk_lines_lend_their_id_to_documents_without_one(path: Path) -> None:
    action = {"index": {"_index": "i", "_id": "a"}}
    bare = {k: v for k, v in ONE.items() if k != "session_id"}
    assert records(write(path, ndjson(action, bare)))[0] == ("a", {**ONE, "session_id": "a"})
    assert records(write(path, ndjson(action, ONE)))[0].session_id == "s1"


# ---- bad rows


def test_a_thousand_good_and_two_hundred_bad_rows_are_all_accounted_for(path: Path) -> None:
    good = [{**ONE, "session_id": f"g{i}"} for i in range(1_000)]
    bad = [
        ({**ONE, "user_id": None}, "no_user"),
        ({**ONE, "search_query": " "}, "empty_query"),
        ({**ONE, "search_query": 5}, "query_not_text"),
        ({**ONE, "search_query": "x" * 600}, "query_too_long"),
        ({**ONE, "timestamp": "yesterday"}, "bad_timestamp"),
        ({**ONE, "timestamp": "2999-01-01"}, "future_timestamp"),
        ({**ONE, "clicked_product_ids": {"a": 1}}, "bad_clicks"),
        ([1, 2], "not_an_object"),
        ("text", "not_an_object"),
        ({**ONE, "session_id": "x" * 600}, "bad_id"),
    ]
    rows = good[:500] + [row for row, _ in bad] * 20 + good[500:]
    expected = Counter(reason for _, reason in bad for _ in range(20))
    assert set_aside(write(path, ndjson(*rows))) == {"kept": 1_000, **expected}


def test_lines_that_cannot_be_read_are_handed_on_as_shortened_text(path: Path) -> None:
    lines = [
        json.dumps(ONE).encode(),
        b'{"user_id": ',
        b'{"user_id": "\xff\xfe", "search_query": "q", "timestamp": 1}',
        b"x" * 5_000,
        b"",
        b"1" * 5_000,
        b'{"a":' * 2_000,
        b"null",
        json.dumps(TWO).encode(),
    ]
    reading = read_file(write(path, b"\n".join(lines)))
    read = [r.document for r in reading]
    assert read[0] == ONE
    assert read[-1] == TWO
    assert all(isinstance(d, str) and len(d) <= formats.RAW_LENGTH for d in read[1:-1])
    assert read[2] == '{"user_id": "��", "search_query": "q", "timestamp": 1}'
    assert (reading.counts.records, reading.counts.unreadable) == (8, 6)


def test_bad_lines_at_the_beginning_do_not_hide_the_format(path: Path) -> None:
    assert set_aside(write(path, "garbage\n" + ndjson(ONE, TWO, ONE))) == {"kept": 3, "not_an_object": 1}
    assert set_aside(write(path, '{"broken\n' + ndjson(ONE, TWO))) == {"kept": 2, "not_an_object": 1}


def test_a_json_array_goes_on_after_a_broken_element(path: Path) -> None:
    whole = "[" + ",\n".join([json.dumps(ONE), '{"user_id": oops}', json.dumps(TWO), "3"]) + "]"
    read = documents(write(path, whole))
    assert [d if isinstance(d, dict) else type(d) for d in read] == [ONE, str, TWO, str]


def test_a_json_array_on_one_long_line_is_not_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_LONGEST_LINE", 1_000)
    rows = [{**ONE, "session_id": f"s{i}"} for i in range(500)]
    assert documents(write(path, json.dumps(rows))) == rows


def test_an_endless_line_is_one_unreadable_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_LONGEST_LINE", 1_000)
    write(path, ndjson(ONE) + json.dumps({**ONE, "search_query": "x" * 5_000}) + "\n" + ndjson(ONE))
    assert set_aside(path) == {"kept": 2, "not_an_object": 1}


def test_pretty_printed_objects_one_after_the_other_are_read(path: Path) -> None:
    write(path, json.dumps(ONE, indent=2) + "\n" + json.dumps(TWO, indent=2))
    assert detect_format(path) == "json"
    assert documents(path) == [ONE, TWO]


def test_a_bulk_action_without_its_document_is_not_dropped(path: Path) -> None:
    action = {"index": {"_id": "a"}}
    read = documents(write(path, ndjson(action, ONE, action, action, TWO, action)))
    assert [d if isinstance(d, dict) else "raw" for d in read] == [ONE, "raw", TWO, "raw"]


# ---- CSV and TSV


def test_a_quote_that_is_never_closed_spoils_one_row_only(path: Path) -> None:
    rows = [f"u{i},2025-01-01,q{i}" for i in range(300)]
    for place in (10, 298, 299):  # also where no later line makes it too long
        broken = [*rows]
        broken[place] = 'u,2025-01-01,"open'
        write(path, "\n".join(["user,time,query", *broken]) + "\n")
        assert set_aside(path) == {"kept": 299, "not_an_object": 1}, place
    # A later quote does not close it, nor does the number of cells being right by chance.
    broken = [*rows]
    broken[10:13] = ['u,2025-01-01,"open', "u,2025-01-01,closed", 'u,2025-01-01,"fine"']
    write(path, "\n".join(["user,time,query", *broken]) + "\n")
    assert set_aside(path) == {"kept": 299, "not_an_object": 1}


def test_cells_with_line_ends_quotes_and_separators_are_read(path: Path) -> None:
    read = documents(write(path, 'user,query,time\r\nu1,"a, ""b""\r\nc",2025-01-01\r\n'))
    assert read == [{"user_id": "u1", "search_query": 'a, "b"\r\nc', "timestamp": "2025-01-01"}]


def test_a_row_with_too_many_cells_is_not_guessed_at(path: Path) -> None:
    write(path, "user,time,query\nu1,2025-01-01,red, dress\nu2,2025-01-01,ok,,\nu3,2025-01-01\n\nu4,2025-01-01,\xff\n")
    path.write_bytes(path.read_bytes().replace("\xff".encode(), b"\xff"))
    assert set_aside(path) == {"kept": 1, "not_an_object": 2, "empty_query": 1}


@pytest.mark.parametrize(
    ("cell", "clicks"),
    [
        ("", []),
        ("p1", ["p1"]),
        ("p1|p2 | p3", ["p1", "p2", "p3"]),
        ("p1;p2", ["p1", "p2"]),
        ("p1,p2,", ["p1", "p2"]),
        ("a,b|c", ["a,b", "c"]),
        ('["p1", 2]', ["p1", 2]),
        ("['p1', 'p2']", ["p1", "p2"]),
        ("[]", []),
        ("[p1", [{"unreadable": "[p1"}]),
    ],
)
def test_clicks_in_one_cell(path: Path, cell: str, clicks: list) -> None:
    write(path, f"user\tquery\ttime\tclicks\nu\tq\t2025-01-01\t{cell}\n")
    assert documents(path)[0]["clicked_product_ids"] == clicks


def test_a_file_without_header_needs_column_names(path: Path) -> None:
    write(path, 'u1\tred "dress\t2025-01-01\nu2\tx\t2025-01-02\n')
    with pytest.raises(UnknownFormat, match="no header"):
        read_file(path)
    reading = read_file(path, columns=["user_id", "search_query", "timestamp"])
    assert reading.plan.format == "tsv"
    assert [r.document["search_query"] for r in reading] == ['red "dress', "x"]
    write(path, "u1;red;2025-01-01\n")
    assert documents(path, columns=["user", "q", "time"])[0]["search_query"] == "red"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(path: Path, encoding: str) -> None:
    path.write_bytes("user,query,time\nu,käse,2025-01-01\n".encode(encoding))
    options = {"encoding": encoding} if encoding == "latin-1" else {}
    assert documents(path, **options) == [{"user_id": "u", "search_query": "käse", "timestamp": "2025-01-01"}]


# ---- names and times


def test_usual_names_are_recognised_and_what_was_assumed_is_said(path: Path) -> None:
    plan = read_file(write(path, "Customer ID,User-Query,Date,when,clicks\nu,q,2025-01-01,x,p\n")).plan
    assert plan.columns == {
        "user_id": "Customer ID",
        "search_query": "User-Query",
        "timestamp": "Date",
        "clicked_product_ids": "clicks",
    }
    assert plan.assumed == (
        "The format is csv.",
        "user_id is the column 'Customer ID'.",
        "search_query is the column 'User-Query'.",
        "clicked_product_ids is the column 'clicks'.",
        "timestamp is the column 'Date'.",
    )


def test_a_mapping_goes_before_every_guess_and_reaches_into_objects(path: Path) -> None:
    row = {"user": "wrong", "who": {"id": "u"}, "q": "wrong", "frase": "x", "time": 1, "meta.at": "2025-01-01"}
    mapping = {"user_id": "who.id", "search_query": "frase", "timestamp": "meta.at"}
    assert documents(write(path, ndjson(row)), mapping=mapping) == [
        {"user_id": "u", "search_query": "x", "timestamp": "2025-01-01"}
    ]
    write(path, "wer|frase|wann\nu|x|2025-01-01\n")
    mapping = {"user_id": "wer", "search_query": "frase", "timestamp": "wann"}
    assert documents(path, mapping=mapping)[0]["search_query"] == "x"


@pytest.mark.parametrize(
    ("format", "value", "expected"),
    [
        ("epoch_second", "1717527762", "2024-06-04T19:02:42+00:00"),
        ("epoch_second", 1717527762.5, "2024-06-04T19:02:42.500000+00:00"),
        ("epoch_millis", 1717527762025, "2024-06-04T19:02:42.025000+00:00"),
        ("%d/%m/%Y %H:%M", "04/06/2024 19:02", "2024-06-04T19:02:00+00:00"),
        ("%d/%m/%Y %H:%M %z", "04/06/2024 19:02 +0200", "2024-06-04T17:02:00+00:00"),
        ("%y%m%d%H%M%S", "970916105432", "1997-09-16T10:54:32+00:00"),
        ("iso", "1717527762", "1717527762"),
        # What is not in the format that was said stays as it is; unless it would pass as something else.
        ("%d/%m/%Y", "soon", "soon"),
        ("%y%m%d%H%M%S", "971316105432", "971316105432 (not %y%m%d%H%M%S)"),
        ("%d/%m/%Y", "2024-06-04", "2024-06-04 (not %d/%m/%Y)"),
        ("epoch_second", "1e400", "1e400"),
        ("epoch_second", None, None),
        ("epoch_second", ["x"], ["x"]),
        ("%Y", True, True),
    ],
)
def test_times(path: Path, format: str, value: object, expected: object) -> None:
    write(path, ndjson({**ONE, "timestamp": value}))
    assert documents(path, timestamp_format=format)[0]["timestamp"] == expected


def test_seconds_since_1970_are_not_taken_for_milliseconds(path: Path) -> None:
    reading = read_file(write(path, "user,query,time\nu,a,1717527762\nu,b,1717527763\n"))
    assert reading.plan.timestamp_format == "epoch_second"
    assert reading.plan.assumed[-1] == "Times are seconds since 1970 (epoch_second)."
    assert next(reading).document["timestamp"].startswith("2024-06-04")


# ---- Parquet


def test_parquet_types(path: Path) -> None:
    table = pa.table(
        {
            "user": pa.array([1, 2, None]),
            "query": pa.array([b"caf\xc3\xa9", b"\xff", None], pa.binary()),
            "time": pa.array([date(2025, 1, 1), None, date(2025, 1, 2)]),
            "clicks": pa.array([["a"], None, []], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        }
    )
    pq.write_table(table, path)
    read = documents(path)
    assert read[0] == {"user_id": 1, "search_query": "café", "timestamp": "2025-01-01", "clicked_product_ids": ["a"]}
    assert set_aside(path) == {"kept": 1, "query_not_text": 1, "no_user": 1}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_times(path: Path, unit: str, zone: str | None) -> None:
    first = pa.scalar(datetime(2025, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC")).value * 1_000
    per_unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    far = 10**13 if unit == "s" else 2**63 - 1  # Parquet keeps seconds as milliseconds
    values = pa.array([first // per_unit, far], pa.int64()).cast(pa.timestamp(unit, zone))
    pq.write_table(pa.table({"user": ["u", "u"], "query": ["a", "b"], "time": values}), path)
    read = documents(path)
    assert parse_timestamp(read[0]["timestamp"]) == datetime(2025, 1, 1, tzinfo=UTC)
    # Beyond the year 9999, save that 64 bits of nanoseconds end in 2262.
    assert set_aside(path) == {"kept": 1, "future_timestamp" if unit == "ns" else "bad_timestamp": 1}


def test_a_parquet_column_of_floats_is_not_taken_for_ids(path: Path) -> None:
    pq.write_table(pa.table({"user": [1.5], "query": ["a"], "time": ["2025-01-01"]}), path)
    assert set_aside(path) == {"kept": 0, "no_user": 1}


# ---- UBI


QUERY = {"query_id": "q1", "client_id": "c1", "user_query": "tv", "timestamp": "2025-01-01T00:00:00Z"}


def click(query: str, product: object, action: str = "click") -> dict:
    attributes = {"object": {"object_id": product, "object_id_field": "sku"}}
    return {"action_name": action, "query_id": query, "client_id": "c1", "event_attributes": attributes}


def test_ubi_queries_get_their_clicks_wherever_the_events_stand(path: Path) -> None:
    other = {**QUERY, "query_id": "q2", "query_response_id": "r2"}
    rows = [
        click("q1", "p1"),
        QUERY,
        click("q1", "p2"),
        click("q1", "p3", "impression"),
        click("q1", "p4", "add_to_cart"),
        {"action_name": "click", "query_id": "q1", "event_attributes": None},
        other,
        click("gone", "p5"),
    ]
    for content in (
        ndjson(*rows),
        "".join(ndjson({"index": {"_index": "i", "_id": str(i)}}, r) for i, r in enumerate(rows)),
    ):
        reading = read_file(write(path, content))
        assert reading.plan.format == "ubi"
        session = {"user_id": "c1", "search_query": "tv", "timestamp": QUERY["timestamp"]}
        kinds = (("click", "p1"), ("click", "p2"), ("impression", "p3"), ("add_to_cart", "p4"))
        done = [{"event_type": kind, "product_id": product} for kind, product in kinds]
        assert list(reading) == [
            ("q1", {"session_id": "q1", **session, "clicked_product_ids": ["p1", "p2"], "events": done}),
            ("q2:r2", {"session_id": "q2:r2", **session, "clicked_product_ids": []}),
        ]
        counts = reading.counts
        assert (counts.records, counts.events, counts.clicks_joined, counts.clicks_unmatched) == (2, 6, 2, 1)


def test_ubi_queries_alone_are_enough_and_events_alone_are_not(path: Path) -> None:
    assert records(write(path, ndjson(QUERY)))[0].session_id == "q1"
    with pytest.raises(NoColumnFor, match=r"2 UBI events and no query.*ubi_queries"):
        records(write(path, ndjson(click("q1", "p"), click("q2", "p"))))


def test_ubi_columns_can_be_mapped(path: Path) -> None:
    row = {**QUERY, "query_response_id": "r", "account": "a"}
    (record,) = records(write(path, ndjson(row)), mapping={"user_id": "account", "session_id": "query_id"})
    assert (record.session_id, record.document["user_id"]) == ("q1", "a")


# ---- errors: cause and cure


def test_errors_name_the_cause_and_the_cure(tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", "user,query,time,extra\nu,q,2025-01-01,x\n")
    cases: list[tuple[type, str, Path, dict]] = [
        (ImportFileError, "There is no file", tmp_path / "missing", {}),
        (ImportFileError, "is a folder", tmp_path, {}),
        (EmptyFile, "is empty", write(tmp_path / "0", ""), {}),
        (EmptyFile, "is empty", write(tmp_path / "00", gzip.compress(b" \n")), {}),
        (EmptyFile, "no rows", write(tmp_path / "000", "user,query,time\n"), {}),
        (EmptyFile, "no rows", write(tmp_path / "[]", "[ ]"), {}),
        (UnknownFormat, "none of the known formats", write(tmp_path / "1", "hello\nworld\n"), {}),
        (UnknownFormat, "Excel", write(tmp_path / "2", b"PK\x03\x04zip"), {}),
        (UnknownFormat, "no text", write(tmp_path / "3", bytes(1_000)), {}),
        (UnknownFormat, "no format 'xml'", good, {"format": "xml"}),
        (UnknownFormat, "no Parquet file", good, {"format": "parquet"}),
        (UnknownFormat, "no encoding 'utf-9'", good, {"encoding": "utf-9"}),
        (UnknownFormat, "no format of a time", good, {"timestamp_format": "yyyy"}),
        (UnknownFormat, "no format of a time", good, {"timestamp_format": "%Q"}),
        (UnknownFormat, "one character", good, {"delimiter": "||"}),
        (UnknownColumn, "no field 'query'", good, {"mapping": {"query": "q"}}),
        (UnknownColumn, "'nope'.*columns are: user, query, time, extra", good, {"mapping": {"user_id": "nope"}}),
        (NoColumnFor, "timestamp.*columns are: user, query", write(tmp_path / "4", "user,query\nu,q\n"), {}),
        (NoColumnFor, "user_id.*columns are: q, time", write(tmp_path / "5", ndjson({"q": "x", "time": 1})), {}),
        (ImportFileError, "gzip", write(tmp_path / "6", gzip.compress(b"x" * 99)[:-9]), {}),
        (ImportFileError, "damaged", write(tmp_path / "7", b"PAR1nonsense"), {}),
    ]
    for kind, message, file, options in cases:
        with pytest.raises(kind, match=f"(?s){message}") as caught:
            read_file(file, **options)
        assert isinstance(caught.value, SegmentsError)
        assert caught.value.cure, file


def test_a_file_cut_short_says_how_far_it_was_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_SAMPLE", 2_000)
    rows = [json.dumps({**ONE, "session_id": f"s{i}", "search_query": str(hash(str(i)))}) for i in range(5_000)]
    whole = gzip.compress("\n".join(rows).encode())
    reading = read_file(write(path, whole[: len(whole) // 2]))
    with pytest.raises(ImportFileError, match=r"could not be read to its end.*[\d,]+ records were read") as caught:
        list(reading)
    assert reading.counts.records > 0
    assert f"{reading.counts.records:,} records" in caught.value.problem


# ---- real files


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def test_the_chorus_sample_gives_its_473_queries() -> None:
    path = shared("chorus_ubi.ndjson")
    reading = read_file(path)
    read = list(reading)
    assert reading.plan.format == "ubi"
    assert len(read) == len({r.session_id for r in read}) == 473
    assert len({r.document["user_id"] for r in read}) == 215
    assert (reading.counts.events, reading.counts.clicks_joined, reading.counts.clicks_unmatched) == (3_448, 267, 31)
    assert list(read_file(path)) == read
    assert set_aside(path) == {"kept": 467, "empty_query": 6}


def test_the_excite_log_gives_its_4501_searches() -> None:
    path = shared("excite_small.log")
    reading = read_file(path)
    read = list(reading)
    assert reading.plan.format == "excite"
    assert len(read) == len({r.session_id for r in read}) == 4_501
    assert len({r.document["user_id"] for r in read}) == 891
    assert {r.document["timestamp"][:7] for r in read} == {"1997-09"}
    assert [r.session_id for r in read_file(path)] == [r.session_id for r in read]
    assert set_aside(path) == {"kept": 3_968, "empty_query": 533}


def read_counts(path: Path) -> importing.ImportCounts:
    reading = read_file(path)
    for _ in reading:
        pass
    return reading.counts
