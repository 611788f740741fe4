"""Kinesis, with the server of moto."""

import base64
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable
from segmentation_assets.io.streams.kinesis import KinesisSink, KinesisSource

PATIENCE = 60.0


@pytest.fixture(scope="module", autouse=True)
def service() -> Iterator[None]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_KINESIS", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        yield
    server.stop()


@pytest.fixture
def aws() -> Any:
    return boto3.client("kinesis")


@pytest.fixture
def stream(aws: Any) -> str:
    name = f"events-{uuid.uuid4().hex[:8]}"
    aws.create_stream(StreamName=name, ShardCount=2)
    return name


def some(n: int, start: int = 0) -> list[tuple[str | None, bytes, dict[str, str]]]:
    return [(f"user-{i}", str(i).encode(), {}) for i in range(start, start + n)]


def read(source: KinesisSource, n: int) -> list[Records]:
    found: list[Records] = []
    deadline = time.monotonic() + PATIENCE
    while sum(len(records.values) for records in found) < n:
        assert time.monotonic() < deadline, "not all came"
        found += source.poll(1000, 0.3)
    return found


def values(found: list[Records]) -> Counter[bytes | None]:
    return Counter(value for records in found for value in records.values)


def started(stream: str, position_of: Callable[[str], str | None] = lambda _: None) -> KinesisSource:
    source = KinesisSource(stream)
    source.start(position_of, lambda _: None)
    return source


def test_what_was_sent_is_read_from_all_shards(stream: str) -> None:
    before = time.time() * 1000
    KinesisSink().send(stream, some(700))  # more than one call takes
    assigned: list[str] = []
    revoked: list[str] = []
    source = KinesisSource(stream)
    source.start(lambda partition: assigned.append(partition), revoked.append)
    found = read(source, 700)
    source.close()
    assert values(found) == Counter(str(i).encode() for i in range(700))
    assert len({records.partition for records in found}) == 2
    assert {records.partition for records in found} == {*assigned} == {*revoked}
    assert all(records.next == records.positions[-1] for records in found)
    assert all(before - 1000 < at < time.time() * 1000 + 1000 for records in found for at in records.received)


def test_reading_goes_on_where_it_is_told_to(stream: str) -> None:
    sink = KinesisSink()
    sink.send(stream, some(20))
    first = started(stream)
    positions = {records.partition: records.next for records in read(first, 20)}
    first.close()
    sink.send(stream, some(5, 20))
    second = started(stream, positions.get)
    assert values(read(second, 5)) == Counter(str(i).encode() for i in range(20, 25))
    second.close()


def test_seeking_goes_back(stream: str) -> None:
    KinesisSink().send(stream, [("same", str(i).encode(), {}) for i in range(10)])
    source = started(stream)
    (records,) = read(source, 10)
    source.seek(records.partition, str(records.positions[3]))
    assert [value for again in read(source, 6) for value in again.values] == records.values[4:]
    source.close()


def test_a_poll_gives_at_most_as_many_as_wanted_and_nothing_of_an_empty_stream(stream: str) -> None:
    source = started(stream)
    assert source.poll(10, 0.05) == []
    KinesisSink().send(stream, some(40))
    for _ in range(5):
        assert sum(len(records.values) for records in source.poll(6, 0.3)) <= 6
    source.close()


def test_shards_that_follow_a_split_one_are_read_after_it(stream: str, aws: Any) -> None:
    sink = KinesisSink()
    sink.send(stream, some(30))
    shard = aws.list_shards(StreamName=stream)["Shards"][0]
    span = shard["HashKeyRange"]
    middle = (int(span["StartingHashKey"]) + int(span["EndingHashKey"])) // 2
    aws.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
    sink.send(stream, some(30, 30))
    assigned: list[str] = []
    source = started(stream, lambda partition: assigned.append(partition))

    def end_shard(parsed: dict[str, Any], **_: object) -> None:
        # As the service does at the end of a shard that was split; moto gives iterators of it forever.
        where = base64.b64decode(parsed.get("NextShardIterator", "")).decode()
        if shard["ShardId"] in where and not parsed["Records"]:
            del parsed["NextShardIterator"]

    source._client.meta.events.register("after-call.kinesis.GetRecords", end_shard)
    found = read(source, 60)
    for _ in range(5):
        found += source.poll(1000, 0.3)
    source.close()
    assert values(found) == Counter(str(i).encode() for i in range(60))
    assert len(assigned) == len(set(assigned)) == len(aws.list_shards(StreamName=stream)["Shards"])
    parent = assigned.index(f"{stream}/{shard['ShardId']}")
    assert all(assigned.index(child) > parent for child in assigned[2:])


def test_a_stream_that_is_not_there_is_one_clear_error() -> None:
    source = KinesisSource("nowhere")
    with pytest.raises(SourceUnavailable, match=r"nowhere.*ResourceNotFoundException") as found:
        source.start(lambda _: None, lambda _: None)
    with pytest.raises(SinkUnavailable, match="ResourceNotFoundException"):
        KinesisSink().send("nowhere", some(1))
    assert "hunter2" not in str(found.value)


def test_without_a_region_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(SourceUnavailable, match="NoRegionError"):
        KinesisSource("events")
