"""A folder with a subfolder for each class, and one text in each file: 20 Newsgroups, IMDB, exports of mail.

    reviews/neg/0_3.txt
    reviews/pos/0_9.txt

The rows have three columns: `text`, `label` (the name of the subfolder) and `file`. They come in the order of the
paths, so they are ordered by class: splits draw at random, and what is written keeps this order.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from fullbake.core.console import warn
from fullbake.core.errors import DataError
from fullbake.data.plain_text import nul_error, open_text
from fullbake.data.tables import (
    MAX_FIELD_CHARACTERS,
    Chunk,
    ReadOptions,
    Table,
    check_flags,
    select_columns,
    split_chunks,
)

NAMES: Final = ("text", "label", "file")


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted by name, without names that start with `.` or `_`."""
    return sorted(path for path in folder.iterdir() if path.name[0] not in "._")


def is_class_folder(folder: Path, is_table: Callable[[Path], bool]) -> bool:
    """Return True if a folder holds subfolders whose files are texts, and no table of its own.

    Args:
        folder: the folder.
        is_table: says whether a file is a table by its ending.
    """
    inside = visible(folder)
    subfolders = [path for path in inside if path.is_dir()]
    if not subfolders or any(is_table(path) for path in inside if path.is_file()):
        return False
    files = [path for subfolder in subfolders for path in visible(subfolder)]
    return any(path.is_file() for path in files) and not any(is_table(path) for path in files)


def text_files(folder: Path) -> list[Path]:
    """Return the files of all classes, in the order of their paths.

    Raises:
        DataError: a subfolder holds a folder.
    """
    found: list[Path] = []
    for subfolder in (path for path in visible(folder) if path.is_dir()):
        for path in visible(subfolder):
            if path.is_dir():
                raise DataError(
                    "a folder within the folder of a class",
                    where=str(path),
                    expected=f"files with one text each, in a subfolder of {folder} for each class",
                    remedy=f"Name the folder that holds the classes, such as {subfolder}, or move the files up.",
                )
            found.append(path)
    return found


def open_class_folder(folder: Path, options: ReadOptions) -> Table:
    """Open a folder of classes as a table; the texts are read when the table is read.

    Raises:
        DataError: a column is asked for that it has not, or a flag is given that is for tables.
    """
    check_flags(
        str(folder),
        options.dialect,
        frozenset({"encoding"}),
        "The folder has a subfolder for each class and one text in each file, not tables: leave it out.",
    )
    files = text_files(folder)
    columns = select_columns(
        str(folder),
        NAMES,
        options.columns,
        " A folder with a subfolder for each class has these columns.",
    )
    beside = [path.name for path in visible(folder) if path.is_file()]
    if beside:
        warn(f"{folder}: files beside the subfolders of the classes are left out ({', '.join(beside[:5])})")

    def rows() -> Iterator[tuple[int, tuple[str, str, str]]]:
        for number, path in enumerate(files, start=1):
            yield number, (_read_text(path, options.dialect.encoding), path.parent.name, str(path.relative_to(folder)))

    def read(size: int, _: bool) -> Iterator[Chunk]:
        for positions, held in split_chunks(rows(), size, lambda row: len(row[0])):
            values = {name: [row[NAMES.index(name)] for row in held] for name in columns}
            yield Chunk(str(folder), "file", values, positions, held)

    return Table(str(folder), "folder", NAMES, columns, "file", read, _string_rows)


def _string_rows(chunk: Chunk) -> Iterator[list[str]]:
    rows: Sequence[Sequence[str]] = chunk.originals
    return (list(row) for row in rows)


def _read_text(path: Path, encoding: str) -> str:
    """Return the text of a file as it is, but for a byte order mark."""
    with open_text(path, encoding) as handle:
        text = handle.read(MAX_FIELD_CHARACTERS + 1)
    if "\0" in text:
        raise nul_error(f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}", path, encoding)
    if len(text) > MAX_FIELD_CHARACTERS:
        raise DataError(
            "the text is too long",
            where=str(path),
            expected=f"at most {MAX_FIELD_CHARACTERS:,} characters",
            remedy="Split the document, or move the file out of the folder.",
        )
    return text
