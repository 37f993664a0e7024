"""Labels that may have been meant otherwise than they are read: nothing is changed, but it is said.

People write missing values as words, put files with a header one after another, and let a spreadsheet or pandas change
the spelling of a value. Each of these makes a class of its own in silence.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fullbake.config.problems import Problem
from fullbake.config.sections import Columns
from fullbake.data.normalization import normalize

_NAMED: Final = 5
"""Labels that a message names, at most."""

_LIST_IN_WORDS: Final = re.compile(r"\s*(\[.*\]|\{.*\}|\(.*,.*\))\s*", re.DOTALL)
"""A label that is a list written as text: ['a', 'b'], [0, 1, 1], {"a"}, (a, b)."""

_SEPARATORS: Final = ("|", ";", ",", "/")
"""What people write between labels of one field."""

_MISSING: Final = re.compile(r"nan|nat|null|<na>|#n/a|#value!|#ref!", re.IGNORECASE)
"""What pandas, databases and spreadsheets write for a value that is missing. "None" and "NA" are often real labels."""

_FORMULA: Final = re.compile(r'=".*"', re.DOTALL)
"""How a spreadsheet is made to keep a value as text: ="01"."""

_ROWS_OF_A_HEADER: Final = 20
"""A header is looked for among labels that at most one row in so many has."""

_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

_TRUTH: Final = {"true": "1", "false": "0"}


@dataclass(frozen=True)
class LabelDoubt:
    """Labels that may have been meant otherwise than they are read."""

    kind: str
    """What is doubtful, for programs."""

    sentence: str
    """The same for people, with the flag to use."""

    count: int
    """The number of rows or labels concerned."""


def find_label_doubts(
    counts: Mapping[str, int], problem: Problem, columns: Columns, *, rows: int, one_label_rows: int
) -> list[LabelDoubt]:
    """Return what may have been meant otherwise: words for a missing value, a header among the rows, lists in words.

    Args:
        counts: label to its rows.
        problem: the problem that the labels pose.
        columns: the columns they come from.
        rows: the number of rows.
        one_label_rows: the rows that have exactly one label.
    """
    found = [_missing_values(counts), _column_name(counts, columns), _formulas(counts)]
    if problem.exclusive:
        found += [lists_in_words(list(counts)), _separated_words(counts)]
    doubts = [doubt for doubt in found if doubt is not None]
    if problem.exclusive:
        return doubts
    alone = [name for name, count in sorted(counts.items()) if count == 1]
    if alone:
        label = "one label has" if len(alone) == 1 else f"{len(alone):,} labels have"
        sentence = (
            f"{label} a single row ({list_labels(alone)}), which cannot be both in training and in validation: a split "
            "by shares keeps it in training, and nothing is known of how well it is predicted; --drop-rare 2 leaves "
            "such labels out"
        )
        doubts.append(LabelDoubt("labels of one row", sentence, len(alone)))
    if rows > 1 and one_label_rows == rows and len(counts) > 1:
        written = "columns of 0 and 1" if columns.labels else "lists"
        sentence = (
            f"each of the {rows:,} rows has exactly one label, but {written} mean that a row may have many: the "
            "classifier will give each label a yes or no of its own; --exclusive makes classes of them"
        )
        doubts.append(LabelDoubt("one label a row", sentence, rows))
    return doubts


def lists_in_words(names: Sequence[str]) -> LabelDoubt | None:
    """Return the doubt that labels are lists written as text, such as ['a', 'b'] or [0, 1, 1]; None without one."""
    found = [name for name in names if _LIST_IN_WORDS.fullmatch(name)]
    if not found:
        return None
    labels = "one label looks" if len(found) == 1 else f"{len(found):,} labels look"
    sentence = (
        f"{labels} like a list written as text, such as {found[0][:40]!r}, and each is a class of its own; write the "
        "lists as JSON Lines (in Python: ast.literal_eval), or take the brackets away and pass --label-separator"
    )
    return LabelDoubt("lists in words", sentence, len(found))


def _separated_words(counts: Mapping[str, int]) -> LabelDoubt | None:
    """Return the doubt that labels are several ones with a separator between them: all parts are labels too."""
    for separator in _SEPARATORS:
        found = [
            name
            for name in counts
            if separator in name and all(part.strip() in counts for part in name.split(separator))
        ]
        if found:
            sentence = (
                f"{len(found):,} labels are made of other labels with {separator!r} between them, such as "
                f"{found[0][:40]!r}, and each is a class of its own; --label-separator {separator!r} reads them as "
                "several labels"
            )
            return LabelDoubt("labels with a separator", sentence, len(found))
    return None


def find_alike_labels(names: Sequence[str]) -> list[list[str]]:
    """Return groups of labels that differ only in how they are written.

    They are equal after NFKC, case folding and collapsing of white space, or as numbers (1 and 1.0); or they are all of
    0, 1, true and false.

    Args:
        names: the labels.

    Returns:
        The groups of two labels or more, each sorted.
    """
    meanings = {name: _meaning(name) for name in names}
    if set(meanings.values()) <= {"0", "1", "true", "false"}:
        meanings = {name: _TRUTH.get(meaning, meaning) for name, meaning in meanings.items()}
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[meanings[name]].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _meaning(name: str) -> str:
    folded = normalize(name)
    return f"{float(folded):g}" if _NUMBER.fullmatch(folded) and "." in folded and len(folded) < 16 else folded


def _missing_values(counts: Mapping[str, int]) -> LabelDoubt | None:
    """Return the doubt that a label is a word for a missing value."""
    found = [name for name in counts if _MISSING.fullmatch(name.strip())]
    if not found:
        return None
    rows = sum(counts[name] for name in found)
    sentence = (
        f"the label {list_labels(found)} ({rows:,} rows) is how pandas or a spreadsheet writes a missing value, and it "
        "is a class of its own; empty the field (--drop-unlabelled leaves such rows out), or rename the label"
    )
    return LabelDoubt("missing value", sentence, rows)


def _column_name(counts: Mapping[str, int], columns: Columns) -> LabelDoubt | None:
    """Return the doubt that the header of a file stands among its rows, as in files put one after another."""
    found = [name for name in counts if columns.label is not None and normalize(name) == normalize(columns.label)]
    rows = sum(counts[name] for name in found)
    # A column `spam` may well hold the label `spam`, in many rows.
    if not found or rows * _ROWS_OF_A_HEADER > sum(counts.values()):
        return None
    sentence = (
        f"{'one row has' if rows == 1 else f'{rows:,} rows have'} the label {list_labels(found)}, which is the name of "
        "the column: if files with a header were put one after another, delete the header among the rows"
    )
    return LabelDoubt("header among the rows", sentence, rows)


def _formulas(counts: Mapping[str, int]) -> LabelDoubt | None:
    """Return the doubt that labels are formulas of a spreadsheet that stand for a text."""
    found = [name for name in counts if _FORMULA.fullmatch(name.strip())]
    if not found:
        return None
    sentence = (
        f"{'one label is' if len(found) == 1 else f'{len(found):,} labels are'} written as a formula of a spreadsheet "
        f"({list_labels(found)}); write the value alone"
    )
    return LabelDoubt("labels as formulas", sentence, len(found))


def list_labels(names: Sequence[str]) -> str:
    """Return some labels in quotes, shortened, with an ellipsis where more follow."""
    return ", ".join(repr(name[:60]) for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
