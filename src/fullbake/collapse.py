"""A training that learned nothing, told by what it left behind: its predictions, its losses, its gradients.

Fine-tuning fails on some seeds and not on others with the same settings (Devlin et al. 2019 restarted such runs;
Mosbach et al. 2021, arXiv 2006.04884, found vanished gradients behind most of them): another seed is the remedy, a
lower rate where that fails too. Each sign alone is enough. What is looked at are plain cross entropies on validation
and plain arrays, never a model. On data where nearly all rows are of one class an honest model may give one answer,
too: the reason tells the share, for a person to judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Sign = Literal["vanished_gradients", "stuck_loss", "one_class"]

NEAR: Final = 0.98
"""A loss from this share of chance on is no better than chance."""
FAR: Final = 1.5
"""A loss beyond this multiple of chance is another failure: divergence, or too sure of itself."""
TINY: Final = 1e-6
"""Gradients shorter than this move nothing."""
FITTED: Final = 0.1
"""Under this share of the loss of chance, gradients are short because the rows are learned."""


@dataclass(frozen=True)
class Collapse:
    """sign: what was found. reason: one clause for people, numbers in it."""

    sign: Sign
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
    if typical >= TINY or loss < FITTED * chance:
        return None
    reason = f"gradients vanished: {typical:.1e} long in the last epoch, at a training loss of {loss:.3f}"
    return Collapse("vanished_gradients", reason)


def _stuck(history: Sequence[Mapping[str, Any]], chance: float, classes: int) -> Collapse | None:
    if not history or not chance:
        return None
    least = {name: min(float(entry[name]) for entry in history) for name in ("train_loss", "validation_loss")}
    if not all(NEAR * chance <= loss <= FAR * chance for loss in least.values()):
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
