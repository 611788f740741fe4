"""What does not answer is left alone for a moment, and then asked by one alone."""

import asyncio
import threading

import pytest

from segmentation_assets.serving import reading
from segmentation_assets.serving.problems import UnavailableError
from segmentation_assets.serving.reading import Reads


class Silent:
    """Takes questions; answers once it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()

    def __call__(self) -> str:
        self.asked += 1
        assert self.answers.wait(30)
        return "answer"


async def refused(reads: Reads, silent: Silent) -> bool:
    try:
        await reads(silent)
    except UnavailableError:
        return True
    return False


def test_of_what_is_silent_one_asks_and_the_others_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "REST_SECONDS", 0.0)
    silent = Silent()

    async def ask() -> None:
        reads = Reads("thing", 8, (), seconds=0.2)
        assert await refused(reads, silent)
        assert silent.asked == 1
        assert all(await asyncio.gather(*(refused(reads, silent) for _ in range(20))))
        assert silent.asked == 2
        silent.answers.set()
        assert await reads(silent) == "answer"
        assert not any(await asyncio.gather(*(refused(reads, silent) for _ in range(20))))
        reads.close()

    asyncio.run(ask())


def test_after_no_answer_nobody_asks_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "REST_SECONDS", 3_600.0)
    asked = []

    def away() -> None:
        asked.append(1)
        raise ConnectionError

    async def ask() -> None:
        reads = Reads("thing", 2, (ConnectionError,))
        for _ in range(3):
            with pytest.raises(UnavailableError, match="does not answer"):
                await reads(away)
        reads.close()

    asyncio.run(ask())
    assert len(asked) == 1
