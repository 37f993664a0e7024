"""What a classifier's answer to one text rests on: each word with the change that it makes to the scores.

The effect of a word is the score of a label with the word minus its score without it: above 0 the word speaks for the
label, below 0 against it. Effects of words do not add up to the score, because words act together; where a text says a
thing twice, leaving out one mention changes little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from fullbake.classifier.explanation_view import explanation_html, explanation_page
from fullbake.classifier.occlusion import Occlusion, OcclusionScorer, occlude
from fullbake.config.problems import Probabilities
from fullbake.core.arguments import as_plain_value, describe_value
from fullbake.core.errors import DataError, RecipeError, did_you_mean
from fullbake.evaluation.decisions import Decision

MOST_PARTS = 500
"""How many parts of a text are left out, one after another, unless a caller says another number."""

LEAST_EFFECT = 0.001
"""An effect below this is too small to name the word as a reason."""


class WordEffect(TypedDict):
    """A word, or a group of neighboring words, and its effect on the score of one label."""

    word: str
    effect: float

    text: int
    """0, or 1 for the second text of a pair."""

    start: int
    end: int
    """Its place in that text, in characters."""

    words: int
    """How many words it is; more than 1 in texts with more words than were left out one by one."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """The answer to one text, or to one pair of texts, with the effect of each word."""

    texts: tuple[str, ...]
    """The text, or both texts of a pair."""

    label_names: tuple[str, ...]
    """(classes,)."""

    labels: tuple[str, ...]
    """The labels that are explained."""

    predicted: tuple[str, ...]
    """The labels that the classifier gives: one, or any number of a multi-label classifier."""

    occlusion: Occlusion
    """The scores and the effects on every class."""

    answered_by: str | None = None
    """`student` or `teacher`, whose scores these are, of a cascade; else None."""

    def score(self, label: str | None = None) -> float:
        """Return the score of a label. label: None takes the first that is explained."""
        return float(self.occlusion.probabilities[self._place(label)])

    def effects(self, label: str | None = None) -> list[WordEffect]:
        """Return the words in the order of the text, each with its effect on one label.

        Args:
            label: The label; None takes the first that is explained. Any label of the classifier is known.

        Raises:
            RecipeError: There is no such label.
        """
        column = self.occlusion.effects[:, self._place(label)].tolist()
        return [
            WordEffect(word=self.texts[text][start:end], effect=effect, text=text, start=start, end=end, words=words)
            for effect, (text, start, end, words) in zip(column, self.occlusion.parts.tolist(), strict=True)
        ]

    def top_words(self, label: str | None = None, number: int = 10) -> list[WordEffect]:
        """Return the words with the largest effects on one label, whether for or against it, the largest first.

        Args:
            label: As for `effects`.
            number: How many at most.
        """
        return sorted(self.effects(label), key=lambda word: -abs(word["effect"]))[:number]

    def to_json(self) -> dict[str, Any]:
        """Return everything that is explained as JSON values."""
        unread = [{"text": text, "start": start, "end": end} for text, start, end in self.occlusion.unread]
        labels = [{"label": label, "score": self.score(label), "words": self.effects(label)} for label in self.labels]
        answered = {} if self.answered_by is None else {"answered_by": self.answered_by}
        found = {"texts": list(self.texts), "predicted": list(self.predicted), "labels": labels}
        return found | {"unread": unread, "windows": self.occlusion.windows} | answered

    @property
    def notes(self) -> list[str]:
        """Sentences that belong to these effects."""
        parts = self.occlusion.parts
        groups, unread = int((parts[:, 3] > 1).sum()), sum(end - start for _, start, end in self.occlusion.unread)
        shown = self.occlusion.effects[:, [self._place(label) for label in self.labels]]
        found = {
            "No single word changes a score by 0.001: the answer rests on many words together, or on words that say "
            "the same.": len(parts) > 0 and float(np.abs(shown).max(initial=0)) < LEAST_EFFECT,
            f"The text has {int(parts[:, 3].sum()):,} words. {groups:,} groups of neighboring words were left out as a "
            "whole; raise --max-parts (max_parts) for single words.": groups > 0,
            f"The text is too long: {unread:,} characters of it were not read (truncation).": unread > 0,
            f"The {self.answered_by} of the cascade answered, and its scores are explained.": self.answered_by
            is not None,
        }
        return [sentence for sentence, applies in found.items() if applies]

    def __repr__(self) -> str:
        """Return one line: the labels, their scores, and the words with the largest effects."""
        label = self.labels[0]
        words = ", ".join(f"{word['word'][:30]!r} {word['effect']:+.3f}" for word in self.top_words(label, 3))
        return f"Explanation({label!r} {self.score(label):.3f}: {words or 'no words'})"

    def _repr_html_(self) -> str:
        """Return the text with its words colored, for a notebook."""
        return explanation_html(self.to_json(), self.notes)

    def to_html(self) -> str:
        """Return a whole page, which loads nothing and runs no script. It holds the text."""
        return explanation_page(self.to_json(), self.notes)

    def _place(self, label: str | None) -> int:
        name = self.labels[0] if label is None else label
        check_label_names([name], self.label_names)
        return self.label_names.index(name)


def check_label_names(labels: Sequence[str], label_names: Sequence[str]) -> None:
    """Raise RecipeError if one of these is no label of the classifier."""
    for label in labels:
        if label not in label_names:
            raise RecipeError(
                f"there is no label {label!r}", where="--label (labels)", remedy=did_you_mean(str(label), label_names)
            )


def explain_text(
    scorer: OcclusionScorer,
    decision: Decision,
    texts: Sequence[str],
    *,
    labels: str | Sequence[str] | None = None,
    max_parts: int = MOST_PARTS,
    answered_by: str | None = None,
) -> Explanation:
    """Explain the answer to one text, or to one pair of texts.

    Args:
        scorer: What computes the scores.
        decision: The rule that makes labels of them.
        texts: The text, or both texts of a pair; already found to be texts.
        labels: The labels to explain: one name, or several. None: those that the classifier gives, or the likeliest one
            if it gives none.
        max_parts: How many parts are left out at most.
        answered_by: Of a cascade, whose scores they are.

    Raises:
        RecipeError: There is no such label, or `max_parts` is too small.
    """
    names = decision.label_names
    wanted = [labels] if isinstance(labels, str) else None if labels is None else list(labels)
    check_label_names(wanted or (), names)
    number = as_plain_value(max_parts)
    if isinstance(number, bool) or not isinstance(number, int) or number < 4:
        raise RecipeError(
            "max_parts is the number of words that are left out one by one",
            where="--max-parts (max_parts)",
            expected="a whole number of 4 or more",
            got=describe_value(max_parts),
        )
    found = occlude(scorer, texts[0], texts[1] if len(texts) > 1 else None, number)
    predicted = _predicted(decision, found.probabilities)
    likeliest = names[int(found.probabilities.argmax())]
    chosen = tuple(dict.fromkeys(wanted or predicted or (likeliest,)))
    return Explanation(tuple(texts), names, chosen, predicted, found, answered_by)


def _predicted(decision: Decision, probabilities: Probabilities) -> tuple[str, ...]:
    (ids,) = decision.problem.label_ids(decision.decide(probabilities[None]))
    order = sorted(ids, key=lambda place: -probabilities[place])
    return tuple(decision.label_names[place] for place in order)


def require_one_text(value: object, name: str) -> None:
    """Raise DataError if an argument that must be one text is something else, such as a list of texts."""
    if not isinstance(value, str):
        raise DataError(
            "one text is explained at a time",
            where=name,
            expected="a string",
            got=describe_value(value),
            remedy="Of several: [classifier.explain(text) for text in texts].",
        )
