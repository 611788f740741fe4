"""From sessions to user profiles on a real node: nobody is lost, nothing is invented, and what stops it."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import numpy as np
import pytest
from elasticsearch import Elasticsearch
from run_results import documents, evaluations, materialized, metadata

from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.personas import Personas
from segmentation_assets.definitions import build_definitions
from segmentation_assets.defs.failures import cause_of
from segmentation_assets.defs.resources import ArtifactIOManager, ElasticsearchResource, SettingsResource
from segmentation_assets.io import session_reader
from segmentation_assets.io.artifacts import ArtifactStore
from segmentation_assets.io.publishing import PublishedState, published_state
from segmentation_assets.io.seeding import seed_sessions
from segmentation_assets.io.session_store import write_sessions
from segmentation_assets.paths import DataDir

SEGMENT_ASSETS = {"raw_sessions", "tfidf_matrix", "kmeans_model", "labeled_segments", "es_user_segments"}
USER_ASSETS = {
    *("clean_sessions", "user_attributes", "user_features", "user_scores", "rule_segments"),
    *("behaviour_clusters", "personas", "es_user_profiles", "segmentation_report"),
}
USER_CHECKS = {"cleaning_accounted", "noise_share", "behaviour_stability", "profiles_complete"}
SEGMENT_CHECKS = {
    *("sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn"),
    "published_complete",
}
OPEN_FORMATS = {".parquet", ".npz", ".npy", ".json"}
ALIAS = "user_profiles"
END = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

RULES = """\
rules:
  - {name: visited_often, description: More than five sessions., when: {feature: sessions, above: 5}}
  - {name: colleagues_age, description: Of that age., when: {trait: age, is: 41}}
"""
SETTINGS = """\
cleaning: {internal_users: [colleague]}
attributes: {enrichment: {file: crm.csv}}
rules: {file: rules.yaml}
"""


class Shop:
    """The product's definitions on one server, with a data folder, settings and a Dagster instance of its own."""

    def __init__(self, url: str, folder: Path, index: str = "user_sessions") -> None:
        self.client = Elasticsearch(url, request_timeout=60)
        self.url = url
        self.index = index
        self.data = DataDir(folder / "data")
        self.store = ArtifactStore(self.data.storage)
        self.settings_file = folder / "segments.yaml"
        (folder / "dagster").mkdir(parents=True)
        self.instance = dg.DagsterInstance.local_temp(str(folder / "dagster"))

    def close(self) -> None:
        self.instance.dispose()
        self.client.close()

    def run(self, job: str, *assets: str, settings: str = SETTINGS) -> dg.ExecuteInProcessResult:
        """Run a job, or these assets of it; what fails is in the result."""
        self.settings_file.write_text(settings)
        resources = {
            "elasticsearch": ElasticsearchResource(url=self.url, data_dir=str(self.data.root), max_retries=0),
            "settings": SettingsResource(file=str(self.settings_file), data_dir=str(self.data.root)),
            "io_manager": ArtifactIOManager(data_dir=str(self.data.root)),
        }
        return (
            build_definitions(resources)
            .resolve_job_def(job)
            .execute_in_process(
                instance=self.instance,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                asset_selection=[dg.AssetKey(name) for name in assets] or None,
                raise_on_error=False,
            )
        )

    def insert(self, user: str, *queries: str, session: str = "", **details: Any) -> None:
        """Write sessions of a user, a minute apart; with ``session`` the same moment and that id with a number."""
        documents = [
            {
                "session_id": f"{session or user}-{number}",
                "user_id": user,
                "search_query": query,
                "clicked_product_ids": [],
                "timestamp": (END - timedelta(days=2, minutes=0 if session else number)).isoformat(),
                **details,
            }
            for number, query in enumerate(queries)
        ]
        records = ((str(document["session_id"]), document) for document in documents)
        write_sessions(self.client, self.index, records, source=user, now=datetime.now(UTC))

    def documents(self, index: str) -> dict[str, dict[str, Any]]:
        return documents(self.client, index)

    def profiles(self) -> dict[str, dict[str, Any]]:
        return self.documents(ALIAS)

    def users(self) -> set[str]:
        """Whoever has a session in the index."""
        return {document["user_id"] for document in self.documents(self.index).values()}

    def published(self) -> PublishedState | None:
        return published_state(self.client, ALIAS)


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """What was raised by each step that failed, but for those that a blocking check stopped."""
    said = {e.step_key: cause_of(e.step_failure_data.error) for e in result.all_events if e.is_step_failure}
    return {step: cause for step, cause in said.items() if not cause.startswith("DagsterAssetCheckFailedError")}


def refusal(result: dg.ExecuteInProcessResult) -> str:
    """The check that the guard before the profiles names."""
    error, _, said = failures(result)["es_user_profiles"].partition(": Not published: ")
    assert error == "PublishRefusedError"
    return said.partition(":")[0]


def empty(client: Elasticsearch) -> None:
    for row in client.cat.indices(format="json", h="index").body:
        client.indices.delete(index=row["index"], ignore_unavailable=True)


@pytest.fixture(scope="module")
def shop(elasticsearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Generated sessions with behaviour, and three users of special kinds; attributes in an index and in a file."""
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(elasticsearch_url, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_reader, "IN_PROGRESS", 0)  # what was written a moment ago counts at once
        empty(made.client)
        seed_sessions(made.client, "user_sessions", made.data, sessions=600, seed=42, now=datetime.now(UTC), end=END,
                      attributes_index="user_attributes")  # fmt: skip
        made.insert("colleague", "gaming laptop", "red dress")
        made.insert("twice", "gaming laptop", "gaming laptop", "gaming laptop", session="written-again")
        made.insert("leaver", *["yoga mat"] * 3)
        made.client.index(
            index="user_attributes", id="twice", document={"user_id": "twice", "gender": "female"}, refresh=True
        )
        (folder / "crm.csv").write_text("user_id,age,gender\ncolleague,41,male\ntwice,30,unknown to us\nnobody,50,\n")
        (folder / "rules.yaml").write_text(RULES)
        yield made
    made.close()


@pytest.fixture(scope="module")
def first(shop: Shop) -> dg.ExecuteInProcessResult:
    """The first run of everything. Tests that come later in this file change what is there."""
    return shop.run("everything")


# --- the whole of it ------------------------------------------------------------------------------------------------


def test_one_job_materializes_everything_and_evaluates_every_check(first: dg.ExecuteInProcessResult) -> None:
    assert failures(first) == {}
    assert first.success
    assert materialized(first) == SEGMENT_ASSETS | USER_ASSETS
    assert {name: check.passed for name, check in evaluations(first).items()} == dict.fromkeys(
        USER_CHECKS | SEGMENT_CHECKS, True
    )
    for asset in USER_ASSETS - {"segmentation_report", "behaviour_clusters"}:
        assert metadata(first, asset)["dagster/row_count"] > 0
    for asset, picture in (
        ("clean_sessions", "cleaning"),
        ("user_scores", "rfm_map"),
        ("user_scores", "loyalty"),
        ("rule_segments", "rule_sizes"),
        ("behaviour_clusters", "user_map"),
        ("personas", "persona_sizes"),
        ("personas", "features_by_cluster"),
    ):
        assert "data:image/png;base64,iVBOR" in metadata(first, asset)[picture], picture


def test_every_user_of_the_sessions_has_exactly_one_profile(first: dg.ExecuteInProcessResult, shop: Shop) -> None:
    """Also a colleague, who is noise, and a user all of whose sessions are the same one written again."""
    profiles = shop.profiles()
    assert set(profiles) == shop.users() >= {"colleague", "twice", "leaver"}
    assert all(found["user_id"] == key for key, found in profiles.items())
    assert profiles["colleague"]["noise"] == ["internal_user"]
    assert [found["noise"] for found in profiles.values()].count([]) == len(profiles) - 1
    assert profiles["twice"]["features"]["sessions"] == 1
    shown = metadata(first, "clean_sessions")
    assert shown["users"] == len(profiles)
    assert {"of": "sessions", "reason": "duplicate_session", "count": 2} in [r.data for r in shown["set_aside"].records]
    assert evaluations(first)["profiles_complete"].metadata["published"].value == len(profiles)


def test_a_profile_says_what_the_assets_say(first: dg.ExecuteInProcessResult, shop: Shop) -> None:
    profiles = shop.profiles()
    model = shop.store.load("behaviour_clusters", BehaviourModel)
    names = {card.cluster: card.name for card in shop.store.load("personas", Personas).cards}
    assert len(model.sizes) == 5
    for user, cluster in zip(model.users.to_pylist(), model.labels.tolist(), strict=True):
        found = profiles[user]
        assert (found["cluster"], found["persona"]) == (cluster, names[cluster])
        assert found["model_version"] == model.version
        assert found["segment_model_version"] == metadata(first, "kmeans_model")["model_version"]
        assert sum(found["segment_share"].values()) == pytest.approx(1, abs=1e-4)
        assert found["absent"] == []
        assert {"rfm", "loyalty_index", "loyalty_tier", "features", "window_start", "published_at"} <= set(found)
    sessions = [document["user_id"] for document in shop.documents("user_sessions").values()]
    assert all(profiles[u]["features"]["sessions"] == sessions.count(u) for u in shop.users() - {"twice"})


def test_attributes_come_from_the_index_first_and_then_from_the_file(
    first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    profiles = shop.profiles()
    known = shop.documents("user_attributes")
    assert len(known) > 20
    for user in known.keys() & profiles.keys():
        for name in {"age", "gender", "location", "signup_date"} & known[user].keys():
            assert profiles[user]["traits"][name] == known[user][name]
    of_sessions = {"device": "Unknown", "country": "Unknown", "region": "Unknown"}
    assert profiles["colleague"]["traits"] == {"age": 41.0, "gender": "male", **of_sessions}
    assert profiles["twice"]["traits"] == {"age": 30.0, "gender": "female", **of_sessions}
    assert profiles["leaver"]["traits"] == of_sessions  # of whom nothing else is known
    shown = metadata(first, "user_attributes")
    assert shown["read"] == shown["used"] + sum(
        r.data["count"] for r in shown["not_used"].records if r.data["what"] == "record set aside"
    )


def test_the_rules_are_those_of_the_file(first: dg.ExecuteInProcessResult, shop: Shop) -> None:
    profiles = shop.profiles()
    for found in profiles.values():
        assert ("visited_often" in found["rules"]) == (found["features"]["sessions"] > 5)
        assert set(found["rules"]) <= {"visited_often", "colleagues_age"}
    assert "colleagues_age" in profiles["colleague"]["rules"]
    taken = {r.data["rule"]: r.data["users"] for r in metadata(first, "rule_segments")["rules"].records}
    assert taken["visited_often"] == sum("visited_often" in found["rules"] for found in profiles.values()) > 5


def test_the_report_is_written_and_names_no_user(first: dg.ExecuteInProcessResult, shop: Shop) -> None:
    path = Path(metadata(first, "segmentation_report")["report"])
    assert path == shop.data.reports / "report.html"
    page = path.read_text("utf-8")
    assert len(page.encode()) == metadata(first, "segmentation_report")["size"]
    for card in shop.store.load("personas", Personas).cards:
        assert card.name.split()[0] in page
    generated = [user for user in shop.users() if re.fullmatch("u[0-9a-f]{16}", user)]
    assert len(generated) > 100
    assert [user for user in generated if user in page] == []


def test_what_is_stored_is_in_open_formats(first: dg.ExecuteInProcessResult, shop: Shop) -> None:
    for asset in USER_ASSETS:
        files = [path for path in shop.store.path(asset).resolve().rglob("*") if path.is_file()]
        assert files
        assert {path.suffix for path in files} <= OPEN_FORMATS
        for path in files:
            if path.suffix == ".npy":
                np.load(path, allow_pickle=False)
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))


# --- other methods, and what does not hold --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "outside"),
    [("hdbscan, min_cluster_size: 8", 0.05), ("dbscan, eps: 1.7", 0.05), ("dbscan, eps: 0.01", 1)],
)
def test_users_in_no_cluster_have_a_profile_like_everybody(
    method: str, outside: float, first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    settings = f"{SETTINGS}behaviour: {{method: {method}, bootstraps: 2}}\n"
    result = shop.run("users", "behaviour_clusters", "personas", "es_user_profiles", settings=settings)
    assert failures(result) == {}
    shown = metadata(result, "behaviour_clusters")
    profiles = shop.profiles()
    assert set(profiles) == shop.users()
    alone = [found for found in profiles.values() if found["cluster"] == -1]
    assert len(alone) == shown["users_in_no_cluster"] >= outside * len(profiles)
    assert (shown["k"] == 0) == (len(alone) == len(profiles))
    (persona,) = {found["persona"] for found in alone}
    assert persona not in {found["persona"] for found in profiles.values() if found["cluster"] >= 0}
    assert {found["cluster_confidence"] for found in alone} == {0}
    assert evaluations(result)["profiles_complete"].passed


def test_the_job_of_users_alone_works_on_what_is_stored_and_keeps_the_ids(
    first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    """Sessions that came meanwhile are of no concern to it; and k-means after others begins with new ids."""
    assert shop.run("users").success  # k-means again
    before = {user: found["cluster"] for user, found in shop.profiles().items()}
    stored = len(before)
    shop.insert("newcomer", "red dress")
    again = shop.run("users")
    assert again.success
    assert materialized(again) == USER_ASSETS
    assert set(evaluations(again)) == USER_CHECKS
    assert {user: found["cluster"] for user, found in shop.profiles().items()} == before
    assert len(before) == stored
    assert "newcomer" not in before
    assert metadata(again, "behaviour_clusters")["ids_kept"] == 5


def stable(shop: Shop) -> dict[str, int]:
    return {user: found["cluster"] for user, found in shop.profiles().items()}


def test_a_failed_check_keeps_the_profiles_before_in_the_graph_and_past_it(
    first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    """The run stops; es_user_profiles alone, which Dagster allows, is refused. Its clusters pass no ids on."""
    before, clusters = shop.published(), stable(shop)
    served = shop.profiles()["twice"]["model_version"]
    strict = f"{SETTINGS}checks: {{behaviour_stability: {{severity: ERROR, min_silhouette: 1}}}}\n"
    stopped = shop.run("users", settings=f"{strict}behaviour: {{k: 3}}\n")
    assert not stopped.success
    failed = evaluations(stopped)["behaviour_stability"]
    assert (failed.passed, failed.blocking, failed.severity) == (False, True, dg.AssetCheckSeverity.ERROR)
    assert "under 1.00" in (failed.description or "")
    assert "es_user_profiles" not in materialized(stopped)
    assert "segmentation_report" not in materialized(stopped)
    assert shop.published() == before

    assert refusal(shop.run("users", "es_user_profiles", settings=strict)) == "behaviour_stability"
    assert shop.published() == before

    mended = shop.run("users")
    assert mended.success
    assert metadata(mended, "behaviour_clusters")["previous_model"] == served
    assert stable(shop) == clusters


def test_a_mistake_in_the_rules_is_one_clear_error_and_publishes_nothing(
    first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    before = shop.published()
    wrong = shop.settings_file.with_name("wrong.yaml")
    wrong.write_text("rules:\n  - {name: often, when: {feature: sessions, abov: 5}}\n")
    result = shop.run("users", settings="rules: {file: wrong.yaml}\n")
    (said,) = failures(result).values()
    assert said.startswith("RulesError: ")
    assert "often" in said
    assert "es_user_profiles" not in materialized(result)
    assert shop.published() == before


def test_profiles_are_not_published_where_a_check_above_failed_or_the_runs_are_mixed(
    first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    """Somebody materializes single assets by hand: neither unusable sessions nor half a run get to readers."""
    assert shop.run("everything").success
    before = shop.published()
    shop.insert("too late", "red dress")
    assert shop.run("everything", "raw_sessions", "clean_sessions").success
    assert refusal(shop.run("users", "es_user_profiles")) == "users_agree"
    assert refusal(shop.run("users")) == "users_agree"  # whom nobody labelled
    assert shop.published() == before

    assert shop.run("everything").success
    before = shop.published()
    strict = f"{SETTINGS}checks: {{session_validity: {{max_set_aside_share: 0}}}}\n"
    shop.client.index(index="user_sessions", id="no-user", document={"search_query": "red dress"}, refresh=True)
    assert not shop.run("everything", settings=strict).success
    assert refusal(shop.run("users", settings=strict)) == "session_validity"
    assert shop.published() == before
    shop.client.delete(index="user_sessions", id="no-user", refresh=True)


def test_who_left_all_sources_has_no_profile_after_the_next_run_and_the_others_keep_their_clusters(
    first: dg.ExecuteInProcessResult, shop: Shop
) -> None:
    before = stable(shop)
    assert "leaver" in before
    for number in range(3):
        shop.client.delete(index="user_sessions", id=f"leaver-{number}", refresh=True)
    result = shop.run("everything")
    assert result.success
    after = stable(shop)
    assert "leaver" not in after
    assert set(after) == shop.users()
    assert metadata(result, "behaviour_clusters")["ids_kept"] == 5
    both = before.keys() & after.keys()
    assert sum(before[user] == after[user] for user in both) > 0.9 * len(both)


# --- without details ------------------------------------------------------------------------------------------------


def test_sessions_of_queries_and_clicks_alone_give_profiles_that_name_what_is_missing(
    elasticsearch_url: str, tmp_path: Path
) -> None:
    plain = Shop(elasticsearch_url, tmp_path, index="plain")
    seed_sessions(plain.client, "plain", plain.data, sessions=300, seed=3, now=datetime.now(UTC), behaviour=False)
    result = plain.run("everything", settings="sessions: {index: plain}\nattributes: {index: nowhere}\n")
    assert failures(result) == {}
    profiles = plain.profiles()
    assert set(profiles) == plain.users()
    for found in profiles.values():
        assert {"views", "carts", "purchases", "prices", "duration", "devices", "monetary_score"} <= set(
            found["absent"]
        )
        measured = found["features"]
        assert not {"views", "purchases", "spend", "session_duration", "device_share", "price_level"} & measured.keys()
        assert {"sessions", "clicks", "click_through", "recency_days", "hour_share"} <= measured.keys()
        assert "monetary_score" not in found
        assert "traits" not in found
        assert found["imputed"] == []
        assert 0 <= found["loyalty_index"] <= 100
    assert set(metadata(result, "clean_sessions")["absent"]) == {
        *("duration", "device", "country", "region", "referrer", "events")
    }
    assert "there is no such index" in str(metadata(result, "user_attributes")["sources"])
    assert {r.data["what"] for r in metadata(result, "user_features")["absent"].records} >= {"purchases", "duration"}
    unusable = [r.data for r in metadata(result, "rule_segments")["rules"].records if r.data["not applied because"]]
    assert {"browsers", "big_spenders"} <= {row["rule"] for row in unusable}
    page = Path(metadata(result, "segmentation_report")["report"]).read_text("utf-8")
    assert "What is not there, and why" in page
    plain.close()


# --- the service that is asked --------------------------------------------------------------------------------------

TOKEN = "t0ken-hunter2"


@pytest.fixture
def service() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A service that knows the age of everybody and refuses one user: its address, and (path, authorization) got."""
    got: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append((self.path, self.headers.get("Authorization", "")))
            refused = self.path.endswith("/u-1")
            body = json.dumps({"error": self.headers["Authorization"]} if refused else {"age": 33}).encode()
            self.send_response(401 if refused else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/users/", got
        server.shutdown()


def test_the_token_of_the_service_reaches_it_and_nothing_else(
    service: tuple[str, list[tuple[str, str]]],
    elasticsearch_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither what Dagster or the product stores, byte by byte, nor the output holds it, asked in vain or not."""
    url, got = service
    source = Shop(elasticsearch_url, tmp_path, index="asked")
    for user in ("u-1", "u-2"):
        source.insert(user, "red dress")
    for name, value in (
        ("SEGMENTS_ENRICHMENT_TOKEN", TOKEN),
        ("SEGMENTS_HOME", str(source.data.root)),
        ("SEGMENTS_CONFIG", str(source.settings_file)),
        ("ELASTICSEARCH_URL", elasticsearch_url),
    ):
        monkeypatch.setenv(name, value)

    def ask(address: str) -> dg.ExecuteInProcessResult:
        enrichment = f"{{url: '{address}', retries: 0, per_second: 1000}}"
        source.settings_file.write_text(
            f"sessions: {{index: asked}}\nattributes: {{index: nowhere, enrichment: {enrichment}}}\n"
        )
        job = build_definitions().resolve_job_def("everything")  # with the resources of the environment
        keys = [dg.AssetKey("raw_sessions"), dg.AssetKey("user_attributes")]
        return job.execute_in_process(instance=source.instance, asset_selection=keys, raise_on_error=False)

    done = ask(f"{url}{{user_id}}")
    assert done.success
    assert {path for path, _ in got} == {"/users/u-1", "/users/u-2"}
    assert {authorization for _, authorization in got} == {f"Bearer {TOKEN}"}
    shown = metadata(done, "user_attributes")
    assert shown["used"] == 1
    assert [r.data["count"] for r in shown["not_used"].records if r.data["what"] == "no answer"] == [1]
    failed = ask("ftp://nowhere/{user_id}")
    assert failures(failed)["user_attributes"].startswith("EnrichmentInvalid: ")
    source.close()

    searched = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    output = capfd.readouterr()
    assert any(b"STEP_FAILURE" in content for content in searched.values())  # the log was looked at
    assert "STEP_FAILURE" in output.err  # so was the output
    assert [path for path, content in searched.items() if TOKEN.encode() in content] == []
    assert TOKEN not in output.out + output.err


# --- automation -----------------------------------------------------------------------------------------------------


def test_a_warning_of_the_user_side_does_not_hold_automation_up(first: dg.ExecuteInProcessResult, shop: Shop) -> None:
    """noise_share and behaviour_stability with severity WARN failed: what is below is requested all the same."""
    warned = f"{SETTINGS}checks: {{behaviour_stability: {{min_silhouette: 1}}, noise_share: {{max_share: 0}}}}\n"
    result = shop.run("users", settings=warned)
    assert result.success
    assert not evaluations(result)["behaviour_stability"].passed
    assert not evaluations(result)["noise_share"].passed

    def requested(cursor: Any) -> tuple[set[str], Any]:
        found = dg.evaluate_automation_conditions(defs=build_definitions(), instance=shop.instance, cursor=cursor)
        asked = (r for r in found.results if isinstance(r.key, dg.AssetKey) and r.true_subset.size > 0)
        return {result.key.to_user_string() for result in asked}, found.cursor

    _, cursor = requested(None)
    assert shop.run("users", "clean_sessions", settings=warned).success
    below = USER_ASSETS - {"clean_sessions", "user_attributes"}
    assert requested(cursor)[0] - {"live_model", "live_health"} == below  # of which the sensor knows nothing
