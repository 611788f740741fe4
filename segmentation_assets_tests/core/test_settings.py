"""Settings: defaults that are sound, names and ranges that are checked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from segmentation_assets.core.settings import ClusterSettings, SessionSettings, Settings


def test_the_defaults_are_the_ones_promised() -> None:
    chosen = Settings()
    assert chosen.sessions.index == "user_sessions"
    assert chosen.publish.alias == "user_segments"
    assert chosen.clusters.k == 5
    assert chosen.labels.taxonomy is None
    assert Settings.model_validate(chosen.model_dump()) == chosen
    assert Settings.model_validate_json(chosen.model_dump_json()) == chosen


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"cluster": {}}, "cluster"),
        ({"clusters": {"K": 5}}, "clusters.K"),
        ({"clusters": {"k": 1}}, "clusters"),
        ({"clusters": {"k": "many"}}, "clusters.k"),
        ({"clusters": {"k": "auto", "k_min": 9, "k_max": 8}}, "clusters"),
        ({"clusters": {"k_min": 1}}, "clusters.k_min"),
        ({"clusters": {"k_max": 101}}, "clusters.k_max"),
        ({"clusters": {"method": "dbscan"}}, "clusters.method"),
        ({"clusters": {"n_init": 0}}, "clusters.n_init"),
        ({"clusters": {"seed": -1}}, "clusters.seed"),
        ({"clusters": {"seed": 2**32}}, "clusters.seed"),
        ({"clusters": {"components": 1}}, "clusters.components"),
        ({"vectors": {"ngram_max": 4}}, "vectors.ngram_max"),
        ({"vectors": {"min_df": 0}}, "vectors.min_df"),
        ({"vectors": {"max_terms": 1}}, "vectors.max_terms"),
        ({"labels": {"min_share": 1.1}}, "labels.min_share"),
        ({"checks": {"cluster_balance": {"max_share": -0.1}}}, "checks.cluster_balance.max_share"),
        ({"checks": {"cluster_balance": {"severity": "INFO"}}}, "checks.cluster_balance.severity"),
        ({"publish": {"keep": 0}}, "publish.keep"),
        ({"publish": {"alias": ""}}, "publish.alias"),
        ({"sessions": {"index": ""}}, "sessions.index"),
        ({"automation": {"new_sessions": 0}}, "automation.new_sessions"),
        ({"sessions": {"start": "2024-02-01", "end": "2024-02-01"}}, "sessions"),
        ({"sessions": {"start": "last week"}}, "sessions.start"),
        ({"sessions": {"start": 2024}}, "sessions.start"),
        ({"sessions": {"end": "2024"}}, "sessions.end"),
        ({"sessions": {"end": True}}, "sessions.end"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_its_name(content: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate(content)
    assert ".".join(map(str, raised.value.errors()[0]["loc"])).startswith(where)


@pytest.mark.parametrize("k", [2, 5, "auto", "7"])
def test_k_is_a_number_or_auto(k: int | str) -> None:
    assert ClusterSettings(k=k).k in (2, 5, 7, "auto")


def test_a_time_without_a_zone_is_utc_and_compares_with_one_that_has() -> None:
    window = SessionSettings.model_validate({"start": "2024-01-31", "end": "2024-01-31T02:00:00+01:00"})
    assert window.start == datetime(2024, 1, 31, tzinfo=UTC)
    assert window.end == datetime(2024, 1, 31, 1, tzinfo=UTC)
    assert window.start.utcoffset() == timedelta(0)
    with pytest.raises(ValidationError, match="start must be before end"):
        SessionSettings.model_validate({"start": "2024-01-31T01:30:00", "end": "2024-01-31T02:00:00+01:00"})


def test_an_open_window_is_no_window() -> None:
    assert SessionSettings(start=None, end="2024-01-01").start is None


def test_settings_cannot_be_changed_behind_a_runs_back() -> None:
    with pytest.raises(ValidationError):
        Settings().clusters.k = 6


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [field.annotation for field in model.model_fields.values()]
    return [model, *(deep for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)
                     for deep in sections(kind))]  # fmt: skip


def test_every_setting_says_what_it_means() -> None:
    for model in sections(Settings):
        assert model.__doc__
        for name, field in model.model_fields.items():
            section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert section or field.description or name == "severity", f"{model.__name__}.{name}"
