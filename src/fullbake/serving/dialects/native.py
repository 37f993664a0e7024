"""fullbake's own protocol: /v1/predict, /v1/models, /v1/explain."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake.evaluation.top_labels import top_labels
from fullbake.serving.bodies import Body, Many, read_body
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response
from fullbake.serving.dialects.explain import Timing, explain_operation
from fullbake.serving.dialects.rows import Texts, texts_of_rows
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.service import Scored, ServedModel, describe_model


class PredictBody(Body):
    """The body of /v1/predict: `texts`, or `rows` with the columns of training."""

    texts: Many[str] | None = None
    """The texts."""

    rows: Many[dict[str, Any]] | None = None
    """Rows by column name; columns that are no texts are left out."""

    model: str | None = None
    """Name of the model; the first one by default."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """Only so many scores of each text, the highest ones."""

    labels_only: bool = False
    """Only the labels, no scores."""


class PredictResult(TypedDict):
    """What one text got: `label`, or `labels` where a text may have many."""

    label: NotRequired[str]
    labels: NotRequired[list[str]]
    scores: NotRequired[dict[str, float]]
    answered_by: NotRequired[str]


class PredictAnswer(TypedDict):
    """The answer of /v1/predict."""

    model: str
    results: list[PredictResult]
    decision: dict[str, Any] | None
    timing: Timing


class ListedModel(TypedDict):
    """A model as OpenAI's list has it."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelsAnswer(TypedDict):
    """The answer of /v1/models. Clients of OpenAI's and vLLM's protocols read `data`."""

    object: str
    data: list[ListedModel]
    models: list[dict[str, Any]]
    limits: dict[str, Any]


class NativeFault(TypedDict):
    """What is wrong."""

    kind: str
    message: str


class NativeError(TypedDict):
    """The body of an error."""

    error: NativeFault


class NativeDialect(ServerDialect):
    """The protocol."""

    title = "fullbake"
    error = NativeError

    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""
        return [
            Operation(
                "POST",
                "/v1/predict",
                self._predict,
                "Labels and scores of texts, or of rows with the columns of training.",
                request=PredictBody,
                response=PredictAnswer,
                example={"texts": ["I like it", "never again"], "top_k": 2},
            ),
            Operation("GET", "/v1/models", self._models, "The models, and what they answer.", response=ModelsAnswer),
            explain_operation(self._service),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error": {"kind", "message"}}."""
        value = NativeError(error={"kind": refusal.kind, "message": refusal.message})
        return json_response(value, refusal.status, **refusal.headers)

    async def _models(self, _: Request) -> Response:
        self._service.model()
        models = self._service.models.values()
        listed = [
            ListedModel(id=model.name, object="model", created=int(model.loaded), owned_by="fullbake")
            for model in models
        ]
        described = [describe_model(model) for model in models]
        limits = self._service.limits.to_json()
        return json_response(ModelsAnswer(object="list", data=listed, models=described, limits=limits))

    async def _predict(self, request: Request) -> Response:
        body = await read_body(request, PredictBody)
        model = self._service.model(body.model)
        texts, pairs = _texts_of(body, model)
        scored = await self._score(request, model, texts, pairs)
        results = list_results(scored, body.top_k, labels_only=body.labels_only)
        value = PredictAnswer(
            model=model.name,
            results=results,
            decision=model.classifier.decision.to_json(),
            timing={"seconds": round(scored.seconds, 6), "tokens": scored.tokens},
        )
        return json_response(value)


def _texts_of(body: PredictBody, model: ServedModel) -> Texts:
    if (body.texts is None) == (body.rows is None):
        raise invalid('Either "texts" or "rows" is expected.')
    return (body.texts or (), None) if body.rows is None else texts_of_rows(body.rows, model)


def list_results(scored: Scored, top_k: int | None = None, *, labels_only: bool = False) -> list[PredictResult]:
    """Return what a client gets of each text.

    Args:
        scored: The scores.
        top_k: How many scores of a text to list, the highest first; None for all, in the order of the classes.
        labels_only: List no scores.
    """
    classifier, probabilities = scored.classifier, scored.probabilities
    names, exclusive = classifier.label_names, classifier.problem.exclusive
    results: list[PredictResult] = []
    shown = range(len(names)) if top_k is None else None
    ranked = None if top_k is None else top_labels(probabilities, top_k).tolist()
    for row, labels in enumerate(scored.labels):
        result = PredictResult(label=labels[0]) if exclusive else PredictResult(labels=labels)
        if not labels_only:
            places = shown if ranked is None else ranked[row]
            result["scores"] = {names[place]: float(probabilities[row, place]) for place in places or ()}
        if scored.answered_by is not None:
            result["answered_by"] = str(scored.answered_by[row])
        results.append(result)
    return results
