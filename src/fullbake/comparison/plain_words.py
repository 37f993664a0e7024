"""Say in plain words what scores mean and what to do next, for readers who know no metric.

"About 6 in 10 texts get the right topic" is said of accuracy, because it is the only score that counts texts. The best
and the worst class stand beside it, and what a trivial answer would get, because accuracy alone hides rare classes.
Sentences are HTML: label names are escaped and isolated, so that no label can act or reorder a sentence.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from markupsafe import Markup

from fullbake.comparison.svg import isolate_text
from fullbake.evaluation.metrics import METRICS, metric_phrase

MOST_COUNTED: Final = 30
"""With so many rows of a class or fewer, a share is said as a count, such as 7 of 9."""

FEW_TEST_ROWS: Final = 200
"""With fewer test rows a page advises to label more of them, and says nothing of the calibration error."""

LARGE_CALIBRATION_ERROR: Final = 0.1
"""From this expected calibration error on a page warns of the probabilities."""

MOST_STEPS: Final = 6
"""The most steps of advice on a page."""

BASELINE_WORDS: Final = {
    "majority": "always giving the most frequent answer",
    "tfidf": "counting words (tfidf)",
}
"""What each baseline does."""

_TEXT_NOUNS: Final = (
    *("article", "comment", "document", "email", "headline", "message", "paragraph", "post"),
    *("question", "review", "sentence", "title", "tweet"),
)
"""Names of text columns that also name the rows in a sentence."""

_LABEL_NOUNS: Final = (
    *("author", "category", "class", "country", "department", "diagnosis", "domain", "emotion", "genre", "intent"),
    *("kind", "language", "mood", "priority", "product", "rating", "reason", "section", "sentiment", "species"),
    *("stance", "stars", "status", "subject", "tag", "team", "theme", "tone", "topic", "type"),
)
"""Last words of the names of label columns that also name a label in a sentence: "the right ticket category"."""

_F1: Final = (
    "F1 joins two shares into one number: of the texts of a class, the share that is found (recall), and of the texts "
    "that are put into it, the share that belongs there (precision)."
)


@dataclass(frozen=True)
class PlainScores:
    """What the sentences speak of: the scores of one classifier on one set of rows."""

    rows: int
    """Number of rows that were scored."""

    accuracy: Mapping[str, Any]
    """`value`, `low` and `high`; each may be missing or None."""

    recalls: Sequence[Mapping[str, Any]]
    """`label`, `support` and `mean` of each class, in the order of the classes."""

    confusion: Sequence[Sequence[int]] | None
    """Counts, true class by predicted class; None where a row may have many labels."""

    trained: Mapping[str, int] = field(default_factory=dict)
    """Training rows of each label."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    """Names of the columns: `text`, `text_pair`, `label`; empty where they are not known."""

    part: str = "test"
    """What the rows are called: "test", "validation", or "" for rows of a file of their own."""

    others: Sequence[tuple[str, float]] = ()
    """What trivial classifiers do ("counting words") and their accuracy."""

    ece: float | None = None
    """Expected calibration error, if it says something."""

    @property
    def known(self) -> list[int]:
        """Positions of the classes that have rows and a recall."""
        return [place for place, entry in enumerate(self.recalls) if entry["support"] and entry["mean"] is not None]

    @property
    def texts(self) -> str:
        """What the rows are called in sentences, such as "texts" or "comments"."""
        column = str(self.columns.get("text") or "").lower()
        noun = f"{column}s" if column in _TEXT_NOUNS else "texts"
        return f"pairs of {noun}" if self.columns.get("text_pair") else noun

    @property
    def label(self) -> str:
        """What a label is called in sentences: the name of its column, where that is a word for a choice of many."""
        column = str(self.columns.get("label") or "").lower().replace("_", " ")
        named = column.split(" ")[-1] in _LABEL_NOUNS and re.fullmatch("[a-z ]{3,20}", column)
        return column if named and len(self.recalls) > 2 else "label"


def share_in_words(share: float, rows: int | None = None) -> str:
    """Return a share as people say it: "6 in 10", "97 in 100", "7 of 9"; "all" or "none" only where that is exact.

    Args:
        share: From 0 to 1.
        rows: Number of rows that it is a share of, if few rows should be counted.
    """
    if share <= 0 or share >= 1:
        return "none" if share <= 0 else "all"
    if rows is not None and rows <= MOST_COUNTED:
        return f"{round(share * rows)} of {rows}"
    for whole, room in ((10, 0.25), (100, 0.5), (1000, 0.5)):
        parts = round(share * whole)
        if 1 <= parts < whole and abs(share * whole - parts) <= room:
            return f"{parts} in {whole:,}"
    return "nearly none" if share < 0.5 else "nearly all"


def describe_scores(scores: PlainScores) -> list[Markup]:
    """Return what the scores mean, the most important sentence first. Empty if no accuracy is known."""
    if scores.accuracy.get("value") is None:
        return []
    return [*_headline(scores), *_extremes(scores), *_trivial(scores)]


def _headline(scores: PlainScores) -> list[Markup]:
    share, kind = scores.accuracy["value"], f"{scores.part} {scores.texts}".strip()
    right = f"the right {scores.label}" if scores.confusion is not None else "exactly the right labels"
    if share >= 1 or share <= 0:
        every = f"all {scores.rows:,}" if share >= 1 else f"none of the {scores.rows:,}"
        return [Markup("It gives {} {} {}.").format(every, kind, right)]
    found = [Markup("It gives about {} {} {}.").format(share_in_words(share), scores.texts, right)]
    low, high = scores.accuracy.get("low"), scores.accuracy.get("high")
    if low is not None and high is not None:
        ends = f"{max(round(100 * low), 0)} and {min(round(100 * high), 100)}"
        words = "With other {} of the same kind, between {} in 100 are to be expected."
        found.append(Markup(words).format(scores.texts, ends))
    return found


def _extremes(scores: PlainScores) -> list[Markup]:
    """Name the classes that are found best and worst, and what the worst is taken for."""
    if len(scores.known) < 2:
        return []
    best = max(scores.known, key=lambda place: scores.recalls[place]["mean"])
    worst = min(scores.known, key=lambda place: scores.recalls[place]["mean"])
    if scores.recalls[best]["mean"] == scores.recalls[worst]["mean"]:
        return []
    return [
        Markup("Best: {} (it finds {}). Worst: {} (it finds {}{}).").format(
            _name(scores, best),
            _found(scores, best),
            _name(scores, worst),
            _found(scores, worst),
            _taken(scores, worst),
        )
    ]


def _name(scores: PlainScores, place: int) -> Markup:
    return Markup("<strong>{}</strong>").format(isolate_text(str(scores.recalls[place]["label"])))


def _found(scores: PlainScores, place: int) -> str:
    entry = scores.recalls[place]
    words = share_in_words(entry["mean"], entry["support"])
    return f"{words} of {entry['support']}" if words in ("all", "none") else words


def _taken(scores: PlainScores, place: int) -> Markup:
    other, count = _rival(scores, place)
    return Markup(", and most often says {} instead").format(_name(scores, other)) if count else Markup("")


def _rival(scores: PlainScores, place: int) -> tuple[int, int]:
    """Return the class that a class is most often taken for, and the number of its rows; 0 rows if there is none."""
    row = [] if scores.confusion is None else [*scores.confusion[place]]
    if len(row) > place:
        row[place] = 0
    return (max(range(len(row)), key=row.__getitem__), max(row)) if row else (place, 0)


def _trivial(scores: PlainScores) -> list[Markup]:
    """Say what classifiers that understand nothing get: the measured ones, or else the most frequent label."""
    others = [Markup("{} would be right for {}").format(what, _about(share)) for what, share in scores.others]
    total = sum(scores.trained.values())
    if not others and scores.confusion is not None and total:
        common = max(scores.trained, key=scores.trained.__getitem__)
        support = next((entry["support"] for entry in scores.recalls if entry["label"] == common), 0)
        label = isolate_text(common)
        words = Markup("always answering {}, the most frequent {}, would be right for {}")
        others = [words.format(label, scores.label, _about(support / max(scores.rows, 1)))]
    return [Markup("For comparison: {}.").format(Markup("; ").join(others))] if others else []


def _about(share: float) -> str:
    words = share_in_words(share)
    return words if words in ("all", "none") else f"about {words}"


def explain_metric(metric: str, problem_type: str | None) -> str:
    """Return one or two sentences that say what a metric is; empty for a metric of another version of fullbake."""
    if metric not in METRICS:
        return ""
    record, phrase = METRICS[metric], metric_phrase(metric)
    definitions = record.definitions
    known = next((definitions[kind] for kind in definitions if kind == problem_type), next(iter(definitions.values())))
    least, most = record.range
    ends = {0.0: "0", 1.0: "1"}
    best = most if record.higher_is_better else least
    scale = f" {ends[best]} is the best possible value." if best in ends else ""
    parts = f" {_F1}" if "F1" in known.meaning else ""
    return f"{phrase[0].upper()}{phrase[1:]}: {known.meaning}.{parts}{scale}"


# What to do next


def advise(scores: PlainScores, first: Sequence[Markup] = (), last: Sequence[Markup] = ()) -> list[Markup]:
    """Return steps that these scores suggest, the most useful first.

    Args:
        scores: The scores of the classifier that a reader would use.
        first: Steps that come before them.
        last: Steps that come after them, as many as there is room for.
    """
    return [*first, *_class_advice(scores), *_rows_advice(scores), *_probability_advice(scores), *last][:MOST_STEPS]


def _class_advice(scores: PlainScores) -> list[Markup]:
    """Advise on the worst class: more texts where it has few, else a look at the class that it is taken for."""
    if len(scores.known) < 2:
        return []
    worst = min(scores.known, key=lambda place: scores.recalls[place]["mean"])
    entry, name = scores.recalls[worst], _name(scores, worst)
    if entry["mean"] > 0.9:
        return []
    rows, total = scores.trained.get(entry["label"]), sum(scores.trained.values())
    if rows is not None and rows < 0.7 * total / len(scores.recalls):
        words = "Label more texts as {}: it is found worst, and only {} of {} training rows have it."
        return [Markup(words).format(name, f"{rows:,}", f"{total:,}")]
    rival, count = _rival(scores, worst)
    if count < max(2, 0.1 * entry["support"]):
        return []
    words = "Look at {} and {}: {} of {} {} labeled {} were put into {}. If people cannot separate the two by the text \
alone, merge them or describe the difference to those who label."
    other = _name(scores, rival)
    counts = f"{count:,}", f"{entry['support']:,}"
    return [Markup(words).format(name, other, *counts, scores.texts, name, other)]


def _rows_advice(scores: PlainScores) -> list[Markup]:
    if scores.rows >= FEW_TEST_ROWS or not scores.part:
        return []
    words = "Treat small differences with care: the score comes from {} {} rows. More labeled rows make it sharper."
    return [Markup(words).format(f"{scores.rows:,}", scores.part)]


def _probability_advice(scores: PlainScores) -> list[Markup]:
    # With few rows the error is mostly chance.
    if scores.ece is None or scores.ece < LARGE_CALIBRATION_ERROR or scores.rows < FEW_TEST_ROWS:
        return []
    words = "Do not take its probabilities at their word: they are off by {} on average (see Calibration)."
    return [Markup(words).format(f"{scores.ece:.2f}")]
