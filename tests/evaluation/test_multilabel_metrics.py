"""Scores of many labels a row equal scikit-learn's over the labels that occur."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from fullbake.evaluation.metrics import score, selection_metrics, selection_score

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random((60, 4)) < 0.3).astype(np.uint8)
PROBABILITIES = np.clip(LABELS * 0.4 + RANDOM.random((60, 4)) * 0.6, 0, 1)
NAMES = ("a", "b", "c", "d")


def scikit_learn(labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Every metric that is defined on these rows, by scikit-learn's own functions."""
    occurring = labels.any(axis=0) | predicted.any(axis=0)
    held = labels.any(axis=0)
    mixed = np.flatnonzero(held & ~labels.all(axis=0))
    places = range(labels.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": reference.accuracy_score(labels, predicted),
            "hamming_loss": reference.hamming_loss(labels, predicted),
            "f1_samples": reference.f1_score(labels, predicted, average="samples", zero_division=1),
            "log_loss": np.mean([reference.log_loss(labels[:, n], probabilities[:, n], labels=[0, 1]) for n in places]),
        }
        if occurring.any():
            own = labels[:, occurring], predicted[:, occurring]
            expected["f1_macro"] = np.mean([reference.f1_score(*pair) for pair in zip(own[0].T, own[1].T, strict=True)])
            expected["f1_micro"] = reference.f1_score(labels, predicted, average="micro")
        if held.any():
            expected["f1_weighted"] = reference.f1_score(labels, predicted, average="weighted")
            expected["recall_micro"] = reference.recall_score(labels, predicted, average="micro")
            recalls = [reference.recall_score(labels[:, n], predicted[:, n]) for n in np.flatnonzero(held)]
            expected["recall_macro"] = np.mean(recalls)
        if predicted.any():
            expected["precision_micro"] = reference.precision_score(labels, predicted, average="micro")
        if len(mixed):
            pairs = [(labels[:, n], probabilities[:, n]) for n in mixed]
            expected["roc_auc"] = np.mean([reference.roc_auc_score(*pair) for pair in pairs])
            expected["average_precision"] = np.mean([reference.average_precision_score(*pair) for pair in pairs])
    return expected


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(2, 10), st.floats(0, 1), st.integers(0, 2**31))
def test_every_metric_equals_scikit_learn(rows: int, labels: int, share: float, seed: int) -> None:
    """Labels that no row has, labels that all rows have and tied probabilities are among the cases."""
    random = np.random.default_rng(seed)
    held = (random.random((rows, labels)) < share).astype(np.uint8)
    held[:, random.random(labels) < 0.2] = 0
    probabilities = random.integers(0, 9, (rows, labels)) / 8  # few values, so that many probabilities tie
    found = score(held, probabilities, [f"l{place}" for place in range(labels)])["overall"]
    expected = scikit_learn(held, probabilities, probabilities >= 0.5)
    assert {name for name, entry in found.items() if entry["value"] is None} == set(found) - set(expected)
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, rel=1e-12, abs=1e-12)
    areas = [name for name in ("roc_auc", "average_precision") if name in expected]
    assert [found[name]["value"] for name in areas] == [expected[name] for name in areas]  # to the last bit


def test_counts_of_each_label_equal_scikit_learns() -> None:
    found, predicted = score(LABELS, PROBABILITIES, NAMES), PROBABILITIES >= 0.5
    for place, row in enumerate(found["per_class"]):
        own, decided = LABELS[:, place], predicted[:, place]
        assert row["f1"]["value"] == pytest.approx(reference.f1_score(own, decided))
        tn, fp, fn, tp = reference.confusion_matrix(own, decided).ravel()
        assert (row["tn"], row["fp"], row["fn"], row["tp"]) == (tn, fp, fn, tp)
        assert row["roc_auc"]["value"] == reference.roc_auc_score(own, PROBABILITIES[:, place])
    assert (found["problem_type"], found["confusion_matrix"]) == ("multi_label_classification", None)


def test_given_predictions_are_scored_instead_of_those_at_0_5() -> None:
    all_labels = score(LABELS, PROBABILITIES, NAMES, np.ones_like(LABELS))
    assert all_labels["overall"]["recall_micro"]["value"] == 1


def test_labels_that_do_not_occur_are_left_out_of_means_and_say_why() -> None:
    labels, probabilities = LABELS.copy(), PROBABILITIES.copy()
    labels[:, 3], probabilities[:, 3] = 0, 0.1
    found = score(labels, probabilities, NAMES)
    three = reference.f1_score(labels[:, :3], probabilities[:, :3] >= 0.5, average="macro")
    assert found["overall"]["f1_macro"]["value"] == pytest.approx(three)
    row = found["per_class"][3]
    assert row["recall"]["value"] is None
    assert "no row has the label 'd'" in row["recall"]["reason"]
    assert row["roc_auc"]["value"] is None


def test_rows_without_labels_of_which_none_is_predicted_are_right() -> None:
    nothing = score(np.zeros((3, 2), np.uint8), np.zeros((3, 2)), ("a", "b"))
    assert nothing["overall"]["f1_micro"]["value"] is None
    assert nothing["overall"]["accuracy"]["value"] == 1
    assert nothing["overall"]["f1_samples"]["value"] == 1


@pytest.mark.parametrize("name", selection_metrics("multi_label_classification"))
def test_selection_score_is_the_reported_score(name: str) -> None:
    value = selection_score(name, LABELS, PROBABILITIES)
    overall = score(LABELS, PROBABILITIES, NAMES)["overall"]
    assert value == pytest.approx(-overall["log_loss"]["value"] if name == "neg_log_loss" else overall[name]["value"])
