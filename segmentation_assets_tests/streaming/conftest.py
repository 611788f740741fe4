"""What the tests of the stream share: a model made of generated sessions, and their events in order.

What belongs here: fixtures. What does not: tests, and the parts of a stream that do as they are told (scripted_source).
"""

import pytest

from segmentation_assets.core.live.events import Event, events_of_session
from segmentation_assets_tests.batch_side import Batch, batch_side


@pytest.fixture(scope="session")
def batch() -> Batch:
    """150 users, a thousand sessions, a good 6,000 events."""
    return batch_side(1_000, 6, method="kmeans")


@pytest.fixture(scope="session")
def events(batch: Batch) -> list[Event]:
    """In the order of their times."""
    found = [event for document in batch.documents for event in events_of_session(document)]
    return sorted(found, key=lambda event: event.timestamp)
