"""Scores of single labels equal scikit-learn's where it defines them, and are null with a reason where it does not."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from fullbake.evaluation.metrics import METRICS, score, selection_metrics, selection_score, validation_scores


def drawn(classes: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, probabilities that know something of them, names; every class has a row."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    logits = random.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities, [f"class {index}" for index in range(classes)]


def scikit_learn(labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Every metric that is defined on these rows, by scikit-learn's own functions."""
    classes = probabilities.shape[1]
    scored = [1] if classes == 2 else range(classes)
    held = set(labels.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": reference.accuracy_score(labels, predicted),
            "f1_macro": reference.f1_score(labels, predicted, average="macro"),
            "f1_micro": reference.f1_score(labels, predicted, average="micro"),
            "f1_weighted": reference.f1_score(labels, predicted, average="weighted"),
            "recall_macro": reference.recall_score(labels, predicted, average="macro", zero_division=np.nan),
            "log_loss": reference.log_loss(labels, probabilities, labels=range(classes)),
        }
        if len(held) > 1:
            expected["matthews_corrcoef"] = reference.matthews_corrcoef(labels, predicted)
        if len(held) > 1 and held >= set(scored):
            pairs = [(labels == place, probabilities[:, place]) for place in scored]
            expected["roc_auc"] = float(np.mean([reference.roc_auc_score(*pair) for pair in pairs]))
            expected["average_precision"] = float(np.mean([reference.average_precision_score(*pair) for pair in pairs]))
    return expected


CASES = st.tuples(st.integers(2, 12), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))


@settings(deadline=None, max_examples=150)
@given(CASES, st.booleans())
def test_every_metric_equals_scikit_learn_to_the_last_bit(case: tuple[int, int, int, int], guessed: bool) -> None:
    """Classes that no row has, single-class rows and tied probabilities are among the cases."""
    classes, rows, held, seed = case
    random = np.random.default_rng(seed)
    labels = random.permutation(classes)[:held][random.integers(0, min(held, classes), rows)]
    weights = random.integers(1, 5, (rows, classes)).astype(np.float64)  # few values, so that many probabilities tie
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    predicted = random.integers(0, classes, rows) if guessed else probabilities.argmax(axis=1)
    found = score(labels, probabilities, [f"c{place}" for place in range(classes)], predicted)["overall"]
    expected = scikit_learn(labels, probabilities, predicted)
    exact = {name: value for name, value in expected.items() if name != "log_loss"}  # clipped otherwise there
    assert {name: found[name]["value"] for name in exact} == exact
    assert found["log_loss"]["value"] == pytest.approx(expected["log_loss"])
    assert {name for name, entry in found.items() if entry["value"] is None} == set(found) - set(expected)


@pytest.mark.parametrize("classes", [2, 3, 11, 150])
def test_selection_score_is_the_reported_score(classes: int) -> None:
    labels, probabilities, names = drawn(classes, 300)
    overall = score(labels, probabilities, names)["overall"]
    assert {name: entry["value"] for name, entry in overall.items()} == pytest.approx(
        scikit_learn(labels, probabilities, probabilities.argmax(axis=1))
    )
    for name in selection_metrics("single_label_classification"):
        value = -overall["log_loss"]["value"] if name == "neg_log_loss" else overall[name]["value"]
        assert selection_score(name, labels, probabilities) == value


def test_selection_by_log_loss_prefers_the_likelier() -> None:
    labels, probabilities, _ = drawn(3, 60)
    blunt = np.full_like(probabilities, 1 / 3)
    assert selection_score("neg_log_loss", labels, blunt) == pytest.approx(-np.log(3))
    perfect = selection_score("neg_log_loss", labels, np.eye(3)[labels])
    assert perfect > selection_score("neg_log_loss", labels, probabilities)


def test_scores_per_class_and_confusion_matrix_equal_scikit_learn() -> None:
    labels, probabilities, names = drawn(4, 200)
    result = score(labels, probabilities, names)
    predicted = probabilities.argmax(axis=1)
    columns = reference.precision_recall_fscore_support(labels, predicted)
    for index, entry in enumerate(result["per_class"]):
        own = [entry[key]["value"] for key in ("precision", "recall", "f1")]
        assert [*own, entry["support"]] == pytest.approx([column[index] for column in columns])
        assert (entry["label"], entry["predicted"]) == (names[index], (predicted == index).sum())
    assert result["confusion_matrix"] == reference.confusion_matrix(labels, predicted).tolist()
    assert result["rows"] == 200


def test_given_predictions_are_scored_instead_of_the_most_probable() -> None:
    labels, probabilities, names = drawn(2, 100)
    predicted = (probabilities[:, 1] > 0.2).astype(np.int64)
    result = score(labels, probabilities, names, predicted)
    assert result["overall"]["f1_macro"]["value"] == reference.f1_score(labels, predicted, average="macro")
    assert result["overall"]["roc_auc"] == score(labels, probabilities, names)["overall"]["roc_auc"]


def test_positive_class_is_the_last_of_two() -> None:
    labels, probabilities, _ = drawn(2, 50)
    result = score(labels, probabilities, ["ham", "spam"])
    assert result["positive"] == "spam"
    precision = reference.average_precision_score(labels == 1, probabilities[:, 1])
    assert result["overall"]["average_precision"]["value"] == precision
    assert score(*drawn(3, 50))["positive"] is None


def test_intervals_of_accuracy_and_recall_are_wilsons() -> None:
    labels, probabilities, names = drawn(3, 120)
    result = score(labels, probabilities, names)
    right = int((labels == probabilities.argmax(axis=1)).sum())
    interval = stats.binomtest(right, 120).proportion_ci(method="wilson")
    accuracy = result["overall"]["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == (interval.low, interval.high)
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
    random = np.random.default_rng(7)
    rows, positive, trials = 400, 0.2, 120
    hit = positive * recall
    truth = 2 * hit / (hit + positive + (1 - positive) * fallout)
    covered = 0
    for _ in range(trials):
        labels = (random.random(rows) < positive).astype(np.int64)
        predicted = (random.random(rows) < np.where(labels, recall, fallout)).astype(np.int64)
        f1 = score(labels, np.full((rows, 2), 0.5), ["no", "yes"], predicted)["per_class"][1]["f1"]
        covered += f1["low"] <= truth <= f1["high"]
    # 95%, less three standard errors of 120 trials; and not so wide that it always covers.
    assert 0.89 <= covered / trials < 1


def test_undefined_metrics_are_null_with_their_reason() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    result = score(np.array([0, 0]), probabilities, ["ham", "spam"])
    for name in ("roc_auc", "average_precision", "matthews_corrcoef"):
        reason = "every row is labeled 'ham'"
        assert result["overall"][name] == {"value": None, "low": None, "high": None, "reason": reason}
    spam = result["per_class"][1]
    assert spam["recall"]["reason"] == "no row is labeled 'spam'"
    assert spam["precision"]["reason"] == "no row was predicted as 'spam'"
    assert spam["f1"]["reason"] == "no row is labeled 'spam' and no row was predicted as 'spam'"
    assert result["overall"]["f1_macro"]["value"] == 1.0


def test_areas_are_undefined_where_one_of_many_classes_has_no_row() -> None:
    labels, probabilities, names = drawn(5, 50)
    keep = labels < 3
    area = score(labels[keep], probabilities[keep], names)["overall"]["roc_auc"]
    assert area["value"] is None
    assert area["reason"] == "no row is labeled 'class 3' (nor 1 other classes)"


def test_predicted_class_without_rows_has_f1_0_and_no_recall() -> None:
    result = score(np.array([0, 0, 1]), np.eye(3)[[0, 2, 1]], ["a", "b", "c"])
    assert result["per_class"][2]["f1"]["value"] == 0
    assert result["per_class"][2]["recall"]["value"] is None
    assert result["overall"]["recall_macro"]["value"] == pytest.approx((0.5 + 1) / 2)


def test_matthews_coefficient_is_0_when_all_predictions_are_equal() -> None:
    labels, _, names = drawn(2, 30)
    assert score(labels, np.tile([0.9, 0.1], (30, 1)), names)["overall"]["matthews_corrcoef"]["value"] == 0


def test_probability_of_zero_costs_much_but_not_infinitely() -> None:
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
    probabilities = sure * np.eye(classes)[[guess % classes for _, guess, _ in rows]] + (1 - sure) / classes
    result = score(labels, probabilities, [f"c{index}" for index in range(classes)])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    entries = [*result["overall"].values()]
    entries += [entry[key] for entry in result["per_class"] for key in ("precision", "recall", "f1")]
    for entry in entries:
        assert entry.keys() == {"value", "low", "high", "reason"}
        assert (entry["value"] is None) == (entry["reason"] is not None)
        if entry["low"] is not None:
            assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1
    for name, entry in result["overall"].items():
        low, high = METRICS[name].range
        assert entry["value"] is None or low <= entry["value"] <= high
    assert sum(map(sum, result["confusion_matrix"])) == len(rows)


def test_validation_scores_equal_scikit_learn() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    labels = np.arange(50) % 3
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)
    found = validation_scores(logits, labels, "f1_macro")
    assert found["validation_loss"] == pytest.approx(reference.log_loss(labels, probabilities))
    assert found["f1_macro"] == pytest.approx(reference.f1_score(labels, logits.argmax(axis=1), average="macro"))


def test_validation_loss_is_finite_where_the_right_class_has_no_probability() -> None:
    found = validation_scores(np.array([[0, 1e5], [0, -1e5]], dtype=np.float32), np.array([0, 0]), "accuracy")
    assert np.isfinite(found["validation_loss"])
    assert found["accuracy"] == 0.5
