"""The server itself: who connects and says nothing is let go."""

import socket
import threading
import time

import pytest
import uvicorn

from segmentation_assets.serving import run
from segmentation_assets_tests.serving.live_shop import Shop
from segmentation_assets_tests.serving.test_change_stream import api

HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) == b""
    except ConnectionResetError:
        return True


def test_a_connection_on_which_no_request_comes_is_closed(memory_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEAD_SECONDS", 0.5)
    app = api(memory_shop)
    server = uvicorn.Server(uvicorn.Config(app, http=run._impatient(), log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as port:
        thread = threading.Thread(target=lambda: server.run(sockets=[port]))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            for said in (b"", b"GET /health/li", HEAD):
                with socket.create_connection(port.getsockname(), timeout=20) as connection:
                    connection.sendall(said)
                    assert closed(connection)
            with socket.create_connection(port.getsockname(), timeout=20) as connection:
                for _ in range(2):  # the second one begins, and has no end
                    connection.sendall(HEAD + b"\r\n")
                    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
                connection.sendall(HEAD)
                assert closed(connection)
        finally:
            server.should_exit = True
            thread.join()
