"""Each kind of problem against plain loops, scipy and scikit-learn; no other module asks for the axes of labels."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss

import fullbake
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, LabelArray, Problem, problem_named, problem_of
from fullbake.core.errors import BundleError

SINGLE, MULTI = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)
NAMES = ("a", "b", "c")
OBJECT_NAMES = np.array(NAMES, dtype=np.object_)

IDS = np.array([0, 2, 2, 1, 0])
MATRIX = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]], dtype=np.uint8)
LOGITS = np.random.default_rng(0).normal(0, 4, (5, 3)).astype(np.float32)

BOTH = pytest.mark.parametrize(("problem", "labels"), [(SINGLE, IDS), (MULTI, MATRIX)], ids=["single", "multi"])


# Which problem it is


@BOTH
def test_shape_of_labels_decides_the_problem(problem: Problem, labels: LabelArray) -> None:
    assert problem_of(labels) is problem
    assert problem_of(labels[:0]) is problem


def test_unknown_problem_type_of_a_bundle_is_refused() -> None:
    with pytest.raises(BundleError, match=r"'regression'[\s\S]*newer"):
        problem_named("regression")


def test_only_problem_of_asks_for_the_axes_of_labels() -> None:
    asked = re.compile(r"\b(labels_?|predictions|predicted|decided|ids)\.ndim|np\.ndim\(")
    package = Path(fullbake.__file__).parent
    lines = [
        f"{path.relative_to(package).as_posix()}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if asked.search(line)
    ]
    assert lines == ["config/problems.py: return _MULTI if labels.ndim == 2 else _SINGLE"]


# Labels


@BOTH
def test_label_ids_and_encode_are_inverse(problem: Problem, labels: LabelArray) -> None:
    ids = problem.label_ids(labels)
    encoded = problem.encode([tuple(NAMES[label] for label in row) for row in ids], NAMES)
    np.testing.assert_array_equal(encoded, labels)
    assert encoded.dtype == labels.dtype


def test_label_ids_of_each_row() -> None:
    assert SINGLE.label_ids(IDS) == [[0], [2], [2], [1], [0]]
    assert MULTI.label_ids(MATRIX) == [[0], [1, 2], [], [0, 1, 2], [2]]


@BOTH
def test_rows_of_a_label_agree_however_they_are_asked_for(problem: Problem, labels: LabelArray) -> None:
    expected = [[label in row for row in problem.label_ids(labels)] for label in range(3)]
    np.testing.assert_array_equal([problem.has_label(labels, label) for label in range(3)], expected)
    np.testing.assert_array_equal(problem.label_matrix(labels, 3).T, expected)
    assert problem.count_rows(labels, 3).tolist() == [sum(row) for row in expected]
    assert problem.count_classes(labels, labels) == 3


@BOTH
def test_has_label_keeps_an_axis_of_seeds(problem: Problem, labels: LabelArray) -> None:
    seeds = np.stack([labels, labels[::-1]])
    expected = [problem.has_label(labels, 2), problem.has_label(labels[::-1], 2)]
    np.testing.assert_array_equal(problem.has_label(seeds, 2), expected)


def test_count_rows_counts_classes_that_no_row_has() -> None:
    assert SINGLE.count_rows(np.array([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]


def test_rows_are_equal_if_all_their_labels_are() -> None:
    assert SINGLE.equal_rows(IDS, np.array([0, 1, 2, 1, 1])).tolist() == [True, False, True, True, False]
    other = MATRIX.copy()
    other[1, 2] = 0
    assert MULTI.equal_rows(MATRIX, other).tolist() == [True, False, True, True, True]


def test_stratum_of_a_row_is_its_class() -> None:
    rows, strata = SINGLE.strata(np.array([7, 3, 7]))
    assert (rows.tolist(), strata.tolist()) == ([0, 1, 2], [1, 0, 1])


def test_strata_of_a_row_are_its_labels_or_one_for_rows_without_labels() -> None:
    pairs = list(zip(*(part.tolist() for part in MULTI.strata(MATRIX)), strict=True))
    assert pairs == [(0, 0), (1, 1), (1, 2), (2, 3), (3, 0), (3, 1), (3, 2), (4, 2)]


@BOTH
def test_balanced_weight_of_an_absent_class_is_1(problem: Problem, labels: LabelArray) -> None:
    first = labels[:1]
    assert problem.balanced_weights(first, 3).tolist() == ([1 / 3, 1, 1] if problem.exclusive else [0, 1, 1])


def test_confusion_is_scikit_learns_and_none_for_many_labels() -> None:
    predicted = np.array([0, 0, 2, 1, 1])
    np.testing.assert_array_equal(SINGLE.confusion(IDS, predicted, 3), confusion_matrix(IDS, predicted))
    assert MULTI.confusion(MATRIX, MATRIX, 3) is None


# Logits and probabilities


def test_probabilities_are_scipys_softmax_and_sigmoid() -> None:
    exact = LOGITS.astype(np.float64)
    np.testing.assert_allclose(SINGLE.probabilities(LOGITS), softmax(exact, axis=1), rtol=1e-12)
    np.testing.assert_allclose(MULTI.probabilities(LOGITS), expit(exact), rtol=1e-12)


@BOTH
def test_probabilities_of_extreme_logits_are_finite(problem: Problem, labels: LabelArray) -> None:
    extreme = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    assert np.isfinite(problem.probabilities(extreme)).all()
    assert np.isfinite(problem.row_losses(extreme, labels[:1])).all()


def test_row_loss_of_classes_is_the_negative_log_softmax() -> None:
    expected = -log_softmax(LOGITS.astype(np.float64), axis=1)[np.arange(5), IDS]
    np.testing.assert_allclose(SINGLE.row_losses(LOGITS, IDS), expected, rtol=1e-12)


def test_row_loss_of_labels_is_the_mean_of_their_log_losses() -> None:
    expected = [log_loss(truth, row, labels=[0, 1]) for truth, row in zip(MATRIX, expit(LOGITS), strict=True)]
    np.testing.assert_allclose(MULTI.row_losses(LOGITS, MATRIX), expected, rtol=1e-5)


@BOTH
def test_losses_from_probabilities_equal_those_from_logits(problem: Problem, labels: LabelArray) -> None:
    losses = problem.probability_losses(problem.probabilities(LOGITS), labels)
    np.testing.assert_allclose(losses, problem.row_losses(LOGITS, labels), rtol=1e-9)


def test_loss_of_probability_0_is_finite() -> None:
    sure = np.array([[1.0, 0.0]])
    assert SINGLE.probability_losses(sure, np.array([1])) == pytest.approx(-np.log(np.finfo(np.float64).eps))


def test_plain_decision_is_the_likeliest_class_or_each_label_of_a_half_and_more() -> None:
    rows = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert SINGLE.decide(rows).tolist() == [1, 0]
    assert MULTI.decide(rows).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert MULTI.decide(rows).dtype == np.uint8


def test_confidence_is_that_of_the_likeliest_class_or_of_every_label() -> None:
    rows = np.array([[0.7, 0.3], [0.4, 0.6]])
    confidence, correct = SINGLE.confidences(rows, np.array([0, 0]))
    assert (confidence.tolist(), correct.tolist()) == ([0.7, 0.6], [1, 0])
    confidence, correct = MULTI.confidences(rows, np.array([[1, 0], [0, 0]]))
    assert (confidence.tolist(), correct.tolist()) == ([0.7, 0.3, 0.4, 0.6], [1, 0, 0, 0])


def test_brier_score_is_scikit_learns() -> None:
    rows = SINGLE.probabilities(LOGITS)
    expected = np.mean([((row - np.eye(3)[label]) ** 2).sum() for row, label in zip(rows, IDS, strict=True)])
    assert SINGLE.brier(rows, IDS) == pytest.approx(expected)
    labels = MULTI.probabilities(LOGITS)
    by_label = [brier_score_loss(MATRIX[:, label], labels[:, label]) for label in range(3)]
    assert MULTI.brier(labels, MATRIX) == pytest.approx(np.mean(by_label))


def test_one_of_two_exclusive_classes_says_all() -> None:
    assert [SINGLE.one_against_rest(classes) for classes in (2, 3)] == [(1,), (0, 1, 2)]
    assert [MULTI.one_against_rest(classes) for classes in (1, 2)] == [(0,), (0, 1)]


def test_positive_class_is_the_chosen_one_or_the_last_of_two() -> None:
    assert [SINGLE.positive_class(names, None) for names in (("no", "yes"), NAMES)] == [1, None]
    assert SINGLE.positive_class(NAMES, "a") == 0
    assert MULTI.positive_class(("no", "yes"), None) is None


@BOTH
def test_prior_logits_give_the_shares_of_the_classes(problem: Problem, labels: LabelArray) -> None:
    many = np.concatenate([labels] * 200)
    logits = problem.prior_logits(many, 3)
    shares = problem.count_rows(labels, 3) / len(labels)
    np.testing.assert_allclose(problem.probabilities(logits[None])[0], shares, atol=1e-3)
    assert np.isfinite(problem.prior_logits(labels[:1], 3)).all()


@BOTH
def test_chance_loss_is_the_loss_of_the_shares_of_the_classes(problem: Problem, labels: LabelArray) -> None:
    shares = problem.count_rows(labels, 3) / len(labels)
    expected = problem.probability_losses(np.tile(shares, (len(labels), 1)), labels).mean()
    assert problem.chance_loss(labels) == pytest.approx(expected)


def test_chance_loss_of_even_classes_is_ln_k_and_of_one_class_0() -> None:
    assert SINGLE.chance_loss(np.arange(40) % 4) == pytest.approx(np.log(4))
    assert SINGLE.chance_loss(np.zeros(5, dtype=int)) == 0
    assert MULTI.chance_loss(np.array([[1, 0], [0, 0]])) == pytest.approx(np.log(2) / 2)


# Names in errors and files


def test_cost_names_are_pairs_of_classes_or_the_two_mistakes_of_a_label() -> None:
    assert SINGLE.cost_names(("a", "b")) == ("a>a", "a>b", "b>a", "b>b")
    assert MULTI.cost_names(("a", "b")) == ("miss", "false_alarm")


def test_predictions_are_names_or_the_label_matrix() -> None:
    assert SINGLE.predictions(IDS, OBJECT_NAMES).tolist() == ["a", "c", "c", "b", "a"]
    assert MULTI.predictions(MATRIX, OBJECT_NAMES) is MATRIX


def test_columns_of_predictions_are_the_class_with_its_score_or_one_for_each_label() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=np.float32)
    assert SINGLE.prediction_columns(NAMES) == {"predicted": str, "score": np.float32}
    predicted, own = SINGLE.prediction_values(IDS[:2], scores, OBJECT_NAMES)
    assert predicted == ["a", "c"]
    np.testing.assert_array_equal(own, scores[[0, 1], [0, 2]])
    assert list(MULTI.prediction_columns(NAMES)) == ["predicted:a", "predicted:b", "predicted:c"]
    np.testing.assert_array_equal(MULTI.prediction_values(MATRIX[:2], scores, OBJECT_NAMES), MATRIX[:2].T)
