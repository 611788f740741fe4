"""Writing many documents: batches of ready-made lines, a few requests in flight, only failed items repeated.

What belongs here: the bulk loop and what may be said about an item that was refused. What does not: which documents are
written and what happens to the index afterwards (session_store, publishing).
"""

import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from elasticsearch import ApiError, ConnectionTimeout, Elasticsearch, SSLError
from elasticsearch import ConnectionError as EsConnectionError

from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.elasticsearch import explain, explain_item, redact, shorten

BATCH_DOCUMENTS = 5_000
BATCH_BYTES = 4 * 1024 * 1024
IN_FLIGHT = 2
"""Two requests keep the server busy while the next batch is made; more only queue there."""

_PATIENCE = 10
_BUSY = frozenset({429, 503})
_BUSY_REQUEST = frozenset({429, 502, 503, 504})


class BulkFailed(SegmentsError):
    """Documents were refused for good.

    Attributes:
        counts: refused documents by error type, of the first batch that had any.
        ids: up to ten of their ids, redacted.
    """

    def __init__(self, problem: str, cure: str, counts: Mapping[str, int], ids: Iterable[str]) -> None:
        self.counts = dict(counts)
        self.ids = list(ids)
        super().__init__(problem, cure)


@dataclass(frozen=True)
class Retry:
    """Bounded exponential back-off: ``first``, twice that, ... at most ``cap`` seconds, ``times`` times.

    The default gives a busy cluster a good minute.
    """

    times: int = 9
    first: float = 0.2
    cap: float = 15.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (0 is the first)."""
        return float(min(self.cap, self.first * 2**attempt))


class Batch(Protocol):
    """What goes into one request: for each id its action and source lines."""

    @property
    def superseded(self) -> int:
        """Entries that a later one for the same id replaced."""

    def __len__(self) -> int:
        """Number of ids."""

    def key(self, place: int) -> str:
        """The id at a place."""

    def body(self, places: Sequence[int] | None = None) -> bytes:
        """The lines of some ids, in this order; of all when not given."""

    def clashes(self, other: "Batch") -> bool:
        """Whether an id of this batch is in the other one as well."""

    @property
    def repeatable(self) -> bool:
        """Whether sending what was accepted once more changes nothing, results included."""


@dataclass
class Entries:
    """A batch put together one by one: the last entry for an id wins."""

    lines: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    superseded: int = 0
    repeatable: bool = False  # 'created' would come back as 'updated'

    def add(self, key: str, line: bytes) -> None:
        """Add the lines for an id; an earlier entry for the same id is replaced and counted."""
        earlier = self.lines.pop(key, None)
        if earlier is not None:
            self.superseded += 1
            self.size -= len(earlier)
        self.lines[key] = line
        self.size += len(line)

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def _keys(self) -> list[str]:
        return list(self.lines)

    def key(self, place: int) -> str:
        """See ``Batch``."""
        return self._keys[place]

    def body(self, places: Sequence[int] | None = None) -> bytes:
        """See ``Batch``."""
        if places is None:
            return b"".join(self.lines.values())
        return b"".join(self.lines[self._keys[place]] for place in places)

    def clashes(self, other: Batch) -> bool:
        """See ``Batch``."""
        return isinstance(other, Entries) and not self.lines.keys().isdisjoint(other.lines.keys())


@dataclass(frozen=True)
class Lines:
    """A batch made as a column: documents whose ids are all different, in this batch and from batch to batch.

    Attributes:
        ids: (n,) strings.
        text: (n,) strings, the two lines that index each.
    """

    ids: pa.Array
    text: pa.Array
    superseded: int = 0
    repeatable: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    def key(self, place: int) -> str:
        """See ``Batch``."""
        return str(self.ids[place].as_py())

    def body(self, places: Sequence[int] | None = None) -> bytes:
        """See ``Batch``."""
        text = self.text if places is None else self.text.take(pa.array(places, pa.int64()))
        offsets = np.frombuffer(text.buffers()[1], np.int32, len(text) + 1, text.offset * 4)
        return bytes(memoryview(text.buffers()[2])[offsets[0] : offsets[-1]])

    def clashes(self, other: Batch) -> bool:
        """Never, see above."""
        return False


B = TypeVar("B", bound=Batch)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def iso(moment: datetime) -> str:
    """ISO 8601 with milliseconds, which is what Elasticsearch's ``date`` keeps."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode


def to_json(value: object) -> bytes:
    """Compact JSON; a datetime becomes ISO text. NaN and lone surrogates are refused with ValueError."""
    return _encode(value).encode()


def index_line(key: str, document: bytes) -> bytes:
    """The lines that index a document under an id, replacing what is there."""
    return b'{"index":{"_id":%b}}\n%b\n' % (to_json(key), document)


def update_line(key: str, document: bytes) -> bytes:
    """The lines that index a document unless exactly that is there already (the result is then ``noop``)."""
    return b'{"update":{"_id":%b,"retry_on_conflict":3}}\n{"doc":%b,"doc_as_upsert":true}\n' % (to_json(key), document)


def delete_line(key: str) -> bytes:
    """The line that deletes a document."""
    return b'{"delete":{"_id":%b}}\n' % to_json(key)


def in_batches(
    items: Iterable[tuple[str, bytes]], documents: int = BATCH_DOCUMENTS, size: int = BATCH_BYTES
) -> Iterator[Entries]:
    """Gather (id, lines) into batches of at most ``documents`` ids and about ``size`` bytes."""
    batch = Entries()
    for key, line in items:
        batch.add(key, line)
        if len(batch.lines) >= documents or batch.size >= size:
            yield batch
            batch = Entries()
    if batch.lines:
        yield batch


def write(
    client: Elasticsearch,
    index: str,
    batches: Iterable[B],
    *,
    on_batch: Callable[[B, list[str]], None],
    in_flight: int = IN_FLIGHT,
    retry: Retry | None = None,
    missing_ok: bool = False,
) -> None:
    """Send the batches; a batch with an id that is still on its way waits, so for every id the last one given wins.

    When this returns or raises, no request is under way any more.

    Args:
        client: the client.
        index: where to; must exist.
        batches: what to send.
        on_batch: called in the caller's thread after each batch, with one result for each id: created, updated, noop or
            deleted; ``indexed`` where the batch does not ask.
        in_flight: requests at a time; fewer while the cluster is busy (``Pace``).
        retry: how to treat a busy cluster (429, 503, dropped connections).
        missing_ok: a delete of what is not there is no failure.

    Raises:
        BulkFailed: documents were refused for good, or the cluster stayed busy.
        SegmentsError: the cause lies outside the documents: see ``io.elasticsearch``.
    """
    stop = threading.Event()
    pace = Pace(in_flight)
    under_way: deque[tuple[B, Future[list[str]]]] = deque()
    sender = _Sender(client, index, retry or Retry(), stop, missing_ok, pace)

    def collect() -> None:
        batch, future = under_way[0]
        results = future.result()
        under_way.popleft()
        on_batch(batch, results)

    with ThreadPoolExecutor(in_flight, thread_name_prefix="bulk") as pool:
        try:
            for batch in batches:
                while len(under_way) >= pace.allowed or any(batch.clashes(earlier) for earlier, _ in under_way):
                    collect()
                under_way.append((batch, pool.submit(sender.send, batch)))
            while under_way:
                collect()
        except BaseException:
            stop.set()  # wakes whoever waits to try again; leaving the pool then waits for requests under way
            raise


class Pace:
    """How many requests may be under way: half when the cluster says that it is busy, one more after each ten it took.

    The rule by which TCP shares a line (additive increase, multiplicative decrease; Chiu and Jain 1989).

    Args:
        most: requests at a time where nothing holds them up.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._since = 0
        self.allowed = most

    def busy(self) -> None:
        """The cluster refused something because it has too much to do."""
        with self._lock:
            self.allowed, self._since = max(1, self.allowed // 2), 0

    def taken(self) -> None:
        """The cluster took a whole request."""
        with self._lock:
            self._since += 1
            if self._since >= _PATIENCE and self.allowed < self._most:
                self.allowed, self._since = self.allowed + 1, 0


class _Sender:
    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        retry: Retry,
        stop: threading.Event,
        missing_ok: bool,
        pace: Pace,
    ) -> None:
        self._plain_client = client
        # Repeating a request is decided here, where it is known which of its items still need it.
        self._client = client.options(max_retries=0)
        self._index = index
        self._retry = retry
        self._stop = stop
        self._missing_ok = missing_ok
        self._pace = pace

    def send(self, batch: Batch) -> list[str]:
        """Send until every item is done; one result for each id, in order."""
        results = self._send(batch, range(len(batch)))
        return [results[place] for place in range(len(batch))]

    def _send(self, batch: Batch, pending: Sequence[int]) -> dict[int, str]:
        results: dict[int, str] = {}
        for attempt in count():
            again: list[int] = []
            busy: SegmentsError
            try:
                items = self._request(batch, pending)
            except (ApiError, EsConnectionError, ConnectionTimeout) as error:
                if isinstance(error, ApiError) and error.meta.status == 413 and len(pending) > 1:
                    # A proxy in between allows less than Elasticsearch does.
                    half = len(pending) // 2
                    return results | self._send(batch, pending[:half]) | self._send(batch, pending[half:])
                busy = explain(error, self._plain_client, f"write {self._index}")
                if not _worth_repeating(error):
                    raise busy from error
                again = list(pending)
            else:
                again = self._sort_out(batch, pending, items, results)
                busy = BulkFailed(
                    f"The cluster was still too busy for {len(again)} documents for {self._index} "
                    f"after {attempt + 1} attempts.",
                    "Try again when it has less to do.",
                    {"busy": len(again)},
                    [redact(batch.key(place)) for place in again[:10]],
                )
            if not again:
                self._pace.taken()
                return results
            self._pace.busy()
            pending = again
            if attempt >= self._retry.times or self._stop.wait(self._retry.delay(attempt)):
                raise busy
        raise AssertionError("unreachable")

    def _request(self, batch: Batch, pending: Sequence[int]) -> list[dict[str, Any]] | None:
        """The answer for each item; None when all were taken and nobody asks how."""
        everything = len(pending) == len(batch)
        body: Any = batch.body(None if everything else pending)
        if everything and batch.repeatable:
            # One word instead of one for each document. Where it is the bad one, asking again in full tells which.
            brief = self._client.bulk(index=self._index, operations=body, filter_path="errors")
            if brief.get("errors") is False:
                return None
            self._pace.busy()
            self._stop.wait(self._retry.delay(0))
        answer = self._client.bulk(
            index=self._index,
            operations=body,
            filter_path="items.*.status,items.*.result,items.*.error.type,items.*.error.reason",
        )
        items = [next(iter(item.values())) for item in answer.get("items", [])]
        if len(items) != len(pending):
            raise BulkFailed(
                f"The cluster answered for {len(items)} of {len(pending)} documents for {self._index}.",
                "Something between here and the cluster changes requests.",
                {"unanswered": len(pending) - len(items)},
                [],
            )
        return items

    def _sort_out(
        self, batch: Batch, pending: Sequence[int], items: list[dict[str, Any]] | None, results: dict[int, str]
    ) -> list[int]:
        """Note the results and return the places to be sent again; a refusal for good raises."""
        if items is None:
            results.update(dict.fromkeys(pending, "indexed"))
            return []
        again, refused = [], []
        for place, item in zip(pending, items, strict=True):
            status, error = int(item.get("status", 500)), item.get("error", {})
            if status < 300 or (status == 404 and self._missing_ok):
                results[place] = str(item.get("result", ""))
                continue
            outside = explain_item(self._index, status, error)
            if outside is not None:
                raise outside
            if status in _BUSY:
                again.append(place)
            else:
                refused.append(
                    (batch.key(place), str(error.get("type", f"status {status}")), str(error.get("reason", "")))
                )
        if refused:
            raise _refusal(self._index, refused, len(pending))
        return again


def _worth_repeating(error: Exception) -> bool:
    if isinstance(error, ApiError):
        return error.meta.status in _BUSY_REQUEST and "cluster_block_exception" not in str(error.body)
    return not isinstance(error, SSLError)


def _refusal(index: str, refused: list[tuple[str, str, str]], total: int) -> BulkFailed:
    counts = Counter(kind for _, kind, _ in refused)
    ids = [redact(key) for key, _, _ in refused[:10]]
    key, _, reason = refused[0]
    kinds = ", ".join(f"{kind} {n}" for kind, n in counts.most_common())
    return BulkFailed(
        f"{len(refused)} of {total} documents for {index} were refused: {kinds}. "
        f"First reason: {_without_content(reason, key)}. Ids (redacted): {', '.join(ids)}.",
        "The document does not fit the index: compare it with the mapping.",
        counts,
        ids,
    )


def _without_content(reason: str, key: str) -> str:
    """Elasticsearch quotes ids and values in its reasons; both are the users' own affair."""
    text = re.sub(r"(document with id) '.*?'(?=[.\s]|$)", r"\1 [redacted]", reason, flags=re.DOTALL)
    text = re.sub(r"[Pp]review of field's value: '.*'", "value not shown", text, flags=re.DOTALL)
    text = re.sub(r"(For input string:|original bytes|value) [\"'\[].*", r"\1 [redacted]", text, flags=re.DOTALL)
    if len(key) > 2:
        text = text.replace(key, redact(key))
    return shorten(text, 200)
