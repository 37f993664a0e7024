"""Axes, charts and harmless texts of the report."""

import html
import math
import re
import unicodedata
from xml.etree import ElementTree

import pytest
from helpers.leaderboards import HOSTILE, STRANGE
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison import svg
from fullbake.comparison import svg as svg_module
from fullbake.comparison.svg import (
    Interval,
    Series,
    axis_cell,
    bounded_axis,
    escape_text,
    interval_cell,
    interval_chart,
    isolate_text,
    line_chart,
    linear_axis,
    log_axis,
    share_axis,
    swatch,
    whole_axis,
)
from fullbake.core.markup import mark_hidden

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
any_text = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(st.sampled_from(BIDI + "a<&\x00\ud800"))


def unmarked(page: str) -> str:
    """The text of `reveal`'s HTML, marks as `show` writes them."""
    return html.unescape(re.sub(r'<span class="mark" title="[^"<>&]*">(U\+[0-9A-F]{4,6})</span>', r"⟦\1⟧", page))


@given(any_text)
def test_html_and_plain_text_say_the_same(text: str) -> None:
    assert unmarked(escape_text(text)) == mark_hidden(text)
    assert isolate_text(text) == f"<bdi>{escape_text(text)}</bdi>"


@given(any_text)
def test_what_is_shown_can_be_written_and_reorders_nothing(text: str) -> None:
    for shown in (mark_hidden(text), escape_text(text)):
        shown.encode()
        assert not set(shown) & set(BIDI)
        assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]


@given(any_text)
def test_no_markup_comes_out_of_a_text(text: str) -> None:
    assert set(re.findall(r"<[^>]*?[ >]", escape_text(text))) <= {"<span ", "</span>"}


@pytest.mark.parametrize("text", ["plain", "a\n\tb", *STRANGE, "👩‍🍳", "می‌خواهم", "café", "é"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert mark_hidden(text) == text
    assert html.unescape(escape_text(text)) == text


def test_marks_name_what_was_hidden() -> None:
    assert mark_hidden("a\u202eb\x00\ud800") == "a⟦U+202E⟧b⟦U+0000⟧⟦U+D800⟧"
    assert 'title="right-to-left override">U+202E<' in escape_text("\u202e")
    assert 'title="control character">U+0000<' in escape_text("\x00")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_hold_no_tag(text: str) -> None:
    assert not re.search(r"<(?!span class=\"mark\"|/span>)", escape_text(text))


numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))


@given(st.lists(numbers, min_size=1, max_size=8), st.integers(2, 8))
def test_a_linear_axis_holds_its_values_between_ticks_that_are_true(values: list[float], count: int) -> None:
    axis = linear_axis("x", values, count)
    assert axis.low < min(values) <= max(values) < axis.high
    assert all(0 < axis.share(value) < 1 for value in values)
    assert 1 <= len(axis.ticks) <= count + 2
    names = [name for _, name in axis.ticks]
    assert len(set(names)) == len(names)
    step = (axis.high - axis.low) / count
    assert all(math.isclose(float(name.replace("−", "-")), value, abs_tol=step / 100) for value, name in axis.ticks)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.61, 0.74], ["0.625", "0.650", "0.675", "0.700", "0.725"]),
        ([-0.1, 0.2], ["−0.1", "0.0", "0.1", "0.2"]),
        ([3.0], ["2.85", "2.90", "2.95", "3.00", "3.05", "3.10"]),
    ],
)
def test_ticks_are_round(values: list[float], names: list[str]) -> None:
    assert [name for _, name in linear_axis("x", values).ticks] == names


@given(st.lists(numbers, min_size=1, max_size=8), numbers, st.integers(2, 8))
def test_a_bounded_axis_goes_from_the_best_score_beyond_every_value(
    values: list[float], end: float, count: int
) -> None:
    farthest = max(values, key=lambda value: abs(value - end))
    sided = [value for value in values if (value - end) * (farthest - end) >= 0]
    axis = bounded_axis("x", sided or [farthest], end, count)
    assert end == pytest.approx(axis.low if farthest > end else axis.high, abs=1e-9)
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in sided)
    assert 2 <= len(axis.ticks) <= 2 * count + 2


def test_an_axis_of_scores_ends_at_1_and_has_the_baselines_on_it() -> None:
    axis = bounded_axis("F1", [0.86, 0.89, 0.053], 1.0)
    assert [name for _, name in axis.ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [name for _, name in bounded_axis("F1", [0.97], 1.0).ticks][-1] == "1.000"
    assert bounded_axis("F1", [1.0], 1.0).low < 1
    assert bounded_axis("F1", [0.3], 1.0, 7).low == pytest.approx(0.3)


def test_an_axis_of_losses_starts_at_0() -> None:
    assert [name for _, name in bounded_axis("loss", [0.4, 1.9], 0.0).ticks] == ["0.0", "0.5", "1.0", "1.5", "2.0"]


@pytest.mark.parametrize("last", [1, 2, 10, 100])
def test_epochs_are_whole(last: int) -> None:
    axis = whole_axis("epoch", [1, last])
    assert all(value == int(name) for value, name in axis.ticks)
    assert axis.ticks[0][0] == 1
    assert len(axis.ticks) <= 8


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5))
def test_equal_factors_lie_equally_far_apart(values: list[float]) -> None:
    axis = log_axis("x", values, [(value, "") for value in values])
    assert len(axis.ticks) == len(values)
    low, high = axis.share(min(values)), axis.share(max(values))
    assert axis.share(math.sqrt(min(values)) * math.sqrt(max(values))) == pytest.approx((low + high) / 2, abs=1e-6)


def test_shares_go_from_nothing_to_all() -> None:
    axis = share_axis("recall")
    assert [axis.share(value) for value in (0, 0.25, 1)] == [0, 0.25, 1]


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
    return ElementTree.fromstring(svg.line_chart(x, y, series, title="a title", description="what it says", **more))


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
    plot = svg_module.line_chart(axis, axis, [series], title=text, description=text, labels=[(0.1, 0.2, "s0", text)])
    for chart in (plot, interval_chart([row], axis, title=text, description=text)):
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


def test_names_in_a_crowd_are_left_out() -> None:
    crowd = [(1.0 + 0.001 * place, 0.7) for place in range(12)]
    labels = [(x, y, "s0", f"a recipe with a name {place}") for place, (x, y) in enumerate(crowd)]
    svg = drawn(*(Series([point], marker="circle") for point in [*crowd, (5.0, 0.2)]), size=(350, 340), labels=labels)
    names = [text for text in svg.iter("text") if (text.text or "").startswith("a recipe")]
    assert 0 < len(names) < 12


def test_long_names_keep_both_ends() -> None:
    row = Interval("a-recipe-with-a-very-long-name-v2", 0.5, 0.4, 0.6)
    svg = interval_chart([row], share_axis(""), title="t", description="d")
    assert "…-name-v2<" in svg


def test_ticks_that_would_touch_are_left_out() -> None:
    x = log_axis("rate", [4.9e-5, 5e-5], [(4.9e-5, "4.9e-5"), (4.95e-5, "4.95e-5"), (5e-5, "5e-5")])
    svg = line_chart(x, share_axis("y"), [Series([(5e-5, 0.5)])], title="t", description="d", size=(200, 200))
    assert "4.95e-5" not in svg
    assert "4.9e-5" in svg
