"""The protocol of Text Embeddings Inference by Hugging Face: /predict, /embed, /tokenize, /decode, /info, /health.

After its OpenAPI document (docs/openapi.json, version 1.7.1) and its router (router/src/http/types.rs and server.rs,
router/src/lib.rs, core/src/tokenization.rs), which says what the document leaves out: `["a", "b"]` is one pair, a
batch is a list of lists; the list of predictions is sorted, the highest score first; errors are
`{"error", "error_type"}`, where the type is Unhealthy (503), Backend (424), Overloaded (429), Validation (413),
Tokenizer (422) or Empty (400).

What differs: without `truncate` a long text is cut as in training (`auto_truncate` in /info is true), and `left` or
`right` replace that way only if they are sent. A server with several models takes the query parameter `model`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake import __version__
from fullbake.evaluation.top_labels import top_labels
from fullbake.serving.bodies import ForeignBody, Many, expected, read_body
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response
from fullbake.serving.dialects.rows import ScoredLabel, Texts
from fullbake.serving.dialects.tokens import token_operations
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.scorer import Reading
from fullbake.serving.service import Pooled, Scored, ServedModel

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]

_ERROR_TYPES: Final[dict[str, ErrorType]] = {
    "unavailable": "Unhealthy",
    "internal": "Backend",
    "timeout": "Backend",
    "backend": "Backend",
    "impossible": "Backend",
    "overloaded": "Overloaded",
    "empty": "Empty",
}
"""Kind of a refusal -> type of the error; what is left is Validation."""

_FAILED_DEPENDENCY: Final = 424

TextOrPair = Annotated[Many[str], Field(min_length=1, max_length=2)]
"""A text, or a pair."""

Direction = Annotated[
    Literal["left", "right"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]
"""The document writes `Right`, its default `right`: both are taken."""


class _Cutting(ForeignBody):
    """What the bodies share."""

    truncate: bool | None = None
    """False: refuse texts with more tokens than the model reads. Otherwise they are cut as in training."""

    truncation_direction: Direction | None = None
    """Where a long text is cut, `left` or `right`, in place of how it was cut in training."""

    def reading(self) -> Reading:
        """Return how the texts are read."""
        kept: dict[Direction | None, Literal["head", "tail"] | None] = {"left": "tail", "right": "head", None: None}
        return Reading(kept[self.truncation_direction], whole=self.truncate is False)


class PredictInputs(_Cutting):
    """The body of /predict."""

    inputs: Annotated[
        str | TextOrPair | Many[TextOrPair],
        expected('a text, a pair ["a", "b"], or a batch [["a"], ["b"]] of either'),
    ]
    """A text, a pair `["a", "b"]`, or a batch of texts or pairs, each in a list of its own."""

    raw_scores: bool = False
    """Logits, in place of probabilities."""


class EmbedInputs(_Cutting):
    """The body of /embed."""

    inputs: Annotated[str | Many[str], expected("a text or a list of texts")]
    """A text, or a list of texts."""

    normalize: bool = True
    """Scale each vector to a length of 1."""

    prompt_name: str | None = None
    """Not supported: the prompt of training stands before every text."""

    dimensions: int | None = None
    """Not supported: all dimensions are returned."""


class ClassifierLabels(TypedDict):
    """The labels of a classifier."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ServedInfo(TypedDict):
    """The answer of /info."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[Literal["classifier"], ClassifierLabels]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


class TypedError(TypedDict):
    """The body of an error."""

    error: str
    error_type: ErrorType


class EmbeddingsInferenceDialect(ServerDialect):
    """The protocol."""

    title = "Text Embeddings Inference"
    error = TypedError
    impossible: ClassVar[Mapping[str, str]] = {
        "/rerank": "The model is no re-ranker. A classifier of pairs scores each pair: POST /predict.",
        "/similarity": "The model has no similarity. POST /embed gives the vectors of texts.",
        "/embed_sparse": "The model has no sparse vectors. POST /embed gives dense ones.",
        "/embed_all": "The model has no vectors of tokens. POST /embed gives one of each text.",
    }

    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""
        return [
            Operation(
                "POST",
                "/predict",
                self._predict,
                "Scores of a text, a pair, or a batch, the highest first.",
                request=PredictInputs,
                response=list[ScoredLabel] | list[list[ScoredLabel]],
                example={"inputs": "I like you."},
                chooses_model=True,
            ),
            Operation(
                "POST",
                "/embed",
                self._embed,
                "Vectors of texts: what the classifier's head reads.",
                request=EmbedInputs,
                response=list[list[float]],
                example={"inputs": "What is Deep Learning?"},
                chooses_model=True,
            ),
            *token_operations(self._service),
            Operation("GET", "/info", self._info, "The model and its limits.", response=ServedInfo, chooses_model=True),
            Operation("GET", "/health", self._health, "200 if requests are answered, else 503."),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error", "error_type"}. What the model fails to do, or cannot do, has the status 424."""
        status = _FAILED_DEPENDENCY if refusal.kind in ("internal", "impossible") else refusal.status
        value = TypedError(error=refusal.message, error_type=_ERROR_TYPES.get(refusal.kind, "Validation"))
        return json_response(value, status, **refusal.headers)

    def _model(self, request: Request) -> ServedModel:
        return self._service.model(request.query_params.get("model"))

    async def _health(self, _: Request) -> Response:
        if not self._service.ready:
            raise Refusal(503, "unavailable", "unhealthy")
        return Response()

    async def _info(self, request: Request) -> Response:
        return json_response(_describe(self._model(request)))

    async def _predict(self, request: Request) -> Response:
        body = await read_body(request, PredictInputs)
        model = self._model(request)
        (texts, pairs), alone = _texts_of_inputs(body.inputs)
        if alone and pairs is not None and model.classifier.columns.text_pair is None:
            raise invalid('["a", "b"] is one pair, and the model classifies single texts: a batch is [["a"], ["b"]].')
        scored = await self._score(request, model, texts, pairs, body.reading())
        values = scored.logits if body.raw_scores else scored.probabilities
        ranked = _ranked(values, model.classifier.label_names)
        return json_response(ranked[0] if alone else ranked, 200, **_measures(scored, texts, pairs or ()))

    async def _embed(self, request: Request) -> Response:
        body = await read_body(request, EmbedInputs)
        model = self._model(request)
        if body.prompt_name is not None or body.dimensions is not None:
            raise invalid("`prompt_name` and `dimensions` are not supported here.")
        if not body.inputs and not isinstance(body.inputs, str):
            raise Refusal(400, "empty", "`inputs` cannot be empty")
        if model.classifier.columns.text_pair is not None:
            raise Refusal(_FAILED_DEPENDENCY, "backend", "The model reads pairs: it has no vectors of single texts.")
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        pooled = await self._pool(request, model, texts, body.reading())
        vectors = pooled.vectors
        if body.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return json_response(vectors.tolist(), 200, **_measures(pooled, texts))


def _texts_of_inputs(inputs: str | list[str] | list[list[str]]) -> tuple[Texts, bool]:
    """Return the texts and their second texts, and whether the input stands alone rather than in a batch."""
    if isinstance(inputs, str):
        return ([inputs], None), True
    if not inputs:
        raise invalid("There is no text in the request.")
    alone = isinstance(inputs[0], str)
    rows: Any = [inputs] if alone else inputs
    if len({len(row) for row in rows}) > 1:
        raise invalid("A batch holds single texts or pairs, not both: this model reads one of them.")
    firsts = [row[0] for row in rows]
    return (firsts, [row[1] for row in rows] if len(rows[0]) == 2 else None), alone


def _ranked(values: Any, names: tuple[str, ...]) -> list[list[ScoredLabel]]:
    places = top_labels(values, len(names))
    sorted_values = np.take_along_axis(values, places, axis=1).tolist()
    return [
        [ScoredLabel(label=names[place], score=value) for place, value in zip(own, scores, strict=True)]
        for own, scores in zip(places.tolist(), sorted_values, strict=True)
    ]


def _measures(done: Scored | Pooled, *texts: Any) -> dict[str, str]:
    """Return the headers that say what a request took; times in milliseconds."""
    milliseconds = str(round(1000 * done.seconds))
    return {
        "x_compute_time": milliseconds,
        "x_total_time": milliseconds,
        "x_compute_characters": str(sum(len(text) for column in texts for text in column)),
        "x_compute_tokens": str(done.tokens),
    }


def _describe(model: ServedModel) -> ServedInfo:
    classifier, limits = model.classifier, model.limits
    names, longest = classifier.label_names, classifier.tokens.max_length or 0
    return {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": "int8" if model.source.precision == "int8" else "float32",
        "model_type": {
            "classifier": {
                "id2label": {str(place): name for place, name in enumerate(names)},
                "label2id": {name: place for place, name in enumerate(names)},
            }
        },
        # the queue is bounded in tokens: so many of the longest texts fit
        "max_concurrent_requests": limits.queue_tokens // max(1, longest),
        "max_input_length": longest,
        "max_batch_tokens": classifier.tokens.token_budget,
        "max_batch_requests": None,
        "max_client_batch_size": limits.texts,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
