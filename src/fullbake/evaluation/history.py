"""The history of a training as a list that a notebook shows as a plot."""

import base64
from collections.abc import Sequence
from typing import Any, Final

from fullbake.core.console import format_score
from fullbake.core.extras import is_installed
from fullbake.core.markup import Html, notebook_block, tag, value_table

TABLE_ENTRIES: Final = 30
"""Entries in the table; of more, the first and the last ones."""


class TrainingHistory(list[dict[str, Any]]):
    """The entries of a training: one an epoch, or one for each strength of regularization that was tried.

    Args:
        entries: As `plots.history_figure` takes them.
        metric: Name of the selecting metric in the entries.
    """

    def __init__(self, entries: Sequence[dict[str, Any]] = (), metric: str = "f1_macro") -> None:
        super().__init__(entries)
        self.metric = metric

    @property
    def best(self) -> dict[str, Any] | None:
        """The chosen entry; None if none is marked."""
        return next((entry for entry in self if entry.get("best")), None)

    def __repr__(self) -> str:
        """Return one line: how many entries, and the chosen one."""
        return f"TrainingHistory({self._summary()})"

    def _summary(self) -> str:
        what = "epochs" if all("epoch" in entry for entry in self) else "entries"
        best = "" if self.best is None else f", chosen {_name(self.best)}: {self._score(self.best)}"
        one = "epoch" if what == "epochs" else "entry"
        return f"{len(self)} {what if len(self) != 1 else one}{best}"

    def _score(self, entry: dict[str, Any]) -> str:
        return f"{self.metric} {format_score(entry.get(self.metric))}"

    def _repr_html_(self) -> str:
        """Return the plot and the numbers, for a notebook."""
        names = ("train_loss", "validation_loss", self.metric)
        shown = (
            list(self) if len(self) <= TABLE_ENTRIES else [*self[: TABLE_ENTRIES // 2], *self[-TABLE_ENTRIES // 2 :]]
        )
        rows = [
            (
                f"{_name(entry)}{' (chosen)' if entry.get('best') else ''}",
                *(format_score(entry.get(key)) for key in names),
            )
            for entry in shown
        ]
        table = value_table(("", "training loss", "validation loss", self.metric), rows)
        return notebook_block(
            f"Training: {self._summary()}",
            self._plot(),
            tag("details", tag("summary", "as numbers"), table) if rows else None,
        )

    def _plot(self) -> Html | None:
        if not self or not is_installed("matplotlib"):
            return None
        from fullbake.evaluation.plots import history_figure

        drawn = base64.b64encode(history_figure(self, self.metric)).decode()
        return tag("img", src=f"data:image/png;base64,{drawn}", alt="losses and scores of the training")


def _name(entry: dict[str, Any]) -> str:
    rate = f"learning rate {entry['rate']:g}, " if "rate" in entry else ""
    return f"{rate}epoch {entry['epoch']}" if "epoch" in entry else f"{rate}C = {entry.get('C', 0):.2g}"
