"""`evaluate` scores labeled rows by the classifier's own decision, and warns of rows that it was trained on."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import make_rows, train, write_csv

from fullbake import Classifier, evaluate
from fullbake.data.dataset import read_dataset

Bases = Callable[..., Path]


@pytest.fixture(scope="module")
def classifier(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("run"), "frozen-mlp")


def labeled_rows(folder: Path, rows: list[tuple[str, str]], classifier: Classifier):
    path = write_csv(folder / "labeled.csv", rows)
    return read_dataset(path, text="text", label="label", label_names=classifier.label_names)


def test_evaluate_gives_the_scores_of_the_predictions(
    classifier: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(30, seed=11)
    with caplog.at_level(logging.WARNING, "fullbake"):
        scores = evaluate(classifier, labeled_rows(tmp_path, rows, classifier))
    accuracy = np.mean(classifier.predict([text for text, _ in rows]) == np.array([label for _, label in rows]))
    assert scores["overall"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert scores["rows"] == 30
    assert scores["trained_on"] == 0
    assert not caplog.messages
    json.dumps(scores, allow_nan=False)


def test_evaluate_warns_of_training_rows(
    classifier: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = [make_rows()[row - 1] for row in classifier.record.seen["train_rows"][:4]]
    rows = [(own[0][0].upper(), own[0][1]), *own[1:], *make_rows(6, seed=11)]
    with caplog.at_level(logging.WARNING, "fullbake"):
        scores = evaluate(classifier, labeled_rows(tmp_path, rows, classifier))
    assert scores["trained_on"] == 4
    assert "4 of these 10 rows were in the training rows" in caplog.text
