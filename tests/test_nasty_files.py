"""Files that break other tools: each is read correctly, or refused with its place and a remedy."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.nasty_files import CASES, DELIMITED, FOLDERS, JSON, PARQUET, Case
from helpers.write_nasty_files import write_nasty_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake import Error, read_dataset
from fullbake.config.sections import Dialect
from fullbake.core.errors import RecipeError
from fullbake.data.dataset import Dataset
from fullbake.data.files import open_table


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    write_nasty_files(folder)
    return folder


def rows_of(data: Dataset) -> list[tuple[str, Any]]:
    """(text, label) of each row; several labels as a sorted tuple of names."""
    assert data.labels is not None
    ids = data.problem.label_ids(data.labels)
    names = [tuple(sorted(data.label_names[label] for label in of_row)) for of_row in ids]
    labels = [of_row[0] for of_row in names] if data.problem.exclusive else names
    return list(zip(data.texts.to_pylist(), labels, strict=True))


def check(path: Path, case: Case) -> None:
    flags = {"text": "text", "label": "label"} | case.flags
    if case.rows is not None:
        assert rows_of(read_dataset(path, **flags)) == list(case.rows)
        return
    with pytest.raises(Error) as refused:
        read_dataset(path, **flags)
    message = str(refused.value)
    named = () if isinstance(refused.value, RecipeError) else (path.name,)  # a flag is wrong whatever the file
    assert [word for word in (*named, *case.refused) if word not in message] == [], message


def test_every_kind_of_file_has_many_cases() -> None:
    assert len(DELIMITED) >= 40
    assert len(JSON) >= 15
    assert len(PARQUET) >= 10
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_file_is_read_correctly_or_refused(corpus: Path, case: Case) -> None:
    check(corpus / case.name, case)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, _, case in FOLDERS], ids=lambda part: str(part)[:20])
def test_folder_is_read_correctly_or_refused(corpus: Path, name: str, case: Case) -> None:
    check(corpus / name, case)


def test_pipe_is_refused_without_waiting_for_it(corpus: Path) -> None:
    with pytest.raises(Error, match=r"a_pipe.csv: this is not a regular file[\s\S]*save it to a file"):
        read_dataset(corpus / "a_pipe.csv", text="text", label="label")


# Any table of texts is read back equal, in every dialect

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.lists(
    TEXT.filter(lambda name: bool(name.strip()) and "\ufeff" not in name), min_size=1, max_size=4, unique=True
)
SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(NAMES)
    width = len(names)
    return names, draw(st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=6))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


def assert_read_back(path: Path, names: list[str], rows: list[list[str]], **flags: Any) -> None:
    table = open_table(path, dialect=Dialect(**flags))
    assert table.names == tuple(names)
    read = [
        list(row) for chunk in table.chunks(2) for row in zip(*(chunk.columns[name] for name in names), strict=True)
    ]
    assert read == rows


@SLOW
@given(
    tables(),
    st.sampled_from([",", ";", "|", "\t", "¦"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "gb18030"]),
    st.sampled_from(list(COMPRESS)),
)
def test_any_csv_is_read_back_equal(
    tmp_path: Path, table: Any, delimiter: str, ends: str, all_quoted: bool, encoding: str, ending: str
) -> None:
    names, rows = table
    written = io.StringIO(newline="")
    # a carriage return, and U+FEFF (it looks like a byte order mark), need quotes in every dialect
    needs_quotes = any("\r" in cell or "\ufeff" in cell for row in [names, *rows] for cell in row)
    quoting = csv.QUOTE_ALL if all_quoted or needs_quotes or len(names) == 1 else csv.QUOTE_MINIMAL
    csv.writer(written, delimiter=delimiter, lineterminator=ends, quoting=quoting).writerows([names, *rows])
    try:
        content = written.getvalue().encode(encoding)
    except UnicodeEncodeError:
        return
    path = tmp_path / f"x.csv{ending}"
    path.write_bytes(COMPRESS[ending](content))
    assert_read_back(path, names, rows, delimiter=delimiter, encoding=encoding.removesuffix("-sig"))


@SLOW
@given(tables(), st.booleans(), st.sampled_from(["\n", "\r\n"]), st.sampled_from(list(COMPRESS)))
def test_any_json_lines_are_read_back_equal(tmp_path: Path, table: Any, escaped: bool, ends: str, ending: str) -> None:
    names, rows = table
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=escaped) for row in rows]
    path = tmp_path / f"x.jsonl{ending}"
    path.write_bytes(COMPRESS[ending]("".join(line + ends for line in lines).encode()))
    assert_read_back(path, names, rows)


@SLOW
@given(
    tables(),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]),
)
def test_any_parquet_is_read_back_equal(tmp_path: Path, table: Any, kind: pa.DataType) -> None:
    names, rows = table
    columns = [pa.array(column, pa.string()).cast(kind) for column in zip(*rows, strict=True)]
    parquet.write_table(pa.table(columns, names=names), tmp_path / "x.parquet")
    assert_read_back(tmp_path / "x.parquet", names, rows)
