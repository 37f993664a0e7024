"""What a training leaves behind when it learned nothing, and when it did."""

import numpy as np
import pytest

from fullbake.comparison.trial import chance_loss, find_collapse

LABELS = np.arange(40) % 4
GOOD = np.where(np.arange(40) % 5 == 0, 0, LABELS)


def epochs(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": n, "train_loss": loss, "validation_loss": loss} for n, loss in enumerate(losses, 1)]


def test_chance_is_ln_k_where_classes_are_even() -> None:
    assert chance_loss(LABELS) == pytest.approx(np.log(4))
    assert chance_loss(np.zeros(5, dtype=int)) == 0
    assert chance_loss(np.array([[1, 0], [0, 0]])) == pytest.approx(np.log(2) / 2)


def test_a_training_that_learned_is_no_collapse() -> None:
    assert find_collapse(epochs(1.2, 0.6, 0.4), GOOD, LABELS, [1.0, 0.5, 0.3]) is None


def test_one_answer_for_all_rows() -> None:
    found = find_collapse(epochs(1.3, 1.2), np.full(40, 2), LABELS)
    assert found is not None
    assert found.sign == "one_class"
    assert found.reason == "all 40 validation rows got the same answer, which is right for 25% of them"


def test_one_answer_is_right_where_there_is_one_class() -> None:
    assert find_collapse([], np.zeros(9, dtype=int), np.zeros(9, dtype=int)) is None


def test_one_answer_where_a_row_may_have_many_labels() -> None:
    held = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])
    found = find_collapse(epochs(0.4), np.zeros((4, 2), dtype=int), held)
    assert found is not None
    assert (found.sign, "right for 50%" in found.reason) == ("one_class", True)
    assert find_collapse(epochs(0.4), held, held) is None


@pytest.mark.parametrize("losses", [[1.386, 1.39, 1.388], [1.45], [1.6, 1.5]])
def test_a_loss_that_never_left_chance(losses: list[float]) -> None:
    found = find_collapse(epochs(*losses), GOOD, LABELS)
    assert found is not None
    assert found.sign == "stuck_loss"
    assert "the 4 classes' shares costs 1.386" in found.reason


@pytest.mark.parametrize("losses", [[1.386, 1.3], [4.0, 5.0]], ids=["left chance late", "another failure"])
def test_other_losses_are_not_stuck(losses: list[float]) -> None:
    assert find_collapse(epochs(*losses), GOOD, LABELS) is None


def test_chance_on_uneven_classes_is_less_than_ln_k() -> None:
    uneven = np.array([0] * 36 + [1, 2, 3, 1])
    spread = np.where(np.arange(40) == 0, 1, uneven)
    assert chance_loss(uneven) == pytest.approx(-(0.9 * np.log(0.9) + 0.05 * np.log(0.05) + 0.05 * np.log(0.025)))
    assert find_collapse(epochs(0.4), spread, uneven) is None
    found = find_collapse(epochs(0.45), spread, uneven)
    assert found is not None
    assert found.sign == "stuck_loss"


def test_vanished_gradients_are_named_before_what_they_cause() -> None:
    found = find_collapse(epochs(1.386, 1.386), np.zeros(40, dtype=int), LABELS, [1.0, 1e-9, 1e-9, 1e-9])
    assert found is not None
    assert found.sign == "vanished_gradients"
    assert "1.0e-09 long in the last epoch, at a training loss of 1.386" in found.reason


def test_gradients_are_short_where_all_is_learned() -> None:
    assert find_collapse(epochs(0.5, 0.001), GOOD, LABELS, [1.0, 1e-9]) is None
