"""Where readers see what was published last, only the difference is written; and the result is that of writing all."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pyarrow as pa
import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation_assets.io import publishing
from segmentation_assets.io.bulk import BulkFailed, Retry
from segmentation_assets.io.publishing import (
    VerificationFailed,
    list_published,
    publish,
    published_state,
    rollback,
)
from segmentation_assets.io.templates import segment_template

ALIAS = "user_segments"
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
_minutes = count()


def table(*rows: int, **changes: dict[int, object]) -> pa.Table:
    """A row for each number; ``segment={3: "x"}`` changes one cell."""
    columns = {
        "session_id": [f"s{i:04d}" for i in rows],
        "user_id": [f"u{i % 3}" for i in rows],
        "search_query": [f'gaming "keyboard" ünï {i}' for i in rows],
        "segment": ["tech"] * len(rows),
        "cluster": [i % 5 for i in rows],
        "confidence": [0.25] * len(rows),
        "timestamp": [FIRST + timedelta(seconds=i) for i in rows],
    }
    for name, cells in changes.items():
        columns[name] = [cells.get(i, value) for i, value in zip(rows, columns[name], strict=True)]
    schema = pa.schema(
        [(name, pa.string()) for name in ("session_id", "user_id", "search_query", "segment")]
        + [("cluster", pa.int32()), ("confidence", pa.float32()), ("timestamp", pa.timestamp("ms", tz="UTC"))]
    )
    return pa.table(columns, schema=schema)


def put(client, now, before=None, model="m1", **options):
    constants = {"model_version": model, "published_at": FIRST + timedelta(minutes=next(_minutes))}
    return publish(
        client,
        ALIAS,
        now,
        id_field="session_id",
        expected=now.num_rows,
        meta={"run_id": f"run{next(_minutes):05d}", "model_version": model},
        constants=options.pop("constants", constants),
        at_writing=["published_at"],
        before=before,
        template=segment_template(ALIAS),
        retry=Retry(times=2, first=0.01, cap=0.01),
        **options,
    )


def seen(es: Elasticsearch, but=("published_at",)):
    hits = es.search(index=ALIAS, size=10_000)["hits"]["hits"]
    return {hit["_id"]: {k: v for k, v in hit["_source"].items() if k not in but} for hit in hits}


def whole(es: Elasticsearch, now, **options):
    """What readers see when everything is written."""
    put(es, now, **options)
    return seen(es)


def test_only_what_differs_is_written_and_the_rest_keeps_its_time(es: Elasticsearch):
    old = table(*range(100))
    first = put(es, old)
    assert first.written == 100
    times = {key: found["published_at"] for key, found in seen(es, ()).items()}
    new = table(*range(2, 103), segment={50: "fashion"})
    progress = []
    second = put(es, new, old, on_progress=lambda n, total: progress.append((n, total)))
    assert second.written == 6  # two gone, three new, one changed
    assert (second.documents, second.previous) == (101, first.index)
    assert progress[0][1] == 6
    found = seen(es, ())
    later = {key for key, document in found.items() if document["published_at"] != times.get(key)}
    assert later == {"s0050", "s0100", "s0101", "s0102"}
    assert seen(es) == whole(es, new)


def test_nothing_different_is_a_new_index_all_the_same(es: Elasticsearch):
    old = table(*range(10))
    first = put(es, old)
    second = put(es, old, old)
    assert second.written == 0
    assert second.index != first.index
    assert [index.name for index in list_published(es, ALIAS)] == [second.index, first.index]


def test_the_clone_is_an_index_like_any_other(es: Elasticsearch):
    old = table(*range(10))
    first = put(es, old).index
    new = put(es, table(*range(12)), old).index
    for index in (first, new):
        described = es.indices.get(index=index)[index]["settings"]["index"]
        assert "write" not in described.get("blocks", {})
        assert described.get("refresh_interval") is None
    meta = published_state(es, ALIAS).meta
    assert meta["run_id"] != es.indices.get(index=first)[first]["mappings"]["_meta"]["run_id"]
    assert rollback(es, ALIAS).index == first
    assert len(seen(es)) == 10


def test_after_a_rollback_the_difference_is_to_what_readers_see(es: Elasticsearch):
    old, new = table(*range(10)), table(*range(12))
    put(es, old)
    put(es, new, old)
    rollback(es, ALIAS)
    assert put(es, table(*range(13)), new).written == 13  # not what readers see any more
    rollback(es, ALIAS)
    assert put(es, table(*range(11)), new).written == 1
    assert len(seen(es)) == 11


@pytest.mark.parametrize("change", ["added", "changed", "removed"])
def test_an_index_that_somebody_wrote_to_is_written_anew(es: Elasticsearch, change):
    old = table(*range(10))
    index = put(es, old).index
    if change == "removed":
        es.delete(index=index, id="s0001", refresh=True)
    else:
        es.index(index=index, id="s0001" if change == "changed" else "x", document={"segment": "theirs"}, refresh=True)
    assert put(es, old, old).written == 10
    assert {document["segment"] for document in seen(es).values()} == {"tech"}


def test_another_model_or_other_columns_or_much_change_are_written_as_a_whole(es: Elasticsearch):
    old = table(*range(10))
    put(es, old)
    assert put(es, old, old, model="m2").written == 10
    fewer = old.drop_columns(["cluster"])
    assert put(es, fewer, old, model="m2").written == 10
    assert put(es, old, fewer, model="m2").written == 10
    assert put(es, table(*range(10), segment=dict.fromkeys(range(4), "x")), old, model="m2").written == 10
    assert put(es, old, table(*range(9)), model="m2").written == 10


def test_a_field_that_documents_get_at_writing_is_in_all_or_in_none(es: Elasticsearch):
    old = table(*range(10))
    put(es, old)
    bare = {"constants": {"model_version": "m1"}}
    assert put(es, old, old, **bare).written == 10
    assert not any("published_at" in document for document in seen(es, ()).values())
    assert put(es, old, old, **bare).written == 0
    assert put(es, old, old).written == 10
    assert all("published_at" in document for document in seen(es, ()).values())


def test_documents_that_stay_are_among_those_that_are_read_back(es: Elasticsearch, monkeypatch):
    old = table(*range(200))
    put(es, old)
    looked_at: list[str] = []
    verify = publishing._verify
    monkeypatch.setattr(publishing, "_verify", lambda *given: looked_at.extend(given[3]) or verify(*given))
    put(es, table(*range(201)), old)
    assert len(set(looked_at) - {"s0200"}) >= publishing.SAMPLE
    assert "s0200" in looked_at


def test_a_document_that_stays_and_is_not_what_it_should_be_stops_it(es: Elasticsearch, monkeypatch):
    """Nothing but the sample could notice: the digest and the newest write are as they were noted."""
    old = table(*range(10))
    index = put(es, old).index
    es.index(index=index, id="s0003", document={"session_id": "s0003", "segment": "theirs"}, refresh=True)
    monkeypatch.setattr(publishing, "_newest_write", lambda *_: published_state(es, ALIAS).meta["newest_write"])
    with pytest.raises(VerificationFailed, match="read back"):
        put(es, table(*range(11)), old)
    assert published_state(es, ALIAS).index == index


def test_removing_is_repeated_when_the_answer_is_lost(es: Elasticsearch, proxy, answer):
    old = table(*range(20))
    put(es, old)
    lost = []

    def fault(request):
        found = proxy.forward(request)
        if b'"delete"' in request.body and not lost:
            lost.append(request.path)
            return answer.of(503, {"error": {"type": "unavailable", "reason": "try again"}, "status": 503})
        return found

    proxy.fault = fault
    with Elasticsearch(proxy.url) as through:
        assert put(through, table(*range(2, 20)), old).written == 2
    assert lost
    assert len(seen(es)) == 18


@pytest.mark.parametrize("how", ["refused", "lost", "not ready", "gone"])
def test_where_the_cluster_cannot_clone_everything_is_written(es: Elasticsearch, proxy, answer, how):
    old = table(*range(10))
    first = put(es, old).index

    def fault(request):
        if "_clone" not in request.path:
            return proxy.forward(request)
        if how == "refused":
            return answer.of(403, {"error": {"type": "security_exception", "reason": "no"}, "status": 403})
        if how == "gone":
            return answer.of(
                404, {"error": {"type": "index_not_found_exception", "reason": "no such index"}, "status": 404}
            )
        made = proxy.forward(request)
        if how == "lost":  # it was made all the same
            return answer.of(504, {"error": {"type": "gateway", "reason": "timeout"}, "status": 504})
        return answer.of(200, {**made.content, "shards_acknowledged": False})

    proxy.fault = fault
    with Elasticsearch(proxy.url) as through:
        second = put(through, table(*range(11)), old)
    assert second.written == 11
    assert len(seen(es)) == 11
    assert sorted(es.indices.get(index="user_segments-*").body) == sorted([first, second.index])
    es.index(index=first, id="x", document={"segment": "it takes writes again"})


def test_a_clone_whose_notes_were_never_written_is_no_place_to_go_back_to_and_goes_in_time(
    es: Elasticsearch, monkeypatch
):
    """What a process leaves that is killed right after cloning."""
    old = table(*range(10))
    first = put(es, old).index
    es.indices.put_settings(index=first, settings={"index.blocks.write": True})
    es.indices.clone(index=first, target="user_segments-orphan")
    second = put(es, table(*range(11)), old)
    assert second.leftovers_removed == ()  # somebody may be about to write them
    assert [index.name for index in list_published(es, ALIAS) if index.complete] == [second.index, first]
    monkeypatch.setattr(publishing, "_CLONING", 0)
    assert put(es, table(*range(12))).leftovers_removed == ("user_segments-orphan",)


def test_a_difference_that_cannot_be_written_leaves_what_was(es: Elasticsearch, proxy):
    old = table(*range(10))
    index = put(es, old).index
    proxy.refuse_items(lambda key: 400 if key == "s0010" else None)
    with Elasticsearch(proxy.url) as through, pytest.raises(BulkFailed):
        put(through, table(*range(11)), old)
    assert list(es.indices.get(index="user_segments-*").body) == [index]
    assert len(seen(es)) == 10
    es.index(index=index, id="x", document={"segment": "it takes writes again"})


cells = st.sampled_from(["tech", "fashion", "other", None])
states = st.dictionaries(st.integers(0, 30), cells, min_size=1, max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(states, min_size=2, max_size=4))
def test_whatever_changes_readers_see_what_writing_all_would_show(es: Elasticsearch, states):
    for index in es.indices.get(index="user_segments-*").body:
        es.indices.delete(index=index)
    before = None
    limit, publishing.CLONED_UP_TO = publishing.CLONED_UP_TO, 5.0
    try:
        for state in states:
            now = table(*sorted(state), segment=state)
            put(es, now, before)
            expected = {row["session_id"]: (row["segment"], row["cluster"]) for row in now.to_pylist()}
            assert {key: (found["segment"], found["cluster"]) for key, found in seen(es).items()} == expected
            before = now
    finally:
        publishing.CLONED_UP_TO = limit
