"""Decide what the figures of the report show: small charts, a legend, and the same numbers as a table.

Each function takes the finished recipes of a leaderboard, and returns None if there is nothing to draw. Charts are
small, one for each recipe or class, so that a wide screen shows them side by side and a phone one below the other.

No axis exaggerates: an axis of scores ends at the best possible score and has the baselines on it, and charts of one
kind share their axes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from markupsafe import Markup

from fullbake.comparison import svg
from fullbake.comparison.svg import Axis, Interval, Series
from fullbake.core.console import format_duration, format_interval, format_rate, format_score, format_size
from fullbake.evaluation.metrics import METRICS

RecipeEntry = dict[str, Any]

WIDEST_RECALL = 12
"""With more classes than this, only those on which the recipes differ most are drawn."""

FEW_ROWS: Final = 200
"""With fewer rows a reliability diagram is mostly chance."""

MOST_CLASSES: Final = 30
"""With more classes than this, only those with the lowest recall of a single classifier are drawn."""

CHART_COLORS: Final = tuple(f"s{place}" for place in range(8))

_DURATIONS: Final = (
    (0.1, "0.1 s"),
    (1.0, "1 s"),
    (10.0, "10 s"),
    (60.0, "1 min"),
    (600.0, "10 min"),
    (3_600.0, "1 h"),
    (36_000.0, "10 h"),
    (360_000.0, "100 h"),
)

_MEASURES: Final = ("recall", "precision", "specificity")
_CURVES: Final = (
    ("Recall at each threshold", "thresholds", "recall"),
    ("Precision against recall", "recall", "precision"),
    ("Specificity against recall", "recall", "specificity"),
)
"""Heading, and the keys of the x and y values, of each chart."""


@dataclass(frozen=True)
class MarkerStyle:
    """The color and the marker of a recipe, the same in all figures."""

    color: str
    marker: str

    @property
    def sign(self) -> Markup:
        """The marker alone, for legends and tables."""
        return svg.swatch(self.color, self.marker)


@dataclass(frozen=True)
class Panel:
    """Charts under one heading."""

    heading: str
    drawings: Sequence[Markup]
    narrow: Sequence[Markup] = ()
    """The same charts for narrow screens, where they need another drawing."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report, with its numbers as a table."""

    panels: Sequence[Panel]
    table: str
    """Title of the table."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    key: Sequence[tuple[Markup, str]] = ()
    """The legend: (symbol, meaning)."""

    notes: Sequence[str] = field(default=())
    """Sentences after the caption."""

    shown: int | None = None
    """Number of panels that are shown; the reader unfolds the others. None shows all."""

    full_width: bool = False
    """Whether a panel takes the whole width, with its charts side by side."""


def marker_styles(recipes: Sequence[RecipeEntry]) -> dict[str, MarkerStyle]:
    """Return the color and the marker of every recipe, by name. All baselines are gray."""
    styles: dict[str, MarkerStyle] = {}
    colored = 0
    for place, recipe in enumerate(recipes):
        marker = svg.MARKERS[place % len(svg.MARKERS)]
        baseline = recipe["way"] == "baseline"
        styles[recipe["name"]] = MarkerStyle("base" if baseline else CHART_COLORS[colored % len(CHART_COLORS)], marker)
        colored += not baseline
    return styles


def quality_against_cost(
    recipes: Sequence[RecipeEntry], styles: dict[str, MarkerStyle], metric: str, title: str
) -> ReportFigure | None:
    """Draw one point a recipe: test score against training time."""
    shown = [recipe for recipe in recipes if None not in (_mean(recipe, metric), _cost(recipe, "train_seconds"))]
    if not shown:
        return None
    x = svg.log_axis("training time", [_seconds(recipe) for recipe in shown], _DURATIONS)
    y = scores_axis(f"{title} on test", shown, metric)
    series = [_cost_point(recipe, styles[recipe["name"]], metric) for recipe in shown]
    labels = [(*one.points[0], one.color, recipe["name"]) for one, recipe in zip(series, shown, strict=True)]
    words = "; ".join(note for one in series for note in one.notes)
    drawn = partial(svg.line_chart, x, y, series, title=f"{title} against training time", description=words)
    # A narrow chart has no room for names beside the points; the legend has them.
    wide, narrow = drawn(size=(760, 380), labels=labels), drawn(size=(350, 340))
    rows = [
        [
            recipe["name"],
            _format_mean(recipe, metric),
            format_duration(recipe["cost"]["train_seconds"]),
            format_size(_cost(recipe, "peak_memory_bytes")),
        ]
        for recipe in shown
    ]
    header = ["recipe", f"{title}, 95% interval", "training time", "peak memory"]
    key = [(styles[recipe["name"]].sign, recipe["name"]) for recipe in shown]
    return ReportFigure([Panel("", [wide], [narrow])], "Quality and cost", header, rows, key)


def scores_axis(label: str, recipes: Sequence[RecipeEntry], metric: str, count: int = 5) -> Axis:
    """Return an axis for the test scores of recipes, baselines included, that ends at the best possible score."""
    shown = [recipe for recipe in recipes if _mean(recipe, metric) is not None]
    values = [bound for recipe in shown for bound in _bounds(recipe, metric)]
    return svg.bounded_axis(label, values, _best_possible(metric), count)


def _best_possible(metric: str) -> float:
    """Return the best value that a metric can take; 1 for a metric of another version of fullbake."""
    if metric not in METRICS:
        return 1.0
    least, most = METRICS[metric].range
    return most if METRICS[metric].higher_is_better else least


def recall_by_class(recipes: Sequence[RecipeEntry], styles: dict[str, MarkerStyle]) -> ReportFigure | None:
    """Draw one chart a class: the recall of each recipe."""
    shown = [recipe for recipe in recipes if recipe.get("recall")]
    if not shown:
        return None
    classes = [_class_recall(shown, place) for place in range(len(shown[0]["recall"]))]
    drawn = sorted(classes, key=_spread, reverse=True)[:WIDEST_RECALL] if len(classes) > WIDEST_RECALL else classes
    notes = (
        []
        if len(drawn) == len(classes)
        else [
            f"Charts: the {len(drawn)} of {len(classes)} classes on which the recipes differ most. Table: all classes."
        ]
    )
    panels = [_recall_panel(found, styles) for found in drawn if any(entry["mean"] is not None for _, entry in found)]
    rows = [
        [found[0][1]["label"], str(found[0][1]["support"]), *(_format_entry(entry) for _, entry in found)]
        for found in classes
    ]
    header = ["class", "test rows", *(recipe["name"] for recipe in shown)]
    return ReportFigure(panels, "Recall per class with 95% intervals", header, rows, notes=notes)


def recall_of_one(per_class: Sequence[Mapping[str, Any]], style: MarkerStyle) -> ReportFigure | None:
    """Draw one row a class: the recall of a single classifier, the worst classes first if they are many.

    Args:
        per_class: As `evaluation.metrics.score` returns it.
        style: The marker.
    """
    known = [row for row in per_class if row["recall"]["value"] is not None]
    if not known:
        return None
    drawn = sorted(known, key=lambda row: row["recall"]["value"])[:MOST_CLASSES] if len(known) > MOST_CLASSES else known
    recalls = [(row["label"], row["recall"]) for row in drawn]
    bars = [Interval(name, r["value"], r["low"], r["high"], style.color, style.marker) for name, r in recalls]
    words = "; ".join(f"{name} {format_score(recall['value'])}" for name, recall in recalls)
    drawings = [
        svg.interval_chart(bars, svg.share_axis("recall"), title="Recall of each class", description=words, width=width)
        for width in (640, 340)
    ]
    notes = [f"Drawn: the {len(drawn)} classes with the lowest recall."] if len(drawn) < len(per_class) else []
    rows = [
        [row["label"], f"{row['support']:,}", *(_format_value(row[key]) for key in ("precision", "recall", "f1"))]
        for row in per_class
    ]
    panels = [Panel("", drawings[:1], drawings[1:])]
    return ReportFigure(panels, "Classes", ["class", "rows", "precision", "recall", "F1"], rows, notes=notes)


def threshold_curves(recipes: Sequence[RecipeEntry], styles: dict[str, MarkerStyle]) -> ReportFigure | None:
    """Draw recall at each threshold, and precision and specificity at each recall, for the positive class."""
    shown = [recipe for recipe in recipes if recipe.get("threshold_curve")]
    if not shown:
        return None
    curves = {recipe["name"]: recipe["threshold_curve"] for recipe in shown}
    measures = [name for name in _MEASURES if all(name in curve for curve in curves.values())]
    panels = [_curve_panel(heading, curves, styles, (across, up)) for heading, across, up in _CURVES if up in measures]
    rows = [
        [name, *map(format_score, values)]
        for name, curve in curves.items()
        for values in zip(*(curve[measure] for measure in ("thresholds", *measures)), strict=True)
    ]
    key = [(svg.swatch(styles[name].color, styles[name].marker, line="solid"), name) for name in curves]
    label = shown[0]["threshold_curve"]["label"]
    return ReportFigure(panels, f"Thresholds of {label}", ["recipe", "threshold", *measures], rows, key)


def rate_curves(
    recipes: Sequence[RecipeEntry], styles: dict[str, MarkerStyle], metric: str, title: str
) -> ReportFigure | None:
    """Draw one chart a recipe with several learning rates: validation scores, their mean, and the choice."""
    shown = [recipe for recipe in recipes if len(_rates(recipe)) > 1]
    every = [value for recipe in shown for entry in _rates(recipe) for value in _known(entry["validation"])]
    if not every:
        return None
    y = svg.bounded_axis(f"{title} on validation", every, _best_possible(metric))
    panels = [_rate_panel(recipe, styles[recipe["name"]], y) for recipe in shown]
    rows = [
        [
            recipe["name"],
            f"{entry['rate']:g}",
            format_score(entry["mean"]),
            ", ".join(map(format_score, entry["validation"])),
            "chosen" if entry["rate"] == recipe["rate"] else "",
        ]
        for recipe in shown
        for entry in _rates(recipe)
    ]
    key = [
        (svg.swatch("quiet", "circle"), "a seed"),
        (svg.swatch("s0", "circle", line="solid"), "mean over seeds"),
        (svg.swatch("s0", "star"), "chosen"),
    ]
    header = ["recipe", "rate", "mean", "each seed", "choice"]
    return ReportFigure(panels, "Learning rates", header, rows, key)


def histories(
    recipes: Sequence[RecipeEntry], styles: dict[str, MarkerStyle], metric: str, title: str
) -> ReportFigure | None:
    """Draw two charts a recipe, one line a seed: losses, and the metric on validation. The first recipe is shown."""
    shown = [recipe for recipe in recipes if any(recipe.get("histories") or ())]
    entries = [entry for recipe in shown for run in recipe["histories"] for entry in run]
    if not entries:
        return None
    axes = _history_axes(entries, metric, title)
    panels = [_history_panel(recipe, styles[recipe["name"]], metric, axes) for recipe in shown]
    rows = [
        [
            recipe["name"],
            str(seed),
            _step_name(entry),
            format_score(entry.get("train_loss")),
            format_score(entry.get("validation_loss")),
            format_score(entry.get(metric)),
        ]
        for recipe in shown
        for seed, history in zip(_seeds(recipe), recipe["histories"], strict=False)
        for entry in history
    ]
    key = [
        (svg.swatch("ink", "", line="dashed"), "training"),
        (svg.swatch("ink", "", line="solid"), "validation"),
        *[(svg.swatch("quiet", "", line="solid"), "tried and not chosen")]
        * any(len(_curves(run)) > 1 for recipe in shown for run in recipe["histories"]),
    ]
    header = ["recipe", "seed", "step", "training loss", "validation loss", f"{title} on validation"]
    return ReportFigure(
        panels, "Learning histories", header, rows, key, shown=1 if len(panels) > 1 else None, full_width=True
    )


def calibrations(recipes: Sequence[RecipeEntry], styles: dict[str, MarkerStyle]) -> ReportFigure | None:
    """Draw one reliability diagram a recipe; the area of a point shows its number of rows. The first is shown.

    A recipe that gives every row the same probability, as the majority class does, has nothing to draw: its error of 0
    is no merit.
    """
    shown = [recipe for recipe in recipes if len(_filled_bins(recipe)) > 1]
    if not shown:
        return None
    panels = [_calibration_panel(recipe, styles[recipe["name"]]) for recipe in shown]
    rows = [
        [recipe["name"], format_score(entry["confidence"]), format_score(entry["accuracy"]), f"{entry['count']:,}"]
        for recipe in shown
        for entry in _filled_bins(recipe)
    ]
    header = ["recipe", "probability", "share that came true", "rows"]
    counted = sum(entry["count"] for entry in _filled_bins(shown[0]))
    notes = [f"With only {counted:,} points the dots scatter by chance."] if counted < FEW_ROWS else []
    return ReportFigure(panels, "Calibration", header, rows, notes=notes, shown=1 if len(panels) > 1 else None)


# Panels


def _cost_point(recipe: RecipeEntry, style: MarkerStyle, metric: str) -> Series:
    mean, at = recipe["test"][metric]["mean"], _seconds(recipe)
    note = f"{recipe['name']}: {_format_mean(recipe, metric)}, {format_duration(recipe['cost']['train_seconds'])}"
    bars = [_bounds(recipe, metric)]
    return Series([(at, mean)], style.color, style.marker, bars=bars, radii=[6.5], notes=[note])


def _recall_panel(found: Sequence[tuple[str, dict[str, Any]]], styles: dict[str, MarkerStyle]) -> Panel:
    rows = [
        Interval(name, entry["mean"], entry["low"], entry["high"], styles[name].color, styles[name].marker)
        for name, entry in found
        if entry["mean"] is not None
    ]
    label, support = found[0][1]["label"], found[0][1]["support"]
    words = "; ".join(f"{name} {_format_entry(entry)}" for name, entry in found)
    drawing = svg.interval_chart(rows, svg.share_axis("recall"), title=f"Recall of {label}", description=words)
    return Panel(f"{label} ({support:,} test rows)", [drawing])


def _curve_panel(heading: str, curves: dict[str, Any], styles: dict[str, MarkerStyle], names: tuple[str, str]) -> Panel:
    x, y = (svg.share_axis(name.removesuffix("s")) for name in names)
    points = {name: _pairs(curve[names[0]], curve[names[1]]) for name, curve in curves.items()}
    series = [Series(found, styles[name].color) for name, found in points.items()]
    series += [_marked(found, styles[name]) for name, found in points.items()]
    words = f"{y.label} against {x.label} of {', '.join(curves)}; the table below has the numbers"
    return Panel(heading, [svg.line_chart(x, y, series, title=heading, description=words, size=(350, 290))])


def _marked(points: list[tuple[float, float]], style: MarkerStyle) -> Series:
    """Return about every sixth point with the marker, so that lines differ without color."""
    every = max(1, len(points) // 6)
    return Series(points[every // 2 :: every], style.color, style.marker, line=False)


def _rate_panel(recipe: RecipeEntry, style: MarkerStyle, y: Axis) -> Panel:
    entries = sorted(_rates(recipe), key=lambda entry: float(entry["rate"]))
    rates = [entry["rate"] for entry in entries]
    x = svg.log_axis("learning rate", rates, [(rate, format_rate(rate)) for rate in rates])
    seeds = [(entry["rate"], value) for entry in entries for value in _known(entry["validation"])]
    means = [(entry["rate"], entry["mean"]) for entry in entries if entry["mean"] is not None]
    chosen = [point for point in means if point[0] == recipe["rate"]]
    series = [
        Series(seeds, style.color, "circle", line=False, faint=True, radii=[3.0] * len(seeds)),
        Series(means, style.color, "circle", notes=[f"{rate:g}: {mean:.3f}" for rate, mean in means]),
        Series(chosen, style.color, "star", radii=[8.0] * len(chosen)),
    ]
    words = "; ".join(f"{rate:g}: mean {mean:.3f}" for rate, mean in means)
    title = f"Learning rates of {recipe['name']}"
    return Panel(recipe["name"], [svg.line_chart(x, y, series, title=title, description=words)])


def _history_axes(entries: Sequence[dict[str, Any]], metric: str, title: str) -> tuple[Axis | None, Axis | None]:
    """Return the axes of losses and of the metric; all charts share them. None where no value is known."""
    losses = _known([entry.get(key) for entry in entries for key in ("train_loss", "validation_loss")])
    scores = _known([entry.get(metric) for entry in entries])
    loss_axis = svg.bounded_axis("loss", losses, 0.0) if losses else None
    # Training starts near no skill at all: from 0 to 1 the curve shows how much was learned.
    least = [0.0] if _best_possible(metric) == 1 else []
    values = [*scores, *least]
    score_axis = svg.bounded_axis(f"{title} on validation", values, _best_possible(metric)) if scores else None
    return loss_axis, score_axis


def _history_panel(
    recipe: RecipeEntry, style: MarkerStyle, metric: str, axes: tuple[Axis | None, Axis | None]
) -> Panel:
    curves = [curve for run in recipe["histories"] for curve in _curves(run)]
    losses = [
        series
        for curve in curves
        for series in (_run(curve, "train_loss", style, dashed=True), _run(curve, "validation_loss", style))
    ]
    wide, narrow = [], []
    for axis, series in zip(axes, (losses, [_run(curve, metric, style) for curve in curves]), strict=True):
        values = [value for one in series for _, value in one.points]
        if axis is not None and values:
            chart = partial(
                svg.line_chart,
                _step_axis(series),
                axis,
                series,
                title=f"{recipe['name']}: {axis.label}",
                description=f"from {min(values):.3f} to {max(values):.3f}",
            )
            wide.append(chart(size=(500, 280)))
            narrow.append(chart())
    return Panel(recipe["name"], wide, narrow)


def _curves(run: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the entries of each learning rate that a training tried, the chosen one last."""
    curves: dict[Any, list[dict[str, Any]]] = {}
    for entry in run:
        curves.setdefault(entry.get("rate"), []).append(entry)
    return sorted(curves.values(), key=lambda curve: any(entry.get("best") for entry in curve))


def _run(curve: Sequence[dict[str, Any]], key: str, style: MarkerStyle, *, dashed: bool = False) -> Series:
    points = [(_step(entry), entry[key]) for entry in curve if entry.get(key) is not None]
    chosen = any(entry.get("best", True) for entry in curve)
    color = style.color if chosen else "quiet"
    faint = dashed or not chosen
    return Series(points, color, style.marker, dashed=dashed, faint=faint, radii=[3.0] * len(points))


def _step_axis(series: Sequence[Series]) -> Axis:
    steps = [step for one in series for step, _ in one.points]
    if all(step == int(step) for step in steps):
        return svg.whole_axis("epoch", steps)
    powers = range(math.floor(math.log10(min(steps))), math.ceil(math.log10(max(steps))) + 1)
    return svg.log_axis("C, inverse strength", steps, [(10.0**power, f"{10.0**power:g}") for power in powers])


def _calibration_panel(recipe: RecipeEntry, style: MarkerStyle) -> Panel:
    bins = _filled_bins(recipe)
    most = max((entry["count"] for entry in bins), default=1)
    points = [(entry["confidence"], entry["accuracy"]) for entry in bins]
    radii = [2.0 + 7.0 * math.sqrt(entry["count"] / most) for entry in bins]
    notes = [f"{entry['confidence']:.2f}: {entry['accuracy']:.2f} of {entry['count']:,} rows" for entry in bins]
    line = Series(points, style.color, faint=True)
    dots = Series(points, style.color, "circle", line=False, radii=radii, notes=notes)
    both = (svg.share_axis("probability"), svg.share_axis("share that came true"))
    heading = f"{recipe['name']}: error {format_score(recipe['calibration']['ece'])}"
    title = f"Calibration of {recipe['name']}"
    words = f"expected calibration error {format_score(recipe['calibration']['ece'])}; {'; '.join(notes)}"
    drawing = svg.line_chart(*both, [line, dots], title=title, description=words, size=(340, 300), diagonal=True)
    return Panel(heading, [drawing])


# Values


def _mean(recipe: RecipeEntry, metric: str) -> float | None:
    value: float | None = ((recipe.get("test") or {}).get(metric) or {}).get("mean")
    return value


def _cost(recipe: RecipeEntry, key: str) -> float | None:
    value: float | None = (recipe.get("cost") or {}).get(key)
    return value


def _seconds(recipe: RecipeEntry) -> float:
    """Return the training time, at least 0.1 s, because a logarithmic axis has no zero."""
    return max(float(recipe["cost"]["train_seconds"]), 0.1)


def _bounds(recipe: RecipeEntry, metric: str) -> tuple[float, float]:
    """Return the interval around the mean, or the mean twice if there is none."""
    figure = recipe["test"][metric]
    low, high = (figure["mean"] if figure.get(key) is None else figure[key] for key in ("low", "high"))
    return low, high


def _format_mean(recipe: RecipeEntry, metric: str) -> str:
    return _format_entry(recipe["test"][metric])


def _format_entry(entry: dict[str, Any]) -> str:
    bounds = format_interval(entry["low"], entry["high"])
    return f"{format_score(entry['mean'])} ({bounds})" if bounds else format_score(entry["mean"])


def _format_value(score: Mapping[str, Any]) -> str:
    return _format_entry({"mean": score["value"], "low": score["low"], "high": score["high"]})


def _class_recall(recipes: Sequence[RecipeEntry], place: int) -> list[tuple[str, dict[str, Any]]]:
    return [(recipe["name"], recipe["recall"][place]) for recipe in recipes]


def _spread(found: Sequence[tuple[str, dict[str, Any]]]) -> float:
    means = [entry["mean"] for _, entry in found if entry["mean"] is not None]
    return max(means) - min(means) if means else -1.0


def _pairs(across: Sequence[float | None], up: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(across, up, strict=True) if x is not None and y is not None]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _filled_bins(recipe: RecipeEntry) -> list[dict[str, Any]]:
    return [entry for entry in (recipe.get("calibration") or {}).get("bins") or () if entry["count"]]


def _rates(recipe: RecipeEntry) -> list[dict[str, Any]]:
    """Return the learning rates that were tried by hand; a recipe that searches for itself has none."""
    return [entry for entry in recipe.get("rates") or () if entry.get("rate") is not None]


def _seeds(recipe: RecipeEntry) -> Sequence[Any]:
    return recipe.get("seeds") or range(len(recipe["histories"]))


def _step(entry: dict[str, Any]) -> float:
    return float(entry["epoch"] if "epoch" in entry else entry["C"])


def _step_name(entry: dict[str, Any]) -> str:
    return f"epoch {entry['epoch']}" if "epoch" in entry else f"C = {entry['C']:.3g}"
