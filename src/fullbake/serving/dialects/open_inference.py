"""The open inference protocol, KServe's v2: /v2, /v2/health/*, /v2/models/NAME.

After specification/protocol/inference_rest.md and open_inference_rest.yaml of kserve/open-inference-protocol, and
"Tensor data" of KServe's docs/predict-api/v2/required_api.md: data may be nested or flat; errors are `{"error"}`, with
the status 400 where the request is wrong.

A classifier reads a BYTES tensor of texts, or two of pairs; both by the names of the columns of training, a single one
by any name. It gives `label` (BYTES, a label for each text), or `labels` where a text may have many (BOOL, texts x
labels), and `scores` (FP64, texts x labels). The parameter `labels` of these tensors has the names of the columns.
Versions of a model and the extension of binary data are optional parts of the protocol, and not implemented.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake import __version__
from fullbake.serving.bodies import ForeignBody, read_body
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response, status_without_422
from fullbake.serving.dialects.rows import Texts, json_type
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.service import Scored, ServedModel

_BINARY_HEADER: Final = "inference-header-content-length"
"""The header of the extension of binary data."""

Dimension = Annotated[int, Field(ge=0, lt=2**63)]

DataType = Literal["BYTES", "BOOL", "FP64"]


class RequestInput(ForeignBody):
    """A tensor of a request."""

    name: str
    """Name of a text column of training; any, where texts are no pairs."""

    shape: Annotated[list[Dimension], Field(min_length=1, max_length=8)]
    """`[texts]` or `[texts, 1]`."""

    datatype: str
    """BYTES."""

    data: list[Any]
    """The texts, nested as the shape says, or flat."""

    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    """`content_type`: `str` or nothing."""


class RequestOutput(ForeignBody):
    """A tensor that is asked for."""

    name: str
    """`label` or `labels`, or `scores`."""


class InferBody(ForeignBody):
    """The body of /v2/models/NAME/infer."""

    inputs: Annotated[list[RequestInput], Field(min_length=1)]
    """The texts, and the second texts of pairs."""

    outputs: list[RequestOutput] | None = None
    """The tensors that are wanted; all by default."""

    id: Annotated[str, Field(max_length=200)] | None = None
    """Is part of the answer."""


class TensorKind(TypedDict):
    """What a tensor is."""

    name: str
    datatype: DataType
    shape: list[int]
    parameters: NotRequired[dict[str, list[str]]]


class Tensor(TensorKind):
    """A tensor of an answer."""

    data: list[Any]


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
            Operation("GET", model, self._metadata, "The tensors of a model.", response=ModelMetadata),
            Operation("GET", f"{model}/ready", self._model_ready, "200 if a model answers.", response=ModelReady),
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
        return self._service.model(request.path_params["name"])

    async def _server(self, _: Request) -> Response:
        return json_response(ServerMetadata(name="fullbake", version=__version__, extensions=[]))

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
        if _BINARY_HEADER in request.headers:
            raise invalid("Binary tensor data is not read here: send the texts as JSON strings (binary_data=False).")
        body = await read_body(request, InferBody)
        model = self._model(request)
        texts, pairs = _texts_of_tensors(body.inputs, model)
        kinds = _wanted_kinds(body.outputs, _output_kinds(model, len(texts)))
        scored = await self._score(request, model, texts, pairs)
        answer = InferAnswer(model_name=model.name, outputs=[_tensor(kind, scored) for kind in kinds])
        if body.id is not None:
            answer["id"] = body.id
        return json_response(answer)


def _texts_of_tensors(inputs: Sequence[RequestInput], model: ServedModel) -> Texts:
    names = model.classifier.columns.of_texts
    if len(inputs) != len(names):
        raise invalid(f"The model {model.name!r} reads {' and '.join(map(repr, names))}; got {len(inputs)} tensors.")
    if len(names) == 1:
        return _flat_texts(inputs[0]), None
    by_name = {one.name: one for one in inputs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise invalid(f"There is no tensor {missing[0]!r}; {model.name!r} reads {' and '.join(map(repr, names))}.")
    texts, pairs = (_flat_texts(by_name[name]) for name in names)
    if len(texts) != len(pairs):
        raise invalid(f"There are {len(texts):,} texts, and {len(pairs):,} second texts.")
    return texts, pairs


def _flat_texts(tensor: RequestInput) -> list[str]:
    name = repr(tensor.name[:80])
    if tensor.datatype != "BYTES":
        raise invalid(f"The tensor {name} has texts, so its datatype is BYTES.")
    if tensor.parameters.get("content_type") not in (None, "str"):
        raise invalid(f"The tensor {name}: texts are sent as they are (content_type str).")
    if math.prod(tensor.shape) != tensor.shape[0]:
        raise invalid(f"The tensor {name}: the shape is [texts] or [texts, 1]; got {tensor.shape}.")
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
    parameters = {"labels": names}
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


def _tensor(kind: TensorKind, scored: Scored) -> Tensor:
    if kind["name"] == "scores":
        data: list[Any] = scored.probabilities.ravel().tolist()
    elif kind["name"] == "label":
        data = [labels[0] for labels in scored.labels]
    else:
        data = [name in labels for labels in scored.labels for name in scored.classifier.label_names]
    return {**kind, "data": data}
