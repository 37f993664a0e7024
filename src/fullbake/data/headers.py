"""What the first line of a CSV, TSV or .txt table is, where it does not hold the names that were asked for.

It may be separated by another character, be a row already, or be Excel's mark `sep=;`. Nothing is guessed: the answers
name the flag that reads the file.
"""

import re
from collections.abc import Sequence
from typing import Final

from fullbake.core.errors import DataError, did_you_mean

_SEPARATORS: Final = (";", "\t", ",", "|")
_EXCEL_MARK: Final = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
_LONG_NAME: Final = 60
_WORDS_OF_A_TEXT: Final = 5
_MOST_NAMES_SHOWN: Final = 12


def separator_of_mark(line: str) -> str | None:
    """Return the delimiter that a first line such as `sep=;` names for Excel; None for any other line."""
    found = _EXCEL_MARK.fullmatch(line)
    return found[1] if found else None


def delimiter_flag(delimiter: str) -> str:
    """Return the flag for a delimiter, as it is typed."""
    return f"--delimiter '{delimiter}'" if delimiter != "\t" else r"--delimiter '\t'"


def looks_like_a_row(names: Sequence[str]) -> bool:
    """Return True if names of columns hardly look like these: one is a number, or as long as a text."""
    return any(_is_number(name) or len(name) > _LONG_NAME or len(name.split()) >= _WORDS_OF_A_TEXT for name in names)


def missing_column_error(where: str, names: Sequence[str], delimiter: str, wanted: Sequence[str]) -> DataError:
    """Return the error for columns that the first line does not name.

    Args:
        where: the place of the line.
        names: its fields.
        delimiter: what separated them.
        wanted: the columns that were asked for; one of them at least is missing.
    """
    missing = next(name for name in wanted if name not in names)
    other = _other_delimiter(delimiter.join(names), delimiter, wanted)
    if other is not None:
        return DataError(
            f"no column {missing!r}: the first line is separated by {other!r}, not by {delimiter!r}",
            where=where,
            got=repr(delimiter.join(names)[:80]),
            remedy=f"Pass {delimiter_flag(other)}.",
        )
    # Where one name is found, the line is no row.
    spelled = {name.strip().casefold() for name in names}
    is_header = any(name.casefold() in spelled for name in wanted)
    if not is_header and looks_like_a_row(names):
        return row_for_header_error(where, names, wanted, f"no column {missing!r}")
    remedy = (
        f"{did_you_mean(missing, names)} The first line has to hold the column names, separated by the delimiter (see "
        "--delimiter)."
    )
    if not is_header:
        remedy += f" If it is a row already, pass the names of all columns: --no-header {_names_for(names, wanted)}."
    return DataError(f"no column {missing!r}", where=where, remedy=remedy)


def row_for_header_error(where: str, names: Sequence[str], wanted: Sequence[str], what: str) -> DataError:
    """Return the error for a first line that looks like a row.

    Args:
        where: the place of the line.
        names: its fields.
        wanted: the columns that were asked for; they stand in the example of the flag.
        what: the fault that led here.
    """
    return DataError(
        f"{what}: the first line looks like a row, not like names",
        where=where,
        expected="the column names",
        got=", ".join(repr(name[:40]) for name in names[:6]),
        remedy=f"If the file has no line of names, pass the names of its {len(names)} columns, in their order, such as "
        f"--no-header {_names_for(names, wanted)}.",
    )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _other_delimiter(line: str, delimiter: str, wanted: Sequence[str]) -> str | None:
    """Return the delimiter under which a line holds the wanted names; or the only one it holds, if it is one field."""
    fields = {other: [field.strip().strip('"') for field in line.split(other)] for other in _SEPARATORS}
    others = [other for other in _SEPARATORS if other != delimiter and len(fields[other]) > 1]
    fitting = [other for other in others if set(wanted) <= set(fields[other])]
    if fitting:
        return fitting[0]
    is_one_field = delimiter not in line
    # A comma or a bar may belong to a text; several names need short words on both sides.
    short = [other for other in others if not looks_like_a_row(fields[other])]
    return short[0] if is_one_field and len(short) == 1 and short[0] in ";\t" else None


def _names_for(fields: Sequence[str], wanted: Sequence[str]) -> str:
    """Return names for all fields of a row, with commas: the wanted ones where they may belong."""
    names = [f"column{number}" for number in range(1, len(fields) + 1)]
    longest = max(range(len(fields)), key=lambda place: len(fields[place]))
    others = [place for place in range(len(fields)) if place != longest]
    for name, place in zip(wanted, [longest, *others], strict=False):
        names[place] = name
    return ",".join(names[:_MOST_NAMES_SHOWN]) + (",..." if len(names) > _MOST_NAMES_SHOWN else "")
