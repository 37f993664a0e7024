"""What a data set says of itself: one line, and tables in a notebook. It reads columns and knows no `Dataset`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullbake.core.console import format_count
from fullbake.core.markup import Html, facts_table, isolate, join, notebook_block, tag, value_table, warnings_block

_SHOWN_LABELS: Final = 20
"""Labels in the table, the most frequent ones."""

RARE_LABEL: Final = 10
"""Rows below which a label is too rare to be learned and scored."""


@dataclass(frozen=True, eq=False)
class DatasetFacts:
    """What is shown of a data set."""

    source: str
    texts: pa.ChunkedArray
    text_pair: pa.ChunkedArray | None

    labels: Mapping[str, int]
    """Rows by label, empty without labels."""

    noun: str
    """What the labels are called."""

    columns: Sequence[str]
    """The columns that were read."""

    dropped: Mapping[str, int]
    """Rare labels that were left out, with their rows."""

    def __len__(self) -> int:
        return len(self.texts)


def describe_dataset(known: DatasetFacts) -> str:
    """Return one line: rows, source and the most frequent labels."""
    pairs = "rows" if known.text_pair is None else "pairs"
    found = sorted(known.labels.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name!r} {count:,}" for name, count in found[:3])
    labels = f", {len(found)} {known.noun}: {named}{', ...' if len(found) > 3 else ''}" if found else ", no labels"
    return f"Dataset({len(known):,} {pairs} of {_name(known.source)!r}{labels})"


def dataset_html(known: DatasetFacts) -> Html:
    """Return what a notebook shows of a data set: rows, labels, lengths and warnings."""
    joined = known.texts if known.text_pair is None else _pairs(known.texts, known.text_pair)
    columns = {"text": known.texts} if known.text_pair is None else {"text": known.texts, "text_pair": known.text_pair}
    facts: dict[str, str | None] = {
        "columns": ", ".join(known.columns),
    }
    facts |= {f"characters in {name}": _lengths(column) for name, column in columns.items()}
    pairs = "rows" if known.text_pair is None else "pairs"
    title = f"{format_count(len(known))} {pairs} of {_name(known.source)}"
    return notebook_block(title, warnings_block(_warnings(known, joined)), facts_table(facts), _labels(known))


def _pairs(texts: pa.ChunkedArray, text_pair: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function("binary_join_element_wise", [texts, text_pair, pa.scalar("\u241e", pa.large_string())])


def _name(source: str) -> str:
    return PurePath(source).name or source


def _lengths(column: pa.ChunkedArray) -> str:
    lengths = pc.call_function("utf8_length", [column]).to_numpy()
    if not len(lengths):
        return ""
    median, most = (int(np.quantile(lengths, share, method="lower")) for share in (0.5, 0.9))
    return f"half of them over {median:,}, one in ten over {most:,}, the longest {int(lengths.max()):,}"


def _labels(known: DatasetFacts) -> Html | None:
    if not known.labels:
        return None
    found = sorted(known.labels.items(), key=lambda item: -item[1])
    most = max(1, found[0][1])
    rows = [
        (isolate(name), format_count(count), f"{count / max(1, len(known)):.1%}", _bar(count / most))
        for name, count in found[:_SHOWN_LABELS]
    ]
    more = len(found) - _SHOWN_LABELS
    table = value_table(("label", "rows", "share", ""), rows)
    return join(table, tag("p", f"and {more:,} more {known.noun}", class_="s") if more > 0 else None)


def _bar(share: float) -> Html:
    return tag("span", class_="b", style=f"width:{8 * share:.2f}em")


def _warnings(known: DatasetFacts, joined: pa.ChunkedArray) -> list[str]:
    empty = int(pc.call_function("sum", [pc.call_function("equal", [known.texts, ""])]).as_py() or 0)
    repeated = len(joined) - int(pc.call_function("count_distinct", [joined]).as_py())
    rare = [name for name, count in known.labels.items() if count < RARE_LABEL]
    named = ", ".join(map(repr, rare[:3])) + (", ..." if len(rare) > 3 else "")
    found = {
        f"{empty:,} texts are empty.": empty,
        f"{repeated:,} rows have a text that another row has too.": repeated,
        f"{len(rare):,} of {len(known.labels):,} {known.noun} have fewer than {RARE_LABEL} rows ({named}): too few to "
        "learn them and to score them.": rare,
        f"{len(known.dropped):,} rare labels were left out (--drop-rare).": known.dropped,
    }
    return [sentence for sentence, applies in found.items() if applies]
