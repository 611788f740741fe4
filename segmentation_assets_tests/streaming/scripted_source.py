"""A source, a sink and a store that do as a test says: give so much, fail at this moment, note what was asked.

What belongs here: real implementations of the contracts, fed by lists. What does not: fixtures, tests.
"""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from segmentation_assets.core.live.events import Event, encode
from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import Claim, Conflict, Prepared, StateStore, StoreUnavailable
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.io.streams.base import Records, SinkUnavailable
from segmentation_assets.streaming.worker import Worker

DEAD = "user_events_dead"
WATCH = 20.0
"""Seconds after which a worker that does not come to an end is stopped, so that a test fails instead of hanging."""

NOW = 1_900_000_000_000
"""When the broker took everything: after all events."""

Log = list[tuple[str, object]]


class ScriptedSource:
    """Records of lists, so many with every poll; the worker is told to stop when there are no more.

    Args:
        partitions: name to its records.
        sizes: records of each partition with each poll; the last number holds for all further ones.
        seekable: whether it can be read again from a position. If not, what is not acknowledged comes again from
            ``restarted``.
        at: poll number, from 0, to what happens just before anything is given; returns None.
        log: what was asked, in order.
    """

    def __init__(
        self,
        partitions: Mapping[str, Sequence[bytes | None]],
        sizes: Iterable[int] = (100,),
        *,
        seekable: bool = True,
        at: Mapping[int, Callable[[], None]] | None = None,
        log: Log | None = None,
    ) -> None:
        self.records = {name: list(values) for name, values in partitions.items()}
        self.seekable = seekable
        self.at = dict(at or {})
        self.log: Log = [] if log is None else log
        self.on_end: Callable[[], None] = lambda: None
        self.acknowledged: dict[str, set[int]] = {name: set() for name in partitions}
        self.polls = 0
        self.closed = False
        self._empty = 0
        self._sizes = deque(sizes)
        self._place: dict[str, int] = {}
        self._wanted = list(partitions)
        self._assigned: Callable[[str], str | None] = lambda _: None
        self._revoked: Callable[[str], None] = lambda _: None

    def start(self, on_assigned: Callable[[str], str | None], on_revoked: Callable[[str], None]) -> None:
        self._assigned, self._revoked = on_assigned, on_revoked

    def poll(self, most: int, seconds: float) -> list[Records]:
        number, self.polls = self.polls, self.polls + 1
        self.at.pop(number, lambda: None)()
        while self._wanted:
            name = self._wanted.pop(0)
            position = self._assigned(name)
            self._place[name] = int(position or 0)
        size = self._sizes.popleft() if len(self._sizes) > 1 else self._sizes[0]
        found = [given for name in self._place if (given := self._given(name, size)) is not None]
        self._empty = 0 if found else self._empty + 1
        if self._empty > 1 and not self.at and self.left() == 0:  # after the first one the last step is written
            self.on_end()
        return found

    def _given(self, name: str, size: int) -> Records | None:
        begin = self._place[name]
        places = [place for place in range(begin, len(self.records[name])) if place not in self._done(name)][:size]
        if not places:
            return None
        self._place[name] = places[-1] + 1
        values = [self.records[name][place] for place in places]
        following = str(places[-1] + 1) if self.seekable else None
        self.log.append(("poll", (name, places)))
        return Records(name, values, places, [NOW] * len(places), following)

    def _done(self, name: str) -> set[int]:
        """What a broker that remembers single records does not give again."""
        return set() if self.seekable else self.acknowledged[name]

    def seek(self, partition: str, position: str) -> None:
        if self.seekable:
            self.log.append(("seek", (partition, position)))
            self._place[partition] = int(position)

    def acknowledge(self, records: Records) -> None:
        self.log.append(("acknowledge", (records.partition, list(records.positions))))
        self.acknowledged[records.partition] |= {int(place) for place in records.positions}

    def lag(self) -> dict[str, int]:
        return {name: len(self.records[name]) - place for name, place in self._place.items()}

    def close(self) -> None:
        self.closed = True
        for name in list(self._place):
            self.revoke(name)

    def left(self) -> int:
        """Records that are still to be read, or, of a source that cannot be read again, to be acknowledged."""
        if self.seekable:
            return sum(len(self.records[name]) - place for name, place in self._place.items())
        return sum(len(self.records[name]) - len(done) for name, done in self.acknowledged.items())

    def revoke(self, name: str) -> None:
        """Take a partition away, as within a poll."""
        self.log.append(("revoke", name))
        del self._place[name]
        self._revoked(name)

    def assign(self, name: str) -> None:
        """Give a partition with this poll."""
        self._wanted.append(name)

    def restarted(self, **options: Any) -> "ScriptedSource":
        """The same broker, as it meets the next worker."""
        found = ScriptedSource(self.records, seekable=self.seekable, log=self.log, **options)
        found.acknowledged = self.acknowledged
        return found


class ScriptedSink:
    """Keeps what is sent, and fails when told to.

    Args:
        failures: what becomes of each call: None it is delivered, 'before' it is not, 'after' it is and nobody is told.
        log: what was sent, in order.
    """

    def __init__(self, failures: Iterable[str | None] = (), log: Log | None = None) -> None:
        self.sent: defaultdict[str, list[tuple[str | None, bytes, dict[str, str]]]] = defaultdict(list)
        self.calls = 0
        self._failures = deque(failures)
        self._log: Log = [] if log is None else log

    def send(self, topic: str, records: Sequence[tuple[str | None, bytes, Mapping[str, str]]]) -> None:
        self.calls += 1
        fails = self._failures.popleft() if self._failures else None
        if fails == "before":
            self._log.append(("not sent", topic))
            raise SinkUnavailable("The broker does not take it.", "Wait.")
        self.sent[topic] += [(key, value, dict(headers)) for key, value, headers in records]
        self._log.append(("sent", topic))
        if fails == "after":
            raise SinkUnavailable("The broker did not answer.", "Wait.")

    def close(self) -> None:
        pass


class UnreliableStore:
    """A store behind a connection that breaks when told to.

    Args:
        store: the real one.
        failures: 'claim', 'load' or 'write' to what becomes of each call: None it is done, 'before' it is not, 'after'
            it is done and the answer is lost.
        before: likewise, to what somebody else does just before.
        log: what was asked, in order.
    """

    def __init__(
        self,
        store: StateStore,
        failures: Mapping[str, Iterable[str | None]] | None = None,
        before: Mapping[str, Iterable[Callable[[], object] | None]] | None = None,
        log: Log | None = None,
    ) -> None:
        self.inner = store
        self.failures = {name: deque(outcomes) for name, outcomes in (failures or {}).items()}
        self.before = {name: deque(actions) for name, actions in (before or {}).items()}
        self.log: Log = [] if log is None else log
        self.calls: Counter[str] = Counter()
        self.conflicts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def claim(self, partition: str) -> Claim:
        found: Claim = self._asked("claim", partition)
        return found

    def load(self, users: Sequence[str]) -> Any:
        return self._asked("load", users)

    def write(self, prepared: Prepared) -> Conflict | None:
        found: Conflict | None = self._asked("write", prepared)
        self.conflicts += found is not None
        return found

    def _asked(self, name: str, argument: object) -> Any:
        self.calls[name] += 1
        actions, outcomes = self.before.get(name), self.failures.get(name)
        action = actions.popleft() if actions else None
        if action is not None:
            action()
        fails = outcomes.popleft() if outcomes else None
        if fails == "before":
            self.log.append((f"{name} failed", None))
            raise StoreUnavailable("The store does not answer.", "Wait.")
        answer = getattr(self.inner, name)(argument)
        self.log.append((name, argument if name == "claim" else None))
        if fails == "after":
            raise StoreUnavailable("The store's answer was lost.", "Wait.")
        return answer


def store_with(model: LiveModel) -> MemoryStore:
    store = MemoryStore()
    publish(store, model, 1)
    return store


def run(
    source: ScriptedSource,
    store: Any,
    sink: ScriptedSink | None = None,
    name: str = "one",
    now: Callable[[], float] = lambda: NOW,
    **settings: Any,
) -> Worker:
    """A worker from its start until the source has nothing left, in this thread."""
    chosen = StreamSettings(**settings)
    worker = Worker(source, store, ScriptedSink() if sink is None else sink, chosen, name, now=now)
    source.on_end = worker.stop
    watch = threading.Timer(WATCH, worker.stop)
    watch.start()
    try:
        worker.run()
    finally:
        watch.cancel()
    return worker


def values(events: Iterable[Event]) -> list[bytes | None]:
    return [encode(event) for event in events]
