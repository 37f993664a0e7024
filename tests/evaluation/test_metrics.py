"""Scores equal scikit-learn's where it defines them, and are null with a reason where it does not."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from fullbake.core.errors import DataError, DivergenceFault, RecipeError
from fullbake.evaluation.metrics import SELECTION, score, selection_score


def drawn(classes: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, probabilities that know something of them, names; every class has a row."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, chances, [f"class {index}" for index in range(classes)]


def expected(labels: np.ndarray, chances: np.ndarray) -> dict[str, float]:
    """The same figures, as scikit-learn's own functions give them in one call each."""
    guess, binary = chances.argmax(axis=1), chances.shape[1] == 2
    given_scores = chances[:, 1] if binary else chances
    return {
        "accuracy": reference.accuracy_score(labels, guess),
        "f1_macro": reference.f1_score(labels, guess, average="macro"),
        "f1_micro": reference.f1_score(labels, guess, average="micro"),
        "f1_weighted": reference.f1_score(labels, guess, average="weighted"),
        "recall_macro": reference.balanced_accuracy_score(labels, guess),
        "matthews_corrcoef": reference.matthews_corrcoef(labels, guess),
        "roc_auc": reference.roc_auc_score(labels, given_scores, multi_class="ovr", average="macro"),
        "average_precision": reference.average_precision_score(labels, given_scores, average="macro"),
        "log_loss": reference.log_loss(labels, chances),
    }


@pytest.mark.parametrize("classes", [2, 3, 11])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(classes: int, seed: int) -> None:
    labels, chances, names = drawn(classes, 150, seed)
    overall = score(labels, chances, names)["overall"]
    assert {name: figure["value"] for name, figure in overall.items()} == pytest.approx(expected(labels, chances))
    for name in SELECTION:
        value = -overall["log_loss"]["value"] if name == "neg_log_loss" else overall[name]["value"]
        assert selection_score(name, labels, chances) == pytest.approx(value, rel=1e-12)


def test_selection_by_log_loss_is_scikit_learns_scorer_and_prefers_the_likelier() -> None:
    labels, chances, _ = drawn(3, 60)
    blunt = np.full_like(chances, 1 / 3)
    assert selection_score("neg_log_loss", labels, blunt) == pytest.approx(-np.log(3))
    assert selection_score("neg_log_loss", labels, np.eye(3)[labels]) > selection_score("neg_log_loss", labels, chances)


def test_per_class_and_confusion_equal_scikit_learn() -> None:
    labels, chances, names = drawn(4, 200)
    result = score(labels, chances, names)
    guess = chances.argmax(axis=1)
    figures = reference.precision_recall_fscore_support(labels, guess)
    for index, entry in enumerate(result["per_class"]):
        own = [entry[key]["value"] for key in ("precision", "recall", "f1")]
        assert [*own, entry["support"]] == pytest.approx([column[index] for column in figures])
        assert (entry["label"], entry["predicted"]) == (names[index], (guess == index).sum())
    assert result["confusion_matrix"] == reference.confusion_matrix(labels, guess).tolist()
    assert result["rows"] == 200


def test_given_predictions_are_scored_instead_of_the_most_probable() -> None:
    labels, chances, names = drawn(2, 100)
    predicted = (chances[:, 1] > 0.2).astype(np.int64)
    result = score(labels, chances, names, predicted)
    assert result["overall"]["f1_macro"]["value"] == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    assert result["overall"]["roc_auc"] == score(labels, chances, names)["overall"]["roc_auc"]


def test_the_positive_class_is_the_last_of_two() -> None:
    labels, chances, _ = drawn(2, 50)
    result = score(labels, chances, ["ham", "spam"])
    assert result["positive"] == "spam"
    precision = reference.average_precision_score(labels == 1, chances[:, 1])
    assert result["overall"]["average_precision"]["value"] == pytest.approx(precision)
    assert score(*drawn(3, 50))["positive"] is None


def test_share_intervals_are_wilsons() -> None:
    labels, chances, names = drawn(3, 120)
    result = score(labels, chances, names)
    right = int((labels == chances.argmax(axis=1)).sum())
    interval = stats.binomtest(right, 120).proportion_ci(method="wilson")
    accuracy = result["overall"]["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((interval.low, interval.high))
    # Newcombe (1998), table I: 15 of 148 gives 0.0624 to 0.1605 by Wilson's method.
    known = score(
        np.zeros(148, dtype=np.int64),
        np.tile([0.4, 0.6], (148, 1)),
        ["a", "b"],
        np.minimum(np.arange(148) // 15, 1),
    )
    assert known["per_class"][0]["recall"]["low"] == pytest.approx(0.0624, abs=1e-4)
    assert known["per_class"][0]["recall"]["high"] == pytest.approx(0.1605, abs=1e-4)


@pytest.mark.parametrize(("recall", "fallout"), [(0.95, 0.01), (0.3, 0.2)])
def test_f1_interval_covers_the_true_f1(recall: float, fallout: float) -> None:
    rng = np.random.default_rng(7)
    rows, positive, trials = 400, 0.2, 120
    hit = positive * recall
    truth = 2 * hit / (hit + positive + (1 - positive) * fallout)
    covered = 0
    for _ in range(trials):
        labels = (rng.random(rows) < positive).astype(np.int64)
        predicted = (rng.random(rows) < np.where(labels, recall, fallout)).astype(np.int64)
        figure = score(labels, np.full((rows, 2), 0.5), ["no", "yes"], predicted)["per_class"][1]["f1"]
        covered += figure["low"] <= truth <= figure["high"]
    # 95%, less three standard errors of 120 trials; and not so wide that it always covers.
    assert 0.89 <= covered / trials < 1


def test_what_is_undefined_is_null_with_its_reason() -> None:
    chances = np.array([[0.9, 0.1], [0.8, 0.2]])
    result = score(np.array([0, 0]), chances, ["ham", "spam"])
    for name in ("roc_auc", "average_precision", "matthews_corrcoef"):
        figure = result["overall"][name]
        assert figure == {"value": None, "low": None, "high": None, "reason": "every row is labelled 'ham'"}
    spam = result["per_class"][1]
    assert spam["recall"]["reason"] == "no row is labelled 'spam'"
    assert spam["precision"]["reason"] == "no row was predicted as 'spam'"
    assert spam["f1"]["reason"] == "no row is labelled 'spam' and no row was predicted as 'spam'"
    assert result["overall"]["f1_macro"]["value"] == 1.0


def test_an_absent_class_of_many_leaves_the_areas_undefined() -> None:
    labels, chances, names = drawn(5, 50)
    keep = labels < 3
    figure = score(labels[keep], chances[keep], names)["overall"]["roc_auc"]
    assert figure["value"] is None
    assert figure["reason"] == "no row is labelled 'class 3' (nor 1 other classes)"


def test_a_predicted_class_without_rows_has_f1_0_and_no_recall() -> None:
    result = score(np.array([0, 0, 1]), np.eye(3)[[0, 2, 1]], ["a", "b", "c"])
    assert result["per_class"][2]["f1"]["value"] == 0
    assert result["per_class"][2]["recall"]["value"] is None
    assert result["overall"]["recall_macro"]["value"] == pytest.approx((0.5 + 1) / 2)


def test_the_same_prediction_everywhere_has_no_correlation() -> None:
    labels, _, names = drawn(2, 30)
    assert score(labels, np.tile([0.9, 0.1], (30, 1)), names)["overall"]["matthews_corrcoef"]["value"] == 0


def test_a_probability_of_zero_costs_much_but_not_infinitely() -> None:
    loss = score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ["a", "b"])["overall"]["log_loss"]
    assert loss["value"] == pytest.approx(-np.log(np.finfo(float).eps) / 2)


@settings(deadline=None, max_examples=60)
@given(
    classes=st.integers(2, 5),
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0.3, 1)), min_size=1, max_size=12),
)
def test_any_rows_give_finite_ordered_json(classes: int, rows: list[tuple[int, int, float]]) -> None:
    labels = np.array([label % classes for label, _, _ in rows])
    sure = np.array([certainty for _, _, certainty in rows])[:, None]
    chances = sure * np.eye(classes)[[guess % classes for _, guess, _ in rows]] + (1 - sure) / classes
    result = score(labels, chances, [f"c{index}" for index in range(classes)])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    figures = [*result["overall"].values()]
    figures += [entry[key] for entry in result["per_class"] for key in ("precision", "recall", "f1")]
    for figure in figures:
        assert figure.keys() == {"value", "low", "high", "reason"}
        assert (figure["value"] is None) == (figure["reason"] is not None)
        if figure["low"] is not None:
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert sum(map(sum, result["confusion_matrix"])) == len(rows)


def test_selecting_by_an_undefined_metric_is_an_error_that_says_why() -> None:
    chances = np.array([[0.9, 0.1], [0.8, 0.2]])
    with pytest.raises(DataError, match="roc_auc is undefined on the validation rows: every row is labelled 'ham'"):
        selection_score("roc_auc", np.array([0, 0]), chances, ["ham", "spam"])
    assert selection_score("f1_macro", np.array([0, 0]), chances) == 1.0


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'f1_macro'"):
        selection_score("f1-macro", np.array([0, 1]), np.eye(2))


@pytest.mark.parametrize(
    ("labels", "chances", "message"),
    [
        ([], np.zeros((0, 2)), "at least one row"),
        ([0, 1], np.full((3, 2), 0.5), r"shape \(2, 2\)"),
        ([0, 2], np.full((2, 2), 0.5), "labels from 0 to 1"),
        ([0, -1], np.full((2, 2), 0.5), "labels from 0 to 1"),
        ([0.0, 1.0], np.full((2, 2), 0.5), "2 whole numbers"),
        ([0, 1], np.array([[3.0, -2.0], [0.5, 0.5]]), "from -2 to 3"),
        ([0, 1], np.full((2, 2), 0.9), "sum to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels: list[float], chances: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(np.array(labels), chances, ["a", "b"])


def test_probabilities_that_are_not_numbers_are_a_divergence() -> None:
    with pytest.raises(DivergenceFault, match="row 1 of the scores"):
        score(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), ["a", "b"])


def test_importing_the_names_loads_neither_scikit_learn_nor_scipy() -> None:
    code = "import sys, fullbake.evaluation.metrics; print(sorted({'sklearn', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
