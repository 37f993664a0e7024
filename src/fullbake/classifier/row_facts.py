"""Facts about the rows of a run that a page shows and that a bundle must not hold: mistakes with their texts.

A bundle is pushed and shared, so no text of a row goes into it. These facts stay in memory (`RunRecord.rows`) until a
page beside the bundle is written.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fullbake.data.labels import count_labels
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.significance import threshold_curve

MOST_MISTAKES: Final = 5
"""Mistakes in a list, at most."""

MOST_RANKED: Final = 200
"""Among so many of the surest mistakes different pairs of labels are looked for."""

MOST_CHARACTERS: Final = 400
"""Characters of a text in a list, at most; a longer one ends with an ellipsis."""


def describe_rows(parts: Parts, part: Part, logits: np.ndarray, decision: Decision) -> dict[str, Any]:
    """Return what the page of a classifier shows of its rows.

    Args:
        parts: The parts of the run.
        part: The part that is scored.
        logits: Its calibrated logits, float32 (rows, classes).
        decision: The rule that turns probabilities into labels.

    Returns:
        JSON values: `labels`, the rows of each label in each part; `mistakes`, as `list_mistakes` gives them;
        `threshold_curve` of the positive class, null where the decision has no single threshold to move.
    """
    return {
        "labels": count_labels_of_parts(parts),
        "mistakes": list_mistakes(part, logits, decision),
        "threshold_curve": curve_of_positive(part, logits, decision),
    }


def list_mistakes(
    part: Part, logits: np.ndarray, decision: Decision, most: int = MOST_MISTAKES
) -> list[dict[str, Any]]:
    """Return rows whose prediction is wrong: the surest mistakes, each pair of labels once before any comes twice.

    The surest mistakes are the ones to learn from: either the label is wrong, or the classifier misses something that
    people see. Different pairs of labels show more than five times the same confusion.

    Args:
        part: Labeled rows.
        logits: Their calibrated logits, float32 (rows, classes).
        decision: The rule that turns probabilities into labels.
        most: How many mistakes are listed, at most.

    Returns:
        An entry a row, JSON values: `row` (its number in its file), `text` (a list of two for a pair), `label` and
        `predicted` (names with commas between them), `probability` of the predicted class (null where a row may have
        many labels).
    """
    probabilities = decision.problem.probabilities(logits)
    decided, labels = decision.decide(probabilities), part.labels
    wrong = np.flatnonzero(~decision.problem.equal_rows(decided, labels))
    classes = probabilities.shape[1]
    predicted = decision.problem.label_matrix(decided, classes)
    true = decision.problem.label_matrix(labels, classes)
    # Of the labels that are wrong, the one that the classifier is surest of says how sure the mistake is.
    errors = np.where(predicted != true, np.abs(probabilities - true), 0.0).max(axis=1)
    ranked = wrong[np.argsort(-errors[wrong], kind="stable")].tolist()
    first: list[int] = []
    repeated: list[int] = []
    seen: set[tuple[bytes, bytes]] = set()
    for place in ranked[:MOST_RANKED]:
        pair = true[place].tobytes(), predicted[place].tobytes()
        (repeated if pair in seen else first).append(place)
        seen.add(pair)
    chosen = [*first, *repeated][:most]
    return [
        {
            "row": int(part.rows[place]),
            "text": _text_of(part, place),
            "label": _names(true[place], decision.label_names),
            "predicted": _names(predicted[place], decision.label_names),
            "probability": float(probabilities[place][predicted[place]].max()) if decision.problem.exclusive else None,
        }
        for place in chosen
    ]


def curve_of_positive(part: Part, logits: np.ndarray, decision: Decision) -> dict[str, Any] | None:
    """Return recall, precision and specificity at each threshold of a two-class problem's positive class."""
    names = decision.label_names
    positive = decision.positive
    if positive is None:
        positive = decision.problem.positive_class(names, None)
    if positive is None:
        return None
    probabilities = decision.problem.probabilities(logits)
    return threshold_curve(probabilities[None, :, positive], part.labels == positive, names[positive])


def count_labels_of_parts(parts: Parts) -> list[dict[str, Any]]:
    """Return {"name", "train", "validation", "test"} of each label: the rows of each part, null where it has none."""
    names = parts.train.source.label_names
    counts = {name: count_labels(part.labels, len(names)) for name, part in parts.by_name().items()}
    return [
        {"name": label}
        | {part: int(counts[part][place]) if part in counts else None for part in ("train", "validation", "test")}
        for place, label in enumerate(names)
    ]


def _names(has: np.ndarray, names: Sequence[str]) -> str:
    return ", ".join(names[place] for place in np.flatnonzero(has).tolist()) or "none"


def _text_of(part: Part, place: int) -> str | list[str]:
    """Return a row's text, or its two texts, each cut after a word."""
    index, source = int(part.indices[place]), part.source
    texts = [source.texts[index].as_py(), *([] if source.text_pair is None else [source.text_pair[index].as_py()])]
    cut = [cut_text(text) for text in texts]
    return cut[0] if len(cut) == 1 else cut


def cut_text(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the beginning of a text, with an ellipsis where something is left out; cut at a space if one is near."""
    if len(text) <= most:
        return text
    start = text[: most - 1]
    space = max(start.rfind(" "), start.rfind("\n"))
    # Chinese and Japanese have no spaces, and an unbroken line of letters has none either.
    return f"{(start[:space] if space > 0.8 * most else start).rstrip()} …"
