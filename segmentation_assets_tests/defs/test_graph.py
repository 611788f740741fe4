"""The whole graph on a real node: what is stored, checked, published, and what stops it."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from elasticsearch import Elasticsearch
from run_results import documents, evaluations, materialized, metadata

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.defs.resources import ElasticsearchResource, SettingsResource
from segmentation_assets.io import session_reader
from segmentation_assets.io.publishing import list_published, published_state
from segmentation_assets.io.session_store import write_sessions

ASSETS = ("raw_sessions", "tfidf_matrix", "kmeans_model", "labeled_segments", "es_user_segments")
CHECKS = {
    *("sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn"),
    "published_complete",
}
ALIAS = "user_segments"
OPEN_FORMATS = {".parquet", ".npz", ".npy", ".json"}

Causes = Callable[[dg.ExecuteInProcessResult], dict[str, str]]

LOPSIDED = ["gaming laptop"] * 400 + ["red dress", "cheap rug", "yoga mat", "lipstick", "sofa", "usb cable"]


def segments(client: Elasticsearch) -> dict[str, tuple[int, str]]:
    return {key: (found["cluster"], found["segment"]) for key, found in documents(client, ALIAS).items()}


def refusal(causes: dict[str, str]) -> str:
    """The checks that the publish guard names."""
    error, _, said = causes["es_user_segments"].partition(": Not published: ")
    assert error == "PublishRefusedError"
    return said.partition(":")[0]


def broken_documents(client: Elasticsearch) -> dict[str, int]:
    """Documents that cannot be used, written past the import, and how many by reason."""
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    good: dict[str, Any] = {"user_id": "u", "search_query": "red dress", "timestamp": "2026-01-01T00:00:00Z"}
    bad: dict[str, list[dict[str, Any]]] = {
        "no_user": [{**good, "user_id": ""}, {k: v for k, v in good.items() if k != "user_id"}],
        "empty_query": [{**good, "search_query": "   "}],
        "query_too_long": [{**good, "search_query": "dress " * 500}],
        "future_timestamp": [{**good, "timestamp": soon}],
    }
    for reason, rejects in bad.items():
        for number, document in enumerate(rejects):
            client.index(index="user_sessions", id=f"{reason}-{number}", document=document)
    client.indices.refresh(index="user_sessions")
    return {reason: len(rejects) for reason, rejects in bad.items()}


def test_sessions_become_published_segments(graph: Any, seed: Callable[..., int], es: Elasticsearch) -> None:
    """All five assets, all checks; readers see what was labelled; what is stored is in open formats."""
    kept = seed(600)
    broken = broken_documents(es)
    result = graph.run()
    assert result.success
    assert materialized(result) == set(ASSETS)

    shown = metadata(result, "raw_sessions")
    assert shown["read"] == kept + sum(broken.values())
    assert shown["kept"] == shown["dagster/row_count"] == kept
    assert shown["set_aside"] == sum(broken.values())
    assert {r.data["reason"]: r.data["documents"] for r in shown["set_aside_by_reason"].records} == broken
    for reason, count in broken.items():
        (row,) = (r.data for r in shown["set_aside_by_reason"].records if r.data["reason"] == reason)
        assert row["for example (ids)"].count(reason) == count
    for asset in ASSETS:
        assert metadata(result, asset)["dagster/row_count"] > 0
    for asset, picture in (
        ("raw_sessions", "sessions_over_time"),
        ("tfidf_matrix", "most_frequent_terms"),
        ("labeled_segments", "segment_sizes"),
        ("labeled_segments", "query_map"),
        ("labeled_segments", "terms_by_cluster"),
    ):
        assert "data:image/png;base64,iVBOR" in metadata(result, asset)[picture]

    checks = evaluations(result)
    assert set(checks) == CHECKS
    assert all(check.passed for check in checks.values())
    assert checks["published_complete"].metadata["published"].value == kept

    labeled = graph.store.load("labeled_segments", LabeledSegments)
    published = documents(es, ALIAS)
    assert set(published) == set(labeled.table["session_id"].to_pylist())
    for row in labeled.table.to_pylist():
        found = published[row["session_id"]]
        assert set(found) == {
            *("user_id", "search_query", "segment", "session_id", "cluster", "confidence", "timestamp"),
            *("model_version", "published_at"),
        }
        for field in ("user_id", "search_query", "segment", "session_id", "cluster"):
            assert found[field] == row[field]
        assert found["confidence"] == pytest.approx(row["confidence"])
        assert found["model_version"] == labeled.model_version == metadata(result, "kmeans_model")["model_version"]
    (index,) = es.indices.get_alias(name=ALIAS)
    assert index == metadata(result, "es_user_segments")["index"]

    for asset in ASSETS:
        stored = graph.store.path(asset).resolve()
        assert Path(metadata(result, asset)["stored_at"]) == stored
        files = [path for path in stored.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert path.suffix in OPEN_FORMATS
            if path.suffix == ".npy":
                np.load(path, allow_pickle=False)
            elif path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    assert [archive[name] for name in archive.files]
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))


def test_lopsided_data_is_not_published_by_the_graph_nor_past_it(
    graph: Any, seed: Callable[..., int], insert: Callable[..., None], es: Elasticsearch, causes: Causes
) -> None:
    """A blocking check stops the run; es_user_segments alone, which Dagster allows, is refused by the guard."""
    seed(300)
    assert graph.run().success
    before = published_state(es, ALIAS)

    es.indices.delete(index="user_sessions")
    insert(LOPSIDED)
    stopped = graph.run()
    assert not stopped.success
    balance = evaluations(stopped)["cluster_balance"]
    assert not balance.passed
    assert balance.blocking
    assert balance.severity is dg.AssetCheckSeverity.ERROR
    assert balance.metadata["largest_share"].value > balance.metadata["max_share"].value
    assert "the largest cluster holds" in (balance.description or "")
    assert materialized(stopped) == {"raw_sessions", "tfidf_matrix", "kmeans_model"}

    labelled_before = graph.run("es_user_segments")  # with what is stored: the labels of the good data
    assert not materialized(labelled_before)
    assert refusal(causes(labelled_before)) == "cluster_balance"
    assert graph.run("labeled_segments").success  # Dagster allows this too
    labelled_now = graph.run("es_user_segments")
    assert not materialized(labelled_now)
    assert refusal(causes(labelled_now)) == "cluster_balance"
    assert published_state(es, ALIAS) == before
    assert [index.name for index in list_published(es, ALIAS)] == [before.index if before else None]

    graph.settings("checks: {cluster_balance: {max_share: 1, min_share: 0}}\n")  # whoever decides that it is fine
    assert graph.run("es_user_segments").success
    assert len(documents(es, ALIAS)) == len(LOPSIDED)


def test_unusable_documents_stop_publishing_too(
    graph: Any, insert: Callable[..., None], es: Elasticsearch, causes: Causes
) -> None:
    """A first run that is stopped publishes nothing, and neither does es_user_segments alone after it."""
    insert(["gaming laptop", "red dress", "cheap rug", "yoga mat", "lipstick", "sofa"] * 2)
    broken_documents(es)
    stopped = graph.run()
    assert not evaluations(stopped)["session_validity"].passed
    assert evaluations(stopped)["sessions_accounted"].passed
    assert materialized(stopped) == {"raw_sessions"}
    assert causes(graph.run("es_user_segments"))["es_user_segments"].startswith(
        "ArtifactMissingError: labeled_segments"
    )
    graph.run("tfidf_matrix", "kmeans_model", "labeled_segments")
    assert refusal(causes(graph.run("es_user_segments"))) == "session_validity"
    assert not es.indices.exists_alias(name=ALIAS)


def test_coverage_warns_by_default_and_stops_when_told_to(
    graph: Any, insert: Callable[..., None], es: Elasticsearch, causes: Causes
) -> None:
    """`other` is an honest answer while a taxonomy is being written; whoever thinks otherwise sets severity ERROR."""
    words = ["aardvark", "bandicoot", "capybara", "dugong", "echidna", "fossa"]
    insert([words[number % len(words)] for number in range(120)])

    warned = graph.run()
    assert warned.success
    coverage = evaluations(warned)["label_coverage"]
    assert (coverage.passed, coverage.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert {found["segment"] for found in documents(es, ALIAS).values()} == {"other"}
    before = published_state(es, ALIAS)

    graph.settings("checks: {label_coverage: {severity: ERROR}}\n")
    stopped = graph.run()
    assert not stopped.success
    coverage = evaluations(stopped)["label_coverage"]
    assert (coverage.passed, coverage.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "es_user_segments" not in materialized(stopped)
    alone = graph.run("es_user_segments")
    assert refusal(causes(alone)) == "label_coverage"
    assert published_state(es, ALIAS) == before


def test_missing_empty_unusable_and_unreachable_are_different_errors(
    graph: Any, es: Elasticsearch, causes: Causes
) -> None:
    """Each says what is wrong in its own words, and nothing is stored or published."""
    said = [causes(graph.run())["raw_sessions"]]
    es.indices.create(index="user_sessions")
    said.append(causes(graph.run())["raw_sessions"])
    es.index(index="user_sessions", document={"user_id": "u"}, refresh=True)
    said.append(causes(graph.run())["raw_sessions"])
    nowhere = ElasticsearchResource(url="http://127.0.0.1:1", max_retries=0)
    said.append(causes(graph.run(resources={"elasticsearch": nowhere}))["raw_sessions"])
    assert [text.partition(":")[0] for text in said] == [
        "IndexMissing",
        "IndexEmpty",
        "NoUsableSessions",
        "ClusterUnreachable",
    ]
    assert not graph.data.storage.exists()
    assert not es.indices.exists_alias(name=ALIAS)


def test_a_wrong_setting_fails_the_run_with_its_name(graph: Any, seed: Callable[..., int], causes: Causes) -> None:
    seed(50)
    graph.settings("clusters: {k: 1}\n")
    assert "clusters" in causes(graph.run())["raw_sessions"]
    graph.settings("{}\n")
    said = causes(graph.run(config={"kmeans_model": {"k": "many"}}))
    assert "k" in said["kmeans_model"]


def test_the_same_sessions_in_another_order_give_the_same_segments(
    graph_at: Callable[[str], Any], elasticsearch_url: str, es: Elasticsearch, seed: Callable[..., int]
) -> None:
    """Same clusters, ids, names and model version, in whatever order Elasticsearch got and returns sessions."""
    seed(500, 7)
    first = graph_at(elasticsearch_url)
    assert first.run().success
    there = list(documents(es, "user_sessions").items())
    expected, version = segments(es), first.store.load("kmeans_model", ClusterModel).version

    es.indices.delete(index="user_sessions")
    random.Random(1).shuffle(there)
    now = datetime.now(UTC)
    for part in (there[:100], there[100:]):  # in several segments of the index as well
        write_sessions(es, "user_sessions", part, source="shuffled", now=now)
    second = graph_at(elasticsearch_url)  # its own storage: no model before to take ids from
    assert second.run().success
    assert segments(es) == expected
    assert second.store.load("kmeans_model", ClusterModel).version == version


def test_clusters_keep_their_ids_from_run_to_run_and_the_change_is_recorded(
    graph: Any, seed: Callable[..., int], es: Elasticsearch
) -> None:
    seed(400)
    first = graph.run()
    assert metadata(first, "kmeans_model")["previous_model"] == "none"
    before, version = segments(es), metadata(first, "kmeans_model")["model_version"]

    graph.settings("checks: {user_churn: {max_model_share: 1}}\n")  # another seed may move more users than the default
    again = graph.run(config={"kmeans_model": {"seed": 3}})
    shown = metadata(again, "kmeans_model")
    assert shown["previous_model"] == version
    assert shown["clusters_kept_new_retired"] == "[0, 1, 2, 3, 4] kept, [] new, [] retired"
    after = segments(es)
    changed = sum(before[key][0] != after[key][0] for key in before) / len(before)
    assert shown["sessions_that_changed_cluster"] == pytest.approx(changed, abs=1e-4)
    assert changed < 0.5

    unchanged = graph.run(config={"kmeans_model": {"seed": 3}})
    assert metadata(unchanged, "kmeans_model")["sessions_that_changed_cluster"] == 0
    assert segments(es) == after


def test_a_model_that_a_check_stopped_does_not_pass_its_ids_on(
    graph: Any, seed: Callable[..., int], es: Elasticsearch
) -> None:
    """Ids are matched with the model that readers are served by, though a later one is stored."""
    seed(400)
    served = metadata(graph.run(), "kmeans_model")["model_version"]
    graph.settings("checks: {cluster_balance: {max_share: 0.05}}\nclusters: {k: 8}\n")
    stopped = graph.run()
    assert not stopped.success
    blocked = metadata(stopped, "kmeans_model")["model_version"]
    assert graph.store.load("kmeans_model", ClusterModel).version == blocked != served
    graph.settings("{}\n")
    mended = graph.run()
    assert mended.success
    assert metadata(mended, "kmeans_model")["previous_model"] == served
    assert metadata(mended, "kmeans_model")["sessions_that_changed_cluster"] == 0


def test_example_sessions_are_generated_on_the_embedded_node_only(
    graph: Any, isolated_environment: Path, es: Elasticsearch, causes: Causes
) -> None:
    """A cluster somebody named gets nothing that was made up; nor does the embedded node when told not to."""
    embedded = {"elasticsearch": ElasticsearchResource(data_dir=str(isolated_environment))}
    assert causes(graph.run())["raw_sessions"].startswith("IndexMissing")  # the same node, by its URL
    without = graph.run(config={"raw_sessions": {"generate_when_empty": False}}, resources=embedded)
    assert causes(without)["raw_sessions"].startswith("IndexMissing")
    assert not es.indices.exists(index="user_sessions")

    assert graph.run("raw_sessions", resources=embedded).success
    assert es.count(index="user_sessions")["count"] == 1_000
    assert list((isolated_environment / "truth").glob("*.parquet"))
    es.delete(index="user_sessions", id=next(iter(documents(es, "user_sessions"))), refresh=True)
    assert graph.run("raw_sessions", resources=embedded).success
    assert es.count(index="user_sessions")["count"] == 999  # what is there is not touched


def test_a_run_after_a_few_new_sessions_does_a_few_and_gives_what_a_full_run_gives(
    graph: Any,
    seed: Callable[..., int],
    insert: Callable[..., None],
    es: Elasticsearch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_reader, "IN_PROGRESS", 0)
    seed(600)
    first = graph.run()
    assert (metadata(first, "raw_sessions")["fetched"], metadata(first, "es_user_segments")["written"]) == (600, 600)
    insert(["red dress", "gaming laptop", "never seen before"])
    few = graph.run()
    assert few.success
    assert (metadata(few, "raw_sessions")["fetched"], metadata(few, "es_user_segments")["written"]) == (3, 3)
    assert "came or went since it was last judged" in metadata(few, "kmeans_model")["decision"]
    by_few = documents(es, ALIAS)
    everything = graph.run(config={"raw_sessions": {"read_all": True}, "es_user_segments": {"write_all": True}})
    assert metadata(everything, "raw_sessions")["fetched"] == 603
    assert metadata(everything, "es_user_segments")["written"] == 603
    assert metadata(everything, "raw_sessions")["read"] == metadata(few, "raw_sessions")["read"]
    by_all = documents(es, ALIAS)
    for found in (*by_few.values(), *by_all.values()):
        del found["published_at"]
    assert by_few == by_all
    assert len(by_all) == 603


def test_optional_fields_are_left_out_of_the_documents_where_the_settings_say_so(
    graph: Any, seed: Callable[..., int], es: Elasticsearch
) -> None:
    seed(300)
    graph.settings("publish: {fields: [confidence]}\n")
    assert graph.run().success
    assert {tuple(sorted(found)) for found in documents(es, ALIAS).values()} == {
        ("confidence", "search_query", "segment", "session_id", "user_id")
    }


def test_index_alias_and_time_window_are_those_of_the_settings(
    graph: Any, seed: Callable[..., int], es: Elasticsearch
) -> None:
    seed(400, index="shop_sessions")
    stamps = sorted(found["timestamp"] for found in documents(es, "shop_sessions").values())
    graph.settings(
        f"sessions: {{index: shop_sessions, start: '{stamps[100]}'}}\npublish: {{alias: shop_segments, keep: 2}}\n"
    )
    for _ in range(3):
        assert graph.run().success
    wanted = sum(stamp >= stamps[100] for stamp in stamps)
    assert len(graph.store.load("raw_sessions", Sessions)) == wanted
    assert len(documents(es, "shop_segments")) == wanted
    assert len(list_published(es, "shop_segments")) == 2
    assert not es.indices.exists_alias(name=ALIAS)


def test_an_index_of_somebody_else_under_the_aliass_name_is_left_alone(
    graph: Any, seed: Callable[..., int], es: Elasticsearch, causes: Causes
) -> None:
    seed(200)
    es.index(index=ALIAS, id="theirs", document={"a": 1}, refresh=True)
    assert causes(graph.run())["es_user_segments"].startswith("AliasTaken: ")
    assert documents(es, ALIAS) == {"theirs": {"a": 1}}


def test_a_rerun_from_the_middle_uses_what_is_stored(graph: Any, seed: Callable[..., int], es: Elasticsearch) -> None:
    """Somebody edits the taxonomy and materializes the last two assets only."""
    seed(300)
    assert graph.run().success
    taxonomy = graph.settings_file.with_name("mine.yaml")
    taxonomy.write_text(
        "version: 1\nsegments:\n  everybody:\n    keywords: [sale, dress, laptop, sofa, shoes, lipstick]\n"
    )
    graph.settings("labels: {taxonomy: mine.yaml, min_share: 0}\n")
    rerun = graph.run("labeled_segments", "es_user_segments")
    assert rerun.success
    assert materialized(rerun) == {"labeled_segments", "es_user_segments"}
    assert "everybody" in {found["segment"] for found in documents(es, ALIAS).values()}


def test_results_of_one_run_are_never_mixed_with_those_of_another(
    graph: Any, seed: Callable[..., int], insert: Callable[..., None], causes: Causes
) -> None:
    """Labelling new sessions with the model of the old ones is refused: it would be wrong in silence."""
    seed(300)
    assert graph.run().success
    insert(["red dress", "gaming laptop"] * 20)
    assert graph.run("raw_sessions", "tfidf_matrix").success
    said = causes(graph.run("labeled_segments"))["labeled_segments"]
    assert said.startswith("StaleModelError: ")


def test_settings_may_come_from_another_file_by_resource(graph: Any, seed: Callable[..., int], tmp_path: Path) -> None:
    seed(200)
    other = tmp_path / "other.yaml"
    other.write_text("clusters: {k: 3}\n")
    assert graph.run(resources={"settings": SettingsResource(file=str(other))}).success
    model = graph.store.load("kmeans_model", ClusterModel)
    assert model.k == 3
    assert isinstance(model.terms, pa.Array)
