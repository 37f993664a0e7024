"""Axes of charts: values in, the stretch they need and the round numbers to be written along it out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """From values to places. ticks: (value, what stands there)."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at `low` to 1 at `high`."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


def linear_axis(label: str, values: Sequence[float], count: int = 5) -> Axis:
    """Round ticks around the values, with a little room at both ends."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - room, high + room
    step = _round_step((high - low) / count)
    first, last = math.ceil(low / step), math.floor(high / step)
    if last - first > count:  # both ends are ticks: the next step up
        step = _round_step(1.3 * step)
        first, last = math.ceil(low / step), math.floor(high / step)
    digits = next(digits for digits in range(12) if round(step, digits) == step or digits == 11)
    ticks = tuple((place * step, f"{place * step:.{digits}f}".replace("-", "−")) for place in range(first, last + 1))
    return Axis(label, low, high, ticks)


def near_axis(label: str, values: Sequence[float], others: Sequence[float], count: int = 5) -> Axis:
    """A linear axis around the values, and around the others as far as they lie within one span of them: a baseline far
    below shall not press everything else together. Without values it is an axis around the others.
    """
    values = values or others
    low, high = min(values), max(values)
    reach = high - low
    return linear_axis(label, [*values, *(other for other in others if low - reach <= other <= high + reach)], count)


def whole_axis(label: str, values: Sequence[float], count: int = 6) -> Axis:
    """Whole numbers, as epochs are."""
    low, high = min(values), max(values)
    step = max(1, math.ceil((high - low) / count))
    ticks = tuple((float(value), f"{value}") for value in range(math.ceil(low), math.floor(high) + 1, step))
    room = 0.04 * (high - low) + 0.15
    return Axis(label, low - room, high + room, ticks)


def share_axis(label: str) -> Axis:
    """From 0 to 1."""
    return Axis(label, 0.0, 1.0, tuple((place / 4, f"{place / 4:g}") for place in range(5)))


def log_axis(label: str, values: Sequence[float], ticks: Sequence[tuple[float, str]]) -> Axis:
    """Equal factors lie equally far apart; of the ticks those stay that lie within reach of the (positive) values."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.08, 1.25)
    low, high = low / room, high * room
    return Axis(label, low, high, tuple(tick for tick in ticks if low <= tick[0] <= high), log=True)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.8)
