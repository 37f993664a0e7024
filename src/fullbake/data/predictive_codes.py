"""What codes of rows say about their labels: does a number for each row, such as the range of its length, predict them?

Half of the texts predict the labels of the other half by the most frequent label of each code, and the reverse. So
chance does not raise the result: a code that means nothing predicts no better than the most frequent label does. All
rows of one text are in the same half.

Such a prediction does not see what only rows of the most frequent label have, because it predicts that label anyway.
So codes can also be looked at as signs of a label: nearly all held-out rows with the code have the label.

Work and memory grow with the labels that rows have, never with rows times classes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import rel_entr

from fullbake.config.problems import Problem
from fullbake.data.dataset import PAIR_SEPARATOR

Ids = npt.NDArray[np.int64]

MIN_LABEL_ROWS: Final = 20
"""A label with fewer rows in the sample is not predicted on its own."""

MIN_Z: Final = 4.0
"""Standard errors by which the number of rows that only the code predicts must exceed that of the rows that only the
most frequent label predicts."""

MAX_EXCEPTIONS: Final = 0.1
"""Of the rows with a sign of a label, so much of the usual share of rows without that label is accepted."""

MAX_CHANCE: Final = 1e-4
"""A sign is certain if chance would give any label a sign as good less often than this (by Chernoff's bound)."""

MIN_EXPECTED: Final = 3.0
"""Rows with a code and without the label that there would have to be by chance before the code can be a sign of it."""


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
class Sign:
    """Codes that nearly only the rows of one label have, judged on the rows that were held out."""

    label: int
    """The label."""

    precision: float
    """Share of the rows with the codes that have the label."""

    share: float
    """Share of all rows that have the label."""

    coverage: float
    """Share of the label's rows that have the codes."""

    positions: tuple[int, ...]
    """Positions of the first rows with the codes and the label."""

    @property
    def gain(self) -> float:
        """The coverage, which is compared with the gain of predictions."""
        return self.coverage


def check_prediction(sample: LabeledSample, codes: Ids, least: float) -> Prediction | None:
    """Return how well codes predict the label.

    Args:
        sample: The rows.
        codes: (rows,) code of each row, from 0.
        least: The gain that a prediction needs.

    Returns:
        The prediction of the classes, else of one label; None if the gain is too small or too uncertain.
    """
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


def find_sign(sample: LabeledSample, codes: Ids, least: float) -> Sign | None:
    """Return the label that some of the codes are a sign of.

    Args:
        sample: The rows.
        codes: (rows,) code of each row, from 0.
        least: The coverage that a sign needs.

    Returns:
        The sign with the largest coverage; None if it is too small or too uncertain.
    """
    found, evidence = _HalfTables.of(sample, codes).find_signs()
    needed = np.log(len(sample.label_names) / MAX_CHANCE)
    for sign, certain in zip(found, evidence, strict=True):
        if sign.coverage >= least and certain * sample.independence >= needed:
            return replace(sign, positions=_rows_with_sign(sample, codes, sign.label))
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

    def find_signs(self) -> tuple[list[Sign], list[float]]:
        """Find labels that have nearly all rows of some codes. Returns the signs, and the log odds against chance."""
        classes = self.counts[0].shape[1]
        named, hits = (np.zeros(classes, dtype=np.int64) for _ in range(2))
        for fitted, held in ((0, 1), (1, 0)):
            codes, labels = _codes_of_labels(self.counts[fitted], self.sizes[fitted])
            named += np.bincount(labels, self.sizes[held][codes], classes).astype(np.int64)
            hits += np.bincount(labels, _pairs(self.counts[held], codes, labels), classes).astype(np.int64)
        totals = np.asarray((self.counts[0] + self.counts[1]).sum(axis=0)).ravel()
        shares = totals / max(1, int(self.sizes[0].sum() + self.sizes[1].sum()))
        precision = hits / np.maximum(1, named)
        likely = (totals >= MIN_LABEL_ROWS) & (hits > 0) & (1 - precision <= MAX_EXCEPTIONS * (1 - shares))
        coverage = np.where(likely, hits / np.maximum(1, totals), 0.0)
        order = np.argsort(-coverage, kind="stable")[: int(likely.sum())].tolist()
        found = [
            Sign(label, float(precision[label]), float(shares[label]), float(coverage[label]), ()) for label in order
        ]
        return found, [float(named[label] * _divergence(precision[label], shares[label])) for label in order]


def _codes_of_labels(counts: csr_array, sizes: Ids) -> tuple[Ids, Ids]:
    """Return the (code, label) pairs in which nearly all rows of the code have the label, and not by chance."""
    shares = np.asarray(counts.sum(axis=0)).ravel() / max(1, int(sizes.sum()))
    entries = counts.tocoo()
    codes, labels = entries.coords
    expected = sizes[codes] * (1 - shares[labels])
    chosen = (expected >= MIN_EXPECTED) & (sizes[codes] - entries.data <= MAX_EXCEPTIONS * expected)
    return codes[chosen], labels[chosen]


def _divergence(observed: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two shares, in nats."""
    return float(rel_entr(observed, expected) + rel_entr(1 - observed, 1 - expected))


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


def _rows_with_sign(sample: LabeledSample, codes: Ids, label: int) -> tuple[int, ...]:
    """Return the first rows with the label and a code that nearly only its rows have."""
    rows, ids = sample.entries
    shape = int(codes.max()) + 1, len(sample.label_names)
    counts = csr_array((np.ones(len(rows), dtype=np.int64), (codes[rows], ids)), shape=shape)
    signs, labels = _codes_of_labels(counts, np.bincount(codes, minlength=shape[0]))
    having = sample.problem.has_label(sample.labels, label) & np.isin(codes, signs[labels == label])
    return tuple(np.flatnonzero(having)[:5].tolist())
