"""Labels that were changed on purpose are found and listed."""

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset, make_rows, recipe, write_csv

from fullbake.classifier.label_errors import dataset_features, find_label_errors, write_label_errors
from fullbake.core.errors import OutputError, RecipeError
from fullbake.data.dataset import read_dataset

Bases = Callable[..., Path]


def clusters(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return features (rows, 3) by which the labels can be predicted."""
    random = np.random.default_rng(seed)
    return (np.eye(3)[labels] * 4 + random.normal(size=(len(labels), 3))).astype(np.float32)


def test_changed_labels_come_first(tmp_path: Path) -> None:
    data = dataset(tmp_path, 120)
    assert data.labels is not None
    features = clusters(data.labels)
    changed = np.arange(0, 120, 12)
    labels = data.labels.copy()
    labels[changed] = (labels[changed] + 1) % 3
    found = find_label_errors(replace(data, labels=labels), features)
    assert len(set(found.positions[:10]) & set(changed)) >= 8
    assert (np.diff(found.quality) >= 0).all()
    assert found.suggested[0] == (data.label_names[data.labels[found.positions[0]]],)


def test_wrong_row_of_a_label_matrix_comes_first(tmp_path: Path) -> None:
    data = dataset(tmp_path, 120)
    assert data.labels is not None
    label_matrix = np.eye(3, dtype=np.uint8)[data.labels]
    label_matrix[5] = 1 - label_matrix[5]
    found = find_label_errors(replace(data, labels=label_matrix), clusters(data.labels))
    assert found.positions[0] == 5
    assert found.suggested[0] == (data.label_names[data.labels[5]],)


def test_features_that_hardly_vary_do_not_count(tmp_path: Path) -> None:
    """Standardized, their noise would weigh as much as the other features."""
    data = dataset(tmp_path, 120)
    assert data.labels is not None
    features = clusters(data.labels)
    noise = np.random.default_rng(1).normal(size=(120, 5)).astype(np.float32) * np.float32(1e-12)
    found, other = (find_label_errors(data, values) for values in (features, np.hstack([features, noise])))
    np.testing.assert_allclose(other.quality, found.quality, rtol=1e-5)


def test_list_is_a_csv_with_row_numbers(tmp_path: Path) -> None:
    data = dataset(tmp_path, 60)
    assert data.labels is not None
    found = find_label_errors(data, clusters(data.labels))
    write_label_errors(tmp_path / "suspects.csv", data, found)
    with (tmp_path / "suspects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["row"]) for row in rows) == list(range(1, 61))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 61)]
    assert all(row["text"] == make_rows()[int(row["row"]) - 1][0] for row in rows)
    with pytest.raises(OutputError, match="already"):
        write_label_errors(tmp_path / "suspects.csv", data, found)


def test_missing_cleanlab_is_reported_with_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    data = dataset(tmp_path, 60)
    assert data.labels is not None
    with pytest.raises(RecipeError, match=r"fullbake\[suspects\]"):
        find_label_errors(data, clusters(data.labels))


def test_features_come_from_the_base_and_are_repeatable(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    data = read_dataset(source, text="text", label="label")
    features = dataset_features(data, recipe(bases("bert"), "finetune"), tmp_path)
    assert features.shape == (60, 32)
    assert np.array_equal(features, dataset_features(data, recipe(bases("bert"), "finetune"), tmp_path))
