"""Baselines beside the scores of a run: same rows, bounded work, no weight changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import dataset, recipe

from fullbake import Classifier, adapt
from fullbake.classifier import baseline_scores
from fullbake.classifier.baseline_scores import bounded, compare_with_baselines, score_baselines
from fullbake.classifier.bundle_writer import model_card
from fullbake.config.sections import DataConfig, DecisionConfig
from fullbake.data.dataset import Dataset
from fullbake.data.splits import divide

Bases = Callable[..., Path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("rows"))


def test_both_baselines_are_scored_on_the_parts_of_the_run(rows: Dataset) -> None:
    parts = divide(rows, DataConfig(test=0.3, folds=0))
    found = score_baselines(parts, DecisionConfig())
    assert found["train_rows"] == found["rows"] == len(parts.train)
    for name in ("majority", "tfidf"):
        assert set(found[name]) - {"chosen"} == {"validation", "test"}
        assert all(0 <= value <= 1 for part in ("validation", "test") for value in found[name][part].values())
    assert found["tfidf"]["test"]["f1_macro"] > found["majority"]["test"]["f1_macro"]
    assert set(found["tfidf"]["chosen"]) == {"features", "strength"}


def test_under_folds_each_row_is_scored_by_a_baseline_that_did_not_see_it(rows: Dataset) -> None:
    parts = divide(rows, DataConfig(folds=3))
    found = score_baselines(parts, DecisionConfig())
    assert set(found["tfidf"]) == {"validation", "chosen"}
    counts = np.bincount(parts.train.labels)
    assert found["majority"]["validation"]["accuracy"] <= counts.max() / counts.sum()


def test_many_rows_are_bounded_and_keep_their_shares(rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = divide(rows, DataConfig(folds=0))
    monkeypatch.setattr(baseline_scores, "MOST_ROWS", 24)
    part = bounded(parts.train)
    assert abs(len(part) - 24) <= 2
    assert set(part.labels) == set(parts.train.labels)
    assert set(part.indices) <= set(parts.train.indices)


def facts(own: float | None, tfidf: float, part: str = "test") -> dict[str, Any]:
    scores = {part: {"f1_macro": tfidf}}
    return {
        "metrics": {part: {"overall": {"f1_macro": {"value": own}}}},
        "baselines": {"tfidf": scores, "majority": {part: {"f1_macro": 0.1}}},
    }


def test_a_classifier_that_is_not_above_a_baseline_gets_a_sentence() -> None:
    sentence = compare_with_baselines(facts(0.034, 0.81))
    assert sentence is not None
    assert "TF-IDF and logistic regression on the test rows: macro-F1 0.0340 against 0.8100" in sentence
    assert "validation" in (compare_with_baselines(facts(0.5, 0.5, "validation")) or "")
    assert compare_with_baselines(facts(0.82, 0.81)) is None
    assert compare_with_baselines(facts(None, 0.81)) is None
    assert compare_with_baselines({"metrics": {}}) is None


@pytest.fixture(scope="module")
def pair(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Classifier]:
    """The same run without and with baselines."""
    folder = tmp_path_factory.mktemp("pair")
    own, source = recipe(bases("bert")), dataset(folder)
    plain, beside = (adapt(own, source, cache_dir=folder / "cache", baseline=baseline) for baseline in (False, True))
    return plain, beside


def test_baselines_change_no_bit_of_the_weights(pair: tuple[Classifier, Classifier]) -> None:
    plain, beside = (classifier.network.state_dict() for classifier in pair)
    assert all(plain[name].equal(beside[name]) for name in plain)
    assert "baselines" not in pair[0].record.facts


def test_the_bundle_and_the_model_card_tell_them(pair: tuple[Classifier, Classifier], tmp_path: Path) -> None:
    pair[1].save(tmp_path / "m")
    stored = Classifier.load(tmp_path / "m").record.facts
    assert stored["baselines"] == pair[1].record.facts["baselines"]
    assert "| TF-IDF and logistic regression | validation |" in (tmp_path / "m" / "README.md").read_text("utf-8")
    assert "TF-IDF" not in model_card(_without(stored))


def _without(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name != "baselines"}
