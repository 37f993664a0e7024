"""MLflow's scoring server, and hosts that speak alike, such as SageMaker's: /invocations and /ping.

After MLflow's page "Deploy MLflow Model as a Local Inference Server" and its source (mlflow/pyfunc/scoring_server and
mlflow/utils/proto_json_utils.py, 3.x): a JSON object with exactly one of `dataframe_split`, `dataframe_records`,
`instances` and `inputs`, or text/csv with a header; the answer is `{"predictions": [...]}`; errors are
`{"error_code", "message"}`, a wrong body has the status 400 and the code BAD_REQUEST, another type of content 415.

Columns are those of training. Where there are no names (a list of texts, or of lists), the values are in the order of
those columns. A prediction is a record, as MLflow makes of a data frame, with the columns of `fullbake predict` and of
`integrations.mlflow`: `predicted` and `score`, or `predicted:LABEL` of each label where a text may have many; the
parameter `scores` adds `score:LABEL`. So a bundle answers alike here and in MLflow's own server. A server with several
models takes the query parameter `model`.
"""

import asyncio
import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from fullbake.serving.bodies import ForeignBody, Many, check_body, read_bytes, read_json
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response, status_without_422
from fullbake.serving.dialects.rows import Texts, json_type, texts_of_rows
from fullbake.serving.refusals import Refusal, invalid
from fullbake.serving.service import Scored, ServedModel, check_count

_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class SplitFrame(ForeignBody):
    """A data frame as `to_dict(orient="split")` gives it."""

    columns: Many[str]
    """Names of the columns."""

    data: Many[list[Any]]
    """The rows."""


class InvocationParameters(ForeignBody):
    """What a request asks for besides."""

    scores: bool = False
    """Add the score of each label."""


class InvocationBody(ForeignBody):
    """The body of /invocations: exactly one of the first four."""

    dataframe_split: SplitFrame | None = None
    """A data frame by columns and rows."""

    dataframe_records: Many[dict[str, Any]] | None = None
    """A data frame as a list of rows."""

    instances: Annotated[Any, Field()] = None
    """A list of texts, of lists with the texts of a row, or of rows by name; or lists by the name of the column."""

    inputs: Annotated[Any, Field()] = None
    """As `instances`; or one text."""

    params: InvocationParameters | None = None
    """`{"scores": true}` adds the score of each label. Other parameters are left out."""


class InvocationAnswer(TypedDict):
    """The answer of /invocations."""

    predictions: list[dict[str, str | float]]


class CodedError(TypedDict):
    """The body of an error."""

    error_code: str
    message: str


class MlflowDialect(ServerDialect):
    """The protocol."""

    title = "MLflow"
    error = CodedError

    def operations(self) -> list[Operation]:
        """Return what the protocol answers."""
        return [
            Operation(
                "POST",
                "/invocations",
                self._invoke,
                "Label and score of each row of a data frame, as JSON or as text/csv.",
                request=InvocationBody,
                response=InvocationAnswer,
                example={"dataframe_records": [{"text": "I like it"}, {"text": "never again"}]},
                content_types=("application/json", "text/csv"),
                chooses_model=True,
            ),
            Operation("GET", "/ping", self._ping, "200 if requests are answered, else 503."),
        ]

    def refuse(self, refusal: Refusal) -> Response:
        """Return a refusal: {"error_code", "message"}. A wrong body has the status 400."""
        status = status_without_422(refusal)
        value = CodedError(error_code=_CODES.get(status, "BAD_REQUEST"), message=refusal.message)
        return json_response(value, status, **refusal.headers)

    async def _ping(self, _: Request) -> Response:
        self._service.check_ready()
        return Response("\n", media_type="application/json")

    async def _invoke(self, request: Request) -> Response:
        is_csv = _check_content_type(request.headers.get("content-type", "application/json")) == "text/csv"
        value = await read_bytes(request) if is_csv else await read_json(request)
        model = self._service.model(request.query_params.get("model"))
        body = None if is_csv else _check_frame(value)
        if body is None:  # in a thread: a large file of empty lines must not hold up other requests
            texts, pairs = await asyncio.to_thread(_texts_of_csv, value, model)
        else:
            texts, pairs = _texts_of_frame(body, model)
        all_scores = body is not None and body.params is not None and body.params.scores
        scored = await self._score(request, model, texts, pairs)
        return json_response(InvocationAnswer(predictions=_predictions(scored, all_scores=all_scores)))


def _check_content_type(given: str) -> str:
    """Return the type of a body's content, text/csv or application/json.

    Raises:
        Refusal: It is another type, or not UTF-8 (415).
    """
    kind, *parameters = (part.strip().lower() for part in given.split(";"))
    if kind not in ("text/csv", "application/json"):
        raise Refusal(415, "invalid", f"application/json or text/csv is expected; got {given[:80]!r}.")
    for parameter in parameters:
        if parameter.replace('"', "") not in ("", "charset=utf-8"):
            raise Refusal(415, "invalid", f"The content is read as UTF-8; got {parameter[:80]!r}.")
    return kind


def _check_frame(value: Any) -> InvocationBody:
    given = [form for form in _FORMS if isinstance(value, dict) and form in value]
    if len(given) != 1:
        got = (", ".join(given) or "none of them") if isinstance(value, dict) else json_type(value)
        raise invalid(f"A JSON object with exactly one of {', '.join(_FORMS)} is expected; got {got}.")
    return check_body(value, InvocationBody)


def _texts_of_frame(body: InvocationBody, model: ServedModel) -> Texts:
    if body.dataframe_split is not None:
        check_count(model, len(body.dataframe_split.data))
        return texts_of_rows(_rows_of_split(body.dataframe_split), model)
    if body.dataframe_records is not None:
        return texts_of_rows(body.dataframe_records, model)
    form = "instances" if "instances" in body.model_fields_set else "inputs"
    return _texts_of_values(getattr(body, form), form, model)


def _rows_of_split(frame: SplitFrame) -> list[dict[str, Any]]:
    for number, row in enumerate(frame.data, 1):
        if len(row) != len(frame.columns):
            raise invalid(f"Row {number} has {len(row):,} values, and there are {len(frame.columns):,} columns.")
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.data]


def _texts_of_values(value: Any, form: str, model: ServedModel) -> Texts:
    """Return the texts of `instances` or `inputs`, in any of their shapes."""
    names = model.classifier.columns.of_texts
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        value = _rows_of_columns(value, form, model)
    if not isinstance(value, list):
        raise invalid(f"{form}: a list of texts or rows, or lists by column, is expected; got {json_type(value)}.")
    check_count(model, len(value))
    return texts_of_rows([_named(row, names, number) for number, row in enumerate(value, 1)], model)


def _rows_of_columns(columns: Mapping[str, Any], form: str, model: ServedModel) -> list[dict[str, Any]]:
    lists = {name: values if isinstance(values, list) else [values] for name, values in columns.items()}
    if len({len(values) for values in lists.values()}) > 1:
        raise invalid(f"{form}: the columns have different lengths.")
    check_count(model, max(map(len, lists.values()), default=0))
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _named(row: Any, names: Sequence[str], number: int) -> Mapping[str, Any]:
    """Return a row by the names of its columns."""
    if isinstance(row, dict):
        return row
    values = row if isinstance(row, list) else [row]
    if len(values) != len(names):
        raise invalid(f"Row {number} has {len(values):,} values; the model reads {', '.join(map(repr, names))}.")
    return dict(zip(names, values, strict=True))


def _texts_of_csv(content: bytes, model: ServedModel) -> Texts:
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # of the whole process, so it is only ever raised
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        # lines from Python: within a field of a million lines the reader would else let no other thread run
        reader = csv.DictReader((line for line in lines), strict=True)
        rows = list(itertools.islice(reader, model.limits.texts + 1))  # one more is refused, whatever follows
    except UnicodeDecodeError as error:
        raise Refusal(400, "invalid", f"The CSV is not UTF-8 at byte {error.start + 1}.") from error
    except csv.Error as error:
        raise Refusal(400, "invalid", f"The body is no CSV: {error}.") from error
    return texts_of_rows(rows, model)


def _predictions(scored: Scored, *, all_scores: bool) -> list[dict[str, str | float]]:
    """Return a record for each text, as pandas makes it of the columns."""
    classifier = scored.classifier
    scores = scored.probabilities.astype(np.float32)
    decided = classifier.decision.decide(scored.probabilities)
    names = classifier.problem.prediction_columns(classifier.label_names)
    values = classifier.problem.prediction_values(decided, scores, classifier.classes_)
    columns = {name: np.asarray(column).tolist() for name, column in zip(names, values, strict=True)}
    if all_scores:
        columns |= {f"score:{name}": scores[:, place].tolist() for place, name in enumerate(classifier.label_names)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
