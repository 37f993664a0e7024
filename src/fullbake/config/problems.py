"""The kinds of problem a recipe may describe, each as one object: single label and multi label.

A `Problem` holds what depends on the kind: how logits become probabilities, the loss of a row, what splits balance, the
plain decision, and more. Other modules call its methods and never look at the shape of labels. A new kind is one class
here, a line in `problem_of` or `problem_named`, and an entry in the tables that are keyed by its name: in
`training.losses`, `models.network`, `data.dataset` and `evaluation.metrics`. Algorithms that need exclusive classes
(thresholds, logistic regression, iterative stratification) ask for `exclusive`.

The trade-off: the protocol is long, and some methods have a single caller. In return mypy names what a new kind lacks.
Only numpy is imported, because `fullbake --help` loads this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fullbake.core.errors import BundleError

ProblemType = Literal["single_label_classification", "multi_label_classification"]
"""The value of `problem_type` in transformers' config.json."""

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"

LabelArray = NDArray[Any]
"""Labels or predictions: class ids int64 (rows,), or a label matrix of 0 and 1, uint8 (rows, labels)."""

Probabilities = NDArray[np.float64]
"""Probabilities (rows, classes)."""

_EPSILON: Final = np.finfo(np.float64).eps


class Problem(Protocol):
    """One kind of problem. Each label name has one logit, in the order of the names.

    In the methods below, `labels` is an array of the problem's own form (see `LabelArray`), `logits` and
    `probabilities` are (rows, classes), and `classes` is the number of label names.
    """

    @property
    def name(self) -> ProblemType:
        """The word in config.json and fullbake.json."""

    @property
    def exclusive(self) -> bool:
        """True if each row has exactly one class, so that the probabilities of a row sum to 1."""

    @property
    def noun(self) -> str:
        """What messages call the label names: "classes" or "labels"."""

    @property
    def default_thresholds(self) -> Literal["f1", "default"]:
        """What `thresholds: auto` means: the plain decision, or the threshold of best F1 of each label."""

    @property
    def cost_names_hint(self) -> str:
        """The form of the names of costs, for error messages."""

    # Labels

    def encode(self, named: Sequence[Sequence[str]], label_names: Sequence[str]) -> LabelArray:
        """Return the label array of rows that are given by the names of their labels."""

    def label_ids(self, labels: LabelArray) -> list[list[int]]:
        """Return the ids of the labels that each row has; an empty list for a row without any."""

    def label_entries(self, labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the position and the label id of each label of each row, (labels of all rows,) both, sorted by row.

        Work on these takes time by the labels that rows have; work on `label_matrix` by rows times classes.
        """

    def has_label(self, labels: LabelArray, label: int) -> NDArray[np.bool_]:
        """Return which rows have the label with this id. Axes before the rows (seeds, say) are kept."""

    def label_matrix(self, labels: LabelArray, classes: int) -> NDArray[np.bool_]:
        """Return (rows, classes): True where the row has the class."""

    def count_rows(self, labels: LabelArray, classes: int) -> NDArray[np.int64]:
        """Return the number of rows of each class, (classes,)."""

    def count_classes(self, labels: LabelArray, predicted: LabelArray) -> int:
        """Return the number of classes that these arrays can hold, where no label names are given."""

    def equal_rows(self, one: LabelArray, other: LabelArray) -> NDArray[np.bool_]:
        """Return which rows have the same label, or the same set of labels, in both arrays."""

    def strata(self, labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what a split or a sampler balances, as pairs (row, stratum), in two arrays of equal length.

        Every row has at least one stratum: its class, each of its labels, or one stratum for all rows without labels.
        """

    def balanced_weights(self, labels: LabelArray, classes: int) -> NDArray[np.float64]:
        """Return the class weights (classes,) of `class_weights: balanced`; 1 for a class that no row has."""

    def confusion(self, labels: LabelArray, predicted: LabelArray, classes: int) -> NDArray[np.int64] | None:
        """Return rows of class i that were predicted as j, (classes, classes); None where a row may have many."""

    # Logits and probabilities

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Probabilities:
        """Return the probabilities, float64 and of the logits' shape."""

    def row_losses(self, logits: NDArray[np.floating[Any]], labels: LabelArray) -> Probabilities:
        """Return the cross entropy of each row in nats, (rows,); over many labels the mean of their binary ones."""

    def probability_losses(self, probabilities: Probabilities, labels: LabelArray) -> Probabilities:
        """Return the same losses from probabilities instead of logits, (rows,). 0 counts as float64's epsilon."""

    def decide(self, probabilities: Probabilities) -> LabelArray:
        """Return the plain decision: the likeliest class (the lower id on a tie), or each label of 0.5 and more."""

    def confidences(self, probabilities: Probabilities, labels: LabelArray) -> tuple[Probabilities, Probabilities]:
        """Return (confidence, correct) for a reliability diagram.

        The confidence is that of each row's likeliest class (rows,), or of every label of every row (rows * labels,);
        `correct` is 1 where that class or label is true, else 0.
        """

    def brier(self, probabilities: Probabilities, labels: LabelArray) -> float:
        """Return the Brier score (1950): the sum of squared differences over a row's classes, or their mean over its
        labels; in both cases averaged over the rows."""

    def one_against_rest(self, classes: int) -> tuple[int, ...]:
        """Return the classes over which ROC-AUC and average precision are averaged: of two exclusive classes the
        last one, because the other says the same."""

    def positive_class(self, label_names: Sequence[str], chosen: str | None) -> int | None:
        """Return the id of the class that a single threshold belongs to: the chosen one, or the last of two.

        None where no class is chosen among more than two, or where every label has a threshold of its own.
        """

    def prior_logits(self, labels: LabelArray, classes: int) -> Probabilities:
        """Return logits (classes,) that give the shares of the classes in these rows, smoothed so that all are
        finite."""

    def chance_loss(self, labels: LabelArray) -> float:
        """Return the mean cross entropy in nats of a prediction by the shares of the classes alone: ln K where all K
        classes are equally frequent."""

    # Names in errors and files

    def cost_names(self, label_names: Sequence[str]) -> tuple[str, ...]:
        """Return the names that `costs` may hold, one for each kind of mistake."""

    def predictions(self, decided: LabelArray, label_names: NDArray[np.object_]) -> NDArray[Any]:
        """Return what `Classifier.predict` gives: the class names (rows,), or the label matrix (rows, labels)."""

    def prediction_columns(self, label_names: Sequence[str]) -> dict[str, type]:
        """Return the columns that `predict_file` adds before the scores: name -> type."""

    def prediction_values(
        self, decided: LabelArray, scores: NDArray[np.float32], label_names: NDArray[np.object_]
    ) -> list[Any]:
        """Return the values of these columns, one sequence (rows,) each. scores: (rows, classes)."""


@dataclass(frozen=True)
class _SingleLabel:
    """Each row has exactly one class: class ids, softmax, cross entropy."""

    name: ProblemType = SINGLE_LABEL
    exclusive: bool = True
    noun: str = "classes"
    default_thresholds: Literal["f1", "default"] = "default"
    cost_names_hint: str = '"true>predicted" of two labels'

    def encode(self, named: Sequence[Sequence[str]], label_names: Sequence[str]) -> LabelArray:
        ids = {name: label for label, name in enumerate(label_names)}
        return np.array([ids[name] for (name,) in named], dtype=np.int64)

    def label_ids(self, labels: LabelArray) -> list[list[int]]:
        return [[label] for label in labels.tolist()]

    def label_entries(self, labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.arange(len(labels)), labels

    def has_label(self, labels: LabelArray, label: int) -> NDArray[np.bool_]:
        having: NDArray[np.bool_] = labels == label
        return having

    def label_matrix(self, labels: LabelArray, classes: int) -> NDArray[np.bool_]:
        matrix: NDArray[np.bool_] = labels[:, None] == np.arange(classes)
        return matrix

    def count_rows(self, labels: LabelArray, classes: int) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=classes)

    def count_classes(self, labels: LabelArray, predicted: LabelArray) -> int:
        return int(max(predicted.max(), labels.max())) + 1

    def equal_rows(self, one: LabelArray, other: LabelArray) -> NDArray[np.bool_]:
        equal: NDArray[np.bool_] = one == other
        return equal

    def strata(self, labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.arange(len(labels)), np.unique(labels, return_inverse=True)[1]

    def balanced_weights(self, labels: LabelArray, classes: int) -> NDArray[np.float64]:
        counts = self.count_rows(labels, classes)
        return np.where(counts == 0, 1.0, len(labels) / (classes * np.maximum(counts, 1)))

    def confusion(self, labels: LabelArray, predicted: LabelArray, classes: int) -> NDArray[np.int64] | None:
        return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(-1, classes)

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Probabilities:
        exact = logits.astype(np.float64)  # so that the probabilities of a row sum to 1
        exponentials = np.exp(exact - exact.max(axis=1, keepdims=True))
        shares: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        return shares

    def row_losses(self, logits: NDArray[np.floating[Any]], labels: LabelArray) -> Probabilities:
        exact = logits.astype(np.float64)
        losses: Probabilities = np.logaddexp.reduce(exact, axis=1) - exact[np.arange(len(labels)), labels]
        return losses

    def probability_losses(self, probabilities: Probabilities, labels: LabelArray) -> Probabilities:
        own = np.asarray(probabilities, dtype=np.float64)[np.arange(len(labels)), labels]
        losses: Probabilities = -np.log(np.clip(own, _EPSILON, 1))
        return losses

    def decide(self, probabilities: Probabilities) -> LabelArray:
        likeliest: NDArray[np.int64] = probabilities.argmax(axis=1)
        return likeliest

    def confidences(self, probabilities: Probabilities, labels: LabelArray) -> tuple[Probabilities, Probabilities]:
        return probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)

    def brier(self, probabilities: Probabilities, labels: LabelArray) -> float:
        own = probabilities[np.arange(len(labels)), labels]
        return float(((probabilities**2).sum(axis=1) - 2 * own + 1).mean())

    def one_against_rest(self, classes: int) -> tuple[int, ...]:
        return (1,) if classes == 2 else tuple(range(classes))

    def positive_class(self, label_names: Sequence[str], chosen: str | None) -> int | None:
        if chosen is not None:
            return list(label_names).index(chosen)
        return 1 if len(label_names) == 2 else None

    def prior_logits(self, labels: LabelArray, classes: int) -> Probabilities:
        logits: Probabilities = np.log(np.bincount(labels, minlength=classes) + 1e-6)
        return logits

    def chance_loss(self, labels: LabelArray) -> float:
        return float(_entropy(np.bincount(labels) / len(labels)))

    def cost_names(self, label_names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{true}>{predicted}" for true in label_names for predicted in label_names)

    def predictions(self, decided: LabelArray, label_names: NDArray[np.object_]) -> NDArray[Any]:
        return label_names[decided]

    def prediction_columns(self, label_names: Sequence[str]) -> dict[str, type]:  # noqa: ARG002  (as in Problem)
        return {"predicted": str, "score": np.float32}

    def prediction_values(
        self, decided: LabelArray, scores: NDArray[np.float32], label_names: NDArray[np.object_]
    ) -> list[Any]:
        return [list(label_names[decided]), scores[np.arange(len(decided)), decided]]


@dataclass(frozen=True)
class _MultiLabel:
    """A row may have any number of labels: a label matrix, a sigmoid for each label, binary cross entropy."""

    name: ProblemType = MULTI_LABEL
    exclusive: bool = False
    noun: str = "labels"
    default_thresholds: Literal["f1", "default"] = "f1"
    cost_names_hint: str = "miss and false_alarm"

    def encode(self, named: Sequence[Sequence[str]], label_names: Sequence[str]) -> LabelArray:
        ids = {name: label for label, name in enumerate(label_names)}
        matrix = np.zeros((len(named), len(label_names)), dtype=np.uint8)
        for row, names in enumerate(named):
            matrix[row, [ids[name] for name in names]] = 1
        return matrix

    def label_ids(self, labels: LabelArray) -> list[list[int]]:
        rows, ids = self.label_entries(labels)
        found: list[list[int]] = [[] for _ in labels]
        for row, label in zip(rows.tolist(), ids.tolist(), strict=True):
            found[row].append(label)
        return found

    def label_entries(self, labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows, ids = np.nonzero(labels)
        return rows, ids

    def has_label(self, labels: LabelArray, label: int) -> NDArray[np.bool_]:
        having: NDArray[np.bool_] = labels[..., label] == 1
        return having

    def label_matrix(self, labels: LabelArray, classes: int) -> NDArray[np.bool_]:  # noqa: ARG002  (as in Problem)
        matrix: NDArray[np.bool_] = labels == 1
        return matrix

    def count_rows(self, labels: LabelArray, classes: int) -> NDArray[np.int64]:  # noqa: ARG002  (as in Problem)
        counts: NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
        return counts

    def count_classes(self, labels: LabelArray, predicted: LabelArray) -> int:  # noqa: ARG002  (as in Problem)
        return int(labels.shape[1])

    def equal_rows(self, one: LabelArray, other: LabelArray) -> NDArray[np.bool_]:
        equal: NDArray[np.bool_] = (one == other).all(axis=1)
        return equal

    def strata(self, labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        unlabeled = labels.sum(axis=1, keepdims=True) == 0
        rows, strata = np.nonzero(np.concatenate([labels, unlabeled], axis=1))
        return rows, strata

    def balanced_weights(self, labels: LabelArray, classes: int) -> NDArray[np.float64]:
        counts = self.count_rows(labels, classes)
        return np.where(counts == 0, 1.0, (len(labels) - counts) / np.maximum(counts, 1))

    def confusion(self, labels: LabelArray, predicted: LabelArray, classes: int) -> NDArray[np.int64] | None:  # noqa: ARG002
        return None

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Probabilities:
        exact = logits.astype(np.float64)
        sigmoids: Probabilities = np.exp(-np.logaddexp(0, -exact))
        return sigmoids

    def row_losses(self, logits: NDArray[np.floating[Any]], labels: LabelArray) -> Probabilities:
        exact = logits.astype(np.float64)
        losses: Probabilities = np.logaddexp(0, np.where(labels, -exact, exact)).mean(axis=1)
        return losses

    def probability_losses(self, probabilities: Probabilities, labels: LabelArray) -> Probabilities:
        exact = np.asarray(probabilities, dtype=np.float64)
        own = np.where(labels == 1, exact, 1 - exact)
        means: Probabilities = (-np.log(np.clip(own, _EPSILON, 1))).mean(axis=1)
        return means

    def decide(self, probabilities: Probabilities) -> LabelArray:
        return (probabilities >= 0.5).astype(np.uint8)

    def confidences(self, probabilities: Probabilities, labels: LabelArray) -> tuple[Probabilities, Probabilities]:
        return probabilities.ravel(), labels.ravel().astype(np.float64)

    def brier(self, probabilities: Probabilities, labels: LabelArray) -> float:
        return float(((probabilities - labels) ** 2).mean())

    def one_against_rest(self, classes: int) -> tuple[int, ...]:
        return tuple(range(classes))

    def positive_class(self, label_names: Sequence[str], chosen: str | None) -> int | None:  # noqa: ARG002
        return None

    def prior_logits(self, labels: LabelArray, classes: int) -> Probabilities:
        counts = self.count_rows(labels, classes)
        logits: Probabilities = np.log((counts + 0.5) / (len(labels) - counts + 0.5))
        return logits

    def chance_loss(self, labels: LabelArray) -> float:
        shares = labels.mean(axis=0)
        return float(np.mean(_entropy(np.stack([shares, 1 - shares]))))

    def cost_names(self, label_names: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002  (as in Problem)
        return ("miss", "false_alarm")

    def predictions(self, decided: LabelArray, label_names: NDArray[np.object_]) -> NDArray[Any]:  # noqa: ARG002
        return decided

    def prediction_columns(self, label_names: Sequence[str]) -> dict[str, type]:
        return {f"predicted:{name}": np.uint8 for name in label_names}

    def prediction_values(
        self,
        decided: LabelArray,
        scores: NDArray[np.float32],  # noqa: ARG002  (as in Problem)
        label_names: NDArray[np.object_],  # noqa: ARG002
    ) -> list[Any]:
        return list(decided.T)


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy over the first axis, in nats."""
    logs = np.log(np.where(shares > 0, shares, 1.0))
    entropy: NDArray[np.float64] = -(shares * logs).sum(axis=0)
    return entropy


_SINGLE: Final[Problem] = _SingleLabel()
_MULTI: Final[Problem] = _MultiLabel()


def problem_of(labels: LabelArray) -> Problem:
    """Return the problem of a label array: class ids (rows,) are single labels, 0 and 1 (rows, labels) multi label.

    No other place looks at the number of axes. Where the problem is known, pass it on rather than ask the array again.
    """
    return _MULTI if labels.ndim == 2 else _SINGLE


def problem_named(word: str) -> Problem:
    """Return the problem that a bundle's `problem_type` names.

    Args:
        word: a `ProblemType`.

    Raises:
        BundleError: no such problem is known here.
    """
    for problem in (_SINGLE, _MULTI):
        if problem.name == word:
            return problem
    raise BundleError(
        "the problem type is unknown",
        where="problem_type",
        expected=f"{SINGLE_LABEL} or {MULTI_LABEL}",
        got=repr(word),
        remedy="Install the version of fullbake that saved this bundle, or a newer one.",
    )
