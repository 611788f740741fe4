"""So many requests a minute, whatever the moment at which a minute begins."""

import pytest

from segmentation_assets.serving import rates
from segmentation_assets.serving.rates import Rates


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("begin", [0.0, 0.5, 29.0, 59.9])
@pytest.mark.parametrize("most", [1, 2, 60])
def test_after_the_time_that_was_told_there_is_room_and_a_moment_before_there_is_none(begin: float, most: int) -> None:
    clock = Clock(600.0 + begin)
    rate = Rates(most, clock)
    assert [rate.take("it") for _ in range(most)] == [0] * most
    wait = rate.take("it")
    assert 1 <= wait <= 120
    clock.now += wait - 1.01
    assert rate.take("it")
    clock.now += 1.02
    assert rate.take("it") == 0


def test_one_does_not_wait_for_another() -> None:
    rate = Rates(1, Clock())
    assert (rate.take("one"), rate.take("two")) == (0, 0)
    assert rate.take("one")


def test_requests_of_the_minute_before_count_by_the_part_that_is_less_than_a_minute_ago() -> None:
    clock = Clock(600.0)
    rate = Rates(10, clock)
    assert not any(rate.take("it") for _ in range(10))
    clock.now += 90.0  # half of them
    assert [rate.take("it") > 0 for _ in range(6)] == [False] * 5 + [True]


def test_only_so_many_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "NAMES", 100)
    clock = Clock()
    rate = Rates(5, clock)
    for number in range(1_000):
        assert rate.take(str(number)) == 0
        clock.now += 1.0
        assert len(rate._counts) <= 121
