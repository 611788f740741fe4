"""The saved objects hold together, follow Kibana's format, and show fields that are there.

No Kibana runs here: what is tested is what can be known without one.
"""

import json
from itertools import combinations
from typing import Any

import pytest

from segmentation_assets.io.kibana import PANELS, PROFILES, SEGMENTS, dashboard, saved_objects
from segmentation_assets.io.templates import profile_template, segment_template

NUMBERS = {"float", "double", "integer", "long"}


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return [json.loads(line) for line in dashboard().splitlines()]


def of(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [found for found in objects if found["type"] == kind]


def type_of(view: str, field: str) -> str | None:
    """The type of a field in the mapping of what a data view shows."""
    template = {SEGMENTS: segment_template, PROFILES: profile_template}[view]()
    described: dict[str, Any] = {"properties": template.mappings["properties"]}
    for part in field.split("."):
        described = described.get("properties", {}).get(part, {})
    return described.get("type")


def test_there_are_two_data_views_a_visualization_for_each_panel_and_a_dashboard(objects: list[dict[str, Any]]) -> None:
    assert [found["type"] for found in objects] == ["index-pattern"] * 2 + ["visualization"] * len(PANELS) + [
        "dashboard"
    ]
    assert [found["attributes"]["title"] for found in of(objects, "index-pattern")] == [
        "user_segments",
        "user_profiles",
    ]
    kinds = {json.loads(found["attributes"]["visState"])["type"] for found in of(objects, "visualization")}
    assert kinds == {"pie", "histogram", "horizontal_bar", "metric", "table"}


def test_ids_are_unique_and_depend_on_the_aliases_alone(objects: list[dict[str, Any]]) -> None:
    ids = [found["id"] for found in objects]
    assert len(set(ids)) == len(ids)
    assert dashboard() == dashboard()
    other = saved_objects("shop_segments", "shop_profiles")
    assert not {found["id"] for found in other} & set(ids)
    assert [found["attributes"]["title"] for found in of(other, "index-pattern")] == ["shop_segments", "shop_profiles"]


def test_every_reference_leads_to_an_object_before_it_and_every_name_is_referred_to(
    objects: list[dict[str, Any]],
) -> None:
    known: set[tuple[str, str]] = set()
    for found in objects:
        names = [reference["name"] for reference in found["references"]]
        assert len(set(names)) == len(names)
        assert {(reference["type"], reference["id"]) for reference in found["references"]} <= known
        known.add((found["type"], found["id"]))
    for found in of(objects, "visualization"):
        search = json.loads(found["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        assert [reference["name"] for reference in found["references"]] == [search["indexRefName"]]


def test_the_dashboard_shows_every_visualization_once_and_none_over_another(objects: list[dict[str, Any]]) -> None:
    (made,) = of(objects, "dashboard")
    panels = json.loads(made["attributes"]["panelsJSON"])
    referred = {reference["name"]: reference["id"] for reference in made["references"]}
    # Kibana looks for the reference of a panel under its index, a colon, and the name in it.
    shown = [referred[f"{panel['panelIndex']}:{panel['panelRefName']}"] for panel in panels]
    assert sorted(shown) == sorted(found["id"] for found in of(objects, "visualization"))
    places = [panel["gridData"] for panel in panels]
    assert all(place["i"] == panel["panelIndex"] for place, panel in zip(places, panels, strict=True))
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 48 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_a_panel_aggregates_fields_that_are_there_and_of_a_kind_that_can_be(panel: Any) -> None:
    ids = [aggregation["id"] for aggregation in panel.aggregations]
    assert ids == [str(number) for number in range(1, len(ids) + 1)]
    assert panel.aggregations[0]["schema"] == "metric"
    for aggregation in panel.aggregations:
        field = aggregation["params"].get("field")
        expected = {"count": {None}, "avg": NUMBERS, "histogram": NUMBERS, "terms": {"keyword"}}[aggregation["type"]]
        assert (type_of(panel.view, field) if field else None) in expected, (panel.name, field)
        if aggregation["type"] == "terms":
            assert aggregation["params"]["orderBy"] in ids


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_a_panel_of_bars_draws_its_first_metric_on_an_axis_that_it_has(panel: Any) -> None:
    if panel.kind not in ("histogram", "horizontal_bar"):
        assert "seriesParams" not in panel.params
        return
    (series,) = panel.params["seriesParams"]
    assert series["data"]["id"] == "1"
    assert series["valueAxis"] in [axis["id"] for axis in panel.params["valueAxes"]]


def test_nothing_in_it_belongs_to_one_installation_or_is_newer_than_kibana_8_9(objects: list[dict[str, Any]]) -> None:
    for found in objects:
        assert set(found) == {
            *("type", "id", "attributes", "references", "coreMigrationVersion", "typeMigrationVersion"),
        }
        assert "version" not in found["attributes"]
        for version in (found["coreMigrationVersion"], found["typeMigrationVersion"]):
            assert [int(part) for part in version.split(".")] <= [8, 9, 0]
    panels = json.loads(of(objects, "dashboard")[0]["attributes"]["panelsJSON"])
    assert not any("version" in panel for panel in panels)
    assert not any("timeFieldName" in found["attributes"] for found in of(objects, "index-pattern"))
