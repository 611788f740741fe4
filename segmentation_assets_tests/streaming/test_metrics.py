"""What a worker counts of itself, what Prometheus reads of it, and that the dashboard asks for nothing else."""

import builtins
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from segmentation_assets.serving.metrics import ApiMetrics
from segmentation_assets.streaming.metrics import LATENCY_SECONDS, RESULTS, Metrics

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "docker" / "grafana"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""(name, labels) to value."""


class Clock:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock)


def step(metrics: Metrics, latencies: Any = (), **instead: Any) -> None:
    told = {"applied": 5, "duplicates": 0, "late": 0, "dead": 0, "other": 0, "events": 5, "seconds": 0.01}
    metrics.step(**{**told, "commit_seconds": 0.004, "latencies_ms": np.array(latencies), **instead})


def samples(metrics: Metrics) -> Samples:
    page = metrics.page()
    assert page is not None
    return read(page)


def read(page: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_every_record_has_one_result_and_a_late_one_is_a_dead_letter_too(metrics: Metrics) -> None:
    step(metrics, applied=90, duplicates=3, late=2, dead=6, other=1, events=100)
    step(metrics, applied=10, events=10)
    found = samples(metrics)
    results = {name: found["segments_stream_events_total", (("result", name),)] for name in RESULTS}
    assert results == {"applied": 100, "duplicate": 3, "late": 2, "dead": 4, "other": 1}
    said = metrics.said()
    assert (said["events"], said["applied"], said["late"], said["dead"]) == (110, 100, 2, 6)


def test_percentiles_are_within_two_percent_of_the_true_ones(metrics: Metrics) -> None:
    latencies = np.random.default_rng(1).lognormal(3, 1, 50_000)
    for part in np.split(latencies, 10):
        step(metrics, part)
    assert metrics.percentiles() == pytest.approx(np.percentile(latencies, [50, 95, 99]), rel=0.02)


def test_percentiles_are_of_the_last_minute_only(metrics: Metrics, clock: Clock) -> None:
    step(metrics, [50_000.0] * 100)
    clock.now += 59
    step(metrics, [10.0] * 100)
    found = metrics.percentiles()
    assert found is not None
    assert found[2] > 40_000
    clock.now += 1
    found = metrics.percentiles()
    assert found == pytest.approx((10, 10, 10), rel=0.02)
    clock.now += 60
    assert metrics.percentiles() is None
    assert metrics.said()["p99_ms"] is None


def test_a_second_that_comes_again_in_the_ring_starts_empty(metrics: Metrics, clock: Clock) -> None:
    step(metrics, [1_000.0] * 100)
    clock.now += 60
    step(metrics, [10.0] * 100)
    assert metrics.percentiles() == pytest.approx((10, 10, 10), rel=0.02)


def test_the_rate_is_of_the_last_ten_seconds(metrics: Metrics, clock: Clock) -> None:
    for _ in range(30):
        step(metrics, applied=1_000, events=1_000)
        clock.now += 1
    assert metrics.said()["events_per_second"] == pytest.approx(1_000, rel=0.12)
    clock.now += 10
    assert metrics.said()["events_per_second"] == 0
    assert metrics.said()["events"] == 30_000


def test_latencies_below_zero_and_beyond_the_last_bound_are_counted(metrics: Metrics) -> None:
    """Clocks of two machines differ, and a stream that was away comes back with old events."""
    step(metrics, [-5.0, 3_600_000.0])
    found = samples(metrics)
    assert found["segments_stream_latency_seconds_count", ()] == 2
    assert found["segments_stream_latency_seconds_bucket", (("le", "60.0"),)] == 1
    assert found["segments_stream_latency_seconds_bucket", (("le", "0.001"),)] == 1
    p50, _, p99 = metrics.percentiles() or (0, 0, 0)
    assert (p50 <= 1, p99) == (True, 60_000)


def test_the_histogram_of_latency_counts_what_is_at_most_each_bound(metrics: Metrics) -> None:
    milliseconds = np.array([0.5, 1.0, 19.9, 20.0, 20.1, 150.0, 900.0])
    step(metrics, milliseconds)
    found = samples(metrics)
    for bound in LATENCY_SECONDS:
        counted = found["segments_stream_latency_seconds_bucket", (("le", str(bound)),)]
        assert counted == (milliseconds <= bound * 1000).sum(), bound
    assert found["segments_stream_latency_seconds_sum", ()] == pytest.approx(milliseconds.sum() / 1000)


def test_a_partition_that_went_to_another_worker_is_no_longer_told(metrics: Metrics) -> None:
    metrics.lag({"events/0": 5, "events/1": 7})
    metrics.lag({"events/1": 2})
    metrics.sink_lag({"kafka": 3})
    metrics.sink_lag({"elasticsearch": 4})
    found = samples(metrics)
    lags = {labels: value for (name, labels), value in found.items() if name == "segments_stream_lag_events"}
    assert lags == {(("partition", "events/1"),): 2}
    assert metrics.said()["sinks"] == {"kafka": 3, "elasticsearch": 4}


def test_only_the_model_in_use_is_told_and_changes_add_up(metrics: Metrics) -> None:
    assert not [name for name, _ in samples(metrics) if name == "segments_stream_model_info"]
    for version in ("a", "b", "b"):
        metrics.model(version)
    metrics.changed({"tech": 2, "": 1})
    metrics.changed({"tech": 3})
    found = samples(metrics)
    assert [labels for name, labels in found if name == "segments_stream_model_info"] == [(("version", "b"),)]
    assert found["segments_stream_changes_total", (("segment", "tech"),)] == 5
    assert metrics.said()["models"] == 2


def test_what_is_said_is_json_and_without_a_step_nothing_is_invented(metrics: Metrics) -> None:
    said = json.loads(json.dumps(metrics.said()))
    assert (said["p50_ms"], said["step_ms"], said["events"], said["lag"]) == (None, None, 0, 0)
    step(metrics, np.array([1, 2, 3], np.int64))
    metrics.lag({"a/0": np.int64(3).item()})
    assert json.loads(json.dumps(metrics.said()))["steps"] == 1


def test_prometheus_reads_the_page_until_it_is_closed(metrics: Metrics) -> None:
    step(metrics, [5.0])
    port = metrics.start_http(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        metrics.close()
    assert 'segments_stream_events_total{result="applied"} 5.0' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_without_prometheus_everything_is_counted_and_nothing_served(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "prometheus_client":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    step(metrics, [5.0])
    assert metrics.said()["events"] == 5
    assert (metrics.page(), metrics.start_http(0)) == (None, None)
    metrics.close()


# --- the dashboard ----------------------------------------------------------------------------------------------------


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "live.json").read_text("utf-8"))
    return found


def known(metrics: Metrics) -> dict[str, set[str]]:
    """Metric name to the names of its labels."""
    step(metrics, [5.0])
    metrics.model("m")
    metrics.lag({"a/0": 1})
    metrics.sink_lag({"kafka": 1})
    metrics.changed({"tech": 1})
    api = ApiMetrics()
    api.count("GET", "/v1/model", 200, 0.001)
    found: dict[str, set[str]] = {}
    for name, labels in [*samples(metrics), *read(api.page()[0])]:
        found.setdefault(name, set()).update(label for label, _ in labels)
    return found


def test_the_dashboard_asks_only_for_metrics_and_labels_that_there_are(
    dashboard: dict[str, Any], metrics: Metrics
) -> None:
    names = known(metrics)
    asked = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    assert len(asked) > 8
    for expression in asked:
        used = re.findall(r"\b(?:segments|process)_[a-z0-9_]+", expression)
        assert used, expression
        labels = {"le", "instance"}.union(*(names[name] for name in used))
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", by)) <= labels, expression
        for inside in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", inside)) <= labels, expression
    every = {name for expression in asked for name in re.findall(r"\bsegments_[a-z0-9_]+", expression)}
    assert {name for name in every if name.startswith("segments_api")} == {
        "segments_api_requests_total",
        "segments_api_seconds_bucket",
    }


def test_the_dashboard_is_found_with_its_data_source_and_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    (source,) = sources
    used = {target["datasource"]["uid"] for panel in panels(dashboard) for target in panel["targets"]}
    assert used == {source["uid"]}
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_prometheus_reads_workers_and_the_api() -> None:
    jobs = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["stream", "serve"]
