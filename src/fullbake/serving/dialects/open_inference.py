"""The open inference protocol, KServe's v2: /v2, /v2/health/*, /v2/models/NAME.

After specification/protocol/inference_rest.md and open_inference_rest.yaml of kserve/open-inference-protocol, and
"Tensor data" of KServe's docs/predict-api/v2/required_api.md: data may be nested or flat; errors are `{"error"}`, with
the status 400 where the request is wrong.

A classifier reads a BYTES tensor of texts, or two of pairs; both by the names of the columns of training, a single one
by any name. It gives `label` (BYTES, a label for each text), or `labels` where a text may have many (BOOL, texts x
labels), and `scores` (FP64, texts x labels). The parameter `labels` of these tensors has the names of the columns.
A name with slashes, such as an id of the hub, is given as it is or with %2F. Versions of a model are an optional part
of the protocol, and not implemented. Binary data: see `binary_tensors`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake import __version__
from fullbake.serving.bodies import ForeignBody, Many, check_body, parse_json, read_bytes
from fullbake.serving.dialects import binary_tensors
from fullbake.serving.dialects.binary_tensors import BinaryReader
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response, status_without_422
from fullbake.serving.dialects.rows import Texts, json_type
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.service import Scored, ServedModel, check_count

Dimension = Annotated[int, Field(ge=0, lt=2**63)]

_MOST_TENSORS: Final = 100
"""Tensors that a request lists at most; a classifier reads two and gives two."""

DataType = Literal["BYTES", "BOOL", "FP64"]


class RequestInput(ForeignBody):
    """A tensor of a request."""

    name: str
    """Name of a text column of training; any, where texts are no pairs."""

    shape: Annotated[Many[Dimension], Field(min_length=1, max_length=8)]
    """`[texts]` or `[texts, 1]`."""

    datatype: str
    """BYTES."""

    data: list[Any] | None = None
    """The texts, nested as the shape says, or flat; left out where they are binary data."""

    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    """`content_type`: `str` or nothing; `binary_data_size`: bytes behind the JSON."""


class RequestOutput(ForeignBody):
    """A tensor that is asked for."""

    name: str
    """`label` or `labels`, or `scores`."""

    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    """`binary_data`: true for bytes behind the JSON."""


class InferBody(ForeignBody):
    """The body of /v2/models/NAME/infer."""

    inputs: Annotated[Many[RequestInput], Field(min_length=1, max_length=_MOST_TENSORS)]
    """The texts, and the second texts of pairs."""

    outputs: Annotated[Many[RequestOutput], Field(max_length=_MOST_TENSORS)] | None = None
    """The tensors that are wanted; all by default."""

    id: Annotated[str, Field(max_length=200)] | None = None
    """Is part of the answer."""

    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    """`binary_data_output`: true for bytes behind the JSON, for outputs that do not say otherwise."""


class TensorKind(TypedDict):
    """What a tensor is."""

    name: str
    datatype: DataType
    shape: list[int]
    parameters: NotRequired[dict[str, list[str] | int]]


class Tensor(TensorKind):
    """A tensor of an answer."""

    data: NotRequired[list[Any]]


class ServerMetadata(TypedDict):
    """The answer of /v2."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(TypedDict):
    """The answer of /v2/health/live."""

    live: bool


class ServerReady(TypedDict):
    """The answer of /v2/health/ready."""

    ready: bool


class ModelReady(TypedDict):
    """The answer of /v2/models/NAME/ready."""

    name: str
    ready: bool


class ModelMetadata(TypedDict):
    """The answer of /v2/models/NAME."""

    name: str
    platform: str
    inputs: list[TensorKind]
    outputs: list[TensorKind]


class InferAnswer(TypedDict):
    """The answer of /v2/models/NAME/infer."""

    model_name: str
    id: NotRequired[str]
    outputs: list[Tensor]


class InferError(TypedDict):
    """The body of an error."""

    error: str


class OpenInferenceDialect(ServerDialect):
    """The protocol."""

    title = "Open inference protocol (KServe v2)"
    error = InferError

    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""
        texts = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["I like it", "never again"]}
        model = "/v2/models/{name}"
        return [
            Operation("GET", "/v2", self._server, "What the server is.", response=ServerMetadata),
            Operation("GET", "/v2/health/live", self._live, "200 while the server runs.", response=ServerLive),
            Operation("GET", "/v2/health/ready", self._ready, "200 if requests are answered.", response=ServerReady),
            Operation("GET", f"{model}/ready", self._model_ready, "200 if a model answers.", response=ModelReady),
            Operation("GET", model, self._metadata, "The tensors of a model.", response=ModelMetadata),
            Operation(
                "POST",
                f"{model}/infer",
                self._infer,
                "Labels and scores of texts, as tensors.",
                request=InferBody,
                response=InferAnswer,
                example={"inputs": [texts]},
            ),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error"}. A wrong body has the status 400."""
        status = status_without_422(refusal)
        return json_response(InferError(error=refusal.message), status, **refusal.headers)

    def _model(self, request: Request) -> ServedModel:
        name: str = request.path_params["name"]
        if "/versions/" in name and name not in self._service.models:
            raise Refusal(404, "unknown_model", "Models have no versions here: leave /versions/... out of the path.")
        return self._service.model(name)

    async def _server(self, _: Request) -> Response:
        return json_response(ServerMetadata(name="fullbake", version=__version__, extensions=["binary_tensor_data"]))

    async def _live(self, _: Request) -> Response:
        return json_response(ServerLive(live=True))

    async def _ready(self, _: Request) -> Response:
        self._service.check_ready()
        return json_response(ServerReady(ready=True))

    async def _model_ready(self, request: Request) -> Response:
        return json_response(ModelReady(name=self._model(request).name, ready=True))

    async def _metadata(self, request: Request) -> Response:
        model = self._model(request)
        classifier = model.classifier
        answer = ModelMetadata(
            name=model.name,
            platform=f"fullbake_{classifier.engine}",
            inputs=[TensorKind(name=name, datatype="BYTES", shape=[-1]) for name in classifier.columns.of_texts],
            outputs=_output_kinds(model, -1),
        )
        return json_response(answer)

    async def _infer(self, request: Request) -> Response:
        head, tail = binary_tensors.split_body(await read_bytes(request), request.headers.get(binary_tensors.HEADER))
        body = check_body(parse_json(head, request.app.state.most_values), InferBody)
        model = self._model(request)
        texts, pairs = _texts_of_tensors(body.inputs, tail, model)
        kinds = _wanted_kinds(body.outputs, _output_kinds(model, len(texts)))
        binary = _wanted_as_bytes(body)
        scored = await self._score(request, model, texts, pairs)
        answer = InferAnswer(model_name=model.name, outputs=[_tensor(kind, scored) for kind in kinds])
        if body.id is not None:
            answer["id"] = body.id
        parts = [_move_data(tensor) for tensor in answer["outputs"] if binary(tensor["name"])]
        found = json_response(answer)
        if not parts:
            return found
        headers = {binary_tensors.HEADER: str(len(found.body))}
        return Response(b"".join((found.body, *parts)), media_type="application/octet-stream", headers=headers)


def _texts_of_tensors(inputs: Sequence[RequestInput], tail: bytes, model: ServedModel) -> Texts:
    """Return the texts. tail: the bytes behind the JSON, which tensors of binary data have in their order."""
    names, reader = model.classifier.columns.of_texts, BinaryReader(tail)
    if len(inputs) != len(names):
        raise invalid(f"The model {model.name!r} reads {' and '.join(map(repr, names))}; got {len(inputs)} tensors.")
    texts_of = [(one.name, _flat_texts(one, reader, model)) for one in inputs]
    reader.check_end()
    if len(names) == 1:
        return texts_of[0][1], None
    by_name = dict(texts_of)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise invalid(f"There is no tensor {missing[0]!r}; {model.name!r} reads {' and '.join(map(repr, names))}.")
    texts, pairs = (by_name[name] for name in names)
    if len(texts) != len(pairs):
        raise invalid(f"There are {len(texts):,} texts, and {len(pairs):,} second texts.")
    return texts, pairs


def _flat_texts(tensor: RequestInput, reader: BinaryReader, model: ServedModel) -> list[str]:
    name = repr(tensor.name[:80])
    if tensor.datatype != "BYTES":
        raise invalid(f"The tensor {name} has texts, so its datatype is BYTES.")
    if tensor.parameters.get("content_type") not in (None, "str"):
        raise invalid(f"The tensor {name}: texts are sent as they are (content_type str).")
    if math.prod(tensor.shape) != tensor.shape[0]:
        raise invalid(f"The tensor {name}: the shape is [texts] or [texts, 1]; got {tensor.shape}.")
    check_count(model, tensor.shape[0])
    if tensor.data is None and "binary_data_size" not in tensor.parameters:
        raise invalid(f"The tensor {name} has neither data nor binary_data_size.")
    if tensor.data is None:
        texts = reader.read_texts(tensor.parameters, name, tensor.shape[0])
    else:
        texts = list(_flat(tensor.data, len(tensor.shape), name))
    if len(texts) != tensor.shape[0]:
        raise invalid(f"The tensor {name} has {len(texts):,} texts, and its shape says {tensor.shape[0]:,}.")
    return texts


def _flat(data: Sequence[Any], depth: int, name: str) -> Iterator[str]:
    """Yield the texts of nested or flat data. depth: how deep lists may lie in each other."""
    for value in data:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and depth > 1:
            yield from _flat(value, depth - 1, name)
        else:
            raise invalid(f"The tensor {name}: a text is expected; got {json_type(value)}.")


def _output_kinds(model: ServedModel, texts: int) -> list[TensorKind]:
    classifier = model.classifier
    names = list(classifier.label_names)
    parameters: dict[str, list[str] | int] = {"labels": names}
    given: TensorKind = {"name": "labels", "datatype": "BOOL", "shape": [texts, len(names)], "parameters": parameters}
    if classifier.problem.exclusive:
        given = {"name": "label", "datatype": "BYTES", "shape": [texts]}
    return [given, {"name": "scores", "datatype": "FP64", "shape": [texts, len(names)], "parameters": parameters}]


def _wanted_kinds(wanted: Sequence[RequestOutput] | None, kinds: list[TensorKind]) -> list[TensorKind]:
    if not wanted:
        return kinds
    names = {kind["name"] for kind in kinds}
    for output in wanted:
        if output.name not in names:
            raise invalid(f"There is no output {output.name[:80]!r}; the outputs are {', '.join(sorted(names))}.")
    asked = {output.name for output in wanted}
    return [kind for kind in kinds if kind["name"] in asked]


def _wanted_as_bytes(body: InferBody) -> Callable[[str], bool]:
    """Return what says whether an output, by its name, is wanted as bytes."""
    default = body.parameters.get("binary_data_output") is True
    given = {one.name: one.parameters.get("binary_data", default) is True for one in body.outputs or ()}
    if any("classification" in one.parameters for one in body.outputs or ()):
        raise invalid("The extension `classification` is not implemented: `scores` has the scores of all labels.")
    return lambda name: given.get(name, default)


def _move_data(tensor: Tensor) -> bytes:
    """Take the data out of a tensor, and return it as bytes."""
    content = binary_tensors.pack(tensor["datatype"], tensor.pop("data"))
    tensor["parameters"] = {**tensor.get("parameters", {}), "binary_data_size": len(content)}
    return content


def _tensor(kind: TensorKind, scored: Scored) -> Tensor:
    if kind["name"] == "scores":
        data: list[Any] = scored.probabilities.ravel().tolist()
    elif kind["name"] == "label":
        data = [labels[0] for labels in scored.labels]
    else:
        data = [name in labels for labels in scored.labels for name in scored.classifier.label_names]
    return {**kind, "data": data}
