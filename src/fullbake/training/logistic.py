"""Logistic regression by L-BFGS: on frozen features, on words (a baseline), and to find label errors.

scikit-learn fits it: one multinomial regression if each row has one class, one binary regression for each label if rows
may have many. On frozen features the strength is chosen on validation and the result becomes one linear layer. The
strengths are tried from the strongest regularization to the weakest, each from the solution of the one before, which
halves the steps of the solver.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from fullbake.config.problems import problem_of
from fullbake.core.console import say
from fullbake.models.heads import fold_scaler, output_layer
from fullbake.training.loop import ValidateFunction

LOGISTIC_STRENGTHS: Final = tuple(float(c) for c in np.logspace(-4, 2, 13))
"""Inverse regularization strengths that validation chooses from: 13 from 1e-4 to 1e2, two in each factor of ten."""

ABSENT_LOGIT: Final = -12.0
"""Logit of a class that no training row has, which gives it a probability of about 6e-6."""


class LogisticModel:
    """One regression over all classes that occur, or one for each label that some but not all rows have.

    Attributes:
        outputs: ids of these classes or labels, int64 (outputs,), in ascending order.
    """

    def __init__(self, labels: np.ndarray, class_weights: np.ndarray | None = None, *, tolerance: float = 1e-4) -> None:
        """Prepare the regressions; `fit` fits them.

        Args:
            labels: class ids (rows,), or a label matrix of 0 and 1 (rows, labels).
            class_weights: weight of the rows of each class, or of the rows that have each label, (classes,); None
                weighs all rows alike.
            tolerance: the solver stops when no gradient is above it.
        """
        self._labels, self._class_weights = labels, class_weights
        self._exclusive = problem_of(labels).exclusive
        if self._exclusive:
            self.outputs = np.unique(labels)
            needed = 1 if len(self.outputs) > 1 else 0  # scikit-learn refuses to fit a single class
        else:
            counts = labels.sum(axis=0, dtype=np.int64)
            self.outputs = np.flatnonzero((counts > 0) & (counts < len(labels)))
            needed = len(self.outputs)
        self._regressions = [LogisticRegression(tol=tolerance, max_iter=1000, warm_start=True) for _ in range(needed)]
        self._width = 0

    def fit(self, inputs: Any, strength: float) -> "LogisticModel":
        """Fit all regressions and return self. A further call starts from the solution of the last one.

        Args:
            inputs: features of the rows, a dense or sparse array (rows, width).
            strength: inverse regularization strength.
        """
        self._width = inputs.shape[1]
        weights = self._class_weights
        if self._exclusive:
            for regression in self._regressions:
                row_weights = None if weights is None else weights[self._labels]
                regression.set_params(C=strength).fit(inputs, self._labels, row_weights)
            return self
        for label, regression in zip(self.outputs, self._regressions, strict=True):
            has_label = self._labels[:, label]
            row_weights = None if weights is None else np.where(has_label, weights[label], 1.0)
            regression.set_params(C=strength).fit(inputs, has_label, row_weights)
        return self

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (outputs, width) and biases (outputs,) whose linear function gives the logits."""
        if not self._regressions:
            return np.zeros((len(self.outputs), self._width)), np.zeros(len(self.outputs))
        weight = np.concatenate([regression.coef_ for regression in self._regressions])
        bias = np.concatenate([regression.intercept_ for regression in self._regressions])
        if self._exclusive and len(weight) == 1:  # of two classes scikit-learn keeps the difference of their logits
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight, bias

    def logits(self, inputs: Any) -> np.ndarray:
        """Return the logits of rows of features (rows, width) for each output, (rows, outputs)."""
        if not self._regressions:
            return np.zeros((inputs.shape[0], len(self.outputs)))
        values = [regression.decision_function(inputs) for regression in self._regressions]
        if not self._exclusive:
            return np.stack(values, axis=1)
        (scores,) = values
        return np.stack([-scores, scores], axis=1) / 2 if scores.ndim == 1 else scores

    def probabilities(self, inputs: Any) -> np.ndarray:
        """Return the probability of each output for rows of features (rows, width), (rows, outputs)."""
        if not self._regressions:
            return np.ones((inputs.shape[0], len(self.outputs)))
        values = [regression.predict_proba(inputs) for regression in self._regressions]
        return values[0] if self._exclusive else np.stack([pairs[:, 1] for pairs in values], axis=1)


@dataclass(frozen=True)
class LogisticRows:
    """The rows that a regression is fitted on.

    Attributes:
        features: float32 (rows, width).
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, labels).
        class_weights: as in `LogisticModel`.
    """

    features: np.ndarray
    labels: np.ndarray
    class_weights: np.ndarray | None


def fit_logistic(
    module: nn.Module, rows: LogisticRows, validate: ValidateFunction, metric: str, last_trial: int | None = None
) -> list[dict[str, Any]]:
    """Set the output layer of `module` to the regression of the best validation score (of equals the strongest).

    The features are standardized; the layer takes them as they are, because the scaler is folded into it.

    Args:
        module: the head.
        rows: what is fitted.
        validate: (module, trial from 0) -> validation scores, among them `metric`.
        metric: the metric that selects.
        last_trial: the last strength to try (from 1), None for all.

    Returns:
        An entry for each strength: trial (from 1), C, train_loss, what `validate` gave, best.
    """
    problem, layer = problem_of(rows.labels), output_layer(module)
    exact = rows.features.astype(np.float64)
    scaler = StandardScaler().fit(exact)
    inputs, model = scaler.transform(exact), LogisticModel(rows.labels, rows.class_weights, tolerance=1e-6)
    best, history = None, []
    for number, strength in enumerate(LOGISTIC_STRENGTHS[:last_trial], start=1):
        with threadpool_limits(
            1, user_api="blas"
        ):  # the solver's vectors are short: two threads took five times as long
            model.fit(inputs, strength)
        weight, bias = _layer_weights(model, rows.labels, layer.out_features)
        weight, bias = fold_scaler(weight, bias, scaler.mean_, scaler.scale_)
        _set_layer(layer, weight, bias)
        loss = float(problem.row_losses(exact @ weight.T + bias, rows.labels).mean())
        entry = {"trial": number, "C": strength, "train_loss": loss, **validate(module, number - 1)}
        history.append(entry)
        if best is None or entry[metric] > best[0][metric]:
            best = (entry, weight, bias)
    assert best is not None
    _set_layer(layer, best[1], best[2])
    for entry in history:
        entry["best"] = entry is best[0]
    say(f"C = {best[0]['C']:.2g} of {len(LOGISTIC_STRENGTHS)} strengths  {metric} {best[0][metric]:.4f}")
    return history


def _layer_weights(model: LogisticModel, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (classes, width) and biases (classes,) over all classes or labels.

    A class that the rows lack (a fold may lack one) gets next to no probability, and a label that all rows have, or
    none, the constant probability (k + 1/2) / (n + 1) of k rows among n.
    """
    weight, bias = model.coefficients()
    problem = problem_of(labels)
    all_weights = np.zeros((classes, weight.shape[1]))
    all_biases = (
        np.full(classes, bias.min() + ABSENT_LOGIT) if problem.exclusive else problem.prior_logits(labels, classes)
    )
    all_weights[model.outputs], all_biases[model.outputs] = weight, bias
    return all_weights, all_biases


def _set_layer(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
