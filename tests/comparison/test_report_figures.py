"""Figures leave no number out, say what they leave undrawn, and are absent where there is nothing to draw."""

from typing import Any

import pytest
from helpers.leaderboards import board

from fullbake.comparison import report_figures
from fullbake.comparison.report_figures import ReportFigure
from fullbake.core.console import format_score


def finished(kind: str) -> list[dict[str, Any]]:
    return [recipe for recipe in board(kind)["recipes"] if recipe["status"] == "done"]


def figures(recipes: list[dict[str, Any]]) -> dict[str, ReportFigure | None]:
    look = report_figures.marker_styles(recipes)
    return {
        "cost": report_figures.quality_against_cost(recipes, look, "f1_macro", "macro F1"),
        "recall": report_figures.recall_by_class(recipes, look),
        "thresholds": report_figures.threshold_curves(recipes, look),
        "rates": report_figures.rate_curves(recipes, look, "macro F1"),
        "histories": report_figures.histories(recipes, look, "f1_macro", "macro F1"),
        "calibration": report_figures.calibrations(recipes, look),
    }


def cells(exhibit: ReportFigure | None) -> str:
    assert exhibit is not None
    return " ".join(cell for row in exhibit.rows for cell in row)


def test_what_is_drawn_stands_in_a_table_too() -> None:
    recipes = finished("binary")
    found = figures(recipes)
    for recipe in recipes:
        assert format_score(recipe["test"]["f1_macro"]["mean"]) in cells(found["cost"])
        assert all(format_score(entry["mean"]) in cells(found["recall"]) for entry in recipe["recall"])
        curve = recipe["threshold_curve"]
        assert all(
            format_score(value) in cells(found["thresholds"]) for value in curve["recall"] + curve["specificity"]
        )
        assert all(format_score(value) in cells(found["rates"]) for e in recipe["rates"] for value in e["validation"])
        assert all(
            format_score(e["train_loss"]) in cells(found["histories"]) for run in recipe["histories"] for e in run
        )
        assert all(
            format_score(entry["accuracy"]) in cells(found["calibration"]) for entry in recipe["calibration"]["bins"]
        )


@pytest.mark.parametrize("kind", ["topics", "binary"])
def test_every_row_of_a_table_is_as_long_as_its_heading(kind: str) -> None:
    for exhibit in filter(None, figures(finished(kind)).values()):
        assert exhibit.rows
        assert {len(row) for row in exhibit.rows} == {len(exhibit.header)}


def test_nothing_to_draw_is_no_figure() -> None:
    assert set(figures([]).values()) == {None}
    recipes = finished("topics")
    assert figures(recipes)["thresholds"] is None
    for recipe in recipes:
        recipe |= {"rates": recipe["rates"][:1], "histories": [], "recall": [], "calibration": None}
        recipe["test"]["f1_macro"] |= {"mean": None, "low": None, "high": None, "reason": "a class has no test row"}
    assert set(figures(recipes).values()) == {None}


def test_many_classes_are_drawn_where_recipes_differ_most() -> None:
    recipes = finished("topics")
    for recipe in recipes:
        entry = recipe["recall"][0]
        same = [entry | {"label": f"same {place}", "mean": 0.5} for place in range(20)]
        recipe["recall"] = [*same, entry | {"label": "different"}]
    exhibit = figures(recipes)["recall"]
    assert exhibit is not None
    assert len(exhibit.panels) == report_figures.WIDEST_RECALL
    assert exhibit.panels[0].heading.startswith("different")
    assert len(exhibit.rows) == 21
    assert "12 of 21 classes" in exhibit.notes[0]


def test_a_class_without_test_rows_is_told_and_not_drawn() -> None:
    recipes = finished("topics")
    for recipe in recipes:
        recipe["recall"][0] |= {"mean": None, "low": None, "high": None, "support": 0}
    exhibit = figures(recipes)["recall"]
    assert exhibit is not None
    assert len(exhibit.panels) == 7
    assert exhibit.rows[0][:3] == ["cooking", "0", "–"]


def test_curves_show_what_is_measured_for_all() -> None:
    recipes = finished("binary")
    full = figures(recipes)["thresholds"]
    recipes[0]["threshold_curve"].pop("specificity")
    recipes[1]["threshold_curve"]["recall"] = [None] * 41
    less = figures(recipes)["thresholds"]
    assert full is not None
    assert less is not None
    assert (len(full.panels), len(less.panels)) == (3, 2)
    assert less.header == ["recipe", "threshold", "recall", "precision"]


def test_recipes_look_different_and_baselines_are_gray() -> None:
    recipes = board()["recipes"]
    look = report_figures.marker_styles(recipes)
    assert len({(one.color, one.marker) for one in look.values()}) == len(recipes)
    assert len({one.marker for one in look.values()}) == len(recipes)
    assert {name for name, one in look.items() if one.color == "base"} == {"tfidf", "majority"}


def test_a_baseline_far_below_is_an_arrow_with_its_score() -> None:
    exhibit = figures(finished("topics"))["cost"]
    assert exhibit is not None
    drawing = str(exhibit.panels[0].drawings[0])
    assert ">tfidf: 0.3" in drawing
    assert ">finetune<" in drawing
    assert exhibit.panels[0].narrow


def test_strengths_of_a_logistic_regression_have_a_history_too() -> None:
    recipes = finished("topics")[:1]
    recipes[0]["histories"] = [
        [{"C": 10.0**p, "train_loss": 1.0 / (p + 4), "validation_loss": None, "f1_macro": 0.5} for p in range(-3, 4)]
    ]
    exhibit = figures(recipes)["histories"]
    assert exhibit is not None
    assert "C, inverse strength" in exhibit.panels[0].drawings[0]
    assert exhibit.rows[0][2] == "C = 0.001"


def test_the_choice_of_a_rate_is_marked() -> None:
    recipes = finished("topics")
    exhibit = figures(recipes)["rates"]
    assert exhibit is not None
    chosen = {row[0]: row[1] for row in exhibit.rows if row[-1] == "chosen"}
    assert chosen == {recipe["name"]: f"{recipe['rate']:g}" for recipe in recipes if recipe["rates"]}
