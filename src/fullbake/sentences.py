"""Paragraphs to sentences, by Wikimedia's sentencex.

Chosen by measuring (docs/explanation/further-pretraining.md has the table): the fastest by far, and over all languages
together none of the kept libraries is better. Next to it everything else in building a corpus takes long, so every
objective uses it.
"""

from collections.abc import Iterator
from typing import Final

from sentencex import segment

LONGEST: Final = 10_000
"""Characters. What has no end of a sentence for that long is cut, at white space where there is any."""


def split_sentences(paragraph: str, language: str = "en") -> list[str]:
    """The sentences of a paragraph in order, without the white space around them; empty ones left out.

    language: ISO 639-1 code of the language whose abbreviations are known; sentences of others are found too.
    """
    found = (sentence.strip() for sentence in segment(language, paragraph))
    return [piece for sentence in found if sentence for piece in _pieces(sentence)]


def _pieces(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        end = sentence.rfind(" ", 1, LONGEST)
        end = end if end > 0 else LONGEST
        yield sentence[:end].rstrip()
        sentence = sentence[end:].lstrip()
    if sentence:
        yield sentence
