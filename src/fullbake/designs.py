"""How large a comparison is: which cells there are, and the largest design that is expected to fit a budget.

Pure arithmetic: what a design costs is given as a function. When time is short, rates go first, then the length of
further pretraining, then seeds down to two; then whole recipes, the dearest first. A recipe that is in the design has
as many rates to choose from as every other one, or the comparison would reward search and not the way.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fullbake.core.errors import RecipeError

SHARES: Final = (1.0, 0.3, 0.1, 0.03)
"""Shares of further pretraining's own length that may be run."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Cell:
    """One training: a recipe, one of its rates (None where it has none), a seed, and the fold (None without folds)."""

    entrant: str
    rate: float | None
    seed: int
    fold: int | None = None

    @property
    def id(self) -> str:
        """As `leaderboard.json` and the folder `cells/` have it: `finetune/5e-05/0`, `finetune/fold-1/5e-05/0`."""
        fold = [] if self.fold is None else [f"fold-{self.fold + 1}"]
        return "/".join([self.entrant, *fold, "only" if self.rate is None else f"{self.rate:g}", str(self.seed)])


@dataclass(frozen=True)
class Line:
    """A recipe as a design sees it. rates: in the order of preference, () where there are none. seeds: likewise; one
    alone where luck plays no part. further: whether further pretraining comes first."""

    name: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    further: bool = False

    def cells(self, rates: int, seeds: int, folds: int | None) -> list[Cell]:
        """Its cells with so many rates and seeds."""
        return [
            Cell(self.name, rate, seed, fold)
            for fold in (range(folds) if folds else (None,))
            for seed in self.seeds[:seeds]
            for rate in (self.rates[:rates] or (None,))
        ]


@dataclass(frozen=True)
class Design:
    """Which recipes take part, with how many rates and seeds, and the share of further pretraining's length."""

    names: tuple[str, ...]
    rates: int
    seeds: int
    share: float = 1.0

    def cells(self, lines: Sequence[Line], folds: int | None) -> list[Cell]:
        """All trainings, recipe by recipe."""
        taken = [line for line in lines if line.name in self.names]
        return [cell for line in taken for cell in line.cells(self.rates, self.seeds, folds)]


def full_design(lines: Sequence[Line]) -> Design:
    """Everything that was asked for."""
    rates = max((len(line.rates) for line in lines), default=0)
    return Design(tuple(line.name for line in lines), max(rates, 1), max(len(line.seeds) for line in lines))


def smaller_designs(lines: Sequence[Line], dearest: Sequence[str]) -> Iterator[Design]:
    """The full design, then ever smaller ones. dearest: names that may be left out, in that order."""
    full = full_design(lines)
    counts = list(dict.fromkeys((full.rates, max(full.rates // 2, 1), 1)))
    fewest = min(full.seeds, 2)
    for gone in range(len(dearest) + 1):
        names = tuple(name for name in full.names if name not in dearest[:gone])
        shares = SHARES if any(line.further for line in lines if line.name in names) else SHARES[:1]
        last = gone == len(dearest)
        for seeds in range(full.seeds, 0 if last else fewest - 1, -1):
            for share in shares:
                yield from (Design(names, rates, seeds, share) for rates in counts)


def pick_design(designs: Iterator[Design], cost: Callable[[Design], float], seconds: float) -> Design | None:
    """The first design that is expected to fit; None where none is."""
    return next((design for design in designs if cost(design) <= seconds), None)


def left_out(full: Design, chosen: Design, reason: str) -> list[str]:
    """What the chosen design has less than the full one, in words. reason: why recipes are not in."""
    words = [f"{name}: {reason}" for name in full.names if name not in chosen.names]
    if chosen.rates < full.rates:
        words.append(f"learning rates: {chosen.rates} of up to {full.rates} for each recipe")
    if chosen.seeds < full.seeds:
        words.append(f"seeds: {chosen.seeds} of {full.seeds}")
    if chosen.share < full.share:
        words.append(f"further pretraining: {chosen.share:.0%} of its own length")
    return words


def parse_duration(text: str) -> float:
    """`90s`, `10m` or `1h` -> seconds. Raises RecipeError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise RecipeError("the budget is no time", expected="a time such as 90s, 10m or 1h", got=repr(text))
    return float(found[1]) * _SECONDS[found[2]]
