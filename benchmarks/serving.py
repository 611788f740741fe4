"""How soon the API answers while the stream runs beside it.

python -m benchmarks.serving [--rate 500] [--seconds 20] [--stream-rate 2000] [--path segment] [--json]

A real Redis, the server, its client and, unless ``--stream-rate 0``, a real Kafka broker, one worker and a sender share
this machine's cores, each as a process of its own. Requests are for single users, chosen by chance, and are due at
fixed moments (an open loop): one that is late is still counted from the moment at which it was due, so a server that
pauses is not spared the requests that would have come meanwhile (no coordinated omission). Connections are kept; as
many are opened as there are requests under way. How late the client itself sent is told as well: answers cannot be
told quicker.
"""

import argparse
import gc
import json
import math
import multiprocessing as mp
import os
import random
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stream import PARTITIONS, _configure, _start
from segmentation_assets.core.live.events import Event, encode, events_of_session
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import Commit, open_store
from segmentation_assets.io.streams.kafka import ensure_topic
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import HOME_VARIABLE, DataDir
from segmentation_assets_tests.batch_side import batch_side

TOPIC = "live_events"
WARM_SECONDS = 2
WAITED_SECONDS = 10


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        rate: requests a second.
        stream_rate: events a second beside them.
        users: who are asked for.
        requests: sent.
        errors: of these, answered otherwise than by 200, or not at all.
        p50_ms: from the moment a request was due to the last byte of its answer; likewise the others.
        p95_ms: see p50_ms.
        p99_ms: see p50_ms.
        max_ms: see p50_ms.
        late_p99_ms: how late the client itself sent.
        late_max_ms: likewise.
        connections: opened.
        events: that the worker took in all.
    """

    rate: int
    stream_rate: int
    users: int
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float
    late_max_ms: float
    connections: int
    events: int


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="requests a second")
    parser.add_argument("--seconds", type=int, default=20, help="for which is measured")
    parser.add_argument("--stream-rate", type=int, default=2_000, help="events a second; 0: no stream")
    parser.add_argument("--sessions", type=int, default=6_000, help="of the generated log, about")
    parser.add_argument("--path", choices=["segment", "profile"], default="segment", help="what is asked of a user")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = _measure(DataDir(Path(folder)), options)
    if options.json:
        json.dump(asdict(found), sys.stdout, indent=1)
        return
    print("| figure | value |\n|---|---|")
    for name, value in asdict(found).items():
        print(f"| {name} | {value:,.2f} |" if isinstance(value, float) else f"| {name} | {value:,} |")


def _measure(data: DataDir, options: argparse.Namespace) -> Figures:
    with ExitStack() as running:
        redis = running.enter_context(LocalRedis(data)).url
        assert redis is not None
        events, users = _fill(redis, options.sessions)
        spawned = mp.get_context("spawn")
        store = open_store(redis)
        running.callback(store.close)
        if options.stream_rate:
            kafka = running.enter_context(LocalKafka(data)).url
            assert kafka is not None
            ensure_topic(kafka, TOPIC, PARTITIONS)
            settings = data.root / "settings.yaml"
            _configure(settings, TOPIC, "model")
            worker = _start(data, kafka, redis, settings)
            running.callback(_stop, worker)
            while not any(said["partitions"] for said in store.workers().values()):
                assert worker.poll() is None
                time.sleep(0.2)
            lasts = options.seconds + WARM_SECONDS + 5
            sender: Any = spawned.Process(target=_send, args=(kafka, events, options.stream_rate, lasts), daemon=True)
            sender.start()
            running.callback(sender.terminate)
        before = store.totals().get("events", 0)
        port = running.enter_context(_serving(data, redis))
        answers: Any = spawned.Queue()
        paths = [f"/v1/users/{user}/{options.path}" for user in users]
        _run(spawned, port, paths, options.rate, WARM_SECONDS, answers)
        said = _run(spawned, port, paths, options.rate, options.seconds, answers)
        taken = store.totals().get("events", 0) - before
    took, late, errors, connections = said
    return Figures(
        rate=options.rate,
        stream_rate=options.stream_rate,
        users=len(users),
        requests=options.rate * options.seconds,
        errors=errors,
        p50_ms=float(np.percentile(took, 50)),
        p95_ms=float(np.percentile(took, 95)),
        p99_ms=float(np.percentile(took, 99)),
        max_ms=float(np.max(took)),
        late_p99_ms=float(np.percentile(late, 99)),
        late_max_ms=float(np.max(late)),
        connections=connections,
        events=taken,
    )


def _fill(redis: str, sessions: int) -> tuple[list[tuple[str, bytes]], list[str]]:
    """A model and users in the store; gives (user, event) to send on, and whom to ask for."""
    batch = batch_side(sessions, 2)
    store = open_store(redis)
    publish(store, batch.model, round(time.time() * 1000))
    events = sorted(
        (event for document in batch.documents for event in events_of_session(document)),
        key=lambda event: event.timestamp,
    )
    shift = round(time.time() * 1000) - events[-1].timestamp - 1_000
    for event in events:
        event.timestamp += shift
    segmenter, states, claim = Segmenter(batch.model, 3_600_000, 0.2), dict[str, UserState](), store.claim("fill")
    for start in range(0, len(events), 5_000):
        done = segmenter.process(events[start : start + 5_000], states)
        touched = {user: states[user] for user in done.touched}
        store.commit(Commit([(claim, str(start))], touched, done.changes, done.products, {"filled": done.applied}))
    store.close()
    return [(event.user_id, encode(event)) for event in events[-20_000:]], sorted(states)


@contextmanager
def _serving(data: DataDir, redis: str) -> Iterator[int]:
    """The server; gives its port."""
    said = data.root / "serve.log"
    environment = {**os.environ, HOME_VARIABLE: str(data.root), "SEGMENTS_REDIS_URL": redis}
    with said.open("wb") as into:
        command = [sys.executable, "-m", "segmentation_assets", "serve", "--port", "0"]
        server = subprocess.Popen(command, env=environment, stdout=into, stderr=into)
    try:
        while (found := re.search(r"http://127\.0\.0\.1:([0-9]+)/live", said.read_text("utf-8"))) is None:
            assert server.poll() is None, said.read_text("utf-8")
            time.sleep(0.1)
        yield int(found[1])
    finally:
        _stop(server)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    child.communicate()


def _send(kafka: str, events: list[tuple[str, bytes]], rate: int, seconds: int) -> None:
    """Send events, as of now and with ids of their own, at a steady rate."""
    from confluent_kafka import Producer

    from segmentation_assets.io.streams.codec import decode

    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 1})
    known: list[Event] = [
        event for _, value in events if (event := decode(value, round(time.time() * 1000))) is not None
    ]
    began = time.perf_counter()
    for number in range(rate * seconds):
        due = began + number / rate
        while (left := due - time.perf_counter()) > 0:
            producer.poll(0)
            time.sleep(min(left, 0.001))
        event = known[number % len(known)]
        event.event_id, event.timestamp = f"live{number}", round(time.time() * 1000)
        producer.produce(TOPIC, encode(event), event.user_id)
    producer.flush()


_Answer = tuple[list[float], list[float], int, int]


def _run(context: Any, port: int, paths: list[str], rate: int, seconds: int, answers: Any) -> _Answer:
    client = context.Process(target=_ask, args=(port, paths, rate, seconds, answers), daemon=True)
    client.start()
    found: _Answer = answers.get()
    client.join()
    return found


def _ask(port: int, paths: list[str], rate: int, seconds: int, answers: Any) -> None:
    """Ask at fixed moments; gives (milliseconds from due to answered, and to sent, errors, connections)."""
    chance = random.Random(1)
    requests = [
        f"GET {chance.choice(paths)} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode() for _ in range(rate * seconds)
    ]
    took, late, errors, opened = [], [], 0, 0
    idle: list[socket.socket] = []
    busy: dict[socket.socket, tuple[float, bytes]] = {}
    gc.collect()
    gc.disable()
    began = time.perf_counter() + 0.1
    sent = 0
    while sent < len(requests) or busy:
        due = began + sent / rate if sent < len(requests) else math.inf
        now = time.perf_counter()
        if now >= due:
            while idle and select.select([idle[-1]], [], [], 0)[0]:
                idle.pop().close()  # the server has closed it: nobody needed it for a while
            if idle:
                connection = idle.pop()
            else:
                connection = socket.create_connection(("127.0.0.1", port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                opened += 1
            connection.sendall(requests[sent])
            late.append((time.perf_counter() - due) * 1000)
            busy[connection] = (due, b"")
            sent += 1
            continue
        # select, whose time-outs are told in microseconds: those of epoll are whole milliseconds.
        ready, _, _ = select.select(list(busy), [], [], min(due - now, 0.1))
        now = time.perf_counter()
        for connection in ready:
            asked, held = busy[connection]
            part = connection.recv(65_536)
            held += part
            if part and not _whole(held):
                busy[connection] = (asked, held)
                continue
            del busy[connection]
            took.append((now - asked) * 1000)
            errors += not held.startswith(b"HTTP/1.1 200 ")
            if part:
                idle.append(connection)
            else:
                connection.close()
        if sent == len(requests) and now > began + seconds + WAITED_SECONDS:
            took += [math.inf] * len(busy)
            errors += len(busy)
            break
    answers.put((took, late, errors, opened))


def _whole(held: bytes) -> bool:
    head, end, body = held.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


if __name__ == "__main__":
    main()
