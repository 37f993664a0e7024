"""Chunks, the libraries that reading loads, and memory."""

import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.table_files import write_file, write_scored

from fullbake.core.errors import Fault
from fullbake.data.files import open_table
from fullbake.data.tables import CHUNK_CHARACTERS, data_suffix, format_values


def test_chunk_ends_at_a_number_of_rows_or_of_characters(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.tsv", "t\tl\n" + "a\t1\n" * 10)
    assert [len(chunk) for chunk in open_table(path).chunks(4)] == [4, 4, 2]
    big = write_file(tmp_path, "y.tsv", "t\tl\n" + f"{'a' * (CHUNK_CHARACTERS // 2)}\t1\n" * 3)
    assert [len(chunk) for chunk in open_table(big).chunks()] == [2, 1]


def test_a_table_can_be_read_again_and_columns_chosen(tmp_path: Path) -> None:
    table = open_table(write_file(tmp_path, "x.csv", "t,l,m\na,1,u\n"), columns=["m", "t"])
    assert table.names == ("t", "l", "m")
    assert [chunk.columns for chunk in table.chunks()] == [{"m": ["u"], "t": ["a"]}]
    assert [chunk.originals for chunk in table.chunks()] == [[["a", "1", "u"]]]


READ_CSV = """
import sys
from fullbake.data.files import open_table
rows = sum(len(chunk) for chunk in open_table(sys.argv[1]).chunks())
print(rows, sorted({"numpy", "pyarrow"} & set(sys.modules)))
"""


def test_reading_csv_loads_neither_numpy_nor_pyarrow(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv.gz", gzip.compress(b"t,l\na,1\nb,2\n"))
    found = subprocess.run([sys.executable, "-c", READ_CSV, path], check=True, capture_output=True, text=True)
    assert found.stdout == "2 []\n"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    row = "x" * 1000
    line = {"csv": f"{row}\n", "jsonl": f'{{"text": "{row}"}}\n'}[form]
    path = tmp_path / f"a.{form}"
    peaks = []
    for count in (2_000, 20_000):
        path.write_text(("text\n" if form == "csv" else "") + line * count)
        tracemalloc.start()
        write_scored(open_table(path, columns=["text"]), tmp_path / f"b.{form}", size=500, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 1_000_000


def test_numbers_are_written_in_the_fewest_digits_that_read_back_equal() -> None:
    assert format_values(np.array([0.1, 1.0, 1e-7], dtype=np.float32)) == ["0.1", "1.0", "1e-07"]
    assert format_values(np.array([0, 1], dtype=np.uint8)) == ["0", "1"]
    assert format_values(["a", "0.10"]) == ["a", "0.10"]


def test_score_that_is_not_a_number_is_a_fault() -> None:
    with pytest.raises(Fault, match="finite"):
        format_values(np.array([np.nan]))


def test_ending_of_a_compressed_file_is_the_one_before_it() -> None:
    names = ["x.csv", "x.CSV.gz", "a.b.jsonl.zst", "x.gz", "x"]
    assert [data_suffix(Path(name)) for name in names] == [".csv", ".csv", ".jsonl", "", ""]
