"""Pages are whole or absent, and replace nothing that fullbake did not write."""

from pathlib import Path

import pytest

from fullbake.core import pages as page
from fullbake.core.errors import OutputError
from fullbake.core.markup import tag

HEAD = '<!DOCTYPE html><meta name="generator" content="fullbake 0.1.0"><title>page</title>'


def test_a_target_that_is_free_or_an_older_page_may_be_written(tmp_path: Path) -> None:
    target = tmp_path / "m.html"
    page.check_page_target(target, overwrite=False)
    page.write_page(target, HEAD)
    page.check_page_target(target, overwrite=True)
    with pytest.raises(OutputError, match="page of an earlier classifier"):
        page.check_page_target(target, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_fullbake_did_not_write_stays(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "m.html"
    target.write_text("<title>my thesis</title>")
    with pytest.raises(OutputError, match="something else has its name"):
        page.check_page_target(target, overwrite=overwrite)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputError, match="got a folder"):
        page.check_page_target(tmp_path / "folder.html", overwrite=overwrite)


def test_pages_of_fullbake_are_known_as_such(tmp_path: Path) -> None:
    written = page.write_page(tmp_path / "m.html", page.simple_page("title", tag("p", "<text>")))
    assert "<p>&lt;text&gt;</p>" in written.read_text("utf-8")
    assert page.is_page(written)
    assert not page.is_page(tmp_path / "absent.html")
    assert not page.is_page(tmp_path)
