"""Google Cloud Pub/Sub: reading one subscription, telling records on.

What belongs here: what this service needs. What does not: bytes of events (codec), which subscription (opening).

The service hands a message to any one of the workers that read the subscription, in no particular order, and once more
when it was not acknowledged in time. Credentials, project and address are those of Google's client
(``GOOGLE_APPLICATION_CREDENTIALS``, ``PUBSUB_EMULATOR_HOST``).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segmentation_assets.errors import MissingExtraError
from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable

_MOST_READ = 1_000  # messages in one call, which may have 10 MB
_CURE = "Check the name (projects/<project>/..), and the credentials of Google Cloud in the environment."

_log = logging.getLogger(__name__)


def _library() -> Any:
    try:
        from google.cloud import pubsub_v1
    except ImportError:
        raise MissingExtraError("Pub/Sub", "pubsub") from None
    return pubsub_v1


class PubsubSource:
    """Messages of one subscription.

    The one partition is ``pubsub/<subscription>``; positions count the messages of this process, and say nothing to
    another.

    Args:
        subscription: ``projects/<project>/subscriptions/<name>``.

    Raises:
        MissingExtraError: the extra [pubsub] is not installed.
        SourceUnavailable: there are no credentials.
    """

    def __init__(self, subscription: str) -> None:
        library = _library()
        from google.auth.exceptions import GoogleAuthError

        try:
            self._client: Any = library.SubscriberClient()
        except GoogleAuthError as error:
            raise SourceUnavailable(f"Pub/Sub cannot be used ({type(error).__name__}).", _CURE) from None
        self._subscription = subscription
        self.partition = f"pubsub/{subscription.rpartition('/')[2]}"
        self._on_assigned: Callable[[str], str | None] = lambda _: None
        self._on_revoked: Callable[[str], None] = lambda _: None
        self._announced = False
        self._count = 0
        self._unacknowledged: dict[int, str] = {}

    def start(self, on_assigned: Callable[[str], str | None], on_revoked: Callable[[str], None]) -> None:
        """Nothing is asked before the first poll: to look at a subscription takes more rights than to read it."""
        self._on_assigned, self._on_revoked = on_assigned, on_revoked

    def poll(self, most: int, seconds: float) -> list[Records]:
        """Messages, at most so many, as soon as there are any; nothing after about so long.

        Raises:
            SourceUnavailable: there is no such subscription, or it may not be read.
        """
        from google.api_core import exceptions

        if not self._announced:
            self._on_assigned(self.partition)  # where to begin is the service's to know
            self._announced = True
        request = {"subscription": self._subscription, "max_messages": min(most, _MOST_READ)}
        try:
            # A call that is given up too early may take messages with it, which come again only after a while.
            messages = self._client.pull(request=request, timeout=max(seconds, 1.0), retry=None).received_messages
        except (exceptions.DeadlineExceeded, exceptions.ServerError, exceptions.RetryError) as error:
            _log.debug("Pub/Sub: %s", type(error).__name__)
            return []
        except exceptions.GoogleAPICallError as error:
            raise self._unavailable(error) from None
        if not messages:
            return []
        positions = list(range(self._count + 1, self._count + len(messages) + 1))
        self._count += len(messages)
        self._unacknowledged.update(zip(positions, (message.ack_id for message in messages), strict=True))
        received = [round(message.message.publish_time.timestamp() * 1000) for message in messages]
        return [Records(self.partition, [message.message.data for message in messages], positions, received, None)]

    def seek(self, partition: str, position: str) -> None:
        """Nothing: what is not acknowledged comes again."""

    def acknowledge(self, records: Records) -> None:
        """Tell the service, at once; where that fails the messages come again."""
        from google.api_core import exceptions

        known = [self._unacknowledged.pop(int(position), None) for position in records.positions]
        ack_ids = [own for own in known if own is not None]
        if ack_ids:
            try:
                self._client.acknowledge(request={"subscription": self._subscription, "ack_ids": ack_ids})
            except exceptions.GoogleAPICallError as error:
                _log.debug("Pub/Sub: %s", type(error).__name__)

    def lag(self) -> dict[str, int]:
        """Nothing: the service tells its monitoring, and not the reader."""
        return {}

    def close(self) -> None:
        """Leave."""
        self._client.close()
        if self._announced:
            self._announced = False
            self._on_revoked(self.partition)

    def _unavailable(self, error: Exception) -> SourceUnavailable:
        return SourceUnavailable(f"Pub/Sub does not give '{self._subscription}' ({type(error).__name__}).", _CURE)


class PubsubSink:
    """Records to topics; the key is the attribute ``key``, headers are attributes.

    Args:
        seconds: how long ``send`` tries.

    Raises:
        MissingExtraError: the extra [pubsub] is not installed.
        SinkUnavailable: there are no credentials.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        library = _library()
        from google.auth.exceptions import GoogleAuthError

        try:
            self._client: Any = library.PublisherClient()
        except GoogleAuthError as error:
            raise SinkUnavailable(f"Pub/Sub cannot be used ({type(error).__name__}).", _CURE) from None
        self._seconds = seconds

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        """Deliver to ``projects/<project>/topics/<name>``. Nothing is said about the order in which they are read.

        Raises:
            SinkUnavailable: not delivered in time, or refused. Sending again may deliver some twice.
        """
        from google.api_core import exceptions

        sent = []
        for key, value, headers in records:
            attributes = dict(headers) if key is None else {**dict(headers), "key": key}
            sent.append(self._client.publish(topic, value, retry=None, timeout=self._seconds, **attributes))
        deadline = time.monotonic() + self._seconds
        try:
            for message in sent:
                message.result(max(deadline - time.monotonic(), 0.001))
        except (exceptions.GoogleAPICallError, exceptions.RetryError, TimeoutError) as error:
            raise SinkUnavailable(
                f"Pub/Sub does not take messages for '{topic}' ({type(error).__name__}).", _CURE
            ) from None

    def close(self) -> None:
        """Give the connection back."""
        self._client.stop()
