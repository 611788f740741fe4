"""Asking others what they know about users: a file, or a service over HTTP.

What belongs here: getting the answers, politely and within a bound of time, and remembering them. What does not: which
values can be used and who is believed (core.users.attributes), the index of attributes (user_attributes).

Whatever goes wrong with a service costs answers, never users and never the run. Ids of users and the token are in no
error and no line of a log.
"""

import hashlib
import heapq
import json
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import pyarrow as pa
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.exceptions import ProtocolError as BrokenConnection
from urllib3.exceptions import SSLError as RefusedCertificate

from segmentation_assets.core.settings import EnrichmentSettings
from segmentation_assets.core.users.attributes import ATTRIBUTES_SCHEMA, AttributeReason
from segmentation_assets.core.values import usable_id
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.bulk import Retry
from segmentation_assets.io.formats import (
    Row,
    Rows,
    binary,
    cell_rows,
    json_rows,
    ndjson_rows,
    parquet_rows,
    split_cells,
)
from segmentation_assets.io.session_store import Progress

PLACE = "{user_id}"
"""What stands for the id in the address of a service."""

IN_FLIGHT = 8
"""Requests under way at a time, at most."""

GIVE_UP_AFTER = 50
"""Failed requests in a row after which a service counts as down. Users are asked about in no order, so it is not that
one kind of them fails."""

MAX_ANSWER = 1 << 20
"""Bytes of an answer. Attributes take some hundred."""

_FIELDS = tuple(ATTRIBUTES_SCHEMA.names)
_SEPARATORS = ",;\t|"
_SAMPLE = 1 << 16
_BACK_OFF = Retry(first=0.5, cap=30.0)
_REDIRECTS = urllib3.Retry(
    total=None, connect=0, read=0, status=0, other=0, redirect=3, respect_retry_after_header=False
)
_THREAD = "enrichment"


class EnrichmentInvalid(SegmentsError):
    """The settings of the service cannot work."""


class EnrichmentFileInvalid(SegmentsError):
    """The file of attributes cannot be read."""


@dataclass
class Answers:
    """What a source said about the users it was asked about.

    Attributes:
        found: user to record (see ``core.users.attributes.check_attributes``); a record can be of no use.
        failed: user to the reason why there was no answer. What was answered before may be in ``found`` all the same.
        unknown: users of whom the source said that it does not know them.
        outdated: users whose answer, or that they are unknown, is one from before that has expired.
        set_aside: records that are in neither of these, by reason.
        remarks: what else should be known about the source.
    """

    found: dict[str, Mapping[str, object]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    outdated: set[str] = field(default_factory=set)
    set_aside: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)


class Enricher(Protocol):
    """Somebody who knows something about users."""

    @property
    def name(self) -> str:
        """Who that is, for people."""

    def look_up(self, users: Sequence[str], on_progress: Progress | None = None) -> Answers:
        """Ask about users.

        Args:
            users: different ids.
            on_progress: called with how many are done, and of how many where that is known.
        """


# --- a file -----------------------------------------------------------------------------------------------------------


class FileEnricher:
    """A CSV, NDJSON, JSON or Parquet file with a column user_id; text may be compressed with gzip.

    A CSV names its columns in the first line, separated by comma, semicolon, tab or ``|``. What kind of file it is, its
    content tells. Of two rows about a user the later one counts.

    Raises:
        EnrichmentFileInvalid: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise EnrichmentFileInvalid(f"There is no file of attributes {path}.", "Check attributes.enrichment.file.")

    @property
    def name(self) -> str:
        """See ``Enricher``."""
        return f"file {self._path.name}"

    def look_up(self, users: Sequence[str], on_progress: Progress | None = None) -> Answers:
        """Read the file; see ``Enricher``. Rows about others are set aside.

        Raises:
            EnrichmentFileInvalid: it cannot be read to its end, or has no column user_id.
        """
        wanted, answers = frozenset(users), Answers()
        done, named = 0, False
        try:
            for done, (_, row) in enumerate(self._rows(), 1):
                named |= isinstance(row, dict) and "user_id" in row
                _take(row, wanted, answers)
                if on_progress is not None and done % 10_000 == 0:
                    on_progress(done, None)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:  # texts of Arrow quote rows
            why = error.strerror if isinstance(error, OSError) else None
            raise self._invalid(f"cannot be read to its end: {why or 'it is damaged or was cut short'}") from None
        if done and not named:  # without a header the names would be somebody's data: they are not shown
            raise self._invalid("has no column user_id")
        return answers

    def _rows(self) -> Rows:
        with binary(self._path) as stream:
            beginning = stream.read(_SAMPLE)
        if beginning[:4] == b"PAR1":
            return parquet_rows(self._path)
        encoding = "utf-16" if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
        text = beginning.decode(encoding, "replace").removeprefix("\ufeff").lstrip()
        if not text:
            raise self._invalid("is empty")
        if text[0] == "[":
            return json_rows(self._path, encoding)
        if text[0] == "{":
            return ndjson_rows(self._path, encoding)
        head = text.splitlines()[0]
        separator = max(_SEPARATORS, key=lambda each: "user_id" in split_cells(head, each))
        return cell_rows(self._path, encoding, separator, None, quoted=separator != "\t")

    def _invalid(self, problem: str) -> EnrichmentFileInvalid:
        return EnrichmentFileInvalid(
            f"The file of attributes {self._path} {problem}.",
            "It has to be CSV (with the names of the columns in its first line), NDJSON or Parquet, with a column "
            "user_id.",
        )


def _take(row: Row, wanted: frozenset[str], answers: Answers) -> None:
    if isinstance(row, str):
        answers.set_aside[AttributeReason.NOT_AN_OBJECT.value] += 1
        return
    user = usable_id(row.get("user_id"))
    if user is None:
        answers.set_aside[AttributeReason.NO_USER.value] += 1
    elif user not in wanted:
        answers.set_aside[AttributeReason.NOT_IN_SESSIONS.value] += 1
    else:
        answers.set_aside[AttributeReason.DUPLICATE_USER.value] += user in answers.found
        answers.found[user] = row


# --- a service --------------------------------------------------------------------------------------------------------


class _Remembered(NamedTuple):
    record: Mapping[str, object] | None  # None: unknown
    fresh: bool


class _Outcome(NamedTuple):
    """Of one request. Neither a record nor a failure: the user is unknown."""

    record: Mapping[str, object] | None = None
    failure: str = ""
    again: bool = False  # whether it may go better another time
    busy: bool = False  # the service is up and asks for patience
    pause: float | None = None  # seconds for which it does


_TOO_SLOW = "no answer in time"
_OUT_OF_TIME = "not asked: no time left"


class HttpEnricher:
    """A service that is asked about one user at a time: ``GET url``, with the id percent-encoded in it.

    200 with a JSON object is what it knows; 404 or 410 that it does not know the user. Both are remembered. 429, 5xx
    and failures of the connection are tried again, later each time, and not before a ``Retry-After`` has passed.
    Anything else is a failure. Where there is no answer, an earlier one is used even when it has expired.

    The users are asked about in an order that differs from run to run, those without any earlier answer first: where
    the time does not suffice for all, it is not always the same ones who are left.

    Args:
        settings: with an ``url``.
        token: goes along as ``Authorization: Bearer``, to the host of the url only.
        cache: SQLite file of answers, made when absent; None: nothing is remembered.
        now: aware datetime; what the age of an answer is counted to.
        clock: seconds, from anywhere.
        sleep: waits for some seconds.
        in_flight: requests at a time.

    Raises:
        EnrichmentInvalid: the address or the token cannot be right.
    """

    def __init__(
        self,
        settings: EnrichmentSettings,
        token: str | None,
        cache: Path | None,
        *,
        now: datetime,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._settings = settings
        self._url, self._name = _checked_url(settings.url or "")
        self._headers = {"Accept": "application/json", "User-Agent": "segmentation-assets"}
        if token is not None and token.strip():
            if not (token.strip().isascii() and token.strip().isprintable()):
                raise EnrichmentInvalid(
                    "The token for the enrichment service holds characters that no token has.", "Copy it again."
                )
            self._headers["Authorization"] = f"Bearer {token.strip()}"
        self._cache = cache if settings.cache_days > 0 else None
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._in_flight = in_flight

    @property
    def name(self) -> str:
        """See ``Enricher``: scheme and host, nothing that could be secret."""
        return self._name

    def look_up(self, users: Sequence[str], on_progress: Progress | None = None) -> Answers:
        """Ask about users, for ``max_seconds`` and one ``timeout`` at most; see ``Enricher``. Never raises."""
        _silence()
        seconds = self._settings.cache_days * 86_400
        with (
            closing(_Cache(self._cache, self._url, self._now.timestamp(), seconds)) as cache,
            urllib3.PoolManager(num_pools=4, maxsize=self._in_flight) as pool,
        ):
            run = _Round(
                lambda user: self._ask(pool, user),
                cache,
                self._settings,
                self._clock,
                self._sleep,
                self._in_flight,
                on_progress,
            )
            return run.through(users, salt=self._now.isoformat())

    def _ask(self, pool: urllib3.PoolManager, user: str) -> _Outcome:
        if user in (".", ".."):  # would lead elsewhere, and encoding dots does not help
            return _Outcome(failure="the id cannot be part of an address")
        ends = time.monotonic() + self._settings.timeout
        try:
            response = pool.request(
                "GET",
                self._url.replace(PLACE, quote(user, safe="")),
                headers=self._headers,
                timeout=self._settings.timeout,
                retries=_REDIRECTS,
                preload_content=False,
            )
            try:
                body = _body(response, ends)
            finally:
                # What was read to its end is back in the pool by now; anything else is no use to the next request.
                response.close()
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            return _network_failure(error)
        if body is None:
            return _Outcome(failure=_TOO_SLOW, again=True)
        return _understood(response.status, response.headers.get("Retry-After"), body)


def _checked_url(url: str) -> tuple[str, str]:
    """The address, and what may be shown of it."""
    cure = f"Write attributes.enrichment.url as in https://host/users/{PLACE}."
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise EnrichmentInvalid("The address of the enrichment service cannot be understood.", cure) from None
    if parts.scheme not in ("http", "https") or not host:
        raise EnrichmentInvalid("The address of the enrichment service does not begin with http:// or https://.", cure)
    if parts.username is not None or parts.password is not None:
        raise EnrichmentInvalid(
            "The address of the enrichment service holds a user name or password.",
            "Put a token into the variable SEGMENTS_ENRICHMENT_TOKEN.",
        )
    if PLACE in parts.netloc or PLACE not in parts.path + "?" + parts.query:
        raise EnrichmentInvalid(f"The address of the enrichment service has no {PLACE} in its path or query.", cure)
    shown = f"[{host}]" if ":" in host else host
    return url.strip(), f"{parts.scheme}://{shown}" + (f":{port}" if port else "")


def _body(response: urllib3.BaseHTTPResponse, ends: float) -> bytes | None:
    """All of it, or one byte more than is allowed; None where it takes too long."""
    body = b""
    while len(body) <= MAX_ANSWER:
        # At most one read from the socket each: a server that sends byte after byte is noticed.
        part = response.read1(MAX_ANSWER + 1 - len(body))
        if not part:
            break
        body += part
        if time.monotonic() > ends:
            return None
    return body


def _understood(status: int, retry_after: str | None, body: bytes) -> _Outcome:
    if status in (404, 410):
        return _Outcome()
    if status == 429 or status >= 500:
        pause = _seconds(retry_after)
        return _Outcome(failure=f"answered {status}", again=True, busy=status == 429 or pause is not None, pause=pause)
    if status != 200:
        return _Outcome(failure=f"answered {status}")
    if len(body) > MAX_ANSWER:
        return _Outcome(failure="the answer is too long")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return _Outcome(failure="the answer is no JSON")
    if not isinstance(content, dict):
        return _Outcome(failure="the answer is no JSON object")
    # Nothing else that is said about somebody is kept.
    return _Outcome({name: content[name] for name in _FIELDS[1:] if name in content})


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    try:
        return float(min(_REDIRECTS.parse_retry_after(retry_after), 1e9))
    except (InvalidHeader, OverflowError, ValueError):
        return None


def _network_failure(error: Exception) -> _Outcome:
    """Nothing but the kind of failure: the texts hold the address, and that the id."""
    cause = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(cause, NewConnectionError):
        return _Outcome(failure="no connection", again=True)
    if isinstance(cause, ConnectTimeoutError | ReadTimeoutError | TimeoutError):
        return _Outcome(failure=_TOO_SLOW, again=True)
    if isinstance(cause, RefusedCertificate):
        return _Outcome(failure="no trusted TLS connection")
    if isinstance(cause, ResponseError):
        return _Outcome(failure="redirected too often")
    if isinstance(cause, BrokenConnection | OSError | HTTPException):
        return _Outcome(failure="the connection broke", again=True)
    return _Outcome(failure="the request could not be made")


class _Round:
    """The users that are asked about in one go.

    One thread decides who is asked when, and each request has a thread of its own: so there is one place where the
    rate, the pauses and the bound of time are kept, and a request that does not end holds up nobody.
    """

    def __init__(
        self,
        ask: Callable[[str], _Outcome],
        cache: "_Cache",
        settings: EnrichmentSettings,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        in_flight: int,
        on_progress: Progress | None,
    ) -> None:
        self._ask = ask
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._in_flight = in_flight
        self._on_progress = on_progress
        self._answers = Answers()
        self._outcomes: SimpleQueue[tuple[str, _Outcome]] = SimpleQueue()
        self._under_way: dict[str, int] = {}  # user to the number of the attempt, from 0
        self._waiting: deque[str] = deque()
        self._again: list[tuple[float, str, int, str]] = []  # when, whom, attempt, what it was last time
        self._remembered: dict[str, _Remembered] = {}
        self._next = clock()
        self._deadline = self._next + settings.max_seconds
        self._in_a_row = 0
        self._stopped = ""
        self._done = 0
        self._total = 0

    def through(self, users: Sequence[str], salt: str) -> Answers:
        """Ask about all of them."""
        different = sorted(set(users))
        self._total = len(different)
        self._remembered = self._cache.read(different)
        rest = []
        for user in different:
            earlier = self._remembered.get(user)
            if earlier is not None and earlier.fresh:
                self._know(user, earlier.record)
            else:
                rest.append(user)
        self._waiting.extend(sorted(rest, key=lambda user: (user in self._remembered, _digest(salt, user))))
        while self._waiting or self._again or self._under_way:
            self._step()
        if self._stopped.startswith(_GIVEN_UP):
            self._answers.remarks.append(self._stopped)
        self._answers.remarks.extend(self._cache.remarks)
        return self._answers

    def _step(self) -> None:
        while self._collect(wait=False):
            pass
        if self._in_a_row >= GIVE_UP_AFTER:
            self._stop(f"{_GIVEN_UP}{GIVE_UP_AFTER} requests in a row failed")
        elif self._clock() >= self._deadline:
            self._stop(_OUT_OF_TIME)
        if not (self._waiting or self._again) or len(self._under_way) >= self._in_flight:
            if self._under_way:
                self._collect(wait=True)
            return
        due = max(self._next, self._clock() if self._waiting else self._again[0][0])
        wait = due - self._clock()
        if due >= self._deadline:
            self._stop(_OUT_OF_TIME)
        elif wait > 0:
            self._sleep(wait)
        else:
            self._launch()

    def _launch(self) -> None:
        if self._again and self._again[0][0] <= self._clock():
            _, user, attempt, _ = heapq.heappop(self._again)
        else:
            user, attempt = self._waiting.popleft(), 0
        self._under_way[user] = attempt
        self._next = max(self._next, self._clock()) + 1 / self._settings.per_second
        # A daemon: one that hangs must not keep the process from ending.
        threading.Thread(target=self._request, args=(user,), name=_THREAD, daemon=True).start()

    def _request(self, user: str) -> None:
        outcome = _Outcome(failure="the request could not be made")
        try:
            outcome = self._ask(user)
        finally:
            self._outcomes.put((user, outcome))

    def _collect(self, wait: bool) -> bool:
        """Take in one outcome; False where there was none."""
        # Beyond the time-out of a request: the time-outs are of single reads, of which a slow server can need many.
        patience = max(self._deadline - self._clock(), 0.0) + self._settings.timeout
        try:
            user, outcome = self._outcomes.get(timeout=patience) if wait else self._outcomes.get_nowait()
        except Empty:
            if wait:
                for user in [*self._under_way]:
                    del self._under_way[user]
                    self._fail(user, _TOO_SLOW)
            return False
        attempt = self._under_way.pop(user, None)
        if attempt is None:  # it came after all, when nobody waited any more
            return True
        if not outcome.failure:
            self._in_a_row = 0
            self._cache.write(user, outcome.record)
            self._know(user, outcome.record)
            return True
        pause = outcome.pause or 0.0
        if outcome.busy:
            pause = pause or _BACK_OFF.delay(attempt)
            self._next = max(self._next, self._clock() + pause)
        else:
            self._in_a_row += 1
        if outcome.again and attempt < self._settings.retries and not self._stopped:
            due = self._clock() + max(_BACK_OFF.delay(attempt), pause)
            heapq.heappush(self._again, (due, user, attempt + 1, outcome.failure))
        else:
            self._fail(user, outcome.failure)
        return True

    def _stop(self, why: str) -> None:
        """Ask nothing more; who was asked before and waits to be asked again has failed with what it was."""
        self._stopped = self._stopped or why
        for user in self._waiting:
            self._fail(user, self._stopped)
        for _, user, _, failure in sorted(self._again):
            self._fail(user, failure)
        self._waiting.clear()
        self._again.clear()

    def _know(self, user: str, record: Mapping[str, object] | None) -> None:
        if record is None:
            self._answers.unknown.add(user)
        else:
            self._answers.found[user] = record
        self._progress()

    def _fail(self, user: str, why: str) -> None:
        self._answers.failed[user] = why
        earlier = self._remembered.get(user)
        if earlier is None:
            self._progress()
        else:
            self._answers.outdated.add(user)
            self._know(user, earlier.record)

    def _progress(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


_GIVEN_UP = "not asked: "


def _digest(salt: str, user: str) -> bytes:
    return hashlib.blake2b(f"{salt}\0{user}".encode(errors="replace"), digest_size=16).digest()


class _Cache:
    """Answers of a service on disk, under a hash of address and id; what goes wrong with it costs only time."""

    def __init__(self, path: Path | None, url: str, now: float, seconds: float) -> None:
        self._url = url
        self._now = now
        self._seconds = seconds
        self._connection: sqlite3.Connection | None = None
        self.remarks: list[str] = []
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # what is known about people is nobody else's
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, at REAL NOT NULL, record TEXT) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def read(self, users: Sequence[str]) -> dict[str, _Remembered]:
        """What is remembered of these."""
        found: dict[str, _Remembered] = {}
        rest = iter(users)
        try:
            while self._connection is not None and (some := list(islice(rest, 500))):
                keys = {_digest(self._url, user): user for user in some}
                marks = ",".join("?" * len(keys))
                query = f"SELECT key, at, record FROM answers WHERE key IN ({marks})"  # noqa: S608 question marks only
                for key, at, record in self._connection.execute(query, [*keys]):
                    fresh = 0 <= self._now - at < self._seconds
                    found[keys[key]] = _Remembered(None if record is None else json.loads(record), fresh)
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            self._give_up(error)
        return found

    def write(self, user: str, record: Mapping[str, object] | None) -> None:
        """Remember an answer."""
        if self._connection is None:
            return
        row = (_digest(self._url, user), self._now, None if record is None else json.dumps(record))
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        self.remarks.append(f"answers are not remembered: the file of them cannot be used ({type(error).__name__})")
        self.close()


class _NotOurs(logging.Filter):
    """Lets no line through that a request of this module made: addresses are in them, and so ids."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD


_NOT_OURS = _NotOurs()


def _silence() -> None:
    for name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_NOT_OURS)
