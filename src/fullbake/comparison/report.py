"""Write the report of a comparison: one `report.html` from `leaderboard.json`.

The page has no script, forbids scripts by its content security policy, and loads nothing. The template environment
escapes every printed text and marks hidden characters, so that no place in the template can forget it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fullbake.comparison import report_figures, svg
from fullbake.comparison.report_figures import MarkerStyle, RecipeEntry
from fullbake.comparison.svg import Axis, Interval
from fullbake.core import console, storage
from fullbake.core.errors import DataError
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

LARGEST_MATRIX = 20
"""The most classes of a confusion matrix; with more, the page lists the most frequent mistakes."""

LONG_TEXT = 500
"""The most characters of a text that are shown before the reader has to unfold it."""

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
    target = Path(folder) / REPORT_FILE
    with storage.staged_file(target, overwrite=True) as path:
        storage.write_bytes(path, render_report(board).encode())
    return target


def render_report(board: Leaderboard) -> str:
    """Return the page of a leaderboard as HTML."""
    return _environment().get_template("report.html").render(_view(board))


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


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fullbake", "resources/templates"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        console.format_score,
        console.format_interval,
        console.format_difference,
        console.format_p_value,
        console.format_duration,
        console.format_size,
        console.format_count,
        console.format_estimate,
        console.format_time,
    )
    environment.filters |= {format_.__name__.removeprefix("format_"): format_ for format_ in formats}
    environment.filters |= {"name": lambda value: svg.isolate_text(str(value)), "text": svg.escape_text}
    return environment


def _finalize(value: Any) -> Any:
    """Mark the hidden characters of a printed value, unless it is markup already. None becomes a dash."""
    if value is None:
        return console.UNKNOWN
    return value if isinstance(value, Markup) else svg.mark_hidden(str(value))


def _view(board: Leaderboard) -> dict[str, Any]:
    """Return the variables of the template."""
    metric = str(board["metric"])
    title = metric_phrase(metric)
    done = _ranked(board)
    styles = report_figures.marker_styles(board["recipes"])
    return {
        "board": board,
        "source": _source(board["data"]["source"]),
        "metric": metric,
        "metric_title": title,
        "metric_titles": {name: metric_phrase(name) for recipe in done for name in recipe["test"]},
        "done": done,
        "styles": styles,
        "by_name": {recipe["name"]: recipe for recipe in board["recipes"]},
        "leaders": _leaders(done, board, styles),
        "pairs": _pairs(board),
        "searched": any("search_seconds" in (recipe.get("cost") or {}) for recipe in done),
        "undone": [recipe for recipe in board["recipes"] if recipe["status"] != "done"],
        "collapses": [
            (recipe["name"], entry, what)
            for recipe in board["recipes"]
            for key, what in (("restarts", "restarted with another seed"), ("collapses", "collapsed again, and kept"))
            for entry in recipe.get(key) or ()
        ],
        "cost_figure": report_figures.quality_against_cost(done, styles, metric, title),
        "recall_figure": report_figures.recall_by_class(done, styles),
        "threshold_figure": report_figures.threshold_curves(done, styles),
        "rate_figure": report_figures.rate_curves(done, styles, title),
        "history_figure": report_figures.histories(done, styles, metric, title),
        "calibration_figure": report_figures.calibrations(done, styles),
        "matrices": [(recipe, _matrix(recipe["confusion"])) for recipe in done if recipe.get("confusion")],
        "matrix_fits": len(board["label_names"]) <= LARGEST_MATRIX,
        "confusions": {recipe["name"]: _confusions(recipe, board["label_names"]) for recipe in done},
        "forgetting": [recipe for recipe in done if recipe.get("forgetting")],
        "disagreements": [_disagreement(entry) for entry in board["disagreements"][:SHOWN_DISAGREEMENTS]],
        "long_text": LONG_TEXT,
        "duplicates": _items(board["data"]["duplicates"]),
        "most_rows": max((entry["train"] or 0 for entry in board["data"]["labels"]), default=0),
    }


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
            "sign": styles[recipe["name"]].sign,
            "drawing": _interval(recipe["name"], figures[recipe["name"]], styles[recipe["name"]], axis),
            "standing": _standing(recipe["name"], board),
        }
        for recipe in done
    ]
    return {"rows": rows, "scale": svg.axis_cell(axis) if axis else ""}


def _interval(name: str, figure: Mapping[str, Any], style: MarkerStyle, axis: Axis | None) -> Markup | str:
    if axis is None or "mean" not in figure:
        return ""
    row = Interval(name, figure["mean"], figure.get("low"), figure.get("high"), style.color, style.marker)
    return svg.interval_cell(row, axis)


def _standing(name: str, board: Leaderboard) -> str:
    """Return how a recipe compares with the one that has the best mean."""
    best = board["verdict"]["best"]
    if name == best:
        return "best mean"
    pair = next((pair for pair in board["pairs"] if {pair["a"], pair["b"]} == {name, best}), None)
    if pair is None:
        return "not compared"
    return "detectably worse" if pair["detectable"] else "no detectable difference"


def _pairs(board: Leaderboard) -> dict[str, Any]:
    """Return the differences on one axis: those to the best recipe, to the recommended one, then the others."""
    heads = [board["verdict"]["best"], board["verdict"]["recommended"]]
    pairs = sorted((_oriented(pair, heads) for pair in board["pairs"]), key=lambda pair: _precedence(pair, heads))
    axis = _difference_axis(pairs, {recipe["name"] for recipe in board["recipes"] if recipe["way"] == "baseline"})
    rows = [(pair, _difference(pair, axis), _winner(pair)) for pair in pairs]
    return {
        "first": [row for row in rows if row[0]["a"] in heads],
        "others": [row for row in rows if row[0]["a"] not in heads],
        "scale": svg.axis_cell(axis),
    }


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


def _difference_axis(pairs: Sequence[Mapping[str, Any]], baselines: set[str]) -> Axis:
    ends: dict[bool, list[float]] = {True: [], False: []}
    for pair in pairs:
        ends[bool(baselines & {pair["a"], pair["b"]})] += [
            pair[key] for key in ("low", "high") if pair[key] is not None
        ]
    return svg.near_axis("", [0.0, *ends[False]], ends[True], 4)


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


def _matrix(counts: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Return the count and the shade in percent of each cell; the shade is the share of the true class.

    Shades between 50 and 80 are left out, because neither dark nor light digits are readable on them.
    """
    shares = [[(count, count / max(1, sum(row))) for count in row] for row in counts]
    return [[(count, round(100 * share if share < 0.5 else 60 + 40 * share)) for count, share in row] for row in shares]


def _confusions(recipe: RecipeEntry, names: Sequence[str], most: int = 10) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes as (true class, predicted class, rows)."""
    cells = [
        (names[true], names[predicted], count)
        for true, row in enumerate(recipe.get("confusion") or ())
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:most]


def _disagreement(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its predictions as (label, is correct, recipes), the correct label first."""
    answers: dict[str, list[str]] = defaultdict(list)
    for name, label in entry["predictions"].items():
        answers[_label(label)].append(name)
    truth = _label(entry["label"])
    ordered = sorted(answers.items(), key=lambda item: (item[0] != truth, -len(item[1])))
    return {
        "row": entry["row"],
        "text": _text(entry["text"]),
        "label": truth,
        "answers": [(label, label == truth, names) for label, names in ordered],
    }


def _label(value: Any) -> str:
    """Return one label, or several joined by commas."""
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _text(value: Any) -> str:
    """Return a text, or both texts of a pair."""
    return "\n|\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(value: Any) -> str:
    """Return the name of the file, or the names of the files of all parts."""
    if isinstance(value, Mapping):
        return ", ".join(str(file) for file in value.values() if file)
    return str(value)


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else [("duplicates", value)]
