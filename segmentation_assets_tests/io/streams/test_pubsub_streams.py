"""Pub/Sub: Google's own client against a server made of its own messages, for its emulator needs Java and a download.

What this shows: the calls the adapter makes, and what it makes of answers and errors. What it does not: the service.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

grpc = pytest.importorskip("grpc")
pubsub_v1 = pytest.importorskip("google.cloud.pubsub_v1")

from google.protobuf import empty_pb2  # noqa: E402
from google.pubsub_v1 import types  # noqa: E402 - after it is known to be there

from segmentation_assets.io.streams.base import SinkUnavailable, SourceUnavailable  # noqa: E402
from segmentation_assets.io.streams.pubsub import PubsubSink, PubsubSource  # noqa: E402

SUBSCRIPTION = "projects/shop/subscriptions/events"
TOPIC = "projects/shop/topics/events"


class Service:
    """One topic with one subscription; ``fails`` is a status that the next calls end with."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()
        self.given: dict[str, Any] = {}
        self.fails: Any = None
        self.count = 0

    def publish(self, request: Any, context: Any) -> Any:
        self._fail(context)
        if request.topic != TOPIC:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such topic")
        ids = []
        for message in request.messages:
            self.count += 1
            message.publish_time = {"seconds": 1_763_000_000}
            self.waiting.append(message)
            ids.append(str(self.count))
        return types.PublishResponse(message_ids=ids)

    def pull(self, request: Any, context: Any) -> Any:
        self._fail(context)
        if request.subscription != SUBSCRIPTION:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such subscription")
        if not self.waiting:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "nothing came")
        answer = []
        while self.waiting and len(answer) < request.max_messages:
            self.count += 1
            own = f"ack-{self.count}"
            self.given[own] = self.waiting.popleft()
            answer.append(types.ReceivedMessage(ack_id=own, message=self.given[own]))
        return types.PullResponse(received_messages=answer)

    def acknowledge(self, request: Any, context: Any) -> Any:
        self._fail(context)
        for own in request.ack_ids:
            self.given.pop(own)
        return empty_pb2.Empty()

    def _fail(self, context: Any) -> None:
        if self.fails is not None:
            context.abort(self.fails, "as the test wants")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service()

    def handler(call: Any, request: Any) -> Any:
        serialize = lambda answer: type(answer).serialize(answer) if hasattr(type(answer), "serialize") else b""  # noqa: E731
        return grpc.unary_unary_rpc_method_handler(call, request.deserialize, serialize)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "google.pubsub.v1.Subscriber",
                {
                    "Pull": handler(made.pull, types.PullRequest),
                    "Acknowledge": handler(made.acknowledge, types.AcknowledgeRequest),
                },
            ),
            grpc.method_handlers_generic_handler(
                "google.pubsub.v1.Publisher", {"Publish": handler(made.publish, types.PublishRequest)}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    yield made
    server.stop(None)


def some(n: int) -> list[tuple[str | None, bytes, dict[str, str]]]:
    return [(f"user-{i}", str(i).encode(), {"reason": "none"}) for i in range(n)]


def test_what_was_sent_is_read_and_is_gone_once_acknowledged(service: Service) -> None:
    assigned: list[str] = []
    revoked: list[str] = []
    source, sink = PubsubSource(SUBSCRIPTION), PubsubSink()
    source.start(lambda partition: assigned.append(partition), revoked.append)
    assert source.poll(10, 0.1) == []
    sink.send(TOPIC, some(25))
    first, second, third = (source.poll(10, 1)[0] for _ in range(3))
    assert [value for part in (first, second, third) for value in part.values] == [str(i).encode() for i in range(25)]
    assert [position for part in (first, second, third) for position in part.positions] == list(range(1, 26))
    assert (first.partition, first.next, set(first.received)) == ("pubsub/events", None, {1_763_000_000_000})
    source.acknowledge(second)
    assert len(service.given) == 15
    source.acknowledge(first)
    source.acknowledge(third)
    assert not service.given
    source.close()
    sink.close()
    assert assigned == revoked == ["pubsub/events"]


def test_keys_and_headers_are_attributes(service: Service) -> None:
    PubsubSink().send(TOPIC, [("k", b"x", {"reason": "why"}), (None, b"y", {})])
    assert [dict(message.attributes) for message in service.waiting] == [{"reason": "why", "key": "k"}, {}]


def test_a_service_that_is_away_for_a_moment_is_no_error_for_a_source(service: Service) -> None:
    source = PubsubSource(SUBSCRIPTION)
    source.start(lambda _: None, lambda _: None)
    service.fails = grpc.StatusCode.UNAVAILABLE
    assert source.poll(10, 0.1) == []
    service.fails = None
    PubsubSink().send(TOPIC, some(1))
    (records,) = source.poll(10, 1)
    service.fails = grpc.StatusCode.FAILED_PRECONDITION
    source.acknowledge(records)  # comes again later, and is then known
    source.close()


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND"])
def test_what_waiting_does_not_cure_is_one_clear_error(service: Service, code: str) -> None:
    source, sink = PubsubSource(SUBSCRIPTION), PubsubSink(seconds=2)
    source.start(lambda _: None, lambda _: None)
    service.fails = getattr(grpc.StatusCode, code)
    with pytest.raises(SourceUnavailable, match=SUBSCRIPTION):
        source.poll(10, 0.1)
    with pytest.raises(SinkUnavailable, match=TOPIC):
        sink.send(TOPIC, some(1))
    source.close()


def test_without_credentials_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(SourceUnavailable, match="DefaultCredentialsError"):
        PubsubSource(SUBSCRIPTION)
    with pytest.raises(SinkUnavailable, match="DefaultCredentialsError"):
        PubsubSink()
