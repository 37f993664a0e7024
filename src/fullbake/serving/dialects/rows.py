"""The texts of rows that are given by the names of their columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from fullbake.serving.refusals import invalid
from fullbake.serving.service import ServedModel, check_count

Texts = tuple[Sequence[str], Sequence[str] | None]
"""The texts of a request, and the second text of each, where there are pairs."""


class ScoredLabel(TypedDict):
    """A label and its score, as several protocols have it."""

    label: str
    score: float


def texts_of_rows(rows: Sequence[Mapping[str, Any]], model: ServedModel) -> Texts:
    """Return the texts of rows by the names of the columns of training. Other columns are left out.

    Args:
        rows: Values by the name of the column.
        model: Whose columns.

    Raises:
        Refusal: There are too many rows, or a row has no text in such a column.
    """
    check_count(model, len(rows))
    names = model.classifier.columns.of_texts
    columns = [[_text_of(row, name, number) for number, row in enumerate(rows, 1)] for name in names]
    return columns[0], columns[1] if len(columns) > 1 else None


def _text_of(row: Mapping[str, Any], name: str, number: int) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        got = json_type(value) if name in row else "no such column"
        raise invalid(f"Row {number}: a text is expected in {name!r}; got {got}.")
    return value


def json_type(value: Any) -> str:
    """Return what a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
