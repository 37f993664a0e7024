"""Figures leave no number out, say what they leave undrawn, and are absent where there is nothing to draw."""

import re
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
        "rates": report_figures.rate_curves(recipes, look, "f1_macro", "macro F1"),
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


def test_baselines_are_on_the_axis_of_costs_and_it_ends_at_1() -> None:
    recipes = finished("topics")
    axis = report_figures.scores_axis("", recipes, "f1_macro")
    assert (axis.low, axis.high) == (0, 1)
    exhibit = figures(recipes)["cost"]
    assert exhibit is not None
    assert ">tfidf<" in exhibit.panels[0].drawings[0]
    assert ">finetune<" in exhibit.panels[0].drawings[0]
    assert [name for _, name in exhibit.key] == [recipe["name"] for recipe in recipes]
    assert exhibit.panels[0].narrow


def test_axes_of_losses_end_at_their_best_value() -> None:
    recipes = finished("topics")
    for recipe in recipes:
        recipe["test"]["neg_log_loss"] = {"mean": -0.7, "low": -0.9, "high": None}
    assert report_figures.scores_axis("", recipes, "neg_log_loss").high == 0
    assert report_figures.scores_axis("", recipes, "log_loss").low == 0
    for recipe in recipes:
        recipe["test"]["a metric to come"] = {"mean": 0.7, "low": None, "high": None}
    assert report_figures.scores_axis("", recipes, "a metric to come").high == 1


def test_histories_share_their_axes_and_the_first_recipe_is_shown() -> None:
    exhibit = figures(finished("topics"))["histories"]
    assert exhibit is not None
    assert (exhibit.shown, exhibit.full_width) == (1, True)
    scores = [panel.drawings[1] for panel in exhibit.panels]
    assert all(">1.0<" in drawing and ">0.0<" in drawing for drawing in scores)
    ticks = [re.findall(r">([\d.]+)</text>", panel.drawings[0])[:5] for panel in exhibit.panels]
    assert all(own == ticks[0] for own in ticks)


def test_rates_that_one_training_tried_are_lines_of_their_own() -> None:
    recipes = finished("topics")[:1]
    run = recipes[0]["histories"][0]
    tried = [entry | {"rate": 1e-3, "best": False} for entry in run]
    recipes[0]["histories"] = [[*tried, *(entry | {"rate": 5e-5} for entry in run)]]
    exhibit = figures(recipes)["histories"]
    assert exhibit is not None
    drawing = str(exhibit.panels[0].drawings[1])
    assert drawing.count("<polyline") == 2
    assert drawing.count('class="line quiet faint"') == 1
    assert [meaning for _, meaning in exhibit.key][-1] == "tried and not chosen"


def test_a_search_without_rates_given_by_hand_has_no_figure_of_rates() -> None:
    recipes = finished("topics")
    for recipe in recipes:
        recipe["rates"] = [{"rate": None, "validation": [0.7, None], "mean": 0.7}] * 2
    assert figures(recipes)["rates"] is None


def test_a_recipe_of_one_probability_has_no_reliability_diagram() -> None:
    recipes = finished("topics")
    recipes[0]["calibration"] = {"ece": 0.0, "bins": [{"confidence": 0.2, "accuracy": 0.2, "count": 99}]}
    exhibit = figures(recipes)["calibration"]
    assert exhibit is not None
    assert "finetune" not in {row[0] for row in exhibit.rows}
    recipes[1]["calibration"]["bins"] = [{"confidence": c, "accuracy": c, "count": 9} for c in (0.2, 0.8)]
    few = figures(recipes[1:2])["calibration"]
    assert few is not None
    assert "only 18 points" in few.notes[0]


def test_one_classifier_has_a_row_for_each_class_and_many_are_cut_to_the_worst() -> None:
    def score(value: float | None) -> dict[str, Any]:
        return {"value": value, "low": value, "high": value, "reason": None}

    style = report_figures.MarkerStyle("s0", "circle")
    classes = [
        {"label": f"class {n}", "support": n} | dict.fromkeys(("precision", "recall", "f1"), score(n / 50))
        for n in range(50)
    ]
    few = report_figures.recall_of_one(classes[:3], style)
    many = report_figures.recall_of_one(classes, style)
    assert few is not None
    assert many is not None
    assert (len(few.rows), few.notes) == (3, [])
    assert len(many.rows) == 50
    assert "30 classes with the lowest recall" in many.notes[0]
    assert ">class 29<" in many.panels[0].drawings[0]
    assert ">class 30<" not in many.panels[0].drawings[0]
    assert report_figures.recall_of_one([classes[0] | {"recall": score(None)}], style) is None


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
