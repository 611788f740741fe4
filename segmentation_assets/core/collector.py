"""Python's cyclic garbage collector, put aside while many objects are made that are all still needed.

What belongs here: pausing and resuming it. What does not: any other tuning of the interpreter.

Every so many new objects the collector looks through all there are, those of the imported packages included (a million
with Dagster and scikit-learn), and finds nothing: columns, words and rows refer to each other in no cycle. On 200,000
sessions that is half the time of vectorizing. What is no longer referred to is freed at once all the same.
"""

import gc
import threading
from contextlib import ContextDecorator

_lock = threading.Lock()
_pauses = 0
_was_enabled = False


class collector_paused(ContextDecorator):  # reads as what it is, a decorator or a with statement
    """No cyclic garbage collection inside, in any thread; the last one out puts it back to what it was."""

    def __enter__(self) -> None:
        global _pauses, _was_enabled
        with _lock:
            if _pauses == 0:
                _was_enabled = gc.isenabled()
                gc.disable()
            _pauses += 1

    def __exit__(self, *_: object) -> None:
        global _pauses
        with _lock:
            _pauses -= 1
            if _pauses == 0 and _was_enabled:
                gc.enable()
