"""Small tables as files: written, read back, refused, and written again with scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError
from fullbake.data.files import open_table, open_writer
from fullbake.data.tables import Table

FIELDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', ",", "\n", "\r", "\r\n", "\t", '""', "NA", "a\rb", "a\u2028b", "\ufeff"]
)
"""Any text that a table may hold, awkward ones often."""

ADDED = {"predicted": str, "score": np.float32}
"""The columns that `write_scored` adds."""


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(folder: Path, **columns: pa.Array) -> Path:
    """A Parquet file with these columns."""
    parquet.write_table(pa.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


def read_rows(path: Path, **options: Any) -> list[list[Any]]:
    """All rows, in the order of the columns."""
    dialect = Dialect(**{name: options.pop(name) for name in vars(Dialect()) if name in options})
    table = open_table(path, dialect=dialect, **options)
    return [
        list(row)
        for chunk in table.chunks()
        for row in zip(*(chunk.columns[name] for name in table.columns), strict=True)
    ]


def assert_refused(path: Path, *parts: str, **options: Any) -> None:
    """Reading raises DataError with a remedy; its message holds the file's name and every part."""
    with pytest.raises(DataError) as caught:
        read_rows(path, **options)
    for part in (path.name, *parts):
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"
    assert caught.value.remedy


def write_scored(source: Table, target: Any, size: int = 4096, **options: Any) -> None:
    """Write the table again: each text's last character as the prediction, a tenth of its length as the score."""
    with open_writer(target, source, ADDED, **options) as writer:
        for chunk in source.chunks(size, keep=True):
            texts = chunk.columns["text"]
            scores = np.array([len(text) / 10 for text in texts], dtype=np.float32)
            writer.write(chunk, {"predicted": [text[-1:] for text in texts], "score": scores})
