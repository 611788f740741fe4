"""The ``segments`` command, end to end: what it does, what it prints, how it ends."""

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from elasticsearch import Elasticsearch

from segmentation_assets.cli.app import app
from segmentation_assets.cli.runs import USER_ASSETS

REAL = Path(__file__).parents[3] / "shared" / "data"
ASSETS = ["raw_sessions", "tfidf_matrix", "kmeans_model", "labeled_segments", "es_user_segments"]
CHECKS = {
    *("sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn"),
    "published_complete",
}
CLOSED = "http://user:s3cret@127.0.0.1:1"


def settings(folder: Path, text: str) -> Path:
    path = folder / "segments-under-test.yaml"
    path.write_text(text)
    return path


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that must happen; how fast is not the question."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.1)


# --- demo -----------------------------------------------------------------------------------------------------------


def test_demo_answers_with_one_object_of_the_promised_shape(demo: Any, client: Elasticsearch) -> None:
    """Programs rely on these names and types; nothing but the object is on stdout."""
    _, done = demo
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sessions"] == result["read"] == 1_000
    assert result["set_aside"] == {}
    assert isinstance(result["users"], int)
    assert len(result["segments"]) >= 3
    for row in result["segments"]:
        assert isinstance(row["segment"], str)
        assert isinstance(row["users"], int)
        assert isinstance(row["sessions"], int)
        assert row["share"] == pytest.approx(row["sessions"] / 1_000, abs=1e-6)
        assert all(isinstance(word, str) for word in row["keywords"])
    assert sum(row["sessions"] for row in result["segments"]) == 1_000
    assert sum(row["users"] for row in result["segments"]) == result["users"]
    assert {check["name"] for check in result["checks"]} == CHECKS
    for check in result["checks"]:
        assert check["passed"] is True
        assert check["severity"] in ("ERROR", "WARN")
        assert isinstance(check["blocking"], bool)
        assert check["values"]
    published = result["published"]
    assert (published["alias"], published["documents"]) == ("user_segments", 1_000)
    assert list(client.indices.get_alias(name="user_segments")) == [published["index"]]
    assert client.count(index="user_segments")["count"] == 1_000
    assert result["elasticsearch"]["embedded"] is True
    assert result["elasticsearch"]["version"].count(".") == 2
    assert result["elasticsearch"]["url"].startswith("http://127.0.0.1:")
    assert list(result["seconds"]) == ASSETS
    assert all(isinstance(seconds, float) for seconds in result["seconds"].values())


def test_demo_with_keep_leaves_the_node_and_nothing_else(demo: Any) -> None:
    (node,) = demo[0].processes()
    assert "segmentation_assets.local.elasticsearch_node" in node.cmdline()


def test_another_demo_uses_the_sessions_that_are_there(shop: Any, client: Elasticsearch) -> None:
    """Also with another seed or number; it says so, and shows tables for people."""
    before = client.indices.stats(index="user_sessions")["_all"]["primaries"]["indexing"]["index_total"]
    done = shop("demo", "--seed", "7", "--sessions", "50")
    assert done.returncode == 0
    assert "none were generated" in done.stderr
    after = client.indices.stats(index="user_sessions")["_all"]["primaries"]["indexing"]["index_total"]
    assert after == before
    for text in ("Segments", "tech_enthusiast", "sample queries", "cluster_balance", "Published 1,000 documents"):
        assert text in done.stdout
    assert "segments dev" in done.stderr
    assert len(shop.processes()) == 1  # the node that was asked to stay stays


def test_demo_without_keep_leaves_no_process_behind(segments: Any) -> None:
    """And the data, and the run in the Dagster instance, stay."""
    result = segments.json("demo", "--sessions", "120", "--seed", "3", "--data-dir", segments.data.root)
    assert result["sessions"] == 120
    assert not segments.processes()
    assert list(segments.data.truth.glob("*.parquet"))
    import dagster as dg

    with dg.DagsterInstance.from_config(str(segments.data.dagster)) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert run.run_id == result["run_id"]


def test_demo_stopped_by_a_check_says_which_and_by_how_much(
    shop: Any, tmp_path: Path, client: Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; readers keep what was published before."""
    before = list(client.indices.get_alias(name="user_segments"))
    strict = settings(tmp_path, "checks: {cluster_balance: {max_share: 0.05}}\n")
    done = shop("demo", "--config", strict)
    assert done.returncode == 1
    assert "blocking check cluster_balance on kmeans_model: the largest cluster holds " in done.stderr
    assert "over 5.0%" in done.stderr
    assert "still see what was published before" in done.stderr
    assert list(client.indices.get_alias(name="user_segments")) == before

    result = json.loads(shop.at_once(capsys, "run", "--config", strict, "--json").stdout)
    assert result["published"] is None
    assert result["still_published"]["index"] == before[0]
    assert result["segments"] == []
    (failed,) = (check for check in result["checks"] if not check["passed"])
    assert (failed["name"], failed["severity"], failed["blocking"]) == ("cluster_balance", "ERROR", True)


# --- run, check, rollback -------------------------------------------------------------------------------------------


def test_run_takes_other_clusters_and_rollback_brings_the_published_ones_back(
    elsewhere: Any, capsys: pytest.CaptureFixture[str], client: Elasticsearch
) -> None:
    elsewhere.data.root.mkdir()
    (elsewhere.data.root / "segments.yaml").write_text("publish: {alias: rolled}\n")
    assert elsewhere.at_once(capsys, "run").returncode == 0
    (before,) = client.indices.get_alias(name="rolled")
    result = json.loads(
        elsewhere.at_once(capsys, "run", "--k", "3", "--seed", "1", "--method", "spherical", "--json").stdout
    )
    after = result["published"]["index"]
    assert len({cluster for row in result["segments"] for cluster in row["clusters"]}) <= 3
    assert list(client.indices.get_alias(name="rolled")) == [after] != [before]
    assert f"rolled now leads to {before} (1,000 documents)" in elsewhere.ok("rollback")
    assert list(client.indices.get_alias(name="rolled")) == [before]
    assert after in elsewhere.at_once(capsys, "rollback", "--to", after).stdout
    assert list(client.indices.get_alias(name="rolled")) == [after]
    nowhere = elsewhere.at_once(capsys, "rollback", "--to", "nowhere")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "nowhere" in nowhere.stderr


def test_check_gates_ci_by_severity(shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 only if every check of severity ERROR passed; JUnit XML for the CI's own view."""
    junit = tmp_path / "reports" / "checks.xml"
    assert "label_coverage" in shop.ok("check", "--junit", junit)
    suite = ET.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "0", "0")
    assert {case.get("name") for case in suite} == CHECKS

    warn = settings(tmp_path, "checks: {label_coverage: {min_session_share: 1}}\n")
    done = shop.at_once(capsys, "check", "--junit", junit, "--config", warn)
    assert done.returncode == 0
    assert "warning" in done.stdout
    text = junit.read_text()
    assert "<failure" not in text
    assert "WARN: " in text

    error = settings(tmp_path, "checks: {label_coverage: {min_session_share: 1, severity: ERROR}}\n")
    done = shop.at_once(capsys, "check", "--junit", junit, "--config", error)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "label_coverage" in done.stderr
    (failure,) = ET.parse(junit).getroot().iter("failure")
    assert "of the sessions are in a named segment, under 100.0%" in str(failure.get("message"))
    assert "session_share: " in str(failure.text)


def test_a_check_that_does_not_block_gates_too(
    shop: Any, client: Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dagster itself would exit 0: somebody deleted a published document, and the check on it blocks nothing."""
    some = client.search(index="user_segments", size=1)["hits"]["hits"][0]
    client.delete(index=some["_index"], id=some["_id"], refresh=True)
    result = shop.json("check", code=1)
    (failed,) = (check for check in result["checks"] if not check["passed"])
    assert (failed["name"], failed["severity"], failed["blocking"]) == ("published_complete", "ERROR", False)
    assert failed["values"] == {"labelled": 1_000, "published": 999}
    assert shop.at_once(capsys, "run").returncode == 0  # heals it


# --- seed, import ---------------------------------------------------------------------------------------------------


def test_seeding_twice_changes_nothing(
    elsewhere: Any, client: Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = ("seed", "--sessions", "300", "--seed", "5", "--end", "2026-01-31", "--index", "seeded")
    assert elsewhere.ok(*seed).startswith("seeded: 300 sessions written, 0 were there already.")
    first = {hit["_id"]: hit["_source"] for hit in client.search(index="seeded", size=500)["hits"]["hits"]}
    assert elsewhere.at_once(capsys, *seed).stdout.startswith("seeded: 0 sessions written, 300 were there already.")
    assert {hit["_id"]: hit["_source"] for hit in client.search(index="seeded", size=500)["hits"]["hits"]} == first
    plain = {"session_id", "user_id", "search_query", "clicked_product_ids", "timestamp"}
    assert all(set(session) >= plain for session in first.values())
    assert set().union(*first.values()) - plain == {"duration", "device", "country", "region", "referrer", "events"}
    assert elsewhere.ok(*seed[:-1], "plain", "--no-behaviour").startswith("plain: 300 sessions written")
    assert set().union(*(hit["_source"] for hit in client.search(index="plain", size=500)["hits"]["hits"])) == plain


BAD: dict[str, dict[str, Any]] = {
    "no_user": {"user_id": ""},
    "empty_query": {"search_query": " "},
    "query_not_text": {"search_query": {"text": "dress"}},
    "query_too_long": {"search_query": "dress " * 200},
    "bad_timestamp": {"timestamp": "yesterday"},
    "future_timestamp": {"timestamp": "2999-01-01T00:00:00Z"},
}


def mixed_file(folder: Path) -> Path:
    """1,000 good and 200 bad documents."""
    rng = random.Random(7)
    words = ["gaming laptop", "red dress", "cheap rug", "yoga mat", "lipstick", "sofa table", "usb cable", "boots"]
    lines = []
    for number in range(1_200):
        document: dict[str, Any] = {
            "session_id": f"s{number}",
            "user_id": f"u{number % 300}",
            "search_query": rng.choice(words),
            "timestamp": f"2026-01-{1 + number % 28:02}T10:00:00Z",
        }
        if number % 6 == 5:
            document.update(list(BAD.values())[number // 6 % len(BAD)])
        lines.append(json.dumps(document))
    path = folder / "mixed.ndjson"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_thousand_good_and_two_hundred_bad_documents(
    elsewhere: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read = kept + set aside, by reason, at the import and in the run; importing again changes nothing."""
    elsewhere.data.root.mkdir()
    (elsewhere.data.root / "segments.yaml").write_text("sessions: {index: mixed}\npublish: {alias: mixed_segments}\n")
    path = mixed_file(tmp_path)
    expected = {reason: 33 + (place < 2) for place, reason in enumerate(BAD)}
    first = elsewhere.json("import", path)
    assert (first["read"], first["created"], sum(first["set_aside"].values())) == (1_200, 1_000, 200)
    assert first["set_aside"] == expected
    again = elsewhere.at_once(capsys, "import", path)
    assert "1,200 read, 1,000 sessions in mixed (0 new, 0 changed, 1,000 as they were)" in again.stdout
    assert "Set aside 200 in mixed_rejected: " in again.stdout
    result = elsewhere.json("run")
    assert result["elasticsearch"]["embedded"] is False
    assert (result["read"], result["sessions"]) == (1_200, 1_000)
    assert result["set_aside"] == expected
    assert result["published"]["documents"] == 1_000
    assert "Set aside 200 of 1,200 documents: " in elsewhere.at_once(capsys, "run").stdout


@pytest.mark.parametrize(
    ("file", "sessions"), [("chorus_ubi.ndjson", 473), ("excite_small.log", 4_501)], ids=["chorus", "excite"]
)
def test_real_searches_become_segments(file: str, sessions: int, elsewhere: Any) -> None:
    """The two real files load and the whole graph runs on each; every search is kept or set aside, every user has a
    profile.
    """
    if not (REAL / file).is_file():
        pytest.skip(f"{REAL / file} is not here: it is not part of the repository")
    name = file.partition("_")[0]
    elsewhere.data.root.mkdir()
    (elsewhere.data.root / "segments.yaml").write_text(
        f"sessions: {{index: {name}}}\npublish: {{alias: {name}_segments}}\nprofiles: {{alias: {name}_profiles}}\n"
    )
    loaded = elsewhere.json("import", REAL / file)
    assert loaded["indexed"] + loaded["duplicates"] + sum(loaded["set_aside"].values()) == loaded["read"] == sessions
    result = elsewhere.json("run", "--users")
    assert result["sessions"] == loaded["indexed"]
    assert result["published"]["documents"] == result["sessions"]
    assert result["profiles"]["documents"] == result["users"] == sum(row["users"] for row in result["personas"])
    assert all(check["passed"] for check in result["checks"] if check["severity"] == "ERROR")


def test_import_with_a_mapping(
    elsewhere: Any, tmp_path: Path, client: Elasticsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "searches.csv"
    path.write_text("customer;q;when\nanna;rotes kleid;01.02.2026 10:00\nbert;laptop;02.02.2026 11:30\n")
    mapping = ("--map", "user_id=customer", "--map", "search_query=q", "--map", "timestamp=when")
    done = elsewhere.at_once(
        capsys, "import", path, *mapping, "--timestamp-format", "%d.%m.%Y %H:%M", "--index", "mapped"
    )
    assert done.returncode == 0
    found = client.search(index="mapped", sort="timestamp")["hits"]["hits"]
    assert [hit["_source"]["search_query"] for hit in found] == ["rotes kleid", "laptop"]


# --- mistakes -------------------------------------------------------------------------------------------------------


MISTAKES: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    "unknown file": (("import", "nothing.csv"), {}, ("nothing.csv",)),
    "a folder instead of a file": (("import", "."), {}, ("Error",)),
    "a map that is none": (("import", "a.csv", "--map", "search_query"), {}, ("--map", "FIELD=COLUMN")),
    "a map to an unknown field": (("import", "a.csv", "--map", "colour=q"), {}, ("colour",)),
    "a map from an unknown column": (("import", "a.csv", "--map", "search_query=z"), {}, ("z",)),
    "unknown format": (("import", "a.csv", "--format", "xls"), {}, ("xls",)),
    "settings that are not YAML": (("run",), {"settings": "a: [b"}, ("not valid YAML",)),
    "an unknown setting": (("run",), {"settings": "cluster: {k: 3}"}, ("cluster",)),
    "a setting out of range": (("run",), {"settings": "clusters: {k: 1}"}, ("k must be at least 2",)),
    "settings that are not there": (("run", "--config", "nowhere.yaml"), {}, ("nowhere.yaml", "--config")),
    "a taxonomy that is none": (("run",), {"settings": "labels: {taxonomy: a.csv}"}, ("a.csv",)),
    "a taxonomy that is not there": (
        ("run",),
        {"settings": "labels: {taxonomy: x.yaml}"},
        ("x.yaml", "cannot be read"),
    ),
    "check before anything ran": (("check",), {}, ("not been materialized", "segments run")),
    "run without sessions": (("run",), {}, ("user_sessions_of_nobody",)),
    "rollback before anything ran": (("rollback",), {}, ("user_segments_of_nobody",)),
    "closed port": (("run",), {"ELASTICSEARCH_URL": CLOSED}, ("127.0.0.1:1",)),
    "closed port, import": (("import", "a.csv"), {"ELASTICSEARCH_URL": CLOSED}, ("127.0.0.1:1",)),
    "closed port, check": (("check",), {"ELASTICSEARCH_URL": CLOSED}, ("Error",)),
    "a URL without a scheme": (("seed",), {"ELASTICSEARCH_URL": "user:s3cret@localhost:9200"}, ("scheme",)),
    "data folder that is a file": (("demo", "--data-dir", "a.csv"), {}, ("--data-dir",)),
    "no heap": (("elasticsearch", "start"), {"SEGMENTS_ELASTICSEARCH_HEAP": "lots"}, ("lots",)),
    "url of a node that does not run": (("elasticsearch", "url"), {}, ("segments elasticsearch start",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_error_and_never_a_traceback(
    mistake: str,
    elsewhere: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong and what to do, on stderr, exit code 1; a secret in the address is not repeated."""
    arguments, given, expected = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("user_id,q,timestamp\nu,dress,2026-01-01\n")
    nobody = "{sessions: {index: user_sessions_of_nobody}, publish: {alias: user_segments_of_nobody}}"
    elsewhere.environment["SEGMENTS_CONFIG"] = str(settings(tmp_path, given.get("settings", nobody)))
    elsewhere.environment.update({name: value for name, value in given.items() if name.isupper()})
    done = elsewhere.at_once(capsys, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    said = done.stderr
    assert "Error:" in said or "Failed:" in said
    for text in expected:
        assert text in said
    assert "s3cret" not in said


@pytest.mark.parametrize("arguments", [("import", "nothing.csv"), ("run", "--data-dir", "/proc/nowhere"), ("check",)])
def test_a_mistake_shows_no_traceback_in_a_process_of_its_own(arguments: tuple[str, ...], elsewhere: Any) -> None:
    done = elsewhere(*arguments)  # which looks for one
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error:" in done.stderr


def test_a_mistake_with_json_is_one_object_too(elsewhere: Any) -> None:
    error = elsewhere.json("import", "nothing.csv", code=1)["error"]
    assert "nothing.csv" in error["problem"]
    assert error["cure"]


UNKNOWN = {
    ("run", "--sideways"): "--sideways",
    ("run", "--k", "many"): "a number from 2 on, or 'auto'",
    ("run", "--k", "1"): "a number from 2 on, or 'auto'",
    ("run", "--method", "magic"): "one of consensus, embeddings",
    ("demo", "--sessions", "0"): "--sessions",
    ("fly",): "fly",
    ("import",): "Missing argument",
}


@pytest.mark.parametrize("arguments", UNKNOWN, ids=" ".join)
def test_what_the_command_line_does_not_know_is_exit_code_2(
    arguments: tuple[str, ...], segments: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before anything starts, with the option that it is about."""
    done = segments.at_once(capsys, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert UNKNOWN[arguments] in done.stderr


# --- elasticsearch, doctor, help ------------------------------------------------------------------------------------


def test_the_embedded_node_is_started_shown_and_stopped(segments: Any) -> None:
    """Started once however often asked; status is exit code 3 while it does not run."""
    assert segments("elasticsearch", "status").returncode == 3
    assert segments.ok("elasticsearch", "stop") == "It was not running.\n"
    started = segments.ok("elasticsearch", "start")
    (node,) = segments.processes()
    url = segments.ok("elasticsearch", "url").strip()
    assert started.endswith(f"runs at {url}\n")
    with urllib.request.urlopen(f"{url}/_cluster/health") as answer:
        assert json.load(answer)["status"] in ("green", "yellow")
    assert segments.ok("elasticsearch", "start") == started
    status = segments.json("elasticsearch", "status")
    assert (status["state"], status["pid"], status["url"], status["kept"]) == ("running", node.pid, url, True)
    assert "state: running" in segments.ok("elasticsearch", "status")

    # on an empty node: what doctor says, with a cure for each
    report = segments.json("doctor", code=1)
    verdicts = {finding["subject"]: finding for finding in report["findings"]}
    assert report["ok"] is False
    assert verdicts["user_sessions"]["verdict"] == "problem"
    assert verdicts["user_sessions"]["cure"]
    assert verdicts["elasticsearch"]["verdict"] == "ok"
    assert (verdicts["user_attributes"]["verdict"], verdicts["user_attributes"]["cure"]) == ("note", "")
    assert "which is fine" in verdicts["user_attributes"]["seen"]
    assert (verdicts["user_segments"]["verdict"], verdicts["user_segments"]["cure"]) == ("note", "segments run")
    assert (verdicts["user_profiles"]["verdict"], verdicts["user_profiles"]["cure"]) == ("note", "segments run --users")

    assert segments.ok("elasticsearch", "stop") == "Stopped.\n"
    assert segments.json("elasticsearch", "status", code=3)["state"] == "stopped"
    assert not segments.processes()


def test_doctor_finds_nothing_wrong_after_the_demo(shop: Any) -> None:
    report = shop.json("doctor")
    assert report["ok"] is True
    seen = {finding["subject"]: finding["seen"] for finding in report["findings"]}
    assert seen["user_sessions"].startswith("1,000 documents")
    assert seen["user_segments"].startswith("1,000 documents in user_segments-")
    assert {"python", "memory", "data folder", "cache folder", "settings", "taxonomy", "elasticsearch"} <= set(seen)


def test_doctor_looks_at_profiles_and_attributes_where_the_settings_say(
    elsewhere: Any, client: Elasticsearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that belongs to somebody else's index is a problem of that name, and hides nothing of the others."""
    client.index(index="kept-attributes", document={"user_id": "u1"}, refresh=True)

    def findings(publish: str, profiles: str) -> dict[str, Any]:
        text = (
            f"publish: {{alias: {publish}}}\nprofiles: {{alias: {profiles}}}\nattributes: {{index: kept-attributes}}\n"
        )
        elsewhere.environment["SEGMENTS_CONFIG"] = str(settings(tmp_path, text))
        report = json.loads(elsewhere.at_once(capsys, "doctor", "--json").stdout)
        return {finding["subject"]: finding for finding in report["findings"]}

    try:
        found = findings("not-there", "user_segments")
        assert (found["kept-attributes"]["verdict"], found["kept-attributes"]["seen"]) == ("ok", "1 documents")
        assert found["user_segments"]["seen"].startswith("1,000 documents in user_segments-")
        assert found["not-there"]["verdict"] == "note"

        found = findings("user_segments", "kept-attributes")
        assert found["kept-attributes"]["verdict"] == "problem"
        assert found["kept-attributes"]["cure"]
        assert {found[name]["verdict"] for name in ("elasticsearch", "user_sessions", "user_segments")} == {"ok"}
    finally:
        client.indices.delete(index="kept-attributes")


def test_doctor_names_what_is_wrong_with_its_cure(
    segments: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is looked at, also after a problem; no node is started for it."""
    segments.environment["ELASTICSEARCH_URL"] = CLOSED
    segments.environment["SEGMENTS_CONFIG"] = str(settings(tmp_path, "clusters: {k: 1}\n"))
    done = segments.at_once(capsys, "doctor", "--json")
    assert done.returncode == 1
    assert "s3cret" not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    problems = {f["subject"]: f for f in report["findings"] if f["verdict"] == "problem"}
    assert set(problems) == {"settings", "elasticsearch"}
    assert all(problem["cure"] for problem in problems.values())
    assert "127.0.0.1:1" in problems["elasticsearch"]["seen"]
    del segments.environment["ELASTICSEARCH_URL"], segments.environment["SEGMENTS_CONFIG"]
    done = segments.at_once(capsys, "doctor")
    assert done.returncode == 0
    assert "embedded, not running" in done.stdout
    assert "segments elasticsearch start" in done.stderr
    assert not segments.processes()


def verbs() -> list[tuple[str, ...]]:
    root: Any = typer.main.get_command(app)
    found: list[tuple[str, ...]] = [()]
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name, verb) for verb in inner] if inner else [(name,)]
    return found


def test_help_of_every_verb_shows_examples(segments: Any) -> None:
    """Each example begins with the command, to be copied."""
    assert {("demo",), ("run",), ("check",), ("seed",), ("import",), ("dev",), ("doctor",)} <= set(verbs())
    root: Any = typer.main.get_command(app)
    for verb in verbs():
        command = root
        for name in verb:
            command = command.commands[name]
        _, title, examples = (command.help or "").partition("Examples:")
        assert title, f"segments {' '.join(verb)}"
        assert f"segments {' '.join(verb)}".strip() in examples.replace("[bold]", "")
    shown = segments.ok("import", "--help")
    assert "Examples:" in shown
    assert "[bold]" not in shown
    assert segments.ok("--version").startswith("segments ")


# --- dev ------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("ending", ["Ctrl-C in the terminal", "SIGTERM to the command alone"])
def test_dev_serves_the_ui_and_takes_everything_with_it_when_it_ends(
    ending: str, segments: Any, tmp_path: Path
) -> None:
    """Web server, daemon, code servers and the node it started: all gone, whichever way it is ended."""
    port = free_port()
    log = tmp_path / "dev.log"
    with log.open("w") as output:
        process = segments.start("dev", "--port", str(port), stdout=output, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
                return "dagster_version" in json.load(answer)
        except OSError:
            return False

    until(answers, "an answer of the UI")
    query = json.dumps({"query": "{ assetNodes { assetKey { path } } }"}).encode()

    def assets() -> set[str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/graphql", query, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {node["assetKey"]["path"][-1] for node in json.load(answer)["data"]["assetNodes"]}

    assert assets() == set(ASSETS) | set(USER_ASSETS) | {"live_model", "live_health"}
    before = segments.processes()
    assert any("elasticsearch_node" in " ".join(p.cmdline()) for p in before)
    assert len(before) > 3
    if ending.startswith("Ctrl-C"):
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    until(lambda: not [p for p in before if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], "the end of all")
    assert not segments.processes()


def test_dev_says_when_its_port_is_taken(elsewhere: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = elsewhere.at_once(capsys, "dev", "--port", str(port))
    assert done.returncode == 1
    said = done.stderr
    assert f"Port {port} on 127.0.0.1 cannot be used" in said
    assert "--port" in said
