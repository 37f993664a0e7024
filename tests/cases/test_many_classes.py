"""Case many_classes: `inspect` does the same work for 100 classes and for 1,600, and says it in a few lines."""

import csv
import random
from pathlib import Path

import numpy as np
import pytest

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import DataConfig
from fullbake.data.inspection import Facts, inspect_file
from fullbake.data.text_checks import find_label_clues, find_named_labels


def write_rows(path: Path, classes: int, rows: int = 4_800) -> Path:
    """Write rows whose texts hold a word that gives their class away."""
    drawn = random.Random(classes)
    words = [f"word{number}" for number in range(500)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(rows):
            number = row % classes
            writer.writerow([" ".join([*drawn.choices(words, k=6), f"topic{number}"]), f"class {number}"])
    return path


def inspect_classes(folder: Path, classes: int) -> Facts:
    return inspect_file(write_rows(folder / f"{classes}.csv", classes), DataConfig())


def test_150_classes_are_a_few_findings(tmp_path: Path) -> None:
    facts = inspect_classes(tmp_path, 150)
    assert len(facts.labels) == 150
    (leak,) = [found for found in facts.findings if found.kind == "leakage"]
    assert "words give away 150 labels" in leak.message
    assert len(leak.items) == 150
    assert len(facts.findings) == len({found.kind for found in facts.findings}) < 6


def test_no_table_of_rows_times_classes_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("this takes rows times classes")

    for name in (SINGLE_LABEL, MULTI_LABEL):
        monkeypatch.setattr(type(problem_named(name)), "label_matrix", fail)
    facts = inspect_classes(tmp_path, 1_600)
    assert len(facts.labels) == 1_600
    assert [found.kind for found in facts.findings if found.severity == "warning"] == ["rare labels"]


@pytest.mark.parametrize("kind", [SINGLE_LABEL, MULTI_LABEL])
def test_clues_equal_those_of_plain_loops(kind: str) -> None:
    drawn, problem = random.Random(0), problem_named(kind)
    names = [f"Topic {number}" for number in range(12)]
    rows = [[name] if problem.exclusive else drawn.sample(names, 2) for name in drawn.choices(names, k=900)]
    texts = [
        " ".join([*drawn.choices("abcdefgh", k=5), *(own.lower() if drawn.random() < 0.7 else "x" for own in row)])
        for row in rows
    ]
    labels = problem.encode(rows, names)
    for clue in (*find_label_clues(texts, labels, names), *find_named_labels(texts, labels, names)):
        has_word = np.array([set(clue.word.split()) <= set(text.split()) for text in texts])
        own = problem.has_label(labels, names.index(clue.label))
        assert clue.rows == has_word.sum()
        assert clue.rows_with_label == (has_word & own).sum()
        assert clue.coverage == pytest.approx((has_word & own).sum() / own.sum())
    assert len(find_named_labels(texts, labels, names)) == 12
