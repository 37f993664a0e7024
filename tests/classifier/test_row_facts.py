"""Mistakes with their texts are the surest ones and of different kinds; nothing of them goes into a bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import column, train
from hypothesis import given
from hypothesis import strategies as st

from fullbake.classifier.row_facts import (
    MOST_CHARACTERS,
    MOST_MISTAKES,
    count_labels_of_parts,
    curve_of_positive,
    cut_text,
    describe_rows,
    list_mistakes,
)
from fullbake.config.sections import Columns
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.decisions import Decision

Bases = Callable[..., Path]
NAMES = ("food", "game", "money")


def part_of(labels: np.ndarray, names: tuple[str, ...] = NAMES, pairs: bool = False, step: int = 1) -> Part:
    """Rows with these labels, the row numbers from 101 on; every `step`-th row of the source is in the part."""
    rows = len(labels) * step
    texts = [f"text {place}" for place in range(rows)]
    all_labels = np.repeat(labels, step, axis=0)
    source = Dataset(
        column(texts),
        all_labels,
        names,
        np.arange(101, 101 + rows),
        "rows.csv",
        Columns("text", "label"),
        column([f"other {place}" for place in range(rows)]) if pairs else None,
    )
    return Part(source, np.arange(0, rows, step))


def logits_of(probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.array(probabilities, dtype=np.float32))


def test_the_surest_mistakes_come_first_and_each_kind_once_before_any_comes_twice() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    part = part_of(labels, step=2)
    logits = logits_of([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4]])
    decision = Decision(part.problem, NAMES)
    found = list_mistakes(part, logits, decision)
    assert [entry["row"] for entry in found] == [103, 107, 109, 105]
    assert found[0] == {
        "row": 103,
        "text": "text 2",
        "label": "food",
        "predicted": "game",
        "probability": pytest.approx(0.9, abs=1e-6),
    }
    assert [entry["row"] for entry in list_mistakes(part, logits, decision, most=3)] == [103, 107, 109]
    json.dumps(found, allow_nan=False)


def test_no_mistake_is_an_empty_list() -> None:
    part = part_of(np.array([0, 1]))
    logits = logits_of([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
    assert list_mistakes(part, logits, Decision(part.problem, NAMES)) == []


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_every_listed_row_is_wrong_and_none_comes_twice(labels: list[int], seed: int) -> None:
    part = part_of(np.array(labels))
    logits = np.random.default_rng(seed).normal(size=(len(labels), 3)).astype(np.float32)
    wrong = logits.argmax(axis=1) != np.array(labels)
    found = list_mistakes(part, logits, Decision(part.problem, NAMES))
    rows = [entry["row"] - 101 for entry in found]
    assert len(set(rows)) == len(rows) == min(wrong.sum(), MOST_MISTAKES)
    assert all(wrong[rows])
    assert all(entry["label"] != entry["predicted"] for entry in found)


def test_the_decision_of_the_classifier_says_what_is_wrong() -> None:
    """A threshold of 0.2 predicts a class that is not the likeliest one."""
    part = part_of(np.array([0, 0]), ("no", "yes"))
    decision = Decision(part.problem, ("no", "yes"), (0.2,), 1)
    found = list_mistakes(part, logits_of([[0.7, 0.3], [0.9, 0.1]]), decision)
    assert [(entry["row"], entry["predicted"]) for entry in found] == [(101, "yes")]
    assert found[0]["probability"] == pytest.approx(0.3, abs=1e-6)


def test_rows_of_many_labels_name_them_all() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=np.uint8)
    part = part_of(labels)
    logits = np.array([[3, -3, -4], [-3, 2, -3], [3, 3, 3]], dtype=np.float32)
    decision = Decision(part.problem, NAMES, (0.5, 0.5, 0.5))
    found = list_mistakes(part, logits, decision)
    assert [(entry["label"], entry["predicted"], entry["probability"]) for entry in found] == [
        ("food, money", "food", None),
        ("none", "game", None),
    ]
    assert curve_of_positive(part, logits, decision) is None


def test_both_texts_of_a_pair_are_kept() -> None:
    part = part_of(np.array([0]), pairs=True)
    found = list_mistakes(part, logits_of([[0.1, 0.8, 0.1]]), Decision(part.problem, NAMES))
    assert found[0]["text"] == ["text 0", "other 0"]


def test_two_classes_have_a_threshold_curve_of_the_positive_one() -> None:
    part = part_of(np.array([0, 1, 1]), ("no", "yes"))
    logits = logits_of([[0.7, 0.3], [0.1, 0.9], [0.6, 0.4]])
    curve = curve_of_positive(part, logits, Decision(part.problem, ("no", "yes")))
    assert curve is not None
    assert curve["label"] == "yes"
    assert dict(zip(curve["thresholds"], curve["recall"], strict=True))[0.5] == 0.5
    other = curve_of_positive(part, logits, Decision(part.problem, ("no", "yes"), (0.4,), 0))
    assert other is not None
    assert other["label"] == "no"


def test_labels_are_counted_in_each_part() -> None:
    part = part_of(np.array([0, 0, 1]))
    parts = Parts(part, None, Part(part.source, np.array([2])))
    assert count_labels_of_parts(parts)[:2] == [
        {"name": "food", "train": 2, "validation": None, "test": 0},
        {"name": "game", "train": 1, "validation": None, "test": 1},
    ]
    logits = logits_of([[0.1, 0.8, 0.1]])
    assert set(describe_rows(parts, parts.test or part, logits, Decision(part.problem, NAMES))) == {
        "labels",
        "mistakes",
        "threshold_curve",
    }


@given(st.text(max_size=1500), st.integers(10, 500))
def test_a_cut_text_is_short_and_says_that_it_is_cut(text: str, most: int) -> None:
    cut = cut_text(text, most)
    assert cut == text if len(text) <= most else cut.endswith(" …")
    assert len(cut) <= max(most, len(text) if len(text) <= most else 0) + 1
    assert text.startswith(cut.removesuffix(" …"))


def test_a_text_is_cut_after_a_word_and_chinese_anywhere() -> None:
    assert cut_text("word " * 200) == "word " * 79 + "…"
    assert cut_text("火车又晚点" * 200) == ("火车又晚点" * 80)[: MOST_CHARACTERS - 1] + " …"


def test_no_text_of_a_row_is_in_the_bundle(bases: Bases, tmp_path: Path) -> None:
    classifier = train(bases("bert"), tmp_path, test=0.3)
    assert classifier.record.rows["mistakes"]
    assert all(entry["text"] for entry in classifier.record.rows["mistakes"])
    classifier.save(tmp_path / "m")
    content = b"".join(path.read_bytes() for path in (tmp_path / "m").iterdir())
    for entry in classifier.record.rows["mistakes"]:
        assert entry["text"].encode() not in content
    assert b'"mistakes"' not in content
    assert type(classifier).load(tmp_path / "m").record.rows == {}
