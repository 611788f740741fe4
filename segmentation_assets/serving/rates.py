"""How often somebody may ask.

What belongs here: counting by name. What does not: names, and what somebody is told who has to wait (guard).

Counts in this process, without a lock and without a thread: the event loop alone asks. The stores of the package
*limits* were tried; that in memory starts a thread up to a hundred times a second to forget what is old, which made the
slowest hundredth of the answers three times as slow.
"""

import math
import time
from collections.abc import Callable

SECONDS = 60.0
"""Length of a window."""

NAMES = 10_000
"""Names that are known before those are forgotten who have not asked lately."""


class Rates:
    """So many requests a minute of each name, by two windows: requests of the window before count by the part of it
    that lies within the last minute, as if they had been spread evenly over it.

    Args:
        most: requests a minute.
        clock: seconds that never go back.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._counts: dict[str, tuple[int, int, int]] = {}
        """Name to the number of its window, requests in it, requests in the one before."""

    def take(self, name: str) -> int:
        """Count a request; gives 0, or, without counting it, seconds after which there is room for one."""
        window, passed = divmod(self._clock() / SECONDS, 1.0)
        at = int(window)
        last, now, before = self._counts.get(name, (at, 0, 0))
        if last < at:
            now, before = 0, now if last == at - 1 else 0
        free = self.most - 1 - now
        if before * (1 - passed) <= free:
            if name not in self._counts and len(self._counts) >= NAMES:
                self._forget(at)
            self._counts[name] = (at, now + 1, before)
            return 0
        # As soon as enough of the window before is over; else in the next one, when this one is the one before.
        left = 1 - passed - free / before if free >= 0 else 2 - passed - (self.most - 1) / now
        return max(1, math.ceil(left * SECONDS))

    def _forget(self, at: int) -> None:
        self._counts = {name: found for name, found in self._counts.items() if found[0] >= at - 1}
        if len(self._counts) >= NAMES:  # as many within two minutes: nobody of them is to be kept from asking
            self._counts.clear()
