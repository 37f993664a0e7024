"""fullbake's own protocol: /v1/predict, /v1/models."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fullbake.evaluation.top_labels import top_labels
from fullbake.serving.bodies import Body, read_body
from fullbake.serving.dialects.dialect import endpoint, json_response, score
from fullbake.serving.metrics import Metrics
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.service import Scored, ServedModel, Service, describe_model


class PredictBody(Body):
    """The body of /v1/predict: `texts`, or `rows` with the columns of training."""

    texts: list[str] | None = None
    rows: list[dict[str, Any]] | None = None
    """Rows by column name; columns that are no texts are left out."""

    model: str | None = None
    """Name of the model; the first one by default."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """Only so many scores of each text, the highest ones."""

    labels_only: bool = False
    """Only the labels, no scores."""


class NativeDialect:
    """The protocol.

    Args:
        service: The models.
        metrics: Where labels are counted.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service, self._metrics = service, metrics

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/predict", endpoint(self, self._predict), methods=["POST"]),
            Route("/v1/models", endpoint(self, self._models), methods=["GET"]),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error": {"kind", "message"}}."""
        value = {"error": {"kind": refusal.kind, "message": refusal.message}}
        return json_response(value, refusal.status, **refusal.headers)

    async def _models(self, _: Request) -> Response:
        self._service.model()
        return json_response({"models": [describe_model(model) for model in self._service.models.values()]})

    async def _predict(self, request: Request) -> Response:
        body = await read_body(request, PredictBody)
        model = self._service.model(body.model)
        texts, pairs = _texts_of(body, model)
        scored = await score(self._service, request, model, texts, pairs)
        results, labels = list_results(scored, body.top_k, labels_only=body.labels_only)
        self._metrics.count_labels(model.name, labels)
        value = {
            "model": model.name,
            "results": results,
            "decision": model.classifier.decision.to_json(),
            "timing": {"seconds": round(scored.seconds, 6), "tokens": scored.tokens},
        }
        return json_response(value)


def _texts_of(body: PredictBody, model: ServedModel) -> tuple[Sequence[str], Sequence[str] | None]:
    if (body.texts is None) == (body.rows is None):
        raise invalid('Either "texts" or "rows" is expected.')
    if body.rows is None:
        return body.texts or (), None
    names = model.classifier.columns.of_texts
    columns = [[_cell(row, name, number) for number, row in enumerate(body.rows, 1)] for name in names]
    return columns[0], columns[1] if len(columns) > 1 else None


def _cell(row: Mapping[str, Any], name: str, number: int) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        got = type(value).__name__ if name in row else "no such column"
        raise invalid(f"Row {number}: a text is expected in {name!r}; got {got}.")
    return value


def list_results(
    scored: Scored, top_k: int | None = None, *, labels_only: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what a client gets of each text, and all labels that were given, for the metrics.

    Args:
        scored: The scores.
        top_k: How many scores of a text to list, the highest first; None for all, in the order of the classes.
        labels_only: List no scores.
    """
    classifier, probabilities = scored.classifier, scored.probabilities
    names, exclusive = classifier.label_names, classifier.problem.exclusive
    decided = classifier.problem.label_ids(classifier.decision.decide(probabilities))
    results: list[dict[str, Any]] = []
    shown = range(len(names)) if top_k is None else None
    ranked = None if top_k is None else top_labels(probabilities, top_k).tolist()
    for row, own in enumerate(decided):
        labels = [names[label] for label in own]
        result: dict[str, Any] = {"label": labels[0]} if exclusive else {"labels": labels}
        if not labels_only:
            places = shown if ranked is None else ranked[row]
            result["scores"] = {names[place]: float(probabilities[row, place]) for place in places or ()}
        if scored.answered_by is not None:
            result["answered_by"] = str(scored.answered_by[row])
        results.append(result)
    return results, [names[label] for own in decided for label in own]
