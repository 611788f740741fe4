"""UBI events become events of the session that their query is; details of other formats come through."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation_assets.core.details import EVENT_FIELDS, EVENT_TYPES
from segmentation_assets.core.sessions import Reason, SessionBuilder, check_document
from segmentation_assets.core.values import usable_id
from segmentation_assets.io import ubi
from segmentation_assets.io.importing import ImportRecord, Reading, UnknownColumn, read_file

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CHORUS = Path(__file__).parents[2].parent / "shared" / "data" / "chorus_ubi.ndjson"
AT = "2025-01-01T00:00:05.000Z"


def query(name: str | None, response: str | None = None, at: str = "2025-01-01T00:00:00.000Z", **more: Any) -> dict:
    """A line of ``ubi_queries``, as UBI 1.3 has it."""
    return {
        "application": "shop",
        "query_id": name,
        **({"query_response_id": response, "query_response_hit_ids": ["p1"]} if response else {}),
        "client_id": "c1",
        "user_query": "tv",
        "query_attributes": {"country": "de"},
        "timestamp": at,
        **more,
    }


def event(action: str, name: str | None = "q1", product: object = None, at: object = AT, **attributes: Any) -> dict:
    """A line of ``ubi_events``; further attributes go into the object where they are called ``object``."""
    target = {"object_id": product, "object_id_field": "sku", **attributes.pop("object", {})}
    return {
        "application": "shop",
        "action_name": action,
        "query_id": name,
        "session_id": "x",
        "client_id": "c1",
        "timestamp": at,
        "message_type": None,
        "event_attributes": {
            "position": {"ordinal": 1},
            **({} if product is None and len(target) == 2 else {"object": target}),
            **attributes,
        },
    }


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, rows: list[dict], **options: Any) -> tuple[dict[object, dict], Reading]:
    reading = read_file(written(path / "ubi.ndjson", rows), **options)
    return {record.session_id: record.document for record in reading}, reading


def kept(records: Iterable[ImportRecord]) -> dict[str, dict]:
    """What an import keeps: of the records that can be sessions the last one of each id."""
    found: dict[str, dict] = {}
    for session_id, document in records:
        key = usable_id(session_id)
        if key is not None and not isinstance(check_document(document, NOW), Reason):
            assert isinstance(document, dict)
            found[key] = document
    return found


# ---- what an event says


def test_events_carry_what_ubi_recorded(tmp_path: Path) -> None:
    detail = {"object": {"object_detail": {"price": 199.5, "product_category": "TV"}, "transaction_id": "t1"}}
    found, reading = read(
        tmp_path,
        [
            query("q1"),
            event("search"),
            event("impression", product="p1"),
            event("view", product="p1", object={"price": 5, "category": "Audio"}),
            event("item_click", product="p1", at=1_735_689_605_000),
            event("add_to_cart", product="p2", quantity=2, price=7.25),
            event("purchase", product="p2", quantity=2, **detail),
        ],
    )
    assert reading.plan.format == "ubi"
    assert found["q1"]["clicked_product_ids"] == ["p1"]
    assert found["q1"]["events"] == [
        {"event_type": "search", "timestamp": AT},
        {"event_type": "impression", "timestamp": AT, "product_id": "p1"},
        {"event_type": "view", "timestamp": AT, "product_id": "p1", "category": "Audio", "price": 5},
        {"event_type": "click", "timestamp": 1_735_689_605_000, "product_id": "p1"},
        {"event_type": "add_to_cart", "timestamp": AT, "product_id": "p2", "price": 7.25, "quantity": 2},
        {
            "event_type": "purchase",
            "timestamp": AT,
            "product_id": "p2",
            "category": "TV",
            "price": 199.5,
            "quantity": 2,
            "transaction_id": "t1",
        },
    ]


def test_what_an_event_does_not_say_is_absent_and_what_it_says_wrongly_goes_on_as_it_is(tmp_path: Path) -> None:
    bare = {**event("purchase"), "timestamp": None, "event_attributes": None}
    odd = event("click", product=["p"], object={"object_detail": [1], "price": "much"})
    found, _ = read(tmp_path, [query("q1"), bare, odd])
    assert found["q1"]["events"] == [
        {"event_type": "purchase"},
        {"event_type": "click", "timestamp": AT, "product_id": ["p"], "price": "much"},
    ]


def test_every_action_leads_to_a_type_and_the_fields_are_those_of_an_event() -> None:
    assert set(ubi.ACTIONS.values()) == set(EVENT_TYPES)
    said = ubi.as_event(event("purchase", product="p", price=1, quantity=1, category="c", transaction_id="t"))
    assert tuple(said or ()) == EVENT_FIELDS


def test_actions_that_are_not_ours_are_counted_by_name(tmp_path: Path) -> None:
    others = [event("brand_filter", product="x"), event("page_exit"), event("page_exit"), event("click")]
    found, reading = read(tmp_path, [query("q1"), *others, event("click", product="p")])
    assert reading.counts.events_other == Counter({"page_exit": 2, "brand_filter": 1, "click": 1})
    assert (reading.counts.events, reading.counts.events_joined, reading.counts.events_unmatched) == (5, 1, 0)
    assert [entry["product_id"] for entry in found["q1"]["events"]] == ["p"]


# ---- joining


def test_a_session_without_events_has_none_rather_than_an_empty_list(tmp_path: Path) -> None:
    found, _ = read(tmp_path, [query("q1"), query("q2"), event("click", "q1", "p")])
    assert "events" in found["q1"]
    assert "events" not in found["q2"]


def test_events_on_a_query_that_is_not_there_or_on_none_are_counted_and_join_nothing(tmp_path: Path) -> None:
    nowhere = {key: value for key, value in event("click", None, "p3").items() if key != "query_id"}
    rows = [query("q1"), query(None), event("click", "gone", "p1"), event("purchase", None, "p2"), nowhere]
    found, reading = read(tmp_path, rows)
    assert len(found) == 2
    assert not any("events" in document or document["clicked_product_ids"] for document in found.values())
    counts = reading.counts
    assert (counts.events, counts.events_unmatched, counts.clicks_unmatched) == (3, 3, 2)


@pytest.mark.parametrize("turned", [False, True])
def test_one_purchase_counts_once_however_many_requests_a_search_took(tmp_path: Path, turned: bool) -> None:
    requests = [
        query("q1", "r2", "2025-01-01T00:00:01Z"),
        query("q1", "r3", "2025-01-01T01:00:00+01:00"),  # the earliest
        query("q1", "r1", "2025-01-01T00:00:01Z"),
    ]
    rows = [*requests[:: -1 if turned else 1], event("click", product="p"), event("purchase", product="p")]
    found, reading = read(tmp_path, rows)
    assert [name for name, document in found.items() if "events" in document] == ["q1:r3"]
    assert all(document["clicked_product_ids"] == ["p"] for document in found.values())
    assert (reading.counts.events_joined, reading.counts.clicks_joined) == (2, 1)


@pytest.mark.parametrize("again", ["2025-01-01T00:00:00.000Z", "2025-01-01T00:00:09.000Z", "2024-12-31T00:00:00.000Z"])
def test_a_query_that_is_in_the_file_twice_has_its_events_whichever_row_is_kept(tmp_path: Path, again: str) -> None:
    """Logged twice, or two requests of a search without the id of a response: the later row replaces the earlier."""
    rows = [query("q1"), query("q1", at=again), event("purchase", product="p"), event("click", product="p")]
    reading = read_file(written(tmp_path / "f", rows))
    records = list(reading)
    assert [len(record.document["events"]) for record in records] == [2, 2]
    assert [record.session_id for record in records] == ["q1", "q1"]
    assert (reading.counts.events_joined, reading.counts.clicks_joined, reading.counts.events_unmatched) == (2, 1, 0)


def test_requests_that_a_mapping_gives_one_id_all_have_the_events(tmp_path: Path) -> None:
    rows = [query("q1", "r1"), query("q1", "r2", "2025-01-01T00:00:09Z"), event("purchase", product="p")]
    reading = read_file(written(tmp_path / "f", rows), mapping={"session_id": "query_id"})
    assert [(record.session_id, len(record.document["events"])) for record in reading] == [("q1", 1)] * 2
    assert reading.counts.events_joined == 1


LATER = "2025-01-01T00:00:09Z"


@pytest.mark.parametrize(
    "unusable",
    [
        {"user_query": ""},
        {"user_query": 5},
        {"client_id": None},
        {"timestamp": "soon"},
        {"query_response_id": "x" * 600},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_events_go_to_a_request_that_can_be_a_session(tmp_path: Path, unusable: dict) -> None:
    """The earliest request may be one that is set aside: its events would be set aside with it."""
    rows = [query("q1", "r1", **unusable), query("q1", "r2", LATER), event("purchase", product="p")]
    reading = read_file(written(tmp_path / "f", rows))
    records = list(reading)
    assert ["events" in record.document for record in records] == [False, True]
    assert list(kept(records)) == ["q1:r2"]
    assert (reading.counts.events_joined, reading.counts.events_unmatched) == (1, 0)


def test_what_can_be_a_session_is_looked_for_where_the_mapping_says(tmp_path: Path) -> None:
    rows = [
        query("q1", "r1", "2025-01-01T00:00:00Z", account=None),
        query("q1", "r2", LATER, account="a"),
        event("purchase", product="p"),
    ]
    found, _ = read(tmp_path, rows, mapping={"user_id": "account"})
    assert [name for name, document in found.items() if "events" in document] == ["q1:r2"]


def test_the_earliest_request_is_found_in_another_format_of_times(tmp_path: Path) -> None:
    rows = [query("q1", "r1", "02/01/2025"), query("q1", "r2", "31/12/2024"), event("purchase", product="p")]
    found, _ = read(tmp_path, rows, timestamp_format="%d/%m/%Y")
    assert [name for name, document in found.items() if "events" in document] == ["q1:r2"]


def test_events_on_a_search_of_which_nothing_can_be_a_session_are_not_called_joined(tmp_path: Path) -> None:
    rows = [query("q1", user_query=" "), event("purchase", product="p"), event("click", product="p")]
    found, reading = read(tmp_path, rows)
    assert "events" not in found["q1"]
    counts = reading.counts
    assert (counts.events_joined, counts.events_unmatched, counts.clicks_unmatched) == (0, 2, 1)


def test_searches_without_a_name_do_not_share_events(tmp_path: Path) -> None:
    rows = [query(""), query(" ", at=LATER), event("click", "", "p"), event("purchase", " ", "p")]
    reading = read_file(written(tmp_path / "f", rows))
    documents = [record.document for record in reading]
    assert not any("events" in document or document["clicked_product_ids"] for document in documents)
    assert reading.counts.events_unmatched == 2


def test_a_click_on_an_odd_product_does_not_cost_the_session(tmp_path: Path) -> None:
    rows = [query("q1"), event("click", product=["p"]), event("click", product="p2"), event("purchase", product="p2")]
    found, reading = read(tmp_path, rows)
    assert list(kept(found.items())) == ["q1"]  # type: ignore[arg-type]
    assert found["q1"]["clicked_product_ids"] == ["p2"]
    assert [entry["product_id"] for entry in found["q1"]["events"]] == [["p"], "p2", "p2"]
    assert (reading.counts.clicks_joined, reading.counts.clicks_unmatched) == (2, 0)


names = st.sampled_from(["q1", "q2", "q3", None])
ubi_rows = st.lists(
    st.one_of(
        st.builds(
            query,
            names,
            st.sampled_from([None, "r1", "r2"]),
            st.sampled_from(["2025-01-01", "2025-01-02", "soon"]),
            user_query=st.sampled_from(["tv", "tv", ""]),
            client_id=st.sampled_from(["c1", "c1", None]),
        ),
        st.builds(
            event,
            st.sampled_from([*ubi.ACTIONS, "hover", ""]),
            names,
            st.sampled_from([None, "p1", 7]),
            st.sampled_from([AT, None, 1_735_689_605_000, "soon"]),
        ),
    ),
    max_size=12,
)


@given(rows=ubi_rows, seed=st.integers(0, 99))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_event_is_accounted_for_once_in_whatever_order_the_rows_stand(
    tmp_path: Path, rows: list[dict], seed: int
) -> None:
    rows = [query("q0", "r0"), *rows]

    def outcome(rows: list[dict]) -> tuple[dict[str, list[str]], dict[str, Any]]:
        reading = read_file(written(tmp_path / "f", rows), format="ubi")
        held = {name: list(map(str, document.get("events", []))) for name, document in kept(reading).items()}
        counts = reading.counts
        assert counts.events == counts.events_joined + counts.events_unmatched + sum(counts.events_other.values())
        assert counts.events == sum(ubi.is_event(row) for row in rows)
        assert counts.events_joined == sum(map(len, held.values()))
        assert len([row for row in rows if not ubi.is_event(row)]) == counts.records
        return {name: sorted(entries) for name, entries in held.items()}, {**vars(counts), "identical": None}

    turned = rows.copy()
    random.Random(seed).shuffle(turned)
    assert outcome(rows) == outcome(turned)


def test_times_in_another_format_are_converted_in_events_as_well(tmp_path: Path) -> None:
    rows = [
        query("q1", at="1735689600"),
        event("click", product="p", at=1_735_689_605),
        event("view", product="p", at=None),
    ]
    found, _ = read(tmp_path, rows, timestamp_format="epoch_second")
    assert found["q1"]["timestamp"] == "2025-01-01T00:00:00+00:00"
    assert found["q1"]["events"][0]["timestamp"] == "2025-01-01T00:00:05+00:00"
    assert "timestamp" not in found["q1"]["events"][1]


def test_seconds_are_recognised_in_events_and_queries_where_nothing_was_said(tmp_path: Path) -> None:
    found, _ = read(tmp_path, [query("q1"), event("click", product="p", at=1_735_689_605)])
    assert found["q1"]["timestamp"] == "2025-01-01T00:00:00.000Z"
    assert found["q1"]["events"][0]["timestamp"] == "2025-01-01T00:00:05+00:00"
    rows = [query("q1", at=1_735_689_600), event("click", product="p")]  # type: ignore[arg-type]
    found, reading = read(tmp_path, rows)
    assert reading.plan.timestamp_format == "epoch_second"
    assert found["q1"]["timestamp"] == "2025-01-01T00:00:00+00:00"
    assert found["q1"]["events"][0]["timestamp"] == AT


def test_details_of_a_query_can_be_mapped_though_events_come_first(tmp_path: Path) -> None:
    rows = [*(event("click", product="p") for _ in range(1_200)), query("q1")]
    found, _ = read(tmp_path, rows, mapping={"country": "query_attributes.country"})
    assert found["q1"]["country"] == "de"


def test_events_become_columns_of_the_session(tmp_path: Path) -> None:
    _, reading = read(tmp_path, [query("q1"), event("purchase", product=7, price="9.5", quantity=-1)])
    builder = SessionBuilder(NOW)
    for record in read_file(reading.plan.path):
        builder.add(*record)
    (events,) = builder.finish().table["events"].to_pylist()
    assert [(entry["event_type"], entry["product_id"], entry["price"], entry["quantity"]) for entry in events] == [
        ("purchase", "7", 9.5, None)
    ]


def test_the_chorus_sample_gives_its_events() -> None:
    if not CHORUS.exists():
        pytest.skip(f"{CHORUS} is not here")
    reading = read_file(CHORUS)
    kinds: Counter[str] = Counter()
    with_events = 0
    for record in reading:
        events = record.document.get("events", [])
        with_events += bool(events)
        kinds.update(entry["event_type"] for entry in events)
    # Counted in the file by itself: events by action_name whose query_id is that of a query.
    assert kinds == Counter({"impression": 1_932, "click": 267, "add_to_cart": 207, "search": 96})
    counts = reading.counts
    assert (counts.events, counts.events_joined, counts.clicks_joined, counts.clicks_unmatched) == (
        3_448,
        2_502,
        267,
        31,
    )
    assert counts.events_other["type_filter"] == 62
    assert "purchase" not in counts.events_other
    assert counts.events_unmatched == 3_448 - 2_502 - sum(counts.events_other.values())
    assert 0 < with_events <= 284  # queries by query_id


# ---- details in other formats

SESSION = {"session_id": "s1", "user_id": "u1", "search_query": "tv", "timestamp": "2025-01-02T03:04:05Z"}
DETAILED = {
    **SESSION,
    "duration": 61.5,
    "start": "2025-01-02T03:04:05Z",
    "end": "2025-01-02T03:05:06.5Z",
    "device": "phone",
    "country": "de",
    "region": "Saxony",
    "referrer": "ads",
    "events": [{"event_type": "click", "timestamp": "2025-01-02T03:04:09Z", "product_id": "p1", "price": 2.5}],
}


def documents(path: Path, **options: Any) -> Iterator[Any]:
    return (record.document for record in read_file(path, **options))


@pytest.mark.parametrize("form", ["ndjson", "bulk", "json"])
def test_details_come_through_from_json_as_they_are(tmp_path: Path, form: str) -> None:
    odd = {**SESSION, "session_id": "s2", "device": 7, "events": "none", "duration": None, "colour": "red"}
    rows = [DETAILED, SESSION | {"session_id": "s3"}, odd]
    path = tmp_path / "f"
    if form == "json":
        path.write_text(json.dumps(rows))
    else:
        actions = [{"index": {"_id": row["session_id"]}} for row in rows]
        lines = [line for pair in zip(actions, rows, strict=True) for line in pair] if form == "bulk" else rows
        written(path, lines)
    assert list(documents(path)) == [DETAILED, rows[1], {key: odd[key] for key in odd if key != "colour"}]


def test_details_come_through_from_parquet_with_nested_times(tmp_path: Path) -> None:
    moment = datetime(2025, 1, 2, 3, 4, 9, tzinfo=UTC)
    pq.write_table(
        pa.Table.from_pylist(
            [
                {
                    **DETAILED,
                    "start": moment,
                    "end": date(2025, 1, 3),
                    "events": [{"event_type": "view", "timestamp": moment}],
                }
            ]
        ),
        tmp_path / "f",
    )
    (document,) = documents(tmp_path / "f")
    iso = "2025-01-02T03:04:09+00:00"
    assert document == {
        **DETAILED,
        "start": iso,
        "end": "2025-01-03",
        "events": [{"event_type": "view", "timestamp": iso}],
    }


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_details_come_through_from_cells_where_a_column_has_just_that_name(tmp_path: Path, delimiter: str) -> None:
    names = ["user_id", "search_query", "timestamp", "duration", "device", "Country", "region", "events"]
    rows = [names, ["u1", "tv", "2025-01-01", "12.5", "phone", "de", "", "[]"], ["u2", "tv", "2025-01-01"]]
    path = tmp_path / "f"
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    session = {"search_query": "tv", "timestamp": "2025-01-01"}
    assert list(documents(path)) == [
        {"user_id": "u1", **session, "duration": "12.5", "device": "phone"},
        {"user_id": "u2", **session},
    ]
    (first, _) = documents(path, mapping={"country": "Country", "region": "device"})
    assert (first["country"], first["region"]) == ("de", "phone")


def test_a_column_that_is_mapped_to_something_else_is_no_detail(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("device,query,end\nu,tv,2025-01-01\n")
    (document,) = documents(tmp_path / "f", mapping={"user_id": "device", "timestamp": "end"})
    assert document == {"user_id": "u", "search_query": "tv", "timestamp": "2025-01-01"}
    with pytest.raises(UnknownColumn, match="no field 'price'"):
        read_file(tmp_path / "f", mapping={"price": "device"})


def test_start_and_end_are_read_in_the_format_of_the_timestamp(tmp_path: Path) -> None:
    row = {**SESSION, "timestamp": 1_735_689_600, "start": 1_735_689_600, "end": 1_735_689_660}
    row["events"] = [{"event_type": "click", "timestamp": 1_735_689_601}, "odd", {"event_type": "view"}]
    (document,) = documents(written(tmp_path / "f", [row]))  # found out: seconds
    assert document["end"] == "2025-01-01T00:01:00+00:00"
    assert document["events"] == [
        {"event_type": "click", "timestamp": "2025-01-01T00:00:01+00:00"},
        "odd",
        {"event_type": "view"},
    ]


def test_a_guess_that_times_are_seconds_costs_no_time_that_is_written_otherwise(tmp_path: Path) -> None:
    iso, millis = "2025-01-01T00:00:00Z", 1_735_689_600_000
    row = {**SESSION, "timestamp": 1_735_689_600, "start": iso, "end": 1_735_689_660.5}
    row["events"] = [{"timestamp": iso}, {"timestamp": millis}, {"timestamp": "1735689601"}, {"timestamp": "soon"}]
    seconds = [{**SESSION, "timestamp": 1_735_689_601}] * 2
    rows = [row, *seconds, {**SESSION, "timestamp": iso}, {**SESSION, "timestamp": millis}]
    reading = read_file(written(tmp_path / "f", rows))
    assert reading.plan.timestamp_format == "epoch_second"
    first, *others = [record.document for record in reading]
    assert (first["start"], first["end"]) == (iso, "2025-01-01T00:01:00.500000+00:00")
    assert [entry["timestamp"] for entry in first["events"]] == [iso, millis, "2025-01-01T00:00:01+00:00", "soon"]
    assert [document["timestamp"] for document in others] == ["2025-01-01T00:00:01+00:00"] * 2 + [iso, millis]
    # What was said is another matter: it holds for all, and what contradicts it says so.
    said = next(documents(tmp_path / "f", timestamp_format="epoch_second"))
    assert said["start"] == f"{iso} (not epoch_second)"


def test_seconds_beside_a_time_that_is_written_out_are_recognised_and_that_is_said(tmp_path: Path) -> None:
    row = {**SESSION, "start": "1735787045", "end": 1_735_787_106, "events": [{"timestamp": 1_735_787_049}, {}]}
    path = written(tmp_path / "f", [row])
    reading = read_file(path)
    (document,) = (record.document for record in reading)
    assert (document["start"], document["end"]) == ("2025-01-02T03:04:05+00:00", "2025-01-02T03:05:06+00:00")
    assert document["events"] == [{"timestamp": "2025-01-02T03:04:09+00:00"}, {}]
    assert document["timestamp"] == SESSION["timestamp"]
    assert any("events" in sentence for sentence in reading.plan.assumed)
    assert list(documents(path, timestamp_format="iso")) == [row]  # said: nothing is recognised
    plain = {**row, "start": SESSION["timestamp"], "end": 1_735_787_106_000, "events": []}
    reading = read_file(written(path, [plain]))
    assert [record.document for record in reading] == [plain]
    assert not any("seconds" in sentence for sentence in reading.plan.assumed)


def test_decimals_in_parquet_become_numbers_of_the_session(tmp_path: Path) -> None:
    """Databases export amounts so, and whole numbers with more digits than a float has."""
    item = pa.struct(
        [
            ("event_type", pa.string()),
            ("product_id", pa.decimal128(20, 0)),
            ("price", pa.decimal128(10, 2)),
            ("quantity", pa.decimal128(38, 0)),
        ]
    )
    price, product, user = Decimal("199.90"), Decimal(12_345_678_901_234_567_890), Decimal(2**60 + 1)
    bought = {"event_type": "purchase", "product_id": product, "price": price, "quantity": Decimal(2)}
    table = pa.table(
        {
            "user_id": pa.array([user, None], pa.decimal128(38, 0)),
            "search_query": ["tv", "tv"],
            "timestamp": pa.array([Decimal("1735787045.500"), Decimal("1735787045.500")], pa.decimal128(16, 3)),
            "duration": pa.array([Decimal("61.50"), Decimal("1.00")], pa.decimal128(8, 2)),
            "clicked_product_ids": pa.array([[product], []], pa.list_(pa.decimal128(20, 0))),
            "events": pa.array([[bought], [bought]], pa.list_(item)),
        }
    )
    pq.write_table(table, tmp_path / "f")
    first, second = documents(tmp_path / "f")
    assert first["user_id"] == 2**60 + 1
    assert (first["duration"], first["timestamp"]) == (61.5, "2025-01-02T03:04:05.500000+00:00")
    event = {"event_type": "purchase", "product_id": 12_345_678_901_234_567_890, "price": 199.9, "quantity": 2}
    assert first["events"] == [event]
    assert json.loads(json.dumps(second))["events"] == [event]  # set aside for want of a user: shown as it is
    builder = SessionBuilder(NOW)
    for record in read_file(tmp_path / "f"):
        builder.add(*record)
    sessions = builder.finish()
    assert sessions.intake.set_aside == {"no_user": 1}
    (row,) = sessions.table.to_pylist()
    assert row["user_id"] == "1152921504606846977"
    assert row["clicked_product_ids"] == ["12345678901234567890"]
    assert "dropped" not in row
    assert row["duration"] == 61.5
    assert (row["events"][0]["price"], row["events"][0]["quantity"]) == (199.9, 2.0)
    assert row["events"][0]["product_id"] == "12345678901234567890"


def test_what_else_parquet_knows_and_json_does_not_becomes_something_that_it_knows(tmp_path: Path) -> None:
    kinds = pa.map_(pa.string(), pa.decimal128(5, 1))
    table = pa.table(
        {
            **{name: [value] for name, value in SESSION.items()},
            "duration": pa.array([timedelta(minutes=1, milliseconds=500)], pa.duration("ms")),
            "region": pa.array([{"a": Decimal("1.5")}], kinds),
        }
    )
    pq.write_table(table, tmp_path / "f")
    (document,) = documents(tmp_path / "f")
    assert json.loads(json.dumps(document)) == {**SESSION, "duration": 60.5, "region": [["a", 1.5]]}
