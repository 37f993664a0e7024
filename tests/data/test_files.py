"""Formats by the ending of a name: files, folders, any format into any other, and a new format by one registry line."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from helpers.table_files import FIELDS, assert_refused, read_rows, write_file, write_scored
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.core.errors import DataError, OutputError
from fullbake.data.dataset import read_dataset
from fullbake.data.files import FORMATS, open_table, open_writer
from fullbake.data.json_documents import JSON_DOCUMENT
from fullbake.data.jsonl import JSON_LINES
from fullbake.data.plain_text import open_lines
from fullbake.data.tables import AddedColumns, Chunk, Format, ReadOptions, Table, format_values, select_columns


def test_missing_and_unknown_files_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path, "train.csv", "t\na\n")
    assert_refused(tmp_path / "trian.csv", "no such file", "Did you mean 'train.csv'?")
    assert_refused(tmp_path / "no" / "x.csv", "no such file", "no folder")
    assert_refused(write_file(tmp_path, "x.unknown", "a"), ", ".join(FORMATS), "'.unknown'")
    assert_refused(write_file(tmp_path, "x.csv.zip", "a"), "'.csv.zip'", ".gz or .zst")
    (tmp_path / "f.csv").mkdir()
    assert_refused(tmp_path / "f.csv", "no file")
    assert_refused(tmp_path / "train.csv", "no column 'test'", "There is: 't'", columns=["test"])
    assert_refused(write_file(tmp_path, "y.csv", "text,label\n"), "Did you mean 'text'?", columns=["txt"])


def test_flags_that_a_format_does_not_have_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"t": ["a"]}), tmp_path / "x.parquet")
    write_file(tmp_path, "x.jsonl", '{"t": "a"}\n')
    write_file(tmp_path, "x.json", '[{"t": "a"}]')
    write_file(tmp_path, "x.csv", "t\na\n")
    given = {"delimiter": ";", "encoding": "latin-1", "quoting": "none", "no_header": ("t",), "json_path": "train"}
    for ending in (".csv", ".jsonl", ".json", ".parquet"):
        for name, value in given.items():
            if name not in FORMATS[ending].flags:
                flag = f"--{name.replace('_', '-')}"
                assert_refused(tmp_path / f"x{ending}", f"{flag} does not apply here", "It is for .", **{name: value})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.csv")
    assert_refused(tmp_path / "p.csv", "regular file")


ROWS = [["01", 'a "b", c', "c", "0.8"], ["NA", "x\r\ny", "y", "0.4"], ["", "", "", "0.0"]]
"""Rows that `write_scored` writes: id, text, predicted, score."""


@pytest.fixture(params=FORMATS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    """The ids and texts of ROWS in a file of each format."""
    columns = list(zip(*ROWS, strict=True))
    parquet.write_table(pa.table({"id": columns[0], "text": columns[1]}), tmp_path / "rows.parquet")
    rows, path = open_table(tmp_path / "rows.parquet"), tmp_path / f"source{request.param}"
    with open_writer(path, rows, {}) as writer:
        for chunk in rows.chunks(keep=True):
            writer.write(chunk, {})
    return open_table(path, columns=["text"])


@pytest.mark.parametrize("ending", FORMATS)
def test_any_format_is_written_as_any_other(source: Table, ending: str, tmp_path: Path) -> None:
    write_scored(source, tmp_path / f"scored{ending}", size=2)
    assert read_rows(tmp_path / f"scored{ending}") == ROWS
    assert open_table(tmp_path / f"scored{ending}").names == ("id", "text", "predicted", "score")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".csv", 'id,text\n01,"a ""b"", c"\nNA,"x\r\ny"\n,\n'),
        (".tsv", 'id\ttext\n01\t"a ""b"", c"\nNA\t"x\r\ny"\n\t\n'),
        (".jsonl", r"""{"id": "01", "text": "a \"b\", c"}
{"id": "NA", "text": "x\r\ny"}
{"id": "", "text": ""}
"""),
    ],
)  # fmt: skip
def test_text_files_are_read_as_they_are(ending: str, content: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, f"source{ending}", content)
    assert read_rows(path) == [row[:2] for row in ROWS]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), ending=st.sampled_from(list(FORMATS)))
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, ending: str
) -> None:
    names = data.draw(st.lists(FIELDS.filter(lambda name: name[:1] != "\ufeff"), min_size=1, max_size=3, unique=True))
    names = ["text", *(name for name in names if name not in ("text", "predicted", "score"))]
    given_rows = data.draw(st.lists(st.tuples(*[FIELDS] * len(names)), max_size=5))
    folder = tmp_path_factory.getbasetemp()
    columns = {name: pa.array([row[at] for row in given_rows], pa.string()) for at, name in enumerate(names)}
    parquet.write_table(pa.table(columns), folder / "any.parquet")
    source = open_table(folder / "any.parquet", columns=["text"])
    write_scored(source, folder / f"any.scored{ending}", overwrite=True)
    if FORMATS[ending] in (JSON_LINES, JSON_DOCUMENT) and not given_rows:
        return  # it has no header, so a file without rows is refused
    assert [tuple(row[: len(names)]) for row in read_rows(folder / f"any.scored{ending}")] == given_rows


def test_added_name_that_the_source_has_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a.csv", "text,score\na,1\n")
    with pytest.raises(DataError, match="column 'score' already") as caught:
        write_scored(open_table(path, columns=["text"]), tmp_path / "b.csv")
    assert "--prefix" in str(caught.value)


def test_target_is_replaced_only_by_permission(tmp_path: Path) -> None:
    source = open_table(write_file(tmp_path, "a.csv", "text\na\n"), columns=["text"])
    target = write_file(tmp_path, "b.csv", "mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_scored(source, target)
    assert target.read_text() == "mine"
    write_scored(source, target, overwrite=True)
    assert target.read_text() == "text,predicted,score\na,a,0.1\n"


def test_ending_of_the_target_says_its_format(tmp_path: Path) -> None:
    source = open_table(write_file(tmp_path, "a.csv", "text\na\n"), columns=["text"])
    write_scored(source, tmp_path / "b.NDJSON")
    assert (tmp_path / "b.NDJSON").read_text() == '{"text": "a", "predicted": "a", "score": 0.1}\n'
    with pytest.raises(OutputError, match=r"\.csv, \.tsv"):
        write_scored(source, tmp_path / "b.unknown")


def test_error_in_the_source_leaves_the_target_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\na,1\nb\n")
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(DataError, match="line 3"):
        write_scored(open_table(tmp_path / "a.csv", columns=["text"]), tmp_path / "b.csv", size=1, overwrite=True)
    assert (tmp_path / "b.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (None, 'text,predicted,score\n"a, b",b,0.4\n,,0.0\n'),
        ("tsv", "text\tpredicted\tscore\na, b\tb\t0.4\n\t\t0.0\n"),
        ("jsonl", '{"text": "a, b", "predicted": "b", "score": 0.4}\n'
                  '{"text": "", "predicted": "", "score": 0.0}\n'),
    ],
)  # fmt: skip
def test_lines_are_written_to_a_stream(form: str | None, written: str) -> None:
    stream = io.BytesIO()
    write_scored(open_lines(io.BytesIO(b"a, b\n\n")), stream, format_name=form)
    assert stream.getvalue().decode() == written


def test_table_without_rows_is_written_as_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    for form in ("csv", "parquet"):
        write_scored(open_table(tmp_path / "a.csv", columns=["text"]), tmp_path / f"b.{form}")
        assert open_table(tmp_path / f"b.{form}").names == ("text", "predicted", "score")
        assert read_rows(tmp_path / f"b.{form}") == []


# A new format: what one file and one line of the registry bring


def _open_bars(path: Path, options: ReadOptions) -> Table:
    """Fields separated by bars, without quotes."""
    rows = [line.split("|") for line in path.read_text(options.dialect.encoding).splitlines()]
    names = tuple(rows[0])
    columns = select_columns(str(path), names, options.columns)

    def read(size: int, _: bool) -> Iterator[Chunk]:
        for start in range(1, len(rows), size):
            held = rows[start : start + size]
            values = {name: [row[names.index(name)] for row in held] for name in columns}
            yield Chunk(str(path), "line", values, list(range(start + 1, start + 1 + len(held))), held)

    return Table(str(path), "bars", names, columns, "line", read, lambda chunk: iter(chunk.originals))


class _BarsWriter:
    def __init__(self, stream: BinaryIO, source: Table, added: AddedColumns) -> None:
        self._stream, self._source = stream, source
        self._write_line([*source.names, *added])

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        columns = [format_values(values) for values in added.values()]
        for row, *new_fields in zip(self._source.string_rows(chunk), *columns, strict=True):
            self._write_line([*row, *new_fields])

    def _write_line(self, fields: list[str]) -> None:
        self._stream.write(("|".join(fields) + "\n").encode())


@contextmanager
def _open_bars_writer(stream: BinaryIO, source: Table, added: AddedColumns) -> Iterator[_BarsWriter]:
    yield _BarsWriter(stream, source, added)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, ".bars_for_tests", Format("bars", _open_bars, _open_bars_writer))


@pytest.mark.usefixtures("bars")
def test_new_format_is_read_after_one_line_in_the_registry(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.bars_for_tests", "text|label\na, b|x\nc|y\n")
    assert read_rows(path) == [["a, b", "x"], ["c", "y"]]
    data = read_dataset(path, text="text", label="label")
    assert (data.texts.to_pylist(), data.label_names) == (["a, b", "c"], ("x", "y"))
    assert_refused(tmp_path / "y.bars_for_tests", "no such file", "Did you mean 'x.bars_for_tests'?")
    assert_refused(write_file(tmp_path, "x.unknown", "a"), ".bars_for_tests")


@pytest.mark.usefixtures("bars")
@pytest.mark.parametrize("ending", FORMATS)
def test_new_format_is_converted_from_and_into_every_other(tmp_path: Path, ending: str) -> None:
    path = write_file(tmp_path, "a.bars_for_tests", "text|n\na, b|1\nc|2\n")
    rows = [["a, b", "1", "b", "0.4"], ["c", "2", "c", "0.1"]]
    write_scored(open_table(path, columns=["text"]), tmp_path / f"b{ending}", size=1)
    assert read_rows(tmp_path / f"b{ending}") == rows
    with open_writer(tmp_path / "c.bars_for_tests", source := open_table(tmp_path / f"b{ending}"), {}) as writer:
        for chunk in source.chunks(keep=True):
            writer.write(chunk, {})
    assert read_rows(tmp_path / "c.bars_for_tests") == rows


@pytest.mark.usefixtures("bars")
def test_new_format_is_read_from_a_folder_and_written_to_a_stream(tmp_path: Path) -> None:
    for name, text in (("0", "a"), ("1", "b")):
        write_file(tmp_path, f"{name}.bars_for_tests", f"text\n{text}\n")
    stream = io.BytesIO()
    write_scored(open_table(tmp_path), stream)
    assert stream.getvalue() == b"text|predicted|score\na|a|0.1\nb|b|0.1\n"
