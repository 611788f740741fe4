"""Changes, read once and told to everybody who listens.

What belongs here: one reader for all, a bounded queue for each, catching up. What does not: the format on the wire
(changes).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from segmentation_assets.io.live_store import StateStore, StoredChange
from segmentation_assets.serving.metrics import ApiMetrics
from segmentation_assets.serving.problems import RETRY_SECONDS, RefusedError, UnavailableError
from segmentation_assets.serving.reading import REST_SECONDS, Reads

log = logging.getLogger("segmentation_assets.serving")

LISTENERS = 100
"""At most; the next one is asked to come back."""

QUEUED = 10_000
"""Changes that wait for one listener. Who is slower is cut off, and catches up by ``Last-Event-ID``."""

PAGE = 1_000
_WAIT_SECONDS = 1.0
_FIRST = "0-0"


class Listener:
    """Somebody who listens."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[list[StoredChange] | None] = asyncio.Queue()
        self._waiting = 0
        self.ended = False

    def give(self, changes: list[StoredChange]) -> None:
        """Queue changes; end where too many wait."""
        if self.ended:
            return
        self._waiting += len(changes)
        if self._waiting > QUEUED:
            self.end()
        else:
            self._queue.put_nowait(changes)

    def end(self) -> None:
        """Say that nothing more comes."""
        self.ended = True
        self._queue.put_nowait(None)

    async def take(self, seconds: float) -> list[StoredChange] | None:
        """What came; an empty list when nothing did for so long, None at the end."""
        if self.ended:
            return None
        try:
            found = await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            return []
        self._waiting -= len(found or ())
        return found


class ChangeHub:
    """Reads changes as long as somebody listens.

    Args:
        store: of changes.
        reads: asks it.
        metrics: told how many listen.
    """

    def __init__(self, store: StateStore, reads: Reads, metrics: ApiMetrics) -> None:
        self._store = store
        self._reads = reads
        # Waiting for changes takes a thread for itself; it must not be one that a request waits for.
        self._waits = Reads("state store", 1, reads.away)
        self._metrics = metrics
        self._listeners: set[Listener] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    def require_room(self) -> None:
        """Refuse where nobody else can listen.

        Raises:
            RefusedError: 503, too many listen already, or the API stops.
        """
        if self._closed or len(self._listeners) >= LISTENERS:
            raise RefusedError(
                503, f"At most {LISTENERS} can listen.", "Come back later.", {"Retry-After": str(RETRY_SECONDS)}
            )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """Listen to what comes from now on.

        Raises:
            UnavailableError: the store is away.
        """
        listener = Listener()
        if self._closed or len(self._listeners) >= LISTENERS:  # others may have come since there was room
            listener.end()
            yield listener
            return
        self._listeners.add(listener)
        self._metrics.streams(len(self._listeners))
        try:
            if self._reading is None or self._reading.done():
                after = await self.newest()
                if self._reading is None or self._reading.done():  # nobody else began meanwhile
                    self._reading = asyncio.create_task(self._read(after))
            yield listener
        finally:
            self._listeners.discard(listener)
            self._metrics.streams(len(self._listeners))

    async def newest(self) -> str:
        """Id of the newest change; one before all where there is none."""
        newest = await self._reads(self._store.changes, None, 1, newest_first=True)
        return newest[0].id if newest else _FIRST

    async def _read(self, after: str) -> None:
        while self._listeners and not self._closed:
            try:
                found = await self._waits(self._store.wait_changes, after, PAGE, _WAIT_SECONDS)
            except UnavailableError:
                await asyncio.sleep(REST_SECONDS)
                continue
            except Exception:
                log.exception("reading changes failed")
                for listener in list(self._listeners):
                    listener.end()  # they come back, and it is tried anew
                return
            if found:
                after = found[-1].id
                for listener in list(self._listeners):
                    listener.give(found)

    def close(self) -> None:
        """Let everybody go; from then on nobody is let in."""
        self._closed = True
        for listener in list(self._listeners):
            listener.end()

    async def finish(self) -> None:
        """Wait until reading has ended."""
        self.close()
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        self._waits.close()
