"""Probes for leaks that words do not show: does one simple property of a row alone predict its label?

Each probe turns the rows into codes: whether a text holds an invisible character, in which range its length or its
position in the file lies, which value a column has. Half of the texts then predict the labels of the other half by the
most frequent label of each code, and the reverse. So chance does not raise the result: a code that means nothing
predicts no better than the most frequent label does. All rows of one text are in the same half.

A probe reports a code only if the gain is large as well as certain, because much honest text is a little longer in one
class than in another. The thresholds are such that clean data sets and random labels raise nothing
(benchmarks/leak_probes.py measures that).

Work and memory grow with the labels that rows have, never with rows times classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from fullbake.config.problems import Problem
from fullbake.data.dataset import PAIR_SEPARATOR

Ids = npt.NDArray[np.int64]

MIN_ROWS: Final = 40
"""Samples with fewer labeled rows are not probed."""

MIN_LABEL_ROWS: Final = 20
"""A label with fewer rows in the sample is not probed on its own."""

MIN_Z: Final = 4.0
"""Standard errors by which the number of rows that only the code predicts must exceed that of the rows that only the
most frequent label predicts."""

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

MIN_GAIN: Final = {INVISIBLE: 0.2, WHITE_SPACE: 0.3, LETTERS: 0.5, LENGTH: 0.5, POSITION: 0.5, COLUMN: 0.5}
"""By kind of probe: the share of the mistakes of "always the most frequent label" that the code avoids, at least. Lower
for what cannot have a meaning, because there even a small gain is a leak. On clean data sets the length reaches 0.30
(ChnSentiCorp), and no trace 0.08."""


@dataclass(frozen=True)
class Trace:
    """Something in a text that a reader does not see or does not look at."""

    kind: str
    """The kind of finding that it belongs to."""

    description: str
    """What such a text has."""

    pattern: str
    """Regular expression (RE2) that finds it."""


TRACES: Final = (
    Trace(INVISIBLE, "variation selectors (U+FE0E, U+FE0F)", r"[\x{FE00}-\x{FE0F}]"),
    Trace(
        INVISIBLE,
        "zero-width characters (U+200B, U+200C, U+200D, U+2060, U+FEFF)",
        r"[\x{200B}-\x{200D}\x{2060}-\x{2064}\x{FEFF}]",
    ),
    Trace(INVISIBLE, "soft hyphens (U+00AD)", r"\x{00AD}"),
    Trace(
        INVISIBLE,
        "non-breaking or other spaces that look like a plain one (U+00A0, U+2000 to U+200A, U+202F)",
        r"[\x{00A0}\x{1680}\x{2000}-\x{200A}\x{202F}\x{205F}]",
    ),
    Trace(
        INVISIBLE,
        "marks of the writing direction (U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069)",
        r"[\x{061C}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}]",
    ),
    Trace(
        INVISIBLE,
        "other characters without a shape (U+034F, U+180E, U+2800, U+3164, tags)",
        r"[\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180E}\x{2800}\x{3164}\x{FFA0}\x{FFF9}-\x{FFFB}"
        r"\x{E0000}-\x{E0FFF}]",
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
    Trace(LETTERS, "characters outside ASCII", r"[^\x{0000}-\x{007F}]"),
    Trace(LETTERS, "accents written as characters of their own (not Unicode form NFC)", r"[\x{0300}-\x{036F}]"),
    Trace(LETTERS, "typographic quotes or dashes", r"[\x{2018}-\x{201F}\x{2013}\x{2014}]"),
    Trace(LETTERS, "straight quotes", "[\"']"),
    Trace(LETTERS, "full-width letters or digits", r"[\x{FF10}-\x{FF19}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}]"),
    Trace(LETTERS, "a punctuation mark at the end", r"\p{P}\s*\z"),
)


@dataclass(frozen=True)
class LabeledSample:
    """Labeled rows that are probed."""

    texts: tuple[str, ...]
    """(rows,) texts, or joined pairs."""

    labels: npt.NDArray[Any]
    """Class ids (rows,), or a label matrix of 0 and 1 (rows, classes)."""

    label_names: tuple[str, ...]
    problem: Problem
    rows: Ids
    """(rows,) the number of each row in the file."""

    text_ids: Ids
    """(rows,) equal texts have the same number, from 0."""

    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, (rows,) values) of each column that is neither text nor label."""

    @cached_property
    def entries(self) -> tuple[Ids, Ids]:
        """Positions and label ids of all labels of all rows."""
        return self.problem.label_entries(self.labels)

    @cached_property
    def sides(self) -> tuple[tuple[str, ...], ...]:
        """The texts; of pairs the first and the second ones."""
        separator = f" {PAIR_SEPARATOR} "
        if not all(separator in text for text in self.texts):
            return (self.texts,)
        first, second = zip(*(text.split(separator, 1) for text in self.texts), strict=True)
        return first, second

    @cached_property
    def held(self) -> npt.NDArray[np.bool_]:
        """(rows,) which of the two halves each row is in, drawn by text."""
        distinct = int(self.text_ids.max()) + 1
        drawn = np.random.Generator(np.random.PCG64(0)).permutation(distinct) < distinct // 2
        halves: npt.NDArray[np.bool_] = drawn[self.text_ids]
        return halves

    @property
    def independence(self) -> float:
        """Different texts over rows: copies of a text do not make a result more certain."""
        return (int(self.text_ids.max()) + 1) / len(self.texts)


@dataclass(frozen=True)
class Prediction:
    """How well one property alone predicts the labels of the rows that were held out."""

    label: int | None
    """The label whose presence is predicted; None where the classes of all rows are."""

    correct: float
    """Share of the rows that are predicted correctly."""

    baseline: float
    """The same without the property: always the most frequent label, or always present, or always absent."""

    positions: tuple[int, ...]
    """Positions of the first rows that are predicted correctly with the property and wrongly without."""

    @property
    def gain(self) -> float:
        """Share of the baseline's mistakes that the property avoids."""
        return (self.correct - self.baseline) / max(1e-9, 1 - self.baseline)


@dataclass(frozen=True)
class Leak:
    """A property that predicts the label."""

    kind: str
    """The kind of probe, a key of MIN_GAIN."""

    subject: str
    """The property."""

    detail: str
    """What it has to do with the label."""

    found: Prediction

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
    sides = [pa.array(side, pa.large_string()) for side in sample.sides]
    for trace in TRACES:
        has = np.zeros(len(sample.texts), dtype=bool)
        for side in sides:
            matched = pc.call_function("match_substring_regex", [side], pc.MatchSubstringOptions(trace.pattern))
            has |= matched.to_numpy(zero_copy_only=False)
        # A trace of one row, or of all but one, is in one half only.
        if 1 < has.sum() < len(has) - 1:
            found = _check(sample, trace.kind, has.astype(np.int64))
            if found is not None:
                yield Leak(trace.kind, trace.description, _compare_shares(sample, has, found), found, int(has.sum()))


def _probe_lengths(sample: LabeledSample) -> Iterator[Leak]:
    names = ("a text",) if len(sample.sides) == 1 else ("the first text", "the second text")
    for name, side in zip(names, sample.sides, strict=True):
        lengths = np.array([len(text) for text in side])
        found = _check(sample, LENGTH, _ranges(lengths, sample))
        if found is not None:
            yield Leak(LENGTH, f"the length of {name}", _compare_medians(sample, lengths, found), found, len(side))


def _probe_position(sample: LabeledSample) -> Iterator[Leak]:
    found = _check(sample, POSITION, _ranges(sample.rows, sample))
    if found is not None:
        yield Leak(POSITION, "the position in the file", "", found, len(sample.rows))


def _probe_columns(sample: LabeledSample) -> Iterator[Leak]:
    for name, values in sample.columns:
        distinct, codes = np.unique(np.array(values, dtype=object), return_inverse=True)
        if len(distinct) < 2:
            continue
        # Values by themselves, and in ranges: numbers and dates are seldom equal.
        tried = [codes.astype(np.int64), _ranges(_order_of(values, codes), sample)]
        best = max(
            (found for one in tried if (found := _check(sample, COLUMN, one)) is not None),
            key=lambda found: found.gain,
            default=None,
        )
        if best is not None:
            yield Leak(COLUMN, f"the column {name!r}", "", best, len(values))


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


# What a code predicts


def _check(sample: LabeledSample, kind: str, codes: Ids) -> Prediction | None:
    """Return what the codes (rows,) predict, None if that is too little or too uncertain for this kind of probe."""
    least = MIN_GAIN[kind]
    tables = _HalfTables.of(sample, codes)
    if sample.problem.exclusive:
        gained, certain = tables.predict_classes()
        if gained.gain >= least and certain * np.sqrt(sample.independence) >= MIN_Z:
            return replace(gained, positions=_won_rows(sample, codes, None))
    found, certainties = tables.predict_labels()
    for prediction, certain in zip(found, certainties, strict=True):
        if prediction.gain >= least and certain * np.sqrt(sample.independence) >= MIN_Z:
            assert prediction.label is not None
            return replace(prediction, positions=_won_rows(sample, codes, prediction.label))
    return None


@dataclass(frozen=True)
class _HalfTables:
    """How often each code occurs with each label, in both halves of the texts."""

    counts: tuple[csr_array, csr_array]
    """For each half (codes, classes): rows with this code and this label."""

    sizes: tuple[Ids, Ids]
    """For each half (codes,): rows with this code."""

    @classmethod
    def of(cls, sample: LabeledSample, codes: Ids) -> "_HalfTables":
        """Count."""
        rows, labels = sample.entries
        shape = int(codes.max()) + 1, len(sample.label_names)
        counts, sizes = [], []
        for half in (False, True):
            mine = sample.held[rows] == half
            ones = np.ones(int(mine.sum()), dtype=np.int64)
            counts.append(csr_array((ones, (codes[rows[mine]], labels[mine])), shape=shape))
            sizes.append(np.bincount(codes[sample.held == half], minlength=shape[0]))
        return cls((counts[0], counts[1]), (sizes[0], sizes[1]))

    def predict_classes(self) -> tuple[Prediction, float]:
        """Predict the class of each row by the most frequent class of its code. Returns that and its certainty (z)."""
        correct = baseline = differing = 0
        for fitted, held in ((0, 1), (1, 0)):
            usual = int(self.counts[fitted].sum(axis=0).argmax())
            predicted = _most_frequent(self.counts[fitted], usual)
            own = _at(self.counts[held], predicted)
            of_usual = _at(self.counts[held], np.full(len(predicted), usual))
            correct, baseline = correct + int(own.sum()), baseline + int(of_usual.sum())
            differing += int((own + of_usual)[predicted != usual].sum())
        rows = max(1, int(self.sizes[0].sum() + self.sizes[1].sum()))
        certain = (correct - baseline) / np.sqrt(max(1, differing))
        return Prediction(None, correct / rows, baseline / rows, ()), float(certain)

    def predict_labels(self) -> tuple[list[Prediction], list[float]]:
        """Predict for each label which rows have it. Returns the predictions, largest gain first, and certainties."""
        classes = self.counts[0].shape[1]
        errors, usual_errors, differing = (np.zeros(classes, dtype=np.int64) for _ in range(3))
        for fitted, held in ((0, 1), (1, 0)):
            rows = int(self.sizes[held].sum())
            entries = self.counts[fitted].tocoo()
            codes, labels = entries.coords
            positive = 2 * entries.data > self.sizes[fitted][codes]
            codes, labels = codes[positive], labels[positive]
            named = np.bincount(labels, self.sizes[held][codes], classes).astype(np.int64)
            hits = np.bincount(labels, _pairs(self.counts[held], codes, labels), classes).astype(np.int64)
            totals = np.asarray(self.counts[held].sum(axis=0)).ravel()
            usual = 2 * np.asarray(self.counts[fitted].sum(axis=0)).ravel() > self.sizes[fitted].sum()
            errors += named - hits + totals - hits
            usual_errors += np.where(usual, rows - totals, totals)
            differing += np.where(usual, rows - named, named)
        rows = max(1, int(self.sizes[0].sum() + self.sizes[1].sum()))
        frequent = np.asarray((self.counts[0] + self.counts[1]).sum(axis=0)).ravel() >= MIN_LABEL_ROWS
        gained = np.where(frequent, (usual_errors - errors) / np.maximum(1, usual_errors), 0.0)
        order = np.argsort(-gained, kind="stable")[: int((gained > 0).sum())].tolist()
        found = [
            Prediction(label, 1 - int(errors[label]) / rows, 1 - int(usual_errors[label]) / rows, ()) for label in order
        ]
        certain = (usual_errors - errors)[order] / np.sqrt(np.maximum(1, differing[order]))
        return found, certain.tolist()


def _most_frequent(counts: csr_array, usual: int) -> Ids:
    """Return the most frequent label of each code (codes,); `usual` on a tie, and for a code without rows."""
    entries = counts.tocoo()
    codes, labels = entries.coords
    order = np.lexsort((labels == usual, entries.data, codes))  # the last entry of a code is its most frequent label
    predicted = np.full(counts.shape[0], usual, dtype=np.int64)
    predicted[codes[order]] = labels[order]
    return predicted


def _at(counts: csr_array, labels: Ids) -> Ids:
    """Return the count of one label for each code (codes,)."""
    return _pairs(counts, np.arange(len(labels)), labels)


def _pairs(counts: csr_array, codes: Ids, labels: Ids) -> Ids:
    """Return the counts of some (code, label) pairs."""
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(counts[codes, labels]).ravel()


def _won_rows(sample: LabeledSample, codes: Ids, label: int | None) -> tuple[int, ...]:
    """Return the first rows that the codes predict correctly and the most frequent label does not."""
    rows, ids = sample.entries
    shape = int(codes.max()) + 1, len(sample.label_names)
    counts = csr_array((np.ones(len(rows), dtype=np.int64), (codes[rows], ids)), shape=shape)
    if label is None:
        usual = int(counts.sum(axis=0).argmax())
        predicted = _most_frequent(counts, usual)[codes]
        won = (predicted == sample.labels) & (predicted != usual)
    else:
        has = sample.problem.has_label(sample.labels, label)
        named = (2 * _at(counts, np.full(shape[0], label)) > np.bincount(codes, minlength=shape[0]))[codes]
        won = (named == has) & (named != (2 * has.sum() > len(has)))
    return tuple(np.flatnonzero(won)[:5].tolist())


# In words


def _compare_shares(sample: LabeledSample, has: npt.NDArray[np.bool_], found: Prediction) -> str:
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
