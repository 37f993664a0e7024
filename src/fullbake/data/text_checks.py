"""Checks of texts: their scripts, signs of a wrong encoding or left-over markup, and words that give the label away.

The script of a character is the first word of its Unicode name (LATIN, CYRILLIC, CJK, ...): the standard library has no
script property, and for shares of letters that is close enough.

The thresholds for words that give a label away are set so that honest data raises no finding: such a word has to be
in many rows, nearly always with the label, and in a good part of the label's rows. Words are runs of letters and
digits; in scripts without spaces every pair of neighboring characters is a word.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullbake.config.problems import problem_of
from fullbake.data.labels import count_labels

MIN_WORD_ROWS: Final = 20
"""Rows that must hold a word before it counts."""

MIN_PRECISION: Final = 0.98
"""Share of a word's rows that must have the label."""

MIN_COVERAGE: Final = 0.3
"""Share of the label's rows that must hold the word."""

_MAX_SHARE: Final = 0.9
"""A word, or a label, of more than this share of all rows says nothing."""

_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2,}"  # kana, Han
)


@dataclass(frozen=True)
class SuspectPattern:
    """Something that a text rarely holds on purpose."""

    description: str
    """What such a text contains."""

    pattern: str
    """Regular expression (RE2) that finds it."""

    damaged: bool = False
    """Whether a single such text means that the file was damaged on its way."""


SUSPECT_PATTERNS: Final = (
    SuspectPattern("nothing but white space", r"^\s*$"),
    SuspectPattern("replacement characters (U+FFFD)", "\ufffd", damaged=True),
    SuspectPattern(
        "UTF-8 that was read as Latin-1 or cp1252 (such as Ã© or â€™)",
        "Ã[\u0080-\u00bf]|â€[™œ“”\u0099\u009d]|Â[\u00a0-\u00bf]",
        damaged=True,
    ),
    SuspectPattern("control characters", "[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f]"),
    SuspectPattern(
        "markup (tags, or entities such as &amp;)",
        r"</?[A-Za-z][A-Za-z0-9]*( [^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#[0-9]+);",
    ),
)


@dataclass(frozen=True)
class LabelClue:
    """A word that gives a label away."""

    word: str
    """The word, or the label's name as texts spell it."""

    label: str
    """The label's name."""

    rows: int
    """The number of rows that hold the word."""

    rows_with_label: int
    """How many of them have the label."""

    coverage: float
    """Share of the label's rows that hold the word."""

    examples: tuple[int, ...]
    """Positions of some of these rows."""


def _script_of(letter: str) -> str:
    """Return the script of a letter, such as Latin, Cyrillic or Han: the first word of its Unicode name."""
    name = unicodedata.name(letter, "UNNAMED").split()[0].removesuffix("-COMPATIBILITY")
    return "Han" if name == "CJK" else name.capitalize()


def count_letters(texts: Iterable[str]) -> dict[str, Counter[str]]:
    """Return how often each letter occurs, by its script."""
    letters: dict[str, Counter[str]] = {}
    for character, count in Counter("".join(texts)).items():
        if character.isalpha():
            letters.setdefault(_script_of(character), Counter())[character] += count
    return letters


def script_shares(letters: Mapping[str, Counter[str]]) -> dict[str, float]:
    """Return the share of letters in each script, the most frequent one first; {} if there is no letter.

    Args:
        letters: as `count_letters` gives them.
    """
    counts = Counter({script: found.total() for script, found in letters.items()})
    return {script: count / counts.total() for script, count in counts.most_common()}


def find_matching_texts(texts: pa.Array, pattern: str) -> list[int]:
    """Return the positions of the texts in which a regular expression (RE2) matches."""
    found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(pattern))
    positions: list[int] = pc.call_function("indices_nonzero", [found]).to_pylist()
    return positions


def split_words(text: str) -> set[str]:
    """Return the different words of a text, case folded; of unspaced scripts also each pair of characters."""
    words = set(_WORD.findall(text.casefold()))
    for run in [found for word in words for found in _UNSPACED.findall(word)]:
        words.update(run[start : start + 2] for start in range(len(run) - 1))
    return words


def find_label_clues(texts: Sequence[str], labels: np.ndarray, label_names: Sequence[str]) -> list[LabelClue]:
    """Find words that give a label away.

    Args:
        texts: (rows,) texts.
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        label_names: (classes,) names.

    Returns:
        At most one word for each label, the one in most of its rows; the highest coverage first.
    """
    frequency = Counter(word for text in texts for word in split_words(text))
    limit = _MAX_SHARE * len(texts)
    candidates = {word for word, count in frequency.items() if MIN_WORD_ROWS <= count <= limit}
    # Words are split twice, because the rows of all words, rare ones too, would take too much memory.
    rows_of: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        for word in split_words(text) & candidates:
            rows_of.setdefault(word, []).append(row)
    totals = count_labels(labels, len(label_names))
    best: dict[int, LabelClue] = {}
    for word, rows in sorted(rows_of.items()):
        counts = count_labels(labels[rows], len(label_names))
        for label in np.flatnonzero(counts >= MIN_PRECISION * len(rows)).tolist():
            coverage = float(counts[label] / totals[label])
            if coverage >= MIN_COVERAGE and (label not in best or coverage > best[label].coverage):
                best[label] = LabelClue(
                    word, label_names[label], len(rows), int(counts[label]), coverage, tuple(rows[:5])
                )
    clues = [clue for label, clue in best.items() if totals[label] <= limit]
    return sorted(clues, key=lambda clue: -clue.coverage)


def find_named_labels(texts: Sequence[str], labels: np.ndarray, label_names: Sequence[str]) -> list[LabelClue]:
    """Find labels whose name is in many of their own texts and in few others.

    Args:
        texts: (rows,) texts.
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        label_names: (classes,) names; numbers and very short names are not looked for.

    Returns:
        A clue for each such label.
    """
    found = []
    for label, name in enumerate(label_names):
        wanted = " ".join(name.casefold().replace("_", " ").split())
        # Numbers, "yes" and two-letter names are in many texts for other reasons.
        if len(wanted) < 3 or wanted.replace(".", "").isdigit() or wanted in ("true", "false", "yes"):
            continue
        pattern = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
        named = np.array([bool(pattern.search(text.casefold())) for text in texts])
        own = problem_of(labels).has_label(labels, label)
        inside, outside = _share(named & own, own), _share(named & ~own, ~own)
        if inside >= MIN_COVERAGE and inside >= 10 * outside and (named & own).sum() >= MIN_WORD_ROWS:
            rows = np.flatnonzero(named & own)
            examples = tuple(rows[:5].tolist())
            found.append(LabelClue(wanted, name, int(named.sum()), len(rows), inside, examples))
    return found


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(1, whole.sum()))
