"""Listening on a port until somebody says stop.

What belongs here: the server. What does not: the application (app).
"""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from fastapi import FastAPI

from segmentation_assets.errors import SegmentsError
from segmentation_assets.serving.guard import is_loopback
from segmentation_assets.serving.service import Service

HEAD_SECONDS = 10
"""Within which a client has to say what it wants, once it is connected or has begun to."""

STOP_SECONDS = 10
"""Within which requests under way have to come to their end."""


class ServeError(SegmentsError):
    """The API cannot listen there."""


def require_safe(host: str, keys_required: bool) -> None:
    """Refuse to be reachable from elsewhere without keys.

    Raises:
        ServeError: it would be.
    """
    if not keys_required and not is_loopback(host):
        raise ServeError(
            f"Without API keys the API cannot listen on {host}: anybody could read what users do.",
            "Make a key with `segments serve new-key` and name its file by --keys, or listen on 127.0.0.1.",
        )


def serve(app: FastAPI, host: str, port: int, on_listening: Callable[[str], None]) -> None:
    """Listen until SIGTERM or SIGINT; streams of changes are ended then, other requests answered.

    Args:
        app: of ``create_app``.
        host: to listen on.
        port: 0: any free one.
        on_listening: told the address.

    Raises:
        ServeError: the port cannot be used.
    """
    import uvicorn

    service: Service = app.state.service

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # Without a word to them, streams would keep the server from ending. And the signal is not raised again
            # afterwards, as uvicorn does: it is how one ends it.
            if self.should_exit and sig == signal.SIGINT:
                self.force_exit = True
            self.should_exit = True
            service.hub.close()

    try:
        listening = socket.create_server(
            (host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise ServeError(
            f"Port {port} on {host} cannot be used: {error.strerror or error}.", "Choose another with --port."
        ) from None
    config = uvicorn.Config(
        app,
        http=_impatient(),
        log_config=None,
        access_log=False,  # the guard's says less of users
        server_header=False,
        proxy_headers=False,  # who may ask is decided by where a request comes from
        ws="none",
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    name, actual = listening.getsockname()[:2]
    for noisy in ("uvicorn.error", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # What was imported stays: looking through it for garbage would hold requests up by a tenth of a second.
    gc.collect()
    gc.freeze()
    with listening:
        on_listening(f"http://{f'[{name}]' if ':' in name else name}:{actual}")
        Server(config).run(sockets=[listening])


def _impatient() -> Any:
    """The server's side of a connection, which is closed where no request comes: uvicorn alone waits for ever, and
    whoever opens connections and says nothing takes all that the process may have.

    Only with httptools, which tells where a request begins; else uvicorn's own.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "auto"

    class Impatient(HttpToolsProtocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_longer()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._patience is None:
                self._wait()

        def on_headers_complete(self) -> None:
            self._wait_no_longer()
            super().on_headers_complete()

        def _wait(self) -> None:
            self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

        def _wait_no_longer(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return Impatient
