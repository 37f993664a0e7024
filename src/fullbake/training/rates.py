"""The learning rate where the user names none: a rule by the base's width, and short trainings that check it.

Small bases need higher rates than the published ones, which are for a width of 768: at width 384 the rate 5e-5 leaves
fine-tuning unfinished, and 2e-4 is best (docs/results.md). The rule alone is used where a training is too short to try
other rates beside it. Else successive halving tries four rates on a part of the rows, within a quarter of the cost of
one training (Jamieson and Talwalkar 2016, arXiv 1502.07943). The rule keeps its rate unless another one is better by
more than one standard error, because a short training prefers high rates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fullbake.config.sections import TrainingConfig

REFERENCE_WIDTH: Final = 768
REFERENCE_RATE: Final = 5e-5
"""The highest rate of the grid of Devlin et al. 2019 (arXiv 1810.04805, appendix A.3), for bases of width 768."""

HIGHEST_RATE: Final = 3e-4
"""The highest rate of the grid that Turc et al. 2019 (arXiv 1908.08962) publish for small BERT models."""

HEAD_RATES: Final = {"mlp": (1e-2, 3e-3, 1e-3, 3e-4)}
"""Learning rates of heads on frozen features, by kind of head; they train together."""

OTHER_HEAD_RATES: Final = (1e-3, 1e-2, 3e-3, 3e-4)
"""The same for heads of other kinds."""

FEWEST_PROBE_STEPS: Final = 30
"""A rate is tried for at least this many steps: with fewer, warm-up is most of a training."""

RATE_PROBE_SHARE: Final = 0.25
"""The steps of all short trainings together, as a share of the steps of one whole training."""


def rule_rate(width: int) -> float:
    """Return the peak rate for fine-tuning a base of this width (hidden size).

    5e-5 at width 768 and above. Below, the rate grows with the square of 768 / width, up to 3e-4: 2e-4 at width 384.

    Args:
        width: the base's hidden size.
    """
    ratio = max(REFERENCE_WIDTH / width, 1.0)
    return min(REFERENCE_RATE * ratio**2, HIGHEST_RATE)


@dataclass(frozen=True)
class RateProbe:
    """What `auto` stands for in one training: the rule's rate and the rates that are tried beside it.

    Attributes:
        rule: the rate of `rule_rate`.
        width: the base's hidden size, for the message.
        batch: rows of an optimizer step.
        steps: optimizer steps of one whole training.
    """

    rule: float
    width: int
    batch: int
    steps: int

    @property
    def candidates(self) -> tuple[float, ...]:
        """The four rates: the rule's, its half, its quarter and its double, in ascending order."""
        return tuple(self.rule * factor for factor in (0.25, 0.5, 1.0, 2.0))

    @property
    def rounds(self) -> tuple[int, ...]:
        """Steps of a training in each round; () if a whole training is too short to try other rates beside it.

        The first round trains all four rates, the second the rule's and the best other one for longer.
        """
        total = int(self.steps * RATE_PROBE_SHARE)
        first = max(total // 8, FEWEST_PROBE_STEPS)
        if 4 * first > total:
            return ()
        second = (total - 4 * first) // 2
        return (first, second) if second > first else (first,)


def best_rate(losses: Mapping[float, np.ndarray], rule: float) -> float:
    """Return the rate of the lowest mean loss; the rule's if the best one is not better by one standard error.

    The standard error is that of the paired differences of the rows' losses.

    Args:
        losses: the loss of each validation row (rows,) by rate. A rate that failed is not there.
        rule: the rate of the rule.

    Raises:
        ValueError: there is no rate.
    """
    best = min(losses, key=lambda rate: (float(losses[rate].mean()), rate != rule, rate))
    if rule not in losses or best == rule:
        return best
    difference = losses[rule].astype(np.float64) - losses[best]
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    return best if difference.mean() > error else rule


def epochs_for(training: TrainingConfig, rows: int) -> int:
    """Return the number of epochs of a training: raised with few rows until there are `min_steps` optimizer steps.

    Args:
        training: the recipe's section on training.
        rows: training rows.
    """
    return max(training.epochs, -(-training.min_steps // steps_of_epoch(training, rows)))


def steps_of_epoch(training: TrainingConfig, rows: int) -> int:
    """Return the number of optimizer steps of an epoch over these rows."""
    return -(-rows // training.step_rows)
