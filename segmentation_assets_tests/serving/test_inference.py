"""The Open Inference Protocol gives the assignments of the batch side."""

import json
from typing import Any

import numpy as np
import pytest

from segmentation_assets.core.users.behaviour import predict
from segmentation_assets_tests.batch_side import Batch
from segmentation_assets_tests.serving.conftest import Ask
from segmentation_assets_tests.serving.live_shop import Shop


def tensor(data: list[Any], name: str = "query", datatype: str = "BYTES", *columns: int) -> dict[str, Any]:
    return {"name": name, "shape": [len(data), *columns], "datatype": datatype, "data": data}


def outputs(answer: dict[str, Any]) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_queries_get_the_clusters_of_the_batch_side(memory_shop: Shop, ask: Ask, batch: Batch) -> None:
    queries = sorted({document["search_query"] for document in batch.documents})[:500]
    client = ask(memory_shop.store)
    answer = client.post("/v2/models/queries/infer", json={"id": "7", "inputs": [tensor([*queries, "zzzz", ""])]})
    found = answer.json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("queries", batch.model.version, "7")
    labels, confidence = batch.queries.predict(queries)
    assert outputs(found)["cluster"] == [*labels.tolist(), -1, -1]
    assert outputs(found)["confidence"] == pytest.approx([*confidence.tolist(), 0, 0])
    assert outputs(found)["segment"][-1] == "other"
    assert {output["name"]: output["datatype"] for output in found["outputs"]} == {
        "segment": "BYTES", "cluster": "INT32", "confidence": "FP32",
    }  # fmt: skip
    only = client.post(
        "/v2/models/queries/infer", json={"inputs": [tensor(["x"])], "outputs": [{"name": "cluster"}]}
    ).json()
    assert [output["name"] for output in only["outputs"]] == ["cluster"]


@pytest.mark.parametrize("flat", [False, True])
def test_features_get_the_behaviour_clusters_of_the_batch_side(
    memory_shop: Shop, ask: Ask, batch: Batch, flat: bool
) -> None:
    client = ask(memory_shop.store)
    (described,) = client.get("/v2/models/behaviour").json()["inputs"]
    names = described["parameters"]["names"]
    table = batch.features.table
    rows = np.column_stack([table[name].to_numpy() for name in names])
    data: list[Any] = [[None if np.isnan(value) else value for value in row] for row in rows.tolist()]
    sent = tensor(data, "features", "FP64", len(names))
    if flat:
        sent["data"] = [value for row in data for value in row]
    found = outputs(client.post("/v2/models/behaviour/infer", json={"inputs": [sent]}).json())
    labels, confidence = predict(batch.behaviour, batch.features)
    assert found["cluster"] == labels.tolist()
    assert found["confidence"] == pytest.approx(confidence.tolist(), abs=1e-6)
    assert found["persona"] == [batch.model.personas[label] for label in labels.tolist()]


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [tensor(["x"], "other")],
        [tensor(["x"], "query", "FP32")],
        [tensor(["x"], "query", "BYTES", 1)],
        [tensor(["x"]), tensor(["x"])],
        [tensor([1])],
        [tensor([["x", "y"]])],
        [{**tensor(["x"]), "shape": [2]}],
        [{**tensor(["x"]), "shape": [-1]}],
        [{"name": "query", "shape": [20_000], "datatype": "BYTES", "data": ["x"] * 20_000}],
    ],
)
def test_a_tensor_that_is_not_as_described_is_refused_in_the_shape_of_the_protocol(
    memory_shop: Shop, ask: Ask, inputs: list[Any]
) -> None:
    answer = ask(memory_shop.store).post("/v2/models/queries/infer", json={"inputs": inputs})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert answer.headers["content-type"] == "application/json"


def test_models_and_versions_that_are_not_there_are_said_so(memory_shop: Shop, ask: Ask, batch: Batch) -> None:
    client = ask(memory_shop.store)
    body = {"inputs": [tensor(["x"])]}
    assert client.get("/v2").json()["name"] == "segmentation-assets"
    assert client.get("/v2/models/queries/ready").json() == {"name": "queries", "ready": True}
    assert client.get(f"/v2/models/queries/versions/{batch.model.version}/ready").status_code == 200
    for path in ("/v2/models/queries/versions/9/ready", "/v2/models/queries/versions/9", "/v2/nothing"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    assert client.post("/v2/models/queries/versions/9/infer", json=body).status_code == 404
    assert list(client.post("/v2/models/nope/infer", json=body).json()) == ["error"]
    wanted = client.post("/v2/models/queries/infer", json=body | {"outputs": [{"name": "nope"}]})
    assert wanted.status_code == 400
    assert list(client.put("/v2/models/queries").json()) == ["error"]


def test_health_is_said_in_the_words_of_the_protocol(memory_shop: Shop, ask: Ask) -> None:
    client = ask(memory_shop.store)
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}


def test_what_json_can_say_and_a_tensor_cannot_is_refused(memory_shop: Shop, ask: Ask) -> None:
    client = ask(memory_shop.store)
    columns = client.get("/v2/models/behaviour").json()["inputs"][0]["shape"][1]
    head = {"content-type": "application/json"}
    huge = {"name": "features", "datatype": "FP64", "shape": [1, columns], "data": [10**400] * columns}
    answer = client.post("/v2/models/behaviour/infer", json={"inputs": [huge]})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    half = json.dumps({"id": "\ud800", "inputs": [tensor(["x"])]})
    answer = client.post("/v2/models/queries/infer", content=half, headers=head)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
