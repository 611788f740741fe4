"""The model that the API answers by: loaded from the store, and followed when another one is published.

What belongs here: which versions are loaded, and what they say of queries and events that are nobody's. What does not:
publishing (io.live_models), states of users.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segmentation_assets.core.live.events import Event
from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.sessions import usable_query
from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.core.taxonomy import OTHER
from segmentation_assets.core.users.clustering import NOISE
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.live_store import StateStore
from segmentation_assets.serving.problems import UnavailableError
from segmentation_assets.serving.reading import Reads

log = logging.getLogger("segmentation_assets.serving")

VISITOR = "visitor"
"""Whose the events are of whom no state is kept."""


@dataclass(frozen=True)
class Assigned:
    """What a model says of a session that is not stored.

    Attributes:
        queries: (query, segment, cluster, confidence) of each query that was asked about, in their order.
        state: of a user who had done exactly this.
        applied: events that counted.
        duplicates: events that were there twice.
    """

    queries: list[tuple[str, str, int, float]]
    state: UserState
    applied: int
    duplicates: int


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    model: LiveModel
    segmenter: Segmenter
    published_at: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clusters(self, queries: Sequence[str]) -> list[tuple[str, str, int, float]]:
        """(query, segment, cluster, confidence) of each; what cannot be searched for is in no cluster."""
        usable = [usable_query(query) for query in queries]
        known = list(dict.fromkeys(query for query in usable if query is not None))
        found: dict[str, tuple[int, float]] = {}
        if known:
            labels, confidence = self.model.queries.predict(known)
            pairs = zip(labels.tolist(), confidence.tolist(), strict=True)
            found = dict(zip(known, pairs, strict=True))
        answers = []
        for query, clean in zip(queries, usable, strict=True):
            cluster, sure = found[clean] if clean is not None else (NOISE, 0.0)
            answers.append((query, self.model.segments.get(cluster, OTHER), cluster, sure))
        return answers

    def assign(self, queries: Sequence[str], events: Sequence[Event], now: int) -> Assigned:
        """What would become of a new user who does this: the events in the order of their times, then the queries."""
        done = sorted(events, key=lambda event: event.timestamp)
        at = max(now, done[-1].timestamp if done else 0)
        done += [
            Event(f"query:{place}", VISITOR, "search", at, search_query=clean)
            for place, query in enumerate(queries)
            if (clean := usable_query(query)) is not None
        ]
        states: dict[str, UserState] = {}
        with self.lock:
            outcome = self.segmenter.process(done, states)
        state = states.get(VISITOR, UserState())
        return Assigned(self.clusters(queries), state, outcome.applied, outcome.duplicates)


class ServedModels:
    """The current model, and the one before as long as the store has it.

    Args:
        store: where models are.
        reads: asks it.
        computing: runs what takes long.
        settings: lateness and bound of the stream, which hold here as well.
    """

    def __init__(self, store: StateStore, reads: Reads, computing: Reads, settings: StreamSettings) -> None:
        self._store = store
        self._reads = reads
        self._computing = computing
        self._lateness = round(settings.lateness_minutes * 60_000)
        # Once each event of a session that is not stored is applied, it is looked at however little it was.
        self._bound = settings.change
        self._loaded: dict[str, Loaded] = {}
        self._unreadable: set[str] = set()
        self._loading = asyncio.Lock()
        self.current: Loaded | None = None
        self.published: list[tuple[str, int]] = []
        """(version, published at in milliseconds), newest first, as the store said last."""

    async def refresh(self) -> None:
        """Load what was published since.

        Raises:
            UnavailableError: the store is away; what is loaded stays.
        """
        version = await self._reads(self._store.current_model)
        if version is None:
            return
        if self.current and self.published and version == self.current.model.version == self.published[0][0]:
            return  # asking which there are reads them whole
        if self.current is None or version != self.current.model.version:
            found = await self._load(version)
            if found is not None:
                self.current = found
                log.info("model %s is served", version)
        self.published = await self._reads(self._store.models)
        kept = {name for name, _ in self.published} | {self.current.model.version if self.current else ""}
        self._loaded = {name: model for name, model in self._loaded.items() if name in kept}

    async def of(self, version: str) -> Loaded | None:
        """A model that is still published, by its version; None when there is no such one."""
        found = self._loaded.get(version)
        if found is not None or version not in {name for name, _ in self.published}:
            return found
        return await self._load(version)

    async def _load(self, version: str) -> Loaded | None:
        async with self._loading:
            if version in self._loaded or version in self._unreadable:
                return self._loaded.get(version)
            record = await self._reads(self._store.model, version)
            if record is None:
                return None
            try:
                model = await self._computing(_unpack, record.data)
            except SegmentsError as error:
                if isinstance(error, UnavailableError):
                    raise
                self._unreadable.add(version)
                log.error("model %s cannot be served: %s %s", version, error.problem, error.cure)
                return None
            segmenter = Segmenter(model, self._lateness, self._bound)
            self._loaded[version] = found = Loaded(model, segmenter, record.published_at)
            return found

    def required(self) -> Loaded:
        """The current model.

        Raises:
            UnavailableError: there is none yet.
        """
        if self.current is None:
            raise UnavailableError("No model is published yet.", "Materialize the asset live_model.")
        return self.current

    def personas(self, version: str) -> dict[int, str]:
        """Names of the behaviour clusters of a version; of the current one, whose ids mostly stay, for another."""
        found = self._loaded.get(version) or self.current
        return found.model.personas if found else {}


def _unpack(data: bytes) -> LiveModel:
    from segmentation_assets.io.live_models import unpack

    model: Any = unpack(data)
    assert isinstance(model, LiveModel)
    return model
