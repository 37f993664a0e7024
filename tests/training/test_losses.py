"""Training losses against torch, against the papers' formulas, and against scikit-learn's class weights."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType
from fullbake.config.sections import TrainingConfig
from fullbake.core.errors import RecipeError
from fullbake.training.losses import class_weights, make_loss, make_training_loss

NAMES = ("a", "b", "c")
WEIGHTS = np.array([1.0, 2.0, 0.5])

_random = torch.Generator().manual_seed(0)
LOGITS = torch.randn(12, 3, generator=_random)
CLASS_IDS = torch.arange(12) % 3
LABEL_MATRIX = (torch.rand(12, 3, generator=_random) < 0.4).to(torch.uint8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_single_label_loss_is_torchs_cross_entropy(smoothing: float, weights: np.ndarray | None) -> None:
    loss = make_loss(SINGLE_LABEL, label_smoothing=smoothing, class_weights=weights)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    expected = functional.cross_entropy(LOGITS, CLASS_IDS, given, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(loss(LOGITS, CLASS_IDS), expected)


def test_multi_label_loss_is_the_mean_binary_cross_entropy_of_a_row() -> None:
    loss = make_loss(MULTI_LABEL, class_weights=WEIGHTS)
    weights = torch.tensor(WEIGHTS, dtype=torch.float32)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, LABEL_MATRIX.float(), pos_weight=weights)
    torch.testing.assert_close(loss(LOGITS, LABEL_MATRIX).mean(), expected)


def test_label_smoothing_of_many_labels_moves_yes_and_no_toward_a_half() -> None:
    expected = functional.binary_cross_entropy_with_logits(LOGITS, LABEL_MATRIX * 0.8 + 0.1)
    torch.testing.assert_close(make_loss(MULTI_LABEL, label_smoothing=0.2)(LOGITS, LABEL_MATRIX).mean(), expected)


def test_focal_loss_of_classes_is_the_formula_of_lin_et_al() -> None:
    true = LOGITS.softmax(dim=1)[torch.arange(12), CLASS_IDS]
    expected = -((1 - true) ** 2) * true.log()
    torch.testing.assert_close(make_loss(SINGLE_LABEL, gamma=2.0)(LOGITS, CLASS_IDS), expected)


def test_focal_loss_of_labels_is_the_formula_of_lin_et_al() -> None:
    true = torch.where(LABEL_MATRIX == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = (-((1 - true) ** 2) * true.log()).mean(dim=1)
    torch.testing.assert_close(make_loss(MULTI_LABEL, gamma=2.0)(LOGITS, LABEL_MATRIX), expected)


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
def test_class_weights_multiply_focal_terms(problem_type: ProblemType) -> None:
    double = np.array([2.0, 2.0, 2.0])
    labels = CLASS_IDS if problem_type == SINGLE_LABEL else torch.ones_like(LABEL_MATRIX)
    plain = make_loss(problem_type, gamma=2.0)(LOGITS, labels)
    weighted = make_loss(problem_type, gamma=2.0, class_weights=double)(LOGITS, labels)
    torch.testing.assert_close(weighted, 2 * plain)


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
def test_loss_of_bf16_logits_is_fp32(problem_type: ProblemType) -> None:
    labels = CLASS_IDS if problem_type == SINGLE_LABEL else LABEL_MATRIX
    assert make_loss(problem_type)(LOGITS.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("labels", [CLASS_IDS, LABEL_MATRIX], ids=["single label", "multi label"])
def test_focal_loss_without_gamma_is_cross_entropy(labels: torch.Tensor) -> None:
    plain, focal = TrainingConfig(), TrainingConfig(loss="focal", focal_gamma=0.0)
    one, other = (
        make_training_loss(training, labels.numpy(), NAMES).loss(LOGITS, labels) for training in (plain, focal)
    )
    torch.testing.assert_close(one, other)


def test_training_loss_is_the_sum_over_rows_and_keeps_its_class_weights() -> None:
    made = make_training_loss(TrainingConfig(class_weights={"b": 3.0}), CLASS_IDS.numpy(), NAMES)
    torch.testing.assert_close(made.loss(LOGITS, CLASS_IDS), made.row_losses(LOGITS, CLASS_IDS).sum())
    assert made.class_weights is not None
    assert made.class_weights.tolist() == [1, 3, 1]


def test_balanced_class_weights_are_scikit_learns() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("balanced", labels, NAMES), expected)


def test_balanced_class_weights_of_many_labels_are_rows_without_over_rows_with() -> None:
    labels = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(class_weights("balanced", labels, NAMES), [3, 1, 1])


def test_class_weights_by_name_are_1_for_all_others() -> None:
    labels = np.array([0, 1])
    assert class_weights({"b": 5.0}, labels, ("a", "b")).tolist() == [1, 5]  # type: ignore[union-attr]
    assert class_weights(None, labels, ("a", "b")) is None


def test_class_weight_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'toxik'[\s\S]*Did you mean 'toxic'"):
        class_weights({"toxik": 2.0}, np.array([0, 1]), ("fine", "toxic"))
