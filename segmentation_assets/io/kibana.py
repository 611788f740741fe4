"""A dashboard of segments and profiles for Kibana, as a file of saved objects.

What belongs here: the data views, visualizations and the dashboard. What does not: the indices they show (publishing),
writing the file (cli), talking to a Kibana.

The file follows the format that Kibana documents for its saved objects API and writes itself at an export: an object a
line, references by name, and visualizations of the aggregation-based kind, whose form has not changed for years. The
versions in it are those of Kibana 8.9; that one and every newer one migrate from there. **It was not imported into a
running Kibana**; tests hold it to that format, its references to each other, and its fields to the mappings of the
indices. Source: https://www.elastic.co/docs/api/doc/kibana/operation/operation-post-saved-objects-import.

The data views have no time field: a profile is one of now, and with a time field Kibana would show only what happened
in the last minutes until somebody sets its clock.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

_NAMES = UUID("7b0f5a52-6f5e-4c0e-9b2b-0d6f4a1c9e11")  # of ids, so that the same alias gives the same objects
_CORE = "8.8.0"
_TYPES = {"index-pattern": "8.0.0", "visualization": "8.5.0", "dashboard": "8.9.0"}
_SOURCE = "kibanaSavedObjectMeta.searchSourceJSON.index"
_BUCKETS = 20

SEGMENTS, PROFILES = "segments", "profiles"
"""The two data views."""


@dataclass(frozen=True)
class Panel:
    """A visualization and its place.

    Attributes:
        name: unique among the panels; its id is made of it.
        title: what people read.
        view: the data view, ``SEGMENTS`` or ``PROFILES``.
        kind: type of visualization in Kibana.
        aggregations: metrics and buckets.
        params: how it looks.
        place: x, y, width, height on the grid, which is 48 wide.
    """

    name: str
    title: str
    view: str
    kind: str
    aggregations: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any]
    place: tuple[int, int, int, int]


def _metric(number: int, kind: str, label: str, field: str | None = None) -> dict[str, Any]:
    params = {"customLabel": label, **({"field": field} if field else {})}
    return {"id": str(number), "enabled": True, "type": kind, "schema": "metric", "params": params}


def _terms(number: int, field: str, label: str, schema: str = "segment") -> dict[str, Any]:
    params = {
        "field": field,
        "orderBy": "1",
        "order": "desc",
        "size": _BUCKETS,
        "otherBucket": True,
        "otherBucketLabel": "Other",
        "missingBucket": False,
        "missingBucketLabel": "Missing",
        "customLabel": label,
    }
    return {"id": str(number), "enabled": True, "type": "terms", "schema": schema, "params": params}


def _steps(number: int, field: str, label: str, interval: float) -> dict[str, Any]:
    params = {"field": field, "interval": interval, "min_doc_count": False, "extended_bounds": {}, "customLabel": label}
    return {"id": str(number), "enabled": True, "type": "histogram", "schema": "segment", "params": params}


def _pie() -> dict[str, Any]:
    return {
        "type": "pie",
        "addTooltip": True,
        "addLegend": True,
        "legendPosition": "right",
        "isDonut": True,
        "labels": {"show": True, "values": True, "last_level": True, "truncate": 100},
    }


def _bars(metric: str, *, kind: str = "histogram", mode: str = "normal") -> dict[str, Any]:
    """Params of bars: upright as ``histogram``, lying as ``horizontal_bar``; ``mode`` stacked or normal."""
    lying = kind == "horizontal_bar"
    return {
        "type": kind if lying else "histogram",
        "grid": {"categoryLines": False},
        "categoryAxes": [
            {
                "id": "CategoryAxis-1",
                "type": "category",
                "position": "left" if lying else "bottom",
                "show": True,
                "scale": {"type": "linear"},
                "labels": {"show": True, "filter": not lying, "truncate": 200},
                "title": {},
            }
        ],
        "valueAxes": [
            {
                "id": "ValueAxis-1",
                "name": "BottomAxis-1" if lying else "LeftAxis-1",
                "type": "value",
                "position": "bottom" if lying else "left",
                "show": True,
                "scale": {"type": "linear", "mode": "normal"},
                "labels": {"show": True, "rotate": 0, "filter": lying, "truncate": 100},
                "title": {"text": metric},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": "histogram",
                "mode": mode,
                "data": {"label": metric, "id": "1"},
                "valueAxis": "ValueAxis-1",
                "drawLinesBetweenPoints": True,
                "showCircles": True,
            }
        ],
        "addTooltip": True,
        "addLegend": mode == "stacked",
        "legendPosition": "right",
        "times": [],
        "addTimeMarker": False,
    }


def _numbers() -> dict[str, Any]:
    return {
        "type": "metric",
        "addTooltip": True,
        "addLegend": False,
        "metric": {
            "percentageMode": False,
            "useRanges": False,
            "colorSchema": "Green to Red",
            "metricColorMode": "None",
            "colorsRange": [{"from": 0, "to": 10000}],
            "labels": {"show": True},
            "invertColors": False,
            "style": {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "", "fontSize": 36},
        },
    }


def _table() -> dict[str, Any]:
    return {
        "perPage": 20,
        "showPartialRows": False,
        "showMetricsAtAllLevels": False,
        "showTotal": False,
        "totalFunc": "sum",
        "percentageCol": "",
    }


_USERS = _metric(1, "count", "Users")

PANELS: tuple[Panel, ...] = (
    Panel(
        "numbers",
        "Users and loyalty",
        PROFILES,
        "metric",
        (_USERS, _metric(2, "avg", "Average loyalty (0 to 100)", "loyalty_index")),
        _numbers(),
        (0, 0, 32, 8),
    ),
    Panel("sessions", "Sessions", SEGMENTS, "metric", (_metric(1, "count", "Sessions"),), _numbers(), (32, 0, 16, 8)),
    Panel(
        "segments_of_users",
        "Query segments of users",
        PROFILES,
        "pie",
        (_USERS, _terms(2, "segment", "Segment")),
        _pie(),
        (0, 8, 24, 14),
    ),
    Panel(
        "segments_of_sessions",
        "Query segments of sessions",
        SEGMENTS,
        "pie",
        (_metric(1, "count", "Sessions"), _terms(2, "segment", "Segment")),
        _pie(),
        (24, 8, 24, 14),
    ),
    Panel(
        "personas",
        "Personas",
        PROFILES,
        "horizontal_bar",
        (_USERS, _terms(2, "persona", "Persona")),
        _bars("Users", kind="horizontal_bar"),
        (0, 22, 24, 14),
    ),
    Panel(
        "tiers_of_personas",
        "Loyalty tier by persona",
        PROFILES,
        "histogram",
        (_USERS, _terms(2, "persona", "Persona"), _terms(3, "loyalty_tier", "Tier", schema="group")),
        _bars("Users", mode="stacked"),
        (24, 22, 24, 14),
    ),
    Panel(
        "loyalty_of_personas",
        "Average loyalty by persona",
        PROFILES,
        "histogram",
        (_metric(1, "avg", "Average loyalty (0 to 100)", "loyalty_index"), _terms(2, "persona", "Persona")),
        _bars("Average loyalty (0 to 100)"),
        (0, 36, 24, 14),
    ),
    Panel(
        "recency",
        "Users by days since their last session",
        PROFILES,
        "histogram",
        (_USERS, _steps(2, "features.recency_days", "Days since the last session, by weeks", 7)),
        _bars("Users"),
        (24, 36, 24, 14),
    ),
    Panel(
        "rules",
        "Segments by rule",
        PROFILES,
        "horizontal_bar",
        (_USERS, _terms(2, "rules", "Rule")),
        _bars("Users", kind="horizontal_bar"),
        (0, 50, 24, 14),
    ),
    Panel(
        "table",
        "Personas and what they search for",
        PROFILES,
        "table",
        (
            _USERS,
            _metric(2, "avg", "Average loyalty", "loyalty_index"),
            _metric(3, "avg", "Days since the last session", "features.recency_days"),
            _terms(4, "persona", "Persona", schema="bucket"),
            _terms(5, "segment", "Segment", schema="bucket"),
        ),
        _table(),
        (24, 50, 24, 14),
    ),
)
"""What the dashboard shows."""


def saved_objects(segments: str = "user_segments", profiles: str = "user_profiles") -> list[dict[str, Any]]:
    """The saved objects: two data views, a visualization for each of ``PANELS``, one dashboard of them all.

    Args:
        segments: alias of the published segments.
        profiles: alias of the published profiles.

    Returns:
        Objects in the order of their references, the dashboard last. The ids depend on nothing but the two aliases, so
        importing again replaces, and dashboards of two sets of aliases stand side by side.
    """
    ids = {
        name: str(uuid5(_NAMES, f"{segments}\0{profiles}\0{name}"))
        for name in (SEGMENTS, PROFILES, "dashboard", *(panel.name for panel in PANELS))
    }
    views = {SEGMENTS: segments, PROFILES: profiles}
    made = [
        _object("index-pattern", ids[view], {"title": alias, "name": f"{view.capitalize()} ({alias})"})
        for view, alias in views.items()
    ]
    made += [_visualization(panel, ids) for panel in PANELS]
    return [*made, _dashboard(ids, f"User segments ({profiles})")]


def dashboard(segments: str = "user_segments", profiles: str = "user_profiles") -> str:
    """The file to import: ``saved_objects`` of these aliases, one a line."""
    return "".join(json.dumps(made) + "\n" for made in saved_objects(segments, profiles))


def _object(
    kind: str, id: str, attributes: Mapping[str, Any], references: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    return {
        "type": kind,
        "id": id,
        "attributes": attributes,
        "references": list(references),
        "coreMigrationVersion": _CORE,
        "typeMigrationVersion": _TYPES[kind],
    }


def _visualization(panel: Panel, ids: Mapping[str, str]) -> dict[str, Any]:
    state = {"title": panel.title, "type": panel.kind, "aggs": panel.aggregations, "params": panel.params}
    search = {"query": {"query": "", "language": "kuery"}, "filter": [], "indexRefName": _SOURCE}
    return _object(
        "visualization",
        ids[panel.name],
        {
            "title": panel.title,
            "description": "",
            "visState": json.dumps(state),
            "uiStateJSON": "{}",
            "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(search)},
        },
        [{"type": "index-pattern", "id": ids[panel.view], "name": _SOURCE}],
    )


def _dashboard(ids: Mapping[str, str], title: str) -> dict[str, Any]:
    panels, references = [], []
    for panel in PANELS:
        index, (x, y, width, height) = ids[panel.name], panel.place
        panels.append(
            {
                "type": "visualization",
                "gridData": {"x": x, "y": y, "w": width, "h": height, "i": index},
                "panelIndex": index,
                "embeddableConfig": {"enhancements": {}},
                "panelRefName": f"panel_{index}",
            }
        )
        references.append({"type": "visualization", "id": index, "name": f"{index}:panel_{index}"})
    return _object(
        "dashboard",
        ids["dashboard"],
        {
            "title": title,
            "description": "Query segments, personas, loyalty and rules of users.",
            "panelsJSON": json.dumps(panels),
            "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
            "timeRestore": False,
            "kibanaSavedObjectMeta": {
                "searchSourceJSON": json.dumps({"query": {"query": "", "language": "kuery"}, "filter": []})
            },
        },
        references,
    )
