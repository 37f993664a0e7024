"""Way 3: the base's features once, cached on disk, then a head alone.

Features are a pure function of base, tokenizer, pooling, truncation and texts, so a second head, rate or seed costs no
encoder pass. They are taken over the whole of a file, before any split, so that every split of it finds them too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullbake import network, runtime, storage
from fullbake.batches import Step, balanced_row_weights, training_plan
from fullbake.cache import Cache
from fullbake.checkpoints import Checkpoints
from fullbake.encoder import freeze_all, parameter_groups
from fullbake.errors import SpaceFault
from fullbake.hashing import fingerprint
from fullbake.heads import l2_penalty
from fullbake.inference import pool_windows, run_over
from fullbake.kernels import fast_kernels
from fullbake.logistic import LogisticRows, fit_logistic
from fullbake.loop import Validation, Work, fit
from fullbake.losses import Objective
from fullbake.progress import say, warn
from fullbake.runtime import device
from fullbake.sections import HeadConfig, TokensConfig, TrainingConfig, WindowPooling
from fullbake.tokens import Encoded, windows_of


@dataclass(frozen=True)
class Features:
    """What an encoder gave for texts. values: float32 (rows, width). documents: which text each row is a window of,
    int64 (rows,), None where rows are texts."""

    values: np.ndarray
    documents: np.ndarray | None = None


@dataclass(frozen=True)
class Featured:
    """Pooled features of texts with their labels.

    features: float32 (rows, width). labels: ids int64 (texts,), or 0 and 1 (texts, classes). documents: which text each
    row is a window of, None where rows are texts. pooling: how the logits of a text's windows become one.
    """

    features: np.ndarray
    labels: np.ndarray
    documents: np.ndarray | None = None
    pooling: WindowPooling = "mean"

    @property
    def row_labels(self) -> np.ndarray:
        """The label of each row of features."""
        return self.labels if self.documents is None else self.labels[self.documents]

    def take(self, texts: np.ndarray) -> "Featured":
        """These texts (positions, each once), with all their windows."""
        if self.documents is None:
            return replace(self, features=self.features[texts], labels=self.labels[texts])
        rows, documents = windows_of(self.documents, texts)
        return replace(self, features=self.features[rows], labels=self.labels[texts], documents=documents)


@dataclass(frozen=True)
class HeadTraining:
    """What the training of a head is told: sections of the recipe (one rate), and what the loss is."""

    head: HeadConfig
    training: TrainingConfig
    objective: Objective


@dataclass(frozen=True)
class FeatureKey:
    """All that features depend on, apart from the texts: what the cache tells them apart by."""

    base: str
    tokenizer: str
    pooling: str
    tokens: TokensConfig
    threads: int
    versions: tuple[tuple[str, str], ...]

    def of(self, texts: str) -> str:
        """The cache key for texts with this fingerprint."""
        return fingerprint(
            self.base,
            self.tokenizer,
            self.pooling,
            self.tokens.model_dump(exclude={"window_pooling"}),
            self.threads,
            dict(self.versions),
            texts,
        )


def frozen_features(
    model: nn.Module, encode: Callable[[], Encoded], *, key: str, cache: Cache, tokens: TokensConfig, pad_id: int
) -> Features:
    """What `model`'s head reads, from the cache or by one pass in eval mode.

    encode: gives the tokenized texts; called only where the cache does not know `key`.
    """
    known = _cached(cache, key)
    if runtime.all_ranks(known is not None) and known is not None:
        say(f"features: {len(known.values):,} {_unit(known)} found in the cache ({cache.root})")
        return known
    model.to(device()).eval()
    encoded = encode()
    with fast_kernels(model, first_token=network.reads_first_token(model)):
        values = run_over(
            lambda inputs: network.features(model, inputs),
            encoded,
            tokens=tokens,
            pad_id=pad_id,
            device=device(),
            title="features",
            shared=True,
        )
    computed = Features(values, encoded.documents)
    if runtime.rank() == 0:
        _keep(cache, key, computed)
    return computed


def _unit(features: Features) -> str:
    return "texts" if features.documents is None else "windows"


def _cached(cache: Cache, key: str) -> Features | None:
    """The features under `key`, None where the cache has none (or another process has just thrown them out)."""
    folder = cache.get(key)
    try:
        stored = None if folder is None else storage.read_tensors(folder / "features.safetensors")
    except FileNotFoundError:
        return None
    return None if stored is None else Features(stored["features"], stored.get("documents"))


def _keep(cache: Cache, key: str, features: Features) -> None:
    """Put features into the cache. Where its disk is full the run goes on without: they can be computed again."""
    arrays = {"features": features.values}
    if features.documents is not None:
        arrays["documents"] = features.documents
    rows, width = features.values.shape
    try:
        with cache.put(key, f"{rows:,} {_unit(features)} x {width}") as folder:
            storage.write_tensors(folder / "features.safetensors", arrays)
    except SpaceFault as fault:
        warn(f"the features are not kept for the next run: {fault}")


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
    module = network.head_of(model).to(device())
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    if settings.training.optimizer == "lbfgs":
        rows = LogisticRows(train.features, train.row_labels, settings.objective.class_weights)
        history = fit_logistic(module, rows, validate, settings.training.metric, last_trial)
    else:
        work = _work(module, train, validate, settings, last_trial)
        history = fit(module, work, settings.training, checkpoints)
    model.eval()
    return history


def head_logits(module: nn.Module, part: Featured) -> np.ndarray:
    """Logits of a part's texts, float32 (texts, classes), by a head in eval mode; windows are pooled to their texts."""
    module.eval()
    with torch.inference_mode():
        logits: Tensor = module(torch.from_numpy(part.features).to(device()))
    rows = logits.float().cpu().numpy()
    return rows if part.documents is None else pool_windows(rows, part.documents, part.pooling)


def _work(
    module: nn.Module, train: Featured, validate: Validation, settings: HeadTraining, last_epoch: int | None
) -> Work:
    training, head = settings.training, settings.head
    inputs = torch.from_numpy(train.features).to(device())
    labels = torch.from_numpy(train.row_labels).to(device())
    weights = balanced_row_weights(train.row_labels) if training.sampling == "balanced" else None
    return Work(
        plan=lambda epoch: _plan(len(labels), training, epoch, head.kind, weights),
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


def _plan(rows: int, training: TrainingConfig, epoch: int, kind: str, weights: np.ndarray | None) -> list[Step]:
    """Batches of feature rows, uncut: a feature row counts as one token."""
    size = training.batch_size * training.gradient_accumulation
    return training_plan(
        np.ones(rows, dtype=np.int64),
        batch_size=size,
        seed=training.seed,
        epoch=epoch,
        token_budget=size + 1,
        merge_last_single=kind == "mlp",
        weights=weights,
    )


def _loss(module: nn.Module, inputs: Tensor, labels: Tensor, step: Step, objective: Objective) -> Iterator[Tensor]:
    rows = torch.from_numpy(step.rows).to(inputs.device)
    yield objective.loss(module(inputs[rows]), labels[rows]) / len(rows)
