"""Files that are not what their names say are named for what they are."""

from pathlib import Path

import pytest
from helpers.table_files import assert_refused, write_file

from fullbake.data.signatures import FOREIGN_ENDINGS, encoding_of_mark, encoding_of_zeros, foreign_content

TEXT = "text,label\na,1\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    assert encoding_of_mark(TEXT.encode(encoding)) == encoding
    assert_refused(write_file(tmp_path, "x.csv", TEXT.encode(encoding)), f"--encoding {encoding}.")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "content"), [("x.csv", TEXT), ("x.jsonl", '{"text": "a"}\n'), ("x.json", '[{"t": "a"}]')]
)
def test_utf16_without_a_mark_is_named(tmp_path: Path, encoding: str, name: str, content: str) -> None:
    assert encoding_of_zeros(content.encode(encoding)) == encoding
    assert_refused(write_file(tmp_path, name, content.encode(encoding)), f"--encoding {encoding}.")


def test_ordinary_text_has_no_signature() -> None:
    for content in (
        TEXT.encode(),
        "这间酒店".encode("utf-16-le"),
        b"",
        b"a",
        b"a\0b",
        b"\0" * 9,
        TEXT.encode("utf-8-sig"),
    ):
        assert encoding_of_mark(content) is None
        assert encoding_of_zeros(content) is None
        assert foreign_content(content) is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\x1f\x8b\x08\0", ".csv.gz"),
        (b"\x28\xb5\x2f\xfd\0", ".csv.zst"),
        (b"BZh9", "Unpack"),
        (b"PK\x03\x04\x14", "read_excel"),
        (b"\xd0\xcf\x11\xe0\xa1", "read_excel"),
        (b"PAR1\x15", "ending .parquet"),
        (b"\n<!DOCTYPE html>\n<html>", "web page"),
    ],
)
def test_foreign_content_is_refused_with_a_way_out(tmp_path: Path, content: bytes, what: str) -> None:
    for name in ("x.csv", "x.jsonl"):
        assert_refused(write_file(tmp_path, name, content), what)


def test_foreign_content_under_parquet_is_named(tmp_path: Path) -> None:
    assert_refused(write_file(tmp_path, "x.parquet", b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull")


@pytest.mark.parametrize("ending", sorted(FOREIGN_ENDINGS))
def test_foreign_endings_are_refused_with_a_way_out(tmp_path: Path, ending: str) -> None:
    assert_refused(write_file(tmp_path, f"x{ending}", b"x"), "format of the file is not known", FOREIGN_ENDINGS[ending])


def test_a_file_that_is_read_in_its_encoding_is_not_said_to_have_it(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", "text,label\na\0,1\n".encode("utf-16"))
    assert_refused(path, "line 2: a NUL character.", encoding="utf-16")
    path = write_file(tmp_path, "x.csv", "text,label\na,1\n".encode("utf-16") + b"\x00\xd8")
    assert_refused(path, "this is not utf-16.", encoding="utf-16")
