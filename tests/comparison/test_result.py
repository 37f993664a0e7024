"""What `compare` returns is the leaderboard, and a notebook shows it with the verdict and a link."""

import json
import re
from pathlib import Path

import pytest
from helpers.leaderboards import board

from fullbake.comparison.result import Comparison


def test_it_is_still_the_leaderboard(tmp_path: Path) -> None:
    found = Comparison(board("binary"), tmp_path)
    assert found == board("binary")
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(board("binary")))
    assert found.page == tmp_path / "report.html"


def test_one_line_has_the_verdict(tmp_path: Path) -> None:
    found = Comparison(board("binary"), tmp_path)
    assert repr(found) == f"Comparison({len(found['recipes'])} recipes: {found['verdict']['words'][0]})"


def test_a_notebook_gets_the_table_and_a_relative_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = Comparison(board("binary"), tmp_path / "out")
    page = found._repr_html_()
    assert 'href="out/report.html"' in page
    assert str(tmp_path) not in page
    assert "recommended" in page
    for entry in found["recipes"]:
        assert entry["name"] in page


@pytest.mark.parametrize("kind", ["bare", "hostile"])
def test_what_failed_or_attacks_is_shown_as_text(kind: str, tmp_path: Path) -> None:
    page = Comparison(board(kind), tmp_path)._repr_html_()
    tags = set(re.findall(r"<([a-z]+)", page))
    allowed = {"div", "style", "p", "table", "thead", "tbody", "tr", "th", "td", "bdi", "b", "span", "ul", "li", "a"}
    assert tags <= allowed
    assert "\u202e" not in page
