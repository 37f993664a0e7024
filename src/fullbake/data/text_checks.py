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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

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

_WORDS_AT_A_TIME: Final = 1_000
"""Words whose labels are counted at a time, which bounds the memory for it."""

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
    rows_of = _rows_of_keys(split_words(text) & candidates for text in texts)
    words = sorted(rows_of)
    totals = count_labels(labels, len(label_names))
    best: dict[int, LabelClue] = {}
    for place, label, count in _frequent_pairs([rows_of[word] for word in words], labels, len(label_names)):
        coverage = count / int(totals[label])
        if coverage >= MIN_COVERAGE and (label not in best or coverage > best[label].coverage):
            rows = rows_of[words[place]]
            best[label] = LabelClue(words[place], label_names[label], len(rows), count, coverage, tuple(rows[:5]))
    clues = [clue for label, clue in best.items() if totals[label] <= limit]
    return sorted(clues, key=lambda clue: -clue.coverage)


def _rows_of_keys(keys: Iterable[set[str]]) -> dict[str, list[int]]:
    """Return the rows in which each key occurs. keys: the keys of each row."""
    rows_of: dict[str, list[int]] = {}
    for row, found in enumerate(keys):
        for key in found:
            rows_of.setdefault(key, []).append(row)
    return rows_of


def _frequent_pairs(rows_of: Sequence[list[int]], labels: np.ndarray, classes: int) -> Iterator[tuple[int, int, int]]:
    """Yield (word, label, rows with both) of each pair in which MIN_PRECISION of the word's rows have the label.

    Only pairs that occur are counted: words times classes would be too many for a thousand classes.

    Args:
        rows_of: the rows of each word.
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        classes: the number of labels.
    """
    rows, ids = problem_of(labels).label_entries(labels)
    label_of_row = csr_array((np.ones(len(rows), dtype=np.int64), (rows, ids)), shape=(len(labels), classes))
    for start in range(0, len(rows_of), _WORDS_AT_A_TIME):
        block = rows_of[start : start + _WORDS_AT_A_TIME]
        sizes = np.array([len(found) for found in block])
        ends = np.append(0, np.cumsum(sizes))
        word_in_row = csr_array(
            (np.ones(ends[-1], dtype=np.int64), np.concatenate(block), ends), shape=(len(block), len(labels))
        )
        counts = (word_in_row @ label_of_row).tocoo()
        words, found = counts.coords
        frequent = np.flatnonzero(counts.data >= MIN_PRECISION * sizes[words])
        order = frequent[np.lexsort((found[frequent], words[frequent]))]
        yield from zip((words[order] + start).tolist(), found[order].tolist(), counts.data[order].tolist(), strict=True)


def find_named_labels(texts: Sequence[str], labels: np.ndarray, label_names: Sequence[str]) -> list[LabelClue]:
    """Find labels whose name is in many of their own texts and in few others.

    Args:
        texts: (rows,) texts.
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        label_names: (classes,) names; numbers and very short names are not looked for.

    Returns:
        A clue for each such label.
    """
    folded = [text.casefold() for text in texts]
    totals = count_labels(labels, len(label_names))
    wanted = {label: spelled for label, name in enumerate(label_names) if (spelled := _spelled_in_texts(name))}
    wanted = {label: spelled for label, spelled in wanted.items() if totals[label] >= MIN_WORD_ROWS}
    keys = {key for spelled in wanted.values() for key in _keys_of_name(spelled)}
    # A name is looked for only in the texts that have all its words: names times texts would be too many.
    rows_of = _rows_of_keys((set(_WORD.findall(text)) | set(text)) & keys for text in folded)
    found = []
    for label, spelled in wanted.items():
        pattern = re.compile(rf"(?<!\w){re.escape(spelled)}(?!\w)")
        rows = [row for row in _rows_with_all(rows_of, _keys_of_name(spelled)) if pattern.search(folded[row])]
        own = problem_of(labels).has_label(labels[rows], label)
        inside = own.sum() / totals[label]
        outside = (len(rows) - own.sum()) / max(1, len(texts) - totals[label])
        if inside >= MIN_COVERAGE and inside >= 10 * outside and own.sum() >= MIN_WORD_ROWS:
            examples = tuple(np.array(rows)[own][:5].tolist())
            found.append(LabelClue(spelled, label_names[label], len(rows), int(own.sum()), float(inside), examples))
    return found


def _spelled_in_texts(name: str) -> str | None:
    """Return a label's name as texts may hold it, case folded; None where it is in many texts for other reasons."""
    spelled = " ".join(name.casefold().replace("_", " ").split())
    # Such are numbers, "yes" and two-letter names.
    if len(spelled) < 3 or spelled.replace(".", "").isdigit() or spelled in ("true", "false", "yes"):
        return None
    return spelled


def _keys_of_name(spelled: str) -> list[str]:
    """Return what every text with this name holds: its words, or the characters of a name without words (of emoji)."""
    return _WORD.findall(spelled) or [character for character in spelled if not character.isspace()]


def _rows_with_all(rows_of: dict[str, list[int]], keys: Sequence[str]) -> list[int]:
    """Return the rows, in their order, that have all the keys."""
    rarest, *others = sorted((rows_of.get(key, []) for key in keys), key=len)
    return sorted(set(rarest).intersection(*others))
