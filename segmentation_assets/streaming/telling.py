"""Telling changes on: from the store's list of changes to a topic and to Elasticsearch.

What belongs here: reading the list, delivering, remembering how far. What does not: how changes come to be (worker).

Changes are written to the list in the same step as the states, so none is lost. Whoever tells them on notes how far
only after they were delivered: after a crash some are told twice, none is left out. Each has an id by which a reader
knows it again. Of several workers one tells, whoever holds the lock.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec
from elasticsearch import Elasticsearch

from segmentation_assets.core.settings import Settings
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import bulk
from segmentation_assets.io.live_store import StateStore, StoredChange
from segmentation_assets.io.publishing import published_state
from segmentation_assets.io.streams.base import Sink

BATCH = 1_000
LOCK_SECONDS = 15
IDLE_SECONDS = 0.2
LONGEST_WAIT = 10.0
LAST_SECONDS = 5.0

_log = logging.getLogger(__name__)

Deliver = Callable[[Sequence[StoredChange]], None]


class Teller(threading.Thread):
    """Tells changes on to one place until it is told to stop.

    Args:
        name: of the place; how far it was told is remembered by it.
        store: of changes.
        deliver: brings some there; raises where it could not.
        owner: who this is, for the lock.
        on_waiting: told how many changes wait, as far as they were looked at (``BATCH``).
    """

    def __init__(
        self,
        name: str,
        store: StateStore,
        deliver: Deliver,
        owner: str,
        on_waiting: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(name=f"tell-{name}", daemon=True)
        self._place = name
        self._store = store
        self._deliver = deliver
        self._owner = owner
        self._on_waiting = on_waiting
        self._stopped = threading.Event()
        self.told = 0
        self.problem: str | None = None

    def stop(self) -> None:
        """Tell what is there, as far as it can be told within a few seconds, then end."""
        self._stopped.set()

    def run(self) -> None:
        """Until it is told to stop."""
        wait = IDLE_SECONDS
        while not self._stopped.is_set():
            try:
                told = self.tell_once()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again: nobody else tells
                self._say(error.problem if isinstance(error, SegmentsError) else type(error).__name__)
                wait = min(max(wait, IDLE_SECONDS) * 2, LONGEST_WAIT)
            else:
                if self.problem is not None:
                    _log.warning("telling changes on to %s again", self._place)
                self.problem = None
                wait = 0.0 if told >= BATCH else IDLE_SECONDS
            if wait:
                self._stopped.wait(wait)
        deadline = time.monotonic() + LAST_SECONDS
        with suppress(Exception):  # what cannot be told now is told by whoever comes next
            while self.tell_once() and time.monotonic() < deadline:
                pass
            self._store.lock(f"tell:{self._place}", self._owner, 0)

    def tell_once(self) -> int:
        """Tell the next ones on; how many that were.

        Raises:
            SegmentsError, ApiError, TransportError: they could not be delivered, or the store is away.
        """
        if not self._hold():
            return 0
        found = self._store.changes(self._store.cursor(self._place), BATCH)
        self._on_waiting(len(found))
        if not found:
            return 0
        with self._holding():
            self._deliver(found)
        if not self._hold():  # another one tells by now, from where this one began: it will have told these as well
            return 0
        self._store.advance(self._place, found[-1].id)
        self.told += len(found)
        return len(found)

    def _hold(self) -> bool:
        return self._store.lock(f"tell:{self._place}", self._owner, LOCK_SECONDS)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Keep the lock while inside, however long that takes."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(LOCK_SECONDS / 3):
                with suppress(SegmentsError):
                    self._hold()

        renewing = threading.Thread(target=renew, name=f"hold-{self._place}", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join()

    def _say(self, problem: str) -> None:
        if self.problem != problem:
            _log.warning("changes cannot be told on to %s: %s", self._place, problem)
        self.problem = problem


def to_topic(sink: Sink, topic: str) -> Deliver:
    """Changes as JSON, by user, so that those of one user stay in their order; the header ``id`` tells one twice."""

    def deliver(changes: Sequence[StoredChange]) -> None:
        sink.send(
            topic,
            [(each.change.user_id, msgspec.json.encode(each.change), {"id": each.id}) for each in changes],
        )

    return deliver


def to_elasticsearch(client: Elasticsearch, settings: Settings) -> Deliver:
    """Changes into the published profiles and segments, as far as something was published.

    A profile gets segment, behaviour cluster and persona; one of a user whom no run knew yet has just these. The
    search that a user was segmented by gets its segment. The next run writes both anew, and everything else.
    """
    profiles, segments = settings.profiles.alias, settings.publish.alias

    def deliver(changes: Sequence[StoredChange]) -> None:
        newest = {each.change.user_id: each.change for each in changes}
        _write(
            client,
            profiles,
            {
                user: bulk.update_line(
                    user,
                    bulk.to_json(
                        {
                            "user_id": user,
                            **({"segment": change.segment} if change.segment else {}),
                            **({"cluster": change.cluster} if change.cluster > -2 else {}),
                            **({"persona": change.persona} if change.persona else {}),
                        }
                    ),
                )
                for user, change in newest.items()
            },
        )
        searches = {each.change.session_id: each.change for each in changes if each.change.session_id}
        _write(
            client,
            segments,
            {
                session: bulk.index_line(
                    session,
                    bulk.to_json(
                        {
                            "session_id": session,
                            "user_id": change.user_id,
                            "search_query": change.search_query,
                            "segment": change.session_segment,
                            **({"timestamp": change.session_at} if "timestamp" in settings.publish.fields else {}),
                        }
                    ),
                )
                for session, change in searches.items()
                if session is not None
            },
        )

    return deliver


def _write(client: Elasticsearch, alias: str, lines: dict[str, bytes]) -> None:
    published = published_state(client, alias) if lines else None
    if published is None:
        return
    # The index itself: nothing can be written through an alias of ours, so that nobody does so by mistake.
    bulk.write(client, published.index, bulk.in_batches(lines.items()), on_batch=lambda batch, results: None)
