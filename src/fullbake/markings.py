"""Texts of strangers on a page: whatever could act on it or hide in it is shown instead.

Escaping keeps markup from acting. What escaping lets through are characters that reorder their neighbours (bidi
controls), that nobody sees (zero width, control characters) or that no file can hold (lone surrogates): those become
marks that name them. The two joiners U+200C and U+200D stay, since Persian, Indic scripts and emoji are written with
them; tab and newline stay too.
"""

import re
import unicodedata

from markupsafe import Markup, escape

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def show(text: str) -> str:
    """The text with a mark such as ⟦U+202E⟧ for each hidden character: for attributes, titles and SVG."""
    return _HIDDEN.sub(lambda found: f"⟦{_code(found[0])}⟧", text)


def reveal(text: str) -> Markup:
    """The text as HTML: escaped, and each hidden character a mark with its name."""
    pieces, start = [], 0
    for found in _HIDDEN.finditer(text):
        pieces += [escape(text[start : found.start()]), _mark(found[0])]
        start = found.end()
    return Markup("").join([*pieces, escape(text[start:])])


def isolate(text: str) -> Markup:
    """`reveal` in <bdi>, so that a word of another direction cannot reorder what stands beside it."""
    return Markup("<bdi>{}</bdi>").format(reveal(text))


def _mark(character: str) -> Markup:
    name = unicodedata.name(character, "control character").lower()
    return Markup('<span class="mark" title="{}">{}</span>').format(name, _code(character))


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
