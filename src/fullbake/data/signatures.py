"""What a file is where it is not what its name says: known by its first bytes, or by an ending that is not read.

The format still follows from the name alone. This module only finds the words for an error: which encoding a byte
order mark belongs to, that a `.csv` is an Excel workbook or a pointer of Git LFS, and how such a file becomes one that
is read.
"""

from typing import Final

HEAD_BYTES: Final = 512
"""So many first bytes of a file are looked at."""

_MARKS: Final = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order marks; the longer ones come first, because one begins with another."""

_EXCEL: Final = (
    "Save the sheet as CSV UTF-8, or convert it: pip install pandas openpyxl; then in Python: import pandas; "
    "pandas.read_excel('FILE.xlsx', dtype=str, keep_default_na=False).to_csv('FILE.csv', index=False)"
)
_UNPACK: Final = "Unpack it, and name the file within, or the folder that holds the files."
_RECOMPRESS: Final = "Unpack it; compressed by gzip (.gz) or zstd (.zst) it is read as it is."
_ARROW: Final = (
    "Convert it: import pandas; pandas.read_feather('FILE').to_parquet('FILE.parquet'), or "
    "datasets.load_from_disk('FOLDER').to_parquet('FILE.parquet')"
)
_DOWNLOAD: Final = "Download the file itself."

_CONTENTS: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull."),
    (b"\x1f\x8b", "compressed by gzip", "Add .gz to its name, such as data.csv.gz."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "Add .zst to its name, such as data.csv.zst."),
    (b"BZh", "compressed by bzip2", _RECOMPRESS),
    (b"\xfd7zXZ\0", "compressed by xz", _RECOMPRESS),
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)", f"{_UNPACK} A workbook: {_EXCEL}"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", _EXCEL),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"PAR1", "a Parquet file", "Give it the ending .parquet."),
    (b"ARROW1", "an Arrow file", _ARROW),
    (b"%PDF-", "a PDF document", "Export the rows as CSV."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV: sqlite3 -header -csv FILE 'select ...'."),
)
"""(first bytes, what they say, what to do)."""

_PAGES: Final = (b"<!doctype html", b"<html")

FOREIGN_ENDINGS: Final = {
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), _EXCEL),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), _UNPACK),
    **dict.fromkeys((".bz2", ".xz", ".lz4"), _RECOMPRESS),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), _ARROW),
    **dict.fromkeys((".pkl", ".pickle"), "Convert it: import pandas; pandas.read_pickle('FILE').to_parquet(...)"),
    **dict.fromkeys((".html", ".htm", ".pdf", ".docx", ".doc"), "Export the rows as CSV."),
    ".xml": "Convert it: import pandas; pandas.read_xml('FILE.xml', dtype=str).to_csv('FILE.csv', index=False)",
}
"""Endings of data files that are not read, and what makes them readable."""


def encoding_of_mark(head: bytes) -> str | None:
    """Return the encoding, utf-16 or utf-32, whose byte order mark a file begins with; None if it has none of these."""
    return next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)


def encoding_of_zeros(head: bytes) -> str | None:
    """Return the UTF-16 without a mark that a text file is, if nearly every second byte is zero; else None."""
    even, odd = head[::2], head[1::2]
    if len(odd) < 2:
        return None
    if odd.count(0) > 0.8 * len(odd) and not even.count(0) > 0.2 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.8 * len(even) and not odd.count(0) > 0.2 * len(odd):
        return "utf-16-be"
    return None


def foreign_content(head: bytes) -> tuple[str, str] | None:
    """Return what a file is whose first bytes are not those of a text file, and what to do; None for any other file.

    Args:
        head: its first HEAD_BYTES bytes, as they are on disk.
    """
    for start, what, remedy in _CONTENTS:
        if head.startswith(start):
            return what, remedy
    if head.lstrip().lower().startswith(_PAGES):
        return "a web page", f"It is often the answer of a server in place of the file. {_DOWNLOAD}"
    return None
