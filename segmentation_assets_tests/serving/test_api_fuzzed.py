"""The API keeps to its own description, whatever is sent."""

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.serving.app import create_app
from segmentation_assets.serving.keys import ApiKeys
from segmentation_assets_tests.batch_side import Batch
from segmentation_assets_tests.serving.live_shop import Shop, listening

ENDLESS = "/v1/changes/stream"


@pytest.fixture(scope="module")
def shop(batch: Batch) -> Shop:
    made = Shop(MemoryStore(), batch)
    made.say()
    return made


@pytest.fixture(scope="module")
def client(shop: Shop) -> Iterator[TestClient]:
    app = create_app(shop.store, ServeSettings(), StreamSettings(), ApiKeys())
    with TestClient(app, "http://localhost", client=("127.0.0.1", 5), raise_server_exceptions=False) as found:
        yield found


@pytest.fixture(scope="module")
def url(shop: Shop) -> Iterator[str]:
    with listening(create_app(shop.store, ServeSettings(), StreamSettings(), ApiKeys())) as found:
        yield found


def try_out(operation: APIOperation, mode: GenerationMode) -> None:
    """Ask an operation again and again, and compare what it answers with its description."""
    # What a cursor is, and what may be searched for, no schema can say.
    beyond = operation.label in ("GET /v1/segments/{segment}/users", "POST /v1/assign") or "/infer" in operation.path
    left_out = [checks.positive_data_acceptance] if beyond else []

    @settings(
        max_examples=25,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        database=None,
        derandomize=True,
    )
    @given(case=operation.as_strategy(mode))
    def keeps_to_it(case: schemathesis.Case) -> None:
        answer = case.call()
        assert answer.status_code < 500
        case.validate_response(answer, excluded_checks=left_out)

    keeps_to_it()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_one_that_the_description_has(url: str, shop: Shop, mode: GenerationMode) -> None:
    document = httpx.get(f"{url}/v1/openapi.json").json()
    # Ids and segments that are there, now and then: strangers' ids would only ever find nobody.
    for path, methods in document["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            known = {"user_id": next(iter(shop.states)), "segment": next(iter(shop.store.sizes()))}
            if parameter["in"] == "path" and parameter["name"] in known and "{" in path:
                parameter["examples"] = {"known": {"value": known[parameter["name"]]}}
    api = schemathesis.openapi.from_dict(document)
    api.config.base_url = url
    tried = set()
    for found in api.get_all_operations():
        operation = found.ok()
        if operation.path == ENDLESS:
            continue
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # any text can be an id

        try_out(operation, mode)
        tried.add(operation.label)
    assert len(tried) >= 6


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    path=st.sampled_from(
        ["/v1/assign", "/v1/users:batchGet", "/v2/models/queries/infer", "/v2/models/behaviour/infer"]
    ),
    body=st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["queries", "events", "users", "inputs", "x"]), inner, max_size=4),
        max_leaves=12,
    ),
)  # fmt: skip
def test_no_body_is_a_server_error(client: TestClient, path: str, body: object) -> None:
    if isinstance(body, bytes):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    else:
        answer = client.post(path, json=body)
    assert answer.status_code < 500
    assert answer.headers["content-type"] in ("application/json", "application/problem+json")


def test_the_description_is_openapi_3_1_with_valid_schemas(client: TestClient) -> None:
    document = client.get("/v1/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["responses"]["200"]["content"]
            assert operation["summary"], path
            assert operation["description"], path
            described = operation["responses"]["401"]["content"]
            assert list(described) == (["application/json"] if path.startswith("/v2") else ["application/problem+json"])
