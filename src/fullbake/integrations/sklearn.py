"""scikit-learn: a classifier and a transformer that work in its pipelines, searches and ensembles.

    from fullbake.integrations.sklearn import FullbakeClassifier

    GridSearchCV(FullbakeClassifier("demo", way="frozen"), {"head": ["linear", "mlp"]}).fit(texts, labels)

Parameters are the recipe's fields by their names. scikit-learn reads them from the signature of `__init__`, so they are
written out there; a test compares them with the recipe. A fitted estimator is pickled as its bundle (`packed_bundle`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from fullbake.classifier.adapt import adapt
from fullbake.classifier.model import Classifier
from fullbake.config.recipe import FIELDS, Recipe, as_recipe
from fullbake.core.console import silenced
from fullbake.core.errors import RecipeError
from fullbake.integrations.packed_bundle import pack_bundle, unpack_bundle
from fullbake.integrations.text_input import TextColumns, as_dataset, as_value_errors, read_target, read_text_columns
from fullbake.integrations.text_vectors import text_vectors

FILE_FIELDS: Final = (
    *("text", "text_pair", "label", "labels", "label_separator", "exclusive", "group", "drop_unlabelled"),
    *("delimiter", "encoding", "quoting", "no_header", "json_path"),
)
"""Fields of a recipe that say how a file of rows is read. X, y and groups take their place."""

FIELDS_BY_WAY: Final = (
    *("optimizer", "learning_rate", "batch_size", "epochs", "min_steps", "schedule", "warmup", "weight_decay"),
    *("max_grad_norm", "patience"),
)
"""Fields whose default depends on the way and the head: None takes the value of the shipped recipe."""

_NO_WEIGHTS: Final = (
    "fullbake's losses weigh classes, not rows, and its splits, early stopping and calibration count every row once. "
    "Use class_weights='balanced' or class_weights={'label': 5}, or sampling='balanced'."
)


class _TextEstimator(BaseEstimator):
    """What the two estimators share: X is read as texts, and fullbake's lines are shown only if asked for."""

    def _read(self, X: Any, *, reset: bool) -> TextColumns:  # noqa: N803
        """Return the texts of X, after scikit-learn's check of the number and the names of its columns."""
        read = read_text_columns(X)
        validate_data(self, read.table, skip_check_array=True, reset=reset)
        return read

    def _parameters(self) -> dict[str, Any]:
        estimator: Any = self  # scikit-learn's methods have no types
        return dict(estimator.get_params())

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with as_value_errors(), nullcontext() if self._parameters()["verbose"] else silenced():
            yield

    def __sklearn_tags__(self) -> Any:
        above: Any = super()
        tags = above.__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # of numbers: two columns of texts are a pair
        return tags


class FullbakeClassifier(ClassifierMixin, _TextEstimator):
    """Train a text classifier by `fit`, as `fullbake train` does.

    Args:
        base: The pretrained encoder: a folder in Hugging Face format, a hub id, or `demo`.
        way: `finetune` trains the weights of the base and a head; `frozen` only a head on the base's features.
        cache_dir: Folder of the caches; None for FULLBAKE_CACHE_DIR, or the user's cache folder.
        verbose: Show fullbake's progress bars and log its lines. Warnings are logged in any case.
        **fields: The other fields of a recipe, which docs/reference/recipe.md explains. Where the default here is None
            and the recipe's is not, None takes the value of the shipped recipe for `way` and `head`.

    Attributes:
        classes_: (classes,) the labels as y has them, in the order of the columns of `predict_proba`.
        classifier_: The trained `Classifier`; `classifier_.save(folder)` writes its bundle.
        n_features_in_: 1, or 2 for pairs of texts.
        feature_names_in_: The names of the columns, where X was a pandas data frame.
    """

    def __init__(
        self,
        base: Any = "demo",
        *,
        way: Any = "finetune",
        further_pretraining: Any = None,
        head: Any = "auto",
        pooling: Any = None,
        dropout: Any = 0.15,
        layers: Any = 2,
        width: Any = None,
        l2: Any = 0.01,
        optimizer: Any = None,
        learning_rate: Any = None,
        batch_size: Any = None,
        gradient_accumulation: Any = 1,
        epochs: Any = None,
        min_steps: Any = None,
        schedule: Any = None,
        warmup: Any = None,
        weight_decay: Any = None,
        layer_decay: Any = 1.0,
        freeze_layers: Any = None,
        cache_precision: Any = "fp32",
        max_grad_norm: Any = None,
        precision: Any = "auto",
        patience: Any = None,
        loss: Any = "cross_entropy",
        focal_gamma: Any = 2.0,
        label_smoothing: Any = 0.0,
        class_weights: Any = None,
        sampling: Any = "shuffle",
        metric: Any = "f1_macro",
        search_metric: Any = None,
        seed: Any = 0,
        max_length: Any = None,
        prompt: Any = None,
        truncation: Any = "head",
        stride: Any = None,
        window_pooling: Any = "mean",
        padding: Any = "longest",
        token_budget: Any = 2048,
        drop_rare: Any = None,
        near_duplicates: Any = "together",
        validation: Any = 0.2,
        folds: Any = None,
        test: Any = None,
        split_seed: Any = 0,
        drop_overlap: Any = False,
        allow_overlap: Any = False,
        calibrate: Any = True,
        thresholds: Any = "auto",
        at_recall: Any = None,
        at_precision: Any = None,
        costs: Any = None,
        positive: Any = None,
        cache_dir: Any = None,
        verbose: Any = False,
    ) -> None:
        given = dict(locals())
        del given["self"]
        vars(self).update(given)

    @classmethod
    def from_recipe(cls, recipe: Recipe | str | Path | Mapping[str, Any], **fields: Any) -> Self:
        """Return an estimator with the fields of a recipe.

        Args:
            recipe: A recipe, or what `Recipe.load` reads: a name, a YAML file, a bundle, or fields.
            **fields: New values by name; `base` too if the recipe names none.

        Raises:
            RecipeError: The recipe is wrong, or a field cannot be said by a parameter of the estimator.
        """
        own = {name: fields.pop(name) for name in ("cache_dir", "verbose") if name in fields}
        wanted = Recipe.load(recipe, **fields) if fields or not isinstance(recipe, Recipe) else as_recipe(recipe)
        values = {name: _value_at(wanted, path) for name, path in FIELDS.items() if name not in FILE_FIELDS}
        if wanted.training.max_grad_norm is None:
            values["max_grad_norm"] = "none"
        made = cls(**values, **own)
        got = made.to_recipe()
        lost = [name for name in values if _value_at(got, FIELDS[name]) != _value_at(wanted, FIELDS[name])]
        if lost:
            raise RecipeError(
                f"{lost[0]}: no value of the parameter means what this recipe says",
                where="FullbakeClassifier.from_recipe",
                got=repr(_value_at(wanted, FIELDS[lost[0]])),
                remedy="Set the field in the recipe to a value of its own.",
            )
        return made

    def to_recipe(self) -> Recipe:
        """Return the recipe of the parameters. Those that have their default have the shipped recipe's value.

        Raises:
            RecipeError: Parameters are wrong; all wrong ones are listed.
        """
        parameters = {name: value for name, value in self._parameters().items() if name in FIELDS}
        defaults = type(self)()._parameters()
        changed = {name: value for name, value in parameters.items() if not _is_default(value, defaults[name])}
        named = {"base": parameters["base"], "way": parameters["way"]}
        recipe = Recipe.load(None, **named | {name: value for name, value in changed.items() if value is not None})
        removed = {name: None for name, value in changed.items() if value is None}
        return recipe.with_fields(**removed) if removed else recipe

    def fit(self, X: Any, y: Any, *, groups: Any = None, **refused: Any) -> Self:  # noqa: N803
        """Train on texts and their labels. The recipe's `validation` share of them chooses epoch and rate.

        Args:
            X: A list, array or column of texts; for pairs, two columns, or a list of pairs.
            y: A label in each row, of any type that can be hashed; or a matrix of 0 and 1, where a row may have many.
            groups: (rows,) values whose equal ones stay on one side of the validation split, such as users.
            **refused: Arguments of other estimators; none of them is taken.

        Returns:
            The estimator.

        Raises:
            EstimatorInputError: X, y, groups or a parameter is wrong. It is a ValueError.
            TypeError: `sample_weight` or another argument was given.
        """
        for name in refused:
            reason = _NO_WEIGHTS if name == "sample_weight" else "There is no such argument."
            raise TypeError(f"FullbakeClassifier.fit cannot take {name}. {reason}")
        with self._quiet():
            target = read_target(y)
            read = self._read(X, reset=True)
            check_consistent_length(read.texts, target.labels, groups)
            recipe = self.to_recipe().with_fields(
                text_pair=None if read.text_pair is None else "text_pair", group=None if groups is None else "group"
            )
            trained = adapt(recipe, as_dataset(read, target, groups), cache_dir=self._parameters()["cache_dir"])
        kept = [target.names.index(name) for name in trained.label_names]  # --drop-rare leaves classes out
        self.classes_: npt.NDArray[Any] = target.classes[kept]
        self._indicator_type = target.indicator_type
        self.classifier_: Classifier = trained
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Predict the label of each text, by the decision that `fit` chose.

        Args:
            X: As for `fit`.

        Returns:
            Labels as y had them (texts,); of a multi-label classifier 0 and 1, (texts, labels).
        """
        probabilities = self.predict_proba(X)
        predicted = self.classifier_.problem.predictions(self.classifier_.decision.decide(probabilities), self.classes_)
        return predicted if self.classifier_.problem.exclusive else predicted.astype(self._indicator_type)

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Compute the probability of each class, (texts, classes), in the order of `classes_`."""
        logits = self._logits(X)
        return self.classifier_.problem.probabilities(logits)

    def decision_function(self, X: Any) -> npt.NDArray[np.floating[Any]]:  # noqa: N803
        """Compute the logits (texts, classes); of two exclusive classes the second's minus the first's, (texts,).

        Thresholds, costs and recalls (`thresholds`, `costs`, `at_recall`, `at_precision`) are not in it: with these,
        `predict` decides otherwise than the sign or the largest logit.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if self.classifier_.problem.exclusive and logits.shape[1] == 2 else logits

    def _logits(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        check_is_fitted(self, "classifier_")
        with self._quiet():
            read = self._read(X, reset=False)
            logits: npt.NDArray[np.float32] = self.classifier_.logits(read.texts, read.text_pair)
        return logits

    def __sklearn_tags__(self) -> Any:
        above: Any = super()
        tags = above.__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        above: Any = super()
        state = dict(above.__getstate__())
        trained = state.pop("classifier_", None)
        return state if trained is None else state | {"bundle": pack_bundle(trained)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = {name: value for name, value in state.items() if name != "bundle"}
        above: Any = super()
        above.__setstate__(kept)
        if "bundle" in state:
            with silenced():
                self.classifier_ = unpack_bundle(state["bundle"])


class FullbakeFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _TextEstimator):
    """Turn texts into the features of a frozen base, for any estimator that takes numbers.

    Nothing is learned, so no text of a validation fold can leak. Each text is computed once for a base and settings,
    also over the folds and candidates of a search; the cache keeps the vectors.

    Args:
        base: The pretrained encoder: a folder in Hugging Face format, a hub id, or `demo`.
        pooling: How token vectors become one vector; None for what the base names, else `cls`.
        max_length: Longest input in tokens; None for the base's own.
        prompt: Text put before every text; None for the base's own.
        truncation: Which part of a longer text is read: `head`, `tail`, `head+tail` or `windows`, whose vectors are
            pooled.
        stride: Tokens that neighboring windows share; None for a quarter of `max_length`.
        window_pooling: `mean` or `max` of the vectors of windows.
        token_budget: Most tokens of one forward pass.
        cache_precision: `fp32`, or `fp16` with half the space.
        cache_dir: Folder of the caches; None for FULLBAKE_CACHE_DIR, or the user's cache folder.
        verbose: Show fullbake's progress bars and log its lines.
    """

    def __init__(
        self,
        base: Any = "demo",
        *,
        pooling: Any = None,
        max_length: Any = None,
        prompt: Any = None,
        truncation: Any = "head",
        stride: Any = None,
        window_pooling: Any = "mean",
        token_budget: Any = 2048,
        cache_precision: Any = "fp32",
        cache_dir: Any = None,
        verbose: Any = False,
    ) -> None:
        given = dict(locals())
        del given["self"]
        vars(self).update(given)

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803, ARG002
        """Compute the features of these texts for the cache, and learn nothing else than their width."""
        read = self._read(X, reset=True)
        self._n_features_out = self._vectors(read).shape[1]
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the features of texts, or of pairs, float32 (texts, width)."""
        return self._vectors(self._read(X, reset=not hasattr(self, "n_features_in_")))

    def _vectors(self, read: TextColumns) -> npt.NDArray[np.float32]:
        parameters = self._parameters()
        fields = {name: value for name, value in parameters.items() if name in FIELDS}
        with self._quiet():
            if parameters["truncation"] == "auto":
                raise RecipeError(
                    "truncation auto needs labels, by which validation chooses",
                    where="FullbakeFeatures",
                    expected="head, tail, head+tail or windows",
                    remedy="Let GridSearchCV try them, or take FullbakeClassifier.",
                )
            pair = None if read.text_pair is None else "text_pair"
            recipe = Recipe.load("frozen-linear", **fields).with_fields(text_pair=pair)
            vectors: npt.NDArray[np.float32] = text_vectors(as_dataset(read, None), recipe, parameters["cache_dir"])
        return vectors

    def __sklearn_tags__(self) -> Any:
        above: Any = super()
        tags = above.__sklearn_tags__()
        tags.requires_fit = False
        return tags


def _is_default(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _value_at(recipe: Recipe, path: tuple[str, ...]) -> Any:
    value: Any = recipe
    for name in path:
        value = getattr(value, name)
    return value
