"""Requests, counted for Prometheus.

What belongs here: what is counted of the API. What does not: the numbers of the stream (streaming.metrics). Without
prometheus-client nothing is counted and the API works as well.
"""

from importlib.util import find_spec

METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS"})
BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ApiMetrics:
    """Requests and how long they took, by route; never by user or key."""

    def __init__(self) -> None:
        self.available = find_spec("prometheus_client") is not None
        """Whether anything is counted."""
        if self.available:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

            self._registry = CollectorRegistry()
            self._requests = Counter(
                "segments_api_requests",
                "Requests.",
                ["method", "route", "status"],
                registry=self._registry,
            )
            self._seconds = Histogram(
                "segments_api_seconds", "Seconds to the end of an answer.", ["route"],
                buckets=BUCKETS, registry=self._registry,
            )  # fmt: skip
            self._streams = Gauge("segments_api_streams", "Streams of changes that are open.", registry=self._registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; a stream of changes, which lasts, is not timed."""
        if self.available:
            self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
            if not route.endswith("/stream"):
                self._seconds.labels(route).observe(seconds)

    def streams(self, open_ones: int) -> None:
        """Note how many streams of changes are open."""
        if self.available:
            self._streams.set(open_ones)

    def page(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST
