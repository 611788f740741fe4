"""The garbage collector is off inside, and afterwards what it was before, however pauses overlap."""

import gc
import threading

import pytest

from segmentation_assets.core.collector import collector_paused


@pytest.fixture(autouse=True)
def enabled():
    gc.enable()
    yield
    gc.enable()


def test_it_is_off_inside_and_on_again_outside_also_after_an_error():
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), collector_paused():  # noqa: PT011
        raise ValueError
    assert gc.isenabled()


def test_where_somebody_switched_it_off_it_stays_off():
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_the_last_of_several_threads_switches_it_on_again():
    inside, leave = threading.Barrier(3), threading.Event()

    @collector_paused()
    def wait() -> None:
        inside.wait()
        leave.wait()

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with collector_paused():
        pass
    assert not gc.isenabled()
    leave.set()
    for thread in threads:
        thread.join()
    assert gc.isenabled()
