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


def split_sentences(paragraph: str, language: str = "en") -> list[str]:
    """The sentences of a paragraph in order, without the white space around them; empty ones left out.

    language: ISO 639-1 code of the language whose abbreviations are known; sentences of others are found too.
    """
    return [stripped for sentence in _sentences(paragraph, language) if (stripped := sentence.strip())]


def _sentences(paragraph: str, language: str) -> Iterator[str]:
    start = 0
    while len(paragraph) - start > LONGEST:
        window = paragraph[start : start + LONGEST]
        *whole, last = segment(language, window)
        if whole:
            yield from whole
            start += len(window) - len(last)  # the last one may go on
        else:
            end = window.rfind(" ", 1)
            yield window[: end if end > 0 else LONGEST]
            start += end if end > 0 else LONGEST
    yield from segment(language, paragraph[start:])
