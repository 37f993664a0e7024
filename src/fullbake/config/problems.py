"""TODO"""

from typing import Any, Final, Literal

from numpy.typing import NDArray

ProblemType = Literal["single_label_classification", "multi_label_classification"]
"""transformers' own words."""

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
LabelArray = NDArray[Any]


def problem_of(labels: LabelArray) -> ProblemType:
    """The problem type of labels: ids (rows,) are single labels, 0 and 1 (rows, classes) many."""
    return MULTI_LABEL if labels.ndim == 2 else SINGLE_LABEL


SELECTION: Final = {
    "f1_macro": "mean F1 over the classes",
    "f1_micro": "F1 over all rows (equals accuracy when a row has one label)",
    "f1_weighted": "mean F1 weighted by the classes' rows",
    "accuracy": "share of rows predicted right",
    "recall_macro": "mean recall over the classes (balanced accuracy)",
    "matthews_corrcoef": "Matthews' correlation coefficient",
    "roc_auc": "area under the ROC curve; over two classes the mean of one class against the rest",
    "average_precision": "area under the precision-recall curve; over two classes as for roc_auc",
    "neg_log_loss": "minus the mean negative log-likelihood, in nats",
}
"""What validation may choose by: name -> meaning. Higher is better for every one of them."""

MULTI_LABEL_SELECTION: Final = {
    "f1_macro": "mean F1 over the labels",
    "f1_micro": "F1 over all pairs of row and label",
    "f1_weighted": "mean F1 weighted by the labels' rows",
    "f1_samples": "mean F1 over the rows",
    "accuracy": "share of rows whose labels are all right",
    "recall_macro": "mean recall over the labels",
    "roc_auc": "mean area under the ROC curve over the labels",
    "average_precision": "mean area under the precision-recall curve over the labels",
    "neg_log_loss": "minus the mean binary negative log-likelihood of a label, in nats",
}
"""What validation may choose by where a row may have many labels, predicted from their best thresholds on."""

TITLES: Final = {
    "accuracy": "accuracy",
    "f1_macro": "F1, macro",
    "f1_micro": "F1, micro",
    "f1_weighted": "F1, weighted",
    "f1_samples": "F1, mean over rows",
    "precision_micro": "precision, micro",
    "recall_micro": "recall, micro",
    "recall_macro": "recall, macro",
    "hamming_loss": "Hamming loss",
    "matthews_corrcoef": "MCC",
    "roc_auc": "ROC-AUC",
    "average_precision": "PR-AUC",
    "log_loss": "log loss",
    "neg_log_loss": "log loss, minus",
}
"""What tables call a figure, in the order in which they list it."""


def metric_phrase(name: str) -> str:
    """A figure's name within a sentence: "macro F1" where tables have "F1, macro"."""
    return " ".join(reversed(TITLES.get(name, name).split(", ")))
