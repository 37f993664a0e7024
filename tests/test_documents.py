"""Raw text as documents: what ends one, what every source gives, and what is refused, with its place."""

import gzip
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.core.errors import DataError
from fullbake.pretraining import documents
from fullbake.pretraining.documents import Document, beginning, file_source, text_source


def read(path: Path, **options: str) -> list[tuple[str, ...]]:
    return [document.paragraphs for document in file_source(path, **options).read()]


def test_a_blank_line_ends_a_document(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\n\none\ntwo\r\n \t\n\nthree\n")
    found = list(file_source(path).read())
    assert [document.paragraphs for document in found] == [("one", "two"), ("three",)]
    assert [document.where for document in found] == [f"{path}, line 3", f"{path}, line 7"]
    assert not any(document.continues for document in found)


def test_a_packed_file_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"eins\n\nzwei"))
    assert read(path) == [("eins",), ("zwei",)]
    assert file_source(path).size is None


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_row_of_a_table_is_a_document(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.{form}"
    if form == "csv":
        path.write_text('id,body\n1,"one\n\ntwo"\n2,\n3,three\n')
    elif form == "jsonl":
        path.write_text('{"body": "one\\n\\ntwo"}\n{"body": null}\n{"body": "three"}\n')
    else:
        parquet.write_table(pa.table({"body": ["one\n\ntwo", None, "three"]}), path)
    assert read(path, text="body") == [("one", "two"), ("three",)]


def test_a_folder_is_one_table_and_what_lies_about_in_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("text\ntwo\n")
    (tmp_path / "a.csv").write_text("text\none\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "_done").write_text("")
    assert read(tmp_path) == [("one",), ("two",)]


def test_texts_in_memory(tmp_path: Path) -> None:
    texts = ["one\ntwo", " ", "three"]
    column = pa.chunked_array([texts[:1], texts[1:]])
    for source in (text_source(texts, "train", "k"), text_source(column, "train", "k")):
        assert list(source.read()) == [Document("train, row 1", ("one", "two")), Document("train, row 3", ("three",))]
        assert source.size


def test_the_fingerprint_is_of_what_is_read_not_of_where_it_lies(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("a")
    other.write_text("a")
    assert file_source(one).fingerprint == file_source(other).fingerprint
    assert file_source(one).fingerprint != file_source(one, encoding="latin-1").fingerprint
    other.write_text("b")
    assert file_source(one).fingerprint != file_source(other).fingerprint
    table = tmp_path / "x.csv"
    table.write_text("text,more\na,b\n")
    assert file_source(table).fingerprint != file_source(table, text="more").fingerprint


@given(st.lists(st.sampled_from(["", " ", "a", "bb", "ccc ddd", "eeeeeeee"]), max_size=30))
def test_parts_of_long_documents_add_up_to_them(lines: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONGEST_DOCUMENT", 10)
        found = list(documents._parted((str(number), line) for number, line in enumerate(lines)))
    whole: list[tuple[str, ...]] = []
    for document in found:
        if document.continues:
            whole[-1] += document.paragraphs
        else:
            whole.append(document.paragraphs)
        assert document.characters < 10 + 8
    expected = [tuple(part.split("\n")) for part in _blocks(lines)]
    assert whole == expected


def _blocks(lines: list[str]) -> list[str]:
    text = "\n".join(line.strip() and line for line in lines)
    return [block.strip("\n") for block in text.split("\n\n") if block.strip("\n")]


def test_a_file_without_a_blank_line_is_not_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 100_000)
    path = tmp_path / "x.txt"
    path.write_text("A line of a very long book.\n" * 200_000)
    tracemalloc.start()
    parts = sum(document.continues for document in file_source(path).read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parts > 40
    assert peak < 2_000_000


# What is refused


def test_a_line_of_100_mb_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with path.open("w") as file:
        file.write("fine\n")
        for _ in range(100):
            file.write("word " * 200_000)
    source = file_source(path)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x\.txt, line 2: a paragraph that is too long"):
        list(source.read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_so_is_one_in_a_row_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": ["fine", "word " * 2_100_000]}), path)
    with pytest.raises(DataError, match=r"row 2: a paragraph that is too long"):
        list(file_source(path).read())


def test_binary_is_refused_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\nalso \x00 fine")
    with pytest.raises(DataError, match=r"x\.txt, line 2, byte 10: a NUL character"):
        read(path)


def test_bad_encoding_is_refused_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\n" * 50_000 + b"caf\xe9 noir")
    with pytest.raises(DataError, match=r"x\.txt, line 50001, byte 250003: this is not utf-8"):
        read(path)
    assert read(path, encoding="latin-1")[0][-1] == "café noir"


@pytest.mark.parametrize("name", ["x.docx", "x", "missing.txt", "missing.csv"])
def test_what_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    if "missing" not in name:
        (tmp_path / name).write_text("a")
    with pytest.raises(DataError, match=name):
        file_source(tmp_path / name)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("body\na\n")
    with pytest.raises(DataError, match="no column 'text'"):
        file_source(tmp_path / "x.csv")


def test_the_beginning_of_a_source_is_paragraphs_and_no_more_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n\ndddd\neeee\n\nffff\n")
    whole, read = file_source(path), []

    def noted() -> Iterator[Document]:
        for document in whole.read():
            read.append(document)
            yield document

    source = replace(whole, read=noted)
    kept = [document.paragraphs for document in beginning(source, 13).read()]
    assert kept == [("aaaa", "bbbb", "cccc"), ("dddd",)]
    assert len(read) == 2
    assert [document.paragraphs for document in beginning(source, 5).read()] == [("aaaa", "bbbb")]
