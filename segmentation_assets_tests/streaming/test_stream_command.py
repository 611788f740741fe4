"""``segments stream`` as a process: it ends politely, answers in JSON, shows numbers, and says what is missing."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from segmentation_assets.core.live.events import Event, encode
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import StateStore, open_store
from segmentation_assets.io.streams.mqtt import MqttSink, MqttSource
from segmentation_assets.local.mqtt import LocalMqtt
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import HOME_VARIABLE, DataDir
from segmentation_assets_tests.batch_side import Batch

SETTINGS = "stream: {source: mqtt, elasticsearch: false}\n"
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses, as variables."""
    data = DataDir(tmp_path_factory.mktemp("servers"))
    with LocalMqtt(data) as mqtt, LocalRedis(data) as redis:
        yield {"SEGMENTS_MQTT_URL": mqtt.url, "SEGMENTS_REDIS_URL": redis.url}


@pytest.fixture
def store(servers: dict[str, str]) -> Iterator[StateStore]:
    found = open_store(servers["SEGMENTS_REDIS_URL"])
    yield found
    found.close()


def start(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    (folder / "segments.yaml").write_text(SETTINGS)
    whole = {**os.environ, HOME_VARIABLE: str(folder), "SEGMENTS_CONFIG": str(folder / "segments.yaml"), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "segmentation_assets", "stream", *arguments],
        env=whole,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(folder, *arguments, **environment)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err
    return process.returncode, out, err


# The first test runs while no model is published; those after it publish one.


def test_without_a_model_it_says_how_to_get_one(tmp_path: Path, servers: dict[str, str]) -> None:
    code, out, err = done(tmp_path, **servers)
    assert (code, out) == (1, "")
    assert "There is no model to segment users by" in err
    assert "segments run --users" in err


def test_without_a_store_it_says_what_to_start(tmp_path: Path) -> None:
    code, _, err = done(tmp_path)
    assert code == 1
    assert "segments services start redis" in err


def test_a_store_that_does_not_answer_is_said_without_its_password(tmp_path: Path, servers: dict[str, str]) -> None:
    code, _, err = done(tmp_path, **{**servers, "SEGMENTS_REDIS_URL": f"redis://:secret@{NOBODY}/0"})
    assert code == 1
    assert NOBODY in err
    assert "secret" not in err


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, servers: dict[str, str]) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('not here')\n")
    code, _, err = done(tmp_path, **servers, PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "segmentation-assets[stream]" in err


def test_without_a_broker_it_says_what_to_start(
    tmp_path: Path, servers: dict[str, str], store: StateStore, batch: Batch
) -> None:
    publish(store, batch.model, 1)
    code, _, err = done(tmp_path, SEGMENTS_REDIS_URL=servers["SEGMENTS_REDIS_URL"])
    assert code == 1
    assert "segments services start mqtt" in err


def test_it_serves_metrics_and_ends_at_sigterm_with_one_object(
    tmp_path: Path, servers: dict[str, str], store: StateStore, batch: Batch
) -> None:
    publish(store, batch.model, 1)
    known = MqttSource(servers["SEGMENTS_MQTT_URL"], "user_events", "segments")
    known.start(lambda _: None, lambda _: None)
    known.close()
    process = start(tmp_path, "--json", "--name", "one", "--metrics-port", "0", **servers)
    watch = threading.Timer(100, process.kill)
    watch.start()
    try:
        assert process.stderr is not None
        lines: list[str] = []
        page = _said(process, r"metrics: (http://127\.0\.0\.1:\d+/metrics)", lines)[1]
        _said(process, r"worker one reads user_events from mqtt", lines)
        sink = MqttSink(servers["SEGMENTS_MQTT_URL"])
        event = Event("e1", "u", "search", 1_700_000_000_000, search_query="usb cable")
        _said(process, r"reading mqtt/segments", lines)
        sink.send("user_events", [(None, encode(event), {}), (None, b"bad", {})])
        sink.close()
        while 'result="applied"} 1.0' not in (text := httpx.get(page, timeout=30).text):
            assert process.poll() is None
        assert 'result="dead"} 1.0' in text
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        watch.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 0
    said = json.loads(out)
    assert (said["worker"], said["applied"], said["dead"]) == ("one", 1, 1)
    assert said["seconds_of_work"] > 0
    assert store.load(["u"])["u"].searches == 1


def test_it_ends_by_itself_when_nothing_comes(
    tmp_path: Path, servers: dict[str, str], store: StateStore, batch: Batch
) -> None:
    publish(store, batch.model, 1)
    code, out, err = done(tmp_path, "--until-idle", "0.3", **servers)
    assert (code, out) == (0, "")
    assert "ended: 0 events" in err


def _said(process: "subprocess.Popen[str]", pattern: str, lines: list[str]) -> Any:
    """The first line from here on in which something is said."""
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        found = re.search(pattern, line)
        if found:
            return found
    raise AssertionError("".join(lines))
