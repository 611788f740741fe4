"""Amazon Kinesis Data Streams: reading the shards of one stream, telling records on.

What belongs here: what this service needs. What does not: bytes of events (codec), which stream (opening).

One process reads all shards. There is no group that would share them among several: that takes the Kinesis Client
Library and a table of leases. Records that its producer library has packed into one are not unpacked. Credentials,
region and address are those of boto3 (``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, ``AWS_ENDPOINT_URL_KINESIS`` ..).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segmentation_assets.errors import MissingExtraError
from segmentation_assets.io.streams.base import Records, SinkUnavailable, SourceUnavailable, with_headers

READ_SECONDS = 0.2
"""Between two reads of a shard: the service allows five a second."""

SHARDS_SECONDS = 30.0
"""How often it is asked which shards there are."""

_PASSING = ("ProvisionedThroughputExceededException", "LimitExceededException", "InternalFailure", "ServiceUnavailable")
_MOST_READ, _MOST_WRITTEN = 10_000, 500  # records in one call
_CURE = "Check the name of the stream, AWS_REGION and the credentials of AWS in the environment."

_log = logging.getLogger(__name__)


def _client() -> Any:
    try:
        import boto3
    except ImportError:
        raise MissingExtraError("Kinesis", "kinesis") from None
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("kinesis")
    except BotoCoreError as error:  # no region
        raise SourceUnavailable(f"Kinesis cannot be used ({type(error).__name__}).", _CURE) from None


class KinesisSource:
    """Records of one stream. Partitions are named ``stream/<shard>``; a position is the last sequence number read.

    A shard that another was split into, or merged to, is begun when the one before is read to its end.

    Args:
        stream: its name.

    Raises:
        MissingExtraError: the extra [kinesis] is not installed.
        SourceUnavailable: no region is set.
    """

    def __init__(self, stream: str) -> None:
        self._client = _client()
        self._stream = stream
        self._on_assigned: Callable[[str], str | None] = lambda _: None
        self._on_revoked: Callable[[str], None] = lambda _: None
        self._position: dict[str, str | None] = {}  # of shards that are read; None: from the earliest record on
        self._iterator: dict[str, str] = {}
        self._due: dict[str, float] = {}
        self._ended: set[str] = set()
        self._asked = float("-inf")

    def start(self, on_assigned: Callable[[str], str | None], on_revoked: Callable[[str], None]) -> None:
        """Look whether the stream is there.

        Raises:
            SourceUnavailable: it is not, or may not be read.
        """
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._call("describe_stream_summary", StreamName=self._stream)

    def poll(self, most: int, seconds: float) -> list[Records]:
        """Records, at most so many in all, as soon as there are any; nothing after so long.

        Raises:
            SourceUnavailable: the service refuses.
        """
        deadline = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if now - self._asked > SHARDS_SECONDS:
                self._asked = now
                self._find_shards()
            found: list[Records] = []
            left = most
            for shard in sorted(self._position, key=lambda shard: self._due[shard]):
                if left <= 0 or self._due[shard] > time.monotonic():
                    break
                records = self._read(shard, left)
                if records is not None:
                    found.append(records)
                    left -= len(records.values)
            wait = min([deadline, *self._due.values()]) - time.monotonic()
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(max(wait, 0.001))

    def seek(self, partition: str, position: str) -> None:
        """Read on after that record."""
        shard = partition.rpartition("/")[2]
        if shard in self._position or shard in self._ended:
            self._ended.discard(shard)
            self._position[shard] = position
            self._iterator.pop(shard, None)
            self._due.setdefault(shard, 0.0)

    def acknowledge(self, records: Records) -> None:
        """Nothing: the service keeps no positions."""

    def lag(self) -> dict[str, int]:
        """Nothing: the service says how many milliseconds a reader is behind, and not how many records."""
        return {}

    def close(self) -> None:
        """Give all shards up."""
        for shard in list(self._position):
            self._on_revoked(self._name(shard))
        self._position.clear()
        self._client.close()

    def _find_shards(self) -> None:
        shards: list[dict[str, Any]] = []
        request: dict[str, Any] = {"StreamName": self._stream}
        while request:
            answer = self._call("list_shards", **request) or {}
            shards += answer.get("Shards", [])
            request = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        known = {shard["ShardId"] for shard in shards}
        for shard in shards:
            own = shard["ShardId"]
            before = {shard.get("ParentShardId"), shard.get("AdjacentParentShardId")} & known
            if own not in self._position and own not in self._ended and before <= self._ended:
                self._position[own] = self._on_assigned(self._name(own))
                self._due[own] = 0.0

    def _read(self, shard: str, most: int) -> Records | None:
        self._due[shard] = time.monotonic() + READ_SECONDS
        if shard not in self._iterator:
            position = self._position[shard]
            start = (
                {"ShardIteratorType": "TRIM_HORIZON"}
                if position is None
                else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": position}
            )
            answer = self._call("get_shard_iterator", StreamName=self._stream, ShardId=shard, **start)
            if answer is None:
                return None
            self._iterator[shard] = answer["ShardIterator"]
        answer = self._call("get_records", ShardIterator=self._iterator[shard], Limit=min(most, _MOST_READ))
        if answer is None:
            self._iterator.pop(shard)  # it may be too old; the position is what counts
            return None
        records = answer["Records"]
        if answer.get("NextShardIterator"):
            self._iterator[shard] = answer["NextShardIterator"]
        else:  # split or merged: it ends here, and others go on
            for kept in (self._iterator, self._position, self._due):
                kept.pop(shard)
            self._ended.add(shard)
            self._asked = float("-inf")
        if not records:
            return None
        positions = [record["SequenceNumber"] for record in records]
        if shard in self._position:
            self._position[shard] = positions[-1]
        received = [round(record["ApproximateArrivalTimestamp"].timestamp() * 1000) for record in records]
        return Records(self._name(shard), [record["Data"] for record in records], positions, received, positions[-1])

    def _call(self, name: str, **request: Any) -> dict[str, Any] | None:
        """The answer; None where it is worth while to ask again."""
        from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

        try:
            return dict(getattr(self._client, name)(**request))
        except (ConnectionError, HTTPClientError) as error:
            _log.debug("Kinesis: %s", type(error).__name__)
            return None
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in (*_PASSING, "ExpiredIteratorException"):
                return None
            raise SourceUnavailable(f"Kinesis does not give the stream '{self._stream}' ({code}).", _CURE) from None

    def _name(self, shard: str) -> str:
        return f"{self._stream}/{shard}"


class KinesisSink:
    """Records to streams. They have no place for headers: see ``with_headers``.

    Args:
        seconds: how long ``send`` tries.

    Raises:
        MissingExtraError: the extra [kinesis] is not installed.
        SourceUnavailable: no region is set.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self._client = _client()
        self._seconds = seconds

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        """Deliver. The order is kept as long as the service takes all at the first try.

        Raises:
            SinkUnavailable: not delivered in time, or refused. Sending again may deliver some twice.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + self._seconds
        left = [
            {"Data": with_headers(value, headers), "PartitionKey": (key or "-")[:256]}
            for key, value, headers in records
        ]
        while left:
            try:
                answer = self._client.put_records(StreamName=topic, Records=left[:_MOST_WRITTEN])
            except (BotoCoreError, ClientError) as error:
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
                raise SinkUnavailable(f"Kinesis does not take records for '{topic}' ({code}).", _CURE) from None
            refused = [at for at, result in enumerate(answer["Records"]) if result.get("ErrorCode")]
            left = [left[at] for at in refused] + left[_MOST_WRITTEN:]
            if refused:
                if time.monotonic() > deadline:
                    raise SinkUnavailable(f"Kinesis did not take {len(left):,} records for '{topic}'.", _CURE)
                time.sleep(0.1)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
