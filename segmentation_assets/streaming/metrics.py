"""What a worker counts of itself: for Prometheus, for the live page, and for the hourly record.

What belongs here: counting, percentiles, and the page ``/metrics``. What does not: judging the numbers
(core.live.health), keeping them (io.live_store).

Counting costs a few array operations a step, whatever the number of its events: nothing is done event by event.
Prometheus is told only when it asks. Without prometheus-client everything is counted, only not served.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric

RESULTS: Final = ("applied", "duplicate", "late", "dead", "other")
"""What a record can come to, each to one: ``late`` and ``dead`` are both dead letters, for being late and for any other
reason; ``other`` is no event of a user."""

LATENCY_SECONDS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0),
)
"""Upper bounds of the latency histogram. The figures to reach, 20 ms and 150 ms, are among them and can be read off."""

STEP_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEP_EVENTS: Final = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 50_000.0, 100_000.0)

WINDOW_SECONDS: Final = 60
"""Percentiles are of the last minute .."""

RATE_SECONDS: Final = 10
""".. and rates of the last ten seconds."""

_FINE = np.union1d(np.geomspace(1.0, 60_000.0, 560), np.array(LATENCY_SECONDS) * 1000)
"""Milliseconds. Neighbours are at most 2% apart, and so is a percentile from the true one; the histogram's bounds are
among them, so both are made of the same counts."""


class Metrics:
    """Counts of one worker since it began. Safe to use from several threads.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._events = dict.fromkeys(RESULTS, 0)
        self._segmented = 0
        self._changes: dict[str, int] = {}
        self._lag: dict[str, int] = {}
        self._sinks: dict[str, int] = {}
        self._version = ""
        self._models = 0
        self._batches = _Histogram(STEP_EVENTS)
        self._steps = _Histogram(STEP_SECONDS)
        self._commits = _Histogram(STEP_SECONDS)
        self._latency = np.zeros(len(_FINE) + 1, np.int64)
        self._latency_ms = 0.0
        # One row a second; a row is of the second in _second, and void when that is not of the last minute.
        self._second = np.full(WINDOW_SECONDS, -1, np.int64)
        self._recent_events = np.zeros(WINDOW_SECONDS, np.int64)
        self._recent_latency = np.zeros((WINDOW_SECONDS, len(_FINE) + 1), np.int64)
        self._registry: CollectorRegistry | None = None
        self._server: Any = None

    # --- told by the worker ------------------------------------------------------------------------------------------

    def step(
        self,
        *,
        applied: int,
        duplicates: int,
        late: int,
        dead: int,
        other: int,
        events: int,
        seconds: float,
        commit_seconds: float,
        latencies_ms: NDArray[Any],
        segmented: int = 0,
    ) -> None:
        """Count one step.

        Args:
            applied: events that counted.
            duplicates: events that were there before.
            late: events that came too late.
            dead: dead letters: events that cannot be used, and the late ones, which are told in both.
            other: records that are no event of a user.
            events: all records of the step.
            seconds: that the step took.
            commit_seconds: of these, what the store took.
            latencies_ms: (n,) numbers, milliseconds from arrival at the broker to the commit; events whose arrival is
                not known are left out. What is below 0, as clocks differ, counts as 0.
            segmented: users who were looked at anew.
        """
        # msgspec and brokers give whole numbers or floats: one kind, so that searching needs no conversion later.
        latencies = np.maximum(np.asarray(latencies_ms, np.float64), 0.0)
        counts = np.bincount(np.searchsorted(_FINE, latencies, side="left"), minlength=len(_FINE) + 1)
        total = float(latencies.sum())
        with self._lock:
            for result, number in zip(RESULTS, (applied, duplicates, late, dead - late, other), strict=True):
                self._events[result] += number
            self._segmented += segmented
            self._batches.observe(float(events))
            self._steps.observe(seconds)
            self._commits.observe(commit_seconds)
            self._latency += counts
            self._latency_ms += total
            row = self._row()
            self._recent_events[row] += events
            self._recent_latency[row] += counts

    def lag(self, waiting: Mapping[str, int]) -> None:
        """Records that wait, by partition; a partition that is not named is no longer this worker's."""
        with self._lock:
            self._lag = dict(waiting)

    def sink_lag(self, waiting: Mapping[str, int]) -> None:
        """Changes that are stored and not yet told on, by sink; other sinks keep what was said of them."""
        with self._lock:
            self._sinks.update(waiting)

    def model(self, version: str) -> None:
        """The model that events are segmented by from now on."""
        with self._lock:
            if version != self._version:
                self._version = version
                self._models += 1

    def changed(self, changes: Mapping[str, int]) -> None:
        """Users who came into each segment."""
        with self._lock:
            for segment, users in changes.items():
                self._changes[segment] = self._changes.get(segment, 0) + users

    # --- asked -------------------------------------------------------------------------------------------------------

    def percentiles(self) -> tuple[float, float, float] | None:
        """p50, p95 and p99 of latency in the last minute, milliseconds, within 2%; None without an event."""
        with self._lock:
            return self._percentiles()

    def said(self) -> dict[str, object]:
        """All of it as JSON can say it: what a worker reports to the store and the live page shows.

        Returns:
            ``seconds`` since the worker began, ``model``, ``models`` (how many it has used), ``events`` (all),
            ``applied``, ``duplicates``, ``late``, ``dead`` (late ones too), ``other``, ``segmented``, ``changes``,
            ``events_per_second`` of the last 10 s, ``p50_ms``, ``p95_ms``, ``p99_ms`` of the last minute (None without
            an event), ``lag`` (all), ``partitions`` (lag of each), ``sinks`` (sink to changes that wait), ``steps``,
            ``step_ms`` and ``commit_ms`` (means since it began; None before the first step).
        """
        with self._lock:
            now = self._clock()
            found = self._percentiles()
            p50, p95, p99 = (None, None, None) if found is None else (round(value, 3) for value in found)
            return {
                "seconds": round(now - self._started, 3),
                "model": self._version,
                "models": self._models,
                "events": sum(self._events.values()),
                "applied": self._events["applied"],
                "duplicates": self._events["duplicate"],
                "late": self._events["late"],
                "dead": self._events["dead"] + self._events["late"],
                "other": self._events["other"],
                "segmented": self._segmented,
                "changes": dict(self._changes),
                "events_per_second": round(self._rate(now), 1),
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "lag": sum(self._lag.values()),
                "partitions": dict(self._lag),
                "sinks": dict(self._sinks),
                "steps": self._steps.number,
                "step_ms": self._steps.mean(1000),
                "commit_ms": self._commits.mean(1000),
            }

    def _row(self) -> int:
        """The row of this second, emptied of what was a minute ago."""
        second = int(self._clock())
        row = second % WINDOW_SECONDS
        if self._second[row] != second:
            self._second[row] = second
            self._recent_events[row] = 0
            self._recent_latency[row] = 0
        return row

    def _percentiles(self) -> tuple[float, float, float] | None:
        counts = self._recent_latency[self._second > int(self._clock()) - WINDOW_SECONDS].sum(axis=0)
        total = int(counts.sum())
        if not total:
            return None
        # Within a bin values are taken as evenly spread, as Prometheus does; beyond the last bound it is the bound.
        reached = np.cumsum(counts)
        wanted = np.array([0.5, 0.95, 0.99]) * total
        places = np.searchsorted(reached, wanted, side="left")
        upper = np.append(_FINE, _FINE[-1])[places]
        lower = np.concatenate([[0.0], _FINE])[places]
        p50, p95, p99 = upper - (upper - lower) * (reached[places] - wanted) / counts[places]
        return float(p50), float(p95), float(p99)

    def _rate(self, now: float) -> float:
        recent = self._second > int(now) - RATE_SECONDS
        begin = max(int(now) - RATE_SECONDS + 1, self._started)
        return float(self._recent_events[recent].sum()) / max(now - begin, 1.0)

    # --- Prometheus --------------------------------------------------------------------------------------------------

    def registry(self) -> "CollectorRegistry | None":
        """What Prometheus is told, with memory and processor time of the process; None without prometheus-client."""
        if self._registry is None:
            try:
                from prometheus_client import CollectorRegistry, ProcessCollector
            except ImportError:
                return None
            self._registry = CollectorRegistry()
            self._registry.register(_Told(self))
            ProcessCollector(registry=self._registry)
        return self._registry

    def page(self) -> bytes | None:
        """What ``/metrics`` shows, in Prometheus' text format; None without prometheus-client."""
        registry = self.registry()
        if registry is None:
            return None
        from prometheus_client import generate_latest

        return generate_latest(registry)

    def start_http(self, port: int, host: str = "127.0.0.1") -> int | None:
        """Serve ``/metrics`` until ``close``.

        Args:
            port: to listen on; 0 takes a free one.
            host: to listen on.

        Returns:
            the port; None without prometheus-client.

        Raises:
            OSError: the port is taken.
        """
        registry = self.registry()
        if registry is None:
            return None
        from prometheus_client import start_http_server

        self._server, _ = start_http_server(port, host, registry)
        return int(self._server.server_port)

    def close(self) -> None:
        """Serve no longer; counts stay."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def families(self) -> "Iterable[Metric]":
        """The metrics as prometheus-client knows them."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            events, changes, lag, sinks = dict(self._events), dict(self._changes), dict(self._lag), dict(self._sinks)
            version, segmented = self._version, self._segmented
            batches = self._batches.family("segments_stream_batch_events", "Events in one step.")
            steps = self._steps.family("segments_stream_step_seconds", "How long a step took.")
            commits = self._commits.family("segments_stream_commit_seconds", "How long the store took for a step.")
            latency, latency_sum = np.cumsum(self._latency), self._latency_ms / 1000
        counted = CounterMetricFamily("segments_stream_events", "Events, by what they came to.", labels=["result"])
        for result, number in events.items():
            counted.add_metric([result], number)
        came = CounterMetricFamily("segments_stream_changes", "Users who came into a segment.", labels=["segment"])
        for segment, number in changes.items():
            came.add_metric([segment], number)
        waiting = GaugeMetricFamily("segments_stream_lag_events", "Events that wait.", labels=["partition"])
        for partition, number in lag.items():
            waiting.add_metric([partition], number)
        untold = GaugeMetricFamily("segments_stream_sink_lag_changes", "Changes not yet told on.", labels=["sink"])
        for sink, number in sinks.items():
            untold.add_metric([sink], number)
        model = GaugeMetricFamily("segments_stream_model_info", "The model in use.", labels=["version"])
        if version:
            model.add_metric([version], 1)
        anew = CounterMetricFamily("segments_stream_segmented_users", "Users looked at anew.", value=segmented)
        places = np.searchsorted(_FINE, np.array(LATENCY_SECONDS) * 1000)
        arrival = _family(
            "segments_stream_latency_seconds",
            "From arrival at the broker to the commit.",
            LATENCY_SECONDS,
            [*latency[places].tolist(), int(latency[-1])],
            latency_sum,
        )
        yield from (counted, came, waiting, untold, model, anew, batches, steps, commits, arrival)


class _Told:
    """Metrics as a collector: asked when Prometheus asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> "Iterable[Metric]":
        return self._metrics.families()


class _Histogram:
    """Counts of single numbers between fixed bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self.number = 0

    def observe(self, value: float) -> None:
        place = 0
        for bound in self._bounds:
            if value <= bound:
                break
            place += 1
        self._counts[place] += 1
        self._total += value
        self.number += 1

    def mean(self, factor: float) -> float | None:
        return round(self._total / self.number * factor, 3) if self.number else None

    def family(self, name: str, help_text: str) -> "HistogramMetricFamily":
        return _family(name, help_text, self._bounds, np.cumsum(self._counts).tolist(), self._total)


def _family(
    name: str, help_text: str, bounds: tuple[float, ...], reached: list[int], total: float
) -> "HistogramMetricFamily":
    from prometheus_client.metrics_core import HistogramMetricFamily

    found = HistogramMetricFamily(name, help_text)
    names = [*map(str, bounds), "+Inf"]
    found.add_metric([], buckets=list(zip(names, reached, strict=True)), sum_value=total)
    return found
