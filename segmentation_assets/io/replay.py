"""Stored sessions sent once more, as the events they were made of, as fast as wanted.

What belongs here: sessions in the order of time, their events merged, when each is due, and sending them. What does
not: which events a session was made of (core.live.events), brokers (io.streams), reading the index (session_reader) or
a file (importing).
"""

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmentation_assets.core.live.events import Event, encode, events_of_session
from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import SessionBuilder
from segmentation_assets.io.importing import ImportRecord
from segmentation_assets.io.streams.base import Sink

BATCH = 2_000
"""Events in one call of the sink."""

_CHUNK = 20_000  # sessions that are documents at a time; the others are columns
_NAP = 0.2  # seconds after which it is looked whether to stop


@dataclass(frozen=True)
class Replayed:
    """What was sent.

    Attributes:
        events: delivered.
        first: time of the first event, milliseconds since 1970; None where none was sent.
        last: of the last.
        seconds: that it took.
        complete: False where it was told to stop.
    """

    events: int = 0
    first: int | None = None
    last: int | None = None
    seconds: float = 0.0
    complete: bool = True

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


def table_of_records(records: Iterable[ImportRecord], now: datetime) -> tuple[pa.Table, dict[str, int]]:
    """Sessions of a file as columns, so that many fit into memory. Of several with one id the last is kept.

    Args:
        records: of ``importing.read_file``.
        now: aware datetime; sessions after it cannot be used.

    Returns:
        ``sessions.SESSION_SCHEMA`` with details, and how many records cannot be used, by reason.
    """
    tables, set_aside = [], dict[str, int]()
    remaining = iter(records)
    while chunk := list(islice(remaining, _CHUNK)):
        builder = SessionBuilder(now)
        last = {str(record.session_id): record for record in chunk}
        for record in last.values():
            builder.add(record.session_id, record.document)
        sessions = builder.finish()
        tables.append(sessions.table)
        for reason, n in sessions.intake.set_aside.items():
            set_aside[reason] = set_aside.get(reason, 0) + n
    if not tables:
        return SessionBuilder(now).finish().table, set_aside
    whole = pa.concat_tables(tables, promote_options="default")
    if len(tables) > 1:
        ids = whole["session_id"].to_numpy(zero_copy_only=False)
        _, from_the_end = np.unique(ids[::-1], return_index=True)
        whole = whole.take(pa.array(np.sort(len(ids) - 1 - from_the_end)))
    return whole, set_aside


def sessions_of_table(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The sessions of columns in the order of their times, then ids; few of them are documents at a time."""
    order = pc.sort_indices(table, sort_keys=[("timestamp", "ascending"), ("session_id", "ascending")])
    for start in range(0, len(order), _CHUNK):
        yield from table.take(order[start : start + _CHUNK]).to_pylist()


def events_in_order(sessions: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    """The events of sessions in the order of their times; those of one time as their sessions come.

    Args:
        sessions: see ``core.live.events.events_of_session``, in the order of their times. Only those that go on at the
            same time are in memory. An event before its own session is given with it.
    """
    waiting: list[tuple[int, int, Event]] = []
    count = 0
    for session in sessions:
        begin = parse_timestamp(session["timestamp"])
        now = -math.inf if begin is None else begin.timestamp() * 1000
        while waiting and waiting[0][0] < now:
            yield heapq.heappop(waiting)[2]
        for event in events_of_session(session):
            count += 1
            heapq.heappush(waiting, (event.timestamp, count, event))
    while waiting:
        yield heapq.heappop(waiting)[2]


def shifted(events: Iterable[Event], milliseconds: int) -> Iterator[Event]:
    """The same events later, as those of other visits: ids of events, sessions and orders are marked with the shift, or
    whoever has seen these already would take them for repeated.
    """
    mark = f"+{milliseconds}"
    for event in events:
        yield msgspec.structs.replace(
            event,
            timestamp=event.timestamp + milliseconds,
            event_id=event.event_id + mark,
            session_id=None if event.session_id is None else event.session_id + mark,
            transaction_id=None if event.transaction_id is None else event.transaction_id + mark,
        )


def last_moment(events: Iterable[Event]) -> int | None:
    """Time of the last event, milliseconds since 1970; None where there is none."""
    return max((event.timestamp for event in events), default=None)


def replay(
    events: Iterable[Event],
    sink: Sink,
    topic: str,
    *,
    rate: float | None = None,
    speed: float | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Replayed:
    """Send events in the order given, keyed by user.

    Args:
        events: in the order of their times.
        sink: where to.
        topic: of the sink.
        rate: events a second; None: as fast as the sink takes them, or as ``speed`` says.
        speed: times as fast as it happened; None: see ``rate``.
        stop: end early when it is set; what was begun is delivered.
        on_progress: called with the number of events delivered so far.

    Raises:
        SinkUnavailable: what was sent before is delivered; to send it again changes nothing.
        ValueError: rate or speed is not above 0, or both are given.
    """
    if rate is not None and speed is not None:
        raise ValueError("either a rate or a speed")
    if any(value is not None and not value > 0 for value in (rate, speed)):
        raise ValueError("rate and speed are above 0")
    stop = stop or threading.Event()
    began = time.monotonic()
    done = Replayed()
    batch: list[Event] = []

    def deliver() -> None:
        nonlocal done
        if not batch:
            return
        sink.send(topic, [(event.user_id, encode(event), {}) for event in batch])
        first = batch[0].timestamp if done.first is None else done.first
        done = replace(done, events=done.events + len(batch), first=first, last=batch[-1].timestamp)
        batch.clear()
        if on_progress is not None:
            on_progress(done.events)

    start: int | None = None
    for number, event in enumerate(events):
        if start is None:
            start = event.timestamp
        due = number / rate if rate else (event.timestamp - start) / 1000 / speed if speed else 0.0
        if due > time.monotonic() - began:
            deliver()
            while not stop.is_set() and (wait := began + due - time.monotonic()) > 0:
                stop.wait(min(wait, _NAP))
        if stop.is_set():
            break
        batch.append(event)
        if len(batch) >= BATCH:
            deliver()
    deliver()
    return replace(done, seconds=time.monotonic() - began, complete=not stop.is_set())
