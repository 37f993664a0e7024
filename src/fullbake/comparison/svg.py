"""Draw charts as inline SVG, and hand escaped texts to the templates.

The page runs no script. Colors are classes (`s0` to `s7`, `base`, `quiet`) that its style sheet paints for light and
dark mode; markers differ too, so that no chart depends on color. A narrow page gets a narrow chart, not a shrunken one.
Trade-off against matplotlib's SVG: a tenth of the bytes, real text, and the page's theme, but only the few kinds below.

`core.markup` says what escaping does to a text; here are its results as markupsafe's Markup, which templates take.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from fullbake.core.markup import escape_html, mark_hidden


def escape_text(text: str) -> Markup:
    """Return a text as HTML for the templates: escaped, with a mark that names each hidden character."""
    return Markup(escape_html(text))


def isolate_text(text: str) -> Markup:
    """Return `escape_text` in <bdi>, so that right-to-left text cannot reorder the text beside it."""
    return Markup("<bdi>{}</bdi>").format(escape_text(text))


@dataclass(frozen=True)
class Axis:
    """An axis of a chart: its range, and its ticks."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    """(value, text) of each tick."""

    log: bool = False
    """Whether the scale is logarithmic."""

    def share(self, value: float) -> float:
        """Return the position of a value on the axis: 0 at `low`, 1 at `high`."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


def linear_axis(label: str, values: Sequence[float], count: int = 5) -> Axis:
    """Return a linear axis with about `count` round ticks, and a little room at both ends."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - room, high + room
    step = _round_step((high - low) / count)
    first, last = math.ceil(low / step), math.floor(high / step)
    if last - first > count:  # both ends are ticks, which makes one too many: take the next step size
        step = _round_step(1.3 * step)
        first, last = math.ceil(low / step), math.floor(high / step)
    return Axis(label, low, high, _ticks([place * step for place in range(first, last + 1)], step))


def bounded_axis(label: str, values: Sequence[float], end: float, count: int = 5) -> Axis:
    """Return a linear axis from the best possible score to a round number beyond the farthest value.

    Every value is on it, baselines too, and the best possible score is in sight, so that small differences look small.

    Args:
        label: Text of the axis.
        values: Values that the axis must cover.
        end: The best possible score. Scores lie below it, losses above it.
        count: Number of ticks, about.
    """
    farthest = max(values, key=lambda value: abs(value - end))
    step = _round_step(abs(farthest - end) / count or 0.1)
    # Without the tolerance a value of 0.3 would be beyond three steps of 0.1, by rounding.
    places = max(math.ceil(abs(farthest - end) / step - 1e-9), 1)
    sign = 1 if farthest > end else -1
    marks = sorted(round(end + sign * step * place, 12) + 0.0 for place in range(places + 1))
    return Axis(label, marks[0], marks[-1], _ticks(marks, step))


def _ticks(marks: Sequence[float], step: float) -> tuple[tuple[float, str], ...]:
    """Return (value, text) of each tick, with as many digits as the step has."""
    digits = next(digits for digits in range(12) if round(step, digits) == step or digits == 11)
    return tuple((mark, f"{mark:.{digits}f}".replace("-", "−")) for mark in marks)


def whole_axis(label: str, values: Sequence[float], count: int = 6) -> Axis:
    """Return an axis with whole numbers as ticks, for epochs."""
    low, high = min(values), max(values)
    step = max(1, math.ceil((high - low) / count))
    ticks = tuple((float(value), f"{value}") for value in range(math.ceil(low), math.floor(high) + 1, step))
    room = 0.04 * (high - low) + 0.15
    return Axis(label, low - room, high + room, ticks)


def share_axis(label: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(label, 0.0, 1.0, tuple((place / 4, f"{place / 4:g}") for place in range(5)))


def log_axis(label: str, values: Sequence[float], ticks: Sequence[tuple[float, str]]) -> Axis:
    """Return a logarithmic axis around positive values, with those of the ticks that are in its range."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.08, 1.25)
    low, high = low / room, high * room
    return Axis(label, low, high, tuple(tick for tick in ticks if low <= tick[0] <= high), log=True)


def _round_step(raw: float) -> float:
    """Return a round step size (1, 2, 2.5 or 5 times a power of ten) near `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.8)


MARKERS: Final = ("circle", "square", "diamond", "up", "down", "cross", "hexagon", "star")
"""Markers of series."""

_FONT = 12.0


@dataclass(frozen=True)
class Series:
    """Points drawn in one color."""

    points: Sequence[tuple[float, float]]
    """(x, y) in order."""

    color: str = "s0"
    marker: str = ""
    """One of MARKERS, or "" for none."""

    line: bool = True
    dashed: bool = False
    faint: bool = False
    bars: Sequence[tuple[float, float]] = ()
    """(low, high) around each y."""

    radii: Sequence[float] = ()
    """Radius of each marker, in units of the chart."""

    notes: Sequence[str] = ()
    """Tooltip of each point."""


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart. `low` and `high` are None if no interval is known."""

    name: str
    value: float
    low: float | None
    high: float | None
    color: str = "s0"
    marker: str = "circle"


def line_chart(
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    size: tuple[int, int] = (340, 230),
    labels: Sequence[tuple[float, float, str, str]] = (),
    diagonal: bool = False,
) -> Markup:
    """Draw lines and points on two axes.

    Args:
        x: Horizontal axis.
        y: Vertical axis.
        series: What is drawn.
        title: Name of the chart, for screen readers.
        description: Its content in words, for screen readers.
        size: Width and height.
        labels: (x, y, color, name) of points whose name is written beside them, where there is room for it.
        diagonal: Draw a dotted line from corner to corner.
    """
    frame = _Frame(x, y, *size)
    parts = [_grid(frame)]
    if diagonal:
        parts.append(_segment(frame.left, frame.bottom, frame.right, frame.top, "diagonal"))
    parts += [_draw_series(frame, one) for one in series]
    parts += _place_labels(frame, labels, [box for one in series for box in _bar_boxes(frame, one)])
    return _svg(size, title, description, parts)


def interval_chart(rows: Sequence[Interval], axis: Axis, *, title: str, description: str, width: int = 340) -> Markup:
    """Draw one row a name: its value as a marker, its interval as a bar."""
    names = [_shortened(row.name, 21) for row in rows]
    left = max(_width(name) for name in names) + 12
    top, pitch = 8.0, 22.0
    height = int(top + pitch * len(rows) + 26)
    scale = _Row(axis, left, width - 14)
    parts = [_row_grid(scale, top, height - 22)]
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        middle = top + pitch * (place + 0.5)
        parts.append(_text(left - 8, middle + 4, name, "name", "end"))
        parts.append(_draw_interval(scale, row, middle))
    return _svg((width, height), title, description, parts)


def interval_cell(row: Interval, axis: Axis, *, zero: bool = False, size: tuple[int, int] = (240, 22)) -> Markup:
    """Draw one interval for a table cell. Hidden from screen readers, because the table has the numbers."""
    scale = _Row(axis, 6, size[0] - 6)
    lines = [_segment(scale.at(tick), 0, scale.at(tick), size[1], "grid") for tick, _ in axis.ticks]
    if zero:
        lines.append(_segment(scale.at(0), 0, scale.at(0), size[1], "zero"))
    return _bare_svg(size, [*lines, _draw_interval(scale, row, size[1] / 2)])


def axis_cell(axis: Axis, *, size: tuple[int, int] = (240, 16)) -> Markup:
    """Draw the ticks for the heading of a column of `interval_cell`s."""
    scale = _Row(axis, 6, size[0] - 6)
    ticks = [_text(_within(scale.at(tick), size[0]), 12, name, "tick", "middle") for tick, name in axis.ticks]
    return _bare_svg(size, ticks)


def swatch(color: str, marker: str, *, line: str = "") -> Markup:
    """Draw the symbol of a series for a legend. line: "" for none, "solid" or "dashed"."""
    stroke = [_segment(0, 7, 22, 7, f"line {color} {line}")] if line else []
    sign = [_marker(marker, 11, 7, 5, color)] if marker else []
    return _bare_svg((22, 14), [*stroke, *sign])


# Pieces


class _Frame:
    """The plot area, and the mapping from values to it."""

    def __init__(self, x: Axis, y: Axis, width: int, height: int) -> None:
        self.x, self.y = x, y
        self.left = max((_width(name) for _, name in y.ticks), default=20.0) + 12
        self.right, self.top, self.bottom = width - 14.0, 30.0, height - 38.0

    def across(self, value: float) -> float:
        """Return the horizontal position of an x value."""
        return self.left + self.x.share(value) * (self.right - self.left)

    def up(self, value: float) -> float:
        """Return the vertical position of a y value."""
        return self.bottom - self.y.share(value) * (self.bottom - self.top)


class _Row:
    """A horizontal axis, and the mapping from values to it."""

    def __init__(self, axis: Axis, left: float, right: float) -> None:
        self.axis, self.left, self.right = axis, left, right

    def at(self, value: float) -> float:
        """Return the position of a value; one beyond the axis is moved to its end."""
        return self.left + min(max(self.axis.share(value), 0.0), 1.0) * (self.right - self.left)


def _grid(frame: _Frame) -> Markup:
    parts = [_text(frame.left - 8, frame.top - 14, frame.y.label, "label")]
    if frame.left > 60:
        parts = [_text(0, frame.top - 14, frame.y.label, "label")]
    for value, name in frame.y.ticks:
        height = frame.up(value)
        parts.append(_segment(frame.left, height, frame.right, height, "grid"))
        parts.append(_text(frame.left - 8, height + 4, name, "tick", "end"))
    end = 0.0
    for value, name in frame.x.ticks:
        place, half = frame.across(value), _width(name) / 2
        parts.append(_segment(place, frame.bottom, place, frame.bottom + 4, "grid"))
        if place - half > end:  # otherwise it would overlap the tick before it
            parts.append(_text(place, frame.bottom + 17, name, "tick", "middle"))
            end = place + half + 3
    parts.append(_segment(frame.left, frame.bottom, frame.right, frame.bottom, "axis"))
    parts.append(_text(frame.right, frame.bottom + 33, frame.x.label, "label", "end"))
    return Markup("").join(parts)


def _row_grid(scale: _Row, top: float, bottom: float) -> Markup:
    lines = [_segment(scale.at(tick), top, scale.at(tick), bottom, "grid") for tick, _ in scale.axis.ticks]
    names = [_text(scale.at(tick), bottom + 16, name, "tick", "middle") for tick, name in scale.axis.ticks]
    return Markup("").join([*lines, *names])


def _draw_series(frame: _Frame, series: Series) -> Markup:
    places = [(frame.across(x), frame.up(y)) for x, y in series.points]
    parts = []
    if series.line and len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        style = " ".join(["line", series.color, *["dashed"] * series.dashed, *["faint"] * series.faint])
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(style, path))
    for (x, _), (low, high) in zip(places, series.bars, strict=False):
        parts.append(_segment(x, frame.up(low), x, frame.up(high), f"bar {series.color}"))
    if series.marker:
        faint = " faint" if series.faint else ""
        radii = series.radii or [4.5] * len(places)
        notes = series.notes or [""] * len(places)
        for (x, y), radius, note in zip(places, radii, notes, strict=True):
            parts.append(_marker(series.marker, x, y, radius, series.color + faint, note))
    return Markup("").join(parts)


def _draw_interval(scale: _Row, row: Interval, middle: float) -> Markup:
    """Draw a value, and its interval if it has one."""
    parts = []
    if row.low is not None and row.high is not None:
        parts.append(_segment(scale.at(row.low), middle, scale.at(row.high), middle, f"bar {row.color}"))
    parts.append(_marker(row.marker, scale.at(row.value), middle, 5, row.color, _tooltip(row)))
    return Markup("").join(parts)


def _tooltip(row: Interval) -> str:
    bounds = "" if row.low is None or row.high is None else f" ({row.low:.3f} to {row.high:.3f})"
    return f"{row.name}: {row.value:.3f}{bounds}"


def _marker(shape: str, x: float, y: float, radius: float, style: str, note: str = "") -> Markup:
    tip = Markup("<title>{}</title>").format(mark_hidden(note)) if note else Markup("")
    if shape == "circle":
        head = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">').format(style, x, y, radius)
        return head + tip + Markup("</circle>")
    corners = " ".join(f"{x + radius * a:.1f},{y + radius * b:.1f}" for a, b in _outline(shape))
    return Markup('<polygon class="dot {}" points="{}">').format(style, corners) + tip + Markup("</polygon>")


_CORNERS: Final = {
    # shape: number of corners, angle of the first one in degrees, distance from the center
    "diamond": (4, 0, 1.25),
    "up": (3, -90, 1.35),
    "down": (3, 90, 1.35),
    "hexagon": (6, 0, 1.1),
    "square": (4, 45, 1.25),
    "star": (10, -90, 1.4),
}
_CROSS: Final = ((0.4, 1.15), (0.4, 0.4), (1.15, 0.4))
"""A quarter of the cross; the others are this one rotated."""


def _outline(shape: str) -> list[tuple[float, float]]:
    """Return the corners of a shape around (0, 0), with about the area of a circle of radius 1."""
    if shape == "cross":
        quarters = [(1, 0), (0, 1), (-1, 0), (0, -1)]
        return [(a * x + b * y, a * y - b * x) for a, b in quarters for x, y in _CROSS]
    corners, start, reach = _CORNERS[shape]
    lengths = [reach * (0.45 if shape == "star" and place % 2 else 1.0) for place in range(corners)]
    angles = [math.radians(start + 360 / corners * place) for place in range(corners)]
    return [(length * math.cos(angle), length * math.sin(angle)) for length, angle in zip(lengths, angles, strict=True)]


def _place_labels(
    frame: _Frame, labels: Sequence[tuple[float, float, str, str]], bars: Sequence["_Box"]
) -> list[Markup]:
    """Write names beside their points, each where it covers the least of points, bars and earlier names.

    A name that would cover too much is left out: a crowd of names cannot be read, and the legend has them all.
    """
    points = [(frame.across(x), frame.up(y)) for x, y, _, _ in labels]
    taken = [*bars, *((x - 8, y - 8, x + 8, y + 8) for x, y in points)]
    parts = []
    for (x, y), (_, _, color, name) in zip(points, labels, strict=True):
        line = _shortened(name, 30)
        boxes = [(left, base - 10, left + _width(line), base + 3) for left, base in _spots(x, y, _width(line))]
        box = min(boxes, key=lambda box: _covered(box, taken, frame))
        if _covered(box, taken, frame) > _MOST_COVERED * _area(box):
            continue
        taken.append(box)
        parts.append(_text(box[0], box[3] - 3, line, f"name {color}"))
    return parts


def _bar_boxes(frame: _Frame, series: Series) -> list["_Box"]:
    ends = zip(series.points, series.bars, strict=False)
    return [(frame.across(x) - 3, frame.up(high), frame.across(x) + 3, frame.up(low)) for (x, _), (low, high) in ends]


_Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_MOST_COVERED = 0.1
"""The share of a name that may cover something else, or lie outside."""


def _spots(x: float, y: float, wide: float) -> list[tuple[float, float]]:
    """Return possible positions of a text of this width, best first: beside its point, below, above, farther."""
    sides = [(x + 12, y + 4), (x - 12 - wide, y + 4)]
    return sides + [(x - back, y + down) for down in (21, -13, 35, -27) for back in (wide / 2, wide - 10, 10)]


def _covered(box: _Box, taken: Sequence[_Box], frame: _Frame) -> float:
    """Return the area of a box that is on top of other boxes or outside the frame."""
    inside = _overlap(box, (frame.left - 20, 18, frame.right + 12, frame.bottom))
    return _area(box) - inside + sum(_overlap(box, other) for other in taken)


def _area(box: _Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _within(place: float, width: int) -> float:
    return min(max(place, 12), width - 12)


def _segment(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    template = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return template.format(style, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> Markup:
    template = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return template.format(style, x, y, anchor, mark_hidden(text))


def _svg(size: tuple[int, int], title: str, description: str, parts: Sequence[Markup]) -> Markup:
    """Return an SVG with a name and a description, both inside the SVG, so that no ids can collide."""
    template = Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 {} {}" style="max-width:{}px"><title>{}</title>'
        "<desc>{}</desc>{}</svg>"
    )
    width, height = size
    name = mark_hidden(title)
    return template.format(
        f"{name}. {mark_hidden(description)}",
        width,
        height,
        round(width * 1.25),
        name,
        mark_hidden(description),
        Markup("").join(parts),
    )


def _bare_svg(size: tuple[int, int], parts: Sequence[Markup]) -> Markup:
    template = Markup('<svg aria-hidden="true" viewBox="0 0 {0} {1}" width="{0}" height="{1}">{2}</svg>')
    return template.format(*size, Markup("").join(parts))


def _width(text: str) -> float:
    """Estimate the width of a text. Characters of wide scripts (CJK) are as wide as high."""
    return sum(_FONT if ord(character) > 0x2E80 else 0.6 * _FONT for character in mark_hidden(text))


def _shortened(name: str, limit: int) -> str:
    """Shorten a long name in the middle, because names of recipes often differ at the end."""
    line = " ".join(name.split())
    return line if len(line) <= limit else f"{line[: limit - 9]}…{line[-8:]}"
