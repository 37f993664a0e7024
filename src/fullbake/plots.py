"""Arrays and histories in, PNG bytes out.

Figures are built from matplotlib's objects on its Agg canvas: no pyplot, no global state, no display; and always on
white, as they are read in folders and on cards whose background nobody knows. Colors are Okabe and Ito's (2008),
which color-blind readers tell apart; matplotlib is imported with the first figure.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"

Entry = Mapping[str, Any]
"""One line of a history: `epoch` (from 1) or `C` (strength of a logistic regression), `train_loss`, `validation_loss`,
the metric under its name, `best` (true for the chosen entry), and `rate` where several learning rates were tried."""


def history_figure(history: Sequence[Entry], metric: str) -> bytes:
    """Losses on the left, the selecting metric on the right with the chosen entry marked; PNG bytes.

    history: one `Entry` at least; those of several learning rates follow each other and are drawn as a line each.
    """
    figure = _figure(10, 4)
    losses, scores = figure.subplots(1, 2)
    runs = _runs(history)
    for number, (name, run) in enumerate(runs.items()):
        _draw_run(losses, scores, metric, name, run, number)
    _mark_best(scores, history, metric)
    axis = "epoch" if "epoch" in history[0] else "C"
    for axes, label in ((losses, "loss (nats a row)"), (scores, f"{metric} on validation")):
        _dress(axes, history, axis, label)
    _add_legends(losses, scores, list(runs))
    return _png(figure)
