"""Entries of caches survive the way to another machine, and nothing else is written there."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fullbake.comparison.cache_entries import _is_inside, install_entries, pack_entries
from fullbake.comparison.packing import join_message
from fullbake.core.cache import Cache, noted_entries


def test_an_entry_is_installed_once_and_checked(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "here" / "features", 10**9)

    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "rows").write_bytes(b"12")

    with noted_entries() as noted:
        cache.store("k", "some rows", write)
        Cache(tmp_path / "here" / "others", 10**9).store("k", "not carried", write)
    entries = pack_entries(noted)
    assert list(entries) == ["features/k"]
    install_entries(entries, tmp_path / "there")
    install_entries(entries, tmp_path / "there")
    found = Cache(tmp_path / "there" / "features", 10**9)
    folder = found.get("k")
    assert folder is not None
    assert (folder / "sub" / "rows").read_bytes() == b"12"
    assert [one.description for one in found.entries()] == ["some rows"]


@pytest.mark.parametrize("name", ["../rows", "/tmp/rows", "a/../../rows", "", "a\\b"])
def test_no_file_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        install_entries({"features/k": join_message({"description": "x"}, {name: b"1"})}, tmp_path)
    with pytest.raises(ValueError, match="cache 'other'"):
        install_entries({"other/k": join_message({"description": "x"}, {"rows": b"1"})}, tmp_path)
    with pytest.raises(ValueError, match="cache key"):
        install_entries({"features/../k": join_message({"description": "x"}, {"rows": b"1"})}, tmp_path)


@given(name=st.text())
@example("a/b")
def test_names_that_are_inside_stay_there(name: str) -> None:
    if _is_inside(name):
        assert Path("/folder", name).resolve().is_relative_to("/folder")
