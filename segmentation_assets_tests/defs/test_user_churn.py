"""Retraining in the graph: a model that stays, users who change segment, the check that stops it, and rollback."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.io.models import LABELED, MODEL, SERVES, rollback_model, served
from segmentation_assets.io.publishing import published_state

ALIAS = "user_segments"


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = (e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset))
    return {name: value.value for name, value in event.materialization.metadata.items()}


def check(result: dg.ExecuteInProcessResult, name: str = "user_churn") -> dg.AssetCheckEvaluation:
    (found,) = (e for e in result.get_asset_check_evaluations() if e.check_name == name)
    return found


def test_a_day_later_the_model_stays_and_only_new_sessions_are_assigned(
    graph: Any, seed: Callable[..., int], insert: Callable[..., None], es: Elasticsearch
) -> None:
    """First run, then some sessions more: same version, readers see it, the numbers and the plot are in the UI."""
    seed(600)
    first = graph.run()
    assert first.success
    assert metadata(first, "kmeans_model")["decision"] == "took the new model: first model"
    shown = metadata(first, "labeled_segments")
    assert shown["user_churn"] == "none: this is the first result, nothing was published before it"
    assert "user_flow_plot" not in shown
    assert check(first).passed
    assert "none was published before" in check(first).metadata["compared_with"].value
    version = metadata(first, "kmeans_model")["model_version"]

    insert(["red dress", "gaming laptop", "never seen before"])
    again = graph.run()
    assert again.success
    fitted = metadata(again, "kmeans_model")
    assert fitted["decision"].startswith("kept the previous model: ")
    assert fitted["model_version"] == version
    assert "0.5% of the sessions came or went since it was last judged" in fitted["decision"]
    assert fitted["sessions_that_changed_cluster"] == 0
    assert metadata(again, "es_user_segments")["written"] == 3
    shown = metadata(again, "labeled_segments")
    assert shown["users_moved_by_model"] == 0
    assert "3 users came, 0 left" in shown["user_churn"]
    assert "data:image/png;base64,iVBOR" in shown["user_flow_plot"]
    flows = [record.data for record in shown["user_flows"].records]
    assert sum(flow["users"] for flow in flows) == check(again).metadata["users_in_both"].value
    assert check(again).metadata["compared_with"].value == f"model {version}"
    labeled = graph.store.load("labeled_segments", LabeledSegments)
    assert labeled.table.num_rows == es.count(index=ALIAS)["count"] == 603
    state = published_state(es, ALIAS)
    assert state is not None
    assert state.meta["model_version"] == labeled.model_version == version


def test_a_model_that_moves_too_many_users_is_not_published_by_the_graph_nor_past_it(
    graph: Any, seed: Callable[..., int], es: Elasticsearch, causes: Callable[..., dict[str, str]]
) -> None:
    """Blocking, and the guard refuses by the same number; the bound is the way out that the message names."""
    seed(600)
    assert graph.run().success
    before = published_state(es, ALIAS)
    graph.settings("checks: {user_churn: {max_model_share: 0}}\n")
    stopped = graph.run(config={"kmeans_model": {"seed": 3}})
    assert not stopped.success
    found = check(stopped)
    assert (found.passed, found.blocking, found.severity) == (False, True, dg.AssetCheckSeverity.ERROR)
    assert 0 < found.metadata["model_share"].value < 1
    assert "checks.user_churn.max_model_share to 1" in str(found.description)
    alone = graph.run("es_user_segments")
    assert "Not published: user_churn: " in causes(alone)["es_user_segments"]
    assert published_state(es, ALIAS) == before

    graph.settings("checks: {user_churn: {max_model_share: 1}}\n")
    assert graph.run("es_user_segments").success
    after = published_state(es, ALIAS)
    assert after is not None
    assert after.meta["model_version"] == graph.store.load("kmeans_model", ClusterModel).version


def test_a_bound_of_its_own_holds_for_what_somebody_asked_for(graph: Any, seed: Callable[..., int]) -> None:
    """Another k moves users, and whoever wants it means to; unless they set max_asked_share."""
    seed(600)
    assert graph.run().success
    graph.settings("checks: {user_churn: {max_model_share: 0, max_asked_share: 0}}\nclusters: {k: 3}\n")
    stopped = graph.run()
    assert not stopped.success
    assert "max_asked_share" in str(check(stopped).description)
    assert check(stopped).metadata["settings_changed"].value == "clusters.k"
    graph.settings("checks: {user_churn: {max_model_share: 0}}\nclusters: {k: 3}\n")
    assert graph.run().success


def test_always_is_a_choice_of_the_file_or_of_one_run(graph: Any, seed: Callable[..., int]) -> None:
    seed(300)
    assert graph.run().success
    for run in (
        lambda: graph.run(config={"kmeans_model": {"retrain": "always"}}),
        lambda: (graph.settings("clusters: {retrain: always}\n"), graph.run())[1],
    ):
        assert metadata(run(), "kmeans_model")["decision"] == "took the new model: clusters.retrain is 'always'"


def test_after_a_rollback_churn_is_measured_against_what_readers_see_again(
    graph: Any, seed: Callable[..., int], es: Elasticsearch
) -> None:
    seed(600)
    first = metadata(graph.run(), "kmeans_model")["model_version"]
    kept = graph.run()  # the same model labels again: two published indices of one version
    second = metadata(graph.run(config={"kmeans_model": {"k": "7"}}), "kmeans_model")["model_version"]
    assert second != first
    state = rollback_model(es, graph.store, ALIAS, None)
    assert state.meta["model_version"] == first
    assert state.meta["run_id"] == kept.run_id
    assert graph.store.marked(LABELED, SERVES).name == kept.run_id
    assert graph.store.marked(MODEL, SERVES).name == kept.run_id
    again = graph.run()
    assert metadata(again, "kmeans_model")["model_version"] == first
    assert metadata(again, "labeled_segments")["users_that_changed_segment"] == 0


def test_a_served_result_that_cannot_be_read_is_said_and_stops_nothing(
    graph: Any, seed: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    seed(200)
    assert graph.run().success
    (graph.store.marked(LABELED, SERVES) / "fields.json").write_text("{}")
    said: list[str] = []
    assert served(graph.store, said.append) is None
    assert "User churn is not measured." in said[0]
    again = graph.run()
    assert again.success
    assert check(again).passed
