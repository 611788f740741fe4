"""Who may ask, how much and how often; and that every refusal is a problem and says nothing it should not."""

import logging
from pathlib import Path

import pytest
import yaml
from starlette.responses import Response
from starlette.testclient import TestClient

from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.serving.app import create_app
from segmentation_assets.serving.guard import is_loopback
from segmentation_assets.serving.keys import SCOPES, ApiKeys, KeyFileError, new_key
from segmentation_assets.serving.run import ServeError, require_safe
from segmentation_assets_tests.serving.conftest import Ask
from segmentation_assets_tests.serving.live_shop import Shop

ASKED = {
    "read": ("GET", "/v1/segments"),
    "assign": ("POST", "/v1/assign"),
    "stream": ("GET", "/v1/changes/stream"),
    "metrics": ("GET", "/metrics"),
}
OPEN = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/live", "/v1/openapi.json")


def is_problem(answer: Response, status: int) -> bool:
    """Whether it is an RFC 9457 problem with the headers that every answer has."""
    found = answer.json()
    return (
        answer.status_code == found["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and {"type", "title", "detail"} <= set(found)
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["content-security-policy"].startswith("default-src 'none'")
    )


def with_keys(file: Path, **scopes: list[str]) -> tuple[ApiKeys, dict[str, str]]:
    """A file of keys, and name to key."""
    made = {name: new_key(name, of) for name, of in scopes.items()}
    file.write_text("".join(key.entry for key in made.values()))
    return ApiKeys.load(file), {name: key.key for name, key in made.items()}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_its_scopes_say_and_nothing_else(
    memory_shop: Shop, ask: Ask, key_file: Path, scope: str
) -> None:
    keys, made = with_keys(key_file, it=[scope])
    client = ask(memory_shop.store, keys=keys, client="203.0.113.9", host="shop.example")
    for needed, (method, path) in ASKED.items():
        if needed == scope == "stream":
            continue  # has no end: see test_change_stream
        answer = client.request(method, path, headers={"Authorization": f"Bearer {made['it']}"}, json={})
        if needed == scope:
            assert answer.status_code == 200
        else:
            assert is_problem(answer, 403)
            assert f"'{needed}'" in answer.json()["detail"]


def test_without_a_key_only_health_and_what_holds_no_data_is_answered(
    memory_shop: Shop, ask: Ask, key_file: Path
) -> None:
    keys, made = with_keys(key_file, it=["read"])
    client = ask(memory_shop.store, keys=keys, client="203.0.113.9", host="shop.example")
    for path in OPEN:
        assert client.get(path).status_code == 200
    for headers in ({}, {"X-API-Key": ""}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
        answer = client.get("/v1/segments", headers=headers)
        assert is_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert is_problem(client.get("/no/such/path"), 401)
    assert client.get("/v1/segments", headers={"X-API-Key": made["it"]}).status_code == 200
    assert is_problem(client.get("/v1/segments", headers={"X-API-Key": made["it"] + "x"}), 401)
    assert is_problem(client.get("/v1/segments", params={"key": made["it"]}), 401)
    assert client.get("/v2/models/queries").json().keys() == {"error"}


def test_keys_are_neither_kept_nor_logged(
    memory_shop: Shop, ask: Ask, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys, made = with_keys(key_file, it=["read"])
    client = ask(memory_shop.store, keys=keys)
    with caplog.at_level(logging.DEBUG):
        user = next(iter(memory_shop.states))
        client.get(f"/v1/users/{user}/segment?secret=word", headers={"X-API-Key": made["it"]})
        client.get("/v1/segments", headers={"X-API-Key": "wrong-key"})
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("segmentation_assets"))
    assert "GET /v1/users/{user_id}/segment 200" in said
    assert "it" in said.split()
    for secret in (made["it"], "wrong-key", "word", user):
        assert secret not in said
    assert made["it"] not in key_file.read_text()
    assert made["it"] not in repr(keys.__dict__)


def test_a_key_that_is_taken_out_of_the_file_is_refused_soon(memory_shop: Shop, ask: Ask, key_file: Path) -> None:
    from segmentation_assets_tests.serving.test_serving_api import wait_for

    keys, made = with_keys(key_file, it=["read"])
    client = ask(memory_shop.store, keys=keys)
    headers = {"X-API-Key": made["it"]}
    assert client.get("/v1/segments", headers=headers).status_code == 200
    for mistake in ("- this: is no entry", "- name: 2026-13-45"):  # changes nothing, and the next change is seen
        key_file.write_text(mistake)
        read_at = keys._read_at
        wait_for(lambda before=read_at: keys._read_at != before, bool)
        assert client.get("/v1/segments", headers=headers).status_code == 200
    key_file.write_text("")
    wait_for(lambda: client.get("/v1/segments", headers=headers).status_code, lambda status: status == 401)


def test_where_no_keys_are_only_this_machine_is_answered(memory_shop: Shop, ask: Ask) -> None:
    store = memory_shop.store
    assert ask(store).get("/v1/segments").status_code == 200
    assert ask(store, client="::1", host="[::1]:8080").get("/v1/segments").status_code == 200
    assert is_problem(ask(store, client="203.0.113.9").get("/v1/segments"), 403)
    assert is_problem(ask(store, client="203.0.113.9").get("/health/live"), 403)
    assert is_problem(ask(store, host="evil.example").get("/v1/segments"), 403)  # DNS rebinding
    proxied = ask(store).get("/v1/segments", headers={"X-Forwarded-For": "203.0.113.9"})
    assert is_problem(proxied, 403)


def test_without_keys_nothing_is_bound_but_loopback() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"):
        require_safe(host, keys_required=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "shop.example", ""):
        with pytest.raises(ServeError, match="Without API keys"):
            require_safe(host, keys_required=False)
        require_safe(host, keys_required=True)
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:192.0.2.1")


def test_more_requests_than_a_key_has_are_told_to_wait(memory_shop: Shop, ask: Ask, key_file: Path) -> None:
    keys, made = with_keys(key_file, one=["read", "assign"], two=["read"])
    client = ask(memory_shop.store, keys=keys, per_minute=3)
    one, two = ({"X-API-Key": made[name]} for name in ("one", "two"))
    assert [client.get("/v1/segments", headers=one).status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = client.get("/v1/segments", headers=one)
    assert is_problem(answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert client.get("/v1/segments", headers=two).status_code == 200
    assert client.get("/health/live").status_code == 200
    assert client.get("/v2", headers=one).json().keys() == {"error"}


def test_whoever_guesses_keys_has_to_wait(memory_shop: Shop, ask: Ask, key_file: Path) -> None:
    keys, made = with_keys(key_file, it=["read"])
    client = ask(memory_shop.store, keys=keys)
    statuses = [client.get("/v1/segments", headers={"X-API-Key": f"guess {n}"}).status_code for n in range(62)]
    assert statuses == [401] * 60 + [429] * 2
    # Whose key is right does not wait: behind a proxy all have one address.
    assert client.get("/v1/segments", headers={"X-API-Key": made["it"]}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_however_it_comes(memory_shop: Shop, ask: Ask, chunked: bool) -> None:
    client = ask(memory_shop.store, max_body_bytes=1_000)
    body = b'{"queries": ["' + b"x" * 1_000 + b'"]}'
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/assign", content=iter([body[:600], body[600:]]) if chunked else body, headers=headers)
    assert is_problem(answer, 413)
    assert client.post("/v1/assign", content=iter([b'{"queries"', b": []}"]), headers=headers).status_code == 200
    assert client.post("/v2/models/queries/infer", content=body, headers=headers).json().keys() == {"error"}


def test_every_refusal_is_a_problem(memory_shop: Shop, ask: Ask) -> None:
    client = ask(memory_shop.store)
    assert is_problem(client.get("/no/such/path"), 404)
    assert is_problem(client.get("/v1/segments/"), 404)
    answer = client.delete("/v1/segments")
    assert is_problem(answer, 405)
    assert answer.headers["allow"] == "GET"
    answer = client.get("/v1/changes", params={"limit": "many<script>"})
    assert is_problem(answer, 422)
    assert "script" not in answer.text
    assert answer.json()["errors"][0]["pointer"] == "/query/limit"
    json = {"Content-Type": "application/json"}
    assert is_problem(client.post("/v1/assign", content=b"{nonsense", headers=json), 422)
    assert is_problem(client.post("/v1/assign", content=b"[" * 100_000, headers=json), 400)
    assert is_problem(client.post("/v1/assign", content=b"\xff\xfe", headers=json), 422)


def test_what_nobody_foresaw_is_a_problem_without_what_happened_inside(
    memory_shop: Shop, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    client = ask(memory_shop.store)

    def sizes() -> None:
        raise RuntimeError("the password is secret")

    memory_shop.store.sizes = sizes
    answer = client.get("/v1/segments")
    assert is_problem(answer, 500)
    assert "secret" not in answer.text
    assert "RuntimeError" in caplog.text


def test_other_origins_are_allowed_only_where_that_is_said(memory_shop: Shop, ask: Ask, key_file: Path) -> None:
    origin = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    closed = ask(memory_shop.store).get("/v1/segments", headers=origin)
    assert "access-control-allow-origin" not in closed.headers
    keys, made = with_keys(key_file, it=["read"])
    client = ask(memory_shop.store, keys=keys, cors_origins=("https://shop.example",))
    before = client.options("/v1/segments", headers=origin | {"Access-Control-Request-Headers": "authorization"})
    assert before.status_code == 200
    answer = client.get("/v1/segments", headers=origin | {"Authorization": f"Bearer {made['it']}"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    other = client.get("/v1/segments", headers={"Origin": "https://evil.example", "X-API-Key": made["it"]})
    assert "access-control-allow-origin" not in other.headers


def test_requests_are_counted_by_route_and_not_by_user(memory_shop: Shop, ask: Ask) -> None:
    client = ask(memory_shop.store)
    user = next(iter(memory_shop.states))
    client.get(f"/v1/users/{user}/segment")
    client.get("/no/such/path")
    said = client.get("/metrics").text
    assert 'segments_api_requests_total{method="GET",route="/v1/users/{user_id}/segment",status="200"} 1.0' in said
    assert 'segments_api_requests_total{method="GET",route="none",status="404"} 1.0' in said
    assert 'segments_api_seconds_count{route="/v1/users/{user_id}/segment"} 1.0' in said
    assert user not in said


@pytest.mark.parametrize(
    "written",
    [
        "a: b",
        "- name: x",
        "- {name: x, sha256: seg_the-key-itself, scopes: [read]}",
        "[unclosed",
        f"- {{name: x, sha256: {'0' * 64}, scopes: [write]}}",
        f"- {{name: x, sha256: {'0' * 64}, scopes: []}}",
        f"- {{name: x, sha256: {'0' * 64}, scopes: [read]}}\n" * 2,
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_said_without_what_is_in_it(key_file: Path, written: str) -> None:
    key_file.write_text(written)
    with pytest.raises(KeyFileError) as caught:
        ApiKeys.load(key_file)
    assert str(key_file) in caught.value.problem
    assert "the-key-itself" not in str(caught.value)


def test_a_file_without_entries_lets_nobody_in(memory_shop: Shop, key_file: Path) -> None:
    key_file.write_text("")
    app = create_app(memory_shop.store, ServeSettings(), StreamSettings(), ApiKeys.load(key_file))
    with TestClient(app, "http://localhost", client=("127.0.0.1", 5)) as client:
        assert is_problem(client.get("/v1/segments", headers={"X-API-Key": "x"}), 401)
    with pytest.raises(KeyFileError):
        ApiKeys.load(key_file.with_name("absent.yaml"))


def test_an_entry_can_be_appended_to_the_file(key_file: Path) -> None:
    made = [new_key(name, ["stream", "read"]) for name in ("no", "a: b", "ü")[:1]]
    key_file.write_text(made[0].entry + new_key("second", ["read"]).entry)
    assert [entry["name"] for entry in yaml.safe_load(key_file.read_text())] == ["no", "second"]
    found = ApiKeys.load(key_file).owner(made[0].key)
    assert found is not None
    assert (found.name, found.scopes) == ("no", {"read", "stream"})
    with pytest.raises(KeyFileError):
        new_key("a: b", ["read"])
