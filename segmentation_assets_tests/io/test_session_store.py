"""Sessions go in with every record accounted for, and come out as one consistent snapshot."""

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation_assets.core.details import as_documents, find
from segmentation_assets.core.sessions import Reason, SessionBuilder, check_document, merge
from segmentation_assets.core.values import usable_id
from segmentation_assets.io import bulk
from segmentation_assets.io.bulk import BulkFailed, Retry
from segmentation_assets.io.elasticsearch import ClusterUnreachable, IndexEmpty, IndexMissing
from segmentation_assets.io.point_in_time import ShortRead
from segmentation_assets.io.session_reader import NoUsableSessions, read_sessions
from segmentation_assets.io.session_store import (
    RejectedSource,
    count_sessions,
    forget_rejected,
    rejected_index,
    rejected_sources,
    sessions_state,
    write_sessions,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INDEX = "user_sessions"
QUICK = Retry(times=3, first=0.01, cap=0.01)


def document(n: int = 0, **changes):
    return {
        "session_id": f"s{n:05d}",
        "user_id": f"u{n % 7}",
        "search_query": f"gaming keyboard {n}",
        "clicked_product_ids": [f"p{n}", "p1"],
        "timestamp": (NOW - timedelta(minutes=n)).isoformat(),
        **changes,
    }


def records(*numbers: int):
    return [(f"s{n:05d}", document(n)) for n in numbers]


def write(es, pairs, source="file.ndjson", **options):
    return write_sessions(es, INDEX, pairs, source=source, now=NOW, **{"retry": QUICK, **options})


def stored(es, index=INDEX):
    hits = es.search(index=index, size=1000)["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def open_contexts(es) -> int:
    stats = es.nodes.stats(metric="indices", index_metric="search")
    return sum(node["indices"]["search"]["open_contexts"] for node in stats["nodes"].values())


# --- import ---------------------------------------------------------------------------------------------------------


def test_sessions_are_stored_in_canonical_form_under_their_own_id(es: Elasticsearch):
    given_document = document(
        1, user_id=42, search_query="  two\n words ", clicked_product_ids=7, timestamp=1_700_000_000_123
    )
    summary = write(es, [(" s1 ", {**given_document, "extra": "ignored"})])
    assert (summary.read, summary.indexed, summary.created) == (1, 1, 1)
    assert stored(es) == {
        "s1": {
            "session_id": "s1",
            "user_id": "42",
            "search_query": "two words",
            "clicked_product_ids": ["7"],
            "timestamp": "2023-11-14T22:13:20.123Z",
        }
    }


def test_the_index_is_created_with_the_strict_mapping(es: Elasticsearch):
    write(es, records(1))
    mapping = es.indices.get_mapping(index=INDEX)[INDEX]["mappings"]
    assert mapping["dynamic"] == "strict"
    assert mapping["properties"]["search_query"]["fields"]["keyword"]["ignore_above"] == 8191
    assert es.indices.get_index_template(name="segmentation-user-sessions")["index_templates"]


def test_unusable_records_are_set_aside_with_reason_source_and_original(es: Elasticsearch):
    bad = [
        ("b1", document(1, user_id=None), Reason.NO_USER),
        ("b2", document(2, search_query=" "), Reason.EMPTY_QUERY),
        ("b3", document(3, search_query={"a": 1}), Reason.QUERY_NOT_TEXT),
        ("b4", document(4, search_query="x" * 20_000), Reason.QUERY_TOO_LONG),
        ("b5", document(5, timestamp="soon"), Reason.BAD_TIMESTAMP),
        ("b6", document(6, timestamp="2031-01-01"), Reason.FUTURE_TIMESTAMP),
        ("b7", document(7, clicked_product_ids=[{}]), Reason.BAD_CLICKS),
        ("", document(8), Reason.BAD_ID),
        ("b9", ["not", "an", "object"], Reason.NOT_AN_OBJECT),
        ("b10", document(10, search_query="\ud800"), Reason.QUERY_NOT_TEXT),
    ]
    summary = write(es, [*records(20, 21), *((key, content) for key, content, _ in bad)])
    assert summary.read == 12 == summary.indexed + summary.rejected_total
    assert summary.rejected == Counter(reason.value for _, _, reason in bad)
    rejects = stored(es, rejected_index(INDEX)).values()
    assert {reject["source"] for reject in rejects} == {"file.ndjson"}
    assert all(len(reject["document"].encode()) <= 8192 for reject in rejects)
    shown = next(r["document"] for r in rejects if r["reason"] == "no_user")
    assert json.loads(shown) == document(1, user_id=None)


def test_importing_twice_changes_nothing(es: Elasticsearch):
    pairs = [*records(*range(50)), ("x", document(1, user_id="")), ("y", document(1, user_id=""))]
    write(es, pairs)
    before = {hit["_id"]: hit["_version"] for hit in es.search(index=INDEX, size=100, version=True)["hits"]["hits"]}
    rejects = stored(es, rejected_index(INDEX))
    summary = write(es, pairs)
    assert (summary.created, summary.updated, summary.unchanged, summary.rejected) == (0, 0, 50, {"no_user": 2})
    after = {hit["_id"]: hit["_version"] for hit in es.search(index=INDEX, size=100, version=True)["hits"]["hits"]}
    assert after == before  # not even rewritten
    assert stored(es, rejected_index(INDEX)) == rejects
    assert len(rejects) == 2  # two equal bad records stay two


def test_what_a_session_has_no_more_is_taken_away(es: Elasticsearch):
    wrong = document(1, device="tv", duration=9, events=[{"event_type": "purchase", "price": 99999}])
    other = document(2, device="mobile")
    write(es, [("s1", wrong), ("s2", other)])
    summary = write(es, [("s1", document(1, duration=9)), ("s2", other)])
    assert (summary.updated, summary.unchanged) == (1, 1)
    again = write(es, [("s1", document(1, duration=9)), ("s2", other)])
    assert (again.updated, again.unchanged) == (0, 2)
    rows = {row["session_id"]: without_none(row) for row in read_sessions(es, INDEX, now=NOW).table.to_pylist()}
    assert (rows["s1"].keys() & {"device", "events"}, rows["s1"]["duration"], rows["s2"]["device"]) == (
        set(),
        9.0,
        "mobile",
    )


def test_what_a_strict_index_of_somebody_else_does_not_know_is_left_out_and_counted(es: Elasticsearch):
    known = ("session_id", "user_id", "search_query", "clicked_product_ids", "device")
    es.indices.create(
        index=INDEX,
        mappings={
            "dynamic": "strict",
            "properties": {**{name: {"type": "keyword"} for name in known}, "timestamp": {"type": "date"}},
        },
    )
    summary = write(es, [("s1", document(1, device="mobile", country="DE", events=[{"event_type": "view"}]))])
    assert summary.created == 1
    assert summary.dropped == dict.fromkeys(
        (f"{name}: not in the mapping of {INDEX}" for name in ("country", "events")), 1
    )
    assert es.get(index=INDEX, id="s1")["_source"]["device"] == "mobile"


@pytest.mark.parametrize("batch", [1, 5_000])
def test_of_records_with_one_id_no_detail_of_an_earlier_one_stays(es: Elasticsearch, batch: int):
    write(es, records(7))
    write(es, [("s1", document(1, device="tv")), ("s1", document(1))], batch_documents=batch)
    rows = {row["session_id"]: row for row in read_sessions(es, INDEX, now=NOW).table.to_pylist()}
    assert rows["s1"].get("device") is None


def test_changed_and_new_records_are_counted_apart(es: Elasticsearch):
    write(es, records(1, 2))
    summary = write(es, [("s00001", document(1, search_query="other")), *records(2, 3)])
    assert (summary.created, summary.updated, summary.unchanged) == (1, 1, 1)


def test_a_mended_file_replaces_only_its_own_rejects(es: Elasticsearch):
    bad = [(f"b{n}", document(n, user_id=None)) for n in range(5)]
    write(es, bad, source="mine")
    write(es, bad[:3], source="other")
    summary = write(es, [bad[0], *records(1, 2, 3, 4)], source="mine")
    assert summary.rejected == {"no_user": 1}
    left = Counter(reject["source"] for reject in stored(es, rejected_index(INDEX)).values())
    assert left == {"mine": 1, "other": 3}
    write(es, records(0, 1, 2, 3, 4), source="mine")
    left = Counter(reject["source"] for reject in stored(es, rejected_index(INDEX)).values())
    assert left == {"other": 3}


@pytest.mark.parametrize("batch", [2, 1000])
def test_of_records_with_one_id_the_last_wins_and_the_others_are_counted(es: Elasticsearch, batch):
    pairs = [("a", document(n, search_query=f"query {n}")) for n in range(9)] + records(20, 21)
    summary = write(es, pairs, batch_documents=batch)
    assert (summary.read, summary.indexed, summary.duplicates) == (11, 3, 8)
    assert summary.created == 3
    assert stored(es)["a"]["search_query"] == "query 8"


def test_of_records_with_one_id_the_last_wins_even_when_an_earlier_one_had_to_be_repeated(es, proxy):
    refusals = ["a"]  # once: the later batch would get through while the earlier one waits
    proxy.refuse_items(lambda key: 429 if key in refusals and not refusals.remove(key) else None)
    pairs = [("a", document(1, search_query="first")), *records(5, 6), ("a", document(2, search_query="last"))]
    with Elasticsearch(proxy.url) as client:
        summary = write(client, pairs, batch_documents=2, retry=Retry(3, first=0.5))
    assert (summary.indexed, summary.duplicates) == (3, 1)
    assert stored(es)["a"]["search_query"] == "last"


def test_an_index_with_another_mapping_fails_the_import_without_telling_ids_or_content(es: Elasticsearch):
    es.indices.create(index=INDEX, mappings={"properties": {"user_id": {"type": "long"}}})
    with pytest.raises(BulkFailed) as caught:
        write(es, [("secret-session", document(1, user_id="alice@example"))])
    assert caught.value.counts == {"document_parsing_exception": 1}
    assert "alice" not in str(caught.value)
    assert "secret-session" not in str(caught.value)


def test_an_import_of_nothing_creates_the_index_and_nothing_else(es: Elasticsearch):
    assert write(es, []).read == 0
    assert count_sessions(es, INDEX) == 0
    assert not es.indices.exists(index=rejected_index(INDEX))


def test_a_thousand_good_and_two_hundred_bad_records(es: Elasticsearch):
    bad = [(f"b{n}", document(n, **({"user_id": None} if n % 2 else {"timestamp": "never"}))) for n in range(200)]
    done = []
    write(es, [*records(*range(1000)), *bad], on_progress=lambda n, _: done.append(n), batch_documents=300)
    sessions = read_sessions(es, INDEX, now=NOW)
    assert len(sessions) == 1000
    assert sessions.intake.read == 1200
    assert sessions.intake.set_aside == {"no_user": 100, "bad_timestamp": 100}
    assert len(sessions.intake.examples["no_user"]) == 5
    assert all(es.exists(index=rejected_index(INDEX), id=key) for key in sessions.intake.examples["no_user"])
    assert done == sorted(done)


# --- the property: nothing is lost, and what is kept is exact --------------------------------------------------------

texts = st.text(max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
ids = st.text(min_size=1, max_size=20) | st.integers(0, 10**12)
good = st.fixed_dictionaries(
    {
        "user_id": ids,
        "search_query": st.text(min_size=1, max_size=60),
        "timestamp": st.datetimes(datetime(1971, 1, 1), datetime(2026, 2, 1), timezones=st.just(UTC)).map(bulk.iso)
        | st.integers(10**9, 1_700_000_000_000),
    },
    optional={"clicked_product_ids": st.lists(ids, max_size=4) | st.none() | ids},
)
detailed = st.fixed_dictionaries(
    {},
    optional={
        "duration": st.floats(0, 1e6) | st.integers(-5, 5) | anything,
        "start": st.just("2026-01-01T00:00:00Z") | anything,
        "end": st.just("2026-01-01T00:00:09Z") | anything,
        "device": texts | anything,
        "events": st.lists(
            st.fixed_dictionaries(
                {"event_type": st.sampled_from(["view", "purchase", "dance"])},
                optional={"price": st.floats(-1, 9) | anything, "product_id": ids | anything, "timestamp": anything},
            )
            | anything,
            max_size=4,
        ),
    },
)
documents = good | st.builds(
    lambda a, b, c: {**a, **b, **c}, good, st.dictionaries(st.sampled_from(list(document())), anything), detailed
)


def without_none(row):
    """A session as it is stored: what it does not have is not there, in its events neither."""
    events = [{name: value for name, value in event.items() if value is not None} for event in row.get("events") or ()]
    found = {name: value for name, value in row.items() if value is not None}
    return found | ({"events": events} if row.get("events") is not None else {})


def test_an_index_of_an_earlier_version_gets_the_fields_that_came_since(es: Elasticsearch):
    write(es, records(1))
    meta = {"owner": "segmentation-assets", "version": 1}
    es.indices.delete(index=INDEX)
    es.indices.create(
        index=INDEX,
        mappings={
            "_meta": meta,
            "dynamic": "strict",
            "properties": {
                "session_id": {"type": "keyword"},
                "user_id": {"type": "keyword"},
                "search_query": {"type": "text"},
                "clicked_product_ids": {"type": "keyword"},
                "timestamp": {"type": "date"},
            },
        },
    )
    summary = write(
        es, [("s1", document(1, device="mobile", duration=3, events=[{"event_type": "view", "price": "x"}]))]
    )
    assert (summary.created, summary.dropped) == (1, {"events.price: no amount": 1})
    stored = es.get(index=INDEX, id="s1")["_source"]
    assert {name: stored[name] for name in ("device", "duration", "events")} == {
        "device": "mobile",
        "duration": 3.0,
        "events": [{"event_type": "view"}],
    }
    assert es.indices.get_mapping(index=INDEX)[INDEX]["mappings"]["_meta"]["version"] == 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ids, documents), max_size=25, unique_by=lambda pair: str(pair[0]).strip()))
def test_whatever_is_imported_is_kept_exactly_or_set_aside(es: Elasticsearch, pairs):
    for index in (INDEX, rejected_index(INDEX)):
        es.indices.delete(index=index, ignore_unavailable=True)
    expected = {}
    for key, content in pairs:
        checked = check_document(content, NOW)
        session_id = usable_id(key)
        if not isinstance(checked, Reason) and session_id is not None:
            user, query, clicks, when = checked
            moment = when.replace(microsecond=when.microsecond // 1000 * 1000)
            more = as_documents(find([content]), 1)[0]
            more.pop("dropped", None)
            expected[session_id] = {
                "user_id": user,
                "search_query": query,
                "clicked_product_ids": clicks,
                "timestamp": moment,
                **more,
            }
    summary = write(es, pairs)
    assert summary.read == len(pairs) == summary.indexed + summary.duplicates + summary.rejected_total
    if not expected:
        with pytest.raises((NoUsableSessions, IndexEmpty)):
            read_sessions(es, INDEX, now=NOW)
        return
    sessions = read_sessions(es, INDEX, now=NOW, page_size=7)
    assert sessions.intake.read == len(pairs)
    assert sessions.intake.read == sessions.intake.kept + sessions.intake.set_aside_total
    rows = {row.pop("session_id"): without_none(row) for row in sessions.table.to_pylist()}
    assert rows == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        documents | st.dictionaries(texts.filter(lambda t: "." not in t and t.strip()), anything, max_size=3),
        min_size=1,
        max_size=25,
    )
)
def test_whatever_somebody_else_indexed_is_kept_exactly_or_set_aside(es: Elasticsearch, contents):
    es.indices.delete(index="foreign", ignore_unavailable=True)
    # not indexed at all, so that Elasticsearch takes any JSON
    es.indices.create(index="foreign", mappings={"enabled": False})
    lines = b"".join(bulk.index_line(f"d{n:03d}", json.dumps(content).encode()) for n, content in enumerate(contents))
    answer = es.bulk(index="foreign", operations=lines, refresh=True)
    assert not answer["errors"]
    plain = SessionBuilder(NOW)
    for n, content in enumerate(contents):
        claimed = content.get("session_id")
        plain.add(f"d{n:03d}" if usable_id(claimed) is None else claimed, content, f"d{n:03d}")
    expected = plain.finish()
    if not len(expected):
        with pytest.raises(NoUsableSessions):
            read_sessions(es, "foreign", now=NOW)
        return
    sessions = read_sessions(es, "foreign", now=NOW, page_size=6)
    assert sessions.table.to_pylist() == expected.table.to_pylist()
    assert sessions.intake.set_aside == expected.intake.set_aside


# --- reading --------------------------------------------------------------------------------------------------------


def test_missing_empty_and_unreachable_are_three_errors(es: Elasticsearch):
    with pytest.raises(IndexMissing):
        read_sessions(es, INDEX, now=NOW)
    es.indices.create(index=INDEX)
    with pytest.raises(IndexEmpty, match="holds no documents"):
        read_sessions(es, INDEX, now=NOW)
    with Elasticsearch("http://127.0.0.1:9", max_retries=0) as closed, pytest.raises(ClusterUnreachable):
        read_sessions(closed, INDEX, now=NOW)


def test_a_pattern_that_matches_nothing_is_a_missing_index(es: Elasticsearch):
    with pytest.raises(IndexMissing):
        read_sessions(es, "nothing-*", now=NOW)
    with pytest.raises(IndexMissing):
        sessions_state(es, "nothing-*")


def test_only_the_window_is_read_start_included_end_not(es: Elasticsearch):
    write(es, records(*range(60)))
    sessions = read_sessions(es, INDEX, now=NOW, start=NOW - timedelta(minutes=20), end=NOW - timedelta(minutes=10))
    assert sessions.table["session_id"].to_pylist() == [f"s{n:05d}" for n in range(11, 21)]


def test_an_empty_window_is_said_to_be_that(es: Elasticsearch):
    write(es, records(*range(5)))
    with pytest.raises(IndexEmpty, match=r"holds 5 documents, but none from 2027"):
        read_sessions(es, INDEX, now=NOW, start=datetime(2027, 1, 1, tzinfo=UTC))


def test_when_every_record_was_bad_the_reasons_are_told(es: Elasticsearch):
    write(es, [("a", document(1, user_id=None)), ("b", document(2, timestamp="?"))])
    with pytest.raises(NoUsableSessions, match="bad_timestamp 1, no_user 1") as caught:
        read_sessions(es, INDEX, now=NOW)
    assert caught.value.intake.read == 2


def test_bad_documents_that_others_indexed_are_set_aside_when_read(es: Elasticsearch):
    write(es, records(1, 2))
    es.index(index=INDEX, id="odd", document={"user_id": "u", "timestamp": "2026-01-01"}, refresh=True)
    intake = read_sessions(es, INDEX, now=NOW).intake
    assert (intake.read, intake.kept, intake.set_aside) == (3, 2, {"empty_query": 1})
    assert intake.examples == {"empty_query": ["odd"]}


def test_documents_without_a_session_id_go_by_their_own_id(es: Elasticsearch):
    es.indices.create(index="own")
    content = {k: v for k, v in document(1).items() if k != "session_id"}
    es.index(index="own", id="auto1", document=content, refresh=True)
    assert read_sessions(es, "own", now=NOW).table["session_id"].to_pylist() == ["auto1"]


def test_documents_that_claim_one_session_id_are_all_kept_under_their_own(es: Elasticsearch):
    es.indices.create(index="own")
    for key, claimed in (("a", "same"), ("b", "same"), ("same2", "b"), ("c", "alone")):
        es.index(index="own", id=key, document=document(1, session_id=claimed), refresh=True)
    sessions = read_sessions(es, "own", now=NOW)
    # 'b' claims the id of document b, which needs it itself: so it has to use its own as well
    assert sessions.table["session_id"].to_pylist() == ["a", "alone", "b", "same2"]
    assert sessions.intake.read == sessions.intake.kept == 4


def test_one_id_in_two_indices_behind_an_alias_stays_two_sessions(es: Elasticsearch):
    for index in ("jan", "feb"):
        es.indices.create(index=index, aliases={"both": {}})
        es.index(index=index, id="s1", document=document(1, session_id="s1"), refresh=True)
    assert read_sessions(es, "both", now=NOW).table["session_id"].to_pylist() == ["s1@feb", "s1@jan"]
    assert len(sessions_state(es, "both").uuids) == 2


def test_colliding_ids_do_not_depend_on_the_order_of_arrival():
    one, other = SessionBuilder(NOW), SessionBuilder(NOW)
    rows = [("same", "a"), ("same", "b"), ("x", "same")]
    for key, own in rows:
        one.add(key, document(1), own)
    for key, own in reversed(rows):
        other.add(key, document(1), own)
    merged = merge([one]).table
    assert merged.equals(merge([other]).table)
    assert merged["session_id"].to_pylist() == ["a", "b", "x"]


@pytest.mark.parametrize(("page_size", "slices"), [(1, 1), (7, 1), (7, 3), (100, 2), (10_000, 2)])
def test_pages_and_slices_change_nothing(es: Elasticsearch, page_size, slices):
    write(es, records(*range(100)))
    steps = []
    sessions = read_sessions(
        es, INDEX, now=NOW, page_size=page_size, slices=slices, on_progress=lambda n, total: steps.append((n, total))
    )
    assert sessions.table["session_id"].to_pylist() == [f"s{n:05d}" for n in range(100)]
    assert steps[-1] == (100, 100)
    assert steps == sorted(steps)


def test_a_writer_meanwhile_changes_nothing_in_the_snapshot(es: Elasticsearch):
    write(es, records(*range(300)))
    changed = threading.Event()

    def interfere(*_):
        if not changed.is_set():
            changed.set()
            es.delete(index=INDEX, id="s00299")
            es.index(index=INDEX, id="s00298", document=document(298, search_query="changed"))
            es.index(index=INDEX, id="s09999", document=document(9999), refresh=True)

    sessions = read_sessions(es, INDEX, now=NOW, page_size=20, on_progress=interfere)
    assert changed.is_set()
    assert sessions.table["session_id"].to_pylist() == [f"s{n:05d}" for n in range(300)]
    assert sessions.table["search_query"].to_pylist()[298] == "gaming keyboard 298"
    assert "s09999" in stored(es)


def test_an_index_deleted_during_the_read_is_a_short_read(es: Elasticsearch):
    write(es, records(*range(300)))

    def delete(done, _):
        if done <= 40:
            es.indices.delete(index=INDEX, ignore_unavailable=True)

    with pytest.raises(ShortRead, match="lost during the read"):
        read_sessions(es, INDEX, now=NOW, page_size=20, on_progress=delete)


def test_a_document_lost_on_the_way_is_a_short_read(es, proxy):
    write(es, records(*range(50)))

    def lose_one(request):
        answer = proxy.forward(request)
        if request.path.startswith("/_search"):
            content = answer.content
            content["hits"]["hits"] = content["hits"]["hits"][:-1]
            answer.body = json.dumps(content).encode()
        return answer

    proxy.fault = lose_one
    with Elasticsearch(proxy.url) as client, pytest.raises(ShortRead, match="of 50 documents"):
        read_sessions(client, INDEX, now=NOW, page_size=10)


@pytest.mark.parametrize("sign", [{"timed_out": True}, {"_shards": {"total": 2, "failed": 1}}])
def test_an_answer_that_admits_to_be_partial_is_a_short_read(es, proxy, sign):
    write(es, records(*range(50)))

    def partial(request):
        answer = proxy.forward(request)
        if request.path.startswith("/_search") and b'"size":10' in request.body:
            answer.body = json.dumps({**answer.content, **sign}).encode()
        return answer

    proxy.fault = partial
    with Elasticsearch(proxy.url) as client, pytest.raises(ShortRead, match="did not answer in full"):
        read_sessions(client, INDEX, now=NOW, page_size=10)


def test_the_point_in_time_is_closed_whatever_happens(es: Elasticsearch):
    write(es, records(*range(50)))
    assert open_contexts(es) == 0
    read_sessions(es, INDEX, now=NOW, page_size=5)

    def fail(*_):
        raise RuntimeError("progress bar broke")

    with pytest.raises(RuntimeError):
        read_sessions(es, INDEX, now=NOW, page_size=5, on_progress=fail)
    with pytest.raises(IndexEmpty):
        read_sessions(es, INDEX, now=NOW, start=NOW + timedelta(days=1))
    assert open_contexts(es) == 0


# --- state ----------------------------------------------------------------------------------------------------------


def test_the_state_tells_growth_from_a_rebuilt_index(es: Elasticsearch):
    with pytest.raises(IndexMissing):
        sessions_state(es, INDEX)
    write(es, records(1, 2))
    first = sessions_state(es, INDEX)
    write(es, records(3))
    grown = sessions_state(es, INDEX)
    assert (first.count, grown.count) == (2, 3)
    assert first.uuids == grown.uuids
    es.indices.delete(index=INDEX)
    write(es, records(1, 2, 3))
    assert sessions_state(es, INDEX).uuids != first.uuids
    assert count_sessions(es, INDEX) == 3


# --- what imports set aside -----------------------------------------------------------------------------------------


def test_what_was_set_aside_is_listed_by_source_and_can_be_forgotten(es: Elasticsearch):
    """Forgetting one source leaves the others; forgetting all leaves nothing to count."""
    bad = [(f"b{n}", document(n, timestamp="yesterday")) for n in range(3)]
    write(es, bad, source="/a/x.csv")
    write(es, [("c1", document(1, user_id=None)), *records(7)], source="/b/x.csv")
    assert rejected_sources(es, INDEX) == [
        RejectedSource("/a/x.csv", {"bad_timestamp": 3}),
        RejectedSource("/b/x.csv", {"no_user": 1}),
    ]
    assert forget_rejected(es, INDEX, "/a/x.csv") == 3
    assert [entry.source for entry in rejected_sources(es, INDEX)] == ["/b/x.csv"]
    assert read_sessions(es, INDEX, now=NOW).intake.set_aside == {"no_user": 1}
    assert forget_rejected(es, INDEX) == 1
    assert read_sessions(es, INDEX, now=NOW).intake.set_aside == {}


def test_where_nothing_was_set_aside_there_is_nothing_to_list_or_forget(es: Elasticsearch):
    write(es, records(1))
    assert rejected_sources(es, INDEX) == []
    assert forget_rejected(es, INDEX) == 0
