"""How texts are written: their scripts, and marks of a wrong encoding or of markup left over.

A character's script is the first word of its Unicode name (LATIN, CYRILLIC, CJK, ...): the standard library has no
script property, and for a share of letters that is near enough.

Words that give the label away: its own name in the text, or one word that decides it.

Thresholds are set so that they keep still on honest data: a deciding word has to stand in many rows, to be right nearly
always, and to cover a good part of its class. Words are runs of letters and digits; of a script without spaces every
pair of neighboring characters is a word.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullbake.data.labels import count_labels

SUSPECT_PATTERNS: Final = {
    "nothing, or spaces alone": r"^\s*$",
    "replacement characters (U+FFFD)": "\ufffd",
    "UTF-8 read as Latin-1 or cp1252 (such as Ã© or â€™)": "Ã[\u0080-\u00bf]|â€[™œ“”\u0099\u009d]|Â[\u00a0-\u00bf]",
    "control characters": "[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f]",
    "markup (tags or entities such as &amp;)": r"</?[A-Za-z][A-Za-z0-9]*( [^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#[0-9]+);",
}
"""What a text should hardly hold -> the regular expression (RE2) that finds it."""


def script_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of the letters in each script, the commonest first; {} where there is no letter."""
    counts: Counter[str] = Counter()
    for character, count in Counter("".join(texts)).items():
        if character.isalpha():
            counts[unicodedata.name(character, "UNNAMED").split()[0].removesuffix("-COMPATIBILITY")] += count
    total = sum(counts.values())
    return {name.capitalize() if name != "CJK" else "Han": count / total for name, count in counts.most_common()}


def find_matching_texts(texts: pa.Array, pattern: str) -> list[int]:
    """Positions of the texts that hold a match of `pattern`."""
    found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(pattern))
    positions: list[int] = pc.call_function("indices_nonzero", [found]).to_pylist()
    return positions


LEAST_ROWS: Final = 20
"""Rows that a word has to stand in before it is looked at."""

PRECISION: Final = 0.98
"""Share of a word's rows that have the label."""

COVERAGE: Final = 0.3
"""Share of the label's rows that hold the word."""

_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2,}"  # kana, Han
)


@dataclass(frozen=True)
class LabelClue:
    """A word and the label it gives away. rows: that hold the word. right: of those, that have the label. covered:
    share of the label's rows that hold the word. first: positions of some of the rows."""

    word: str
    label: str
    rows: int
    right: int
    covered: float
    first: tuple[int, ...]


def words_of(text: str) -> set[str]:
    """The different words of a text, case folded."""
    words = set(_WORD.findall(text.casefold()))
    for run in [found for word in words for found in _UNSPACED.findall(word)]:
        words.update(run[place : place + 2] for place in range(len(run) - 1))
    return words


def find_label_clues(texts: Sequence[str], labels: np.ndarray, label_names: Sequence[str]) -> list[LabelClue]:
    """Words that decide a label, those that cover most of it first; one a label.

    labels: ids (rows,), or 0 and 1 (rows, classes).
    """
    holders: dict[str, list[int]] = {}
    frequent = Counter(word for text in texts for word in words_of(text))
    kept = {word for word, count in frequent.items() if count >= LEAST_ROWS and count <= 0.9 * len(texts)}
    for row, text in enumerate(texts):
        for word in words_of(text) & kept:
            holders.setdefault(word, []).append(row)
    totals = count_labels(labels, len(label_names))
    best: dict[int, LabelClue] = {}
    for word, rows in sorted(holders.items()):
        counts = count_labels(labels[rows], len(label_names))
        for place in np.flatnonzero(counts >= PRECISION * len(rows)).tolist():
            covered = float(counts[place] / totals[place])
            if covered >= COVERAGE and (place not in best or covered > best[place].covered):
                clue = LabelClue(word, label_names[place], len(rows), int(counts[place]), covered, tuple(rows[:5]))
                best[place] = clue
    common = [place for place, total in enumerate(totals.tolist()) if total > 0.9 * len(texts)]
    return sorted((clue for place, clue in best.items() if place not in common), key=lambda clue: -clue.covered)


def find_named_labels(texts: Sequence[str], labels: np.ndarray, label_names: Sequence[str]) -> list[LabelClue]:
    """Labels whose name stands in many of their own texts and hardly in others."""
    found = []
    for place, name in enumerate(label_names):
        wanted = " ".join(name.casefold().replace("_", " ").split())
        if len(wanted) < 3 or wanted.replace(".", "").isdigit() or wanted in ("true", "false", "yes"):
            continue
        pattern = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
        held = np.array([bool(pattern.search(text.casefold())) for text in texts])
        own = labels[:, place] == 1 if labels.ndim == 2 else labels == place
        inside, outside = _share(held & own, own), _share(held & ~own, ~own)
        if inside >= COVERAGE and inside >= 10 * outside and (held & own).sum() >= LEAST_ROWS:
            rows = np.flatnonzero(held & own)
            first = tuple(rows[:5].tolist())
            found.append(LabelClue(wanted, name, int(held.sum()), len(rows), inside, first))
    return found


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(1, whole.sum()))
