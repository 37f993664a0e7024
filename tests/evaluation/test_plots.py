"""Figures are white PNGs of a sensible size for every history and every number of classes."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.image import imread

from fullbake.evaluation import plots


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) in 0..1."""
    return imread(io.BytesIO(png))[:, :, :3]


def colored(image: np.ndarray, color: str) -> int:
    """How many pixels have a color of the palette."""
    wanted = np.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return int((np.abs(image - wanted) < 0.01).all(axis=2).sum())


def run(epochs: int, best: int | None = None, **more: object) -> list[dict[str, object]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "validation_loss": 0.5 + 1 / epoch,
            "f1_macro": 0.9 - 0.3 / epoch,
            "best": epoch == best,
            **more,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_history_is_drawn_on_white_in_two_colors(epochs: int) -> None:
    image = pixels(plots.history_figure(run(epochs, best=epochs), "f1_macro"))
    assert image.shape[1] == pytest.approx(1200)
    assert (image[0] == 1).all()
    assert (image[-1] == 1).all()
    assert all(colored(image, color) > 20 for color in plots.PLOT_COLORS[:2])


def test_chosen_epoch_is_marked() -> None:
    unmarked = pixels(plots.history_figure(run(5), "f1_macro"))
    marked = pixels(plots.history_figure(run(5, best=2), "f1_macro"))
    assert colored(marked, "#000000") > colored(unmarked, "#000000")


def test_every_learning_rate_has_its_color() -> None:
    grid = [entry for rate in (5e-5, 4e-5, 3e-5, 2e-5) for entry in run(3, rate=rate, best=2 if rate == 3e-5 else None)]
    image = pixels(plots.history_figure(grid, "f1_macro"))
    assert all(colored(image, color) > 20 for color in plots.PLOT_COLORS[:4])
    assert colored(image, plots.PLOT_COLORS[4]) == 0


def test_strengths_of_a_logistic_regression_have_a_log_axis() -> None:
    trials = [
        {"C": 10.0**power, "train_loss": 1.0, "validation_loss": 1.0, "accuracy": 0.5, "best": power == 0}
        for power in range(-3, 4)
    ]
    blue = np.abs(pixels(plots.history_figure(trials, "accuracy")) - np.array([0, 0x72, 0xB2]) / 255) < 0.01
    columns = np.flatnonzero(blue.all(axis=2)[:, :580].any(axis=0))
    assert columns.max() - columns.min() > 400  # equal factors are equally far apart over the whole panel


@pytest.mark.parametrize("classes", [2, 3, 12, 31, 80])
def test_confusion_matrix_of_any_size_is_drawn(classes: int) -> None:
    matrix = np.diag(np.full(classes, 1234))
    image = pixels(plots.confusion_figure(matrix, [f"a rather long name of class {i}" for i in range(classes)]))
    assert max(image.shape) < 2600
    full, empty = image.min(axis=(0, 1)), image[5, 5]
    assert full.sum() < 0.6  # the diagonal is dark
    assert (empty == 1).all()


def test_counts_are_written_in_cells_with_room() -> None:
    few, many = np.full((3, 3), 8888), np.zeros((3, 3), dtype=int)
    assert len(plots.confusion_figure(few, list("abc"))) > len(plots.confusion_figure(many, list("abc")))


@pytest.mark.parametrize("name", ["$x_", "$\\frac{1$", "", "中文标签", "two\nlines", "{%}"])
def test_any_label_name_is_drawn_literally(name: str) -> None:
    png = plots.confusion_figure([[3, 1], [0, 4]], [name, "other"])
    assert pixels(png).shape[0] > 100


class OneFont:
    """A machine with one more font than matplotlib's own: its file, and the characters that it has."""

    def __init__(self, path: str, has: str) -> None:
        self.family_name = path
        self.has = has

    def get_charmap(self) -> dict[int, int]:
        return {ord(character): 1 for character in self.has}


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without any font but matplotlib's own."""
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    plots._fonts_with.cache_clear()
    plots._warn_of_boxes.cache_clear()
    yield
    plots._fonts_with.cache_clear()


@pytest.mark.usefixtures("no_fonts")
def test_characters_that_no_font_has_are_named_once_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fullbake"):
        first = plots.confusion_figure([[3, 1], [0, 4]], ["好评", "差评"])
        plots.confusion_figure([[3, 1], [0, 4]], ["好评", "差评"])
    (message,) = caplog.messages
    assert "no installed font has characters such as '好差评'" in message
    assert "fonts-noto-cjk" in message
    assert pixels(first).shape[0] > 100


def test_latin_labels_look_for_no_font(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_fonts_with", lambda _: pytest.fail("no font is needed"))
    with caplog.at_level(logging.WARNING, "fullbake"):
        plots.confusion_figure([[3, 1], [0, 4]], ["plain", "naïve café"])
    assert not caplog.messages


def test_fonts_are_opened_until_all_characters_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = {"a.ttf": "", "b-CJK.ttc": "好", "c.ttf": "评x", "d.ttf": "好评"}
    opened: list[str] = []

    def open_font(path: str) -> OneFont:
        opened.append(path)
        if path == "a.ttf":
            raise RuntimeError("a bitmap font")
        return OneFont(path, fonts[path])

    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: sorted(fonts, reverse=True))
    monkeypatch.setattr("matplotlib.ft2font.FT2Font", open_font)
    monkeypatch.setattr("matplotlib.font_manager.fontManager.addfont", lambda _: None)
    plots._fonts_with.cache_clear()
    assert plots._fonts_with(frozenset(map(ord, "好评"))) == ("b-CJK.ttc", "c.ttf")
    assert opened == ["b-CJK.ttc", "a.ttf", "c.ttf"]  # first those whose names speak of many scripts
    plots._fonts_with.cache_clear()


@pytest.mark.skipif(
    not plots._fonts_with(frozenset(map(ord, "好评差"))),
    reason="no font with Chinese: apt-get install fonts-wqy-microhei",
)
def test_an_installed_font_draws_chinese_labels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fullbake"):
        drawn = plots.confusion_figure([[3, 1], [0, 4]], ["好评", "差评"])
    assert not caplog.messages
    other = plots.confusion_figure([[3, 1], [0, 4]], ["评好", "评差"])
    assert drawn != other  # boxes would look alike


def test_the_same_history_gives_the_same_bytes() -> None:
    assert plots.history_figure(run(3, 1), "f1_macro") == plots.history_figure(run(3, 1), "f1_macro")


def test_matplotlib_loads_with_the_first_figure_and_pyplot_never() -> None:
    code = """
import sys
from fullbake.evaluation import plots
assert "matplotlib" not in sys.modules
plots.confusion_figure([[1, 0], [0, 1]], ["a", "b"])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


RELIABILITY = {"ece": 0.1, "bins": [{"low": 0.2, "high": 0.4, "count": 3, "confidence": 0.3, "accuracy": 0.5}]}


def test_reliability_is_drawn_before_and_after() -> None:
    image = pixels(plots.reliability_figure(RELIABILITY, RELIABILITY | {"ece": 0.05}))
    assert colored(image, plots.PLOT_COLORS[0]) > 20
    assert colored(image, plots.PLOT_COLORS[1]) > 5


@pytest.mark.parametrize("count", [1, 28, 120])
def test_scores_of_any_number_of_labels_are_drawn(count: int) -> None:
    def value(number: float | None) -> dict[str, float | None]:
        return {"value": number}

    rows = [
        {
            "label": f"${n}^ label",
            "support": n,
            "precision": value(None),
            "recall": value(0.5),
            "f1": value(n / count),
        }
        for n in range(count)
    ]
    image = pixels(plots.labels_figure(rows))
    assert colored(image, plots.PLOT_COLORS[1]) > 20
    assert image.shape[0] > 24 * count


@pytest.mark.parametrize("limit", [None, 40, 9999])
def test_length_limit_is_drawn_where_it_lies_among_the_lengths(limit: int | None) -> None:
    image = pixels(plots.data_figure({"a": 3, "漢字": 1}, 4, [(4, 1), (64, 2), (512, 1)], limit))
    assert colored(image, plots.PLOT_COLORS[5]) > 1000
    assert (colored(image, plots.PLOT_COLORS[1]) > 50) == (limit == 40)
