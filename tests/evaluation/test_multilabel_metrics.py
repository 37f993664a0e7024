import numpy as np
import pytest
from sklearn import metrics as theirs

from fullbake.core.errors import DataError, RecipeError
from fullbake.evaluation import metrics

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random((60, 4)) < 0.3).astype(np.uint8)
CHANCES = np.clip(LABELS * 0.4 + RANDOM.random((60, 4)) * 0.6, 0, 1)
NAMES = ("a", "b", "c", "d")


def test_figures_are_scikit_learns() -> None:
    found = metrics.score(LABELS, CHANCES, NAMES)
    predicted = CHANCES >= 0.5
    expected = {
        f"f1_{kind}": theirs.f1_score(LABELS, predicted, average=kind) for kind in ("macro", "micro", "weighted")
    }
    expected |= {
        "f1_samples": theirs.f1_score(LABELS, predicted, average="samples", zero_division=1),
        "accuracy": theirs.accuracy_score(LABELS, predicted),
        "hamming_loss": theirs.hamming_loss(LABELS, predicted),
        "recall_macro": theirs.recall_score(LABELS, predicted, average="macro"),
        "precision_micro": theirs.precision_score(LABELS, predicted, average="micro"),
        "recall_micro": theirs.recall_score(LABELS, predicted, average="micro"),
        "roc_auc": theirs.roc_auc_score(LABELS, CHANCES, average="macro"),
        "average_precision": theirs.average_precision_score(LABELS, CHANCES, average="macro"),
        "log_loss": np.mean([theirs.log_loss(LABELS[:, n], CHANCES[:, n]) for n in range(4)]),
    }
    assert {name: figure["value"] for name, figure in found["overall"].items()} == pytest.approx(expected)
    for place, row in enumerate(found["per_class"]):
        own, said = LABELS[:, place], predicted[:, place]
        assert row["f1"]["value"] == pytest.approx(theirs.f1_score(own, said))
        tn, fp, fn, tp = theirs.confusion_matrix(own, said).ravel()
        assert (row["tn"], row["fp"], row["fn"], row["tp"]) == (tn, fp, fn, tp)
    assert (found["problem_type"], found["confusion_matrix"]) == ("multi_label_classification", None)


def test_a_decision_is_scored_in_place_of_the_half() -> None:
    all_of_them = metrics.score(LABELS, CHANCES, NAMES, np.ones_like(LABELS))
    assert all_of_them["overall"]["recall_micro"]["value"] == 1


def test_labels_that_do_not_occur_are_left_out_of_means_and_say_why() -> None:
    labels = LABELS.copy()
    labels[:, 3] = 0
    chances = CHANCES.copy()
    chances[:, 3] = 0.1
    found = metrics.score(labels, chances, NAMES)
    three = theirs.f1_score(labels[:, :3], chances[:, :3] >= 0.5, average="macro")
    assert found["overall"]["f1_macro"]["value"] == pytest.approx(three)
    row = found["per_class"][3]
    assert row["recall"]["value"] is None
    assert "no row has the label 'd'" in row["recall"]["reason"]
    assert row["roc_auc"]["value"] is None
    nothing = metrics.score(np.zeros((3, 2), np.uint8), np.zeros((3, 2)), ("a", "b"))
    assert nothing["overall"]["f1_micro"]["value"] is None
    assert nothing["overall"]["accuracy"]["value"] == 1


@pytest.mark.parametrize("name", metrics.selection_metrics("multi_label_classification"))
def test_validation_can_choose_by_every_name(name: str) -> None:
    value = metrics.selection_score(name, LABELS, CHANCES)
    figures = metrics.score(LABELS, CHANCES, NAMES)["overall"]
    assert value == pytest.approx(-figures["log_loss"]["value"] if name == "neg_log_loss" else figures[name]["value"])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"matthews_corrcoef has no meaning[\s\S]*f1_samples"):
        metrics.selection_score("matthews_corrcoef", LABELS, CHANCES)
    with pytest.raises(RecipeError, match="f1_samples has no meaning"):
        metrics.selection_score("f1_samples", np.array([0, 1]), np.eye(2))
    with pytest.raises(DataError, match="labels of 0 and 1"):
        metrics.score(LABELS * 2, CHANCES, NAMES)
    with pytest.raises(DataError, match="undefined"):
        metrics.selection_score("roc_auc", np.zeros((3, 2), np.uint8), np.zeros((3, 2)))
