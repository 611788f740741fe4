"""MQTT, with a real broker."""

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable
from segmentation_assets.io.streams.mqtt import MqttSink, MqttSource
from segmentation_assets.local.mqtt import LocalMqtt
from segmentation_assets.paths import DataDir

PATIENCE = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMqtt]:
    local = LocalMqtt(DataDir(tmp_path_factory.mktemp("mqtt")))
    local.start()
    yield local
    local.stop()


@pytest.fixture(scope="module")
def url(broker: LocalMqtt) -> str:
    return f"mqtt://{broker.address}"


@pytest.fixture
def topic() -> str:
    return f"events/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def sink(url: str) -> Iterator[MqttSink]:
    made = MqttSink(url)
    yield made
    made.close()


def started(url: str, topic: str, client: str, **options: int) -> MqttSource:
    source = MqttSource(url, topic, client, **options)
    source.start(lambda _: None, lambda _: None)
    return source


def leave(source: MqttSource) -> None:
    """Close, and let the broker notice: the one that runs here loses messages to a client that is back at once."""
    source.close()
    time.sleep(1)


def some(n: int, start: int = 0) -> list[tuple[str | None, bytes, dict[str, str]]]:
    return [("user", str(i).encode(), {}) for i in range(start, start + n)]


def numbers(n: int, start: int = 0) -> list[bytes]:
    return [str(i).encode() for i in range(start, start + n)]


def read(source: MqttSource, n: int, *, acknowledge: bool = True) -> list[Records]:
    found: list[Records] = []
    deadline = time.monotonic() + PATIENCE
    while sum(len(records.values) for records in found) < n:
        assert time.monotonic() < deadline, "not all came"
        for records in source.poll(1000, 0.2):
            found.append(records)
            if acknowledge:
                source.acknowledge(records)
    return found


def values(found: list[Records]) -> list[bytes | None]:
    return [value for records in found for value in records.values]


def until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def test_what_was_sent_is_read_in_order(url: str, topic: str, sink: MqttSink) -> None:
    name, before = topic.replace("/", "-"), time.time() * 1000
    source = MqttSource(url, topic, name)
    assigned: list[str] = []
    revoked: list[str] = []
    source.start(lambda partition: assigned.append(partition), revoked.append)
    assert source.poll(10, 0.05) == []
    sink.send(topic, some(300))
    found = read(source, 300)
    source.close()
    assert values(found) == numbers(300)
    assert {records.partition for records in found} == {f"mqtt/{name}"} == {*assigned} == {*revoked}
    assert [position for records in found for position in records.positions] == list(range(1, 301))
    assert all(records.next is None for records in found)
    assert all(before <= at <= time.time() * 1000 + 1 for records in found for at in records.received)


def test_a_poll_gives_at_most_as_many_as_wanted(url: str, topic: str, sink: MqttSink) -> None:
    source = started(url, topic, topic.replace("/", "-"))
    sink.send(topic, some(50))
    until(lambda: sum(source.lag().values()) == 50)
    assert [len(records.values) for records in source.poll(7, 1)] == [7]
    assert sum(source.lag().values()) == 43
    source.close()


def test_what_came_while_a_reader_was_away_waits_for_it(url: str, topic: str, sink: MqttSink) -> None:
    name = topic.replace("/", "-")
    leave(started(url, topic, name))
    sink.send(topic, some(20))
    source = started(url, topic, name)
    assert values(read(source, 20)) == numbers(20)
    source.close()


def test_what_was_not_acknowledged_comes_again_and_nothing_else_does(url: str, topic: str, sink: MqttSink) -> None:
    name = topic.replace("/", "-")
    first = started(url, topic, name)
    sink.send(topic, some(30))
    kept = values(read(first, 30, acknowledge=False))
    assert kept == numbers(30)
    leave(first)
    second = started(url, topic, name)
    assert sorted(values(read(second, 30))) == sorted(numbers(30))  # type: ignore[type-var]
    leave(second)
    third = started(url, topic, name)
    sink.send(topic, some(1, 30))
    assert values(read(third, 1)) == numbers(1, 30)
    third.close()


def test_an_acknowledgement_that_comes_after_the_connection_broke_is_given_to_what_comes_again(
    url: str, topic: str, sink: MqttSink
) -> None:
    source = started(url, topic, topic.replace("/", "-"))
    sink.send(topic, some(5))
    early = read(source, 5, acknowledge=False)
    socket = source._client.socket()
    assert socket is not None
    socket.shutdown(2)  # as a network that fails
    again = read(source, 5, acknowledge=False)
    for records in (*early, *again):
        source.acknowledge(records)
    while twice := source.poll(10, 0.5):
        for records in twice:
            source.acknowledge(records)
    leave(source)
    assert set(values(again)) == set(numbers(5))  # a broker may send one twice
    last = started(url, topic, topic.replace("/", "-"))
    assert last.poll(10, 0.5) == []
    last.close()


def test_no_more_is_held_than_was_allowed_and_nothing_is_lost(url: str, topic: str, sink: MqttSink) -> None:
    source = started(url, topic, topic.replace("/", "-"), buffered=10)
    sink.send(topic, some(200))
    until(lambda: sum(source.lag().values()) == 10)
    assert values(read(source, 200)) == numbers(200)
    source.close()


def test_a_reader_whose_buffer_is_full_can_be_closed(url: str, topic: str, sink: MqttSink) -> None:
    source = started(url, topic, topic.replace("/", "-"), buffered=2)
    sink.send(topic, some(20))
    until(lambda: sum(source.lag().values()) == 2)
    source.close()


def test_bytes_that_are_no_text_come_as_they_are(url: str, topic: str, sink: MqttSink) -> None:
    source = started(url, topic, topic.replace("/", "-"))
    sink.send(topic, [(None, b"\xff\x00", {}), (None, b"", {})])
    assert values(read(source, 2)) == [b"\xff\x00", b""]
    source.close()


def test_a_filter_reads_several_topics(url: str, topic: str, sink: MqttSink) -> None:
    source = started(url, f"{topic}/+", topic.replace("/", "-"))
    for place in ("a", "b"):
        sink.send(f"{topic}/{place}", [(None, place.encode(), {})])
    assert sorted(values(read(source, 2))) == [b"a", b"b"]  # type: ignore[type-var]
    source.close()


def test_a_broker_that_nobody_answers_for_is_one_clear_error_without_the_password() -> None:
    url = "mqtt://shop:hunter2@127.0.0.1:1"
    source = MqttSource(url, "t", "c", first_answer_seconds=0.3)
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:1") as found:
        source.start(lambda _: None, lambda _: None)
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1") as not_sent:
        MqttSink(url, seconds=0.3).send("t", some(1))
    assert "hunter2" not in str(found.value) + str(not_sent.value)


@pytest.mark.parametrize("url", ["http://host", "mqtt://", "host:1883"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="begins with mqtt"):
        MqttSource(url, "t", "c")


def test_a_broker_that_goes_away_and_comes_back_is_no_error(broker: LocalMqtt, url: str, topic: str) -> None:
    source, sink = started(url, topic, topic.replace("/", "-")), MqttSink(url, seconds=3)
    sink.send(topic, some(3))
    read(source, 3)
    broker.stop()
    assert source.poll(10, 0.2) == []
    with pytest.raises(SinkUnavailable):
        sink.send(topic, some(1))
    assert f"mqtt://{broker.start().address}" == url
    until(lambda: source._connected)
    patient = MqttSink(url)
    patient.send(topic, some(2, 10))
    assert set(numbers(2, 10)) <= set(values(read(source, 2)))
    for made in (source, sink, patient):
        made.close()
