"""Changes as Server-sent events, over a real connection."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx
import pytest

from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.serving import hub
from segmentation_assets.serving.app import create_app
from segmentation_assets.serving.keys import ApiKeys
from segmentation_assets_tests.serving.live_shop import Shop, listening, search
from segmentation_assets_tests.serving.test_serving_api import wait_for


def api(shop: Shop):
    return create_app(shop.store, ServeSettings(), StreamSettings(), ApiKeys())


@contextmanager
def stream(url: str, **headers: str) -> Iterator[Iterator[str]]:
    """Lines of a stream, after the one that says that it listens."""
    with httpx.stream("GET", f"{url}/v1/changes/stream", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("retry: ")
        assert next(lines) == ": listening"
        yield lines


def take(lines: Iterator[str], number: int) -> list[dict[str, Any]]:
    """So many changes; each with its id twice, in the event and in the data."""
    found: list[dict[str, Any]] = []
    event: dict[str, str] = {}
    while len(found) < number:
        line = next(lines)
        if line.startswith(("id:", "event:", "data:")):
            name, _, value = line.partition(": ")
            event[name] = value
        elif not line and "data" in event:
            change = json.loads(event["data"])
            assert (event["event"], event["id"]) == ("change", change["id"])
            found.append(change)
            event = {}
    return found


def test_whoever_listens_is_told_what_comes_and_nothing_before(shop: Shop) -> None:
    with listening(api(shop)) as url, stream(url) as one, stream(url) as two:
        shop.do([search(f"user {number}", "gaming laptop") for number in range(50)])
        for lines in (one, two):
            assert [change["user_id"] for change in take(lines, 50)] == [f"user {number}" for number in range(50)]


def test_after_a_break_what_was_missed_is_told_once_and_in_order(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmentation_assets.serving.changes.PAGE", 7)
    with listening(api(shop)) as url:
        with stream(url) as lines:
            shop.do([search("first", "gaming laptop")])
            (last,) = take(lines, 1)
        shop.do([search(f"missed {number}", "gaming laptop") for number in range(30)])
        with stream(url, **{"Last-Event-ID": last["id"]}) as lines:
            missed = take(lines, 30)
            shop.do([search(f"later {number}", "gaming laptop") for number in range(5)])
            later = take(lines, 5)
    assert [change["user_id"] for change in missed + later] == [
        *(f"missed {number}" for number in range(30)),
        *(f"later {number}" for number in range(5)),
    ]


def test_a_silent_stream_is_kept_alive(memory_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmentation_assets.serving.changes.HEARTBEAT_SECONDS", 0.05)
    with listening(api(memory_shop)) as url, stream(url) as lines:
        assert [next(lines) for _ in range(4)] == ["", ": still here", "", ": still here"]


def test_streams_end_when_the_api_stops_and_not_only_when_clients_do(memory_shop: Shop) -> None:
    rest: list[str] = []
    with listening(api(memory_shop)) as url:
        connected = threading.Event()

        def listen() -> None:
            with stream(url) as lines:
                connected.set()
                rest.extend(lines)

        thread = threading.Thread(target=listen)
        thread.start()
        assert connected.wait(30)
    thread.join(30)
    assert not thread.is_alive()
    assert rest == [""]


def test_only_so_many_can_listen_and_room_is_made_by_leaving(
    memory_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "LISTENERS", 1)
    monkeypatch.setattr("segmentation_assets.serving.changes.HEARTBEAT_SECONDS", 0.05)
    with listening(api(memory_shop)) as url:
        with stream(url):
            refused = httpx.get(f"{url}/v1/changes/stream")
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert refused.headers["content-type"] == "application/problem+json"

        def again() -> int:
            with httpx.stream("GET", f"{url}/v1/changes/stream") as answer:
                return answer.status_code

        wait_for(again, lambda status: status == 200)


def test_many_who_come_at_once_are_not_all_let_in(memory_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LISTENERS", 2)
    app = api(memory_shop)
    found = app.state.service.hub

    async def come() -> list[bool]:
        async with AsyncExitStack() as stack:
            listeners = [await stack.enter_async_context(found.listening()) for _ in range(5)]
            assert len(found._listeners) == 2
            return [listener.ended for listener in listeners]

    assert asyncio.run(come()) == [False, False, True, True, True]


def test_a_client_that_takes_nothing_gives_its_place_up(memory_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmentation_assets.serving.changes.SEND_SECONDS", 0.05)
    app = api(memory_shop)
    started = []

    async def come() -> None:
        async def send(message: Any) -> None:
            started.append(message["type"])
            if message["type"] == "http.response.body":
                await asyncio.sleep(3600)

        async def receive() -> Any:
            await asyncio.sleep(3600)

        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": "/v1/changes/stream", "query_string": b"",
            "raw_path": b"/v1/changes/stream", "root_path": "", "scheme": "http", "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0", "spec_version": "2.4"},
        }  # fmt: skip
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
            assert not app.state.service.hub._listeners

    asyncio.run(asyncio.wait_for(come(), 30))
    assert started == ["http.response.start", "http.response.body"]


def test_whoever_is_too_slow_is_cut_off() -> None:
    slow = hub.Listener()
    for _ in range(11):
        slow.give([None] * 1_000)  # type: ignore[list-item]
    assert slow.ended


def test_an_id_that_is_none_is_refused(memory_shop: Shop) -> None:
    with listening(api(memory_shop)) as url:
        answer = httpx.get(f"{url}/v1/changes/stream", headers={"Last-Event-ID": "yesterday"})
        assert answer.status_code == 422
