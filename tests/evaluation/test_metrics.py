"""Every metric's record serves scoring, selection, bootstrap, verdict and tables; a new metric needs nothing else."""

import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset
from rich.console import Console
from sklearn.metrics import cohen_kappa_score

from fullbake import Recipe, adapt, compare
from fullbake.cli.tables import scores_table
from fullbake.comparison.verdict import RecipePredictions, SharedTestRows, decide_from_predictions, describe_test_scores
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType, problem_named
from fullbake.config.sections import DataConfig
from fullbake.core.errors import DataError, RecipeError
from fullbake.data.splits import Part, divide
from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.metrics import (
    METRICS,
    Definition,
    Metric,
    check_metric,
    metric_phrase,
    metric_title,
    score,
    selection_metrics,
    selection_score,
    validation_scores,
)
from fullbake.evaluation.scores import Case

EVERY_DEFINITION = [(name, problem_type) for name, metric in METRICS.items() for problem_type in metric.definitions]


def rows(problem_type: ProblemType, number: int = 60, seeds: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels of three classes, all of which occur, and logits (seeds, rows, 3) that know something of them."""
    random = np.random.default_rng(0)
    if problem_type == SINGLE_LABEL:
        labels = np.arange(number) % 3
        return labels, random.normal(size=(seeds, number, 3)) + 1.5 * np.eye(3)[labels]
    labels = (random.random((number, 3)) < 0.4).astype(np.uint8)
    return labels, random.normal(size=(seeds, number, 3)) + 2.0 * labels - 1.0


def shown(result: dict[str, object]) -> str:
    text = StringIO()
    Console(width=200, file=text).print(scores_table(result))
    return text.getvalue()


# Every metric of the registry


@pytest.mark.parametrize(("name", "problem_type"), EVERY_DEFINITION)
def test_every_reported_metric_has_a_score_in_its_range_and_a_row_in_the_table(
    name: str, problem_type: ProblemType
) -> None:
    labels, (logits, _) = rows(problem_type)
    result = score(labels, problem_named(problem_type).probabilities(logits), ["a", "b", "c"])
    assert (name in result["overall"]) == METRICS[name].reported
    if METRICS[name].reported:
        low, high = METRICS[name].range
        assert low <= result["overall"][name]["value"] <= high
        assert METRICS[name].title in shown(result)


@pytest.mark.parametrize(("name", "problem_type"), EVERY_DEFINITION)
def test_validation_chooses_by_the_metrics_that_select_and_no_others(name: str, problem_type: ProblemType) -> None:
    labels, (logits, _) = rows(problem_type)
    probabilities = problem_named(problem_type).probabilities(logits)
    if not METRICS[name].selects:
        with pytest.raises(RecipeError, match=f"validation cannot choose by {name}"):
            selection_score(name, labels, probabilities)
        return
    low, high = METRICS[name].range
    assert low <= selection_score(name, labels, probabilities) <= high
    assert METRICS[name].higher_is_better
    assert set(validation_scores(logits, labels, name)) == {"validation_loss", name}
    check_metric(name)
    check_metric(name, problem_type)


@pytest.mark.parametrize(("name", "problem_type"), EVERY_DEFINITION)
def test_bootstrap_on_the_rows_themselves_equals_the_plain_function(name: str, problem_type: ProblemType) -> None:
    metric, problem = METRICS[name], problem_named(problem_type)
    labels, logits = rows(problem_type)
    probabilities = np.stack([problem.probabilities(own) for own in logits])
    predicted = np.stack([problem.decide(own) for own in probabilities])
    read = probabilities if metric.reads == "probabilities" else predicted
    found = resample(read, labels, name, draws=30)
    compute = metric.definitions[problem_type].compute
    plain = [
        compute(Case(problem, *as_case(problem_type, labels, own, decided)))
        for own, decided in zip(probabilities, predicted, strict=True)
    ]
    assert found.points == pytest.approx(plain, rel=1e-12)
    low, high = metric.range
    assert ((found.draws >= low) & (found.draws <= high)).all()


def as_case(
    problem_type: ProblemType, labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    names = ["a", "b", "c"]
    if problem_type == MULTI_LABEL:
        return labels == 1, probabilities, predicted == 1, names
    return labels, probabilities, predicted, names


@pytest.mark.parametrize(("name", "problem_type"), EVERY_DEFINITION)
def test_fast_bootstrap_equals_calling_the_plain_function_on_each_draw(
    name: str, problem_type: ProblemType, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, problem = METRICS[name], problem_named(problem_type)
    labels, logits = rows(problem_type)
    read = np.stack([problem.probabilities(own) for own in logits])
    if metric.reads == "predictions":
        read = np.stack([problem.decide(own) for own in read])
    fast = resample(read, labels, name, draws=20)
    slow_only = {kind: replace(definition, resample=None) for kind, definition in metric.definitions.items()}
    monkeypatch.setitem(METRICS, name, replace(metric, definitions=slow_only))
    slow = resample(read, labels, name, draws=20)
    assert fast.points == pytest.approx(slow.points, rel=1e-12)
    assert fast.draws == pytest.approx(slow.draws, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_title_a_phrase_and_a_meaning(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric_title(name)
    assert metric_phrase(name)
    assert all(definition.meaning for definition in metric.definitions.values())


def test_a_loss_cannot_select() -> None:
    with pytest.raises(ValueError, match="log_loss: validation takes the highest value"):
        replace(METRICS["log_loss"], selects=True)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [("f1_macro", "macro F1"), ("accuracy", "accuracy"), ("neg_log_loss", "minus log loss"), ("own", "own")],
)
def test_phrase_of_a_metric_within_a_sentence(name: str, phrase: str) -> None:
    assert metric_phrase(name) == phrase


# A metric that is not in the registry yet


def kappa(case: Case) -> float:
    """Cohen's kappa, in the plainest form."""
    expected = (case.support * case.claimed).sum() / len(case.labels) ** 2
    return float(((case.labels == case.predicted).mean() - expected) / (1 - expected))


KAPPA = Metric(
    name="cohen_kappa_score",
    title="kappa",
    phrase="Cohen's kappa",
    definitions={SINGLE_LABEL: Definition("agreement beyond chance", kappa)},
    range=(-1.0, 1.0),
)


@pytest.fixture
def new_metric(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(METRICS, KAPPA.name, KAPPA)
    return KAPPA.name


@pytest.fixture
def part(tmp_path: Path) -> Part:
    test = divide(dataset(tmp_path, 120), DataConfig(text="text", label="label", test=0.5, folds=0)).test
    assert test is not None
    return test


def test_one_record_is_all_that_scoring_selection_and_tables_need(new_metric: str) -> None:
    labels, (logits, _) = rows(SINGLE_LABEL)
    probabilities = problem_named(SINGLE_LABEL).probabilities(logits)
    expected = cohen_kappa_score(labels, probabilities.argmax(axis=1))
    result = score(labels, probabilities, ["a", "b", "c"])
    assert result["overall"][new_metric]["value"] == pytest.approx(expected)
    assert "kappa" in shown(result)
    check_metric(new_metric)
    check_metric(new_metric, SINGLE_LABEL)
    assert selection_score(new_metric, labels, probabilities) == pytest.approx(expected)
    assert validation_scores(logits, labels, new_metric)[new_metric] == pytest.approx(expected)


def test_one_record_is_all_that_a_verdict_needs(new_metric: str, part: Part) -> None:
    random = np.random.default_rng(0)
    shared = SharedTestRows([part], new_metric, None)
    recipes = []
    for name, sharpness in (("good", 4.0), ("bad", 0.2)):
        logits = random.normal(size=(2, len(part), 3)).astype(np.float32)
        logits[:, np.arange(len(part)), part.labels] += sharpness
        recipes.append(RecipePredictions(name, name.title(), False, logits, logits.argmax(-1), 1.0))
    verdict = decide_from_predictions(recipes, shared)
    assert verdict.best == "good"
    assert "Good scored highest: Cohen's kappa" in verdict.words[0]
    described = describe_test_scores(recipes[1], shared)["test"][new_metric]
    expected = [cohen_kappa_score(part.labels, own) for own in recipes[1].decided]
    assert described["seeds"] == pytest.approx(expected)
    assert -1 <= described["low"] < described["mean"] < described["high"] <= 1


# Names that do not fit


def test_unknown_metric_is_refused_with_the_nearest_name_before_labels_are_known() -> None:
    with pytest.raises(
        RecipeError, match=r"metric: there is no such metric[\s\S]*Here it is called 'f1_macro'"
    ) as caught:
        check_metric("f1-macro")
    assert all(name in str(caught.value) for name in selection_metrics())


def test_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="'f1_macro'"):
        selection_score("f1-macro", np.array([0, 1]), np.eye(2))


def test_metric_without_meaning_for_the_problem_is_refused_with_those_that_have() -> None:
    with pytest.raises(RecipeError, match=r"matthews_corrcoef has no meaning for multi_label[\s\S]*f1_samples"):
        check_metric("matthews_corrcoef", MULTI_LABEL)
    with pytest.raises(RecipeError, match="f1_samples has no meaning for single_label"):
        selection_score("f1_samples", np.array([0, 1]), np.eye(2))


def test_selecting_by_an_undefined_metric_is_an_error_that_says_why() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    with pytest.raises(DataError, match="roc_auc is undefined on the validation rows: every row is labeled 'ham'"):
        selection_score("roc_auc", np.array([0, 0]), probabilities, ["ham", "spam"])
    assert selection_score("f1_macro", np.array([0, 0]), probabilities) == 1.0
    with pytest.raises(DataError, match="undefined"):
        selection_score("roc_auc", np.zeros((3, 2), np.uint8), np.zeros((3, 2)))


# What it loads


def test_scoring_loads_neither_scikit_learn_nor_scipy_nor_torch() -> None:
    code = """
import sys
import numpy as np
from fullbake.evaluation import metrics
one = np.array([[0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
for labels in (np.array([1, 0, 1]), np.array([[1, 0], [0, 1], [1, 1]])):
    metrics.score(labels, one, ["a", "b"])
    for name in metrics.selection_metrics("multi_label_classification" if labels.ndim == 2 else None):
        if labels.ndim == 2 or name != "f1_samples":
            metrics.selection_score(name, labels, one)
print(sorted({"sklearn", "scipy", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_metric_is_refused_before_the_base_or_the_data_are_read(tmp_path: Path) -> None:
    missing = {"base": "no-such-base", "metric": "f1_makro"}
    with pytest.raises(RecipeError, match="'f1_macro'"):
        adapt(Recipe.load("frozen-linear", **missing), tmp_path / "no-such.csv", out=tmp_path / "bundle")
    with pytest.raises(RecipeError, match="'f1_macro'"):
        compare(tmp_path / "no-such.csv", ("frozen-linear",), out=tmp_path / "comparison", **missing)
    assert not list(tmp_path.iterdir())
