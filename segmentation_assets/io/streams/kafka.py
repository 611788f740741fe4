"""Kafka: reading events as one of a group of workers, telling records on, and making a topic.

What belongs here: what this broker needs. What does not: bytes of events (codec), which address and password (opening).

Partitions are handed out in the eager way: at every change of the group all of them are given up and all are given
anew. Who joins or leaves makes the others pause for a moment; in return there is no state in between. Where reading
begins is what ``on_assigned`` says; the offsets that the broker keeps only tell its own tools how far the group is, and
serve where ``on_assigned`` knows nothing.

The broker going away is no error: the client connects again by itself, and records wait until then.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segmentation_assets.errors import MissingExtraError, SegmentsError
from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

COMMIT_SECONDS = 1.0
"""How often the broker is told how far the group is."""

_FIRST_ANSWER_SECONDS = 30.0
_BUFFERED = 100_000  # records that the client fetches ahead, and that wait to be sent

_log = logging.getLogger(__name__)


def _client() -> Any:
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError:
        raise MissingExtraError("Kafka", "stream") from None
    return confluent_kafka


class KafkaSource:
    """Records of one topic, shared with the others of the group.

    Partitions are named ``topic/3``; a position is the offset of the next record. Where that offset is no longer there
    (it was deleted for its age), reading goes on with the earliest one there is, and ``lost_positions`` counts it.

    Args:
        servers: ``host:port``, separated by commas.
        topic: of events. It may come into being later.
        group: of workers.
        config: settings of librdkafka beside these, such as ``security.protocol`` and ``sasl.password``.
        first_answer_seconds: how long ``start`` waits for the broker.
        linger_seconds: how long a poll that has got some records waits for more: a step has a price of its own, and
            a few milliseconds bring as many again.

    Raises:
        MissingExtraError: the extra [stream] is not installed.
        SourceUnavailable: the client does not accept the settings.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        group: str,
        config: Mapping[str, str] | None = None,
        first_answer_seconds: float = _FIRST_ANSWER_SECONDS,
        linger_seconds: float = 0.0,
    ) -> None:
        self._kafka = _client()
        self._linger_seconds = linger_seconds
        self._servers, self._topic = servers, topic
        self._first_answer_seconds = first_answer_seconds
        self._on_assigned: Callable[[str], str | None] = lambda _: None
        self._on_revoked: Callable[[str], None] = lambda _: None
        self._next: dict[int, int] = {}  # partition to the offset of what comes next; may be librdkafka's BEGINNING
        self._new: list[int] = []  # given to us, not yet begun
        self._acknowledged: dict[int, int] = {}
        self._rebalanced = False
        self._fatal: KafkaError | None = None
        self._raised: BaseException | None = None
        self._told_at = 0.0
        self.lost_positions = 0
        settings = {
            "log_level": 3,  # errors; a broker that is away is told of by the worker
            # How quickly another takes over from a worker that was killed. Kafka's default is 45 s.
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 2_000,
            "topic.metadata.refresh.interval.ms": 5_000,  # a topic made later is noticed
            "fetch.min.bytes": 1,
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 10,  # 1 s otherwise, in which a fast reader would run dry
            "queued.min.messages": _BUFFERED,
            "queued.max.messages.kbytes": 65_536,
            "reconnect.backoff.max.ms": 1_000,
            **(config or {}),
            "bootstrap.servers": servers,
            "group.id": group,
            "partition.assignment.strategy": "range,roundrobin",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # so that it is noticed, and counted
            "enable.partition.eof": False,
            "error_cb": self._on_error,
        }
        self._consumer: Consumer = _made(
            lambda: self._kafka.Consumer(settings, logger=_log), settings, SourceUnavailable
        )

    def start(self, on_assigned: Callable[[str], str | None], on_revoked: Callable[[str], None]) -> None:
        """Join the group.

        Raises:
            SourceUnavailable: the broker does not answer, or refuses.
        """
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        try:
            self._consumer.list_topics(self._topic, timeout=self._first_answer_seconds)
        except self._kafka.KafkaException as error:
            raise _unreachable(self._fatal or error.args[0], self._servers, SourceUnavailable) from None
        self._consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)

    def poll(self, most: int, seconds: float) -> list[Records]:
        """Records, at most so many in all, as soon as there are any; nothing after so long.

        Raises:
            SourceUnavailable: the broker refuses.
        """
        self._begin_new()
        self._tell_broker()
        messages = self._consume(most, 0)
        if not messages and seconds > 0 and not self._rebalanced:
            messages = self._consume(1, seconds)
        if messages and len(messages) < most:
            messages += self._consume(most - len(messages), self._linger_seconds)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if self._fatal is not None:
            raise _unreachable(self._fatal, self._servers, SourceUnavailable)
        if self._rebalanced:
            # Some of the records may be of before. What is ours now is read again from where it is to begin.
            self._begin_new()
            return []
        return self._grouped(messages)

    def seek(self, partition: str, position: str) -> None:
        """Read on from there; what was fetched already is dropped."""
        number = self._number(partition)
        if number in self._next:
            self._next[number] = int(position)
            self._assign_all()

    def acknowledge(self, records: Records) -> None:
        """Their effect is stored. The broker is told within about a second, and when partitions are given up."""
        if records.next is not None:
            self._acknowledged[self._number(records.partition)] = int(records.next)

    def lag(self) -> dict[str, int]:
        """Records waiting in each partition, by what the broker said with its latest answer."""
        found = {}
        for number, offset in self._next.items():
            low, high = self._consumer.get_watermark_offsets(self._place(number), cached=True)
            if high >= 0:
                found[self._name(number)] = max(high - max(offset, low), 0)
        return found

    def close(self) -> None:
        """Tell the broker how far everything is, and leave, so that others take over at once."""
        self._consumer.close()
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    # --- reading -----------------------------------------------------------------------------------------------------

    def _consume(self, most: int, seconds: float) -> "list[Message]":
        try:
            return self._consumer.consume(most, seconds)
        except self._kafka.KafkaException as error:
            raise _unreachable(error.args[0], self._servers, SourceUnavailable) from None

    def _grouped(self, messages: "list[Message]") -> list[Records]:
        by_partition: dict[int, tuple[list[bytes | None], list[int], list[int]]] = {}
        lost: list[int] = []
        # The client's types say that any of these may be None, which holds of records that are yet to be sent.
        message: Any
        for message in messages:
            if message.error() is not None:
                lost += self._look_at(message.error(), message.partition())
                continue
            number = message.partition()
            lists = by_partition.get(number)
            if lists is None:
                lists = by_partition[number] = ([], [], [])
            lists[0].append(message.value())
            lists[1].append(message.offset())
            lists[2].append(message.timestamp()[1])
        found = []
        for number, (values, offsets, received) in by_partition.items():
            if number in self._next:
                following = self._next[number] = offsets[-1] + 1
                found.append(Records(self._name(number), values, offsets, received, str(following)))
        if lost:  # after the others have gone on, or they would begin once more
            self._next |= dict.fromkeys(lost, self._kafka.OFFSET_BEGINNING)
            self._assign_all()
        return found

    def _look_at(self, error: "KafkaError", number: int) -> list[int]:
        """The partition, where it is to be begun anew."""
        codes = self._kafka.KafkaError
        if error.code() in (codes.TOPIC_AUTHORIZATION_FAILED, codes.GROUP_AUTHORIZATION_FAILED):
            raise _unreachable(error, self._servers, SourceUnavailable)
        # It can be told twice, of before and after all partitions were assigned anew for the sake of another one.
        beginning = self._kafka.OFFSET_BEGINNING
        if error.code() == codes._AUTO_OFFSET_RESET and self._next.get(number, beginning) != beginning:
            _log.warning("%s: the position is no longer there; reading goes on with the earliest", self._name(number))
            self.lost_positions += 1
            return [number]
        _log.debug("Kafka: %s", error.name())  # a topic that is not there yet, a broker that is away: it comes
        return []

    # --- the group ---------------------------------------------------------------------------------------------------

    def _assign(self, _: "Consumer", partitions: "list[TopicPartition]") -> None:
        # Where to begin is asked outside of this call, which can neither fail nor be tried again.
        self._rebalanced = True
        self._new = [place.partition for place in partitions]
        self._next.clear()
        self._consumer.assign([])

    def _revoke(self, _: "Consumer", partitions: "list[TopicPartition]") -> None:
        self._give_up(partitions)  # what is being written at this moment is acknowledged by it
        self._tell_broker(wait=True)

    def _lose(self, _: "Consumer", partitions: "list[TopicPartition]") -> None:
        self._give_up(partitions)
        for place in partitions:  # others have them by now: how far we are is none of the broker's concern
            self._acknowledged.pop(place.partition, None)

    def _give_up(self, partitions: "list[TopicPartition]") -> None:
        self._rebalanced = True
        for place in partitions:
            begun = self._next.pop(place.partition, None) is not None
            if place.partition in self._new:
                self._new.remove(place.partition)
            if begun:
                try:
                    self._on_revoked(self._name(place.partition))
                except Exception as error:  # noqa: BLE001 - raised by poll or close; here it would be lost
                    self._raised = error

    def _begin_new(self) -> None:
        """Ask where to begin with what was given to us. Whoever fails to say is asked again by the next poll."""
        self._rebalanced = False
        if not self._new:
            return
        unknown = []
        while self._new:
            position = self._on_assigned(self._name(self._new[-1]))
            number = self._new.pop()
            if position is None:
                unknown.append(number)
                self._next[number] = self._kafka.OFFSET_BEGINNING
            else:
                self._next[number] = int(position)
        if unknown:
            with contextlib.suppress(
                self._kafka.KafkaException
            ):  # then from the beginning: known events change nothing
                for place in self._consumer.committed([self._place(number) for number in unknown], timeout=10):
                    if place.offset >= 0:
                        self._next[place.partition] = place.offset
        self._assign_all()

    def _assign_all(self) -> None:
        # Also to seek: unlike seek() it works at any moment, and nothing fetched before comes after it.
        self._consumer.assign([self._place(number, offset) for number, offset in self._next.items()])

    def _tell_broker(self, *, wait: bool = False) -> None:
        now = time.monotonic()
        if not self._acknowledged or (now - self._told_at < COMMIT_SECONDS and not wait):
            return
        self._told_at = now
        offsets = [self._place(number, offset) for number, offset in self._acknowledged.items()]
        self._acknowledged.clear()
        with contextlib.suppress(self._kafka.KafkaException):  # the positions that count are not the broker's
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets)

    def _on_error(self, error: "KafkaError") -> None:
        codes = self._kafka.KafkaError
        if error.fatal() or error.code() in (codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED, codes._SSL):
            self._fatal = error
        else:
            _log.debug("Kafka: %s", error.name())

    def _name(self, number: int) -> str:
        return f"{self._topic}/{number}"

    def _number(self, partition: str) -> int:
        return int(partition.rpartition("/")[2])

    def _place(self, number: int, offset: int | None = None) -> "TopicPartition":
        place: TopicPartition = self._kafka.TopicPartition(self._topic, number)
        if offset is not None:
            place.offset = offset
        return place


class KafkaSink:
    """Records to Kafka, in their order and, as far as one ``send`` goes, each once.

    Args:
        servers: ``host:port``, separated by commas.
        config: settings of librdkafka beside these.
        seconds: how long ``send`` tries.

    Raises:
        MissingExtraError: the extra [stream] is not installed.
        SinkUnavailable: the client does not accept the settings.
    """

    def __init__(self, servers: str, config: Mapping[str, str] | None = None, seconds: float = 30.0) -> None:
        self._kafka = _client()
        self._servers, self._seconds = servers, seconds
        self._settings = {
            "log_level": 3,
            "linger.ms": 2,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.refresh.interval.ms": 5_000,
            "queue.buffering.max.messages": _BUFFERED,
            **(config or {}),
            "bootstrap.servers": servers,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": max(round(seconds * 1000), 1_000),
        }
        self._producer: Producer | None = self._made()

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        """Deliver (key, value, headers) in their order, and come back when the broker has them all.

        Raises:
            SinkUnavailable: not delivered in time, or refused. Sending again may deliver some twice.
        """
        if not records:
            return
        if self._producer is None:
            self._producer = self._made()
        producer, failed, delivered = self._producer, [], 0

        def on_delivery(error: "KafkaError | None", _: "Message") -> None:
            nonlocal delivered
            if error is None:
                delivered += 1
            else:
                failed.append(error)

        deadline = time.monotonic() + self._seconds
        for key, value, headers in records:
            while not failed:
                try:
                    producer.produce(topic, value, key, headers=list(headers.items()) or None, on_delivery=on_delivery)
                    break
                except BufferError:  # a send of more than the client holds at a time
                    if time.monotonic() > deadline:
                        break
                    producer.poll(0.05)
                except self._kafka.KafkaException as error:
                    failed.append(error.args[0])
        while delivered + len(failed) < len(records) and not failed and time.monotonic() < deadline:
            producer.poll(0.05)
        if delivered == len(records):
            return
        # What is left of it must not be delivered later, after what comes next; so the client is given up as well.
        self._producer = None
        producer.purge()
        producer.poll(0)
        if failed:
            raise _unreachable(failed[0], self._servers, SinkUnavailable, topic)
        raise SinkUnavailable(
            f"Kafka at {self._servers} did not take {len(records) - delivered:,} of {len(records):,} records for "
            f"'{topic}' within {self._seconds:g} s.",
            "They can be sent again when it answers.",
        )

    def close(self) -> None:
        """Give the connection back."""
        self._producer = None

    def _made(self) -> "Producer":
        return _made(  # type: ignore[no-any-return]
            lambda: self._kafka.Producer(self._settings, logger=_log), self._settings, SinkUnavailable
        )


def ensure_topic(servers: str, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> int:
    """Make the topic where it is not there, with as many copies as the cluster makes by itself.

    Args:
        servers: ``host:port``, separated by commas.
        topic: its name.
        partitions: of a new one; one that is there stays as it is.
        config: settings of librdkafka beside these.

    Returns:
        How many partitions it has.

    Raises:
        MissingExtraError: the extra [stream] is not installed.
        SinkUnavailable: the broker does not answer, or refuses.
    """
    kafka = _client()
    refused: list[KafkaError] = []

    def on_error(error: "KafkaError") -> None:
        if error.code() in (error._AUTHENTICATION, error._SSL):
            refused.append(error)

    settings = {**(config or {}), "bootstrap.servers": servers, "error_cb": on_error}
    admin = _made(lambda: kafka.admin.AdminClient(settings, logger=_log), settings, SinkUnavailable)
    try:
        known = admin.list_topics(timeout=_FIRST_ANSWER_SECONDS).topics.get(topic)
        if known is not None and known.error is None:
            return len(known.partitions)
        admin.create_topics([kafka.admin.NewTopic(topic, partitions)])[topic].result(_FIRST_ANSWER_SECONDS)
    except kafka.KafkaException as error:
        reason = error.args[0]
        if reason.code() == kafka.KafkaError.TOPIC_ALREADY_EXISTS:  # another did so at the same moment
            return partitions
        raise _unreachable(refused[0] if refused else reason, servers, SinkUnavailable, topic) from None
    return partitions


def _made(make: Callable[[], Any], settings: Mapping[str, Any], kind: type[SegmentsError]) -> Any:
    """A client; where it does not accept its settings, an error that names them and not their values."""
    import confluent_kafka

    try:
        return make()
    except (confluent_kafka.KafkaException, TypeError, ValueError) as error:
        text = str(error)
        names = sorted(name for name in settings if f'"{name}"' in text) or ["one of them"]
        raise kind(
            f"Kafka's client does not accept its settings: {', '.join(names)}.",
            "See the file that SEGMENTS_KAFKA_CONFIG names, and librdkafka's list of settings.",
        ) from None


def _unreachable(
    error: "KafkaError", servers: str, kind: type[SegmentsError], topic: str | None = None
) -> SegmentsError:
    """What the client says of it by name only: its sentences can hold settings."""
    about = f" for '{topic}'" if topic else ""
    return kind(
        f"Kafka at {servers} cannot be used{about} ({error.name()}).",
        "Start one here with `segments services start`, or set SEGMENTS_KAFKA to yours, and SEGMENTS_KAFKA_CONFIG to a "
        "file of its settings where it asks for a password.",
    )
