"""Routes: the Open Inference Protocol (the REST half of KServe's version 2), so that a model server can take over.

What belongs here: the models as the protocol sees them, tensors in and out. What does not: how a model assigns. Two
models: ``queries`` takes texts, ``behaviour`` takes features of users in the order that its metadata gives. Tensors are
JSON; the binary extension is not offered, and the metadata says so. Source:
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr
from starlette.responses import Response
from typing_extensions import TypedDict

from segmentation_assets import __version__
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.clustering import assign
from segmentation_assets.core.users.preprocessing import transform
from segmentation_assets.core.values import encodable
from segmentation_assets.serving.answers import json_response
from segmentation_assets.serving.describing import inference_answers
from segmentation_assets.serving.problems import HALF, RefusedError
from segmentation_assets.serving.served import Loaded
from segmentation_assets.serving.service import Service

SERVER = "segmentation-assets"
ROWS = 10_000
"""Of one request."""

Name = Annotated[Literal["queries", "behaviour"], Path(description="Of the model.")]
Version = Annotated[str, Path(description="The current model's, or the one's before it.")]
Scalar = StrictStr | StrictInt | StrictFloat | None


class ServerMetadata(TypedDict):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(TypedDict):
    """A tensor; -1: any length."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any]


class ModelMetadata(TypedDict):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerLive(TypedDict):
    """That the server runs."""

    live: bool


class ServerReady(ServerLive):
    """That it can be asked. The protocol's text says ``live`` here too, and servers say ``ready``: so both."""

    ready: bool


class Ready(TypedDict):
    """Whether a model can be asked."""

    name: str
    ready: bool


class OutputTensor(TypedDict):
    """A tensor of an answer, row by row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class Inference(TypedDict, total=False):
    """An answer."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class InputTensor(BaseModel):
    """A tensor of a request: flat, or a list of rows."""

    name: str
    shape: Annotated[list[Annotated[StrictInt, Field(ge=0, le=10_000_000)]], Field(min_length=1, max_length=2)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Scalar | list[Scalar]]


class WantedOutput(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(BaseModel):
    """A request."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=2)]
    outputs: Annotated[list[WantedOutput], Field(max_length=10)] | None = None


def routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v2", tags=["inference"])

    @router.get("", response_model=None, responses=inference_answers(ServerMetadata), operation_id="server_metadata")
    async def server() -> Response:
        """The server."""
        return json_response({"name": SERVER, "version": __version__, "extensions": []})

    @router.get(
        "/health/live", response_model=None, responses=inference_answers(ServerLive), operation_id="server_live"
    )
    async def live() -> Response:
        """Whether the server runs."""
        return json_response({"live": True})

    @router.get(
        "/health/ready", response_model=None, responses=inference_answers(ServerReady), operation_id="server_ready"
    )
    async def ready() -> Response:
        """Whether a model is there."""
        service.models.required()
        return json_response({"live": True, "ready": True})

    async def chosen(name: str, version: str | None) -> Loaded:
        loaded = service.models.required() if version is None else await service.models.of(version)
        if loaded is None:
            raise RefusedError(404, "There is no such version.")
        if name == "behaviour" and loaded.model.behaviour is None:
            raise RefusedError(404, "This model has no behaviour clusters.")
        return loaded

    async def metadata(name: str, version: str | None) -> Response:
        loaded = await chosen(name, version)
        return json_response(_metadata(name, loaded, [known for known, _ in service.models.published]))

    async def infer(name: str, version: str | None, body: InferenceRequest) -> Response:
        loaded = await chosen(name, version)
        if body.id is not None and not encodable(body.id):
            raise RefusedError(400, "The id is no text.", errors=[("/id", HALF)])
        outputs = await service.computing(_queries if name == "queries" else _behaviour, loaded, body.inputs)
        if body.outputs is not None:
            by_name = {output["name"]: output for output in outputs}
            unknown = [wanted.name for wanted in body.outputs if wanted.name not in by_name]
            if unknown:
                raise RefusedError(400, f"The outputs are {', '.join(by_name)}.")
            outputs = [by_name[wanted.name] for wanted in body.outputs]
        answer: Inference = {"model_name": name, "model_version": loaded.model.version, "outputs": outputs}
        if body.id is not None:
            answer["id"] = body.id
        return json_response(answer)

    @router.get(
        "/models/{name}", response_model=None, responses=inference_answers(ModelMetadata), operation_id="model_metadata"
    )
    async def current_metadata(name: Name) -> Response:
        """Inputs and outputs of the current model."""
        return await metadata(name, None)

    @router.get(
        "/models/{name}/versions/{version}",
        response_model=None,
        responses=inference_answers(ModelMetadata),
        operation_id="version_metadata",
    )
    async def version_metadata(name: Name, version: Version) -> Response:
        """The same of a version."""
        return await metadata(name, version)

    @router.get(
        "/models/{name}/ready", response_model=None, responses=inference_answers(Ready), operation_id="model_ready"
    )
    async def model_ready(name: Name) -> Response:
        """Whether the current model can be asked."""
        await chosen(name, None)
        return json_response({"name": name, "ready": True})

    @router.get(
        "/models/{name}/versions/{version}/ready",
        response_model=None,
        responses=inference_answers(Ready),
        operation_id="version_ready",
    )
    async def version_ready(name: Name, version: Version) -> Response:
        """The same of a version."""
        await chosen(name, version)
        return json_response({"name": name, "ready": True})

    @router.post(
        "/models/{name}/infer", response_model=None, responses=inference_answers(Inference), operation_id="infer"
    )
    async def current_infer(name: Name, body: InferenceRequest) -> Response:
        """Ask the current model."""
        return await infer(name, None, body)

    @router.post(
        "/models/{name}/versions/{version}/infer",
        response_model=None,
        responses=inference_answers(Inference),
        operation_id="version_infer",
    )
    async def version_infer(name: Name, version: Version, body: InferenceRequest) -> Response:
        """Ask a version."""
        return await infer(name, version, body)

    return router


def _metadata(name: str, loaded: Loaded, versions: list[str]) -> ModelMetadata:
    behaviour = loaded.model.behaviour
    if name == "queries" or behaviour is None:
        inputs = [_described("query", "BYTES", [-1])]
        outputs = [
            _described("segment", "BYTES", [-1]),
            _described("cluster", "INT32", [-1], segments={str(k): v for k, v in loaded.model.segments.items()}),
            _described("confidence", "FP32", [-1]),
        ]
    else:
        numeric, traits = _columns(behaviour)
        inputs = [_described("features", "FP64", [-1, len(numeric)], names=numeric)] if numeric else []
        if traits:
            inputs.append(_described("traits", "BYTES", [-1, len(traits)], names=traits))
        outputs = [
            _described("cluster", "INT32", [-1]),
            _described("confidence", "FP32", [-1]),
            _described("persona", "BYTES", [-1]),
        ]
    return {
        "name": name,
        "versions": versions or [loaded.model.version],
        "platform": SERVER,
        "inputs": inputs,
        "outputs": outputs,
    }


def _described(name: str, datatype: str, shape: list[int], **parameters: Any) -> TensorMetadata:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def _columns(model: BehaviourModel) -> tuple[list[str], list[str]]:
    """Names of the features and of the traits that it takes, in its order."""
    preprocessing = model.preprocessing
    return [step.feature for step in preprocessing.numeric], [step.trait for step in preprocessing.categorical]


def _queries(loaded: Loaded, inputs: Sequence[InputTensor]) -> list[OutputTensor]:
    tensors = _by_name(inputs, {"query": ("BYTES", None)})
    texts = ["" if text is None else str(text) for text in tensors["query"]]
    found = loaded.clusters(texts)
    return [
        _output("segment", "BYTES", [segment for _, segment, _, _ in found]),
        _output("cluster", "INT32", [cluster for _, _, cluster, _ in found]),
        _output("confidence", "FP32", [sure for _, _, _, sure in found]),
    ]


def _behaviour(loaded: Loaded, inputs: Sequence[InputTensor]) -> list[OutputTensor]:
    model = loaded.model.behaviour
    assert model is not None  # whoever calls has seen to it
    numeric, traits = _columns(model)
    expected: dict[str, tuple[str, int | None]] = {"features": ("FP64", len(numeric))} if numeric else {}
    if traits:
        expected["traits"] = ("BYTES", len(traits))
    tensors = _by_name(inputs, expected, optional=frozenset({"traits"} if numeric else ()))
    n = len(tensors["features"]) // len(numeric) if numeric else len(tensors["traits"]) // len(traits)
    try:
        cells = [np.nan if value is None else float(value) for value in tensors.get("features", [])]
    except OverflowError:  # JSON's whole numbers have no end
        raise RefusedError(400, "The input features holds something else than FP64.") from None
    values = np.array(cells, np.float64).reshape(n, len(numeric))
    texts = tensors.get("traits") or [None] * (n * len(traits))
    if len(texts) != n * len(traits):
        raise RefusedError(400, "Features and traits are of different numbers of users.")
    places = pa.array(range(n))
    features = pa.table(
        {"row": places} | {name: pa.array(values[:, at], from_pandas=True) for at, name in enumerate(numeric)}
    )
    words = pa.table(
        {"row": places} | {name: pa.array(texts[at :: len(traits)], pa.string()) for at, name in enumerate(traits)}
    )
    rows = transform(model.preprocessing, features, words)
    # By place, not by id, as core.users.behaviour.predict does.
    order = np.argsort(model.cluster_ids)
    place = order[np.searchsorted(model.cluster_ids, model.point_clusters, sorter=order)].astype(np.int32)
    index, confidence = assign(rows, model.points, place, model.reach)
    clusters = [int(model.cluster_ids[at]) if at >= 0 else -1 for at in index.tolist()]
    return [
        _output("cluster", "INT32", clusters),
        _output("confidence", "FP32", confidence.tolist()),
        _output("persona", "BYTES", [loaded.model.personas.get(cluster, "") for cluster in clusters]),
    ]


def _by_name(
    inputs: Sequence[InputTensor],
    expected: dict[str, tuple[str, int | None]],
    optional: frozenset[str] = frozenset(),
) -> dict[str, list[Any]]:
    """Name to the values of each tensor, flat.

    Args:
        inputs: as they were sent.
        expected: name to (datatype, columns), None for a tensor of one dimension.
        optional: names that may be absent.

    Raises:
        RefusedError: 400, they are others.
    """
    found: dict[str, list[Any]] = {}
    for tensor in inputs:
        if tensor.name not in expected or tensor.name in found:
            raise RefusedError(400, f"The inputs are {', '.join(expected)}, each once.")
        datatype, columns = expected[tensor.name]
        rank = 1 if columns is None else 2
        if tensor.datatype != datatype or len(tensor.shape) != rank or (rank == 2 and tensor.shape[1] != columns):
            shape = "[n]" if columns is None else f"[n, {columns}]"
            raise RefusedError(400, f"The input {tensor.name} is {datatype} of shape {shape}.")
        if tensor.shape[0] > ROWS:
            raise RefusedError(400, f"At most {ROWS} rows at a time.")
        flat = [value for part in tensor.data for value in (part if isinstance(part, list) else [part])]
        if len(flat) != tensor.shape[0] * (columns or 1 if rank == 2 else 1):
            raise RefusedError(400, f"The input {tensor.name} has another number of values than its shape says.")
        allowed: tuple[type, ...] = (str, type(None)) if datatype == "BYTES" else (int, float, type(None))
        if not all(isinstance(value, allowed) for value in flat):
            raise RefusedError(400, f"The input {tensor.name} holds something else than {datatype}.")
        found[tensor.name] = flat
    missing = [name for name in expected if name not in found and name not in optional]
    if missing:
        raise RefusedError(400, f"The inputs are {', '.join(expected)}, each once.")
    return found


def _output(name: str, datatype: str, data: list[Any]) -> OutputTensor:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}
