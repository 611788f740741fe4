"""What Dagster sees of this project, as one snapshot that a reviewer can read.

A change that is meant: ``UPDATE_SNAPSHOTS=1 pytest segmentation_assets_tests/defs/test_definitions.py``, then look at
the difference before committing it.
"""

import json
import os
import socket
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from segmentation_assets import definitions as module
from segmentation_assets.definitions import build_definitions

SNAPSHOT = Path(__file__).with_name("definitions_snapshot.json")
ROOT = Path(__file__).parents[2]


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    """All of the definitions that users and operators rely on, in plain values and a fixed order."""
    graph = definitions.resolve_asset_graph()
    repository = definitions.get_repository_def()
    return {
        "assets": {
            spec.key.to_user_string(): {
                "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
                "group": spec.group_name,
                "kinds": sorted(spec.kinds),
                "owners": list(spec.owners),
                "code_version": spec.code_version,
                "description": spec.description,
                "freshness": freshness(spec.freshness_policy),
                "automation": label(spec.automation_condition),
            }
            for spec in sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())
        },
        "checks": {
            f"{key.asset_key.to_user_string()}/{key.name}": {
                "blocking": graph.get_check_spec(key).blocking,
                "description": graph.get_check_spec(key).description,
            }
            for key in sorted(graph.asset_check_keys)
        },
        "jobs": {
            job.name: {
                "assets": sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys),
                "checks": sorted(key.name for key in job.asset_layer.asset_graph.asset_check_keys),
            }
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: {
                "cron": schedule.cron_schedule,
                "time_zone": schedule.execution_timezone,
                "job": schedule.job_name,
                "default": schedule.default_status.value,
            }
            for schedule in repository.schedule_defs
        },
        "sensors": {
            sensor.name: {
                "type": sensor.sensor_type.value,
                "job": sensor.job_name if sensor.has_jobs else None,
                "minimum_interval_seconds": sensor.minimum_interval_seconds,
                "default": sensor.default_status.value,
            }
            for sensor in repository.sensor_defs
        },
        "resources": {
            name: {"class": type(resource).__name__, "fields": sorted(type(resource).model_fields)}
            for name, resource in sorted((definitions.resources or {}).items())
        },
    }


def freshness(policy: Any) -> str:
    return f"warn after {policy.warn_window.to_timedelta()}, fail after {policy.fail_window.to_timedelta()}"


def label(condition: Any) -> str:
    if (name := condition.get_label()) is not None:
        return str(name)
    operands = getattr(condition, "operands", None)
    return f" {condition.name} ".join(map(label, operands)) if operands else str(condition.name)


def test_the_definitions_are_those_of_the_snapshot() -> None:
    """Nobody renames an asset, unblocks a check or switches something on by default without a reviewer seeing it."""
    found = json.loads(json.dumps(describe(build_definitions())))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
    assert found == json.loads(SNAPSHOT.read_text("utf-8"))


def test_what_starts_runs_by_itself_is_off_until_somebody_switches_it_on() -> None:
    """Independent of the snapshot: only the failure alert, which starts nothing, is on."""
    repository = build_definitions().get_repository_def()
    running = [s.name for s in repository.sensor_defs if s.default_status is dg.DefaultSensorStatus.RUNNING]
    running += [s.name for s in repository.schedule_defs if s.default_status is dg.DefaultScheduleStatus.RUNNING]
    assert running == ["alert_on_failure"]


def test_every_field_of_every_resource_says_what_it_is() -> None:
    for name, resource in (build_definitions().resources or {}).items():
        for field, info in type(resource).model_fields.items():
            assert info.description, f"{name}.{field}"


def test_the_code_location_has_one_name() -> None:
    """`dagster dev` in the checkout, `dagster -w workspace.yaml` and `segments dev` show the same location."""
    from segmentation_assets.cli import dev

    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dagster"]
    names = {tool["code_location_name"]}
    modules = {tool["module_name"]}
    for text in ((ROOT / "workspace.yaml").read_text(), dev.WORKSPACE):
        (entry,) = yaml.safe_load(text)["load_from"]
        names.add(entry["python_module"]["location_name"])
        modules.add(entry["python_module"]["module_name"])
    assert names == {"segmentation_assets"}
    assert modules == {module.__name__}


def test_loading_the_definitions_connects_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code server comes up, and the UI shows the graph, while the cluster is down."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setenv("ELASTICSEARCH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SEGMENTS_CONFIG", "/nowhere/segments.yaml")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr("subprocess.Popen.__init__", refuse)  # nor is the embedded node started
    loaded = module.definitions()
    assert {spec.key.to_user_string() for spec in loaded.resolve_all_asset_specs()} >= {"raw_sessions"}
    dg.Definitions.validate_loadable(loaded)
