"""Which recipe is best, whether the difference is real, and which one to take.

A pair of recipes differs detectably if its p-value over test rows and seeds, after Holm's correction for the number of
pairs, is below 5%. McNemar's exact test, which knows one trained model per recipe, is reported beside it. "Not
detectable" does not prove equality; the sentences give the interval that is left and the test rows that would show a
difference of the observed size. Recommended is the recipe with the shortest training among those not detectably worse
than the best; never a baseline, because with few test rows nothing is detectably worse than the best and the majority
class would always be the cheapest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Problem, problem_of
from fullbake.core.console import format_duration
from fullbake.core.errors import DataError
from fullbake.data.splits import Part
from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.calibration import reliability
from fullbake.evaluation.metrics import METRICS, metric_phrase
from fullbake.evaluation.significance import (
    LEVEL,
    POWER,
    Difference,
    class_recalls,
    contrast,
    estimate,
    holm,
    mcnemar,
    median_seed,
    rank_disagreements,
    rows_needed,
    threshold_curve,
)


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


@dataclass(frozen=True)
class NotRun:
    """Why a recipe that was asked for has no result, and what would let it run."""

    reason: str
    """A clause for people, such as `the budget of 5 min is too short`."""
    seconds_needed: float | None = None
    """Seconds of the whole budget with which it would run too; None if more time would not help."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"reason": self.reason, "seconds_needed": self.seconds_needed}


@dataclass(frozen=True)
class Pair:
    """The comparison of two recipes."""

    a: ScoredRecipe
    b: ScoredRecipe
    observed: Difference
    """The metric of a minus that of b."""
    p_holm: float
    """The p-value after Holm's correction for all pairs; it decides `detectable`."""
    mcnemar_p: float
    """The p-value of McNemar's exact test."""
    rows_needed: int | None
    """Test rows that would show a difference of the observed size; None if it is detectable, or if none would."""
    reason: str | None
    """Why there is no number of rows for a difference that is not detectable."""
    words: str
    """The result in words."""

    @property
    def detectable(self) -> bool:
        """Return True if the difference is real, as far as these rows and seeds can tell."""
        return self.p_holm < LEVEL

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
            "p_holm": self.p_holm,
            "mcnemar_p": self.mcnemar_p,
            "detectable": self.detectable,
            "rows_needed": self.rows_needed,
            "reason": self.reason,
            "words": self.words,
        }

    def other(self, recipe: ScoredRecipe) -> ScoredRecipe:
        """Return the recipe of the pair that is not `recipe`."""
        return self.b if self.a is recipe else self.a

    def largest_deficit(self, recipe: ScoredRecipe) -> float:
        """Return by how much the other recipe may be worse than `recipe`, by the interval."""
        return self.observed.high if self.a is recipe else -self.observed.low


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison."""

    pairs: list[Pair]
    best: str | None
    """Name of the recipe with the highest score."""
    recommended: str | None
    """Name of the recipe to take; None if all recipes are detectably worse than a baseline."""
    words: list[str]
    """Sentences, the most important first."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry in `leaderboard.json`; pairs have their own."""
        return {"best": self.best, "recommended": self.recommended, "words": self.words}


def decide(recipes: Sequence[ScoredRecipe], metric: str) -> Verdict:
    """Compare every pair of recipes and derive the verdict.

    Args:
        recipes: The recipes that finished, in the order of the page.
        metric: The metric's name in sentences.

    Raises:
        DataError: The recipes were not resampled alike.
    """
    if not recipes:
        return Verdict([], None, None, ["No recipe finished, so there is nothing to compare."])
    pairs = _compare_pairs(recipes, metric)
    best = max(recipes, key=lambda recipe: recipe.scores.mean)
    pairs_of_best = {pair.other(best).name: pair for pair in pairs if best in (pair.a, pair.b)}
    # All that are not detectably worse than the best, itself included.
    top = [recipe for recipe in recipes if recipe is best or not pairs_of_best[recipe.name].detectable]
    eligible = [recipe for recipe in top if not recipe.baseline]
    recommended = min(eligible, key=lambda recipe: recipe.seconds, default=None)
    words = [
        _headline(best, recipes, top, metric),
        _recommendation(recommended, best, eligible),
        *_baseline_remarks(best, top),
        *_caveats(best, top, pairs_of_best),
    ]
    return Verdict(pairs, best.name, None if recommended is None else recommended.name, words)


def _compare_pairs(recipes: Sequence[ScoredRecipe], metric: str) -> list[Pair]:
    couples = list(combinations(recipes, 2))
    observed = [contrast(a.scores, b.scores) for a, b in couples]
    # Holm's correction needs the p-values of all pairs at once.
    corrected = holm([difference.p for difference in observed])
    return [
        _describe_pair(a, b, difference, p_holm, metric, len(couples))
        for (a, b), difference, p_holm in zip(couples, observed, corrected, strict=True)
    ]


def _describe_pair(
    a: ScoredRecipe, b: ScoredRecipe, observed: Difference, p_holm: float, metric: str, pairs: int
) -> Pair:
    detectable = p_holm < LEVEL
    needed = None if detectable else rows_needed(observed, pairs=pairs)
    # So many rows were not enough here, even if they would be in most comparisons: never name fewer.
    if needed is not None:
        needed = max(needed, observed.rows + 1)
    reason = _why_no_number(observed) if needed is None and not detectable else None
    p_value = "p < 0.001" if p_holm < 0.001 else f"p = {p_holm:.3f}"
    correction = f" after Holm's correction for {pairs} pairs" if pairs > 1 else ""
    facts = f"95% interval {observed.low:+.3f} to {observed.high:+.3f}, {p_value}{correction}"
    if detectable:
        winner, loser = (a, b) if observed.difference > 0 else (b, a)
        gap = f"{winner.scores.mean:.3f} against {loser.scores.mean:.3f}"
        words = f"{winner.title} is better than {loser.title}: {metric} {gap} ({a.title} - {b.title}: {facts})."
    else:
        gap = f"{observed.difference:+.3f} in {metric} ({facts})"
        rows = _describe_rows_needed(observed, needed, reason)
        words = f"No detectable difference between {a.title} and {b.title}: {gap}. {rows}"
    return Pair(a, b, observed, p_holm, mcnemar(a.correct, b.correct), needed, reason, words)


def _why_no_number(observed: Difference) -> str:
    if round(observed.difference, 12) == 0:
        return "they scored the same"
    if min(observed.variance.seeds) == 1 and max(observed.variance.seeds) == 1:
        return "the difference is too small for any number of test rows that people label"
    return "the luck of the seeds outweighs the difference, however many the test rows; more seeds may show it"


def _describe_rows_needed(observed: Difference, needed: int | None, reason: str | None) -> str:
    if needed is None:
        return f"No number of test rows is given: {reason}."
    chance = f"{round(POWER * 5)} times in 5"
    return (
        f"About {_round_up(needed):,} test rows would show a difference of this size {chance}; "
        f"here are {observed.rows:,}."
    )


def _round_up(rows: int) -> int:
    """Round up to two digits; the estimate is not more precise."""
    unit = int(10 ** max(len(str(rows)) - 2, 0))
    return -(-rows // unit) * unit


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _headline(best: ScoredRecipe, recipes: Sequence[ScoredRecipe], top: Sequence[ScoredRecipe], metric: str) -> str:
    scored = f"{best.title} scored highest: {metric} {best.scores.mean:.3f}"
    if len(recipes) == 1:
        return f"{scored}. Nothing else finished, so there is nothing to compare it with."
    if len(top) == 1:
        return f"{scored}, detectably better than {'the other' if len(recipes) == 2 else 'every other recipe'}."
    rest = [recipe.title for recipe in top if recipe is not best]
    worse = len(recipes) - len(top)
    tail = f" {worse} {'is' if worse == 1 else 'are'} detectably worse." if worse else ""
    return f"{scored}, with no detectable difference from {_join(rest)}.{tail}"


def _recommendation(recommended: ScoredRecipe | None, best: ScoredRecipe, eligible: Sequence[ScoredRecipe]) -> str:
    if recommended is None:
        return f"No classifier is recommended: all are detectably worse than {best.title}, a baseline."
    cost = f"{format_duration(recommended.seconds)} of training"
    if len(eligible) == 1:
        return f"Recommended: {recommended.title} ({cost})."
    dearest = max(eligible, key=lambda recipe: recipe.seconds)
    cost = f"{cost}; {dearest.title} took {format_duration(dearest.seconds)}"
    choice = f"{recommended.title}, the cheapest of {len(eligible)} not detectably worse than the best"
    return f"Recommended: {choice} ({cost})."


def _baseline_remarks(best: ScoredRecipe, top: Sequence[ScoredRecipe]) -> list[str]:
    names = [recipe.title for recipe in top if recipe.baseline]
    if not names:
        return []
    if best.baseline:
        return [f"The baseline {best.title} scored highest of all: these data may not need an encoder."]
    verb = "is" if len(names) == 1 else "are"
    return [f"{_join(names)} {verb} not detectably worse than the best: these rows do not show that an encoder helps."]


def _caveats(best: ScoredRecipe, top: Sequence[ScoredRecipe], pairs_of_best: Mapping[str, Pair]) -> list[str]:
    """Return sentences on what "not detectable" leaves open, and on what was not measured."""
    words = []
    undecided = [pairs_of_best[recipe.name] for recipe in top if recipe is not best]
    if undecided:
        widest = max(undecided, key=lambda pair: pair.largest_deficit(best))
        rest = f"{widest.other(best).title} may be worse by up to {widest.largest_deficit(best):.3f}"
        rows = _describe_range_of_rows(undecided)
        words.append(f"Not detectable is not equal: within the 95% intervals {rest}. {rows}".strip())
    if len(best.scores.points) == 1:
        words.append(_ONE_SEED)
    return words


def _describe_range_of_rows(undecided: Sequence[Pair]) -> str:
    numbers = [pair.rows_needed for pair in undecided if pair.rows_needed is not None]
    if not numbers:
        return ""
    span = " to ".join(f"{rows:,}" for rows in sorted({_round_up(min(numbers)), _round_up(max(numbers))}))
    here = f"here are {undecided[0].observed.rows:,}"
    return f"To show differences of the sizes seen would take about {span} test rows; {here}."


_ONE_SEED: Final = "One seed was trained: what another would change is not in the intervals."

# From predictions on the test rows to scores and verdict

MOST_DISAGREEMENTS: Final = 100
"""Test rows in the list of disagreements, at most."""

SHOWN_METRICS: Final = ("f1_macro", "accuracy", "log_loss", "roc_auc")
"""Metrics that are reported for every recipe, beside the one that decides."""


@dataclass(frozen=True)
class SharedTestRows:
    """The test rows that all recipes of a comparison share."""

    parts: Sequence[Part]
    """A part of each fold; a single one without folds."""
    metric: str
    """The metric that decides."""
    positive: int | None
    """Id of the class whose threshold curve is drawn; None for no curve."""

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Return the labels of all test rows: ids (rows,), or a label matrix (rows, labels)."""
        return np.concatenate([part.labels for part in self.parts])

    @property
    def problem(self) -> Problem:
        """Return the kind of problem that the labels pose."""
        return self.parts[0].problem

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the labels."""
        return self.parts[0].source.label_names

    def label_text(self, labels: NDArray[Any]) -> str:
        """Return the name of a row's label, or the names of its labels."""
        (ids,) = self.problem.label_ids(labels[None])
        return ", ".join(self.names[label] for label in ids) or "none"


@dataclass(frozen=True, eq=False)
class RecipePredictions:
    """What a recipe predicts for the test rows, the folds put together."""

    name: str
    title: str
    baseline: bool
    logits: NDArray[np.float32]
    """(seeds, rows, classes)."""
    decided: NDArray[Any]
    """Predicted labels by each seed's own decision, (seeds, rows) or (seeds, rows, labels)."""
    seconds: float
    """Seconds of training one classifier."""
    copies: int = 1
    """How many seeds a result stands for that does not depend on the seed."""

    def bootstrap(self, test_rows: SharedTestRows) -> BootstrapScores:
        """Return the metric that decides, for each seed, on the test rows and on resampled ones."""
        return _bootstrap(self, test_rows.metric, test_rows.labels, self.copies)

    def nearest_to_median(self, test_rows: SharedTestRows) -> int:
        """Return the position of the seed whose score is nearest the median."""
        # Two draws are enough: only the points are used.
        return median_seed(_bootstrap(self, test_rows.metric, test_rows.labels, 1, draws=2).points)


def _bootstrap(
    recipe: RecipePredictions, metric: str, labels: NDArray[Any], copies: int, draws: int = 2000
) -> BootstrapScores:
    if METRICS[metric].reads == "probabilities":
        problem = problem_of(labels)
        probabilities = np.stack([problem.probabilities(logits) for logits in recipe.logits])
        one = resample(probabilities, labels, metric, draws=draws)
    else:
        one = resample(recipe.decided, labels, metric, draws=draws)
    # As many equal seeds as the other recipes have, so that no luck of seeds is counted.
    return BootstrapScores(np.repeat(one.points, copies), np.repeat(one.draws, copies, axis=1), one.rows)


def describe_scores(recipe: RecipePredictions, test_rows: SharedTestRows) -> dict[str, Any]:
    """Return test, recall, confusion, calibration and threshold_curve of a recipe, as JSON values."""
    labels, nearest = test_rows.labels, recipe.nearest_to_median(test_rows)
    probabilities = np.stack([test_rows.problem.probabilities(logits) for logits in recipe.logits])
    confusion = test_rows.problem.confusion(labels, recipe.decided[nearest], len(test_rows.names))
    curve = None
    if test_rows.positive is not None:
        label = test_rows.positive
        curve = threshold_curve(probabilities[:, :, label], labels == label, test_rows.names[label])
    metrics = dict.fromkeys((test_rows.metric, *SHOWN_METRICS))
    return {
        "test": {name: _describe_metric(recipe, name, test_rows) for name in metrics},
        "recall": class_recalls(recipe.decided, labels, test_rows.names),
        "confusion": None if confusion is None else confusion.tolist(),
        "calibration": reliability(probabilities[nearest], labels),
        "threshold_curve": curve,
    }


def _describe_metric(recipe: RecipePredictions, name: str, test_rows: SharedTestRows) -> dict[str, Any]:
    """Return the mean over seeds with its interval, and each seed's value; null with a reason if it is undefined."""
    # Slow metrics get an interval only if they decide.
    costly = METRICS[name].slow_bootstrap and name != test_rows.metric
    try:
        found = _bootstrap(recipe, name, test_rows.labels, 1, draws=2 if costly else 2000)
    except DataError as error:
        return {"mean": None, "low": None, "high": None, "seeds": [], "reason": error.what}
    seeds = [float(point) for point in found.points]
    if costly:
        reason = "intervals are made for the metric that decides"
        return {"mean": found.mean, "low": None, "high": None, "seeds": seeds, "reason": reason}
    least, most = METRICS[name].range
    interval = estimate(found, least=least, most=most)
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "seeds": seeds}


def decide_from_predictions(recipes: Sequence[RecipePredictions], test_rows: SharedTestRows) -> Verdict:
    """Score the predictions of all recipes, compare every pair and derive the verdict."""
    return decide([_scored(recipe, test_rows) for recipe in recipes], metric_phrase(test_rows.metric))


def _scored(recipe: RecipePredictions, test_rows: SharedTestRows) -> ScoredRecipe:
    decided = recipe.decided[recipe.nearest_to_median(test_rows)]
    correct = test_rows.problem.equal_rows(decided, test_rows.labels)
    scores = recipe.bootstrap(test_rows)
    return ScoredRecipe(recipe.name, recipe.title, scores, correct, recipe.seconds, baseline=recipe.baseline)


def list_disagreements(recipes: Sequence[RecipePredictions], test_rows: SharedTestRows) -> list[dict[str, Any]]:
    """Return the test rows that recipes predict differently, the most disputed first. Baselines are not counted.

    Args:
        recipes: All recipes with test predictions.
        test_rows: The rows.

    Returns:
        Entries of `row` (number in its file), `text`, `label` and `predictions` (by recipe), JSON values.
    """
    predicted = {
        recipe.name: recipe.decided[recipe.nearest_to_median(test_rows)] for recipe in recipes if not recipe.baseline
    }
    ranked = rank_disagreements(predicted, test_rows.labels, MOST_DISAGREEMENTS)
    texts = [text for part in test_rows.parts for text in part.joined_texts.to_pylist()]
    rows = np.concatenate([part.rows for part in test_rows.parts])
    return [
        {
            "row": int(rows[place]),
            "text": texts[place],
            "label": test_rows.label_text(test_rows.labels[place]),
            "predictions": {name: test_rows.label_text(own[place]) for name, own in predicted.items()},
        }
        for place in ranked.tolist()
    ]
