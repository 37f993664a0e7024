"""A training that learned nothing, told by what it left behind: its predictions, its losses, its gradients.

Fine-tuning fails on some seeds and not on others with the same settings (Devlin et al. 2019 restarted such runs;
Mosbach et al. 2021, arXiv 2006.04884, found vanished gradients behind most of them): another seed is the remedy, a
lower rate where that fails too. Each sign alone is enough. What is looked at are plain cross entropies on validation
and plain arrays, never a model. On data where nearly all rows are of one class an honest model may give one answer,
too: the reason tells the share, for a person to judge.

One cell of a comparison: trained and judged on validation, and later, if it was chosen, scored on test.

`train_cell` is given rows without a test part and refuses any; `score_cell` is given the test part alone with weights
that are final. What a cell went wrong by is a result with its reason: a loss that is no number, a collapse that
another seed did not mend, a recipe that this base cannot run.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fullbake.comparison import baselines
from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core import runtime
from fullbake.core.errors import Error, Fault, SpaceFault
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.calibration import CalibratedDecision, fit_calibration
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.inference import logits_over
from fullbake.training.frozen import LabeledFeatures, head_logits
from fullbake.training.job import Job, encode_dataset, initial_network, part_features
from fullbake.training.selection import SelectedRun, calibrate_network, train_best
from fullbake.training.strategies import strategy_for

CollapseSign = Literal["vanished_gradients", "stuck_loss", "one_class"]

NEAR_CHANCE: Final = 0.98
"""A loss from this share of chance on is no better than chance."""
FAR_FROM_CHANCE: Final = 1.5
"""A loss beyond this multiple of chance is another failure: divergence, or too sure of itself."""
TINY_GRADIENT: Final = 1e-6
"""Gradients shorter than this move nothing."""
FITTED_LOSS: Final = 0.1
"""Under this share of the loss of chance, gradients are short because the rows are learned."""


@dataclass(frozen=True)
class Collapse:
    """sign: what was found. reason: one clause for people, numbers in it."""

    sign: CollapseSign
    reason: str


def find_collapse(
    history: Sequence[Mapping[str, Any]],
    predictions: NDArray[Any],
    labels: NDArray[Any],
    gradient_norms: Sequence[float] = (),
) -> Collapse | None:
    """The first sign of a collapse, causes before effects; None where there is none.

    history: an entry an epoch, `train_loss` and `validation_loss` in it, mean cross entropies in nats (training by
    another loss is not seen as stuck). predictions: of the chosen epoch on validation, ids (rows,), or 0 and 1 (rows,
    labels). labels: the truth, alike. gradient_norms: of each step before clipping, in order; none where unknown.
    """
    chance = chance_loss(labels)
    return (
        _vanished(gradient_norms, history, chance)
        or _stuck(history, chance, _classes(labels))
        or _one_class(predictions, labels)
    )


def chance_loss(labels: NDArray[Any]) -> float:
    """Cross entropy, in nats, of who knows the shares of the classes and nothing else: ln K where all K are equally
    frequent. labels: ids (rows,), or 0 and 1 (rows, labels): then the mean over the labels."""
    if labels.ndim == 2:
        shares = labels.mean(axis=0)
        return float(np.mean(_entropy(np.stack([shares, 1 - shares]))))
    return float(_entropy(np.bincount(labels) / len(labels)))


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the first axis, in nats."""
    logs = np.log(np.where(shares > 0, shares, 1.0))
    entropy: NDArray[np.float64] = -(shares * logs).sum(axis=0)
    return entropy


def _classes(labels: NDArray[Any]) -> int:
    return 2 if labels.ndim == 2 else len(np.unique(labels))


def _vanished(norms: Sequence[float], history: Sequence[Mapping[str, Any]], chance: float) -> Collapse | None:
    if not len(norms) or not history:
        return None
    last = norms[-max(len(norms) // len(history), 1) :]
    typical, loss = float(np.median(last)), float(history[-1]["train_loss"])
    if typical >= TINY_GRADIENT or loss < FITTED_LOSS * chance:
        return None
    reason = f"gradients vanished: {typical:.1e} long in the last epoch, at a training loss of {loss:.3f}"
    return Collapse("vanished_gradients", reason)


def _stuck(history: Sequence[Mapping[str, Any]], chance: float, classes: int) -> Collapse | None:
    if not history or not chance:
        return None
    least = {name: min(float(entry[name]) for entry in history) for name in ("train_loss", "validation_loss")}
    if not all(NEAR_CHANCE * chance <= loss <= FAR_FROM_CHANCE * chance for loss in least.values()):
        return None
    reason = (
        f"the loss never left chance: at best {least['train_loss']:.3f} in training and "
        f"{least['validation_loss']:.3f} on validation, where knowing nothing but the {classes} classes' shares costs "
        f"{chance:.3f}"
    )
    return Collapse("stuck_loss", reason)


def _one_class(predictions: NDArray[Any], labels: NDArray[Any]) -> Collapse | None:
    first = predictions[:1]
    if not len(predictions) or (predictions != first).any() or (labels == labels[:1]).all():
        return None
    agreeing = (labels == first).reshape(len(labels), -1).all(axis=1).mean()
    reason = f"all {len(predictions):,} validation rows got the same answer, which is right for {agreeing:.0%} of them"
    return Collapse("one_class", reason)


ANOTHER_SEED: Final = 1000
"""Added to the seed of a cell that collapsed, for its one restart."""

SPEED_ROWS: Final = 256
"""Rows that a classifier's speed is measured on."""

TrialWeights = dict[str, np.ndarray]


@dataclass(frozen=True)
class TrialResult:
    """What validation saw of a cell.

    value: the metric, None where the cell failed; then `reason` says why (it also tells a collapse that stayed).
    logits: float32 (validation rows, classes), calibrated. decision, calibration, thresholds: fitted on them, JSON
    values. seconds: of training, its validation included. memory: most bytes held meanwhile. parameters: how many
    trained. size: bytes of the whole classifier. seed: what it was trained with in the end. restarts: why before.
    stage_seconds: of the further pretraining it stands on.
    """

    value: float | None
    reason: str | None
    logits: np.ndarray
    seed: int
    decision: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    memory: int | None = None
    parameters: int = 0
    size: int = 0
    restarts: list[str] = field(default_factory=list)
    strength: float | None = None
    stage_seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """All but the logits, JSON values."""
        return {name: value for name, value in vars(self).items() if name != "logits"}


@dataclass(frozen=True)
class TestLogits:
    """Test logits, float32 (rows, classes), and how many rows a second the classifier gets through from their texts."""

    logits: np.ndarray
    rows_per_second: float


def train_trial(job: Job, rate: float | None) -> tuple[TrialResult, TrialWeights]:
    """Train at one rate and judge on validation; once more with another seed where training collapsed or diverged.

    rate: None for the recipe's own. The weights are those of what trains, with the temperature in them; none where the
    cell failed. Raises ValueError where the job has a test part, SpaceFault and what interrupts.
    """
    _refuse_test(job.parts)
    outcome, weights, mended = _attempt(job, rate)
    if mended is None or job.recipe.training.optimizer == "lbfgs":
        return outcome, weights
    seed = job.recipe.training.seed + ANOTHER_SEED
    again = replace(job, recipe=job.recipe.with_fields(seed=seed), prefix="restarted-")
    second, weights, _ = _attempt(again, rate)
    told = f"{mended}; started again with seed {seed}"
    return replace(second, restarts=[told], seconds=outcome.seconds + second.seconds), weights


def _refuse_test(parts: Parts) -> None:
    if parts.test is not None:
        raise ValueError("what trains and chooses is given no test part")


def _attempt(job: Job, rate: float | None) -> tuple[TrialResult, TrialWeights, str | None]:
    """(what came of it, the weights, why another seed should be tried)."""
    training = job.recipe.training
    runtime.reset_peak_memory()
    started = time.perf_counter()
    try:
        way = strategy_for(job)
        started = time.perf_counter()
        trained = train_best(way, [rate or training.learning_rate[0]], training.metric)
        seconds = time.perf_counter() - started
        labels, names = job.parts.selection_part.labels, job.parts.train.source.label_names
        finished = calibrate_network(trained, labels, names, job.recipe.decision)
    except SpaceFault:
        raise
    except (Error, RuntimeError, MemoryError) as error:
        reason, spent = _error_clause(error), time.perf_counter() - started
        return failed_trial(reason, training.seed, spent), {}, reason if isinstance(error, Fault) else None
    collapse = _collapse(trained, finished, labels)
    module = way.trained(trained.network)
    outcome = replace(
        _outcome(trained.value, finished, training.seed, seconds),
        reason=None if collapse is None else f"collapsed: {collapse.reason}",
        history=trained.history,
        parameters=sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        size=sum(tensor.nbytes for tensor in trained.network.state_dict().values()) + _size_of(job.tokenizer),
    )
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    return outcome, weights, outcome.reason


def _outcome(value: float, finished: CalibratedDecision, seed: int, seconds: float) -> TrialResult:
    return TrialResult(
        value=value,
        reason=None,
        logits=finished.logits,
        seed=seed,
        decision=finished.decision.to_json(),
        calibration=finished.calibration,
        thresholds=finished.thresholds,
        seconds=seconds,
        memory=runtime.peak_memory(),
    )


def failed_trial(reason: str, seed: int, seconds: float = 0.0) -> TrialResult:
    """A cell that gave no classifier."""
    return TrialResult(None, reason, np.empty((0, 0), np.float32), seed, seconds=seconds, memory=runtime.peak_memory())


def _error_clause(error: Exception) -> str:
    if not isinstance(error, Error):  # what torch raises where memory ends, say
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return f"{error.what} ({error.where})" if error.where else error.what


def _size_of(tokenizer: Any) -> int:
    return len(tokenizer.backend_tokenizer.to_str().encode())


def _collapse(trained: SelectedRun, finished: CalibratedDecision, labels: np.ndarray) -> Collapse | None:
    """By the plain rule: a threshold may be meant to give one answer."""
    problem_type = problem_of(labels)
    plain = Decision(problem_type, finished.decision.label_names)
    rule = finished.decision if labels.ndim == 2 else plain
    decided = rule.decide(probabilities(finished.logits, problem_type))
    norms = [entry["gradient_norm"] for entry in trained.history if "gradient_norm" in entry]
    return find_collapse(trained.history, decided, labels, norms)


def restore_network(job: Job, weights: Mapping[str, np.ndarray]) -> PreTrainedModel:
    """The network that a cell trained, in eval mode on its device."""
    model = initial_network(job)
    module = network.extract_head(model) if job.recipe.way == "frozen" else model
    module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()})
    placed: Any = model
    return placed.to(runtime.device()).eval()  # type: ignore[no-any-return]


def score_trial(job: Job, test: Part, weights: Mapping[str, np.ndarray]) -> TestLogits:
    """The test rows, scored by weights that are final. job: as it was trained."""
    model = restore_network(job, weights)
    quick = test.indices[:: max(len(test) // SPEED_ROWS, 1)][:SPEED_ROWS]
    started = time.perf_counter()
    sampled = _logits(job, model, test.source.take(quick))
    speed = len(quick) / (time.perf_counter() - started)
    if len(quick) == len(test):
        return TestLogits(sampled, speed)
    if job.recipe.way == "finetune":
        return TestLogits(_logits(job, model, test.source.take(test.indices)), speed)
    (found,) = part_features(job, [test])
    assert test.source.labels is not None
    pooling = job.recipe.tokens.window_pooling
    whole = LabeledFeatures(found.values, test.source.labels, found.documents, pooling, found.places)
    return TestLogits(head_logits(network.extract_head(model), whole.take(test.indices)), speed)


def _logits(job: Job, model: PreTrainedModel, rows: Dataset) -> np.ndarray:
    encoded = encode_dataset(rows, job)
    return logits_over(model, encoded, tokens=job.recipe.tokens, pad_id=job.tokenizer.pad_token_id, title="testing")


def train_baseline(name: str, parts: Parts, metric: str, decision: DecisionConfig) -> TrialResult:
    """A baseline, judged on validation."""
    _refuse_test(parts)
    runtime.reset_peak_memory()
    started = time.perf_counter()
    fitted = _fit_baseline(name, parts, metric)
    labels, names = parts.selection_part.labels, parts.train.source.label_names
    logits = fitted.logits(parts.selection_part.joined_texts.to_pylist())
    value = validation_scores(logits, labels, metric)[metric]
    finished = fit_calibration(logits, labels, names, decision)
    outcome = _outcome(value, finished, 0, time.perf_counter() - started)
    return replace(outcome, parameters=fitted.parameters, size=fitted.size, strength=fitted.strength)


def score_baseline(name: str, parts: Parts, test: Part, outcome: TrialResult) -> TestLogits:
    """The test rows: trained anew, which takes less than keeping it, as validation chose."""
    fitted = _fit_baseline(name, parts, "", outcome.strength)
    texts = test.joined_texts.to_pylist()
    started = time.perf_counter()
    logits = fitted.logits(texts)
    speed = len(texts) / max(time.perf_counter() - started, 1e-6)
    assert outcome.calibration is not None
    return TestLogits(logits / np.float32(outcome.calibration["temperature"]), speed)


def _fit_baseline(name: str, parts: Parts, metric: str, strength: float | None = None) -> baselines.Baseline:
    labels = parts.selection_part.labels
    return baselines.fit_baseline(
        name,
        parts.train.joined_texts.to_pylist(),
        parts.train.labels,
        len(parts.train.source.label_names),
        held=parts.selection_part.joined_texts.to_pylist(),
        judge=lambda logits: validation_scores(logits, labels, metric)[metric],
        strength=strength,
    )
