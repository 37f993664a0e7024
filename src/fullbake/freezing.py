"""Way 3: the base's features once, cached on disk, then a head alone.

Features are a pure function of base, tokenizer, pooling, truncation and texts, so a second head, rate or seed costs no
encoder pass. They are taken over the whole of a file, before any split, so that every split of it finds them too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fullbake import network, runtime, storage
from fullbake.batches import Step, training_plan
from fullbake.cache import Cache
from fullbake.checkpoints import Checkpoints
from fullbake.config import HeadConfig, TokensConfig, TrainingConfig
from fullbake.encoder import freeze_all, parameter_groups
from fullbake.errors import SpaceFault
from fullbake.hashing import fingerprint
from fullbake.heads import fold_scaler, l2_penalty, output_layer
from fullbake.inference import judge, run_over
from fullbake.loop import Work, fit
from fullbake.progress import say, warn
from fullbake.runtime import device
from fullbake.tokens import Encoded

STRENGTHS = tuple(float(c) for c in np.logspace(-4, 2, 13))
"""Inverse regularization strengths that validation chooses from: 13 from 1e-4 to 1e2, two a decade."""


@dataclass(frozen=True)
class Featured:
    """Pooled features of texts with their labels. features: float32 (texts, width). labels: int64 (texts,)."""

    features: np.ndarray
    labels: np.ndarray


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
            self.base, self.tokenizer, self.pooling, self.tokens.model_dump(), self.threads, dict(self.versions), texts
        )


def frozen_features(
    model: nn.Module, encode: Callable[[], Encoded], *, key: str, cache: Cache, tokens: TokensConfig, pad_id: int
) -> np.ndarray:
    """The features that `model`'s head reads, float32 (texts, width), from the cache or by one pass in eval mode.

    encode: gives the tokenized texts; called only where the cache does not know `key`.
    """
    known = _cached(cache, key)
    if runtime.all_ranks(known is not None) and known is not None:
        say(f"features: {len(known):,} texts found in the cache ({cache.root})")
        return known
    model.to(device()).eval()
    computed = run_over(
        lambda inputs: network.features(model, inputs),
        encode(),
        tokens=tokens,
        pad_id=pad_id,
        device=device(),
        title="features",
        shared=True,
    )
    if runtime.rank() == 0:
        _keep(cache, key, computed)
    return computed


def _cached(cache: Cache, key: str) -> np.ndarray | None:
    """The features under `key`, None where the cache has none (or another process has just thrown them out)."""
    folder = cache.get(key)
    try:
        return None if folder is None else storage.read_tensors(folder / "features.safetensors")["features"]
    except FileNotFoundError:
        return None


def _keep(cache: Cache, key: str, features: np.ndarray) -> None:
    """Put features into the cache. Where its disk is full the run goes on without: they can be computed again."""
    try:
        with cache.put(key, f"{len(features):,} texts x {features.shape[1]}") as folder:
            storage.write_tensors(folder / "features.safetensors", {"features": features})
    except SpaceFault as fault:
        warn(f"the features are not kept for the next run: {fault}")


def train_head(
    model: nn.Module,
    train: Featured,
    validation: Featured,
    head: HeadConfig,
    training: TrainingConfig,
    checkpoints: Checkpoints | None = None,
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Train the head of `model` in place, the rest held fixed, and leave the model in eval mode.

    checkpoints: where to save and go on from (lbfgs is too quick for it).
    Returns the history (an entry an epoch, or a regularization strength under lbfgs) and the validation logits,
    float32 (texts, classes), of the chosen head.
    """
    freeze_all(model)
    module = network.head_of(model).to(device())
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    if training.optimizer == "lbfgs":
        history = _fit_logistic(module, train, validation, training.metric)
    else:
        history = fit(module, _work(module, train, validation, head, training), training, checkpoints)
    model.eval()
    return history, _head_logits(module, validation)


def _work(module: nn.Module, train: Featured, validation: Featured, head: HeadConfig, training: TrainingConfig) -> Work:
    inputs = torch.from_numpy(train.features).to(device())
    labels = torch.from_numpy(train.labels).to(device())
    return Work(
        plan=lambda epoch: _plan(len(train.labels), training, epoch, head.kind),
        loss_fn=lambda module, step: _loss(module, inputs, labels, step),
        validate=lambda module: judge(_head_logits(module, validation), validation.labels, training.metric),
        groups=parameter_groups(
            module, learning_rate=training.learning_rate[0], weight_decay=training.weight_decay, layer_decay=1.0
        ),
        rows=len(train.labels),
        penalty=(lambda module: head.l2 * l2_penalty(module)) if head.kind == "mlp" else None,
        shared=False,  # too little work to share: every process trains the same head
    )


def _plan(rows: int, training: TrainingConfig, epoch: int, kind: str) -> list[Step]:
    """Batches of feature rows, uncut: a feature row counts as one token."""
    size = training.batch_size * training.gradient_accumulation
    return training_plan(
        np.ones(rows, dtype=np.int64),
        batch_size=size,
        seed=training.seed,
        epoch=epoch,
        token_budget=size + 1,
        merge_last_single=kind == "mlp",
    )


def _loss(module: nn.Module, inputs: Tensor, labels: Tensor, step: Step) -> Iterator[Tensor]:
    rows = torch.from_numpy(step.rows).to(inputs.device)
    yield cross_entropy(module(inputs[rows]).float(), labels[rows], reduction="sum")


def _head_logits(module: nn.Module, part: Featured) -> np.ndarray:
    module.eval()
    with torch.inference_mode():
        logits: Tensor = module(torch.from_numpy(part.features).to(device()))
    return logits.float().cpu().numpy()


def _fit_logistic(module: nn.Module, train: Featured, validation: Featured, metric: str) -> list[dict[str, Any]]:
    """Multinomial logistic regression at each strength; the one that validation likes best (the stronger of equals)."""
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    inputs = scaler.transform(train.features.astype(np.float64))
    layer, best, history = output_layer(module), None, []
    fitted = LogisticRegression(tol=1e-6, max_iter=1000, warm_start=True)  # warm: half the steps
    for number, strength in enumerate(STRENGTHS, start=1):
        with threadpool_limits(1, user_api="blas"):  # L-BFGS's vectors are short: two threads took five times as long
            fitted.set_params(C=strength).fit(inputs, train.labels)
        weight, bias = _softmax_form(fitted)
        weight, bias = fold_scaler(weight, bias, scaler.mean_, scaler.scale_)
        _set_layer(layer, weight, bias)
        entry = {"trial": number, "C": strength, **_entry(module, train, validation, metric)}
        history.append(entry)
        if best is None or entry[metric] > best[0][metric]:
            best = (entry, weight, bias)
    assert best is not None
    _set_layer(layer, best[1], best[2])
    for entry in history:
        entry["best"] = entry is best[0]
    say(f"C = {best[0]['C']:.2g} of {len(STRENGTHS)} strengths  {metric} {best[0][metric]:.4f}")
    return history


def _entry(module: nn.Module, train: Featured, validation: Featured, metric: str) -> dict[str, float]:
    train_loss = judge(_head_logits(module, train), train.labels, "neg_log_loss")["validation_loss"]
    return {"train_loss": train_loss, **judge(_head_logits(module, validation), validation.labels, metric)}


def _softmax_form(fitted: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, width) and bias (classes,). For two classes scikit-learn keeps one row z; as logits (-z/2,
    z/2)."""
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:
        return np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _set_layer(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
