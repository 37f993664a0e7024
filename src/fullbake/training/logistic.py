"""Logistic regression by L-BFGS: on frozen features, on words (a baseline), and to find label errors.

scikit-learn fits it: one multinomial regression if each row has one class, one binary regression for each label if rows
may have many. On frozen features the strength is chosen on validation and the result becomes one linear layer. The
strengths are tried from the strongest regularization to the weakest, each from the solution of the one before, which
halves the steps of the solver.

The layer must also be of use in half precision and as 8-bit integers. So features that vary next to nothing are
constants with weights of 0: standardizing would multiply them by up to 1e32, and their weights with them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from fullbake.config.problems import problem_of
from fullbake.core import stopping, tracking
from fullbake.core.console import say
from fullbake.core.errors import DeadlinePassed, Interrupted
from fullbake.models.heads import fold_scaler, output_layer
from fullbake.training.loop import ValidateFunction

LOGISTIC_STRENGTHS: Final = tuple(float(c) for c in np.logspace(-4, 2, 13))
"""Inverse regularization strengths that validation chooses from: 13 from 1e-4 to 1e2, two in each factor of ten."""

WIDER_STRENGTHS: Final = (
    *(float(c) for c in np.logspace(-6, -4.5, 4)),
    *LOGISTIC_STRENGTHS,
    *(float(c) for c in np.logspace(2.5, 4, 4)),
)
"""The same with two more factors of ten at both ends, for a best strength at an end of the grid, and for folds."""

FLAT_SHARE: Final = 2.0**-10
"""A feature whose standard deviation is at most this share of the others' is a constant. Arithmetic in half precision
rounds a text's features to about this share of their size, and the feature's weights would be a thousand times the
others'. In the base `demo` three features of 384 are constants (1e-32 and 2e-9 beside 0.3); the next one has 0.14."""

ROUNDING_SHARE: Final = 2.0**-20
"""A feature whose standard deviation is at most this share of its largest value is a constant: 8 times the precision
of float32, so that the encoder's rounding alone gives such a spread."""

LARGEST_WEIGHT: Final = float(np.finfo(np.float16).max) / 20
"""No strength with a larger weight or bias is chosen if there is another one: half precision ends at 65,504, and
calibration may still divide the weights by a temperature of 0.05 and more."""

SOLVER_STEPS: Final = 1000
"""Most steps of the solver for one strength."""

ABSENT_LOGIT: Final = -12.0
"""Logit of a class that no training row has, which gives it a probability of about 6e-6."""


class LogisticModel:
    """One regression over all classes that occur, or one for each label that some but not all rows have.

    Attributes:
        outputs: ids of these classes or labels, int64 (outputs,), in ascending order.
    """

    def __init__(
        self,
        labels: np.ndarray,
        class_weights: np.ndarray | None = None,
        *,
        tolerance: float = 1e-4,
        solver: Literal["lbfgs", "saga"] = "lbfgs",
    ) -> None:
        """Prepare the regressions; `fit` fits them.

        Args:
            labels: class ids (rows,), or a label matrix of 0 and 1 (rows, labels).
            class_weights: weight of the rows of each class, or of the rows that have each label, (classes,); None
                weighs all rows alike.
            tolerance: the solver stops when no gradient is above it.
            solver: scikit-learn's solver. "saga" takes a third of the time on many rows, classes and sparse features;
                its tolerance is the relative change of the weights in a pass.
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
        self._regressions = [
            LogisticRegression(tol=tolerance, max_iter=SOLVER_STEPS, warm_start=True, solver=solver, random_state=0)
            for _ in range(needed)
        ]
        self._width = 0

    def start_at_priors(self, width: int) -> "LogisticModel":
        """Start the first fit at weights of 0 and the biases that are best then, and return self.

        The solver needs hundreds of steps to find these biases itself if the regularization is strong.

        Args:
            width: number of features.
        """
        classes = int(self.outputs[-1]) + 1 if self._exclusive else self._labels.shape[1]
        priors = problem_of(self._labels).prior_logits(self._labels, classes)[self.outputs]
        if not self._exclusive:
            starts = [priors[label : label + 1] for label in range(len(priors))]
        elif len(priors) == 2:  # of two classes scikit-learn fits the difference of their logits
            starts = [priors[1:] - priors[:1]]
        else:
            starts = [priors - priors.mean()]
        for regression, start in zip(self._regressions, starts, strict=False):
            regression.coef_, regression.intercept_ = np.zeros((len(start), width)), start
        return self

    def fit(self, inputs: Any, strength: float) -> "LogisticModel":
        """Fit all regressions and return self. A further call starts from the solution of the last one.

        Args:
            inputs: features of the rows, a dense or sparse array (rows, width).
            strength: inverse regularization strength.
        """
        self._width = inputs.shape[1]
        weights = self._class_weights
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is said below, in one line
            if self._exclusive:
                row_weights = None if weights is None else weights[self._labels]
                for regression in self._regressions:
                    regression.set_params(C=strength).fit(inputs, self._labels, row_weights)
            else:
                for label, regression in zip(self.outputs, self._regressions, strict=True):
                    has_label = self._labels[:, label]
                    row_weights = None if weights is None else np.where(has_label, weights[label], 1.0)
                    regression.set_params(C=strength).fit(inputs, has_label, row_weights)
        if any(regression.n_iter_.max() >= SOLVER_STEPS for regression in self._regressions):
            reached = f"the solver stopped after {SOLVER_STEPS:,} steps at C = {strength:.2g}"
            say(f"logistic regression: {reached}, before it had converged")
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


def fit_scaler(features: np.ndarray) -> StandardScaler:
    """Return a scaler that standardizes features and sets those that hardly vary to 0.

    A feature counts as constant if its standard deviation is at most FLAT_SHARE of that of the others (their upper
    quartile), or at most ROUNDING_SHARE of its own largest value. Both limits do not depend on the features' unit.

    Args:
        features: (rows, width).

    Returns:
        scikit-learn's scaler; `scale_` is infinite where a feature is constant, so that weights divided by it are 0.
    """
    scaler: StandardScaler = StandardScaler().fit(features)
    deviations = np.sqrt(scaler.var_)
    largest = np.maximum(features.max(axis=0), -features.min(axis=0))
    # the upper quartile ignores a few features of huge spread, and up to three quarters that are constant
    limits = np.maximum(FLAT_SHARE * np.quantile(deviations, 0.75), ROUNDING_SHARE * largest)
    scaler.scale_ = np.where(deviations <= limits, np.inf, deviations)
    return scaler


def fit_logistic(
    module: nn.Module,
    rows: LogisticRows,
    validate: ValidateFunction,
    metric: str,
    last_trial: int | None = None,
    *,
    all_strengths: bool = False,
) -> list[dict[str, Any]]:
    """Set the output layer of `module` to the regression of the best validation score (of equals the strongest).

    The features are standardized; the layer takes them as they are, because the scaler is folded into it. If the best
    of LOGISTIC_STRENGTHS is the first or the last one, those of WIDER_STRENGTHS beyond it are tried too.

    Args:
        module: the head.
        rows: what is fitted.
        validate: (module, trial from 0) -> validation scores, among them `metric`.
        metric: the metric that selects.
        last_trial: with `all_strengths`, the last strength to try (from 1); None for all.
        all_strengths: try WIDER_STRENGTHS in their order, whatever the scores are. Folds need this, because their
            scores are added up strength by strength.

    Returns:
        An entry for each strength, in ascending order: trial (from 1, in the order of fitting), C, train_loss, what
        `validate` gave, best.

    Raises:
        DeadlinePassed: the deadline (see `core.stopping`) passed before all strengths were tried that are needed.
    """
    with threadpool_limits(1, user_api="blas"):  # of short vectors: two threads took five times as long
        search = _StrengthSearch(module, rows, validate, metric)
        if all_strengths:
            search.try_all(WIDER_STRENGTHS[:last_trial])
        else:
            search.try_grid()
    search.keep_best(say_choice=not all_strengths or last_trial is not None)
    return search.history


@dataclass(frozen=True)
class _Regression:
    """The layer of one strength.

    Attributes:
        strength: inverse regularization strength.
        weight: (classes, width), for the features as they are.
        bias: (classes,).
        score: the metric that selects.
    """

    strength: float
    weight: np.ndarray
    bias: np.ndarray
    score: float

    @property
    def fits_half(self) -> bool:
        """Whether half precision can hold the weights, also after a temperature has divided them."""
        return bool(max(np.abs(self.weight).max(), np.abs(self.bias).max()) <= LARGEST_WEIGHT)

    def is_better(self, other: "_Regression | None") -> bool:
        """Return True if this one is to be preferred."""
        return other is None or (self.fits_half, self.score) > (other.fits_half, other.score)


class _StrengthSearch:
    """Regressions of several strengths on the same rows, and the best of them."""

    def __init__(self, module: nn.Module, rows: LogisticRows, validate: ValidateFunction, metric: str) -> None:
        self.module, self.rows, self.validate, self.metric = module, rows, validate, metric
        self.layer = output_layer(module)
        self.exact = rows.features.astype(np.float64)
        self.scaler = fit_scaler(self.exact)
        self.inputs = self.scaler.transform(self.exact)
        self.history: list[dict[str, Any]] = []
        self.complete = True
        self._model = self._new_model()
        self._best: _Regression | None = None
        self._excluded = False

    @property
    def best(self) -> _Regression:
        """The best regression so far."""
        assert self._best is not None
        return self._best

    def _new_model(self) -> LogisticModel:
        model = LogisticModel(self.rows.labels, self.rows.class_weights, tolerance=1e-6)
        return model.start_at_priors(self.inputs.shape[1])

    def try_all(self, strengths: Sequence[float]) -> None:
        """Fit and validate each of these strengths, in ascending order.

        Raises:
            DeadlinePassed: the deadline passed before.
        """
        if not self._try_until_deadline(strengths):
            raise DeadlinePassed("the time was up before all regularization strengths were tried")

    def try_grid(self) -> None:
        """Fit and validate LOGISTIC_STRENGTHS, and those beyond its end if the best one is there."""
        self.complete = self._try_until_deadline(LOGISTIC_STRENGTHS)
        beyond = _strengths_beyond(self.best.strength)
        if not beyond or not self.complete:
            return
        listed = f"C = {beyond[0]:.2g} to {beyond[-1]:.2g}"
        say(f"the best strength, C = {self.best.strength:.2g}, is at the end of the grid: {listed} are tried too")
        if beyond[0] < LOGISTIC_STRENGTHS[0]:
            self._model = self._new_model()
        self.complete = self._try_until_deadline(beyond)

    def _try_until_deadline(self, strengths: Sequence[float]) -> bool:
        """Return False if the deadline passed before the last one. The first of all is always tried."""
        for strength in strengths:
            signal_number, late = stopping.must_stop()
            if signal_number:
                raise Interrupted(signal_number, len(self.history), None)
            if late and self.history:
                return False
            self._try(strength)
        return True

    def _try(self, strength: float) -> None:
        labels, trial = self.rows.labels, len(self.history)
        self._model.fit(self.inputs, strength)
        weight, bias = _layer_weights(self._model, labels, self.layer.out_features)
        weight, bias = fold_scaler(weight, bias, self.scaler.mean_, self.scaler.scale_)
        _set_layer(self.layer, weight, bias)
        loss = float(problem_of(labels).row_losses(self.exact @ weight.T + bias, labels).mean())
        scores = self.validate(self.module, trial)
        self.history.append({"trial": trial + 1, "C": strength, "train_loss": loss, **scores})
        tracking.note_epoch(trial, self.history[-1])
        found = _Regression(strength, weight, bias, scores[self.metric])
        if found.is_better(self._best):
            self._best = found
        elif found.score > self.best.score:
            self._excluded = True

    def keep_best(self, *, say_choice: bool) -> None:
        """Set the layer to the best regression, and mark its entry in the history, which is sorted by strength.

        Args:
            say_choice: log the choice too.
        """
        best = self.best
        _set_layer(self.layer, best.weight, best.bias)
        self.history.sort(key=lambda entry: entry["C"])
        for entry in self.history:
            entry["best"] = entry["C"] == best.strength
        if not say_choice:
            return
        tried = f"the best of {len(self.history)} on validation"
        say(f"regularization strength C = {best.strength:.2g}, {tried}: {self.metric} {best.score:.4f}")
        if self._excluded:
            say("weaker regularization scored better, but half precision could not hold its weights")
        if not self.complete:
            say("the time is up: the best strength that was tried is kept")
            self.history[-1]["stopped"] = "the time was up before all strengths were tried"
        for end, word in ((WIDER_STRENGTHS[0], "strongest"), (WIDER_STRENGTHS[-1], "weakest")):
            if best.strength == end:
                say(f"that is the {word} regularization that is tried, so one beyond it may score better still")


def _strengths_beyond(best: float) -> tuple[float, ...]:
    """Return the strengths of the wider grid beyond this one if it is an end of the grid, else ()."""
    if best == LOGISTIC_STRENGTHS[0]:
        return tuple(strength for strength in WIDER_STRENGTHS if strength < best)
    if best == LOGISTIC_STRENGTHS[-1]:
        return tuple(strength for strength in WIDER_STRENGTHS if strength > best)
    return ()


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
