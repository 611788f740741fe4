"""The group live on a real Redis: the model that streams get, the hourly record, and asking for another model."""

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from batch_side import Batch, batch_side

from segmentation_assets.core.live import health as numbers
from segmentation_assets.core.live.events import Event, events_of_session
from segmentation_assets.core.live.health import LiveHealth
from segmentation_assets.core.live.model import live_model
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.definitions import STAGES
from segmentation_assets.defs import live
from segmentation_assets.defs.automation import everything, segmentation, users, with_policies
from segmentation_assets.defs.live_store import StateStoreResource
from segmentation_assets.defs.resources import ArtifactIOManager, ElasticsearchResource, SettingsResource
from segmentation_assets.io.artifacts import ArtifactStore
from segmentation_assets.io.live_models import unpack
from segmentation_assets.io.live_store import Commit, StateStore
from segmentation_assets.io.models import mark_serving
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import DataDir

SECRET = "s3cret-hunter2"
PICTURES = ("pace", "mix", "drift_plot", "engagement_plot")


@cache
def batch() -> Batch:
    return batch_side(1_200, k=6)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalRedis(DataDir(tmp_path_factory.mktemp("redis"))) as running:
        yield running.url


class Live:
    """The group live on one store, with what a run has left on disk."""

    def __init__(self, url: str, name: str, folder: Path) -> None:
        self.data = DataDir(folder / "data")
        self.artifacts = ArtifactStore(self.data.storage)
        self.settings_file = folder / "segments.yaml"
        self.settings_file.write_text("drift: {min_users: 20}\n")
        self.state_store = StateStoreResource(url=url, namespace=name, data_dir=str(self.data.root))
        (folder / "dagster").mkdir()
        self.instance = dg.DagsterInstance.local_temp(str(folder / "dagster"))
        self.cursor: str | None = None

    def resources(self, **instead: Any) -> dict[str, Any]:
        return {
            "state_store": self.state_store,
            "settings": SettingsResource(file=str(self.settings_file), data_dir=str(self.data.root)),
            "io_manager": ArtifactIOManager(data_dir=str(self.data.root)),
            **instead,
        }

    def definitions(self, **instead: Any) -> dg.Definitions:
        """All of the product's, so that what the group stands on is there."""
        stages = list(dict.fromkeys([*STAGES, live]))
        return dg.Definitions(
            assets=with_policies(dg.load_assets_from_modules(stages)),
            asset_checks=dg.load_asset_checks_from_modules(stages),
            jobs=[segmentation, users, everything, live.live],
            schedules=[live.hourly_health],
            sensors=[live.behaviour_drift, live.new_live_model],
            resources={"elasticsearch": ElasticsearchResource(url="http://127.0.0.1:1"), **self.resources(**instead)},
            executor=dg.in_process_executor,
        )

    def has_run(self, publish: bool = True) -> None:
        """Leave what a run would leave."""
        made = batch()
        for name, value in (
            ("kmeans_model", made.queries),
            ("labeled_segments", made.labeled),
            ("clean_sessions", made.clean),
            ("user_features", made.features),
            ("behaviour_clusters", made.behaviour),
            ("personas", made.personas),
        ):
            self.artifacts.save(name, "run-1", value)
        if publish:
            assert mark_serving(self.artifacts, made.queries.version, "run-1")

    def run(self, *assets: str, **instead: Any) -> dg.ExecuteInProcessResult:
        job = self.definitions(**instead).resolve_job_def("live")
        return job.execute_in_process(
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
        )

    def tick(self, **instead: Any) -> Any:
        """One evaluation of behaviour_drift; the cursor is handed on as the daemon does."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources=self.resources(**instead),
            definitions=self.definitions(**instead),
        )
        found = live.behaviour_drift.evaluate_tick(context)
        self.cursor = found.cursor
        return found

    def stream(self, of: Collection[str] | None = None) -> None:
        """Let the events of the stored sessions come in, of all users or of these."""
        told = [event for document in batch().documents for event in events_of_session(document)]
        told = [event for event in told if of is None or event.user_id in of]
        with self.state_store.store() as store:
            write(store, sorted(told, key=lambda event: event.timestamp))

    def store(self) -> Any:
        return self.state_store.store()


def write(store: StateStore, told: list[Event]) -> None:
    segmenter = Segmenter(batch().model, 3_600_000, 0.2)
    claim = store.claim("events/0")
    states = store.load(sorted({event.user_id for event in told}))
    outcome = segmenter.process(told, states)
    counts = {"events": outcome.applied, "dead": 2, "segmented": outcome.segmented}
    touched = {user: states[user] for user in outcome.touched}
    assert store.commit(Commit([(claim, "1")], touched, outcome.changes, outcome.products, counts)) is None


@pytest.fixture
def group(redis_url: str, tmp_path: Path) -> Iterator[Live]:
    found = Live(redis_url, tmp_path.name, tmp_path)
    yield found
    found.instance.dispose()


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return dict(event.materialization.metadata)


def problem(result: dg.ExecuteInProcessResult) -> str:
    from segmentation_assets.defs.failures import cause_of

    return " ".join(str(cause_of(e.step_failure_data.error)) for e in result.all_events if e.is_step_failure)


# --- the model --------------------------------------------------------------------------------------------------------


def test_what_readers_are_served_becomes_the_model_of_the_streams(group: Live) -> None:
    group.has_run()
    result = group.run("live_model")
    assert result.success, problem(result)
    found = metadata(result, "live_model")
    assert found["decision"].value == "published"
    with group.store() as store:
        record = store.model(store.current_model())
    assert unpack(record.data).version == batch().model.version == found["model_version"].value
    assert found["behaviour_clusters"].value == len(batch().behaviour.cluster_ids)
    assert metadata(group.run("live_model"), "live_model")["decision"].value == "kept: it is the current one already"


def test_segments_that_a_check_stopped_reach_no_stream(group: Live) -> None:
    """They are stored and were never published."""
    group.has_run(publish=False)
    result = group.run("live_model")
    assert not result.success
    assert "No segments have been published yet" in problem(result)
    with group.store() as store:
        assert store.current_model() is None


def test_a_model_without_behaviour_does_not_take_the_place_of_one_that_segments_alike(group: Live) -> None:
    """The hourly job labels sessions of users that yesterday's behaviour clusters do not know."""
    group.has_run()
    assert group.run("live_model").success
    shutil.rmtree(group.artifacts.base / "personas")
    found = metadata(group.run("live_model"), "live_model")
    assert found["decision"].value.startswith("kept the current one")
    assert "personas" in found["left_out"].value
    with group.store() as store:
        assert unpack(store.model(store.current_model()).data).behaviour is not None


def test_without_behaviour_queries_are_segmented_all_the_same(group: Live) -> None:
    group.has_run()
    shutil.rmtree(group.artifacts.base / "behaviour_clusters")
    found = metadata(group.run("live_model"), "live_model")
    assert (found["decision"].value, found["behaviour_clusters"].value) == ("published", 0)
    assert found["model_version"].value == live_model(batch().queries, batch().labeled).version


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_record_is_stored_shown_and_left_for_the_sensor(group: Live) -> None:
    group.has_run()
    assert group.run("live_model").success
    group.stream()
    with group.store() as store:
        store.report_worker("w1", {"model": "m", "lag": 3, "events_per_second": 5.0, "p99_ms": 20.0})
    result = group.run("live_health")
    assert result.success, problem(result)
    shown = metadata(result, "live_health")
    for name in PICTURES:
        assert "](data:image/png;base64," in shown[name].value
    stored = group.artifacts.load("live_health", LiveHealth)
    with group.store() as store:
        assert numbers.decode_health(store.kept("live_health")) == stored
    assert stored.users == len(batch().behaviour.users)
    assert max(stored.psi.values()) < 0.05
    assert stored.mix == pytest.approx(stored.mix_then)
    assert stored.lag == shown["lag"].value == 3
    checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert checks.keys() == {"live_lag", "live_dead_letters", "live_latency", "live_drift"}
    assert all(check.passed for check in checks.values())


def test_records_follow_each_other_and_count_what_came_between(group: Live) -> None:
    group.has_run()
    group.run("live_model")
    group.run("live_health")
    group.stream()
    assert group.run("live_health").success
    found = group.artifacts.load("live_health", LiveHealth)
    assert len(found.hours) == 2
    with group.store() as store:
        assert found.dead_share == pytest.approx(2 / (store.totals()["events"] + 2))
    assert found.events_per_second is not None


def test_a_stream_that_nobody_works_on_is_shown_by_a_check_and_stops_nothing(group: Live) -> None:
    group.has_run()
    result = group.run()
    assert result.success
    (lag,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "live_lag"]
    assert (lag.passed, lag.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "no worker has reported" in str(lag.description)


def test_users_who_moved_since_the_model_came_are_counted(group: Live) -> None:
    group.has_run()
    group.run("live_model")
    group.stream()
    group.run("live_health")  # the store was empty when the model came, so this notes the users
    some = batch().behaviour.users.to_pylist()[:40]
    with group.store() as store:
        latest = {user: state.latest for user, state in store.load(some).items()}
        told = [
            Event(f"{user}-{n}", user, "search", latest[user] + 1_000 + n, search_query="yoga mat")
            for user in some
            for n in range(8)
        ]
        write(store, told)
    group.run("live_health")
    found = group.artifacts.load("live_health", LiveHealth)
    assert found.active == 40
    assert found.changed_share is not None
    assert found.changed_share > 0.5


def test_where_no_stream_was_set_up_there_is_nothing_to_do(group: Live) -> None:
    """Whoever materializes everything has no failed run for it, and no record of what was not there."""
    group.has_run()
    nowhere = StateStoreResource(data_dir=str(group.data.root / "elsewhere"))
    for name in ("live_model", "live_health"):
        result = group.run(name, state_store=nowhere)
        assert result.success
        assert not result.get_asset_materialization_events()
        assert not result.get_asset_check_evaluations()


def test_a_store_that_is_away_is_an_error_that_names_no_password(group: Live) -> None:
    group.has_run()
    away = StateStoreResource(url=f"redis://:{SECRET}@127.0.0.1:1/0", data_dir=str(group.data.root))
    result = group.run("live_model", state_store=away)
    assert not result.success
    assert "segments services start" in problem(result)
    assert SECRET not in "".join(
        str(e.step_failure_data.error.to_string()) for e in result.all_events if e.is_step_failure
    )
    wrong = group.run("live_model", state_store=StateStoreResource(url=f"http://{SECRET}"))
    assert "SEGMENTS_REDIS_URL is no address" in problem(wrong)
    assert SECRET not in problem(wrong)


# --- asking for another model -----------------------------------------------------------------------------------------


def drifted(group: Live) -> None:
    """Only users who come often are there."""
    group.has_run()
    group.run("live_model")
    measured = batch().features.table
    often = {row["user_id"] for row in measured.select(["user_id", "sessions"]).to_pylist() if row["sessions"] >= 5}
    group.stream(often)
    assert group.run("live_health").success


def test_drift_asks_for_another_model_once(group: Live) -> None:
    drifted(group)
    (request,) = group.tick().run_requests
    version = batch().model.version
    assert request.run_key.startswith(f"drift-{version}-")
    assert "population stability index" in request.tags["segmentation/drift"]
    again = group.tick()
    assert not again.run_requests
    assert f"Another model than {version} was asked for already" in again.skip_message
    group.cursor = None  # the daemon died before it stored the cursor: Dagster drops the second request for its key
    (same,) = group.tick().run_requests
    assert same.run_key == request.run_key


def test_another_model_may_be_asked_about_anew(group: Live) -> None:
    drifted(group)
    assert group.tick().run_requests
    with group.store() as store:
        found = numbers.decode_health(store.kept("live_health"))
        record = store.model(store.current_model())
        store.publish_model(replace(record, version="another"))
        waiting = group.tick()
        assert "The latest record is of model" in waiting.skip_message
        store.keep("live_health", numbers.encode_health(replace(found, model="another")))
    assert group.tick().run_requests[0].run_key.startswith("drift-another-")


def test_users_as_before_ask_for_nothing_and_the_numbers_are_said(group: Live) -> None:
    group.has_run()
    group.run("live_model")
    group.stream()
    group.run("live_health")
    found = group.tick()
    assert not found.run_requests
    assert found.skip_message.startswith("No retraining is due. ")
    assert "bound 0.25" in found.skip_message


def test_too_few_users_conclude_nothing(group: Live) -> None:
    drifted(group)
    group.settings_file.write_text("drift: {min_users: 100000}\n")
    assert "nothing is concluded below 100,000 users" in group.tick().skip_message


def test_a_store_that_is_away_or_empty_is_a_reason_to_wait(group: Live) -> None:
    assert "No health of a stream has been recorded" in group.tick().skip_message
    for away in (
        StateStoreResource(url=f"redis://:{SECRET}@127.0.0.1:1/0"),
        StateStoreResource(data_dir=str(group.data.root)),
    ):
        found = group.tick(state_store=away)
        assert not found.run_requests
        assert found.skip_message
        assert SECRET not in found.skip_message


# --- definitions ------------------------------------------------------------------------------------------------------


def test_no_other_job_has_an_asset_of_the_group_and_everything_is_off(group: Live) -> None:
    definitions = group.definitions()
    mine = {dg.AssetKey("live_model"), dg.AssetKey("live_health")}
    for name in ("segmentation", "users", "everything"):
        assert not mine & set(definitions.resolve_job_def(name).asset_layer.executable_asset_keys)
    assert set(definitions.resolve_job_def("live").asset_layer.executable_asset_keys) == mine
    assert live.hourly_health.default_status is dg.DefaultScheduleStatus.STOPPED
    assert {s.default_status for s in (live.behaviour_drift, live.new_live_model)} == {dg.DefaultSensorStatus.STOPPED}


def test_the_hour_takes_stock_and_leaves_the_model_alone(group: Live) -> None:
    found = live.hourly_health.evaluate_tick(dg.build_schedule_context(instance=group.instance))
    (request,) = found.run_requests
    assert request.asset_selection == [dg.AssetKey("live_health")]


def test_every_run_that_succeeded_brings_its_model_once(group: Live) -> None:
    group.has_run()
    run = group.run("live_model")
    context = dg.build_run_status_sensor_context(
        "new_live_model", run.get_run_success_event(), group.instance, run.dagster_run
    )
    request = live.new_live_model(context)
    assert (request.run_key, request.asset_selection) == (run.run_id, [dg.AssetKey("live_model")])


def test_loading_the_group_loads_no_client_and_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "import segmentation_assets.defs.live\n"
        "names = ('redis', 'prometheus_client', 'sklearn', 'pandas', 'matplotlib', 'confluent_kafka', 'river')\n"
        "print(json.dumps([name for name in names if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
