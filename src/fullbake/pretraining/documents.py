"""Read raw text as a stream of documents, split it into sentences, and remove evaluation texts (decontamination).

Only the document being read is in memory, or one part of it if it is very long. The trade-off: a source is read again
for every purpose (once for its hash, once for its text), which costs seconds per gigabyte and no memory.

Sentences come from Wikimedia's sentencex, which is by far the fastest splitter that we measured, and over all languages
together as good as the best (docs/explanation/further-pretraining.md has the table).

Decontamination compares the excluded texts with one chunk of the corpus at a time, so its memory does not grow with the
corpus. "Equal" and "near" mean what they mean in `fullbake.data.duplicates`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from sentencex import segment

from fullbake.config.sections import Columns, Dialect
from fullbake.core import stopping
from fullbake.core.errors import DataError
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.data.dataset import texts_fingerprint
from fullbake.data.duplicates import MIN_SHINGLES, SHINGLE_LENGTH, find_overlap
from fullbake.data.files import FORMATS, files_of, open_table
from fullbake.data.normalization import normalize, text_hashes
from fullbake.data.plain_text import read_file_lines, too_long_error
from fullbake.data.sources import Source, open_source
from fullbake.data.tables import check_flags, data_suffix

# Sentences


SENTENCE_WINDOW: Final = 5_000
"""Characters that the splitter gets at once. It pairs quotation marks within a window, so a stray one hides the ends of
sentences only up to the window's end. Text without any end of a sentence is cut after that many characters."""

_WIDE_SPACES: Final = dict.fromkeys((ord(char) for char in map(chr, range(128, 0x3001)) if char.isspace()), " ")
"""sentencex 1.0 panics at a letter, a multi-byte white space and a full stop (`A\\u00a0.`), so each such white space is
replaced by a plain space."""


def split_sentences(paragraph: str, language: str = "en", *, window: int = SENTENCE_WINDOW) -> list[str]:
    """Split a paragraph into its sentences, in order.

    Args:
        paragraph: any text.
        language: ISO 639-1 code of the language whose abbreviations are known. Sentences of other languages are found
            too, with more wrong ends.
        window: how many characters the splitter gets at once.

    Returns:
        The sentences without surrounding white space; empty ones are left out. White space beyond ASCII comes out as
        plain spaces.
    """
    text = paragraph.translate(_WIDE_SPACES)
    found: list[str] = []
    start = 0
    while len(text) - start > window:
        *complete, last = segment(language, text[start : start + window])
        if complete:
            found.extend(complete)
            start += window - len(last)  # the last sentence may continue in the next window
        else:  # no end of a sentence in the whole window: cut at white space if there is any
            space = text.rfind(" ", start + 1, start + window)
            end = space if space > 0 else start + window
            found.append(text[start:end])
            start = end
    found.extend(segment(language, text[start:]))
    return [sentence for sentence in map(str.strip, found) if sentence]


# Documents


_TEXTS: Final = pa.large_string()

LONGEST_PARAGRAPH: Final = 10_000_000
"""Characters. A longer paragraph is refused; a whole book has about 500,000."""

LONGEST_DOCUMENT: Final = 16_000_000
"""Characters. A longer document (a file without a blank line) is read as several parts of about this size."""


@dataclass(frozen=True)
class Document:
    """A document, or one part of a very long one."""

    where: str
    """Where it begins, for error messages: "reviews.txt, line 812"."""

    paragraphs: tuple[str, ...]
    """At least one; none of them is blank."""

    continues: bool = False
    """True if this is a further part of the document before it."""

    @property
    def characters(self) -> int:
        """Return how many characters all paragraphs have together."""
        return sum(map(len, self.paragraphs))


@dataclass(frozen=True)
class DocumentSource:
    """A file, a folder or texts in memory, from which documents can be read again and again."""

    name: str
    """The name for messages."""

    fingerprint: str
    """Hash of everything that the documents depend on."""

    read: Callable[[], Iterator[Document]]
    """Reads all documents from the beginning, each time it is called."""

    size: int | None = None
    """Approximate number of characters; None if it is unknown before reading."""

    counts: Callable[[], Mapping[str, int]] = dict
    """Returns what the last reading counted. The corpus built from this source keeps these numbers."""


def file_source(
    path: str | Path,
    *,
    text: str = "text",
    dialect: Dialect = Dialect(),  # noqa: B008  (it is frozen)
    longest_document: int = LONGEST_DOCUMENT,
) -> DocumentSource:
    """Return the documents of a `.txt` file (compressed or not), of a table, or of a folder of tables.

    In a `.txt` file each line is a paragraph and a blank line ends the document. In a table each row is a document and
    each line of its text is a paragraph.

    Args:
        path: the file, or a folder of tables.
        text: the table's column with the texts.
        dialect: how tables are written; of a `.txt` file, which is never a table here, its encoding.
        longest_document: characters after which a document of a `.txt` file is split into parts.

    Raises:
        DataError: there is no such file or column, or the format is unknown. Rows are checked only when they are read.
    """
    path = Path(path)
    if data_suffix(path) == ".txt" and path.is_file():
        key = fingerprint("lines", file_sha256(path), dialect.encoding)

        def read_lines() -> Iterator[Document]:
            lines = read_file_lines(path, dialect.encoding, LONGEST_PARAGRAPH)
            return group_lines(((f"{path}, line {number}", line) for number, line in lines), longest_document)

        return DocumentSource(str(path), key, read_lines, _count_bytes([path]))
    if path.is_file() and data_suffix(path) not in FORMATS:
        raise DataError(
            "the format of the file is not known",
            where=str(path),
            expected=f"a name that ends with .txt, {', '.join(FORMATS)}",
            got=repr(path.suffix) if path.suffix else "no extension",
            remedy="Give a plain text file the ending .txt; each line is a paragraph, a blank line ends a document.",
        )
    table = open_table(path, columns=[text], nullable=[text], dialect=dialect)
    files = files_of(path) if path.is_dir() else [path]
    # What is left at its default is left out, so that the caches of earlier versions stay valid.
    later = {name: getattr(dialect, name) for name in ("quoting", "no_header", "json_path")}
    given = {name: value for name, value in later.items() if value != getattr(Dialect(), name)}
    shas = [file_sha256(file) for file in files]
    key = fingerprint("table", shas, text, dialect.delimiter, dialect.encoding, *([given] if given else []))

    def read_rows() -> Iterator[Document]:
        for chunk in table.chunks():
            for index, value in enumerate(chunk.columns[text]):
                yield from _split_text(value, chunk.where(index))

    return DocumentSource(str(path), key, read_rows, _count_bytes(files))


def document_sources(given: Sequence[Source], *, text: str, dialect: Dialect) -> list[DocumentSource]:
    """Return the documents of several files and tables in memory; see `file_source` and `table_source`.

    Raises:
        DataError: what these raise; or the dialect says how tables are written, but no path is a table.
    """
    paths = [source for source in given if isinstance(source, str | Path)]
    if paths and all(data_suffix(Path(path)) == ".txt" and Path(path).is_file() for path in paths):
        check_flags(
            str(paths[0]),
            dialect,
            frozenset({"encoding"}),
            "For further pretraining a .txt file is running text, not a table: leave it out, or name the table .csv.",
        )
    return [
        file_source(source, text=text, dialect=dialect)
        if isinstance(source, str | Path)
        else table_source(source, text=text)
        for source in given
    ]


def table_source(source: Source, *, text: str = "text") -> DocumentSource:
    """Return the documents of a table in memory: each row is one, each line of its text a paragraph.

    Args:
        source: the table, or texts.
        text: the table's column with the texts. A row without a text is left out.

    Raises:
        DataError: there is no such column, or it holds no texts.
    """
    table = open_source(source, Columns(text), nullable=[text])
    texts = pa.chunked_array([pa.array(chunk.columns[text], pa.large_string()) for chunk in table.chunks()], _TEXTS)
    return text_source(texts, table.source, fingerprint("table", texts_fingerprint(texts)))


def text_source(texts: Sequence[str] | pa.ChunkedArray, name: str, key: str) -> DocumentSource:
    """Return texts in memory as a source; each text is a document, each of its lines a paragraph.

    Args:
        texts: the texts, blank ones allowed.
        name: what error messages call them.
        key: their fingerprint.
    """

    def read() -> Iterator[Document]:
        values = (value.as_py() for value in texts) if isinstance(texts, pa.ChunkedArray) else iter(texts)
        for number, value in enumerate(values, 1):
            yield from _split_text(value, f"{name}, row {number}")

    size = texts.nbytes if isinstance(texts, pa.ChunkedArray) else sum(map(len, texts))
    return DocumentSource(name, key, read, size)


def first_paragraphs(source: DocumentSource, characters: int) -> DocumentSource:
    """Return a source of the first paragraphs only, as many as are needed to reach that many characters.

    What follows them is not read.
    """

    def read() -> Iterator[Document]:
        left = characters
        for document in source.read():
            sizes = np.cumsum([len(paragraph) for paragraph in document.paragraphs])
            count = int(np.searchsorted(sizes, left)) + 1
            yield replace(document, paragraphs=document.paragraphs[:count])
            left -= int(sizes[-1])
            if left <= 0:
                return

    return replace(source, read=read)


@dataclass(frozen=True)
class TextSample:
    """Some documents of larger sources, evenly spread."""

    source: DocumentSource
    """The documents, held in memory."""

    share: float
    """Share of all characters that it holds."""


def sample_documents(sources: Sequence[DocumentSource], characters: int) -> TextSample:
    """Return every k-th document of some sources, with k such that they have `characters` to twice as many.

    The sources are read once and whole; a smaller text is returned whole. Of a very long document only the beginning is
    taken, up to an eighth of `characters`.

    Args:
        sources: the text.
        characters: how many characters to return at least, if there are so many.
    """
    kept: list[Document] = []
    step, size, total = 1, 0, 0
    for number, document in enumerate(chain.from_iterable(source.read() for source in sources)):
        stopping.check()
        total += document.characters
        if number % step:
            continue
        kept.append(_shorten(document, characters // 8))
        size += kept[-1].characters
        while size > 2 * characters and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            size = sum(held.characters for held in kept)
    key = fingerprint("sample", [source.fingerprint for source in sources], characters)
    name = ", ".join(source.name for source in sources)
    return TextSample(DocumentSource(name, key, lambda: iter(kept), size), size / max(1, total))


def _shorten(document: Document, characters: int) -> Document:
    """Return a document's first paragraphs, with up to so many characters; a longer first one is cut."""
    sizes = np.cumsum([len(paragraph) for paragraph in document.paragraphs])
    count = int(np.searchsorted(sizes, characters, side="right"))
    first = (document.paragraphs[0][: max(1, characters)],)
    return replace(document, paragraphs=document.paragraphs[:count] or first)


def group_lines(lines: Iterable[tuple[str, str]], longest_document: int = LONGEST_DOCUMENT) -> Iterator[Document]:
    """Group lines into documents; a blank line ends a document.

    Args:
        lines: (where, line) pairs.
        longest_document: characters after which a document is yielded in parts, so that memory stays bounded.
    """
    held: list[str] = []
    start, size, continues = "", 0, False
    for where, line in lines:
        blank = not line.strip()
        if not blank:
            start = start if held else where
            held.append(line)
            size += len(line)
        if held and (blank or size >= longest_document):
            yield Document(start, tuple(held), continues)
            held, size, continues = [], 0, True
        continues = continues and not blank
    if held:
        yield Document(start, tuple(held), continues)


def _split_text(text: str, where: str) -> Iterator[Document]:
    lines = [line for line in text.splitlines() if line.strip()]
    if max(map(len, lines), default=0) > LONGEST_PARAGRAPH:
        raise too_long_error(where, LONGEST_PARAGRAPH)
    return group_lines((where, line) for line in lines)


def _count_bytes(files: Sequence[Path]) -> int | None:
    """Return the files' bytes; None if they are compressed or hold more than text."""
    text_endings = {".txt", *(ending for ending, known in FORMATS.items() if known.is_text)}
    plain = all(file.suffix.lower() in text_endings for file in files)
    return sum(file.stat().st_size for file in files) if plain else None


# Decontamination


_KEY_LENGTH: Final = MIN_SHINGLES + SHINGLE_LENGTH - 1
"""Leading characters by which an excluded text is looked up. Shorter texts are found as whole paragraphs only."""


@dataclass(frozen=True)
class Decontamination:
    """Removes texts from a corpus that a classifier will be scored on, so that no score is too good.

    Removed are documents that are equal or nearly equal to an excluded text, and such paragraphs in longer documents.
    An excluded text that a document holds as several paragraphs (a corpus with a sentence on each line) is found if it
    is equal to them word for word.
    """

    excluded_texts: Sequence[str] = ()
    """The texts that the corpus must not hold."""

    count_only: bool = False
    """Count what was found, but leave it in the corpus (transductive further pretraining)."""

    chunk_texts: int = 50_000
    """How many documents and paragraphs are compared at once, at most."""

    chunk_characters: int = 32_000_000
    """How many characters are compared at once, about."""

    def apply(self, source: DocumentSource) -> DocumentSource:
        """Return the source without the excluded texts, or unchanged under `count_only`.

        Its `counts` are held_back_documents and held_back_paragraphs of the last reading; a paragraph is counted only
        if its document is not removed as a whole.
        """
        if not self.excluded_texts:
            return replace(source, counts=_FoundCounts().as_dict)
        counts = _FoundCounts()
        key = fingerprint(source.fingerprint, text_hashes(self.excluded_texts), self.count_only)
        return replace(source, fingerprint=key, read=lambda: self._filter(source.read(), counts), counts=counts.as_dict)

    def _filter(self, documents: Iterator[Document], counts: "_FoundCounts") -> Iterator[Document]:
        counts.documents = counts.paragraphs = 0
        by_beginning = _index_by_beginning(self.excluded_texts)
        for chunk in self._chunks(documents):
            compared = [_compared_texts(document) for document in chunk]
            found = set(find_overlap([text for texts in compared for text in texts], self.excluded_texts)[0].tolist())
            first = 0
            for document, texts in zip(chunk, compared, strict=True):
                matches = {number for number in range(len(texts)) if first + number in found}
                matches |= _find_paragraph_runs(document.paragraphs, by_beginning)
                yield from self._remove(document, matches, counts)
                first += len(texts)

    def _chunks(self, documents: Iterator[Document]) -> Iterator[list[Document]]:
        chunk: list[Document] = []
        texts = characters = 0
        for document in documents:
            chunk.append(document)
            texts += 1 + len(document.paragraphs)
            characters += document.characters
            if texts >= self.chunk_texts or characters >= self.chunk_characters:
                yield chunk
                chunk, texts, characters = [], 0, 0
        if chunk:
            yield chunk

    def _remove(self, document: Document, matches: set[int], counts: "_FoundCounts") -> Iterator[Document]:
        """Yield the document, the rest of it, or nothing. matches: 0 is the whole document, 1 its first paragraph."""
        whole = 0 in matches
        counts.documents += whole
        counts.paragraphs += 0 if whole else len(matches)
        if self.count_only or not matches:
            yield document
            return
        left = tuple(text for number, text in enumerate(document.paragraphs, 1) if number not in matches)
        if not whole and left:
            yield replace(document, paragraphs=left)


@dataclass
class _FoundCounts:
    """How many excluded documents and paragraphs one reading of a source found."""

    documents: int = 0
    paragraphs: int = 0

    def as_dict(self) -> dict[str, int]:
        return {"held_back_documents": self.documents, "held_back_paragraphs": self.paragraphs}


def _compared_texts(document: Document) -> list[str]:
    """Return the document as one text, followed by its paragraphs if it has several."""
    return [" ".join(document.paragraphs), *(document.paragraphs if len(document.paragraphs) > 1 else ())]


def _index_by_beginning(texts: Sequence[str]) -> dict[str, list[str]]:
    """Map the first characters of each normalized text to the texts that begin with them."""
    index: dict[str, list[str]] = {}
    for text in map(normalize, texts):
        if len(text) >= _KEY_LENGTH:
            index.setdefault(text[:_KEY_LENGTH], []).append(text)
    return index


def _find_paragraph_runs(paragraphs: Sequence[str], by_beginning: dict[str, list[str]]) -> set[int]:
    """Return the numbers, from 1, of consecutive paragraphs that together equal one of the texts."""
    if len(paragraphs) < 2:
        return set()
    normalized = [normalize(paragraph) for paragraph in paragraphs]
    ends = list(accumulate(len(text) + 1 for text in normalized))
    number_at_end = {end - 1: number for number, end in enumerate(ends, 1)}
    whole = " ".join(normalized)
    found: set[int] = set()
    for number, start in enumerate([0, *ends[:-1]], 1):
        for text in by_beginning.get(whole[start : start + _KEY_LENGTH], ()):
            if whole.startswith(text, start) and start + len(text) in number_at_end:
                found.update(range(number, number_at_end[start + len(text)] + 1))
    return found
