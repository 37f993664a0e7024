"""A folder with a subfolder for each class: each file is a text."""

from pathlib import Path

import pytest
from helpers.table_files import assert_refused, read_rows, write_scored

from fullbake.config.sections import DataConfig
from fullbake.core.errors import DataError
from fullbake.data.dataset import read_dataset
from fullbake.data.files import files_of, is_sorted_by_class, open_table
from fullbake.data.inspection import inspect_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {
        "neg/1.txt": "bad\n",
        "neg/2": "café, twice\r\n",
        "pos/1.txt": "\ufeffgood",
        "pos/.hidden": "x",
        "_new/1": "x",
    }
    for name, text in texts.items():
        path = tmp_path / "reviews" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path / "reviews"


def test_each_file_is_a_row(folder: Path) -> None:
    assert read_rows(folder) == [
        ["bad\n", "neg", "neg/1.txt"],
        ["café, twice\r\n", "neg", "neg/2"],
        ["good", "pos", "pos/1.txt"],
    ]
    dataset = read_dataset(folder, text="text", label="label")
    assert dataset.label_names == ("neg", "pos")
    assert [path.name for path in files_of(folder)] == ["1.txt", "2", "1.txt"]


def test_it_is_written_like_any_table(folder: Path, tmp_path: Path) -> None:
    write_scored(open_table(folder, columns=["text"]), tmp_path / "out.csv")
    assert [row[1:3] for row in read_rows(tmp_path / "out.csv")][2] == ["pos", "pos/1.txt"]


def test_encoding_is_a_flag_and_other_flags_are_refused(folder: Path) -> None:
    (folder / "pos" / "2.txt").write_bytes("café".encode("latin-1"))
    assert_refused(folder, "pos/2.txt, line 1, byte 3", "--encoding")
    assert read_rows(folder, encoding="latin-1")[-1][0] == "café"
    assert_refused(folder, "--delimiter does not apply", delimiter=";")
    assert_refused(folder, "no column 'body'", "'text', 'label', 'file'", columns=["body"])


def test_what_is_no_text_is_refused_with_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pos" / "3").write_bytes(b"a\nb\0c")
    assert_refused(folder, "pos/3, line 2", "NUL")
    (folder / "pos" / "3").write_text("x" * 100)
    monkeypatch.setattr("fullbake.data.class_folders.MAX_FIELD_CHARACTERS", 99)
    assert_refused(folder, "pos/3", "too long")


def test_folders_within_a_class_are_refused(folder: Path) -> None:
    (folder / "pos" / "more").mkdir()
    assert_refused(folder, "pos/more", "a folder within the folder of a class")


def test_files_beside_the_classes_are_said_to_be_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "urls.txt").write_text("x")
    assert len(read_rows(folder)) == 3
    assert "urls.txt" in caplog.text


def test_folders_of_tables_stay_tables(folder: Path) -> None:
    (folder / "rows.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match="folder within a folder"):
        open_table(folder)


def test_that_rows_come_class_after_class_is_no_finding(tmp_path: Path) -> None:
    for number in range(60):
        path = tmp_path / "rows" / ("neg" if number < 30 else "pos") / f"{number:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"row {number} of the same {'words and things'[: 3 + number % 13]}")
    assert is_sorted_by_class(tmp_path / "rows")
    assert not is_sorted_by_class(tmp_path)
    assert not is_sorted_by_class("owner/name")
    facts = inspect_file(tmp_path / "rows", DataConfig(text="text", label="label"))
    assert (facts.rows, [one.kind for one in facts.findings if one.kind == "sorted by label"]) == (60, [])
