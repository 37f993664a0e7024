"""/v1/explain of fullbake's own protocol: which words the answer to one text rests on."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake.serving.bodies import Body, Many, read_body
from fullbake.serving.dialects.dialect import Operation, in_time, json_response, log_entry
from fullbake.serving.explaining import Explainer
from fullbake.serving.service import Service


class ExplainBody(Body):
    """The body of /v1/explain: one text, or one pair of texts."""

    text: str
    """The text."""

    text_pair: str | None = None
    """The second text, for a model of pairs."""

    model: str | None = None
    """Name of the model; the first one by default."""

    labels: Many[str] | None = None
    """The labels to explain; those that are given by default."""

    max_words: Annotated[int, Field(ge=4)] | None = None
    """How many words are left out at most, one after another. The server has a limit of its own."""


class Timing(TypedDict):
    """What a request cost."""

    seconds: float
    tokens: int


class ExplainedWord(TypedDict):
    """A word, or neighboring words that were left out together, and its effect on the score."""

    word: str
    effect: float
    text: int
    start: int
    end: int
    words: int


class ExplainedLabel(TypedDict):
    """The effects of all words on the score of one label."""

    label: str
    score: float
    words: list[ExplainedWord]


class TextSpan(TypedDict):
    """A piece of a text, in characters."""

    text: int
    start: int
    end: int


class ExplainAnswer(TypedDict):
    """The answer of /v1/explain."""

    model: str
    predicted: list[str]
    labels: list[ExplainedLabel]
    unread: list[TextSpan]
    windows: int
    answered_by: NotRequired[str]
    timing: Timing


def explain_operation(service: Service) -> Operation:
    """Return the operation.

    Args:
        service: The models.
    """
    explainer = Explainer(service)

    async def explain(request: Request) -> Response:
        body = await read_body(request, ExplainBody)
        model = service.model(body.model)
        limit = model.limits.explained_words
        work = explainer.explain(
            model,
            body.text,
            body.text_pair,
            labels=body.labels,
            most_words=min(limit, body.max_words or limit),
        )
        found = await in_time(model.limits, request, work)
        texts = [body.text], None if body.text_pair is None else [body.text_pair]
        request.state.log = log_entry(service, model, texts, found.tokens)
        values: dict[str, Any] = found.explanation.to_json()
        values.pop("texts")
        timing = Timing(seconds=round(found.seconds, 6), tokens=found.tokens)
        return json_response({"model": model.name, **values, "timing": timing})

    return Operation(
        "POST",
        "/v1/explain",
        explain,
        "Which words of a text mattered. The scores are computed again without each word: as costly as so many texts.",
        request=ExplainBody,
        response=ExplainAnswer,
        example={"text": "I like it a lot"},
    )
