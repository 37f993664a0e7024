"""Which recipe is best, whether the difference is real, and which one to take.

Recommended is the recipe with the shortest training among those not detectably worse than the best; of several about as
short, the one that scored highest. It is never a baseline,
because with few test rows nothing is detectably worse than the best and the majority class would always be the
cheapest. The first sentence says what the verdict does not cover: the recipes that were asked for and did not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.comparison.pairs import Pair, ScoredRecipe, compare_pairs, round_up
from fullbake.config.problems import Problem, problem_of
from fullbake.core.console import format_duration
from fullbake.core.errors import DataError
from fullbake.data.splits import Part
from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.calibration import reliability
from fullbake.evaluation.metrics import METRICS, metric_phrase
from fullbake.evaluation.significance import (
    class_recalls,
    estimate,
    median_seed,
    rank_disagreements,
    threshold_curve,
)


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


@dataclass(frozen=True)
class Scope:
    """What was asked for and is not in the scores as it was asked for."""

    not_run: Mapping[str, NotRun] = field(default_factory=dict)
    """Recipes without a result, by title."""
    reduced: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By title, what was made smaller for a recipe: plain sentences."""


def decide(recipes: Sequence[ScoredRecipe], metric: str, scope: Scope | None = None, *, share: bool = False) -> Verdict:
    """Compare every pair of recipes and derive the verdict.

    Args:
        recipes: The recipes that finished, in the order of the page.
        metric: The metric's name in sentences.
        scope: What did not run and what was made smaller; None if everything ran whole.
        share: Whether the metric is a share of the rows, such as accuracy.

    Raises:
        DataError: The recipes were not resampled alike.
    """
    scope = scope or Scope()
    missing = _describe_not_run(scope.not_run)
    if not recipes:
        return Verdict([], None, None, [*missing, "No recipe finished, so there is nothing to compare."])
    pairs = compare_pairs(recipes, metric, share=share)
    best = max(recipes, key=lambda recipe: recipe.scores.mean)
    standing = _Standing(best, recipes, pairs)
    eligible = [recipe for recipe in standing.top if not recipe.baseline]
    recommended = max(_cheapest(eligible), key=lambda recipe: recipe.scores.mean, default=None)
    words = [
        *missing,
        _headline(standing, metric, complete=not scope.not_run),
        _recommendation(recommended, best, eligible, any(not recipe.baseline for recipe in recipes)),
        *_describe_reduced(scope.reduced),
        *_caveats(standing),
        *_describe_borrowing(recipes),
    ]
    return Verdict(pairs, best.name, None if recommended is None else recommended.name, words)


@dataclass(frozen=True)
class _Standing:
    """How the recipes stand to the best one."""

    best: ScoredRecipe
    recipes: Sequence[ScoredRecipe]
    pairs: Sequence[Pair]
    """All pairs of them."""

    @property
    def pairs_of_best(self) -> dict[str, Pair]:
        """Return the pairs of the best one, by the name of the other recipe."""
        return {pair.other(self.best).name: pair for pair in self.pairs if self.best in (pair.a, pair.b)}

    def detectably_better(self, recipe: ScoredRecipe) -> list[ScoredRecipe]:
        """Return the recipes that are detectably better than this one."""
        others = [pair.other(recipe) for pair in self.pairs if recipe in (pair.a, pair.b) and pair.detectable]
        return [other for other in others if other.scores.mean > recipe.scores.mean]

    @property
    def worse(self) -> list[ScoredRecipe]:
        """Return the recipes that are detectably worse."""
        return [recipe for recipe in self._others if self.pairs_of_best[recipe.name].detectable]

    @property
    def behind(self) -> list[ScoredRecipe]:
        """Return the recipes that are behind in one training."""
        return [recipe for recipe in self._others if self.pairs_of_best[recipe.name].ahead_in_one_training]

    @property
    def level(self) -> list[ScoredRecipe]:
        """Return the recipes without a detectable difference, the best itself left out."""
        out = [*self.worse, *self.behind]
        return [recipe for recipe in self._others if recipe not in out]

    @property
    def top(self) -> list[ScoredRecipe]:
        """Return the best and all that are level with it, in the order of the page."""
        return [recipe for recipe in self.recipes if recipe is self.best or recipe in self.level]

    @property
    def _others(self) -> list[ScoredRecipe]:
        return [recipe for recipe in self.recipes if recipe is not self.best]


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _describe_not_run(not_run: Mapping[str, NotRun]) -> list[str]:
    """Return one line that names what did not run, why, and the budget it would take; none if everything ran."""
    if not not_run:
        return []
    sentences = []
    for reason in dict.fromkeys(found.reason for found in not_run.values()):
        titles = [title for title, found in not_run.items() if found.reason == reason]
        seconds = [found.seconds_needed for found in not_run.values() if found.reason == reason]
        needed = [own for own in seconds if own is not None]
        more = f"; a budget of about {format_duration(_round_budget(max(needed)))} would be enough" if needed else ""
        sentences.append(f"{_join(titles)} did not run: {reason}{more}.")
    return [" ".join(sentences)]


def _round_budget(seconds: float) -> float:
    """Round up to 10 s, or to whole minutes from 2 minutes on: the estimate is not more precise."""
    unit = 10 if seconds < 120 else 60
    return -(-seconds // unit) * unit


_BASELINES_AT_THE_TOP: Final = {
    "majority": "Always giving the most frequent answer does as well",
    "tfidf": "Words alone do as well",
}
"""Name of a baseline -> how a verdict begins if it is at the top. Of several the first counts."""


def _headline(standing: _Standing, metric: str, *, complete: bool) -> str:
    best, recipes = standing.best, standing.recipes
    scored = f"{best.title} scored highest: {metric} {best.scores.mean:.3f}{_seeds_phrase(best, recipes)}"
    if len(recipes) == 1:
        return f"{scored}. Nothing else finished, so there is nothing to compare it with."
    # One training of each shows who is ahead, not who is better.
    groups = (("detectably better than", standing.worse), ("in one training ahead of", standing.behind))
    claims = [f"{claim} {_others(own, recipes, complete)}" for claim, own in groups if own]
    if not standing.level:
        return f"{scored}, {' and '.join(claims)}."
    rest = f"no detectable difference from {_join([recipe.title for recipe in standing.level])}"
    tail = f" It is {' and '.join(claims)}." if claims else ""
    return f"{_baseline_first(standing)}{scored}, with {rest}.{tail}{_beaten_baselines(standing)}"


def _beaten_baselines(standing: _Standing) -> str:
    """Return what is detectably better than a baseline from which the best recipe, with few seeds, does not differ."""
    words = ""
    for baseline in standing.level:
        others = standing.detectably_better(baseline) if baseline.baseline else []
        if others:
            verb = "is" if len(others) == 1 else "are"
            words += f" {_join([other.title for other in others])} {verb} detectably better than {baseline.title}."
    return words


def _others(group: Sequence[ScoredRecipe], recipes: Sequence[ScoredRecipe], complete: bool) -> str:
    """Return a phrase for the recipes that are worse than the best. complete: all that were asked for ran."""
    ran = "" if complete else " that ran"
    if len(group) < len(recipes) - 1:
        return _join([recipe.title for recipe in group])
    return f"the other{ran}" if len(group) == 1 else f"every other recipe{ran}"


def _seeds_phrase(best: ScoredRecipe, recipes: Sequence[ScoredRecipe]) -> str:
    """Return how few seeds stand behind the scores, or nothing if every recipe has several."""
    counts = {len(recipe.scores.points) for recipe in recipes if recipe.scores.depends_on_seed}
    if 1 not in counts:
        return ""
    if counts == {1}:
        return " (one seed each)"
    return " (one seed)" if best.one_training else f" (1 to {max(counts)} seeds each)"


def _baseline_first(standing: _Standing) -> str:
    """Return the beginning of a headline where a baseline is level with the best classifier, and no other beats it."""
    level = [recipe for recipe in standing.top if recipe.baseline]
    held = {recipe.name: recipe for recipe in level if not standing.detectably_better(recipe)}
    if not held or all(recipe.baseline for recipe in standing.top):
        return ""
    known = [name for name in _BASELINES_AT_THE_TOP if name in held]
    phrase = _BASELINES_AT_THE_TOP[known[0]] if known else f"{next(iter(held.values())).title} does as well"
    return f"{phrase}, as far as these rows show. "


SIMILAR_COST: Final = 1.25
"""Trainings that take at most this many times the shortest one are about as cheap as it."""

_SIMILAR_SECONDS: Final = 1.0
"""So are trainings that take so many seconds more: a machine's load changes more."""


def _cheapest(eligible: Sequence[ScoredRecipe]) -> list[ScoredRecipe]:
    """Return the recipe with the shortest training and those about as cheap."""
    least = min((recipe.seconds for recipe in eligible), default=0.0)
    return [recipe for recipe in eligible if recipe.seconds <= SIMILAR_COST * least + _SIMILAR_SECONDS]


def _recommendation(
    recommended: ScoredRecipe | None, best: ScoredRecipe, eligible: Sequence[ScoredRecipe], any_classifier: bool
) -> str:
    if not any_classifier:
        return "No classifier is recommended: none ran, only baselines."
    if recommended is None:
        return f"No classifier is recommended: all are worse than {best.title}, a baseline."
    cost = f"{format_duration(recommended.seconds)} of training"
    if len(eligible) == 1:
        return f"Recommended: {recommended.title} ({cost})."
    dearest = max(eligible, key=lambda recipe: recipe.seconds)
    cost = f"{cost}; {dearest.title} took {format_duration(dearest.seconds)}"
    similar = len(_cheapest(eligible))
    rank = "the cheapest" if similar == 1 else f"which scored highest of the {similar} cheapest"
    choice = f"{recommended.title}, {rank} of {len(eligible)} not detectably worse than the best"
    return f"Recommended: {choice} ({cost})."


def _describe_reduced(reduced: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each thing that was made smaller, with the recipes it was made smaller for."""
    sentences = dict.fromkeys(sentence for own in reduced.values() for sentence in own)
    return [
        f"Made smaller to fit the budget, for {_join([title for title, own in reduced.items() if sentence in own])}: "
        f"{sentence[:1].lower()}{sentence[1:]}"
        for sentence in sentences
    ]


def _caveats(standing: _Standing) -> list[str]:
    """Return a sentence on what "not detectable" leaves open."""
    undecided = [standing.pairs_of_best[recipe.name] for recipe in standing.level]
    deficits = {pair.other(standing.best).title: pair.largest_deficit(standing.best) for pair in undecided}
    known = {title: deficit for title, deficit in deficits.items() if deficit is not None}
    if not known:
        return []
    title = max(known, key=lambda name: known[name])
    rest = f"{title} may be worse by up to {known[title]:.3f}"
    return [
        f"Not detectable is not equal: within the 95% intervals {rest}. {_describe_range_of_rows(undecided)}".strip()
    ]


def _describe_range_of_rows(undecided: Sequence[Pair]) -> str:
    numbers = [pair.rows_needed for pair in undecided if pair.rows_needed is not None]
    if not numbers:
        return ""
    span = " to ".join(f"{rows:,}" for rows in sorted({round_up(min(numbers)), round_up(max(numbers))}))
    here = f"here are {undecided[0].observed.rows:,}"
    return f"To show differences of the sizes seen would take about {span} test rows; {here}."


def _describe_borrowing(recipes: Sequence[ScoredRecipe]) -> list[str]:
    """Return where the recipes with one seed take from what another seed would change."""
    words = []
    once = [recipe for recipe in recipes if recipe.one_training]
    for kind in dict.fromkeys(recipe.kind for recipe in once):
        own = [recipe for recipe in once if recipe.kind == kind]
        titles, lenders = _join([recipe.title for recipe in own]), own[0].lenders(recipes)
        if lenders:
            known = _join([f"{other.title} ({len(other.scores.points)} seeds)" for other in lenders])
            words.append(f"One seed of {titles} was trained: what another would change is taken from {known}.")
        else:
            words.append(f"One seed of {titles} was trained: what another would change is not in the intervals.")
    return words


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

    @cached_property
    def groups(self) -> NDArray[Any] | None:
        """Return the group of each test row, (rows,), where the recipe names a column of groups; else None."""
        own = [part.group_ids for part in self.parts]
        return None if any(ids is None for ids in own) else np.concatenate([ids for ids in own if ids is not None])

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
    depends_on_seed: bool = True
    """False if another seed would predict the same; then there is one."""
    kind: str = ""
    """The way it trains; see `ScoredRecipe.kind`."""
    _bootstraps: dict[str, BootstrapScores] = field(default_factory=dict, repr=False)

    def bootstrap(self, test_rows: SharedTestRows, metric: str | None = None) -> BootstrapScores:
        """Return a metric for each seed, on the test rows and on resampled ones. None: the metric that decides."""
        name = metric or test_rows.metric
        if name not in self._bootstraps:
            self._bootstraps[name] = _bootstrap(self, name, test_rows)
        return self._bootstraps[name]

    def nearest_to_median(self, test_rows: SharedTestRows) -> int:
        """Return the position of the seed whose score is nearest the median."""
        return median_seed(self.bootstrap(test_rows).points)


def _bootstrap(recipe: RecipePredictions, metric: str, test_rows: SharedTestRows, draws: int = 2000) -> BootstrapScores:
    labels, groups = test_rows.labels, test_rows.groups
    if METRICS[metric].reads == "probabilities":
        problem = problem_of(labels)
        probabilities = np.stack([problem.probabilities(logits) for logits in recipe.logits])
        one = resample(probabilities, labels, metric, groups=groups, draws=draws)
    else:
        one = resample(recipe.decided, labels, metric, groups=groups, draws=draws)
    return replace(one, depends_on_seed=recipe.depends_on_seed)


def describe_test_scores(
    recipe: RecipePredictions, test_rows: SharedTestRows, others: Sequence[RecipePredictions] = ()
) -> dict[str, Any]:
    """Return test, recall, confusion, calibration and threshold_curve of a recipe, as JSON values.

    Args:
        recipe: The recipe.
        test_rows: The rows.
        others: All recipes of the comparison, of which a single seed borrows the variance over seeds.
    """
    labels, nearest = test_rows.labels, recipe.nearest_to_median(test_rows)
    probabilities = np.stack([test_rows.problem.probabilities(logits) for logits in recipe.logits])
    confusion = test_rows.problem.confusion(labels, recipe.decided[nearest], len(test_rows.names))
    curve = None
    if test_rows.positive is not None:
        label = test_rows.positive
        curve = threshold_curve(probabilities[:, :, label], labels == label, test_rows.names[label])
    metrics = dict.fromkeys((test_rows.metric, *SHOWN_METRICS))
    # Shares that are the same for every text come true by themselves: their error of 0 is no merit.
    constant = bool((probabilities[nearest] == probabilities[nearest][:1]).all())
    return {
        "test": {name: _describe_metric(recipe, name, test_rows, others) for name in metrics},
        "recall": class_recalls(recipe.decided, labels, test_rows.names, test_rows.groups),
        "confusion": None if confusion is None else confusion.tolist(),
        "calibration": None if constant else reliability(probabilities[nearest], labels),
        "threshold_curve": curve,
    }


def _describe_metric(
    recipe: RecipePredictions, name: str, test_rows: SharedTestRows, others: Sequence[RecipePredictions]
) -> dict[str, Any]:
    """Return the mean over seeds with its interval, and each seed's value; null with a reason if it is undefined."""
    # Slow metrics get an interval only if they decide.
    costly = METRICS[name].slow_bootstrap and name != test_rows.metric
    try:
        found = _bootstrap(recipe, name, test_rows, draws=2) if costly else recipe.bootstrap(test_rows, name)
    except DataError as error:
        return {"mean": None, "low": None, "high": None, "seeds": [], "reason": error.what}
    seeds = [float(point) for point in found.points]
    if costly:
        reason = "intervals are made for the metric that decides"
        return {"mean": found.mean, "low": None, "high": None, "seeds": seeds, "reason": reason}
    least, most = METRICS[name].range
    share = is_share_of_rows(name, test_rows.problem)
    lenders = _lenders(recipe, name, test_rows, others)
    interval = estimate(found, lenders=lenders, share=share, least=least, most=most)
    figure = {"mean": interval.mean, "low": interval.low, "high": interval.high, "seeds": seeds}
    return figure if interval.reason is None else figure | {"reason": interval.reason}


def _lenders(
    recipe: RecipePredictions, metric: str, test_rows: SharedTestRows, others: Sequence[RecipePredictions]
) -> list[BootstrapScores]:
    """Return the scores of all recipes of its kind with several seeds, if it has one."""
    if len(recipe.logits) > 1 or not recipe.depends_on_seed:
        return []
    lenders = [
        other for other in others if other.kind == recipe.kind and other.depends_on_seed and len(other.logits) > 1
    ]
    return [other.bootstrap(test_rows, metric) for other in lenders]


def is_share_of_rows(metric: str, problem: Problem) -> bool:
    """Return True if a metric counts rows: accuracy, or what equals it."""
    return metric == "accuracy" or (metric == "f1_micro" and problem.exclusive)


def decide_from_predictions(
    recipes: Sequence[RecipePredictions], test_rows: SharedTestRows, scope: Scope | None = None
) -> Verdict:
    """Score the predictions of all recipes, compare every pair and derive the verdict.

    Args:
        recipes: All recipes with test predictions.
        test_rows: The rows.
        scope: What did not run and what was made smaller; None if everything ran whole.
    """
    share = is_share_of_rows(test_rows.metric, test_rows.problem)
    scored = [_scored(recipe, test_rows) for recipe in recipes]
    return decide(scored, metric_phrase(test_rows.metric), scope, share=share)


def _scored(recipe: RecipePredictions, test_rows: SharedTestRows) -> ScoredRecipe:
    decided = recipe.decided[recipe.nearest_to_median(test_rows)]
    correct = test_rows.problem.equal_rows(decided, test_rows.labels)
    scores = recipe.bootstrap(test_rows)
    return ScoredRecipe(
        recipe.name,
        recipe.title,
        scores,
        correct,
        recipe.seconds,
        baseline=recipe.baseline,
        groups=test_rows.groups,
        kind=recipe.kind,
    )


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
