"""One trial of a comparison: train on one seed and learning rate, judge on validation, and later score on test.

Whatever trains refuses rows with a test part; scoring gets the test part alone, with weights that are final. What goes
wrong in a trial (a loss that is not a number, a collapse, a recipe that the base cannot run) is a result with a reason,
so that the other trials continue.

Fine-tuning collapses on some seeds and not on others with the same settings (Devlin et al. 2019 restarted such runs;
Mosbach et al. 2021, arXiv 2006.04884, found vanished gradients behind most of them). A collapsed trial is trained once
more with another seed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from transformers import PreTrainedModel

from fullbake.comparison.design import epochs_of
from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core import runtime
from fullbake.core.errors import DeadlinePassed, Error, Fault, SpaceFault
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.calibration import CalibratedDecision, fit_calibration
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.inference import logits_over
from fullbake.training import baselines
from fullbake.training.frozen import LabeledFeatures, head_logits
from fullbake.training.job import Job, encode_dataset, initial_network, part_features
from fullbake.training.rates import RateProbe
from fullbake.training.selection import SelectedRun, SelectionMetrics, Strategy, calibrate_network, train_best
from fullbake.training.strategies import jobs_to_try, metrics_of, rates_of, strategy_for

CollapseSign = Literal["vanished_gradients", "stuck_loss", "one_class"]

NEAR_CHANCE: Final = 0.98
"""A loss of at least this share of the chance loss is no better than chance."""
FAR_FROM_CHANCE: Final = 1.5
"""A loss above this multiple of the chance loss is another failure: divergence or overconfidence."""
TINY_GRADIENT: Final = 1e-6
"""Gradients with a smaller norm change nothing."""
FITTED_LOSS: Final = 0.1
"""Below this share of the chance loss, gradients are small because the rows are learned."""


@dataclass(frozen=True)
class Collapse:
    """A training that learned nothing."""

    sign: CollapseSign
    """How it was detected."""
    reason: str
    """One clause for people, with numbers."""


def find_collapse(
    history: Sequence[Mapping[str, Any]],
    predictions: NDArray[Any],
    labels: NDArray[Any],
    gradient_norms: Sequence[float] = (),
) -> Collapse | None:
    """Return the first sign of a collapse, causes before effects; None if there is none. One sign is enough.

    On data where nearly all rows have one class, an honest model may give one answer too. The reason states the share
    of rows for which it is right, so that a person can judge.

    Args:
        history: An entry an epoch with `train_loss` and `validation_loss`, mean cross entropies in nats. Training with
            another loss is never reported as stuck.
        predictions: Predictions of the chosen epoch on validation, ids (rows,) or a label matrix (rows, labels).
        labels: The true labels in the same form.
        gradient_norms: Norms before clipping, step by step; empty if unknown.
    """
    chance = problem_of(labels).chance_loss(labels)
    return (
        _vanished(gradient_norms, history, chance)
        or _stuck(history, chance, len(np.unique(labels)))
        or _one_class(predictions, labels)
    )


def _vanished(norms: Sequence[float], history: Sequence[Mapping[str, Any]], chance: float) -> Collapse | None:
    if not len(norms) or not history:
        return None
    last_epoch = norms[-max(len(norms) // len(history), 1) :]
    typical, loss = float(np.median(last_epoch)), float(history[-1]["train_loss"])
    if typical >= TINY_GRADIENT or loss < FITTED_LOSS * chance:
        return None
    reason = f"gradients vanished: {typical:.1e} long in the last epoch, at a training loss of {loss:.3f}"
    return Collapse("vanished_gradients", reason)


def _stuck(history: Sequence[Mapping[str, Any]], chance: float, classes: int) -> Collapse | None:
    if not history or not chance:
        return None
    lowest = {name: min(float(entry[name]) for entry in history) for name in ("train_loss", "validation_loss")}
    if not all(NEAR_CHANCE * chance <= loss <= FAR_FROM_CHANCE * chance for loss in lowest.values()):
        return None
    reason = (
        f"the loss never left chance: at best {lowest['train_loss']:.3f} in training and "
        f"{lowest['validation_loss']:.3f} on validation, where knowing nothing but the {classes} classes' shares costs "
        f"{chance:.3f}"
    )
    return Collapse("stuck_loss", reason)


def _one_class(predictions: NDArray[Any], labels: NDArray[Any]) -> Collapse | None:
    first = predictions[:1]
    if not len(predictions) or (predictions != first).any() or (labels == labels[:1]).all():
        return None
    right = problem_of(labels).equal_rows(labels, first).mean()
    reason = f"all {len(predictions):,} validation rows got the same answer, which is right for {right:.0%} of them"
    return Collapse("one_class", reason)


RESTART_SEED_OFFSET: Final = 1000
"""Added to the seed of a collapsed trial for its one restart."""

SPEED_ROWS: Final = 256
"""Rows on which the speed of a classifier is measured."""

TrialWeights = dict[str, np.ndarray]
"""Trained parameters by name."""


@dataclass(frozen=True)
class TrialResult:
    """The validation results of a trial. All fields but the logits are JSON values and stored under these names."""

    value: float | None
    """The metric; None if the trial failed."""
    reason: str | None
    """Why the trial failed, or how it stayed collapsed; else None."""
    logits: np.ndarray
    """Calibrated logits of the validation rows, float32 (rows, classes)."""
    seed: int
    """The seed of the final training."""
    decision: dict[str, Any] | None = None
    """The decision rule, fitted on validation."""
    calibration: dict[str, Any] | None = None
    """Temperature and calibration errors, from validation."""
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    """Thresholds chosen on validation, with their scores."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """An entry an epoch."""
    seconds: float = 0.0
    """Seconds of training, validation included."""
    memory: int | None = None
    """Peak memory in bytes; None if unknown."""
    parameters: int = 0
    """Number of trained parameters."""
    size: int = 0
    """Bytes of the whole classifier."""
    restarts: list[str] = field(default_factory=list)
    """Why the trial was started again."""
    baseline: dict[str, Any] | None = None
    """What validation chose for a baseline, the fields of `BaselineChoice`; None if there was nothing to choose."""
    stage_seconds: float = 0.0
    """Seconds of the further pretraining of its base."""
    rate: float | None = None
    """The learning rate; None if the recipe has none, or the trial failed."""
    rates: list[dict[str, float]] = field(default_factory=list)
    """The rates that validation chose among, each as `rate` and `validation` (the best value of the metric)."""
    head: str | None = None
    """The kind of head that validation chose; None if the recipe names one."""
    threads: int | None = None
    """Threads that it computed with."""
    share: float = 1.0
    """Share of the training that was done; below 1 if its time was up before its end."""
    stopped: str | None = None
    """At which point the time was up; None if it ran to its end."""

    def facts(self) -> dict[str, Any]:
        """Return all fields but the logits, as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "logits"}


@dataclass(frozen=True)
class TrialPredictions:
    """What a trial predicts for the test rows."""

    logits: np.ndarray
    """Calibrated logits, float32 (rows, classes)."""
    rows_per_second: float
    """Speed of the classifier from texts to logits."""


TrainBest = Callable[[Strategy, Sequence[float] | RateProbe, SelectionMetrics], SelectedRun]
"""A strategy, learning rates and the metrics that choose to the best training."""


def train_trial(
    job: Job, rate: float | None, *, train_best: TrainBest = train_best
) -> tuple[TrialResult, TrialWeights]:
    """Train one trial; once more with another seed if it collapses or fails by a fault.

    Args:
        job: A job without test rows; its recipe has the seed of the trial.
        rate: The learning rate; None for the recipe's own: one, several that validation chooses among, or a search.
        train_best: Trains with the given rates and selects by validation.

    Returns:
        The result, and the trained weights by name (the head's alone if the base is frozen); no weights if the trial
        failed.

    Raises:
        ValueError: The job has test rows.
        SpaceFault: The disk is full. Interrupts pass through as well.
        DeadlinePassed: The time was up before anything was validated, see `stopping.deadline`.
    """
    _refuse_test(job.parts)
    result, weights, problem = _attempt(job, rate, train_best)
    if problem is None or job.recipe.training.optimizer == "lbfgs":
        return result, weights
    seed = job.recipe.training.seed + RESTART_SEED_OFFSET
    again = replace(job, recipe=job.recipe.with_fields(seed=seed), prefix="restarted-")
    try:
        second, second_weights, _ = _attempt(again, rate, train_best)
    except DeadlinePassed:
        return result, weights
    restart = f"{problem}; started again with seed {seed}"
    return replace(second, restarts=[restart], seconds=result.seconds + second.seconds), second_weights


def _refuse_test(parts: Parts) -> None:
    if parts.test is not None:
        raise ValueError("training and selection must be given no test part")


def _attempt(job: Job, rate: float | None, train_best: TrainBest) -> tuple[TrialResult, TrialWeights, str | None]:
    """Train once. Return (result, weights, why another seed should be tried or None)."""
    seed = job.recipe.training.seed
    runtime.reset_peak_memory()
    started = time.perf_counter()
    try:
        candidates = jobs_to_try(job)
        attempts, started = _train_heads(candidates, rate, train_best)
        best = max(attempts, key=lambda attempt: attempt.run.search_score)
        seconds = time.perf_counter() - started
        labels, names = job.parts.selection_part.labels, job.parts.train.source.label_names
        calibrated = calibrate_network(best.run, labels, names, job.recipe.decision)
    except SpaceFault:
        raise
    except (Error, RuntimeError, MemoryError) as error:
        reason, spent = _error_clause(error), time.perf_counter() - started
        return failed_trial(reason, seed, spent), {}, reason if isinstance(error, Fault) else None
    collapse = _find_collapse(best.run, calibrated, labels)
    module = best.strategy.trained_part(best.run.network)
    stopped, share = _how_it_ended(best)
    if len(attempts) < len(candidates):
        missed = candidates[len(attempts)].recipe.head.kind
        stopped = stopped or f"the time was up before the head {missed} was validated"
        share *= len(attempts) / len(candidates)
    result = replace(
        _result(best.run.score, calibrated, seed, seconds),
        reason=None if collapse is None else f"collapsed: {collapse.reason}",
        history=best.run.history,
        parameters=sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        size=sum(tensor.nbytes for tensor in best.run.network.state_dict().values())
        + len(job.tokenizer.backend_tokenizer.to_str().encode()),
        rate=None if best.job.recipe.training.optimizer == "lbfgs" else best.run.rate,
        rates=_rates_tried(best.run.history, job.recipe.training.metric),
        head=None if len(candidates) == 1 else best.job.recipe.head.kind,
        stopped=stopped,
        share=share,
    )
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    # Another seed would be stopped too.
    return result, weights, None if stopped else result.reason


@dataclass(frozen=True)
class _Trained:
    """A training of one kind of head."""

    job: Job
    strategy: Strategy
    run: SelectedRun


def _train_heads(candidates: Sequence[Job], rate: float | None, train_best: TrainBest) -> tuple[list[_Trained], float]:
    """Train each kind of head. At the deadline keep those that were validated.

    Returns:
        The trainings, and when the first began: after its features, which other trials share.

    Raises:
        DeadlinePassed: no head was validated.
    """
    attempts: list[_Trained] = []
    started = time.perf_counter()
    for candidate in candidates:
        try:
            strategy = strategy_for(candidate)  # reads or makes the features of a frozen base
            if not attempts:
                started = time.perf_counter()
            trained = train_best(strategy, rates_of(candidate) if rate is None else (rate,), metrics_of(candidate))
        except DeadlinePassed:
            if not attempts:
                raise
            break
        attempts.append(_Trained(candidate, strategy, trained))
    return attempts, started


def _how_it_ended(trained: _Trained) -> tuple[str | None, float]:
    """Return (at which point the time was up or None, share of the epochs that were validated)."""
    own = [entry for entry in trained.run.history if entry.get("rate", trained.run.rate) == trained.run.rate]
    stopped = next((str(entry["stopped"]) for entry in trained.run.history if entry.get("stopped")), None)
    if stopped is None:
        return None, 1.0
    epochs = epochs_of(trained.job.recipe, len(trained.job.parts.train))
    return stopped, min(len(own) / epochs, 0.999)


def _rates_tried(history: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, float]]:
    """Return the best value of the metric at each rate that was trained to its end; [] if there was one."""
    values: dict[float, float] = {}
    for entry in history:
        if "rate" in entry and metric in entry:
            values[entry["rate"]] = max(values.get(entry["rate"], -np.inf), float(entry[metric]))
    return [{"rate": rate, "validation": value} for rate, value in values.items()]


def _result(value: float, calibrated: CalibratedDecision, seed: int, seconds: float) -> TrialResult:
    return TrialResult(
        value=value,
        reason=None,
        logits=calibrated.logits,
        seed=seed,
        decision=calibrated.decision.to_json(),
        calibration=calibrated.calibration,
        thresholds=calibrated.thresholds,
        seconds=seconds,
        memory=runtime.peak_memory(),
    )


def failed_trial(reason: str, seed: int, seconds: float = 0.0) -> TrialResult:
    """Return the result of a trial that gave no classifier."""
    return TrialResult(None, reason, np.empty((0, 0), np.float32), seed, seconds=seconds, memory=runtime.peak_memory())


def _error_clause(error: Exception) -> str:
    if not isinstance(error, Error):  # such as torch's error when memory runs out
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return f"{error.what} ({error.where})" if error.where else error.what


def _find_collapse(trained: SelectedRun, calibrated: CalibratedDecision, labels: np.ndarray) -> Collapse | None:
    problem = calibrated.decision.problem
    # A fitted threshold may be meant to give one answer for all rows, so classes are judged by the likeliest one.
    plain = Decision(problem, calibrated.decision.label_names)
    rule = plain if problem.default_thresholds == "default" else calibrated.decision
    predictions = rule.decide(problem.probabilities(calibrated.logits))
    norms = [entry["gradient_norm"] for entry in trained.history if "gradient_norm" in entry]
    return find_collapse(trained.history, predictions, labels, norms)


def restore_network(job: Job, weights: Mapping[str, np.ndarray]) -> PreTrainedModel:
    """Return the network that a trial trained, in eval mode on its device.

    Args:
        job: The job that the trial was trained by.
        weights: What `train_trial` returned.
    """
    model = initial_network(job)
    module = network.extract_head(model) if job.recipe.way == "frozen" else model
    module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()})
    on_device: Any = model
    return on_device.to(runtime.device()).eval()  # type: ignore[no-any-return]


def score_trial(job: Job, test: Part, weights: Mapping[str, np.ndarray]) -> TrialPredictions:
    """Predict the test rows and measure the speed.

    Args:
        job: The job that the trial was trained by.
        test: The test rows.
        weights: What `train_trial` returned.
    """
    model = restore_network(job, weights)
    sample = test.indices[:: max(len(test) // SPEED_ROWS, 1)][:SPEED_ROWS]
    started = time.perf_counter()
    sample_logits = _logits(job, model, test.source.take(sample))
    speed = len(sample) / (time.perf_counter() - started)
    if len(sample) == len(test):
        return TrialPredictions(sample_logits, speed)
    if job.recipe.way == "finetune":
        return TrialPredictions(_logits(job, model, test.source.take(test.indices)), speed)
    # The features of a frozen base are in the cache: only the head has to run.
    (found,) = part_features(job, [test])
    assert test.source.labels is not None
    pooling = job.recipe.tokens.window_pooling
    features = LabeledFeatures(found.values, test.source.labels, found.documents, pooling, found.starts)
    return TrialPredictions(head_logits(network.extract_head(model), features.take(test.indices)), speed)


def _logits(job: Job, model: PreTrainedModel, rows: Dataset) -> np.ndarray:
    encoded = encode_dataset(rows, job)
    return logits_over(model, encoded, tokens=job.recipe.tokens, pad_id=job.tokenizer.pad_token_id, title="testing")


def train_baseline(name: str, parts: Parts, metric: str, decision: DecisionConfig) -> TrialResult:
    """Train a baseline and judge it on validation.

    Args:
        name: One of `baselines.BASELINE_NAMES`.
        parts: The rows, without a test part.
        metric: The metric that is reported; features and strength are chosen by log loss.
        decision: How it decides.

    Raises:
        ValueError: The parts have test rows.
    """
    _refuse_test(parts)
    runtime.reset_peak_memory()
    started = time.perf_counter()
    fitted = _fit_baseline(name, parts)
    labels, names = parts.selection_part.labels, parts.train.source.label_names
    logits = fitted.logits(parts.selection_part.joined_texts.to_pylist())
    value = validation_scores(logits, labels, metric)[metric]
    calibrated = fit_calibration(logits, labels, names, decision)
    result = _result(value, calibrated, 0, time.perf_counter() - started)
    choice = None if fitted.choice is None else vars(fitted.choice)
    return replace(result, parameters=fitted.parameters, size=fitted.size, baseline=choice)


def score_baseline(name: str, parts: Parts, test: Part, result: TrialResult) -> TrialPredictions:
    """Predict the test rows with a baseline. It is trained again, which costs less than storing it.

    Args:
        name: One of `baselines.BASELINE_NAMES`.
        parts: The rows that it was trained on.
        test: The test rows.
        result: What `train_baseline` returned: what was chosen, and the temperature.
    """
    choice = None if result.baseline is None else baselines.BaselineChoice(**result.baseline)
    fitted = _fit_baseline(name, parts, choice)
    texts = test.joined_texts.to_pylist()
    started = time.perf_counter()
    logits = fitted.logits(texts)
    speed = len(texts) / max(time.perf_counter() - started, 1e-6)
    assert result.calibration is not None
    return TrialPredictions(logits / np.float32(result.calibration["temperature"]), speed)


def _fit_baseline(name: str, parts: Parts, choice: baselines.BaselineChoice | None = None) -> baselines.Baseline:
    train, validation = (
        baselines.BaselineRows(part.joined_texts.to_pylist(), part.labels)
        for part in (parts.train, parts.selection_part)
    )
    classes = len(parts.train.source.label_names)
    # Sparse products gain nothing by more threads, and wait for each other on a busy machine.
    with threadpool_limits(1):
        return baselines.fit_baseline(name, train, classes, validation=validation, choice=choice)
