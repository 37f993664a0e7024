"""The gate of int8: labeled rows show what it changes, and it is refused where that is too much or not known.

One half of the rows fits the temperature and the thresholds of the int8 logits, the other half judges. Both are fitted
to the answers of fp32 and not to the labels: fp32 was calibrated on more rows than half of these, and int8 differs from
it by little, so a fit to labels would add more noise than it takes away. The judging half has no part in the fit.

Before any row is judged, a text must get the same logits alone, padded and beside other texts.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import problem_of
from fullbake.config.sections import TokensConfig
from fullbake.core.errors import BundleError, DataError
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import duplicate_groups
from fullbake.data.grouping import join_groups
from fullbake.data.partition import split
from fullbake.evaluation.calibration import match_temperature, reliability
from fullbake.evaluation.decisions import Decision, match_decision
from fullbake.evaluation.fidelity import (
    Fidelity,
    FidelityPromise,
    ScoredRows,
    Shortfall,
    compare_scorings,
    find_shortfalls,
)
from fullbake.models.encoding import Encoded, pad_rows, row_offsets

ALONE_TOLERANCE: Final = 1e-4
"""Largest difference between the logits of a text alone and in a batch, as a share of the largest logit. A sum in
another order changes fp32 logits by some 1e-6; a scale for the whole batch changed int8 logits by 0.7."""

_CHUNKS: Final = 8
"""Pieces in which the rows are scored, by fp32 and int8 in turn, so that both meet the same disturbances."""

_ALONE_ROWS: Final = 12
"""Rows that are scored alone, padded and beside outliers."""

_OUTLIER_TOKENS: Final = 128
"""Length of the rows that are put beside them."""

BatchLogits = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
"""Inputs of a graph by name, each (batch, tokens) -> logits (batch, classes)."""

LogitsOfTexts = Callable[[Encoded], NDArray[np.float32]]
"""Encoded texts -> logits (texts, classes)."""


@dataclass(frozen=True)
class PairedLogits:
    """The logits of the same texts in fp32 and int8, and what they took."""

    fp32: NDArray[np.float32]
    int8: NDArray[np.float32]
    fp32_seconds: float
    """CPU seconds of all threads."""

    int8_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the speed of both, as JSON values."""
        rates = [len(self.fp32) / max(own, 1e-9) for own in (self.fp32_seconds, self.int8_seconds)]
        return {"texts": len(self.fp32), "fp32_texts_per_cpu_second": rates[0], "int8_texts_per_cpu_second": rates[1]}


@dataclass(frozen=True)
class Int8Verdict:
    """What the gate found."""

    temperature: float
    """What the int8 logits are divided by."""

    decision: Decision
    """How probabilities of int8 become labels."""

    fitted_rows: int
    fidelity: Fidelity
    calibration: dict[str, Any]
    """`reliability` of the judging rows: {"fp32", "int8"}."""

    shortfalls: list[Shortfall]
    """Why int8 is refused; [] where it is not."""


def halve_rows(rows: Dataset, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into a half that fits and a half that judges.

    The halves have the same share of each class as far as possible. Equal texts, and rows of one group, stay together.

    Args:
        rows: Labeled rows.
        seed: Of the split.

    Returns:
        The positions of both halves, sorted.

    Raises:
        DataError: The rows cannot be split.
    """
    assert rows.labels is not None
    groups = duplicate_groups(rows.joined_texts, near=False)
    own = rows.group_ids
    return split(groups if own is None else join_groups(own, groups), rows.labels, 0.5, seed)


def score_in_turn(fp32: LogitsOfTexts, int8: LogitsOfTexts, encoded: Encoded, texts: int) -> PairedLogits:
    """Score texts in fp32 and int8, piece by piece in turn, and measure the CPU seconds of both.

    Args:
        fp32: The classifier.
        int8: The same in int8.
        encoded: The texts.
        texts: Their number.
    """
    pieces = np.array_split(np.arange(texts), min(_CHUNKS, texts))
    sides = (fp32, int8)
    for side in sides:  # the first batch of a session is slower
        side(encoded.of_documents(pieces[0][:1]))
    logits: list[list[NDArray[np.float32]]] = [[], []]
    seconds = [0.0, 0.0]
    for number, piece in enumerate(pieces):
        part = encoded.of_documents(piece)
        for place in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            logits[place].append(sides[place](part))
            seconds[place] += time.process_time() - started
    one, two = (np.concatenate(own) for own in logits)
    return PairedLogits(one, two, *seconds)


def measure_dependence(compute: BatchLogits, encoded: Encoded, *, tokens: TokensConfig, pad_id: int, ids: int) -> float:
    """Return how far the logits of a text depend on padding and on the texts beside it.

    Args:
        compute: The int8 graph.
        encoded: Rows to try, of which some of all lengths are taken.
        tokens: Its max_length is the longest row.
        pad_id: The tokenizer's padding id.
        ids: Number of token ids, of which rows of chance are made.

    Returns:
        The largest difference from the logits of a text alone, as a share of the largest logit.
    """
    assert tokens.max_length is not None
    order = np.argsort(encoded.lengths, kind="stable")
    taken = encoded.take(order[np.unique(np.linspace(0, len(order) - 1, _ALONE_ROWS).astype(np.int64))])
    count, longest = len(taken), max(min(_OUTLIER_TOKENS, tokens.max_length), int(taken.lengths.max()))
    alone = np.concatenate([compute(pad_rows(taken, np.array([row]), pad_id=pad_id)) for row in range(count)])
    random = np.random.default_rng(0)
    outliers = (random.integers(0, ids, longest), np.full(longest, pad_id), np.full(longest, ids - 1))
    together = _with_rows(taken, [chosen.astype(np.int32) for chosen in outliers])

    def compute_padded(rows: int) -> NDArray[np.float32]:
        batch = pad_rows(together, np.arange(rows), pad_id=pad_id, padding="max_length", max_length=longest)
        return compute(batch)[:count]

    apart = max(float(np.abs(compute_padded(rows) - alone).max()) for rows in (count, len(together)))
    return apart / max(float(np.abs(alone).max()), 1e-6)


def _with_rows(encoded: Encoded, more: list[NDArray[np.int32]]) -> Encoded:
    """Return rows with further ones after them, of the first segment. more: ids, (tokens,) each."""
    types = encoded.token_type_ids
    added = sum(len(ids) for ids in more)
    return Encoded(
        np.concatenate([encoded.input_ids, *more]),
        row_offsets(np.concatenate([encoded.lengths, [len(ids) for ids in more]])),
        None if types is None else np.concatenate([types, np.zeros(added, types.dtype)]),
    )


def check_dependence(dependence: float) -> None:
    """Raise BundleError if the logits of a text depend on the texts beside it."""
    if not dependence <= ALONE_TOLERANCE:  # so written, NaN is refused too
        raise BundleError(
            "in int8 the logits of a text depend on its padding or on the texts beside it, so int8 is refused",
            expected=f"logits within {ALONE_TOLERANCE:g} of their scale",
            got=f"a difference of {dependence:.2g}",
            remedy="Use the classifier in fp32.",
        )


def judge_int8(
    rows: Dataset, logits: PairedLogits, decision: Decision, metric: str, promise: FidelityPromise, *, seed: int
) -> Int8Verdict:
    """Fit a temperature and a decision for int8 on half of the rows, and judge by the other half.

    Args:
        rows: Labeled rows that were not trained on.
        logits: Their logits.
        decision: That of fp32.
        metric: The metric that the training selected by.
        promise: What int8 may lose.
        seed: Of the halves.

    Raises:
        DataError: The rows cannot be split, or the metric is undefined on the judging rows.
    """
    assert rows.labels is not None
    problem = problem_of(rows.labels)
    fit, judge = halve_rows(rows, seed)
    expected = problem.probabilities(logits.fp32)
    wanted = decision.decide(expected)
    temperature = match_temperature(logits.int8[fit], expected[fit], problem)
    # in fp32, as the graph computes it
    found = problem.probabilities(logits.int8 * np.float32(1 / temperature))
    moved = match_decision(decision, found[fit], wanted[fit])
    labels, groups = rows.labels[judge], rows.group_ids
    first, second = (
        ScoredRows(probabilities[judge], own.decide(probabilities[judge]))
        for probabilities, own in ((expected, decision), (found, moved))
    )
    fidelity = compare_scorings(first, second, labels, metric, None if groups is None else groups[judge])
    return Int8Verdict(
        temperature=temperature,
        decision=moved,
        fitted_rows=len(fit),
        fidelity=fidelity,
        calibration={name: reliability(own.probabilities, labels) for name, own in (("fp32", first), ("int8", second))},
        shortfalls=find_shortfalls(fidelity, promise),
    )


def refuse_shortfalls(verdict: Int8Verdict, rows: Dataset) -> None:
    """Raise DataError if int8 breaks its promise, or if the rows are too few to show that it keeps it."""
    if not verdict.shortfalls:
        return
    found = verdict.fidelity
    needed = max((own.rows_needed or 0 for own in verdict.shortfalls), default=0)
    broken = any(own.rows_needed is None for own in verdict.shortfalls)
    what = (
        "int8 loses too much on these rows" if broken else "the rows are too few to say that int8 loses little enough"
    )
    advice = (
        "Use the classifier in fp32, or allow more by --tolerance or --agreement."
        if broken
        else f"Give about {2 * needed:,} labeled rows that were not trained on (half of them judge), or allow more by "
        "--tolerance or --agreement."
    )
    raise DataError(
        f"{what}, so it is refused",
        where=rows.source,
        expected="differences within the limits, with their whole 95% intervals",
        got=f"on {found.rows:,} judging rows: {'; '.join(own.sentence for own in verdict.shortfalls)}",
        remedy=advice,
    )
