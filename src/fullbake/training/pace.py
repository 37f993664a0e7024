"""The speed of training, taken from the fastest of several stretches.

Other processes can only slow a training down, so the fastest stretch says best what the machine can do. A mean over a
whole epoch would also count a pause of some seconds in which another process had the processors.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

PACE_SECONDS: Final = 1.0
"""A stretch is as many steps as take this long. Shorter ones vary with the lengths of the texts in a step."""

STRETCHES_KEPT: Final = 16
"""The stretches that are compared, the latest ones: a machine may become slower for good."""


@dataclass
class Pace:
    """Collects the work and the seconds of one step after another."""

    stretches: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=STRETCHES_KEPT))
    """(units of work, seconds) of each stretch that is complete."""
    units: float = 0.0
    """Units of work since the last complete stretch."""
    seconds: float = 0.0
    """Seconds since the last complete stretch."""

    def add(self, units: float, seconds: float) -> None:
        """Count a step.

        Args:
            units: of work, such as its tokens.
            seconds: that it took.
        """
        self.units += units
        self.seconds += seconds
        if self.seconds >= PACE_SECONDS:
            self.stretches.append((self.units, self.seconds))
            self.units, self.seconds = 0.0, 0.0

    @property
    def per_second(self) -> float | None:
        """Units a second in the fastest stretch, or in all steps if none is complete; None before the first step."""
        stretches = list(self.stretches) or [(self.units, self.seconds)]
        return max((units / max(seconds, 1e-9) for units, seconds in stretches if units), default=None)
