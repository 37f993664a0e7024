"""OpenAI's moderation: POST /v1/moderations.

After the API reference (Moderations, Create moderation) and the types of its Python library
(src/openai/types/moderation_create_params.py and moderation.py, 2.x): `input` is a text, a list of texts (a result
for each), or a list of parts `{"type": "text", "text"}`, which are one input with one result. A result has `flagged`,
`categories`, `category_scores` and `category_applied_input_types`. Errors are `{"error": {"message", "type", "param",
"code"}}`; a wrong body has the status 400.

The categories are the labels of a classifier whose texts may have many, each flagged by its own threshold. Of a
classifier of two classes the category is the class of its threshold, or the last class. A classifier of more classes
that exclude each other has no such meaning and is refused. The models that OpenAI's clients ask for by default
(omni-moderation-*, text-moderation-*) stand for the first model.
"""

from typing import Annotated, Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake.serving.bodies import ForeignBody, Many, expected, read_body
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response, status_without_422
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.service import Scored, ServedModel

_DEFAULT_MODELS: Final = ("omni-moderation-", "text-moderation-")
"""How the names of OpenAI's own models begin."""


class TextPart(ForeignBody):
    """A part of an input of several parts."""

    type: Literal["text"]
    """Only texts are read."""

    text: str
    """The text."""


class ModerationBody(ForeignBody):
    """The body of /v1/moderations."""

    input: Annotated[
        str | Many[str] | Many[TextPart],
        expected('a text, a list of texts, or of parts {"type": "text", "text": "..."}; images are not read here'),
    ]
    """A text, a list of texts, or the parts of one input, which are joined by line ends."""

    model: str | None = None
    """Name of the model; the first one by default, and for the names of OpenAI's own models."""


class ModeratedText(TypedDict):
    """What one input got."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationAnswer(TypedDict):
    """The answer of /v1/moderations."""

    id: str
    model: str
    results: list[ModeratedText]


class ModerationFault(TypedDict):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ModerationError(TypedDict):
    """The body of an error."""

    error: ModerationFault


class ModerationDialect(ServerDialect):
    """The protocol."""

    title = "OpenAI moderation"
    error = ModerationError

    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""
        return [
            Operation(
                "POST",
                "/v1/moderations",
                self._moderate,
                "Which labels of a multi-label classifier, or of two classes the second, texts are flagged for.",
                request=ModerationBody,
                response=ModerationAnswer,
                example={"input": "I want to kill them."},
            )
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error": {"message", "type", "param", "code"}}. A wrong body has the status 400."""
        status = status_without_422(refusal)
        codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
        unknown = refusal.kind == "unknown_model"
        kind = "requests" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
        fault = ModerationFault(
            message=refusal.message,
            type=kind,
            param="model" if unknown else None,
            code="model_not_found" if unknown else codes.get(status),
        )
        return json_response(ModerationError(error=fault), status, **refusal.headers)

    async def _moderate(self, request: Request) -> Response:
        body = await read_body(request, ModerationBody)
        default = body.model is not None and body.model.startswith(_DEFAULT_MODELS)
        model = self._service.model(None if default and body.model not in self._service.models else body.model)
        categories = _categories(model)
        scored = await self._score(request, model, _texts_of_input(body.input))
        answer = ModerationAnswer(
            id=f"modr-{request.state.request_id}", model=model.name, results=_moderated(scored, categories)
        )
        return json_response(answer)


def _categories(model: ServedModel) -> dict[str, int]:
    """Return the labels that are categories, with their places."""
    classifier = model.classifier
    names, decision = classifier.label_names, classifier.decision
    if not classifier.problem.exclusive:
        return {name: place for place, name in enumerate(names)}
    positive = decision.positive
    if positive is None:
        positive = classifier.problem.positive_class(names, None)
    if positive is None:
        raise invalid(
            f"The model {model.name!r} has {len(names)} classes that exclude each other: none of them is what a text "
            "is flagged for. /v1/predict gives its labels."
        )
    return {names[positive]: positive}


def _texts_of_input(given: str | list[str] | list[TextPart]) -> list[str]:
    if isinstance(given, str):
        return [given]
    texts = [part if isinstance(part, str) else part.text for part in given]
    return texts if not given or isinstance(given[0], str) else ["\n".join(texts)]


def _moderated(scored: Scored, categories: dict[str, int]) -> list[ModeratedText]:
    results: list[ModeratedText] = []
    for labels, scores in zip(scored.labels, scored.probabilities.tolist(), strict=True):
        flags = {name: name in labels for name in categories}
        results.append(
            {
                "flagged": any(flags.values()),
                "categories": flags,
                "category_scores": {name: scores[place] for name, place in categories.items()},
                "category_applied_input_types": {name: ["text"] for name in categories},
            }
        )
    return results
