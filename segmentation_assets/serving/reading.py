"""Asking something that blocks and may be away, from an event loop that must not wait.

What belongs here: threads, and remembering for a moment that nobody answered. What does not: what is asked.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from segmentation_assets.serving.problems import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

REST_SECONDS = 1.0
"""How long nobody asks again after there was no answer. Otherwise every request would wait for its own time-out."""


class Reads:
    """Reads of one thing; a circuit breaker (Nygard 2018, Release It!).

    After there was no answer nobody asks for a moment, and then one asks alone: only when there is an answer do the
    others. So a server that takes connections and says nothing holds up one request at a time.

    Args:
        name: how people call it.
        threads: reads at a time; more wait.
        away: exceptions that say that it does not answer.
        seconds: within which there has to be an answer; the thread may go on waiting. None: as long as it takes.
    """

    def __init__(
        self, name: str, threads: int, away: tuple[type[Exception], ...], seconds: float | None = None
    ) -> None:
        self._name = name
        self.away = away
        self._seconds = seconds
        self._resting: float | None = None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name.replace(" ", "-"))

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function gives.

        Raises:
            UnavailableError: no answer, now or a moment ago.
        """
        alone = False
        if self._resting is not None:
            if time.monotonic() < self._resting:
                raise self._unavailable()
            alone = True  # the others go on without, until this one has come back
            self._resting = time.monotonic() + REST_SECONDS + (self._seconds or 0.0)
        asked = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._ask(alone, lambda: function(*args, **kwargs))
        )
        try:
            return await asyncio.wait_for(asked, self._seconds)
        except TimeoutError:
            self._rest()
            raise self._unavailable() from None

    def _ask(self, alone: bool, ask: Callable[[], T]) -> T:
        resting = self._resting
        if resting is not None and not alone and time.monotonic() < resting:  # while this one waited for a thread
            raise self._unavailable()
        try:
            found = ask()
        except self.away:
            self._rest()
            raise self._unavailable() from None  # what the client says may hold an address
        self._resting = None
        return found

    def _rest(self) -> None:
        self._resting = time.monotonic() + REST_SECONDS

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(f"The {self._name} does not answer.", "Ask again in a moment.")

    def close(self) -> None:
        """Let the threads go; what is asked just now is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
