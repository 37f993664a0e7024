import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL
from fullbake.config.sections import TrainingConfig
from fullbake.core.errors import RecipeError
from fullbake.training.losses import class_weights, make_loss, make_training_loss

torch.manual_seed(0)
LOGITS = torch.randn(12, 3)
LABELS = torch.arange(12) % 3
MARKS = (torch.rand(12, 3) < 0.4).to(torch.uint8)
WEIGHTS = np.array([1.0, 2.0, 0.5])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(smoothing: float, weights: np.ndarray | None) -> None:
    loss = make_loss(SINGLE_LABEL, label_smoothing=smoothing, class_weights=weights)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    expected = functional.cross_entropy(LOGITS, LABELS, given, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss(LOGITS, LABELS).sum(), expected)


def test_binary_cross_entropy_is_torchs_mean_over_labels_summed_over_rows() -> None:
    loss = make_loss(MULTI_LABEL, class_weights=WEIGHTS)
    weights = torch.tensor(WEIGHTS, dtype=torch.float32)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, MARKS.float(), pos_weight=weights)
    torch.testing.assert_close(loss(LOGITS, MARKS).sum(), 12 * expected)


def test_smoothed_yes_and_no() -> None:
    expected = functional.binary_cross_entropy_with_logits(LOGITS, MARKS * 0.8 + 0.1)
    torch.testing.assert_close(make_loss(MULTI_LABEL, label_smoothing=0.2)(LOGITS, MARKS).sum(), 12 * expected)


@pytest.mark.parametrize("problem", [SINGLE_LABEL, MULTI_LABEL])
def test_focal_is_what_lin_et_al_write(problem: str) -> None:
    labels = LABELS if problem == SINGLE_LABEL else MARKS
    if problem == SINGLE_LABEL:
        right = LOGITS.softmax(dim=1)[torch.arange(12), LABELS]
        expected = (-((1 - right) ** 2) * right.log()).sum()
    else:
        right = torch.where(MARKS == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
        expected = (-((1 - right) ** 2) * right.log()).mean(dim=1).sum()
    torch.testing.assert_close(make_loss(problem, gamma=2.0)(LOGITS, labels).sum(), expected)  # type: ignore[arg-type]


def test_focal_without_gamma_is_cross_entropy() -> None:
    plain, focal = TrainingConfig(), TrainingConfig(loss="focal", focal_gamma=0.0)
    for labels in (LABELS, MARKS):
        values = [make_training_loss(c, labels.numpy(), ("a", "b", "c")).loss(LOGITS, labels) for c in (plain, focal)]
        torch.testing.assert_close(*values)


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("balanced", labels, ("a", "b", "c")), expected)


def test_balanced_weights_of_many_labels_are_no_over_yes() -> None:
    labels = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(class_weights("balanced", labels, ("a", "b", "c")), [3, 1, 1])


def test_weights_by_name() -> None:
    labels = np.array([0, 1])
    assert class_weights({"b": 5.0}, labels, ("a", "b")).tolist() == [1, 5]  # type: ignore[union-attr]
    assert class_weights(None, labels, ("a", "b")) is None
    with pytest.raises(RecipeError, match=r"'toxik'[\s\S]*Did you mean 'toxic'"):
        class_weights({"toxik": 2.0}, labels, ("fine", "toxic"))
