"""Shards are found by path, folder, glob and address, and what is no table is refused."""

from pathlib import Path

import pytest

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError
from fullbake.scoring.shards import InputShard, find_shards, names_several


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv.gz", "day=1/c d%.csv", "_SUCCESS", ".hidden.csv", "_tmp/x.csv"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\nx\n")
    return tmp_path / "in"


def names(source: str | Path) -> list[str]:
    return [shard.name for shard in find_shards(source, Dialect())]


def test_a_folder_is_all_that_is_visible_below_it(folder: Path) -> None:
    assert names(folder) == ["a.csv.gz", "b.csv", "day=1/c d%.csv"]
    assert [shard.output_name for shard in find_shards(folder, Dialect())] == ["a.csv", "b.csv", "day=1/c d%.csv"]
    assert names(folder / "b.csv") == ["b.csv"]


def test_globs_name_shards(folder: Path) -> None:
    assert names(folder / "*.csv") == ["b.csv"]
    assert names(folder / "*/*.csv") == ["day=1/c d%.csv"]
    assert names(folder / "**/*.csv") == ["b.csv", "day=1/c d%.csv"]


def test_an_address_is_read_as_a_path_is(folder: Path) -> None:
    address = folder.as_uri()
    assert names(address) == names(folder)
    for glob in ("*.csv", "*/*.csv", "**/*.csv"):
        assert names(f"{address}/{glob}") == names(folder / glob)
    assert names(f"{address}/b.csv") == ["b.csv"]
    (shard,) = find_shards(f"{address}/day=1", Dialect())
    assert (shard.name, shard.size, shard.is_remote) == ("c d%.csv", 7, True)


def test_text_files_are_tables_with_a_delimiter_only(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text\nx\n")
    with pytest.raises(DataError, match="format of the file is not known"):
        names(tmp_path)
    (shard,) = find_shards(tmp_path, Dialect(delimiter=";"))
    assert shard.output_name == "x.tsv"


def test_what_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        names(tmp_path / "gone")
    with pytest.raises(DataError, match="no file to score"):
        names(tmp_path)
    with pytest.raises(DataError, match="no file to score"):
        names(tmp_path / "*.csv")
    (tmp_path / "a.csv").write_text("text\nx\n")
    (tmp_path / "a.csv.gz").write_text("")
    with pytest.raises(DataError, match="two files would be written under one name"):
        names(tmp_path)
    (tmp_path / "a.csv.gz").rename(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match=r"(?s)several formats.*a\.csv and b\.jsonl"):
        names(tmp_path)
    (tmp_path / "b.jsonl").rename(tmp_path / "b.xlsx")
    with pytest.raises(DataError, match="format of the file is not known"):
        names(tmp_path)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(DataError) as refused:
        names("s3://KEY:SECRET@bucket/folder")
    assert "AWS_ACCESS_KEY_ID" in str(refused.value)
    assert "SECRET@" not in str(refused.value)
    assert "KEY:" not in str(refused.value)


def test_an_unknown_kind_of_address_is_refused() -> None:
    with pytest.raises(DataError, match=r"(?s)cannot be read.*pyarrow reads s3://"):
        names("ftp://host/folder")


def test_what_names_several_files(folder: Path) -> None:
    assert names_several(str(folder))
    assert names_several(f"{folder}/*.csv")
    assert names_several("s3://bucket/x.csv")
    assert not names_several(f"{folder}/b.csv")
    (folder / "a[1].csv").write_text("")
    assert not names_several(f"{folder}/a[1].csv")
    assert InputShard("x.CSV.GZ", "/x.CSV.GZ", 1, 1).output_name == "x.CSV"
