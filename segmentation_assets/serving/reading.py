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
    """Reads of one thing.

    Args:
        name: how people call it.
        threads: reads at a time; more wait.
        away: exceptions that say that it does not answer.
    """

    def __init__(self, name: str, threads: int, away: tuple[type[Exception], ...]) -> None:
        self._name = name
        self.away = away
        self._resting = 0.0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name.replace(" ", "-"))

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function gives.

        Raises:
            UnavailableError: no answer, now or a moment ago.
        """
        if time.monotonic() < self._resting:
            raise self._unavailable()
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._ask(lambda: function(*args, **kwargs))
        )

    def _ask(self, ask: Callable[[], T]) -> T:
        if time.monotonic() < self._resting:  # while this one waited for a thread
            raise self._unavailable()
        try:
            return ask()
        except self.away:
            self._resting = time.monotonic() + REST_SECONDS
            raise self._unavailable() from None  # what the client says may hold an address

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(f"The {self._name} does not answer.", "Ask again in a moment.")

    def close(self) -> None:
        """Let the threads go; what is asked just now is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
