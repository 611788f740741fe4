"""All documents are published and verified, or nothing changes for those who read the alias."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from elasticsearch import ApiError, Elasticsearch

from segmentation_assets.io import publishing
from segmentation_assets.io.bulk import BulkFailed, Pace, Retry
from segmentation_assets.io.elasticsearch import ClusterUnreachable, MissingPrivilege, ReadOnly
from segmentation_assets.io.publishing import (
    AliasTaken,
    NothingToRollBackTo,
    VerificationFailed,
    list_published,
    publish,
    published_state,
    rollback,
)
from segmentation_assets.io.templates import segment_template

ALIAS = "user_segments"
QUICK = Retry(times=3, first=0.01, cap=0.01)


def documents(n: int = 10, segment: str = "tech"):
    return [
        {
            "session_id": f"session-{i:04d}",
            "user_id": f"u{i % 3}",
            "search_query": f'gaming "keyboard" ünï {i}',
            "segment": segment,
            "cluster": i % 5,
            "confidence": 0.25,
            "model_version": "m1",
            "timestamp": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=i),
            "published_at": datetime(2026, 3, 1, tzinfo=UTC),
        }
        for i in range(n)
    ]


def put(client, docs=None, **options):
    docs = documents() if docs is None else docs
    options = {
        "id_field": "session_id",
        "expected": options["expected"] if "expected" in options else len(docs),
        "meta": {"run_id": "0a1b2c3d-4e5f", "model_version": "m1"},
        "template": segment_template(ALIAS),
        "retry": QUICK,
        **options,
    }
    return publish(client, ALIAS, docs, **options)


def indices(es: Elasticsearch) -> list[str]:
    return sorted(es.indices.get(index="*", expand_wildcards="all").body)


def segments(es: Elasticsearch) -> set[str]:
    return {hit["_source"]["segment"] for hit in es.search(index=ALIAS, size=1000)["hits"]["hits"]}


# --- what is published ----------------------------------------------------------------------------------------------


def test_documents_are_published_under_the_alias_with_their_own_ids(es: Elasticsearch):
    progress = []
    done = put(es, on_progress=lambda n, total: progress.append((n, total)))
    assert (done.alias, done.documents, done.previous, done.removed, done.live) == (ALIAS, 10, None, (), True)
    assert done.index.startswith("user_segments-20")
    assert done.index.endswith("-0a1b2c3d")
    found = es.get(index=ALIAS, id="session-0003")["_source"]
    assert found == {
        **documents()[3],
        "timestamp": "2026-01-01T00:00:03.000Z",
        "published_at": "2026-03-01T00:00:00.000Z",
    }
    assert progress[-1] == (10, 10)
    assert es.indices.get_alias(name=ALIAS).body == {done.index: {"aliases": {ALIAS: {"is_write_index": False}}}}


def test_a_table_gives_the_same_documents_as_mappings(es: Elasticsearch):
    put(es)
    plain = es.get(index=ALIAS, id="session-0007")["_source"]
    put(es, pa.Table.from_pylist(documents()))
    assert es.get(index=ALIAS, id="session-0007")["_source"] == plain


def test_the_index_tells_who_made_it_and_from_what(es: Elasticsearch):
    index = put(es).index
    state = published_state(es, ALIAS)
    assert (state.index, state.documents) == (index, 10)
    meta = state.meta
    assert (meta["owner"], meta["status"], meta["alias"]) == ("segmentation-assets", "complete", ALIAS)
    assert (meta["run_id"], meta["model_version"]) == ("0a1b2c3d-4e5f", "m1")
    assert meta["writer"]["pid"] == os.getpid()
    assert meta["published_at"] > meta["created_at"]
    described = es.indices.get(index=index)[index]
    assert described["mappings"]["dynamic"] == "strict"
    assert described["settings"]["index"].get("refresh_interval") is None
    assert described["settings"]["index"]["auto_expand_replicas"] == "0-1"


def test_the_caller_cannot_pass_for_another_owner(es: Elasticsearch):
    put(es, meta={"owner": "me", "status": "draft", "run_id": "UPPER/../case*"})
    state = published_state(es, ALIAS)
    assert (state.meta["owner"], state.meta["status"]) == ("segmentation-assets", "complete")
    assert state.index.endswith("-uppercas")


def test_nothing_published_is_none_not_an_error(es: Elasticsearch):
    assert published_state(es, ALIAS) is None
    assert list_published(es, ALIAS) == []


def test_no_documents_at_all_can_be_published(es: Elasticsearch):
    assert put(es, []).documents == 0


def test_the_last_n_are_kept_the_new_one_included(es: Elasticsearch):
    made = [put(es, documents(segment=f"s{n}"), keep=2) for n in range(4)]
    assert indices(es) == sorted([made[2].index, made[3].index])
    assert made[3].removed == (made[1].index,)
    assert made[3].previous == made[2].index
    assert segments(es) == {"s3"}


def test_an_index_that_somebody_gave_an_alias_of_its_own_is_never_removed(es: Elasticsearch):
    pinned = put(es, keep=1).index
    es.indices.put_alias(index=pinned, name="last_christmas")
    for _ in range(3):
        put(es, keep=1)
    assert pinned in indices(es)


def test_keep_counts_the_new_index(es: Elasticsearch):
    with pytest.raises(ValueError, match="at least 1"):
        put(es, keep=0)


# --- what goes wrong: the alias stays, nothing is left ---------------------------------------------------------------


@pytest.fixture
def before(es: Elasticsearch):
    """Something is published; whatever fails afterwards must leave exactly this."""
    index = put(es, documents(5, "before")).index
    yield index
    assert indices(es) == [index]
    assert list(es.indices.get_alias(name=ALIAS).body) == [index]
    assert segments(es) == {"before"}


def test_one_refused_document_fails_everything_and_is_told_without_its_content(es: Elasticsearch, before):
    docs = documents(50)
    docs[17]["unexpected"] = "alice@example.com"
    docs[18]["cluster"] = "not a number"
    with pytest.raises(BulkFailed) as caught:
        put(es, docs, batch_documents=20)
    assert caught.value.counts == {"strict_dynamic_mapping_exception": 1, "document_parsing_exception": 1}
    said = str(caught.value)
    assert "2 of 20" in said
    assert "session-0017" not in said
    assert "session-0018" not in said
    assert "not a number" not in said
    assert caught.value.ids[0].startswith("se~")


@pytest.mark.parametrize("expected", [9, 11])
def test_another_number_than_expected_is_an_error(es: Elasticsearch, before, expected):
    with pytest.raises(VerificationFailed, match=str(expected)):
        put(es, documents(10), expected=expected)


def test_repeated_ids_are_an_error_within_a_batch_and_across(es: Elasticsearch, before):
    for batch in (3, 1000):
        with pytest.raises(VerificationFailed):
            put(es, documents(10) + documents(1), batch_documents=batch)


def test_an_endless_source_is_stopped(es: Elasticsearch, before):
    def endless():
        while True:
            yield from documents(100)

    with pytest.raises(VerificationFailed, match="more than the 50"):
        put(es, endless(), expected=50)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupt_half_way_leaves_nothing(es: Elasticsearch, before, error):
    def interrupted():
        yield from documents(30)
        raise error("now")

    with pytest.raises(error):
        put(es, interrupted(), expected=100, batch_documents=10)


def test_a_value_that_is_not_json_is_a_programming_error_and_leaves_nothing(es: Elasticsearch, before):
    with pytest.raises(ValueError, match="not JSON compliant"):
        put(es, [{**documents(1)[0], "confidence": float("nan")}])


def test_documents_changed_on_the_way_are_found_before_the_alias_moves(es: Elasticsearch, proxy, before):
    def tamper(request):
        if "_bulk" in request.path:
            request.body = request.body.replace(b'"tech"', b'"tich"')
        return proxy.forward(request)

    proxy.fault = tamper
    with Elasticsearch(proxy.url) as client, pytest.raises(VerificationFailed, match="read back"):
        put(client, documents(200))


def test_documents_lost_on_the_way_are_found_before_the_alias_moves(es: Elasticsearch, proxy, before):
    def lose(request):
        answer = proxy.forward(request)
        if "_bulk" in request.path:
            index = request.path.split("/")[1]
            es.delete(index=index, id="session-0123")
        return answer

    proxy.fault = lose
    with Elasticsearch(proxy.url) as client, pytest.raises(VerificationFailed, match="holds 199 documents, 200"):
        put(client, documents(200))


def test_a_cluster_that_goes_away_fails_once_the_attempts_are_used_up(es: Elasticsearch, proxy):
    index = put(es).index
    bulks = []

    def gone(request):
        if "_bulk" in request.path:
            bulks.append(request)
        return None if bulks else proxy.forward(request)

    proxy.fault = gone
    with Elasticsearch(proxy.url, max_retries=0) as client, pytest.raises(ClusterUnreachable):
        put(client)
    assert list(es.indices.get_alias(name=ALIAS).body) == [index]
    # the cluster was not there to remove it; this process is alive but not writing it, so the next publish cleans up
    assert len(indices(es)) == 2
    left = next(name for name in indices(es) if name != index)
    assert put(es).leftovers_removed == (left,)


def test_a_refused_swap_leaves_everything_as_it_was(es: Elasticsearch, proxy, before, answer):
    def refuse(request):
        if request.path == "/_aliases":
            reason = "action [indices:admin/aliases] is unauthorized for user [u]"
            return answer.of(403, {"error": {"type": "security_exception", "reason": reason}, "status": 403})
        return proxy.forward(request)

    proxy.fault = refuse
    with Elasticsearch(proxy.url) as client, pytest.raises(MissingPrivilege, match="indices:admin/aliases"):
        put(client)


def test_a_swap_whose_answer_is_lost_has_happened(es: Elasticsearch, proxy):
    """The request went through, only the answer did not: the index is live and must not be removed as half-written."""
    put(es, documents(5, "before"))

    def lose_answer(request):
        answer = proxy.forward(request)
        return None if request.path == "/_aliases" else answer

    proxy.fault = lose_answer
    with Elasticsearch(proxy.url, max_retries=0) as client, pytest.raises(ClusterUnreachable):
        put(client, documents(10, "after"))
    assert segments(es) == {"after"}
    assert published_state(es, ALIAS).documents == 10
    # and a client that tries again finds it done
    with Elasticsearch(proxy.url, max_retries=3) as client:
        proxy.fault = proxy.forward
        assert put(client, documents(10, "again")).live


# --- a busy cluster -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_item_is_repeated_and_only_that_item(es: Elasticsearch, proxy, status):
    busy = {"session-0003": 2, "session-0008": 1}
    sent = Counter()

    def status_of(key):
        sent[key] += 1
        busy[key] = busy.get(key, 0) - 1
        return status if busy[key] >= 0 else None

    proxy.refuse_items(status_of)
    with Elasticsearch(proxy.url) as client:
        assert put(client).documents == 10
    assert sent == Counter([f"session-{i:04d}" for i in range(10)]) + Counter({"session-0003": 2, "session-0008": 1})
    assert es.count(index=ALIAS)["count"] == 10


def test_of_a_table_a_batch_with_a_busy_item_is_asked_about_once_and_then_only_that_item_is_repeated(es, proxy):
    """Columns are sent for one word; where it is the bad one, the batch goes again, and its items are answered for."""
    busy = {"session-0003": 3, "session-0008": 2}
    sent = Counter()

    def status_of(key):
        sent[key] += 1
        busy[key] = busy.get(key, 0) - 1
        return 429 if busy[key] >= 0 else None

    proxy.refuse_items(status_of)
    with Elasticsearch(proxy.url) as client:
        assert put(client, pa.Table.from_pylist(documents(12)), batch_documents=10).documents == 12
    twice = {f"session-{i:04d}": 2 for i in range(10)}
    assert sent == Counter(twice | {"session-0003": 4, "session-0008": 3, "session-0010": 1, "session-0011": 1})
    assert es.count(index=ALIAS)["count"] == 12


def test_a_busy_cluster_is_given_a_pause_before_a_batch_is_asked_about_as_well(es: Elasticsearch, proxy):
    pauses: list[int] = []

    class Noted(Retry):
        def delay(self, attempt: int) -> float:
            pauses.append(attempt)
            return super().delay(attempt)

    refusals = iter([429, 429, 429])  # when it is sent, when it is asked about, and once more
    proxy.refuse_items(lambda key: next(refusals, None) if key == "session-0003" else None)
    with Elasticsearch(proxy.url) as client:
        put(client, pa.Table.from_pylist(documents(10)), retry=Noted(times=3, first=0.01, cap=0.01))
    assert pauses == [0, 0, 1]


def test_a_document_of_a_table_that_is_refused_for_good_stops_everything(es: Elasticsearch, before):
    docs = [{**document, "cluster": "not a number"} for document in documents(3)]
    with pytest.raises(BulkFailed, match="document_parsing_exception 3"):
        put(es, pa.Table.from_pylist(docs))


def test_ids_of_a_table_that_are_not_different_are_found_before_the_alias_moves(es: Elasticsearch, before):
    with pytest.raises(VerificationFailed, match="holds 10 documents, 11 were written"):
        put(es, pa.Table.from_pylist(documents(10) + documents(1)))


def test_fewer_requests_are_sent_while_the_cluster_is_busy_and_more_again_when_it_is_not():
    pace = Pace(8)
    pace.busy()
    pace.busy()
    assert pace.allowed == 2
    for _ in range(25):
        pace.taken()
    assert pace.allowed == 4
    for _ in range(5):
        pace.busy()
    assert pace.allowed == 1
    for _ in range(200):
        pace.taken()
    assert pace.allowed == 8


def test_an_item_that_stays_busy_fails_after_the_bounded_number_of_attempts(es: Elasticsearch, proxy, before):
    sent = Counter()

    def status_of(key):
        sent[key] += 1
        return 429 if key == "session-0003" else None

    proxy.refuse_items(status_of)
    with Elasticsearch(proxy.url) as client, pytest.raises(BulkFailed, match="too busy for 1 documents"):
        put(client)
    assert sent["session-0003"] == 1 + QUICK.times
    assert sent["session-0004"] == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504, None])
def test_a_refused_or_dropped_request_is_repeated(es: Elasticsearch, proxy, status, answer):
    faults = [status, status]

    def fault(request):
        if "_bulk" in request.path and faults:
            faults.pop()
            return (
                None
                if status is None
                else answer.of(status, {"error": {"type": "busy", "reason": "x"}, "status": status})
            )
        return proxy.forward(request)

    proxy.fault = fault
    with Elasticsearch(proxy.url) as client:
        assert put(client).documents == 10
    assert not faults


def test_a_bulk_whose_answer_is_lost_is_repeated_without_doubling(es: Elasticsearch, proxy):
    lost = [1]

    def fault(request):
        answer = proxy.forward(request)
        return None if "_bulk" in request.path and lost and lost.pop() else answer

    proxy.fault = fault
    with Elasticsearch(proxy.url) as client:
        put(client)
    assert es.count(index=ALIAS)["count"] == 10


def test_a_proxy_that_allows_only_small_requests_gets_smaller_ones(es: Elasticsearch, proxy, answer):
    def fault(request):
        if len(request.body) > 2000:
            return answer(413, b"<html>Request Entity Too Large</html>", {"Content-Type": "text/html"})
        return proxy.forward(request)

    proxy.fault = fault
    with Elasticsearch(proxy.url) as client:
        assert put(client, documents(100)).documents == 100


def test_a_full_disk_is_told_at_once_not_repeated(es: Elasticsearch, proxy, before):
    sent = Counter()

    def status_of(key):
        sent[key] += 1
        return 429

    reason = (
        "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, "
        "index has read-only-allow-delete block];"
    )
    proxy.refuse_items(status_of, {"type": "cluster_block_exception", "reason": reason})
    with Elasticsearch(proxy.url) as client, pytest.raises(ReadOnly, match="disk is nearly full"):
        put(client)
    assert set(sent.values()) == {1}


def test_a_blocked_cluster_is_told_at_once_not_repeated(es: Elasticsearch, proxy, before, answer):
    sent = []

    def fault(request):
        if "_bulk" not in request.path:
            return proxy.forward(request)
        sent.append(request)
        reason = "blocked by: [TOO_MANY_REQUESTS/6/cluster read-only (api)];"
        return answer.of(429, {"error": {"type": "cluster_block_exception", "reason": reason}, "status": 429})

    proxy.fault = fault
    with Elasticsearch(proxy.url) as client, pytest.raises(ReadOnly, match=r"The cluster .*read-only \(api\)"):
        put(client)
    assert len(sent) == 1


# --- other people's indices -----------------------------------------------------------------------------------------


def test_a_concrete_index_of_the_aliases_name_is_not_touched(es: Elasticsearch):
    es.index(index=ALIAS, id="1", document={"mine": True}, refresh=True)
    with pytest.raises(AliasTaken, match="is an index"):
        put(es)
    assert indices(es) == [ALIAS]
    assert es.get(index=ALIAS, id="1")["_source"] == {"mine": True}
    assert not es.indices.exists_index_template(name="segmentation-user-segments")
    with pytest.raises(AliasTaken):
        published_state(es, ALIAS)


@pytest.mark.parametrize("name", ["theirs", "user_segments-20200101000000-theirs"])
def test_an_alias_that_leads_to_a_foreign_index_is_not_touched(es: Elasticsearch, name):
    es.indices.create(index=name, aliases={ALIAS: {}})
    with pytest.raises(AliasTaken, match=name):
        put(es)
    with pytest.raises(AliasTaken):
        rollback(es, ALIAS)
    assert indices(es) == [name]


def test_foreign_indices_with_a_matching_name_survive(es: Elasticsearch):
    foreign = "user_segments-20200101000000-theirs"
    es.indices.create(index=foreign, mappings={"_meta": {"status": "building", "owner": "them", "alias": ALIAS}})
    for _ in range(3):
        put(es, keep=1)
    assert foreign in indices(es)
    assert foreign not in {index.name for index in list_published(es, ALIAS)}


def test_another_alias_whose_name_starts_alike_is_a_stranger(es: Elasticsearch):
    publish(
        es, "user_segments-beta", documents(3), id_field="session_id", expected=3, meta={}, template=segment_template()
    )
    for _ in range(2):
        put(es, keep=1)
    assert published_state(es, "user_segments-beta").documents == 3
    assert len(list_published(es, ALIAS)) == 1


# --- killed runs ----------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from elasticsearch import ApiError, Elasticsearch
from segmentation_assets.io.publishing import publish
from segmentation_assets.io.templates import segment_template

def documents():
    for i in range(1000):
        if i == 500:
            print("half", flush=True)
            time.sleep(60)
        yield {"session_id": f"s{i}", "segment": "killed"}

publish(Elasticsearch(sys.argv[1]), "user_segments", documents(), id_field="session_id", expected=1000,
        meta={"run_id": "killed"}, template=segment_template(), batch_documents=100)
"""


@pytest.fixture
def half_way(elasticsearch_url: str):
    child = subprocess.Popen([sys.executable, "-c", CHILD, elasticsearch_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "half\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_run_killed_half_way_is_healed_by_the_next(es: Elasticsearch, half_way):
    left = next(index for index in list_published(es, ALIAS))
    assert left.meta["status"] == "building"
    assert published_state(es, ALIAS) is None
    half_way.send_signal(signal.SIGKILL)
    half_way.wait()
    done = put(es)
    assert done.leftovers_removed == (left.name,)
    assert indices(es) == [done.index]


def test_a_run_that_is_still_writing_is_left_alone(es: Elasticsearch, half_way):
    left = next(index for index in list_published(es, ALIAS)).name
    done = put(es, keep=1)
    assert done.leftovers_removed == ()
    assert indices(es) == sorted([left, done.index])


def test_a_process_that_only_has_the_number_of_the_writer_is_not_it(es: Elasticsearch, half_way):
    left = next(index for index in list_published(es, ALIAS))
    writer = {**left.meta["writer"], "started": left.meta["writer"]["started"] - 3600}
    es.indices.put_mapping(index=left.name, meta={**left.meta, "writer": writer})
    assert put(es).leftovers_removed == (left.name,)


@pytest.mark.parametrize(("minutes", "removed"), [(10, False), (61, True)])
def test_a_writer_on_another_machine_counts_as_gone_after_an_hour_without_a_sign(es, half_way, minutes, removed):
    left = next(index for index in list_published(es, ALIAS))
    meta = {
        **left.meta,
        "writer": {**left.meta["writer"], "host": "elsewhere"},
        "created_at": "2020-01-01T00:00:00+00:00",
        "alive_at": (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(),
    }
    es.indices.put_mapping(index=left.name, meta=meta)
    assert put(es).leftovers_removed == ((left.name,) if removed else ())


def test_a_long_publish_gives_signs_of_life(es: Elasticsearch, monkeypatch):
    monkeypatch.setattr(publishing, "HEARTBEAT", timedelta(0))
    index = put(es, documents(30), batch_documents=10).index
    meta = published_state(es, ALIAS).meta
    assert meta["alive_at"] > meta["created_at"]
    assert published_state(es, ALIAS).index == index


def test_a_run_killed_between_verification_and_swap_counts_as_a_leftover(es: Elasticsearch, half_way):
    left = next(index for index in list_published(es, ALIAS))
    es.indices.put_mapping(index=left.name, meta={**left.meta, "status": "complete"})
    half_way.kill()
    half_way.wait()
    assert not next(index for index in list_published(es, ALIAS)).complete
    assert put(es).leftovers_removed == (left.name,)


def test_a_run_killed_right_after_the_swap_can_still_be_rolled_back_to(es: Elasticsearch):
    first = put(es, documents(5, "first")).index
    meta = dict(published_state(es, ALIAS).meta)
    del meta["published_at"]
    es.indices.put_mapping(index=first, meta=meta)
    put(es, documents(5, "second"))
    assert rollback(es, ALIAS).index == first


# --- rolling back ---------------------------------------------------------------------------------------------------


def test_rolling_back_leads_to_the_one_before_and_again_to_the_one_before_that(es: Elasticsearch):
    made = [put(es, documents(n + 1, f"s{n}")).index for n in range(3)]
    assert rollback(es, ALIAS).index == made[1]
    assert segments(es) == {"s1"}
    state = rollback(es, ALIAS)
    assert (state.index, state.documents) == (made[0], 1)
    with pytest.raises(NothingToRollBackTo, match="nothing before"):
        rollback(es, ALIAS)
    assert rollback(es, ALIAS, to=made[2]).index == made[2]
    assert [index.name for index in list_published(es, ALIAS)] == made[::-1]


def test_only_a_published_index_of_this_alias_can_be_rolled_back_to(es: Elasticsearch, half_way):
    put(es)
    es.indices.create(index="theirs")
    building = next(index.name for index in list_published(es, ALIAS) if index.meta["status"] == "building")
    for to in ("theirs", "nope", building):
        with pytest.raises(NothingToRollBackTo, match="not a published index"):
            rollback(es, ALIAS, to=to)


def test_publishing_after_a_rollback_keeps_what_was_rolled_back_to(es: Elasticsearch):
    made = [put(es, documents(segment=f"s{n}")).index for n in range(3)]
    rollback(es, ALIAS, to=made[0])
    done = put(es, documents(segment="new"), keep=2)
    assert done.previous == made[0]
    assert segments(es) == {"new"}
    assert indices(es) == sorted([made[2], done.index])


# --- several publishers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_publishers_that_finish_at_once_leave_exactly_one_index_behind_the_alias(es, elasticsearch_url, first):
    if not first:
        put(es, documents(3, "before"))
    swaps, failed, done = threading.Barrier(6), [], []

    def one(n):
        def docs():
            yield from documents(20, f"s{n}")
            swaps.wait(30)  # all are ready to swap at the same moment

        try:
            with Elasticsearch(elasticsearch_url) as client:
                done.append(put(client, docs(), expected=20, meta={"run_id": f"run{n}"}, keep=10))
        except Exception as error:  # noqa: BLE001
            failed.append(error)
            swaps.abort()

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    (behind,) = es.indices.get_alias(name=ALIAS).body
    assert behind in {published.index for published in done}
    assert es.count(index=ALIAS)["count"] == 20
    assert len(segments(es)) == 1


def test_a_publisher_that_was_overtaken_looks_again_and_adds_no_second_index(es: Elasticsearch, proxy):
    """Between looking at the alias and moving it, somebody else moves it: the move must not happen as planned."""
    put(es, documents(3, "before"))
    behind = []

    def overtaken(request):
        if request.path != "/_aliases":
            return proxy.forward(request)
        if not behind:
            put(es, documents(4, "other"), meta={"run_id": "other"})
        answer = proxy.forward(request)
        behind.append(len(es.indices.get_alias(name=ALIAS).body))
        return answer

    proxy.fault = overtaken
    with Elasticsearch(proxy.url) as client:
        done = put(client, documents(5, "mine"))
    assert done.live
    assert behind == [1, 1]
    assert segments(es) == {"mine"}


def test_two_very_first_publishers_are_brought_down_to_one(es: Elasticsearch, proxy):
    """With nothing behind the alias there is nothing to compare with, so both add theirs; the later repairs that."""
    overtaken = []

    def fault(request):
        if request.path == "/_aliases" and not overtaken:
            overtaken.append(put(es, documents(4, "other"), meta={"run_id": "other"}))
        return proxy.forward(request)

    proxy.fault = fault
    with Elasticsearch(proxy.url) as client:
        assert put(client, documents(5, "mine")).live
    assert segments(es) == {"mine"}
    assert len(es.indices.get_alias(name=ALIAS).body) == 1


def test_readers_always_see_exactly_one_whole_version(es: Elasticsearch, elasticsearch_url):
    put(es, documents(20, "s0"))
    stop, seen = threading.Event(), []

    def watch():
        with Elasticsearch(elasticsearch_url) as client:
            while not stop.is_set():
                hits = client.search(index=ALIAS, size=100, filter_path="hits.hits._source.segment")["hits"]["hits"]
                seen.append(Counter(hit["_source"]["segment"] for hit in hits))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for n in range(1, 6):
            put(es, documents(20, f"s{n}"), keep=10)
    finally:
        stop.set()
        watcher.join()
    assert seen
    assert all(list(version.values()) == [20] for version in seen)


def test_publishing_counts_are_json(es: Elasticsearch):
    """What is returned can be stored and shown as it is."""
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(put(es))))["documents"] == 10


def test_a_request_that_arrives_after_its_index_was_removed_does_not_bring_it_back(es: Elasticsearch):
    """A bulk request of a killed run may still be under way when the next run has tidied up."""
    name = put(es, keep=1).index
    put(es, keep=1)
    with contextlib.suppress(ApiError):  # refused as a whole, or item by item
        assert es.bulk(index=name, operations=[{"index": {"_id": "late"}}, documents(1)[0]])["errors"]
    assert name not in indices(es)
