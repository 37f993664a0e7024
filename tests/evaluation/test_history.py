"""A history is a list of its entries, one line as text, and a plot in a notebook."""

import json

from helpers.leaderboards import HOSTILE

from fullbake.core import extras
from fullbake.evaluation import history as histories
from fullbake.evaluation.history import TrainingHistory

EPOCHS = [
    {"epoch": n, "train_loss": 1 / n, "validation_loss": 1.2 / n, "f1_macro": 0.5 + n / 10, "best": n == 2}
    for n in (1, 2, 3)
]


def test_it_is_still_a_list() -> None:
    found = TrainingHistory(EPOCHS)
    assert found == EPOCHS
    assert json.loads(json.dumps(found)) == EPOCHS
    assert found.best == EPOCHS[1]


def test_one_line_says_what_was_chosen() -> None:
    assert repr(TrainingHistory(EPOCHS)) == "TrainingHistory(3 epochs, chosen epoch 2: f1_macro 0.700)"
    assert repr(TrainingHistory(EPOCHS[:1])) == "TrainingHistory(1 epoch)"
    entry = {"C": 0.01, "train_loss": 1.0, "validation_loss": 1.0, "accuracy": 0.5, "best": True, "rate": 0.1}
    assert (
        repr(TrainingHistory([entry], "accuracy"))
        == "TrainingHistory(1 entry, chosen learning rate 0.1, C = 0.01: accuracy 0.500)"
    )
    assert repr(TrainingHistory()) == "TrainingHistory(0 epochs)"


def test_a_notebook_gets_a_plot_and_the_numbers() -> None:
    page = TrainingHistory(EPOCHS)._repr_html_()
    assert '<img src="data:image/png;base64,' in page
    assert "epoch 2 (chosen)" in page
    assert "<img" not in TrainingHistory()._repr_html_()


def test_without_matplotlib_there_are_numbers_alone(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(histories, "is_installed", lambda _: False)
    assert "<img" not in TrainingHistory(EPOCHS)._repr_html_()
    assert extras.EXTRAS["matplotlib"] == "train"


def test_a_metric_from_a_strangers_file_is_inert(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(histories, "is_installed", lambda _: False)
    entries = [entry | {HOSTILE[0]: 0.5} for entry in EPOCHS]
    assert "<script" not in TrainingHistory(entries, HOSTILE[0])._repr_html_()
