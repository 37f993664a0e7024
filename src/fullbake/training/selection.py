"""Choose the epoch (or regularization strength) and the learning rate on validation, then calibrate.

If a validation part would be too small, folds of the training rows choose: each fold is scored by a network that did
not see it, the scores of all folds together choose, and the network that is kept is trained on all rows up to the
chosen epoch. No function here is given a test row.

After training, a temperature and the decision (thresholds or costs) are fitted on the rows that were validated on. The
temperature goes into the output layer's weights, so that plain transformers gives calibrated scores too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core import tracking
from fullbake.core.console import say, silenced
from fullbake.core.errors import DeadlinePassed, DivergenceFault
from fullbake.evaluation.calibration import CalibratedDecision, fit_calibration, fit_temperature
from fullbake.evaluation.metrics import validation_scores
from fullbake.models.heads import divide_logits
from fullbake.training.logistic import WIDER_STRENGTHS
from fullbake.training.loop import ValidateFunction
from fullbake.training.rates import RateProbe, best_rate

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
        search_metric: chooses the regularization strength, where there are strengths in place of epochs.
        last_trial: the epoch or strength (from 1) to stop at, None for all.
        early_stopping: whether the recipe's `patience` may stop it.
        epochs: passes over the rows, None for the recipe's.
    """

    rate: float
    metric: str
    name: str
    search_metric: str = _FOLD_METRIC
    last_trial: int | None = None
    early_stopping: bool = True
    epochs: int | None = None


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
        Callable[
            [PreTrainedModel, Any, ValidateFunction, Sequence[TrainingRun]],
            list[tuple[PreTrainedModel, History] | DivergenceFault],
        ]
        | None
    ) = None
    """(network, rows, validate, runs) -> for each run a copy of the network and its history, or why it diverged. It
    trains all runs at once; None if the strategy cannot."""

    by_strengths: bool = False
    """Whether the entries of a history are regularization strengths, which `search_metric` chooses; else epochs, which
    `metric` chooses."""


@dataclass(frozen=True)
class SelectedRun:
    """The training that validation chose.

    Attributes:
        network: the trained network.
        history: entries of all rates.
        logits: float32 (rows, classes) of the rows that were validated on, each by a network that did not train on it.
        score: the metric over these rows.
        rate: the learning rate.
        search_score: the metric that chooses rates, over these rows after calibration by a temperature. Without it,
            log loss would punish trainings for being too sure, which the temperature mends in the end.
    """

    network: PreTrainedModel
    history: History
    logits: np.ndarray
    score: float
    rate: float
    search_score: float


@dataclass(frozen=True)
class SelectionMetrics:
    """What chooses on validation.

    Attributes:
        epoch: name of the metric that chooses the epoch.
        search: name of the metric that chooses the learning rate and the regularization strength.
    """

    epoch: str
    search: str = _FOLD_METRIC

    def scores(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Return the validation scores of logits (rows, classes), among them both metrics."""
        return validation_scores(logits, labels, self.epoch, self.search)


def train_best(
    strategy: Strategy,
    rates: Sequence[float] | RateProbe,
    metrics: SelectionMetrics,
    folds: Sequence[np.ndarray] = (),
) -> SelectedRun:
    """Train at each learning rate and keep the training of the best validation score (the earlier of equals).

    Args:
        strategy: what trains, and its rows.
        rates: the learning rates; or a probe, which chooses one rate by short trainings before the whole one.
        metrics: what chooses.
        folds: indices of the training rows that each fold holds out. With folds, they choose in place of
            `strategy.validation`.

    Raises:
        DivergenceFault: the loss is not a finite number at any of the rates. One that diverges beside others is out.
    """
    if isinstance(rates, RateProbe):
        rates = (_probe_rates(strategy, rates, folds),)
    return _best_by_folds(strategy, rates, metrics, folds) if folds else _best_by_part(strategy, rates, metrics)


def _entries_of(chosen: SelectedRun) -> History:
    """Return the entries of the chosen learning rate: a history may hold those of several."""
    return [entry for entry in chosen.history if entry.get("rate", chosen.rate) == chosen.rate]


def refit(strategy: Strategy, chosen: SelectedRun, metrics: SelectionMetrics, epochs: int) -> SelectedRun:
    """Train a chosen setting once more on the rows of another strategy, up to the epoch or strength that was chosen.

    The learning rate falls as it did in the chosen training, so that after the same epoch it is the same; an epoch only
    has more steps. Nothing validates this training: the scores in its log are those of the chosen one.

    Args:
        strategy: its training rows, among them those that validated before.
        chosen: what validation chose.
        metrics: what chose.
        epochs: how many epochs the chosen training was planned for.

    Returns:
        The chosen run with the new network. History, logits and scores stay those of the training that validated.
    """
    entries = _entries_of(chosen)
    trials = [WIDER_STRENGTHS.index(entry["C"]) if strategy.by_strengths else entry["epoch"] - 1 for entry in entries]
    names = ("validation_loss", metrics.epoch, metrics.search)
    scores = {
        trial: {name: entry[name] for name in names if name in entry}
        for trial, entry in zip(trials, entries, strict=True)
    }
    last = next(trial for trial, entry in zip(trials, entries, strict=True) if entry["best"])

    def validate(_: nn.Module, trial: int) -> dict[str, Any]:
        # A strength that the search did not come to is no choice.
        return scores.get(trial, dict.fromkeys(names, -np.inf))

    run = replace(_run_at(chosen.rate, metrics), name="refit", last_trial=last + 1, early_stopping=False, epochs=epochs)
    rows = len(strategy.train.labels)
    say(f"training on all {rows:,} training and validation rows; the validation scores shown are those from before")
    network = strategy.new_network()
    with tracking.series("refit"):
        strategy.fit(network, strategy.train, validate, run)
    return replace(chosen, network=network)


def chosen_trial(chosen: SelectedRun) -> dict[str, Any]:
    """Return what validation chose within a training: `{"epoch": 3}`, or `{"C": 0.1}` of regularization strengths."""
    entry = next(entry for entry in _entries_of(chosen) if entry["best"])
    return {name: entry[name] for name in ("epoch", "C") if name in entry}


def _probe_rates(strategy: Strategy, probe: RateProbe, folds: Sequence[np.ndarray]) -> float:
    """Return the rate that short trainings choose on validation, or on the first fold; the rule's if none fit in.

    All trainings of a round have the same rows. Their checkpoints have names of their own, so that a resumed run does
    not train them again.
    """
    if not probe.rounds:
        say(
            f"learning rate {probe.rule:g}: the rule for width {probe.width} "
            f"({probe.steps:,} steps are too few to try other rates beside it)"
        )
        return probe.rule
    train, held = strategy.train, strategy.validation
    if folds:
        train = strategy.train.take(np.setdiff1d(np.arange(len(strategy.train.labels)), folds[0]))
        held = strategy.train.take(folds[0])
    assert held is not None
    random = np.random.default_rng(0)
    rows = random.permutation(len(train.labels))
    held = held.take(np.sort(random.permutation(len(held.labels))[: probe.rounds[0] * probe.batch]))
    rates, rate = probe.candidates, probe.rule
    losses: Mapping[float, np.ndarray] = {}
    for number, steps in enumerate(probe.rounds, start=1):
        say(f"trying the learning rates {', '.join(f'{rate:g}' for rate in rates)} for {steps} steps each")
        part = train.take(np.sort(rows[: steps * probe.batch]))
        losses = _probe_losses(strategy, rates, part, held, f"probe-{number}")
        rate = best_rate(losses, probe.rule)
        if rate == probe.rule:
            break
        rates = (probe.rule, rate)
    listed = ", ".join(f"{loss.mean():.4f} at {tried:g}" for tried, loss in losses.items())
    origin = f"the rule for width {probe.width}, which" if rate == probe.rule else "which"
    say(f"learning rate {rate:g}: {origin} short trainings chose; validation loss {listed}")
    return rate


def _probe_losses(
    strategy: Strategy, rates: Sequence[float], train: Any, held: Any, name: str
) -> Mapping[float, np.ndarray]:
    """Return the loss of each held row (rows,) after one epoch over `train`, by rate; not of rates that diverge.

    Raises:
        DivergenceFault: every rate diverges.
    """
    losses: dict[float, np.ndarray] = {}
    fault: DivergenceFault | None = None
    for rate in rates:
        run = TrainingRun(rate, _FOLD_METRIC, f"{name}-{rate:g}", early_stopping=False, epochs=1)
        try:
            with silenced(), tracking.unrecorded():
                history = strategy.fit(strategy.new_network(), train, _validate_and_keep_logits(strategy, held), run)
        except DivergenceFault as found:
            fault = found
            continue
        logits = np.array(history[0]["held_logits"], dtype=np.float32)
        losses[rate] = problem_of(held.labels).row_losses(logits, held.labels)
    if fault is not None and not losses:
        raise fault
    return losses


def _best_by_part(strategy: Strategy, rates: Sequence[float], metrics: SelectionMetrics) -> SelectedRun:
    best: SelectedRun | None = None
    scores: dict[float, float] = {}
    history: History = []
    try:
        for run in _train_at_rates(strategy, rates, metrics):
            scores[run.rate] = run.search_score
            history += [entry | {"rate": run.rate} for entry in run.history]
            if best is None or run.search_score > best.search_score:
                best = run
    except DeadlinePassed:
        if best is None:
            raise
        # The rates that were trained are a result too.
        history[-1]["stopped"] = f"the time was up after {len(scores)} of {len(rates)} learning rates"
    assert best is not None
    if len(rates) == 1:
        return best
    _say_choice(metrics.search, scores, best.rate)
    for entry in history:
        entry["best"] = entry["best"] and entry["rate"] == best.rate
    return replace(best, history=history)


def _train_at_rates(strategy: Strategy, rates: Sequence[float], metrics: SelectionMetrics) -> Iterator[SelectedRun]:
    """Yield the training at each rate that does not diverge, in the order of the rates.

    Raises:
        DivergenceFault: every rate diverges.
    """
    faults: list[DivergenceFault] = []
    together = strategy.fit_all is not None and len(rates) > 1
    for found in _train_together(strategy, rates, metrics) if together else _train_in_turn(strategy, rates, metrics):
        if isinstance(found, DivergenceFault):
            faults.append(found)
            continue
        yield found
    if len(faults) == len(rates):
        raise faults[0]


def _train_in_turn(
    strategy: Strategy, rates: Sequence[float], metrics: SelectionMetrics
) -> Iterator[SelectedRun | DivergenceFault]:
    for rate in rates:
        _say_rate(rates, rate)
        try:
            with tracking.series(_series_of(rates, rate)):
                found = _train(strategy, rate, metrics)
            yield found
        except DivergenceFault as fault:
            _say_divergence(rate, fault)
            yield fault


def _train_together(
    strategy: Strategy, rates: Sequence[float], metrics: SelectionMetrics
) -> Iterator[SelectedRun | DivergenceFault]:
    held = strategy.validation
    assert strategy.fit_all is not None
    assert held is not None
    say(f"{len(rates)} learning rates together")

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        return metrics.scores(strategy.logits(module, held), held.labels)

    runs = [_run_at(rate, metrics) for rate in rates]
    trained = strategy.fit_all(strategy.new_network(), strategy.train, validate, runs)
    for run, found in zip(runs, trained, strict=True):
        if isinstance(found, DivergenceFault):
            _say_divergence(run.rate, found)
            yield found
            continue
        network, history = found
        logits = strategy.logits(strategy.trained_part(network), held)
        yield _selected(network, history, logits, held.labels, run.rate, metrics)


def _say_divergence(rate: float, fault: DivergenceFault) -> None:
    say(f"the learning rate {rate:g} is out: {fault.what}")


def _train(strategy: Strategy, rate: float, metrics: SelectionMetrics) -> SelectedRun:
    network, held = strategy.new_network(), strategy.validation
    assert held is not None
    chooser = metrics.search if strategy.by_strengths else metrics.epoch
    best: list[tuple[float, int, np.ndarray]] = []  # score, index in the history, logits; of this process alone

    def validate(module: nn.Module, trial: int) -> dict[str, Any]:
        logits = strategy.logits(module, held)
        scores = metrics.scores(logits, held.labels)
        if not best or scores[chooser] > best[0][0]:
            best[:] = [(scores[chooser], trial, logits)]
        return scores

    history = strategy.fit(network, strategy.train, validate, _run_at(rate, metrics))
    if best and history[best[0][1]]["best"]:
        logits = best[0][2]
    else:
        logits = strategy.logits(strategy.trained_part(network), held)  # the best epoch was before a stop and a resume
    return _selected(network, history, logits, held.labels, rate, metrics)


def _run_at(rate: float, metrics: SelectionMetrics) -> TrainingRun:
    return TrainingRun(rate, metrics.epoch, f"rate-{rate:g}", metrics.search)


def _selected(
    network: PreTrainedModel,
    history: History,
    logits: np.ndarray,
    labels: np.ndarray,
    rate: float,
    metrics: SelectionMetrics,
) -> SelectedRun:
    score = validation_scores(logits, labels, metrics.epoch)[metrics.epoch]
    return SelectedRun(network, history, logits, score, rate, _search_score(logits, labels, metrics))


def _search_score(logits: np.ndarray, labels: np.ndarray, metrics: SelectionMetrics) -> float:
    calibrated = logits / np.float32(fit_temperature(logits, labels))
    return float(validation_scores(calibrated, labels, metrics.search)[metrics.search])


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


def _best_by_folds(
    strategy: Strategy, rates: Sequence[float], metrics: SelectionMetrics, folds: Sequence[np.ndarray]
) -> SelectedRun:
    results: dict[float, _FoldScores] = {}
    faults: list[DivergenceFault] = []
    for rate in rates:
        _say_rate(rates, rate)
        try:
            with tracking.series(_series_of(rates, rate)):
                results[rate] = _score_folds(strategy, rate, metrics, folds)
        except DivergenceFault as fault:
            _say_divergence(rate, fault)
            faults.append(fault)
    if not results:
        raise faults[0]
    labels = strategy.train.labels
    scores = {rate: _search_score(result.logits[result.best], labels, metrics) for rate, result in results.items()}
    rate = max(scores, key=lambda rate: scores[rate])
    if len(rates) > 1:
        _say_choice(metrics.search, scores, rate)
    chosen, network = results[rate], strategy.new_network()
    say(f"training on all {len(strategy.train.labels):,} rows; the validation scores shown are those of the folds")
    run = replace(_run_at(rate, metrics), last_trial=chosen.best + 1, early_stopping=False)
    history = strategy.fit(network, strategy.train, lambda _, trial: chosen.scores[trial], run)
    return _selected(network, history, chosen.logits[chosen.best], labels, rate, metrics)


def _score_folds(
    strategy: Strategy, rate: float, metrics: SelectionMetrics, folds: Sequence[np.ndarray]
) -> _FoldScores:
    labels, everything = strategy.train.labels, np.arange(len(strategy.train.labels))
    found: list[list[Any]] = []
    for number, held in enumerate(folds, start=1):
        say(f"fold {number} of {len(folds)}: {len(held):,} rows held out")
        kept = np.setdiff1d(everything, held)
        run = TrainingRun(rate, _FOLD_METRIC, f"rate-{rate:g}-fold-{number}", early_stopping=False)
        validate = _validate_and_keep_logits(strategy, strategy.train.take(held))
        with tracking.series(f"fold-{number}"):
            history = strategy.fit(strategy.new_network(), strategy.train.take(kept), validate, run)
        found.append([entry["held_logits"] for entry in history])
    logits = np.empty((len(found[0]), len(labels), len(found[0][0][0])), dtype=np.float32)
    for held, values in zip(folds, found, strict=True):
        logits[:, held] = np.array(values, dtype=np.float32)
    scores = [metrics.scores(values, labels) for values in logits]
    chooser = metrics.search if strategy.by_strengths else metrics.epoch
    best = max(range(len(scores)), key=lambda trial: scores[trial][chooser])
    kind = "strength" if strategy.by_strengths else "epoch"
    say(f"{len(folds)} folds, {kind} {best + 1} of {len(scores)}: {chooser} {scores[best][chooser]:.4f}")
    return _FoldScores(scores, logits, best)


def _validate_and_keep_logits(strategy: Strategy, held: Any) -> ValidateFunction:
    """Return a function that scores a fold and keeps its logits in the history, which checkpoints save too."""

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        logits = strategy.logits(module, held)
        loss = float(problem_of(held.labels).row_losses(logits, held.labels).mean())
        return {"validation_loss": loss, _FOLD_METRIC: -loss, "held_logits": logits.tolist()}

    return validate


def _series_of(rates: Sequence[float], rate: float) -> str:
    """Return what the values of a training are recorded under, where there are several."""
    return f"rate-{rate:g}" if len(rates) > 1 else ""


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
