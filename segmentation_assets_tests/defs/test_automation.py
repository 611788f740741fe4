"""What runs by itself: the sensor for new sessions, schedules, the failure alert, automation conditions."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.core.settings import CheckSettings
from segmentation_assets.definitions import build_definitions
from segmentation_assets.defs import automation
from segmentation_assets.defs.resources import Alert, ElasticsearchResource, WebhookAlert

BELOW = {"tfidf_matrix", "kmeans_model", "labeled_segments", "es_user_segments"}
USERS = {
    *("clean_sessions", "user_attributes", "user_features", "user_scores", "rule_segments"),
    *("behaviour_clusters", "personas", "es_user_profiles", "segmentation_report"),
}
SECRET_PATH = "/services/T00/s3cret-hook"


class Log:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    error = warning = info


# --- the sensor for new sessions ------------------------------------------------------------------------------------


def test_a_tick_loads_nothing_that_only_a_run_needs(seed: Callable[..., int], elasticsearch_url: str) -> None:
    """Daemons hold code locations loaded, and every tick may be a process of its own."""
    seed(60)
    code = (
        "import sys, dagster as dg\n"
        "from segmentation_assets.definitions import build_definitions\n"
        "from segmentation_assets.defs.automation import new_sessions\n"
        "definitions = build_definitions()\n"
        "with dg.DagsterInstance.ephemeral() as instance:\n"
        "    context = dg.build_sensor_context(instance=instance, definitions=definitions,\n"
        "        resources=definitions.get_repository_def().get_top_level_resources())\n"
        "    print(new_sessions.evaluate_tick(context).skip_message)\n"
        "print([name for name in ('sklearn', 'pandas', 'matplotlib', 'onnxruntime') if name in sys.modules])\n"
    )
    environment = {**os.environ, "ELASTICSEARCH_URL": elasticsearch_url}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, loaded = done.stdout.splitlines()[-2:]
    assert "60" in said
    assert loaded == "[]"


class Sensor:
    """Ticks of ``new_sessions`` one after the other, the cursor handed on as the daemon does."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.cursor: str | None = None
        self.keys: list[str] = []

    def tick(self, **instead: Any) -> str:
        """'run' or why not; a run key that was asked for before starts nothing, as in Dagster."""
        context = dg.build_sensor_context(
            instance=self.graph.instance,
            cursor=self.cursor,
            resources=self.graph.resources(**instead),
            definitions=build_definitions(self.graph.resources(**instead)),
        )
        evaluation = automation.new_sessions.evaluate_tick(context)
        self.cursor = evaluation.cursor
        if not evaluation.run_requests:
            return str(evaluation.skip_message)
        (request,) = evaluation.run_requests
        assert request.run_key not in self.keys
        self.keys.append(request.run_key)
        return "run"


@pytest.fixture
def sensor(graph: Any) -> Sensor:
    graph.settings("automation: {new_sessions: 50}\n")
    return Sensor(graph)


def test_enough_new_sessions_request_one_run(sensor: Sensor, insert: Callable[..., None]) -> None:
    insert(["red dress"] * 49)
    assert sensor.tick() == "49 new sessions; a run is due after 50."
    insert(["red dress"], source="one-more")
    assert sensor.tick() == "run"
    assert sensor.tick() == "0 new sessions; a run is due after 50."
    insert(["red dress"] * 30, source="b")
    assert sensor.tick().startswith("30 new")
    insert(["red dress"] * 30, source="c")
    assert sensor.tick() == "run"
    assert sensor.tick().startswith("0 new")


def test_a_tick_that_is_repeated_asks_for_the_same_run(sensor: Sensor, insert: Callable[..., None]) -> None:
    """The daemon died before it stored the cursor: Dagster drops the second request for its key."""
    insert(["red dress"] * 60)
    assert sensor.tick() == "run"
    (first,) = sensor.keys
    sensor.cursor, sensor.keys = None, []
    assert sensor.tick() == "run"
    assert sensor.keys == [first]


def test_a_rebuilt_index_counts_from_nothing(sensor: Sensor, insert: Callable[..., None], es: Elasticsearch) -> None:
    """Deleted: skipped, not failed. Rebuilt, even with fewer sessions than before: all of them are new, once."""
    insert(["red dress"] * 100)
    assert sensor.tick() == "run"
    cursor = sensor.cursor
    es.indices.delete(index="user_sessions")
    assert "user_sessions" in sensor.tick()
    assert sensor.cursor == cursor
    insert(["red dress"] * 60, source="rebuilt")
    assert sensor.tick() == "run"
    assert sensor.tick().startswith("0 new")


def test_a_cluster_that_is_down_is_skipped_and_nothing_is_forgotten(
    sensor: Sensor, insert: Callable[..., None]
) -> None:
    insert(["red dress"] * 60)
    assert sensor.tick() == "run"
    insert(["red dress"] * 55, source="meanwhile")
    cursor = sensor.cursor
    down = ElasticsearchResource(url="http://user:s3cret@127.0.0.1:1", max_retries=0)
    said = sensor.tick(elasticsearch=down)
    assert "127.0.0.1:1" in said
    assert "s3cret" not in said
    assert sensor.cursor == cursor
    assert sensor.tick() == "run"


def test_an_index_that_was_never_there_is_skipped(sensor: Sensor, es: Elasticsearch) -> None:
    assert "user_sessions" in sensor.tick()
    assert not sensor.cursor


def test_deleted_sessions_are_not_counted_against_new_ones(
    sensor: Sensor, insert: Callable[..., None], es: Elasticsearch
) -> None:
    insert(["red dress"] * 100)
    assert sensor.tick() == "run"
    for number in range(40):
        es.delete(index="user_sessions", id=f"test-{number}", refresh=number == 39)
    assert sensor.tick().startswith("0 new")
    insert(["red dress"] * 50, source="new")
    assert sensor.tick() == "run"


def test_the_run_that_the_sensor_asks_for_materializes_everything(
    sensor: Sensor, graph: Any, insert: Callable[..., None]
) -> None:
    insert(["gaming laptop", "red dress", "cheap rug", "yoga mat", "lipstick", "sofa"] * 20)
    assert sensor.tick() == "run"
    assert automation.new_sessions.job_name == "segmentation"
    assert graph.run().success


# --- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hourly", "daily"])
def test_schedules_request_the_whole_graph(name: str) -> None:
    definitions = build_definitions()
    schedule = definitions.get_repository_def().get_schedule_def(name)
    tick = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=datetime(2026, 3, 1, tzinfo=UTC)))
    (request,) = tick.run_requests or []
    assert request.run_config == {}
    keys = definitions.resolve_job_def(schedule.job_name).asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in keys} == {"raw_sessions"} | BELOW | (USERS if name == "daily" else set())


# --- the failure alert ----------------------------------------------------------------------------------------------


def alert_about(result: dg.ExecuteInProcessResult, graph: Any, alert: Alert) -> None:
    """Evaluate the failure sensor for a run that failed."""
    (failure,) = (event for event in result.all_events if event.is_run_failure)
    run = graph.instance.get_run_by_id(result.run_id)
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_on_failure",
        dagster_event=failure,
        dagster_instance=graph.instance,
        dagster_run=run,
    ).for_run_failure()
    automation.alert_on_failure(context, alert=alert)


def test_the_alert_says_what_failed_and_why(graph: Any, insert: Callable[..., None]) -> None:
    """Our own error with its cure: not Dagster's wrapper around it, nor the socket error at its bottom."""
    sent: list[tuple[str, str]] = []

    class Recorder(Alert):  # Dagster works on a copy: what it is told is kept outside
        def send(self, subject: str, body: str, log: Any) -> None:
            sent.append((subject, body))

    recorder = Recorder()
    down = ElasticsearchResource(url="http://user:s3cret@127.0.0.1:1", max_retries=0)
    failed = graph.run(resources={"elasticsearch": down})
    alert_about(failed, graph, recorder)
    missing = graph.run()
    alert_about(missing, graph, recorder)
    insert(["gaming laptop"] * 300 + ["red dress", "cheap rug", "yoga mat", "lipstick", "sofa"])
    stopped = graph.run()
    alert_about(stopped, graph, recorder)

    (subject, unreachable), (_, no_index), (_, check) = sent
    assert subject == f"Segmentation run {failed.run_id[:8]} (segmentation) failed"
    assert unreachable.startswith("raw_sessions: ClusterUnreachable: ")
    assert "127.0.0.1:1" in unreachable
    assert "s3cret" not in unreachable
    assert no_index.startswith("raw_sessions: IndexMissing: ")
    assert "cluster_balance" in check


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[str, str, bytes]], list[int]]]:
    """A webhook's server: its address, what it got, and the status it answers with (the last one stays)."""
    got: list[tuple[str, str, bytes]] = []
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], body))
            self.send_response(status[-1])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{SECRET_PATH}", got, status
        server.shutdown()


def test_a_webhook_gets_the_alert_of_a_run_that_failed(graph: Any, hook: Any) -> None:
    url, got, _ = hook
    alert_about(graph.run(), graph, WebhookAlert(webhook_url=url))
    ((path, kind, body),) = got
    assert (path, kind) == (SECRET_PATH, "application/json")
    text = json.loads(body)["text"]
    assert text.startswith("Segmentation run ")
    assert "IndexMissing" in text


@pytest.mark.parametrize("broken", ["refuses", "is down", "is no URL", "is no web address"])
def test_a_webhook_that_cannot_be_reached_is_said_without_its_address(broken: str, hook: Any) -> None:
    """The address is the credential. The alert itself is in the log in any case, and the sensor goes on."""
    url, _, status = hook
    if broken == "refuses":
        status.append(403)
    url = {
        "refuses": url,
        "is down": f"http://127.0.0.1:1{SECRET_PATH}",
        "is no URL": f"127.0.0.1{SECRET_PATH}",
        "is no web address": f"http://127.0.0.1:port{SECRET_PATH}\n",
    }[broken]
    log = Log()
    WebhookAlert(webhook_url=url, timeout=5).send("It failed", "because of this", log)
    assert log.lines[0] == "It failed\nbecause of this"
    assert log.lines[1].startswith("The alert could not be delivered to the webhook (")
    assert "s3cret" not in "".join(log.lines)


def test_without_a_webhook_the_alert_goes_to_the_log() -> None:
    log = Log()
    Alert().send("It failed", "because of this", log)
    assert log.lines == ["It failed\nbecause of this"]


# --- automation conditions ------------------------------------------------------------------------------------------


class Daemon:
    """Evaluations of the automation conditions one after the other, as the daemon makes them."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.cursor: Any = None

    def requested(self, at: datetime | None = None) -> set[str]:
        """The assets that the conditions ask for now."""
        result = dg.evaluate_automation_conditions(
            defs=build_definitions(self.graph.resources()),
            instance=self.graph.instance,
            cursor=self.cursor,
            evaluation_time=at,
        )
        self.cursor = result.cursor
        return {
            r.key.to_user_string() for r in result.results if isinstance(r.key, dg.AssetKey) and r.true_subset.size > 0
        } - USERS  # which these tests never materialize


def test_the_graph_is_due_each_night_as_a_whole(graph: Any, seed: Callable[..., int]) -> None:
    """The root at 03:30 UTC, and with it all that is made of it, in one go; not again before the next night."""
    seed(200)
    assert graph.run().success
    daemon = Daemon(graph)
    now = datetime.now(UTC)
    assert daemon.requested(now.replace(year=now.year + 1, month=1, day=10, hour=3, minute=29, second=0)) == set()
    night = now.replace(year=now.year + 1, month=1, day=10, hour=3, minute=31, second=0)
    assert daemon.requested(night) == {"raw_sessions"} | BELOW
    assert daemon.requested(night.replace(minute=32)) == set()


def test_below_a_failed_blocking_check_nothing_is_requested(
    graph: Any, seed: Callable[..., int], insert: Callable[..., None], es: Elasticsearch
) -> None:
    """What is above the check follows new data; what is below waits until the check passes."""
    seed(200)
    assert graph.run().success
    daemon = Daemon(graph)
    assert daemon.requested() == set()

    assert graph.run("raw_sessions").success  # somebody materializes the root by hand
    assert daemon.requested() == BELOW
    assert daemon.requested() == set()
    assert graph.run(*BELOW).success
    assert daemon.requested() == set()

    es.indices.delete(index="user_sessions")
    insert(["gaming laptop"] * 300 + ["red dress", "cheap rug", "yoga mat", "lipstick", "sofa"])
    assert not graph.run("raw_sessions", "tfidf_matrix", "kmeans_model").success  # cluster_balance fails
    assert daemon.requested() == set()

    es.indices.delete(index="user_sessions")
    seed(200, 8)
    assert graph.run("raw_sessions", "tfidf_matrix", "kmeans_model").success
    assert daemon.requested() == {"labeled_segments", "es_user_segments"}


def test_a_warning_does_not_hold_automation_up(graph: Any, insert: Callable[..., None]) -> None:
    """label_coverage with severity WARN failed: publishing is requested all the same."""
    insert(["aardvark", "bandicoot", "capybara", "dugong", "echidna", "fossa"] * 20)
    assert graph.run().success
    daemon = Daemon(graph)
    daemon.requested()
    assert graph.run("labeled_segments").success
    assert daemon.requested() == {"es_user_segments"}


def test_every_blocking_check_that_only_warns_by_default_is_passed_over() -> None:
    """A condition sees no severity: one that is not named here would stop what it should only warn of."""
    bounds = CheckSettings()
    named = {name for _, name in automation.WARNINGS}
    assert named == {name for name in CheckSettings.model_fields if getattr(bounds, name).severity == "WARN"} - {
        "live_health"  # its checks block nothing
    }
