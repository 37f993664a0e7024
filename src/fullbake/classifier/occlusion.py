"""Leave words out of a text, one after another, and see how the scores change.

A word is left out by removing its tokens from what the network reads, so truncation and the other words stay as they
are, and of a text in windows only the windows with the word are computed again. At most a given number of parts is left
out. A text with more words is first divided into groups of neighboring words; what is left of the number is spent on
the single words of the groups that change the scores most.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fullbake.config.problems import Probabilities, Problem
from fullbake.config.sections import TokensConfig
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.prediction import Predictor, pool_windows
from fullbake.models.words import WordTokens, tokenize_words

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OcclusionScorer:
    """What computes scores of a text: the parts of a classifier."""

    predictor: Predictor
    tokenizer: Any
    tokens: TokensConfig
    problem: Problem


@dataclass(frozen=True, eq=False)
class Occlusion:
    """The scores of a text, and by how much each part of it raises them."""

    parts: Ids
    """(parts, 4) the text that each part is in, its start, its end, and the number of its words, in order."""

    effects: Probabilities
    """(parts, classes) the probability of each class with the part, minus that without it."""

    probabilities: Probabilities
    """(classes,) of the whole text."""

    unread: tuple[tuple[int, int, int], ...]
    """(text, start, end) of what the classifier does not read, because the text is too long."""

    windows: int
    """In how many windows the text is read."""


def occlude(scorer: OcclusionScorer, text: str, text_pair: str | None, most_parts: int) -> Occlusion:
    """Leave out the words of one text, or of one pair of texts.

    Args:
        scorer: What computes the scores.
        text: The text.
        text_pair: The second text of a pair.
        most_parts: How many parts are left out at most; 2 or more.
    """
    read = tokenize_words(scorer.tokenizer, scorer.tokens, text, text_pair)
    whole = scorer.predictor.logits(_rows_alone(read.encoded), scorer.tokens)
    trial = _Trial(scorer, read, whole)
    words = len(read.words)
    if words <= most_parts:
        bounds = np.arange(words + 1)
        effects = trial.effects(bounds[:-1], bounds[1:])
    else:
        bounds, effects = _coarse_to_fine(trial, words, most_parts)
    firsts, ends = bounds[:-1], bounds[1:]
    parts = np.column_stack(
        [read.words[firsts, 0], read.words[firsts, 1], read.words[ends - 1, 2], ends - firsts]
    ).reshape(-1, 4)
    return Occlusion(parts, effects, trial.probabilities, read.unread, len(read.encoded))


def _coarse_to_fine(trial: "_Trial", words: int, most_parts: int) -> tuple[Ids, Probabilities]:
    """Return the bounds of parts and their effects: groups of words, the weightiest of them divided into words."""
    # A group may not span two texts.
    borders = np.flatnonzero(np.diff(trial.read.words[:, 0])) + 1
    groups = max(1, most_parts // 2 - len(borders))
    bounds = np.unique(np.concatenate([np.linspace(0, words, groups + 1).astype(np.int64), borders]))
    effects = trial.effects(bounds[:-1], bounds[1:])
    left, chosen = most_parts - len(effects), np.zeros(len(effects), dtype=bool)
    for group in np.argsort(-np.abs(effects).max(axis=1), kind="stable"):
        size = bounds[group + 1] - bounds[group]
        if size > left:
            break
        chosen[group], left = size > 1, left - size
    singles = np.concatenate(
        [np.empty(0, np.int64), *(np.arange(bounds[g], bounds[g + 1]) for g in np.flatnonzero(chosen))]
    )
    of_singles = trial.effects(singles, singles + 1)
    starts = np.concatenate([bounds[:-1][~chosen], singles])
    order = np.argsort(starts, kind="stable")
    return np.append(starts[order], words), np.concatenate([effects[~chosen], of_singles])[order]


@dataclass(frozen=True, eq=False)
class _Trial:
    """One text with its words, and the logits of its rows."""

    scorer: OcclusionScorer
    read: WordTokens

    whole: NDArray[np.float32]
    """(rows, classes)."""

    @property
    def probabilities(self) -> Probabilities:
        """The probability of each class for the whole text, (classes,)."""
        found: Probabilities = self._pooled(self.whole[None])[0]
        return found

    def effects(self, firsts: Ids, ends: Ids) -> Probabilities:
        """Return how much parts raise the scores, (parts, classes).

        Args:
            firsts: The first word of each part, (parts,).
            ends: The word after its last one, (parts,).
        """
        logits = np.repeat(self.whole[None], len(firsts), axis=0)
        changed = [self._without(*part) for part in enumerate(zip(firsts.tolist(), ends.tolist(), strict=True))]
        rows = [row for part in changed for row in part]
        if rows:
            computed = self.scorer.predictor.logits(
                _join(self.read.encoded, rows), self.scorer.tokens, title="explaining"
            )
            logits[[row[0] for row in rows], [row[1] for row in rows]] = computed
        effects: Probabilities = self.probabilities - self._pooled(logits)
        return effects

    def _without(self, part: int, words: tuple[int, int]) -> list[tuple[int, int, Ids]]:
        """Return (part, row, places of the tokens that stay) of each row that has a token of these words."""
        word_of, offsets = self.read.word_of, self.read.encoded.offsets
        inside = (word_of >= words[0]) & (word_of < words[1])
        rows = np.unique(np.searchsorted(offsets, np.flatnonzero(inside), side="right") - 1)
        return [
            (part, row, offsets[row] + np.flatnonzero(~inside[offsets[row] : offsets[row + 1]]))
            for row in rows.tolist()
        ]

    def _pooled(self, logits: NDArray[np.float32]) -> Probabilities:
        """Return probabilities, (parts, classes), of the logits of their rows, (parts, rows, classes)."""
        parts, rows, classes = logits.shape
        flat = logits.reshape(parts * rows, classes)
        if rows > 1:
            flat = pool_windows(flat, np.repeat(np.arange(parts), rows), self.scorer.tokens.window_pooling)
        return self.scorer.problem.probabilities(flat)


def _rows_alone(encoded: Encoded) -> Encoded:
    """Return the rows as texts of their own, so that the logits of windows are not pooled."""
    return Encoded(encoded.input_ids, encoded.offsets, encoded.token_type_ids)


def _join(encoded: Encoded, rows: list[tuple[int, int, Ids]]) -> Encoded:
    """Return rows of some tokens of other rows, as texts of their own. rows: (part, row, places of the tokens)."""
    places = np.concatenate([row[2] for row in rows])
    types = None if encoded.token_type_ids is None else encoded.token_type_ids[places]
    return Encoded(encoded.input_ids[places], row_offsets(np.array([len(row[2]) for row in rows])), types)
