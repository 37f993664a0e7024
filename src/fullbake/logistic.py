"""Logistic regression on features by L-BFGS, its strength chosen on validation, folded into one linear layer.

scikit-learn fits it, on standardized features: multinomial where a row has one label, a regression a label where it may
have many. All strengths are tried from the strongest regularization on, each from where the last one ended, which
halves the steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from fullbake.core.console import say
from fullbake.evaluation.decisions import row_losses
from fullbake.loop import Validation
from fullbake.models.heads import fold_scaler, output_layer

STRENGTHS: Final = tuple(float(c) for c in np.logspace(-4, 2, 13))
"""Inverse regularization strengths that validation chooses from: 13 from 1e-4 to 1e2, two a decade."""

Solver = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]
"""(standardized features (rows, width), strength) -> weights (classes, width) and bias (classes,)."""

_ABSENT: Final = -12.0
"""Logit below the least of the others for a class that these rows do not hold: a chance of some 6e-6."""


@dataclass(frozen=True)
class LogisticRows:
    """What is fitted. features: float32 (rows, width). labels: ids (rows,), or 0 and 1 (rows, classes). class_weights:
    (classes,), of a class's rows, or of a label's positive rows; None weighs all alike."""

    features: np.ndarray
    labels: np.ndarray
    class_weights: np.ndarray | None


def fit_logistic(
    module: nn.Module, rows: LogisticRows, validate: Validation, metric: str, last_trial: int | None = None
) -> list[dict[str, Any]]:
    """Set the output layer of `module` to the regression that validation likes best (the stronger of equals).

    validate: (module, trial from 0) -> what chooses, `metric` among it. last_trial: stop at this one (from 1).
    Returns an entry a strength: trial (from 1), C, train_loss, what `validate` gave, best.
    """
    exact = rows.features.astype(np.float64)
    scaler = StandardScaler().fit(exact)
    inputs, layer = scaler.transform(exact), output_layer(module)
    solver, best, history = _solver(rows, layer.out_features), None, []
    for number, strength in enumerate(STRENGTHS[:last_trial], start=1):
        with threadpool_limits(1, user_api="blas"):  # L-BFGS's vectors are short: two threads took five times as long
            weight, bias = solver(inputs, strength)
        weight, bias = fold_scaler(weight, bias, scaler.mean_, scaler.scale_)
        _set_layer(layer, weight, bias)
        loss = float(row_losses(exact @ weight.T + bias, rows.labels).mean())
        entry = {"trial": number, "C": strength, "train_loss": loss, **validate(module, number - 1)}
        history.append(entry)
        if best is None or entry[metric] > best[0][metric]:
            best = (entry, weight, bias)
    assert best is not None
    _set_layer(layer, best[1], best[2])
    for entry in history:
        entry["best"] = entry is best[0]
    say(f"C = {best[0]['C']:.2g} of {len(STRENGTHS)} strengths  {metric} {best[0][metric]:.4f}")
    return history


def _solver(rows: LogisticRows, classes: int) -> Solver:
    return _multinomial(rows, classes) if rows.labels.ndim == 1 else _binaries(rows)


def _multinomial(rows: LogisticRows, classes: int) -> Solver:
    """One regression over all classes. For two of them scikit-learn keeps one row z; as logits (-z/2, z/2)."""
    fitted = LogisticRegression(tol=1e-6, max_iter=1000, warm_start=True)
    weights = None if rows.class_weights is None else rows.class_weights[rows.labels]

    def solve(inputs: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        fitted.set_params(C=strength).fit(inputs, rows.labels, weights)
        weight, bias = fitted.coef_, fitted.intercept_
        if len(weight) == 1:
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return _with_absent(weight, bias, fitted.classes_, classes)

    return solve


def _with_absent(
    weight: np.ndarray, bias: np.ndarray, present: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The layer over all classes; one that these rows do not hold (a fold may lack it) gets next to no chance."""
    whole, biases = np.zeros((classes, weight.shape[1])), np.full(classes, bias.min() + _ABSENT)
    whole[present], biases[present] = weight, bias
    return whole, biases


def _binaries(rows: LogisticRows) -> Solver:
    """A regression a label. One that all rows have, or none, gets a constant chance of (k + 1/2) / (n + 1) instead."""
    fitted = [LogisticRegression(tol=1e-6, max_iter=1000, warm_start=True) for _ in range(rows.labels.shape[1])]
    counts, total = rows.labels.sum(axis=0, dtype=np.int64), len(rows.labels)

    def solve(inputs: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = np.zeros((len(fitted), inputs.shape[1])), np.log((counts + 0.5) / (total - counts + 0.5))
        for number in np.flatnonzero((counts > 0) & (counts < total)).tolist():
            labels = rows.labels[:, number]
            weights = None if rows.class_weights is None else np.where(labels, rows.class_weights[number], 1.0)
            fitted[number].set_params(C=strength).fit(inputs, labels, weights)
            weight[number], bias[number] = fitted[number].coef_[0], fitted[number].intercept_[0]
        return weight, bias

    return solve


def _set_layer(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
