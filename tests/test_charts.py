"""Charts are well-formed, named, inside their frame, and tell their series apart without color."""

import re
from xml.etree import ElementTree

import pytest
from boards import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison import svg
from fullbake.comparison import svg as svg_module
from fullbake.comparison.svg import (
    Interval,
    Series,
    axis_cell,
    interval_cell,
    intervals,
    log_axis,
    plot,
    share_axis,
    swatch,
)

points = st.lists(st.tuples(st.floats(0, 1), st.floats(-5, 5)), min_size=1, max_size=6)


def places(svg: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the lines and markers are."""
    pairs = [p for shape in svg.iter() for p in shape.get("points", "").split()]
    found = [tuple(map(float, pair.split(","))) for pair in pairs]
    found += [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in svg.iter("circle")]
    return [(x, y) for x, y in found]


def drawn(*series: Series, **more: object) -> ElementTree.Element:
    every = [point for one in series for point in one.points]
    x, y = (svg.linear_axis(name, [p[at] for p in every]) for at, name in enumerate(("x", "y")))
    return ElementTree.fromstring(svg.plot(x, y, series, title="a title", description="what it says", **more))


@given(points, st.sampled_from(svg.MARKERS))
def test_a_plot_keeps_within_its_frame(data: list[tuple[float, float]], marker: str) -> None:
    svg = drawn(Series(data, "s1", marker))
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    assert all(-2 <= x <= width + 2 and -2 <= y <= height + 2 for x, y in places(svg))


@pytest.mark.parametrize("text", [*HOSTILE, "名前", "a & b"])
def test_every_chart_is_well_formed_and_named_whatever_names_say(text: str) -> None:
    row = Interval(text, 0.5, 0.4, 0.6)
    axis = share_axis("recall")
    series = Series([(0.1, 0.2)], marker="star", notes=[text])
    plot = svg_module.plot(axis, axis, [series], title=text, description=text, labels=[(0.1, 0.2, "s0", text)])
    for chart in (plot, intervals([row], axis, title=text, description=text)):
        svg = ElementTree.fromstring(chart)
        assert svg.get("role") == "img"
        assert svg.get("aria-label")
        assert [child.tag for child in svg][:2] == ["title", "desc"]
    for chart in (interval_cell(row, axis, zero=True), axis_cell(axis), swatch("s0", "star")):
        assert ElementTree.fromstring(chart).get("aria-hidden") == "true"


def test_markers_differ_in_shape() -> None:
    shapes = {marker: re.sub(r'class="[^"]*"', "", svg.swatch("s0", marker)) for marker in svg.MARKERS}
    assert len(set(shapes.values())) == len(svg.MARKERS)


@pytest.mark.parametrize("marker", svg.MARKERS)
def test_markers_are_about_equally_large(marker: str) -> None:
    corners = places(ElementTree.fromstring(svg.swatch("s0", marker)))
    if marker != "circle":
        turned = corners[1:] + corners[:1]
        area = abs(sum(x * b - a * y for (x, y), (a, b) in zip(corners, turned, strict=True))) / 2
        assert 40 < area < 100  # a circle of radius 5 has 79


def test_an_interval_beyond_the_axis_is_an_arrow_at_its_end() -> None:
    axis = svg.linear_axis("", [0.5, 0.7])
    inside, outside = (svg.interval_cell(Interval("a", at, at - 0.1, at + 0.1), axis) for at in (0.6, 0.1))
    assert "bar" in inside
    assert "bar" not in outside
    assert min(x for x, _ in places(ElementTree.fromstring(outside))) < 10


def test_an_interval_without_bounds_is_a_point() -> None:
    cell = svg.interval_cell(Interval("a", 0.5, None, None), svg.share_axis(""))
    assert "bar" not in cell
    assert "<title>a: 0.500</title>" in cell


def test_names_beside_points_keep_clear_of_each_other() -> None:
    near = [(1.0, 0.70), (1.1, 0.70), (1.0, 0.71), (5.0, 0.2)]
    labels = [(x, y, "s0", f"a recipe {place}") for place, (x, y) in enumerate(near)]
    svg = drawn(*(Series([point], marker="circle") for point in near), size=(680, 360), labels=labels)
    texts = [text for text in svg.iter("text") if (text.text or "").startswith("a recipe")]
    boxes = [(float(text.get("x", "")), float(text.get("y", ""))) for text in texts]
    assert len(boxes) == 4
    for place, (x, y) in enumerate(boxes):
        assert not [1 for a, b in boxes[place + 1 :] if abs(x - a) < 70 and abs(y - b) < 12]


def test_long_names_keep_both_ends() -> None:
    row = Interval("a-recipe-with-a-very-long-name-v2", 0.5, 0.4, 0.6)
    svg = intervals([row], share_axis(""), title="t", description="d")
    assert "…-name-v2<" in svg


def test_ticks_that_would_touch_are_left_out() -> None:
    x = log_axis("rate", [4.9e-5, 5e-5], [(4.9e-5, "4.9e-5"), (4.95e-5, "4.95e-5"), (5e-5, "5e-5")])
    svg = plot(x, share_axis("y"), [Series([(5e-5, 0.5)])], title="t", description="d", size=(200, 200))
    assert "4.95e-5" not in svg
    assert "4.9e-5" in svg
