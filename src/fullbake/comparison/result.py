"""What `compare` returns: the leaderboard as a dict, which a notebook shows as a table with the verdict."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fullbake.comparison.report import REPORT_FILE
from fullbake.core.console import format_duration, format_score
from fullbake.core.markup import Child, isolate, join, notebook_block, tag, value_table, warnings_block
from fullbake.evaluation.metrics import metric_phrase


class Comparison(dict[str, Any]):
    """The content of `leaderboard.json`.

    Args:
        board: The content.
        folder: The comparison's folder.

    Attributes:
        folder: The same.
    """

    def __init__(self, board: Mapping[str, Any], folder: str | Path) -> None:
        super().__init__(board)
        self.folder = Path(folder)

    @property
    def page(self) -> Path:
        """The page with everything that was measured."""
        return self.folder / REPORT_FILE

    def __repr__(self) -> str:
        """Return one line: how many recipes, and the first sentence of the verdict."""
        words = self["verdict"]["words"]
        return f"Comparison({len(self['recipes'])} recipes: {words[0] if words else 'no verdict'})"

    def _repr_html_(self) -> str:
        """Return the leaderboard, the verdict and a link to the page, for a notebook."""
        metric, verdict = str(self["metric"]), self["verdict"]
        ranked = sorted(self["recipes"], key=lambda entry: -_mean(entry, metric))
        rows = [self._row(entry, metric) for entry in ranked]
        words = tag("ul", *(tag("li", sentence) for sentence in verdict["words"]))
        shown = os.path.relpath(self.page)
        link = tag("p", "Everything that was measured: ", tag("a", shown, href=Path(shown).as_posix(), target="_blank"))
        title = (
            join("Take ", isolate(str(verdict["recommended"]))) if verdict.get("recommended") else "No recipe finished"
        )
        table = value_table(("recipe", f"{metric_phrase(metric)} on test", "95% interval", "training", ""), rows)
        return notebook_block(title, words, table, warnings_block(self.get("stamps") or []), link)

    def _row(self, entry: Mapping[str, Any], metric: str) -> list[Child]:
        figure, name = entry["test"].get(metric) or {}, isolate(str(entry["name"]))
        if figure.get("mean") is None:
            return [name, "–", "", "", f"{entry['status'].replace('_', ' ')}: {entry['reason']}"]
        bounds = "" if figure["low"] is None else f"{format_score(figure['low'])} to {format_score(figure['high'])}"
        is_chosen = entry["name"] == self["verdict"]["recommended"]
        seconds = (entry.get("cost") or {}).get("train_seconds")
        note = "recommended" if is_chosen else "best mean" if entry["name"] == self["verdict"]["best"] else ""
        return [tag("b", name) if is_chosen else name, format_score(figure["mean"]), bounds, _duration(seconds), note]


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _mean(entry: Mapping[str, Any], metric: str) -> float:
    value = (entry["test"].get(metric) or {}).get("mean")
    return float("-inf") if value is None else float(value)
