"""A read that goes on from an earlier one gives what reading everything gives, and fetches only what is new."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentation_assets.core.sessions import EXAMPLES_PER_REASON, RULES
from segmentation_assets.io import bulk, session_reader
from segmentation_assets.io.session_reader import NoUsableSessions, read_sessions
from segmentation_assets.io.session_store import write_sessions

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INDEX = "user_sessions"


def document(n: int, **changes):
    return {
        "session_id": f"s{n:05d}",
        "user_id": f"u{n % 7}",
        "search_query": f"gaming keyboard {n}",
        "clicked_product_ids": [f"p{n}"],
        "timestamp": bulk.iso(NOW - timedelta(minutes=n)),
        **changes,
    }


def write(es, *documents):
    pairs = [(content["session_id"], content) for content in documents]
    write_sessions(es, INDEX, pairs, source="file", now=NOW)


def put(es, key, content):
    es.index(index=INDEX, id=key, document=content, refresh=True)


@pytest.fixture
def narrow(monkeypatch):
    """No sequence number is asked for again, so that what is fetched is what was written since."""
    monkeypatch.setattr(session_reader, "IN_PROGRESS", 0)


@pytest.fixture
def before(es: Elasticsearch, narrow):
    write(es, *(document(n) for n in range(100)))
    return read_sessions(es, INDEX, now=NOW)


def same(one, other):
    assert one.table.equals(other.table)
    assert (one.intake.read, one.intake.kept, one.intake.set_aside) == (
        other.intake.read,
        other.intake.kept,
        other.intake.set_aside,
    )
    shown = [  # of many, other ones may be shown
        {
            reason: sorted(ids)
            for reason, ids in found.examples.items()
            if found.set_aside[reason] <= EXAMPLES_PER_REASON
        }
        for found in (one.intake, other.intake)
    ]
    assert shown[0] == shown[1]
    known = [(found.uuid, found.seq_no, found.window, found.set_aside) for found in (one.origin, other.origin) if found]
    assert len(known) != 1
    assert known[:1] == known[1:]


def continued(es, previous, index=INDEX, **options):
    """The sessions, read on from the previous ones, after seeing that they are what a full read gives."""
    found = read_sessions(es, index, now=NOW, previous=previous, **options)
    same(found, read_sessions(es, index, now=NOW, **options))
    return found


def test_only_what_is_new_is_fetched(es: Elasticsearch, before):
    assert before.fetched == 100
    write(es, *(document(n) for n in range(98, 103)))  # two of them are there already, exactly so
    assert continued(es, before).fetched == 3


def test_a_changed_session_takes_the_place_of_the_earlier_one(es: Elasticsearch, before):
    write(es, document(5, search_query="other"), document(200))
    found = continued(es, before)
    assert found.fetched == 2
    assert found.table["search_query"].to_pylist()[5] == "other"


def test_nothing_new_fetches_nothing(es: Elasticsearch, before):
    assert continued(es, before).fetched == 0


def test_many_readings_in_a_row(es: Elasticsearch, before):
    for n in range(100, 110):
        write(es, document(n), document(n - 100, search_query=f"again {n}"))
        before = continued(es, before)
        assert before.fetched == 2


def test_documents_set_aside_are_accounted_for_before_and_after(es: Elasticsearch, before):
    put(es, "bad1", document(300, session_id="bad1", search_query=" "))
    put(es, "bad2", document(301, session_id="bad2", user_id=None))
    put(es, "s00007", document(7, search_query=""))
    before = continued(es, before)
    assert (before.fetched, before.intake.set_aside) == (3, {"empty_query": 2, "no_user": 1})
    put(es, "bad1", document(300, session_id="bad1"))  # mended
    put(es, "bad2", document(301, session_id="bad2", search_query=""))  # bad in another way
    before = continued(es, before)
    assert (before.fetched, before.intake.set_aside) == (2, {"empty_query": 2})


def test_details_come_and_go_as_a_full_read_shows_them(es: Elasticsearch, before):
    assert before.table.column_names[-1] == "timestamp"
    bought = [{"event_type": "purchase", "product_id": "p", "price": 3.5, "timestamp": bulk.iso(NOW)}]
    put(es, "s00005", document(5, device="mobile", events=bought))
    put(es, "s00200", document(200, duration=7, events=[{"event_type": "dance"}]))
    before = continued(es, before)
    assert before.table.column_names[-4:] == ["duration", "device", "events", "dropped"]
    put(es, "s00005", document(5))
    put(es, "s00200", document(200, duration=8))
    assert continued(es, before).table.column_names[-2:] == ["timestamp", "duration"]


def test_after_a_deletion_all_are_read_again(es: Elasticsearch, before):
    es.delete(index=INDEX, id="s00003", refresh=True)
    assert continued(es, before).fetched == 99


def test_as_many_new_ones_as_were_deleted_do_not_hide_it(es: Elasticsearch, before):
    es.delete(index=INDEX, id="s00003", refresh=True)
    write(es, document(500))
    assert continued(es, before).fetched == 100


def test_an_index_made_anew_is_read_as_a_whole(es: Elasticsearch, before):
    es.indices.delete(index=INDEX)
    write(es, *(document(n) for n in range(50, 150)))
    assert continued(es, before).fetched == 100


def test_other_bounds_of_time_are_read_as_a_whole_and_the_same_are_not(es: Elasticsearch, before):
    window = {"start": NOW - timedelta(minutes=50)}
    found = continued(es, before, **window)
    assert found.fetched == 51
    write(es, document(10, search_query="within"), document(90, search_query="outside"))
    assert continued(es, found, **window).fetched == 1


def test_a_session_that_leaves_the_window_is_noticed(es: Elasticsearch, narrow):
    write(es, *(document(n) for n in range(100)))
    window = {"start": NOW - timedelta(minutes=50)}
    before = read_sessions(es, INDEX, now=NOW, **window)
    write(es, document(10, timestamp=bulk.iso(NOW - timedelta(days=1))))
    assert continued(es, before, **window).fetched == 50


def test_a_session_of_the_future_is_judged_again(es: Elasticsearch, before):
    put(es, "soon", document(1, session_id="soon", timestamp=bulk.iso(NOW + timedelta(hours=1))))
    before = continued(es, before)
    assert before.intake.set_aside == {"future_timestamp": 1}
    later = read_sessions(es, INDEX, now=NOW + timedelta(hours=2), previous=before)
    assert (later.fetched, later.intake.set_aside) == (1, {})
    same(later, read_sessions(es, INDEX, now=NOW + timedelta(hours=2)))
    assert continued(es, read_sessions(es, INDEX, now=NOW, previous=before)).intake.set_aside == {"future_timestamp": 1}


def test_sessions_under_another_id_than_their_documents_are_read_as_a_whole(es: Elasticsearch, before):
    put(es, "other", document(1, session_id="claims"))
    before = continued(es, before)
    assert before.fetched == 101
    assert before.origin is None
    assert continued(es, before).fetched == 101


def test_judged_by_other_rules_all_are_read_again(es: Elasticsearch, before, monkeypatch):
    monkeypatch.setattr(session_reader, "RULES", RULES + 1)
    assert read_sessions(es, INDEX, now=NOW, previous=before).fetched == 100


def test_an_alias_is_followed_unless_it_filters(es: Elasticsearch, before):
    es.indices.put_alias(index=INDEX, name="all")
    assert continued(es, before, "all").fetched == 0
    es.indices.put_alias(index=INDEX, name="some", filter={"term": {"user_id": "u1"}})
    some = continued(es, before, "some")
    assert some.fetched == len(some) < 100
    assert continued(es, some, "some").fetched == len(some)


def test_several_indices_or_shards_are_read_as_a_whole(es: Elasticsearch, narrow):
    for name, shards in (("one", 1), ("two", 1), ("wide", 3)):
        es.indices.create(index=name, settings={"number_of_shards": shards})
        for n in range(9):
            es.index(index=name, id=f"s{n:05d}", document=document(n), refresh=True)
    for index in ("one,two", "wide"):
        before = read_sessions(es, index, now=NOW)
        assert before.origin is None
        assert read_sessions(es, index, now=NOW, previous=before).fetched == before.intake.read


def test_when_most_is_new_all_are_read(es: Elasticsearch, before):
    write(es, *(document(n) for n in range(100, 250)))
    assert continued(es, before).fetched == 250


def test_writes_that_were_in_progress_are_asked_for_once_more(es: Elasticsearch, monkeypatch):
    monkeypatch.setattr(session_reader, "IN_PROGRESS", 30)
    write(es, *(document(n) for n in range(100)))
    put(es, "bad1", document(300, session_id="bad1", search_query=" "))
    before = read_sessions(es, INDEX, now=NOW)
    write(es, document(100), document(3, search_query="other"))
    before = continued(es, before)
    assert before.fetched == 32
    assert before.reading == "what was written since the last read"
    monkeypatch.setattr(session_reader, "IN_PROGRESS", 10_000)
    before = continued(es, before)
    assert (before.fetched, before.reading) == (102, "everything: most of it is new, or was written lately")


def test_where_the_index_lost_writes_all_are_read_again(es: Elasticsearch, before):
    """As after a restore, or a failover to a copy that was behind: the numbers are given out a second time."""
    ahead = replace(before, origin=replace(before.origin, seq_no=before.origin.seq_no + 1))
    found = continued(es, ahead)
    assert (found.fetched, found.reading) == (100, "everything: the index lost writes")


def test_the_reason_for_reading_everything_is_told(es: Elasticsearch, before):
    assert before.reading == "everything: there is no earlier read to go on from"
    es.delete(index=INDEX, id="s00003", refresh=True)
    assert "documents were deleted" in continued(es, before).reading
    assert "several shards" in read_sessions(es, sharded(es), now=NOW, previous=before).reading
    assert "another index" in read_sessions(es, "plain", now=NOW, previous=before).reading
    assert "bounds" in read_sessions(es, INDEX, now=NOW, start=NOW - timedelta(days=1), previous=before).reading


def sharded(es) -> str:
    for name, shards in (("wide", 2), ("plain", 1)):
        es.indices.create(index=name, settings={"number_of_shards": shards})
        es.index(index=name, id="s00001", document=document(1), refresh=True)
    return "wide"


keys = st.integers(0, 11).map(lambda n: f"s{n:05d}")
contents = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["u1", "u2", None]),
        "search_query": st.sampled_from(["red dress", " spaced  out ", "", "caf\u00e9", 'quo"te']),
        "timestamp": st.sampled_from(["2026-01-01T00:00:00.000Z", 1_700_000_000_000, "soon", "2027-01-01"]),
    },
    optional={
        "session_id": st.sampled_from(["s00001", "x", 5]),
        "clicked_product_ids": st.sampled_from([[], ["p1", "p2"], "p3", [["p"]]]),
    },
)
steps = st.lists(
    st.lists(st.tuples(keys, contents | st.none()), max_size=6), min_size=1, max_size=5
)  # None: the document is deleted


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.booleans())
@example([[("s00000", None)]], False)
def test_whatever_happens_to_an_index_the_result_is_that_of_a_full_read(es: Elasticsearch, narrow, steps, own_ids):
    es.indices.delete(index="foreign", ignore_unavailable=True)
    es.indices.create(index="foreign", mappings={"enabled": False})
    usable = {"user_id": "u", "search_query": "lamp", "timestamp": "2026-01-01"}
    first = [(f"t{n:05d}", usable) for n in range(12)]
    previous = None
    for step, number in zip([first, *steps], count(), strict=False):
        for key, content in step:
            if content is None:
                es.options(ignore_status=404).delete(index="foreign", id=key)
            else:
                content = {k: v for k, v in content.items() if k != "session_id" or not own_ids}
                es.bulk(index="foreign", operations=bulk.index_line(key, json.dumps(content).encode()))
        es.indices.refresh(index="foreign")
        try:
            whole = read_sessions(es, "foreign", now=NOW)
        except NoUsableSessions:
            continue
        found = read_sessions(es, "foreign", now=NOW, previous=previous, page_size=[3, 10_000][number % 2])
        same(found, whole)
        previous = found
