"""Kafka, with a real broker."""

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from segmentation_assets.cli.replay import replay
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.live.events import events_of_session
from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable
from segmentation_assets.io.streams.codec import decode
from segmentation_assets.io.streams.kafka import KafkaSink, KafkaSource, ensure_topic
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.paths import DataDir

PATIENCE = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    local = LocalKafka(DataDir(tmp_path_factory.mktemp("kafka")))
    local.start()
    yield local
    local.stop()


@pytest.fixture(scope="module")
def servers(broker: LocalKafka) -> str:
    return str(broker.address)


@pytest.fixture
def topic(servers: str) -> str:
    name = f"events-{uuid.uuid4().hex[:8]}"
    assert ensure_topic(servers, name, 3) == 3
    return name


@pytest.fixture
def sink(servers: str) -> Iterator[KafkaSink]:
    made = KafkaSink(servers)
    yield made
    made.close()


class Reader:
    """A source with what became of it; positions are kept in a store of its own, or in one that is shared."""

    def __init__(self, servers: str, topic: str, group: str, positions: dict[str, str] | None = None) -> None:
        self.source = KafkaSource(servers, topic, group)
        self.positions = positions
        self.read: list[tuple[str, int, bytes | None]] = []
        self.assigned: list[str] = []
        self.revoked: list[str] = []
        self.source.start(self._assigned, self.revoked.append)

    def _assigned(self, partition: str) -> str | None:
        self.assigned.append(partition)
        return None if self.positions is None else self.positions.get(partition)

    def poll(self, most: int = 1000, seconds: float = 0.2) -> list[Records]:
        polled = self.source.poll(most, seconds)
        for records in polled:
            places = zip(records.positions, records.values, strict=True)
            self.read += [(records.partition, int(position), value) for position, value in places]
            if self.positions is not None and records.next is not None:
                self.positions[records.partition] = records.next
            self.source.acknowledge(records)
        return polled

    def until(self, wanted: Callable[[], bool]) -> None:
        until(wanted, self.poll)

    def values(self) -> list[bytes | None]:
        return [value for _, _, value in self.read]


def until(wanted: Callable[[], bool], *steps: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to that"
        for step in steps:
            step()


def some(n: int, start: int = 0) -> list[tuple[str | None, bytes, dict[str, str]]]:
    return [(f"user-{i % 7}", str(i).encode(), {}) for i in range(start, start + n)]


def committed(servers: str, topic: str, group: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    try:
        places = consumer.committed([TopicPartition(topic, number) for number in range(3)], timeout=10)
        return {place.partition: place.offset for place in places if place.offset >= 0}
    finally:
        consumer.close()


def test_a_topic_that_is_there_stays_as_it_is(servers: str, topic: str) -> None:
    assert ensure_topic(servers, topic, 9) == 3


def test_what_was_sent_is_read_in_the_order_of_each_key(servers: str, topic: str, sink: KafkaSink) -> None:
    before = time.time() * 1000
    sink.send(topic, some(500))
    reader = Reader(servers, topic, "g1")
    received: list[int] = []
    until(lambda: len(reader.read) >= 500, lambda: received.extend(at for r in reader.poll() for at in r.received))
    reader.source.close()
    assert Counter(reader.values()) == Counter(str(i).encode() for i in range(500))
    by_partition: dict[str, list[int]] = {}
    for partition, position, value in reader.read:
        assert partition.startswith(f"{topic}/")
        by_partition.setdefault(partition, []).append(int(value or b""))
        assert position == len(by_partition[partition]) - 1
    assert all(values == sorted(values) for values in by_partition.values())
    assert all(before - 1000 <= at <= time.time() * 1000 + 1000 for at in received)
    assert sorted(reader.assigned) == sorted(reader.revoked) == [f"{topic}/{number}" for number in range(3)]


def test_a_poll_gives_at_most_as_many_as_wanted(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, some(100))
    reader = Reader(servers, topic, "g1")
    sizes = []
    until(lambda: len(reader.read) >= 100, lambda: sizes.append(sum(len(r.values) for r in reader.poll(9))))
    reader.source.close()
    assert max(sizes) <= 9


def test_a_poll_of_an_empty_topic_gives_nothing(servers: str, topic: str) -> None:
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.assigned) == 3)
    assert reader.poll(10, 0.05) == []
    assert reader.poll(10, 0.0) == []
    reader.source.close()


def test_values_that_are_none_or_no_text_come_as_they_are(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, [("k", b"\xff\x00\xfe", {}), ("k", b"", {})])
    sink._producer.produce(topic, None, "k")  # type: ignore[union-attr]  # a tombstone, which a sink never sends
    sink.send(topic, [("k", b"last", {"reason": "why"})])
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= 4)
    reader.source.close()
    assert reader.values() == [b"\xff\x00\xfe", b"", None, b"last"]


def test_reading_begins_where_it_is_told_to(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, [("k", str(i).encode(), {}) for i in range(20)])
    reader = Reader(servers, topic, "g1", {f"{topic}/{number}": "15" for number in range(3)})
    reader.until(lambda: reader.source.lost_positions == 2 and len(reader.read) >= 5)  # two partitions are empty
    reader.source.close()
    assert reader.values() == [b"15", b"16", b"17", b"18", b"19"]


def test_the_broker_is_told_how_far_the_group_is_and_that_is_where_it_goes_on(
    servers: str, topic: str, sink: KafkaSink
) -> None:
    sink.send(topic, some(90))
    first = Reader(servers, topic, "g1")
    first.until(lambda: len(first.read) >= 90)
    first.source.close()
    assert sum(committed(servers, topic, "g1").values()) == 90
    sink.send(topic, some(10, 90))
    second = Reader(servers, topic, "g1")
    second.until(lambda: len(second.read) >= 10)
    second.source.close()
    assert Counter(second.values()) == Counter(str(i).encode() for i in range(90, 100))


def test_what_was_not_acknowledged_is_not_told_to_the_broker(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, some(50))
    source, read = KafkaSource(servers, topic, "g1"), 0
    source.start(lambda _: None, lambda _: None)

    def poll() -> None:
        nonlocal read
        read += sum(len(records.values) for records in source.poll(100, 0.2))

    until(lambda: read >= 50, poll)
    source.close()
    assert committed(servers, topic, "g1") == {}


def test_seeking_goes_back_and_drops_what_was_fetched(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, [("k", str(i).encode(), {}) for i in range(2000)])
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= 100)
    partition = reader.read[0][0]
    reader.read.clear()
    reader.source.seek(partition, "40")
    reader.until(lambda: len(reader.read) >= 1960)
    reader.source.close()
    assert [position for _, position, _ in reader.read] == list(range(40, 2000))


def test_a_position_that_is_no_longer_there_is_counted_and_reading_goes_on(
    servers: str, topic: str, sink: KafkaSink
) -> None:
    sink.send(topic, [("k", str(i).encode(), {}) for i in range(10)])
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= 10)
    partition = reader.read[0][0]
    reader.read.clear()
    reader.source.seek(partition, "1000000")
    reader.until(lambda: len(reader.read) >= 10)
    reader.source.close()
    assert reader.source.lost_positions == 1
    assert [position for _, position, _ in reader.read] == list(range(10))


def test_a_lost_position_of_one_partition_does_not_take_another_back(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, [("k", str(i).encode(), {}) for i in range(2000)])
    full = Reader(servers, topic, "g1")
    full.until(lambda: len(full.read) >= 1)
    read = full.read[0][0]
    full.source.close()
    wrong = {f"{topic}/{number}": "1000000" for number in range(3)} | {read: "0"}
    source, positions = KafkaSource(servers, topic, "g2"), list[int | str]()
    source.start(wrong.get, lambda _: None)

    def poll() -> None:
        # not as soon as there is any: so that what was lost is told among the records of the other partition
        time.sleep(0.3)
        for records in source.poll(700, 0.1):
            positions.extend(records.positions)

    until(lambda: source.lost_positions == 2 and len(positions) >= 2000, poll)
    poll()
    source.close()
    assert positions == list(range(2000))


def test_what_is_acknowledged_while_partitions_are_given_up_is_told_to_the_broker(
    servers: str, topic: str, sink: KafkaSink
) -> None:
    sink.send(topic, some(50))
    source, read = KafkaSource(servers, topic, "g1"), list[Records]()

    def give_up(_: str) -> None:
        for records in read:
            source.acknowledge(records)

    source.start(lambda _: None, give_up)
    until(
        lambda: sum(len(records.values) for records in read) >= 50,
        lambda: read.extend(source.poll(100, 0.2)),
    )
    source.close()
    assert sum(committed(servers, topic, "g1").values()) == 50


def test_the_lag_is_what_was_not_read_yet(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, some(60))
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= 60)
    assert reader.source.lag() == {f"{topic}/{number}": 0 for number in range(3)}
    partition = reader.read[0][0]
    n = sum(1 for where, _, _ in reader.read if where == partition)
    reader.source.seek(partition, "0")
    assert reader.source.lag()[partition] == n
    reader.source.close()


def test_a_second_worker_takes_partitions_over_and_no_record_is_lost_or_read_twice(
    servers: str, topic: str, sink: KafkaSink
) -> None:
    positions: dict[str, str] = {}
    first = Reader(servers, topic, "g1", positions)
    ended = threading.Event()

    def produce() -> None:
        for start in range(0, 4000, 50):
            sink.send(topic, some(50, start))
        ended.set()

    producer = threading.Thread(target=produce)
    producer.start()
    first.until(lambda: len(first.read) > 200)
    second = Reader(servers, topic, "g1", positions)
    until(lambda: len(second.read) > 50, lambda: first.poll(50), lambda: second.poll(50))
    assert set(first.revoked) == {f"{topic}/{number}" for number in range(3)}
    first.source.close()  # and all go to the second
    until(lambda: ended.is_set() and len(first.read) + len(second.read) >= 4000, second.poll)
    producer.join()
    second.poll(1000, 0.5)
    second.source.close()
    assert Counter(first.values() + second.values()) == Counter(str(i).encode() for i in range(4000))


def test_where_nobody_can_say_where_to_begin_the_next_poll_asks_again(
    servers: str, topic: str, sink: KafkaSink
) -> None:
    sink.send(topic, some(30))
    source, asked, read = KafkaSource(servers, topic, "g1"), 0, 0

    def assigned(_: str) -> str | None:
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise ConnectionError("the store is away")
        return "0"

    source.start(assigned, lambda _: None)

    def poll() -> None:
        nonlocal read
        try:
            read += sum(len(records.values) for records in source.poll(100, 0.2))
        except ConnectionError:
            assert read == 0

    until(lambda: read >= 30, poll)
    source.close()
    assert (asked, read) == (5, 30)


def test_a_topic_may_come_into_being_later(servers: str, sink: KafkaSink) -> None:
    topic = f"later-{uuid.uuid4().hex[:8]}"
    reader = Reader(servers, topic, "g1")
    assert reader.poll(10, 0.3) == []
    sink.send(topic, some(5))
    reader.until(lambda: len(reader.read) >= 5)
    reader.source.close()


def test_more_records_than_the_client_holds_at_a_time_are_all_delivered(servers: str, topic: str) -> None:
    sink = KafkaSink(servers, {"queue.buffering.max.messages": "100"})
    sink.send(topic, some(1000))
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= 1000)
    reader.source.close()
    sink.close()
    assert len(reader.read) == 1000


def test_a_record_that_the_broker_refuses_is_an_error_and_the_next_is_delivered(servers: str, topic: str) -> None:
    sink = KafkaSink(servers, seconds=10)
    with pytest.raises(SinkUnavailable, match="MSG_SIZE_TOO_LARGE"):
        sink.send(topic, [("k", b"x" * 2_000_000, {})])
    sink.send(topic, some(1))
    sink.close()


def test_settings_that_are_not_accepted_are_named_without_their_values() -> None:
    for wrong in ({"sasl.pasword": "hunter2"}, {"security.protocol": "hunter2"}):
        (name,) = wrong
        with pytest.raises(SourceUnavailable, match=name) as source:
            KafkaSource("127.0.0.1:1", "t", "g", wrong)
        with pytest.raises(SinkUnavailable, match=name) as sink:
            KafkaSink("127.0.0.1:1", wrong)
        assert "hunter2" not in str(source.value) + str(sink.value)


def test_a_broker_that_nobody_answers_for_is_one_clear_error() -> None:
    source = KafkaSource("127.0.0.1:1", "t", "g", first_answer_seconds=0.5)
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:1 cannot be used"):
        source.start(lambda _: None, lambda _: None)
    source.close()
    with pytest.raises(SinkUnavailable, match=r"did not take 1 of 1|cannot be used"):
        KafkaSink("127.0.0.1:1", seconds=0.5).send("t", [(None, b"x", {})])


def test_a_broker_that_goes_away_and_comes_back_is_no_error_for_a_source(
    broker: LocalKafka, servers: str, topic: str, sink: KafkaSink
) -> None:
    impatient = KafkaSink(servers, seconds=5.0)  # enough for a busy machine to connect
    impatient.send(topic, some(20))
    reader = Reader(servers, topic, "g1", {})
    reader.until(lambda: len(reader.read) >= 20)
    broker.stop()
    assert reader.poll(10, 0.5) == []
    with pytest.raises(SinkUnavailable):
        impatient.send(topic, some(5, 20))
    assert broker.start().address == servers
    sink.send(topic, some(10, 100))
    until(lambda: {b"100", b"109"} <= set(reader.values()), reader.poll)
    impatient.send(topic, some(1, 200))
    until(lambda: b"200" in reader.values(), reader.poll)
    reader.source.close()
    impatient.close()


def test_dead_letters_keep_their_reason(servers: str, topic: str, sink: KafkaSink) -> None:
    sink.send(topic, [(None, b"bad", {"reason": "price: no number", "größe": "ü"})])
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "h", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(PATIENCE)
    consumer.close()
    assert message is not None
    assert {name: value.decode() for name, value in message.headers() or []} == {
        "reason": "price: no number",
        "größe": "ü",
    }
    assert message.key() is None


@pytest.fixture
def command(servers: str, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("SEGMENTS_KAFKA", servers)
    made = typer.Typer()
    made.command()(replay)
    return made


def test_the_command_sends_a_file_of_sessions(servers: str, command: typer.Typer, tmp_path: Path) -> None:
    sessions = list(generate_sessions(40, 3, datetime(2026, 2, 1, tzinfo=UTC), behaviour=True).documents)
    path, topic = tmp_path / "sessions.ndjson", f"replayed-{uuid.uuid4().hex[:8]}"
    path.write_text("\n".join(map(json.dumps, sessions)))
    done = CliRunner().invoke(command, [str(path), "--topic", topic, "--partitions", "2", "--json"])
    assert done.exit_code == 0, done.stderr
    expected = {event.event_id: event for session in sessions for event in events_of_session(session)}
    assert json.loads(done.stdout)["events"] == len(expected)
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= len(expected))
    reader.source.close()
    assert len(reader.assigned) == 2
    assert {event.event_id: event for value in reader.values() if (event := decode(value, -1))} == expected


def test_the_command_sends_generated_sessions_as_of_now(servers: str, command: typer.Typer) -> None:
    topic, before = f"replayed-{uuid.uuid4().hex[:8]}", time.time() * 1000
    done = CliRunner().invoke(command, ["--generate", "20", "--now", "--topic", topic, "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    reader = Reader(servers, topic, "g1")
    reader.until(lambda: len(reader.read) >= said["events"])
    reader.source.close()
    moments = [event.timestamp for value in reader.values() if (event := decode(value, -1))]
    assert before <= max(moments) <= time.time() * 1000
    assert said["complete"]


@pytest.mark.parametrize(
    "wrong", [["--rate", "1", "--speed", "1"], ["x.csv", "--generate", "5"], ["--to", "pigeon"], ["--rate", "0"]]
)
def test_the_command_refuses_what_cannot_be_meant(command: typer.Typer, wrong: list[str]) -> None:
    assert CliRunner().invoke(command, wrong).exit_code == 2


def test_nothing_of_a_password_is_in_an_error(servers: str) -> None:
    config = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u"}
    source = KafkaSource(servers, "t", "g", {**config, "sasl.password": "hunter2"}, first_answer_seconds=2)
    with pytest.raises(SourceUnavailable) as found:
        source.start(lambda _: None, lambda _: None)
    source.close()
    assert "hunter2" not in json.dumps([found.value.problem, found.value.cure, repr(found.value)])
