"""Events over MQTT: a worker is killed twice, and the end is as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segmentation_assets.core.live.events import encode, events_of_session
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import StateStore, open_store
from segmentation_assets.io.streams.mqtt import MqttSink, MqttSource
from segmentation_assets.local.mqtt import LocalMqtt
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import HOME_VARIABLE, DataDir
from segmentation_assets_tests.batch_side import Batch, batch_side

EVENTS = 10_000
SETTINGS = "stream: {source: mqtt, elasticsearch: false, batch_events: 200, lateness_minutes: 2880}\n"
COUNTED = ("events", "sessions", "searches", "views", "clicks", "carts", "impressions", "orders", "spend", "latest")


@pytest.fixture(scope="module")
def many() -> Batch:
    return batch_side(1_600, 6, method="kmeans")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    data = DataDir(tmp_path)
    yield data
    LocalMqtt(data).stop()
    LocalRedis(data).stop()


def worker(data: DataDir, mqtt: str, redis: str) -> "subprocess.Popen[bytes]":
    (data.root / "segments.yaml").write_text(SETTINGS)
    environment = {
        **os.environ,
        HOME_VARIABLE: str(data.root),
        "SEGMENTS_CONFIG": str(data.root / "segments.yaml"),
        "SEGMENTS_MQTT_URL": mqtt,
        "SEGMENTS_REDIS_URL": redis,
    }
    with (data.root / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "segmentation_assets", "stream", "--name", "one"]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def until(holds: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.05)


def applied(store: StateStore) -> int:
    return store.totals().get("events", 0)


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_twice_leaves_every_event_counted_once(many: Batch, data: DataDir) -> None:
    events = [event for document in many.documents for event in events_of_session(document)]
    events = sorted(events, key=lambda event: event.timestamp)[:EVENTS]
    assert len(events) == EVENTS
    mqtt, redis = LocalMqtt(data).start(), LocalRedis(data).start()
    store = open_store(redis.url)
    publish(store, many.model, 1)
    # The broker knows a name once it has been there, and keeps from then on what comes while it is away.
    known = MqttSource(mqtt.url, "user_events", "segments")
    known.start(lambda _: None, lambda _: None)
    known.close()
    time.sleep(1)
    sink, sent = MqttSink(mqtt.url), 0
    rng = random.Random(3)
    bad = {rng.randrange(EVENTS): b"bad %d" % number for number in range(50)}

    def send(to: int) -> None:
        nonlocal sent
        records: list[tuple[str | None, bytes, dict[str, str]]] = []
        for number in range(sent, to):
            if number in bad:
                records.append((None, bad[number], {}))
            records.append((None, encode(events[number]), {}))
        sink.send("user_events", records)
        sent = to

    dead = MqttSource(mqtt.url, "user_events_dead", "dead")
    dead.start(lambda _: None, lambda _: None)
    begun: list[int] = []
    running = worker(data, mqtt.url, redis.url)
    try:
        for until_killed in (3_000, 6_500):
            send(until_killed)
            begun.append(applied(store))
            until(lambda: applied(store) > begun[-1])
            running.send_signal(signal.SIGKILL)
            running.wait()
            time.sleep(1)
            assert applied(store) < until_killed, "it was done before it was killed"
            running = worker(data, mqtt.url, redis.url)
        send(EVENTS)
        until(lambda: applied(store) == EVENTS)
        until(lambda: store.totals().get("dead", 0) >= len(bad))
        running.terminate()
        assert running.wait(60) == 0
        wanted: dict[str, UserState] = {}
        Segmenter(many.model, 2 * 86_400_000, 0.2).process(events, wanted)
        found = store.load(list(wanted))
        for user, state in wanted.items():
            assert [getattr(found[user], name) for name in COUNTED] == [getattr(state, name) for name in COUNTED], user
            assert found[user].interests == state.interests
            assert found[user].segment == state.segment
        assert store.sizes() == dict(Counter(state.segment for state in wanted.values() if state.segment))
        set_aside: set[bytes] = set()

        def all_set_aside() -> bool:
            for records in dead.poll(1_000, 0.1):
                for value in records.values:
                    letter = json.loads(value or b"")
                    assert letter["headers"]["reason"] == "value: no JSON"
                    set_aside.add(letter["value"].encode())
                dead.acknowledge(records)
            return set_aside >= set(bad.values())

        until(all_set_aside, 30)
        assert set_aside == set(bad.values())
    finally:
        running.kill()
        running.wait()
        dead.close()
        sink.close()
        store.close()
