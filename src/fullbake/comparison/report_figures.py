"""Parts of a leaderboard as figures for the page: small charts, a key, and the same numbers as a table.

Every function takes the leaderboard, or its finished recipes, and gives None where there is nothing to draw. Charts are
small and many, one a recipe or a class: they stand side by side on a desk and one below the other on a phone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from markupsafe import Markup

from fullbake.comparison import svg
from fullbake.comparison.svg import Axis, Interval, Series
from fullbake.core.console import format_duration, format_interval, format_rate, format_score, format_size

RecipeEntry = dict[str, Any]

WIDEST_RECALL = 12
"""More classes than this are too many to draw; those on which the recipes differ most are."""

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
    ("Found at each threshold", "thresholds", "recall"),
    ("Right among the found", "recall", "precision"),
    ("Cleared among the others", "recall", "specificity"),
)
"""Heading, and what is drawn across and up."""


@dataclass(frozen=True)
class MarkerStyle:
    """How a recipe is drawn everywhere on the page."""

    color: str
    marker: str

    @property
    def sign(self) -> Markup:
        """Its marker alone, for keys and tables."""
        return svg.swatch(self.color, self.marker)


@dataclass(frozen=True)
class Panel:
    """Charts under one heading. narrow: other drawings of them, for screens where the first would not fit."""

    heading: str
    drawings: Sequence[Markup]
    narrow: Sequence[Markup] = ()


@dataclass(frozen=True)
class ReportFigure:
    """A figure. key: (sign, what it means). header and rows: all its numbers as a table called `table`."""

    panels: Sequence[Panel]
    table: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    key: Sequence[tuple[Markup, str]] = ()
    notes: Sequence[str] = field(default=())


def marker_styles(recipes: Sequence[RecipeEntry]) -> dict[str, MarkerStyle]:
    """A color and a marker for every recipe by name; baselines share a gray."""
    result: dict[str, MarkerStyle] = {}
    colored = 0
    for place, recipe in enumerate(recipes):
        marker = svg.MARKERS[place % len(svg.MARKERS)]
        baseline = recipe["way"] == "baseline"
        result[recipe["name"]] = MarkerStyle("base" if baseline else CHART_COLORS[colored % len(CHART_COLORS)], marker)
        colored += not baseline
    return result


def quality_against_cost(
    recipes: Sequence[RecipeEntry], look: dict[str, MarkerStyle], metric: str, title: str
) -> ReportFigure | None:
    """A point a recipe: training seconds across, the metric on test up. A baseline far below is an arrow."""
    shown = [recipe for recipe in recipes if None not in (_mean(recipe, metric), _cost(recipe, "train_seconds"))]
    if not shown:
        return None
    x = svg.log_axis("training time", [_seconds(recipe) for recipe in shown], _DURATIONS)
    y = scores_axis(f"{title} on test", shown, metric)
    series = [_cost_point(recipe, look[recipe["name"]], metric, y) for recipe in shown]
    labels = [
        (
            *one.points[0],
            one.color,
            recipe["name"] if one.bars else f"{recipe['name']}: {format_score(_mean(recipe, metric))}",
        )
        for one, recipe in zip(series, shown, strict=True)
    ]
    words = "; ".join(note for one in series for note in one.notes)
    wide, narrow = (
        svg.line_chart(
            x, y, series, title=f"{title} against training time", description=words, size=area, labels=labels
        )
        for area in ((760, 380), (350, 340))
    )
    rows = [
        [
            recipe["name"],
            _told(recipe, metric),
            format_duration(recipe["cost"]["train_seconds"]),
            format_size(_cost(recipe, "peak_memory_bytes")),
        ]
        for recipe in shown
    ]
    header = ["recipe", f"{title}, 95% interval", "training time", "peak memory"]
    return ReportFigure([Panel("", [wide], [narrow])], "Quality and cost", header, rows)


def scores_axis(label: str, recipes: Sequence[RecipeEntry], metric: str, count: int = 5) -> Axis:
    """An axis for the test scores of recipes, which may leave baselines behind."""
    ends: dict[bool, list[float]] = {True: [], False: []}
    for recipe in recipes:
        if _mean(recipe, metric) is not None:
            ends[recipe["way"] == "baseline"] += _bounds(recipe, metric)
    return svg.near_axis(label, ends[False], ends[True], count)


def recall_by_class(recipes: Sequence[RecipeEntry], look: dict[str, MarkerStyle]) -> ReportFigure | None:
    """A chart a class: the share of its rows that each recipe found."""
    shown = [recipe for recipe in recipes if recipe.get("recall")]
    if not shown:
        return None
    classes = [_class_recall(shown, place) for place in range(len(shown[0]["recall"]))]
    drawn = sorted(classes, key=_spread, reverse=True)[:WIDEST_RECALL] if len(classes) > WIDEST_RECALL else classes
    notes = (
        []
        if len(drawn) == len(classes)
        else [
            f"Drawn are the {len(drawn)} of {len(classes)} classes on which the recipes differ most; the table has all."
        ]
    )
    panels = [_recall_panel(found, look) for found in drawn if any(entry["mean"] is not None for _, entry in found)]
    rows = [
        [found[0][1]["label"], str(found[0][1]["support"]), *(_told_entry(entry) for _, entry in found)]
        for found in classes
    ]
    header = ["class", "test rows", *(recipe["name"] for recipe in shown)]
    return ReportFigure(panels, "Recall per class with 95% intervals", header, rows, notes=notes)


def threshold_curves(recipes: Sequence[RecipeEntry], look: dict[str, MarkerStyle]) -> ReportFigure | None:
    """Recall at every threshold, and what it costs, for the class in question."""
    shown = [recipe for recipe in recipes if recipe.get("threshold_curve")]
    if not shown:
        return None
    curves = {recipe["name"]: recipe["threshold_curve"] for recipe in shown}
    measures = [name for name in _MEASURES if all(name in curve for curve in curves.values())]
    panels = [_curve_panel(heading, curves, look, (across, up)) for heading, across, up in _CURVES if up in measures]
    rows = [
        [name, *map(format_score, values)]
        for name, curve in curves.items()
        for values in zip(*(curve[measure] for measure in ("thresholds", *measures)), strict=True)
    ]
    key = [(svg.swatch(look[name].color, look[name].marker, line="solid"), name) for name in curves]
    label = shown[0]["threshold_curve"]["label"]
    return ReportFigure(panels, f"Thresholds of {label}", ["recipe", "threshold", *measures], rows, key)


def rate_curves(recipes: Sequence[RecipeEntry], look: dict[str, MarkerStyle], title: str) -> ReportFigure | None:
    """A chart a recipe that had rates to choose from: each seed's validation score, their mean, the choice."""
    shown = [recipe for recipe in recipes if len(recipe.get("rates") or ()) > 1]
    if not shown:
        return None
    every = [value for recipe in shown for entry in recipe["rates"] for value in _known(entry["validation"])]
    y = svg.linear_axis(f"{title} on validation", every)
    panels = [_rate_panel(recipe, look[recipe["name"]], y) for recipe in shown]
    rows = [
        [
            recipe["name"],
            f"{entry['rate']:g}",
            format_score(entry["mean"]),
            ", ".join(map(format_score, entry["validation"])),
            "chosen" if entry["rate"] == recipe["rate"] else "",
        ]
        for recipe in shown
        for entry in recipe["rates"]
    ]
    key = [
        (svg.swatch("quiet", "circle"), "a seed"),
        (svg.swatch("s0", "circle", line="solid"), "mean over seeds"),
        (svg.swatch("s0", "star"), "chosen"),
    ]
    header = ["recipe", "rate", "mean", "each seed", "choice"]
    return ReportFigure(panels, "Learning rates", header, rows, key)


def histories(
    recipes: Sequence[RecipeEntry], look: dict[str, MarkerStyle], metric: str, title: str
) -> ReportFigure | None:
    """Two charts a recipe: its losses, and the metric on validation, a line a seed."""
    shown = [recipe for recipe in recipes if any(recipe.get("histories") or ())]
    if not shown:
        return None
    panels = [_history_panel(recipe, look[recipe["name"]], metric, title) for recipe in shown]
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
    ]
    header = ["recipe", "seed", "step", "training loss", "validation loss", f"{title} on validation"]
    return ReportFigure(panels, "Learning histories at the chosen rate", header, rows, key)


def calibrations(recipes: Sequence[RecipeEntry], look: dict[str, MarkerStyle]) -> ReportFigure | None:
    """A chart a recipe: of the rows scored near p, the share that came true; the area of a point is its rows."""
    shown = [recipe for recipe in recipes if (recipe.get("calibration") or {}).get("bins")]
    if not shown:
        return None
    panels = [_calibration_panel(recipe, look[recipe["name"]]) for recipe in shown]
    rows = [
        [recipe["name"], format_score(entry["confidence"]), format_score(entry["accuracy"]), f"{entry['count']:,}"]
        for recipe in shown
        for entry in recipe["calibration"]["bins"]
        if entry["count"]
    ]
    return ReportFigure(panels, "Calibration on test", ["recipe", "mean score", "share that came true", "rows"], rows)


# Panels


def _cost_point(recipe: RecipeEntry, look: MarkerStyle, metric: str, y: Axis) -> Series:
    mean, at = recipe["test"][metric]["mean"], _seconds(recipe)
    note = f"{recipe['name']}: {_told(recipe, metric)}, {format_duration(recipe['cost']['train_seconds'])}"
    if mean < y.low:
        return Series([(at, y.low + 0.05 * (y.high - y.low))], look.color, "down", radii=[6.5], notes=[note])
    low, high = _bounds(recipe, metric)
    return Series([(at, mean)], look.color, look.marker, bars=[(max(low, y.low), high)], radii=[6.5], notes=[note])


def _recall_panel(found: Sequence[tuple[str, dict[str, Any]]], look: dict[str, MarkerStyle]) -> Panel:
    rows = [
        Interval(name, entry["mean"], entry["low"], entry["high"], look[name].color, look[name].marker)
        for name, entry in found
        if entry["mean"] is not None
    ]
    label, support = found[0][1]["label"], found[0][1]["support"]
    words = "; ".join(f"{name} {_told_entry(entry)}" for name, entry in found)
    drawing = svg.interval_chart(rows, svg.share_axis("recall"), title=f"Recall of {label}", description=words)
    return Panel(f"{label} ({support:,} test rows)", [drawing])


def _curve_panel(heading: str, curves: dict[str, Any], look: dict[str, MarkerStyle], names: tuple[str, str]) -> Panel:
    x, y = (svg.share_axis(name.removesuffix("s")) for name in names)
    points = {name: _pairs(curve[names[0]], curve[names[1]]) for name, curve in curves.items()}
    series = [Series(found, look[name].color) for name, found in points.items()]
    series += [_marked(found, look[name]) for name, found in points.items()]
    words = f"{y.label} against {x.label} of {', '.join(curves)}; the table below has the numbers"
    return Panel(heading, [svg.line_chart(x, y, series, title=heading, description=words, size=(350, 290))])


def _marked(points: list[tuple[float, float]], look: MarkerStyle) -> Series:
    """Every eighth point or so with its marker: lines must be told apart without color."""
    every = max(1, len(points) // 6)
    return Series(points[every // 2 :: every], look.color, look.marker, line=False)


def _rate_panel(recipe: RecipeEntry, look: MarkerStyle, y: Axis) -> Panel:
    entries = sorted(recipe["rates"], key=lambda entry: float(entry["rate"]))
    rates = [entry["rate"] for entry in entries]
    x = svg.log_axis("learning rate", rates, [(rate, format_rate(rate)) for rate in rates])
    seeds = [(entry["rate"], value) for entry in entries for value in _known(entry["validation"])]
    means = [(entry["rate"], entry["mean"]) for entry in entries if entry["mean"] is not None]
    chosen = [point for point in means if point[0] == recipe["rate"]]
    series = [
        Series(seeds, look.color, "circle", line=False, faint=True, radii=[3.0] * len(seeds)),
        Series(means, look.color, "circle", notes=[f"{rate:g}: {mean:.3f}" for rate, mean in means]),
        Series(chosen, look.color, "star", radii=[8.0] * len(chosen)),
    ]
    words = "; ".join(f"{rate:g}: mean {mean:.3f}" for rate, mean in means)
    title = f"Learning rates of {recipe['name']}"
    return Panel(recipe["name"], [svg.line_chart(x, y, series, title=title, description=words)])


def _history_panel(recipe: RecipeEntry, look: MarkerStyle, metric: str, title: str) -> Panel:
    runs = [run for run in recipe["histories"] if run]
    losses = [
        series for run in runs for series in (_run(run, "train_loss", look, True), _run(run, "validation_loss", look))
    ]
    drawings = []
    for name, series in (("loss", losses), (title, [_run(run, metric, look) for run in runs])):
        values = [value for one in series for _, value in one.points]
        if values:
            words = f"from {min(values):.3f} to {max(values):.3f} over {len(runs)} seeds"
            both = (_step_axis(series), svg.linear_axis(name, values))
            drawings.append(svg.line_chart(*both, series, title=f"{recipe['name']}: {name}", description=words))
    return Panel(recipe["name"], drawings)


def _run(run: Sequence[dict[str, Any]], key: str, look: MarkerStyle, dashed: bool = False) -> Series:
    points = [(_step(entry), entry[key]) for entry in run if entry.get(key) is not None]
    return Series(points, look.color, look.marker, dashed=dashed, faint=dashed, radii=[3.0] * len(points))


def _step_axis(series: Sequence[Series]) -> Axis:
    steps = [step for one in series for step, _ in one.points]
    if all(step == int(step) for step in steps):
        return svg.whole_axis("epoch", steps)
    powers = range(math.floor(math.log10(min(steps))), math.ceil(math.log10(max(steps))) + 1)
    return svg.log_axis("C, inverse strength", steps, [(10.0**power, f"{10.0**power:g}") for power in powers])


def _calibration_panel(recipe: RecipeEntry, look: MarkerStyle) -> Panel:
    bins = [entry for entry in recipe["calibration"]["bins"] if entry["count"]]
    most = max((entry["count"] for entry in bins), default=1)
    points = [(entry["confidence"], entry["accuracy"]) for entry in bins]
    radii = [2.0 + 7.0 * math.sqrt(entry["count"] / most) for entry in bins]
    notes = [f"{entry['confidence']:.2f}: {entry['accuracy']:.2f} of {entry['count']:,} rows" for entry in bins]
    line = Series(points, look.color, faint=True)
    dots = Series(points, look.color, "circle", line=False, radii=radii, notes=notes)
    both = (svg.share_axis("mean score"), svg.share_axis("share that came true"))
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
    """What a logarithmic axis can carry: nobody waits for less than a tenth."""
    return max(float(recipe["cost"]["train_seconds"]), 0.1)


def _bounds(recipe: RecipeEntry, metric: str) -> tuple[float, float]:
    """The interval around the mean; the mean itself where there is none."""
    figure = recipe["test"][metric]
    low, high = (figure["mean"] if figure.get(key) is None else figure[key] for key in ("low", "high"))
    return low, high


def _told(recipe: RecipeEntry, metric: str) -> str:
    return _told_entry(recipe["test"][metric])


def _told_entry(entry: dict[str, Any]) -> str:
    bounds = format_interval(entry["low"], entry["high"])
    return f"{format_score(entry['mean'])} ({bounds})" if bounds else format_score(entry["mean"])


def _class_recall(recipes: Sequence[RecipeEntry], place: int) -> list[tuple[str, dict[str, Any]]]:
    return [(recipe["name"], recipe["recall"][place]) for recipe in recipes]


def _spread(found: Sequence[tuple[str, dict[str, Any]]]) -> float:
    means = [entry["mean"] for _, entry in found if entry["mean"] is not None]
    return max(means) - min(means) if means else -1.0


def _pairs(across: Sequence[float | None], up: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(across, up, strict=True) if x is not None and y is not None]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _seeds(recipe: RecipeEntry) -> Sequence[Any]:
    return recipe.get("seeds") or range(len(recipe["histories"]))


def _step(entry: dict[str, Any]) -> float:
    return float(entry["epoch"] if "epoch" in entry else entry["C"])


def _step_name(entry: dict[str, Any]) -> str:
    return f"epoch {entry['epoch']}" if "epoch" in entry else f"C = {entry['C']:.3g}"
