"""A long step says now and then how far it is, how fast it goes and how long it will take."""

import logging

import pytest

from segmentation_assets.defs.progress import log_progress


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("progress")


def test_every_tenth_of_the_way_with_rate_and_time_left(log, caplog):
    now = iter([0.0, 2.0, 4.0, 20.0])
    with caplog.at_level(logging.INFO):
        progress = log_progress(log, lambda: next(now))
        for done in (50, 100, 150, 200, 1_000):
            progress(done, 1_000)
    assert caplog.messages == [
        "100 of 1,000 documents, 50 a second, 18 s left",
        "200 of 1,000 documents, 50 a second, 16 s left",
        "1,000 of 1,000 documents, 50 a second",
    ]


def test_every_hundred_thousand_while_the_total_is_unknown(log, caplog):
    with caplog.at_level(logging.INFO):
        progress = log_progress(log, lambda: 0.0)
        for done in range(0, 250_001, 50_000):
            progress(done, None)
    assert caplog.messages == ["100,000 documents", "200,000 documents"]
