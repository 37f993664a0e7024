"""Columns that are neither text nor label, in every format."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from fullbake.data.files import open_table
from fullbake.data.frames import frame_source
from fullbake.data.sources import open_columns
from fullbake.data.spare_columns import MAX_COLUMNS, MAX_VALUE_CHARACTERS, fields_of_rows, read_fields, spare_columns
from fullbake.data.tables import ReadOptions


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text,label,id,,note\nx,1,7,?,hm\ny,2,,?,\n", [("7", "hm"), ("", "")]),
        (
            "a.tsv",
            "text\tlabel\tid\tnote\nx\t1\t7\tlong" + "g" * 200 + "\n",
            [("7", "long" + "g" * (MAX_VALUE_CHARACTERS - 4))],
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": "1", "id": 7.50, "note": [1]}\n{"text": "y", "label": "2", "note": true}\n',
            [("7.50", ""), ("", "True")],
        ),
    ],
)
def test_fields_of_text_files(tmp_path: Path, name: str, content: str, expected: list[tuple[str, ...]]) -> None:
    (tmp_path / name).write_text(content)
    table = open_table(tmp_path / name, columns=["text", "label"])
    spare = spare_columns(table, ["text", "label"])
    assert spare == ("id", "note")
    (chunk,) = table.chunks()
    fields = fields_of_rows(table, chunk, spare)
    assert fields is not None
    assert [fields(position) for position in range(len(chunk))] == expected
    assert fields_of_rows(table, chunk, ()) is None


def test_plain_columns_of_chosen_rows_of_parquet(tmp_path: Path) -> None:
    made = pa.table({"text": ["a", "b", "c"], "label": [0, 1, 0], "score": [1.5, None, 3.0], "parts": [[1], [2], [3]]})
    parquet.write_table(made, tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet", columns=["text", "label"])
    spare = spare_columns(table, ["text", "label"])
    assert spare == ("score", "parts")
    (chunk,) = table.chunks()
    assert fields_of_rows(table, chunk, spare) is None
    assert read_fields(tmp_path / "a.parquet", spare, [2, 3]) == [("", ""), ("3.0", "")]
    assert read_fields(tmp_path / "a.parquet", ["parts"], [1]) == []
    assert read_fields("a hub id", spare, [1]) == []


def test_wide_files_are_looked_at_from_the_left(tmp_path: Path) -> None:
    names = ["text", "label", *(f"c{number}" for number in range(100))]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    assert len(spare_columns(open_table(tmp_path / "a.csv"), ["text", "label"])) == MAX_COLUMNS


def test_plain_columns_of_chosen_rows_of_a_frame() -> None:
    frame = frame_source(
        {"text": ["a", "b"], "label": ["x", "y"], "code": [7, 8], "odd": [1, "x"], "parts": [[1], [2]]}
    )
    assert frame is not None
    spare = spare_columns(open_columns(frame, ReadOptions(("text", "label"))), ["text", "label"])
    assert spare == ("code", "odd", "parts")
    assert read_fields(frame, spare, [2]) == [("8", "", "")]
