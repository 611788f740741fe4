"""Stored sessions sent once more as events."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.live.events import Event, events_of_session
from segmentation_assets.io.importing import read_file
from segmentation_assets.io.replay import (
    BATCH,
    events_in_order,
    last_moment,
    replay,
    sessions_of_table,
    shifted,
    table_of_records,
)
from segmentation_assets.io.streams.base import SinkUnavailable
from segmentation_assets.io.streams.codec import decode

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SESSIONS = list(generate_sessions(300, 5, NOW, behaviour=True).documents)


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self, stop: threading.Event | None = None, after: int = 0) -> None:
        self.records: list[tuple[str | None, bytes, Mapping[str, str]]] = []
        self.topics: set[str] = set()
        self.calls: list[int] = []
        self._stop, self._after = stop, after

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        self.topics.add(topic)
        self.calls.append(len(records))
        self.records += records
        if self._stop is not None and len(self.records) >= self._after:
            self._stop.set()

    def close(self) -> None: ...

    def events(self) -> Iterator[Event]:
        for key, value, _ in self.records:
            event = decode(value, -1)
            assert event is not None
            assert event.user_id == key
            yield event


def all_events() -> list[Event]:
    return [event for session in SESSIONS for event in events_of_session(session)]


def ids(events: Sequence[Event]) -> list[str]:
    return sorted(event.event_id for event in events)


def test_the_events_of_all_sessions_come_in_the_order_of_time() -> None:
    events = list(events_in_order(SESSIONS))
    assert ids(events) == ids(all_events())
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)


def test_only_sessions_that_go_on_at_the_same_time_are_in_memory() -> None:
    taken = 0

    def one_by_one() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for day in range(1, 29):
            taken += 1
            time = f"2026-02-{day:02}T00:00:00Z"
            yield {"session_id": str(day), "user_id": "u", "search_query": "q", "timestamp": time}

    events = events_in_order(one_by_one())
    next(events)
    assert taken == 2


def test_everything_is_delivered_in_batches_keyed_by_user() -> None:
    sink, told = Kept(), list[int]()
    many = [event for _ in range(4) for event in events_in_order(SESSIONS)]
    done = replay(many, sink, "t", on_progress=told.append)
    assert done.complete
    assert done.events == len(many) == len(sink.records) == told[-1]
    assert (done.first, done.last) == (many[0].timestamp, many[-1].timestamp)
    assert list(sink.events()) == many
    assert sink.topics == {"t"}
    assert max(sink.calls) == BATCH


def test_a_rate_is_kept() -> None:
    done = replay(list(events_in_order(SESSIONS))[:101], Kept(), "t", rate=400)
    assert done.events == 101
    assert done.seconds >= 0.25


def test_a_speed_is_kept() -> None:
    events = list(events_in_order(SESSIONS))
    span = (events[-1].timestamp - events[0].timestamp) / 1000
    done = replay(events, Kept(), "t", speed=span / 0.3)
    assert done.events == len(events)
    assert done.seconds >= 0.3


def test_it_can_be_stopped_and_what_was_begun_is_delivered() -> None:
    stop = threading.Event()
    sink = Kept(stop, after=3)
    done = replay(events_in_order(SESSIONS), sink, "t", rate=200, stop=stop)
    assert not done.complete
    assert 3 <= done.events == len(sink.records) < len(all_events())


def test_it_can_be_stopped_while_it_waits() -> None:
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    done = replay(events_in_order(SESSIONS), Kept(), "t", speed=0.001, stop=stop)
    assert not done.complete


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"speed": -1.0}, {"rate": 1.0, "speed": 1.0}])
def test_a_rate_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="rate"):
        replay([], Kept(), "t", **wrong)  # type: ignore[arg-type]


def test_nothing_to_send_is_no_error() -> None:
    assert replay([], Kept(), "t").events == 0


def test_what_could_not_be_delivered_is_said() -> None:
    class Broken(Kept):
        def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
            raise SinkUnavailable("away")

    with pytest.raises(SinkUnavailable):
        replay(events_in_order(SESSIONS), Broken(), "t")


def test_shifted_events_are_those_of_other_visits() -> None:
    events = list(events_in_order(SESSIONS))
    last = last_moment(events)
    assert last is not None
    moved = list(shifted(events, 1_000))
    assert last_moment(moved) == last + 1_000
    assert not set(ids(moved)) & set(ids(events))
    assert len({event.session_id for event in moved}) == len({event.session_id for event in events})
    assert [event.user_id for event in moved] == [event.user_id for event in events]


def test_a_file_gives_the_events_that_its_sessions_were_made_of(tmp_path: Path) -> None:
    path = tmp_path / "sessions.ndjson"
    lines = [*SESSIONS[::-1], SESSIONS[0], {"user_id": "u"}]  # in no order, one twice, one unusable
    path.write_text("\n".join(map(json.dumps, lines)))
    table, set_aside = table_of_records(read_file(path), NOW)
    assert (table.num_rows, sum(set_aside.values())) == (300, 1)
    events = list(events_in_order(sessions_of_table(table)))
    assert events == sorted(events, key=lambda event: event.timestamp)
    key = lambda event: event.event_id  # noqa: E731
    assert sorted(events, key=key) == sorted(all_events(), key=key)


def test_the_last_of_several_sessions_with_one_id_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmentation_assets.io.replay._CHUNK", 2)
    path = tmp_path / "sessions.ndjson"
    rows = [
        {**SESSIONS[0], "session_id": own, "search_query": query} for own, query in zip("abcab", "12345", strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    table, _ = table_of_records(read_file(path), NOW)
    assert {row["session_id"]: row["search_query"] for row in table.to_pylist()} == {"a": "4", "b": "5", "c": "3"}


def test_a_file_without_a_usable_session_gives_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "sessions.ndjson"
    path.write_text('{"user_id": "u", "search_query": "", "timestamp": "2026-01-01"}\n')
    table, set_aside = table_of_records(read_file(path), NOW)
    assert (table.num_rows, set_aside) == (0, {"empty_query": 1})
