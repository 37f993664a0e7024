"""Baselines without an encoder: the majority class, and TF-IDF features with logistic regression.

They show how much of a score needs no encoder. A weak one would flatter every encoder, so TF-IDF counts words and
groups of characters, and validation chooses between words, characters and both, and the strength of the regression, by
log loss. Chinese, Japanese and Thai are written without spaces between words, so these texts are cut into characters.

All baselines return logits, so temperature, thresholds and scores are computed as for every other recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from fullbake.config.problems import problem_of
from fullbake.training.logistic import ABSENT_LOGIT, LogisticModel

BASELINE_NAMES: Final = {"majority": "Majority class", "tfidf": "TF-IDF and logistic regression"}
"""Name -> title."""

BASELINE_STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse regularization strengths, in ascending order."""

FIRST_STRENGTH: Final = 10.0
"""The strength at which the sets of features are compared; from there the better neighbors are followed."""

FEATURE_SETS: Final = {
    "words": ("words",),
    "characters": ("characters",),
    "words and characters": ("words", "characters"),
}
"""Name of a set of features -> its parts. Of sets that score the same the first is taken."""

MAX_FEATURES: Final = 50_000
"""Most features of a part of a set: the most frequent ones."""

MAX_CHARACTERS: Final = 3_000_000
"""Of the training texts at most about so many characters are cut into groups, from the beginning of each text."""

LEAST_CHARACTERS: Final = 200
"""So many characters of a text are always read."""

MANY_ROWS: Final = 2_000
"""From so many training rows on, a feature must occur in two texts."""

SAGA_SIZE: Final = 20_000
"""Above so many rows times classes scikit-learn's SAGA fits, in a third of the time of L-BFGS."""

SAGA_TOLERANCE: Final = 1e-2
"""SAGA stops when no weight changes by more than this share of the largest in a pass."""

UNSPACED_SCRIPTS: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
"""First and last code points of scripts that are written without spaces between words."""

SOME_UNSPACED: Final = 0.2
"""From this share of letters in such scripts on, characters are grouped across spaces too."""

MOSTLY_UNSPACED: Final = 0.8
"""From this share on, there are no words to count, and the characters are the only set of features."""

SCRIPT_SAMPLE: Final = 1_000
"""Texts whose letters are counted, at most."""


@dataclass(frozen=True)
class BaselineChoice:
    """What validation chose for a baseline."""

    features: str
    """One of `FEATURE_SETS`."""
    strength: float
    """Inverse regularization strength."""


@dataclass(frozen=True)
class Baseline:
    """A trained baseline."""

    logits: Callable[[Sequence[str]], np.ndarray]
    """Texts to logits, float32 (texts, classes)."""
    parameters: int
    """Number of fitted numbers."""
    size: int
    """Bytes that it would take on disk."""
    choice: BaselineChoice | None = None
    """What validation chose; None if there was nothing to choose."""


@dataclass(frozen=True)
class BaselineRows:
    """The rows that a baseline is trained on, or chosen by."""

    texts: Sequence[str]
    labels: np.ndarray
    """Ids (rows,), or a label matrix (rows, classes)."""


def fit_baseline(
    name: str, train: BaselineRows, classes: int, *, validation: BaselineRows, choice: BaselineChoice | None = None
) -> Baseline:
    """Train a baseline.

    Args:
        name: `majority` or `tfidf`.
        train: The training rows.
        classes: Number of classes.
        validation: The rows that features and strength are chosen by, on log loss.
        choice: The features and the strength to use, in place of choosing them.
    """
    if name == "majority":
        return _majority(train.labels, classes)
    return _tfidf(train, classes, validation, choice)


def _majority(labels: np.ndarray, classes: int) -> Baseline:
    """Predict the shares of the classes for every text."""
    row = problem_of(labels).prior_logits(labels, classes).astype(np.float32)
    return Baseline(lambda texts: np.tile(row, (len(texts), 1)), parameters=0, size=row.nbytes)


def _tfidf(train: BaselineRows, classes: int, validation: BaselineRows, choice: BaselineChoice | None) -> Baseline:
    share = unspaced_share(train.texts)
    names = tuple(FEATURE_SETS) if share < MOSTLY_UNSPACED else ("characters",)
    wanted = names if choice is None else (choice.features,)
    parts = {
        part: TextFeatures(part, train.texts, spaced=share < SOME_UNSPACED)
        for part in dict.fromkeys(part for name in wanted for part in FEATURE_SETS[name])
    }
    inputs = {part: features.transform(train.texts) for part, features in parts.items()}

    @cache
    def fitted(name: str, strength: float) -> Callable[[Any], np.ndarray]:
        return _regression(_side_by_side(inputs, name), train.labels, classes, strength)

    if choice is None:
        held_out = {part: features.transform(validation.texts) for part, features in parts.items()}

        @cache
        def loss(name: str, strength: float) -> float:
            logits = fitted(name, strength)(_side_by_side(held_out, name))
            return float(problem_of(validation.labels).row_losses(logits, validation.labels).mean())

        best_set = min(names, key=lambda name: loss(name, FIRST_STRENGTH))
        choice = BaselineChoice(best_set, best_strength(lambda strength: loss(best_set, strength)))
    features, model = choice.features, fitted(choice.features, choice.strength)
    used = [parts[part] for part in FEATURE_SETS[features]]
    weights = sum(part.width for part in used) * len(problem_of(train.labels).one_against_rest(classes))
    size = 8 * weights + sum(part.vocabulary_bytes for part in used)
    return Baseline(
        lambda texts: model(_side_by_side({part.name: part.transform(texts) for part in used}, features)),
        weights,
        size,
        choice,
    )


def best_strength(loss: Callable[[float], float]) -> float:
    """Return the strength with the lowest loss, found by walking downhill from `FIRST_STRENGTH`.

    Args:
        loss: A strength of `BASELINE_STRENGTHS` to the validation loss.
    """
    first = BASELINE_STRENGTHS.index(FIRST_STRENGTH)
    best = FIRST_STRENGTH
    # Of equals the stronger regularization is taken: it is tried first, and must be beaten.
    for direction in (BASELINE_STRENGTHS[:first][::-1], BASELINE_STRENGTHS[first + 1 :]):
        for strength in direction:
            if loss(strength) >= loss(best):
                break
            best = strength
        if best != FIRST_STRENGTH:
            break
    return best


def unspaced_share(texts: Sequence[str]) -> float:
    """Return the share of letters of scripts that are written without spaces between words, from 0 to 1."""
    sample = "".join(text[:LEAST_CHARACTERS] for text in texts[:: max(len(texts) // SCRIPT_SAMPLE, 1)])
    letters = [ord(letter) for letter in sample if letter.isalpha()]
    unspaced = sum(any(first <= letter <= last for first, last in UNSPACED_SCRIPTS) for letter in letters)
    return unspaced / max(len(letters), 1)


def most_characters(texts: int) -> int:
    """Return how many characters of each of so many texts are cut into groups."""
    return max(MAX_CHARACTERS // max(texts, 1), LEAST_CHARACTERS)


def characters_read(lengths: ArrayLike) -> float:
    """Return how many characters of a training text are cut into groups, on average.

    Args:
        lengths: Characters of each text, (texts,).
    """
    counts = np.asarray(lengths)
    return float(np.minimum(counts, most_characters(len(counts))).mean())


class TextFeatures:
    """TF-IDF weights of words, or of groups of characters.

    Words are taken alone and in pairs. Characters are taken in groups of 2 to 5 within words; where words are not
    separated by spaces, in groups of 1 to 3 across all.
    """

    def __init__(self, name: str, texts: Sequence[str], *, spaced: bool) -> None:
        """Learn the vocabulary.

        Args:
            name: `words` or `characters`.
            texts: Training texts.
            spaced: Whether spaces separate the words.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.name = name
        # Words are quick to count; groups of characters take ten times as long.
        self._most = None if name == "words" else most_characters(len(texts))
        groups: dict[str, Any] = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
        if name == "characters":
            groups = (
                {"analyzer": "char_wb", "ngram_range": (2, 5)}
                if spaced
                else {"analyzer": "char", "ngram_range": (1, 3)}
            )
        common = 2 if len(texts) >= MANY_ROWS else 1
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=common, max_features=MAX_FEATURES, **groups)
        try:
            self._vectorizer.fit(self._cut(texts))
        except ValueError:  # not a single word, or none that two texts share: one feature that no text has
            self._vectorizer.set_params(min_df=1).fit(["no words"])

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Return the number of each word or group of characters."""
        vocabulary: dict[str, int] = self._vectorizer.vocabulary_
        return vocabulary

    @property
    def width(self) -> int:
        """Return the number of features."""
        return len(self.vocabulary)

    @property
    def vocabulary_bytes(self) -> int:
        """Return the bytes of all words or groups of characters."""
        return sum(len(item.encode("utf-8", "surrogatepass")) for item in self.vocabulary)

    def transform(self, texts: Sequence[str]) -> Any:
        """Return the weights of texts, a sparse array (texts, features)."""
        return self._vectorizer.transform(self._cut(texts))

    def _cut(self, texts: Sequence[str]) -> list[str]:
        return [text[: self._most] for text in texts]


def _side_by_side(parts: Mapping[str, Any], features: str) -> Any:
    """Return the features of a set: those of its parts, one beside the other."""
    from scipy.sparse import hstack

    names = FEATURE_SETS[features]
    return parts[names[0]] if len(names) == 1 else hstack([parts[name] for name in names], format="csr")


def _regression(inputs: Any, labels: np.ndarray, classes: int, strength: float) -> Callable[[Any], np.ndarray]:
    """Return a function of sparse weights of features to logits, float32 (rows, classes)."""
    problem = problem_of(labels)
    outputs = classes if problem.exclusive and classes > 2 else 1
    if len(labels) * outputs > SAGA_SIZE:
        model = LogisticModel(labels, solver="saga", tolerance=SAGA_TOLERANCE).fit(inputs, strength)
    else:
        model = LogisticModel(labels).fit(inputs, strength)
    constant = np.full(classes, ABSENT_LOGIT, dtype=np.float32)
    if not problem.exclusive:
        constant[problem.count_rows(labels, classes) == len(labels)] = -ABSENT_LOGIT  # labels that all rows have

    def logits(rows: Any) -> np.ndarray:
        all_classes = np.tile(constant, (rows.shape[0], 1))
        all_classes[:, model.outputs] = model.logits(rows)
        return all_classes

    return logits
