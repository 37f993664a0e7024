"""Shards are found by path, folder, glob and address, and what is no table is refused."""

import re
from pathlib import Path

import pytest

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError, Error
from fullbake.scoring.shards import InputShard, address_error, find_shards, names_several, open_address


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


@pytest.mark.parametrize("name", ["my folder", "中文", "a#b", "a%b", "a%2fb"])
def test_an_address_may_be_written_as_the_path_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "x 1.csv").write_text("text\nx\n")
    written = name.replace("%2f", "%252f")  # two hex digits after % are an escape
    assert names(f"file://{tmp_path}/{written}") == ["x 1.csv"]
    assert names(f"file://{tmp_path}/{written}/x ?.csv") == ["x 1.csv"]
    (shard,) = find_shards(f"file://{tmp_path}/{written}", Dialect())
    system, path = open_address(shard.place)
    assert system.open_input_stream(path).read() == b"text\nx\n"


def test_a_missing_folder_of_an_address_is_said(tmp_path: Path) -> None:
    for address in (f"{tmp_path.as_uri()}/gone", f"{tmp_path.as_uri()}/gone/*.csv"):
        with pytest.raises(DataError, match="there is no such file or folder"):
            names(address)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7", Error, "does not answer.*10.0.0.1"),
        ("AWS Error ACCESS_DENIED during HeadObject operation", DataError, "credentials.*AWS_ACCESS_KEY_ID is not set"),
        ("google::cloud::Status(UNAVAILABLE: Could not create a OAuth2 access token", DataError, "credentials"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", DataError, "no such bucket"),
        ("AWS Error UNKNOWN (HTTP status 301)", DataError, "cannot be read.*301"),
    ],
)
def test_the_error_of_a_store_says_what_is_wrong(
    text: str, kind: type[Error], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.0.0.1")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    error = address_error("s3://bucket/x", OSError(text))
    assert type(error) is kind
    assert re.search(f"(?s){words}", str(error))


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


def test_a_secret_among_the_options_is_refused_and_a_container_is_none() -> None:
    with pytest.raises(DataError, match=r"client_secret=\*\*\*") as refused:
        names("abfs://box@account.dfs.core.windows.net/x?client_id=1&client_secret=HIDDEN")
    assert "HIDDEN" not in str(refused.value)
    assert open_address("abfs://box@account.dfs.core.windows.net/x")[1] == "box/x"


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
