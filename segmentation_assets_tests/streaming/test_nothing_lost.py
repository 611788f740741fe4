"""Workers are killed, broker and store go down: nothing is lost, nothing counts twice, every bad event is set aside."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from segmentation_assets.core.live.events import Event, encode, events_of_session
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import StateStore, StoreUnavailable, open_store
from segmentation_assets.io.streams.kafka import ensure_topic
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import HOME_VARIABLE, DataDir
from segmentation_assets_tests.batch_side import Batch, batch_side

SESSIONS = 31_000  # of which a good 200,000 events are made
LATENESS = 3_600_000
SETTINGS = "stream: {elasticsearch: false, batch_events: 3000}\n"

BAD = [
    b"no json",
    b"[]",
    b'{"event_type": "search"}',
    b'{"event_id": "x", "user_id": "u", "event_type": "dance", "timestamp": 1700000000000}',
    b'{"event_id": "x", "user_id": "u", "event_type": "view", "timestamp": "yesterday"}',
    b'{"event_id": "x", "user_id": "u", "event_type": "view", "timestamp": 9999999999999}',
    b'{"event_id": "x", "user_id": "u", "event_type": "view", "timestamp": 1700000000000, "price": -1}',
    b'{"event_id": "x", "user_id": " ", "event_type": "view", "timestamp": 1700000000000}',
    b'{"schema": 2, "event_id": "x", "user_id": "u", "event_type": "view", "timestamp": 1700000000000}',
    b"\xff\xfe",
]


@dataclass
class Offline:
    """What events come to when one after the other is simply added up."""

    latest: int = 0
    seen: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    by_cluster: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    spend: int = 0
    orders: set[str] = field(default_factory=set)

    def add(self, event: Event, clusters: dict[str, int]) -> str:
        """'applied', 'duplicate' or 'late'."""
        if self.seen and event.timestamp < self.latest - LATENESS:
            return "late"
        if event.event_id in self.seen:
            return "duplicate"
        self.seen.add(event.event_id)
        self.latest = max(self.latest, event.timestamp)
        self.counts[event.event_type] += 1
        if event.search_query is not None:
            found = self.by_cluster[clusters[event.search_query]]
            found[0] += 1
            found[1] = max(found[1], event.timestamp)
        if event.event_type == "purchase":
            self.orders.add(event.transaction_id or f"{event.session_id} {event.timestamp}")
            if event.price is not None:
                self.spend += round(event.price * (event.quantity or 1) * 1_000_000)
        return "applied"


@dataclass
class Sent:
    """What goes into the topic, in this order, and what must come of it."""

    records: list[tuple[str, bytes]]
    users: dict[str, Offline]
    expected: Counter[str]
    dead: Counter[bytes]


def shuffled_and_spoilt(batch: Batch) -> Sent:
    """The events of a log with 1% bad, 1% repeated and 1% late ones among them."""
    rng = random.Random(7)
    events = sorted((e for d in batch.documents for e in events_of_session(d)), key=lambda event: event.timestamp)
    assert len(events) >= 200_000
    queries = sorted({event.search_query for event in events if event.search_query is not None})
    clusters = dict(zip(queries, batch.model.queries.predict(queries)[0].tolist(), strict=True))
    order: list[tuple[float, Event | bytes]] = []
    for place, event in enumerate(events):
        chance = rng.random()
        arrives = float(place)
        if chance < 0.005:  # comes a while after others of its time, and may still count
            arrives += rng.random() * 2_000
        order.append((arrives, event))
        if 0.01 < chance < 0.02:
            order.append((arrives + rng.random() * 5_000, event))
        elif 0.02 < chance < 0.03:
            order.append((arrives + 0.5, rng.choice(BAD)))
        elif 0.03 < chance < 0.035:  # certainly too late
            old = Event(f"old{place}", event.user_id, "view", event.timestamp - 2 * LATENESS)
            order.append((arrives + 0.5, old))
    order.sort(key=lambda entry: entry[0])
    users: dict[str, Offline] = defaultdict(Offline)
    expected: Counter[str] = Counter()
    dead: Counter[bytes] = Counter()
    records = []
    for number, (_, what) in enumerate(order):
        if isinstance(what, bytes):
            expected["dead"] += 1
            dead[what] += 1
            records.append((f"bad{number}", what))
            continue
        value = encode(what)
        records.append((what.user_id, value))
        done = users[what.user_id].add(what, clusters)
        expected[done] += 1
        if done == "late":
            dead[value] += 1
    assert min(expected[name] for name in ("dead", "duplicate", "late")) > 1_000
    return Sent(records, users, expected, dead)


class Workers:
    """Processes of ``segments stream``, by name."""

    def __init__(self, data: DataDir, kafka: str, redis: str) -> None:
        self._settings = data.root / "segments.yaml"
        self._settings.write_text(SETTINGS)
        self._environment = {
            **os.environ,
            HOME_VARIABLE: str(data.root),
            "SEGMENTS_CONFIG": str(self._settings),
            "SEGMENTS_KAFKA": kafka,
            "SEGMENTS_REDIS_URL": redis,
        }
        self._log = (data.root / "workers.log").open("ab")
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one."""
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", "segmentation_assets", "stream", "--name", name],
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
        )

    def kill(self, name: str) -> None:
        """As a machine that loses power."""
        self._running[name].send_signal(signal.SIGKILL)
        self._running.pop(name).wait()

    def end(self) -> list[int]:
        """End all of them politely; their exit codes."""
        for process in self._running.values():
            process.terminate()
        codes = [process.wait(60) for process in self._running.values()]
        self._log.close()
        return codes


@pytest.fixture(scope="module")
def batch() -> Batch:
    return batch_side(SESSIONS, 6)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    data = DataDir(tmp_path)
    yield data
    LocalRedis(data).stop()
    LocalKafka(data).stop()


@pytest.mark.timeout(600)
def test_crashes_change_nothing(batch: Batch, data: DataDir) -> None:
    sent = shuffled_and_spoilt(batch)
    kafka, redis = LocalKafka(data).start(), LocalRedis(data).start()
    for topic in ("user_events", "user_events_dead", "segment_changes"):
        ensure_topic(kafka.url, topic, 4)
    store = open_store(redis.url)
    publish(store, batch.model, 1)
    workers = Workers(data, kafka.url, redis.url)
    sending = threading.Thread(target=_send, args=(kafka.url, sent.records, 12_000))
    try:
        workers.start("a")
        workers.start("b")
        sending.start()
        _until(lambda: done(store) > 20_000)
        workers.kill("a")
        workers.start("a")
        _until(lambda: done(store) > 60_000)
        workers.kill("b")
        os.kill(redis.pid, signal.SIGKILL)
        time.sleep(1)
        again = LocalRedis(data).start()
        assert again.url == redis.url
        workers.start("b")
        _until(lambda: done(store) > 100_000)
        os.kill(kafka.pid, signal.SIGKILL)
        time.sleep(1)
        assert LocalKafka(data).start().url == kafka.url
        _until(lambda: done(store) > 130_000)
        workers.kill("a")
        workers.start("a")
        sending.join()
        _until(lambda: done(store) >= len(sent.records), 120)
        _until(lambda: told(store), 60)
        assert workers.end() == [0, 0]
        _compare(store, sent, batch)
        dead = _dead_letters(kafka.url)
        assert dead == set(sent.dead)
        last = {change["user_id"]: change["segment"] for change in _changes(kafka.url)}
        assert last == {user: batch_segment(offline, batch) for user, offline in sent.users.items()}
    finally:
        for name in list(workers._running):
            if workers._running[name].poll() is None:
                workers.kill(name)
        store.close()


def done(store: StateStore) -> int:
    """Records whose effect is stored."""
    try:
        totals = store.totals()
    except StoreUnavailable:
        return -1
    # Late ones are dead letters as well.
    return sum(totals.get(name, 0) for name in ("events", "duplicates", "dead", "other"))


def told(store: StateStore) -> bool:
    """Whether all changes were told on."""
    newest = store.changes(None, 1, newest_first=True)
    return bool(newest) and store.cursor("topic") == newest[0].id


def _compare(store: StateStore, sent: Sent, batch: Batch) -> None:
    totals = store.totals()
    assert totals["events"] == sent.expected["applied"]
    assert totals["duplicates"] == sent.expected["duplicate"]
    assert totals["late"] == sent.expected["late"]
    assert totals["dead"] == sent.expected["dead"] + sent.expected["late"]
    assert totals.get("unreadable_states", 0) == 0
    states = store.load(list(sent.users))
    assert states.keys() == sent.users.keys()
    for user, offline in sent.users.items():
        state = states[user]
        assert state.events == len(offline.seen), user
        assert state.latest == offline.latest
        assert (state.searches, state.views, state.clicks, state.carts, state.impressions) == tuple(
            offline.counts[kind] for kind in ("search", "view", "click", "add_to_cart", "impression")
        )
        assert (state.orders, state.spend) == (len(offline.orders), offline.spend)
        assert state.interests == offline.by_cluster
        assert state.segment == batch_segment(offline, batch)
    sizes = Counter(state.segment for state in states.values())
    assert store.sizes() == dict(sizes)


def batch_segment(offline: Offline, batch: Batch) -> str:
    """The segment with most sessions; a named one before ``other``, then the latest, then by name."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for cluster, (sessions, latest) in offline.by_cluster.items():
        entry = found[batch.model.segments[cluster]]
        entry[0] += sessions
        entry[1] = max(entry[1], latest)
    return min(found, key=lambda name: (-found[name][0], name == "other", -found[name][1], name)) if found else ""


def _send(kafka: str, records: list[tuple[str, bytes]], rate: int) -> None:
    """At a rate, through every failure of the broker, each record once."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "message.timeout.ms": 120_000})
    began = time.monotonic()
    for number, (key, value) in enumerate(records):
        while True:
            try:
                producer.produce("user_events", value, key)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 200 == 0:
            producer.poll(0)
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
    assert producer.flush(120) == 0


def _all_of(kafka: str, topic: str) -> Iterator[Any]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": kafka, "group.id": f"test-{topic}", "enable.auto.commit": False})
    places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(4)]
    left = sum(consumer.get_watermark_offsets(place)[1] for place in places)
    consumer.assign(places)
    while left:
        for message in consumer.consume(1_000, 5.0):
            assert message.error() is None
            left -= 1
            yield message
    consumer.close()


def _dead_letters(kafka: str) -> set[bytes]:
    found = set()
    for message in _all_of(kafka, "user_events_dead"):
        headers = dict(message.headers())
        assert headers["reason"]
        assert headers["partition"].decode().startswith("user_events/")
        found.add(message.value())
    return found


def _changes(kafka: str) -> Iterator[dict[str, Any]]:
    """In the order of their ids: one that was told twice does not count twice."""
    found = {}
    for message in _all_of(kafka, "segment_changes"):
        first, second = dict(message.headers())["id"].decode().split("-")
        found[int(first), int(second)] = json.loads(message.value())
    return (found[key] for key in sorted(found))


def _until(holds: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.05)
