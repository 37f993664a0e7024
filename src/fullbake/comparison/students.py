"""Put a student beside its teacher and beside TF-IDF, all on the texts that a distillation held out."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.distill import Distillation
from fullbake.evaluation.agreement import agreement_facts, choose_threshold, decision_margins
from fullbake.evaluation.calibration import score_decision
from fullbake.training.baselines import Baseline, BaselineRows, fit_baseline

TFIDF_NAME: Final = "TF-IDF"


def compare_students(found: Distillation, agreement: float, *, baseline: bool = True) -> list[dict[str, Any]]:
    """Score student, TF-IDF and teacher on the held-out texts.

    Args:
        found: The distillation.
        agreement: The agreement for which a cascade's share is computed.
        baseline: Whether to train TF-IDF with logistic regression too.

    Returns:
        A row for each of `student`, `TF-IDF` and `teacher`: {"name", "agreement" (as `agreement_facts`), "answered"
        (share of the texts that a cascade would leave to it; the texts also chose the student's epoch, so a cascade on
        fresh texts may have another share), "accuracy" and "f1_macro" against labels (null without)}.
    """
    texts = [found.given.texts[row] for row in found.held_out]
    logits = {"student": found.student.logits(texts)}
    if baseline and _has_contrast(found):
        logits[TFIDF_NAME] = fit_tfidf_student(found).logits(texts)
    logits["teacher"] = found.teacher_logits[found.held_out]
    return [_row(name, found, values, agreement) for name, values in logits.items()]


def fit_tfidf_student(found: Distillation) -> Baseline:
    """Train TF-IDF and logistic regression on the same texts as the student.

    It learns the label of a text that has one, if the student learned labels too, and else the teacher's.
    """
    labels = found.labels_to_learn()
    train, held = (
        BaselineRows([found.given.texts[row] for row in rows], labels[rows]) for rows in (found.train, found.held_out)
    )
    return fit_baseline("tfidf", train, len(found.student.label_names), validation=held)


def _has_contrast(found: Distillation) -> bool:
    """Return True if the labels of the training texts are not all the same: else there is nothing to fit."""
    labels = found.labels_to_learn()[found.train]
    return bool((labels != labels[0]).any())


def _row(name: str, found: Distillation, logits: NDArray[np.float32], agreement: float) -> dict[str, Any]:
    decision, problem, given = found.student.decision, found.student.problem, found.given
    probabilities = problem.probabilities(logits)
    agrees = problem.equal_rows(decision.decide(probabilities), found.teacher_labels[found.held_out])
    threshold = choose_threshold(decision_margins(decision, probabilities), agrees, agreement)
    labeled = given.labeled[found.held_out]
    scores: dict[str, Any] = {"accuracy": None, "f1_macro": None}
    if given.labels is not None and labeled.any():
        overall = score_decision(given.labels[found.held_out[labeled]], logits[labeled], decision)["overall"]
        scores = {metric: overall[metric] for metric in scores}
    is_teacher = name == "teacher"
    return {
        "name": name,
        "agreement": None if is_teacher else agreement_facts(agrees),
        "answered": None if is_teacher else threshold.share,
        **scores,
    }
