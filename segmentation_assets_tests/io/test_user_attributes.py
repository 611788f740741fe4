"""The index of attributes, and everybody who is asked put together: nobody lost, everything accounted for."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import BadRequestError, Elasticsearch

from segmentation_assets.core.settings import AttributeSettings
from segmentation_assets.core.users.attributes import UserAttributes, merge_attributes
from segmentation_assets.io.bulk import BulkFailed
from segmentation_assets.io.elasticsearch import ClusterError, ClusterUnreachable
from segmentation_assets.io.enrichment import EnrichmentFileInvalid, EnrichmentInvalid
from segmentation_assets.io.point_in_time import ShortRead
from segmentation_assets.io.templates import attributes_template, ensure_index, ensure_template
from segmentation_assets.io.user_attributes import gather_attributes, read_attributes, write_attributes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INDEX = "user_attributes"


def rows(found: UserAttributes) -> dict[str, dict[str, Any]]:
    return {row.pop("user_id"): row for row in found.table.to_pylist()}


def stored(es: Elasticsearch) -> dict[str, Any]:
    return {hit["_id"]: hit["_source"] for hit in es.search(index=INDEX, size=1000)["hits"]["hits"]}


def open_contexts(es: Elasticsearch) -> int:
    stats = es.nodes.stats(metric="indices", index_metric="search")
    return sum(node["indices"]["search"]["open_contexts"] for node in stats["nodes"].values())


@pytest.fixture
def gather(es: Elasticsearch, tmp_path: Path) -> Callable[..., UserAttributes]:
    """``gather(users, **enrichment settings)``."""

    def run(
        users: list[str], token: str | None = None, client: Elasticsearch = es, **enrichment: Any
    ) -> UserAttributes:
        return gather_attributes(
            client,
            AttributeSettings.model_validate({"enrichment": {"per_second": 1000, **enrichment}}),
            users,
            now=NOW,
            cache=tmp_path / "data" / "answers.sqlite",
            config_file=tmp_path / "segments.yaml",
            token=token,
        )

    return run


# --- writing ----------------------------------------------------------------------------------------------------------


def test_attributes_are_stored_in_canonical_form_under_the_users_id(es: Elasticsearch) -> None:
    record = {"user_id": " u1 ", "age": "34", "gender": "f", "signup_date": "2024-01-31", "extra": "ignored"}
    assert write_attributes(es, INDEX, [record, {"user_id": 7, "subscription_date": NOW}], now=NOW) == 2
    assert stored(es) == {
        "u1": {"user_id": "u1", "age": 34.0, "gender": "f", "signup_date": "2024-01-31T00:00:00.000Z"},
        "7": {"user_id": "7", "subscription_date": "2026-03-01T12:00:00.000Z"},
    }
    mapping = es.indices.get_mapping(index=INDEX)[INDEX]["mappings"]
    assert mapping["dynamic"] == "strict"
    assert {name: each["type"] for name, each in mapping["properties"].items()} == {
        "user_id": "keyword",
        "age": "float",
        "gender": "keyword",
        "location": "keyword",
        "signup_date": "date",
        "subscription_date": "date",
    }


def test_records_that_cannot_be_used_are_counted_and_not_written(es: Elasticsearch) -> None:
    set_aside: Counter[str] = Counter()
    said: list[int] = []
    records: Iterator[Any] = iter(
        [
            {"user_id": "u1", "age": 1, "gender": "f"},
            {"age": 2},
            "junk",
            {"user_id": "u2", "age": 200},
            {"user_id": "u1", "age": 2},
        ]
    )
    written = write_attributes(
        es, INDEX, records, now=NOW, set_aside=set_aside, on_progress=lambda done, _: said.append(done)
    )
    assert written == 1
    assert set_aside == Counter(no_user=1, not_an_object=1, no_value=1, duplicate_user=1)
    assert stored(es) == {"u1": {"user_id": "u1", "age": 2.0}}
    assert said == [5]


def test_writing_again_replaces_what_was_known(es: Elasticsearch) -> None:
    write_attributes(es, INDEX, [{"user_id": "u1", "age": 1, "gender": "f"}, {"user_id": "u2", "age": 3}], now=NOW)
    write_attributes(es, INDEX, [{"user_id": "u1", "age": 2}], now=NOW)
    assert stored(es) == {"u1": {"user_id": "u1", "age": 2.0}, "u2": {"user_id": "u2", "age": 3.0}}


def test_an_index_with_another_mapping_is_not_changed(es: Elasticsearch) -> None:
    es.indices.create(index=INDEX, mappings={"dynamic": "strict", "properties": {"user_id": {"type": "keyword"}}})
    with pytest.raises(BulkFailed, match="strict_dynamic_mapping_exception") as raised:
        write_attributes(es, INDEX, [{"user_id": "jane.doe", "age": 3}], now=NOW)
    assert "jane.doe" not in str(raised.value)
    assert list(es.indices.get_mapping(index=INDEX)[INDEX]["mappings"]["properties"]) == ["user_id"]


def test_the_shipped_template_is_accepted_strict_and_ours(es: Elasticsearch) -> None:
    assert ensure_template(es, attributes_template())
    assert not ensure_template(es, attributes_template())
    es.index(index=INDEX, document={"user_id": "u", "age": 3})
    with pytest.raises(BadRequestError, match="strict_dynamic_mapping_exception"):
        es.index(index=INDEX, document={"password": 1})
    assert es.indices.get_mapping(index=INDEX)[INDEX]["mappings"]["_meta"]["owner"] == "segmentation-assets"


def test_an_index_of_an_earlier_version_gets_the_fields_that_came_since(es: Elasticsearch) -> None:
    mappings = attributes_template().mappings
    del mappings["properties"]["age"]
    mappings["_meta"]["version"] = 0
    es.indices.create(index=INDEX, mappings=mappings)
    ensure_index(es, INDEX, attributes_template())
    found = es.indices.get_mapping(index=INDEX)[INDEX]["mappings"]
    assert found["properties"]["age"] == {"type": "float"}
    assert found["_meta"]["version"] == attributes_template().mappings["_meta"]["version"]


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 7, 10_000])
def test_all_of_the_index_is_read_page_by_page(es: Elasticsearch, page_size: int) -> None:
    write_attributes(es, INDEX, ({"user_id": f"u{n:02d}", "age": n} for n in range(21)), now=NOW)
    said: list[tuple[int, int | None]] = []
    source = read_attributes(
        es, INDEX, now=NOW, page_size=page_size, on_progress=lambda done, total: said.append((done, total))
    )
    assert {user: row["age"] for user, row in rows(merge_attributes([source])).items()} == {
        f"u{n:02d}": float(n) for n in range(21)
    }
    assert said == [(done, None) for done in range(page_size, 22, page_size)]
    assert open_contexts(es) == 0


def test_the_document_written_later_is_taken_wherever_it_lies(es: Elasticsearch) -> None:
    """An index of somebody else may hold a user several times, under ids of its own, and much besides."""
    es.indices.create(index=INDEX)
    for age in range(1, 6):
        es.index(index=INDEX, id=f"{9 - age}", document={"user_id": "u", "age": age, "card": {"number": "4711"}})
    es.index(index=INDEX, document={"name": "nobody"})
    es.indices.refresh(index=INDEX)
    source = read_attributes(es, INDEX, now=NOW)
    found = merge_attributes([source])
    assert rows(found) == {"u": {"age": 5.0}}
    assert found.account.set_aside == {"duplicate_user": 4, "no_user": 1}


def test_an_absent_index_is_no_error_and_is_said(es: Elasticsearch) -> None:
    found = merge_attributes([read_attributes(es, INDEX, now=NOW)])
    assert found.account.sources == ["index user_attributes: 0 users known; there is no such index"]
    assert found.account.read == found.table.num_rows == 0


def test_a_pattern_that_matches_nothing_knows_nobody(es: Elasticsearch) -> None:
    assert read_attributes(es, "attributes-*", now=NOW).summary == "index attributes-*: 0 users known"


def test_an_index_that_may_not_be_read_is_no_error_and_is_said(serve, answer) -> None:
    server = serve(
        lambda _: answer.of(
            403, {"error": {"type": "security_exception", "reason": "action [x] is unauthorized"}, "status": 403}
        )
    )
    with Elasticsearch(server.url) as client:
        source = read_attributes(client, INDEX, now=NOW)
    assert source.summary == "index user_attributes: 0 users known; the credentials are not allowed to read it"


def test_a_closed_index_is_an_error(es: Elasticsearch) -> None:
    write_attributes(es, INDEX, [{"user_id": "u", "age": 1}], now=NOW)
    es.indices.close(index=INDEX)
    with pytest.raises(ClusterError, match="index_closed_exception"):
        read_attributes(es, INDEX, now=NOW)


def test_an_index_that_disappears_during_the_read_is_an_error(es: Elasticsearch) -> None:
    write_attributes(es, INDEX, ({"user_id": f"u{n}", "age": n} for n in range(4)), now=NOW)

    def remove(*_: object) -> None:
        es.indices.delete(index=INDEX, ignore_unavailable=True)

    with pytest.raises(ShortRead, match="lost during the read"):
        read_attributes(es, INDEX, now=NOW, page_size=2, on_progress=remove)


def test_a_cluster_that_is_not_there_is_an_error() -> None:
    with Elasticsearch("http://127.0.0.1:9", max_retries=0) as client, pytest.raises(ClusterUnreachable):
        read_attributes(client, INDEX, now=NOW)


# --- all together -----------------------------------------------------------------------------------------------------


def test_nothing_but_sessions_is_fine(gather) -> None:
    found = gather(["u1", "u2"])
    assert found.table.schema.names == ["user_id"]
    assert found.account.sources == ["index user_attributes: 0 users known; there is no such index"]


def test_the_index_comes_before_the_file_and_the_service_is_asked_about_the_rest(
    es: Elasticsearch, gather, serve, answer, tmp_path: Path
) -> None:
    write_attributes(
        es,
        INDEX,
        [{"user_id": "u1", "age": 1}, {"user_id": "u2", "age": 2, "gender": "f"}, {"user_id": "stranger", "age": 3}],
        now=NOW,
    )
    (tmp_path / "crm.csv").write_text("user_id,age,gender\nu1,99,m\nu3,33,\nu2,,f\nstranger,1,f\nu4,,\nu3,old,m\n")
    known = {"u4": {"age": 44, "signup_date": (NOW + timedelta(days=9)).isoformat()}, "u5": {"shoe_size": 44}}

    def handle(request: Any) -> Any:
        user = request.path.rpartition("/")[2]
        if user == "u7":
            return answer.of(400, {})
        return answer.of(200, known[user]) if user in known else answer.of(404, {})

    server = serve(handle)
    users = [f"u{n}" for n in range(7, 0, -1)]
    found = gather(users, token="t0ken", file="crm.csv", url=server.url + "/{user_id}")  # the file beside the settings
    assert rows(found) == {
        "u1": {"age": 1.0, "gender": "m"},
        "u2": {"age": 2.0, "gender": "f"},
        "u3": {"age": None, "gender": "m"},
        "u4": {"age": 44.0, "gender": None},
    }
    assert {r.path for r in server.requests} == {"/u4", "/u5", "/u6", "/u7"}
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer t0ken"}
    account = found.account
    # index: u1, u2, stranger; file: six rows; service: u4 and u5
    assert account.read == 3 + 6 + 2 == account.used + sum(account.set_aside.values())
    assert account.used == 5
    assert account.set_aside == {"duplicate_user": 1, "no_value": 2, "not_in_sessions": 2, "nothing_new": 1}
    assert account.dropped == {"age: not a number": 1, "signup_date: in the future": 1}
    assert account.failed == {"answered 400": 1}
    assert account.sources == [
        "index user_attributes: 2 users known",
        "file crm.csv: 3 users known",
        f"{server.url}: 1 user known; 1 not known there; 1 without an answer; asked about 4 of whom nothing was known",
    ]


def test_a_second_run_asks_nobody_again_and_says_the_same(gather, serve, answer) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    users = [f"u{n}" for n in range(5)]
    first = gather(users, url=server.url + "/{user_id}")
    again = gather(users[::-1], url=server.url + "/{user_id}")
    assert first.table.equals(again.table)
    assert first.account == again.account
    assert len(server.requests) == 5


def test_a_service_that_is_down_costs_answers_and_not_the_run(es: Elasticsearch, gather) -> None:
    write_attributes(es, INDEX, [{"user_id": "u1", "age": 1}], now=NOW)
    found = gather(["u1", "u2"], url="http://127.0.0.1:9/{user_id}", retries=0)
    assert rows(found) == {"u1": {"age": 1.0}}
    assert found.account.failed == {"no connection": 1}


def test_expired_answers_are_used_and_said(gather, serve, answer, es: Elasticsearch, tmp_path: Path) -> None:
    answers = iter([answer.of(200, {"age": 3})])
    server = serve(lambda _: next(answers, answer.of(500, {})))
    gather(["u1"], url=server.url + "/{user_id}")
    found = gather_attributes(
        es,
        AttributeSettings.model_validate({"enrichment": {"url": server.url + "/{user_id}", "retries": 0}}),
        ["u1"],
        now=NOW + timedelta(days=99),
        cache=tmp_path / "data" / "answers.sqlite",
        config_file=None,
        token=None,
    )
    assert rows(found) == {"u1": {"age": 3.0}}
    assert found.account.failed == {"answered 500": 1}
    assert "1 with an answer from before, which has expired" in found.account.sources[1]


@pytest.mark.parametrize(
    ("enrichment", "error"),
    [({"file": "absent.csv"}, EnrichmentFileInvalid), ({"url": "https://crm.example/"}, EnrichmentInvalid)],
)
def test_settings_that_cannot_work_are_said_before_anything_is_read(
    gather, enrichment: dict[str, Any], error: type[Exception]
) -> None:
    with Elasticsearch("http://127.0.0.1:9", max_retries=0) as nowhere, pytest.raises(error):
        gather(["u1"], client=nowhere, **enrichment)
