"""Changes are told on to a topic and to Elasticsearch: each at least once, those of a user in their order."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.core.live.events import Event
from segmentation_assets.core.live.segmenter import Change
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.settings import PublishSettings, Settings
from segmentation_assets.io.live_store import Commit, StoreUnavailable
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.io.publishing import publish
from segmentation_assets.io.segment_store import count_segments, publish_segments
from segmentation_assets.io.templates import profile_template, segment_template
from segmentation_assets.streaming import telling
from segmentation_assets.streaming.telling import Teller, to_elasticsearch, to_topic
from segmentation_assets_tests.batch_side import Batch
from segmentation_assets_tests.streaming.scripted_source import ScriptedSink, ScriptedSource, run, store_with, values

PROFILES, SEGMENTS = "user_profiles", "user_segments"


def change(user: str, segment: str = "tech", **changes: object) -> Change:
    whole = {
        "user_id": user,
        "at": 1_800_000_000_000,
        "segment": segment,
        "previous": "",
        "cluster": 2,
        "previous_cluster": -2,
        "persona": "Loyal Enthusiasts",
        "model": "m1",
        "session_id": f"{user}-s",
        "search_query": "usb cable",
        "session_segment": segment,
        "session_at": 1_800_000_000_000,
    }
    return Change(**{**whole, **changes})


def store_of(*changes: Change) -> MemoryStore:
    store = MemoryStore()
    add(store, *changes)
    return store


def add(store: MemoryStore, *changes: Change) -> None:
    for each in changes:
        known = store.load([each.user_id]).get(each.user_id, UserState())
        state = UserState(sequence=known.sequence + 1, segment=each.segment)
        assert store.commit(Commit(positions=[], states={each.user_id: state}, changes=[each])) is None


def publish_as_a_run_does(es: Elasticsearch) -> None:
    """One user's profile, and one session's segment."""
    profile = {"user_id": "known", "segment": "other", "cluster": 1, "persona": "Window Browsers", "rules": ["often"]}
    segment = {"session_id": "old", "user_id": "known", "search_query": "tea", "segment": "other"}
    for alias, document, id_field, template in (
        (PROFILES, profile, "user_id", profile_template(PROFILES)),
        (SEGMENTS, segment, "session_id", segment_template(SEGMENTS)),
    ):
        meta = {"run_id": "run1", "model_version": "m0"}
        publish(es, alias, [document], id_field=id_field, expected=1, meta=meta, template=template)


def seen(es: Elasticsearch, alias: str) -> dict[str, dict[str, object]]:
    es.indices.refresh(index=alias)
    return {hit["_id"]: hit["_source"] for hit in es.search(index=alias, size=1_000)["hits"]["hits"]}


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.01)


# --- a topic ----------------------------------------------------------------------------------------------------------


def test_a_topic_gets_every_change_by_its_user_with_an_id_in_the_order_of_the_store() -> None:
    store, sink = store_of(*(change(f"u{n % 7}", f"s{n}") for n in range(2_300))), ScriptedSink()
    teller = Teller("topic", store, to_topic(sink, "changes"), "me")
    assert [teller.tell_once() for _ in range(4)] == [1_000, 1_000, 300, 0]
    sent = sink.sent["changes"]
    assert [json.loads(value)["segment"] for _, value, _ in sent] == [f"s{n}" for n in range(2_300)]
    assert all(json.loads(value)["user_id"] == key for key, value, _ in sent)
    assert [headers["id"] for _, _, headers in sent] == [each.id for each in store.changes(None, 3_000)]
    assert teller.told == 2_300


class LosesCursors(MemoryStore):
    """Is away once when it is told how far a sink is."""

    failed = False

    def advance(self, sink: str, change_id: str) -> None:
        if not self.failed:
            self.failed = True
            raise StoreUnavailable("The store does not answer.", "Wait.")
        super().advance(sink, change_id)


def test_what_was_delivered_but_not_noted_is_told_again_with_the_same_ids() -> None:
    store, sink = LosesCursors(), ScriptedSink()
    add(store, change("u"), change("v"))
    teller = Teller("topic", store, to_topic(sink, "changes"), "me")
    with pytest.raises(StoreUnavailable):
        teller.tell_once()
    assert teller.tell_once() == 2
    assert [headers["id"] for _, _, headers in sink.sent["changes"]] == ["1-0", "2-0", "1-0", "2-0"]
    assert teller.tell_once() == 0


def test_what_could_not_be_delivered_is_not_passed_by() -> None:
    store, sink = store_of(change("u")), ScriptedSink(["before"])
    teller = Teller("topic", store, to_topic(sink, "changes"), "me")
    with pytest.raises(Exception, match="does not take it"):
        teller.tell_once()
    assert store.cursor("topic") is None
    assert teller.tell_once() == 1


def test_one_teller_at_a_time_tells_a_place_and_another_takes_over() -> None:
    store, sink = store_of(change("u")), ScriptedSink()
    one, two = (Teller("topic", store, to_topic(sink, "changes"), owner) for owner in ("one", "two"))
    assert one.tell_once() == 1
    add(store, change("v"))
    assert two.tell_once() == 0
    assert Teller("elasticsearch", store, lambda _: None, "two").tell_once() == 2  # another place is another lock
    store.lock("tell:topic", "one", 0)  # its holder was not heard of for long
    assert two.tell_once() == 1
    assert [key for key, _, _ in sink.sent["changes"]] == ["u", "v"]


def test_a_problem_is_said_once_and_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "IDLE_SECONDS", 0.005)
    monkeypatch.setattr(telling, "LONGEST_WAIT", 0.01)
    store, sink = store_of(change("u")), ScriptedSink(["before"] * 5)
    waiting: list[int] = []
    teller = Teller("topic", store, to_topic(sink, "changes"), "me", waiting.append)
    teller.start()
    try:
        until(lambda: teller.told == 1 and teller.problem is None)
        add(store, change("v"))
        until(lambda: teller.told == 2)
    finally:
        teller.stop()
        teller.join(30)
    assert not teller.is_alive()
    assert sink.calls == 7
    assert [record.message for record in caplog.records] == [
        "changes cannot be told on to topic: The broker does not take it.",
        "telling changes on to topic again",
    ]
    assert waiting[0] == 1


# --- Elasticsearch ----------------------------------------------------------------------------------------------------


def test_a_profile_is_changed_a_new_user_gets_one_and_the_search_gets_its_segment(es: Elasticsearch) -> None:
    publish_as_a_run_does(es)
    first = change("known", "fashion", session_id=None, search_query=None, session_segment=None, session_at=None)
    store = store_of(first, change("known"), change("new", cluster=-2, persona=""))
    assert Teller("elasticsearch", store, to_elasticsearch(es, Settings()), "me").tell_once() == 3
    assert seen(es, PROFILES) == {
        "known": {
            **{"user_id": "known", "segment": "tech", "cluster": 2, "persona": "Loyal Enthusiasts"},
            "rules": ["often"],
        },
        "new": {"user_id": "new", "segment": "tech"},
    }
    found = seen(es, SEGMENTS)
    assert found.keys() == {"old", "known-s", "new-s"}
    assert found["known-s"] == {
        **{"session_id": "known-s", "user_id": "known", "search_query": "usb cable", "segment": "tech"},
        "timestamp": 1_800_000_000_000,
    }


def test_without_a_segment_or_a_cluster_what_is_there_stays(es: Elasticsearch) -> None:
    publish_as_a_run_does(es)
    none = change("known", "", cluster=-2, persona="", session_id=None, search_query=None, session_segment=None)
    Teller("elasticsearch", store_of(none), to_elasticsearch(es, Settings()), "me").tell_once()
    assert seen(es, PROFILES)["known"]["segment"] == "other"
    assert seen(es, PROFILES)["known"]["cluster"] == 1


def test_telling_twice_is_telling_once(es: Elasticsearch) -> None:
    publish_as_a_run_does(es)
    store = LosesCursors()
    add(store, change("known"), change("new"))
    teller = Teller("elasticsearch", store, to_elasticsearch(es, Settings()), "me")
    with pytest.raises(StoreUnavailable):
        teller.tell_once()
    before = seen(es, PROFILES), seen(es, SEGMENTS)
    assert teller.tell_once() == 2
    assert (seen(es, PROFILES), seen(es, SEGMENTS)) == before


def test_where_nothing_was_published_nothing_is_written(es: Elasticsearch) -> None:
    store = store_of(change("u"))
    assert Teller("elasticsearch", store, to_elasticsearch(es, Settings()), "me").tell_once() == 1
    assert es.cat.indices(format="json").body == []


def test_a_field_that_readers_were_not_promised_is_left_out(es: Elasticsearch) -> None:
    publish_as_a_run_does(es)
    settings = Settings(publish=PublishSettings(fields=frozenset()))
    Teller("elasticsearch", store_of(change("u")), to_elasticsearch(es, settings), "me").tell_once()
    assert "timestamp" not in seen(es, SEGMENTS)["u-s"]


def test_a_cluster_that_is_away_is_a_problem_and_not_the_end(
    es: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "IDLE_SECONDS", 0.005)
    with Elasticsearch("http://127.0.0.1:1", max_retries=0) as nobody:
        teller = Teller("elasticsearch", store_of(change("u")), to_elasticsearch(nobody, Settings()), "me")
        teller.start()
        until(lambda: teller.problem is not None)
        assert teller.is_alive()
        assert "No Elasticsearch answers" in teller.problem
        teller.stop()
        teller.join(30)


def test_a_run_after_the_stream_publishes_everything_anew(es: Elasticsearch, batch: Batch, events: list[Event]) -> None:
    """The stream has written into what the last run published; the next run sees that and writes all of it."""
    settings, now = Settings(), datetime(2026, 11, 1, tzinfo=UTC)
    publish_segments(es, batch.labeled, settings.publish, run_id="run00001", now=now)
    rows = batch.labeled.table.num_rows
    store = store_with(batch.model)
    known = events[-1].user_id
    live = [
        Event(f"{user}:{n}", user, "search", 1_800_000_000_000 + n, session_id=f"{user}-{n}", search_query=query)
        for user, query in ((known, "summer dress"), ("new", "usb cable"))
        for n in range(3)
    ]
    run(ScriptedSource({"p/0": values(live)}, [1]), store)
    teller = Teller("elasticsearch", store, to_elasticsearch(es, settings), "me")
    assert teller.tell_once() >= 2
    es.indices.refresh(index=SEGMENTS)
    told = {each.change.session_id for each in store.changes(None, 100)}
    assert count_segments(es, SEGMENTS) == rows + len(told)
    again = publish_segments(es, batch.labeled, settings.publish, run_id="run00002", now=now, before=batch.labeled)
    assert again.written == rows
    assert count_segments(es, SEGMENTS) == rows
    assert not told & seen(es, SEGMENTS).keys()


def test_two_tellers_of_one_place_at_once_leave_none_out() -> None:
    store, sink = store_of(*(change(f"u{n}") for n in range(3_000))), ScriptedSink()
    tellers = [Teller("topic", store, to_topic(sink, "changes"), owner) for owner in ("one", "two")]
    for teller in tellers:
        teller.start()
    until(lambda: sum(teller.told for teller in tellers) == 3_000)
    for teller in tellers:
        teller.stop()
        teller.join(30)
    assert [key for key, _, _ in sink.sent["changes"]] == [f"u{n}" for n in range(3_000)]
