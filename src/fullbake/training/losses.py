"""The training losses: cross entropy or focal loss, for one label per row or many, with optional class weights.

A loss gives one number per row in fp32. The training loop adds them up and divides by the number of rows of the whole
optimizer step, so that cutting a step into micro batches changes rounding only. The trade-off: class weights do not
change that divisor, as torch's weighted mean would. Balanced weights average 1 over the rows, so the scale stays the
same.

A further kind of problem adds one function to `_ROW_LOSSES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType, problem_of
from fullbake.config.sections import TrainingConfig
from fullbake.core.errors import RecipeError, did_you_mean

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits (rows, classes), labels: class ids (rows,) or 0 and 1 (rows, classes)) -> the loss of each row, (rows,)."""


@dataclass(frozen=True)
class TrainingLoss:
    """A loss function and the class weights that are built into it."""

    row_losses: LossFunction

    class_weights: np.ndarray | None
    """float64 (classes,), for a solver that does not call `row_losses`; None where all classes weigh the same."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the row losses, a scalar. Shapes as in `LossFunction`."""
        return self.row_losses(logits, labels).sum()


def make_training_loss(training: TrainingConfig, labels: np.ndarray, label_names: Sequence[str]) -> TrainingLoss:
    """Build the loss that the recipe's training section describes.

    Args:
        training: The section; its loss, focal_gamma, label_smoothing and class_weights count here.
        labels: Labels of the training rows: class ids (rows,), or 0 and 1 (rows, classes).
        label_names: Names of the classes, (classes,).

    Raises:
        RecipeError: class_weights names a label that does not exist.
    """
    weights = class_weights(training.class_weights, labels, label_names)
    row_losses = make_loss(
        problem_of(labels).name,
        gamma=training.focal_gamma if training.loss == "focal" else 0.0,
        label_smoothing=training.label_smoothing,
        class_weights=weights,
    )
    return TrainingLoss(row_losses, weights)


def make_loss(
    problem_type: ProblemType,
    *,
    gamma: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> LossFunction:
    """Build a loss function.

    Where a row may have many labels, its loss is the mean over the labels and not the sum, so that the scale does not
    depend on the number of labels.

    Args:
        problem_type: The kind of problem, as in config.json.
        gamma: Above 0: focal loss (Lin et al. 2017, arXiv 1708.02002). Each term is multiplied by (1 - p)**gamma, where
            p is the probability of the true class, or of the true answer for a label.
        label_smoothing: Share of the target that is spread over the classes, or over yes and no of each label (Szegedy
            et al. 2016, arXiv 1512.00567).
        class_weights: (classes,). Multiplies the loss of a row by the weight of its class, or the terms of the labels
            that the row has.
    """
    weights = None if class_weights is None else torch.from_numpy(class_weights.astype(np.float32))
    row_losses = _ROW_LOSSES[problem_type]

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        placed = None if weights is None else weights.to(logits.device)
        # Logits may be bf16 under autocast; a loss in bf16 would keep only three digits.
        return row_losses(logits.float(), labels, gamma, label_smoothing, placed)

    return loss


def _class_losses(logits: Tensor, labels: Tensor, gamma: float, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return the cross entropy of each row's class, (rows,). labels: class ids (rows,)."""
    if not gamma:
        return functional.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=smoothing)
    terms = functional.cross_entropy(logits, labels, reduction="none")
    terms = (1 - torch.exp(-terms)) ** gamma * terms  # exp(-terms) is the probability of the true class
    return terms if weights is None else terms * weights[labels]


def _label_losses(logits: Tensor, labels: Tensor, gamma: float, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return the mean binary cross entropy of each row's labels, (rows,). labels: 0 and 1 (rows, labels)."""
    truth = labels.float()
    targets = truth * (1 - smoothing) + smoothing / 2
    terms = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    if gamma:
        probabilities = torch.sigmoid(logits)
        terms = terms * torch.where(truth == 1, 1 - probabilities, probabilities) ** gamma
    return terms.mean(dim=1)


_ROW_LOSSES: Final[Mapping[ProblemType, Callable[[Tensor, Tensor, float, float, Tensor | None], Tensor]]] = {
    SINGLE_LABEL: _class_losses,
    MULTI_LABEL: _label_losses,
}
"""Problem type -> (logits, labels, gamma, smoothing, class weights) -> the loss of each row, (rows,)."""


def class_weights(
    setting: str | Mapping[str, float] | None, labels: np.ndarray, label_names: Sequence[str]
) -> np.ndarray | None:
    """Return the weight of each class in the loss, float64 (classes,); None where all classes weigh the same.

    Args:
        setting: `balanced` or weights by name, 1 for classes that are not named. Balanced is rows / (classes * rows of
            the class), as in scikit-learn; where a row may have many labels, it is rows without the label / rows with
            it.
        labels: Class ids (rows,), or 0 and 1 (rows, classes).
        label_names: Names of the classes, (classes,).

    Raises:
        RecipeError: a name is not a label.
    """
    if setting is None:
        return None
    if not isinstance(setting, Mapping):
        return problem_of(labels).balanced_weights(labels, len(label_names))
    for name in setting:
        if name not in label_names:
            raise RecipeError(
                f"class_weights: there is no label {name!r}", remedy=did_you_mean(name, tuple(label_names))
            )
    return np.array([float(setting.get(name, 1)) for name in label_names])
