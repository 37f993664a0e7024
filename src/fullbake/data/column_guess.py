"""Guess which columns of a table hold the texts and the labels, for an error that offers a command line.

Nothing is read by a guess: a person who did not name the columns is shown it, and types it or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from fullbake.data.tables import Table

ROWS: Final = 300
"""So many first rows are looked at."""

MOST_LABEL_VALUES: Final = 50
"""A column with more different values in the rows looked at is not taken for labels."""

_TEXT_NAMES: Final = (
    *("text", "texts", "review", "sentence", "comment", "content", "body", "message", "tweet", "document", "abstract"),
    *("description", "question", "query", "utterance", "sms", "post", "title", "headline", "v2"),
)
_LABEL_NAMES: Final = (
    *("label", "labels", "class", "category", "target", "topic", "sentiment", "intent", "stars", "rating", "emotion"),
    *("polarity", "tag", "genre", "score", "y", "type", "v1"),
)


@dataclass(frozen=True)
class ColumnGuess:
    """The columns of a table, and which of them may be the texts and the labels."""

    names: tuple[str, ...]
    """All columns."""

    text: str | None
    """The column of the texts; None where none looks like it."""

    label: str | None
    """The column of the labels; None where none looks like it."""

    labels: tuple[str, ...]
    """Columns of 0 and 1, one for each label, if there are several and no column of labels."""

    latin: bool
    """Whether most letters of the texts are Latin."""

    classes: int
    """Different values of `label` in the rows looked at."""


def guess_columns(table: Table) -> ColumnGuess:
    """Look at the first rows of a table. table: opened with all its columns.

    Raises:
        DataError: a row cannot be read.
    """
    columns: dict[str, list[str]] = {name: [] for name in table.columns}
    for chunk in islice(table.chunks(ROWS), 1):
        for name, values in chunk.columns.items():
            columns[name] = [value if isinstance(value, str) else " ".join(map(str, value)) for value in values]
    text = _text_column(columns)
    others = {name: values for name, values in columns.items() if name != text}
    flags = tuple(name for name, values in others.items() if values and set(values) <= {"0", "1"})
    label = _label_column(others, flags)
    letters = [letter for value in columns.get(text or "", [])[:50] for letter in value if letter.isalpha()]
    latin = sum(letter < "\u0250" for letter in letters) >= 0.5 * len(letters)
    several = flags if label is None and len(flags) > 1 else ()
    return ColumnGuess(table.names, text, label, several, latin, 0 if label is None else len(set(columns[label])))


def _text_column(columns: Mapping[str, Sequence[str]]) -> str | None:
    """Return the column of the longest values; of nearly equal ones that with a usual name."""
    lengths = {name: sum(map(len, values)) / len(values) for name, values in columns.items() if values}
    lengths = {name: length for name, length in lengths.items() if len(set(columns[name])) > 1 and length >= 6}
    if not lengths:
        return None
    longest = max(lengths.values())
    near = [name for name, length in lengths.items() if length >= 0.3 * longest]
    return min(near, key=lambda name: (_rank(name, _TEXT_NAMES), -lengths[name]))


def _label_column(columns: Mapping[str, Sequence[str]], flags: Sequence[str]) -> str | None:
    """Return the column of few values that come again and again; of several that with a usual name."""
    found = [name for name, values in columns.items() if _repeats(values)]
    usual = [name for name in found if _rank(name, _LABEL_NAMES) < len(_LABEL_NAMES)]
    if usual:
        return min(usual, key=lambda name: _rank(name, _LABEL_NAMES))
    single = [name for name in found if name not in flags] if len(flags) > 1 else found
    return min(single, key=lambda name: len(set(columns[name])), default=None)


def _repeats(values: Sequence[str]) -> bool:
    different = len(set(values))
    return 2 <= different <= MOST_LABEL_VALUES and different <= 0.5 * len(values) and "" not in values


def _rank(name: str, known: Sequence[str]) -> int:
    """Return the place of a name among usual ones; their number if it is not among them."""
    spelled = name.strip().casefold()
    return known.index(spelled) if spelled in known else len(known)
