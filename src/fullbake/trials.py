"""One cell of a comparison: trained and judged on validation, and later, if it was chosen, scored on test.

`train_cell` is given rows without a test part and refuses any; `score_cell` is given the test part alone with weights
that are final. What a cell went wrong by is a result with its reason: a loss that is no number, a collapse that
another seed did not mend, a recipe that this base cannot run.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedModel

from fullbake import baselines
from fullbake.collapse import Collapse, find_collapse
from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core import runtime
from fullbake.core.errors import Error, Fault, SpaceFault
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.calibration import Finished, settle
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.evaluation.metrics import judge
from fullbake.models import network
from fullbake.models.inference import logits_over
from fullbake.training.frozen import Featured, head_logits
from fullbake.training.job import Job, build_network, encode_rows, features_of
from fullbake.training.selection import Trained, finish, train_best
from fullbake.training.strategies import bind

ANOTHER_SEED: Final = 1000
"""Added to the seed of a cell that collapsed, for its one restart."""

SPEED_ROWS: Final = 256
"""Rows that a classifier's speed is measured on."""

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
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
class Score:
    """Test logits, float32 (rows, classes), and how many rows a second the classifier gets through from their texts."""

    logits: np.ndarray
    rows_per_second: float


def train_cell(job: Job, rate: float | None) -> tuple[Outcome, Weights]:
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


def _attempt(job: Job, rate: float | None) -> tuple[Outcome, Weights, str | None]:
    """(what came of it, the weights, why another seed should be tried)."""
    training = job.recipe.training
    runtime.reset_peak_memory()
    started = time.perf_counter()
    try:
        way = bind(job)
        started = time.perf_counter()
        trained = train_best(way, [rate or training.learning_rate[0]], training.metric)
        seconds = time.perf_counter() - started
        labels, names = job.parts.chooser.labels, job.parts.train.source.label_names
        finished = finish(trained, labels, names, job.recipe.decision)
    except SpaceFault:
        raise
    except (Error, RuntimeError, MemoryError) as error:
        reason, spent = _clause(error), time.perf_counter() - started
        return failed(reason, training.seed, spent), {}, reason if isinstance(error, Fault) else None
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


def _outcome(value: float, finished: Finished, seed: int, seconds: float) -> Outcome:
    return Outcome(
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


def failed(reason: str, seed: int, seconds: float = 0.0) -> Outcome:
    """A cell that gave no classifier."""
    return Outcome(None, reason, np.empty((0, 0), np.float32), seed, seconds=seconds, memory=runtime.peak_memory())


def _clause(error: Exception) -> str:
    if not isinstance(error, Error):  # what torch raises where memory ends, say
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return f"{error.what} ({error.where})" if error.where else error.what


def _size_of(tokenizer: Any) -> int:
    return len(tokenizer.backend_tokenizer.to_str().encode())


def _collapse(trained: Trained, finished: Finished, labels: np.ndarray) -> Collapse | None:
    """By the plain rule: a threshold may be meant to give one answer."""
    problem_type = problem_of(labels)
    plain = Decision(problem_type, finished.decision.label_names)
    rule = finished.decision if labels.ndim == 2 else plain
    decided = rule.decide(probabilities(finished.logits, problem_type))
    norms = [entry["gradient_norm"] for entry in trained.history if "gradient_norm" in entry]
    return find_collapse(trained.history, decided, labels, norms)


def restore(job: Job, weights: Mapping[str, np.ndarray]) -> PreTrainedModel:
    """The network that a cell trained, in eval mode on its device."""
    model = build_network(job)
    module = network.head_of(model) if job.recipe.way == "frozen" else model
    module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()})
    placed: Any = model
    return placed.to(runtime.device()).eval()  # type: ignore[no-any-return]


def score_cell(job: Job, test: Part, weights: Mapping[str, np.ndarray]) -> Score:
    """The test rows, scored by weights that are final. job: as it was trained."""
    model = restore(job, weights)
    quick = test.indices[:: max(len(test) // SPEED_ROWS, 1)][:SPEED_ROWS]
    started = time.perf_counter()
    sampled = _logits(job, model, test.source.take(quick))
    speed = len(quick) / (time.perf_counter() - started)
    if len(quick) == len(test):
        return Score(sampled, speed)
    if job.recipe.way == "finetune":
        return Score(_logits(job, model, test.source.take(test.indices)), speed)
    (found,) = features_of(job, [test])
    assert test.source.labels is not None
    pooling = job.recipe.tokens.window_pooling
    whole = Featured(found.values, test.source.labels, found.documents, pooling, found.places)
    return Score(head_logits(network.head_of(model), whole.take(test.indices)), speed)


def _logits(job: Job, model: PreTrainedModel, rows: Dataset) -> np.ndarray:
    encoded = encode_rows(rows, job)
    return logits_over(model, encoded, tokens=job.recipe.tokens, pad_id=job.tokenizer.pad_token_id, title="testing")


def train_baseline(name: str, parts: Parts, metric: str, decision: DecisionConfig) -> Outcome:
    """A baseline, judged on validation."""
    _refuse_test(parts)
    runtime.reset_peak_memory()
    started = time.perf_counter()
    fitted = _fit_baseline(name, parts, metric)
    labels, names = parts.chooser.labels, parts.train.source.label_names
    logits = fitted.logits(parts.chooser.whole_texts.to_pylist())
    value = judge(logits, labels, metric)[metric]
    finished = settle(logits, labels, names, decision)
    outcome = _outcome(value, finished, 0, time.perf_counter() - started)
    return replace(outcome, parameters=fitted.parameters, size=fitted.size, strength=fitted.strength)


def score_baseline(name: str, parts: Parts, test: Part, outcome: Outcome) -> Score:
    """The test rows: trained anew, which takes less than keeping it, as validation chose."""
    fitted = _fit_baseline(name, parts, "", outcome.strength)
    texts = test.whole_texts.to_pylist()
    started = time.perf_counter()
    logits = fitted.logits(texts)
    speed = len(texts) / max(time.perf_counter() - started, 1e-6)
    assert outcome.calibration is not None
    return Score(logits / np.float32(outcome.calibration["temperature"]), speed)


def _fit_baseline(name: str, parts: Parts, metric: str, strength: float | None = None) -> baselines.Baseline:
    labels = parts.chooser.labels
    return baselines.fit_baseline(
        name,
        parts.train.whole_texts.to_pylist(),
        parts.train.labels,
        len(parts.train.source.label_names),
        held=parts.chooser.whole_texts.to_pylist(),
        judge=lambda logits: judge(logits, labels, metric)[metric],
        strength=strength,
    )
