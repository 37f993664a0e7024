"""What training minimizes: cross entropy or focal loss, for one label a row or many, with the weights of classes.

Every loss is one term a row, in fp32, summed by `Objective.loss`; the loop divides by the rows of the whole step. Class
weights therefore do not change that divisor (as torch's weighted mean would): `balanced` weights have the mean 1 over
the rows anyway.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fullbake.config.problems import MULTI_LABEL, ProblemType, problem_of
from fullbake.config.sections import TrainingConfig
from fullbake.core.errors import RecipeError, did_you_mean
from fullbake.data.labels import count_labels

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits (rows, classes), labels: ids (rows,) or 0 and 1 (rows, classes)) -> the loss of each row, (rows,)."""


@dataclass(frozen=True)
class TrainingLoss:
    """A loss, and the class weights it was made with (for what fits by other means): (classes,) or None."""

    row_losses: LossFunction
    class_weights: np.ndarray | None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss summed over rows, a scalar. logits, labels: as `Loss` has them."""
        return self.row_losses(logits, labels).sum()


def make_training_loss(training: TrainingConfig, labels: np.ndarray, label_names: Sequence[str]) -> TrainingLoss:
    """The loss that the training section asks for, over these training labels."""
    weights = class_weights(training.class_weights, labels, label_names)
    gamma = training.focal_gamma if training.loss == "focal" else 0.0
    loss = make_loss(problem_of(labels), gamma=gamma, label_smoothing=training.label_smoothing, class_weights=weights)
    return TrainingLoss(loss, weights)


def make_loss(
    problem_type: ProblemType,
    *,
    gamma: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> LossFunction:
    """Cross entropy of each row; over many labels a row the mean of their binary ones, so that the scale does not hang
    on how many labels there are.

    gamma: above 0, focal loss (Lin et al. 2017, arXiv 1708.02002): each term times (1 - p)**gamma, p being the chance
    of what is true. label_smoothing: share of the target spread over the classes, or over yes and no (Szegedy et al.
    2016, arXiv 1512.00567). class_weights: (classes,), of a row by its class, or of the labels that hold.
    """
    weights = None if class_weights is None else torch.from_numpy(class_weights.astype(np.float32))
    binary = problem_type == MULTI_LABEL

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        own = None if weights is None else weights.to(logits.device)
        if binary:
            return _binary(logits.float(), labels.float(), gamma, label_smoothing, own)
        return _exclusive(logits.float(), labels, gamma, label_smoothing, own)

    return loss


def _exclusive(logits: Tensor, labels: Tensor, gamma: float, smoothing: float, weights: Tensor | None) -> Tensor:
    if not gamma:
        return functional.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=smoothing)
    terms = functional.cross_entropy(logits, labels, reduction="none")
    terms = (1 - torch.exp(-terms)) ** gamma * terms
    return terms if weights is None else terms * weights[labels]


def _binary(logits: Tensor, labels: Tensor, gamma: float, smoothing: float, weights: Tensor | None) -> Tensor:
    targets = labels * (1 - smoothing) + smoothing / 2
    terms = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    if gamma:
        chances = torch.sigmoid(logits)
        terms = terms * torch.where(labels == 1, 1 - chances, chances) ** gamma
    return terms.mean(dim=1)


def class_weights(
    setting: str | Mapping[str, float] | None, labels: np.ndarray, label_names: Sequence[str]
) -> np.ndarray | None:
    """Weights float64 (classes,), None where all weigh alike.

    setting: `balanced` (rows / (classes * rows of the class), as scikit-learn has it; of many labels a row: rows
    without the label / rows with it), or weights by name, 1 for those not named. Raises RecipeError for a name that is
    no label.
    """
    if setting is None:
        return None
    if isinstance(setting, Mapping):
        return _named(setting, label_names)
    counts = count_labels(labels, len(label_names))
    absent = counts == 0  # of no use in training, and no reason to divide by 0
    if labels.ndim == 2:
        return np.where(absent, 1.0, (len(labels) - counts) / np.maximum(counts, 1))
    return np.where(absent, 1.0, len(labels) / (len(label_names) * np.maximum(counts, 1)))


def _named(weights: Mapping[str, float], label_names: Sequence[str]) -> np.ndarray:
    for name in weights:
        if name not in label_names:
            raise RecipeError(
                f"class_weights: there is no label {name!r}", remedy=did_you_mean(name, tuple(label_names))
            )
    return np.array([float(weights.get(name, 1)) for name in label_names])
