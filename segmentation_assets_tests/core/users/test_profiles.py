"""Profiles: one row and one document for every user, whatever is missing."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from elasticsearch import BadRequestError, Elasticsearch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.model import StaleInputError
from segmentation_assets.core.users.attributes import AttributesAccount, UserAttributes
from segmentation_assets.core.users.behaviour import BehaviourModel, Stability
from segmentation_assets.core.users.cleaning import CleaningAccount, CleanSessions
from segmentation_assets.core.users.features import FEATURES, TRAITS, UserFeatures
from segmentation_assets.core.users.personas import NOISE_NAME, Persona, Personas
from segmentation_assets.core.users.preprocessing import Preprocessing
from segmentation_assets.core.users.profiles import UserProfiles, build_profiles, documents
from segmentation_assets.core.users.rules import RuleSegments
from segmentation_assets.core.users.scores import SCORES_SCHEMA, UserScores

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXTS = pa.list_(pa.string())
Columns = Mapping[str, Sequence[float | None]]

MEASURED: Columns = {
    "recency_days": [2.0, 0.123456789, 3],
    "average_spend": [None, 12.5, None],
    "category_share:Shoes": [0.25, None, 1],
    "category_share:a.b": [0.75, None, 0],
    "hour_share:09": [1, 0, 0.5],
    "segment_share:tech": [2 / 3, 0, 1],
    "segment_share:other": [1 / 3, 1, 0],
}


def some_features(measured: Columns = MEASURED, **changed: Any) -> UserFeatures:
    n = len(next(iter(measured.values())))
    users = pa.array([f"u{i:02}" for i in range(n)], pa.string())
    columns = {name: pa.array(values, pa.float64()) for name, values in measured.items()}
    given = {
        "table": pa.table({"user_id": users, **columns}),
        "traits": pa.table({"user_id": users, "device": pa.array((["mobile"] + [None] * n)[:n], pa.string())}),
        "groups": {},
        "absent": {"prices": "no event has a price"},
        "outliers": pa.table({"user_id": pa.array([], pa.string()), "feature": pa.array([], pa.string())}),
        "noise": pa.table({"user_id": users, "noise": pa.array([[]] * n, TEXTS)}),
        "start": START,
        "end": END,
    }
    return UserFeatures(**{**given, **changed})


def some_scores(n: int = 3) -> UserScores:
    rows = [
        {
            "user_id": f"u{i:02}",
            "recency_score": i % 5 + 1,
            "frequency_score": 2,
            "monetary_score": None,
            "rfm": f"{i % 5 + 1}2-",
            "loyalty_index": 10.0 * (i % 10),
            "loyalty_tier": "bronze",
        }
        for i in range(n)
    ]
    return UserScores(pa.Table.from_pylist(rows, SCORES_SCHEMA), {"monetary_score": "no purchase"}, {}, "sessions")


def some_rules(n: int = 3) -> RuleSegments:
    users = [f"u{i:02}" for i in range(n)]
    taken = [["new", "mobile"] if i == 0 else [] for i in range(n)]
    return RuleSegments(pa.table({"user_id": pa.array(users, pa.string()), "rules": pa.array(taken, TEXTS)}), [], [])


def some_model(labels: Sequence[int] = (0, 1, -1)) -> BehaviourModel:
    return BehaviourModel(
        version="b1",
        method="kmeans",
        preprocessing=Preprocessing([], [], {}),
        points=np.zeros((0, 1)),
        point_clusters=np.zeros(0, np.int32),
        reach=np.zeros(0),
        cluster_ids=np.array(sorted(set(labels) - {-1}), np.int32),
        next_id=9,
        users=pa.array([f"u{i:02}" for i in range(len(labels))], pa.string()),
        labels=np.array(labels, np.int32),
        confidence=np.array([0.0 if label < 0 else 0.8 for label in labels], np.float32),
        sizes=[],
        noise=0,
        fitted_on=0,
        stability=Stability(None, [], None),
        details={},
    )


def some_personas(version: str = "b1") -> Personas:
    names = {0: "Lookers", 1: "Buyers", -1: NOISE_NAME}
    return Personas([Persona(each, name, None, [], 1, 1 / 3, []) for each, name in names.items()], version)


def build(features: UserFeatures | None = None, **given: Any) -> UserProfiles:
    features = features or some_features()
    n = features.table.num_rows
    inputs = {
        "scores": some_scores(n),
        "rules": some_rules(n),
        "model": some_model([(0, 1, -1)[i % 3] for i in range(n)]),
        "personas": some_personas(),
        **given,
    }
    return build_profiles(features, **inputs)


def by_user(profiles: UserProfiles) -> dict[str, dict[str, Any]]:
    return {document["user_id"]: document for document in documents(profiles)}


def test_a_profile_by_hand() -> None:
    segments = pa.table({"user_id": ["u00"], "segment": ["tech"], "sessions": [2], "total": [3]})
    profiles = build(users_segments=segments, segment_model_version="m7")
    assert by_user(profiles)["u00"] == {
        "user_id": "u00",
        "segment": "tech",
        "segment_share": {"tech": 0.666667, "other": 0.333333},
        "cluster": 0,
        "cluster_confidence": 0.8,
        "persona": "Lookers",
        "rules": ["new", "mobile"],
        "recency_score": 1,
        "frequency_score": 2,
        "rfm": "12-",
        "loyalty_index": 0.0,
        "loyalty_tier": "bronze",
        "features": {
            "recency_days": 2.0,
            "category_share": {"Shoes": 0.25, "a.b": 0.75},
            "hour_share": {"09": 1.0},
        },
        "traits": {"device": "mobile"},
        "noise": [],
        "outliers": [],
        "absent": ["monetary_score", "prices"],
        "model_version": "b1",
        "segment_model_version": "m7",
        "window_start": "2026-01-01T00:00:00.000Z",
        "window_end": "2026-03-01T12:00:00.000Z",
    }
    assert profiles.absent == {"prices": "no event has a price", "monetary_score": "no purchase"}
    assert (profiles.model_version, profiles.segment_model_version) == ("b1", "m7")
    assert (profiles.start, profiles.end) == (START, END)


def test_what_is_not_known_of_a_user_is_left_out_and_a_share_of_0_is_not() -> None:
    document = by_user(build())["u01"]
    assert document["features"] == {"recency_days": 0.123457, "average_spend": 12.5, "hour_share": {"09": 0.0}}
    assert document["segment_share"] == {"tech": 0.0, "other": 1.0}
    assert not {"segment", "traits", "monetary_score", "imputed", "segment_model_version"} & document.keys()


def test_who_is_in_no_group_has_a_profile_that_says_so() -> None:
    document = by_user(build())["u02"]
    assert (document["cluster"], document["cluster_confidence"], document["persona"]) == (-1, 0.0, NOISE_NAME)


def test_the_table_keeps_numbers_as_they_are_and_one_row_a_user() -> None:
    table = build().table
    assert table["user_id"].to_pylist() == ["u00", "u01", "u02"]
    assert table["features"].combine_chunks().field("recency_days").to_pylist() == MEASURED["recency_days"]


def test_marks_and_outliers_are_listed_by_user() -> None:
    features = some_features(
        outliers=pa.table(
            {
                "user_id": ["u02", "u02", "u00", "u02", "gone"],
                "feature": ["hour_share:09", "recency_days", "average_spend", "recency_days", "recency_days"],
            }
        ),
        noise=pa.table({"user_id": ["u01"], "noise": pa.array([["bot_rate", "internal_user"]], TEXTS)}),
    )
    found = by_user(build(features))
    assert [found[user]["outliers"] for user in sorted(found)] == [
        ["average_spend"],
        [],
        ["recency_days", "hour_share:09"],
    ]
    assert [found[user]["noise"] for user in sorted(found)] == [[], ["bot_rate", "internal_user"], []]


def test_filled_columns_of_a_users_sessions_are_listed() -> None:
    sessions = pa.table(
        {
            "session_id": ["a", "b", "c"],
            "user_id": ["u00", "u00", "u02"],
            "device": ["Unknown", "Unknown", "mobile"],
            "device_imputed": [True, True, False],
            "duration": [5.0, 6.0, 7.0],
            "duration_imputed": [False, True, True],
        }
    )
    clean = CleanSessions(sessions, pa.table({}), pa.table({}), CleaningAccount(3, 3))
    found = by_user(build(clean=clean))
    assert [found[user]["imputed"] for user in sorted(found)] == [["device", "duration"], [], ["duration"]]
    bare = replace(clean, sessions=sessions.select(["session_id", "user_id"]))
    assert all(document["imputed"] == [] for document in documents(build(clean=bare)))


def test_attributes_add_what_the_traits_do_not_have() -> None:
    table = pa.table(
        {
            "user_id": ["somebody else", "u01"],
            "age": [70.0, 34.0],
            "gender": [None, "f"],
            "signup_date": pa.array([None, datetime(2025, 5, 6, 7, 8, 9, 10_000)], pa.timestamp("ms", tz="UTC")),
        }
    )
    found = by_user(build(attributes=UserAttributes(table, AttributesAccount())))
    assert found["u01"]["traits"] == {"age": 34.0, "gender": "f", "signup_date": "2025-05-06T07:08:09.010Z"}
    assert found["u00"]["traits"] == {"device": "mobile"}
    assert "traits" not in found["u02"]


def test_no_traits_and_no_shares_are_no_error() -> None:
    features = some_features({"recency_days": [1, 2]}, traits=pa.table({"user_id": ["u00", "u01"]}))
    for document in documents(build(features)):
        assert list(document["features"]) == ["recency_days"]
        assert not {"traits", "segment_share"} & document.keys()


def test_nobody_is_no_error() -> None:
    profiles = build(
        some_features({name: [] for name in MEASURED}, traits=pa.table({"user_id": pa.array([], pa.string())}))
    )
    assert profiles.table.num_rows == 0
    assert list(documents(profiles)) == []


def test_a_number_that_json_does_not_know_is_left_out_and_a_huge_one_kept() -> None:
    found = by_user(build(some_features({"spend": [math.nan, math.inf, 1.5e300], "views": [1, 2, 3]})))
    assert found["u00"]["features"] == {"views": 1.0}
    assert found["u01"]["features"] == {"views": 2.0}
    assert found["u02"]["features"] == {"spend": 1.5e300, "views": 3.0}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"scores": some_scores(2)}, r"the scores \(2 users\)"),
        ({"rules": some_rules(4)}, r"the rule segments \(4 users\)"),
        ({"model": some_model([0, 1])}, r"the behaviour model \(2 users\)"),
        ({"model": some_model([0, 1, 7])}, "personas"),
        ({"personas": some_personas("b0")}, r"personas \(model b0\) are not those of the behaviour model b1"),
    ],
)
def test_parts_that_were_not_made_from_each_other_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(StaleInputError, match=problem):
        build(**given)


def test_the_order_of_the_rows_changes_nothing() -> None:
    order = pa.array([2, 0, 1])
    features = some_features()
    shuffled = replace(features, table=features.table.take(order), traits=features.traits.take(pa.array([1, 2, 0])))
    scores = replace(some_scores(), table=some_scores().table.take(order))
    assert list(documents(build(shuffled, scores=scores))) == list(documents(build(features)))


values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=12), st.text(max_size=3), st.text(max_size=3))
@settings(max_examples=60, deadline=None)
def test_documents_are_plain_json_of_every_user_without_nulls(
    rows: list[tuple[float | None, float | None, float | None]], one: str, other: str
) -> None:
    first, second, third = (list(column) for column in zip(*rows, strict=True))
    measured = {"spend": first, f"category_share:{one}": second, f"category_share:{other}!": third}
    found = list(documents(build(some_features(measured))))
    assert [document["user_id"] for document in found] == [f"u{i:02}" for i in range(len(rows))]
    for document in found:
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert all(value is not None for part in (document, document.get("features", {})) for value in part.values())


def mapping() -> dict[str, Any]:
    text = resources.files("segmentation_assets.io").joinpath("mappings", "user_profiles.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_the_mapping_names_every_feature_and_trait() -> None:
    properties = mapping()["template"]["mappings"]["properties"]
    named = properties["features"]["properties"].keys() | {"segment_share"}
    assert {feature.name for feature in FEATURES} == named
    assert set(TRAITS) <= properties["traits"]["properties"].keys()
    assert set(SCORES_SCHEMA.names) <= properties.keys()


def test_elasticsearch_takes_the_documents_with_any_name_of_a_share(es: Elasticsearch) -> None:
    es.indices.create(index="profiles", mappings=mapping()["template"]["mappings"])
    names = ["a", "a.b", ".a", "a.", "..", " ", "", "Men's / *", "é", "_id", "x" * 500]
    measured = {**MEASURED, **{f"category_share:{name}": [0.5, None, 0.25] for name in names}}
    attributes = pa.table({"user_id": ["u00"], "age": [31.0], "gender": ["m"], "shoe_size": [42.0], "club": ["x"]})
    found = list(
        documents(
            build(
                some_features(measured),
                users_segments=pa.table({"user_id": ["u00"], "segment": ["tech"]}),
                attributes=UserAttributes(attributes, AttributesAccount()),
                clean=CleanSessions(
                    pa.table({"user_id": ["u00"], "device_imputed": [True]}),
                    pa.table({}),
                    pa.table({}),
                    CleaningAccount(1, 1),
                ),
                segment_model_version="m7",
            )
        )
    )
    assert len(found[0]["features"]["category_share"]) == 2 + len(names) - 1  # MEASURED has 'a.b' already
    for document in found:
        es.index(index="profiles", id=document["user_id"], document={**document, "published_at": "2026-03-02"})
    es.indices.refresh(index="profiles")

    def users(**query: Any) -> set[str]:
        return {hit["_id"] for hit in es.search(index="profiles", query=query)["hits"]["hits"]}

    assert users(range={"features.category_share.a.b": {"gte": 0.4}}) == {"u00"}
    assert users(range={"segment_share.tech": {"gt": 0.5}}) == {"u00", "u02"}
    assert users(range={"traits.shoe_size": {"gt": 40}}) == {"u00"}
    assert users(term={"traits.club": "x"}) == {"u00"}
    assert users(term={"imputed": "device"}) == {"u00"}
    assert users(range={"features.recency_days": {"lt": 1}}) == {"u01"}
    assert users(term={"persona": NOISE_NAME}) == {"u02"}
    with pytest.raises(BadRequestError, match="strict_dynamic_mapping_exception"):
        es.index(index="profiles", document={"user_id": "u", "something": 1})
