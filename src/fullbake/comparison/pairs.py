"""Pairs of recipes: the difference of their scores, whether it is real, and that in words.

A difference is detectable if its p-value over test rows and seeds, after Holm's correction for the number of pairs, is
below 5%. McNemar's exact test, which knows one trained model per recipe, is reported beside it. "Not detectable" does
not prove equality: the words give the interval that is left and the test rows that would show a difference of the
observed size.

A recipe that was trained once borrows the variance over seeds from recipes of its kind. Where there is none to borrow,
nothing is known of what another seed would change, so no difference is ever called detectable: a recipe is at most
"ahead in one training". These pairs are corrected by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.evaluation.bootstrap import BootstrapScores
from fullbake.evaluation.significance import LEVEL, POWER, Difference, contrast, holm, mcnemar, rows_needed


@dataclass(frozen=True)
class ScoredRecipe:
    """A recipe with its test scores, as the verdict needs them."""

    name: str
    title: str
    """The name shown to people."""
    scores: BootstrapScores
    """The metric (higher is better) of each seed, on the test rows and on resampled ones."""
    correct: NDArray[np.bool_]
    """Whether the seed nearest the median got each test row right, (rows,)."""
    seconds: float
    """Seconds of training one classifier, shared work included."""
    baseline: bool = False
    """Whether it is a baseline, which is never recommended."""
    kind: str = ""
    """The way it trains. A recipe with one seed borrows the variance over seeds from recipes of its kind."""
    groups: NDArray[Any] | None = None
    """The group of each test row, (rows,), where rows belong together."""

    @property
    def one_training(self) -> bool:
        """Return True if it was trained once although another seed would give another result."""
        return self.scores.depends_on_seed and len(self.scores.points) == 1

    def lenders(self, recipes: "Sequence[ScoredRecipe]") -> "list[ScoredRecipe]":
        """Return the recipes of its kind that were trained with several seeds; [] if it has several itself."""
        if not self.one_training:
            return []
        return [
            other
            for other in recipes
            if other.kind == self.kind and other.scores.depends_on_seed and len(other.scores.points) > 1
        ]


@dataclass(frozen=True)
class Pair:
    """The comparison of two recipes."""

    a: ScoredRecipe
    b: ScoredRecipe
    observed: Difference
    """The metric of a minus that of b."""
    p_corrected: float
    """The p-value after Holm's correction for all pairs of its kind; it decides."""
    mcnemar_p: float
    """The p-value of McNemar's exact test."""
    rows_needed: int | None
    """Test rows that would show a difference of the observed size; None if it is detectable, or if none would."""
    reason: str | None
    """Why there is no number of rows for a difference that is not detectable."""
    words: str
    """The result in words."""

    @property
    def seeds_known(self) -> bool:
        """Return True if what another seed would change is known for both recipes."""
        return self.observed.variance.seeds_known

    @property
    def detectable(self) -> bool:
        """Return True if the difference is real, as far as these rows and seeds can tell."""
        return self.seeds_known and self.p_corrected < LEVEL

    @property
    def ahead_in_one_training(self) -> bool:
        """Return True if the rows show a difference of these trainings, but nothing is known of other seeds."""
        return not self.seeds_known and self.p_corrected < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Return the entry in `leaderboard.json`; a and b are names there."""
        observed = self.observed
        return {
            "a": self.a.name,
            "b": self.b.name,
            "difference": observed.difference,
            "low": observed.low,
            "high": observed.high,
            "p": observed.p,
            "p_holm": self.p_corrected if self.seeds_known else None,
            "mcnemar_p": self.mcnemar_p,
            "detectable": self.detectable,
            "ahead_in_one_training": self.ahead_in_one_training,
            "seeds_known": self.seeds_known,
            "rows_needed": self.rows_needed,
            "reason": self.reason,
            "words": self.words,
        }

    def other(self, recipe: ScoredRecipe) -> ScoredRecipe:
        """Return the recipe of the pair that is not `recipe`."""
        return self.b if self.a is recipe else self.a

    def largest_deficit(self, recipe: ScoredRecipe) -> float | None:
        """Return by how much the other recipe may be worse than `recipe`, by the interval; None without one."""
        if self.observed.low is None or self.observed.high is None:
            return None
        return self.observed.high if self.a is recipe else -self.observed.low


def compare_pairs(recipes: Sequence[ScoredRecipe], metric: str, *, share: bool = False) -> list[Pair]:
    """Compare every pair of recipes.

    Args:
        recipes: The recipes that finished, in the order of the page.
        metric: The metric's name in sentences.
        share: Whether the metric is a share of the rows, such as accuracy.

    Raises:
        DataError: The recipes were not resampled alike.
    """
    couples = list(combinations(recipes, 2))
    lenders = {recipe.name: [other.scores for other in recipe.lenders(recipes)] for recipe in recipes}
    observed = [
        contrast(a.scores, b.scores, a_lenders=lenders[a.name], b_lenders=lenders[b.name], share=share)
        for a, b in couples
    ]
    # Holm's correction needs all p-values at once. No claim is made where the seeds are unknown, so these pairs are no
    # part of the family.
    corrected, sizes = [0.0] * len(couples), {}
    for known in (True, False):
        places = [place for place, one in enumerate(observed) if one.variance.seeds_known is known]
        sizes[known] = len(places)
        for place, p in zip(places, holm([observed[place].p for place in places]), strict=True):
            corrected[place] = p
    return [
        _describe(a, b, one, p, metric, sizes[one.variance.seeds_known])
        for (a, b), one, p in zip(couples, observed, corrected, strict=True)
    ]


def _describe(
    a: ScoredRecipe, b: ScoredRecipe, observed: Difference, p_corrected: float, metric: str, pairs: int
) -> Pair:
    known, low_p = observed.variance.seeds_known, p_corrected < LEVEL
    needed = None if low_p or not known else rows_needed(observed, pairs=pairs)
    # So many rows were not enough here, even if they would be in most comparisons: never name fewer.
    if needed is not None:
        needed = max(needed, observed.rows + 1)
    reason = _why_no_number(observed) if needed is None and not (known and low_p) else None
    facts = _facts(observed, p_corrected, pairs)
    winner, loser = (a, b) if observed.difference > 0 else (b, a)
    gap = f"{metric} {winner.scores.mean:.3f} against {loser.scores.mean:.3f} ({a.title} - {b.title}: {facts})"
    if low_p and known:
        words = f"{winner.title} is better than {loser.title}: {gap}."
    elif low_p:
        words = f"{winner.title} is ahead of {loser.title} in one training: {gap}. More seeds may change it."
    else:
        gap = f"{observed.difference:+.3f} in {metric} ({facts})"
        rows = describe_rows_needed(observed, needed, reason)
        words = f"No detectable difference between {a.title} and {b.title}: {gap}. {rows}"
    return Pair(a, b, observed, p_corrected, mcnemar(a.correct, b.correct, a.groups), needed, reason, words)


def _facts(observed: Difference, p_corrected: float, pairs: int) -> str:
    p_value = "p < 0.001" if p_corrected < 0.001 else f"p = {p_corrected:.3f}"
    correction = f" after Holm's correction for {pairs} pairs" if pairs > 1 else ""
    over = "" if observed.variance.seeds_known else " over test rows alone"
    if observed.low is None or observed.high is None:
        return f"no interval, as nothing varies from row to row; {p_value}{correction}"
    return f"95% interval{over} {observed.low:+.3f} to {observed.high:+.3f}, {p_value}{correction}"


def _why_no_number(observed: Difference) -> str:
    if not observed.variance.seeds_known:
        return "one seed was trained, and nothing tells what another would change; more seeds may show it"
    if round(observed.difference, 12) == 0:
        return "they scored the same"
    if not any(observed.variance.spread):
        return "the difference is too small for any number of test rows that people label"
    return "the luck of the seeds outweighs the difference, however many the test rows; more seeds may show it"


def describe_rows_needed(observed: Difference, needed: int | None, reason: str | None) -> str:
    """Return a sentence on the test rows that would show a difference, or on why no number is given."""
    if needed is None:
        return f"No number of test rows is given: {reason}."
    chance = f"{round(POWER * 5)} times in 5"
    return (
        f"About {round_up(needed):,} test rows would show a difference of this size {chance}; "
        f"here are {observed.rows:,}."
    )


def round_up(rows: int) -> int:
    """Round up to two digits; the estimate is not more precise."""
    unit = int(10 ** max(len(str(rows)) - 2, 0))
    return -(-rows // unit) * unit
