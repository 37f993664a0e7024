"""Raw text as documents of paragraphs, streamed: what further pretraining reads.

In a `.txt` file a line is a paragraph (or a sentence) and a blank line ends the document; in a table a row is a
document and its lines are paragraphs. Nothing is held but the document under way, or a part of it where it has no end.
The trade-off: a source is read again for every purpose (its hash, then its text), which costs seconds a gigabyte and no
memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from fullbake.core.errors import DataError
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.data.files import FORMS, files_of, open_table
from fullbake.data.tables import bare_suffix
from fullbake.data.textfiles import read_text_lines, too_long

LONGEST_PARAGRAPH: Final = 10_000_000
"""Characters; a book has some 500,000 in all."""

LONGEST_DOCUMENT: Final = 16_000_000
"""Characters. A longer one (a file without a blank line) comes in parts of about that many."""


@dataclass(frozen=True)
class Document:
    """where: "reviews.txt, line 812". paragraphs: none of them blank, at least one. continues: whether it is a further
    part of the document before it."""

    where: str
    paragraphs: tuple[str, ...]
    continues: bool = False

    @property
    def characters(self) -> int:
        """In all paragraphs together."""
        return sum(map(len, self.paragraphs))


@dataclass(frozen=True)
class Source:
    """Where documents come from. fingerprint: of all that they depend on. read: gives them anew each time. size:
    characters, about, None where that is not known beforehand. counted: what the last reading found on its way, to be
    kept with what was made of it."""

    name: str
    fingerprint: str
    read: Callable[[], Iterator[Document]]
    size: int | None = None
    counted: Callable[[], Mapping[str, int]] = dict


def file_source(
    path: str | Path, *, text: str = "text", delimiter: str | None = None, encoding: str = "utf-8"
) -> Source:
    """A `.txt` file (packed or not), a table of any form that `open_table` reads, or a folder of tables.

    text: the column of a table. Raises DataError where there is no such file or column; what stands in its rows is
    checked when they are read.
    """
    path = Path(path)
    if bare_suffix(path) == ".txt" and path.is_file():
        key = fingerprint("lines", file_sha256(path), encoding)
        return Source(str(path), key, lambda: _of_lines(path, encoding), _size([path]))
    if path.is_file() and bare_suffix(path) not in FORMS:
        raise DataError(
            "the form of the file is not known",
            where=str(path),
            expected=f"a name that ends with .txt, {', '.join(FORMS)}",
            got=repr(path.suffix) if path.suffix else "no extension",
            remedy="Name plain text .txt: a paragraph a line, a blank line between documents.",
        )
    table = open_table(path, columns=[text], nullable=[text], delimiter=delimiter, encoding=encoding)
    files = files_of(path) if path.is_dir() else [path]
    key = fingerprint("table", [file_sha256(file) for file in files], text, delimiter, encoding)

    def read() -> Iterator[Document]:
        for chunk in table.chunks():
            for index, value in enumerate(chunk.columns[text]):
                yield from _of_text(value, chunk.where(index))

    return Source(str(path), key, read, _size(files))


def text_source(texts: Sequence[str] | pa.ChunkedArray, name: str, key: str) -> Source:
    """Texts that are in memory, a document each. key: their fingerprint."""

    def read() -> Iterator[Document]:
        values = (value.as_py() for value in texts) if isinstance(texts, pa.ChunkedArray) else iter(texts)
        for number, value in enumerate(values, 1):
            yield from _of_text(value, f"{name}, row {number}")

    held = texts.nbytes if isinstance(texts, pa.ChunkedArray) else sum(map(len, texts))
    return Source(name, key, read, held)


def _size(files: Sequence[Path]) -> int | None:
    """The files' bytes; None where they are packed, or hold more than text."""
    plain = all(file.suffix.lower() in (".txt", ".csv", ".tsv", ".jsonl", ".ndjson") for file in files)
    return sum(file.stat().st_size for file in files) if plain else None


def _of_lines(path: Path, encoding: str) -> Iterator[Document]:
    lines = read_text_lines(path, encoding, LONGEST_PARAGRAPH)
    return _parted((f"{path}, line {number}", line) for number, line in lines)


def _of_text(text: str, where: str) -> Iterator[Document]:
    lines = [line for line in text.splitlines() if line.strip()]
    if max(map(len, lines), default=0) > LONGEST_PARAGRAPH:
        raise too_long(where, LONGEST_PARAGRAPH)
    return _parted((where, line) for line in lines)


def _parted(lines: Iterable[tuple[str, str]]) -> Iterator[Document]:
    """(where, line) after line as documents; a blank line ends one."""
    held: list[str] = []
    start, size, continues = "", 0, False
    for where, line in lines:
        blank = not line.strip()
        if not blank:
            start = start if held else where
            held.append(line)
            size += len(line)
        if held and (blank or size >= LONGEST_DOCUMENT):
            yield Document(start, tuple(held), continues)
            held, size, continues = [], 0, True
        continues = continues and not blank
    if held:
        yield Document(start, tuple(held), continues)


def beginning(source: Source, characters: int) -> Source:
    """The source's first paragraphs, as many as it takes to hold so many characters; the rest is not read."""

    def read() -> Iterator[Document]:
        left = characters
        for document in source.read():
            sizes = np.cumsum([len(paragraph) for paragraph in document.paragraphs])
            taken = int(np.searchsorted(sizes, left)) + 1
            yield replace(document, paragraphs=document.paragraphs[:taken])
            left -= int(sizes[-1])
            if left <= 0:
                return

    return replace(source, read=read)
