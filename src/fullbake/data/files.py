"""Open and write tables by the ending of a file's name: one registry of formats, files and folders of files.

Every value is read as the string in the file (`01`, `true`, `NA`, an empty text); numbers of JSON keep their spelling.

Rows are written in their order, with columns added. Within one format nothing else changes: the fields of a CSV, the
members of a JSON object with their spelling and nesting, the types of Parquet. From one format into another, values
become strings, and what is not a plain value (null, list, object) is refused, because a CSV field cannot hold it and
still differ from a text. Rows are written chunk by chunk, so memory is constant, and a file appears under its name only
when it is complete.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from fullbake.config.sections import Dialect
from fullbake.core.arguments import PATH, require_type
from fullbake.core.errors import DataError, OutputError, did_you_mean
from fullbake.core.mistyped_paths import no_folder_remedy
from fullbake.data.arrow import PARQUET
from fullbake.data.class_folders import is_class_folder, open_class_folder, text_files, visible
from fullbake.data.delimited import CSV, TSV, TXT
from fullbake.data.json_documents import JSON_DOCUMENT
from fullbake.data.jsonl import JSON_LINES
from fullbake.data.signatures import FOREIGN_ENDINGS, HEAD_BYTES, foreign_content
from fullbake.data.tables import (
    COMPRESSED_ENDINGS,
    AddedColumns,
    Chunk,
    Format,
    ReadOptions,
    Table,
    Writer,
    check_flags,
    data_suffix,
    taken_name_error,
)

FORMATS: Final[dict[str, Format]] = {
    ".csv": CSV,
    ".tsv": TSV,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_DOCUMENT,
    ".parquet": PARQUET,
}
"""The format of a file by the ending of its name. To add a format, define a `Format` in a file like `delimited.py`, and
add its line here."""

_PLAIN_TEXT: Final = ".txt"
"""The ending of a file that is a table only if `--delimiter` says so; it is read, but never written."""


def open_table(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    nullable: Sequence[str] = (),
    lists: Sequence[str] = (),
    dialect: Dialect = Dialect(),  # noqa: B008  (it is frozen)
) -> Table:
    """Open a file, or a folder of files, as a table. The header is read now, the rows when the table is read.

    The files of a folder are one table, in the order of their names; names that start with `.` or `_` are left out. A
    folder whose subfolders hold files that are no tables has a class for each subfolder: see `class_folders`.

    Args:
        path: a file whose name ends with one of FORMATS (text formats may have .gz or .zst after it), or a folder of
            such files.
        columns: the columns to read; None reads all.
        nullable: columns in which null (of JSON or Parquet) and NaN become "". In every other column that is read they
            are refused.
        lists: columns in which a list of plain values (JSON, Parquet) is allowed; it becomes a list of strings.
        dialect: how the files are written.

    Returns:
        The table.

    Raises:
        DataError: there is no such file, it is a pipe or of an unknown format, it is empty, a column is missing, or the
            files of a folder do not fit together.
    """
    require_type(path, PATH, "path", error=DataError, expected="the path of a file or folder")
    path = Path(path)
    options = ReadOptions(None if columns is None else tuple(columns), tuple(nullable), tuple(lists), dialect)
    if not path.is_dir():
        return _open_file(path, options)[0]
    return open_class_folder(path, options) if is_class_folder(path, _is_table) else _open_folder(path, options)


def is_sorted_by_class(source: str | Path) -> bool:
    """Return True if the source is a folder with a subfolder for each class, whose rows come class after class."""
    return Path(source).is_dir() and is_class_folder(Path(source), _is_table)


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder that form one table, in the order of their names."""
    return text_files(folder) if is_class_folder(folder, _is_table) else visible(folder)


def names_a_data_file(path: Path) -> bool:
    """Return True if a name ends like a file of data, also one that is not read, such as .xlsx."""
    return _format_of_ending(path) is not None or path.suffix.lower() in FOREIGN_ENDINGS


@contextmanager
def open_writer(
    target: str | Path | BinaryIO,
    source: Table,
    added: AddedColumns,
    *,
    format_name: str | None = None,
    overwrite: bool = False,
) -> Iterator[Writer]:
    """Write the rows of a table with added columns; call the writer with each of `source.chunks(keep=True)`.

    A file is written under a temporary name, synced and renamed when the block ends without an error. Otherwise the
    target stays as it was.

    Args:
        target: a path, whose ending says the format; or a binary stream.
        source: the table whose rows are written.
        added: name and kind of the columns that come after those of the source.
        format_name: format of a stream; None takes the source's (CSV for plain lines).
        overwrite: replace a file that exists.

    Yields:
        The writer.

    Raises:
        DataError: a column of the source has the name of an added one.
        OutputError: the target exists, or its ending is not known.
    """
    for name in added:
        if name in source.names:
            raise taken_name_error(name, source.source)
    if not isinstance(target, str | Path):
        with _format_of_stream(format_name or source.format).open_writer(target, source, added) as writer:
            yield writer
        return
    from fullbake.core.storage import staged_file  # it loads numpy, which reading a CSV does not need

    chosen = _format_of_target(target)
    with (
        staged_file(target, overwrite=overwrite) as fresh,
        fresh.open("wb") as stream,
        chosen.open_writer(stream, source, added) as writer,
    ):
        yield writer


def _open_file(path: Path, options: ReadOptions) -> tuple[Table, Format]:
    chosen = _format_of_file(path)
    for name in set(vars(options.dialect)) - chosen.flags:
        readers = [*FORMATS.items(), (_PLAIN_TEXT, TXT)]
        endings = ", ".join(ending for ending, known in readers if name in known.flags)
        others = frozenset(vars(options.dialect)) - {name}
        check_flags(str(path), options.dialect, others, f"It is for {endings}: leave it out.")
    _check_content(path, chosen)
    return chosen.open_table(path, options), chosen


def _open_folder(folder: Path, options: ReadOptions) -> Table:
    """Open the files of a folder as one table."""
    files = files_of(folder)
    if not files:
        raise DataError(
            "the folder holds no file",
            where=str(folder),
            expected=f"files that end with {_endings()}",
            remedy="Files whose names start with . or _ are left out; rename them if they are the data.",
        )
    # This reads all headers, so that a file that does not fit is an error before the first row is read.
    shards = [_open_file(path, options) for path in files]
    first, first_format = shards[0]
    for shard, shard_format in shards[1:]:
        if shard_format is not first_format:
            raise DataError(
                "the folder holds files of several formats",
                where=str(folder),
                got=f"{first.source} and {shard.source}",
                remedy="Put the files of one table into a folder of their own.",
            )
        if shard.names != first.names and first_format.fixed_columns:
            raise DataError(
                "the files of the folder have different columns",
                where=shard.source,
                expected=f"{', '.join(map(repr, first.names))}, as {first.source} has",
                got=", ".join(map(repr, shard.names)),
                remedy="Write all files with the same columns, in the same order.",
            )

    # The first file answers for all in everything but the rows: they have its format and its columns.
    def read(size: int, keep: bool) -> Iterator[Chunk]:
        for shard, _ in shards:
            yield from shard.read(size, keep)

    return replace(first, source=str(folder), read=read)


def _format_of_file(path: Path) -> Format:
    """Return the format that a file's name says; raise DataError unless the file can be opened as that."""
    chosen = _format_of_ending(path)
    # A missing file is reported before an unknown ending, because it is the likelier mistake.
    if not path.exists():
        raise DataError("there is no such file", where=str(path), remedy=_similar_names(path))
    if path.is_dir():
        raise DataError(
            "this is a folder within a folder",
            where=str(path),
            remedy="Name that folder itself, or move its files up into the one above.",
        )
    if chosen is None or (path.suffix.lower() in COMPRESSED_ENDINGS and not chosen.is_text):
        raise DataError(
            "the format of the file is not known",
            where=str(path),
            expected=f"a name that ends with {_endings()}",
            got=repr("".join(path.suffixes[-2:])) if path.suffix else "no ending",
            remedy=FOREIGN_ENDINGS.get(path.suffix.lower())
            or "Rename or convert the file; decompress a compressed Parquet file.",
        )
    if not path.is_file():
        raise DataError(
            "this is not a regular file",
            where=str(path),
            remedy="It can be read only once, but fullbake reads the header first: save it to a file.",
        )
    return chosen


def _format_of_ending(path: Path) -> Format | None:
    """Return the format that a name says, None if no reader is known."""
    return TXT if data_suffix(path) == _PLAIN_TEXT else FORMATS.get(data_suffix(path))


def _is_table(path: Path) -> bool:
    """Return True if the ending of a file says that it is a table; a .txt file may be a text."""
    return data_suffix(path) in FORMATS


def _check_content(path: Path, chosen: Format) -> None:
    """Raise DataError if the first bytes of a file are those of another kind of file than its name says."""
    if path.suffix.lower() in COMPRESSED_ENDINGS:
        return
    with path.open("rb") as stream:
        found = foreign_content(stream.read(HEAD_BYTES))
    if found is None or (chosen is PARQUET and "Parquet" in found[0]):
        return
    what, remedy = found
    raise DataError(
        f"this is {what}", where=str(path), expected=f"the content of a {data_suffix(path)} file", remedy=remedy
    )


def _format_of_target(target: str | Path) -> Format:
    ending = Path(target).suffix.lower()
    if ending not in FORMATS:
        raise OutputError(
            "the format to write is not known",
            where=str(target),
            expected=f"a name that ends with {', '.join(FORMATS)}",
            remedy="Give the file one of these endings.",
        )
    return FORMATS[ending]


def _format_of_stream(name: str) -> Format:
    """Return the format of this name; CSV for the plain lines of a stream, which have no format of their own."""
    return next((chosen for chosen in FORMATS.values() if chosen.name == name), CSV)


def _similar_names(path: Path) -> str:
    if not path.parent.is_dir():
        return no_folder_remedy(path)
    files = sorted(other.name for other in path.parent.iterdir() if _format_of_ending(other) is not None)
    return did_you_mean(path.name, files[:20]) if files else "There is no data file in that folder."


def _endings() -> str:
    return f"{', '.join(FORMATS)} (text formats may have .gz or .zst after it), or .txt with --delimiter"
