from typing import Any

import numpy as np
import pytest
from rows import dataset
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, roc_auc_score

from fullbake.comparison.verdict import Scored, Truth, compare_all, describe, disputed
from fullbake.config.problems import problem_of
from fullbake.config.sections import DataConfig
from fullbake.data.splits import Part, divide
from fullbake.evaluation.decisions import probabilities

SEEDS = 3


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Test rows of three classes."""
    config = DataConfig(text="text", label="label", test=0.5, folds=0)
    test = divide(dataset(tmp_path_factory.mktemp("rows"), 120), config).test
    assert test is not None
    return test


@pytest.fixture
def truth(part: Part) -> Truth:
    return Truth([part], "f1_macro", None)


def scored(part: Part, name: str, sharpness: float, *, seconds: float = 1.0, **given: Any) -> Scored:
    """Logits that favour the right class by `sharpness`, in noise of each seed's own."""
    drawn = np.random.default_rng(len(name))
    logits = drawn.normal(size=(SEEDS, len(part), 3)).astype(np.float32)
    logits[:, np.arange(len(part)), part.labels] += sharpness
    return Scored(name, name.title(), given.pop("baseline", False), logits, logits.argmax(-1), seconds, **given)


def test_figures_are_scikit_learns_seed_by_seed(part: Part, truth: Truth) -> None:
    one = scored(part, "one", 1.5)
    test = describe(one, truth)["test"]
    chances = np.stack([probabilities(own, problem_of(part.labels)) for own in one.logits])
    expected = {
        "f1_macro": [f1_score(part.labels, own, average="macro") for own in one.decided],
        "accuracy": [accuracy_score(part.labels, own) for own in one.decided],
        "log_loss": [log_loss(part.labels, own) for own in chances],
        "roc_auc": [roc_auc_score(part.labels, own, multi_class="ovr") for own in chances],
    }
    for name, values in expected.items():
        assert test[name]["seeds"] == pytest.approx(values, rel=1e-5), name
        assert test[name]["mean"] == pytest.approx(np.mean(values), rel=1e-5)
    assert test["f1_macro"]["low"] < test["f1_macro"]["mean"] < test["f1_macro"]["high"] <= 1
    assert test["roc_auc"]["low"] is None
    assert "the metric that decides" in test["roc_auc"]["reason"]


def test_the_confusions_are_those_of_the_seed_nearest_the_median(part: Part, truth: Truth) -> None:
    one = scored(part, "one", 1.0)
    values = [f1_score(part.labels, own, average="macro") for own in one.decided]
    middle = int(np.argsort(values)[1])
    assert one.nearest(truth) == middle
    found = describe(one, truth)
    assert found["confusion"] == confusion_matrix(part.labels, one.decided[middle]).tolist()
    assert sum(map(sum, found["confusion"])) == len(part)


def test_a_curve_is_drawn_where_one_class_is_looked_for(part: Part, truth: Truth) -> None:
    one = scored(part, "one", 1.0)
    assert describe(one, truth)["threshold_curve"] is None
    curve = describe(one, Truth([part], "f1_macro", 1))["threshold_curve"]
    assert curve["label"] == part.source.label_names[1]


def test_the_better_one_wins_and_seeds_without_luck_pair_with_each(part: Part, truth: Truth) -> None:
    good, bad = scored(part, "good", 4.0), scored(part, "worse", 0.2)
    steady = Scored("steady", "Steady", False, bad.logits[:1], bad.decided[:1], 0.1, copies=SEEDS)
    verdict = compare_all([good, bad, steady], truth)
    assert (verdict.best, verdict.recommended) == ("good", "good")
    assert [pair.detectable for pair in verdict.pairs] == [True, True, False]
    assert steady.resampled(truth).points.shape == (SEEDS,)
    assert "macro F1" in verdict.words[0]


def test_alike_recipes_are_not_told_apart_and_the_cheaper_is_taken(part: Part, truth: Truth) -> None:
    one, other = scored(part, "one", 2.0, seconds=9.0), scored(part, "two", 2.0, seconds=2.0)
    verdict = compare_all([one, other], truth)
    assert not verdict.pairs[0].detectable
    assert verdict.recommended == "two"


def test_rows_that_recipes_judge_differently_come_with_text_and_answers(part: Part, truth: Truth) -> None:
    one, two = scored(part, "one", 2.0), scored(part, "three", 1.0)
    base = scored(part, "majority", 0.0, baseline=True)
    found = disputed([one, two, base], truth)
    names, places = part.source.label_names, {int(row): place for place, row in enumerate(part.rows)}
    texts = part.whole_texts.to_pylist()
    assert found
    for entry in found:
        place = places[entry["row"]]
        assert entry["text"] == texts[place]
        assert entry["label"] == names[part.labels[place]]
        assert set(entry["predictions"]) == {"one", "three"}, "baselines have no say"
        assert entry["predictions"]["one"] == names[one.decided[one.nearest(truth)][place]]
        assert entry["predictions"]["one"] != entry["predictions"]["three"]


def test_an_undefined_figure_is_null_with_its_reason(part: Part) -> None:
    only = part.without(np.flatnonzero(part.labels != 0))
    figure = describe(scored(only, "one", 1.0), Truth([only], "accuracy", None))["test"]["roc_auc"]
    assert figure["mean"] is None
    assert figure["reason"]
