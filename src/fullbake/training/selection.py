"""What validation chooses while weights are trained: the epoch or the strength, and the rate.

Where a validation part is too small, the training rows choose for each other: every fold is scored by a network that
did not see it, the scores of all folds together choose, and the network that is kept is trained on all rows as far as
they said. No function here is given a test row.

After training: honest scores and good decisions, both fitted on the rows that chose, never on test.

The temperature goes into the output layer's weights, so that plain transformers gives calibrated scores too; the
decision (thresholds or costs) is kept beside them.
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

_FOLD_METRIC = "neg_log_loss"
"""What a fold's own lines show: defined on a handful of rows, as not every metric is."""


class TrainingRows(Protocol):
    """What a way trains on and scores: tokenized texts or features, with their labels."""

    @property
    def labels(self) -> np.ndarray:
        """Ids (texts,), or 0 and 1 (texts, classes)."""

    def take(self, texts: np.ndarray, /) -> Any:
        """These texts."""


@dataclass(frozen=True)
class TrainingRun:
    """One training. rate: the learning rate. metric: what its lines show and its epoch is chosen by. name: of its
    checkpoints. last: the epoch or strength (from 1) to stop at, None for all. patient: whether `patience` may stop
    it."""

    rate: float
    metric: str
    name: str
    last: int | None = None
    patient: bool = True


@dataclass(frozen=True)
class Strategy:
    """A way bound to the rows of a run.

    train, validation: its rows, None where folds choose. start: a network, the same each time. fit: (network, rows,
    what judges, trial) trains the network in place and gives the history. logits: (what is trained, rows) -> float32
    (texts, classes). trained: a network -> what `fit` trains of it and hands to the judge.
    """

    train: Any
    validation: Any | None
    start: Callable[[], PreTrainedModel]
    fit: Callable[[PreTrainedModel, Any, ValidateFunction, TrainingRun], History]
    logits: Callable[[nn.Module, Any], np.ndarray]
    trained: Callable[[PreTrainedModel], nn.Module]
    fit_all: (
        Callable[[PreTrainedModel, Any, ValidateFunction, Sequence[TrainingRun]], list[tuple[PreTrainedModel, History]]]
        | None
    ) = None


@dataclass(frozen=True)
class SelectedRun:
    """What was chosen. value: its metric. logits: float32 (rows that choose, classes), each by a network that did not
    train on the row."""

    network: PreTrainedModel
    history: History
    logits: np.ndarray
    value: float


def train_best(way: Strategy, rates: Sequence[float], metric: str, folds: Sequence[np.ndarray] = ()) -> SelectedRun:
    """Train at each rate and keep what `metric` on validation likes best (the earlier of equals).

    folds: positions within the training rows that each fold holds out; then they choose in place of way.validation.
    """
    return _best_by_folds(way, rates, metric, folds) if folds else _best_by_part(way, rates, metric)


def _best_by_part(way: Strategy, rates: Sequence[float], metric: str) -> SelectedRun:
    best: tuple[float, SelectedRun] | None = None
    values: dict[float, float] = {}
    tried: History = []
    for rate, trained in zip(rates, _trainings(way, rates, metric), strict=True):
        values[rate] = trained.value
        tried += [entry | {"rate": rate} for entry in trained.history]
        if best is None or trained.value > best[1].value:
            best = (rate, trained)
    assert best is not None
    if len(rates) == 1:
        return best[1]
    _tell_choice(metric, values, best[0])
    for entry in tried:
        entry["best"] = entry["best"] and entry["rate"] == best[0]
    return SelectedRun(best[1].network, tried, best[1].logits, best[1].value)


def _trainings(way: Strategy, rates: Sequence[float], metric: str) -> Iterator[SelectedRun]:
    """The training at each rate, in their order."""
    if way.fit_all is not None and len(rates) > 1:
        yield from _train_together(way, rates, metric)
        return
    for rate in rates:
        _announce(rates, rate)
        yield _train(way, rate, metric)


def _train_together(way: Strategy, rates: Sequence[float], metric: str) -> Iterator[SelectedRun]:
    held = way.validation
    assert way.fit_all is not None
    assert held is not None
    say(f"{len(rates)} learning rates together")

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        return validation_scores(way.logits(module, held), held.labels, metric)

    trials = [TrainingRun(rate, metric, f"rate-{rate:g}") for rate in rates]
    for network, history in way.fit_all(way.start(), way.train, validate, trials):
        logits = way.logits(way.trained(network), held)
        yield SelectedRun(network, history, logits, validation_scores(logits, held.labels, metric)[metric])


def _train(way: Strategy, rate: float, metric: str) -> SelectedRun:
    network, held = way.start(), way.validation
    assert held is not None
    best: list[tuple[float, int, np.ndarray]] = []  # of this process: its value, its place in the history, its logits

    def validate(module: nn.Module, place: int) -> dict[str, Any]:
        logits = way.logits(module, held)
        figures = validation_scores(logits, held.labels, metric)
        if not best or figures[metric] > best[0][0]:
            best[:] = [(figures[metric], place, logits)]
        return figures

    history = way.fit(network, way.train, validate, TrainingRun(rate, metric, f"rate-{rate:g}"))
    if best and history[best[0][1]]["best"]:
        return SelectedRun(network, history, best[0][2], best[0][0])
    logits = way.logits(way.trained(network), held)  # the best epoch came before a stop
    return SelectedRun(network, history, logits, validation_scores(logits, held.labels, metric)[metric])


@dataclass(frozen=True)
class _FoldScores:
    """What the folds together say of a rate. figures: a mapping an epoch or strength. logits: float32 (of those, rows,
    classes). best: the position of the chosen one."""

    figures: list[dict[str, Any]]
    logits: np.ndarray
    best: int


def _best_by_folds(way: Strategy, rates: Sequence[float], metric: str, folds: Sequence[np.ndarray]) -> SelectedRun:
    folded: dict[float, _FoldScores] = {}
    for rate in rates:
        _announce(rates, rate)
        folded[rate] = _over_folds(way, rate, metric, folds)
    values = {rate: result.figures[result.best][metric] for rate, result in folded.items()}
    rate = max(values, key=lambda rate: values[rate])
    if len(rates) > 1:
        _tell_choice(metric, values, rate)
    chosen, network = folded[rate], way.start()
    say(f"training on all {len(way.train.labels):,} rows; the figures are those of the folds")
    trial = TrainingRun(rate, metric, f"rate-{rate:g}", last=chosen.best + 1, patient=False)
    history = way.fit(network, way.train, lambda _, number: chosen.figures[number], trial)
    return SelectedRun(network, history, chosen.logits[chosen.best], values[rate])


def _over_folds(way: Strategy, rate: float, metric: str, folds: Sequence[np.ndarray]) -> _FoldScores:
    labels, everything = way.train.labels, np.arange(len(way.train.labels))
    found: list[list[Any]] = []
    for number, held in enumerate(folds, start=1):
        say(f"fold {number} of {len(folds)}: {len(held):,} rows held out")
        kept = np.setdiff1d(everything, held)
        trial = TrainingRun(rate, _FOLD_METRIC, f"rate-{rate:g}-fold-{number}", patient=False)
        history = way.fit(way.start(), way.train.take(kept), _keeping_logits(way, way.train.take(held)), trial)
        found.append([entry["held_logits"] for entry in history])
    logits = np.empty((len(found[0]), len(labels), len(found[0][0][0])), dtype=np.float32)
    for held, values in zip(folds, found, strict=True):
        logits[:, held] = np.array(values, dtype=np.float32)
    figures = [validation_scores(values, labels, metric) for values in logits]
    best = max(range(len(figures)), key=lambda number: figures[number][metric])
    say(f"{len(folds)} folds, epoch or strength {best + 1} of {len(figures)}: {metric} {figures[best][metric]:.4f}")
    return _FoldScores(figures, logits, best)


def _keeping_logits(way: Strategy, held: Any) -> ValidateFunction:
    """Judge a fold and keep its logits in the history, from where a checkpoint saves them too."""

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        logits = way.logits(module, held)
        loss = float(problem_of(held.labels).row_losses(logits, held.labels).mean())
        return {"validation_loss": loss, _FOLD_METRIC: -loss, "held_logits": logits.tolist()}

    return validate


def _announce(rates: Sequence[float], rate: float) -> None:
    if len(rates) > 1:
        say(f"learning rate {rate:g}")


def _tell_choice(metric: str, values: dict[float, float], best: float) -> None:
    told = ", ".join(f"{value:.4f} at {rate:g}" for rate, value in values.items())
    say(f"validation chose the rate {best:g}: {metric} {told}")


def calibrate_network(
    trained: SelectedRun, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig
) -> CalibratedDecision:
    """Fold a temperature into the network's output layer and fit its decision.

    labels: of the rows that trained.logits are of. Warns of a floor that no threshold reaches.
    """
    finished = fit_calibration(trained.logits, labels, label_names, config)
    divide_logits(trained.network, finished.calibration["temperature"])
    return finished
