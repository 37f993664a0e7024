"""Parquet: columns become strings, types are kept when written again, what is not plain is refused."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.table_files import assert_refused, read_rows, write_file, write_parquet, write_scored
from pyarrow import parquet

from fullbake.core.errors import DataError
from fullbake.data.files import open_table

PLAIN = {
    "string": (pa.array(["NA", "", "01"]), ["NA", "", "01"]),
    "large string": (pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
    "dictionary": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "int": (pa.array([1, -2, 2**62]), ["1", "-2", str(2**62)]),
    "unsigned": (pa.array([1, 2, 2**64 - 1], pa.uint64()), ["1", "2", str(2**64 - 1)]),
    "bool": (pa.array([True, False, True]), ["true", "false", "true"]),
    "double": (pa.array([1.0, 0.1, 1e20]), ["1.0", "0.1", "1e+20"]),
    "float": (pa.array([1.0, 0.1, 2.5], pa.float32()), ["1.0", "0.1", "2.5"]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_parquet_columns_become_strings(tmp_path: Path, name: str) -> None:
    array, strings = PLAIN[name]
    path = write_parquet(tmp_path, t=array, other=pa.array([[1], None, []]))
    assert read_rows(path, columns=["t"]) == [[text] for text in strings]
    with_null = write_parquet(tmp_path, t=pa.concat_arrays([array, pa.nulls(1, array.type)]))
    assert_refused(with_null, "row 4", "'t' has no value")
    assert read_rows(with_null, nullable=["t"]) == [*([text] for text in strings), [""]]


def test_columns_that_are_not_plain_are_refused(tmp_path: Path) -> None:
    assert_refused(write_parquet(tmp_path, t=pa.array([["a"]])), "'t'", "list<")
    assert_refused(write_parquet(tmp_path, t=pa.array([{"a": "b"}])), "'t'", "struct<")
    assert_refused(write_parquet(tmp_path, t=pa.array([b"a"])), "'t'", "binary")
    assert_refused(write_parquet(tmp_path, t=pa.nulls(2)), "row 1", "no value")
    assert_refused(write_parquet(tmp_path, t=pa.array([1.0, float("nan")])), "row 2", "no value")
    broken = pa.Array.from_buffers(pa.string(), 1, [*pa.array(["ab"]).buffers()[:2], pa.py_buffer(b"a\xff")])
    assert_refused(write_parquet(tmp_path, t=broken), "UTF-8", "0xff")
    assert_refused(write_parquet(tmp_path, text=pa.array(["a"])), "Did you mean 'text'?", columns=["txt"])
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "x.parquet")
    assert_refused(tmp_path / "x.parquet", "'a' occurs twice")
    assert_refused(write_file(tmp_path, "y.parquet", "text,label"), "Parquet")
    assert_refused(write_file(tmp_path, "z.parquet", b""), "Parquet")


def test_file_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, t=pa.array([f"text {number}" for number in range(5000)]))
    content = bytearray(path.read_bytes())
    content[40:2000] = b"\xff" * 1960
    assert_refused(write_file(tmp_path, "y.parquet", bytes(content)), "Parquet")


def test_a_column_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"wxyz": ["a", "b"]}), path, store_schema=False)  # type: ignore[no-untyped-call]
    content = path.read_bytes()
    assert b"wxyz" in content
    path.write_bytes(content.replace(b"wxyz", b"w\xf9yz"))
    with pytest.raises(DataError, match=r"cannot be read as Parquet.*\n.*0xf9"):
        open_table(path)


def test_damaged_facts_of_a_column_are_an_error_and_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow aborts where somebody asks for facts of a column that contradict each other."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"wxyz": ["a", "b"]}), path, store_schema=False)  # type: ignore[no-untyped-call]
    optional, required = b"%\x02\x18\x04wxyz", b"%\x00\x18\x04wxyz"
    content = path.read_bytes()
    assert content.count(optional) == 1
    path.write_bytes(content.replace(optional, required))
    code = "import sys; from fullbake.data.files import open_table; list(open_table(sys.argv[1]).chunks())"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "DataError" in done.stderr
    assert "cannot be read as Parquet" in done.stderr


def test_positions_are_row_numbers_from_one(tmp_path: Path) -> None:
    chunks = list(open_table(write_parquet(tmp_path, t=pa.array(list("abcde")))).chunks(2))
    assert [chunk.positions for chunk in chunks] == [[1, 2], [3, 4], [5]]
    assert chunks[1].where(0).endswith("row 3")


def test_written_parquet_keeps_the_types_of_its_source(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "tags": pa.array([["a"], [], None]),
            "text": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    write_scored(open_table(tmp_path / "a.parquet", columns=["text"]), tmp_path / "b.parquet", size=2)
    scored = parquet.read_table(tmp_path / "b.parquet")
    assert scored.select(["n", "tags", "text"]).equals(table)
    assert scored.schema.field("score").type == pa.float32()


def test_values_that_csv_cannot_hold_are_refused(tmp_path: Path) -> None:
    for column, message in ((pa.array([[1]]), "list<"), (pa.array([None], pa.int64()), "row 1")):
        parquet.write_table(pa.table({"text": ["a"], "n": column}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=message):
            write_scored(open_table(tmp_path / "a.parquet", columns=["text"]), tmp_path / "b.csv")


def test_error_while_writing_names_the_shard(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, number in (("0", 1), ("1", None)):
        parquet.write_table(pa.table({"text": ["a"], "n": pa.array([number], pa.int64())}), folder / f"{name}.parquet")
    with pytest.raises(DataError, match=r"1\.parquet, row 1: column 'n' has no value"):
        write_scored(open_table(folder, columns=["text"]), tmp_path / "b.csv")


def test_values_stored_once_are_decoded_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """A file of a kilobyte holds 2 GB of text; only chunks of a bounded size are in memory."""
    text = "x" * 100_000
    for encoding in ("dictionary", "delta"):
        path = tmp_path / f"{encoding}.parquet"
        options = (
            {}
            if encoding == "dictionary"
            else {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"}}
        )
        table = pa.table({"text": pa.array([text] * 2_000), "label": pa.array(["a"] * 2_000)})
        parquet.write_table(table, path, compression="zstd", **options)
        del table
        assert path.stat().st_size < 5_000
        before = pa.total_allocated_bytes()
        rows = 0
        for chunk in open_table(path, columns=["text", "label"]).chunks():
            assert sum(map(len, chunk.columns["text"])) <= 20_200_000
            assert pa.total_allocated_bytes() - before < 200_000_000
            rows += len(chunk)
        assert rows == 2_000


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 1000, 5000])
def test_chunks_have_the_rows_that_were_asked_for(tmp_path: Path, rows: int) -> None:
    numbers = [str(number) for number in range(rows)]
    table = pa.table({"n": numbers, "l": [["a"] * (number % 3) for number in range(rows)], "f": [0.5] * rows})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    for keep in (False, True):
        chunks = list(open_table(tmp_path / "x.parquet", columns=["n", "l"], lists=["l"]).chunks(1000, keep=keep))
        assert [value for chunk in chunks for value in chunk.columns["n"]] == numbers
        assert [chunk.positions[0] for chunk in chunks] == list(range(1, rows + 1, 1000))
        assert {len(chunk) for chunk in chunks[:-1]} <= {1000}


def test_a_column_that_shrinks_as_no_text_does_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    label = random.Random(0).randbytes(20_000).hex()
    table = pa.table({"text": ["y" * 3_000_000], "label": [label]})
    parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    monkeypatch.setattr("fullbake.data.arrow._SUSPECT_BYTES", 1_000_000)
    assert_refused(path, "compressed so strongly", "row_group_size", columns=["text"])
    assert read_rows(path, columns=["label"]) == [[label]]
    parquet.write_table(table.select(["text"]), tmp_path / "whole.parquet", compression="zstd", use_dictionary=False)
    assert_refused(tmp_path / "whole.parquet", "compressed so strongly", "row_group_size")
    monkeypatch.undo()
    monkeypatch.setattr("fullbake.data.arrow.MAX_FIELD_CHARACTERS", 2_000_000)
    assert_refused(path, "a text in column 'text' is too long", columns=["text"])
