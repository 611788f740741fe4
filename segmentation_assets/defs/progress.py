"""Progress of long steps in a run's log.

What belongs here: turning counts into a few log lines. What does not: bars on a terminal (cli).
"""

import logging
from collections.abc import Callable


def log_progress(log: logging.Logger) -> Callable[[int, int | None], None]:
    """A callback that logs every tenth of the way, or every 100,000 documents while the total is unknown."""
    said = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal said
        step = done // 100_000 if total is None else 10 * done // max(total, 1)
        if step > said:
            said = step
            log.info(f"{done:,} documents" if total is None else f"{done:,} of {total:,} documents")

    return progress
