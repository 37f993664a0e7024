"""Way 3: the base's features once, cached on disk, then a head alone.

Features are a pure function of base, tokenizer, pooling, truncation and texts, so a second head, rate or seed costs no
encoder pass. They are taken over the whole of a file, before any split, so that every split of it finds them too. They
stay on disk: a training reads the rows of each step out of the memory-mapped file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.checkpoints import Checkpoints
from fullbake.config.fields import CachePrecision, WindowPooling
from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.cache import Cache
from fullbake.core.hashing import fingerprint
from fullbake.core.runtime import device
from fullbake.logistic import LogisticRows, fit_logistic
from fullbake.loop import Validation, Work, fit
from fullbake.losses import Objective
from fullbake.models import network
from fullbake.models.batching import Step, balanced_row_weights, training_plan
from fullbake.models.encoder import freeze_all, parameter_groups
from fullbake.models.encoding import Encoded, windows_of
from fullbake.models.fast_layers import fast_kernels
from fullbake.models.heads import l2_penalty
from fullbake.models.inference import pool_windows
from fullbake.passes import Pass, Stored, output_in_memory, stored_output

_ROWS_AT_ONCE = 1 << 16
"""Rows of features that a head scores at a time: what is read of a large file stays small."""


@dataclass(frozen=True)
class Featured:
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

    def take(self, texts: np.ndarray) -> "Featured":
        """These texts (positions, each once), with all their windows."""
        if self.documents is None:
            return replace(self, places=self.lines[texts], labels=self.labels[texts])
        rows, documents = windows_of(self.documents, texts)
        return replace(self, places=self.lines[rows], labels=self.labels[texts], documents=documents)


class FeatureRows:
    """The rows of a part on the device, read where they are asked for: rows int64 (...) -> float32 (..., width)."""

    def __init__(self, part: Featured) -> None:
        self.values, self.lines = (torch.from_numpy(array).to(device()) for array in (part.values, part.lines))

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.values[self.lines[rows]].float()


@dataclass(frozen=True)
class HeadTraining:
    """What the training of a head is told: sections of the recipe (one rate), and what the loss is."""

    head: HeadConfig
    training: TrainingConfig
    objective: Objective


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
) -> Stored:
    """What `model`'s head reads, from the cache or by one pass in eval mode.

    encode: gives the tokenized texts; called only where the cache does not know `key`. Where the cache cannot hold
    them, or several processes compute them together, the features come in memory.
    """
    model.to(device()).eval()
    asked = Pass(
        lambda inputs: network.features(model, inputs),
        network.features_width(model),
        key,
        "features",
        tokens,
        pad_id,
        precision=precision,
    )
    with fast_kernels(model, first_token=network.reads_first_token(model), packed=True):
        found = stored_output(asked, encode, cache)
        return output_in_memory(asked, encode()) if found is None else found


def train_head(
    model: nn.Module,
    train: Featured,
    validate: Validation,
    settings: HeadTraining,
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
    history = fit_head(network.head_of(model).to(device()), train, validate, settings, checkpoints, last_trial)
    model.eval()
    return history


def fit_head(
    head: nn.Module,
    train: Featured,
    validate: Validation,
    settings: HeadTraining,
    checkpoints: Checkpoints | None = None,
    last_trial: int | None = None,
) -> list[dict[str, Any]]:
    """`train_head` of a head by itself, on the device it stands on."""
    head.requires_grad_(True)
    if settings.training.optimizer == "lbfgs":
        rows = LogisticRows(train.features, train.row_labels, settings.objective.class_weights)
        return fit_logistic(head, rows, validate, settings.training.metric, last_trial)
    return fit(head, _work(head, train, validate, settings, last_trial), settings.training, checkpoints)


def head_logits(module: nn.Module, part: Featured) -> np.ndarray:
    """Logits of a part's texts, float32 (texts, classes), by a head in eval mode; windows are pooled to their texts."""
    module.eval()
    inputs = FeatureRows(part)
    with torch.inference_mode():
        pieces = torch.arange(len(part.lines), device=inputs.lines.device).split(_ROWS_AT_ONCE)
        rows: np.ndarray = torch.cat([module(inputs[piece]).float().cpu() for piece in pieces]).numpy()
    return rows if part.documents is None else pool_windows(rows, part.documents, part.pooling)


def _work(
    module: nn.Module, train: Featured, validate: Validation, settings: HeadTraining, last_epoch: int | None
) -> Work:
    training, head = settings.training, settings.head
    inputs = FeatureRows(train)
    labels = torch.from_numpy(train.row_labels).to(device())
    return Work(
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


def head_plan(train: Featured, settings: HeadTraining, epoch: int) -> list[Step]:
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


def _loss(module: nn.Module, inputs: FeatureRows, labels: Tensor, step: Step, objective: Objective) -> Iterator[Tensor]:
    rows = torch.from_numpy(step.rows).to(labels.device)
    yield objective.loss(module(inputs[rows]), labels[rows]) / len(rows)
