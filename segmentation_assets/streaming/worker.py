"""One worker: events in, states and changes out, again and again.

What belongs here: the order in which things are done, and what follows when one of them fails. What does not: telling
changes on (telling), numbers for people (metrics).

The order is what makes it right. (1) Events that cannot be used are delivered to the dead letters; while that fails,
nothing goes on. (2) One commit writes everything that a step led to, with the positions in the source. (3) Only then is
the broker told. A worker that dies in between leaves either nothing or all of a step; whoever takes over asks the
store, not the broker, where to go on. An event that comes again is known by its id.
"""

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np

from segmentation_assets.core.live.events import BadEvent, Event
from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.live.segmenter import Outcome, Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.live_models import unpack
from segmentation_assets.io.live_store import Claim, Commit, Conflict, Fenced, Prepared, StateStore, StoreUnavailable
from segmentation_assets.io.streams.base import Records, Sink, SinkUnavailable, Source
from segmentation_assets.io.streams.codec import decode_many
from segmentation_assets.streaming.learning import Learner
from segmentation_assets.streaming.metrics import Metrics

MODEL_SECONDS = 1.0
"""How often the store is asked whether there is another model."""

REPORT_SECONDS = 1.0

POLL_SECONDS = 0.02
"""How long nothing has to come for what was written to be acknowledged without the next step."""

JOIN_SECONDS = 15.0
"""How long a worker that is to end when nothing comes waits for something to read: a group takes seconds to form."""

SAVE_SECONDS = 60.0
"""How often clusters that go on learning are kept."""

TIDIED_USERS = 200
"""Users of each segment that are looked at with every report, whether their state is still there."""

LONGEST_DEAD_LETTER = 500_000
"""Bytes. Brokers take a megabyte, and where there are no headers the bytes grow by a third."""

SHORTEST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between two tries of something that fails, twice as many after each."""

_NOBODYS = Event("", "", "search", 0, search_query="-")

_log = logging.getLogger(__name__)


class NoModelError(SegmentsError):
    """Nothing to segment by."""


DeadLetter = tuple[str | None, bytes, dict[str, str]]


@dataclass
class _Step:
    """What one poll gave.

    Attributes:
        begun: when it was taken on.
        records: of each partition.
        events: that can be used, over all partitions, in their order.
        sources: (records, place in them) of each event.
        dead: records that cannot be used, ready to be delivered.
        other: records that are none of ours.
        received: of each event, milliseconds; -1 where it is not known.
    """

    begun: float
    records: list[Records]
    events: list[Event]
    sources: list[tuple[Records, int]]
    dead: list[DeadLetter]
    other: int
    received: list[int]


@dataclass
class _Work:
    """What a step led to.

    Attributes:
        outcome: of its events.
        dead: all dead letters, late events included.
        prepared: what the store is to write.
        written: when it was, by ``time.perf_counter``.
        written_at: the same in milliseconds since 1970.
        commit_seconds: that the store took.
    """

    outcome: Outcome
    dead: list[DeadLetter]
    prepared: Prepared
    written: float = 0.0
    written_at: float = 0.0
    commit_seconds: float = 0.0


@dataclass(frozen=True)
class _Flight:
    """A step that is being written."""

    step: _Step
    work: _Work
    future: Future[Conflict | None]


class Worker:
    """Segments users by the events of a source.

    Args:
        source: of events.
        store: of states and models.
        sink: where dead letters go.
        settings: of the stream.
        name: of this worker, to tell it from others.
        metrics: its numbers.
        now: the time in milliseconds.
    """

    def __init__(
        self,
        source: Source,
        store: StateStore,
        sink: Sink,
        settings: StreamSettings,
        name: str,
        metrics: Metrics | None = None,
        now: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self._source = source
        self._store = store
        self._sink = sink
        self._settings = settings
        self._name = name
        self.metrics = metrics or Metrics()
        self._now = now
        self._stop = threading.Event()
        self._claims: dict[str, Claim] = {}
        self._cache: dict[str, UserState] = {}
        self._segmenter: Segmenter | None = None
        self._learner: Learner | None = None
        self._held: str | None = None
        self._model_asked = self._reported = 0.0
        self._saved = time.monotonic()
        self._begun: float | None = None
        self._done = 0.0
        self._flight: _Flight | None = None
        self._unwritten: list[_Step] = []
        self._failures = 0
        self._idle_since = 0.0
        self._refused: tuple[str, int] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    # --- the loop ----------------------------------------------------------------------------------------------------

    @property
    def seconds_of_work(self) -> float:
        """From the beginning of the first step to the end of the last one."""
        return 0.0 if self._begun is None else self._done - self._begun

    def stop(self) -> None:
        """Finish the step under way, then end ``run``. May be called from another thread or a signal handler."""
        self._stop.set()

    def run(self, until_idle_seconds: float | None = None) -> None:
        """Work until ``stop``, or until nothing came for so long.

        Raises:
            NoModelError: there is no model in the store.
            SegmentsError: the source cannot be used, for a reason that waiting does not cure.
        """
        self._load_model(first=True)
        gc.collect()
        # What is loaded stays. States have no cycles, but are so many that looking for some would take a third of the
        # time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        self._idle_since = time.monotonic()
        try:
            self._source.start(self._assigned, self._revoked)
            while not self._stop.is_set():
                self._between_steps()
                polled = self._source.poll(self._settings.batch_events, POLL_SECONDS)
                if polled:
                    self._idle_since = time.monotonic()
                if self._unwritten:
                    steps, self._unwritten = [*self._unwritten, self._step_of(polled)], []
                    self._try_again(steps)
                    continue
                if polled:
                    self._take_on(polled)
                    continue
                self._settle()
                if until_idle_seconds is not None:
                    least = until_idle_seconds if self._claims else max(until_idle_seconds, JOIN_SECONDS)
                    if time.monotonic() - self._idle_since > least:
                        break
        finally:
            self._settle()
            gc.unfreeze()
            self._source.close()
            self._save_learner()
            self._writer.shutdown()

    def _between_steps(self) -> None:
        now = time.monotonic()
        if now - self._model_asked > MODEL_SECONDS:
            self._model_asked = now
            self._load_model()
        if now - self._reported > REPORT_SECONDS:
            self._reported = now
            self.metrics.lag(self._source.lag())
            self._report()
            with suppress(StoreUnavailable):
                self._store.tidy(TIDIED_USERS)
        if now - self._saved > SAVE_SECONDS:
            self._saved = now
            self._save_learner()

    def _report(self) -> None:
        try:
            self._store.report_worker(self._name, {**self.metrics.said(), "held": self._held})
        except StoreUnavailable:
            _log.debug("the store did not take a report")

    # --- a step ------------------------------------------------------------------------------------------------------

    def _take_on(self, polled: Sequence[Records]) -> None:
        """Work one poll's records out, and have the step written while the next one is worked out."""
        step = self._step_of(polled)
        try:
            work = self._worked_out(step)
        except StoreUnavailable as error:  # states could not be read
            self._hold(error.problem)
            if self._settle(then=step):
                self._cache.clear()
                self._pause()
                self._try_again([step])
            return
        if not self._settle(then=step):
            return  # what was worked out is of states that were not written
        self._flight = _Flight(step, work, self._writer.submit(self._write, step, work))

    def _settle(self, then: _Step | None = None, later: bool = False) -> bool:
        """Wait for the step that is being written; False where it failed, and was done again together with the next.

        Args:
            then: the step that was worked out meanwhile, on states that are void if the writing failed.
            later: do not do it again now, but after the poll that is under way.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return True
        refused = False
        try:
            conflict = flight.future.result()
        except (StoreUnavailable, SinkUnavailable) as error:
            self._hold(error.problem)
        except Fenced:
            self._hold("another worker took a partition over")
        else:
            if conflict is None:
                self._done_with(flight.step, flight.work)
                return True
            refused = True  # somebody else changed a user of the step: one user in two partitions
        self._cache.clear()
        steps = [flight.step] if then is None else [flight.step, then]
        if later:
            self._unwritten = steps
            return False
        if not refused:
            self._pause()
        self._try_again(steps, claims_hold=refused)
        return False

    def _try_again(self, steps: Sequence[_Step], claims_hold: bool = False) -> None:
        """Do steps one after the other until each is written, or is no longer ours to write.

        Args:
            steps: in their order.
            claims_hold: whether it is known what was written, and that the claims still hold.
        """
        left = list(steps) if claims_hold else self._claim_again(steps)
        while left and not self._stop.is_set():
            step = left[0]
            try:
                work = self._worked_out(step)
                conflict = self._write(step, work)
            except (StoreUnavailable, SinkUnavailable) as error:
                self._hold(error.problem)
            except Fenced:
                self._hold("another worker took a partition over")
            else:
                if conflict is None:
                    self._done_with(step, work)
                    left.pop(0)
                else:
                    self._cache.clear()
                continue
            self._cache.clear()
            self._report()
            self._pause()
            left = self._claim_again(left)

    def _claim_again(self, steps: Sequence[_Step]) -> list[_Step]:
        """Claim every partition anew, and read on where the store says.

        What was written is not known, or the store is an older one: it knows. What can be read again is dropped, for it
        is read again. Of a source that cannot be read again, and of a partition of which nothing was ever written, the
        records are kept.

        Returns:
            what is still to be done; nothing where it was told to stop.
        """
        while not self._stop.is_set():
            try:
                for partition in list(self._claims):
                    self._claims[partition] = self._store.claim(self._place(partition))
            except StoreUnavailable as error:
                self._hold(error.problem)
                self._report()
                self._pause()
                continue
            for partition, claim in self._claims.items():
                if claim.position is not None:
                    self._source.seek(partition, claim.position)
            return [kept for step in steps if (kept := self._kept(step)).records]
        return []

    def _kept(self, step: _Step) -> _Step:
        """What of a step is not read again, of the partitions that are still ours."""
        kept = [
            records
            for records in step.records
            if records.partition in self._claims
            and (records.next is None or self._claims[records.partition].position is None)
        ]
        return step if len(kept) == len(step.records) else self._decoded(kept, step.begun)

    def _pause(self) -> None:
        """Wait after a failure, longer after each; not after being told to stop."""
        wait = min(SHORTEST_WAIT * 2**self._failures, LONGEST_WAIT)
        self._failures = min(self._failures + 1, 30)
        self._stop.wait(wait)

    def _hold(self, why: str) -> None:
        if self._held != why:
            _log.warning("held: %s", why)
        self._held = why

    def _step_of(self, polled: Sequence[Records]) -> _Step:
        begun = time.perf_counter()
        if self._begun is None:
            self._begun = begun
        return self._decoded([records for records in polled if records.partition in self._claims], begun)

    def _decoded(self, polled: Sequence[Records], begun: float) -> _Step:
        step = _Step(begun, list(polled), [], [], [], 0, [])
        for records in polled:
            for place, found in enumerate(decode_many(records.values, records.received)):
                if isinstance(found, Event):
                    step.events.append(found)
                    step.sources.append((records, place))
                    step.received.append(records.received[place])
                elif found is None:
                    step.other += 1
                else:
                    step.dead.append(_dead_letter(records, place, found))
        return step

    def _worked_out(self, step: _Step) -> _Work:
        """What a step leads to, ready to be written; the cache then holds the states as if it were."""
        segmenter = self._segmenter
        assert segmenter is not None  # run() loads it
        cache = self._cache
        states: dict[str, UserState] = {}
        missing = []
        for user in {event.user_id for event in step.events}:
            state = cache.pop(user, None)  # to the end of the line: those that were not heard of for longest go first
            if state is None:
                missing.append(user)
            else:
                states[user] = state
        if missing:
            states |= self._store.load(missing)
        outcome = segmenter.process(step.events, states)
        dead = step.dead
        if outcome.late:
            late = BadEvent("timestamp: too late")
            dead = [*dead, *(_dead_letter(*step.sources[place], late) for place in outcome.late)]
        counts = {
            "events": outcome.applied,
            "duplicates": outcome.duplicates,
            "late": len(outcome.late),
            "dead": len(dead),
            "other": step.other,
            "segmented": outcome.segmented,
            "changes": len(outcome.changes),
        }
        prepared = self._store.prepare(
            Commit(
                positions=[(self._claims[records.partition], records.next) for records in step.records],
                states={user: states[user] for user in outcome.touched},
                changes=outcome.changes,
                products=outcome.products,
                counts={name: n for name, n in counts.items() if n},
                keep_seconds=max(round(self._settings.state_days * 86_400), 1),
            )
        )
        cache |= states
        # Those of this step stay whatever the setting: they are about to be written, and must not be read before.
        surplus = len(cache) - max(self._settings.cached_users, len(states))
        if surplus > 0:
            for user in list(islice(cache, surplus)):
                del cache[user]
        return _Work(outcome, dead, prepared)

    def _write(self, step: _Step, work: _Work) -> Conflict | None:
        """Deliver dead letters, then write; in a thread of its own while the next step is worked out."""
        if work.dead:
            self._sink.send(self._settings.dead_letters, work.dead)
        before = time.perf_counter()
        conflict = self._store.write(work.prepared)
        work.written = time.perf_counter()
        work.commit_seconds = work.written - before
        work.written_at = self._now()
        return conflict

    def _done_with(self, step: _Step, work: _Work) -> None:
        if self._held:
            _log.warning("going on")
            self._held = None
        self._failures = 0
        for records in step.records:
            self._source.acknowledge(records)
        outcome, received = work.outcome, np.array(step.received, dtype=np.float64)
        self._done = work.written
        self.metrics.step(
            applied=outcome.applied,
            duplicates=outcome.duplicates,
            late=len(outcome.late),
            dead=len(work.dead),
            other=step.other,
            segmented=outcome.segmented,
            events=sum(len(records.values) for records in step.records),
            seconds=work.written - step.begun,
            commit_seconds=work.commit_seconds,
            latencies_ms=work.written_at - received[received >= 0],
        )
        if outcome.changes:
            self.metrics.changed(Counter(change.segment for change in outcome.changes))

    # --- partitions --------------------------------------------------------------------------------------------------

    def _assigned(self, partition: str) -> str | None:
        while not self._stop.is_set():
            try:
                claim = self._store.claim(self._place(partition))
            except StoreUnavailable as error:
                self._hold(error.problem)
                self._pause()
                continue
            self._claims[partition] = claim
            self._idle_since = time.monotonic()
            _log.info("reading %s from %s", partition, claim.position or "the beginning")
            return claim.position
        return None

    def _revoked(self, partition: str) -> None:
        # What is written is acknowledged before others ask where to begin. What is not is theirs, or tried again after
        # this poll: within it a source cannot be told to read on elsewhere.
        self._settle(later=True)
        self._claims.pop(partition, None)
        self._cache.clear()  # others will change these users
        _log.info("gave up %s", partition)

    def _place(self, partition: str) -> str:
        """A partition as the store knows it: another group reads the same one at a pace of its own."""
        return f"{self._settings.group}/{partition}"

    # --- the model ---------------------------------------------------------------------------------------------------

    def _load_model(self, first: bool = False) -> None:
        """Take the current model where it is another one."""
        try:
            version = self._store.current_model()
            if version is None:
                if first:
                    raise NoModelError(
                        "There is no model to segment users by.",
                        "Publish one: `segments run --users`, then `segments stream --publish-model`, or materialize "
                        "live_model.",
                    )
                return
            if self._segmenter is not None and self._segmenter.model.version == version:
                return
            record = self._store.model(version)
        except StoreUnavailable:
            if first:
                raise
            return
        if record is None:
            if first:
                raise NoModelError(
                    f"The model {version} is no longer there.", "Publish one: `segments stream --publish-model`."
                )
            return  # replaced this very moment; asked again in a second
        if self._refused == (version, record.published_at):
            return
        try:
            model = unpack(record.data)
        except SegmentsError as error:
            if first:
                raise
            _log.error("model %s cannot be used: %s", version, error)  # the cause is in the text
            self._refused = version, record.published_at
            return
        self._take(model)

    def _take(self, model: LiveModel) -> None:
        lateness = round(self._settings.lateness_minutes * 60_000)
        # Nobody's event: what is imported and put in order when it is first used must not hold the first users up.
        Segmenter(model, lateness, self._settings.change).process([_NOBODYS], {})
        self._save_learner()
        self._learner = Learner.open(self._store, self._settings, model, self._name)
        self._segmenter = Segmenter(
            model,
            lateness,
            self._settings.change,
            None if self._learner is None else self._learner.clusters,
        )
        self.metrics.model(model.version)
        _log.info("segmenting by model %s", model.version)

    def _save_learner(self) -> None:
        if self._learner is not None:
            self._learner.save()


def _dead_letter(records: Records, place: int, why: BadEvent) -> tuple[str | None, bytes, dict[str, str]]:
    """What is delivered for an event that cannot be used: its own bytes, and beside them why and where it was.

    Of very many bytes only the first ones: what the broker just took from others it would not take back with headers.
    """
    value = records.values[place] or b""
    headers = {"reason": str(why), "partition": records.partition, "position": str(records.positions[place])}
    if len(value) > LONGEST_DEAD_LETTER:
        headers["truncated"] = str(len(value))
        value = value[:LONGEST_DEAD_LETTER]
    return f"{records.partition}:{records.positions[place]}", value, headers
