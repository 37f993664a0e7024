"""Pairs of recipes and their costs -> who won, whether the difference is real, and what to take.

The p-value over test rows and seeds decides, after Holm's correction over all pairs; McNemar's exact test, which knows
one trained model a side, stands beside it. "Not detectable" is no proof of equality: the words say what interval is
left and how many test rows would show a difference of the size seen. Recommended is what trained in the least time
among those not detectably worse than the best. A baseline is never recommended (on few rows nothing is detectably worse
than the best, and the majority class would win by price), but where one holds its own, the words say so.

Test scores of recipes on the same rows -> what `leaderboard.json` says of each, of each pair, and of all.

Everything here happens after validation has chosen; nothing from here goes back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import metric_phrase, problem_of
from fullbake.core.console import format_duration
from fullbake.core.errors import DataError
from fullbake.data.splits import Part
from fullbake.evaluation.bootstrap import BY_CHANCES, BootstrapScores, resample
from fullbake.evaluation.calibration import reliability
from fullbake.evaluation.decisions import probabilities
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
    """A recipe that was scored. title: what people call it. scores: its metric (higher is better), resampled on the
    rows that all share. correct: whether the model nearest the median got each row right, (rows,). seconds: what its
    training took, all of it. baseline: it only keeps the others honest."""

    name: str
    title: str
    scores: BootstrapScores
    correct: NDArray[np.bool_]
    seconds: float
    baseline: bool = False


@dataclass(frozen=True)
class Pair:
    """Two contestants. p_holm: corrected over all pairs; it decides `detectable`. rows_needed: test rows that would
    show a difference of the size seen; None where it shows already, or where none would: then `reason` says why."""

    a: ScoredRecipe
    b: ScoredRecipe
    seen: Difference
    p_holm: float
    mcnemar_p: float
    rows_needed: int | None
    reason: str | None
    words: str

    @property
    def detectable(self) -> bool:
        """Whether the difference is real, as far as these rows and seeds can tell."""
        return self.p_holm < LEVEL

    def to_json(self) -> dict[str, Any]:
        """As `leaderboard.json` has it; a and b are names."""
        seen = self.seen
        return {
            "a": self.a.name,
            "b": self.b.name,
            "difference": seen.difference,
            "low": seen.low,
            "high": seen.high,
            "p": seen.p,
            "p_holm": self.p_holm,
            "mcnemar_p": self.mcnemar_p,
            "detectable": self.detectable,
            "rows_needed": self.rows_needed,
            "reason": self.reason,
            "words": self.words,
        }


@dataclass(frozen=True)
class Verdict:
    """best: the name that scored highest. recommended: the cheapest not detectably worse, None where only baselines are
    left. words: sentences, the most important first."""

    pairs: list[Pair]
    best: str | None
    recommended: str | None
    words: list[str]

    def to_json(self) -> dict[str, Any]:
        """The verdict alone; pairs have their own place in `leaderboard.json`."""
        return {"best": self.best, "recommended": self.recommended, "words": self.words}


def decide(contestants: Sequence[ScoredRecipe], metric: str) -> Verdict:
    """Compare every pair and say it in words. contestants: those that finished, in the order of the page. metric: what
    to call it. Raises DataError where they were not resampled alike."""
    if not contestants:
        return Verdict([], None, None, ["No recipe finished, so there is nothing to compare."])
    pairs = _pairs(contestants, metric)
    best = max(contestants, key=lambda one: one.scores.mean)
    rivals = {_other(pair, best).name: pair for pair in pairs if best in (pair.a, pair.b)}
    level = [one for one in contestants if one is best or not rivals[one.name].detectable]
    takeable = [one for one in level if not one.baseline]
    taken = min(takeable, key=lambda one: one.seconds, default=None)
    words = [
        _headline(best, contestants, level, metric),
        _advice(taken, best, takeable),
        *_honest_baselines(best, level),
        *_limits(best, level, rivals),
    ]
    return Verdict(pairs, best.name, None if taken is None else taken.name, words)


def _pairs(contestants: Sequence[ScoredRecipe], metric: str) -> list[Pair]:
    couples = list(combinations(contestants, 2))
    seen = [contrast(a.scores, b.scores) for a, b in couples]
    adjusted = holm([difference.p for difference in seen])
    return [
        _pair(a, b, difference, p_holm, metric, len(couples))
        for (a, b), difference, p_holm in zip(couples, seen, adjusted, strict=True)
    ]


def _pair(a: ScoredRecipe, b: ScoredRecipe, seen: Difference, p_holm: float, metric: str, pairs: int) -> Pair:
    shows = p_holm < LEVEL
    needed = None if shows else rows_needed(seen, pairs=pairs)
    if needed is not None:  # bad luck on rows that mostly would have done is no reason to name fewer
        needed = max(needed, seen.rows + 1)
    reason = _no_number(seen) if needed is None and not shows else None
    facts = f"95% interval {seen.low:+.3f} to {seen.high:+.3f}, {_p(p_holm)}{_corrected(pairs)}"
    if shows:
        winner, loser = (a, b) if seen.difference > 0 else (b, a)
        gap = f"{winner.scores.mean:.3f} against {loser.scores.mean:.3f}"
        words = f"{winner.title} is better than {loser.title}: {metric} {gap} ({a.title} - {b.title}: {facts})."
    else:
        gap = f"{seen.difference:+.3f} in {metric} ({facts})"
        words = f"No detectable difference between {a.title} and {b.title}: {gap}. {_wanted(seen, needed, reason)}"
    return Pair(a, b, seen, p_holm, mcnemar(a.correct, b.correct), needed, reason, words)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _corrected(pairs: int) -> str:
    return f" after Holm's correction for {pairs} pairs" if pairs > 1 else ""


def _no_number(seen: Difference) -> str:
    if round(seen.difference, 12) == 0:
        return "they scored the same"
    if min(seen.variance.seeds) == 1 and max(seen.variance.seeds) == 1:
        return "the difference is too small for any number of test rows that people label"
    return "the luck of the seeds outweighs the difference, however many the test rows; more seeds may show it"


def _wanted(seen: Difference, needed: int | None, reason: str | None) -> str:
    if needed is None:
        return f"No number of test rows is given: {reason}."
    often = f"{round(POWER * 5)} times in 5"
    return (
        f"About {_round_up(needed):,} test rows would show a difference of this size {often}; here are {seen.rows:,}."
    )


def _round_up(rows: int) -> int:
    """To two digits: the estimate carries no more."""
    unit = int(10 ** max(len(str(rows)) - 2, 0))
    return -(-rows // unit) * unit


def _other(pair: Pair, one: ScoredRecipe) -> ScoredRecipe:
    return pair.b if pair.a is one else pair.a


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _headline(best: ScoredRecipe, all_: Sequence[ScoredRecipe], level: Sequence[ScoredRecipe], metric: str) -> str:
    scored = f"{best.title} scored highest: {metric} {best.scores.mean:.3f}"
    if len(all_) == 1:
        return f"{scored}. Nothing else finished, so there is nothing to compare it with."
    if len(level) == 1:
        return f"{scored}, detectably better than {'the other' if len(all_) == 2 else 'every other recipe'}."
    rest = [one.title for one in level if one is not best]
    beaten = len(all_) - len(level)
    tail = f" {beaten} {'is' if beaten == 1 else 'are'} detectably worse." if beaten else ""
    return f"{scored}, with no detectable difference from {_listed(rest)}.{tail}"


def _advice(taken: ScoredRecipe | None, best: ScoredRecipe, takeable: Sequence[ScoredRecipe]) -> str:
    if taken is None:
        return f"No classifier is recommended: all are detectably worse than {best.title}, a baseline."
    cost = f"{format_duration(taken.seconds)} of training"
    if len(takeable) == 1:
        return f"Recommended: {taken.title} ({cost})."
    dearest = max(takeable, key=lambda one: one.seconds)
    cost = f"{cost}; {dearest.title} took {format_duration(dearest.seconds)}"
    return f"Recommended: {taken.title}, the cheapest of {len(takeable)} not detectably worse than the best ({cost})."


def _honest_baselines(best: ScoredRecipe, level: Sequence[ScoredRecipe]) -> list[str]:
    names = [one.title for one in level if one.baseline]
    if not names:
        return []
    if best.baseline:
        return [f"The baseline {best.title} scored highest of all: these data may not need an encoder."]
    verb = "is" if len(names) == 1 else "are"
    return [
        f"{_listed(names)} {verb} not detectably worse than the best: these rows do not show that an encoder helps."
    ]


def _limits(best: ScoredRecipe, level: Sequence[ScoredRecipe], rivals: Mapping[str, Pair]) -> list[str]:
    """What "not detectable" leaves open, and what was not seen at all."""
    words = []
    even = [rivals[one.name] for one in level if one is not best]
    if even:
        most = max(even, key=lambda pair: _reach(pair, best))
        rest = f"{_other(most, best).title} may be worse by up to {_reach(most, best):.3f}"
        words.append(f"Not detectable is not equal: within the 95% intervals {rest}. {_rows_for(even)}".strip())
    if len(best.scores.points) == 1:
        words.append(_ONE_SEED)
    return words


def _reach(pair: Pair, best: ScoredRecipe) -> float:
    """How far the other may lie below the best."""
    return pair.seen.high if pair.a is best else -pair.seen.low


def _rows_for(even: Sequence[Pair]) -> str:
    numbers = [pair.rows_needed for pair in even if pair.rows_needed is not None]
    if not numbers:
        return ""
    span = " to ".join(f"{rows:,}" for rows in sorted({_round_up(min(numbers)), _round_up(max(numbers))}))
    here = f"here are {even[0].seen.rows:,}"
    return f"To show differences of the sizes seen would take about {span} test rows; {here}."


_ONE_SEED: Final = "One seed was trained: what another would change is not in the intervals."

MOST_DISAGREEMENTS: Final = 100

SHOWN_CHARACTERS: Final = ("f1_macro", "accuracy", "log_loss", "roc_auc")
"""Figures that every recipe is told by, beside the metric."""

_LEAST: Final = {"matthews_corrcoef": -1.0, "neg_log_loss": -np.inf}
_MOST: Final = {"neg_log_loss": 0.0}


@dataclass(frozen=True)
class TestRows:
    """The test rows of a comparison. parts: where they stand, one a fold. positive: the class whose curve is drawn, its
    place among the names."""

    parts: Sequence[Part]
    metric: str
    positive: int | None

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Of all test rows: ids (rows,), or 0 and 1 (rows, labels)."""
        return np.concatenate([part.labels for part in self.parts])

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names."""
        return self.parts[0].source.label_names

    def told(self, decided: NDArray[Any]) -> str:
        """A row's label or labels in words."""
        if decided.ndim == 0:
            return self.names[int(decided)]
        return ", ".join(name for name, held in zip(self.names, decided, strict=True) if held) or "none"


@dataclass(frozen=True, eq=False)
class RecipePredictions:
    """A recipe's test scores. logits: (seeds, rows, classes). decided: (seeds, rows) or (seeds, rows, labels), by each
    seed's own decision. seconds: of training one. copies: seeds that it stands for where luck plays no part."""

    name: str
    title: str
    baseline: bool
    logits: NDArray[np.float32]
    decided: NDArray[Any]
    seconds: float
    copies: int = 1

    def resampled(self, truth: TestRows) -> BootstrapScores:
        """The metric over the seeds, each again and again on resampled rows."""
        return _resampled(self, truth.metric, truth.labels, self.copies)

    def nearest(self, truth: TestRows) -> int:
        """The seed nearest the median."""
        return median_seed(_resampled(self, truth.metric, truth.labels, 1, draws=2).points)


def _resampled(
    scored: RecipePredictions, metric: str, labels: NDArray[Any], copies: int, draws: int = 2000
) -> BootstrapScores:
    if metric == "log_loss":
        found = _resampled(scored, "neg_log_loss", labels, copies, draws)
        return BootstrapScores(-found.points, -found.draws, found.rows)
    if metric in BY_CHANCES:
        problem_type = problem_of(labels)
        chances = np.stack([probabilities(logits, problem_type) for logits in scored.logits])
        one = resample(chances, labels, metric, draws=draws)
    else:
        one = resample(scored.decided, labels, metric, draws=draws)
    return BootstrapScores(np.repeat(one.points, copies), np.repeat(one.draws, copies, axis=1), one.rows)


def describe_scores(scored: RecipePredictions, truth: TestRows) -> dict[str, Any]:
    """test, recall, confusion, calibration and threshold_curve of a recipe, JSON values."""
    labels, nearest = truth.labels, scored.nearest(truth)
    problem_type = problem_of(labels)
    chances = np.stack([probabilities(logits, problem_type) for logits in scored.logits])
    curve = None
    if truth.positive is not None:
        place = truth.positive
        curve = threshold_curve(chances[:, :, place], labels == place, truth.names[place])
    return {
        "test": {name: _figure(scored, name, truth) for name in dict.fromkeys((truth.metric, *SHOWN_CHARACTERS))},
        "recall": class_recalls(scored.decided, labels, truth.names),
        "confusion": None if labels.ndim == 2 else _confusion(labels, scored.decided[nearest], len(truth.names)),
        "calibration": reliability(chances[nearest], labels),
        "threshold_curve": curve,
    }


def _figure(scored: RecipePredictions, name: str, truth: TestRows) -> dict[str, Any]:
    """Mean over seeds with its interval, and each seed's own; null with a reason where it is undefined."""
    costly = name in ("roc_auc", "average_precision") and name != truth.metric
    try:
        found = _resampled(scored, name, truth.labels, 1, draws=2 if costly else 2000)
    except DataError as error:
        return {"mean": None, "low": None, "high": None, "seeds": [], "reason": error.what}
    seeds = [float(point) for point in found.points]
    if costly:
        reason = "intervals are made for the metric that decides"
        return {"mean": found.mean, "low": None, "high": None, "seeds": seeds, "reason": reason}
    least, most = (0.0, np.inf) if name == "log_loss" else (_LEAST.get(name, 0.0), _MOST.get(name, 1.0))
    told = estimate(found, least=least, most=most)
    return {"mean": told.mean, "low": told.low, "high": told.high, "seeds": seeds}


def _confusion(labels: NDArray[Any], decided: NDArray[Any], classes: int) -> list[list[int]]:
    counts: list[list[int]] = (
        np.bincount(labels * classes + decided, minlength=classes**2).reshape(-1, classes).tolist()
    )
    return counts


def test_all_pairs(everyone: Sequence[RecipePredictions], truth: TestRows) -> Verdict:
    """Every pair, and what follows."""
    return decide([_contestant(scored, truth) for scored in everyone], metric_phrase(truth.metric))


def _contestant(scored: RecipePredictions, truth: TestRows) -> ScoredRecipe:
    decided = scored.decided[scored.nearest(truth)]
    right = decided == truth.labels if decided.ndim == 1 else (decided == truth.labels).all(axis=1)
    return ScoredRecipe(
        scored.name, scored.title, scored.resampled(truth), right, scored.seconds, baseline=scored.baseline
    )


def list_disagreements(everyone: Sequence[RecipePredictions], truth: TestRows) -> list[dict[str, Any]]:
    """The test rows that recipes judge differently, those most disputed first; baselines have no say."""
    answers = {scored.name: scored.decided[scored.nearest(truth)] for scored in everyone if not scored.baseline}
    ranked = rank_disagreements(answers, truth.labels, MOST_DISAGREEMENTS)
    texts = [text for part in truth.parts for text in part.joined_texts.to_pylist()]
    rows = np.concatenate([part.rows for part in truth.parts])
    return [
        {
            "row": int(rows[place]),
            "text": texts[place],
            "label": truth.told(truth.labels[place]),
            "predictions": {name: truth.told(own[place]) for name, own in answers.items()},
        }
        for place in ranked.tolist()
    ]
