"""Paragraphs to sentences, by Wikimedia's sentencex.

Chosen by measuring (docs/explanation/further-pretraining.md has the table): the fastest by far, and over all languages
together none of the kept libraries is better. Next to it everything else in building a corpus takes long, so every
objective uses it.
"""

from collections.abc import Iterator
from typing import Final

from sentencex import segment

LONGEST: Final = 5_000
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
    while len(paragraph) - start > LONGEST:
        window = paragraph[start : start + LONGEST]
        *whole, last = segment(language, window)
        if whole:
            yield from whole
            start += len(window) - len(last)  # the last one may go on
        else:
            space = window.rfind(" ", 1)
            end = space if space > 0 else LONGEST
            yield window[:end]
            start += end
    yield from segment(language, paragraph[start:])
