"""An explanation as HTML: in a notebook, and as a page of its own.

The texts are shown with each word shaded by its effect: blue speaks for the label, orange against it. Shades are shares
of the largest effect, so the numbers stand in a table below. Every text is escaped; nothing is loaded and no script
runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fullbake.core.console import format_difference, format_score
from fullbake.core.markup import Html, escape_html, isolate, join, notebook_block, tag, value_table
from fullbake.core.pages import simple_page

TABLE_WORDS: Final = 12
"""Words in the table of a label."""

_FOR, _AGAINST = "47,127,193", "217,115,13"
"""Red, green and blue of the two shades."""


def explanation_html(found: Mapping[str, Any], notes: Sequence[str]) -> Html:
    """Return what a notebook shows of an explanation.

    Args:
        found: The explanation as JSON values.
        notes: Sentences that belong to it.
    """
    predicted: list[Html] = [tag("b", isolate(name)) for name in found["predicted"]] or [Html("no label")]
    commas = [piece for name in predicted for piece in (", ", name)][1:]
    legend = tag(
        "p",
        tag("mark", "blue", style=_shade(0.6)),
        " words raise the score of the label, ",
        tag("mark", "orange", style=_shade(-0.6)),
        " words lower it. An effect is the score with the word minus the score without it.",
        class_="s",
    )
    shown = [_label(found, place) for place in range(len(found["labels"]))]
    return notebook_block(join("Answer: ", *commas), legend, *(tag("p", note, class_="w") for note in notes), *shown)


def explanation_page(found: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Return an explanation as a whole page. The arguments are those of `explanation_html`."""
    return simple_page("Why this label", explanation_html(found, notes))


def _label(found: Mapping[str, Any], number: int) -> Html:
    """Return one label: its score, the texts with their words shaded, and the words with the largest effects."""
    own = found["labels"][number]
    words = sorted(own["words"], key=lambda word: -abs(word["effect"]))[:TABLE_WORDS]
    largest = (abs(words[0]["effect"]) if words else 0) or 1.0
    texts = [
        tag("div", *_shaded(found, place, own["words"], largest), class_="text", dir="auto")
        for place in range(len(found["texts"]))
    ]
    title = tag("p", tag("b", isolate(own["label"])), f" has the score {format_score(own['score'])}")
    rows = [(_short(word["word"]), format_difference(word["effect"])) for word in words]
    is_open = None if number else ""
    table = tag("details", tag("summary", "effects as numbers"), value_table(("word", "effect"), rows), open=is_open)
    return tag("section", title, *texts, table if rows else tag("p", "There is no word in it.", class_="s"))


def _shaded(found: Mapping[str, Any], place: int, words: Sequence[Mapping[str, Any]], largest: float) -> list[Html]:
    """Return one text in pieces: words with their shade, and what is between them."""
    text, pieces, done = found["texts"][place], list[Html](), 0
    marks = [(word["start"], word["end"], word["effect"]) for word in words if word["text"] == place]
    marks += [(gap["start"], gap["end"], None) for gap in found["unread"] if gap["text"] == place]
    for first, end, effect in sorted(marks, key=lambda mark: mark[:2]):
        start = max(first, done)  # a word may reach into what is not read
        if start >= end:
            continue
        pieces.append(escape_html(text[done:start]))
        if effect is None:
            pieces.append(tag("span", text[start:end], class_="unread", title="not read"))
        else:
            number = format_difference(effect)
            pieces.append(tag("mark", text[start:end], style=_shade(effect / largest), title=number))
        done = end
    return [*pieces, escape_html(text[done:])]


def _shade(share: float) -> str:
    """Return the style of a word. share: its effect as a share of the largest, from -1 to 1."""
    strength = round(0.65 * abs(share), 3)
    if strength < 0.02:
        return "background:none"
    return f"background:rgba({_FOR if share > 0 else _AGAINST},{strength})"


def _short(word: str) -> Html:
    line = " ".join(word.split())
    return isolate(line if len(line) <= 60 else f"{line[:40]} … {line[-15:]}")
