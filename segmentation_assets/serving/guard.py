"""What every request passes through: who asks, how much, how often; and what every answer carries.

What belongs here: keys and scopes, limits, headers, the access log, and what becomes of an error that nobody foresaw.
What does not: what a request is about (the routes).
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmentation_assets.core.settings import ServeSettings
from segmentation_assets.serving.keys import ApiKeys
from segmentation_assets.serving.metrics import ApiMetrics
from segmentation_assets.serving.problems import RefusedError, refusal
from segmentation_assets.serving.rates import Rates

log = logging.getLogger("segmentation_assets.serving")
access = logging.getLogger("segmentation_assets.serving.access")

OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/live", "/v1/openapi.json"})
"""Paths that need no key: whether it runs, what it offers, and a page without data."""

BODY_SECONDS = 30.0
"""Within which a request has to have come in full."""

MISTAKES = 60
"""Wrong keys a minute from one address, before it has to wait."""

_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def scope_of(path: str) -> str | None:
    """The scope that a path needs; None where it needs no key. What nobody has thought of needs 'read'."""
    if path in OPEN:
        return None
    if path == "/metrics":
        return "metrics"
    if path == "/v1/changes/stream":
        return "stream"
    if path == "/v1/assign" or path == "/v2" or path.startswith("/v2/"):
        return "assign"
    return "read"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        settings: limits.
        keys: who may ask.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, keys: ApiKeys, metrics: ApiMetrics) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._rate = Rates(settings.per_minute)
        self._mistakes = Rates(MISTAKES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        path: str = scope["path"]
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                there = {name for name, _ in headers}
                message["headers"] = headers + [entry for entry in _HEADERS if entry[0] not in there]
            await send(message)

        who = "-"
        try:
            who = self._admit(scope, path)
            if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                receive = await self._whole(scope, receive)
            await self._app(scope, receive, answer)
        except RefusedError as error:
            problem = refusal(path, error.status_code, error.detail, cure=error.cure, headers=error.headers)
            await problem(scope, receive, answer)
        except Exception:
            log.exception("a request to %s failed", _route(scope))
            if status:  # half of an answer is out: cutting it off is all that is left
                raise
            await refusal(path, 500, "Something went wrong here.")(scope, receive, answer)
        finally:
            seconds, route, method = time.perf_counter() - began, _route(scope), scope["method"]
            self._metrics.count(method, route, status, seconds)
            # The route, not the path: ids of users are in it, and what is no route may hold anything.
            access.info("%s %s %d %.1f ms %s", method[:10], route, status, seconds * 1000, who)

    def _admit(self, scope: Scope, path: str) -> str:
        """Name of who asks.

        Raises:
            RefusedError: 401, 403 or 429.
        """
        client = scope.get("client")
        address = client[0] if client else ""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, value)
        needed = scope_of(path)
        if not self._keys.required:
            self._require_this_machine(address, headers)
            who = "this machine"
        elif needed is None:
            return "-"
        else:
            who = self._owner(headers, needed, address)
        if needed is not None and (seconds := self._rate.take(who)):
            raise _wait(f"More than {self._settings.per_minute} requests in a minute.", seconds)
        return who

    def _require_this_machine(self, address: str, headers: Mapping[bytes, bytes]) -> None:
        cure = "Start `segments serve` with API keys (--keys) to be asked from elsewhere."
        if not is_loopback(address) or not _FORWARDED.isdisjoint(headers):
            raise RefusedError(403, "Without API keys only this machine may ask.", cure)
        host = headers.get(b"host", b"").decode("latin-1")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in _LOOPBACK_NAMES:
            # A web page elsewhere may have a name that leads here; then this header tells.
            raise RefusedError(403, "Without API keys this machine is only answered by the name localhost.", cure)

    def _owner(self, headers: Mapping[bytes, bytes], needed: str, address: str) -> str:
        kind, _, sent = headers.get(b"authorization", b"").partition(b" ")
        key = sent.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"").strip()
        if not key:
            raise _unauthorized("An API key is needed.")
        entry = self._keys.owner(key.decode("latin-1"))
        if entry is None:
            # Only who sends a wrong key waits: behind a proxy others have the same address.
            if seconds := self._mistakes.take(address):
                raise _wait("Too many wrong keys.", seconds)
            raise _unauthorized("This API key is not known.")
        if needed not in entry.scopes:
            raise RefusedError(
                403,
                f"This API key lacks the scope '{needed}'.",
                "Use another key.",
                {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'},
            )
        return entry.name

    async def _whole(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body, so that its size is known whatever it says of itself.

        Raises:
            RefusedError: 408, 413.
        """
        most = self._settings.max_body_bytes
        too_large = RefusedError(413, f"A request may have {most} bytes.", "Send less at a time.")
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or len(value) > 18 or int(value) > most):
                raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _replayed(None, receive)
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RefusedError(408, f"The request did not come in full within {BODY_SECONDS:.0f} s.") from None
        return _replayed(bytes(body), receive)


def _replayed(body: bytes | None, receive: Receive) -> Receive:
    first = True

    async def again() -> Message:
        nonlocal first
        if body is None:
            return {"type": "http.disconnect"}
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _unauthorized(detail: str) -> RefusedError:
    cure = "Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
    return RefusedError(401, detail, cure, {"WWW-Authenticate": "Bearer"})


def _wait(detail: str, seconds: int) -> RefusedError:
    return RefusedError(429, detail, f"Ask again in {seconds} s.", {"Retry-After": str(seconds)})


def _route(scope: Mapping[str, Any]) -> str:
    return getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", None) or "none"
