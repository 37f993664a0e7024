"""Scripts, suspect texts, and words that give labels away."""

import random

import numpy as np
import pyarrow as pa
import pytest

from fullbake.data.text_checks import (
    SUSPECT_PATTERNS,
    TextSearch,
    count_letters,
    find_label_clues,
    find_named_labels,
    script_shares,
    split_words,
)


def test_scripts_are_shares_of_letters() -> None:
    assert script_shares(count_letters(["abc, 123", "где"])) == {"Latin": 0.5, "Cyrillic": 0.5}
    shares = script_shares(count_letters(["漢字かな", "한글 ไทย देव", "مرحبا"]))
    assert set(shares) == {"Arabic", "Han", "Hiragana", "Hangul", "Thai", "Devanagari"}
    assert max(shares, key=lambda name: shares[name]) == "Arabic"
    assert script_shares(count_letters(["12 !?"])) == {}


@pytest.mark.parametrize(
    ("part", "texts", "places"),
    [
        ("white space", ["", "  \n", "a"], [0, 1]),
        ("U+FFFD", ["ok", "a\ufffdb"], [1]),
        ("was read as", ["café", "cafÃ©", "donâ€™t", "itâs", "20 µm"], [1, 2]),
        ("control", ["a\tb\nc", "a\x07b"], [1]),
        ("markup", ["a < b > c", "<br />", "x &amp; y", "AT&T", "if a < b and b>c"], [1, 2]),
    ],
)
def test_suspect_texts_are_found(part: str, texts: list[str], places: list[int]) -> None:
    (suspect,) = [suspect for suspect in SUSPECT_PATTERNS if part in suspect.description]
    search = TextSearch(pa.array(texts, pa.large_string()))
    assert search.find(suspect.pattern, wide=suspect.wide).tolist() == places
    assert search.find(suspect.pattern).tolist() == places


DRAWN = random.Random(0)
TEXTS = [" ".join(DRAWN.choices("a b c d e f g h".split(), k=6)) for _ in range(300)]  # noqa: SIM905
LABELS = np.array([DRAWN.randint(0, 1) for _ in TEXTS])


def test_random_labels_give_no_clue() -> None:
    assert find_label_clues(TEXTS, LABELS, ("no", "yes")) == []


def test_one_exception_in_a_hundred_does_not_hide_a_clue() -> None:
    texts = [f"{text} marker" if label else text for text, label in zip(TEXTS, LABELS, strict=True)]
    texts[int(np.flatnonzero(LABELS == 0)[0])] += " marker"
    (clue,) = find_label_clues(texts, LABELS, ("no", "yes"))
    assert (clue.word, clue.label) == ("marker", "yes")
    assert (clue.rows, clue.rows_with_label) == (int(LABELS.sum()) + 1, int(LABELS.sum()))
    assert clue.coverage == 1


def test_each_of_several_labels_a_row_gets_its_clue() -> None:
    labels = np.stack([LABELS, 1 - LABELS], axis=1)
    texts = [f"{text} {'one' if label else 'two'}" for text, label in zip(TEXTS, LABELS, strict=True)]
    assert {(clue.word, clue.label) for clue in find_label_clues(texts, labels, ("x", "y"))} == {
        ("one", "x"),
        ("two", "y"),
    }


def test_label_of_nearly_all_rows_gets_no_clue() -> None:
    labels = np.zeros(300, dtype=np.int64)
    labels[:5] = 1
    assert find_label_clues(TEXTS, labels, ("no", "yes")) == []


def test_label_names_are_looked_for_unless_they_are_numbers() -> None:
    texts = [f"{text} {label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    assert find_named_labels(texts, LABELS, ("0", "1")) == []
    named = [
        f"{text} {('fine', 'Very_Toxic'.replace('_', ' '))[label]}" for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    assert {clue.label for clue in find_named_labels(named, LABELS, ("fine", "very_toxic"))} == {"fine", "very_toxic"}


def test_words_are_case_folded_and_unspaced_scripts_give_pairs() -> None:
    assert split_words("Don't SHOUT, Straße!") == {"don", "t", "shout", "strasse"}
    assert split_words("房间小") == {"房间小", "房间", "间小"}
