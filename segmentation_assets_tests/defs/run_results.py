"""What a run recorded and what readers see of it, for the tests of the graph."""

from typing import Any

import dagster as dg
from elasticsearch import Elasticsearch


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = (e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset))
    return {name: value.value for name, value in event.materialization.metadata.items()}


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()}


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def documents(client: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    """All documents that a reader of the alias sees, by id."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, size=10_000)["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}
