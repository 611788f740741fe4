"""Servers that misbehave on demand, for the errors a healthy embedded node cannot produce.

What belongs here: fixtures for io tests. What does not: tests. The stub exists because the embedded node has no
security; the proxy stands in front of the real node and lets everything through that a test does not name.
"""

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

ELASTICSEARCH = {
    "X-Elastic-Product": "Elasticsearch",
    "Content-Type": "application/vnd.elasticsearch+json;compatible-with=9",
}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(ELASTICSEARCH))

    @classmethod
    def of(cls, status: int, content: Any, **headers: str) -> "Answer":
        return cls(status, json.dumps(content).encode(), {**ELASTICSEARCH, **headers})

    @property
    def content(self) -> Any:
        return json.loads(self.body)


Handle = Callable[[Request], Answer | None]


@pytest.fixture
def answer() -> type[Answer]:
    """The class of answers, for tests that make their own."""
    return Answer


class Server:
    """Answers with whatever ``handle`` returns; None closes the connection without an answer."""

    def __init__(self, handle: Handle, tls: ssl.SSLContext | None = None) -> None:
        self.handle = handle
        self.requests: list[Request] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                headers = {k.lower(): v for k, v in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(size))
                server.requests.append(request)
                answer = server.handle(request)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # clients that give up on purpose

        self._http = Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port = int(self._http.server_address[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """A function that starts a stub server: ``serve(handle, tls=None)``."""
    servers: list[Server] = []

    def start(handle: Handle, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(handle, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Proxy(Server):
    """The real node, except for what a test puts into ``fault``: it gets the request, may return ``forward(...)``."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self.fault: Callable[[Request], Answer | None] = self.forward
        super().__init__(lambda request: self.fault(request))

    def forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k not in ("host", "content-length", "connection")}
            connection.request(request.method, request.path, request.body or None, headers)
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() in ("x-elastic-product", "content-type")}
            return Answer(answer.status, answer.read(), kept)
        finally:
            connection.close()

    def refuse_items(self, status_of: Callable[[str], int | None], error: dict[str, str] | None = None) -> None:
        """Answer for chosen bulk items (by id) with a status, without handing them to the node."""
        error = error or {
            "type": "es_rejected_execution_exception",
            "reason": "rejected execution of coordinating operation",
        }

        def fault(request: Request) -> Answer:
            if "_bulk" not in request.path:
                return self.forward(request)
            lines, items = request.body.splitlines(keepends=True), []
            while lines:
                action = json.loads(lines[0])
                size = 1 if "delete" in action else 2
                items.append((next(iter(action)), next(iter(action.values()))["_id"], b"".join(lines[:size])))
                lines = lines[size:]
            refused = {i: status for i, (_, key, _) in enumerate(items) if (status := status_of(key)) is not None}
            passed = [item for i, item in enumerate(items) if i not in refused]
            answered = []
            if passed:
                request.body = b"".join(text for _, _, text in passed)
                answered = self.forward(request).content.get("items", [])
            if request.path.endswith("filter_path=errors"):
                return Answer.of(200, {"errors": bool(refused)})
            taken = iter(answered)
            return Answer.of(
                200,
                {
                    "items": [
                        {kind: {"status": refused[i], "error": error}} if i in refused else next(taken)
                        for i, (kind, _, _) in enumerate(items)
                    ]
                },
            )

        self.fault = fault


@pytest.fixture
def proxy(elasticsearch_url: str) -> Iterator[Proxy]:
    server = Proxy(elasticsearch_url)
    yield server
    server.close()
