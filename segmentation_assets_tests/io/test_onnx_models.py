"""ONNX graphs of the models: the same clusters as the models themselves give, whatever comes in."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.model import ClusterModel, fit
from segmentation_assets.core.sessions import SessionBuilder
from segmentation_assets.core.settings import BehaviourMethod, BehaviourSettings, ClusterSettings, VectorSettings
from segmentation_assets.core.settings import Settings as AllSettings
from segmentation_assets.core.users.behaviour import BehaviourModel, fit_behaviour, predict
from segmentation_assets.core.users.cleaning import clean
from segmentation_assets.core.users.clustering import NOISE
from segmentation_assets.core.users.features import UserFeatures, measure
from segmentation_assets.core.users.preprocessing import CategoricalStep, Preprocessing
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io.artifacts import ArtifactStore

pytest.importorskip("onnx", reason="the extra serve is not installed")
pytest.importorskip("onnxruntime", reason="the extra serve is not installed")

from segmentation_assets.io import onnx_models
from segmentation_assets.io.onnx_models import (
    PADDING,
    OnnxBehaviourModel,
    OnnxFilesExistError,
    OnnxInputError,
    OnnxMissingError,
    OnnxQueryModel,
    OnnxTooLargeError,
    OnnxUnreadableError,
    Tensor,
    behaviour_model_to_onnx,
    encode_queries,
    query_model_to_onnx,
    write_models,
)

REAL = Path(__file__).parents[3] / "shared" / "data" / "snips7.tsv"
END = datetime(2026, 11, 1, tzinfo=UTC)
METHODS = ("kmeans", "spherical", "lsa", "mixture", "consensus")
NAMES = {0: "tech", 1: "mode & «chic» 👗"}
STRANGE = ["", "   ", "zzzzqqq xxyyw", "🎧", "\0", "laptop " * 300, "dress\n laptop", "İstanbul ﬁ", "-1", "NaN"]


def of_queries(queries: list[str], users: list[str], **chosen: Any) -> ClusterModel:
    clusters = ClusterSettings.model_validate({"k": 4, "n_init": 2, **chosen})
    tfidf = vectorize(pa.array(queries, pa.string()), VectorSettings().for_method(clusters.method))
    names = {user: place for place, user in enumerate(sorted(set(users)))}
    return fit(tfidf, np.array([names[user] for user in users], np.int32), clusters)


@pytest.fixture(scope="module")
def searches() -> list[tuple[str, str]]:
    """(query, user) of the generated log of a shop."""
    documents = generate_sessions(1_200, 5, END).documents
    return [(document["search_query"], document["user_id"]) for document in documents]


@pytest.fixture(scope="module", params=METHODS)
def model(request: pytest.FixtureRequest, searches: list[tuple[str, str]]) -> ClusterModel:
    return of_queries([query for query, _ in searches], [user for _, user in searches], method=request.param)


def assert_same_queries(model: ClusterModel, queries: list[str]) -> np.ndarray:
    """The graph says of queries what the model says; gives the clusters."""
    labels, confidence = model.predict(queries)
    graph = OnnxQueryModel(query_model_to_onnx(model, {}))
    found, sure = graph.run(queries)
    assert found.tolist() == labels.tolist()
    assert (found.dtype, sure.dtype) == (np.int32, np.float32)
    np.testing.assert_allclose(sure, confidence, atol=1e-6, rtol=0)
    return labels


# --- queries


def test_the_queries_of_a_shop_get_their_clusters(model: ClusterModel) -> None:
    labels = assert_same_queries(model, model.queries.to_pylist())
    assert labels.tolist() == model.labels.tolist()
    assert set(range(4)) <= set(labels.tolist())


@pytest.mark.skipif(not REAL.exists(), reason="the data set is not here")
def test_sentences_of_real_people_get_the_clusters_of_the_model_they_made() -> None:
    texts = [line.split("\t")[1] for line in REAL.read_text("utf-8").splitlines()[::40]]
    for method in METHODS:
        model = of_queries(texts, [str(i) for i in range(len(texts))], method=method)
        unseen = [line.split("\t")[1] for line in REAL.read_text("utf-8").splitlines()[7::40]]
        assert len(set(assert_same_queries(model, texts + unseen).tolist())) > 2


def test_empty_unknown_long_and_strange_queries_get_what_the_model_says(model: ClusterModel) -> None:
    labels = assert_same_queries(model, STRANGE)
    assert labels[:3].tolist() == [-1, -1, -1]
    assert assert_same_queries(model, []).shape == (0,)
    for query in STRANGE:  # alone as among others
        assert_same_queries(model, [query])


@settings(max_examples=25)
@given(data=st.data())
def test_any_queries_get_what_the_model_says(model: ClusterModel, data: st.DataObject) -> None:
    words = st.sampled_from(model.terms.to_pylist())
    queries = data.draw(st.lists(st.one_of(st.text(), st.lists(words, max_size=6).map(" ".join)), max_size=8))
    assert_same_queries(model, queries)


def test_of_equally_near_clusters_the_first_is_taken() -> None:
    """Centres that are each other's mirror images: exact ties, which rounding errors must not break."""
    words = ["aa", "bb", "cc", "dd"]
    for method in ("kmeans", "spherical"):
        model = of_queries(words, list("uvwx"), method=method)
        model = replace(model, centers=np.eye(4), cluster_ids=np.array([7, 3, 5, 1], np.int32))
        pairs = [" ".join(some) for some in product(words, repeat=3)]
        labels, confidence = model.predict(pairs)
        assert_same_queries(model, pairs)
        assert (confidence == 0).any()
        assert labels[pairs.index("aa bb cc")] == 7


def test_a_query_that_next_to_nobody_shares_an_interest_with_is_in_no_cluster() -> None:
    words = ["aa", "bb", "cc", "dd", "ee"]
    model = of_queries(words, list("vwxyz"), method="lsa", components=5)
    strength = np.array([1.0, 1e-3, 1e-5, 1e-7, 0.0])
    model = replace(model, projection=np.eye(5) * strength, centers=np.eye(5)[:4])
    assert assert_same_queries(model, words).tolist() == [0, 1, 2, -1, -1]


def test_a_query_that_is_not_clearly_in_one_cluster_is_in_none_where_the_settings_say_so(model: ClusterModel) -> None:
    for least in (0.1, 0.5, float(np.sort(model.confidence)[len(model.confidence) // 2]), 1.0):
        strict = replace(model, settings=model.settings.model_copy(update={"min_confidence": least}))
        labels = assert_same_queries(strict, model.queries.to_pylist())
        assert (labels == -1).any()


def test_ids_that_were_carried_over_and_names_are_in_the_graph(model: ClusterModel) -> None:
    renamed = replace(model, cluster_ids=np.array([9, 0, 2**31 - 1, 1], np.int32))
    assert_same_queries(renamed, model.queries.to_pylist()[:50])
    graph = OnnxQueryModel(query_model_to_onnx(renamed, NAMES))
    assert graph.names == {9: None, 0: "tech", 2**31 - 1: None, 1: "mode & «chic» 👗"}
    assert (graph.version, graph.method) == (model.version, model.method)
    assert [(each.name, each.datatype, each.shape) for each in graph.inputs] == [
        ("term", "INT64", (-1, -1)),
        ("weight", "FP64", (-1, -1)),
    ]
    assert {(each.name, each.datatype) for each in graph.outputs} == {("cluster", "INT64"), ("confidence", "FP32")}


def test_the_same_model_is_written_as_the_same_bytes(model: ClusterModel) -> None:
    assert query_model_to_onnx(model, NAMES) == query_model_to_onnx(model, NAMES)


def test_terms_that_are_none_count_as_not_there(model: ClusterModel) -> None:
    graph = OnnxQueryModel(query_model_to_onnx(model, {}))
    term, weight = encode_queries(model, model.queries.to_pylist()[:5])
    expected = graph.infer({"term": term, "weight": weight})
    no_places = np.array([PADDING, len(model.terms), 2**62, -(2**63), 0, 0, 0, 0])
    no_weights = np.array([1, 1, 1, 1, np.nan, np.inf, 0, -3])
    more = {
        "term": np.hstack([np.tile(no_places, (5, 1)), term]),
        "weight": np.hstack([np.tile(no_weights, (5, 1)), weight]),
    }
    found = graph.infer(more)
    assert found["cluster"].tolist() == expected["cluster"].tolist()
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-6)
    nothing = graph.infer({"term": np.empty((2, 0), np.int64), "weight": np.empty((2, 0))})
    assert nothing["cluster"].tolist() == [-1, -1]
    assert nothing["confidence"].tolist() == [0, 0]


def test_many_rows_are_done_some_at_a_time(model: ClusterModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_models, "CELLS", 100)
    assert_same_queries(model, [*model.queries.to_pylist(), *STRANGE])


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"term": [[1]]},
        {"term": [[1]], "weight": [[1.0]], "more": [[1]]},
        {"term": [[1.0]], "weight": [[1.0]]},
        {"term": [["1"]], "weight": [[1.0]]},
        {"term": [1], "weight": [1.0]},
        {"term": [[1, 2]], "weight": [[1.0]]},
        {"term": [[1], [2]], "weight": [[1.0]]},
        {"term": 1, "weight": 1.0},
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_would(model: ClusterModel, inputs: dict[str, Any]) -> None:
    graph = OnnxQueryModel(query_model_to_onnx(model, {}))
    with pytest.raises(OnnxInputError) as refused:
        graph.infer({name: np.array(values) for name, values in inputs.items()})
    assert "term: INT64 [rows, terms]; weight: FP64 [rows, terms]" in str(refused.value)


# --- users

FEATURES = (
    *("click_through", "conversion", "views", "average_spend", "sessions_per_week"),
    *("device", "gender", "signup_days"),
)


def synthetic_users(n: int, seed: int, coarse: bool = False) -> UserFeatures:
    """Users of three kinds, with missing values, skewed amounts and rare categories; coarse ones are often alike."""
    chance = np.random.default_rng(seed)
    kind = chance.integers(3, size=n)

    def some(values: np.ndarray, share: float) -> pa.Array:
        return pa.array(np.round(values) if coarse else values, pa.float64(), mask=chance.random(n) < share)

    users = pa.array([f"u{i:05}" for i in range(n)])
    devices = np.array(["phone", "desktop", "tablet", "télé"])[np.minimum(chance.integers(8, size=n), 3)]
    table = {
        "user_id": users,
        "click_through": some(kind / 3 + chance.normal(0, 0.1, n), 0.05),
        "conversion": some(chance.random(n), 0),
        "views": some(np.round(chance.lognormal(kind, 1)), 0),
        "average_spend": some(chance.lognormal(3 + kind, 1), 0.4),
        "sessions_per_week": some(chance.exponential(1 + kind), 0),
    }
    traits = {
        "user_id": users,
        "device": pa.array(devices.tolist(), pa.string(), mask=chance.random(n) < 0.1),
        "gender": pa.array(np.array(["a", "b"])[kind % 2].tolist(), pa.string()),
        "signup_days": some(chance.uniform(-3, 900, n), 0.2),
    }
    return UserFeatures(
        table=pa.table(table),
        traits=pa.table(traits),
        groups={},
        absent={},
        outliers=pa.table({}),
        noise=pa.table({"user_id": users, "noise": pa.array([[]] * n, pa.list_(pa.string()))}),
        start=END,
        end=END,
    )


def of_users(users: UserFeatures, **chosen: Any) -> BehaviourModel:
    given = {"k": 4, "features": FEATURES, "bootstraps": 0, "min_samples": 5, "min_cluster_size": 8, **chosen}
    return fit_behaviour(users, BehaviourSettings.model_validate(given))


def assert_same_users(model: BehaviourModel, features: UserFeatures) -> np.ndarray:
    labels, confidence = predict(model, features)
    found, sure = OnnxBehaviourModel(behaviour_model_to_onnx(model)).run(features)
    assert found.tolist() == labels.tolist()
    assert (found.dtype, sure.dtype) == (np.int32, np.float32)
    np.testing.assert_allclose(sure, confidence, atol=1e-6, rtol=0)
    return labels


@pytest.mark.parametrize("scaling", ["standard", "robust", "minmax"])
@pytest.mark.parametrize("method", get_args(BehaviourMethod))
@pytest.mark.parametrize("coarse", [False, True], ids=["different", "often alike"])
def test_users_get_their_behaviour_clusters(method: str, scaling: str, coarse: bool) -> None:
    features = synthetic_users(300, 1, coarse)
    update = {"method": method, "scaling": scaling, "winsorise": scaling != "robust", "max_categories": 2}
    model = of_users(features, **update)
    assert assert_same_users(model, features).tolist() == model.labels.tolist()
    assert model.preprocessing.categorical[0].rare
    others = assert_same_users(model, synthetic_users(700, 2, coarse))
    assert len(set(others.tolist())) > 1


def test_users_of_a_generated_shop_get_their_behaviour_clusters() -> None:
    builder = SessionBuilder(END)
    for document in generate_sessions(2_000, 3, END, behaviour=True).documents:
        builder.add(document["session_id"], document)
    chosen = AllSettings()
    features = measure(clean(builder.finish().table, chosen.cleaning), None, None, chosen.features)
    for method in get_args(BehaviourMethod):
        model = fit_behaviour(features, chosen.behaviour.model_copy(update={"method": method, "bootstraps": 0}))
        assert assert_same_users(model, features).tolist() == model.labels.tolist()


@pytest.fixture(scope="module", params=get_args(BehaviourMethod))
def behaviour(request: pytest.FixtureRequest) -> tuple[BehaviourModel, OnnxBehaviourModel]:
    """A model that neither bounds outliers nor knows every category, and its graph."""
    model = of_users(synthetic_users(200, 4), method=request.param, winsorise=False, max_categories=2)
    return model, OnnxBehaviourModel(behaviour_model_to_onnx(model))


NUMBERS = st.one_of(
    st.none(), st.floats(), st.floats(0, 100), st.sampled_from([0.0, -0.0, 1e-300, 1e12, -1e12, 1e300, 5e-324, 1e-17])
)
TEXTS = st.one_of(st.none(), st.sampled_from(["phone", "télé", "a", "Unknown", "car\0"]), st.text(min_size=1))
USERS = st.lists(
    st.fixed_dictionaries({name: TEXTS if name in ("device", "gender") else NUMBERS for name in FEATURES}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(rows=USERS)
def test_any_values_get_what_the_model_says(
    behaviour: tuple[BehaviourModel, OnnxBehaviourModel], rows: list[dict[str, Any]]
) -> None:
    model, graph = behaviour
    users = pa.array([str(i) for i in range(len(rows))])
    kinds = {name: pa.string() if name in ("device", "gender") else pa.float64() for name in FEATURES}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    traits = ("device", "gender", "signup_days")
    features = replace(
        synthetic_users(1, 1),
        table=pa.table({"user_id": users} | {name: columns[name] for name in FEATURES if name not in traits}),
        traits=pa.table({"user_id": users} | {name: columns[name] for name in traits}),
    )
    labels, confidence = predict(model, features)
    found, sure = graph.run(features)
    assert found.tolist() == labels.tolist()
    np.testing.assert_allclose(sure, confidence, atol=1e-6, rtol=0)


def test_columns_that_are_not_there_are_missing_values(
    behaviour: tuple[BehaviourModel, OnnxBehaviourModel],
) -> None:
    model, graph = behaviour
    features = synthetic_users(20, 9)
    poor = replace(
        features, table=features.table.select(["user_id", "views"]), traits=features.traits.select(["user_id"])
    )
    assert graph.run(poor)[0].tolist() == predict(model, poor)[0].tolist()


def test_an_empty_text_is_a_trait_that_is_not_known(behaviour: tuple[BehaviourModel, OnnxBehaviourModel]) -> None:
    _, graph = behaviour
    features = synthetic_users(50, 6)
    inputs = graph.encode(features.table, features.traits)
    said = graph.infer(inputs | {"traits": np.full((50, 2), "Unknown")})
    empty = graph.infer(inputs | {"traits": np.full((50, 2), "")})
    assert empty["cluster"].tolist() == said["cluster"].tolist()
    assert empty["confidence"].tolist() == said["confidence"].tolist()


def test_the_graph_names_its_inputs_in_their_order(behaviour: tuple[BehaviourModel, OnnxBehaviourModel]) -> None:
    model, graph = behaviour
    assert graph.features == [name for name in FEATURES if name not in ("device", "gender")]
    assert graph.traits == ["device", "gender"]
    assert graph.inputs == (
        Tensor("features", "FP64", (-1, 6), ("rows", "6")),
        Tensor("traits", "BYTES", (-1, 2), ("rows", "2")),
    )
    assert (graph.version, graph.method) == (model.version, model.method)
    assert list(graph.names) == model.cluster_ids.tolist()
    whole = np.arange(12).reshape(2, 6)
    assert len(graph.infer({"features": whole, "traits": np.array([["a", "b"]] * 2)})["cluster"]) == 2
    for features, traits in ((whole[:, :5], [["a", "b"]] * 2), (whole, [["a", "b"]]), (whole, [[1, 2]] * 2)):
        with pytest.raises(OnnxInputError):
            graph.infer({"features": features, "traits": np.array(traits)})
    with pytest.raises(OnnxInputError, match="no text"):
        graph.infer({"features": whole, "traits": np.array([["a", None]] * 2, np.object_)})


def test_where_there_is_no_cluster_everybody_is_in_none() -> None:
    features = synthetic_users(30, 3)
    model = of_users(features, method="dbscan", eps=1e-6)
    assert len(model.points) == 0
    assert set(assert_same_users(model, features).tolist()) == {NOISE}


def test_in_the_only_cluster_nothing_speaks_for_another() -> None:
    features = synthetic_users(60, 3)
    model = of_users(features, method="dbscan", eps=50.0)
    assert set(assert_same_users(model, features).tolist()) == {0}
    assert set(predict(model, features)[1].tolist()) == {1.0}


def test_a_model_of_traits_alone_and_one_of_a_single_feature_are_written() -> None:
    features = synthetic_users(80, 3)
    for chosen in (("device", "gender"), ("gender",), ("views",)):
        model = of_users(features, k=2, features=chosen)
        assert len(set(assert_same_users(model, features).tolist())) == 2


def test_a_category_that_is_named_like_anything_in_the_graph_is_only_a_name() -> None:
    features = synthetic_users(60, 3)
    names = ["_1", "cluster", "traits", ""]
    step = CategoricalStep("device", "_2", names, rare=True)
    model = of_users(features, k=4, features=("device", "gender"))
    model = replace(
        model,
        preprocessing=Preprocessing([], [step], {}),
        points=np.eye(5),
        point_clusters=np.arange(5, dtype=np.int32),
        cluster_ids=np.arange(5, dtype=np.int32),
        reach=np.full(5, np.inf),
    )
    devices = pa.array([*names, None, "_2", "other"])
    users = pa.array([str(i) for i in range(7)])
    some = replace(
        features,
        table=pa.table({"user_id": users}),
        traits=pa.table({"user_id": users, "device": devices}),
    )
    assert assert_same_users(model, some).tolist() == [0, 1, 2, 3, 4, 4, 4]


def test_a_point_reaches_no_further_than_it_did_and_ids_are_kept() -> None:
    """Two clusters of two points each, of different reach: near, too far, and exactly in the middle."""
    features = synthetic_users(60, 3)
    model = of_users(features, k=2, features=("conversion",))
    step = replace(model.preprocessing.numeric[0], fill=0.0, low=None, high=None, log=False, center=0.0, scale=1.0)
    model = replace(
        model,
        preprocessing=Preprocessing([step], [], {}),
        points=np.array([[0.0], [10.0], [1.0], [11.0]]),
        point_clusters=np.array([8, 5, 8, 5], np.int32),
        cluster_ids=np.array([8, 5], np.int32),
        reach=np.array([0.5 + 6e-13, 0.25, 4.5, 4.5]),
    )
    values = [0.0, -0.5 - 6e-13, -0.6, 1.4, 5.4, 5.5, 5.5 + 1e-13, 5.6, 9.8, 9.7, 15.5, 15.6]
    users = pa.array([str(i) for i in range(len(values))])
    some = replace(
        features,
        table=pa.table({"user_id": users, "conversion": pa.array(values)}),
        traits=pa.table({"user_id": users}),
    )
    assert assert_same_users(model, some).tolist() == [8, 8, -1, 8, 8, 8, 8, -1, 5, -1, 5, -1]


def of_one_number(points: list[float], reach: list[float], **step: Any) -> BehaviourModel:
    """A model of one feature with a point for each cluster."""
    model = of_users(synthetic_users(60, 3), k=2, features=("conversion",))
    plain = {"fill": 0.0, "low": None, "high": None, "log": False, "center": 0.0, "scale": 1.0}
    clusters = np.arange(len(points), dtype=np.int32)
    return replace(
        model,
        preprocessing=Preprocessing([replace(model.preprocessing.numeric[0], **{**plain, **step})], [], {}),
        points=np.array(points)[:, None],
        point_clusters=clusters,
        cluster_ids=clusters,
        reach=np.array(reach),
    )


def with_number(values: list[float]) -> UserFeatures:
    users = pa.array([str(i) for i in range(len(values))])
    table = pa.table({"user_id": users, "conversion": pa.array(values)})
    return replace(synthetic_users(1, 1), table=table, traits=pa.table({"user_id": users}))


def test_clusters_of_one_point_each_reach_no_further_than_it() -> None:
    model = of_one_number([0.0, 10.0], [2.0, np.inf])
    assert assert_same_users(model, with_number([2.0, 2.5, 4.9, 5.0, 5.1, 1e9])).tolist() == [0, -1, -1, 1, 1, 1]


def test_the_logarithm_of_small_amounts_keeps_its_digits() -> None:
    model = of_one_number([0.0, 1.0, 5.0], [np.inf] * 3, log=True, scale=1e-12)
    assert_same_users(model, with_number([1e-13, 2.3e-13, 4e-13, 7e-13, 1e-12, 2.2e-12, 4.4e-12, 1e-11]))


# --- files


def stored(folder: Path, model: ClusterModel, features: UserFeatures | None) -> ArtifactStore:
    store = ArtifactStore(folder)
    store.save("kmeans_model", "run1", model)
    if features is not None:
        store.save("user_features", "run1", features)
        store.save("behaviour_clusters", "run1", of_users(features))
    return store


def test_models_from_disk_are_written_and_compared(model: ClusterModel, tmp_path: Path) -> None:
    features = synthetic_users(80, 8)
    store = stored(tmp_path / "store", model, features)
    query, behaviour = store.load("kmeans_model", ClusterModel), store.load("behaviour_clusters", BehaviourModel)
    written = write_models(tmp_path / "out", query, NAMES, behaviour, {0: "Regulars"}, features)
    assert [(each.kind, each.different) for each in written] == [("query", 0), ("behaviour", 0)]
    assert [each.compared for each in written] == [min(len(model.queries), 1_000), 80]
    assert [each.bytes for each in written] == [each.file.stat().st_size for each in written]
    graph = OnnxQueryModel((tmp_path / "out" / "query.onnx").read_bytes())
    assert graph.run(model.queries.to_pylist())[0].tolist() == model.labels.tolist()
    vocabulary = json.loads((tmp_path / "out" / "query_terms.json").read_text())
    assert vocabulary["terms"] == model.terms.to_pylist()
    assert vocabulary["idf"] == model.idf.tolist()
    users = OnnxBehaviourModel((tmp_path / "out" / "behaviour.onnx").read_bytes())
    assert users.run(features)[0].tolist() == behaviour.labels.tolist()
    assert users.names[0] == "Regulars"
    order = json.loads((tmp_path / "out" / "behaviour_features.json").read_text())
    assert order == {"features": users.features, "traits": users.traits, "unknown": ["Unknown", "Unknown"]}

    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    with pytest.raises(OnnxFilesExistError, match=r"query\.onnx"):
        write_models(tmp_path / "out", query, NAMES)
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    write_models(tmp_path / "out", query, NAMES, force=True)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["query.onnx", "query_terms.json"]


def test_a_graph_that_says_something_else_than_its_model_is_counted(
    model: ClusterModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = query_model_to_onnx(replace(model, cluster_ids=np.array([1, 0, 2, 3], np.int32)), {})
    monkeypatch.setattr(onnx_models, "query_model_to_onnx", lambda *_: other)
    (written,) = write_models(tmp_path, model, {})
    assert written.compared == min(len(model.labels), 1_000)
    swapped = int(np.isin(model.labels, [0, 1]).sum())
    assert swapped - (len(model.labels) - written.compared) <= written.different <= swapped


def test_the_command_writes_the_stored_models(
    model: ClusterModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segmentation_assets.cli.export_model import export_onnx
    from segmentation_assets.paths import DataDir

    for name in ("DAGSTER_HOME", "SEGMENTS_HOME"):
        monkeypatch.setenv(name, "")  # remembered, and put back
    monkeypatch.setattr("segmentation_assets.cli.terminal._as_json", False)
    app = Typer()
    app.command()(export_onnx)
    stored(DataDir(tmp_path / "data").storage, model, synthetic_users(80, 8))
    arguments = ["--to", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert [(each["kind"], each["different"], each["clusters"]) for each in said["models"]] == [
        ("query", 0, 4),
        ("behaviour", 0, 4),
    ]
    assert said["models"][0]["model_version"] == model.version
    assert isinstance(CliRunner().invoke(app, arguments).exception, OnnxFilesExistError)
    again = CliRunner().invoke(app, [*arguments, "--force"])
    assert again.exit_code == 0
    assert "behaviour.onnx" in again.stdout


# --- what cannot be read or written


def test_what_is_no_graph_of_this_kind_is_refused(model: ClusterModel) -> None:
    content = query_model_to_onnx(model, {})
    for bad in (b"", b"nothing of that kind", content[: len(content) // 2]):
        with pytest.raises(OnnxUnreadableError, match="cannot be loaded"):
            OnnxQueryModel(bad)
    with pytest.raises(OnnxUnreadableError, match="of format 1 and kind query, not 1 and behaviour"):
        OnnxBehaviourModel(content)


def test_a_model_that_no_file_can_hold_is_refused(model: ClusterModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_models, "LARGEST_GRAPH", 1_000)
    with pytest.raises(OnnxTooLargeError, match="2 GB at most"):
        query_model_to_onnx(model, {})


def test_without_the_extra_the_error_says_what_to_install(model: ClusterModel, monkeypatch: pytest.MonkeyPatch) -> None:
    content = query_model_to_onnx(model, {})
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OnnxMissingError, match=r"segmentation-assets\[serve\]"):
        query_model_to_onnx(model, {})
    with pytest.raises(OnnxMissingError, match="onnxruntime"):
        OnnxQueryModel(content)
