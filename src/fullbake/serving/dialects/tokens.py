"""/tokenize and /decode of Text Embeddings Inference: texts to tokens and back, as the classifier's tokenizer has them.

After its OpenAPI document (TokenizeRequest, SimpleToken, DecodeRequest). A text is divided as a whole: nothing is cut,
and no prompt stands before it.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from tokenizers import Encoding, Tokenizer
from typing_extensions import TypedDict

from fullbake.models.encoding import check_text
from fullbake.serving.bodies import ForeignBody, Many, expected, read_body
from fullbake.serving.dialects.dialect import Operation, json_response
from fullbake.serving.refusals import invalid, too_large
from fullbake.serving.service import ServedModel, Service, check_texts

MOST_TOKENIZED: Final = 100_000
"""Characters of a request: each token of it is an object of the answer."""

_Ids = Many[Annotated[int, Field(ge=0, lt=2**32)]]


class TokenizeInputs(ForeignBody):
    """The body of /tokenize."""

    inputs: Annotated[str | Many[str], expected("a text or a list of texts")]
    """A text, or a list of texts."""

    add_special_tokens: bool = True
    """Whether the tokens around a text, such as [CLS], are part of the answer."""

    prompt_name: str | None = None
    """Not supported: the prompt of training stands before every text that is scored."""


class DecodeInputs(ForeignBody):
    """The body of /decode."""

    ids: Annotated[_Ids | Many[_Ids], expected("a list of token ids, or a list of such lists")]
    """The ids of a text, or a list of such lists."""

    skip_special_tokens: bool = True
    """Whether tokens such as [CLS] are left out."""


class SimpleToken(TypedDict):
    """A token of a text; `start` and `stop` are characters, null for a token that is not in the text."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def token_operations(service: Service) -> list[Operation]:
    """Return the operations.

    Args:
        service: The models.
    """

    async def tokenize(request: Request) -> Response:
        body = await read_body(request, TokenizeInputs)
        model = service.model(request.query_params.get("model"))
        if body.prompt_name is not None:
            raise invalid("`prompt_name` is not supported here.")
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        check_texts(model, texts, [""] * len(texts) if model.classifier.columns.text_pair is not None else None)
        _check_size(sum(map(len, texts)))
        for number, text in enumerate(texts, 1):
            check_text(text, number)
        content = await asyncio.to_thread(_tokenize, _backend(model), texts, special=body.add_special_tokens)
        return Response(content, media_type="application/json")

    async def decode(request: Request) -> Response:
        body = await read_body(request, DecodeInputs)
        model = service.model(request.query_params.get("model"))
        rows: list[Any] = body.ids if not body.ids or isinstance(body.ids[0], list) else [body.ids]
        _check_size(sum(map(len, rows)))
        if len(rows) > model.limits.texts:
            raise too_large(f"At most {model.limits.texts:,} texts are decoded at once; got {len(rows):,}.")
        found = await asyncio.to_thread(
            _backend(model).decode_batch, rows, skip_special_tokens=body.skip_special_tokens
        )
        return json_response(found)

    return [
        Operation(
            "POST",
            "/tokenize",
            tokenize,
            "The tokens of texts.",
            request=TokenizeInputs,
            response=list[list[SimpleToken]],
            example={"inputs": "What is Deep Learning?"},
            chooses_model=True,
        ),
        Operation(
            "POST",
            "/decode",
            decode,
            "The texts of token ids.",
            request=DecodeInputs,
            response=list[str],
            example={"ids": [1, 2, 3]},
            chooses_model=True,
        ),
    ]


def _backend(model: ServedModel) -> Tokenizer:
    backend: Tokenizer = model.classifier.tokenizer.backend_tokenizer
    return backend


def _check_size(size: int) -> None:
    if size > MOST_TOKENIZED:
        raise too_large(f"At most {MOST_TOKENIZED:,} characters or ids are taken at once; got {size:,}.")


def _tokenize(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> str:
    """Return the tokens of texts as JSON. It is written token by token: one long call would hold up all threads."""
    found = tokenizer.encode_batch(texts, add_special_tokens=special)
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    rows = [",".join(map(encode, _tokens(text, encoding))) for text, encoding in zip(texts, found, strict=True)]
    return f"[{','.join(f'[{row}]' for row in rows)}]"


def _tokens(text: str, encoding: Encoding) -> Iterator[SimpleToken]:
    rows = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
    for number, token, (start, stop), special in rows:
        if special:
            yield SimpleToken(id=number, text=token, special=True, start=None, stop=None)
        else:
            yield SimpleToken(id=number, text=text[start:stop], special=False, start=start, stop=stop)
