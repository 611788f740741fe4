"""One worker, step by step: what it does in which order, and what follows when something fails."""

import io
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation_assets.core.live.events import Event
from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.settings import OnlineSettings, StreamSettings
from segmentation_assets.io.live_models import pack, publish
from segmentation_assets.io.live_store import ModelRecord, StoreUnavailable, open_store
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import DataDir
from segmentation_assets.streaming import worker as workers
from segmentation_assets.streaming.worker import NoModelError, Worker
from segmentation_assets_tests.batch_side import Batch
from segmentation_assets_tests.streaming.scripted_source import (
    DEAD,
    NOW,
    Log,
    ScriptedSink,
    ScriptedSource,
    UnreliableStore,
    run,
    store_with,
    values,
)

HOUR = 3_600_000
COUNTED = ("events", "sessions", "searches", "views", "clicks", "carts", "impressions", "orders", "spend", "latest")
KINDS = pytest.mark.parametrize("seekable", [True, False], ids=["seekable", "not seekable"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it waits between tries is of no interest here."""
    monkeypatch.setattr(workers, "SHORTEST_WAIT", 0.0005)
    monkeypatch.setattr(workers, "LONGEST_WAIT", 0.002)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.001)


def plain(model: LiveModel, events: list[Event]) -> tuple[dict[str, UserState], int, int]:
    """States after one pass over all events, how many counted, how many came too late."""
    states: dict[str, UserState] = {}
    outcome = Segmenter(model, HOUR, 0.2).process(events, states)
    return states, outcome.applied, len(outcome.late)


def same(store: Any, wanted: dict[str, UserState]) -> None:
    """Counters and segments are those of the plain pass, for every user."""
    found = store.load(list(wanted))
    assert found.keys() == wanted.keys()
    for user, state in wanted.items():
        for name in COUNTED:
            assert getattr(found[user], name) == getattr(state, name), (user, name)
        assert found[user].interests == state.interests
        assert found[user].segment == state.segment
    assert store.sizes() == dict(Counter(state.segment for state in wanted.values() if state.segment))


def by_user(events: list[Event], parts: int) -> dict[str, list[bytes | None]]:
    """As a broker keyed by user divides them."""
    users = {user: number % parts for number, user in enumerate(dict.fromkeys(event.user_id for event in events))}
    return {f"p/{part}": values(event for event in events if users[event.user_id] == part) for part in range(parts)}


def search(user: str, number: int, query: str = "wireless headphones", at: int = 1_800_000_000_000) -> Event:
    return Event(f"{user}:{number}", user, "search", at + number * 1_000, search_query=query)


# --- order ------------------------------------------------------------------------------------------------------------


def test_everything_is_counted_once_and_users_are_where_a_plain_pass_puts_them(
    batch: Batch, events: list[Event]
) -> None:
    store = store_with(batch.model)
    worker = run(ScriptedSource(by_user(events, 3), [70, 1, 200, 33]), store, lateness_minutes=60)
    wanted, applied, late = plain(batch.model, events)
    same(store, wanted)
    assert (applied, late) == (len(events), 0)
    assert store.totals()["events"] == len(events)
    assert worker.metrics.said()["applied"] == len(events)
    assert {store.claim(f"segments/p/{part}").position for part in range(3)} == {
        str(len(records)) for records in by_user(events, 3).values()
    }


@KINDS
def test_dead_letters_are_delivered_before_a_step_is_written_and_it_is_acknowledged_after(
    batch: Batch, seekable: bool
) -> None:
    log: Log = []
    records = [b"no json", *values([search("u", 1)]), b"[]", *values([search("u", 2)])]
    source = ScriptedSource({"p/0": records}, [2], seekable=seekable, log=log)
    run(source, UnreliableStore(store_with(batch.model), log=log), ScriptedSink(log=log))
    names = [name for name, _ in log if name in ("sent", "write", "acknowledge")]
    assert names == ["sent", "write", "acknowledge"] * 2
    assert [what for name, what in log if name == "acknowledge"] == [("p/0", [0, 1]), ("p/0", [2, 3])]


def test_a_dead_letter_is_the_record_itself_with_the_reason_and_where_it_was(batch: Batch) -> None:
    sink = ScriptedSink()
    run(ScriptedSource({"p/0": [*values([search("u", 1)]), b"no json", None]}), store_with(batch.model), sink)
    assert sink.sent[DEAD] == [
        ("p/0:1", b"no json", {"reason": "value: no JSON", "partition": "p/0", "position": "1"}),
        ("p/0:2", b"", {"reason": "value: missing", "partition": "p/0", "position": "2"}),
    ]


def test_events_that_come_too_late_become_dead_letters(batch: Batch) -> None:
    sink, store = ScriptedSink(), store_with(batch.model)
    late = search("u", -4_000)
    source = ScriptedSource({"p/0": values([search("u", 1), search("v", -4_000), late, search("u", -3_000)])}, [1])
    run(source, store, sink)
    ((_, value, headers),) = sink.sent[DEAD]
    assert value == values([late])[0]
    assert headers == {"reason": "timestamp: too late", "partition": "p/0", "position": "2"}
    totals = store.totals()
    assert (totals["events"], totals["late"], totals["dead"]) == (3, 1, 1)


def test_records_that_lead_to_nothing_are_passed_by(batch: Batch) -> None:
    hover = json.dumps(
        {"action_name": "hover", "client_id": "c", "timestamp": "2026-01-01T00:00:00Z", "query_id": "q"}
    ).encode()
    store, sink = store_with(batch.model), ScriptedSink()
    source = ScriptedSource({"p/0": [b"no json", hover, b"{", hover]}, [1])
    run(source, store, sink)
    assert store.claim("segments/p/0").position == "4"
    assert store.totals() == {"dead": 2, "other": 2}
    assert [value for _, value, _ in sink.sent[DEAD]] == [b"no json", b"{"]


def test_an_event_that_comes_twice_counts_once(batch: Batch, events: list[Event]) -> None:
    store = store_with(batch.model)
    run(ScriptedSource({"p/0": values(event for event in events[:300] for _ in range(2))}, [37]), store)
    same(store, plain(batch.model, events[:300])[0])
    totals = store.totals()
    assert (totals["events"], totals["duplicates"]) == (300, 300)


# --- failures ---------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("fails", ["before", "after"])
def test_while_dead_letters_cannot_be_delivered_nothing_goes_on_and_then_nothing_is_missing(
    batch: Batch, events: list[Event], seekable: bool, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    log: Log = []
    store = UnreliableStore(store_with(batch.model), log=log)
    sink = ScriptedSink([None, *[fails] * 5], log)
    records = values(events[:50])
    for place in (3, 17, 29):  # in the steps 0, 1 and 2
        records.insert(place, b"bad")
    source = ScriptedSource({"p/0": records}, [10], seekable=seekable, log=log)
    with caplog.at_level(logging.WARNING):
        run(source, store, sink)
    first = log.index(("sent", DEAD))
    down = [name for name, _ in log[first + 1 :] if name in ("sent", "not sent", "write")]
    # the step before is written; the one that cannot be told of is tried until it is
    assert down[:6] == ["write", *["not sent" if fails == "before" else "sent"] * 5]
    wanted = plain(batch.model, events[:50])[0]
    same(store, wanted)
    assert store.totals()["events"] == 50
    assert store.totals()["dead"] == 3
    assert {key for key, _, _ in sink.sent[DEAD]} == {"p/0:3", "p/0:17", "p/0:29"}
    assert sum("held" in record.message for record in caplog.records) == 1
    assert caplog.records[-1].message == "going on"


def test_while_it_is_held_the_position_stays_and_the_report_says_why(batch: Batch, events: list[Event]) -> None:
    store = store_with(batch.model)
    sink = ScriptedSink([*["before"] * 10_000])
    source = ScriptedSource({"p/0": [*values(events[:20]), b"bad", *values(events[20:30])]}, [20, 1, 10])
    worker = Worker(source, store, sink, StreamSettings(), "one", now=lambda: NOW)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: store.workers().get("one", {}).get("held") == "The broker does not take it.", 5)
        assert store.totals()["events"] == 20
        assert max(source.acknowledged["p/0"]) == 19
    finally:
        worker.stop()
        thread.join(30)
    assert store.claim("segments/p/0").position == "20"


def test_a_sink_that_refuses_at_once_is_not_asked_without_pause(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SHORTEST_WAIT", 0.05)
    monkeypatch.setattr(workers, "LONGEST_WAIT", 5.0)
    sink = ScriptedSink(["before"] * 10_000)
    worker = Worker(ScriptedSource({"p/0": [b"bad"]}), store_with(batch.model), sink, StreamSettings(), "one")
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: sink.calls)
    began = time.monotonic()
    until(lambda: sink.calls >= 4)
    assert time.monotonic() - began > 0.2  # 0.05 s, 0.1 s, 0.2 s
    worker.stop()
    thread.join(30)


@KINDS
@pytest.mark.parametrize(
    "failures",
    [
        {"write": [None, "before", "before", None, "before"]},
        {"write": [None, "after", None, "after", "after"]},
        {"load": ["before", None, "before", "before"]},
        {"write": [None, "before", None, "after"], "load": [None, None, "before", "before"], "claim": [None, "before"]},
        {"claim": ["before", "after", "before"], "write": ["after"]},
        {"write": ["before"] * 3, "claim": [None, "before", "after"]},
    ],
    ids=["not written", "answer lost", "not read", "by turns", "at the start", "first step"],
)
def test_when_the_store_fails_the_end_is_as_if_it_had_not(
    batch: Batch, events: list[Event], seekable: bool, failures: dict[str, list[str | None]]
) -> None:
    some = events[:600]
    store = UnreliableStore(store_with(batch.model), failures)
    source = ScriptedSource(by_user(some, 2), [20], seekable=seekable)
    run(source, store, cached_users=30)
    assert not any(store.failures.values())  # each of them has happened
    same(store, plain(batch.model, some)[0])
    assert store.totals()["events"] == len(some)
    if seekable:
        assert "duplicates" not in store.totals()


class AfterRecord(ScriptedSource):
    """A source whose positions name the record that was read last, as Kinesis has them."""

    def poll(self, most: int, seconds: float) -> Any:
        found = super().poll(most, seconds)
        return [replace(records, next=str(records.positions[-1])) for records in found]

    def seek(self, partition: str, position: str) -> None:
        super().seek(partition, str(int(position) + 1))


def test_where_a_position_names_the_last_record_a_failure_at_the_very_first_loses_none(
    batch: Batch, events: list[Event]
) -> None:
    store = UnreliableStore(store_with(batch.model), {"write": ["before", None, "before", "after"]})
    run(AfterRecord({"s/0": values(events[:200])}, [20]), store)
    same(store, plain(batch.model, events[:200])[0])
    assert store.totals()["events"] == 200
    assert "duplicates" not in store.totals()


def test_one_partition_goes_on_where_another_has_never_been_written(batch: Batch, events: list[Event]) -> None:
    """A step of both fails: the records of the first are read again, those of the second are still in the hand."""
    parts = by_user(events[:400], 2)
    source = ScriptedSource({"p/0": parts["p/0"]}, [20])
    source.records["p/1"], source.acknowledged["p/1"] = parts["p/1"], set()
    source.at = {3: lambda: source.assign("p/1")}
    store = UnreliableStore(store_with(batch.model), {"write": [None, None, "before", "before", None, "after"]})
    run(source, store)
    same(store, plain(batch.model, events[:400])[0])
    assert store.totals()["events"] == 400
    assert "duplicates" not in store.totals()


# --- several workers --------------------------------------------------------------------------------------------------


@KINDS
def test_a_worker_that_is_fenced_writes_nothing_and_goes_on_where_the_other_left_off(
    batch: Batch, events: list[Event], seekable: bool
) -> None:
    some, shared = events[:300], store_with(batch.model)
    records = values(some)

    def another() -> None:
        """Somebody claims the partition, reads half of it again and is gone."""
        run(ScriptedSource({"p/0": records[:150]}, [150]), shared, name="two")

    store = UnreliableStore(shared, before={"write": [None, None, another]})
    source = ScriptedSource({"p/0": records}, [20], seekable=seekable)
    run(source, store)
    same(shared, plain(batch.model, some)[0])
    assert shared.totals()["events"] == 300
    if seekable:
        assert ("seek", ("p/0", "150")) in source.log
        assert "duplicates" not in shared.totals()


@pytest.mark.parametrize("fails", [None, "before", "after"])
def test_a_partition_that_is_taken_away_while_a_step_is_written_is_counted_once(
    batch: Batch, events: list[Event], fails: str | None
) -> None:
    some, shared = events[:400], store_with(batch.model)
    parts = by_user(some, 2)

    def moved() -> None:
        source.revoke("p/1")
        others = ScriptedSource({"p/1": parts["p/1"]}, [50])
        run(others, shared, name="two")
        source.acknowledged["p/1"] |= others.acknowledged["p/1"]

    source = ScriptedSource(parts, [20], at={3: moved})
    store = UnreliableStore(shared, {"write": [None, None, fails]})
    run(source, store)
    assert not store.failures["write"]
    same(shared, plain(batch.model, some)[0])
    assert shared.totals()["events"] == 400
    assert "duplicates" not in shared.totals()
    revoked = source.log.index(("revoke", "p/1"))
    assert not [what for name, what in source.log[revoked + 1 :] if name == "seek" and what[0] == "p/1"]


def test_a_source_is_not_told_to_seek_while_it_takes_partitions_away(batch: Batch, events: list[Event]) -> None:
    parts = by_user(events[:200], 2)
    within: list[str] = []

    def moved() -> None:
        before = len(source.log)
        source.revoke("p/1")
        within.extend(name for name, _ in source.log[before:] if name == "seek")
        source.assign("p/1")

    source = ScriptedSource(parts, [20], at={2: moved})
    run(source, UnreliableStore(store := store_with(batch.model), {"write": [None, "before"]}))
    assert within == []
    same(store, plain(batch.model, events[:200])[0])
    assert store.totals()["events"] == 200


@KINDS
def test_a_user_whom_another_worker_changed_meanwhile_is_read_again(
    batch: Batch, events: list[Event], seekable: bool
) -> None:
    """The same users in two partitions: the second worker does all of its part while the first is about to write."""
    some, shared = events[:400], store_with(batch.model)

    def another() -> None:
        run(ScriptedSource({"p/1": values(some[1::2])}, [25]), shared, name="two", lateness_minutes=2_880)

    store = UnreliableStore(shared, before={"write": [None, None, None, another]})
    log: Log = []
    source = ScriptedSource({"p/0": values(some[::2])}, [20], seekable=seekable, log=log)
    run(source, store, lateness_minutes=2_880)
    assert store.conflicts >= 1
    assert "seek" not in dict(log)  # nothing was lost: it is only worked out again
    found = shared.load(sorted({event.user_id for event in some}))
    wanted = plain(batch.model, some)[0]
    assert {user: found[user].events for user in wanted} == {user: state.events for user, state in wanted.items()}
    assert shared.totals()["events"] == 400
    assert "duplicates" not in shared.totals()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalRedis(DataDir(tmp_path_factory.mktemp("redis"))) as running:
        yield running.url


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_two_workers_at_once_count_the_events_of_the_same_users_exactly(
    batch: Batch, kind: str, request: pytest.FixtureRequest
) -> None:
    made: Any = MemoryStore()
    if kind == "redis":
        made = open_store(request.getfixturevalue("redis_url"), f"two-{time.monotonic_ns()}")
    publish(made, batch.model, 1)
    users, queries = [f"u{n}" for n in range(5)], ["wireless headphones", "summer dress", "usb cable"]
    parts = {
        f"p/{part}": [search(user, 2 * n + part, queries[n % 3]) for n in range(80) for user in users]
        for part in range(2)
    }
    stores = [UnreliableStore(made) for _ in parts]
    threads = [
        threading.Thread(target=run, args=(ScriptedSource({name: values(found)}, [10]), store), kwargs={"name": name})
        for store, (name, found) in zip(stores, parts.items(), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    everything = sorted((event for found in parts.values() for event in found), key=lambda event: event.timestamp)
    wanted = plain(batch.model, everything)[0]
    same(made, wanted)
    assert sum(store.conflicts for store in stores) > 0
    assert made.totals()["events"] == 800
    made.close()


# --- models -----------------------------------------------------------------------------------------------------------


def renamed(model: LiveModel, version: str) -> LiveModel:
    """The same clusters by other names."""
    segments = {cluster: f"new {name}" for cluster, name in model.segments.items()}
    return replace(model, version=version, segments=segments)


class Endless(ScriptedSource):
    """A source to which a test adds, read in a thread of its own until it is stopped."""

    def __init__(self, store: Any, **settings: Any) -> None:
        super().__init__({"p/0": []})
        self.worker = Worker(self, store, ScriptedSink(), StreamSettings(**settings), "one", now=lambda: NOW)
        self.thread = threading.Thread(target=self.worker.run)

    def poll(self, most: int, seconds: float) -> Any:
        found = super().poll(most, seconds)
        if not found:
            time.sleep(0.005)
        return found

    def __enter__(self) -> "Endless":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def give(self, *events: Event) -> None:
        """Events, and wait until they are stored."""
        self.records["p/0"] += values(events)
        until(lambda: len(self.acknowledged["p/0"]) == len(self.records["p/0"]))


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.01)


def test_a_new_model_is_taken_up_without_a_restart_and_users_follow_with_their_next_event(batch: Batch) -> None:
    store = store_with(batch.model)
    with Endless(store) as stream:
        stream.give(search("u", 1), search("v", 1))
        before = store.load(["u", "v"])
        until(lambda: store.workers()["one"]["model"] == batch.model.version)
        publish(store, renamed(batch.model, "second"), 2)
        until(lambda: stream.worker.metrics.said()["model"] == "second", 5)
        until(lambda: store.workers()["one"]["model"] == "second", 5)
        assert {user: state.model for user, state in store.load(["u", "v"]).items()} == dict.fromkeys(
            ("u", "v"), batch.model.version
        )
        stream.give(search("u", 2))
        after = store.load(["u", "v"])
    assert after["u"].model == "second"
    assert after["u"].segment == f"new {before['u'].segment}"
    assert after["u"].sessions == 2
    assert (after["v"].model, after["v"].segment) == (batch.model.version, before["v"].segment)
    assert store.sizes() == {before["v"].segment: 1, after["u"].segment: 1}


def test_a_model_that_cannot_be_read_is_said_once_and_passed_by(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "MODEL_SECONDS", 0.02)
    store = store_with(batch.model)
    with caplog.at_level(logging.ERROR), Endless(store) as stream:
        stream.give(search("u", 1))
        store.publish_model(ModelRecord("broken", 2, b"no archive"))
        until(lambda: caplog.records)
        time.sleep(0.2)
        stream.give(search("u", 2))
        assert store.load(["u"])["u"].model == batch.model.version
        (said,) = caplog.records
        assert "model broken cannot be used" in said.message
        store.publish_model(ModelRecord("broken", 3, pack(renamed(batch.model, "broken"))))
        until(lambda: stream.worker.metrics.said()["model"] == "broken", 5)


def test_without_a_model_that_can_be_read_there_is_no_start(batch: Batch) -> None:
    with pytest.raises(NoModelError, match="no model"):
        run(ScriptedSource({"p/0": []}), MemoryStore())
    store = MemoryStore()
    store.publish_model(ModelRecord("broken", 2, b"no archive"))
    with pytest.raises(Exception, match="cannot be read"):
        run(ScriptedSource({"p/0": []}), store)
    with pytest.raises(NoModelError, match="no longer there"):
        run(ScriptedSource({"p/0": []}), Forgetful(store_with(batch.model)))


class Forgetful(UnreliableStore):
    """Knows the name of a model and has lost it."""

    def model(self, version: str) -> None:
        return None


class Away(UnreliableStore):
    """Is not there when it is asked for the model."""

    def current_model(self) -> str:
        raise StoreUnavailable("The store does not answer.", "Wait.")


def test_without_a_store_there_is_no_start_either(batch: Batch) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        run(ScriptedSource({"p/0": []}), Away(MemoryStore()))


# --- clusters that go on learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kmeans", "clustream", "hdbscan"])
def test_clusters_go_on_learning_are_kept_and_begin_anew_with_another_model(
    batch: Batch, events: list[Event], method: str
) -> None:
    store = store_with(batch.model)
    online = {"online": OnlineSettings(method=method)}

    def kept() -> dict[str, dict[str, Any]]:
        found = {}
        for version in (batch.model.version, "second"):
            data = store.kept(f"online:segments:one:{method}:{version}")
            if data is not None:
                with np.load(io.BytesIO(data)) as arrays:
                    found[version] = dict(arrays)
        return found

    some = events[:900]
    first = run(ScriptedSource({"p/0": values(some[:500])}, [100]), store, **online)
    learnt = kept()
    assert learnt.keys() == {batch.model.version}
    assert first._learner is not None
    assert _same(learnt[batch.model.version], first._learner.clusters.clusterer.snapshot())

    again = run(ScriptedSource({"p/0": values(some[:500])}, [100]), store, **online)  # nothing new: as it was left
    assert again._learner is not None
    assert _same(learnt[batch.model.version], again._learner.clusters.clusterer.snapshot())

    run(ScriptedSource({"p/0": values(some)}, [100]), store, **online)
    assert not _same(learnt[batch.model.version], kept()[batch.model.version])
    same(store, plain(batch.model, some)[0])  # segments are those of queries, whatever is learnt
    clusters = {state.cluster for state in store.load(sorted({event.user_id for event in some})).values()}
    assert clusters - {-1}

    before = kept()
    publish(store, renamed(batch.model, "second"), 2)
    anew = run(ScriptedSource({"p/0": values(some)}, [100]), store, **online)
    assert anew._learner is not None
    assert kept().keys() == {batch.model.version, "second"}
    assert _same(kept()[batch.model.version], before[batch.model.version])
    assert not _same(kept()["second"], before[batch.model.version])


def test_clusters_that_cannot_be_read_again_begin_anew(batch: Batch, events: list[Event]) -> None:
    store = store_with(batch.model)
    store.keep(f"online:segments:one:kmeans:{batch.model.version}", b"no arrays")
    online = OnlineSettings(method="kmeans")
    worker = run(ScriptedSource({"p/0": values(events[:100])}, [50]), store, online=online)
    assert worker._learner is not None
    same(store, plain(batch.model, events[:100])[0])


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f") for name in one
    )


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached_users", [0, 1])
def test_hardly_a_user_in_memory_changes_nothing(batch: Batch, events: list[Event], cached_users: int) -> None:
    store = UnreliableStore(store_with(batch.model))
    worker = run(ScriptedSource(by_user(events[:1_500], 2), [40]), store, cached_users=cached_users)
    same(store, plain(batch.model, events[:1_500])[0])
    assert store.conflicts == 0
    assert len(worker._cache) <= 80


def test_a_user_without_events_for_long_is_forgotten_and_begins_anew(batch: Batch) -> None:
    store = store_with(batch.model)
    with Endless(store, state_days=1 / 86_400) as stream:
        stream.give(search("u", 1), search("v", 1))
        time.sleep(1.1)
        assert store.load(["u", "v"]) == {}
        stream.give(search("u", 2))  # of whom the worker still has the old state
        found = store.load(["u", "v"])
    assert found.keys() == {"u"}
    assert (found["u"].sessions, found["u"].sequence) == (1, 1)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_to_stop_finishes_the_step_under_way(batch: Batch, events: list[Event]) -> None:
    store, begun, go_on = store_with(batch.model), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(30)

    source = ScriptedSource({"p/0": values(events[:60])}, [20])
    slowed = UnreliableStore(store, before={"write": [slow]})
    worker = Worker(source, slowed, ScriptedSink(), StreamSettings(), "one", now=lambda: NOW)
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert begun.wait(30)
    worker.stop()
    go_on.set()
    thread.join(30)
    assert source.closed
    done = store.totals()["events"]
    assert done in (20, 40)  # the one that was being written, and perhaps the one that was worked out meanwhile
    assert max(source.acknowledged["p/0"]) == done - 1
    run(ScriptedSource({"p/0": values(events[:60])}, [20]), store)
    same(store, plain(batch.model, events[:60])[0])
    assert store.totals()["events"] == 60


@KINDS
def test_to_stop_ends_a_worker_that_is_held_and_the_next_one_does_what_was_not_done(
    batch: Batch, events: list[Event], seekable: bool
) -> None:
    shared = store_with(batch.model)
    source = ScriptedSource({"p/0": values(events[:60])}, [20], seekable=seekable)
    store = UnreliableStore(shared, {"write": [None, *["before"] * 100_000]})
    worker = Worker(source, store, ScriptedSink(), StreamSettings(), "one", now=lambda: NOW)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: store.calls["write"] > 10)
    worker.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert shared.totals()["events"] == 20
    run(source.restarted(sizes=[20]), shared)
    same(shared, plain(batch.model, events[:60])[0])
    assert shared.totals()["events"] == 60


# --- by chance --------------------------------------------------------------------------------------------------------

OUTCOMES = st.lists(st.sampled_from([None, None, "before", "after"]), max_size=6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    parts=st.integers(1, 3),
    seekable=st.booleans(),
    cached_users=st.sampled_from([0, 1, 5, 1_000]),
    writes=OUTCOMES,
    loads=OUTCOMES,
    claims=OUTCOMES,
    sends=OUTCOMES,
    bad=st.sets(st.integers(0, 119), max_size=6),
)
def test_whatever_is_polled_and_fails_the_end_is_that_of_a_plain_pass(
    batch: Batch,
    events: list[Event],
    sizes: list[int],
    parts: int,
    seekable: bool,
    cached_users: int,
    writes: list[str | None],
    loads: list[str | None],
    claims: list[str | None],
    sends: list[str | None],
    bad: set[int],
) -> None:
    some = events[2_000:2_120]
    divided = by_user(some, parts)
    for number in bad:
        found = divided[f"p/{number % parts}"]
        found.insert(number % (len(found) + 1), b"bad %d" % number)
    store = UnreliableStore(store_with(batch.model), {"write": writes, "load": loads, "claim": claims})
    sink = ScriptedSink(sends)
    source = ScriptedSource(divided, sizes, seekable=seekable)
    run(source, store, sink, cached_users=cached_users)
    assert source.left() == 0
    same(store.inner, plain(batch.model, some)[0])
    totals = store.totals()
    assert totals["events"] == len(some)
    assert {value for _, value, _ in sink.sent[DEAD]} == {b"bad %d" % number for number in bad}
    if seekable:
        assert totals.get("dead", 0) == len(bad)
        assert "duplicates" not in totals
