"""Texts that will be scored stay out of the corpus: equal and nearly equal ones, as whole documents or as paragraphs.

Equal and near mean what they mean everywhere here (`duplicates`). A held-back text that a document has as several
paragraphs (a corpus of a sentence a line) is found where it stands there word for word. The texts are compared with a
portion of the corpus at a time, so memory does not grow with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from fullbake.core.hashing import fingerprint
from fullbake.data.duplicates import FEWEST, SHINGLE, find_overlap, normalize, text_hashes
from fullbake.documents import Document, Source

_PORTION_TEXTS: Final = 50_000
_PORTION_CHARACTERS: Final = 32_000_000

_KEY: Final = FEWEST + SHINGLE - 1
"""Characters by which held-back texts are looked up; shorter ones are found as whole paragraphs only."""


@dataclass(frozen=True)
class Guard:
    """held_back: the texts. lets_in: count them only (transductive)."""

    held_back: Sequence[str]
    lets_in: bool = False

    def over(self, source: Source) -> Source:
        """The source without the held-back texts, or with them where they are let in.

        What its last reading found is counted as held_back_documents and held_back_paragraphs, the latter in documents
        that are not held back as a whole.
        """
        if not self.held_back:
            return replace(source, counted=_Leaks().facts)
        leaks = _Leaks()
        key = fingerprint(source.fingerprint, text_hashes(self.held_back), self.lets_in)
        return replace(source, fingerprint=key, read=lambda: self._filtered(source.read(), leaks), counted=leaks.facts)

    def _filtered(self, documents: Iterator[Document], leaks: "_Leaks") -> Iterator[Document]:
        leaks.documents = leaks.paragraphs = 0
        runs = _keyed(self.held_back)
        for portion in _portions(documents):
            texts = [text for document in portion for text in _compared(document)]
            found = set(find_overlap(texts, self.held_back)[0].tolist())
            first = 0
            for document in portion:
                last = first + len(_compared(document))
                alike = {place - first for place in range(first, last) if place in found}
                yield from self._kept(document, alike | _in_runs(document.paragraphs, runs), leaks)
                first = last

    def _kept(self, document: Document, found: set[int], leaks: "_Leaks") -> Iterator[Document]:
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
class _Leaks:
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


def _portions(documents: Iterator[Document]) -> Iterator[list[Document]]:
    held: list[Document] = []
    texts = characters = 0
    for document in documents:
        held.append(document)
        texts += 1 + len(document.paragraphs)
        characters += document.characters
        if texts >= _PORTION_TEXTS or characters >= _PORTION_CHARACTERS:
            yield held
            held, texts, characters = [], 0, 0
    if held:
        yield held
