"""How many events a second one worker takes, and how soon a user's segment can be read.

python -m benchmarks.stream [--events 300000] [--users 20000] [--rate 2000] [--seconds 30] [--online METHOD] [--json]

A real Kafka broker, a real Redis and everything that is measured share this machine's cores. Users of a generated log
with behaviour act: every stored session is told as the events it was made of, in the order of their times. The model is
that of the batch side on the same log.

1. *Throughput*: all events lie in a topic of four partitions; one worker process reads them until none is left. Events
   a second from its first step to its last. Once in the order of their times, where a visit's events stand together
   (*visits*), and once so that about every event of a step is another user's (*spread*), the worst there is. Beside it,
   with the same clients on the same topic, a plain loop: poll one event, decode its JSON, look its query's segment up
   in a dictionary, and count it by one Redis call, HINCRBY. It knows neither duplicates nor late events, keeps no
   behaviour, and loses its place when it dies.
2. *Latency*: an empty topic is filled at a steady rate; every event carries the moment at which it was sent. A reader
   asks Redis for the state of users just sent, again and again, until the event is in it: from produce to readable.
   Percentiles over the probes. The first three seconds are not counted: broker and client have just begun.
"""

import argparse
import json
import math
import multiprocessing as mp
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import psutil

from segmentation_assets.core.live.events import Event, encode, events_of_session
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import open_store
from segmentation_assets.io.streams.kafka import ensure_topic
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import HOME_VARIABLE, DataDir
from segmentation_assets_tests.batch_side import batch_side

PARTITIONS = 4


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        events: in the topic.
        users: of them.
        visits_rate: events a second of the worker, events of a visit together.
        spread_rate: likewise, every event of another user.
        plain_rate: events a second of the plain loop, the mean of before and after.
        visits_ratio: of both.
        spread_ratio: likewise.
        worker_mb: highest resident memory of the worker.
        rate: events a second sent while latency was measured.
        probes: users asked for.
        p50_ms: produce to readable.
        p99_ms: likewise.
    """

    events: int
    users: int
    visits_rate: float
    spread_rate: float
    plain_rate: float
    visits_ratio: float
    spread_ratio: float
    worker_mb: float
    rate: int
    probes: int
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=20_000, help="of the generated log, about")
    parser.add_argument("--rate", type=int, default=2_000, help="events a second while latency is measured")
    parser.add_argument("--seconds", type=int, default=30, help="for which latency is measured; 0: not")
    parser.add_argument("--online", default="model", help="clusters that go on learning")
    parser.add_argument("--plain", type=int, default=30_000, help="events that the plain loop takes, each time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = DataDir(Path(folder))
        with LocalKafka(data) as kafka, LocalRedis(data) as redis:
            found = _measure(data, kafka.url, redis.url, options)
    if options.json:
        json.dump(asdict(found), sys.stdout, indent=1)
        return
    print("| figure | value |\n|---|---|")
    for name, value in asdict(found).items():
        print(f"| {name} | {value:,.1f} |" if isinstance(value, float) else f"| {name} | {value:,} |")


def _measure(data: DataDir, kafka: str, redis: str, options: argparse.Namespace) -> Figures:
    sessions = math.ceil(options.events / 6.7)
    batch = batch_side(sessions, sessions_per_user=max(sessions / options.users, 1))
    store = open_store(redis)
    publish(store, batch.model, round(time.time() * 1000))
    events = sorted(
        (event for document in batch.documents for event in events_of_session(document)),
        key=lambda event: event.timestamp,
    )[: options.events]
    users = len({event.user_id for event in events})
    queries = sorted({event.search_query for event in events if event.search_query})
    clusters, _ = batch.model.queries.predict(queries)
    segments = {query: batch.model.segments[cluster] for query, cluster in zip(queries, clusters.tolist(), strict=True)}
    del batch
    for topic, ordered in (("visits", events), ("spread", _spread(events))):
        ensure_topic(kafka, topic, PARTITIONS)
        _produce(kafka, topic, [(event.user_id, encode(event)) for event in ordered])
    plain = [_plain_loop(kafka, redis, min(options.plain, len(events)), segments, "before")]
    settings = data.root / "segments.yaml"
    rates, peaks = {}, []
    for topic in ("visits", "spread"):
        _configure(settings, topic, options.online)
        _forget(redis)
        said, peak = _worker(data, kafka, redis, settings, until_idle=2.0)
        assert said["applied"] == len(events), said
        rates[topic] = said["events"] / said["seconds_of_work"]
        peaks.append(peak)
    plain.append(_plain_loop(kafka, redis, min(options.plain, len(events)), segments, "after"))
    latencies = np.array([math.nan])
    if options.seconds:
        _configure(settings, "live_events", options.online)
        latencies = _latency(data, kafka, redis, settings, events, options)
    return Figures(
        events=len(events),
        users=users,
        visits_rate=rates["visits"],
        spread_rate=rates["spread"],
        plain_rate=fmean(plain),
        visits_ratio=rates["visits"] / fmean(plain),
        spread_ratio=rates["spread"] / fmean(plain),
        worker_mb=max(peaks),
        rate=options.rate,
        probes=len(latencies),
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
    )


def _spread(events: list[Event]) -> list[Event]:
    """Everybody's first event, then everybody's second one and so on: in a step next to nobody is met twice."""
    met: Counter[str] = Counter()
    placed = []
    for number, event in enumerate(events):
        met[event.user_id] += 1
        placed.append((met[event.user_id], number, event))
    return [event for _, _, event in sorted(placed, key=lambda entry: entry[:2])]


def _configure(settings: Path, topic: str, online: str) -> None:
    settings.write_text(
        f"stream: {{topic: {topic}, group: {topic}, elasticsearch: false, online: {{method: {online}}}}}\n"
    )


def _forget(redis_url: str) -> None:
    """States and positions, not the model: every worker begins with nobody."""
    import redis

    client = redis.Redis.from_url(redis_url)
    for key in client.scan_iter("segments:*", count=10_000):
        if not key.startswith(b"segments:model"):
            client.delete(key)
    client.close()


def _produce(kafka: str, topic: str, records: list[tuple[str, bytes]]) -> None:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
            "enable.idempotence": True,  # what is sent again must not come after what follows
        }
    )
    for key, value in records:
        producer.produce(topic, value, key)
        producer.poll(0)
    producer.flush()


def _plain_loop(kafka: str, redis_url: str, most: int, segments: dict[str, str], group: str) -> float:
    """Events a second of the loop that everybody writes first."""
    import redis
    from confluent_kafka import Consumer

    client = redis.Redis.from_url(redis_url)
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe(["visits"])
    done, began = 0, 0.0
    while done < most:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        if not done:
            began = time.perf_counter()
        event = json.loads(message.value())
        query = event.get("search_query")
        client.hincrby(f"plain:{event['user_id']}", segments[query] if query else event["event_type"], 1)
        done += 1
    rate = done / (time.perf_counter() - began)
    consumer.close()
    client.close()
    return rate


def _worker(data: DataDir, kafka: str, redis: str, settings: Path, until_idle: float) -> tuple[dict[str, Any], float]:
    """What a worker process says at its end, and its highest resident memory in MB."""
    child = _start(data, kafka, redis, settings, "--until-idle", str(until_idle), "--json")
    peak = 0
    process = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.2)
    out, _ = child.communicate()
    assert child.returncode == 0, child.returncode
    said: dict[str, Any] = json.loads(out)
    return said, peak / 1e6


def _start(data: DataDir, kafka: str, redis: str, settings: Path, *more: str) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        HOME_VARIABLE: str(data.root),
        "SEGMENTS_KAFKA": kafka,
        "SEGMENTS_REDIS_URL": redis,
        "SEGMENTS_CONFIG": str(settings),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "segmentation_assets", "stream", "--name", "bench", *more],
        env=environment,
        stdout=subprocess.PIPE,
    )


def _latency(
    data: DataDir, kafka: str, redis: str, settings: Path, events: list[Event], options: argparse.Namespace
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) milliseconds from produce to readable."""
    ensure_topic(kafka, "live_events", PARTITIONS)
    child = _start(data, kafka, redis, settings)
    try:
        store = open_store(redis)
        while not any(said["partitions"] for said in store.workers().values()):
            time.sleep(0.2)
        answers: Any = mp.get_context("spawn").Queue()
        sender = mp.get_context("spawn").Process(
            target=_send_steadily, args=(kafka, redis, events[-20_000:], options.rate, options.seconds, answers)
        )
        sender.start()
        found = answers.get()
        sender.join()
        return np.array(found)
    finally:
        child.terminate()
        child.wait()


def _send_steadily(kafka: str, redis_url: str, events: list[Event], rate: int, seconds: int, answers: Any) -> None:
    """Send, and ask for about every fiftieth event's user until the event is there."""
    import threading

    from confluent_kafka import Producer

    store = open_store(redis_url)
    probes: list[tuple[str, int, float]] = []
    found: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() or probes:
            waiting, probes[:] = list(probes), []
            if not waiting:
                time.sleep(0.0005)
                continue
            states = store.load([user for user, _, _ in waiting])
            now = time.perf_counter()
            for user, at, sent in waiting:
                if user in states and states[user].latest >= at:
                    found.append((now - sent) * 1000)
                elif now - sent < 30:
                    probes.append((user, at, sent))
                else:
                    found.append(math.inf)
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 1})
    began = time.perf_counter()
    for number in range(rate * (seconds + 3)):
        event = events[number % len(events)]
        due = began + number / rate
        while (left := due - time.perf_counter()) > 0:
            producer.poll(0)
            time.sleep(min(left, 0.001))
        at = round(time.time() * 1000)
        sent = Event(f"live{number}", f"{event.user_id}", event.event_type, at, search_query=event.search_query)
        if number % 50 == 0:
            sent.user_id = f"probe{number}"
        producer.produce("live_events", encode(sent), sent.user_id)
        if number % 50 == 0 and number >= 3 * rate:
            probes.append((sent.user_id, at, time.perf_counter()))
    producer.flush()
    over.set()
    watcher.join()
    answers.put(found)


if __name__ == "__main__":
    main()
