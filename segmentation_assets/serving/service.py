"""What all routes share, for as long as the API runs.

What belongs here: the parts, reading users by them, and what goes on in the background. What does not: routes.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.core.values import usable_id
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.live_store import StateStore, StoreUnavailable
from segmentation_assets.serving.answers import SegmentAnswer, published_answer, segment_answer
from segmentation_assets.serving.hub import ChangeHub
from segmentation_assets.serving.keys import ApiKeys
from segmentation_assets.serving.metrics import ApiMetrics
from segmentation_assets.serving.problems import RefusedError, UnavailableError
from segmentation_assets.serving.profiles import ProfileReader, ProfilesUnavailable
from segmentation_assets.serving.reading import Reads
from segmentation_assets.serving.recommendations import CONSIDERED, Trends, trends, windows
from segmentation_assets.serving.served import ServedModels

log = logging.getLogger("segmentation_assets.serving")

POLL_SECONDS = 1.0
"""How often it is looked whether another model was published, or the file of keys changed."""

READ_SECONDS = 2.0
"""Within which a store has to answer: better no answer than one that comes late."""

TRENDS_SECONDS = 30.0
"""How long the products of a segment are kept: adding up a day of them is the most expensive thing asked of the
store."""


@dataclass(frozen=True)
class Found:
    """A user who is known to somebody: by a state, or by what was published."""

    state: UserState | None
    answer: SegmentAnswer


@dataclass
class Service:
    """The parts.

    Args:
        store: of states.
        settings: limits.
        stream: how the stream assigns.
        keys: who may ask.
        reader: of published profiles; None: there is nobody else to ask.
    """

    store: StateStore
    settings: ServeSettings
    stream: StreamSettings
    keys: ApiKeys
    reader: ProfileReader | None
    metrics: ApiMetrics = field(default_factory=ApiMetrics)

    def __post_init__(self) -> None:
        self.reads = Reads("state store", 12, (StoreUnavailable,), READ_SECONDS)
        self.profiles = Reads("Elasticsearch", 4, (ProfilesUnavailable,), 1.5 * READ_SECONDS)
        # A model is large, and nobody waits for it.
        self.fetching = Reads("state store", 1, (StoreUnavailable,))
        self.computing = Reads("model", 1, ())
        self.models = ServedModels(self.store, self.fetching, self.computing, self.stream)
        self.hub = ChangeHub(self.store, self.reads, self.metrics)
        self._trends: dict[str, tuple[float, Trends]] = {}
        self._trending = asyncio.Lock()

    async def start(self) -> asyncio.Task[None]:
        """Load what is there, and begin to follow it."""
        with suppress(UnavailableError):
            await self.models.refresh()
        return asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.models.refresh()
            except UnavailableError:
                pass
            except Exception:
                log.exception("looking for another model failed")
            try:
                if self.keys.refresh():
                    log.info("the file of API keys was read again")
            except SegmentsError as error:
                log.error("the keys known so far stay: %s %s", error.problem, error.cure)
            except Exception:
                log.exception("looking for other keys failed; those known so far stay")

    def close(self) -> None:
        """Let the threads go."""
        for reads in (self.reads, self.fetching, self.profiles, self.computing):
            reads.close()

    async def user(self, user: str) -> Found:
        """A user, by the stream's state, else by the published profile.

        Raises:
            RefusedError: 404.
            UnavailableError: it cannot be said whether there is one.
        """
        found = (await self.users([user])).get(user)
        if found is None:
            raise RefusedError(404, "Nobody knows this user.")
        return found

    async def users(self, users: Sequence[str]) -> dict[str, Found]:
        """The same of many, of those who are known."""
        # What can be no id is no user's: no store needs to see it.
        asked = [user for user in users if usable_id(user) == user]
        states: dict[str, UserState] = {}
        away: UnavailableError | None = None
        try:
            if asked:
                states = await self.reads(self.store.load, asked)
        except UnavailableError as error:
            away = error
        models = self.models
        found = {
            user: Found(state, segment_answer(user, state, models.personas(state.model)))
            for user, state in states.items()
        }
        missing = [user for user in asked if user not in found]
        if missing and self.reader is not None and self.settings.fallback:
            for user, profile in (await self.profiles(self.reader.read, missing)).items():
                found[user] = Found(None, published_answer(user, profile))
        if away is not None and any(user not in found for user in asked):
            raise away  # whoever Elasticsearch does not know may well be in the store
        return found

    async def trends(self, segment: str) -> Trends:
        """Products of a segment, as they were at most ``TRENDS_SECONDS`` ago."""
        async with self._trending:  # one at a time: it is expensive
            kept = self._trends.get(segment)
            if kept is None or kept[0] < time.monotonic():
                popular, recent, before = windows(int(time.time() // 3600))
                parts = [
                    await self.reads(self.store.popular, segment, hours, CONSIDERED)
                    for hours in (popular, recent, before)
                ]
                if len(self._trends) > 1_000:
                    self._trends.clear()
                kept = self._trends[segment] = (time.monotonic() + TRENDS_SECONDS, trends(*parts))
        return kept[1]
