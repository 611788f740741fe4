"""What a source of events is, and where events go that are told on.

What belongs here: the contract. What does not: any broker (one file each), bytes of events (codec).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from segmentation_assets.errors import SegmentsError


class SourceUnavailable(SegmentsError):
    """The broker cannot be reached, or refuses."""


class SinkUnavailable(SegmentsError):
    """What was to be told on could not be delivered."""


@dataclass(slots=True)
class Records:
    """Records of one partition, in their order.

    Attributes:
        partition: a name that stays: ``topic/3``.
        values: (n,) bytes; None for a record without a value.
        positions: (n,) where each is, as the source counts: for Kafka the offset.
        received: (n,) when the broker took each, milliseconds; -1 where it does not say.
        next: position to go on from after all of them; None for a source that cannot be read again.
    """

    partition: str
    values: list[bytes | None]
    positions: list[str] | list[int]
    received: list[int]
    next: str | None


class Source(Protocol):
    """Events to read. Used from one thread.

    A source gives every partition that it comes to read to ``on_assigned`` before it gives records of it; the answer is
    where to begin (as ``Records.next``), or None for where the source itself says.
    """

    def start(self, on_assigned: Callable[[str], str | None], on_revoked: Callable[[str], None]) -> None:
        """Begin. The functions are called from within ``poll``."""

    def poll(self, most: int, seconds: float) -> list[Records]:
        """Records, at most so many in all, as soon as there are any; nothing after so long.

        Raises:
            SourceUnavailable: for something that waiting does not cure.
        """

    def seek(self, partition: str, position: str) -> None:
        """Read on from there; a source that cannot does nothing and keeps what is not acknowledged."""

    def acknowledge(self, records: Records) -> None:
        """Their effect is stored. May be told to the broker later, at the latest when closed."""

    def lag(self) -> dict[str, int]:
        """Partition to records waiting, as far as the broker says."""

    def close(self) -> None:
        """Leave, so that others take over at once."""


def with_headers(value: bytes, headers: Mapping[str, str]) -> bytes:
    """What a broker without headers is sent: the value itself where there are none, else JSON of both.

    ``{"headers": {..}, "value": ".."}``, or ``value_base64`` in the place of ``value`` where it is no UTF-8.
    """
    if not headers:
        return value
    try:
        said: dict[str, object] = {"value": value.decode()}
    except UnicodeDecodeError:
        said = {"value_base64": value}  # msgspec writes bytes so
    return msgspec.json.encode({"headers": dict(headers), **said})


class Sink(Protocol):
    """Where records are told on to."""

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        """Deliver (key, value, headers) in their order, and come back when the broker has them all.

        Raises:
            SinkUnavailable: not delivered, or not known to be. Sending again may deliver some twice.
        """

    def close(self) -> None:
        """Give the connection back."""
