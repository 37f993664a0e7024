"""Figures: histories, matrices, calibration, labels and data in, PNG bytes out.

They are built from matplotlib's objects on its Agg canvas: no pyplot, no global state, no display. They are always on
white, because they are read in folders and on cards whose background is unknown. Colors are those of Okabe and Ito
(2008), which color-blind readers can tell apart. matplotlib is imported with the first figure.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullbake.core.console import warn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PLOT_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"

HistoryEntry = Mapping[str, Any]
"""One entry of a training's history: `epoch` (from 1) or `C` (inverse regularization of a logistic regression),
`train_loss`, `validation_loss`, the selecting metric under its name, `best` (true for the chosen entry), and `rate`
where several learning rates were tried.
"""


def history_figure(history: Sequence[HistoryEntry], metric: str) -> bytes:
    """Draw the losses on the left, and on the right the selecting metric with the chosen entry marked; PNG bytes.

    Args:
        history: At least one entry. Those of several learning rates follow each other; each rate becomes a line.
        metric: Name of the selecting metric in the entries.
    """
    figure = _figure(10, 4)
    losses, scores = figure.subplots(1, 2)
    runs = _runs(history)
    for number, (name, run) in enumerate(runs.items()):
        _draw_run(losses, scores, metric, name, run, number)
    _mark_best(scores, history, metric)
    axis = "epoch" if "epoch" in history[0] else "C"
    for axes, label in ((losses, "loss (nats a row)"), (scores, f"{metric} on validation")):
        _label_axes(axes, history, axis, label)
    _add_legends(losses, scores, list(runs))
    return _png(figure)


def confusion_figure(matrix: Sequence[Sequence[int]] | NDArray[np.int64], label_names: Sequence[str]) -> bytes:
    """Draw a confusion matrix, shaded by share of the class's rows; PNG bytes.

    The shade follows the root of the share, so that rare confusions are visible. With more than 30 classes counts could
    not be read, so only the shades are drawn.

    Args:
        matrix: Counts (classes, classes), as `metrics.score` gives them: true class by predicted class.
        label_names: (classes,).
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(matrix, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(label_names)
    side, font = _cell_side(classes), 9 if classes <= 12 else 7 if classes <= 40 else 6
    names = [_shortened(name) for name in label_names]
    margin = 1.0 + 0.011 * font * max(map(len, names))
    figure = _figure(margin + side * classes + 1.2, margin + side * classes)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    _name_cells(axes, names, font)
    if classes <= 30:
        _write_counts(axes, counts, shares, font if classes <= 12 else 6)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 3 / (side * classes) + 0.3))
    bar.set_label("share of the class's rows")
    bar.outline.set_visible(False)
    return _png(figure)


def pretraining_figure(start: Mapping[str, float], history: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the masked-LM loss on held-out text of the corpus and on general text; PNG bytes.

    Args:
        start: `mlm_loss` and `general_mlm_loss` before the first step. Without the second, there is one picture.
        history: Entries with `step`, `mlm_loss`, `general_mlm_loss` and `best`, as further pretraining records them.
    """
    titles = {"mlm_loss": "held-out text of the corpus", "general_mlm_loss": "general text (forgetting)"}
    titles = {name: title for name, title in titles.items() if name in start}
    figure = _figure(5 * len(titles), 4)
    steps = [0, *(entry["step"] for entry in history)]
    pictures = figure.subplots(1, len(titles), squeeze=False)[0]
    for number, (axes, name, title) in enumerate(zip(pictures, titles, titles.values(), strict=True)):
        values = [start[name], *(entry[name] for entry in history)]
        axes.plot(steps, values, "-o", color=PLOT_COLORS[number], markersize=4)
        axes.axhline(start[name], color="#777777", linewidth=1, linestyle="--", label="before")
        best = next((entry for entry in history if entry.get("best")), None)
        if best is not None:
            label = f"chosen: {best[name]:.3f} (before {start[name]:.3f})"
            axes.plot([best["step"]], [best[name]], "o", markersize=12, fillstyle="none", color="black", label=label)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("masked-LM loss (nats a token)")
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.15)
        axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def _runs(history: Sequence[HistoryEntry]) -> dict[str, list[HistoryEntry]]:
    """Return the entries of each learning rate, in order of appearance; a single run "" where entries have no rate."""
    runs: dict[str, list[HistoryEntry]] = {}
    for entry in history:
        name = f"learning rate {entry['rate']:g}" if "rate" in entry else ""
        runs.setdefault(name, []).append(entry)
    return runs


def _draw_run(losses: "Axes", scores: "Axes", metric: str, name: str, run: Sequence[HistoryEntry], number: int) -> None:
    """Draw the three lines of one run.

    In a single run training and validation differ by color. Among several runs each has a color, and training is
    dashed.
    """
    steps = [_step(entry) for entry in run]
    own, marker = PLOT_COLORS[number % len(PLOT_COLORS)], _MARKERS[number % len(_MARKERS)]
    other = own if name else PLOT_COLORS[1]
    style: dict[str, Any] = {"marker": marker, "markersize": 5}
    train, validation = ([entry[key] for entry in run] for key in ("train_loss", "validation_loss"))
    losses.plot(steps, train, "--", color=other, label="" if name else "training", **style)
    losses.plot(steps, validation, "-", color=own, label="" if name else "validation", **style)
    scores.plot(steps, [entry[metric] for entry in run], "-", color=own, label=name, **style)


def _step(entry: HistoryEntry) -> float:
    return float(entry["epoch"] if "epoch" in entry else entry["C"])


def _mark_best(axes: "Axes", history: Sequence[HistoryEntry], metric: str) -> None:
    best = next((entry for entry in history if entry.get("best")), None)
    if best is None:
        return
    where = f"epoch {best['epoch']}" if "epoch" in best else f"C = {best['C']:.2g}"
    where = f"{best['rate']:g}, {where}" if "rate" in best else where
    label = f"chosen: {where}, {best[metric]:.3f}"
    axes.plot(
        [_step(best)],
        [best[metric]],
        "o",
        markersize=13,
        fillstyle="none",
        color="black",
        label=label,
        zorder=5,
    )


def _label_axes(axes: "Axes", history: Sequence[HistoryEntry], axis: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(label)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    if axis == "C":
        axes.set_xlabel("C (inverse strength of the regularization)")
        axes.set_xscale("log")
        return
    axes.set_xlabel("epoch")
    last = max(entry["epoch"] for entry in history)
    axes.set_xlim(1 - 0.04 * last - 0.2, last + 0.04 * last + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _add_legends(losses: "Axes", scores: "Axes", names: Sequence[str]) -> None:
    if names != [""]:
        losses.plot([], [], "--", color="#555555", label="training")
        losses.plot([], [], "-", color="#555555", label="validation")
    for axes in (losses, scores):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _cell_side(classes: int) -> float:
    """Return a cell's side in inches: wide enough for four digits where counts are written."""
    return 0.6 if classes <= 12 else 0.34 if classes <= 30 else 0.17


def _shortened(name: str, limit: int = 24) -> str:
    """Keep both ends of a long name, because long labels often differ only at the end."""
    line = " ".join(name.split())
    return line if len(line) <= limit else f"{line[: limit - 10]}…{line[-9:]}"


def _name_cells(axes: "Axes", names: Sequence[str], font: int) -> None:
    # matplotlib would read dollar signs in a label as a formula.
    places = range(len(names))
    upright = len(names) <= 6 and max(map(len, names)) <= 8
    axes.set_xticks(places, names, fontsize=font, rotation=0 if upright else 90, parse_math=False)
    axes.set_yticks(places, names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: "Axes", counts: NDArray[np.int64], shares: NDArray[np.float64], font: int) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.36 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=font, color=color)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.04)
    figure = Figure(figsize=(width, height), dpi=120, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    """Return the figure as PNG. Characters that matplotlib's own font lacks are drawn with an installed font."""
    png, missing = _drawn(figure)
    if not missing:
        return png
    families = _fonts_with(frozenset(missing))
    if families:
        from matplotlib.text import Text

        for text in figure.findobj(Text):
            text.set_fontfamily(["DejaVu Sans", *families])
        png, missing = _drawn(figure)
    if missing:
        _warn_of_boxes("".join(chr(code) for code in sorted(missing)[:5]))
    return png


def _drawn(figure: "Figure") -> tuple[bytes, set[int]]:
    """Return the PNG, and the code points that no font of the figure has."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    missing = set()
    for warning in caught:
        found = re.match(r"Glyph (\d+) ", str(warning.message))
        if found:
            missing.add(int(found[1]))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return buffer.getvalue(), missing


_FONT_NAMES = re.compile(
    "cjk|han|wqy|hei|ming|song|gothic|pingfang|yahei|malgun|droid|noto|unifont|dejavu", re.IGNORECASE
)
"""In names of font files that have many scripts. They are looked at first, because opening a font takes time."""


@cache
def _fonts_with(codes: frozenset[int]) -> tuple[str, ...]:
    """Return the families of installed fonts that together have as many of the code points as possible."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    left, families = set(codes), []
    # The system is asked, because matplotlib's own list is a cache that does not know fonts installed later.
    paths = sorted(font_manager.findSystemFonts(), key=lambda path: (not _FONT_NAMES.search(path), path))
    for path in paths:
        if not left:
            break
        try:
            font = FT2Font(path)
            covered = left & font.get_charmap().keys()
            if covered:
                font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # bitmap fonts and damaged files
            continue
        if covered:
            left -= covered
            families.append(font.family_name)
    return tuple(families)


@cache
def _warn_of_boxes(characters: str) -> None:
    """Warn, once for these characters, that the pictures have boxes in their place."""
    warn(
        f"no installed font has characters such as {characters!r}: pictures show boxes in their place. JSON files and "
        "the HTML page have the names. Install a font, such as fonts-noto-cjk on Debian and Ubuntu for Chinese, "
        "Japanese and Korean."
    )


def reliability_figure(before: Mapping[str, Any], after: Mapping[str, Any]) -> bytes:
    """Draw a reliability diagram before and after the temperature, and the number of rows in each bin; PNG bytes.

    Args:
        before: Calibration before the temperature, as `calibration.reliability` gives it.
        after: The same after the temperature.
    """
    figure = _figure(6, 6)
    shares, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    shares.plot([0, 1], [0, 1], ":", color="#555555", label="perfect calibration")
    for number, (name, result) in enumerate({"before": before, "after": after}.items()):
        bins = result["bins"]
        confidence, accuracy = ([entry[key] for entry in bins] for key in ("confidence", "accuracy"))
        label = f"{name} the temperature: ECE {result['ece']:.3f}"
        shares.plot(confidence, accuracy, "-", color=PLOT_COLORS[1 - number], marker=_MARKERS[number], label=label)
        middles = [(entry["low"] + entry["high"]) / 2 for entry in bins]
        counts.plot(
            middles, [entry["count"] for entry in bins], "-", color=PLOT_COLORS[1 - number], marker=_MARKERS[number]
        )
    shares.set_ylabel("share that came true")
    shares.legend(frameon=False, loc="upper left")
    counts.set_yscale("log")
    counts.set_ylabel("scores")
    counts.set_xlabel("score")
    for axes in (shares, counts):
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(-0.02, 1.02)
    return _png(figure)


def labels_figure(per_class: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw precision, recall and F1 of each label, the most frequent label on top; PNG bytes.

    Args:
        per_class: As `metrics.score` gives it. Undefined values are not drawn.
    """
    rows = sorted(per_class, key=lambda row: row["support"])
    figure = _figure(8, 1.6 + 0.24 * len(rows))
    axes = figure.subplots()
    for number, name in enumerate(("precision", "recall", "f1")):
        points = [(row[name]["value"], place) for place, row in enumerate(rows) if row[name]["value"] is not None]
        values, places = zip(*points, strict=True) if points else ((), ())
        axes.plot(values, places, _MARKERS[number], color=PLOT_COLORS[number], label=name, markersize=6)
    names = [f"{_shortened(row['label'])} ({row['support']:,})" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8, parse_math=False)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("score (in brackets: rows that have the label)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.6 / (1.6 + 0.24 * len(rows))), ncols=3)
    return _png(figure)


def data_figure(labels: Mapping[str, int], rows: int, histogram: Sequence[Sequence[int]], limit: int | None) -> bytes:
    """Draw the shares of the labels on the left, and the lengths of the texts with the limit on the right; PNG bytes.

    Args:
        labels: Number of rows by label name; the 40 most frequent are drawn.
        rows: Number of all rows.
        histogram: (upper end of the bin, number of texts), ascending.
        limit: The limit in tokens; None where lengths are in characters.
    """
    shown = sorted(labels.items(), key=lambda item: item[1])[-40:]
    figure = _figure(11, max(4, 1.2 + 0.22 * len(shown)))
    left, right = figure.subplots(1, 2)
    left.barh(range(len(shown)), [100 * count / max(1, rows) for _, count in shown], color=PLOT_COLORS[0])
    left.set_yticks(range(len(shown)), [_shortened(name) for name, _ in shown], fontsize=8, parse_math=False)
    left.set_xlabel(f"% of {rows:,} rows")
    ends, counts = [end for end, _ in histogram], [count for _, count in histogram]
    right.bar(range(len(ends)), counts, width=0.9, color=PLOT_COLORS[5])
    marks = range(0, len(ends), max(1, len(ends) // 8))
    right.set_xticks(list(marks), [f"{ends[place]:,}" for place in marks])
    beyond = f" (the limit is {limit:,})" if limit is not None and limit > max(ends, default=0) else ""
    right.set_xlabel(f"{'characters' if limit is None else 'tokens'} in a text, up to{beyond}")
    right.set_ylabel("texts")
    if limit is not None and not beyond:
        place = float(np.interp(limit, ends, range(len(ends)))) + 0.5
        right.axvline(place, color=PLOT_COLORS[1], label=f"limit {limit:,}")
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)
