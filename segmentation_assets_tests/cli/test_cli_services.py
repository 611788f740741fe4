"""``segments services``: what it prints, what it leaves running, and how it ends."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from segmentation_assets.cli.services import services_app
from segmentation_assets.errors import SegmentsError
from segmentation_assets.local.services import ALL
from segmentation_assets.paths import HOME_VARIABLE, DataDir


class Services:
    """The command on one data folder."""

    def __init__(self, folder: Path) -> None:
        self.data = DataDir(folder)

    def __call__(self, *arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(services_app, [*arguments, "--data-dir", str(self.data.root)], env={"COLUMNS": "200"})
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """On an empty data folder; the environment is put back afterwards, and what was started is stopped."""
    command = Services(tmp_path / "data")
    with pytest.MonkeyPatch.context() as patch:
        for name in (HOME_VARIABLE, "DAGSTER_HOME"):
            patch.setenv(name, os.environ.get(name, ""))
        yield command
    for made in ALL.values():
        made(command.data).stop()


def test_servers_run_on_after_start_are_described_by_status_and_end_with_stop(services: Services) -> None:
    first = services("start", "redis", "mqtt")
    lines = first.stdout.splitlines()
    assert lines[0].startswith("export SEGMENTS_REDIS_URL=redis://127.0.0.1:")
    assert lines[1].startswith("export SEGMENTS_MQTT_URL=mqtt://127.0.0.1:")
    assert len(lines) == 2  # so that a shell can evaluate it
    assert "starting redis" in first.stderr

    again = services.json("start", "mqtt", "redis")
    assert again["environment"] == dict(line.removeprefix("export ").split("=", 1) for line in lines)
    found = services.json("status")["services"]
    assert {one["name"]: one["state"] for one in found} == {
        "kafka": "stopped", "redis": "running", "mqtt": "running", "elasticsearch": "stopped",
    }  # fmt: skip
    shown = services("status", "redis").stdout
    redis = next(one for one in found if one["name"] == "redis")
    assert redis["address"] in shown
    assert str(redis["pid"]) in shown
    # the last column, folded where it is too long for the terminal
    column = "".join(line.rstrip("│ ").rpartition("│")[2].strip() for line in shown.splitlines())
    assert str(redis["log"]) in column
    services("status", "redis", "kafka", code=3)

    stopped = services.json("stop")["stopped"]
    assert stopped == {"kafka": False, "redis": True, "mqtt": True, "elasticsearch": False}
    assert not psutil.pid_exists(redis["pid"])
    assert "was not running" in services("stop", "redis").stdout
    services("status", code=3)


def test_one_that_was_killed_is_shown_with_the_end_of_its_log(services: Services) -> None:
    services("start", "redis")
    pid = services.json("status", "redis")["services"][0]["pid"]
    process = psutil.Process(pid)
    process.kill()
    process.wait(30)
    done = services("status", code=3)
    assert "dead" in done.stdout
    assert "redis was killed" in done.stderr
    assert "Ready to accept connections" in done.stderr


def test_an_unknown_service_is_one_clear_error(services: Services) -> None:
    done = services("start", "rabbit", code=1)
    assert isinstance(done.exception, SegmentsError)
    assert "There is no service 'rabbit'. Name some of kafka, redis, mqtt, elasticsearch." in str(done.exception)


def test_the_embedded_elasticsearch_is_one_of_them_and_is_kept(services: Services) -> None:
    started = services.json("start", "elasticsearch")
    (found,) = started["services"]
    assert (found["state"], started["environment"]) == ("running", {})
    assert found["url"] == f"http://{found['address']}"
    assert services.json("stop", "elasticsearch") == {"stopped": {"elasticsearch": True}}
