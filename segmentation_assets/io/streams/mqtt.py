"""MQTT 3.1.1: reading events with QoS 1, telling records on.

What belongs here: what this protocol needs. What does not: bytes of events (codec), which address (opening).

A broker keeps for a client with a name what came while it was away, and gives again what the client did not
acknowledge; that is all there is of a position, so nothing can be read twice at will. Workers share the events of a
topic where the broker has shared subscriptions: the topic is then ``$share/<group>/<topic>`` and each worker has a name
of its own (of MQTT 5, also in Mosquitto, EMQX, HiveMQ and VerneMQ for 3.1.1 clients; the broker that runs here has
none). Such a broker may give the events of one user to several workers; the store sees to it that none is lost.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from segmentation_assets.errors import MissingExtraError
from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable, with_headers

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
    from paho.mqtt.reasoncodes import ReasonCode

_FIRST_ANSWER_SECONDS = 30.0
_BUFFERED = 20_000  # messages that wait to be polled; then the connection is not read until some were
_IN_FLIGHT = 1_000  # messages sent and not yet acknowledged
_CURE = (
    "Set SEGMENTS_MQTT_URL to mqtt://user:password@host:1883, or mqtts:// for TLS, or `segments services start mqtt`."
)

_log = logging.getLogger(__name__)


def _parsed(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError("the address of an MQTT broker begins with mqtt:// or mqtts:// and names a host")
    return parts


def _place(url: str) -> str:
    """Host and port, for people: the rest may hold a password."""
    parts = _parsed(url)
    return f"{parts.hostname}:{_port(parts)}"


def _port(parts: SplitResult) -> int:
    return parts.port or (8883 if parts.scheme == "mqtts" else 1883)


def _library() -> Any:
    try:
        from paho.mqtt import client
    except ImportError:
        raise MissingExtraError("MQTT", "stream") from None
    return client


def _client(url: str, name: str, *, clean: bool) -> "Client":
    library, parts = _library(), _parsed(url)
    version = library.CallbackAPIVersion.VERSION2
    client: Client = library.Client(version, name, clean_session=clean, manual_ack=not clean)
    if parts.scheme == "mqtts":
        client.tls_set()
    if parts.username is not None:
        client.username_pw_set(unquote(parts.username), unquote(parts.password) if parts.password else None)
    client.reconnect_delay_set(1, 5)
    client.max_inflight_messages_set(_IN_FLIGHT)
    client.connect_async(parts.hostname or "", _port(parts), keepalive=60)
    return client


class MqttSource:
    """Messages of one topic, or of all that a filter such as ``shop/+/events`` matches.

    The one partition is ``mqtt/<client id>``; positions count the messages of this process, and say nothing to another.
    MQTT does not tell when the broker took a message; what is given instead is when it came here.

    Args:
        url: ``mqtt://user:password@host:1883``, or ``mqtts://`` for TLS.
        topic: or filter, or shared subscription.
        client_id: the same at each start, and of no other client: the broker knows by it what was not acknowledged.
        first_answer_seconds: how long ``start`` waits for the broker.
        buffered: messages that are held here at most until they are polled.

    Raises:
        MissingExtraError: the extra [stream] is not installed.
        ValueError: of an address of another kind.
    """

    def __init__(
        self,
        url: str,
        topic: str,
        client_id: str,
        first_answer_seconds: float = _FIRST_ANSWER_SECONDS,
        buffered: int = _BUFFERED,
    ) -> None:
        self.partition = f"mqtt/{client_id}"
        self._where, self._topic = _place(url), topic
        self._first_answer_seconds, self._buffered = first_answer_seconds, buffered
        self._waiting: deque[tuple[int, bytes, int]] = deque()
        self._unacknowledged: dict[int, int] = {}  # position to the broker's number, of this connection
        self._count = 0
        self._connected = self._closed = self._announced = False
        self._subscribed = False
        self._refused: str | None = None
        self._changed = threading.Condition()  # of all above
        self._on_assigned: Callable[[str], str | None] = lambda _: None
        self._on_revoked: Callable[[str], None] = lambda _: None
        self._client = _client(url, client_id, clean=False)
        self._client.on_connect = self._connect
        self._client.on_subscribe = self._subscribe
        self._client.on_disconnect = self._disconnect
        self._client.on_message = self._take

    def start(self, on_assigned: Callable[[str], str | None], on_revoked: Callable[[str], None]) -> None:
        """Connect and subscribe.

        Raises:
            SourceUnavailable: the broker does not answer, or refuses.
        """
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._subscribed or self._refused, self._first_answer_seconds)
            answered = self._subscribed or self._refused
        if not answered:
            self.close()
            raise SourceUnavailable(f"No MQTT broker answers at {self._where}.", _CURE)
        self._check()

    def poll(self, most: int, seconds: float) -> list[Records]:
        """Messages, at most so many, as soon as there are any; nothing after so long.

        Raises:
            SourceUnavailable: the broker refuses.
        """
        if not self._announced:
            self._on_assigned(self.partition)  # where to begin is the broker's to know
            self._announced = True
        self._check()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._refused, seconds)
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._changed.notify_all()
        if not taken:
            return []
        positions, values, received = map(list, zip(*taken, strict=True))
        return [Records(self.partition, values, positions, received, None)]

    def seek(self, partition: str, position: str) -> None:
        """Nothing: what is not acknowledged comes again with the next connection."""

    def acknowledge(self, records: Records) -> None:
        """Tell the broker, at once. What came over an earlier connection comes again, and is then acknowledged."""
        with self._changed:
            for position in records.positions:
                number = self._unacknowledged.pop(int(position), None)
                if number is not None and self._connected:
                    self._client.ack(number, 1)

    def lag(self) -> dict[str, int]:
        """What waits here. What waits at the broker it does not say."""
        return {self.partition: len(self._waiting)}

    def close(self) -> None:
        """Leave. The broker keeps what comes from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._client.disconnect()
        self._client.loop_stop()
        if self._announced:
            self._announced = False
            self._on_revoked(self.partition)

    def _check(self) -> None:
        if self._refused is not None:
            raise SourceUnavailable(f"The MQTT broker at {self._where} refuses: {self._refused}.", _CURE)

    # --- called by the client's own thread ---------------------------------------------------------------------------

    def _connect(self, client: "Client", _userdata: object, _flags: object, reason: "ReasonCode", _: object) -> None:
        with self._changed:
            if reason.is_failure:
                if reason.getName() not in _PASSING:
                    self._refused = reason.getName()
                    self._changed.notify_all()
                return
            self._connected = True
        client.subscribe(self._topic, qos=1)

    def _subscribe(
        self, _client: object, _userdata: object, _mid: int, reasons: "Sequence[ReasonCode]", _: object
    ) -> None:
        with self._changed:
            failed = [reason for reason in reasons if reason.is_failure]
            if failed:
                self._refused = f"no subscription to '{self._topic}'"
            self._subscribed = True
            self._changed.notify_all()

    def _disconnect(self, *_: object) -> None:
        with self._changed:
            # All of it comes again. A late acknowledgement could be taken for one of another message.
            self._connected = False
            self._waiting.clear()
            self._unacknowledged.clear()
            self._changed.notify_all()

    def _take(self, _client: object, _userdata: object, message: "MQTTMessage") -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._buffered or self._closed)
            if self._closed:
                return
            self._count += 1
            if message.qos:
                self._unacknowledged[self._count] = message.mid
            self._waiting.append((self._count, bytes(message.payload), round(time.time() * 1000)))
            self._changed.notify_all()


_PASSING = ("Server unavailable", "Server busy")
"""Refusals that waiting may cure."""


class MqttSink:
    """Records to MQTT with QoS 1, in their order. Keys are left out; for headers see ``with_headers``.

    Args:
        url: see ``MqttSource``.
        seconds: how long ``send`` tries.

    Raises:
        MissingExtraError: the extra [stream] is not installed.
        ValueError: of an address of another kind.
    """

    def __init__(self, url: str, seconds: float = 30.0) -> None:
        _library()  # whether it is there: the connection is made when it is needed
        self._url, self._where, self._seconds = url, _place(url), seconds
        self._client: Client | None = None
        self._connected = threading.Event()
        self._refused: str | None = None

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        """Deliver the values in their order, and come back when the broker has them all.

        Raises:
            SinkUnavailable: not delivered in time, or refused. Sending again may deliver some twice.
        """
        if not records:
            return
        deadline = time.monotonic() + self._seconds
        client = self._opened()
        try:
            if not self._connected.wait(self._seconds) or self._refused is not None:
                raise self._unavailable(len(records))
            sent: deque[MQTTMessageInfo] = deque()
            for _, value, headers in records:
                if len(sent) >= _IN_FLIGHT:
                    self._await(sent.popleft(), deadline, len(records))
                sent.append(client.publish(topic, with_headers(value, headers), qos=1))
            for info in sent:
                self._await(info, deadline, len(records))
        except BaseException:
            self.close()  # what is left of it must not be delivered later, after what comes next
            raise

    def close(self) -> None:
        """Give the connection back."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _opened(self) -> "Client":
        if self._client is None:
            self._refused = None
            self._connected.clear()
            self._client = _client(self._url, "", clean=True)
            self._client.on_connect = self._connect
            self._client.loop_start()
        return self._client

    def _connect(self, _client: object, _userdata: object, _flags: object, reason: "ReasonCode", _: object) -> None:
        self._refused = reason.getName() if reason.is_failure else None
        self._connected.set()

    def _await(self, info: "MQTTMessageInfo", deadline: float, records: int) -> None:
        try:
            info.wait_for_publish(max(deadline - time.monotonic(), 0))
            delivered = info.is_published()
        except (RuntimeError, ValueError):
            delivered = False
        if not delivered:
            raise self._unavailable(records)

    def _unavailable(self, records: int) -> SinkUnavailable:
        why = f"refuses: {self._refused}" if self._refused else f"did not take {records:,} records in time"
        return SinkUnavailable(f"The MQTT broker at {self._where} {why}.", _CURE)
