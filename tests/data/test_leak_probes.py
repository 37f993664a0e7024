"""Simple properties of rows that predict the label by themselves."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.data.dataset import PAIR_SEPARATOR
from fullbake.data.leak_probes import (
    INVISIBLE,
    LENGTH,
    LETTERS,
    POSITION,
    TRACES,
    WHITE_SPACE,
    Leak,
    find_leaks,
)
from fullbake.data.predictive_codes import LabeledSample, Prediction, Sign

WORDS = [f"{first}{second}" for first in ("ba", "ko", "ri", "mu", "te") for second in ("lo", "na", "si", "pe", "du")]


def draw_texts(count: int, seed: int = 0) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(8, 14))) for _ in range(count)]


def make_sample(texts: list[str], labels: np.ndarray, classes: int = 2) -> LabeledSample:
    kind = MULTI_LABEL if labels.ndim == 2 else SINGLE_LABEL
    ids = np.unique(np.array(texts, dtype=object), return_inverse=True)[1]
    rows = np.arange(1, len(texts) + 1)
    names = tuple(f"class {number}" for number in range(classes))
    return LabeledSample(tuple(texts), labels, names, problem_named(kind), rows, ids)


def draw_sample(count: int = 400, classes: int = 2, seed: int = 0) -> LabeledSample:
    labels = np.random.default_rng(seed).integers(0, classes, count)
    return make_sample(draw_texts(count, seed), labels, classes)


def mark(change: Callable[[str], str], label: int = 1, sample: LabeledSample | None = None) -> LabeledSample:
    """Change the texts of one label."""
    sample = draw_sample() if sample is None else sample
    texts = [change(text) if own == label else text for text, own in zip(sample.texts, sample.labels, strict=True)]
    return replace(sample, texts=tuple(texts))


def only(leaks: list[Leak], kind: str) -> Leak:
    (found,) = [leak for leak in leaks if leak.kind == kind]
    return found


@pytest.mark.parametrize(
    ("kind", "subject", "change"),
    [
        (INVISIBLE, "variation selectors", lambda text: f"{text}\ufe0f"),
        (INVISIBLE, "zero-width", lambda text: text.replace("o", "o\u200b", 1)),
        (INVISIBLE, "zero-width", lambda text: f"\ufeff{text}"),
        (INVISIBLE, "soft hyphens", lambda text: f"x\xad{text}"),
        (INVISIBLE, "look like a plain one", lambda text: text.replace(" ", "\xa0", 1)),
        (INVISIBLE, "writing direction", lambda text: f"\u200e{text}"),
        (INVISIBLE, "without a shape", lambda text: f"{text}\U000e0041"),
        (INVISIBLE, "control", lambda text: f"{text}\x07"),
        (WHITE_SPACE, "space or tab at the end", lambda text: f"{text} "),
        (WHITE_SPACE, "line end at the end", lambda text: f"{text}\n"),
        (WHITE_SPACE, "at the start", lambda text: f" {text}"),
        (WHITE_SPACE, "carriage returns", lambda text: text.replace(" ", " \r\n", 1)),
        (WHITE_SPACE, "two spaces", lambda text: text.replace(" ", "  ", 1)),
        (LETTERS, "capital letter at the start", str.capitalize),
        (LETTERS, "lower-case", str.upper),
        (LETTERS, "not Unicode form NFC", lambda text: f"{text} cafe\u0301"),
        (LETTERS, "punctuation mark at the end", lambda text: f"{text}."),
    ],
)
def test_trace_in_the_texts_of_one_label_is_found(kind: str, subject: str, change: Callable[[str], str]) -> None:
    found = [leak for leak in find_leaks(mark(change)) if leak.kind == kind and subject in leak.subject]
    assert len(found) == 1
    (leak,) = found
    assert isinstance(leak.found, Prediction)
    own = int((draw_sample().labels == 1).sum())
    label, rows = ("class 0", 400 - own) if change is str.upper else ("class 1", own)
    assert leak.found.correct == 1
    assert leak.found.baseline < 0.6
    assert leak.rows == rows
    assert len(leak.found.positions) == 5
    assert f"of these 100% have the label {label!r}, of the others 0%" in leak.detail


def test_trace_in_a_part_of_the_texts_is_found_if_nobody_sees_it() -> None:
    kept = iter(random.Random(1).choices([True, False], weights=[1, 1], k=400))
    leak = only(find_leaks(mark(lambda text: f"{text}\u200b" if next(kept) else text)), INVISIBLE)
    assert 0.3 < leak.found.gain < 0.7


def test_trace_in_half_of_the_most_frequent_class_is_found() -> None:
    labels = (np.random.default_rng(0).random(1_000) < 0.85).astype(np.int64)
    kept = iter(random.Random(1).choices([True, False], k=1_000))
    sample = make_sample(draw_texts(1_000), labels)
    leak = only(find_leaks(mark(lambda text: f"{text}\ufe0f" if next(kept) else text, sample=sample)), INVISIBLE)
    assert isinstance(leak.found, Sign)
    assert leak.found.label == 1
    assert leak.found.precision == 1


def test_texts_of_the_most_frequent_class_cut_at_one_length_are_found() -> None:
    labels = (np.random.default_rng(0).random(1_000) < 0.85).astype(np.int64)
    leak = only(find_leaks(mark(lambda text: text[:50], sample=make_sample(draw_texts(1_000), labels))), LENGTH)
    assert leak.subject == "a length of exactly 50 characters of a text"
    assert isinstance(leak.found, Sign)
    assert leak.found.coverage > 0.3


def test_trace_that_only_one_of_many_classes_has_is_found() -> None:
    sample = mark(lambda text: f"{text}\u200b", label=7, sample=draw_sample(2_000, classes=40))
    leak = only(find_leaks(sample), INVISIBLE)
    assert leak.found.label == 7
    assert leak.found.correct == 1
    assert "'class 7'" in leak.detail


def test_trace_in_all_texts_or_in_one_is_no_leak() -> None:
    sample = draw_sample()
    assert find_leaks(replace(sample, texts=tuple(f"{text}\ufe0f" for text in sample.texts))) == []
    assert find_leaks(replace(sample, texts=(f"{sample.texts[0]}\ufe0f", *sample.texts[1:]))) == []


def test_length_is_found_with_medians() -> None:
    leak = only(find_leaks(mark(lambda text: text[:30])), LENGTH)
    assert leak.found.correct > 0.95
    assert "30 of 'class 1'" in leak.detail


def test_length_of_the_second_text_of_pairs_is_found() -> None:
    sample = draw_sample()
    others = draw_texts(400, 1)
    lengths = (20 if own else 60 for own in sample.labels)
    pairs = [
        f"{text} {PAIR_SEPARATOR} {other[:length]}"
        for text, other, length in zip(sample.texts, others, lengths, strict=True)
    ]
    assert only(find_leaks(replace(sample, texts=tuple(pairs))), LENGTH).subject == "the length of the second text"


@pytest.mark.parametrize("classes", [2, 50])
def test_rows_sorted_by_label_are_found(classes: int) -> None:
    sample = draw_sample(4_000, classes)
    leak = only(find_leaks(replace(sample, labels=np.sort(sample.labels))), POSITION)
    assert leak.found.gain > 0.7


def test_columns_that_predict_the_label_are_found() -> None:
    sample = draw_sample()
    random_numbers = np.random.default_rng(1)
    numbers = random_numbers.normal(size=400)
    columns = (
        ("code", tuple(f"c{label}" for label in sample.labels)),
        ("rating", tuple(f"{number + 5 * label:.3f}" for number, label in zip(numbers, sample.labels, strict=True))),
        ("day", tuple(f"202{label}-01-{number:02d}" for number, label in enumerate(sample.labels, 10))),
        ("empty", ("",) * 400),
        ("id", tuple(f"{number:x}" for number in random_numbers.permutation(400))),
        ("noise", tuple(map(str, numbers))),
        ("checked", tuple("" if label else str(number) for number, label in zip(numbers, sample.labels, strict=True))),
    )
    found = {leak.subject for leak in find_leaks(replace(sample, columns=columns))}
    assert found == {f"the column {name!r}" for name in ("code", "rating", "day", "checked")}


def test_one_of_several_labels_a_row_is_found() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (400, 3))
    texts = [f"{text}\u200b" if own else text for text, own in zip(draw_texts(400), labels[:, 2], strict=True)]
    leak = only(find_leaks(make_sample(texts, labels, 3)), INVISIBLE)
    assert leak.found.label == 2
    assert leak.found.correct == 1


def test_copies_of_a_few_texts_are_no_leak() -> None:
    # Each text has one length and one label: among copies, every property would predict the label.
    drawn = random.Random(0)
    texts = [text[: 20 + number] for number, text in enumerate(draw_texts(12))]
    labels = [drawn.randint(0, 1) for _ in texts]
    chosen = [drawn.randrange(12) for _ in range(600)]
    sample = make_sample([texts[one] for one in chosen], np.array([labels[one] for one in chosen]))
    assert find_leaks(sample) == []


@pytest.mark.parametrize("seed", range(20))
def test_random_labels_raise_nothing(seed: int) -> None:
    sample = draw_sample(200, classes=(2, 3, 10, 60)[seed % 4], seed=seed)
    texts = tuple(
        random.Random(seed).choice((f"{text} ", f"{text}\ufe0f", text, text.title())) for text in sample.texts
    )
    assert find_leaks(replace(sample, texts=texts)) == []


def test_small_samples_and_rows_without_labels_are_not_probed() -> None:
    assert find_leaks(mark(lambda text: f"{text}\u200b", sample=draw_sample(30))) == []
    assert find_leaks(make_sample(draw_texts(60), np.zeros((60, 2), dtype=np.uint8))) == []


def test_every_trace_matches_what_it_says() -> None:
    assert len({trace.pattern for trace in TRACES}) == len({trace.description for trace in TRACES}) == len(TRACES)
