"""What a classifier says of itself: one line, and a table in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from fullbake.config.problems import Problem
from fullbake.core.console import format_count, format_interval, format_score, format_size
from fullbake.core.markup import Child, Html, facts_table, isolate, join, notebook_block, value_table, warnings_block
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.metrics import metric_title

_METRICS: Final = ("accuracy", "f1_macro", "f1_micro", "log_loss")

_SHOWN_LABELS: Final = 12
"""Labels that are named; of more, their number is given."""


@dataclass(frozen=True)
class ClassifierFacts:
    """What is shown of a classifier."""

    facts: Mapping[str, Any]
    """The entries of fullbake.json."""

    label_names: Sequence[str]
    problem: Problem
    decision: Decision
    engine: str

    parameters: int | None
    """Number of the network's weights, None if the engine does not know."""

    weight_bytes: int | None
    """What they take in memory, None if the engine does not know."""

    warnings: Sequence[str]
    cascade: str | None
    """Who answers first, in one sentence; None if it is no cascade."""

    @property
    def way(self) -> str:
        """How it was made, in words."""
        recipe, chosen = self.facts.get("recipe") or {}, self.facts.get("chosen") or {}
        base = PurePath(str(recipe.get("base", ""))).name
        head = chosen.get("head") or (recipe.get("head") or {}).get("kind")
        words = " ".join(str(word) for word in (recipe.get("way"), head) if word)
        return f"{words} on {base!r}" if words and base else words or "made by hand"


def describe_in_a_line(known: ClassifierFacts) -> str:
    """Return one line: labels, way, base, engine and the score that counts most."""
    metrics, parts = known.facts.get("metrics") or {}, [f"{len(known.label_names)} {known.problem.noun}", known.way]
    part = next((name for name in ("test", "validation") if name in metrics), None)
    if part is not None:
        found = (metrics[part].get("overall") or {}).get("f1_macro") or {}
        parts.append(f"{part} macro-F1 {format_score(found.get('value'))}")
    cascade = [] if known.cascade is None else ["a cascade"]
    return f"Classifier({', '.join([*cascade, *parts, f'engine {known.engine}'])})"


def classifier_html(known: ClassifierFacts) -> Html:
    """Return what a notebook shows of a classifier."""
    facts = known.facts
    recipe, data = facts.get("recipe") or {}, facts.get("data") or {}
    rows = ", ".join(f"{format_count(count)} {part}" for part, count in (data.get("rows") or {}).items())
    weights = None
    if known.parameters is not None:
        weights = f"{format_count(known.parameters)} parameters, {format_size(known.weight_bytes)}"
    tokens = facts.get("tokens") or recipe.get("tokens") or {}
    length = tokens.get("max_length")
    shown: dict[str, Child] = {
        "labels": _labels(known.label_names),
        "made by": f"{known.way}{', after further pretraining' if facts.get('further_pretraining') else ''}",
        "rows": rows,
        "decision": describe_decision(known.decision),
        "answers first": known.cascade,
        "reads": f"{length:,} tokens of a text ({tokens.get('truncation', 'head')})" if length else None,
        "weights": weights,
        "computed by": f"engine {known.engine}",
        "trained with": _machine(facts),
    }
    title = f"Classifier of {len(known.label_names)} {known.problem.noun}"
    return notebook_block(title, _scores(known), warnings_block(known.warnings), facts_table(shown))


def _labels(names: Sequence[str]) -> Html:
    pieces = [piece for name in names[:_SHOWN_LABELS] for piece in (", ", isolate(name))][1:]
    more = len(names) - _SHOWN_LABELS
    return join(*pieces, f" and {more} more" if more > 0 else None)


def _machine(facts: Mapping[str, Any]) -> str:
    threads = facts.get("threads")
    words = [] if facts.get("device") is None else [str(facts["device"])]
    words += [] if threads is None else [f"{threads} thread{'' if threads == 1 else 's'}"]
    return ", ".join(words)


def _scores(facts: ClassifierFacts) -> Html | None:
    """Return a table: a row for each part, a column for each metric, with 95% intervals in brackets."""
    metrics = facts.facts.get("metrics") or {}
    known = {part: result.get("overall") or {} for part, result in metrics.items()}
    # Where a row has one label, micro-F1 is the accuracy.
    wanted = [name for name in _METRICS if not (facts.problem.exclusive and name == "f1_micro")]
    names = [name for name in wanted if any((one.get(name) or {}).get("value") is not None for one in known.values())]
    if not names:
        return None
    rows = [
        (
            f"{part}, {format_count(metrics[part].get('rows'))} rows",
            *(_figure(overall.get(name) or {}) for name in names),
        )
        for part, overall in known.items()
    ]
    return value_table(("scores (with 95% intervals)", *map(metric_title, names)), rows)


def _figure(found: Mapping[str, Any]) -> str:
    interval = format_interval(found.get("low"), found.get("high"))
    return format_score(found.get("value")) + (f" ({interval})" if interval else "")


def describe_decision(decision: Decision) -> Html:
    """Say in words how probabilities become labels."""
    names, thresholds = decision.label_names, decision.thresholds
    if decision.costs is not None:
        return join("the class with the lowest expected cost of a mistake")
    if thresholds is None:
        return join("the likeliest class" if decision.problem.exclusive else "each label of 0.5 and more")
    if decision.positive is not None:
        return join(isolate(names[decision.positive]), f" from {thresholds[0]:.3f} on, else the likeliest other class")
    if len(names) > _SHOWN_LABELS:
        return join(f"a threshold for each label, {min(thresholds):.3f} to {max(thresholds):.3f}")
    pieces = [
        piece for name, value in zip(names, thresholds, strict=True) for piece in (", ", isolate(name), f" {value:.3f}")
    ]
    return join("each label from its threshold on: ", *pieces[1:])
