"""Probes for leaks that words do not show: does one simple property of a row alone predict its label?

Each probe turns the rows into codes: whether a text holds an invisible character, in which range its length or its
position in the file lies, which value a column has. `predictive_codes` says what they predict.

A probe reports a code only if the gain is large as well as certain, because much honest text is a little longer in one
class than in another. The thresholds are such that clean data sets and random labels raise nothing
(benchmarks/leak_probes.py measures that).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fullbake.data.predictive_codes import Ids, LabeledSample, Prediction, Sign, check_prediction, find_sign
from fullbake.data.text_checks import TextSearch

MIN_ROWS: Final = 40
"""Samples with fewer labeled rows are not probed."""

ROWS_PER_RANGE: Final = 20
"""Rows in a range of lengths, positions or values, at least."""

MIN_RANGES: Final = 32
"""Ranges of numbers, where there are enough rows; more if there are more than 8 classes, so that a block of rows with
one class is several ranges."""


INVISIBLE: Final = "invisible characters"
WHITE_SPACE: Final = "white space"
LETTERS: Final = "letters"
LENGTH: Final = "length"
POSITION: Final = "position"
COLUMN: Final = "column"

MIN_GAIN: Final = {INVISIBLE: 0.15, WHITE_SPACE: 0.3, LETTERS: 0.5, LENGTH: 0.65, POSITION: 0.5, COLUMN: 0.5}
"""By kind of probe: the share of the mistakes of "always the most frequent label" that the code avoids, at least; of a
sign, the share of the label's rows that have it. Lower for what cannot have a meaning, because there even a small gain
is a leak."""

MIN_CUT_LENGTH: Final = 20
"""Characters. Many texts of one label with exactly the same length are a leak, unless they are as short as a name."""


@dataclass(frozen=True)
class Trace:
    """Something in a text that a reader does not see or does not look at."""

    kind: str
    """The kind of finding that it belongs to."""

    description: str
    """What such a text has."""

    pattern: str
    """Regular expression (RE2) that finds it."""

    wide: bool = False
    """Whether the pattern matches characters outside ASCII alone."""


TRACES: Final = (
    Trace(INVISIBLE, "variation selectors (U+FE0E, U+FE0F)", r"[\x{FE00}-\x{FE0F}]", wide=True),
    Trace(
        INVISIBLE,
        "zero-width characters (U+200B, U+200C, U+200D, U+2060, U+FEFF)",
        r"[\x{200B}-\x{200D}\x{2060}-\x{2064}\x{FEFF}]",
        wide=True,
    ),
    Trace(INVISIBLE, "soft hyphens (U+00AD)", r"\x{00AD}", wide=True),
    Trace(
        INVISIBLE,
        "non-breaking or other spaces that look like a plain one (U+00A0, U+2000 to U+200A, U+202F)",
        r"[\x{00A0}\x{1680}\x{2000}-\x{200A}\x{202F}\x{205F}]",
        wide=True,
    ),
    Trace(
        INVISIBLE,
        "marks of the writing direction (U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069)",
        r"[\x{061C}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}]",
        wide=True,
    ),
    Trace(
        INVISIBLE,
        "other characters without a shape (U+034F, U+180E, U+2800, U+3164, tags)",
        r"[\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180E}\x{2800}\x{3164}\x{FFA0}\x{FFF9}-\x{FFFB}"
        r"\x{E0000}-\x{E0FFF}]",
        wide=True,
    ),
    Trace(
        INVISIBLE,
        "control characters",
        r"[\x{0000}-\x{0008}\x{000B}\x{000C}\x{000E}-\x{001F}\x{007F}-\x{009F}]",
    ),
    Trace(WHITE_SPACE, "a space or tab at the end", r"[ \t]\z"),
    Trace(WHITE_SPACE, "a line end at the end", r"[\r\n]\s*\z"),
    Trace(WHITE_SPACE, "white space at the start", r"\A\s"),
    Trace(WHITE_SPACE, "carriage returns", r"\r"),
    Trace(WHITE_SPACE, "line ends in the middle", r"(?s)\S\s*\n.*\S"),
    Trace(WHITE_SPACE, "tabs", r"\t"),
    Trace(WHITE_SPACE, "two spaces in a row", "  "),
    Trace(LETTERS, "a capital letter at the start", r"\A\P{L}*\p{Lu}"),
    Trace(LETTERS, "a capital letter", r"\p{Lu}"),
    Trace(LETTERS, "a lower-case letter", r"\p{Ll}"),
    Trace(LETTERS, "characters outside ASCII", r"[^\x{0000}-\x{007F}]", wide=True),
    Trace(
        LETTERS, "accents written as characters of their own (not Unicode form NFC)", r"[\x{0300}-\x{036F}]", wide=True
    ),
    Trace(LETTERS, "typographic quotes or dashes", r"[\x{2018}-\x{201F}\x{2013}\x{2014}]", wide=True),
    Trace(LETTERS, "straight quotes", "[\"']"),
    Trace(LETTERS, "full-width letters or digits", r"[\x{FF10}-\x{FF19}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}]", wide=True),
    Trace(LETTERS, "a punctuation mark at the end", r"\p{P}\s*\z"),
)


@dataclass(frozen=True)
class Leak:
    """A property that predicts the label."""

    kind: str
    """The kind of probe, a key of MIN_GAIN."""

    subject: str
    """The property."""

    detail: str
    """What it has to do with the label."""

    found: Prediction | Sign

    rows: int
    """Rows with the property, where only some have it, else all rows."""


def find_leaks(sample: LabeledSample) -> list[Leak]:
    """Run all probes. Returns the leaks, the largest gain of each kind first."""
    if len(sample.texts) < MIN_ROWS or not len(sample.entries[0]):
        return []
    found = [
        *_probe_traces(sample),
        *_probe_lengths(sample),
        *_probe_position(sample),
        *_probe_columns(sample),
    ]
    return sorted(found, key=lambda leak: -leak.found.gain)


# The probes


def _probe_traces(sample: LabeledSample) -> Iterator[Leak]:
    sides = [TextSearch(pa.array(side, pa.large_string())) for side in sample.sides]
    for trace in TRACES:
        has = np.zeros(len(sample.texts), dtype=bool)
        for side in sides:
            has[side.find(trace.pattern, wide=trace.wide)] = True
        if has.any() and not has.all():
            found = _best(sample, trace.kind, has.astype(np.int64))
            if found is not None:
                yield Leak(trace.kind, trace.description, _compare_shares(sample, has, found), found, int(has.sum()))


def _probe_lengths(sample: LabeledSample) -> Iterator[Leak]:
    names = ("a text",) if len(sample.sides) == 1 else ("the first text", "the second text")
    for name, side in zip(names, sample.sides, strict=True):
        lengths = np.array([len(text) for text in side])
        found = check_prediction(sample, _ranges(lengths, sample), MIN_GAIN[LENGTH])
        if found is not None:
            yield Leak(LENGTH, f"the length of {name}", _compare_medians(sample, lengths, found), found, len(side))
            continue
        long_ones = lengths[lengths >= MIN_CUT_LENGTH]
        commonest = int(np.bincount(long_ones).argmax()) if len(long_ones) else 0
        cut = lengths == commonest
        sign = find_sign(sample, cut.astype(np.int64), MIN_GAIN[WHITE_SPACE])
        if sign is not None:
            subject = f"a length of exactly {commonest:,} characters of {name}"
            yield Leak(LENGTH, subject, _compare_shares(sample, cut, sign), sign, int(cut.sum()))


def _probe_position(sample: LabeledSample) -> Iterator[Leak]:
    found = check_prediction(sample, _ranges(sample.rows, sample), MIN_GAIN[POSITION])
    if found is not None:
        yield Leak(POSITION, "the position in the file", "", found, len(sample.rows))


def _probe_columns(sample: LabeledSample) -> Iterator[Leak]:
    for name, values in sample.columns:
        distinct, codes = np.unique(np.array(values, dtype=object), return_inverse=True)
        if len(distinct) < 2:
            continue
        # Values by themselves, and in ranges: numbers and dates are seldom equal.
        best = _best(sample, COLUMN, codes.astype(np.int64), _ranges(_order_of(values, codes), sample))
        if best is not None:
            yield Leak(COLUMN, f"the column {name!r}", "", best, len(values))


def _best(sample: LabeledSample, kind: str, codes: Ids, ranges: Ids | None = None) -> Prediction | Sign | None:
    """Return what predicts best; codes that predict nothing may still be a sign of a label."""
    least = MIN_GAIN[kind]
    tried = [check_prediction(sample, one, least) for one in (codes, ranges) if one is not None]
    predictions = [found for found in tried if found is not None]
    return max(predictions, key=lambda found: found.gain) if predictions else find_sign(sample, codes, least)


def _order_of(values: Sequence[str], codes: Ids) -> npt.NDArray[np.float64]:
    """Return numbers that order a column's values: the values where nearly all are numbers, else by their letters."""
    numbers = np.array([_number(value) for value in values])
    if np.isfinite(numbers).mean() < 0.9:
        return codes.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nanmin(numbers[np.isfinite(numbers)]) - 1)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return np.nan


def _ranges(numbers: npt.NDArray[Any], sample: LabeledSample) -> Ids:
    """Cut numbers into ranges with about as many rows each. Returns the range of each row, from 0."""
    wanted = max(MIN_RANGES, 4 * len(sample.label_names))
    count = max(2, min(len(numbers) // ROWS_PER_RANGE, wanted))
    edges = np.unique(np.quantile(numbers, np.arange(1, count) / count))
    return np.searchsorted(edges, numbers, side="left")


# In words


def _compare_shares(sample: LabeledSample, has: npt.NDArray[np.bool_], found: Prediction | Sign) -> str:
    """Say how frequent the label is among the texts with a trace and among the others."""
    rows, ids = sample.entries
    label = found.label
    if label is None:
        inside = np.bincount(ids[has[rows]], minlength=len(sample.label_names)) / max(1, int(has.sum()))
        outside = np.bincount(ids[~has[rows]], minlength=len(sample.label_names)) / max(1, int((~has).sum()))
        label = int((inside - outside).argmax())
    own = sample.problem.has_label(sample.labels, label)
    return (
        f"in {int(has.sum()):,} texts; of these {own[has].mean():.0%} have the label {sample.label_names[label]!r}, "
        f"of the others {own[~has].mean():.0%}"
    )


def _compare_medians(sample: LabeledSample, lengths: npt.NDArray[Any], found: Prediction) -> str:
    """Say how long the texts of a label are, or those of the most frequent labels."""
    rows, ids = sample.entries
    if found.label is not None:
        own = sample.problem.has_label(sample.labels, found.label)
        name = sample.label_names[found.label]
        with_it, without = (np.median(lengths[chosen]) for chosen in (own, ~own))
        return f"median {with_it:.0f} characters with the label {name!r}, {without:.0f} without"
    frequent = np.argsort(-np.bincount(ids), kind="stable")[:3].tolist()
    medians = (f"{np.median(lengths[rows[ids == label]]):.0f} of {sample.label_names[label]!r}" for label in frequent)
    return f"median characters: {', '.join(medians)}"
