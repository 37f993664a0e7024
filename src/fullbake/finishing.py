"""After training: honest scores and good decisions, both fitted on the rows that chose, never on test.

The temperature goes into the output layer's weights, so that plain transformers gives calibrated scores too; the
decision (thresholds or costs) is kept beside them.
"""

import numpy as np

from fullbake.choosing import Trained
from fullbake.config.sections import DecisionConfig
from fullbake.evaluation.calibration import Finished, settle
from fullbake.models.heads import divide_logits


def finish(trained: Trained, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig) -> Finished:
    """Fold a temperature into the network's output layer and fit its decision.

    labels: of the rows that trained.logits are of. Warns of a floor that no threshold reaches.
    """
    finished = settle(trained.logits, labels, label_names, config)
    divide_logits(trained.network, finished.calibration["temperature"])
    return finished
