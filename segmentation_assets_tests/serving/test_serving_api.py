"""What the API says of users, segments, products and models, over both stores."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.core.live.events import Event, digest
from segmentation_assets.core.live.state import UserState
from segmentation_assets.io.live_models import publish
from segmentation_assets.io.live_store import StateStore, StoreUnavailable
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.serving.profiles import ProfileReader
from segmentation_assets_tests.batch_side import Batch
from segmentation_assets_tests.serving.conftest import Ask
from segmentation_assets_tests.serving.live_shop import Shop, search

HOSTILE_IDS = [
    "a/b",
    "a/segment",
    "../../etc/passwd",
    "user?x=1#y",
    "ü 世界 \N{GRINNING FACE}",
    "x" * 512,
    "a\\b'\";--",
]


def test_a_user_is_in_the_segment_that_the_stream_gave(shop: Shop, ask: Ask) -> None:
    client = ask(shop.store)
    for user, state in list(shop.states.items())[:20]:
        answer = client.get(f"/v1/users/{user}/segment")
        assert answer.status_code == 200
        assert answer.headers["segments-source"] == "live"
        found = answer.json()
        assert (found["user_id"], found["segment"], found["cluster"]) == (user, state.segment, state.cluster)
        assert found["persona"] == shop.batch.model.personas[state.cluster]
        assert found["model"] == shop.batch.model.version
        assert found["since"].endswith("Z")


@pytest.mark.parametrize("user", HOSTILE_IDS)
def test_an_id_may_hold_anything(shop: Shop, ask: Ask, user: str) -> None:
    client = ask(shop.store)
    path = f"/v1/users/{quote(user, safe='')}/segment"
    assert client.get(path).status_code == 404
    shop.do([search(user, "gaming laptop")])
    assert client.get(path).json()["user_id"] == user
    assert client.get(path.replace("/segment", "/profile")).json()["counters"]["sessions"] == 1
    assert client.get(f"/v1/recommendations/{quote(user, safe='')}").status_code == 200


@pytest.mark.parametrize("user", ["%ff%fe", "%00", "y" * 2_000, "%20", "%ED%A0%80"])
def test_what_can_be_no_id_is_nobodys(shop: Shop, ask: Ask, user: str) -> None:
    answer = ask(shop.store).get(f"/v1/users/{user}/segment")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_profile_holds_counters_queries_features_and_how_far_behaviour_moved(shop: Shop, ask: Ask) -> None:
    shop.do([search("ada", "gaming laptop")])
    client = ask(shop.store)
    found = client.get("/v1/users/ada/profile").json()
    assert found["counters"] == {
        "events": 1, "sessions": 1, "searches": 1, "impressions": 0, "views": 0, "clicks": 0, "add_to_carts": 0,
        "purchases": 0, "spend": 0.0,
    }  # fmt: skip
    assert [query["query"] for query in found["queries"]] == ["gaming laptop"]
    assert found["queries"][0]["weight"] == pytest.approx(1, abs=1e-3)
    assert found["features"]["sessions"] == 1
    assert found["features"]["click_through"] == 0
    assert found["features"]["average_spend"] is None
    assert set(found["change"].values()) == {0.0}
    shop.do([search("ada", "gaming laptop", number) for number in range(1, 3)])
    later = client.get("/v1/users/ada/profile").json()
    assert later["counters"]["sessions"] == 3
    assert later["latest_event"] >= found["latest_event"]


def test_a_query_of_a_week_ago_weighs_half(shop: Shop, ask: Ask) -> None:
    event = search("ada", "gaming laptop")
    event.timestamp -= 7 * 86_400_000
    shop.do([event])
    (query,) = ask(shop.store).get("/v1/users/ada/profile").json()["queries"]
    assert query["weight"] == pytest.approx(0.5, abs=1e-3)


def test_a_user_who_has_not_searched_yet_is_in_no_segment(shop: Shop, ask: Ask) -> None:
    now = int(time.time() * 1000)
    shop.do([Event("e", "viewer", "view", now, product_id="p")])
    client = ask(shop.store)
    found = client.get("/v1/users/viewer/segment").json()
    assert (found["segment"], found["since"]) == (None, None)
    assert client.get("/v1/recommendations/viewer").status_code == 404


def test_many_users_are_answered_in_the_order_asked_for(shop: Shop, ask: Ask) -> None:
    users = [*reversed(list(shop.states)[:5]), "nobody"]
    client = ask(shop.store, max_users=6)
    found = client.post("/v1/users:batchGet", json={"users": users}).json()
    assert [one["user_id"] for one in found["users"]] == users[:5]
    assert found["unknown"] == ["nobody"]
    too_many = client.post("/v1/users:batchGet", json={"users": [*users, "one more"]})
    assert too_many.status_code == 422
    assert too_many.json()["errors"][0]["pointer"] == "/body/users"


def test_half_of_a_surrogate_pair_is_no_server_error(shop: Shop, ask: Ask) -> None:
    client = ask(shop.store)
    for body in (b'{"users": ["\\ud800"]}', b'{"users": [], "\\udfff": 1}'):
        answer = client.post("/v1/users:batchGet", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422


def test_half_of_a_surrogate_pair_is_no_query(memory_shop: Shop, ask: Ask) -> None:
    body = b'{"queries": ["laptop", "\\ud800"]}'
    answer = ask(memory_shop.store).post("/v1/assign", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/body/queries/1", "detail": "half of a surrogate pair"}]


def test_a_pointer_to_a_name_with_a_slash_is_escaped(memory_shop: Shop, ask: Ask) -> None:
    answer = ask(memory_shop.store).post("/v1/assign", json={"a/b~c": 1})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/body/a~1b~0c"]


def test_sizes_and_pages_of_segments_hold_every_user_once(shop: Shop, ask: Ask) -> None:
    client = ask(shop.store)
    sizes = client.get("/v1/segments").json()
    assert sum(one["share"] for one in sizes["segments"]) == pytest.approx(1)
    assert sizes["users"] == len(shop.states)
    for one in sizes["segments"]:
        users, cursor = [], None
        while True:
            query = {"limit": 7} | ({"cursor": cursor} if cursor else {})
            page = client.get(f"/v1/segments/{one['segment']}/users", params=query).json()
            assert len(page["users"]) <= 7
            users += [member["user_id"] for member in page["users"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert users == sorted(user for user, state in shop.states.items() if state.segment == one["segment"])


def test_a_cursor_is_of_its_segment_only(shop: Shop, ask: Ask) -> None:
    client = ask(shop.store)
    first, second = (one["segment"] for one in client.get("/v1/segments").json()["segments"][:2])
    cursor = client.get(f"/v1/segments/{first}/users", params={"limit": 1}).json()["next"]
    for segment, sent in ((second, cursor), (first, "nonsense"), (first, "\N{SNOWMAN}"), (first, "")):
        answer = client.get(f"/v1/segments/{segment}/users", params={"cursor": sent})
        assert answer.status_code == 400
    assert client.get("/v1/segments/no-such/users").status_code == 404
    assert client.get("/v1/segments/no-such/products").status_code == 404


def test_latest_changes_come_first_and_later_ones_can_be_asked_for(shop: Shop, ask: Ask) -> None:
    client = ask(shop.store)
    latest = client.get("/v1/changes", params={"limit": 3}).json()
    assert latest["latest"] == latest["changes"][0]["id"]
    assert client.get("/v1/changes", params={"after": latest["latest"]}).json()["changes"] == []
    shop.do([search("ada", "gaming laptop"), search("bob", "gaming laptop")])
    news = client.get("/v1/changes", params={"after": latest["latest"]}).json()
    assert [(one["user_id"], one["previous"]) for one in news["changes"]] == [("ada", None), ("bob", None)]
    assert news["latest"] == news["changes"][-1]["id"]
    assert client.get("/v1/changes", params={"after": "1; drop"}).status_code == 422
    assert client.get("/v1/changes", params={"after": f"{10**18 - 1}-{10**18 - 1}"}).json()["changes"] == []


def test_what_is_assigned_is_what_the_stream_gives_and_is_not_stored(shop: Shop, ask: Ask) -> None:
    client = ask(shop.store)
    now = int(time.time() * 1000)
    events = [
        {"event_id": "1", "event_type": "search", "search_query": "gaming laptop", "timestamp": now - 5_000},
        {"event_id": "2", "event_type": "click", "product_id": "p", "timestamp": now - 4_000},
        {"event_id": "2", "event_type": "click", "product_id": "p", "timestamp": now - 4_000},
    ]
    events = [event | {"session_id": "s"} for event in events]
    found = client.post("/v1/assign", json={"events": events, "queries": ["gaming laptop", "zzzz", " "]}).json()
    assert (found["applied"], found["duplicates"]) == (4, 1)
    shop.do(
        [
            Event("1", "twin", "search", now - 5_000, session_id="s", search_query="gaming laptop"),
            Event("2", "twin", "click", now - 4_000, session_id="s", product_id="p"),
            Event("3", "twin", "search", now, search_query="gaming laptop"),
            Event("4", "twin", "search", now, search_query="zzzz"),
        ]
    )
    twin = client.get("/v1/users/twin/segment").json()
    assert {name: found[name] for name in ("segment", "cluster", "persona", "model")} == {
        name: twin[name] for name in ("segment", "cluster", "persona", "model")
    }
    labels, confidence = shop.batch.queries.predict(["gaming laptop"])
    assert found["queries"][0]["cluster"] == labels[0]
    assert found["queries"][0]["confidence"] == pytest.approx(float(confidence[0]))
    assert [one["segment"] for one in found["queries"][1:]] == ["other", "other"]
    assert client.get("/v1/users/visitor/segment").status_code == 404


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"event_type": "search", "timestamp": 10**14}, "timestamp: in the future"),
        ({"event_type": "search", "timestamp": 10**30}, "timestamp: in the future"),
        ({"event_type": "search", "search_query": " "}, "search_query: empty, too long or no text"),
    ],
)
def test_an_event_that_the_stream_would_refuse_is_refused(
    shop: Shop, ask: Ask, event: dict[str, Any], reason: str
) -> None:
    answer = ask(shop.store).post("/v1/assign", json={"events": [event]})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/body/events/0", "detail": reason}]


def test_products_that_a_user_has_seen_are_not_recommended(shop: Shop, ask: Ask) -> None:
    now = int(time.time() * 1000)
    shop.do([search("ada", "gaming laptop"), search("bob", "gaming laptop")])
    segment = shop.states["ada"].segment
    shop.do(
        [Event(f"b{n}-{m}", "bob", "purchase", now, product_id=f"p{n}") for n in range(3) for m in range(40 * (3 - n))]
        + [Event("a", "ada", "view", now, product_id="p1")]
    )
    client = ask(shop.store)
    everybody = client.get(f"/v1/segments/{segment}/products", params={"limit": 3}).json()["products"]
    assert [one["product_id"] for one in everybody] == ["p0", "p1", "p2"]
    assert everybody[0]["weight"] == 1_200
    assert everybody[0]["why"] == ["popular", "rising"]
    hers = client.get("/v1/recommendations/ada", params={"limit": 2}).json()["products"]
    assert [one["product_id"] for one in hers] == ["p0", "p2"]
    assert digest("p1") in shop.states["ada"].products


def test_a_published_model_is_taken_without_a_restart_and_both_are_seen(shop: Shop, ask: Ask, batch: Batch) -> None:
    client = ask(shop.store)
    shop.say("one")
    version = batch.model.version
    other = replace(batch.model, version="another-version", personas=dict.fromkeys(batch.model.personas, "Renamed"))
    assert client.get("/v1/model").json()["previous"] is None
    publish(shop.store, other, int(time.time() * 1000))
    shop.say("two", model="another-version")
    found = wait_for(lambda: client.get("/v1/model").json(), lambda said: said["serving"] == "another-version")
    assert found["current"]["version"] == "another-version"
    assert found["previous"]["version"] == version
    assert {one["worker"]: one["model"] for one in found["workers"]} == {"one": version, "two": "another-version"}
    assert client.get("/v1/health").json()["problems"] == ["1 of 2 workers run another model."]
    # A state of the model before is told in the words of that model.
    user = next(iter(shop.states))
    assert client.get(f"/v1/users/{user}/segment").json()["persona"] != "Renamed"
    body = {"inputs": [{"name": "query", "shape": [1], "datatype": "BYTES", "data": ["gaming laptop"]}]}
    for asked in (version, "another-version"):
        answer = client.post(f"/v2/models/queries/versions/{asked}/infer", json=body)
        assert answer.json()["model_version"] == asked
    assert client.get("/v2/models/queries").json()["versions"] == ["another-version", version]


def wait_for(ask: Callable[[], Any], right: Callable[[Any], bool], seconds: float = 20) -> Any:
    until = time.monotonic() + seconds
    while not right(found := ask()):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def test_without_a_model_states_are_read_and_nothing_is_assigned(store: StateStore, ask: Ask) -> None:
    client = ask(store)
    assert client.get("/health/live").status_code == 200
    for path in ("/health/ready", "/v1/model", "/v2/health/ready"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    assert client.post("/v1/assign", json={"queries": ["x"]}).status_code == 503
    assert client.get("/v1/users/nobody/segment").status_code == 404
    assert client.get("/v1/health").json()["status"] == "degraded"
    assert client.get("/v1/segments").json() == {"segments": [], "users": 0}
    assert client.get("/v1/changes").json() == {"changes": [], "latest": None}


class AwayStore(MemoryStore):
    """A store that can be away."""

    away = False

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("redis://:secret@host is away")

    def load(self, users: Sequence[str]) -> dict[str, UserState]:
        self._answer()
        return super().load(users)

    def workers(self) -> dict[str, dict[str, object]]:
        self._answer()
        return super().workers()

    def current_model(self) -> str | None:
        self._answer()
        return super().current_model()

    def sizes(self) -> dict[str, int]:
        self._answer()
        return super().sizes()


def profiles(es: Elasticsearch) -> ProfileReader:
    es.indices.create(index="user_profiles-1", aliases={"user_profiles": {}})
    es.index(
        index="user_profiles-1", id="published", refresh=True,
        document={
            "user_id": "published", "segment": "tech", "cluster": 3, "cluster_confidence": 0.5, "persona": "Buyers",
            "model_version": "v", "features": {"sessions": 3},
        },
    )  # fmt: skip
    return ProfileReader(es, "user_profiles")


def test_whom_the_stream_does_not_know_the_published_profile_tells(es: Elasticsearch, batch: Batch, ask: Ask) -> None:
    shop = Shop(AwayStore(), batch)
    client = ask(shop.store, reader=profiles(es))
    known = next(iter(shop.states))
    answer = client.get("/v1/users/published/segment")
    assert answer.headers["segments-source"] == "elasticsearch"
    assert answer.json() == {
        "user_id": "published", "segment": "tech", "since": None, "cluster": 3, "persona": "Buyers", "confidence": 0.5,
        "model": "v", "source": "elasticsearch",
    }  # fmt: skip
    assert client.get("/v1/users/published/profile").json()["counters"] == {}
    assert client.get("/v1/users/nobody/segment").status_code == 404
    both = client.post("/v1/users:batchGet", json={"users": ["published", known, "nobody"]})
    assert both.headers["segments-source"] == "elasticsearch, live"
    assert [one["source"] for one in both.json()["users"]] == ["elasticsearch", "live"]

    shop.store.away = True
    assert client.get("/v1/users/published/segment").json()["source"] == "elasticsearch"
    answer = client.get(f"/v1/users/{known}/segment")  # not published: nobody can tell whether there is such a user
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "secret" not in answer.text
    assert client.get("/health/ready").status_code == 503
    assert client.get("/v1/segments").status_code == 503
    assert client.get("/v1/health").json()["store"] is False

    shop.store.away = False
    wait_for(lambda: client.get(f"/v1/users/{known}/segment").status_code, lambda status: status == 200)


def test_where_nothing_was_published_an_unknown_user_is_unknown(es: Elasticsearch, memory_shop: Shop, ask: Ask) -> None:
    client = ask(memory_shop.store, reader=ProfileReader(es, "user_profiles"))
    assert client.get("/v1/users/nobody/segment").status_code == 404


def test_when_elasticsearch_is_away_as_well_that_is_said(memory_shop: Shop, ask: Ask) -> None:
    with Elasticsearch("http://127.0.0.1:1") as nobody:
        client = ask(memory_shop.store, reader=ProfileReader(nobody, "user_profiles"))
        answer = client.get("/v1/users/nobody/segment")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "The Elasticsearch does not answer."
        known = next(iter(memory_shop.states))
        assert client.get(f"/v1/users/{known}/segment").status_code == 200
        without = ask(memory_shop.store, reader=ProfileReader(nobody, "user_profiles"), fallback=False)
        assert without.get("/v1/users/nobody/segment").status_code == 404


def test_numbers_of_workers_are_added_up_and_the_slowest_percentile_counts(shop: Shop, ask: Ask) -> None:
    shop.say("one", p50_ms=3.0, p99_ms=40, lag={"a": 1, "b": 2})
    shop.say("two", p50_ms=5.0, lag=4, events_per_second="fast")
    found = ask(shop.store).get("/v1/live").json()
    assert (found["events_per_second"], found["lag"]) == (12.5, 7)
    assert (found["p50_ms"], found["p95_ms"], found["p99_ms"]) == (5.0, None, 40.0)
    assert found["totals"]["events"] == sum(state.events for state in shop.states.values())
    assert len(found["changes"]) == 20
