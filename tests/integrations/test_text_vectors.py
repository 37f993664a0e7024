"""Each text is computed once, whatever selections are asked for, and lost entries are computed again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import make_rows

from fullbake.classifier.label_errors import dataset_features
from fullbake.config.recipe import Recipe
from fullbake.data.dataset import Dataset
from fullbake.integrations import text_vectors as module
from fullbake.integrations.text_input import as_dataset, read_text_columns
from fullbake.integrations.text_vectors import text_vectors


def rows(count: int = 12, start: int = 0) -> Dataset:
    return as_dataset(read_text_columns([text for text, _ in make_rows(start + count)][start:]), None)


@pytest.fixture
def recipe(bases: Callable[..., Path]) -> Recipe:
    return Recipe.load("frozen-linear", base=str(bases("bert")), max_length=32, token_budget=128)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collect the number of texts of each pass, in a process that has computed nothing yet."""
    counts: list[int] = []
    whole = module._compute

    def compute(job: Any, dataset: Dataset) -> np.ndarray:
        counts.append(len(dataset))
        return whole(job, dataset)

    monkeypatch.setattr(module, "_compute", compute)
    module._memory.clear()
    yield counts
    module._memory.clear()


def test_selections_share_what_was_computed(recipe: Recipe, tmp_path: Path, computed: list[int]) -> None:
    data = rows()
    whole = text_vectors(data, recipe, tmp_path)
    part = text_vectors(data.take([7, 2, 2]), recipe, tmp_path)
    assert np.array_equal(part, whole[[7, 2, 2]])
    text_vectors(rows(8, start=8), recipe, tmp_path)  # 4 of these 8 are new
    module._memory.clear()  # another process
    assert np.array_equal(text_vectors(data.take(np.arange(11, -1, -1)), recipe, tmp_path), whole[::-1])
    assert computed == [12, 4]


def test_they_are_the_features_of_training(recipe: Recipe, tmp_path: Path, computed: list[int]) -> None:
    data = rows()
    assert np.allclose(text_vectors(data, recipe, tmp_path), dataset_features(data, recipe, tmp_path), atol=1e-5)


def test_other_settings_and_damaged_entries_are_computed(recipe: Recipe, tmp_path: Path, computed: list[int]) -> None:
    data = rows()
    first = text_vectors(data, recipe, tmp_path)
    assert not np.allclose(text_vectors(data, recipe.with_fields(pooling="max"), tmp_path), first)
    module._memory.clear()
    for path in tmp_path.rglob("vectors.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert np.array_equal(text_vectors(data, recipe, tmp_path), first)
    assert computed == [12, 12, 12]


def test_equal_texts_pairs_and_windows(recipe: Recipe, tmp_path: Path, computed: list[int]) -> None:
    texts = ["good food " * 40, "a game", "a game"]
    windows = recipe.with_fields(truncation="windows")
    vectors = text_vectors(as_dataset(read_text_columns(texts), None), windows, tmp_path)
    assert vectors.shape == (3, 32)
    assert np.array_equal(vectors[1], vectors[2])
    pairs = as_dataset(read_text_columns([("a b", "c"), ("a", "b c"), ("a b", "c")]), None)
    one, other, again = text_vectors(pairs, recipe.with_fields(text_pair="text_pair"), tmp_path)
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert computed == [2, 2]


def test_chunks_and_half_precision(
    recipe: Recipe, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rows()
    whole = text_vectors(data, recipe, tmp_path)
    monkeypatch.setattr(module, "TEXTS_PER_ENTRY", 5)
    halves = text_vectors(data, recipe.with_fields(cache_precision="fp16"), tmp_path)
    assert computed == [12, 5, 5, 2]
    assert halves.dtype == np.float32
    assert np.allclose(halves, whole, atol=1e-2)


def test_memory_of_settings_is_bounded(recipe: Recipe, tmp_path: Path, computed: list[int]) -> None:
    for length in range(8, 16):
        text_vectors(rows(2), recipe.with_fields(max_length=length), tmp_path)
    assert len(module._memory) == 4
