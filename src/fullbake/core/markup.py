"""Build HTML of texts from outside, so that nothing in them acts. It needs no library, so it serves a light install.

`tag` escapes every string that is not `Html` already, and marks hidden characters, so that no caller can forget it.
Escaping keeps markup from acting. It lets through characters that reorder their neighbors (bidi controls), that nobody
sees (zero width, control characters), or that no file can hold (lone surrogates); these are replaced by visible marks.
The joiners U+200C and U+200D stay, because Persian, Indic scripts and emoji need them; tab and newline stay too.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from fullbake.core.escaping import HIDDEN

_HIDDEN = re.compile(f"[{HIDDEN}]")


class Html(str):
    """A piece of HTML. Whatever makes one says that nothing in it needs escaping."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the HTML; template engines ask for it."""
        return str(self)


def mark_hidden(text: str) -> str:
    """Replace each hidden character by a mark such as ⟦U+202E⟧. For attributes, titles and SVG."""
    return _HIDDEN.sub(lambda found: f"⟦{_code(found[0])}⟧", text)


def escape_html(text: str) -> Html:
    """Return a text as HTML: escaped, with a mark that names each hidden character."""
    pieces, start = [], 0
    for found in _HIDDEN.finditer(text):
        name = unicodedata.name(found[0], "control character").lower()
        mark = f'<span class="mark" title="{escape(name)}">{_code(found[0])}</span>'
        pieces += [_escaped(text[start : found.start()]), mark]
        start = found.end()
    return Html("".join([*pieces, _escaped(text[start:])]))


def _escaped(text: str) -> str:
    return escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


Child = str | None
"""A child of an element: HTML, or a text, which is escaped. None is left out."""

_EMPTY: Final = ("meta", "img", "br")
"""Elements without an end tag."""


def tag(element: str, *children: Child, **attributes: str | float | None) -> Html:
    """Return an element.

    Args:
        element: The element's name.
        *children: What is inside.
        **attributes: A trailing underscore is left out (`class_`), others become hyphens; None leaves one out.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = "".join(f' {key}="{_escaped(mark_hidden(str(value)))}"' for key, value in given.items())
    return Html(f"<{element}{words}>" if element in _EMPTY else f"<{element}{words}>{join(*children)}</{element}>")


def join(*children: Child) -> Html:
    """Return pieces one after another, strings escaped."""
    return Html("".join(one if isinstance(one, Html) else escape_html(one) for one in children if one is not None))


def isolate(text: str) -> Html:
    """Return a text in <bdi>, so that right-to-left text cannot reorder the text beside it."""
    return tag("bdi", text)


def facts_table(facts: Mapping[str, Child]) -> Html:
    """Return names and values as a table of two columns; values of None or "" are left out."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts.items() if value]
    return tag("table", tag("tbody", *rows), class_="facts")


def value_table(titles: Sequence[Child], rows: Iterable[Sequence[Child]], *, figures: bool = True) -> Html:
    """Return a table with a header.

    Args:
        titles: The header's cells.
        rows: The cells of each row.
        figures: Whether cells after the first are figures, which stand at the right.
    """
    side = "n" if figures else None
    head = tag(
        "tr", *(tag("th", title, scope="col", class_=side if place else None) for place, title in enumerate(titles))
    )
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell, class_=side) for cell in row[1:])) for row in rows
    ]
    return tag("table", tag("thead", head), tag("tbody", *body))


NOTEBOOK_STYLE: Final = """
.fb{font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;max-width:60rem;color:inherit;
border:1px solid rgba(128,128,128,.35);border-radius:8px;padding:.7em 1em;margin:.2em 0;overflow-wrap:anywhere}
.fb *{box-sizing:border-box}
.fb .t{font-weight:600;font-size:1.1em;margin:0}
.fb .s,.fb caption,.fb thead th{opacity:.75}
.fb p{margin:.35em 0}
.fb .w{border-left:3px solid #d9730d;padding-left:.6em}
.fb table{border-collapse:collapse;margin:.5em 0;border:0;font-variant-numeric:tabular-nums;
color:inherit;background:none}
.fb tr,.fb tbody tr:nth-child(odd),.fb tbody tr:hover{background:none}
.fb th,.fb td{border:0;border-top:1px solid rgba(128,128,128,.25);padding:.2em .9em .2em 0;text-align:left;
vertical-align:top;font-size:13px;white-space:normal;max-width:36rem;color:inherit;background:none}
.fb tbody th{font-weight:400}
.fb .facts tbody th{opacity:.75}
.fb thead th{border-top:0;font-weight:600}
.fb .n{text-align:right;white-space:nowrap}
.fb .b{display:inline-block;height:.6em;background:#2f7fc1;border-radius:2px;min-width:2px}
.fb img{max-width:100%;height:auto;border-radius:4px}
.fb pre,.fb code{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.92em;
background:none;color:inherit}
.fb .text{white-space:pre-wrap;margin:.5em 0;line-height:1.9}
.fb mark{color:inherit;border-radius:3px;padding:.1em .05em}
.fb .mark{border:1px dashed #c0392b;border-radius:3px;font-size:.8em;padding:0 .2em}
.fb .unread{opacity:.5}
"""
"""The style of what objects show in a notebook. Colors are those of the notebook, with half-transparent shades on them,
so that they fit every theme, light or dark, without asking which one it is."""


def notebook_block(title: Child, *parts: Child) -> Html:
    """Return what an object shows in a notebook: a frame with a title, in a style of its own.

    Args:
        title: One line: what the object is.
        *parts: What is below it.
    """
    style = Html(f"<style>{NOTEBOOK_STYLE}</style>")
    return tag("div", style, tag("p", title, class_="t"), *parts, class_="fb")


def warnings_block(sentences: Sequence[str]) -> Html | None:
    """Return warnings as marked paragraphs; None without any."""
    return join(*(tag("p", sentence, class_="w") for sentence in sentences)) if sentences else None
