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
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from fullbake.config.problems import problem_of
from fullbake.data.labels import count_labels

Ids = npt.NDArray[np.int64]

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

    wide: bool = False
    """Whether the pattern matches characters outside ASCII alone, so that ASCII texts need not be searched."""


SUSPECT_PATTERNS: Final = (
    SuspectPattern("nothing but white space", r"^\s*$"),
    SuspectPattern("replacement characters (U+FFFD)", "\ufffd", damaged=True, wide=True),
    SuspectPattern(
        "UTF-8 that was read as Latin-1 or cp1252 (such as Ã© or â€™)",
        "Ã[\u0080-\u00bf]|â€[™œ“”\u0099\u009d]|Â[\u00a0-\u00bf]",
        damaged=True,
        wide=True,
    ),
    SuspectPattern(
        "nothing but a word for a missing value (nan, null, None, #N/A)",
        r"^\s*(?i:nan|nat|null|none|n/a|<na>|#n/a|#value!|#ref!)\s*$",
    ),
    SuspectPattern(
        "nothing but a number, a date or an id",
        r"^\s*([-+]?[0-9][0-9.,:/ TZ-]*|[0-9A-Fa-f]{8}-?[0-9A-Fa-f-]{8,40})\s*$",
    ),
    SuspectPattern('a formula of a spreadsheet in place of a text (such as ="01")', r'^=".*"$'),
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


class TextSearch:
    """Finds the texts in which regular expressions match.

    Args:
        texts: (rows,) large_string.
    """

    def __init__(self, texts: pa.Array) -> None:
        self._texts = texts
        is_ascii = pc.call_function("string_is_ascii", [texts])
        self._wide_places = pc.call_function("indices_nonzero", [pc.call_function("invert", [is_ascii])])
        self._wide_texts = texts.take(self._wide_places)

    def find(self, pattern: str, *, wide: bool = False) -> npt.NDArray[np.int64]:
        """Return the sorted positions of the texts in which a regular expression (RE2) matches.

        Args:
            pattern: the expression.
            wide: it matches characters outside ASCII alone. Most texts of most languages are then left out quickly.
        """
        searched = self._wide_texts if wide else self._texts
        found = pc.call_function("match_substring_regex", [searched], pc.MatchSubstringOptions(pattern))
        places = pc.call_function("indices_nonzero", [found])
        positions = self._wide_places.take(places) if wide else places
        return np.asarray(positions.to_numpy(zero_copy_only=False), dtype=np.int64)


def split_words(text: str) -> set[str]:
    """Return the different words of a text, case folded; of unspaced scripts also each pair of characters."""
    folded = text.casefold()
    words = set(_WORD.findall(folded))
    if folded.isascii() or _UNSPACED.search(folded) is None:
        return words
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
    limit = _MAX_SHARE * len(texts)
    words, rows_of = _rows_of_words(texts, limit)
    totals = count_labels(labels, len(label_names))
    best: dict[int, LabelClue] = {}
    for place, label, count in _frequent_pairs(rows_of, labels, len(label_names)):
        coverage = count / int(totals[label])
        if coverage >= MIN_COVERAGE and (label not in best or coverage > best[label].coverage):
            rows = rows_of[place]
            examples = tuple(rows[:5].tolist())
            best[label] = LabelClue(words[place], label_names[label], len(rows), count, coverage, examples)
    clues = [clue for label, clue in best.items() if totals[label] <= limit]
    return sorted(clues, key=lambda clue: -clue.coverage)


def _rows_of_words(texts: Sequence[str], limit: float) -> tuple[list[str], list[Ids]]:
    """Return the words that are in MIN_WORD_ROWS to `limit` texts, sorted, and the positions of these texts."""
    # Each word is held once, and of each text the numbers of its words: their strings would take too much memory.
    numbers: dict[str, int] = {}
    found = [
        np.array([numbers.setdefault(word, len(numbers)) for word in split_words(text)], dtype=np.int32)
        for text in texts
    ]
    counts = np.bincount(np.concatenate(found, dtype=np.int32), minlength=len(numbers)) if found else np.empty(0)
    is_candidate = (counts >= MIN_WORD_ROWS) & (counts <= limit)
    words = sorted(word for word, number in numbers.items() if is_candidate[number])
    order = np.full(len(numbers), -1, dtype=np.int32)
    order[[numbers[word] for word in words]] = np.arange(len(words))
    places = [order[of_text] for of_text in found]
    kept = np.concatenate([of_text[of_text >= 0] for of_text in places] or [np.empty(0, dtype=np.int32)])
    rows = np.repeat(np.arange(len(texts)), [int((of_text >= 0).sum()) for of_text in places])
    by_word = rows[np.argsort(kept, kind="stable")]
    ends = np.cumsum(np.bincount(kept, minlength=len(words)))
    return words, np.split(by_word, ends[:-1]) if words else []


def _rows_of_keys(keys: Iterable[set[str]]) -> dict[str, list[int]]:
    """Return the rows in which each key occurs. keys: the keys of each row."""
    rows_of: dict[str, list[int]] = {}
    for row, found in enumerate(keys):
        for key in found:
            rows_of.setdefault(key, []).append(row)
    return rows_of


def _frequent_pairs(rows_of: Sequence[Ids], labels: np.ndarray, classes: int) -> Iterator[tuple[int, int, int]]:
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
    totals = count_labels(labels, len(label_names))
    wanted = {label: spelled for label, name in enumerate(label_names) if (spelled := _spelled_in_texts(name))}
    wanted = {label: spelled for label, spelled in wanted.items() if totals[label] >= MIN_WORD_ROWS}
    if not wanted:
        return []
    keys = {key for spelled in wanted.values() for key in _keys_of_name(spelled)}
    # A name is looked for only in the texts that have all its words: names times texts would be too many.
    folded = [text.casefold() for text in texts]
    has_signs = any(not _WORD.fullmatch(key) for key in keys)  # names of emoji have no word
    rows_of = _rows_of_keys(
        (set(_WORD.findall(text)) | set(text) if has_signs else set(_WORD.findall(text))) & keys for text in folded
    )
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
