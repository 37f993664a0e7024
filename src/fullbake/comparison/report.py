"""Write the report of a comparison: one `report.html` from `leaderboard.json`."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fullbake.classifier.row_facts import MOST_MISTAKES, cut_text
from fullbake.comparison import page, plain_words, report_figures, svg
from fullbake.comparison.page import label_of, text_of
from fullbake.comparison.plain_words import PlainScores
from fullbake.comparison.report_figures import MarkerStyle, RecipeEntry
from fullbake.comparison.svg import Axis, Interval
from fullbake.core import storage
from fullbake.core.console import format_estimate, format_size
from fullbake.core.errors import DataError
from fullbake.core.pages import write_page
from fullbake.evaluation.metrics import metric_phrase

LEADERBOARD_FORMAT = 1
LEADERBOARD_FILE = "leaderboard.json"
REPORT_FILE = "report.html"
KEYS = (
    "fullbake",
    "versions",
    "machine",
    "command",
    "date",
    "seconds",
    "data",
    "metric",
    "label_names",
    "design",
    "recipes",
    "pairs",
    "verdict",
    "disagreements",
    "stamps",
)
"""The keys of a leaderboard that the page needs."""

SHOWN_DISAGREEMENTS = 60
"""The most rows with different predictions that the page shows; `leaderboard.json` has all."""

LONG_TEXT = 500
"""The most characters of a text that are shown before the reader has to unfold it."""

MOST_TIMES_THE_ROWS = 100
"""From so many times the test rows on, a page does not advise to label them: the difference is next to none."""

Leaderboard = dict[str, Any]


def write_report(folder: Path) -> Path:
    """Write `report.html` beside `leaderboard.json`, replacing an older one.

    Args:
        folder: Folder of a comparison.

    Returns:
        The path of the report.

    Raises:
        DataError: There is no leaderboard, it cannot be read, or it has another format.
    """
    board = _read_board(Path(folder) / LEADERBOARD_FILE)
    return write_page(Path(folder) / REPORT_FILE, render_report(board))


def render_report(board: Leaderboard) -> str:
    """Return the page of a leaderboard as HTML."""
    return page.render_page("report.html", _view(board))


def _read_board(path: Path) -> Leaderboard:
    try:
        board = storage.read_json(path)
    except FileNotFoundError as error:
        raise DataError(
            "there is no leaderboard", where=str(path), remedy="Pass the folder that `fullbake compare` wrote."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError("the leaderboard cannot be read", where=str(path), got=str(error)) from error
    found = board.get("format") if isinstance(board, dict) else None
    if found != LEADERBOARD_FORMAT:
        raise DataError(
            "the leaderboard has another format version",
            where=str(path),
            expected=f"format {LEADERBOARD_FORMAT}",
            got=f"format {found!r}",
            remedy="Install the version of fullbake that wrote it, or run the comparison again.",
        )
    missing = [key for key in KEYS if key not in board]
    if missing:
        raise DataError(
            "the leaderboard is incomplete",
            where=str(path),
            expected=", ".join(missing),
            got="none of these" if len(missing) > 1 else "nothing of that name",
            remedy="Run the comparison again.",
        )
    return dict(board)


def _view(board: Leaderboard) -> dict[str, Any]:
    """Return the variables of the template."""
    metric, problem = str(board["metric"]), board.get("problem_type")
    done = _ranked(board)
    styles = report_figures.marker_styles(board["recipes"])
    by_name = {recipe["name"]: recipe for recipe in board["recipes"]}
    chosen = by_name.get(board["verdict"]["recommended"])
    view = {
        "board": board,
        "version": board["fullbake"],
        "date": board["date"],
        "source": _source(board["data"]["source"]),
        "chosen": chosen,
        "metric": metric,
        "metric_title": metric_phrase(metric),
        "metric_meaning": plain_words.explain_metric(metric, problem),
        "metric_titles": {name: metric_phrase(name) for recipe in done for name in recipe["test"]},
        "done": done,
        "trained_words": _trained_words(done),
        "styles": styles,
        "leaders": _leaders(done, board, styles),
        "pairs": _pairs(board),
        "searched": any("search_seconds" in (recipe.get("cost") or {}) for recipe in done),
        "undone": _undone(board),
        "reduced": _reduced(board),
        "left_out": _left_out(board),
        "collapses": _collapses(board),
        "matrices": [
            page.view_matrix(recipe["name"], recipe["confusion"], board["label_names"])
            for recipe in _chosen_first(done, chosen)
            if recipe.get("confusion")
        ],
        "forgetting": [recipe for recipe in done if recipe.get("forgetting")],
        "speed": _speed_rows(board),
        "disagreements": [_disagreement(entry) for entry in board["disagreements"][:SHOWN_DISAGREEMENTS]],
        "long_text": LONG_TEXT,
        "duplicates": _items(board["data"]["duplicates"]),
    }
    view |= _explain(board, chosen) | _figures(done, chosen, styles, metric)
    title = f"fullbake compare on {view['source']}"
    view["page_title"] = title if chosen is None else f"Take {chosen['name']}: {title}"
    view["texts"] = bool(view["mistakes"] or view["disagreements"])
    return view | {"sections": _sections(view)}


def _speed_rows(board: Leaderboard) -> list[list[str]]:
    """Return the cells of the table of engines, a row for each; [] if nothing was measured."""
    return [
        [
            f"{speed['engine']} {speed['precision']}",
            f"{speed['cold_start_s']:.2f} s",
            f"{speed['p50_ms']:.1f} ms",
            f"{speed['p99_ms']:.1f} ms",
            f"{speed['texts_per_second']:,.0f}",
            format_size(speed["peak_memory"]),
        ]
        for speed in board.get("speed") or ()
    ]


def _explain(board: Leaderboard, chosen: RecipeEntry | None) -> dict[str, Any]:
    """Return what the scores of the recommended recipe mean, its mistakes, and what to do next."""
    scores = None if chosen is None else _plain_scores(board, chosen)
    mistakes = [] if chosen is None else _mistakes(board, chosen)
    return {
        "sentences": [] if scores is None else plain_words.describe_scores(scores),
        "steps": _steps(board, scores, bool(mistakes)),
        "mistakes": page.view_mistakes(mistakes),
    }


def _figures(
    done: Sequence[RecipeEntry], chosen: RecipeEntry | None, styles: dict[str, MarkerStyle], metric: str
) -> dict[str, Any]:
    title = metric_phrase(metric)
    first = _chosen_first(done, chosen)
    return {
        "cost_figure": report_figures.quality_against_cost(done, styles, metric, title),
        "recall_figure": report_figures.recall_by_class(done, styles),
        "threshold_figure": report_figures.threshold_curves(done, styles),
        "rate_figure": report_figures.rate_curves(done, styles, metric, title),
        "history_figure": report_figures.histories(first, styles, metric, title),
        "calibration_figure": report_figures.calibrations(first, styles),
    }


def _sections(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    return page.sections_of(
        {
            "verdict": ("Verdict", True),
            "next": ("Next", True),
            "mistakes": ("Mistakes", view["mistakes"]),
            "leaderboard": ("Leaderboard", True),
            "differences": ("Differences", view["board"]["pairs"]),
            "cost": ("Cost", view["cost_figure"]),
            "recall": ("Recall", view["recall_figure"]),
            "thresholds": ("Thresholds", view["threshold_figure"]),
            "disagreements": ("Disagreements", view["disagreements"]),
            "rates": ("Rates", view["rate_figure"]),
            "histories": ("Histories", view["history_figure"]),
            "confusion": ("Confusion", view["matrices"]),
            "calibration": ("Calibration", view["calibration_figure"]),
            "speed": ("Speed", view["speed"]),
            "forgetting": ("Forgetting", view["forgetting"]),
            "failed": ("Not run", view["undone"] or view["collapses"] or view["left_out"] or view["reduced"]),
            "data": ("Data", True),
            "reproduce": ("Reproduce", True),
        }
    )


def _chosen_first(done: Sequence[RecipeEntry], chosen: RecipeEntry | None) -> list[RecipeEntry]:
    return sorted(done, key=lambda recipe: recipe is not chosen)


# What it means, and what to do


def _plain_scores(board: Leaderboard, chosen: RecipeEntry) -> PlainScores:
    """Return the scores of the recommended recipe, as the plain sentences need them."""
    accuracy = (chosen.get("test") or {}).get("accuracy") or {}
    data = board["data"]
    return PlainScores(
        rows=data["test"],
        accuracy={"value": accuracy.get("mean"), "low": accuracy.get("low"), "high": accuracy.get("high")},
        recalls=chosen.get("recall") or (),
        confusion=chosen.get("confusion"),
        trained={entry["name"]: entry["train"] for entry in data["labels"] if entry["train"] is not None},
        columns=data.get("columns") or {},
        others=_trivial_answers(board),
        ece=(chosen.get("calibration") or {}).get("ece"),
    )


def _trivial_answers(board: Leaderboard) -> list[tuple[str, float]]:
    """Return what the baselines do, in plain words, with their accuracy."""
    words = plain_words.BASELINE_WORDS
    found = [(words.get(recipe["name"], recipe["name"]), recipe) for recipe in board["recipes"]]
    means = [(what, _figure(recipe, "accuracy").get("mean")) for what, recipe in found if recipe["way"] == "baseline"]
    return sorted(((what, mean) for what, mean in means if mean is not None), key=lambda item: item[1])


def _mistakes(board: Leaderboard, chosen: RecipeEntry) -> list[dict[str, Any]]:
    """Return the mistakes of the recommended recipe; of an older leaderboard those among its disagreements."""
    if "mistakes" in board:
        return list(board["mistakes"] or ())
    entries = [
        {
            "row": entry["row"],
            "text": cut_text(text_of(entry["text"])),
            "label": entry["label"],
            "predicted": entry["predictions"][chosen["name"]],
        }
        for entry in board["disagreements"]
        if chosen["name"] in entry["predictions"]
    ]
    return [entry for entry in entries if label_of(entry["label"]) != label_of(entry["predicted"])][:MOST_MISTAKES]


def _steps(board: Leaderboard, scores: PlainScores | None, any_mistakes: bool) -> list[Markup]:
    """Return what to do next, in sentences. scores: of the recommended recipe; None if there is none."""
    needed = [(recipe["name"], seconds) for recipe, _, seconds in _undone(board) if seconds]
    again = []
    if needed:
        name, seconds = min(needed, key=lambda item: item[1])
        words = "Run the same command again with <code>--budget {}m</code>: then {} takes part too."
        again = [Markup(words).format(math.ceil(seconds / 60), svg.isolate_text(name))]
    if scores is None:
        words = "See below why no recipe is recommended, and run the same command again when that is mended."
        return again or [Markup(words)]
    use = Markup(
        "Use the classifier: <code>fullbake predict best &quot;a text&quot;</code> in the folder of this page, or "
        "<code>Classifier.load(&quot;best&quot;)</code> in Python."
    )
    read = Markup("Read the mistakes below. Correct labels that are wrong, and run the same command again.")
    first = [use, *again, *([read] if any_mistakes else [])]
    return plain_words.advise(scores, first, _rows_step(board))


def _rows_step(board: Leaderboard) -> list[Markup]:
    """Say how many test rows would separate the best recipe from the recommended one."""
    pair = _pair_of(board, board["verdict"]["best"], board["verdict"]["recommended"])
    rows = board["data"]["test"]
    if pair is None or pair.get("rows_needed") is None or pair["rows_needed"] > MOST_TIMES_THE_ROWS * rows:
        return []
    words = "To see whether {} is really better than {}, score them on about {} test rows ({} are here)."
    best, recommended = (svg.isolate_text(str(board["verdict"][key])) for key in ("best", "recommended"))
    return [Markup(words).format(best, recommended, format_estimate(pair["rows_needed"]), f"{rows:,}")]


def _trained_words(done: Sequence[RecipeEntry]) -> str:
    """Return how often the recipes were trained: ", each trained 3 times with different seeds"."""
    counts = {len(recipe.get("seeds") or ()) for recipe in done if recipe["way"] != "baseline"} - {0}
    if not counts:
        return ""
    if counts == {1}:
        return ", each trained once (with one seed)"
    times = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f", each trained {times} times with different seeds"


# What did not run


def _undone(board: Leaderboard) -> list[tuple[RecipeEntry, str | None, float | None]]:
    """Return (recipe, reason, seconds of the budget that it needs) of each recipe without a result."""
    known = board.get("not_run") or {}
    undone = [(recipe, known.get(recipe["name"]) or {}) for recipe in board["recipes"] if recipe["status"] != "done"]
    return [
        (recipe, facts.get("reason") or recipe.get("reason"), facts.get("seconds_needed")) for recipe, facts in undone
    ]


def _reduced(board: Leaderboard) -> list[tuple[str, list[str]]]:
    """Return what was made smaller, and for which recipes; no names where it is so for all that ran."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, sentences in (board.get("reduced") or {}).items():
        for sentence in sentences:
            names_of[sentence].append(name)
    ran = sum(recipe["status"] == "done" for recipe in board["recipes"])
    return [(what, [] if len(names) >= max(ran, 2) else names) for what, names in names_of.items()]


def _left_out(board: Leaderboard) -> list[str]:
    """Return what the budget left out, without the recipes, whose table gives the reasons."""
    undone = tuple(f"{recipe['name']}: " for recipe in board["recipes"] if recipe["status"] != "done")
    return [line for line in board["design"]["left_out"] if not line.startswith(undone)]


def _collapses(board: Leaderboard) -> list[tuple[str, Any, str]]:
    return [
        (recipe["name"], entry, what)
        for recipe in board["recipes"]
        for key, what in (("restarts", "restarted with another seed"), ("collapses", "collapsed again, and kept"))
        for entry in recipe.get(key) or ()
    ]


def _ranked(board: Leaderboard) -> list[RecipeEntry]:
    """Return the finished recipes, best mean first, those without a mean last."""
    done = [recipe for recipe in board["recipes"] if recipe["status"] == "done"]
    return sorted(done, key=lambda recipe: -_figure(recipe, board["metric"]).get("mean", -1e9))


def _figure(recipe: RecipeEntry, metric: str) -> dict[str, Any]:
    """Return a recipe's test score, without the keys that are None."""
    figure = (recipe.get("test") or {}).get(metric) or {}
    return {key: value for key, value in figure.items() if value is not None}


# Tables


def _leaders(done: Sequence[RecipeEntry], board: Leaderboard, styles: Mapping[str, MarkerStyle]) -> dict[str, Any]:
    """Return the rows of the leaderboard, and the axis of their intervals (empty if no score is known)."""
    figures = {recipe["name"]: _figure(recipe, board["metric"]) for recipe in done}
    known = any("mean" in figure for figure in figures.values())
    axis = report_figures.scores_axis("", done, board["metric"], 4) if known else None
    rows = [
        {
            "recipe": recipe,
            "figure": figures[recipe["name"]],
            "drawing": _interval(recipe["name"], figures[recipe["name"]], styles[recipe["name"]], axis),
            "standing": _standing(recipe["name"], board),
            "choice": _choice_words(recipe),
            "seeds": _seeds_words(recipe, done),
        }
        for recipe in done
    ]
    return {"rows": rows, "scale": svg.axis_cell(axis) if axis else ""}


def _interval(name: str, figure: Mapping[str, Any], style: MarkerStyle, axis: Axis | None) -> Markup | str:
    if axis is None or "mean" not in figure:
        return ""
    row = Interval(name, figure["mean"], figure.get("low"), figure.get("high"), style.color, style.marker)
    return svg.interval_cell(row, axis)


def _choice_words(recipe: RecipeEntry) -> str:
    """Return what validation chose for a baseline: its features and their strength; else nothing."""
    choice = recipe.get("baseline")
    return f" on {choice['features']}, C {choice['strength']:g} (validation chose both)" if choice else ""


def _seeds_words(recipe: RecipeEntry, done: Sequence[RecipeEntry]) -> str:
    """Return the number of trainings of a recipe if the recipes differ in it; else nothing."""
    counts = {len(other.get("seeds") or ()) for other in done if other["way"] != "baseline"}
    own = len(recipe.get("seeds") or ())
    if len(counts) < 2 or recipe["way"] == "baseline":
        return ""
    return ", one seed" if own == 1 else f", {own} seeds"


def _standing(name: str, board: Leaderboard) -> str:
    """Return how a recipe compares with the one that has the best mean."""
    best = board["verdict"]["best"]
    if name == best:
        return "best mean"
    pair = _pair_of(board, name, best)
    if pair is None:
        return "not compared"
    if pair.get("ahead_in_one_training"):
        return "behind in one training"
    return "detectably worse" if pair["detectable"] else "no detectable difference"


def _pairs(board: Leaderboard) -> dict[str, Any]:
    """Return the differences on one axis: those to the best recipe, to the recommended one, then the others."""
    heads = [board["verdict"]["best"], board["verdict"]["recommended"]]
    pairs = sorted((_oriented(pair, heads) for pair in board["pairs"]), key=lambda pair: _precedence(pair, heads))
    axis = _difference_axis(pairs)
    rows = [(pair, _difference(pair, axis), _winner(pair)) for pair in pairs]
    return {
        "first": [row for row in rows if row[0]["a"] in heads],
        "others": [row for row in rows if row[0]["a"] not in heads],
        "scale": svg.axis_cell(axis),
    }


def _pair_of(board: Leaderboard, one: str | None, other: str | None) -> dict[str, Any] | None:
    """Return the pair of two recipes; None if they were not compared."""
    return next((pair for pair in board["pairs"] if {pair["a"], pair["b"]} == {one, other}), None)


def _oriented(pair: Mapping[str, Any], heads: Sequence[str | None]) -> dict[str, Any]:
    """Return the pair with the best, or else the recommended recipe first; the signs change with the order."""
    order = [*heads, pair["a"], pair["b"]]
    if order.index(pair["a"]) <= order.index(pair["b"]):
        return dict(pair)
    turned: dict[str, Any] = {"a": pair["b"], "b": pair["a"]}
    for key, other in (("difference", "difference"), ("low", "high"), ("high", "low")):
        turned[key] = None if pair[other] is None else -pair[other]
    return {**pair, **turned}


def _precedence(pair: Mapping[str, Any], heads: Sequence[str | None]) -> tuple[int, float]:
    place = heads.index(pair["a"]) if pair["a"] in heads else len(heads)
    return place, pair["difference"] or 0.0


def _difference_axis(pairs: Sequence[Mapping[str, Any]]) -> Axis:
    ends = [pair[key] for pair in pairs for key in ("low", "high") if pair[key] is not None]
    return svg.linear_axis("", [0.0, *ends], 4)


def _winner(pair: Mapping[str, Any]) -> str | None:
    """Return the name of the better recipe if the difference is detectable, else None."""
    if not pair["detectable"]:
        return None
    return str(pair["a"] if pair["difference"] > 0 else pair["b"])


def _difference(pair: Mapping[str, Any], axis: Axis) -> Markup | str:
    if pair["difference"] is None:
        return ""
    color = "ink" if pair["detectable"] else "quiet"
    row = Interval(f"{pair['a']} minus {pair['b']}", pair["difference"], pair["low"], pair["high"], color)
    return svg.interval_cell(row, axis, zero=True)


def _disagreement(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its predictions as (label, is correct, recipes), the correct label first."""
    answers: dict[str, list[str]] = defaultdict(list)
    for name, label in entry["predictions"].items():
        answers[label_of(label)].append(name)
    truth = label_of(entry["label"])
    ordered = sorted(answers.items(), key=lambda item: (item[0] != truth, -len(item[1])))
    return {
        "row": entry["row"],
        "text": text_of(entry["text"]),
        "label": truth,
        "answers": [(label, label == truth, names) for label, names in ordered],
    }


def _source(value: Any) -> str:
    """Return the name of the file, or the names of the files of all parts."""
    if isinstance(value, Mapping):
        return ", ".join(str(file) for file in value.values() if file)
    return str(value)


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else [("duplicates", value)]
