"""The verbs about users, end to end: what they do, what they print, how they end."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch

SEGMENT_CHECKS = {
    *("sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn"),
    "published_complete",
}
USER_CHECKS = {"cleaning_accounted", "noise_share", "behaviour_stability", "profiles_complete"}
USER_ASSETS = [
    *("clean_sessions", "user_attributes", "user_features", "user_scores", "rule_segments", "behaviour_clusters"),
    *("personas", "es_user_profiles", "segmentation_report"),
]
SESSIONS = 600
WRONG_RULES = "rules:\n  - {name: often, when: {feature: sessions, abov: 5}}\n"


@pytest.fixture(scope="module")
def mall(tmp_path_factory: pytest.TempPathFactory, segments_at: Callable[..., Any]) -> Iterator[Any]:
    """The command on a data folder with sessions on its own running node; nothing materialized yet."""
    command = segments_at(tmp_path_factory.mktemp("mall") / "data")
    command.ok("elasticsearch", "start")
    command.ok("seed", "--sessions", str(SESSIONS))
    yield command
    command.end()


@pytest.fixture(scope="module")
def early(mall: Any) -> dict[str, Any]:
    """What the verbs say before anything is published and after the main job alone."""
    said: dict[str, Any] = {}
    for name, verb in {
        "explain": ("explain", "somebody"),
        "rules": ("rules",),
        "report": ("report",),
        "export": ("export", "profiles"),
    }.items():
        said[name] = mall(*verb)
    said["run"] = mall.json("run")
    said["check"] = mall.json("check")
    said["page"] = mall.ok("report")
    return said


@pytest.fixture(scope="module")
def done(mall: Any, early: dict[str, Any]) -> dict[str, Any]:
    """`segments run --users --json`: what it answered."""
    result: dict[str, Any] = mall.json("run", "--users")
    return result


@pytest.fixture
def mall_client(mall: Any) -> Iterator[Elasticsearch]:
    with Elasticsearch(str(EmbeddedElasticsearch(mall.data).url()), request_timeout=60) as opened:
        yield opened


def documents(client: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    client.indices.refresh(index=index)
    return {hit["_id"]: hit["_source"] for hit in client.search(index=index, size=10_000)["hits"]["hits"]}


# --- before anything is published -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "problem", "cure"),
    [
        ("explain", "no index or alias 'user_profiles'", "segments run --users"),
        ("rules", "user_features has not been materialized yet", "segments run --users"),
        ("report", "raw_sessions has not been materialized yet", "segments run"),
        ("export", "user_profiles", "segments run --users"),
    ],
)
def test_before_anything_is_there_each_verb_says_what_to_run(
    verb: str, problem: str, cure: str, early: dict[str, Any]
) -> None:
    said = early[verb]
    assert (said.returncode, said.stdout) == (1, "")
    assert problem in said.stderr
    assert cure in said.stderr


def test_without_users_nobody_is_told_of_them(early: dict[str, Any]) -> None:
    """The main job answers as ever, and its checks are all that `segments check` knows of."""
    run, check = early["run"], early["check"]
    assert (run["personas"], run["profiles"], run["report"]) == ([], None, None)
    assert {entry["name"] for entry in run["checks"]} == SEGMENT_CHECKS
    assert {entry["name"] for entry in check["checks"]} == SEGMENT_CHECKS
    assert check["unevaluated"] == []
    path = early["page"].rpartition(" (")[0]
    assert "tech_enthusiast" in Path(path).read_text("utf-8")  # a report on the segments alone


# --- run --users, check ---------------------------------------------------------------------------------------------


def test_run_with_users_answers_with_one_object_of_the_promised_shape(
    done: dict[str, Any], mall_client: Elasticsearch
) -> None:
    users = {found["user_id"] for found in documents(mall_client, "user_sessions").values()}
    assert done["success"] is True
    assert done["users"] == len(users)
    assert sum(card["users"] for card in done["personas"]) == len(users)
    for card in done["personas"]:
        assert set(card) == {"persona", "cluster", "users", "share", "named_by", "traits"}
        assert card["share"] == pytest.approx(card["users"] / len(users), abs=1e-6)
        assert all(isinstance(sentence, str) for sentence in card["traits"])
    profiles = done["profiles"]
    assert (profiles["alias"], profiles["documents"]) == ("user_profiles", len(users))
    assert list(mall_client.indices.get_alias(name="user_profiles")) == [profiles["index"]]
    assert set(documents(mall_client, "user_profiles")) == users
    assert Path(done["report"]).read_text("utf-8").startswith("<!doctype html>")
    assert {check["name"] for check in done["checks"]} == SEGMENT_CHECKS | USER_CHECKS
    assert all(check["passed"] for check in done["checks"])
    assert list(done["seconds"])[-len(USER_ASSETS) :] == USER_ASSETS
    assert (done["failures"], done["unevaluated"], done["profiles_still_published"]) == ({}, [], None)


def test_check_evaluates_the_checks_of_users_too_once_they_were_there(
    done: dict[str, Any], mall: Any, mall_client: Elasticsearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "checks.xml"
    good = mall.at_once(capsys, "check", "--junit", junit)
    assert good.returncode == 0
    (suite,) = ET.parse(junit).getroot()
    assert {case.get("name") for case in suite} == SEGMENT_CHECKS | USER_CHECKS
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "0")

    some = next(iter(documents(mall_client, "user_profiles")))
    mall_client.delete(index=done["profiles"]["index"], id=some, refresh=True)
    bad = mall.at_once(capsys, "check", "--json")
    assert bad.returncode == 1
    (failed,) = (check for check in json.loads(bad.stdout)["checks"] if not check["passed"])
    assert (failed["name"], failed["severity"], failed["blocking"]) == ("profiles_complete", "ERROR", False)
    assert failed["values"] == {"users": done["users"], "published": done["users"] - 1}
    healed = mall.at_once(capsys, "run", "--users")
    assert healed.returncode == 0
    assert len(documents(mall_client, "user_profiles")) == done["users"]
    for text in ("Personas", done["personas"][0]["persona"], "behaviour_stability", "The report: "):  # for people
        assert text in healed.stdout
    assert f"Published {done['users']:,} user profiles to user_profiles" in healed.stdout


def test_where_a_check_stops_the_profiles_it_says_which_and_what_readers_see_meanwhile(
    done: dict[str, Any], mall: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text("checks: {behaviour_stability: {severity: ERROR, min_silhouette: 1}}\n")
    stopped = mall.at_once(capsys, "run", "--users", "--config", strict)
    assert stopped.returncode == 1
    assert "blocking check behaviour_stability on behaviour_clusters: the silhouette is " in stopped.stderr
    assert f"Readers of user_profiles still see what was published before ({done['users']:,} documents" in (
        stopped.stderr
    )
    assert "Readers of user_segments" not in stopped.stderr  # those are new
    assert "user profiles to" not in stopped.stdout


@pytest.mark.parametrize(
    ("settings", "file", "content", "said"),
    [
        ("rules: {file: mine.yaml}", "mine.yaml", WRONG_RULES, ("mine.yaml", "often")),
        ("rules: {file: mine.yaml}", "other.yaml", "", ("mine.yaml", "cannot be read", "rules.file")),
        ("personas: {names: mine.yaml}", "mine.yaml", "names: 7\n", ("mine.yaml",)),
    ],
)
def test_a_mistake_in_a_file_that_the_settings_name_is_one_clear_error_before_anything_runs(
    settings: str, file: str, content: str, said: tuple[str, ...], done: dict[str, Any], mall: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = tmp_path / "segments.yaml"
    config.write_text(settings + "\n")
    (tmp_path / file).write_text(content)
    before = {path: path.resolve() for path in mall.data.storage.glob("*/current")}
    stopped = mall.at_once(capsys, "run", "--users", "--config", config)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr.count("Error:") == 1
    for text in said:
        assert text in stopped.stderr
    assert "raw_sessions" not in stopped.stderr
    assert {path: path.resolve() for path in mall.data.storage.glob("*/current")} == before


# --- report, explain, rules, kibana ---------------------------------------------------------------------------------


def test_the_report_is_written_where_it_was_asked_for(
    done: dict[str, Any], mall: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "deep" / "mine.html"
    written = mall.at_once(capsys, "report", "-o", target)
    assert written.returncode == 0
    assert written.stdout.startswith(f"{target} (")
    page = target.read_text("utf-8")
    for card in done["personas"]:
        assert card["persona"] in page
    (tmp_path / "a_file").write_text("")
    refused = mall.at_once(capsys, "report", "-o", tmp_path / "a_file" / "report.html")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot be written" in refused.stderr
    assert "--output" in refused.stderr


def test_explain_says_why_a_user_is_where_they_are(
    done: dict[str, Any], mall: Any, mall_client: Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    user, profile = next(iter(documents(mall_client, "user_profiles").items()))
    found = json.loads(mall.at_once(capsys, "explain", user, "--json").stdout)
    assert (found["user_id"], found["profile"]) == (user, profile)
    text = " ".join(found["sentences"])
    for part in (profile["segment"], profile["persona"], profile["loyalty_tier"]):
        assert part in text
    assert mall.at_once(capsys, "explain", user).stdout.splitlines() == found["sentences"]
    unknown = mall.at_once(capsys, "explain", "nobody-at-all")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "There is no profile of this user in user_profiles." in unknown.stderr
    assert mall.at_once(capsys, "explain", "").returncode == 1


def test_rules_are_tried_without_storing_or_publishing_anything(
    done: dict[str, Any], mall: Any, mall_client: Elasticsearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = documents(mall_client, "user_profiles")
    shipped = json.loads(mall.at_once(capsys, "rules", "--json").stdout)
    assert len(shipped["rules"]) >= 5
    for rule in shipped["rules"]:
        assert rule["users"] == sum(rule["name"] in found["rules"] for found in profiles.values()), rule["name"]
    for pair in shipped["overlaps"]:
        assert pair["users"] == sum({pair["one"], pair["other"]} <= set(found["rules"]) for found in profiles.values())

    (tmp_path / "rules.yaml").write_text(
        "rules:\n"
        "  - {name: everybody, description: All., when: {feature: sessions, at_least: 1}}\n"
        "  - {name: everybody_again, description: All., when: {feature: sessions, below: 1000}}\n"
        "  - {name: nobody, description: None., when: {feature: sessions, below: 0}}\n"
    )
    config = tmp_path / "segments.yaml"
    config.write_text("rules: {file: rules.yaml}\n")
    tried = json.loads(mall.at_once(capsys, "rules", "--json", "--config", config).stdout)
    taken = {"everybody": done["users"], "everybody_again": done["users"], "nobody": 0}
    assert {rule["name"]: rule["users"] for rule in tried["rules"]} == taken
    assert [(p["one"], p["other"], p["users"]) for p in tried["overlaps"]] == [
        ("everybody", "everybody_again", done["users"])
    ]
    tables = mall.at_once(capsys, "rules", "--config", config).stdout
    for text in ("everybody_again", "100.0%", "Users in two of them"):
        assert text in tables
    assert documents(mall_client, "user_profiles") == profiles


def test_profiles_and_lists_of_users_are_exported(
    done: dict[str, Any], mall: Any, mall_client: Elasticsearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = documents(mall_client, "user_profiles")
    target = tmp_path / "profiles.ndjson"
    written = mall.at_once(capsys, "export", "profiles", "-o", target)
    assert written.returncode == 0
    assert f"{done['users']:,} profiles in " in written.stderr
    lines = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert {line["user_id"] for line in lines} == set(profiles)
    persona = done["personas"][0]["persona"]
    listed = mall.at_once(capsys, "export", "users", "--persona", persona)
    rows = list(csv.DictReader(io.StringIO(listed.stdout)))
    assert {row["user_id"] for row in rows} == {key for key, p in profiles.items() if p["persona"] == persona}
    refused = mall.at_once(capsys, "export", "profiles", "-o", target)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--force" in refused.stderr


def test_the_dashboard_for_kibana_is_written_of_the_aliases_in_the_settings(
    mall: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "segments.yaml"
    config.write_text("publish: {alias: my_segments}\nprofiles: {alias: my_profiles}\n")
    target = tmp_path / "dashboard.ndjson"
    written = mall.at_once(capsys, "kibana", "-o", target, "--config", config)
    assert written.returncode == 0
    objects = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert written.stdout == f"{target}: {len(objects)} saved objects\n"
    assert {"dashboard", "index-pattern"} <= {entry.get("type") for entry in objects}
    assert {"my_segments", "my_profiles"} <= {
        entry["attributes"]["title"] for entry in objects if entry.get("type") == "index-pattern"
    }
    assert mall.at_once(capsys, "kibana").stdout.count("\n") > 1


# --- seed -----------------------------------------------------------------------------------------------------------


def test_sessions_are_generated_with_and_without_behaviour(
    mall: Any, mall_client: Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"session_id", "user_id", "search_query", "clicked_product_ids", "timestamp"}
    plain = mall.at_once(capsys, "seed", "--sessions", "200", "--no-behaviour", "--index", "plain")
    assert plain.stdout.startswith("plain: 200 sessions written, 0 were there already.")
    assert {name for found in documents(mall_client, "plain").values() for name in found} == base

    rich = mall.at_once(capsys, "seed", "--sessions", "400", "--sessions-per-user", "20", "--index", "rich")
    assert rich.returncode == 0
    found = documents(mall_client, "rich").values()
    assert {"events", "duration", "device", "country"} <= {name for document in found for name in document}
    assert 10 <= len({document["user_id"] for document in found}) <= 40  # 20 each on average
    assert len({d["user_id"] for d in documents(mall_client, "user_sessions").values()}) > SESSIONS / 8


def test_attributes_are_written_to_the_embedded_node_only(
    mall: Any, segments_at: Callable[..., Any], mall_client: Elasticsearch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A cluster that somebody named may have real ones: nothing made up goes there."""
    assert mall_client.count(index="user_attributes")["count"] > 10
    elsewhere = segments_at(tmp_path / "data", ELASTICSEARCH_URL=str(EmbeddedElasticsearch(mall.data).url()))
    (tmp_path / "segments.yaml").write_text("attributes: {index: real_attributes}\n")
    elsewhere.environment["SEGMENTS_CONFIG"] = str(tmp_path / "segments.yaml")
    assert elsewhere.at_once(capsys, "seed", "--sessions", "50", "--index", "elsewhere").returncode == 0
    assert mall_client.count(index="elsewhere")["count"] == 50
    assert not mall_client.indices.exists(index="real_attributes")


# --- going back; last, for it changes what is published ---------------------------------------------------------------


def test_readers_can_be_pointed_at_the_profiles_published_before(
    mall: Any, done: dict[str, Any], mall_client: Elasticsearch
) -> None:
    (before,) = mall_client.indices.get_alias(name="user_profiles")
    again = mall.json("run", "--users")
    assert again["profiles"]["index"] != before
    assert mall.ok("rollback", "--profiles").startswith(f"user_profiles now leads to {before} (")
    assert (mall.data.storage / "behaviour_clusters" / "published").exists()
    assert list(mall_client.indices.get_alias(name="user_segments")) == [again["published"]["index"]]  # untouched
