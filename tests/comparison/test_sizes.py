"""Trials that are made smaller: which rows stay, and what is said."""

from pathlib import Path

import numpy as np
import pytest
from helpers.rows import make_rows, write_csv

from fullbake.comparison.schedule import Size, Trial
from fullbake.comparison.sizes import SizedJobs, cut_training_rows
from fullbake.config.recipe import Recipe
from fullbake.data.labeled_files import read_labeled
from fullbake.data.splits import Parts, divide
from fullbake.training.job import Job


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Rows of three classes, one of which is rare."""
    rows = [row for row in make_rows(600) if row[1] != "game"]
    rare = [row for row in make_rows(600) if row[1] == "game"][:30]
    data = Recipe.load(base="x", test=0.2, folds=0).data
    return divide(read_labeled(str(write_csv(tmp_path / "rows.csv", [*rows, *rare])), data), data)


def test_rows_are_cut_by_class_and_no_class_below_sixteen(parts: Parts) -> None:
    before = np.bincount(parts.train.labels)
    after = np.bincount(cut_training_rows(parts, 0.5).train.labels)
    for whole, cut in zip(before, after, strict=True):
        assert cut == max(round(whole / 2), min(whole, 16))


def test_smaller_cuts_are_parts_of_larger_ones_and_nothing_else_is_cut(parts: Parts) -> None:
    half, tenth = cut_training_rows(parts, 0.5), cut_training_rows(parts, 0.1)
    assert set(tenth.train.rows) <= set(half.train.rows) <= set(parts.train.rows)
    assert parts.test is not None
    assert half.test is not None
    np.testing.assert_array_equal(half.test.rows, parts.test.rows)
    np.testing.assert_array_equal(half.test.labels, parts.test.labels)
    np.testing.assert_array_equal(half.selection_part.rows, parts.selection_part.rows)
    assert len(half.train.source) == len(half.train), "nothing is computed for the rows that are left out"


def test_what_is_smaller_is_said_in_sentences(parts: Parts) -> None:
    recipe = Recipe.load("finetune", base="x", epochs=4, further_pretraining="objective=mlm;epochs=10;batch_size=16")
    job = Job(recipe, parts, None, "key", None)  # type: ignore[arg-type]
    sized = SizedJobs({"further-finetune": [job]}, [parts])
    assert sized.describe(Trial("further-finetune", 0), None) == []
    assert sized.job(Trial("further-finetune", 0)) is job
    trial = Trial("further-finetune", 0, None, Size(0.5, 0.1, 0.5))
    rows = len(sized.parts(trial).train)
    assert sized.parts(trial) is sized.parts(trial), "they are cut once"
    assert sized.describe(trial, "the time was up at step 3 of 9") == [
        f"Only {rows:,} of the {len(parts.train):,} training rows were used.",
        "Further pretraining had 1 pass over the texts in place of 10.",
        "The classifier was trained for 2 in place of 4 epochs.",
        "Training was stopped: the time was up at step 3 of 9.",
    ]
    assert sized.job(trial).recipe.training.epochs == 2
    assert sized.describe(Trial("tfidf", 0, None, Size(0.5)), None) == [
        f"Only {rows:,} of the {len(parts.train):,} training rows were used."
    ]
