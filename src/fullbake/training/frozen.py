"""Way `frozen`: the base's features once, cached on disk, then a head alone trains.

Features are a pure function of base, tokenizer, pooling, truncation and texts, so that another head, learning rate or
seed needs no pass of the encoder. They are computed for a whole file before any split, so that every split of it finds
them in the cache. They stay on disk: training reads the rows of each step from the memory-mapped file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.config.fields import CachePrecision, WindowPooling
from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.cache import Cache
from fullbake.core.hashing import fingerprint
from fullbake.core.runtime import device, one_thread
from fullbake.models import network
from fullbake.models.batching import Step, balanced_row_weights, training_plan
from fullbake.models.encoder import freeze_all, parameter_groups
from fullbake.models.encoding import Encoded, window_rows
from fullbake.models.fast_layers import fast_layers
from fullbake.models.heads import l2_penalty
from fullbake.models.prediction import pool_windows
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.features import FeatureExtraction, Features, extract_features, extract_in_memory
from fullbake.training.logistic import LogisticRows, fit_logistic
from fullbake.training.loop import TrainingWork, ValidateFunction, fit
from fullbake.training.losses import TrainingLoss

_ROWS_AT_ONCE: Final = 1 << 16
"""Rows of features that a head scores at a time, so that little of a large file is in memory."""


@dataclass(frozen=True)
class LabeledFeatures:
    """Pooled features of texts with their labels.

    Attributes:
        values: float32 or float16 (any, width), memory-mapped if they come from the cache.
        labels: class ids int64 (texts,), or a label matrix of 0 and 1 (texts, labels).
        documents: index of the text that each row is a window of, int64 (rows,); None if rows are texts.
        pooling: how the logits of a text's windows become one.
        lines: index into `values` of each row, int64 (rows,); None if row i is line i.
    """

    values: np.ndarray
    labels: np.ndarray
    documents: np.ndarray | None = None
    pooling: WindowPooling = "mean"
    lines: np.ndarray | None = None

    @property
    def row_lines(self) -> np.ndarray:
        """Index into `values` of each row, int64 (rows,)."""
        return np.arange(len(self.values)) if self.lines is None else self.lines

    @property
    def features(self) -> np.ndarray:
        """The features of all rows in memory, float32 (rows, width)."""
        rows: np.ndarray = self.values[self.row_lines].astype(np.float32, copy=False)
        return rows

    @property
    def row_labels(self) -> np.ndarray:
        """The labels of each row: those of the text that the row is, or is a window of."""
        return self.labels if self.documents is None else self.labels[self.documents]

    def take(self, texts: np.ndarray) -> "LabeledFeatures":
        """Return these texts (indices, each at most once) with all their windows."""
        if self.documents is None:
            return replace(self, lines=self.row_lines[texts], labels=self.labels[texts])
        rows, documents = window_rows(self.documents, texts)
        return replace(self, lines=self.row_lines[rows], labels=self.labels[texts], documents=documents)


class FeatureRows:
    """The features of a part on the device: row indices int64 (...) -> float32 (..., width).

    Rows are read when they are asked for. Features of a higher precision (in tests) keep it.
    """

    def __init__(self, part: LabeledFeatures) -> None:
        self.values, self.lines = (torch.from_numpy(array).to(device()) for array in (part.values, part.row_lines))
        self.dtype = torch.promote_types(self.values.dtype, torch.float32)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.values[self.lines[rows]].to(self.dtype)


@dataclass(frozen=True)
class HeadSettings:
    """How a head trains.

    Attributes:
        head: the recipe's section on the head.
        training: the recipe's section on training, with one learning rate.
        objective: the loss.
    """

    head: HeadConfig
    training: TrainingConfig
    objective: TrainingLoss


@dataclass(frozen=True)
class FeatureKey:
    """All that features depend on, apart from the texts. Its fingerprint is the cache key.

    Attributes:
        base: fingerprint of the base's weights.
        tokenizer: fingerprint of the tokenizer.
        pooling: which output is stored: a pooling, a standard head's features, or the states below a layer.
        tokens: the recipe's section on tokens.
        threads: threads that torch computes with.
        versions: (library, version) pairs.
        precision: in which features are stored.
        fast_kernels: whether the fast layers may be used.
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
        """Return the cache key for texts with this fingerprint."""
        return fingerprint(
            self.base,
            self.tokenizer,
            self.pooling,
            self.tokens.model_dump(exclude={"window_pooling"} if self.tokens.prompt else {"window_pooling", "prompt"}),
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
    """Return the input of the model's head for each row, from the cache or by one pass of the base in eval mode.

    If the cache cannot hold the features, or several processes compute them together, they are in memory.

    Args:
        model: the base with its head.
        encode: returns the rows of token ids. It is called only if the cache does not know the key.
        key: the cache key, of `FeatureKey.of`.
        cache: where the features are kept.
        tokens: the recipe's section on tokens.
        pad_id: id of the padding token.
        precision: in which features are stored.
    """
    model.to(device()).eval()
    extraction = FeatureExtraction(
        lambda inputs: network.features(model, inputs),
        network.features_width(model),
        key,
        "features",
        tokens,
        pad_id,
        precision=precision,
    )
    with fast_layers(model, first_token=network.reads_first_token(model), packed=True):
        found = extract_features(extraction, encode, cache)
        return extract_in_memory(extraction, encode()) if found is None else found


def train_head(
    model: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    checkpoints: Checkpoints | None = None,
    *,
    last_trial: int | None = None,
    all_strengths: bool = False,
) -> list[dict[str, Any]]:
    """Train the head of `model` in place while the rest is frozen, and leave the model in eval mode.

    Args:
        model: the base with its head.
        train: the training rows.
        validate: (head, epoch or strength from 0) -> validation scores.
        settings: how the head trains.
        checkpoints: where to save and to resume from. `lbfgs` takes too little time to use it.
        last_trial: the epoch, or under `lbfgs` the strength, to stop at (from 1); None for all.
        all_strengths: as in `fit_logistic`; folds need it. Only `lbfgs` has strengths.

    Returns:
        The history, an entry for each epoch, or for each strength under `lbfgs`.
    """
    freeze_all(model)
    head = network.extract_head(model).to(device())
    history = fit_head(head, train, validate, settings, checkpoints, last_trial=last_trial, all_strengths=all_strengths)
    model.eval()
    return history


@one_thread()
def fit_head(
    head: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    checkpoints: Checkpoints | None = None,
    *,
    last_trial: int | None = None,
    all_strengths: bool = False,
) -> list[dict[str, Any]]:
    """Train a head by itself, in place and on its device. Arguments and result are those of `train_head`."""
    head.requires_grad_(True)
    if settings.training.optimizer == "lbfgs":
        rows = LogisticRows(train.features, train.row_labels, settings.objective.class_weights)
        metric = settings.training.search_metric
        return fit_logistic(head, rows, validate, metric, last_trial, all_strengths=all_strengths)
    return fit(head, _training_work(head, train, validate, settings, last_trial), settings.training, checkpoints)


@one_thread()
def head_logits(module: nn.Module, part: LabeledFeatures) -> np.ndarray:
    """Return the logits of a part's texts by a head, float32 (texts, classes).

    The logits of a text's windows are pooled. The head is left in eval mode.

    Args:
        module: the head.
        part: the features of the texts.
    """
    module.eval()
    inputs = FeatureRows(part)
    with torch.inference_mode():
        chunks = torch.arange(len(part.row_lines), device=inputs.lines.device).split(_ROWS_AT_ONCE)
        rows: np.ndarray = torch.cat([module(inputs[chunk]).float().cpu() for chunk in chunks]).numpy()
    return rows if part.documents is None else pool_windows(rows, part.documents, part.pooling)


def _training_work(
    module: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    last_epoch: int | None,
) -> TrainingWork:
    training, head = settings.training, settings.head
    inputs = FeatureRows(train)
    labels = torch.from_numpy(train.row_labels).to(device())

    def loss(module: nn.Module, _: Step, share: Step) -> Iterator[Tensor]:
        rows = torch.from_numpy(share.rows).to(labels.device)
        yield settings.objective.loss(module(inputs[rows]), labels[rows]) / len(rows)

    return TrainingWork(
        plan=lambda epoch: head_plan(train, settings, epoch),
        loss_fn=loss,
        validate=validate,
        groups=parameter_groups(
            module, learning_rate=training.peak_rate, weight_decay=training.weight_decay, layer_decay=1.0
        ),
        rows=len(labels),
        penalty=(lambda module: head.l2 * l2_penalty(module)) if head.kind == "mlp" else None,
        shared=False,  # too little work to share: every process trains the same head
        last_epoch=last_epoch,
    )


def head_plan(train: LabeledFeatures, settings: HeadSettings, epoch: int) -> list[Step]:
    """Return the steps of an epoch, each of one micro-batch. Their number and sizes do not depend on the seed.

    Args:
        train: the training rows; each counts as one token.
        settings: how the head trains.
        epoch: from 0.
    """
    training, labels = settings.training, train.row_labels
    size = training.step_rows
    return training_plan(
        np.ones(len(labels), dtype=np.int64),
        batch_size=size,
        seed=training.seed,
        epoch=epoch,
        token_budget=size + 1,
        merge_last_single=settings.head.kind == "mlp",
        weights=balanced_row_weights(labels) if training.sampling == "balanced" else None,
    )
