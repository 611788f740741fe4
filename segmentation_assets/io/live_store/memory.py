"""User states in this process, for development and tests.

What belongs here: the contract kept with dictionaries and a lock. What does not: anything that outlives the process.
States are kept as bytes, so that nobody changes them but by a commit.
"""

import math
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from random import Random
from threading import Condition
from typing import NamedTuple

import msgspec

from segmentation_assets.core.live.state import UserState, decode, encode
from segmentation_assets.io.live_store.base import (
    Claim,
    Commit,
    Conflict,
    Fenced,
    ModelRecord,
    Prepared,
    StoredChange,
    StoredState,
)
from segmentation_assets.io.live_store.rules import (
    KEPT_CHANGES,
    POPULAR_SECONDS,
    SINK_SECONDS,
    UNTOLD_CHANGES,
    as_pair,
    proportional,
)


class _Held(NamedTuple):
    sequence: int
    segment: str
    since: int
    until: float
    data: bytes


@dataclass(frozen=True)
class _Prepared(Prepared):
    commit: Commit
    states: dict[str, _Held]


class MemoryStore:
    """States in this process; see ``StateStore`` for what the methods do. Empty when made.

    Of users whose state was forgotten by its age, the entry in their segment is removed when ``members`` or ``sample``
    come across it; ``sizes`` counts them until then.
    """

    def __init__(self) -> None:
        self._condition = Condition()
        self._states: dict[str, _Held] = {}
        self._tokens: Counter[str] = Counter()
        self._positions: dict[str, str] = {}
        self._segments: defaultdict[str, set[str]] = defaultdict(set)
        self._changes: list[StoredChange] = []
        self._numbered = 0
        self._products: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        self._products_until: dict[tuple[str, int], float] = {}
        self._totals: Counter[str] = Counter()
        self._models: list[ModelRecord] = []
        self._workers: dict[str, tuple[float, bytes]] = {}
        self._cursors: dict[str, tuple[str, float]] = {}
        self._locks: dict[str, tuple[str, float]] = {}
        self._kept: dict[str, tuple[bytes, float]] = {}
        self._random = Random()  # noqa: S311  # draws a sample, keeps no secret

    # --- a worker's side

    def claim(self, partition: str) -> Claim:
        """See ``StateStore``."""
        with self._condition:
            self._tokens[partition] += 1
            return Claim(partition, self._tokens[partition], self._positions.get(partition))

    def load(self, users: Sequence[str]) -> dict[str, UserState]:
        """See ``StateStore``."""
        with self._condition:
            held = {user: found.data for user in users if (found := self._held(user)) is not None}
        return {user: decode(data) for user, data in held.items()}

    def _held(self, user: str) -> _Held | None:
        found = self._states.get(user)
        if found is not None and found.until <= time.monotonic():
            del self._states[user]
            return None
        return found

    def commit(self, commit: Commit) -> Conflict | None:
        """See ``StateStore``."""
        return self.write(self.prepare(commit))

    def prepare(self, commit: Commit) -> Prepared:
        """See ``StateStore``."""
        until = time.monotonic() + commit.keep_seconds
        return _Prepared(
            commit,
            {
                user: _Held(state.sequence, state.segment, state.since, until, encode(state))
                for user, state in commit.states.items()
            },
        )

    def write(self, prepared: Prepared) -> Conflict | None:
        """See ``StateStore``."""
        assert isinstance(prepared, _Prepared)
        commit, states = prepared.commit, prepared.states
        with self._condition:
            for claim, _ in commit.positions:
                if self._tokens[claim.partition] != claim.token:
                    raise Fenced(claim.partition)
            before = {user: self._held(user) for user in states}
            stale = [
                user
                for user, state in states.items()
                if state.sequence - 1 != (0 if (held := before[user]) is None else held.sequence)
            ]
            if stale:
                return Conflict(stale)
            for change in commit.changes:
                if change.segment != change.previous:
                    held = before[change.user_id]
                    if held is not None:
                        self._segments[held.segment].discard(change.user_id)
                    if change.segment:
                        self._segments[change.segment].add(change.user_id)
            self._states |= states
            for change in commit.changes:
                self._numbered += 1
                self._changes.append(StoredChange(f"{self._numbered}-0", change))
            if not self._cursors:
                del self._changes[:-UNTOLD_CHANGES]
            self._add_products(commit.products)
            self._totals.update(commit.counts)
            for claim, position in commit.positions:
                if position is not None:
                    self._positions[claim.partition] = position
            if commit.changes:
                self._condition.notify_all()
        return None

    def _add_products(self, products: Mapping[tuple[str, int, str], int]) -> None:
        now = time.monotonic()
        for key in [key for key, until in self._products_until.items() if until <= now]:
            del self._products[key], self._products_until[key]
        for (segment, hour, product), weight in products.items():
            self._products[segment, hour][product] += weight
            self._products_until[segment, hour] = now + POPULAR_SECONDS

    # --- models

    def publish_model(self, record: ModelRecord) -> None:
        """See ``StateStore``."""
        with self._condition:
            if self._models and self._models[0].version == record.version:
                self._models[0] = record
            else:
                self._models = [record, *self._models[:1]]

    def current_model(self) -> str | None:
        """See ``StateStore``."""
        with self._condition:
            return self._models[0].version if self._models else None

    def model(self, version: str) -> ModelRecord | None:
        """See ``StateStore``."""
        with self._condition:
            return next((record for record in self._models if record.version == version), None)

    def models(self) -> list[tuple[str, int]]:
        """See ``StateStore``."""
        with self._condition:
            return [(record.version, record.published_at) for record in self._models]

    def report_worker(self, worker: str, said: Mapping[str, object], keep_seconds: int = 30) -> None:
        """See ``StateStore``."""
        words = msgspec.json.encode(said)
        with self._condition:
            self._workers[worker] = time.monotonic() + keep_seconds, words

    def workers(self) -> dict[str, dict[str, object]]:
        """See ``StateStore``."""
        with self._condition:
            self._workers = {name: kept for name, kept in self._workers.items() if kept[0] > time.monotonic()}
            said = sorted(self._workers.items())
        return {worker: msgspec.json.decode(words, type=dict[str, object]) for worker, (_, words) in said}

    # --- readers

    def ping(self) -> bool:
        """See ``StateStore``."""
        return True

    def members(self, segment: str, cursor: str | None, limit: int) -> tuple[list[tuple[str, int]], str | None]:
        """See ``StateStore``. A user who stays in the segment is on exactly one page, whatever others do meanwhile."""
        with self._condition:
            found: list[tuple[str, int]] = []
            after = cursor
            while True:
                wanted = limit + 1 - len(found)
                among = self._segments.get(segment, set())
                some = nsmallest(wanted, among if after is None else [user for user in among if user > after])
                for user in some:
                    held = self._held(user)
                    if held is None or held.segment != segment:
                        among.discard(user)
                    else:
                        found.append((user, held.since))
                if len(found) > limit:
                    return found[:limit], found[limit - 1][0]
                if not some:
                    return found, None
                after = some[-1]

    def tidy(self, users: int) -> int:
        """See ``StateStore``. Looks at everybody: here that costs little."""
        with self._condition:
            gone = 0
            for members in self._segments.values():
                absent = [user for user in members if self._held(user) is None]
                members.difference_update(absent)
                gone += len(absent)
            return gone

    def sizes(self) -> dict[str, int]:
        """See ``StateStore``."""
        with self._condition:
            return {segment: len(users) for segment, users in sorted(self._segments.items()) if users}

    def changes(self, after: str | None, limit: int, *, newest_first: bool = False) -> list[StoredChange]:
        """See ``StateStore``.

        Raises:
            ValueError: ``after`` is no id of a change.
        """
        with self._condition:
            place = 0 if after is None else self._place_after(after)
            found = self._changes[place:]
        return found[::-1][:limit] if newest_first else found[:limit]

    def _place_after(self, change_id: str) -> int:
        return bisect_right(self._changes, as_pair(change_id), key=lambda stored: as_pair(stored.id))

    def wait_changes(self, after: str, limit: int, seconds: float) -> list[StoredChange]:
        """See ``StateStore``.

        Raises:
            ValueError: ``after`` is no id of a change, nor '$'.
        """
        with self._condition:
            if after == "$":
                after = f"{self._numbered}-0"
            self._condition.wait_for(lambda: self._place_after(after) < len(self._changes), seconds)
            place = self._place_after(after)
            return self._changes[place : place + limit]

    def popular(self, segment: str, hours: Sequence[int], limit: int) -> list[tuple[str, float]]:
        """See ``StateStore``."""
        total: Counter[str] = Counter()
        with self._condition:
            for hour in dict.fromkeys(hours):
                if self._products_until.get((segment, hour), 0.0) > time.monotonic():
                    total.update(self._products[segment, hour])
        ordered = sorted(total.items(), key=lambda item: (item[1], item[0]), reverse=True)
        return [(product, float(weight)) for product, weight in ordered[: max(limit, 0)]]

    def totals(self) -> dict[str, int]:
        """See ``StateStore``."""
        with self._condition:
            return dict(sorted(self._totals.items()))

    def sample(self, users: int) -> list[StoredState]:
        """See ``StateStore``. Of every segment a part that is as large as the segment's share of all."""
        with self._condition:
            for segment, among in self._segments.items():
                among -= {user for user in among if (held := self._held(user)) is None or held.segment != segment}
            drawn = [
                user
                for segment, number in proportional(self.sizes(), users).items()
                for user in self._random.sample(sorted(self._segments[segment]), number)
            ]
            data = [self._states[user].data for user in drawn]
        return [StoredState(user, decode(state)) for user, state in zip(drawn, data, strict=True)]

    # --- what else a worker keeps

    def keep(self, name: str, data: bytes, seconds: float | None = None) -> None:
        """See ``StateStore``."""
        with self._condition:
            self._kept[name] = data, math.inf if seconds is None else time.monotonic() + seconds

    def kept(self, name: str) -> bytes | None:
        """See ``StateStore``."""
        with self._condition:
            data, until = self._kept.get(name, (None, 0.0))
            return data if until > time.monotonic() else None

    # --- told on

    def cursor(self, sink: str) -> str | None:
        """See ``StateStore``. Who asks is a sink: what it has not told on is kept from now on.

        One that has neither asked nor told anything on for seven days is none any more.
        """
        with self._condition:
            found, _ = self._cursors.get(sink, ("0-0", 0.0))
            self._cursors[sink] = found, time.monotonic()
        return None if found == "0-0" else found

    def advance(self, sink: str, change_id: str) -> None:
        """See ``StateStore``. A cursor never goes back.

        Raises:
            ValueError: it is no id of a change.
        """
        as_pair(change_id)
        now = time.monotonic()
        with self._condition:
            found, _ = self._cursors.get(sink, ("0-0", 0.0))
            self._cursors[sink] = max(found, change_id, key=as_pair), now
            extra = len(self._changes) - KEPT_CHANGES
            if extra >= KEPT_CHANGES // 10:
                heard = [told for told, at in self._cursors.values() if now - at < SINK_SECONDS]
                del self._changes[: min(extra, self._place_after(min(heard, key=as_pair)))]

    def lock(self, name: str, owner: str, seconds: int) -> bool:
        """See ``StateStore``."""
        now = time.monotonic()
        with self._condition:
            holder, until = self._locks.get(name, (owner, 0.0))
            if holder != owner and until > now:
                return False
            if not seconds:
                self._locks.pop(name, None)
                return True
            self._locks[name] = owner, now + seconds
            return True

    def close(self) -> None:
        """See ``StateStore``."""
