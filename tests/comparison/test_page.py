"""What all pages share."""

from importlib import resources
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from fullbake.comparison import page
from fullbake.core.pages import CONTENT_POLICY


def test_templates_forbid_what_other_pages_forbid() -> None:
    layout = resources.files("fullbake") / "resources" / "templates" / "layout.html"
    assert CONTENT_POLICY in layout.read_text("utf-8")


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [("out/first", "out/first.html"), ("out/first/", "out/first.html"), ("m.v2", "m.v2.html")],
)
def test_the_page_has_the_name_of_its_bundle(bundle: str, expected: str) -> None:
    assert page.page_beside(Path(bundle)) == Path(expected)


def test_the_page_of_the_folder_one_is_in_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path / "m")
    assert page.page_beside(Path()) == tmp_path / "m.html"


def test_a_template_that_lacks_a_variable_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        page.render_page("report.html", {})


def test_large_matrices_become_lists_of_mistakes() -> None:
    small = page.view_matrix("m", [[3, 1], [0, 4]], ["a", "b"])
    assert small["confusions"] is None
    assert [[count for count, _ in row] for row in small["cells"]] == [[3, 1], [0, 4]]
    names = [f"class {place}" for place in range(page.LARGEST_MATRIX + 1)]
    counts = [[9 if column == row else int(column == 2) for column in range(len(names))] for row in range(len(names))]
    counts[7][3] = 5
    large = page.view_matrix("m", counts, names)
    assert large["cells"] is None
    assert large["confusions"][0] == ("class 7", "class 3", 5)
    assert len(large["confusions"]) == 10


def test_sections_without_content_are_left_out() -> None:
    assert page.sections_of({"a": ("A", True), "b": ("B", []), "c": ("C", None), "d": ("D", [0])}) == [
        ("a", "A"),
        ("d", "D"),
    ]


def test_pairs_and_many_labels_are_joined() -> None:
    entry = {"row": 1, "text": ["one", "other"], "label": ["a", "b"], "predicted": []}
    assert page.view_mistakes([entry]) == [
        {"row": 1, "text": "one\n|\nother", "label": "a, b", "predicted": "none", "probability": None}
    ]
