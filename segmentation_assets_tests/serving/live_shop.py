"""A store in which users have done something, and the API on a real port, for the tests of the API.

What belongs here: what tests make by hand. What does not: fixtures (conftest), tests.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from segmentation_assets.core.live.events import Event, events_of_session
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import Commit, StateStore
from segmentation_assets_tests.batch_side import Batch


class Shop:
    """A store in which some users have done something by now."""

    def __init__(self, store: StateStore, batch: Batch) -> None:
        self.store = store
        self.batch = batch
        self.segmenter = Segmenter(batch.model, 3_600_000, 0.2)
        self.states: dict[str, UserState] = {}
        self._claim = store.claim("events/0")
        publish(store, batch.model, int(time.time() * 1000))
        events = [event for document in batch.documents for event in events_of_session(document)]
        events.sort(key=lambda event: event.timestamp)
        shift = int(time.time() * 1000) - events[-1].timestamp - 1_000
        for event in events:
            event.timestamp += shift
        self.do(events)

    def do(self, events: list[Event]) -> None:
        """Let events happen, as a worker does."""
        outcome = self.segmenter.process(events, self.states)
        done = self.store.commit(
            Commit(
                positions=[(self._claim, "1")],
                states={user: self.states[user] for user in outcome.touched},
                changes=outcome.changes,
                products=outcome.products,
                counts={"events": outcome.applied},
            )
        )
        assert done is None

    def say(self, worker: str = "one", **said: object) -> None:
        """Let a worker report."""
        self.store.report_worker(worker, {"model": self.batch.model.version, "events_per_second": 12.5, **said})


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind a real port; gives the address."""
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as port:
        thread = threading.Thread(target=lambda: server.run(sockets=[port]))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port.getsockname()[1]}"
        finally:
            app.state.service.hub.close()
            server.should_exit = True
            thread.join()


def search(user: str, query: str, number: int = 0) -> Event:
    """An event that happens now."""
    now = int(time.time() * 1000)
    return Event(f"{user}:{now}:{number}", user, "search", now, session_id=f"{user}:{now}", search_query=query)
