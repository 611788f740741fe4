"""What was published comes out whole, in a form that other tools read and no spreadsheet runs."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from elasticsearch import Elasticsearch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from segmentation_assets.cli.export import export_app
from segmentation_assets.io import export as module
from segmentation_assets.io.elasticsearch import ClusterUnreachable
from segmentation_assets.io.export import (
    USER_FIELDS,
    ExportFailed,
    NothingPublished,
    TargetExists,
    UnknownGroup,
    export,
    export_profiles,
    export_segments,
)
from segmentation_assets.io.point_in_time import ShortRead
from segmentation_assets.io.publishing import publish
from segmentation_assets.io.templates import profile_template, segment_template

PROFILES, SEGMENTS = "user_profiles", "user_segments"
TEXTS = pa.schema([("a", pa.string())])

export_users = partial(export_profiles, fields=USER_FIELDS)


def profile(
    user: str, segment: str = "tech", persona: str = "Regulars", rules: tuple[str, ...] = (), **more: Any
) -> Any:
    return {
        "user_id": user,
        "segment": segment,
        "cluster": 1,
        "persona": persona,
        "rules": list(rules),
        "loyalty_index": 52.5,
        "loyalty_tier": "silver",
        "features": {"recency_days": 3.0, "category_share": {"Shoes & Bags": 0.25, "v1.5": 0.5}},
        "window_end": "2026-01-31T00:00:00.000Z",
        **more,
    }


PEOPLE = [
    profile("u2", rules=("big", "new")),
    profile("u1", "home", rules=("big",), loyalty_index=0.0),
    profile("u10", "home", "=Rare()", features={"recency_days": 30.5}),
]


@pytest.fixture
def published(es: Elasticsearch) -> Elasticsearch:
    """A client on a node where the profiles of three people and the segments of their sessions are published."""
    meta = {"run_id": "r", "model_version": "m"}
    publish(
        es, PROFILES, PEOPLE, id_field="user_id", expected=3, meta=meta, template=profile_template(PROFILES)
    )  # fmt: skip
    sessions = [
        {
            "session_id": f"s{number}",
            "user_id": "u1",
            "search_query": query,
            "segment": "home" if number else "tech",
            "cluster": number,
            "timestamp": datetime(2026, 1, 1, number, tzinfo=UTC),
        }
        for number, query in enumerate(("-5", '=HYPERLINK("http://x")', "lamp, red\nlarge"))
    ]
    publish(
        es, SEGMENTS, sessions, id_field="session_id", expected=3, meta=meta, template=segment_template(SEGMENTS)
    )  # fmt: skip
    return es


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# ---- cells


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1-1", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=", "-", "--1", "-1e", "-\u0663"],
)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path, text: str) -> None:
    done = export([{"a": text}], TEXTS, tmp_path / "f", "csv")
    assert cells(tmp_path / "f") == [{"a": f"'{text}"}]
    assert done.escaped == 1


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-5, "-5"), (-0.25, "-0.25"), (1e-7, "1e-07"), ("-5", "-5"), ("-0.5", "-0.5"), ("a=b", "a=b"), ("'", "'"),
        (True, "true"), (None, ""), ("", ""), ([], ""), (["x", "y"], "x|y"), ([1, -2.5], "1|-2.5"),
        (["=x", "y"], "'=x|y"), (["a|b"], '["a|b"]'), ([""], '[""]'), (["[x", "y"], '["[x","y"]'),
        ([{"k": 1}], '[{"k":1}]'), ('ü, "x"\r\ny', 'ü, "x"\r\ny'),
    ],
)  # fmt: skip
def test_what_stands_in_a_cell(tmp_path: Path, value: object, cell: str) -> None:
    done = export([{"a": value}, {"a": "end"}], TEXTS, tmp_path / "f", "csv")
    assert cells(tmp_path / "f") == [{"a": cell}, {"a": "end"}]
    assert done.escaped == cell.startswith("'=")


def test_names_of_columns_are_safe_as_well(tmp_path: Path) -> None:
    done = export(
        [{"s": {"=x": 1}}, {"=y": 2}], pa.schema([("s.=x", pa.float64()), ("=y", pa.float64())]), tmp_path / "f", "csv"
    )
    assert (tmp_path / "f").read_bytes() == b"s.=x,'=y\r\n1,\r\n,2\r\n"
    assert done.columns == ("s.=x", "=y")


printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(rows=st.lists(st.tuples(printable, st.floats(allow_nan=False, allow_infinity=False)), max_size=6))
@settings(deadline=None)
def test_any_text_and_number_comes_back_from_a_csv_and_no_cell_of_text_is_a_formula(
    rows: list[tuple[str, float]],
) -> None:
    stream = io.BytesIO()
    schema = pa.schema([("t", pa.string()), ("o.n", pa.float64())])
    done = export(({"t": t, "o": {"n": n}} for t, n in rows), schema, None, "csv", stdout=stream)
    (header, *read) = csv.reader(io.StringIO(stream.getvalue().decode(), newline=""))
    assert header == ["t", "o.n"]
    assert [float(number) for _, number in read] == [number for _, number in rows]
    for (cell, _), (text, _) in zip(read, rows, strict=True):
        assert cell in (text, f"'{text}")
        assert not cell.startswith(("=", "+", "@", "\t", "\r", "\n"))
    assert done.escaped == sum(cell != text for (cell, _), (text, _) in zip(read, rows, strict=True))


# ---- Parquet


def test_parquet_has_the_types_of_the_columns(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("t", pa.string()),
            ("l", pa.list_(pa.string())),
            ("o.n", pa.float64()),
            ("i", pa.int64()),
            ("b", pa.bool_()),
            ("d", pa.timestamp("ms", tz="UTC")),
        ]
    )
    rows = [
        {"t": "=x", "l": ["a"], "o": {"n": 1}, "i": 2.0, "b": True, "d": "2026-01-01T00:00:00Z"},
        {"t": ["a", "b"], "l": "c", "o": None, "i": "3", "b": "false", "d": 1_767_225_600_000},
        {},
    ]
    done = export(rows, schema, tmp_path / "f", "parquet")
    table = pq.read_table(tmp_path / "f")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert (done.rows, table.schema) == (3, schema)
    assert table.to_pylist() == [
        {"t": "=x", "l": ["a"], "o.n": 1.0, "i": 2, "b": True, "d": moment},
        {"t": "a|b", "l": ["c"], "o.n": None, "i": 3, "b": False, "d": moment},
        dict.fromkeys(schema.names),
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.float64(), [1, 2]), (pa.float64(), "x"), (pa.int64(), 1.5), (pa.bool_(), "x"), (pa.timestamp("ms"), "x"),
    ],
)  # fmt: skip
def test_a_value_that_fits_no_column_is_an_error_and_no_file(tmp_path: Path, kind: pa.DataType, value: object) -> None:
    with pytest.raises(ExportFailed, match=r"The field a holds .* Export as NDJSON"):
        export([{"a": value}], pa.schema([("a", kind)]), tmp_path / "f", "parquet")
    assert not list(tmp_path.iterdir())


def test_many_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 4)
    done = export(({"a": str(number)} for number in range(10)), TEXTS, tmp_path / "f", "parquet")
    assert done.rows == 10
    assert pq.ParquetFile(tmp_path / "f").num_row_groups == 3
    assert pq.read_table(tmp_path / "f")["a"].to_pylist() == [str(number) for number in range(10)]


# ---- the file


def test_a_file_that_is_there_is_replaced_only_when_that_was_said(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_text("precious")
    read: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        read.append(1)
        yield {"a": "x"}

    with pytest.raises(TargetExists, match="--force"):
        export(rows(), TEXTS, target, "csv")
    assert (target.read_text(), read) == ("precious", [])
    export(rows(), TEXTS, target, "csv", force=True)
    assert target.read_bytes() == b"a\r\nx\r\n"


@pytest.mark.parametrize("form", module.FORMATS)
def test_an_export_that_breaks_off_leaves_what_was_there(tmp_path: Path, form: Any) -> None:
    (tmp_path / "f").write_text("precious")

    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": "x"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(rows(), TEXTS, tmp_path / "f", form, force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "precious")]


def test_a_file_that_somebody_else_wrote_meanwhile_stays(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        (tmp_path / "f").write_text("theirs")
        yield {"a": "x"}

    with pytest.raises(TargetExists):
        export(rows(), TEXTS, tmp_path / "f", "csv")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_places_and_forms_that_cannot_be_are_refused_with_a_cure(tmp_path: Path) -> None:
    cases: list[tuple[Path | None, Any, str]] = [
        (tmp_path, "csv", "is a folder"),
        (tmp_path / "no" / "f", "csv", "no folder"),
        (tmp_path / "f", "xlsx", "no format 'xlsx'"),
        (None, "parquet", "standard output"),
        (tmp_path / ("x" * 300), "csv", "could not be written"),
    ]
    for target, form, message in cases:
        with pytest.raises(ExportFailed, match=message) as caught:
            export([], TEXTS, target, form)
        assert caught.value.cure
    assert not list(tmp_path.iterdir())


def test_standard_output_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for form in ("csv", "ndjson"):
        export([{"a": "ü"}], TEXTS, None, form)  # type: ignore[arg-type]
    assert capfdbinary.readouterr().out == 'a\r\nü\r\n{"a":"ü"}\n'.encode()


# ---- what is published


def test_profiles_come_out_by_user_with_dotted_columns(published: Elasticsearch, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    done = export_profiles(published, PROFILES, tmp_path / "f.csv", "csv", on_progress=lambda *at: seen.append(at))
    read = cells(tmp_path / "f.csv")
    assert [row["user_id"] for row in read] == ["u1", "u10", "u2"]
    assert list(read[0]) == list(done.columns) == [
        *("user_id", "segment", "persona", "cluster", "loyalty_tier", "loyalty_index", "rules", "window_end"),
        *("features.recency_days", "features.category_share.Shoes & Bags", "features.category_share.v1.5"),
    ]  # fmt: skip
    assert read[2] == {
        "user_id": "u2",
        "segment": "tech",
        "persona": "Regulars",
        "cluster": "1",
        "loyalty_tier": "silver",
        "loyalty_index": "52.5",
        "rules": "big|new",
        "window_end": "2026-01-31T00:00:00.000Z",
        "features.recency_days": "3.0",
        "features.category_share.Shoes & Bags": "0.25",
        "features.category_share.v1.5": "0.5",
    }
    assert read[1]["persona"] == "'=Rare()"
    assert read[1]["features.category_share.v1.5"] == ""
    assert {"rfm", "traits.device", "features.spend"} <= set(done.absent)
    assert (done.rows, done.escaped, done.left_out, seen) == (3, 1, (), [(3, 3)])


def test_parquet_and_ndjson_are_exact(published: Elasticsearch, tmp_path: Path) -> None:
    export_profiles(published, PROFILES, tmp_path / "f", "parquet")
    table = pq.read_table(tmp_path / "f")
    assert table.schema.field("rules").type == pa.list_(pa.string())
    assert table["rules"].to_pylist() == [["big"], [], ["big", "new"]]
    assert table["persona"].to_pylist()[1] == "=Rare()"
    assert table["features.recency_days"].to_pylist() == [3.0, 30.5, 3.0]
    assert table["window_end"].to_pylist() == [datetime(2026, 1, 31, tzinfo=UTC)] * 3
    export_profiles(published, PROFILES, tmp_path / "n", "ndjson")
    assert objects(tmp_path / "n") == sorted(PEOPLE, key=lambda person: person["user_id"])


def test_users_are_those_who_are_in_all_the_groups_asked_for(published: Elasticsearch, tmp_path: Path) -> None:
    def found(**groups: str) -> list[str]:
        done = export_users(published, PROFILES, tmp_path / "u.csv", "csv", force=True, **groups)
        assert done.columns == USER_FIELDS
        read = cells(tmp_path / "u.csv")
        assert done.rows == len(read)
        return [row["user_id"] for row in read]

    assert found() == ["u1", "u10", "u2"]
    assert found(segment="home") == ["u1", "u10"]
    assert found(rule="big") == ["u1", "u2"]
    assert found(rule="big", segment="home", persona="Regulars") == ["u1"]
    assert found(rule="new", segment="home") == []  # each is somebody's group, nobody is in both
    assert (tmp_path / "u.csv").read_text() == "user_id,segment,persona,loyalty_tier,rules\n"
    export_users(published, PROFILES, tmp_path / "u", "ndjson", rule="new")
    assert objects(tmp_path / "u") == [
        {"user_id": "u2", "segment": "tech", "persona": "Regulars", "rules": ["big", "new"], "loyalty_tier": "silver"}
    ]


def test_a_list_of_users_keeps_a_column_that_nobody_has_a_value_in(es: Elasticsearch, tmp_path: Path) -> None:
    bare = [{"user_id": "u1", "persona": "p"}]
    meta = {"run_id": "r", "model_version": "m"}
    publish(es, PROFILES, bare, id_field="user_id", expected=1, meta=meta, template=profile_template(PROFILES))
    done = export_users(es, PROFILES, tmp_path / "f", "parquet")
    assert done.absent == ("segment", "loyalty_tier", "rules")
    assert pq.read_table(tmp_path / "f").column_names == list(USER_FIELDS)


def test_a_group_that_nobody_is_in_is_an_error_that_names_those_there_are(
    published: Elasticsearch, tmp_path: Path
) -> None:
    with pytest.raises(UnknownGroup, match=r"no persona 'Reglars' in user_profiles.*'Regulars', '=Rare\(\)'"):
        export_users(published, PROFILES, tmp_path / "f", "csv", persona="Reglars")
    with pytest.raises(UnknownGroup, match=r"no rule segment 'x'.*'big', 'new'"):
        export_profiles(published, PROFILES, tmp_path / "f", "csv", rule="x", segment="home")
    assert not list(tmp_path.iterdir())


def test_segments_come_out_for_every_session(published: Elasticsearch, tmp_path: Path) -> None:
    done = export_segments(published, SEGMENTS, tmp_path / "f", "csv")
    read = {row["session_id"]: row for row in cells(tmp_path / "f")}
    assert [read[name]["search_query"] for name in ("s0", "s1", "s2")] == [
        "-5",
        '\'=HYPERLINK("http://x")',
        "lamp, red\nlarge",
    ]
    assert (done.rows, done.escaped) == (3, 1)
    assert done.columns == ("session_id", "user_id", "timestamp", "search_query", "segment", "cluster")
    assert export_segments(published, SEGMENTS, tmp_path / "g", "ndjson", segment="home").rows == 2


@pytest.mark.parametrize("form", module.FORMATS)
def test_all_pages_are_read_each_document_once(
    published: Elasticsearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    many = [profile(f"u{number:03}") for number in range(21)]
    meta = {"run_id": "r", "model_version": "m"}
    publish(
        published, PROFILES, many, id_field="user_id", expected=21, meta=meta, template=profile_template(PROFILES)
    )  # fmt: skip
    done = export_users(published, PROFILES, tmp_path / "f", form)
    read = {"csv": cells, "ndjson": objects, "parquet": lambda path: pq.read_table(path).to_pylist()}[form](
        tmp_path / "f"
    )
    assert done.rows == 21
    assert [row["user_id"] for row in read] == [person["user_id"] for person in many]


def test_what_is_published_meanwhile_does_not_mix_in(
    published: Elasticsearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)

    def publish_anew(*_: object) -> None:
        fresh = [profile(f"v{number}") for number in range(9)]
        meta = {"run_id": "r", "model_version": "m"}
        publish(
            published, PROFILES, fresh, id_field="user_id", expected=9, meta=meta, template=profile_template(PROFILES)
        )  # fmt: skip

    done = export_profiles(published, PROFILES, tmp_path / "f", "ndjson", on_progress=publish_anew)
    assert done.rows == 3
    assert [row["user_id"] for row in objects(tmp_path / "f")] == ["u1", "u10", "u2"]


def test_fields_without_a_mapping_are_named_not_lost_in_silence(es: Elasticsearch, tmp_path: Path) -> None:
    mappings = {
        "dynamic": "false",
        "properties": {
            "user_id": {"type": "keyword"},
            "o": {"enabled": False},
            "w": {"type": "alias", "path": "user_id"},
        },
    }
    es.indices.create(index="p-1", mappings=mappings, aliases={"p": {}})
    es.index(index="p-1", document={"user_id": "u", "extra": {"x": 1}, "o": {"y": [1]}, "none": None}, refresh=True)
    done = export_profiles(es, "p", tmp_path / "f", "csv")
    assert (done.columns, done.absent, done.left_out) == (("user_id",), ("o",), ("extra.x", "o.y"))


def test_nothing_published_is_an_error_with_its_cure(es: Elasticsearch, tmp_path: Path) -> None:
    with pytest.raises(NothingPublished, match=r"under 'user_profiles'.*segments run --users"):
        export_users(es, PROFILES, tmp_path / "f", "csv")
    assert not list(tmp_path.iterdir())


def test_an_empty_index_gives_a_header_alone(es: Elasticsearch, tmp_path: Path) -> None:
    es.indices.create(index="p-1", mappings=profile_template().mappings, aliases={"p": {}})
    assert export_users(es, "p", tmp_path / "f", "csv").rows == 0
    assert (tmp_path / "f").read_text() == "user_id,segment,persona,loyalty_tier,rules\n"


def test_a_snapshot_that_is_lost_leaves_no_file(
    published: Elasticsearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)

    def lose(*_: object) -> None:
        for index in published.indices.get_alias(name=PROFILES).body:
            published.indices.delete(index=index)

    with pytest.raises(ShortRead, match="Run the export again"):
        export_profiles(published, PROFILES, tmp_path / "f", "csv", on_progress=lose)
    assert not list(tmp_path.iterdir())


def test_an_answer_without_all_of_its_shards_is_no_answer(
    published: Elasticsearch, proxy: Any, answer: Any, tmp_path: Path
) -> None:
    def fault(request: Any) -> Any:
        found = proxy.forward(request)
        if "_search" not in request.path:
            return found
        return answer.of(200, {**found.content, "_shards": {"total": 2, "failed": 1}})

    proxy.fault = fault
    with Elasticsearch(proxy.url) as client, pytest.raises(ShortRead, match="Not all of user_profiles answered"):
        export_users(client, PROFILES, tmp_path / "f", "csv")
    proxy.fault = lambda _: None
    with Elasticsearch(proxy.url, max_retries=0) as client, pytest.raises(ClusterUnreachable):
        export_users(client, PROFILES, tmp_path / "f", "csv")
    assert not list(tmp_path.iterdir())


# ---- the command


def test_the_command_writes_the_form_that_the_name_of_the_file_says(
    published: Elasticsearch, elasticsearch_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", elasticsearch_url)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # so that the command's own is forgotten afterwards
    monkeypatch.setenv("SEGMENTS_HOME", str(tmp_path / "data"))

    def run(*arguments: str | Path) -> Any:
        return CliRunner().invoke(export_app, [str(argument) for argument in arguments])

    done = run("users", "--rule", "big", "--segment", "home", "-o", tmp_path / "u.csv")
    assert done.exit_code == 0, done.output
    assert [row["user_id"] for row in cells(tmp_path / "u.csv")] == ["u1"]
    assert done.stdout == ""
    assert "1 users in" in done.stderr
    assert run("profiles", "--persona", "Regulars", "-o", tmp_path / "p.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "p.parquet")["user_id"].to_pylist() == ["u1", "u2"]
    assert run("segments", "--segment", "tech", "--output", tmp_path / "s.jsonl").exit_code == 0
    assert [row["session_id"] for row in objects(tmp_path / "s.jsonl")] == ["s0"]
    piped = run("users", "--format", "ndjson", "--persona", "=Rare()")
    assert [json.loads(line)["user_id"] for line in piped.stdout.splitlines()] == ["u10"]
    assert isinstance(run("users", "-o", tmp_path / "u.csv").exception, TargetExists)
    assert run("users", "-o", tmp_path / "u.csv", "--force").exit_code == 0
