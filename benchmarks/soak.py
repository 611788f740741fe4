"""Whether a worker's memory stays flat over many events.

python -m benchmarks.soak [--events 10000000] [--users 100000] [--json]

A real Kafka broker, a real Redis, one worker process. A sender tells the events of a generated log again and again,
each time later and to other users, as fast as the worker takes them, but never more than 200,000 ahead, until so many
have been sent. Three times as many users come as the worker keeps in memory (``stream.cached_users``). The worker's
resident memory is read twenty times on the way; *growth* compares the mean of the last quarter with that of the third,
when every cache has long been full.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import psutil

from benchmarks.stream import PARTITIONS, _configure, _start
from segmentation_assets.core.live.events import encode, events_of_session
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import StateStore, open_store
from segmentation_assets.io.streams.kafka import ensure_topic
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import DataDir
from segmentation_assets_tests.batch_side import batch_side

AHEAD = 200_000
READINGS = 20
TOPIC = "soak"


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        events: worked off.
        users: different ones.
        rate: events a second, sender and worker on the same cores.
        megabytes: resident memory of the worker on the way.
        growth: of the last quarter over the third one.
        redis_mb: resident memory of Redis at the end.
    """

    events: int
    users: int
    rate: float
    megabytes: list[int]
    growth: float
    redis_mb: int


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = DataDir(Path(folder))
        with LocalKafka(data) as kafka, LocalRedis(data) as redis:
            found = _soak(data, kafka.url, redis.url, redis.pid, options.events, options.users)
    if options.json:
        json.dump(asdict(found), sys.stdout, indent=1)
        return
    print("| figure | value |\n|---|---|")
    for name, value in asdict(found).items():
        print(f"| {name} | {value} |")


def _soak(data: DataDir, kafka: str, redis: str, redis_pid: int, most: int, users: int) -> Figures:
    from confluent_kafka import Producer

    batch = batch_side(40_000, 4)
    events = sorted((e for d in batch.documents for e in events_of_session(d)), key=lambda event: event.timestamp)
    variants = max(users // len({event.user_id for event in events}), 1)
    span = events[-1].timestamp - events[0].timestamp + 86_400_000
    store = open_store(redis)
    publish(store, batch.model, round(time.time() * 1000))
    del batch
    ensure_topic(kafka, TOPIC, PARTITIONS)
    settings = data.root / "segments.yaml"
    _configure(settings, TOPIC, "model")
    # Each round is a whole span later than the one before, so the last one must not be in the future.
    rounds = most // len(events) + 1
    start = round(time.time() * 1000) - rounds * span - events[0].timestamp
    child = _start(data, kafka, redis, settings)
    try:
        process = psutil.Process(child.pid)
        producer = Producer(
            {
                "bootstrap.servers": kafka,
                "linger.ms": 20,
                "queue.buffering.max.messages": 500_000,
                "enable.idempotence": True,  # what is sent again must not come after what follows
            }
        )
        sent, readings, began = 0, list[int](), time.perf_counter()
        whose = set()
        while sent < most:
            lap, place = divmod(sent, len(events))
            event = events[place]
            own, user, at = event.event_id, event.user_id, event.timestamp
            event.event_id, event.user_id = f"{own}-{lap}", f"{user}-{lap % variants}"
            event.timestamp = at + start + lap * span
            while True:
                try:
                    producer.produce(TOPIC, encode(event), event.user_id)
                    break
                except BufferError:
                    producer.poll(0.05)
            whose.add(event.user_id)
            event.event_id, event.user_id, event.timestamp = own, user, at
            sent += 1
            if sent % 1_000 == 0:
                producer.poll(0)
            if sent % 20_000 == 0:
                while sent - _done(store) > AHEAD:
                    producer.poll(0.1)
            if sent % (most // READINGS) == 0:
                readings.append(process.memory_info().rss // 1_000_000)
                print(f"{sent:,} sent, {readings[-1]} MB", file=sys.stderr)
        producer.flush()
        while _done(store) < most:
            time.sleep(0.2)
        seconds = time.perf_counter() - began
    finally:
        child.terminate()
        child.wait()
    quarter = len(readings) // 4
    growth = fmean(readings[-quarter:]) / fmean(readings[-2 * quarter : -quarter]) - 1
    return Figures(
        sent, len(whose), most / seconds, readings, growth, psutil.Process(redis_pid).memory_info().rss // 1_000_000
    )


def _done(store: StateStore) -> int:
    totals = store.totals()
    return sum(totals.get(name, 0) for name in ("events", "duplicates", "dead"))


if __name__ == "__main__":
    main()
