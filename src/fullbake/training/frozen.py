"""Logistic regression on features by L-BFGS, its strength chosen on validation, folded into one linear layer.

scikit-learn fits it, on standardized features: multinomial where a row has one label, a regression a label where it may
have many. All strengths are tried from the strongest regularization on, each from where the last one ended, which
halves the steps.

Way 3: the base's features once, cached on disk, then a head alone.

Features are a pure function of base, tokenizer, pooling, truncation and texts, so a second head, rate or seed costs no
encoder pass. They are taken over the whole of a file, before any split, so that every split of it finds them too. They
stay on disk: a training reads the rows of each step out of the memory-mapped file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from fullbake.config.fields import CachePrecision, WindowPooling
from fullbake.config.problems import problem_of
from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.cache import Cache
from fullbake.core.console import say
from fullbake.core.hashing import fingerprint
from fullbake.core.runtime import device
from fullbake.models import network
from fullbake.models.batching import Step, balanced_row_weights, training_plan
from fullbake.models.encoder import freeze_all, parameter_groups
from fullbake.models.encoding import Encoded, window_rows
from fullbake.models.fast_layers import fast_layers
from fullbake.models.heads import fold_scaler, l2_penalty, output_layer
from fullbake.models.inference import pool_windows
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.features import FeatureExtraction, Features, extract_features, extract_in_memory
from fullbake.training.loop import TrainingWork, ValidateFunction, fit
from fullbake.training.losses import TrainingLoss

LOGISTIC_STRENGTHS: Final = tuple(float(c) for c in np.logspace(-4, 2, 13))
"""Inverse regularization strengths that validation chooses from: 13 from 1e-4 to 1e2, two a decade."""

LogisticSolver = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]
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
    module: nn.Module, rows: LogisticRows, validate: ValidateFunction, metric: str, last_trial: int | None = None
) -> list[dict[str, Any]]:
    """Set the output layer of `module` to the regression that validation likes best (the stronger of equals).

    validate: (module, trial from 0) -> what chooses, `metric` among it. last_trial: stop at this one (from 1).
    Returns an entry a strength: trial (from 1), C, train_loss, what `validate` gave, best.
    """
    exact = rows.features.astype(np.float64)
    scaler = StandardScaler().fit(exact)
    inputs, layer = scaler.transform(exact), output_layer(module)
    solver, best, history = _solver(rows, layer.out_features), None, []
    for number, strength in enumerate(LOGISTIC_STRENGTHS[:last_trial], start=1):
        with threadpool_limits(1, user_api="blas"):  # L-BFGS's vectors are short: two threads took five times as long
            weight, bias = solver(inputs, strength)
        weight, bias = fold_scaler(weight, bias, scaler.mean_, scaler.scale_)
        _set_layer(layer, weight, bias)
        loss = float(problem_of(rows.labels).row_losses(exact @ weight.T + bias, rows.labels).mean())
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


def _solver(rows: LogisticRows, classes: int) -> LogisticSolver:
    return _multinomial(rows, classes) if problem_of(rows.labels).exclusive else _binaries(rows)


def _multinomial(rows: LogisticRows, classes: int) -> LogisticSolver:
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


def _binaries(rows: LogisticRows) -> LogisticSolver:
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


_ROWS_AT_ONCE = 1 << 16
"""Rows of features that a head scores at a time: what is read of a large file stays small."""


@dataclass(frozen=True)
class LabeledFeatures:
    """Pooled features of texts with their labels.

    values: float32 or float16 (any, width), memory-mapped where they come from the cache. labels: ids int64 (texts,),
    or 0 and 1 (texts, classes). documents: which text each row is a window of, None where rows are texts. pooling: how
    the logits of a text's windows become one. places: which of the values each row is, int64 (rows,); None where they
    are the rows.
    """

    values: np.ndarray
    labels: np.ndarray
    documents: np.ndarray | None = None
    pooling: WindowPooling = "mean"
    places: np.ndarray | None = None

    @property
    def lines(self) -> np.ndarray:
        """Which of the values each row is, int64 (rows,)."""
        return np.arange(len(self.values)) if self.places is None else self.places

    @property
    def features(self) -> np.ndarray:
        """All rows in memory, float32 (rows, width)."""
        rows: np.ndarray = self.values[self.lines].astype(np.float32, copy=False)
        return rows

    @property
    def row_labels(self) -> np.ndarray:
        """The label of each row of features."""
        return self.labels if self.documents is None else self.labels[self.documents]

    def take(self, texts: np.ndarray) -> "LabeledFeatures":
        """These texts (positions, each once), with all their windows."""
        if self.documents is None:
            return replace(self, places=self.lines[texts], labels=self.labels[texts])
        rows, documents = window_rows(self.documents, texts)
        return replace(self, places=self.lines[rows], labels=self.labels[texts], documents=documents)


class FeatureRows:
    """The rows of a part on the device, read where they are asked for: rows int64 (...) -> float32 (..., width)."""

    def __init__(self, part: LabeledFeatures) -> None:
        self.values, self.lines = (torch.from_numpy(array).to(device()) for array in (part.values, part.lines))

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.values[self.lines[rows]].float()


@dataclass(frozen=True)
class HeadSettings:
    """What the training of a head is told: sections of the recipe (one rate), and what the loss is."""

    head: HeadConfig
    training: TrainingConfig
    objective: TrainingLoss


@dataclass(frozen=True)
class FeatureKey:
    """All that features depend on, apart from the texts: what the cache tells them apart by.

    pooling: what is kept of a text: a pooling, a standard head's, or the states after a layer.
    """

    base: str
    tokenizer: str
    pooling: str
    tokens: TokensConfig
    threads: int
    versions: tuple[tuple[str, str], ...]
    precision: CachePrecision = "fp32"
    fast_kernels: bool = True

    def of(self, texts: str) -> str:
        """The cache key for texts with this fingerprint."""
        return fingerprint(
            self.base,
            self.tokenizer,
            self.pooling,
            self.tokens.model_dump(exclude={"window_pooling"}),
            self.threads,
            dict(self.versions),
            self.precision,
            self.fast_kernels,
            texts,
        )


def frozen_features(
    model: nn.Module,
    encode: Callable[[], Encoded],
    *,
    key: str,
    cache: Cache,
    tokens: TokensConfig,
    pad_id: int,
    precision: CachePrecision = "fp32",
) -> Features:
    """What `model`'s head reads, from the cache or by one pass in eval mode.

    encode: gives the tokenized texts; called only where the cache does not know `key`. Where the cache cannot hold
    them, or several processes compute them together, the features come in memory.
    """
    model.to(device()).eval()
    asked = FeatureExtraction(
        lambda inputs: network.features(model, inputs),
        network.features_width(model),
        key,
        "features",
        tokens,
        pad_id,
        precision=precision,
    )
    with fast_layers(model, first_token=network.reads_first_token(model), packed=True):
        found = extract_features(asked, encode, cache)
        return extract_in_memory(asked, encode()) if found is None else found


def train_head(
    model: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    checkpoints: Checkpoints | None = None,
    *,
    last_trial: int | None = None,
) -> list[dict[str, Any]]:
    """Train the head of `model` in place, the rest held fixed, and leave the model in eval mode.

    validate: (head, trial from 0) -> what chooses. checkpoints: where to save and go on from (lbfgs is too quick for
    it). last_trial: the epoch, or under lbfgs the strength, to stop at (from 1).
    Returns the history, an entry an epoch, or a regularization strength under lbfgs.
    """
    freeze_all(model)
    history = fit_head(network.extract_head(model).to(device()), train, validate, settings, checkpoints, last_trial)
    model.eval()
    return history


def fit_head(
    head: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    checkpoints: Checkpoints | None = None,
    last_trial: int | None = None,
) -> list[dict[str, Any]]:
    """`train_head` of a head by itself, on the device it stands on."""
    head.requires_grad_(True)
    if settings.training.optimizer == "lbfgs":
        rows = LogisticRows(train.features, train.row_labels, settings.objective.class_weights)
        return fit_logistic(head, rows, validate, settings.training.metric, last_trial)
    return fit(head, _work(head, train, validate, settings, last_trial), settings.training, checkpoints)


def head_logits(module: nn.Module, part: LabeledFeatures) -> np.ndarray:
    """Logits of a part's texts, float32 (texts, classes), by a head in eval mode; windows are pooled to their texts."""
    module.eval()
    inputs = FeatureRows(part)
    with torch.inference_mode():
        pieces = torch.arange(len(part.lines), device=inputs.lines.device).split(_ROWS_AT_ONCE)
        rows: np.ndarray = torch.cat([module(inputs[piece]).float().cpu() for piece in pieces]).numpy()
    return rows if part.documents is None else pool_windows(rows, part.documents, part.pooling)


def _work(
    module: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    last_epoch: int | None,
) -> TrainingWork:
    training, head = settings.training, settings.head
    inputs = FeatureRows(train)
    labels = torch.from_numpy(train.row_labels).to(device())
    return TrainingWork(
        plan=lambda epoch: head_plan(train, settings, epoch),
        loss_fn=lambda module, _, share: _loss(module, inputs, labels, share, settings.objective),
        validate=validate,
        groups=parameter_groups(
            module, learning_rate=training.learning_rate[0], weight_decay=training.weight_decay, layer_decay=1.0
        ),
        rows=len(labels),
        penalty=(lambda module: head.l2 * l2_penalty(module)) if head.kind == "mlp" else None,
        shared=False,  # too little work to share: every process trains the same head
        last_epoch=last_epoch,
    )


def head_plan(train: LabeledFeatures, settings: HeadSettings, epoch: int) -> list[Step]:
    """The steps of an epoch (from 0), uncut: a row of features counts as one token. As many and as large under every
    seed."""
    training, labels = settings.training, train.row_labels
    size = training.batch_size * training.gradient_accumulation
    return training_plan(
        np.ones(len(labels), dtype=np.int64),
        batch_size=size,
        seed=training.seed,
        epoch=epoch,
        token_budget=size + 1,
        merge_last_single=settings.head.kind == "mlp",
        weights=balanced_row_weights(labels) if training.sampling == "balanced" else None,
    )


def _loss(
    module: nn.Module, inputs: FeatureRows, labels: Tensor, step: Step, objective: TrainingLoss
) -> Iterator[Tensor]:
    rows = torch.from_numpy(step.rows).to(labels.device)
    yield objective.loss(module(inputs[rows]), labels[rows]) / len(rows)
