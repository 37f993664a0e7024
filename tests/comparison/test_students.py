"""The table of student, TF-IDF and teacher."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fullbake.classifier.distill import Distillation, GivenTexts
from fullbake.comparison.students import TFIDF_NAME, compare_students
from fullbake.config.problems import SINGLE_LABEL, problem_named
from fullbake.evaluation.decisions import Decision

WORDS = {"warm": "sun heat summer", "cold": "snow ice winter"}


def made_distillation(labeled: bool) -> Distillation:
    """Return a distillation whose teacher knows the words, and whose student is wrong on every tenth text."""
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    names = list(WORDS)
    texts = [f"{random.choice(WORDS[names[label]].split())} number {row}" for row, label in enumerate(labels)]
    logits = np.eye(2, dtype=np.float32)[labels] * 4
    decision = Decision(problem_named(SINGLE_LABEL), tuple(names))
    place = {text: row for row, text in enumerate(texts)}

    def student_logits(asked):
        rows = np.array([place[text] for text in asked])
        return np.where(rows[:, None] % 10 == 0, -logits[rows] / 8, logits[rows])

    student = SimpleNamespace(
        logits=student_logits, decision=decision, problem=decision.problem, label_names=decision.label_names
    )
    given = GivenTexts(texts, labels if labeled else None, np.full(400, labeled), "texts")
    return Distillation(student, given, np.arange(300), np.arange(300, 400), logits, labels.copy())


def test_rows_say_how_often_each_agrees_and_what_it_would_answer():
    rows = {row["name"]: row for row in compare_students(made_distillation(labeled=True), 0.9)}
    assert list(rows) == ["student", TFIDF_NAME, "teacher"]
    assert rows["student"]["agreement"]["value"] == pytest.approx(0.9)
    assert rows["student"]["answered"] == pytest.approx(0.9)  # the 10 wrong ones have equal margins: all or none
    assert rows[TFIDF_NAME]["agreement"]["value"] == 1
    assert rows["teacher"]["agreement"] is None
    assert rows["student"]["accuracy"]["value"] == pytest.approx(0.9)
    assert rows["teacher"]["accuracy"]["value"] == 1


def test_without_labels_there_are_no_scores():
    rows = compare_students(made_distillation(labeled=False), 0.9, baseline=False)
    assert [row["name"] for row in rows] == ["student", "teacher"]
    assert all(row["accuracy"] is None for row in rows)


def test_teacher_of_one_label_has_no_baseline():
    found = made_distillation(labeled=False)
    one = Distillation(
        found.student, found.given, found.train, found.held_out, found.teacher_logits, np.zeros(400, np.int64)
    )
    assert [row["name"] for row in compare_students(one, 0.9)] == ["student", "teacher"]


def test_baseline_learns_labels_where_the_student_did():
    found = made_distillation(labeled=True)
    found.given.labels[:] = 1 - found.given.labels  # the teacher is always wrong
    found.given.labeled[200:] = False
    assert (found.labels_to_learn() == found.teacher_labels).all()
    mixed = replace(found, label_share=0.5).labels_to_learn()
    assert (mixed[:200] == found.given.labels[:200]).all()
    assert (mixed[200:] == found.teacher_labels[200:]).all()
