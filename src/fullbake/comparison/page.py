"""What all pages share: the templates with their escaping. `core.pages` writes them.

A page is one HTML file without script that loads nothing and forbids scripts by its content security policy. The
template environment escapes every printed text and marks hidden characters, so that no place in a template can forget
it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fullbake.comparison import svg
from fullbake.core import console
from fullbake.core.markup import mark_hidden

LARGEST_MATRIX: Final = 20
"""The most classes of a confusion matrix; with more, a page lists the most frequent mistakes."""


def render_page(template: str, view: Mapping[str, Any]) -> str:
    """Return a page as HTML.

    Args:
        template: The file in resources/templates.
        view: The variables of the template.
    """
    return _environment().get_template(template).render(view)


def page_beside(bundle: Path) -> Path:
    """Return the path of a bundle's page: OUT.html beside OUT."""
    whole = bundle if bundle.name else bundle.resolve()
    return whole.with_name(f"{whole.name}.html")


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as it was typed, absolute paths shortened to file names.

    The page may be shared, so it must not show the folders of the person who ran the command.

    Args:
        arguments: `sys.argv`.
    """
    if Path(arguments[0]).name not in ("fullbake", "__main__.py"):
        return "fullbake.compare(...)"
    words = [Path(word).name if Path(word).is_absolute() else word for word in arguments[1:]]
    return " ".join(["fullbake", *(f'"{word}"' if " " in word else word for word in words)])


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fullbake", "resources/templates"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        console.format_score,
        console.format_interval,
        console.format_difference,
        console.format_p_value,
        console.format_duration,
        console.format_size,
        console.format_count,
        console.format_estimate,
        console.format_time,
    )
    environment.filters |= {format_.__name__.removeprefix("format_"): format_ for format_ in formats}
    environment.filters |= {"name": lambda value: svg.isolate_text(str(value)), "text": svg.escape_text}
    return environment


def _finalize(value: Any) -> Any:
    """Mark the hidden characters of a printed value, unless it is markup already. None becomes a dash."""
    if value is None:
        return console.UNKNOWN
    return value if isinstance(value, Markup) else mark_hidden(str(value))


# Parts of a view


def sections_of(places: Mapping[str, tuple[str, Any]]) -> list[tuple[str, str]]:
    """Return the (id, title) of the sections that have content. places: id -> (title, content)."""
    return [(place, title) for place, (title, content) in places.items() if content]


def view_matrix(name: str, counts: Sequence[Sequence[int]], label_names: Sequence[str]) -> dict[str, Any]:
    """Return a confusion matrix for the template: its cells, or its most frequent mistakes if it is too large."""
    fits = len(label_names) <= LARGEST_MATRIX
    return {
        "name": name,
        "cells": _shaded(counts) if fits else None,
        "confusions": None if fits else _confusions(counts, label_names),
    }


def _shaded(counts: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Return the count and the shade in percent of each cell; the shade is the share of the true class.

    Shades between 50 and 80 are left out, because neither dark nor light digits are readable on them.
    """
    shares = [[(count, count / max(1, sum(row))) for count in row] for row in counts]
    return [[(count, round(100 * share if share < 0.5 else 60 + 40 * share)) for count, share in row] for row in shares]


def _confusions(counts: Sequence[Sequence[int]], names: Sequence[str], most: int = 10) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes as (true class, predicted class, rows)."""
    cells = [
        (names[true], names[predicted], count)
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:most]


def view_mistakes(mistakes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mistakes for the template: the texts of a pair joined, labels as one string."""
    return [
        {
            "row": entry["row"],
            "text": text_of(entry["text"]),
            "label": label_of(entry["label"]),
            "predicted": label_of(entry["predicted"]),
            "probability": entry.get("probability"),
        }
        for entry in mistakes
    ]


def label_of(value: Any) -> str:
    """Return one label, or several joined by commas."""
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def text_of(value: Any) -> str:
    """Return a text, or both texts of a pair."""
    return "\n|\n".join(map(str, value)) if isinstance(value, list) else str(value)
