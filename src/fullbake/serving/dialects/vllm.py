"""vLLM's classification: POST /classify and /v1/classify.

After its documentation (docs/serving/openai_compatible_server.md, Classification API) and its source
(vllm/entrypoints/pooling/classify and base/protocol.py, vllm/entrypoints/openai/engine/protocol.py, 0.15): a text or a
list of texts in `input`; the answer lists `label`, `probs` and `num_classes` of each; errors are
`{"error": {"message", "type", "param", "code"}}`, where the code is the status, and a wrong body has the status 400.

What differs: a long text is cut as in training, and only `truncation_side` replaces that way. `label` is what the
classifier's decision gives; where a text may have many labels, the likeliest of them, null if it has none. Token ids
and chat messages are refused.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake.serving.bodies import ForeignBody, Many, expected, read_body
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response, status_without_422
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.scorer import Reading
from fullbake.serving.service import Scored

_TYPES: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}


_RANKING: Final = ("/score", "/v1/score", "/v1/rerank", "/v2/rerank")
_WRITING: Final = ("/v1/completions", "/v1/chat/completions", "/v1/responses")
_VECTORS: Final = ("/v1/embeddings", "/pooling")


class ClassifyBody(ForeignBody):
    """The body of /classify."""

    input: Annotated[str | Many[str], expected("a text or a list of texts; token ids are not read here")]
    """A text, or a list of texts."""

    model: str | None = None
    """Name of the model; the first one by default."""

    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """-1, or the model's own length: no other is possible here."""

    truncation_side: Literal["left", "right"] | None = None
    """Where a long text is cut, in place of how it was cut in training."""

    use_activation: bool | None = None
    """False: logits, in place of probabilities."""

    activation: bool | None = None
    """The older name of `use_activation`."""

    add_special_tokens: bool = True
    """False is refused: the classifier was trained with them."""

    request_id: Annotated[str, Field(max_length=200)] | None = None
    """Part of the answer's id."""


class ClassifiedText(TypedDict):
    """What one text got."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class Usage(TypedDict):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class ClassifyAnswer(TypedDict):
    """The answer of /classify."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ClassifiedText]
    usage: Usage


class ClassifyFault(TypedDict):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: int


class ClassifyError(TypedDict):
    """The body of an error."""

    error: ClassifyFault


class VllmDialect(ServerDialect):
    """The protocol."""

    title = "vLLM"
    error = ClassifyError
    impossible: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            _RANKING, "A classifier does not compare texts. One that was trained on pairs scores them at /v1/predict."
        ),
        **dict.fromkeys(_WRITING, "A classifier writes no text. POST /v1/classify gives labels, POST /v1/predict too."),
        **dict.fromkeys(_VECTORS, "POST /embed gives the vectors that the classifier's head reads."),
    }

    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""
        return [
            Operation(
                "POST",
                path,
                self._classify,
                "Label and probabilities of each text.",
                request=ClassifyBody,
                response=ClassifyAnswer,
                example={"input": ["Loved the new café, coffee was great.", "This update broke everything."]},
            )
            for path in ("/classify", "/v1/classify")
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error": {"message", "type", "param", "code"}}. A wrong body has the status 400."""
        status = status_without_422(refusal)
        fault = ClassifyFault(
            message=refusal.message,
            type=_TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError"),
            param="model" if refusal.kind == "unknown_model" else None,
            code=status,
        )
        return json_response(ClassifyError(error=fault), status, **refusal.headers)

    async def _classify(self, request: Request) -> Response:
        body = await read_body(request, ClassifyBody)
        model = self._service.model(body.model)
        longest = model.classifier.tokens.max_length
        if body.truncate_prompt_tokens not in (None, -1, longest):
            raise invalid(f"truncate_prompt_tokens: only -1 or {longest} is possible, the length that the model reads.")
        if not body.add_special_tokens:
            raise invalid("add_special_tokens: the model was trained with them, so they cannot be left out.")
        kept: dict[str | None, Literal["head", "tail"] | None] = {"left": "tail", "right": "head", None: None}
        texts = [body.input] if isinstance(body.input, str) else body.input
        scored = await self._score(request, model, texts, None, Reading(kept[body.truncation_side]))
        raw = False in (body.use_activation, body.activation)
        answer = ClassifyAnswer(
            id=f"classify-{body.request_id or request.state.request_id}",
            object="list",
            created=int(time.time()),
            model=model.name,
            data=_classified(scored, raw=raw),
            usage={
                "prompt_tokens": scored.tokens,
                "total_tokens": scored.tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        )
        return json_response(answer)


def _classified(scored: Scored, *, raw: bool) -> list[ClassifiedText]:
    names, probabilities = scored.classifier.label_names, scored.probabilities.tolist()
    values = scored.logits.tolist() if raw else probabilities
    return [
        ClassifiedText(index=row, label=_likeliest(labels, own, names), probs=values[row], num_classes=len(names))
        for row, (labels, own) in enumerate(zip(scored.labels, probabilities, strict=True))
    ]


def _likeliest(labels: Sequence[str], scores: Sequence[float], names: Sequence[str]) -> str | None:
    """Return the likeliest of the labels that a text was given, None if it was given none. names: of all scores."""
    return max(labels, key=lambda label: scores[names.index(label)], default=None)
