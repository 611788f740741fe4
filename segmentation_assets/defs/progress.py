"""Progress of long steps in a run's log.

What belongs here: turning counts into a few log lines. What does not: bars on a terminal (cli).
"""

import logging
import time
from collections.abc import Callable


def log_progress(log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int | None], None]:
    """A callback that logs every tenth of the way, or every 100,000 documents while the total is unknown.

    Each line says how fast it goes and, where the total is known, how long it will still take at that rate.
    """
    started, said = clock(), 0

    def progress(done: int, total: int | None) -> None:
        nonlocal said
        step = done // 100_000 if total is None else 10 * done // max(total, 1)
        if step <= said:
            return
        said = step
        seconds = clock() - started
        rate = done / seconds if seconds > 0 else 0.0
        text = f"{done:,} documents" if total is None else f"{done:,} of {total:,} documents"
        if rate:
            text += f", {rate:,.0f} a second"
            if total is not None and done < total:
                text += f", {(total - done) / rate:,.0f} s left"
        log.info(text)

    return progress
