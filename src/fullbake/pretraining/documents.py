"""Paragraphs to sentences, by Wikimedia's sentencex.

Chosen by measuring (docs/explanation/further-pretraining.md has the table): the fastest by far, and over all languages
together none of the kept libraries is better. Next to it everything else in building a corpus takes long, so every
objective uses it.

Raw text as documents of paragraphs, streamed: what further pretraining reads.

In a `.txt` file a line is a paragraph (or a sentence) and a blank line ends the document; in a table a row is a
document and its lines are paragraphs. Nothing is held but the document under way, or a part of it where it has no end.
The trade-off: a source is read again for every purpose (its hash, then its text), which costs seconds a gigabyte and no
memory.

Texts that will be scored stay out of the corpus: equal and nearly equal ones, as whole documents or as paragraphs.

Equal and near mean what they mean everywhere here (`duplicates`). A held-back text that a document has as several
paragraphs (a corpus of a sentence a line) is found where it stands there word for word. The texts are compared with a
portion of the corpus at a time, so memory does not grow with it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from sentencex import segment

from fullbake.core.errors import DataError
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.data.duplicates import MIN_SHINGLES, SHINGLE_LENGTH, find_overlap, normalize, text_hashes
from fullbake.data.files import FORMATS, files_of, open_table
from fullbake.data.plain_text import read_file_lines, too_long_error
from fullbake.data.tables import data_suffix

LONGEST_SENTENCE_TEXT: Final = 5_000
"""Characters that are looked at together. Quotation marks are paired within them, so that a stray one hides the ends of
sentences no further; what has no end of a sentence for that long is cut, at white space where there is any."""

_WIDE_SPACES: Final = dict.fromkeys((ord(char) for char in map(chr, range(128, 0x3001)) if char.isspace()), " ")
"""sentencex 1.0 panics at a letter, white space of several bytes and a full stop (`A\\u00a0.`), so all of it becomes a
plain space."""


def split_sentences(paragraph: str, language: str = "en") -> list[str]:
    """The sentences of a paragraph in order, without the white space around them; empty ones left out. White space
    beyond ASCII comes out as plain spaces.

    language: ISO 639-1 code of the language whose abbreviations are known; sentences of others are found too.
    """
    found = (sentence.strip() for sentence in _sentences(paragraph.translate(_WIDE_SPACES), language))
    return [sentence for sentence in found if sentence]


def _sentences(paragraph: str, language: str) -> Iterator[str]:
    start = 0
    while len(paragraph) - start > LONGEST_SENTENCE_TEXT:
        window = paragraph[start : start + LONGEST_SENTENCE_TEXT]
        *whole, last = segment(language, window)
        if whole:
            yield from whole
            start += len(window) - len(last)  # the last one may go on
        else:
            space = window.rfind(" ", 1)
            end = space if space > 0 else LONGEST_SENTENCE_TEXT
            yield window[:end]
            start += end
    yield from segment(language, paragraph[start:])


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
class DocumentSource:
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
) -> DocumentSource:
    """A `.txt` file (packed or not), a table of any form that `open_table` reads, or a folder of tables.

    text: the column of a table. Raises DataError where there is no such file or column; what stands in its rows is
    checked when they are read.
    """
    path = Path(path)
    if data_suffix(path) == ".txt" and path.is_file():
        key = fingerprint("lines", file_sha256(path), encoding)
        return DocumentSource(str(path), key, lambda: _of_lines(path, encoding), _size([path]))
    if path.is_file() and data_suffix(path) not in FORMATS:
        raise DataError(
            "the form of the file is not known",
            where=str(path),
            expected=f"a name that ends with .txt, {', '.join(FORMATS)}",
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

    return DocumentSource(str(path), key, read, _size(files))


def text_source(texts: Sequence[str] | pa.ChunkedArray, name: str, key: str) -> DocumentSource:
    """Texts that are in memory, a document each. key: their fingerprint."""

    def read() -> Iterator[Document]:
        values = (value.as_py() for value in texts) if isinstance(texts, pa.ChunkedArray) else iter(texts)
        for number, value in enumerate(values, 1):
            yield from _of_text(value, f"{name}, row {number}")

    held = texts.nbytes if isinstance(texts, pa.ChunkedArray) else sum(map(len, texts))
    return DocumentSource(name, key, read, held)


def _size(files: Sequence[Path]) -> int | None:
    """The files' bytes; None where they are packed, or hold more than text."""
    plain = all(file.suffix.lower() in (".txt", ".csv", ".tsv", ".jsonl", ".ndjson") for file in files)
    return sum(file.stat().st_size for file in files) if plain else None


def _of_lines(path: Path, encoding: str) -> Iterator[Document]:
    lines = read_file_lines(path, encoding, LONGEST_PARAGRAPH)
    return _split_long_document((f"{path}, line {number}", line) for number, line in lines)


def _of_text(text: str, where: str) -> Iterator[Document]:
    lines = [line for line in text.splitlines() if line.strip()]
    if max(map(len, lines), default=0) > LONGEST_PARAGRAPH:
        raise too_long_error(where, LONGEST_PARAGRAPH)
    return _split_long_document((where, line) for line in lines)


def _split_long_document(lines: Iterable[tuple[str, str]]) -> Iterator[Document]:
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


def first_paragraphs(source: DocumentSource, characters: int) -> DocumentSource:
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


_CHUNK_TEXTS: Final = 50_000
_CHUNK_CHARACTERS: Final = 32_000_000

_KEY: Final = MIN_SHINGLES + SHINGLE_LENGTH - 1
"""Characters by which held-back texts are looked up; shorter ones are found as whole paragraphs only."""


@dataclass(frozen=True)
class Decontamination:
    """held_back: the texts. lets_in: count them only (transductive)."""

    held_back: Sequence[str]
    lets_in: bool = False

    def over(self, source: DocumentSource) -> DocumentSource:
        """The source without the held-back texts, or with them where they are let in.

        What its last reading found is counted as held_back_documents and held_back_paragraphs, the latter in documents
        that are not held back as a whole.
        """
        if not self.held_back:
            return replace(source, counted=_LeakCounts().facts)
        leaks = _LeakCounts()
        key = fingerprint(source.fingerprint, text_hashes(self.held_back), self.lets_in)
        return replace(source, fingerprint=key, read=lambda: self._filtered(source.read(), leaks), counted=leaks.facts)

    def _filtered(self, documents: Iterator[Document], leaks: "_LeakCounts") -> Iterator[Document]:
        leaks.documents = leaks.paragraphs = 0
        runs = _keyed(self.held_back)
        for portion in _paragraph_chunks(documents):
            texts = [text for document in portion for text in _compared(document)]
            found = set(find_overlap(texts, self.held_back)[0].tolist())
            first = 0
            for document in portion:
                last = first + len(_compared(document))
                alike = {place - first for place in range(first, last) if place in found}
                yield from self._kept(document, alike | _in_runs(document.paragraphs, runs), leaks)
                first = last

    def _kept(self, document: Document, found: set[int], leaks: "_LeakCounts") -> Iterator[Document]:
        """The document, what is left of it, or nothing. found: which of its compared texts are held back; 0 is the
        whole."""
        whole = 0 in found
        leaks.documents += whole
        leaks.paragraphs += 0 if whole else len(found)
        if self.lets_in or not found:
            yield document
            return
        kept = tuple(text for number, text in enumerate(document.paragraphs, 1) if number not in found)
        if not whole and kept:
            yield replace(document, paragraphs=kept)


@dataclass
class _LeakCounts:
    """What a reading of a source found."""

    documents: int = 0
    paragraphs: int = 0

    def facts(self) -> dict[str, int]:
        """As they are kept with a corpus."""
        return {"held_back_documents": self.documents, "held_back_paragraphs": self.paragraphs}


def _keyed(texts: Sequence[str]) -> dict[str, list[str]]:
    """The normalized texts by their beginning."""
    keyed: dict[str, list[str]] = {}
    for text in map(normalize, texts):
        if len(text) >= _KEY:
            keyed.setdefault(text[:_KEY], []).append(text)
    return keyed


def _in_runs(paragraphs: Sequence[str], runs: dict[str, list[str]]) -> set[int]:
    """Numbers, from 1, of paragraphs that follow one another as one of the texts."""
    if len(paragraphs) < 2:
        return set()
    normalized = [normalize(paragraph) for paragraph in paragraphs]
    ends = list(accumulate(len(text) + 1 for text in normalized))
    place = {end - 1: number for number, end in enumerate(ends, 1)}
    whole = " ".join(normalized)
    found: set[int] = set()
    for number, start in enumerate([0, *ends[:-1]], 1):
        for text in runs.get(whole[start : start + _KEY], ()):
            if whole.startswith(text, start) and start + len(text) in place:
                found.update(range(number, place[start + len(text)] + 1))
    return found


def _compared(document: Document) -> list[str]:
    """The document as one text, then its paragraphs, where it has several."""
    return [" ".join(document.paragraphs), *(document.paragraphs if len(document.paragraphs) > 1 else ())]


def _paragraph_chunks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    held: list[Document] = []
    texts = characters = 0
    for document in documents:
        held.append(document)
        texts += 1 + len(document.paragraphs)
        characters += document.characters
        if texts >= _CHUNK_TEXTS or characters >= _CHUNK_CHARACTERS:
            yield held
            held, texts, characters = [], 0, 0
    if held:
        yield held
