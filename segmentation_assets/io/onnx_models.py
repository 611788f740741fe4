"""The models as ONNX graphs, for model servers and other languages, and running them with ONNX Runtime.

What belongs here: writing the assignment of a stored model as a graph of standard operators, and the thin classes that
load such a graph and run it; the files of an export. What does not: fitting, which stored model is meant (models),
serving over HTTP.

A graph does in float64 what ``core.clustering.nearest`` and ``core.users.clustering.assign`` do, step by step and with
the same rounding, so that it gives the same clusters, ties included. How a query becomes terms is no matter of numbers
and in no graph: ``encode_queries`` does it, with the vocabulary that every graph of a query model carries with it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets import __version__
from segmentation_assets.core.clustering import METHODS
from segmentation_assets.core.clustering.base import DECIMALS as QUERY_DECIMALS
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.core.space import NEGLIGIBLE
from segmentation_assets.core.users.behaviour import BehaviourModel, predict
from segmentation_assets.core.users.clustering.base import DECIMALS as USER_DECIMALS
from segmentation_assets.core.users.clustering.base import NOISE
from segmentation_assets.core.users.features import UserFeatures, of_users
from segmentation_assets.core.users.preprocessing import LARGEST, CategoricalStep, NumericStep
from segmentation_assets.core.vectorize import Vectorizer
from segmentation_assets.errors import SegmentsError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, ValueInfoProto

FORMAT = "1"
"""Of inputs, outputs and metadata of a graph; another number for any change that a reader would notice."""

OPSET = 19
"""The first that compares texts. ONNX Runtime has it since 1.16."""

IR_VERSION = 9
"""The first that has this opset."""

CELLS = 2_000_000
"""Numbers of 8 bytes in one intermediate result; of more rows, as many at a time as have no more."""

LARGEST_GRAPH = 2_000_000_000
"""Bytes; one file of this format cannot hold more."""

THREADS = 1
"""Of one session. Whoever serves requests has others under way."""

PADDING = -1
"""Stands in ``term`` where a query has no further one."""

CURE = "Install the extra [serve]: pip install 'segmentation-assets[serve]'."

COMPARED = 1_000
"""Queries, and users, on which a graph that was just written is compared with its model, at most."""

CLOSE = 1e-6
"""How far confidences may be apart. They are shown with three digits."""

QUERY_FILE, TERMS_FILE = "query.onnx", "query_terms.json"
BEHAVIOUR_FILE, FEATURES_FILE = "behaviour.onnx", "behaviour_features.json"

_DATATYPES = {"tensor(int64)": "INT64", "tensor(double)": "FP64", "tensor(float)": "FP32", "tensor(string)": "BYTES"}
_KINDS = {"INT64": "iu", "FP64": "fiu", "BYTES": "OU"}
_ARRAYS: dict[str, type[Any]] = {"INT64": np.int64, "FP64": np.float64, "BYTES": object}


class OnnxMissingError(SegmentsError):
    """The packages that write or run ONNX graphs are not installed."""


class OnnxUnreadableError(SegmentsError):
    """A graph cannot be loaded, or is not one of ours."""


class OnnxTooLargeError(SegmentsError):
    """A model does not fit into one file."""


class OnnxFilesExistError(SegmentsError):
    """Files would be replaced that nobody said may be."""


class OnnxInputError(SegmentsError):
    """Inputs that do not fit the graph. Safe to show to whoever sent them."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        name: of it.
        datatype: 'INT64', 'FP64', 'FP32' or 'BYTES', as the Open Inference Protocol calls them.
        shape: -1 where it may be any number.
        axes: for each dimension its name, or its size as text.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """What turns queries into the terms of a model: the fields of ``ClusterModel`` of the same names."""

    terms: pa.Array
    idf: NDArray[np.float64]
    vector_settings: VectorSettings
    spellings: dict[str, str]

    @cached_property
    def vectorizer(self) -> Vectorizer:
        """It, ready for queries."""
        return Vectorizer(self.terms, self.idf, self.vector_settings, self.spellings)

    @classmethod
    def of_model(cls, model: ClusterModel) -> "Vocabulary":
        """That of a model."""
        return cls(model.terms, model.idf, model.vector_settings, model.spellings)

    def to_json(self) -> str:
        """As JSON; numbers come back as exactly the same."""
        return json.dumps(
            {
                "terms": self.terms.to_pylist(),
                "idf": self.idf.tolist(),
                "settings": self.vector_settings.model_dump(mode="json"),
                "spellings": self.spellings,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """What ``to_json`` gave."""
        found = json.loads(text)
        return cls(
            pa.array(found["terms"], pa.string()),
            np.array(found["idf"], np.float64),
            VectorSettings.model_validate(found["settings"]),
            found["spellings"],
        )


# --- writing ----------------------------------------------------------------------------------------------------------


def query_model_to_onnx(model: ClusterModel, names: Mapping[int, str]) -> bytes:
    """Write a query model as a graph.

    Inputs, both (rows, terms): ``term`` int64, the places of a query's terms in the vocabulary, each once, ``PADDING``
    (or any other number that is no place) where it has no further ones; ``weight`` float64, their TF-IDF weights, where
    anything but a positive finite number counts as no term. A row's weights have length 1, as ``encode_queries`` makes
    them.

    Outputs, both (rows,): ``cluster`` int64, -1 for none; ``confidence`` float32. They are what ``ClusterModel.assign``
    says of the same rows.

    Metadata: ``format``, ``kind`` ('query'), ``model_version``, ``method``, ``clusters`` (JSON, id to name; one without
    a name has null), ``vocabulary`` (JSON, see ``Vocabulary``), ``cells`` (numbers in the largest intermediate result
    for each row and term).

    Args:
        model: fitted.
        names: cluster id to name.

    Raises:
        OnnxMissingError: the extra is not installed.
        OnnxTooLargeError: it has more than 2 GB.
    """
    graph = _Graph()
    term = graph.input("term", np.int64, ("rows", "terms"))
    weight = graph.input("weight", np.float64, ("rows", "terms"))
    known = graph("And", graph("GreaterOrEqual", term, np.int64(0)), graph("Less", term, np.int64(len(model.terms))))
    usable = graph("And", graph("Greater", weight, 0.0), graph("Less", weight, np.inf))
    known = graph("And", known, usable)
    place = graph("Where", known, term, np.int64(0))
    present = graph("Cast", known, to=graph.double)
    weights = graph("Where", known, weight, 0.0)
    some = graph("Greater", graph.sum(present, 1, keep=True), 0.0)

    def mixed(amounts: str, table: NDArray[np.float64]) -> str:
        """Rows of (n_terms, d) by amounts of their terms: the sparse product."""
        rows = graph("Gather", np.ascontiguousarray(table), place)
        return graph.sum(graph("Mul", graph("Unsqueeze", amounts, np.array([2])), rows), 1)

    unit, similarity = some, ""
    if model.projection.shape[1] == 0:
        similarity = mixed(weights, model.centers.T)
    elif len(model.bias):
        scores = graph("Add", mixed(present, model.projection), model.bias)
        odds = graph("Exp", graph("Sub", scores, graph("ReduceMax", scores, np.array([1]))))
        beliefs = graph("Sqrt", graph("Div", odds, graph.sum(odds, 1, keep=True)))
        similarity = graph("MatMul", graph("Where", some, beliefs, 0.0), np.ascontiguousarray(model.centers.T))
    else:
        inside = mixed(weights, model.projection)
        length = graph("Sqrt", graph.sum(graph("Mul", inside, inside), 1, keep=True))
        strongest = float(np.linalg.norm(model.projection, axis=0).max())
        unit = graph("Greater", length, NEGLIGIBLE * strongest)
        direction = graph("Div", inside, graph("Where", unit, length, 1.0))
        similarity = graph("MatMul", graph("Where", unit, direction, 0.0), np.ascontiguousarray(model.centers.T))

    if METHODS[model.method].metric == "cosine":
        score = graph.rounded(graph("Max", similarity, 0.0), QUERY_DECIMALS)
        first, second, chosen = graph.first_two(score, largest=True)
        near = graph("Greater", first, 0.0)
        ahead = graph("Sub", 1.0, graph("Div", second, graph("Where", near, first, 1.0)))
        inside_one = graph("And", graph("Squeeze", unit, np.array([1])), near)
    else:
        doubled = graph("Sub", graph("Cast", unit, to=graph.double), graph("Mul", 2.0, similarity))
        squared = graph("Max", graph("Add", doubled, (model.centers**2).sum(axis=1)), 0.0)
        distance = graph("Sqrt", graph.rounded(squared, QUERY_DECIMALS))
        first, second, chosen = graph.first_two(distance, largest=False)
        ahead = graph.ahead(first, second)
        inside_one = graph("Squeeze", unit, np.array([1]))
    share = graph("Clip", graph("Where", inside_one, ahead, 0.0), 0.0, 1.0)
    confidence = graph.output("confidence", np.float32, graph("Cast", share, to=graph.float))
    sure = graph("GreaterOrEqual", confidence, np.float32(model.settings.min_confidence))
    ids = graph("Gather", model.cluster_ids.astype(np.int64), chosen)
    graph.output("cluster", np.int64, graph("Where", graph("And", inside_one, sure), ids, np.int64(-1)))
    width = model.projection.shape[1] or model.k
    return graph.written(
        "query",
        {
            "model_version": model.version,
            "method": model.method,
            "clusters": _named(model.cluster_ids, names),
            "vocabulary": Vocabulary.of_model(model).to_json(),
            "cells": str(width),
        },
    )


def behaviour_model_to_onnx(model: BehaviourModel, names: Mapping[int, str] | None = None) -> bytes:
    """Write a behaviour model as a graph, with everything from raw features on.

    Inputs, as far as the model has such features: ``features`` (rows, n_features) float64, in the order that the
    metadata say, NaN where a feature is not defined for a user; ``traits`` (rows, n_traits) text, the empty text where
    one is not known.

    Outputs, both (rows,): ``cluster`` int64, -1 for none (noise); ``confidence`` float32. They are what
    ``core.users.behaviour.predict`` says of the same users. Of points of one cluster that are equally near a user, to
    the last bit, one that reaches the user counts before one that does not.

    Metadata: ``format``, ``kind`` ('behaviour'), ``model_version``, ``method``, ``clusters`` (JSON, id to name; one
    without a name has null), ``features`` and ``traits`` (JSON, lists of names), ``unknown`` (JSON, for each trait what
    stands for one that is not known), ``cells`` (numbers in the largest intermediate result for each row).

    Args:
        model: fitted.
        names: cluster id to name.

    Raises:
        OnnxMissingError: the extra is not installed.
        OnnxTooLargeError: it has more than 2 GB.
    """
    graph = _Graph()
    numeric, categorical = model.preprocessing.numeric, model.preprocessing.categorical
    columns: list[str] = []
    given = ""
    if numeric:
        given = graph.input("features", np.float64, ("rows", len(numeric)))
        columns += graph.columns(_scaled(graph, given, numeric), len(numeric))
    if categorical:
        given = graph.input("traits", np.str_, ("rows", len(categorical)))
        for trait, step in zip(graph.columns(given, len(categorical)), categorical, strict=True):
            columns += graph.columns(*_encoded(graph, trait, step))
    rows = graph("Slice", graph("Shape", given), np.array([0]), np.array([1]))  # how many, for what has none of its own

    held = [cluster for cluster in model.cluster_ids.tolist() if (model.point_clusters == cluster).any()]
    if held:
        place = np.array([held.index(cluster) for cluster in model.point_clusters.tolist()], np.int64)
        order = np.argsort(place, kind="stable")
        inside, chosen, ahead = _assigned(
            graph, columns, rows, model.points[order], place[order], model.reach[order], len(held)
        )
        ids = graph("Gather", np.array(held, np.int64), chosen)
        cluster = graph("Where", inside, ids, np.int64(NOISE))
        share = graph("Where", inside, ahead, 0.0)
    else:
        cluster = graph("Expand", np.array([NOISE], np.int64), rows)
        share = graph("Expand", np.zeros(1), rows)
    graph.output("confidence", np.float32, graph("Cast", share, to=graph.float))
    graph.output("cluster", np.int64, cluster)
    return graph.written(
        "behaviour",
        {
            "model_version": model.version,
            "method": model.method,
            "clusters": _named(model.cluster_ids, names or {}),
            "features": json.dumps([step.feature for step in numeric]),
            "traits": json.dumps([step.trait for step in categorical]),
            "unknown": json.dumps([step.fill for step in categorical]),
            "cells": str(max(len(model.points), len(columns))),
        },
    )


def _scaled(graph: "_Graph", values: str, steps: Sequence[NumericStep]) -> str:
    """(rows, n_features) filled, bounded, logged, scaled; see ``core.users.preprocessing``."""

    def each(numbers: Sequence[float | None], otherwise: float) -> NDArray[np.float64]:
        return np.array([otherwise if number is None else number for number in numbers], np.float64)

    finite = graph("LessOrEqual", graph("Abs", values), float(np.finfo(np.float64).max))  # false for NaN
    bounded = graph("Clip", values, -LARGEST, LARGEST)
    filled = graph("Where", finite, bounded, each([step.fill for step in steps], 0.0))
    filled = graph("Max", filled, each([step.low for step in steps], -np.inf))
    filled = graph("Min", filled, each([step.high for step in steps], np.inf))
    logged = np.array([step.log for step in steps])
    if logged.any():
        filled = graph("Where", logged, graph.log1p(filled), filled)
    centred = graph("Sub", filled, each([step.center for step in steps], 0.0))
    scaled = graph("Div", centred, each([step.scale for step in steps], 1.0))
    return graph("Mul", scaled, each([step.weight for step in steps], 1.0))


def _encoded(graph: "_Graph", trait: str, step: CategoricalStep) -> tuple[str, int]:
    """(rows, c) a column for each category, and c; of a (rows, 1) text."""
    if "" not in step.categories:
        unknown = graph("Equal", trait, np.array("", np.object_))
        trait = graph("Where", unknown, np.array(step.fill, np.object_), trait)
    same = graph("Equal", trait, np.array([step.categories], np.object_))
    if not step.rare:
        return graph("Mul", graph("Cast", same, to=graph.double), step.weight), len(step.categories)
    own = graph("Cast", same, to=graph.double)
    other = graph("Sub", 1.0, graph("ReduceMax", own, np.array([1])))
    return graph("Mul", graph("Concat", own, other, axis=1), step.weight), len(step.categories) + 1


def _assigned(
    graph: "_Graph",
    columns: Sequence[str],
    rows: str,
    points: NDArray[np.float64],
    place: NDArray[np.int64],
    reach: NDArray[np.float64],
    k: int,
) -> tuple[str, str, str]:
    """``core.users.clustering.assign``: whether each row is in a cluster, in which place 0..k-1, and how far ahead.

    Args:
        graph: to which it is added.
        columns: (rows, 1) each.
        rows: (1,) how many rows there are.
        points: (m, d).
        place: (m,) rising, every number of 0..k-1.
        reach: (m,).
        k: number of clusters.
    """
    exact = _distances(graph, columns, points)
    reaches = graph("LessOrEqual", graph.rounded(exact, USER_DECIMALS), reach + 10.0**-USER_DECIMALS)
    if len(points) == k:
        nearest, within = exact, reaches
    else:
        index = graph("Expand", place[None, :], graph("Shape", exact))
        table = graph("Concat", rows, np.array([k]), axis=0)
        nearest = graph.gathered(graph("Expand", np.array([[np.inf]]), table), index, exact, "min")
        own = graph("Equal", exact, graph("Gather", nearest, place, axis=1))
        taken = graph("Cast", graph("And", own, reaches), to=graph.double)
        within = graph("Greater", graph.gathered(graph("Expand", np.zeros((1, 1)), table), index, taken, "max"), 0.0)
    distance = graph.rounded(nearest, USER_DECIMALS)
    first = graph("ReduceMin", distance, np.array([1]))
    able = graph("Cast", graph("And", graph("Equal", distance, first), within), to=graph.float)
    chosen = graph("ArgMax", able, axis=1, keepdims=0)
    inside = graph("Greater", graph("ReduceMax", able, np.array([1]), keepdims=0), np.float32(0))
    if k == 1:
        return inside, chosen, graph("Expand", np.ones(1), rows)
    first, second, _ = graph.first_two(distance, largest=False)
    return inside, chosen, graph.ahead(first, second)


def _distances(graph: "_Graph", columns: Sequence[str], points: NDArray[np.float64]) -> str:
    """(rows, m) Euclidean distances, from differences: squares of large numbers would cancel each other.

    Summed in the order in which SciPy's k-d tree does (four sums side by side, then what is left over), so that they
    are the same to the last bit.
    """
    squares = []
    for column, numbers in zip(columns, np.ascontiguousarray(points.T), strict=True):
        difference = graph("Sub", column, numbers[None, :])
        squares.append(graph("Mul", difference, difference))
    whole = len(squares) // 4 * 4
    sums = [graph.total(squares[start:whole:4]) for start in range(4)] if whole else []
    return graph("Sqrt", graph.total([*sums, *squares[whole:]]))


def _named(ids: NDArray[np.int32], names: Mapping[int, str]) -> str:
    return json.dumps({str(cluster): names.get(cluster) for cluster in ids.tolist()})


_Input = str | float | NDArray[Any] | np.generic


class _Graph:
    """A graph under construction: calling it adds a node and gives the name of its output.

    Among the inputs of a node, a text is the name of an earlier result; a number or array is a constant, a number
    without a type being float64.

    Raises:
        OnnxMissingError: the extra is not installed.
    """

    def __init__(self) -> None:
        self._onnx = _library("onnx")
        self._helper = _library("onnx.helper")
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._size = self._made = 0
        self.double: int = self._onnx.TensorProto.DOUBLE
        self.float: int = self._onnx.TensorProto.FLOAT

    def __call__(self, operator: str, *inputs: _Input, **attributes: Any) -> str:
        (name,) = self.several(operator, 1, *inputs, **attributes)
        return name

    def several(self, operator: str, n: int, *inputs: _Input, **attributes: Any) -> list[str]:
        """Add a node with n outputs."""
        names = [self._new() for _ in range(n)]
        given = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self._nodes.append(self._helper.make_node(operator, given, names, name=names[0], **attributes))
        return names

    def input(self, name: str, kind: type[Any], shape: Sequence[str | int]) -> str:
        """Declare an input of the graph."""
        self._inputs.append(self._helper.make_tensor_value_info(name, self._type(kind), shape))
        return name

    def output(self, name: str, kind: type[Any], result: str) -> str:
        """Declare a (rows,) result an output of the graph."""
        self._nodes.append(self._helper.make_node("Identity", [result], [name], name=name))
        self._outputs.append(self._helper.make_tensor_value_info(name, self._type(kind), ["rows"]))
        return name

    def columns(self, table: str, n: int) -> list[str]:
        """The (rows, 1) columns of a table of n."""
        return [table] if n == 1 else self.several("Split", n, table, axis=1, num_outputs=n)

    def sum(self, values: str, axis: int, *, keep: bool = False) -> str:
        """Sum over an axis."""
        return self("ReduceSum", values, np.array([axis]), keepdims=int(keep))

    def total(self, terms: Sequence[str]) -> str:
        """Sum of results, from the first to the last."""
        result = terms[0]
        for term in terms[1:]:
            result = self("Add", result, term)
        return result

    def rounded(self, values: str, decimals: int) -> str:
        """As NumPy rounds."""
        scale = 10.0**decimals
        return self("Div", self("Round", self("Mul", values, scale)), scale)

    def log1p(self, values: str) -> str:
        """log(1 + x), no digits lost where x is small (Kahan's formula; Goldberg, ACM Computing Surveys 23, 1991)."""
        more = self("Add", values, 1.0)
        same = self("Equal", more, 1.0)
        added = self("Where", same, 1.0, self("Sub", more, 1.0))
        return self("Where", same, values, self("Mul", self("Log", more), self("Div", values, added)))

    def gathered(self, start: str, index: str, values: str, reduction: str) -> str:
        """(rows, k) the smallest or largest of the (rows, m) values that have the same index."""
        return self("ScatterElements", start, index, values, axis=1, reduction=reduction)

    def first_two(self, values: str, *, largest: bool) -> tuple[str, str, str]:
        """First and second of each row (rows, k >= 2), and the place of the first; of equal ones the lowest."""
        best, places = self.several("TopK", 2, values, np.array([2]), axis=1, largest=int(largest))
        first, second = (self("Gather", best, np.array(place), axis=1) for place in range(2))
        return first, second, self("Gather", places, np.array(0), axis=1)

    def ahead(self, first: str, second: str) -> str:
        """1 - first / second distance, 0 where both are 0."""
        apart = self("Greater", second, 0.0)
        share = self("Sub", 1.0, self("Div", first, self("Where", apart, second, 1.0)))
        return self("Where", apart, share, 0.0)

    def written(self, kind: str, metadata: Mapping[str, str]) -> bytes:
        """The finished graph, checked.

        Raises:
            OnnxTooLargeError: it has more than 2 GB.
        """
        metadata = {"format": FORMAT, "kind": kind, **metadata}
        size = self._size + sum(len(text) for text in metadata.values())
        if size > LARGEST_GRAPH:
            raise OnnxTooLargeError(
                f"The {kind} model has {size / 1e9:.1f} GB, and one ONNX file holds 2 GB at most.",
                "Lower vectors.max_terms, clusters.components or behaviour.fit_users, and run again.",
            )
        graph = self._helper.make_graph(self._nodes, kind, self._inputs, self._outputs, self._constants)
        model = self._helper.make_model(
            graph,
            opset_imports=[self._helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="segmentation-assets",
            producer_version=__version__,
        )
        self._helper.set_model_props(model, metadata)
        _library("onnx.checker").check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _constant(self, value: float | NDArray[Any] | np.generic) -> str:
        name, array = self._new(), np.asarray(value)
        self._size += array.nbytes
        self._constants.append(_library("onnx.numpy_helper").from_array(array, name))
        return name

    def _new(self) -> str:
        self._made += 1
        return f"_{self._made}"

    def _type(self, kind: type[Any]) -> int:
        found: int = self._helper.np_dtype_to_tensor_dtype(np.dtype(np.object_ if kind is np.str_ else kind))
        return found


# --- running ----------------------------------------------------------------------------------------------------------


def encode_queries(
    model: ClusterModel | Vocabulary, queries: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Queries as a graph takes them, by the very code that made the rows of the model.

    Args:
        model: whose vocabulary it is.
        queries: any strings.

    Returns:
        ``term`` and ``weight``, (n, m) each, m the most terms of any query and at least 1; ``PADDING`` and 0 where a
        query has no further ones.
    """
    return _padded(_rows(model, queries))


def _rows(model: ClusterModel | Vocabulary, queries: Sequence[str]) -> csr_matrix:
    return model.vectorizer.rows(queries)


def _padded(rows: csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    lengths = np.diff(rows.indptr)
    held = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
    term, weight = np.full(held.shape, PADDING, np.int64), np.zeros(held.shape)
    term[held], weight[held] = rows.indices, rows.data  # both go through the rows one after the other
    return term, weight


class OnnxModel:
    """A graph that was loaded, and what it says of itself. Safe to use from several threads.

    Attributes:
        version: of the model it was made of.
        method: name of its clusterer.
        names: cluster id to name; None where it has none.
        metadata: all that the graph says of itself, as text.
        inputs: what it takes.
        outputs: what it gives.

    Args:
        content: as ``query_model_to_onnx`` or ``behaviour_model_to_onnx`` wrote it.

    Raises:
        OnnxMissingError: the extra is not installed.
        OnnxUnreadableError: it is damaged, or no such graph, or of another format.
    """

    kind: ClassVar[str]

    def __init__(self, content: bytes) -> None:
        runtime = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        options.log_severity_level = 3  # errors: its warnings are about graphics cards
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # its errors have no common class but this one
            raise self._unreadable(f"cannot be loaded ({type(error).__name__})") from error
        said = self.metadata.get("format"), self.metadata.get("kind")
        if said != (FORMAT, self.kind):
            raise self._unreadable(f"is of format {said[0]} and kind {said[1]}, not {FORMAT} and {self.kind}")
        self.version = self.metadata["model_version"]
        self.method = self.metadata["method"]
        self.names: dict[int, str | None] = {int(i): n for i, n in json.loads(self.metadata["clusters"]).items()}
        self.inputs = tuple(map(_tensor, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor, self._session.get_outputs()))
        self._cells = max(int(self.metadata["cells"]), 1)

    def _unreadable(self, problem: str) -> OnnxUnreadableError:
        return OnnxUnreadableError(
            f"The ONNX file of a {self.kind} model {problem}.", "Write it again: segments models export-onnx."
        )

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph on its own inputs; whole numbers are taken for others, and arrays of text for texts.

        Args:
            inputs: by name, see ``inputs``.

        Returns:
            ``cluster`` (rows,) int64 and ``confidence`` (rows,) float32.

        Raises:
            OnnxInputError: an input is missing, of another type or of a shape that does not fit.
        """
        given = self._checked(inputs)
        rows = len(given[self.inputs[0].name])
        free = [given[each.name].shape[1] for each in self.inputs if each.shape[1] < 0]
        step = max(CELLS // (self._cells * max([*free, 1])), 1)
        parts = [
            self._session.run(
                [tensor.name for tensor in self.outputs],
                {name: array[start : start + step] for name, array in given.items()},
            )
            for start in range(0, max(rows, 1), step)
        ]
        return {tensor.name: np.concatenate([part[i] for part in parts]) for i, tensor in enumerate(self.outputs)}

    def _checked(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        expected = "; ".join(f"{each.name}: {each.datatype} [{', '.join(each.axes)}]" for each in self.inputs)
        cure = f"The model takes {expected}."
        if inputs.keys() != {tensor.name for tensor in self.inputs}:
            raise OnnxInputError("The inputs do not have the names that the model knows.", cure)
        sizes: dict[str, int] = {}
        found: dict[str, NDArray[Any]] = {}
        for tensor in self.inputs:
            array = np.asarray(inputs[tensor.name])
            if array.dtype.kind not in _KINDS[tensor.datatype]:
                raise OnnxInputError(f"The input {tensor.name} is not of type {tensor.datatype}.", cure)
            if array.dtype.kind == "O" and not all(isinstance(text, str) for text in array.flat):
                raise OnnxInputError(f"The input {tensor.name} holds what is no text.", cure)
            fits = array.ndim == len(tensor.axes) and all(
                size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size))
                for axis, size in zip(tensor.axes, array.shape, strict=True)
            )
            if not fits:
                raise OnnxInputError(f"The input {tensor.name} is of a shape that does not fit.", cure)
            found[tensor.name] = array.astype(_ARRAYS[tensor.datatype])
        return found


class OnnxQueryModel(OnnxModel):
    """A query model as a graph; see ``OnnxModel`` and ``query_model_to_onnx``.

    Attributes:
        vocabulary: of the model.
    """

    kind = "query"

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.vocabulary = Vocabulary.from_json(self.metadata["vocabulary"])

    def run(self, queries: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster id (-1 for none) and confidence of any queries, (n,) each: what ``ClusterModel.predict`` says."""
        rows = _rows(self.vocabulary, queries)
        labels, confidence = np.empty(len(queries), np.int32), np.empty(len(queries), np.float32)
        # Those about as long together: one query of a thousand words is not to make a thousand columns for all.
        _, size = np.frexp(np.diff(rows.indptr))
        for each in np.unique(size):
            some = np.flatnonzero(size == each)
            term, weight = _padded(rows[some])
            found = self.infer({"term": term, "weight": weight})
            labels[some], confidence[some] = found["cluster"], found["confidence"]
        return labels, confidence


class OnnxBehaviourModel(OnnxModel):
    """A behaviour model as a graph; see ``OnnxModel`` and ``behaviour_model_to_onnx``.

    Attributes:
        features: names of the columns of the input ``features``.
        traits: names of the columns of the input ``traits``.
        unknown: for each of these, the text that stands for a trait that is not known.
    """

    kind = "behaviour"

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.features: list[str] = json.loads(self.metadata["features"])
        self.traits: list[str] = json.loads(self.metadata["traits"])
        self.unknown: list[str] = json.loads(self.metadata["unknown"])

    def encode(self, numeric: pa.Table, traits: pa.Table) -> dict[str, NDArray[Any]]:
        """Users as the graph takes them.

        Args:
            numeric: features of n users, as ``UserFeatures.table``; a column that is not there is one of missing
                values.
            traits: the same users in the same order, as ``UserFeatures.traits``.
        """

        def column(name: str) -> pa.ChunkedArray:
            table = next((table for table in (numeric, traits) if name in table.column_names), None)
            return pa.chunked_array([pa.nulls(numeric.num_rows)]) if table is None else table[name]

        inputs: dict[str, NDArray[Any]] = {}
        if self.features:
            cells = [column(name).cast(pa.float64()).fill_null(float("nan")).to_numpy() for name in self.features]
            inputs["features"] = np.column_stack(cells)
        if self.traits:
            named = zip(self.traits, self.unknown, strict=True)
            texts = [column(name).cast(pa.string()).fill_null(unknown).to_numpy() for name, unknown in named]
            inputs["traits"] = np.column_stack([text.astype(np.object_) for text in texts])
        return inputs

    def run(self, features: UserFeatures) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster id (-1 is noise) and confidence of users, (n,) each: what ``core.users.behaviour.predict`` says."""
        found = self.infer(self.encode(features.table, of_users(features.traits, features.table["user_id"])))
        return found["cluster"].astype(np.int32), found["confidence"]


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrittenModel:
    """A graph that was written to a file.

    Attributes:
        file: it.
        kind: 'query' or 'behaviour'.
        model_version: of the model.
        method: of the model.
        clusters: how many.
        bytes: size of the file.
        compared: queries or users of the model that were assigned by the model and by the graph.
        different: of these, how many did not get the same cluster, or not the same confidence to within ``CLOSE``.
    """

    file: Path
    kind: str
    model_version: str
    method: str
    clusters: int
    bytes: int
    compared: int
    different: int


def write_models(
    folder: Path,
    model: ClusterModel,
    names: Mapping[int, str],
    behaviour: BehaviourModel | None = None,
    personas: Mapping[int, str] | None = None,
    features: UserFeatures | None = None,
    *,
    force: bool = False,
) -> list[WrittenModel]:
    """Write graphs and what their inputs mean as files, and compare what they say with what the models say.

    ``query.onnx`` and ``query_terms.json`` (the vocabulary); where there is a behaviour model, ``behaviour.onnx`` and
    ``behaviour_features.json`` (names and order of the inputs). Each file is replaced in one step.

    Args:
        folder: made when absent.
        model: of queries.
        names: of its clusters.
        behaviour: of users; None where there is none. Its files of an earlier export are then removed.
        personas: names of its clusters.
        features: of users, to compare on; None: the behaviour graph is not compared.
        force: whether files that are there may be replaced or removed.

    Raises:
        OnnxFilesExistError: there are such files, and ``force`` was not given.
        OnnxMissingError, OnnxTooLargeError: see ``query_model_to_onnx``.
    """
    there = [name for name in (QUERY_FILE, TERMS_FILE, BEHAVIOUR_FILE, FEATURES_FILE) if (folder / name).exists()]
    if there and not force:
        raise OnnxFilesExistError(
            f"{folder} already holds {', '.join(there)}.", "Use another folder, or --force to replace them."
        )
    content = query_model_to_onnx(model, names)
    graph = OnnxQueryModel(content)
    queries = model.queries.take(pa.array(_spread(len(model.queries)))).to_pylist()
    compared = _different(model.predict(queries), graph.run(queries))
    contents = {QUERY_FILE: content, TERMS_FILE: graph.vocabulary.to_json().encode()}
    written = [_account(folder / QUERY_FILE, graph, len(content), compared)]
    if behaviour is not None:
        content = behaviour_model_to_onnx(behaviour, personas)
        users = OnnxBehaviourModel(content)
        compared = (0, 0)
        if features is not None:
            some = replace(features, table=features.table.take(pa.array(_spread(features.table.num_rows))))
            compared = _different(predict(behaviour, some), users.run(some))
        order = {"features": users.features, "traits": users.traits, "unknown": users.unknown}
        contents |= {BEHAVIOUR_FILE: content, FEATURES_FILE: json.dumps(order).encode()}
        written.append(_account(folder / BEHAVIOUR_FILE, users, len(content), compared))
    folder.mkdir(parents=True, exist_ok=True)
    for name, file_content in contents.items():
        building = folder / f".{name}-{uuid4().hex}"
        building.write_bytes(file_content)
        building.replace(folder / name)
    for name in set(there) - contents.keys():
        (folder / name).unlink()
    return written


def _spread(n: int) -> NDArray[np.int64]:
    """At most ``COMPARED`` places among n, from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, COMPARED)).astype(np.int64))


_Assigned = tuple[NDArray[np.int32], NDArray[np.float32]]


def _different(ours: _Assigned, theirs: _Assigned) -> tuple[int, int]:
    other = (ours[0] != theirs[0]) | (np.abs(ours[1] - theirs[1]) > CLOSE)
    return len(other), int(other.sum())


def _account(file: Path, graph: OnnxModel, size: int, compared: tuple[int, int]) -> WrittenModel:
    return WrittenModel(file, graph.kind, graph.version, graph.method, len(graph.names), size, *compared)


def _tensor(described: Any) -> Tensor:
    axes = tuple(str(axis) for axis in described.shape)
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in described.shape)
    return Tensor(described.name, _DATATYPES[described.type], shape, axes)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise OnnxMissingError(f"ONNX graphs need the package {name.split('.')[0]}, which is not here.", CURE) from None
