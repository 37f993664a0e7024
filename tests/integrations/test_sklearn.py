"""FullbakeClassifier and FullbakeFeatures keep scikit-learn's contract."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers.bases import WORDS
from helpers.rows import make_rows
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from fullbake.config.recipe import Recipe, leaf_fields
from fullbake.core.errors import BundleError, DataError, RecipeError
from fullbake.integrations.sklearn import FIELDS_BY_WAY, FILE_FIELDS, FullbakeClassifier, FullbakeFeatures
from fullbake.integrations.text_input import TextColumns

SHORT = {"way": "frozen", "head": "linear", "max_length": 32, "validation": 0.25}


def rows(count: int = 60, classes: int = 3) -> tuple[list[str], list[str]]:
    made = make_rows(count, classes)
    return [text for text, _ in made], [label for _, label in made]


class NumbersAsTexts(FullbakeClassifier):
    """The classifier under scikit-learn's own checks, which pass numbers: each number becomes a word of a text."""

    folder: ClassVar[str] = ""

    def _read(self, X: Any, *, reset: bool) -> TextColumns:  # noqa: N803
        numbers = validate_data(self, X, reset=reset)
        bins = np.floor(numbers * 4).astype(int) % 40
        words = [[WORDS[(41 * column + value) % len(WORDS)] for column, value in enumerate(row)] for row in bins]
        return TextColumns([" ".join(row) for row in words], None, numbers)

    def to_recipe(self) -> Recipe:
        return super().to_recipe().with_fields(base=self.folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = False, False, True
        return tags


EXPECTED_FAILURES = {
    "check_methods_subset_invariance": "the base computes in float32, and batches of other lengths differ by rounding: "
    "probabilities by about 1e-6, where the check allows 1e-7",
}


@pytest.fixture(scope="module", autouse=True)
def _base_of_checks(bases: Callable[..., Path]) -> None:
    NumbersAsTexts.folder = str(bases("bert"))


@pytest.mark.slow
@parametrize_with_checks(
    [NumbersAsTexts("tiny", way="frozen", head="linear", max_length=32, near_duplicates="apart", folds=0)],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_sklearns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_expected_failures_are_explained_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "use-from-scikit-learn.md").read_text("utf-8")
    assert [name for name in EXPECTED_FAILURES if f"`{name}`" not in page] == []


# Parameters


def test_parameters_are_the_fields_of_a_recipe() -> None:
    defaults = {name: field.default for name, (_, field) in leaf_fields().items() if name not in FILE_FIELDS}
    defaults |= dict.fromkeys((*FIELDS_BY_WAY, "search_metric"), None) | {"base": "demo"}
    assert FullbakeClassifier().get_params() == defaults | {"cache_dir": None, "verbose": False}
    own = {"base", "pooling", "max_length", "prompt", "truncation", "stride", "window_pooling", "token_budget"}
    shared = {name: defaults[name] for name in own | {"cache_precision"}}
    assert FullbakeFeatures().get_params() == shared | {"cache_dir": None, "verbose": False}


@pytest.mark.parametrize(
    "chosen", [{}, {"way": "frozen"}, *({"way": "frozen", "head": kind} for kind in ("linear", "mlp", "standard"))]
)
def test_unchanged_parameters_mean_the_shipped_recipe(chosen: dict[str, str]) -> None:
    assert FullbakeClassifier(**chosen).to_recipe() == Recipe.load(base="demo", **chosen)


def test_every_field_whose_default_depends_on_the_way_is_listed() -> None:
    plain = Recipe(base="demo").model_dump()
    for name in ("finetune", "frozen", "frozen-linear", "frozen-mlp", "frozen-standard"):
        for section in ("training", "tokens", "data", "decision"):
            shipped = Recipe.load(name, base="demo").model_dump()[section]
            assert {field for field, value in shipped.items() if value != plain[section][field]} <= set(FIELDS_BY_WAY)


@pytest.mark.parametrize("name", ["finetune", "frozen", "frozen-linear", "frozen-mlp", "devlin2019"])
def test_recipes_become_parameters_and_back(name: str) -> None:
    made = FullbakeClassifier.from_recipe(name, base="demo", cache_dir="somewhere")
    assert made.to_recipe() == Recipe.load(name, base="demo")
    assert made.cache_dir == "somewhere"  # type: ignore[attr-defined]
    assert clone(made).get_params() == made.get_params()


def test_parameters_have_the_rules_of_a_recipe() -> None:
    assert FullbakeClassifier(metric="accuracy").to_recipe().training.search_metric == "accuracy"
    assert FullbakeClassifier(epochs=np.int64(5)).to_recipe().training.min_steps == 0
    assert FullbakeClassifier(max_grad_norm="none").to_recipe().training.max_grad_norm is None
    with pytest.raises(RecipeError, match="dropout"):
        FullbakeClassifier(dropout=3, way="forzen").to_recipe()
    with pytest.raises(RecipeError, match="validation"):
        FullbakeClassifier(validation=None).to_recipe()


def test_a_recipe_that_no_parameters_can_say_is_refused() -> None:
    with pytest.raises(RecipeError, match="patience"):
        FullbakeClassifier.from_recipe(Recipe.load("frozen-mlp", base="demo").with_fields(patience=None))


# Texts and labels


@pytest.fixture(scope="module")
def options(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return SHORT | {"base": str(bases("bert")), "cache_dir": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def fitted(options: dict[str, Any]) -> FullbakeClassifier:
    return FullbakeClassifier(**options).fit(*rows())


def test_fit_predict_and_score(fitted: FullbakeClassifier) -> None:
    texts, labels = rows()
    probabilities = fitted.predict_proba(texts)
    assert fitted.classes_.tolist() == ["food", "game", "money"]
    assert probabilities.shape == fitted.decision_function(texts).shape == (60, 3)
    assert np.array_equal(fitted.predict(texts), fitted.classes_[probabilities.argmax(axis=1)])
    assert fitted.score(texts, labels) > 0.6
    assert fitted.n_features_in_ == 1


def test_int_labels_of_two_classes_give_one_decision(options: dict[str, Any]) -> None:
    texts, labels = rows(40, 2)
    numbers = np.array([7 if label == "food" else -3 for label in labels])
    made = FullbakeClassifier(**options).fit(np.array(texts), numbers)
    assert made.classes_.tolist() == [-3, 7]
    assert np.array_equal(made.predict(texts), made.classes_[(made.decision_function(texts) > 0).astype(int)])
    assert made.predict(texts).dtype == numbers.dtype


def test_data_frames_pairs_and_many_labels(options: dict[str, Any]) -> None:
    texts, labels = rows()
    frame = pd.DataFrame({"one": texts, "other": texts[::-1]})
    target = pd.DataFrame({"food": [label == "food" for label in labels], "long": [len(text) > 90 for text in texts]})
    made = FullbakeClassifier(**options).fit(frame, target)
    assert made.classes_.tolist() == ["food", "long"]
    assert made.feature_names_in_.tolist() == ["one", "other"]
    assert made.predict(frame).shape == made.decision_function(frame).shape == (60, 2)
    assert 0 <= made.score(frame, sparse.csr_array(target.astype(int).to_numpy())) <= 1
    with pytest.raises(ValueError, match="feature"):
        made.predict(frame[["one"]])


def test_groups_stay_together_and_rare_classes_are_left_out(options: dict[str, Any]) -> None:
    texts, labels = rows(61)
    made = FullbakeClassifier(**options | {"drop_rare": 3})
    made.fit([*texts], [*labels[:-1], "rare"], groups=np.arange(61) // 2)
    assert made.classes_.tolist() == ["food", "game", "money"]
    assert made.classifier_.record.facts["data"]["groups"]["train"] is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": [1.0, 2.0]}, "X holds no texts"),
        ({"y": None}, "y is None"),
        ({"y": ["a"] * 60}, "only one class"),
        ({"y": ["a", "b"]}, "inconsistent numbers of samples"),
        ({"groups": [1, 2]}, "inconsistent numbers of samples"),
    ],
)
def test_wrong_rows_are_value_errors(options: dict[str, Any], change: dict[str, Any], words: str) -> None:
    texts, labels = rows()
    with pytest.raises(ValueError, match=words):
        FullbakeClassifier(**options).fit(**{"X": texts, "y": labels} | change)


def test_wrong_parameters_are_data_errors_and_value_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="dropout") as caught:
        FullbakeClassifier(**options, dropout=7).fit(*rows())
    assert isinstance(caught.value, DataError)


def test_weights_and_unknown_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="class_weights"):
        FullbakeClassifier(**options).fit(*rows(), sample_weight=np.ones(60))
    with pytest.raises(TypeError, match="no such argument"):
        FullbakeClassifier(**options).fit(*rows(), epochs=3)


def test_unfitted_estimators_say_so(options: dict[str, Any]) -> None:
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(FullbakeClassifier(**options), method)(["a"])


# Within scikit-learn


def test_pickle_and_joblib_carry_the_bundle(fitted: FullbakeClassifier, tmp_path: Path) -> None:
    texts = rows()[0][:5]
    expected = fitted.predict_proba(texts)
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    assert np.allclose(again.predict_proba(texts), expected, atol=1e-6)
    joblib.dump(again, tmp_path / "fitted.joblib")
    loaded = joblib.load(tmp_path / "fitted.joblib", mmap_mode="r")
    assert np.allclose(loaded.predict_proba(texts), expected, atol=1e-6)
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    assert b"torch" not in pickle.dumps(FullbakeClassifier())


def test_a_changed_pickle_does_not_load(fitted: FullbakeClassifier) -> None:
    state = fitted.__getstate__()
    assert set(state["bundle"]["files"]) >= {"model.safetensors", "fullbake.json", "tokenizer.json"}
    state["bundle"]["files"]["model.safetensors"][-1] ^= 1
    with pytest.raises(BundleError):
        FullbakeClassifier().__setstate__(state)


@pytest.mark.slow
def test_searches_predictions_of_folds_and_ensembles(options: dict[str, Any]) -> None:
    texts, labels = rows()
    plain = FullbakeClassifier(**options)
    search = GridSearchCV(make_pipeline(FunctionTransformer(), plain), {"fullbakeclassifier__seed": [0, 1]}, cv=2)
    assert search.fit(texts, labels).score(texts, labels) > 0.5
    assert cross_val_predict(plain, texts, labels, cv=2, method="predict_proba").shape == (60, 3)
    calibrated = CalibratedClassifierCV(plain, cv=2).fit(texts, labels)
    assert calibrated.predict(texts[:2]).shape == (2,)
    features = make_pipeline(FullbakeFeatures(plain.base, cache_dir=plain.cache_dir), LogisticRegression())  # type: ignore[attr-defined]
    stacked = StackingClassifier([("ours", plain), ("theirs", features)], LogisticRegression(), cv=2)
    assert stacked.fit(texts, labels).predict_proba(texts[:2]).shape == (2, 3)


# Features


def test_features_go_in_front_of_any_estimator(options: dict[str, Any]) -> None:
    texts, labels = rows()
    features = FullbakeFeatures(options["base"], cache_dir=options["cache_dir"])
    model = make_pipeline(features, StandardScaler(), LogisticRegression(max_iter=1000)).fit(texts, labels)
    assert model.score(texts, labels) > 0.8
    assert cross_val_predict(model, texts, labels, cv=2).shape == (60,)
    assert features.get_feature_names_out()[0] == "fullbakefeatures0"
    assert pickle.loads(pickle.dumps(features)).transform(texts[:2]).shape == (2, 32)  # noqa: S301
    frame = clone(features).set_output(transform="pandas").fit_transform(texts)
    assert frame.shape == (60, 32)


def test_features_need_no_fit_and_are_those_of_training(options: dict[str, Any], fitted: FullbakeClassifier) -> None:
    texts = rows()[0]
    features = FullbakeFeatures(options["base"], max_length=32, cache_dir=options["cache_dir"])
    vectors = np.column_stack([features.transform(texts), np.ones(60)]).astype(np.float64)
    logits = fitted.decision_function(texts)
    # The classifier's logits are a linear map of these features.
    fit, *_ = np.linalg.lstsq(vectors, logits, rcond=None)
    assert np.abs(vectors @ fit - logits).max() < 1e-3 * np.abs(logits).max()


def test_truncation_auto_has_nothing_to_choose_by(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="auto needs labels"):
        FullbakeFeatures(options["base"], truncation="auto", cache_dir=options["cache_dir"]).fit(["a text"])


def test_pairs_have_features_too(options: dict[str, Any]) -> None:
    features = FullbakeFeatures(options["base"], cache_dir=options["cache_dir"])
    one, other = features.fit_transform([("a b", "c"), ("a", "b c")])
    assert not np.allclose(one, other)
