"""Choose the epoch (or regularization strength) and the learning rate on validation, then calibrate.

If a validation part would be too small, folds of the training rows choose: each fold is scored by a network that did
not see it, the scores of all folds together choose, and the network that is kept is trained on all rows up to the
chosen epoch. No function here is given a test row.

After training, a temperature and the decision (thresholds or costs) are fitted on the rows that were validated on. The
temperature goes into the output layer's weights, so that plain transformers gives calibrated scores too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core.console import say
from fullbake.evaluation.calibration import CalibratedDecision, fit_calibration
from fullbake.evaluation.metrics import validation_scores
from fullbake.models.heads import divide_logits
from fullbake.training.loop import ValidateFunction

History = list[dict[str, Any]]
"""An entry for each epoch, or for each regularization strength."""

_FOLD_METRIC = "neg_log_loss"
"""The metric within a fold, because it is defined on few rows; not every metric is."""


class TrainingRows(Protocol):
    """What a strategy trains on and scores: tokenized texts or features, with their labels."""

    @property
    def labels(self) -> np.ndarray:
        """Class ids (texts,), or a label matrix of 0 and 1 (texts, labels)."""

    def take(self, texts: np.ndarray, /) -> Any:
        """Return these texts (indices)."""


@dataclass(frozen=True)
class TrainingRun:
    """One training at one learning rate.

    Attributes:
        rate: the learning rate.
        metric: chooses the epoch and is shown in the log.
        name: the name of its checkpoints.
        last_trial: the epoch or strength (from 1) to stop at, None for all.
        early_stopping: whether the recipe's `patience` may stop it.
    """

    rate: float
    metric: str
    name: str
    last_trial: int | None = None
    early_stopping: bool = True


@dataclass(frozen=True)
class Strategy:
    """A way of training (see `strategies`), bound to the rows of a run."""

    train: Any
    """The training rows, as `TrainingRows`."""

    validation: Any | None
    """The validation rows, None if folds choose."""

    new_network: Callable[[], PreTrainedModel]
    """Returns an untrained network, the same each time."""

    fit: Callable[[PreTrainedModel, Any, ValidateFunction, TrainingRun], History]
    """(network, rows, validate, run) -> history; trains the network in place."""

    logits: Callable[[nn.Module, Any], np.ndarray]
    """(the trained part of a network, rows) -> logits float32 (texts, classes)."""

    trained_part: Callable[[PreTrainedModel], nn.Module]
    """A network -> the part of it that `fit` trains and gives to `validate`: the network itself, or its head."""

    fit_all: (
        Callable[[PreTrainedModel, Any, ValidateFunction, Sequence[TrainingRun]], list[tuple[PreTrainedModel, History]]]
        | None
    ) = None
    """(network, rows, validate, runs) -> a copy of the network for each run, and its history. It trains all runs at
    once; None if the strategy cannot."""


@dataclass(frozen=True)
class SelectedRun:
    """The training that validation chose.

    Attributes:
        network: the trained network.
        history: entries of all rates.
        logits: float32 (rows, classes) of the rows that were validated on, each by a network that did not train on it.
        score: the metric over these rows.
    """

    network: PreTrainedModel
    history: History
    logits: np.ndarray
    score: float


def train_best(
    strategy: Strategy, rates: Sequence[float], metric: str, folds: Sequence[np.ndarray] = ()
) -> SelectedRun:
    """Train at each learning rate and keep the training of the best validation score (the earlier of equals).

    Args:
        strategy: what trains, and its rows.
        rates: the learning rates.
        metric: the metric that chooses.
        folds: indices of the training rows that each fold holds out. With folds, they choose in place of
            `strategy.validation`.
    """
    return _best_by_folds(strategy, rates, metric, folds) if folds else _best_by_part(strategy, rates, metric)


def _best_by_part(strategy: Strategy, rates: Sequence[float], metric: str) -> SelectedRun:
    best: tuple[float, SelectedRun] | None = None
    scores: dict[float, float] = {}
    history: History = []
    for rate, run in zip(rates, _train_at_rates(strategy, rates, metric), strict=True):
        scores[rate] = run.score
        history += [entry | {"rate": rate} for entry in run.history]
        if best is None or run.score > best[1].score:
            best = (rate, run)
    assert best is not None
    if len(rates) == 1:
        return best[1]
    _say_choice(metric, scores, best[0])
    for entry in history:
        entry["best"] = entry["best"] and entry["rate"] == best[0]
    return SelectedRun(best[1].network, history, best[1].logits, best[1].score)


def _train_at_rates(strategy: Strategy, rates: Sequence[float], metric: str) -> Iterator[SelectedRun]:
    """Yield the training at each rate, in the order of the rates."""
    if strategy.fit_all is not None and len(rates) > 1:
        yield from _train_together(strategy, rates, metric)
        return
    for rate in rates:
        _say_rate(rates, rate)
        yield _train(strategy, rate, metric)


def _train_together(strategy: Strategy, rates: Sequence[float], metric: str) -> Iterator[SelectedRun]:
    held = strategy.validation
    assert strategy.fit_all is not None
    assert held is not None
    say(f"{len(rates)} learning rates together")

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        return validation_scores(strategy.logits(module, held), held.labels, metric)

    runs = [TrainingRun(rate, metric, f"rate-{rate:g}") for rate in rates]
    for network, history in strategy.fit_all(strategy.new_network(), strategy.train, validate, runs):
        logits = strategy.logits(strategy.trained_part(network), held)
        yield SelectedRun(network, history, logits, validation_scores(logits, held.labels, metric)[metric])


def _train(strategy: Strategy, rate: float, metric: str) -> SelectedRun:
    network, held = strategy.new_network(), strategy.validation
    assert held is not None
    best: list[tuple[float, int, np.ndarray]] = []  # score, index in the history, logits; of this process alone

    def validate(module: nn.Module, trial: int) -> dict[str, Any]:
        logits = strategy.logits(module, held)
        scores = validation_scores(logits, held.labels, metric)
        if not best or scores[metric] > best[0][0]:
            best[:] = [(scores[metric], trial, logits)]
        return scores

    history = strategy.fit(network, strategy.train, validate, TrainingRun(rate, metric, f"rate-{rate:g}"))
    if best and history[best[0][1]]["best"]:
        return SelectedRun(network, history, best[0][2], best[0][0])
    logits = strategy.logits(strategy.trained_part(network), held)  # the best epoch was before a stop and a resume
    return SelectedRun(network, history, logits, validation_scores(logits, held.labels, metric)[metric])


@dataclass(frozen=True)
class _FoldScores:
    """The validation scores of a rate over all folds together.

    Attributes:
        scores: for each epoch or strength.
        logits: float32 (epochs or strengths, rows, classes).
        best: index of the best epoch or strength.
    """

    scores: list[dict[str, Any]]
    logits: np.ndarray
    best: int


def _best_by_folds(strategy: Strategy, rates: Sequence[float], metric: str, folds: Sequence[np.ndarray]) -> SelectedRun:
    results: dict[float, _FoldScores] = {}
    for rate in rates:
        _say_rate(rates, rate)
        results[rate] = _score_folds(strategy, rate, metric, folds)
    scores = {rate: result.scores[result.best][metric] for rate, result in results.items()}
    rate = max(scores, key=lambda rate: scores[rate])
    if len(rates) > 1:
        _say_choice(metric, scores, rate)
    chosen, network = results[rate], strategy.new_network()
    say(f"training on all {len(strategy.train.labels):,} rows; the validation scores shown are those of the folds")
    run = TrainingRun(rate, metric, f"rate-{rate:g}", last_trial=chosen.best + 1, early_stopping=False)
    history = strategy.fit(network, strategy.train, lambda _, trial: chosen.scores[trial], run)
    return SelectedRun(network, history, chosen.logits[chosen.best], scores[rate])


def _score_folds(strategy: Strategy, rate: float, metric: str, folds: Sequence[np.ndarray]) -> _FoldScores:
    labels, everything = strategy.train.labels, np.arange(len(strategy.train.labels))
    found: list[list[Any]] = []
    for number, held in enumerate(folds, start=1):
        say(f"fold {number} of {len(folds)}: {len(held):,} rows held out")
        kept = np.setdiff1d(everything, held)
        run = TrainingRun(rate, _FOLD_METRIC, f"rate-{rate:g}-fold-{number}", early_stopping=False)
        validate = _validate_and_keep_logits(strategy, strategy.train.take(held))
        history = strategy.fit(strategy.new_network(), strategy.train.take(kept), validate, run)
        found.append([entry["held_logits"] for entry in history])
    logits = np.empty((len(found[0]), len(labels), len(found[0][0][0])), dtype=np.float32)
    for held, values in zip(folds, found, strict=True):
        logits[:, held] = np.array(values, dtype=np.float32)
    scores = [validation_scores(values, labels, metric) for values in logits]
    best = max(range(len(scores)), key=lambda trial: scores[trial][metric])
    say(f"{len(folds)} folds, epoch or strength {best + 1} of {len(scores)}: {metric} {scores[best][metric]:.4f}")
    return _FoldScores(scores, logits, best)


def _validate_and_keep_logits(strategy: Strategy, held: Any) -> ValidateFunction:
    """Return a function that scores a fold and keeps its logits in the history, which checkpoints save too."""

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        logits = strategy.logits(module, held)
        loss = float(problem_of(held.labels).row_losses(logits, held.labels).mean())
        return {"validation_loss": loss, _FOLD_METRIC: -loss, "held_logits": logits.tolist()}

    return validate


def _say_rate(rates: Sequence[float], rate: float) -> None:
    if len(rates) > 1:
        say(f"learning rate {rate:g}")


def _say_choice(metric: str, scores: dict[float, float], best: float) -> None:
    listed = ", ".join(f"{score:.4f} at {rate:g}" for rate, score in scores.items())
    say(f"validation chose the learning rate {best:g}: {metric} {listed}")


def calibrate_network(
    trained: SelectedRun, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig
) -> CalibratedDecision:
    """Fold a temperature into the network's output layer and fit its decision.

    A warning says if no threshold reaches the recall or precision that the recipe asks for.

    Args:
        trained: the training; its network changes in place.
        labels: of the rows of `trained.logits`.
        label_names: names of the classes or labels.
        config: the recipe's section on the decision.
    """
    finished = fit_calibration(trained.logits, labels, label_names, config)
    divide_logits(trained.network, finished.calibration["temperature"])
    return finished
