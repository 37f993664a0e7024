"""Rows and tables in Markdown."""

from typing import Any


def row(*cells: str) -> str:
    """Return one line of a table."""
    safe = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(safe)} |\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table with a column for every name that occurs in a row."""
    names = list(dict.fromkeys(name for line in rows for name in line))
    cells = [names, ["---"] * len(names), *([cell(line.get(name)) for name in names] for line in rows)]
    return "".join(row(*line) for line in cells)


def cell(value: object) -> str:
    """Return the text of a cell."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
